"""Every request to the allocator: what it does, its answer, and the errors that refuse it."""

from typing import TypeAlias

from ioasid.core._exports import SetExport
from ioasid.core._terms import Data, EventKind, IoasidRange, Message, Priority, TokenType

__all__ = [
    "Abandon",
    "Acknowledge",
    "ActivateSet",
    "AdjustGroup",
    "AdjustSet",
    "Alloc",
    "AllocGroup",
    "AllocMany",
    "AllocSet",
    "AllocSystemSet",
    "AttachData",
    "AttachSpid",
    "CancelCapacity",
    "CancelRange",
    "CloseSession",
    "Continue",
    "Defer",
    "Detach",
    "DetachData",
    "DetachSpid",
    "Evict",
    "Explain",
    "ExportSet",
    "Find",
    "FindBySpid",
    "FindSet",
    "FindSid",
    "Free",
    "FreeGroup",
    "FreeMany",
    "FreeSet",
    "FreezeSet",
    "Get",
    "ImportSet",
    "InstallCapacity",
    "ListGroups",
    "ListHolders",
    "ListSet",
    "ListSets",
    "Notify",
    "OpenSession",
    "Put",
    "Request",
    "ReserveCapacity",
    "ReserveRange",
    "Subscribe",
    "SuspendAll",
    "SuspendSession",
    "TakeSnapshot",
    "TakeStatistics",
    "ThawSet",
    "Tick",
    "Unsubscribe",
]


class InstallCapacity(Message, frozen=True):
    """Set the system capacity to `total` IDs (1..2^32-1), before anything is taken of it.

    That is, before the first set, group or reservation; PASID 0 stays reserved if it is. Answer:
    `CapacityRecord`. Errors: `CapacityInUse`, `InvalidArgument`.
    """

    total: int


class ReserveCapacity(Message, frozen=True):
    """Take `count` IDs from what is available, without a set; `None` takes all of it.

    Answer: `CapacityRecord`. Errors: `CapacityExhausted`, `InvalidArgument`.
    """

    count: int | None


class CancelCapacity(Message, frozen=True):
    """Give back `count` IDs that `ReserveCapacity` took.

    Answer: `CapacityRecord`. Errors: `NotReserved`.
    """

    count: int


class ReserveRange(Message, frozen=True):
    """Take these very numbers, `min` to `max`, out of circulation: no allocation gives them.

    They count as reserved. Answer: `CapacityRecord`. Errors: `RangeTaken`, `CapacityExhausted`,
    `InvalidArgument` for a range upside down or beyond the capacity.
    """

    min: int
    max: int


class CancelRange(Message, frozen=True):
    """Give back reserved numbers, `min` to `max`, however they were reserved.

    Answer: `CapacityRecord`. Errors: `RangeNotReserved`, `InvalidArgument` for a range upside down
    or beyond the capacity.
    """

    min: int
    max: int


class AllocGroup(Message, frozen=True):
    """Create a group: the sets and groups in it share `limit` (1..2^32-1) IDs.

    The limit is taken from what its parent has left or, without a `parent`, from what is
    available. Answer: `GroupRecord`. Errors: `GroupExists`, `UnknownGroup` for the parent,
    `GroupExhausted`, `CapacityExhausted`, `InvalidArgument` for a parent that 15 others are above.
    """

    name: str
    limit: int
    parent: str | None = None


class AdjustGroup(Message, frozen=True):
    """Change a group's limit; the difference moves from or to its parent or what is available.

    Answer: `GroupRecord`. Errors: `LimitBelowUse`, `GroupExhausted`, `CapacityExhausted`,
    `UnknownGroup`.
    """

    name: str
    limit: int


class FreeGroup(Message, frozen=True):
    """Remove a group that has no set and no group; its limit goes back to where it came from.

    A set that is being freed is in it until its last ID is reclaimed. Answer: `Done`. Errors:
    `GroupNotEmpty`, `UnknownGroup`.
    """

    name: str


class ListGroups(Message, frozen=True):
    """Ask for the groups, ascending by name, at most `limit` (1..1,000) and those after `after`.

    `after` is the `next` of the page before; `None` begins. Answer: `GroupPage`. Errors:
    `InvalidArgument`.
    """

    after: str | None = None
    limit: int = 100


class AllocSystemSet(Message, frozen=True):
    """Create the host's own set, for bare-metal SVA; `quota=None` takes all that is available.

    Answer: `SetRecord`. Errors: `SystemSetExists`, `CapacityExhausted`.
    """

    quota: int | None = None


class AllocSet(Message, frozen=True):
    """Create a set and take its quota from what is available; `quota=None` takes all of it.

    In a `group` it is taken from what the group has left. `token_type` MM needs a `token`, NULL
    takes none. Answer: `SetRecord`. Errors: `TokenInUse`, `UnknownGroup`, `GroupExhausted`,
    `CapacityExhausted`, `InvalidArgument`.
    """

    token: str | None = None
    quota: int | None = None
    token_type: TokenType = TokenType.MM
    group: str | None = None


