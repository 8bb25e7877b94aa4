"""The requests about IOASIDs: allocation, references, data, spids."""

from itertools import starmap

from ioasid.core import _check
from ioasid.core._answers import Allocated, AllocatedMany, Answer, FoundSid, IoasidRecord
from ioasid.core._errors import (
    AlreadyBound,
    DataTaken,
    IoasidFreePending,
    NoSpid,
    NotOfThisSet,
    NotReferenced,
    QuotaExceeded,
    RangeFull,
    SpidInUse,
    UnknownSpid,
)
from ioasid.core._handlers import DONE, Handlers, Outcome
from ioasid.core._holders import Holder, how_often, joined, without
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lifecycle import RECLAIMED, REMAINS, state_of
from ioasid.core._requests import (
    Alloc,
    AllocMany,
    AttachData,
    AttachSpid,
    DetachData,
    DetachSpid,
    Find,
    FindBySpid,
    FindSid,
    Free,
    Get,
    Notify,
    Put,
)
from ioasid.core._space import MASK, SHIFT, ranges_of
from ioasid.core._terms import (
    ALLOC,
    BIND,
    SET_ACTIVE,
    UNBIND,
    IoasidRange,
    IoasidState,
)

__all__: list[str] = []


class IoasidHandlers(Handlers):
    """The handlers of IOASIDs."""

    # -- allocating ---------------------------------------------------------------------------

    def alloc(self, _: Holder, request: Alloc) -> Answer:
        """Give the lowest free ID of a range, or the next in turn, to a set."""
        # The request that everything else is measured by: what is as it should be is not called
        # for, `_range` and `_usable_set` only tell what is wrong with the rest.
        tables = self._tables
        low, high = request.min, tables.capacity - 1
        if request.max is not None or type(low) is not int or not 0 <= low <= high:
            low, high = self._range(low, high if request.max is None else request.max)
        data = request.data
        if data is not None:
            _check.data(data)
        sid = request.sid
        owner = tables.sets.get(sid) if type(sid) is int else None
        if owner is None or owner.state is not SET_ACTIVE:
            owner = self._usable_set(sid)
        if owner.allocated >= owner.quota:
            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, 1, token=owner.token)
        generation = tables.generation + 1
        ioasid = tables.space.take(low, high, owner, generation)
        if ioasid is None:
            raise RangeFull(low, high, 1)
        tables.generation = generation
        if tables.changes is not None:
            tables.changes.take(sid, ioasid, ioasid)
        if data is not None:
            owner.records[ioasid] = Record(ioasid, owner, data=data)
            owner.with_data += 1
            self._note_ioasid(owner, ioasid)
        if tables.subscriptions:
            self._notifier.tell_all(owner, ALLOC, ioasid, generation, None, data)
        else:
            tables.seq += 1
        return Allocated(ioasid, generation)

    def alloc_many(self, _: Holder, request: AllocMany) -> Answer:
        """Give the lowest free IDs of a range, or the next in turn, to a set, all or none."""
        tables = self._tables
        count = _check.count(request.count, "count")
        last = tables.capacity - 1
        low, high = self._range(request.min, last if request.max is None else request.max)
        owner = self._usable_set(request.sid)
        if count > owner.quota - owner.allocated:
            raise QuotaExceeded(owner.sid, owner.quota, owner.allocated, count, token=owner.token)
        chosen = tables.space.next_words(count, low, high)
        if chosen is None:
            raise RangeFull(low, high, count)
        tables.generation += 1
        generation = tables.generation
        for number, gained in chosen:
            tables.space.take_word(number, gained, owner, generation)
        ranges = ranges_of((number << SHIFT, gained) for number, gained in chosen)
        if tables.changes is not None:
            for first, last in ranges:
                tables.changes.take(owner.sid, first, last)
        self._notifier.tell_all_of(owner, chosen, generation)
        return AllocatedMany(tuple(starmap(IoasidRange, ranges)), generation)

    def free(self, holder: Holder, request: Free) -> Outcome:
        """Drop the reference that the set has of its ID."""
        wait = request.wait
        if wait is not False:
            _check.flag(wait, "wait")
        ioasid, sid, generation = request.ioasid, request.sid, request.generation
        tables = self._tables
        # As `_owner`, which the most frequent need not pay a call for.
        owner = tables.space.owner(ioasid) if type(ioasid) is int else None
        if owner is None or sid is not None or generation is not None:
            owner = self._meant(owner, ioasid, sid, generation)
        if not (tables.subscriptions or owner.records or owner.state is not SET_ACTIVE):
            # The most frequent: nobody is told of it, and nothing waits for it.
            tables.seq += 2
            tables.space.release(owner, ioasid, 1 << (ioasid & MASK))
            if tables.changes is not None:
                tables.changes.release(owner.sid, ioasid, ioasid)
            return RECLAIMED
        if wait:
            self._life.check_wait(holder, owner, [ioasid])
        self._life.free(owner, ioasid)
        if ioasid not in owner.records:
            return RECLAIMED
        return self._when_settled(self._freed, owner, ioasid, wait)

    def _freed(self, owner: IoasidSet, ioasid: int, wait: bool) -> Answer:
        if ioasid not in owner.records:
            return RECLAIMED
        return self._life.wait(owner, [ioasid]) if wait else REMAINS

    # -- looking up ---------------------------------------------------------------------------

    def find(self, _: Holder, request: Find) -> Answer:
        """Look up all there is to know of an ID."""
        owner = self._owner(request.ioasid, request.sid, request.generation)
        return self.record(owner, request.ioasid)

    def find_sid(self, _: Holder, request: FindSid) -> Answer:
        """Look up the set of an ID."""
        return FoundSid(self._owner(request.ioasid, None, request.generation).sid)

    def record(self, owner: IoasidSet, ioasid: int) -> IoasidRecord:
        """Return all there is to know of a live ID."""
        record = owner.records.get(ioasid)
        generation = self._tables.space.generation(ioasid)
        if record is None:
            return IoasidRecord(
                ioasid, owner.sid, None, IoasidState.ACTIVE, None, {}, 1, generation
            )
        references: dict[str, int] = {}
        for each in record.holders:
            references[each.name] = each.references[ioasid]
        for each, times in how_often(record.granted):
            references[each.name] = references.get(each.name, 0) + times
        own = 0 if record.free_pending else 1
        return IoasidRecord(
            ioasid,
            owner.sid,
            record.bound_spid,
            state_of(record),
            record.data,
            references,
            own + sum(references.values()),
            generation,
        )

    # -- references ---------------------------------------------------------------------------

    def get(self, holder: Holder, request: Get) -> Answer:
        """Take a reference for the holder."""
        sid = _check.optional_number(request.sid, "sid")
        ioasid = request.ioasid
        owner = self._owner(ioasid, None, request.generation)
        other = None
        if sid is not None and sid != owner.sid:
            named = self._tables.sets.get(sid)
            other = NotOfThisSet(ioasid, sid, token=None if named is None else named.token)
        record = owner.records.get(ioasid)
        if record is not None and record.free_pending:
            # An ID in quarantine is EBUSY to everybody, as it was in the kernel's allocator. Whom
            # that is not to be told finds by the cause that it is another one's.
            raise IoasidFreePending(ioasid) from other
        if other is not None:
            self._set(sid)
            raise other
        self._take_reference(holder, owner, request.ioasid)
        return DONE

    def put(self, holder: Holder, request: Put) -> Outcome:
        """Drop a reference of the holder."""
        owner = self._owner(request.ioasid, request.sid, request.generation)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        held = holder.references.get(ioasid, 0)
        if record is None or not held:
            raise NotReferenced(holder.name, ioasid)
        if held > 1:
            holder.references[ioasid] = held - 1
            self._note_ioasid(owner, ioasid)
            return REMAINS
        del holder.references[ioasid]
        record.holders = without(record.holders, holder)
        self._life.touch(record)
        return self._when_settled(_put, record)

    def _take_reference(self, holder: Holder, owner: IoasidSet, ioasid: int) -> None:
        record = owner.record(ioasid)
        held = holder.references.get(ioasid, 0)
        if not held:
            record.holders = joined(record.holders, holder)
        # The record's own number for a key: the one that came with the request need not be kept.
        holder.references[record.ioasid] = held + 1
        self._note_ioasid(owner, ioasid)

    # -- data, spids and events of one's own --------------------------------------------------

    def attach_data(self, _: Holder, request: AttachData) -> Answer:
        """Attach data to an ID that has none."""
        data = _check.data(request.data)
        owner = self._active(request.ioasid, request.sid, request.generation)
        self._refuse_inert(owner)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            raise DataTaken(request.ioasid)
        owner.record(request.ioasid).data = data
        owner.with_data += 1
        self._note_ioasid(owner, request.ioasid)
        return DONE

    def detach_data(self, _: Holder, request: DetachData) -> Answer:
        """Detach the data of an ID, if it has any."""
        owner = self._active(request.ioasid, request.sid, request.generation)
        self._refuse_inert(owner)
        record = owner.records.get(request.ioasid)
        if record is not None and record.data is not None:
            record.data = None
            owner.with_data -= 1
            self._life.touch(record)
        return DONE

    def attach_spid(self, _: Holder, request: AttachSpid) -> Answer:
        """Bind an ID to a spid of its set."""
        spid = _check.ioasid(request.spid, "spid")
        owner = self._active(request.ioasid, request.sid, request.generation)
        self._refuse_inert(owner)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        if record is not None and record.spid is not None:
            raise AlreadyBound(ioasid, record.spid)
        if spid in owner.spids:
            raise SpidInUse(owner.sid, spid, owner.spids[spid], token=owner.token)
        record = self._refuse_too_many(owner, ioasid)
        record.spid = spid
        owner.spids[spid] = record.ioasid
        record.binding = self._notifier.stage(record, BIND, spid, None)
        self._note_ioasid(owner, ioasid)
        return DONE

    def detach_spid(self, _: Holder, request: DetachSpid) -> Answer:
        """Unbind an ID from its spid."""
        owner = self._owner(request.ioasid, request.sid, request.generation)
        ioasid = request.ioasid
        record = owner.records.get(ioasid)
        if record is None or record.spid is None:
            raise NoSpid(ioasid)
        if not record.free_pending and record.binding is not None:
            self._notifier.stage(record, UNBIND, record.spid, None)
        del owner.spids[record.spid]
        record.spid = record.binding = None
        self._life.touch(record)
        return DONE

    def find_by_spid(self, holder: Holder, request: FindBySpid) -> Answer:
        """Look up an ID by its spid, and take a reference if that is asked for."""
        spid = _check.ioasid(request.spid, "spid")
        get = _check.flag(request.get, "get")
        owner = self._set(request.sid)
        ioasid = owner.spids.get(spid)
        if ioasid is None:
            raise UnknownSpid(owner.sid, spid, token=owner.token)
        if get:
            if owner.records[ioasid].free_pending:
                raise IoasidFreePending(ioasid)
            self._refuse_inert(owner)
            self._take_reference(holder, owner, ioasid)
        return Allocated(ioasid, self._tables.space.generation(ioasid))

    def notify(self, holder: Holder, request: Notify) -> Answer:
        """Send an event of the holder's own."""
        kind = _check.kind(request.kind)
        owner = self._active(request.ioasid, request.sid, request.generation)
        record = self._refuse_too_many(owner, request.ioasid)
        self._notifier.stage(record, kind, record.bound_spid, holder.name)
        self._life.touch(record)
        return DONE


def _put(record: Record) -> Answer:
    return RECLAIMED if record.reclaimed else REMAINS
