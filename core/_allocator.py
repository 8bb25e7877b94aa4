"""The allocator: the door for every request, and what each one does.

A synchronous state machine in the sans-I/O manner: `handle` takes a request of a session and
returns the reply or raises the error it is refused with; whatever else is to be done, `drain`
returns. A refused request has changed nothing. Every public method says what to call next.
"""

from collections.abc import Callable
from typing import Any, Self

from ioasid.core import _check
from ioasid.core._effects import Effect
from ioasid.core._errors import (
    AlreadyBound,
    AlreadySubscribed,
    CapacityExhausted,
    CapacityInUse,
    DataTaken,
    HolderLive,
    InvalidArgument,
    IoasidFreePending,
    MalformedMessage,
    NoSpid,
    NotOfThisSet,
    NotReferenced,
    NotReserved,
    QuotaBelowUse,
    QuotaExceeded,
    RangeFull,
    SessionEnded,
    SetFreePending,
    SpidInUse,
    SystemSetExists,
    TokenInUse,
    TooManyEvents,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownSubscription,
    UnknownToken,
    WouldDeadlock,
)
from ioasid.core._lifecycle import LifeCycle, state_of
from ioasid.core._messages import (
    MAX_UNDER_WAY,
    Acknowledge,
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityRecord,
    CloseSession,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Done,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    LaggingSubscriber,
    Listing,
    ListSet,
    LiveIoasid,
    Notify,
    OpenSession,
    Put,
    Released,
    Reply,
    Request,
    ReserveCapacity,
    SessionOpened,
    SetRecord,
    SetState,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    TokenType,
    Unsubscribe,
)
from ioasid.core._notifier import Notifier
from ioasid.core._records import (
    ALLOC,
    BIND,
    FREE,
    NOBODY,
    SET_FREE_PENDING,
    TIERS,
    UNBIND,
    Holder,
    IoasidSet,
    Record,
    Subscription,
    Tables,
    member_words,
    without,
)
from ioasid.core._snapshot import Snapshot, restore, take
from ioasid.core._space import ones, words

__all__ = ["Allocator"]

_DONE = Done()
_RECLAIMED = Released(True)
_REMAINS = Released(False)
_HOLDING_KINDS = frozenset((BIND, UNBIND, FREE))


