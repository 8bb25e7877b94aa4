"""The protocol: every message to and from the allocator, frozen and typed.

Requests are in the imperative and form one union, `Request`. What comes back forms the other,
`Answer`: the replies, `Refused`, and what subscribers are told, `Event` and `Resync`. The
messages are the same in process and on a wire; `ioasid.core.encode` and its decoders turn them
into msgpack or JSON and back.

Who sends a request is not part of it: the allocator knows the session that a message came
through, so nobody can speak for another.

Ranges, for every message here: an IOASID and a spid are in 0..2^32-2 (2^32-1 is the kernel's
INVALID_IOASID, which is `None` in Python), an IOASID is below the capacity as well; counts and
quotas are in 1..2^32-1; a token or holder name has 1 to 255 bytes as UTF-8; data is an integer
in -2^63..2^64-1 or a string of at most 4,096 bytes as UTF-8. `sid=None` where a set may be named
means "any set", for trusted callers.
"""

from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

__all__ = [
    "INVALID_IOASID",
    "MAX_UNDER_WAY",
    "Acknowledge",
    "AdjustSet",
    "Alloc",
    "AllocMany",
    "AllocSet",
    "AllocSystemSet",
    "Allocated",
    "AllocatedMany",
    "Answer",
    "AttachData",
    "AttachSpid",
    "CancelCapacity",
    "CapacityRecord",
    "CloseSession",
    "Data",
    "Defer",
    "Detach",
    "DetachData",
    "DetachSpid",
    "Done",
    "Event",
    "EventKind",
    "Evict",
    "Find",
    "FindBySpid",
    "FindSet",
    "FindSid",
    "FoundSid",
    "Free",
    "FreeSet",
    "Get",
    "InstallCapacity",
    "IoasidRange",
    "IoasidRecord",
    "IoasidState",
    "LaggingSubscriber",
    "ListSet",
    "Listing",
    "LiveIoasid",
    "Message",
    "Notify",
    "OpenSession",
    "Priority",
    "Put",
    "Refused",
    "Released",
    "Reply",
    "Request",
    "ReserveCapacity",
    "Resync",
    "SessionOpened",
    "SetRecord",
    "SetState",
    "Statistics",
    "Subscribe",
    "Subscribed",
    "SuspendSession",
    "TakeStatistics",
    "TokenType",
    "Unsubscribe",
]

INVALID_IOASID: Final = 2**32 - 1
"""The kernel's "no IOASID"; never a valid ID here, where `None` says it."""

MAX_UNDER_WAY: Final = 16
"""Events of one IOASID under way, from which on a bind or notify is refused."""

Data: TypeAlias = int | str
"""What a caller may attach to an ID: opaque to the allocator, small, and the same on a wire."""


class EventKind(StrEnum):
    """What happened to an IOASID."""

    ALLOC = "ALLOC"
    """It was allocated."""
    BIND = "BIND"
    """It was given a set-private ID: a guest's PASID maps to it."""
    UNBIND = "UNBIND"
    """It lost its set-private ID."""
    FREE = "FREE"
    """Its owner freed it; it is in quarantine until everybody is done with it."""
    RECLAIM = "RECLAIM"
    """It is back in the pool and may be handed out again."""


class Priority(StrEnum):
    """The tier of a subscriber, highest first: the order in which hardware is safely drained."""

    CPU = "CPU"
    """Stops work being submitted (KVM's translation table, ENQCMD)."""
    DEVICE = "DEVICE"
    """Drains a device."""
    IOMMU = "IOMMU"
    """Tears down IOMMU context."""
    LAST = "LAST"
    """Comes when all the others are done."""


class TokenType(StrEnum):
    """What a set's token is."""

    MM = "MM"
    """A process; the token is required, and unique among the live sets of this type."""
    NULL = "NULL"
    """Anonymous; no token."""


class SetState(StrEnum):
    """The state of an IOASID set."""

    ACTIVE = "ACTIVE"
    FREE_PENDING = "FREE_PENDING"
    """Being destroyed: it takes no more allocations and goes with its last ID."""


class IoasidState(StrEnum):
    """The state of an IOASID; a reclaimed one is simply absent."""

    ACTIVE = "ACTIVE"
    FREE_PENDING = "FREE_PENDING"
    """In quarantine: freed, and still referenced or not acknowledged by everybody."""


class Message(Struct, frozen=True, tag=True, gc=False, forbid_unknown_fields=True):
    """The base of every message; on a wire its type stands in the field `type`."""


