"""What subscribers are told: events, and the Resync that stands for many."""

from collections.abc import Iterable, Iterator
from heapq import merge

from msgspec import Struct

from ioasid.core._terms import Data, EventKind, IoasidState, Message

__all__ = [
    "Event",
    "LiveIoasid",
    "LiveRange",
    "Resync",
]


class Event(Message, frozen=True):
    """Something happened to an IOASID; everything a subscriber needs to know of it.

    `seq` numbers events and Resyncs in the order in which they came about. The events of one ID
    arrive in that order; one that was still on its way through higher tiers arrives after a
    Resync with a higher number. `spid` and `data` are the ID's when it came about.
    `publisher` names the holder whose own `notify` this is; `None` is the allocator itself.
    `generation` says which life of the ID it is about.
    """

    seq: int
    kind: EventKind
    ioasid: int
    sid: int
    token: str | None = None
    spid: int | None = None
    data: Data | None = None
    publisher: str | None = None
    generation: int = 0


class LiveIoasid(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One live ID in a `Listing` or a `Resync`, and which life of it this is."""

    ioasid: int
    sid: int
    token: str | None
    state: IoasidState
    spid: int | None
    data: Data | None
    generation: int = 0


class LiveRange(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The live IDs from `first` to `last` of one set: ACTIVE, without a spid and without data.

    `generation` is that of `first`, and that of each next ID is `step` higher: 0 for IDs that were
    allocated at once, 1 for those allocated one after the other.
    """

    first: int
    last: int
    sid: int
    token: str | None
    generation: int = 0
    step: int = 0


class Resync(Message, frozen=True):
    """The live IDs in a subscriber's scope: rebuild your table from it.

    It stands for every event before it that the subscriber has not been given, shows each ID as
    of the last event offered to the subscriber's tier, and is acknowledged as events are. Both
    `ioasids` and `ranges` are ascending within a set, and sets by number; no ID is in both.
    Iterating over it gives each ID as a `LiveIoasid`, in that order. How plain IDs are divided into
    ranges says nothing: whatever shows the same is equal.
    """

    seq: int
    ioasids: tuple[LiveIoasid, ...]
    ranges: tuple[LiveRange, ...] = ()

    def __iter__(self) -> Iterator[LiveIoasid]:
        """Yield every ID, those of ranges too."""
        return every(self.ioasids, self.ranges)

    def __eq__(self, other: object) -> bool:
        """Tell whether both show the same."""
        if type(other) is not Resync:
            return NotImplemented
        return (self.seq, self.ioasids) == (other.seq, other.ioasids) and (
            self.ranges == other.ranges or [*every((), self.ranges)] == [*every((), other.ranges)]
        )

    def __hash__(self) -> int:
        """Return the same of whatever is equal."""
        return hash(self.seq)


def every(ioasids: Iterable[LiveIoasid], ranges: Iterable[LiveRange]) -> Iterator[LiveIoasid]:
    """Yield the IDs that are listed either way, by set and ascending."""
    plain = (
        LiveIoasid(
            each.first + index,
            each.sid,
            each.token,
            IoasidState.ACTIVE,
            None,
            None,
            each.generation + each.step * index,
        )
        for each in ranges
        for index in range(each.last - each.first + 1)
    )
    return merge(ioasids, plain, key=lambda each: (each.sid, each.ioasid))
