"""The whole state as one message, and the state again from it.

What is not state is left out: callers that wait for a reclaim. Times are those of the clock that
the allocator was told, and `now` is what it showed last; whoever goes on by another clock moves
that, so that the age of a message goes on from where it was. Earlier releases wrote no times; what
they wrote counts from then on.

What there may be a million of has no message of its own: IDs are ranges and bits, and what there is
to say of them stands in columns of numbers, which are written, read and compared at once.
"""

from typing import Final, TypeAlias

from msgspec import Struct

from ioasid.core._events import Event
from ioasid.core._exports import SetExport
from ioasid.core._terms import (
    Data,
    EventKind,
    IoasidRange,
    Message,
    Priority,
    ReuseOrder,
    SetState,
    TokenType,
)

__all__ = [
    "Snapshot",
    "SnapshotFreeing",
    "SnapshotGroup",
    "SnapshotHolder",
    "SnapshotImporting",
    "SnapshotLeaving",
    "SnapshotLettingGo",
    "SnapshotLookingAgain",
    "SnapshotOffer",
    "SnapshotRange",
    "SnapshotRelisting",
    "SnapshotSet",
    "SnapshotStage",
    "SnapshotSubscription",
    "SnapshotTurning",
    "SnapshotWord",
]

VERSION: Final = 2

PART: Final = 1000
"""How many IDs a request deals with before others are served, unless told otherwise."""


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a snapshot."""


class SnapshotRange(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The IDs from `first` to `last`, both included, and their generations.

    That is `generation` of all of them, or with a `step` of 1 counts up from it, ID by ID.
    """

    first: int
    last: int
    generation: int
    step: int