# -- requests ---------------------------------------------------------------------------------


class InstallCapacity(Message, frozen=True):
    """Set the system capacity to `total` IDs (1..2^32-1), before any set or reservation exists.

    Answer: `CapacityRecord`. Errors: `CapacityInUse`, `InvalidArgument`.
    """

    total: int


class ReserveCapacity(Message, frozen=True):
    """Take `count` IDs from what is available, without a set; `None` takes all of it.

    Answer: `CapacityRecord`. Errors: `CapacityExhausted`, `InvalidArgument`.
    """

    count: int | None


class CancelCapacity(Message, frozen=True):
    """Give back `count` reserved IDs. Answer: `CapacityRecord`. Errors: `NotReserved`."""

    count: int


class AllocSystemSet(Message, frozen=True):
    """Create the host's own set, for bare-metal SVA; `quota=None` takes all that is available.

    Answer: `SetRecord`. Errors: `SystemSetExists`, `CapacityExhausted`.
    """

    quota: int | None = None


class AllocSet(Message, frozen=True):
    """Create a set and take its quota from what is available; `quota=None` takes all of it.

    `token_type` MM needs a `token`, NULL takes none. Answer: `SetRecord`. Errors: `TokenInUse`,
    `CapacityExhausted`, `InvalidArgument`.
    """

    token: str | None = None
    quota: int | None = None
    token_type: TokenType = TokenType.MM


class AdjustSet(Message, frozen=True):
    """Change a set's quota; the difference moves from or to what is available.

    Answer: `SetRecord`. Errors: `QuotaBelowUse`, `CapacityExhausted`, `UnknownSet`,
    `SetFreePending`.
    """

    sid: int
    quota: int


class FreeSet(Message, frozen=True):
    """Free every ID of a set; with `destroy` the set goes when its last ID is reclaimed.

    Without `destroy` the set stays usable at once. With `wait` the answer comes when all that
    was freed is reclaimed. A second call is fine. Answer: `Released`. Errors: `UnknownSet`,
    `WouldDeadlock` (with `wait`).
    """

    sid: int
    destroy: bool = True
    wait: bool = False


class FindSid(Message, frozen=True):
    """Ask for the set of an ID. Answer: `FoundSid`. Errors: `UnknownIoasid`."""

    ioasid: int


class FindSet(Message, frozen=True):
    """Ask for a live set by its MM token or its number, one of the two.

    Answer: `SetRecord`. Errors: `UnknownToken`, `UnknownSet`, `InvalidArgument`.
    """

    token: str | None = None
    sid: int | None = None


class Alloc(Message, frozen=True):
    """Allocate the lowest free ID in [min, max]; `max=None` is the last ID there is.

    0 means "DMA without PASID", so it has to be asked for. Answer: `Allocated`. Errors:
    `QuotaExceeded`, `RangeFull`, `SetFreePending`, `UnknownSet`, `InvalidArgument` for a range
    upside down or beyond the capacity.
    """

    sid: int
    min: int = 1
    max: int | None = None
    data: Data | None = None


class AllocMany(Message, frozen=True):
    """Allocate `count` IDs at once, lowest first, all or none.

    Answer: `AllocatedMany`. Errors: as `Alloc`.
    """

    sid: int
    count: int
    min: int = 1
    max: int | None = None


class Free(Message, frozen=True):
    """Drop the owner's reference: the ID goes into quarantine, or back to the pool at once.

    Never fails for being early, and a second one is a no-op. With `wait` the answer comes when
    the ID is reclaimed. Answer: `Released`. Errors: `UnknownIoasid`, `NotOfThisSet`,
    `WouldDeadlock` (with `wait`; nothing is freed then).
    """

    ioasid: int
    sid: int | None = None
    wait: bool = False


class Get(Message, frozen=True):
    """Take one reference for the calling holder.

    Answer: `Done`. Errors: `UnknownIoasid`, `IoasidFreePending`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None


class Put(Message, frozen=True):
    """Drop one reference that the calling holder took with `Get` or `FindBySpid`.

    Answer: `Released`. Errors: `UnknownIoasid`, `NotOfThisSet`, `NotReferenced`.
    """

    ioasid: int
    sid: int | None = None


class Find(Message, frozen=True):
    """Ask for an ID's record. Answer: `IoasidRecord`. Errors: `UnknownIoasid`, `NotOfThisSet`."""

    ioasid: int
    sid: int | None = None


