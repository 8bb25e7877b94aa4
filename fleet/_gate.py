"""What a host asks the fleet before it makes a set: whose token it is, and what its tenant has.

A claim comes before the set, and is given up after it: whatever breaks between, more is counted
than there is, and never less. What is counted for nothing is given up when `mend` looks.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from anyio import Lock, sleep
from attrs import define, field

from ioasid.actors import Session
from ioasid.core import (
    AdjustSet,
    AllocSet,
    GroupRecord,
    InvalidArgument,
    IoasidError,
    Request,
    SetRecord,
    SetState,
    TokenInUse,
    TokenType,
    UnknownGroup,
    UnknownSet,
    UnknownToken,
)
from ioasid.fleet._agent import vm_key
from ioasid.fleet._coordinator import decode_record
from ioasid.fleet._errors import (
    StoreUnavailable,
    TenantExhausted,
    UnreadableRecord,
    VmElsewhere,
)
from ioasid.fleet._protocol import Phase
from ioasid.fleet._tenants import Tenants
from ioasid.service import Carry

__all__ = ["FleetGate"]

logger = logging.getLogger("ioasid.fleet")

MEND: Final = 5
"""Seconds after which it is looked again what is counted for nothing."""


@define(eq=False)
class FleetGate:
    """The `Gate` of the host `name`, through which clients of its allocator make and size sets.

    `allocator` is a session of that.
    """

    name: str
    allocator: Session
    tenants: Tenants
    kinds: frozenset[type] = field(default=frozenset((AllocSet, AdjustSet)), init=False)
    """What the fleet has a say in."""
    _locks: dict[str, Lock] = field(factory=dict, init=False)

    async def decide(self, request: Request, carry: Carry) -> Any:
        """Return what such a request comes to.

        Raises what the fleet refuses it with: `VmElsewhere`, `TenantExhausted`, `StoreUnavailable`,
        and `InvalidArgument` for a set that can't be counted.
        """
        match request:
            case AllocSet(token=str() as token, token_type=TokenType.MM):
                async with self._alone(token):
                    return await self._make(request, token, carry)
            case AllocSet(group=str() as group):
                tenant = await self._tenant(group)
                if (await self.tenants.look(tenant)).limit is not None:
                    expected = f"a token: the limit of {tenant} is the fleet's"
                    raise InvalidArgument("token", "None", expected)
            case AdjustSet(sid=int() as sid):
                record = await self._set(sid=sid)
                if record is not None and record.token is not None:
                    async with self._alone(record.token):
                        return await self._size(request, sid, record.token, carry)
            case _:
                pass
        return await carry(request)

    async def _make(self, request: AllocSet, token: str, carry: Carry) -> Any:
        present = await self._set(token)
        if present is not None:
            raise TokenInUse(token, present.sid)
        try:
            vm_key(token)
        except InvalidArgument:
            # The allocator has the words for it.
            return await carry(request)
        quota = request.quota
        if quota is None:
            raise InvalidArgument("quota", "None", "a number: the fleet counts it before")
        tenant = None if request.group is None else await self._tenant(request.group)
        if type(quota) is not int or not 0 < quota < 2**32:
            return await carry(request)
        await self._claim(token, quota, request.group, tenant)
        answer = await carry(request)
        if isinstance(answer, IoasidError):
            with suppress(StoreUnavailable):
                await self.tenants.release(token, self.name)
        return answer

    async def _claim(self, token: str, quota: int, group: str | None, tenant: str | None) -> None:
        try:
            await self.tenants.claim(token, self.name, quota, group=group, tenant=tenant)
        except TenantExhausted:
            # Some of it may be gone since it was looked the last time.
            await self._release_gone(but=token)
            await self.tenants.claim(token, self.name, quota, group=group, tenant=tenant)

    async def _size(self, request: AdjustSet, sid: int, token: str, carry: Carry) -> Any:
        present = await self._set(sid=sid)
        quota = request.quota
        if present is None or type(quota) is not int or not 0 < quota < 2**32:
            return await carry(request)
        await self.tenants.resize(token, self.name, max(quota, present.quota))
        answer = await carry(request)
        now = present.quota if isinstance(answer, IoasidError) else quota
        with suppress(StoreUnavailable, VmElsewhere):
            await self.tenants.resize(token, self.name, now)
        return answer

    # -- what is counted for nothing, and what is not counted ------------------------------------

    async def keep_mending(self) -> None:
        """Mend for ever; for a task of its own."""
        said = ""
        while True:
            try:
                await self.mend()
                said = ""
            except StoreUnavailable:
                # Who announces the host says so.
                pass
            except UnreadableRecord as error:
                if said != str(error):
                    logger.warning("what is counted for nothing stays counted: %s", error)
                said = str(error)
            await sleep(MEND)

    async def mend(self) -> None:
        """Give up what is counted of sets that are gone, and count those that are not.

        A host finds both when it joins a fleet, or comes back to it.
        """
        known = await self._release_gone()
        for record in await self._sets():
            token = record.token
            if token is None or token in known or record.state is not SetState.ACTIVE:
                continue
            async with self._alone(token):
                present = await self._set(token)
                if present is None:
                    continue
                group = present.group
                tenant = None if group is None else await self._tenant(group)
                try:
                    await self.tenants.claim(
                        token, self.name, present.quota, group=group, tenant=tenant, there=True
                    )
                except VmElsewhere as error:
                    logger.warning("a set of %s has the token of another VM: %s", self.name, error)

    async def _release_gone(self, *, but: str = "") -> set[str]:
        # Returns the tokens that have a record, whoever's it is.
        found, _ = await self.tenants.store.get("vm/")
        records = [decode_record(each.value, key) for key, each in found.items()]
        for record in records:
            if record.host != self.name or record.phase is not Phase.OWNED or record.vm == but:
                continue
            async with self._alone(record.vm):
                present = await self._set(record.vm)
                if present is None:
                    await self.tenants.release(record.vm, self.name)
                elif present.quota != record.quota:
                    with suppress(VmElsewhere):
                        await self.tenants.resize(record.vm, self.name, present.quota, there=True)
        return {each.vm for each in records}

    # -- its own host --------------------------------------------------------------------------

    @asynccontextmanager
    async def _alone(self, token: str) -> AsyncIterator[None]:
        # Between a claim and its set nobody looks.
        lock = self._locks.setdefault(token, Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(token, None)

    async def _set(self, token: str | None = None, *, sid: int | None = None) -> SetRecord | None:
        try:
            return await self.allocator.find_set(token, sid=sid)
        except (UnknownToken, UnknownSet, InvalidArgument):
            return None

    async def _sets(self) -> list[SetRecord]:
        found: list[SetRecord] = []
        after: int | None = None
        while True:
            page = await self.allocator.list_sets(after=after, limit=1000)
            found += page.sets
            after = page.next
            if after is None:
                return found

    async def _tenant(self, group: str) -> str:
        # The group above all others of a group. Raises UnknownGroup.
        groups: dict[str, GroupRecord] = {}
        after: str | None = None
        while True:
            page = await self.allocator.list_groups(after=after, limit=1000)
            groups |= {each.name: each for each in page.groups}
            after = page.next
            if after is None:
                break
        if group not in groups:
            raise UnknownGroup(group)
        while (parent := groups[group].parent) is not None:
            group = parent
        return group
