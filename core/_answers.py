"""What a request is answered with, or refused."""

from collections.abc import Iterator
from typing import Final, TypeAlias

from msgspec import Struct

from ioasid.core._events import LiveIoasid, LiveRange, every
from ioasid.core._explanations import Explanation
from ioasid.core._exports import SetExport
from ioasid.core._snapshot import Snapshot
from ioasid.core._terms import (
    Data,
    EventKind,
    IoasidRange,
    IoasidState,
    Message,
    Priority,
    SetState,
    TokenType,
)

__all__ = [
    "QUARANTINE_AGES",
    "Allocated",
    "AllocatedMany",
    "Answer",
    "CapacityRecord",
    "Done",
    "FoundSid",
    "Frozen",
    "GroupPage",
    "GroupRecord",
    "HolderPage",
    "HolderRecord",
    "Imported",
    "IoasidRecord",
    "LaggingSubscriber",
    "Listing",
    "Refused",
    "Released",
    "SessionOpened",
    "SetPage",
    "SetRecord",
    "Statistics",
    "Subscribed",
    "SubscriptionRecord",
    "Waiting",
]


class Done(Message, frozen=True):
    """The request was carried out."""


class Waiting(Message, frozen=True):
    """The request waits: a `Complete` with this ticket brings its answer."""

    ticket: int


class CapacityRecord(Message, frozen=True):
    """The system's capacity as it is now.

    What is `available` is the capacity without what is reserved, the quotas of the sets in no
    group and the limits of the groups in no other. Of what is `reserved`, `reserved_numbers` are
    certain numbers, which are never given out, and the rest a mere count.
    """

    capacity: int
    reserved: int
    available: int
    reserved_numbers: int = 0


class SetRecord(Message, frozen=True):
    """An IOASID set as it is now."""

    sid: int
    token: str | None
    token_type: TokenType
    quota: int
    allocated: int
    state: SetState
    system: bool = False
    group: str | None = None


class GroupRecord(Message, frozen=True):
    """A group as it is now: `used` are the quotas of its sets and the limits of its groups."""

    name: str
    parent: str | None
    limit: int
    used: int


class GroupPage(Message, frozen=True):
    """Some of the groups, ascending by name; `next` begins the next page, `None` if it is empty."""

    groups: tuple[GroupRecord, ...]
    next: str | None


class SetPage(Message, frozen=True):
    """Some of the sets, ascending by number; `next` begins the next page, `None` if it is empty."""

    sets: tuple[SetRecord, ...]
    next: int | None


class FoundSid(Message, frozen=True):
    """The set of an ID."""

    sid: int


class Allocated(Message, frozen=True):
    """The ID that was allocated or found, and the generation of this life of it."""

    ioasid: int
    generation: int = 0


class AllocatedMany(Message, frozen=True):
    """The IDs that were allocated, as ascending ranges, and the generation they share."""

    ranges: tuple[IoasidRange, ...]
    generation: int = 0


class Released(Message, frozen=True):
    """A reference was dropped; `reclaimed` says whether all of it is back in the pool."""

    reclaimed: bool


class Frozen(Message, frozen=True):
    """The set is frozen; `stopped` says whether every CPU and device has stopped what it ran.

    Who waited is answered with `False` if it was thawed meanwhile.
    """

    sid: int
    stopped: bool


class Imported(Message, frozen=True):
    """The set that was made of an export, and its IDs here, as ascending ranges.

    The first ID of the export's ranges is the first of these, and so on; all have one generation.
    """

    sid: int
    ranges: tuple[IoasidRange, ...]
    generation: int = 0


class IoasidRecord(Message, frozen=True):
    """One ID as it is now.

    `references` counts by holder name, what was granted with events included; the set's own
    reference, which an ACTIVE ID has besides, is in `reference_count` alone.
    """

    ioasid: int
    sid: int
    spid: int | None
    state: IoasidState
    data: Data | None
    references: dict[str, int]
    reference_count: int
    generation: int = 0


class Listing(Message, frozen=True):
    """The IDs of a set, ascending: those with more to say, and the others as ranges.

    Iterating over it gives each ID as a `LiveIoasid`, ascending.
    """

    sid: int
    ioasids: tuple[LiveIoasid, ...]
    ranges: tuple[LiveRange, ...] = ()

    def __iter__(self) -> Iterator[LiveIoasid]:
        """Yield every ID, those of ranges too."""
        return every(self.ioasids, self.ranges)