class AttachData(Message, frozen=True):
    """Attach one opaque value to an ID.

    Answer: `Done`. Errors: `DataTaken`, `IoasidFreePending`, `UnknownIoasid`, `NotOfThisSet`.
    """

    ioasid: int
    data: Data
    sid: int | None = None


class DetachData(Message, frozen=True):
    """Remove an ID's value, if it has one.

    Answer: `Done`. Errors: `IoasidFreePending`, `UnknownIoasid`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None


class AttachSpid(Message, frozen=True):
    """Bind: map the guest's ID `spid`, unique within the set, to this one; event `BIND`.

    Answer: `Done`. Errors: `SpidInUse`, `AlreadyBound`, `IoasidFreePending`, `UnknownIoasid`,
    `NotOfThisSet`, `TooManyEvents`.
    """

    ioasid: int
    spid: int
    sid: int | None = None


class DetachSpid(Message, frozen=True):
    """Unbind: event `UNBIND`, silent once `FREE` was sent.

    Answer: `Done`. Errors: `UnknownIoasid`, `NoSpid`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None


class FindBySpid(Message, frozen=True):
    """Ask for the ID behind a guest's ID; with `get`, take a reference in the same step.

    Answer: `Allocated`. Errors: `UnknownSpid`, `UnknownSet`, `IoasidFreePending` (with `get`).
    """

    sid: int
    spid: int
    get: bool = False


class ListSet(Message, frozen=True):
    """Ask for the IDs of a set, ascending. Answer: `Listing`. Errors: `UnknownSet`."""

    sid: int


class Subscribe(Message, frozen=True):
    """Subscribe the calling holder to events: of a set by `sid` or `token`, or of the system.

    `kinds` filters, `priority` orders, `hold` grants a reference with every BIND (its kinds must
    include BIND, UNBIND and FREE), `replay` makes the first message a `Resync`, `queue_size`
    (1..2^20) bounds the events that wait for the subscriber, and past `acknowledge_within`
    seconds (above 0; `None`: never) it is reported as overdue. A token may come before its set.
    A holder has one subscription per scope; one left behind by a crash is taken up again by the
    same call and starts with a `Resync`. Answer: `Subscribed`. Errors: `AlreadySubscribed`,
    `UnknownSet`, `InvalidArgument`.
    """

    sid: int | None = None
    token: str | None = None
    kinds: frozenset[EventKind] = frozenset(EventKind)
    priority: Priority = Priority.LAST
    hold: bool = False
    replay: bool = False
    queue_size: int = 1024
    acknowledge_within: float | None = 10.0


class Unsubscribe(Message, frozen=True):
    """End a subscription: what it was told counts as acknowledged, what it was granted is dropped.

    Answer: `Done`. Errors: `UnknownSubscription`.
    """

    subscription: int


class Detach(Message, frozen=True):
    """Report that the consumer of a subscription crashed.

    If the subscription holds, or its holder has references, it is kept: it goes on matching, its
    events stay unacknowledged and are folded into the `Resync` that the next `Subscribe` of the
    same scope starts with. If not, it ends. Answer: `Done`. Errors: `UnknownSubscription`.
    """

    subscription: int


class Acknowledge(Message, frozen=True):
    """Report that the message `seq` of a subscription is dealt with, in any order.

    One that is not outstanding (any more) is ignored. Answer: `Done`. Errors:
    `UnknownSubscription`.
    """

    subscription: int
    seq: int


class Defer(Message, frozen=True):
    """Come back for the next message without acknowledging `seq`, which is acknowledged later.

    What is set aside counts against the queue's bound.

    Answer: `Done`. Errors: `UnknownSubscription`.
    """

    subscription: int
    seq: int


class OpenSession(Message, frozen=True):
    """Join as the holder `name`, or come back as it after a crash.

    Answer: `SessionOpened`. Errors: `HolderLive`, `InvalidArgument`.
    """

    name: str


class CloseSession(Message, frozen=True):
    """Leave: what was told counts as acknowledged, references are dropped. Answer: `Done`."""


class SuspendSession(Message, frozen=True):
    """Report that the calling session crashed.

    With references or holding subscriptions its holder is suspended until a session of the same
    name comes back or somebody evicts it; without, it leaves. Answer: `Done`.
    """


class Evict(Message, frozen=True):
    """Declare the holder `name` dead: acknowledge its events, drop its references.

    Answer: `Done`. Errors: `UnknownHolder`.
    """

    name: str


