"""The requests about capacity and sets."""

from ioasid.core import _check
from ioasid.core._errors import (
    CapacityExhausted,
    CapacityInUse,
    NotReserved,
    QuotaBelowUse,
    SystemSetExists,
    TokenInUse,
    UnknownToken,
)
from ioasid.core._handlers import Handlers
from ioasid.core._lifecycle import state_of
from ioasid.core._messages import (
    AdjustSet,
    AllocSet,
    AllocSystemSet,
    CancelCapacity,
    CapacityRecord,
    FindSet,
    FreeSet,
    InstallCapacity,
    Listing,
    ListSet,
    LiveIoasid,
    Released,
    Reply,
    ReserveCapacity,
    SetRecord,
    SetState,
    TokenType,
)
from ioasid.core._records import Holder, IoasidSet, ioasids_of

__all__: list[str] = []


class Sets(Handlers):
    """The handlers of capacity and sets."""

    # -- capacity -----------------------------------------------------------------------------

    def install_capacity(self, _: Holder, request: InstallCapacity) -> Reply:
        """Set how many IDs there are, as long as none of them is spoken for."""
        tables = self._tables
        total = _check.count(request.total, "total")
        if tables.in_use:
            raise CapacityInUse(tables.capacity)
        tables.capacity = tables.available = total
        return self._capacity()

    def reserve_capacity(self, _: Holder, request: ReserveCapacity) -> Reply:
        """Set available IDs aside."""
        tables = self._tables
        count = _check.optional_count(request.count, "count")
        count = self._take_available(count)
        tables.reserved += count
        return self._capacity()

    def cancel_capacity(self, _: Holder, request: CancelCapacity) -> Reply:
        """Make reserved IDs available again."""
        tables = self._tables
        count = _check.count(request.count, "count")
        if count > tables.reserved:
            raise NotReserved(count, tables.reserved)
        tables.reserved -= count
        tables.available += count
        return self._capacity()

    def _capacity(self) -> CapacityRecord:
        tables = self._tables
        return CapacityRecord(tables.capacity, tables.reserved, tables.available)

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

    def alloc_system_set(self, _: Holder, request: AllocSystemSet) -> Reply:
        """Make the one set of the system."""
        tables = self._tables
        quota = _check.optional_count(request.quota, "quota")
        if tables.system_sid is not None:
            raise SystemSetExists(tables.system_sid)
        owner = self._add_set(None, TokenType.NULL, quota, system=True)
        tables.system_sid = owner.sid
        return _set_record(owner)

    def alloc_set(self, _: Holder, request: AllocSet) -> Reply:
        """Make a set, with a token or without."""
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

    def adjust_set(self, _: Holder, request: AdjustSet) -> Reply:
        """Change a set's quota."""
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

    def free_set(self, holder: Holder, request: FreeSet) -> Reply | None:
        """Free every ID of a set, and the set with the last one if it is to be destroyed."""
        tables = self._tables
        destroy = _check.flag(request.destroy, "destroy")
        wait = _check.flag(request.wait, "wait")
        owner = self._set(request.sid)
        if wait:
            self._life.check_wait(holder, owner, ioasids_of(owner))
        if destroy and owner.state is SetState.ACTIVE:
            owner.state = SetState.FREE_PENDING
            tables.sets_free_pending += 1
        self._life.free_all(owner)
        self._life.settle()
        self._life.destroy_if_empty(owner)
        pending = [ioasid for ioasid, record in owner.records.items() if record.free_pending]
        if wait and self._life.wait(owner, pending):
            return None
        return Released(not pending)

    def find_set(self, _: Holder, request: FindSet) -> Reply:
        """Look up a set by its token or number."""
        if (request.token is None) == (request.sid is None):
            _check.refuse("token", request.token, "either a token or a sid")
        if request.token is None:
            return _set_record(self._set(request.sid))
        token = _check.name(request.token, "token")
        if token not in self._tables.tokens:
            raise UnknownToken(token)
        return _set_record(self._tables.sets[self._tables.tokens[token]])

    def list_set(self, _: Holder, request: ListSet) -> Reply:
        """Look up a set's IDs."""
        owner = self._set(request.sid)
        return Listing(
            owner.sid, tuple(_live_ioasid(owner, ioasid) for ioasid in ioasids_of(owner))
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
