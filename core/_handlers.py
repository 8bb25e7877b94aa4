"""What the handlers of all requests have in common: the state, and finding what a request names."""

from typing import Any, Final

from attrs import define

from ioasid.core import _check
from ioasid.core._errors import (
    IoasidFreePending,
    NotOfThisSet,
    SetFreePending,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._messages import Done
from ioasid.core._notifier import Notifier
from ioasid.core._records import SET_FREE_PENDING, IoasidSet, Tables

__all__: list[str] = []

DONE: Final = Done()


@define(eq=False)
class Handlers:
    """The handlers of some requests: a method each, named like it, with the holder who asks.

    Arguments, refusals and what becomes of them stand with the request.
    """

    _tables: Tables
    _notifier: Notifier
    _life: LifeCycle

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