class Notify(Message, frozen=True):
    """Tell an ID's subscribers of `kind` (any but RECLAIM), as a publisher; no state changes.

    Answer: `Done`. Errors: `UnknownIoasid`, `NotOfThisSet`, `IoasidFreePending`,
    `TooManyEvents`, `InvalidArgument`.
    """

    ioasid: int
    kind: EventKind
    sid: int | None = None


class TakeStatistics(Message, frozen=True):
    """Ask for the allocator's figures. Answer: `Statistics`."""


# -- answers ----------------------------------------------------------------------------------


class Done(Message, frozen=True):
    """The request was carried out."""


class CapacityRecord(Message, frozen=True):
    """The system's capacity as it is now: `available = capacity - reserved - all quotas`."""

    capacity: int
    reserved: int
    available: int


class SetRecord(Message, frozen=True):
    """An IOASID set as it is now."""

    sid: int
    token: str | None
    token_type: TokenType
    quota: int
    allocated: int
    state: SetState
    system: bool = False


class FoundSid(Message, frozen=True):
    """The set of an ID."""

    sid: int


class Allocated(Message, frozen=True):
    """The ID that was allocated or found."""

    ioasid: int


class IoasidRange(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The IDs from `first` to `last`, both included."""

    first: int
    last: int


class AllocatedMany(Message, frozen=True):
    """The IDs that were allocated, as ascending ranges."""

    ranges: tuple[IoasidRange, ...]


class Released(Message, frozen=True):
    """A reference was dropped; `reclaimed` says whether all of it is back in the pool."""

    reclaimed: bool


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


class LiveIoasid(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """One live ID in a `Listing` or a `Resync`."""

    ioasid: int
    sid: int
    token: str | None
    state: IoasidState
    spid: int | None
    data: Data | None


class Listing(Message, frozen=True):
    """The IDs of a set, ascending."""

    sid: int
    ioasids: tuple[LiveIoasid, ...]


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


class Statistics(Message, frozen=True):
    """The allocator's figures, all taken at once.

    `seq` is the number of the last event or Resync, `under_way` the number of staged events in
    the chains of their IDs (not yet acknowledged by all, or behind one that is not), `mailbox`
    the requests that await their turn in the mailbox (0 for a bare core).
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
    under_way: int
    lagging: tuple[LaggingSubscriber, ...]
    mailbox: int = 0


class Refused(Message, frozen=True):
    """A request was refused; `error` and `facts` make the exception again (`error_of`)."""

    error: str
    code: str
    message: str
    facts: dict[str, int | str]


class Event(Message, frozen=True):
    """Something happened to an IOASID; everything a subscriber needs to know of it.

    `seq` numbers events and Resyncs in the order in which they came about. The events of one ID
    arrive in that order; one that was still on its way through higher tiers arrives after a
    Resync with a higher number. `spid` and `data` are the ID's when it came about.
    `publisher` names the holder whose own `notify` this is; `None` is the allocator itself.
    """

    seq: int
    kind: EventKind
    ioasid: int
    sid: int
    token: str | None = None
    spid: int | None = None
    data: Data | None = None
    publisher: str | None = None


class Resync(Message, frozen=True):
    """The live IDs in a subscriber's scope: rebuild your table from it.

    It stands for every event before it that the subscriber has not been given, shows each ID as
    of the last event offered to the subscriber's tier, and is acknowledged as events are.
    """

    seq: int
    ioasids: tuple[LiveIoasid, ...]


Request: TypeAlias = (
    InstallCapacity
    | ReserveCapacity
    | CancelCapacity
    | AllocSystemSet
    | AllocSet
    | AdjustSet
    | FreeSet
    | FindSid
    | FindSet
    | Alloc
    | AllocMany
    | Free
    | Get
    | Put
    | Find
    | AttachData
    | DetachData
    | AttachSpid
    | DetachSpid
    | FindBySpid
    | ListSet
    | Subscribe
    | Unsubscribe
    | Detach
    | Acknowledge
    | Defer
    | OpenSession
    | CloseSession
    | SuspendSession
    | Evict
    | Notify
    | TakeStatistics
)
"""Every message to the allocator."""

Reply: TypeAlias = (
    Done
    | CapacityRecord
    | SetRecord
    | FoundSid
    | Allocated
    | AllocatedMany
    | Released
    | IoasidRecord
    | Listing
    | Subscribed
    | SessionOpened
    | Statistics
)
"""Every answer to a request that was carried out."""

Answer: TypeAlias = Reply | Refused | Event | Resync
"""Every message from the allocator."""
