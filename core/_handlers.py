"""What the handlers of all requests have in common: the state, and finding what a request names."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, ParamSpec, TypeAlias

from attrs import define

from ioasid.core import _check
from ioasid.core._answers import Answer, CapacityRecord, Done
from ioasid.core._errors import (
    InvalidArgument,
    IoasidFreePending,
    NotOfThisSet,
    SetFreePending,
    SetFrozen,
    StaleIoasid,
    TooManyEvents,
    UnknownGroup,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.core._groups import Group
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._notifier import Notifier
from ioasid.core._parts import Parts
from ioasid.core._resyncs import relist
from ioasid.core._tables import Tables
from ioasid.core._terms import MAX_IN_FLIGHT, SET_ACTIVE, SET_FREE_PENDING

__all__: list[str] = []

DONE: Final = Done()

Outcome: TypeAlias = Answer | partial[Answer]
"""What a handler returns: the answer, or what makes it when all that the request made possible has
happened."""

P = ParamSpec("P")


@define(eq=False)
class Handlers:
    """The handlers of some requests: a method each, named like it, with the holder who asks.

    Arguments, refusals and what becomes of them stand with the request.
    """

    _tables: Tables
    _notifier: Notifier
    _life: LifeCycle
    _parts: Parts

    def _when_settled(
        self, answer: Callable[P, Answer], *args: P.args, **kwargs: P.kwargs
    ) -> Outcome:
        # Without anything to settle, nothing can change what the answer is.
        if self._tables.unsettled:
            return partial(answer, *args, **kwargs)
        return answer(*args, **kwargs)

    def _set(self, sid: Any) -> IoasidSet:
        owner = self._tables.sets.get(_check.number(sid, "sid"))
        if owner is None:
            raise UnknownSet(sid)
        return owner

    def _usable_set(self, sid: Any) -> IoasidSet:
        owner = self._tables.sets.get(sid) if type(sid) is int else None
        if owner is None:
            return self._set(sid)
        self._refuse_inert(owner)
        return owner

    def _refuse_inert(self, owner: IoasidSet) -> None:
        # The IDs of a set that is being freed are in quarantine, and refused as such, or will be.
        if owner.state is SET_FREE_PENDING:
            raise SetFreePending(owner.sid, token=owner.token)
        if owner.state is not SET_ACTIVE:
            raise SetFrozen(owner.sid, owner.state, token=owner.token)

    def _group(self, name: Any, argument: str) -> Group:
        group = self._tables.groups.get(_check.name(name, argument))
        if group is None:
            raise UnknownGroup(name)
        return group

    def _group_or_none(self, name: Any, argument: str) -> Group | None:
        return None if name is None else self._group(name, argument)

    def _range(self, low: Any, high: Any) -> tuple[int, int]:
        last = self._tables.capacity - 1
        low = _check.ioasid(low, "min")
        high = _check.ioasid(high, "max")
        if high > last:
            raise InvalidArgument("max", str(high), f"an ID below the capacity, at most {last}")
        if low > last:
            raise InvalidArgument("min", str(low), f"an ID below the capacity, at most {last}")
        if low > high:
            # A least number has a default.
            raise InvalidArgument("max", str(high), f"at least min, which is {low}")
        return low, high

    def _owner(self, ioasid: Any, sid: Any, generation: Any) -> IoasidSet:
        # The set of a live ID; refused if the request names another one, or another life.
        owner = self._tables.space.owner(ioasid) if type(ioasid) is int else None
        if owner is None or sid is not None or generation is not None:
            return self._meant(owner, ioasid, sid, generation)
        return owner

    def _meant(self, owner: IoasidSet | None, ioasid: Any, sid: Any, generation: Any) -> IoasidSet:
        # Whose ID was found, or nobody's: refused unless it is what the request means.
        if owner is None:
            _check.ioasid(ioasid)
            _check.optional_number(sid, "sid")
            _check.optional_number(generation, "generation")
            raise UnknownIoasid(ioasid)
        if generation is not None:
            current = self._tables.space.generation(ioasid)
            if _check.number(generation, "generation") != current:
                raise StaleIoasid(ioasid, generation, current)
        if sid is not None and (type(sid) is not int or sid != owner.sid):
            raise NotOfThisSet(ioasid, sid, token=self._set(sid).token)
        return owner

    def _active(self, ioasid: Any, sid: Any, generation: Any) -> IoasidSet:
        owner = self._owner(ioasid, sid, generation)
        record = owner.records.get(ioasid)
        if record is not None and record.free_pending:
            raise IoasidFreePending(ioasid)
        return owner

    def _refuse_too_many(self, owner: IoasidSet, ioasid: int) -> Record:
        record = owner.records.get(ioasid)
        if record is not None and len(record.chain) >= MAX_IN_FLIGHT:
            in_flight = self._notifier.in_flight(record)
            if in_flight >= MAX_IN_FLIGHT:
                raise TooManyEvents(ioasid, in_flight)
        return record or owner.record(ioasid)

    def _note_ioasid(self, owner: IoasidSet, ioasid: int) -> None:
        # For what changes a record and makes nothing possible.
        tables = self._tables
        if tables.relistings:
            relist(tables, owner, ioasid, ioasid)
        if tables.changes is not None:
            tables.changes.ioasids.add(ioasid)


def capacity_record(tables: Tables) -> CapacityRecord:
    """Return the capacity as it is now."""
    numbers = tables.reserved_numbers.count
    return CapacityRecord(tables.capacity, tables.reserved + numbers, tables.available, numbers)
