"""What the allocator knows: sets, IOASIDs, holders, subscriptions, and the tables of them all.

An ID in its plain state (no reference beside the set's, no spid, no data, no event under way)
has no record of its own: a bit in its set and its owner's number in the ID space are all there is
of it. A `Record` is made when there is more to say and dropped when there no longer is.
"""

from collections.abc import Iterator
from typing import Final, TypeVar

from attrs import define, field

from ioasid.core._effects import Effect
from ioasid.core._messages import Data, Event, EventKind, Priority, SetState, TokenType
from ioasid.core._space import SHIFT, IdSpace, ones

__all__: list[str] = []

TIERS: Final[dict[Priority, int]] = {
    Priority.CPU: 0,
    Priority.DEVICE: 1,
    Priority.IOMMU: 2,
    Priority.LAST: 3,
}
"""The number of each priority's tier: 0 is offered an event first."""

# The hot paths use these: to CPython 3.11, a member looked up in its enum costs ten globals.
ALLOC: Final = EventKind.ALLOC
BIND: Final = EventKind.BIND
UNBIND: Final = EventKind.UNBIND
FREE: Final = EventKind.FREE
RECLAIM: Final = EventKind.RECLAIM
SET_FREE_PENDING: Final = SetState.FREE_PENDING

T = TypeVar("T")


@define(eq=False)
class Route:
    """Who matches an event of one kind and one set."""

    tiers: "tuple[dict[int, Subscription], ...]"
    """By tier, in order of subscription."""
    following: tuple[int, ...]
    """By tier: the first one from there on in which somebody matches, or `NO_TIER`."""
    holds: bool
    """Whether any of them holds what is bound."""


LAST_TIER: Final = 3
NO_TIER: Final = LAST_TIER + 1
NOBODY: Final = Route(({},) * NO_TIER, (NO_TIER,) * (NO_TIER + 1), False)


@define(eq=False)
class IoasidSet:
    """An IOASID set: the unit of ownership."""

    sid: int
    token: str | None
    token_type: TokenType
    quota: int
    system: bool = False
    allocated: int = 0
    state: SetState = SetState.ACTIVE
    members: dict[int, int] = field(factory=dict)
    """The set's IDs, a bit each, by word of the ID space."""
    records: "dict[int, Record]" = field(factory=dict)
    spids: dict[int, int] = field(factory=dict)
    subscriptions: "dict[int, Subscription]" = field(factory=dict)
    """Those of this set by sid or token; the system's match as well."""
    routes: dict[EventKind, Route] = field(factory=dict)
    routes_version: int = -1


@define(eq=False)
class Record:
    """What there is to say of an ID beyond its being allocated."""

    ioasid: int
    owner: IoasidSet
    free_pending: bool = False
    spid: int | None = None
    binding: int | None = None
    """The seq of the BIND that the spid stems from."""
    data: Data | None = None
    holders: "tuple[Holder, ...]" = ()
    """Who took references by `get`; each knows how many."""
    granted: "tuple[Holder, ...]" = ()
    """Who was granted a reference with a BIND or Resync, as often as it was; the subscriptions know
    for which binding."""
    chain: "list[Stage] | tuple[()]" = ()
    """Events that somebody has yet to be offered or to acknowledge, in seq order."""
    waiters: "dict[int, Waiter] | None" = None
    """By ticket; few records have any."""
    reclaimed: bool = False

    def is_plain(self) -> bool:
        """Tell whether nothing is left to say, so that the record can go."""
        return not (
            self.free_pending
            or self.spid is not None
            or self.data is not None
            or self.holders
            or self.granted
            or self.chain
            or self.waiters
        )


@define(eq=False)
class Stage:
    """One event of one ID on its way through the tiers."""

    event: Event
    record: Record
    binding: int | None
    """The binding that the event begins (BIND) or ends (UNBIND, FREE); a publisher's own: None."""
    reach: int = -1
    """The last tier that was offered the event, or that a later event of the ID has overtaken."""
    waiting: "dict[int, Subscription]" = field(factory=dict)
    """Who was offered the event and has not acknowledged it."""

    @property
    def ends_life(self) -> bool:
        """Tell whether this is the FREE that the quarantine waits for."""
        return self.event.kind is FREE and self.event.publisher is None


@define(eq=False)
class Lapse:
    """What a Resync stands for: it is acknowledged with the Resync."""

    folded: dict[int, Stage]
    """The staged events it replaced, by seq."""
    stale: tuple[int, ...]
    """Bindings that it no longer shows, whose grants go with its acknowledgement."""