class Allocator:
    """The IOASID allocator: sets, quotas, IDs, references, subscribers; pure and synchronous.

    `capacity` is the number of IDs there are, 1..2^32-1 (a PASID has 20 bits, so 2^20 is the
    default); `holder` names the first session, whose number is `session`. Raises
    `InvalidArgument`.

    After every call of `handle`, or a batch of them, carry out what `drain` returns.
    """

    def __init__(self, capacity: int = 1 << 20, *, holder: str = "host") -> None:
        _check.count(capacity, "capacity")
        self._set_up(Tables(capacity))
        self.session: int = self.open_session(holder).session

    def _set_up(self, tables: Tables) -> None:
        self._tables = tables
        self._sessions = tables.sessions
        self._notifier = Notifier(tables)
        self._life = LifeCycle(tables, self._notifier)
        self._ticket = 0
        handlers: dict[type, Callable[[Holder, Any], Reply | None]] = {
            InstallCapacity: self._install_capacity,
            ReserveCapacity: self._reserve_capacity,
            CancelCapacity: self._cancel_capacity,
            AllocSystemSet: self._alloc_system_set,
            AllocSet: self._alloc_set,
            AdjustSet: self._adjust_set,
            FreeSet: self._free_set,
            FindSid: self._find_sid,
            FindSet: self._find_set,
            Alloc: self._alloc,
            AllocMany: self._alloc_many,
            Free: self._free,
            Get: self._get,
            Put: self._put,
            Find: self._find,
            AttachData: self._attach_data,
            DetachData: self._detach_data,
            AttachSpid: self._attach_spid,
            DetachSpid: self._detach_spid,
            FindBySpid: self._find_by_spid,
            ListSet: self._list_set,
            Subscribe: self._subscribe,
            Unsubscribe: self._unsubscribe,
            Detach: self._detach,
            Acknowledge: self._acknowledge,
            Defer: self._defer,
            OpenSession: self._open,
            CloseSession: self._close_session,
            SuspendSession: self._suspend_session,
            Evict: self._evict,
            Notify: self._notify,
            TakeStatistics: self._take_statistics,
        }
        self._handlers = handlers

    # -- driving it ---------------------------------------------------------------------------

    def handle(self, session: int, request: Request, ticket: int = 0) -> Reply | None:
        """Decide a request that came through a session; returns the reply.

        Returns `None` if the request waits (`wait=True` on `Free` and `FreeSet`): a `Complete`
        with the same `ticket`, a number that no other request waits with, comes out of `drain`
        when what it waits for has happened. Raises
        the `IoasidError` that the request is refused with; nothing has changed then. Call
        `drain` next.
        """
        holder = self._sessions.get(session) if type(session) is int else None
        if holder is None:
            raise SessionEnded(_check.number(session, "session"))
        handler = self._handlers.get(type(request))
        if handler is None:
            raise MalformedMessage("request", f"{type(request).__name__} is no request")
        self._ticket = ticket
        return handler(holder, request)

    def open_session(self, name: str) -> SessionOpened:
        """Let the holder `name` join or come back; as `OpenSession`, but nobody has to ask.

        Raises `HolderLive` and `InvalidArgument`. Needs nothing drained.
        """
        tables = self._tables
        holder = tables.holders.get(_check.name(name, "name"))
        if holder is not None and holder.session is not None:
            raise HolderLive(name)
        session = tables.next_session
        tables.next_session += 1
        resumed = holder is not None
        if holder is None:
            holder = tables.holders[name] = Holder(name, session)
        holder.session = session
        tables.sessions[session] = holder
        references = tuple(sorted(holder.references.items()))
        return SessionOpened(session, resumed, references)

    def drain(self) -> list[Effect]:
        """Return what is to be done since the last call, in order. Carry it out, then go on."""
        effects, self._tables.outbox = self._tables.outbox, []
        return effects

    def tick(self, now: float) -> None:
        """Tell the time, in seconds of any clock that never goes back; offers are dated by it.

        Needs nothing drained. Raises `InvalidArgument` for a time that is no number, or so
        large that no wire could carry it.
        """
        if (type(now) is not float and type(now) is not int) or not -(2**63) < now < 2**63:
            _check.refuse("now", now, "a number of seconds")
        self._tables.now = now

    def abandon(self, ticket: int) -> None:
        """Forget a waiting request whose caller gave up; what it asked for stands."""
        self._life.abandon(_check.number(ticket, "ticket"))

    def snapshot(self) -> Snapshot:
        """Return the whole state as a message; equal snapshots are equal states."""
        return take(self._tables)

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Self:
        """Return an allocator in the state a snapshot was taken of; it goes on as the first would.

        Its sessions are those of the snapshot, and so is `session`, the oldest of them, if any is
        live. Who comes back in a new process suspends the sessions (`SuspendSession`) and opens
        them again, so that every subscriber starts with a Resync. Raises `MalformedMessage` for
        a snapshot of another version or one that contradicts itself.
        """
        restored = cls.__new__(cls)
        restored._set_up(restore(snapshot))
        restored.session = min(restored._tables.sessions, default=0)
        return restored

    def record(self, ioasid: int) -> IoasidRecord | None:
        """Return an ID's record, `None` if it is not allocated. Raises `InvalidArgument`."""
        sid = self._tables.space.owner(_check.ioasid(ioasid))
        return None if sid is None else self._record(self._tables.sets[sid], ioasid)

    def suspend_all(self) -> None:
        """Let every live session crash, as their callers did when a process ends. Call `drain`."""
        for session in tuple(self._tables.sessions):
            self.handle(session, SuspendSession())

    def lagging(self) -> tuple[LaggingSubscriber, ...]:
        """Return the subscribers with unacknowledged messages, in order of subscription."""
        lagging = self._tables.lagging
        return tuple(self._lag(lagging[number]) for number in sorted(lagging))

    # -- capacity -----------------------------------------------------------------------------

    def _capacity(self) -> CapacityRecord:
        tables = self._tables
        return CapacityRecord(tables.capacity, tables.reserved, tables.available)

    def _install_capacity(self, _: Holder, request: InstallCapacity) -> Reply:
        tables = self._tables
        total = _check.count(request.total, "total")
        if tables.in_use:
            raise CapacityInUse(tables.capacity)
        tables.capacity = tables.available = total
        return self._capacity()

    def _reserve_capacity(self, _: Holder, request: ReserveCapacity) -> Reply:
        tables = self._tables
        count = _check.optional_count(request.count, "count")
        count = self._take_available(count)
        tables.reserved += count
        return self._capacity()

    def _cancel_capacity(self, _: Holder, request: CancelCapacity) -> Reply:
        tables = self._tables
        count = _check.count(request.count, "count")
        if count > tables.reserved:
            raise NotReserved(count, tables.reserved)
        tables.reserved -= count
        tables.available += count
        return self._capacity()

    def _take_available(self, count: int | None) -> int:
        # None takes all there is, which has to be something.
        tables = self._tables
        if (count or 1) > tables.available:
            raise CapacityExhausted(count or 1, tables.available)
        taken = count or tables.available
        tables.available -= taken
        tables.in_use = True
        return taken

    # -- sets ---------------------------------------------------------------------------------

    def _set(self, sid: Any) -> IoasidSet:
        owner = self._tables.sets.get(_check.number(sid, "sid"))
        if owner is None:
            raise UnknownSet(sid)
        return owner

    def _usable_set(self, sid: Any) -> IoasidSet:
        owner = self._tables.sets.get(sid) if type(sid) is int else None
        if owner is None:
            return self._set(sid)
        if owner.state is SET_FREE_PENDING:
            raise SetFreePending(owner.sid)
        return owner

    def _alloc_system_set(self, _: Holder, request: AllocSystemSet) -> Reply:
        tables = self._tables
        quota = _check.optional_count(request.quota, "quota")
        if tables.system_sid is not None:
            raise SystemSetExists(tables.system_sid)
        owner = self._add_set(None, TokenType.NULL, quota, system=True)
        tables.system_sid = owner.sid
        return _set_record(owner)

    def _alloc_set(self, _: Holder, request: AllocSet) -> Reply:
        tables = self._tables
        quota = _check.optional_count(request.quota, "quota")
        if type(request.token_type) is not TokenType:
            _check.refuse("token_type", request.token_type, "TokenType.MM or TokenType.NULL")
        if request.token_type is TokenType.NULL:
            if request.token is not None:
                _check.refuse("token", request.token, "None for a set of TokenType.NULL")
            return _set_record(self._add_set(None, TokenType.NULL, quota))
        token = _check.name(request.token, "token")
        if token in tables.tokens:
            raise TokenInUse(token, tables.tokens[token])
        return _set_record(self._add_set(token, TokenType.MM, quota))

    def _add_set(
        self, token: str | None, token_type: TokenType, quota: int | None, *, system: bool = False
    ) -> IoasidSet:
        tables = self._tables
        quota = self._take_available(quota)
        sid = tables.sids.take_lowest(0, _check.MAX_COUNT, 0, tables.sid_words)
        assert sid is not None, "every set has a quota, so there are more numbers than sets"
        owner = tables.sets[sid] = IoasidSet(sid, token, token_type, quota, system)
        if token is not None:
            tables.tokens[token] = sid
            owner.subscriptions.update(tables.token_subscriptions.get(token, {}))
        return owner

    def _adjust_set(self, _: Holder, request: AdjustSet) -> Reply:
        tables = self._tables
        quota = _check.count(request.quota, "quota")
        owner = self._usable_set(request.sid)
        if quota < owner.allocated:
            raise QuotaBelowUse(owner.sid, quota, owner.allocated)
        if quota - owner.quota > tables.available:
            raise CapacityExhausted(quota - owner.quota, tables.available)
        tables.available -= quota - owner.quota
        owner.quota = quota
        return _set_record(owner)

    def _free_set(self, holder: Holder, request: FreeSet) -> Reply | None:
        tables = self._tables
        destroy = _check.flag(request.destroy, "destroy")
        wait = _check.flag(request.wait, "wait")
        owner = self._set(request.sid)
        if wait:
            for first, word in member_words(owner):
                for bit in ones(word):
                    self._refuse_deadlock(holder, owner, first + bit)
            self._check_ticket()
        if destroy and owner.state is SetState.ACTIVE:
            owner.state = SetState.FREE_PENDING
            tables.sets_free_pending += 1
        self._life.free_all(owner)
        self._life.settle()
        self._life.destroy_if_empty(owner)
        pending = [ioasid for ioasid, record in owner.records.items() if record.free_pending]
        if wait and self._life.wait(self._ticket, owner, pending):
            return None
        return Released(not pending)

    def _find_sid(self, _: Holder, request: FindSid) -> Reply:
        return FoundSid(self._owner(request.ioasid, None).sid)

    def _find_set(self, _: Holder, request: FindSet) -> Reply:
        if (request.token is None) == (request.sid is None):
            _check.refuse("token", request.token, "either a token or a sid")
        if request.token is None:
            return _set_record(self._set(request.sid))
        token = _check.name(request.token, "token")
        if token not in self._tables.tokens:
            raise UnknownToken(token)
        return _set_record(self._tables.sets[self._tables.tokens[token]])

    def _list_set(self, _: Holder, request: ListSet) -> Reply:
        owner = self._set(request.sid)
        return Listing(
            owner.sid,
            tuple(
                _live_ioasid(owner, first + bit)
                for first, word in member_words(owner)
                for bit in ones(word)
            ),
        )

    # -- IOASIDs ------------------------------------------------------------------------------

    def _owner(self, ioasid: Any, sid: Any) -> IoasidSet:
        # The set of a live ID; refused if the request names another one.
        tables = self._tables
        found = tables.space.owner(ioasid) if type(ioasid) is int else None
        if found is None:
            _check.ioasid(ioasid)
            _check.optional_number(sid, "sid")
            raise UnknownIoasid(ioasid)
        if sid is not None and _check.number(sid, "sid") != found:
            raise NotOfThisSet(ioasid, sid)
        return tables.sets[found]

    def _active(self, ioasid: Any, sid: Any) -> IoasidSet:
        owner = self._owner(ioasid, sid)
        record = owner.records.get(ioasid)
        if record is not None and record.free_pending:
            raise IoasidFreePending(ioasid)
        return owner

    def _range(self, low: Any, high: Any) -> tuple[int, int]:
        last = self._tables.capacity - 1
        low = _check.ioasid(low, "min")
        high = last if high is None else _check.ioasid(high, "max")
        if high > last:
            raise InvalidArgument("max", str(high), f"an ID below the capacity, at most {last}")
        if low > high:
            raise InvalidArgument("min", str(low), f"at most max, which is {high}")
        return low, high

    def _alloc(self, _: Holder, request: Alloc) -> Reply:
        # The request that everything else is measured by: what is as it should be is not called
        # for, `_range` and `_usable_set` only tell what is wrong with the rest.
        tables = self._tables
        low, high = request.min, tables.capacity - 1
        if request.max is not None or type(low) is not int or not 0 <= low <= high:
            low, high = self._range(low, request.max)
        data = request.data
        if data is not None:
            _check.data(data)
        sid = request.sid
        owner = tables.sets.get(sid) if type(sid) is int else None
        if owner is None or owner.state is SET_FREE_PENDING:
            owner = self._usable_set(sid)
        if owner.allocated >= owner.quota:
            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1)
        ioasid = tables.space.take_lowest(low, high, sid, owner.members)
        if ioasid is None:
            raise RangeFull(low, high, 1)
        owner.allocated += 1
        tables.live += 1
        if data is not None:
            owner.records[ioasid] = Record(ioasid, owner, data=data)
        if tables.subscriptions:
            self._notifier.tell_all(owner, ALLOC, ioasid, None, data)
        else:
            tables.seq += 1
        return Allocated(ioasid)

    def _alloc_many(self, _: Holder, request: AllocMany) -> Reply:
        tables = self._tables
        count = _check.count(request.count, "count")
        low, high = self._range(request.min, request.max)
        owner = self._usable_set(request.sid)
        if count > owner.quota - owner.allocated:
            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, count)
        ranges = tables.space.lowest_ranges(count, low, high)
        if ranges is None:
            raise RangeFull(low, high, count)
        for number, gained in words(ranges):
            tables.space.take_word(number, gained, owner.sid, owner.members)
        owner.allocated += count
        tables.live += count
        if self._notifier.route(owner, ALLOC) is NOBODY:
            tables.seq += count
        else:
            for first, last in ranges:
                for ioasid in range(first, last + 1):
                    self._notifier.tell_all(owner, ALLOC, ioasid, None, None)
        return AllocatedMany(tuple(IoasidRange(first, last) for first, last in ranges))

    def _free(self, holder: Holder, request: Free) -> Reply | None:
        wait = _check.flag(request.wait, "wait")
        owner = self._owner(request.ioasid, request.sid)
        ioasid = request.ioasid
        if wait:
            self._refuse_deadlock(holder, owner, ioasid)
            self._check_ticket()
        self._life.free(owner, ioasid)
        if self._tables.unsettled:
            self._life.settle()
        if ioasid not in owner.records:
            return _RECLAIMED
        if wait and self._life.wait(self._ticket, owner, [ioasid]):
            return None
        return _REMAINS

    def _check_ticket(self) -> None:
        if _check.number(self._ticket, "ticket") in self._tables.waiters:
            _check.refuse("ticket", self._ticket, "a ticket that no other request waits with")

    def _refuse_deadlock(self, holder: Holder, owner: IoasidSet, ioasid: int) -> None:
        reason = self._life.own_part(holder, owner, ioasid)
        if reason is not None:
            raise WouldDeadlock(holder.name, ioasid, reason)

    def _get(self, holder: Holder, request: Get) -> Reply:
        # An ID in quarantine is EBUSY to everybody, as it was in the kernel's allocator.
        owner = self._active(request.ioasid, None)
        if request.sid is not None:
            self._owner(request.ioasid, request.sid)
        self._take_reference(holder, owner, request.ioasid)
        return _DONE

    def _take_reference(self, holder: Holder, owner: IoasidSet, ioasid: int) -> None:
        record = self._tables.record(owner, ioasid)
        held = holder.references.get(ioasid, 0)
        if not held:
            record.holders += (holder,)
        # The record's own number for a key: the one that came with the request need not be kept.
        holder.references[record.ioasid] = held + 1

    def _put(self, holder: Holder, request: Put) -> Reply:
        owner = self._owner(request.ioasid, request.sid)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        held = holder.references.get(ioasid, 0)
        if record is None or not held:
            raise NotReferenced(holder.name, ioasid)
        if held > 1:
            holder.references[ioasid] = held - 1
            return _REMAINS
        del holder.references[ioasid]
        record.holders = without(record.holders, holder)
        self._life.settle_one(record)
        return _RECLAIMED if record.reclaimed else _REMAINS

    def _find(self, _: Holder, request: Find) -> Reply:
        return self._record(self._owner(request.ioasid, request.sid), request.ioasid)

    def _record(self, owner: IoasidSet, ioasid: int) -> IoasidRecord:
        record = owner.records.get(ioasid)
        if record is None:
            return IoasidRecord(ioasid, owner.sid, None, IoasidState.ACTIVE, None, {}, 1)
        references: dict[str, int] = {}
        for each in record.holders:
            references[each.name] = each.references[ioasid]
        for each in record.granted:
            references[each.name] = references.get(each.name, 0) + 1
        own = 0 if record.free_pending else 1
        return IoasidRecord(
            ioasid,
            owner.sid,
            record.spid,
            state_of(record),
            record.data,
            references,
            own + sum(references.values()),
        )

    def _attach_data(self, _: Holder, request: AttachData) -> Reply:
        data = _check.data(request.data)
        owner = self._active(request.ioasid, request.sid)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            raise DataTaken(request.ioasid)
        self._tables.record(owner, request.ioasid).data = data
        return _DONE

    def _detach_data(self, _: Holder, request: DetachData) -> Reply:
        owner = self._active(request.ioasid, request.sid)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            record.data = None
            self._life.settle_one(record)
        return _DONE

    def _attach_spid(self, _: Holder, request: AttachSpid) -> Reply:
        spid = _check.ioasid(request.spid, "spid")
        owner = self._active(request.ioasid, request.sid)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        if record is not None and record.spid is not None:
            raise AlreadyBound(ioasid, record.spid)
        if spid in owner.spids:
            raise SpidInUse(owner.sid, spid, owner.spids[spid])
        record = self._refuse_too_many(owner, ioasid)
        record.spid = spid
        owner.spids[spid] = record.ioasid
        record.binding = self._notifier.stage(record, BIND, spid, None)
        if self._tables.unsettled:
            self._life.settle()
        return _DONE

    def _refuse_too_many(self, owner: IoasidSet, ioasid: int) -> Record:
        record = owner.records.get(ioasid)
        if record is not None and len(record.chain) >= MAX_UNDER_WAY:
            under_way = self._notifier.under_way(record)
            if under_way >= MAX_UNDER_WAY:
                raise TooManyEvents(ioasid, under_way)
        return record or self._tables.record(owner, ioasid)

    def _detach_spid(self, _: Holder, request: DetachSpid) -> Reply:
        owner = self._owner(request.ioasid, request.sid)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        if record is None or record.spid is None:
            raise NoSpid(ioasid)
        if not record.free_pending:
            self._notifier.stage(record, UNBIND, record.spid, None)
        del owner.spids[record.spid]
        record.spid = record.binding = None
        self._life.settle_one(record)
        return _DONE

    def _find_by_spid(self, holder: Holder, request: FindBySpid) -> Reply:
        spid = _check.ioasid(request.spid, "spid")
        get = _check.flag(request.get, "get")
        owner = self._set(request.sid)
        ioasid = owner.spids.get(spid)
        if ioasid is None:
            raise UnknownSpid(owner.sid, spid)
        if get:
            if owner.records[ioasid].free_pending:
                raise IoasidFreePending(ioasid)
            self._take_reference(holder, owner, ioasid)
        return Allocated(ioasid)

    def _notify(self, holder: Holder, request: Notify) -> Reply:
        kind = _check.kind(request.kind)
        owner = self._active(request.ioasid, request.sid)
        record = self._refuse_too_many(owner, request.ioasid)
        self._notifier.stage(record, kind, record.spid, holder.name)
        self._life.settle_one(record)
        return _DONE

    # -- subscriptions ------------------------------------------------------------------------

    def _subscribe(self, holder: Holder, request: Subscribe) -> Reply:
        tables = self._tables
        asked = self._check_subscribe(holder, request)
        scope = (asked.sid, asked.token)
        present = holder.subscriptions.get(scope)
        if present is not None:
            if present.attached:
                raise AlreadySubscribed(present.scope, present.number)
            self._refuse_other_terms(present, asked)
            present.queue_size = asked.queue_size
            present.acknowledge_within = asked.acknowledge_within
            self._notifier.attach(present, resync=True)
            return Subscribed(present.number, True)
        if asked.sid is not None:
            self._set(asked.sid)
        tables.next_subscription += 1
        holder.subscriptions[scope] = tables.subscriptions[asked.number] = asked
        self._notifier.join(asked)
        self._notifier.attach(asked, resync=request.replay)
        return Subscribed(asked.number, False)

    def _check_subscribe(self, holder: Holder, request: Subscribe) -> Subscription:
        sid = _check.optional_number(request.sid, "sid")
        token = None if request.token is None else _check.name(request.token, "token")
        if sid is not None and token is not None:
            _check.refuse("token", token, "either sid or token, not both")
        kinds = _check.kinds(request.kinds)
        priority = _check.priority(request.priority)
        hold = _check.flag(request.hold, "hold")
        _check.flag(request.replay, "replay")
        if hold and not kinds >= _HOLDING_KINDS:
            _check.refuse("kinds", sorted(kinds), "BIND, UNBIND and FREE among them, to hold")
        return Subscription(
            self._tables.next_subscription,
            holder,
            sid,
            token,
            kinds,
            priority,
            hold,
            _check.queue_size(request.queue_size),
            _check.seconds(request.acknowledge_within, "acknowledge_within"),
            TIERS[priority],
        )

    def _refuse_other_terms(self, present: Subscription, asked: Subscription) -> None:
        # What was folded while it was suspended was chosen and ordered by the old terms.
        for term in ("kinds", "priority", "hold"):
            if getattr(present, term) != getattr(asked, term):
                _check.refuse(
                    term,
                    getattr(asked, term),
                    f"what the suspended subscription has, {getattr(present, term)!r}, "
                    f"or unsubscribe {present.number} first",
                )

    def _subscription(self, holder: Holder, number: Any) -> Subscription:
        subscription = self._tables.subscriptions.get(_check.number(number, "subscription"))
        if subscription is None or subscription.holder is not holder:
            raise UnknownSubscription(number)
        return subscription

    def _unsubscribe(self, holder: Holder, request: Unsubscribe) -> Reply:
        subscription = self._subscription(holder, request.subscription)
        self._notifier.leave(subscription, drained=False)
        self._life.settle()
        return _DONE

    def _detach(self, holder: Holder, request: Detach) -> Reply:
        subscription = self._subscription(holder, request.subscription)
        if subscription.hold or holder.references:
            self._notifier.suspend(subscription)
        else:
            self._notifier.leave(subscription, drained=False)
            self._life.settle()
        return _DONE

    def _acknowledge(self, holder: Holder, request: Acknowledge) -> Reply:
        tables = self._tables
        seq = _check.number(request.seq, "seq")
        number = request.subscription
        subscription = tables.subscriptions.get(number) if type(number) is int else None
        if subscription is None or subscription.holder is not holder:
            subscription = self._subscription(holder, number)
        self._notifier.acknowledge(subscription, seq)
        if tables.unsettled:
            self._life.settle()
        if subscription.resync_due:
            self._notifier.resync_if_back(subscription)
        return _DONE

    def _defer(self, holder: Holder, request: Defer) -> Reply:
        seq = _check.number(request.seq, "seq")
        subscription = self._subscription(holder, request.subscription)
        self._notifier.defer(subscription, seq)
        self._notifier.resync_if_back(subscription)
        return _DONE

    # -- sessions -----------------------------------------------------------------------------

    def _open(self, _: Holder, request: OpenSession) -> Reply:
        return self.open_session(request.name)

    def _close_session(self, holder: Holder, _: CloseSession) -> Reply:
        self._remove_holder(holder)
        return _DONE

    def _suspend_session(self, holder: Holder, _: SuspendSession) -> Reply:
        subscriptions = holder.subscriptions.values()
        if not holder.references and not any(each.hold for each in subscriptions):
            self._remove_holder(holder)
            return _DONE
        for subscription in subscriptions:
            self._notifier.suspend(subscription)
        assert holder.session is not None, "it is the session that asks"
        del self._tables.sessions[holder.session]
        holder.session = None
        return _DONE

    def _evict(self, _: Holder, request: Evict) -> Reply:
        holder = self._tables.holders.get(_check.name(request.name, "name"))
        if holder is None:
            raise UnknownHolder(request.name)
        self._remove_holder(holder)
        return _DONE

    def _remove_holder(self, holder: Holder) -> None:
        tables = self._tables
        for subscription in tuple(holder.subscriptions.values()):
            self._notifier.leave(subscription, drained=False)
        self._life.drop_references(holder)
        if holder.session is not None:
            del tables.sessions[holder.session]
        del tables.holders[holder.name]
        self._life.settle()

    # -- figures ------------------------------------------------------------------------------

    def _take_statistics(self, _: Holder, __: TakeStatistics) -> Reply:
        tables = self._tables
        return Statistics(
            capacity=tables.capacity,
            reserved=tables.reserved,
            available=tables.available,
            sets=len(tables.sets),
            sets_free_pending=tables.sets_free_pending,
            active=tables.live - tables.free_pending,
            free_pending=tables.free_pending,
            sessions=len(tables.sessions),
            suspended=len(tables.holders) - len(tables.sessions),
            subscriptions=len(tables.subscriptions),
            seq=tables.seq,
            under_way=sum(len(record.chain) for record in tables.chained.values()),
            lagging=self.lagging(),
        )

    def _lag(self, subscription: Subscription) -> LaggingSubscriber:
        oldest = [
            (offered, seq) for seq, (offered, _) in list(subscription.outstanding.items())[:1]
        ]
        if subscription.folded_since is not None:
            seq, offered = subscription.folded_since
            oldest.append((offered, seq))
        offered, seq = min(oldest, default=(self._tables.now, 0), key=lambda each: each[0])
        age = self._tables.now - offered
        deadline = subscription.acknowledge_within
        return LaggingSubscriber(
            holder=subscription.holder.name,
            subscription=subscription.number,
            scope=subscription.scope,
            priority=subscription.priority,
            attached=subscription.attached,
            queued=len(subscription.outstanding),
            deferred=len(subscription.deferred),
            folded=len(subscription.folded),
            oldest_seq=seq,
            oldest_age=age,
            acknowledge_within=deadline,
            overdue=bool(oldest) and deadline is not None and age >= deadline,
        )


def _set_record(owner: IoasidSet) -> SetRecord:
    return SetRecord(
        owner.sid,
        owner.token,
        owner.token_type,
        owner.quota,
        owner.allocated,
        owner.state,
        owner.system,
    )


def _live_ioasid(owner: IoasidSet, ioasid: int) -> LiveIoasid:
    record = owner.records.get(ioasid)
    spid, data = (None, None) if record is None else (record.spid, record.data)
    return LiveIoasid(ioasid, owner.sid, owner.token, state_of(record), spid, data)
