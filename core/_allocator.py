"""The allocator: the door for every request.

A synchronous state machine in the sans-I/O manner: `handle` takes a request of a session and
returns the answer or raises the error it is refused with; whatever else is to be done, `drain`
returns. A refused request has changed nothing. Every public method says what to call next. What
each request does stands in `ioasid.core._set_handlers`, `_ioasid_handlers`,
`_subscription_handlers` and `_holder_handlers`; what becomes possible by it happens after it, in
one place (`LifeCycle.settle`).
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, Final, Self, TypeVar

from ioasid.core import _check
from ioasid.core._answers import (
    QUARANTINE_AGES,
    Answer,
    Done,
    IoasidRecord,
    LaggingSubscriber,
    SessionOpened,
    Statistics,
    Waiting,
)
from ioasid.core._capture import capture
from ioasid.core._changes import ChangeLog, Changes
from ioasid.core._effects import Effect
from ioasid.core._errors import IoasidError, MalformedMessage, SessionEnded
from ioasid.core._explain_handlers import ExplainHandlers
from ioasid.core._group_handlers import GroupHandlers, group_record
from ioasid.core._handlers import DONE, Outcome, capacity_record
from ioasid.core._holder_handlers import HolderHandlers
from ioasid.core._holders import Holder
from ioasid.core._inventory_handlers import InventoryHandlers
from ioasid.core._ioasid_handlers import IoasidHandlers
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._lookups import check_at_once
from ioasid.core._migration_handlers import MigrationHandlers
from ioasid.core._notifier import Notifier
from ioasid.core._parts import Parts
from ioasid.core._range_handlers import RangeHandlers
from ioasid.core._requests import (
    Abandon,
    Acknowledge,
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    Alloc,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CloseSession,
    Continue,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Evict,
    Explain,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    ImportSet,
    InstallCapacity,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    Notify,
    OpenSession,
    Put,
    Request,
    ReserveCapacity,
    ReserveRange,
    Subscribe,
    SuspendAll,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    Tick,
    Unsubscribe,
)
from ioasid.core._reserved import ZERO
from ioasid.core._restore import restore
from ioasid.core._reuse import CyclicSpace
from ioasid.core._set_handlers import SetHandlers, set_record
from ioasid.core._snapshot import PART, Snapshot
from ioasid.core._space import IdSpace
from ioasid.core._subscription_handlers import SubscriptionHandlers
from ioasid.core._tables import Tables
from ioasid.core._terms import Message, ReuseOrder

__all__ = ["Allocator"]

DRIVER: Final = 0
"""The session of whoever drives the allocator: no number that a session is given."""

NOBODY: Final = Holder("", None)
"""Who asks as the driver."""

NOTHING: Final = Changes()

R = TypeVar("R", bound=Message)


class _Handlers:
    """What handles the requests of each type."""

    def __init__(self) -> None:
        self.by_type: dict[type[Message], Callable[[Holder, Any], Any]] = {}

    def add(self, kind: type[R], handler: Callable[[Holder, R], Outcome]) -> None:
        """Let `handler` handle the requests of one type."""
        self.by_type[kind] = handler


class Allocator:
    """The IOASID allocator: sets, quotas, IDs, references, subscribers; pure and synchronous.

    `capacity` is the number of IDs there are, 1..2^32-1 (a PASID has 20 bits, so 2^20 is the
    default); `holder` names the first session, whose number is `session` (`None`: there is none,
    and `session` is 0, until the driver opens one); `order` is the order in which free IDs are
    given out. PASID 0, which means "DMA without PASID", is reserved unless `reserve_zero` is false,
    so that all that is promised can be had. `part` is how many IDs a request deals with at most
    before others are served, 1..2^32-1. `now` is what the clock shows that is told by `Tick` later.
    Raises `InvalidArgument`.

    After every call of `handle`, or a batch of them, carry out what `drain` returns; as long as
    `has_work`, let session 0 ask to `Continue` between the requests of others.
    """

    def __init__(
        self,
        capacity: int = 1 << 20,
        *,
        holder: str | None = "host",
        order: ReuseOrder = ReuseOrder.LOWEST,
        reserve_zero: bool = True,
        part: int = PART,
        now: float = 0.0,
    ) -> None:
        cyclic = _check.order(order) is ReuseOrder.CYCLIC
        space: IdSpace[IoasidSet] = CyclicSpace() if cyclic else IdSpace()
        tables = Tables(
            _check.count(capacity, "capacity"),
            space=space,
            part=_check.count(part, "part"),
            now=_check.time(now, "now"),
        )
        if _check.flag(reserve_zero, "reserve_zero"):
            for numbers in ZERO:
                tables.reserve(*numbers)
        self._set_up(tables)
        self.session: int = DRIVER
        if holder is not None:
            opened = self.handle(DRIVER, OpenSession(_check.name(holder, "holder")))
            assert isinstance(opened, SessionOpened), opened
            self.session = opened.session

    def _set_up(self, tables: Tables) -> None:
        self._tables = tables
        self._sessions = tables.sessions
        notifier = Notifier(tables)
        life = LifeCycle(tables, notifier)
        parts = self._parts = Parts(tables, notifier, life)
        sets = self._sets = SetHandlers(tables, notifier, life, parts)
        ioasids = self._ioasids = IoasidHandlers(tables, notifier, life, parts)
        subscriptions = self._subscriptions = SubscriptionHandlers(tables, notifier, life, parts)
        holders = HolderHandlers(tables, notifier, life, parts)
        ranges = RangeHandlers(tables, notifier, life, parts)
        groups = GroupHandlers(tables, notifier, life, parts)
        handlers = _Handlers()
        self._handlers = handlers.by_type
        handlers.add(InstallCapacity, sets.install_capacity)
        handlers.add(ReserveCapacity, sets.reserve_capacity)
        handlers.add(CancelCapacity, sets.cancel_capacity)
        handlers.add(ReserveRange, ranges.reserve_range)
        handlers.add(CancelRange, ranges.cancel_range)
        handlers.add(AllocGroup, groups.alloc_group)
        handlers.add(AdjustGroup, groups.adjust_group)
        handlers.add(FreeGroup, groups.free_group)
        handlers.add(AllocSystemSet, sets.alloc_system_set)
        handlers.add(AllocSet, sets.alloc_set)
        handlers.add(AdjustSet, sets.adjust_set)
        handlers.add(FreeSet, sets.free_set)
        moves = self._moves = MigrationHandlers(tables, notifier, life, parts)
        handlers.add(FreezeSet, moves.freeze_set)
        handlers.add(ThawSet, moves.thaw_set)
        handlers.add(ActivateSet, moves.activate_set)
        handlers.add(Alloc, ioasids.alloc)
        handlers.add(AllocMany, ioasids.alloc_many)
        handlers.add(Free, ioasids.free)
        handlers.add(FreeMany, ranges.free_many)
        handlers.add(Get, ioasids.get)
        handlers.add(Put, ioasids.put)
        handlers.add(AttachData, ioasids.attach_data)
        handlers.add(DetachData, ioasids.detach_data)
        handlers.add(AttachSpid, ioasids.attach_spid)
        handlers.add(DetachSpid, ioasids.detach_spid)
        handlers.add(Notify, ioasids.notify)
        handlers.add(Subscribe, subscriptions.subscribe)
        handlers.add(Unsubscribe, subscriptions.unsubscribe)
        handlers.add(Detach, subscriptions.detach)
        handlers.add(Acknowledge, subscriptions.acknowledge)
        handlers.add(Defer, subscriptions.defer)
        handlers.add(OpenSession, holders.open_session)
        handlers.add(CloseSession, holders.close_session)
        handlers.add(SuspendSession, holders.suspend_session)
        handlers.add(Evict, holders.evict)
        inventory = InventoryHandlers(tables, notifier, life, parts)
        explaining = ExplainHandlers(tables, notifier, life, parts)
        looking = _Handlers()
        looking.add(FindSid, ioasids.find_sid)
        looking.add(FindSet, sets.find_set)
        looking.add(Find, ioasids.find)
        looking.add(FindBySpid, ioasids.find_by_spid)
        looking.add(ListSet, sets.list_set)
        looking.add(ListGroups, groups.list_groups)
        looking.add(ListSets, inventory.list_sets)
        looking.add(ListHolders, inventory.list_holders)
        looking.add(Explain, explaining.explain)
        looking.add(TakeStatistics, self._take_statistics)
        looking.add(TakeSnapshot, self._take_snapshot)
        readers = _Handlers()
        self._readers = readers.by_type
        self._readers |= looking.by_type
        readers.add(ExportSet, moves.export_set)
        readers.add(ImportSet, self._import_set)
        of_driver = _Handlers()
        self._of_driver = of_driver.by_type
        of_driver.add(OpenSession, holders.open_session)
        of_driver.add(SuspendAll, holders.suspend_all)
        of_driver.add(Continue, self._continue)
        of_driver.add(Acknowledge, subscriptions.acknowledge_of_all)
        unnoted = _Handlers()
        self._of_driver_unnoted = unnoted.by_type
        # What there is, for who watches the whole and holds nothing.
        self._of_driver_unnoted |= looking.by_type
        unnoted.add(Abandon, self._abandon)

    # -- driving it ---------------------------------------------------------------------------

    def handle(self, session: int, request: Request) -> Answer:
        """Decide a request that came through a session; returns its answer.

        That is `Waiting` if it comes later (`wait=True` on `Free`, `FreeSet` and `FreezeSet`, and
        whatever is done in parts and concerns more IDs than one of them): a `Complete` with the
        same ticket comes out of `drain` when what the request waits for has happened.
        Session 0 is whoever drives the allocator: it tells the time (`Tick`), opens the first
        session, says at once what all who came back are done with (`Acknowledge`), goes on with
        what is done in parts (`Continue`), gives up waiting for others (`Abandon`), lets all crash
        (`SuspendAll`) and looks at whatever there is (`FindBySpid` only without `get`).

        Raises the `IoasidError` that the request is refused with; nothing has changed then. Call
        `drain` next.
        """
        holder = self._sessions.get(session) if type(session) is int else None
        if holder is None:
            if type(request) is not Tick or type(session) is not int or session != DRIVER:
                return self._handle_driver(session, request)
            # It comes with every batch, so that what is as it should be is not called for.
            now, tables = request.now, self._tables
            if type(now) is not float or not tables.now <= now < _check.MAX_TIME:
                now = self._checked_time(now)
            tables.now = now
            return DONE
        try:
            handler = self._handlers[type(request)]
        except KeyError:
            # What a look-up is refused with has nothing to do with this.
            pass
        else:
            tables = self._tables
            answer: Answer = handler(holder, request)
            tables.index += 1
            if tables.unsettled or tables.returning or tables.begun:
                return self._settled(answer)
            return answer
        return self._read(holder, request)

    def repeat(self, session: int, request: Request) -> Answer:
        """Decide a request again that was carried out once in this very state, as `handle` did.

        For who goes through what was kept. It is carried out in one go: what had to be looked up
        in parts before is looked up at once.
        """
        if type(request) is ImportSet:
            check_at_once(self._tables, request.export)
        return self.handle(session, request)

    def _settled(self, outcome: Any) -> Answer:
        self._parts.settle()
        answer: Answer = outcome() if type(outcome) is partial else outcome
        return answer

    def _read(self, holder: Holder, request: Request) -> Answer:
        reader = self._readers.get(type(request))
        if reader is None:
            kind = type(request).__name__
            raise MalformedMessage("request", f"{kind} is no request of a session")
        answer: Answer = reader(holder, request)
        if type(request) is FindBySpid and request.get:
            self._tables.index += 1
        return answer

    def _import_set(self, holder: Holder, request: ImportSet) -> Answer:
        # As long as it is checked it is none that was carried out.
        found = self._moves.check_import(request)
        if isinstance(found, Waiting):
            return found
        outcome = self._moves.import_set(holder, request, found)
        self._tables.index += 1
        return self._settled(outcome)

    def _handle_driver(self, session: int, request: Request) -> Answer:
        if type(session) is not int or session != DRIVER:
            raise SessionEnded(_check.number(session, "session"))
        answer: Answer
        handler = self._of_driver_unnoted.get(type(request))
        if isinstance(request, FindBySpid) and request.get:
            # There is no holder to have the reference.
            raise SessionEnded(session)
        if handler is not None:
            answer = handler(NOBODY, request)
            return answer
        handler = self._of_driver.get(type(request))
        if handler is None:
            raise SessionEnded(session)
        answer = self._settled(handler(NOBODY, request))
        self._tables.index += 1
        return answer

    def drain(self) -> list[Effect]:
        """Return what is to be done since the last call, in order. Carry it out, then go on."""
        if self._tables.resumed:
            # Here, for work may end with any request.
            self._parts.answer_resumed()
        effects, self._tables.outbox = self._tables.outbox, []
        return effects

    @property
    def now(self) -> float:
        """What the clock showed last; a restored allocator's is that of the snapshot."""
        return self._tables.now

    @property
    def capacity(self) -> int:
        """How many IDs there are."""
        return self._tables.capacity

    @property
    def order(self) -> ReuseOrder:
        """The order in which free IDs are given out."""
        return ReuseOrder.LOWEST if self._tables.position is None else ReuseOrder.CYCLIC

    @property
    def index(self) -> int:
        """How many requests were carried out that may have changed something."""
        return self._tables.index

    @property
    def has_work(self) -> bool:
        """Whether something is left of a request that is done in parts: ask to `Continue`."""
        return bool(self._tables.work or self._tables.exports or self._tables.checks)

    def may_change(self, request: Request) -> bool:
        """Tell whether a request may change something, which then has to be kept."""
        if type(request) is FindBySpid:
            return request.get
        if type(request) is ImportSet:
            return True
        return type(request) in self._handlers or type(request) in self._of_driver

    def concerned(self, session: int, request: Acknowledge | Defer) -> set[tuple[int, int]]:
        """Return what an acknowledgement or deferral would have an effect on, were it decided now.

        Those are pairs of a subscription and a seq, 0 where it can only bring a Resync: no more
        than there are unacknowledged messages and subscriptions. Empty for one that would be
        refused.
        """
        holder = self._sessions.get(session)
        if holder is None and (session != DRIVER or type(request) is Defer):
            return set()
        try:
            return self._subscriptions.concerned(holder, request)
        except IoasidError:
            return set()

    def take_place_of(self, other: "Allocator", waits: Mapping[int, Request]) -> None:
        """Go on in the place of another allocator that knows more than it may, before all else.

        Restored as the other one was a while ago, this one knows nothing of who waits. `waits` are
        the requests that it had carried out by then and not completed, by ticket; they are
        completed with the same tickets, those that are done in parts when no work is left.
        """
        self._tables.next_ticket = other._tables.next_ticket
        self._parts.resume(waits)

    def holder(self, session: int) -> str:
        """Return the name of a session's holder; empty if there is no such session."""
        holder = self._sessions.get(session)
        return "" if holder is None else holder.name

    def watch(self) -> None:
        """Keep account, from now on, of what each request changes; `changes` returns it."""
        self._tables.changes = ChangeLog()

    def changes(self) -> Changes:
        """Return what changed since the last call, or since `watch`; empty without it."""
        tables = self._tables
        log = tables.changes
        if log is None or not (log.sids or log.ioasids or log.groups):
            return NOTHING
        tables.changes = ChangeLog()
        records = (self.record(ioasid) for ioasid in sorted(log.ioasids))
        sids, names = sorted(log.sids), sorted(log.groups)
        return Changes(
            tuple(log.allocated),
            tuple(log.reclaimed),
            tuple(record for record in records if record is not None),
            tuple(set_record(tables.sets[sid]) for sid in sids if sid in tables.sets),
            tuple(sid for sid in sids if sid not in tables.sets),
            tuple(group_record(tables.groups[name]) for name in names if name in tables.groups),
            tuple(name for name in names if name not in tables.groups),
            tables.generation if log.allocated else 0,
        )

    def snapshot(self) -> Snapshot:
        """Return the whole state as a message; equal snapshots are equal states."""
        return capture(self._tables)

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Self:
        """Return an allocator in the state a snapshot was taken of; it goes on as the first would.

        Its sessions are those of the snapshot, and so is `session`, the oldest of them, if any is
        live. Who comes back in a new process suspends the sessions (`SuspendAll`) and opens them
        again, so that every subscriber starts with a Resync. Raises `MalformedMessage` for
        a snapshot of another version or one that contradicts itself.
        """
        restored = cls.__new__(cls)
        restored._set_up(restore(snapshot))
        restored.session = min(restored._tables.sessions, default=0)
        return restored

    def record(self, ioasid: int) -> IoasidRecord | None:
        """Return an ID's record, `None` if it is not allocated. Raises `InvalidArgument`."""
        owner = self._tables.space.owner(_check.ioasid(ioasid))
        return None if owner is None else self._ioasids.record(owner, ioasid)

    def lagging(self) -> tuple[LaggingSubscriber, ...]:
        """Return the subscribers with unacknowledged messages, in order of subscription."""
        return self._subscriptions.lagging()

    def suspended(self, among: Iterable[int] | None = None) -> set[int]:
        """Return the subscriptions that are suspended, of all or `among` these numbers."""
        subscriptions = self._tables.subscriptions
        numbers = subscriptions if among is None else among
        return {
            number
            for number in numbers
            if number in subscriptions and not subscriptions[number].attached
        }

    # -- figures ------------------------------------------------------------------------------

    def _checked_time(self, told: Any) -> float:
        now = _check.time(told, "now")
        if now < self._tables.now:
            # Against its word the clock went back: the oldest stay first, and no age is negative.
            for record in self._tables.quarantine.values():
                record.freed_at = min(record.freed_at, now)
        return now

    def _abandon(self, _: Holder, request: Abandon) -> Done:
        self._parts.abandon(_check.number(request.ticket, "ticket"))
        return DONE

    def _continue(self, _: Holder, __: Continue) -> Outcome:
        self._parts.go_on()
        return partial(self._continued)

    def _continued(self) -> Answer:
        self._parts.finish()
        return DONE

    def _take_snapshot(self, _: Holder, __: TakeSnapshot) -> Snapshot:
        return self.snapshot()

    def _take_statistics(self, _: Holder, __: TakeStatistics) -> Statistics:
        tables = self._tables
        capacity = capacity_record(tables)
        return Statistics(
            capacity=capacity.capacity,
            reserved=capacity.reserved,
            available=capacity.available,
            sets=len(tables.sets),
            sets_free_pending=tables.sets_free_pending,
            active=tables.space.live - len(tables.quarantine),
            free_pending=len(tables.quarantine),
            sessions=len(tables.sessions),
            suspended=len(tables.holders) - len(tables.sessions),
            subscriptions=len(tables.subscriptions),
            seq=tables.seq,
            in_flight=sum(len(record.chain) for record in tables.chained.values()),
            lagging=self.lagging(),
            reserved_numbers=capacity.reserved_numbers,
            groups=len(tables.groups),
            quarantine=self._ages(),
        )

    def _ages(self) -> tuple[int, ...]:
        counts = [0] * len(QUARANTINE_AGES)
        for record in self._tables.quarantine.values():
            age = self._tables.now - record.freed_at
            reached = bisect_right(QUARANTINE_AGES, age)
            if not reached:
                # Whatever was freed later is younger.
                break
            counts[reached - 1] += 1
        return tuple(accumulate(reversed(counts)))[::-1]
