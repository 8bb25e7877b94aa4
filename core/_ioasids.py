"""The requests about IOASIDs: allocation, references, data, spids."""

from typing import Any, Final

from ioasid.core import _check
from ioasid.core._errors import (
    AlreadyBound,
    DataTaken,
    InvalidArgument,
    IoasidFreePending,
    NoSpid,
    NotOfThisSet,
    NotReferenced,
    QuotaExceeded,
    RangeFull,
    SpidInUse,
    TooManyEvents,
    UnknownSpid,
)
from ioasid.core._handlers import DONE, Handlers
from ioasid.core._lifecycle import state_of
from ioasid.core._messages import (
    MAX_UNDER_WAY,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocMany,
    AttachData,
    AttachSpid,
    DetachData,
    DetachSpid,
    Find,
    FindBySpid,
    FindSid,
    FoundSid,
    Free,
    Get,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Notify,
    Put,
    Released,
    Reply,
)
from ioasid.core._records import (
    ALLOC,
    BIND,
    NOBODY,
    SET_FREE_PENDING,
    UNBIND,
    Holder,
    IoasidSet,
    Record,
    without,
)
from ioasid.core._space import words

__all__: list[str] = []

_RECLAIMED: Final = Released(True)
_REMAINS: Final = Released(False)


class Ioasids(Handlers):
    """The handlers of IOASIDs."""

    # -- allocating ---------------------------------------------------------------------------

    def alloc(self, _: Holder, request: Alloc) -> Reply:
        """Give the lowest free ID of a range to a set."""
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

    def alloc_many(self, _: Holder, request: AllocMany) -> Reply:
        """Give the lowest free IDs of a range to a set, all or none."""
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

    def _range(self, low: Any, high: Any) -> tuple[int, int]:
        last = self._tables.capacity - 1
        low = _check.ioasid(low, "min")
        high = last if high is None else _check.ioasid(high, "max")
        if high > last:
            raise InvalidArgument("max", str(high), f"an ID below the capacity, at most {last}")
        if low > high:
            raise InvalidArgument("min", str(low), f"at most max, which is {high}")
        return low, high

    def free(self, holder: Holder, request: Free) -> Reply | None:
        """Drop the reference that the set has of its ID."""
        wait = _check.flag(request.wait, "wait")
        owner = self._owner(request.ioasid, request.sid)
        ioasid = request.ioasid
        if wait:
            self._life.check_wait(holder, owner, [ioasid])
        self._life.free(owner, ioasid)
        if self._tables.unsettled:
            self._life.settle()
        if ioasid not in owner.records:
            return _RECLAIMED
        if wait and self._life.wait(owner, [ioasid]):
            return None
        return _REMAINS

    # -- looking up ---------------------------------------------------------------------------

    def find(self, _: Holder, request: Find) -> Reply:
        """Look up all there is to know of an ID."""
        return self.record(self._owner(request.ioasid, request.sid), request.ioasid)

    def find_sid(self, _: Holder, request: FindSid) -> Reply:
        """Look up the set of an ID."""
        return FoundSid(self._owner(request.ioasid, None).sid)

    def record(self, owner: IoasidSet, ioasid: int) -> IoasidRecord:
        """Return all there is to know of a live ID."""
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

    # -- references ---------------------------------------------------------------------------

    def get(self, holder: Holder, request: Get) -> Reply:
        """Take a reference for the holder."""
        # An ID in quarantine is EBUSY to everybody, as it was in the kernel's allocator.
        sid = _check.optional_number(request.sid, "sid")
        owner = self._active(request.ioasid, None)
        if sid is not None and sid != owner.sid:
            raise NotOfThisSet(request.ioasid, sid)
        self._take_reference(holder, owner, request.ioasid)
        return DONE

    def put(self, holder: Holder, request: Put) -> Reply:
        """Drop a reference of the holder."""
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

    def _take_reference(self, holder: Holder, owner: IoasidSet, ioasid: int) -> None:
        record = self._tables.record(owner, ioasid)
        held = holder.references.get(ioasid, 0)
        if not held:
            record.holders += (holder,)
        # The record's own number for a key: the one that came with the request need not be kept.
        holder.references[record.ioasid] = held + 1

    # -- data, spids and events of one's own --------------------------------------------------

    def attach_data(self, _: Holder, request: AttachData) -> Reply:
        """Attach data to an ID that has none."""
        data = _check.data(request.data)
        owner = self._active(request.ioasid, request.sid)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            raise DataTaken(request.ioasid)
        self._tables.record(owner, request.ioasid).data = data
        return DONE

    def detach_data(self, _: Holder, request: DetachData) -> Reply:
        """Detach the data of an ID, if it has any."""
        owner = self._active(request.ioasid, request.sid)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            record.data = None
            self._life.settle_one(record)
        return DONE

    def attach_spid(self, _: Holder, request: AttachSpid) -> Reply:
        """Bind an ID to a spid of its set."""
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
        return DONE

    def detach_spid(self, _: Holder, request: DetachSpid) -> Reply:
        """Unbind an ID from its spid."""
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
        return DONE

    def find_by_spid(self, holder: Holder, request: FindBySpid) -> Reply:
        """Look up an ID by its spid, and take a reference if that is asked for."""
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

    def notify(self, holder: Holder, request: Notify) -> Reply:
        """Send an event of the holder's own."""
        kind = _check.kind(request.kind)
        owner = self._active(request.ioasid, request.sid)
        record = self._refuse_too_many(owner, request.ioasid)
        self._notifier.stage(record, kind, record.spid, holder.name)
        self._life.settle_one(record)
        return DONE

    def _refuse_too_many(self, owner: IoasidSet, ioasid: int) -> Record:
        record = owner.records.get(ioasid)
        if record is not None and len(record.chain) >= MAX_UNDER_WAY:
            under_way = self._notifier.under_way(record)
            if under_way >= MAX_UNDER_WAY:
                raise TooManyEvents(ioasid, under_way)
        return record or self._tables.record(owner, ioasid)