class SnapshotWord(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """Some of the 1,024 IDs of a word, where one range does not say which or of what generation.

    `bits` has a bit for each ID from `first`, which is the lowest of them, little-endian.
    `generation` is the lowest, and `offsets` how far that of each is above it, as little-endian
    numbers of 4 or 8 bytes; it is empty if all are the same.
    """

    first: int
    bits: bytes
    generation: int
    offsets: bytes


class SnapshotSet(_Part, frozen=True):
    """An IOASID set with its IDs.

    Those with a spid are in three columns: `spids`, ascending, the ID that each is `bound` to, and
    the seq of its BIND in `bindings`, `None` while the spid is only kept. `freed` are the IDs in
    quarantine, and `freed_at` since when each is; `data` are pairs.
    """

    sid: int
    token: str | None
    token_type: TokenType
    quota: int
    system: bool
    state: SetState
    group: str | None
    ranges: tuple[SnapshotRange, ...]
    words: tuple[SnapshotWord, ...]
    spids: tuple[int, ...]
    bound: tuple[int, ...]
    bindings: tuple[int | None, ...]
    freed: tuple[int, ...]
    freed_at: tuple[float, ...]
    data: tuple[tuple[int, Data], ...]


class SnapshotGroup(_Part, frozen=True):
    """A group; what is used of its limit, the sets and groups in it say."""

    name: str
    parent: str | None
    limit: int


class SnapshotStage(_Part, frozen=True):
    """An event under way, or one that somebody holds without being waited for any more.

    Those that are `chained` are under way: they make up the chain of their ID, in order. It reached
    the tier that it is in when it was `offered`.
    """

    event: Event
    binding: int | None
    reach: int
    waiting: tuple[int, ...]
    chained: bool
    offered: float = 0.0


class SnapshotOffer(_Part, frozen=True):
    """An unacknowledged message: an event with or without a stage, or a Resync for `folded`."""

    seq: int
    deferred: bool
    staged: bool
    resync: bool
    folded: tuple[int, ...]
    stale: tuple[int, ...]
    offered: float = 0.0
    deferred_at: float = 0.0


class SnapshotSubscription(_Part, frozen=True):
    """A subscription; it was granted the bindings in `grants`, ascending, of the IDs in `granted`.

    `folded_since` is the oldest folded message, and `folded_at` when it was offered. No message
    has shown the bindings that are `unseen`. What it has `dealt` with and the grants that are
    `spent` are being let go of in parts, and so is all of one that is `leaving`.
    """

    number: int
    holder: str
    sid: int | None
    token: str | None
    kinds: tuple[EventKind, ...]
    priority: Priority
    hold: bool
    queue_size: int
    acknowledge_within: float | None
    attached: bool
    outstanding: tuple[SnapshotOffer, ...]
    resync_due: bool
    folded: tuple[int, ...]
    folded_since: int | None
    grants: tuple[int, ...]
    granted: tuple[int, ...]
    folded_at: float = 0.0
    unseen: tuple[int, ...] = ()
    dealt: tuple[int, ...] = ()
    spent: tuple[int, ...] = ()
    leaving: bool = False
    awaited: bool = True


class SnapshotHolder(_Part, frozen=True):
    """A holder; `session` is `None` while it is suspended, or leaving.

    It has as many references as `counts` says of each ID in `referenced`, grants excluded. `owner`
    is whom it belongs to, if anybody, and `since` when it has been in the state that it is in.
    """

    name: str
    session: int | None
    referenced: tuple[int, ...]
    counts: tuple[int, ...]
    leaving: bool = False
    owner: int | None = None
    since: float = 0.0


class SnapshotFreeing(_Part, frozen=True, tag="Freeing"):
    """IDs of a set that are still to be freed, in lives up to a generation."""

    sid: int
    ioasids: tuple[IoasidRange, ...]
    until: int


class SnapshotLettingGo(_Part, frozen=True, tag="LettingGo"):
    """A subscription that something is still to be let go of."""

    subscription: int


class SnapshotLeaving(_Part, frozen=True, tag="Leaving"):
    """A holder whose references are still to be dropped."""

    holder: str


class SnapshotLookingAgain(_Part, frozen=True, tag="LookingAgain"):
    """Events that are still to be looked at: those of the IDs in this word and above."""

    word: int


class SnapshotRelisting(_Part, frozen=True, tag="Relisting"):
    """A Resync that is being made: what comes before this ID of this set is listed."""

    subscription: int
    sid: int
    ioasid: int


class SnapshotTurning(_Part, frozen=True, tag="Turning"):
    """A set whose bindings begin or end, from this ID on."""

    sid: int
    begins: bool
    ioasid: int


class SnapshotImporting(_Part, frozen=True, tag="Importing"):
    """A set that is made of an export: how many of its IDs, in these ranges, there were."""

    sid: int
    export: SetExport
    ranges: tuple[IoasidRange, ...]
    generation: int
    done: int


SnapshotWork: TypeAlias = (
    SnapshotFreeing
    | SnapshotLettingGo
    | SnapshotLeaving
    | SnapshotLookingAgain
    | SnapshotRelisting
    | SnapshotTurning
    | SnapshotImporting
)
"""What is left to do of a request that is done in parts."""


class Snapshot(Message, frozen=True, gc=True):
    """The whole state of an allocator; equal snapshots are equal states at any time.

    `reserved` are IDs by count, `reserved_numbers` certain ones. Of the order CYCLIC, `position` is
    where the next search begins; it is 0 for LOWEST. A snapshot without these fields and `groups`
    is of an allocator that reserved no numbers, 0 included.
    """

    version: int
    capacity: int
    reserved: int
    in_use: bool
    seq: int
    next_session: int
    next_subscription: int
    next_sid: int
    generation: int
    sets: tuple[SnapshotSet, ...]
    holders: tuple[SnapshotHolder, ...]
    subscriptions: tuple[SnapshotSubscription, ...]
    stages: tuple[SnapshotStage, ...]
    index: int = 0
    reserved_numbers: tuple[IoasidRange, ...] = ()
    order: ReuseOrder = ReuseOrder.LOWEST
    position: int = 0
    groups: tuple[SnapshotGroup, ...] = ()
    now: float = 0.0
    part: int = PART
    work: tuple[SnapshotWork, ...] = ()

    def __eq__(self, other: object) -> bool:
        """Tell whether both are of the same state; `now` goes on by itself and is no part of it."""
        if type(other) is not Snapshot:
            return NotImplemented
        names = (name for name in self.__struct_fields__ if name != "now")
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]