class AdjustSet(Message, frozen=True):
    """Change a set's quota; the difference moves from or to its group or what is available.

    Answer: `SetRecord`. Errors: `QuotaBelowUse`, `GroupExhausted`, `CapacityExhausted`,
    `UnknownSet`, `SetFreePending`, `SetFrozen`.
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


class FreezeSet(Message, frozen=True):
    """Stop a set that is about to move: its bindings end (UNBIND), its spids are kept.

    Until it is thawed it takes no allocation, bind, data or `FindBySpid` with `get`; frees and
    unbinds succeed. With `wait` the answer comes when every CPU and device has acknowledged that
    nothing of it runs, its IDs in quarantine included. A second call is fine. Answer: `Frozen`.
    Errors: `UnknownSet`, `SetFreePending`, `SetFrozen` if it is INCOMING, `InvalidArgument` for the
    system's set, `WouldDeadlock` (with `wait`).
    """

    sid: int
    wait: bool = False


class ThawSet(Message, frozen=True):
    """Let a frozen set go on: its bindings begin again (BIND). One that is ACTIVE stays so.

    Who waits for its freeze is answered. Answer: `Done`. Errors: `UnknownSet`, `SetFreePending`,
    `SetFrozen` if it is INCOMING, `TooManyEvents`, `InvalidArgument` for the system's set.
    """

    sid: int


class ExportSet(Message, frozen=True):
    """Ask for all that the next host of a frozen set has to know of it.

    Answer: `SetExport`. Errors: `UnknownSet`, `SetNotFrozen`, also while something of it may run.
    """

    sid: int


class ImportSet(Message, frozen=True):
    """Make a set of an `export`, INCOMING: its spids and data, with IDs of this host, or nothing.

    The IDs are in [min, max], by the order of reuse. Its quota is taken as that of `AllocSet` is.
    Answer: `Imported`. Errors: `TokenInUse`, `UnknownGroup`, `GroupExhausted`, `CapacityExhausted`,
    `RangeFull`, `InvalidArgument`.
    """

    export: SetExport
    group: str | None = None
    min: int = 1
    max: int | None = None


class ActivateSet(Message, frozen=True):
    """Let an imported set run: its bindings begin (BIND). One that is ACTIVE stays so.

    Answer: `Done`. Errors: `UnknownSet`, `SetFreePending`, `SetFrozen` if it is FROZEN,
    `TooManyEvents`, `InvalidArgument` for the system's set.
    """

    sid: int


class FindSid(Message, frozen=True):
    """Ask for the set of an ID. Answer: `FoundSid`. Errors: `UnknownIoasid`, `StaleIoasid`."""

    ioasid: int
    generation: int | None = None


class FindSet(Message, frozen=True):
    """Ask for a live set by its MM token or its number, one of the two.

    Answer: `SetRecord`. Errors: `UnknownToken`, `UnknownSet`, `InvalidArgument`.
    """

    token: str | None = None
    sid: int | None = None


class Alloc(Message, frozen=True):
    """Allocate a free ID in [min, max]; `max=None` is the last ID there is.

    It is the lowest one or the next in turn, by the allocator's `ReuseOrder`, and never a reserved
    one. 0 means "DMA without PASID": it has to be asked for, and is reserved unless that was
    cancelled. Answer: `Allocated`. Errors:
    `QuotaExceeded`, `RangeFull`, `SetFreePending`, `SetFrozen`, `UnknownSet`, `InvalidArgument` for
    a range upside down or beyond the capacity.
    """

    sid: int
    min: int = 1
    max: int | None = None
    data: Data | None = None


class AllocMany(Message, frozen=True):
    """Allocate `count` IDs at once, those that as many `Alloc` would give, all or none.

    Answer: `AllocatedMany`. Errors: as `Alloc`.
    """

    sid: int
    count: int
    min: int = 1
    max: int | None = None


class Free(Message, frozen=True):
    """Drop the owner's reference: the ID goes into quarantine, or back to the pool at once.

    Never fails for being early, and a second one is a no-op. With `wait` the answer comes when
    the ID is reclaimed. Answer: `Released`. Errors: `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`,
    `WouldDeadlock` (with `wait`; nothing is freed then).
    """

    ioasid: int
    sid: int | None = None
    wait: bool = False
    generation: int | None = None


class FreeMany(Message, frozen=True):
    """Free IDs of a set, as `Free` does each of them: all or, if it is refused, none.

    `ranges` are ascending and have no ID in common; `AllocatedMany` has such. With `missing_ok`
    those are freed that the set still has, in the life that is asked for, and the others passed
    over: some were freed before, and may be somebody else's by now. Answer: `Released`, which says
    whether all of them are reclaimed. Errors: `UnknownSet`, `InvalidArgument`; without
    `missing_ok` `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`.
    """

    sid: int
    ranges: tuple[IoasidRange, ...]
    generation: int | None = None
    missing_ok: bool = False


class Get(Message, frozen=True):
    """Take one reference for the calling holder.

    Answer: `Done`. Errors: `UnknownIoasid`, `StaleIoasid`, `IoasidFreePending`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None
    generation: int | None = None