@define(eq=False)
class Subscription:
    """A subscriber: who, of what, in which tier, and what it has yet to acknowledge."""

    number: int
    holder: "Holder"
    sid: int | None
    token: str | None
    kinds: frozenset[EventKind]
    priority: Priority
    hold: bool
    queue_size: int
    acknowledge_within: float | None
    tier: int
    attached: bool = True
    outstanding: dict[int, tuple[float, Stage | Lapse | None]] = field(factory=dict)
    """By seq, in the order of delivery: when it was offered, and what its acknowledgement ends."""
    deferred: set[int] = field(factory=set)
    resync_due: bool = False
    """It lags: everything it would be offered is folded until it comes back."""
    folded: dict[int, Stage] = field(factory=dict)
    folded_since: tuple[int, float] | None = None
    """The oldest folded message: its seq and when it was offered."""
    grants: dict[int, Record] = field(factory=dict)
    """By binding."""

    @property
    def scope(self) -> str:
        """The scope in words."""
        if self.token is not None:
            return f"token {self.token!r}"
        return "the system" if self.sid is None else f"set {self.sid}"


@define(eq=False)
class Holder:
    """A named session of a caller, or the suspended rest of one."""

    name: str
    session: int | None
    references: dict[int, int] = field(factory=dict)
    """Taken by `get`, per IOASID."""
    subscriptions: dict[tuple[int | None, str | None], Subscription] = field(factory=dict)
    """By scope: (sid, token)."""


@define(eq=False)
class Waiter:
    """A request whose answer comes when these IDs are reclaimed."""

    ticket: int
    pending: dict[int, Record] = field(factory=dict)


@define(eq=False)
class Tables:
    """The whole state, shared by the parts of the allocator; nothing else remembers anything."""

    capacity: int
    reserved: int = 0
    available: int = field(init=False)
    in_use: bool = False
    """Whether a set or reservation ever existed: from then on the capacity stands."""
    space: IdSpace = field(factory=IdSpace)
    sids: IdSpace = field(factory=IdSpace)
    sid_words: dict[int, int] = field(factory=dict)
    """The numbers of the sets, as `IoasidSet.members` has those of IDs."""
    sets: dict[int, IoasidSet] = field(factory=dict)
    tokens: dict[str, int] = field(factory=dict)
    system_sid: int | None = None
    live: int = 0
    free_pending: int = 0
    sets_free_pending: int = 0
    seq: int = 0
    now: float = 0.0
    sessions: dict[int, Holder] = field(factory=dict)
    holders: dict[str, Holder] = field(factory=dict)
    next_session: int = 1
    subscriptions: dict[int, Subscription] = field(factory=dict)
    next_subscription: int = 1
    system_subscriptions: dict[int, Subscription] = field(factory=dict)
    token_subscriptions: dict[str, dict[int, Subscription]] = field(factory=dict)
    routes_version: int = 0
    """Grows when who subscribes to the system changes: every set's routes are stale then."""
    chained: dict[int, Record] = field(factory=dict)
    """Records with a chain, by ID."""
    unsettled: dict[int, Record] = field(factory=dict)
    """Records whose chain may go on, or that may be reclaimed or dropped, since the last look."""
    lagging: dict[int, Subscription] = field(factory=dict)
    """Subscriptions with something unacknowledged."""
    waiters: dict[int, Waiter] = field(factory=dict)
    outbox: list[Effect] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Begin with everything available."""
        self.available = self.capacity

    def record(self, owner: IoasidSet, ioasid: int) -> Record:
        """Return the record of a live ID, made if there is none."""
        record = owner.records.get(ioasid)
        if record is None:
            record = owner.records[ioasid] = Record(ioasid, owner)
        return record

    def in_scope(self, subscription: Subscription) -> list[IoasidSet]:
        """Return the sets that a subscription covers now, by number."""
        if subscription.token is not None:
            sid = self.tokens.get(subscription.token)
        elif subscription.sid is not None:
            sid = subscription.sid
        else:
            return [self.sets[each] for each in sorted(self.sets)]
        return [] if sid is None else [self.sets[sid]]


def without(several: tuple[T, ...], one: T) -> tuple[T, ...]:
    """Return what is left of several when one of them goes, once if it is there more often."""
    index = several.index(one)
    return several[:index] + several[index + 1 :]


def member_words(owner: IoasidSet) -> list[tuple[int, int]]:
    """Return a set's IDs, ascending, as (the ID of a word's first bit, the word)."""
    return [(word << SHIFT, owner.members[word]) for word in sorted(owner.members)]


def ioasids_of(owner: IoasidSet) -> Iterator[int]:
    """Yield a set's IDs as they are now, ascending; it may change on the way."""
    for first, word in member_words(owner):
        for bit in ones(word):
            yield first + bit