class Subscribed(Message, frozen=True):
    """The subscription's number; `resumed` if it is one that a crash left behind."""

    subscription: int
    resumed: bool


class SessionOpened(Message, frozen=True):
    """The session's number; `resumed` if its holder was suspended.

    `references` are those that the holder still has from before, as (IOASID, count).
    """

    session: int
    resumed: bool
    references: tuple[tuple[int, int], ...] = ()


class LaggingSubscriber(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A subscriber with messages it has not acknowledged.

    `queued` messages wait for it or are in its hands (`deferred` of them set aside), `folded`
    staged events wait for a Resync; the oldest of them, `oldest_seq`, was offered `oldest_age`
    seconds ago, and it is `overdue` past its deadline. A subscriber that is not `attached`
    crashed.
    """

    holder: str
    subscription: int
    scope: str
    priority: Priority
    attached: bool
    queued: int
    deferred: int
    folded: int
    oldest_seq: int
    oldest_age: float
    acknowledge_within: float | None
    overdue: bool


class SubscriptionRecord(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A subscription as it is now: its terms, how many bindings it was `granted`, and how it lags.

    One that is not `attached` was left behind by a crash. `lag` is `None` if it has acknowledged
    everything. Nothing waits for one that is not `awaited`.
    """

    subscription: int
    sid: int | None
    token: str | None
    kinds: tuple[EventKind, ...]
    priority: Priority
    hold: bool
    attached: bool
    granted: int
    lag: LaggingSubscriber | None
    awaited: bool = True


class HolderRecord(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A holder as it is now: live, with a `session`, or suspended, for `age` seconds.

    It took references of `referenced` IDs and was `granted` so many with events. `subscriptions`
    are in order; of more than 1,000 only the first, and `subscribed` says how many it has.
    """

    holder: str
    session: int | None
    age: float
    referenced: int
    granted: int
    subscribed: int
    subscriptions: tuple[SubscriptionRecord, ...]


class HolderPage(Message, frozen=True):
    """Some of the holders, ascending by name; `next` begins the next page, `None` if it is empty.

    A page that would show more than 1,000 subscriptions ends early.
    """

    holders: tuple[HolderRecord, ...]
    next: str | None


QUARANTINE_AGES: Final = (1.0, 10.0, 60.0, 600.0, 3600.0)
"""Seconds, by which `Statistics` counts what is in quarantine."""


class Statistics(Message, frozen=True):
    """The allocator's figures, all taken at once.

    Of what is `reserved`, `reserved_numbers` are certain numbers, which are never given out.
    `seq` is the number of the last event or Resync, `in_flight` the number of staged events in
    the chains of their IDs (not yet acknowledged by all, or behind one that is not), `mailbox`
    the requests that await their turn in the mailbox (0 for a bare core). `quarantine` counts the
    IDs that are FREE_PENDING for as long as each of `QUARANTINE_AGES`, or longer.
    """

    capacity: int
    reserved: int
    available: int
    sets: int
    sets_free_pending: int
    active: int
    free_pending: int
    sessions: int
    suspended: int
    subscriptions: int
    seq: int
    in_flight: int
    lagging: tuple[LaggingSubscriber, ...]
    mailbox: int = 0
    reserved_numbers: int = 0
    groups: int = 0
    quarantine: tuple[int, ...] = ()


class Refused(Message, frozen=True):
    """A request was refused; `error` and `facts` make the exception again (`error_of`)."""

    error: str
    code: str
    message: str
    facts: dict[str, int | str]


Answer: TypeAlias = (
    Done
    | Waiting
    | CapacityRecord
    | SetRecord
    | GroupRecord
    | GroupPage
    | SetPage
    | FoundSid
    | Allocated
    | AllocatedMany
    | Released
    | Frozen
    | SetExport
    | Imported
    | IoasidRecord
    | Listing
    | HolderPage
    | Explanation
    | Subscribed
    | SessionOpened
    | Statistics
    | Snapshot
)
"""Every answer to a request that was carried out."""
