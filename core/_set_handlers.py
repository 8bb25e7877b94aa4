"""The requests about capacity and sets."""

from functools import partial

from ioasid.core import _check
from ioasid.core._answers import Answer, Listing, Released, SetRecord
from ioasid.core._budget import charge, refund
from ioasid.core._errors import (
    CapacityInUse,
    NotReserved,
    QuotaBelowUse,
    SystemSetExists,
    TokenInUse,
    UnknownToken,
)
from ioasid.core._events import LiveIoasid, LiveRange
from ioasid.core._freezes import give_up
from ioasid.core._groups import Group
from ioasid.core._handlers import Handlers, Outcome, capacity_record
from ioasid.core._holders import Holder
from ioasid.core._imports import cut_short
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lifecycle import state_of
from ioasid.core._listings import list_ioasids
from ioasid.core._lookups import end_export
from ioasid.core._requests import (
    AdjustSet,
    AllocSet,
    AllocSystemSet,
    CancelCapacity,
    FindSet,
    FreeSet,
    InstallCapacity,
    ListSet,
    ReserveCapacity,
)
from ioasid.core._tables import Tables
from ioasid.core._terms import IoasidState, SetState, TokenType
from ioasid.core._work import Freeing

__all__: list[str] = []


class SetHandlers(Handlers):
    """The handlers of capacity and sets."""

    # -- capacity -----------------------------------------------------------------------------

    def install_capacity(self, _: Holder, request: InstallCapacity) -> Answer:
        """Set how many IDs there are, as long as none of them is spoken for."""
        tables = self._tables
        total = _check.count(request.total, "total")
        if tables.in_use:
            raise CapacityInUse(tables.capacity)
        tables.capacity = total
        tables.available = total - tables.reserved_numbers.count
        return capacity_record(tables)

    def reserve_capacity(self, _: Holder, request: ReserveCapacity) -> Answer:
        """Set available IDs aside."""
        tables = self._tables
        count = _check.optional_count(request.count, "count")
        tables.reserved += charge(tables, None, count)
        return capacity_record(tables)

    def cancel_capacity(self, _: Holder, request: CancelCapacity) -> Answer:
        """Make reserved IDs available again."""
        tables = self._tables
        count = _check.count(request.count, "count")
        if count > tables.reserved:
            raise NotReserved(count, tables.reserved)
        tables.reserved -= count
        refund(tables, None, count)
        return capacity_record(tables)

    # -- sets ---------------------------------------------------------------------------------

    def alloc_system_set(self, _: Holder, request: AllocSystemSet) -> Answer:
        """Make the one set of the system."""
        tables = self._tables
        quota = _check.optional_count(request.quota, "quota")
        if tables.system_sid is not None:
            raise SystemSetExists(tables.system_sid)
        owner = add_set(tables, None, TokenType.NULL, quota, None, system=True)
        tables.system_sid = owner.sid
        return set_record(owner)

    def alloc_set(self, _: Holder, request: AllocSet) -> Answer:
        """Make a set, with a token or without."""
        tables = self._tables
        quota = _check.optional_count(request.quota, "quota")
        if type(request.token_type) is not TokenType:
            _check.refuse("token_type", request.token_type, "MM or NULL, a member of TokenType")
        if request.token_type is TokenType.NULL:
            if request.token is not None:
                _check.refuse("token", request.token, "none for a set of TokenType NULL")
            group = self._group_or_none(request.group, "group")
            return set_record(add_set(tables, None, TokenType.NULL, quota, group))
        token = _check.name(request.token, "token")
        group = self._group_or_none(request.group, "group")
        if token in tables.tokens:
            raise TokenInUse(token, tables.tokens[token])
        return set_record(add_set(tables, token, TokenType.MM, quota, group))

    def adjust_set(self, _: Holder, request: AdjustSet) -> Answer:
        """Change a set's quota."""
        tables = self._tables
        quota = _check.count(request.quota, "quota")
        owner = self._usable_set(request.sid)
        if quota < owner.allocated:
            raise QuotaBelowUse(owner.sid, quota, owner.allocated, token=owner.token)
        if quota > owner.quota:
            charge(tables, owner.group, quota - owner.quota)
        else:
            refund(tables, owner.group, owner.quota - quota)
        owner.quota = quota
        if tables.changes is not None:
            tables.changes.sids.add(owner.sid)
        return set_record(owner)

    def free_set(self, holder: Holder, request: FreeSet) -> Outcome:
        """Free every ID of a set, and the set with the last one if it is to be destroyed."""
        tables = self._tables
        destroy = _check.flag(request.destroy, "destroy")
        wait = _check.flag(request.wait, "wait")
        owner = self._set(request.sid)
        if wait:
            self._life.check_wait_all(holder, owner)
        cut_short(tables, owner)
        if destroy and owner.state is not SetState.FREE_PENDING:
            owner.state = SetState.FREE_PENDING
            tables.sets_free_pending += 1
            end_export(tables, owner)
            turning = tables.turnings.get(owner.sid)
            if turning is not None and turning.begins:
                give_up(tables, owner)
        if tables.changes is not None:
            tables.changes.sids.add(owner.sid)
        item = Freeing(
            owner, owner.words()[::-1], tables.generation, partial(self._freed, owner, wait), wait
        )
        tables.begun.append(item)
        return partial(self._parts.freed, item)

    def _freed(self, owner: IoasidSet, wait: bool) -> Answer:
        if wait:
            return self._life.wait(owner, owner.records)
        return Released(not any(record.free_pending for record in owner.records.values()))

    def find_set(self, _: Holder, request: FindSet) -> Answer:
        """Look up a set by its token or number."""
        if (request.token is None) == (request.sid is None):
            _check.refuse("token", request.token, "either a token or a sid")
        if request.token is None:
            return set_record(self._set(request.sid))
        token = _check.name(request.token, "token")
        if token not in self._tables.tokens:
            raise UnknownToken(token)
        return set_record(self._tables.sets[self._tables.tokens[token]])

    def list_set(self, _: Holder, request: ListSet) -> Answer:
        """Look up a set's IDs."""
        owner = self._set(request.sid)
        ioasids: list[LiveIoasid] = []
        ranges: list[LiveRange] = []
        list_ioasids(self._tables.space, owner, _state_and_spid, ioasids, ranges)
        return Listing(owner.sid, tuple(ioasids), tuple(ranges))


def _state_and_spid(record: Record) -> tuple[IoasidState, int | None]:
    return state_of(record), record.bound_spid


def add_set(
    tables: Tables,
    token: str | None,
    token_type: TokenType,
    quota: int | None,
    group: Group | None,
    *,
    system: bool = False,
    state: SetState = SetState.ACTIVE,
) -> IoasidSet:
    """Make a set that has no IDs yet, its quota charged to its group or what is available."""
    quota = charge(tables, group, quota)
    sid = tables.next_sid
    tables.next_sid += 1
    owner = IoasidSet(sid, token, token_type, quota, system, state, group=group)
    tables.add_set(owner)
    tables.space.join(owner)
    if tables.changes is not None:
        tables.changes.sids.add(sid)
    if token is not None:
        tables.tokens[token] = sid
        owner.subscriptions.update(tables.token_subscriptions.get(token, {}))
    return owner


def set_record(owner: IoasidSet) -> SetRecord:
    """Return all there is to know of a set but its IDs."""
    return SetRecord(
        owner.sid,
        owner.token,
        owner.token_type,
        owner.quota,
        owner.allocated,
        owner.state,
        owner.system,
        None if owner.group is None else owner.group.name,
    )