class Put(Message, frozen=True):
    """Drop one reference that the calling holder took with `Get` or `FindBySpid`.

    Answer: `Released`. Errors: `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`, `NotReferenced`.
    """

    ioasid: int
    sid: int | None = None
    generation: int | None = None


class Find(Message, frozen=True):
    """Ask for an ID's record.

    Answer: `IoasidRecord`. Errors: `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None
    generation: int | None = None


class AttachData(Message, frozen=True):
    """Attach one opaque value to an ID.

    Answer: `Done`. Errors: `DataTaken`, `IoasidFreePending`, `UnknownIoasid`, `StaleIoasid`,
    `NotOfThisSet`, `SetFrozen`, `SetFreePending`.
    """

    ioasid: int
    data: Data
    sid: int | None = None
    generation: int | None = None


class DetachData(Message, frozen=True):
    """Remove an ID's value, if it has one.

    Answer: `Done`. Errors: `IoasidFreePending`, `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`,
    `SetFrozen`, `SetFreePending`.
    """

    ioasid: int
    sid: int | None = None
    generation: int | None = None


class AttachSpid(Message, frozen=True):
    """Bind: map the guest's ID `spid`, unique within the set, to this one; event `BIND`.

    Answer: `Done`. Errors: `SpidInUse`, `AlreadyBound`, `IoasidFreePending`, `UnknownIoasid`,
    `StaleIoasid`, `NotOfThisSet`, `SetFrozen`, `SetFreePending`, `TooManyEvents`.
    """

    ioasid: int
    spid: int
    sid: int | None = None
    generation: int | None = None


class DetachSpid(Message, frozen=True):
    """Unbind: event `UNBIND`, silent once `FREE` was sent, and in a set that runs nothing.

    Answer: `Done`. Errors: `UnknownIoasid`, `StaleIoasid`, `NoSpid`, `NotOfThisSet`.
    """

    ioasid: int
    sid: int | None = None
    generation: int | None = None


class FindBySpid(Message, frozen=True):
    """Ask for the ID behind a guest's ID; with `get`, take a reference in the same step.

    Answer: `Allocated`. Errors: `UnknownSpid`, `UnknownSet`; with `get`, `IoasidFreePending`,
    `SetFrozen` and `SetFreePending`.
    """

    sid: int
    spid: int
    get: bool = False


class ListSet(Message, frozen=True):
    """Ask for the IDs of a set, ascending. Answer: `Listing`. Errors: `UnknownSet`."""

    sid: int


class ListSets(Message, frozen=True):
    """Ask for the sets, ascending by number, at most `limit` (1..1,000) and those after `after`.

    `after` is the `next` of the page before; `None` begins. Answer: `SetPage`. Errors:
    `InvalidArgument`.
    """

    after: int | None = None
    limit: int = 100


class ListHolders(Message, frozen=True):
    """Ask for the holders, by name, live and suspended, at most `limit` (1..1,000) after `after`.

    `after` is the `next` of the page before; `None` begins. Answer: `HolderPage`. Errors:
    `InvalidArgument`.
    """

    after: str | None = None
    limit: int = 100


class Explain(Message, frozen=True):
    """Ask why an ID is not back in the pool, and who has what to do before it can be.

    Answer: `Explanation`. Errors: `UnknownIoasid` for one that is in the pool,
    `StaleIoasid`.
    """

    ioasid: int
    generation: int | None = None


class Subscribe(Message, frozen=True):
    """Subscribe the calling holder to events: of a set by `sid` or `token`, or of the system.

    `kinds` filters, `priority` orders, `hold` grants a reference with every BIND (its kinds must
    include BIND, UNBIND and FREE), `replay` makes the first message a `Resync`, `queue_size`
    (1..2^20) bounds the events that wait for the subscriber, and past `acknowledge_within`
    seconds (above 0; `None`: never) it is reported as overdue. A token may come before its set.
    A holder has one subscription per scope; one left behind by a crash is taken up again by the
    same call and starts with a `Resync`. Nothing waits for one that is not `awaited`, whatever it
    acknowledges or does not: it keeps no ID in quarantine and no tier from being told, is never
    overdue, and can't hold. Answer: `Subscribed`. Errors: `AlreadySubscribed`, `UnknownSet`,
    `InvalidArgument`.
    """

    sid: int | None = None
    token: str | None = None
    kinds: frozenset[EventKind] = frozenset(EventKind)
    priority: Priority = Priority.LAST
    hold: bool = False
    replay: bool = False
    queue_size: int = 1024
    acknowledge_within: float | None = 10.0
    awaited: bool = True


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
    """Report that messages are dealt with, in any order: pairs of a subscription and a seq.

    One that is not outstanding (any more) is ignored, and so is one of a subscription that has
    ended. Whoever drives the allocator may report those of all holders at once. Answer: `Done`.
    Errors: `UnknownSubscription`, `InvalidArgument`.
    """

    messages: tuple[tuple[int, int], ...]


class Defer(Message, frozen=True):
    """Come back for the next message without acknowledging `seq`, which is acknowledged later.

    What is set aside counts against the queue's bound.

    Answer: `Done`. Errors: `UnknownSubscription`.
    """

    subscription: int
    seq: int


class OpenSession(Message, frozen=True):
    """Join as the holder `name`, or come back as it after a crash.

    With an `owner`, a suspended holder comes back only if it was created with the same one: whoever
    it belongs to keeps its references. Without one, whoever asks is trusted. A service sets it to
    the user that the kernel names, whatever a client says.

    Answer: `SessionOpened`. Errors: `HolderLive`, `HolderOfAnother`, `InvalidArgument`.
    """

    name: str
    owner: int | None = None


class CloseSession(Message, frozen=True):
    """Leave: what was told counts as acknowledged, references are dropped. Answer: `Done`."""


class SuspendSession(Message, frozen=True):
    """Report that the calling session crashed.

    With references or holding subscriptions its holder is suspended until a session of the same
    name comes back or somebody evicts it; without, it leaves. Answer: `Done`.
    """


class SuspendAll(Message, frozen=True):
    """Report that every live session crashed, as they did when their process ended.

    For whoever drives the allocator (session 0). Answer: `Done`.
    """


class Abandon(Message, frozen=True):
    """Give up waiting with `ticket`: it is never answered; what the request asked for stands.

    For whoever drives the allocator (session 0). A ticket that nothing waits with is ignored.
    Answer: `Done`.
    """

    ticket: int


class Continue(Message, frozen=True):
    """Do a part of what is left of requests that are done in parts, if there is any.

    For whoever drives the allocator (session 0), after others had their turn, as long as
    `Allocator.has_work`. Answer: `Done`.
    """


class Tick(Message, frozen=True):
    """Tell the time, in seconds of any clock that never goes back; offers are dated by it.

    For whoever drives the allocator (session 0); -2^63..2^63 without the ends. Answer: `Done`.
    Errors: `InvalidArgument`.
    """

    now: float


class Evict(Message, frozen=True):
    """Declare the holder `name` dead: acknowledge its events, drop its references.

    Answer: `Done`. Errors: `UnknownHolder`.
    """

    name: str


class Notify(Message, frozen=True):
    """Tell an ID's subscribers of `kind` (any but RECLAIM), as a publisher; no state changes.

    Answer: `Done`. Errors: `UnknownIoasid`, `StaleIoasid`, `NotOfThisSet`, `IoasidFreePending`,
    `TooManyEvents`, `InvalidArgument`.
    """

    ioasid: int
    kind: EventKind
    sid: int | None = None
    generation: int | None = None


class TakeStatistics(Message, frozen=True):
    """Ask for the allocator's figures. Answer: `Statistics`."""


class TakeSnapshot(Message, frozen=True):
    """Ask for the whole state as a message. Answer: `Snapshot`."""


Request: TypeAlias = (
    InstallCapacity
    | ReserveCapacity
    | CancelCapacity
    | ReserveRange
    | CancelRange
    | AllocGroup
    | AdjustGroup
    | FreeGroup
    | ListGroups
    | AllocSystemSet
    | AllocSet
    | AdjustSet
    | FreeSet
    | FreezeSet
    | ThawSet
    | ExportSet
    | ImportSet
    | ActivateSet
    | FindSid
    | FindSet
    | Alloc
    | AllocMany
    | Free
    | FreeMany
    | Get
    | Put
    | Find
    | AttachData
    | DetachData
    | AttachSpid
    | DetachSpid
    | FindBySpid
    | ListSet
    | ListSets
    | ListHolders
    | Explain
    | Subscribe
    | Unsubscribe
    | Detach
    | Acknowledge
    | Defer
    | OpenSession
    | CloseSession
    | SuspendSession
    | SuspendAll
    | Abandon
    | Continue
    | Tick
    | Evict
    | Notify
    | TakeStatistics
    | TakeSnapshot
)
"""Every message to the allocator."""
