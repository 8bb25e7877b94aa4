"""Subscriptions: who is told, and what it has yet to acknowledge."""

from collections.abc import Iterable

from attrs import define, field

from ioasid.core._holders import Holder
from ioasid.core._ioasid_records import Record
from ioasid.core._stages import Stage
from ioasid.core._terms import EventKind, Priority

__all__: list[str] = []


@define(eq=False)
class Fold:
    """What a Resync stands for: it is acknowledged with the Resync."""

    folded: dict[int, Stage]
    """The staged events it replaced, by seq."""
    stale: tuple[int, ...]
    """Bindings that it no longer shows, whose grants go with its acknowledgement."""


@define(eq=False)
class Subscription:
    """A subscriber: who, of what, in which tier, and what it has yet to acknowledge."""

    number: int
    holder: Holder
    sid: int | None
    token: str | None
    kinds: frozenset[EventKind]
    priority: Priority
    hold: bool
    queue_size: int
    acknowledge_within: float | None
    tier: int
    awaited: bool = True
    """Whether anything waits for what it acknowledges; it is told all the same."""
    attached: bool = True
    outstanding: dict[int, tuple[float, Stage | Fold | None]] = field(factory=dict)
    """By seq, in the order of delivery: when it was offered, and what its acknowledgement ends."""
    deferred: dict[int, float] = field(factory=dict)
    """What it set aside of that, and when."""
    resync_due: bool = False
    """It lags: everything it would be offered is folded until it comes back."""
    folded: dict[int, Stage] = field(factory=dict)
    folded_since: tuple[int, float] | None = None
    """The oldest folded message: its seq and when it was offered."""
    grants: dict[int, Record] = field(factory=dict)
    """By binding."""
    unseen: set[int] = field(factory=set)
    """Bindings among them that no message has shown to the subscriber: nothing uses them."""
    listed: set[int] = field(factory=set)
    """More of the like, that the Resync which is being made will show."""
    missed: set[int] = field(factory=set)
    """Bindings among the grants whose end was folded: they go with the next Resync."""

    dealt: dict[int, Stage] = field(factory=dict)
    """Staged events that it acknowledged, by seq, and that still wait to be let go of: a part at a
    time."""
    spent: list[int] = field(factory=list)
    """Bindings whose grants go with them, descending."""
    leaving: bool = False
    """It has ended, and is here until all that it had has been let go of."""

    @property
    def in_hands(self) -> int | None:
        """The message that is, or is about to be, in its hands: the first not set aside."""
        return next((seq for seq in self.outstanding if seq not in self.deferred), None)

    @property
    def everywhere(self) -> bool:
        """Whether it covers the whole system."""
        return self.sid is None and self.token is None

    @property
    def scope(self) -> str:
        """The scope in words."""
        if self.token is not None:
            return f"token {self.token!r}"
        return "the system" if self.sid is None else f"set {self.sid}"

    def deal(self, stages: dict[int, Stage], bindings: Iterable[int]) -> None:
        """Note that it is done with these events and grants."""
        self.dealt = self.dealt | stages if self.dealt else stages
        self.spent = sorted({*self.spent, *bindings} if self.spent else bindings, reverse=True)

    def unlist(self) -> None:
        """Note that the Resync which was being made will show nothing."""
        few, many = sorted((self.unseen, self.listed), key=len)
        many |= few
        self.unseen, self.listed = many, set()

    def take_stages(self) -> dict[int, Stage]:
        """Return the staged events that it was given or would be, by seq; it has none any more."""
        taken, self.folded = self.folded, {}
        for seq, (_, entry) in self.outstanding.items():
            if isinstance(entry, Fold):
                taken = taken | entry.folded if taken else entry.folded
            elif entry is not None:
                taken[seq] = entry
        self.outstanding = {}
        return taken

    def held_stages(self) -> dict[int, Stage]:
        """Return the staged events that it has yet to acknowledge, by seq, wherever they are."""
        held = self.dealt | self.folded
        for seq, (_, entry) in self.outstanding.items():
            if isinstance(entry, Fold):
                held.update(entry.folded)
            elif entry is not None:
                held[seq] = entry
        return held
