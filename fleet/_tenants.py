"""What tenants may have on all hosts together: each VM's record says what it counts.

A tenant's record has the sum, and is written in one transaction with a VM's: two hosts that create
at the same time can't both count up from the same sum. A move leaves both as they are, so that a VM
counts once wherever it is, on its way as well.
"""

from typing import Final

from attrs import define
from msgspec import msgpack
from msgspec.structs import replace

from ioasid.core import InvalidArgument, Message, _check
from ioasid.fleet._agent import vm_key
from ioasid.fleet._coordinator import decode_record, encode_record
from ioasid.fleet._errors import TenantExhausted, UnknownVm, VmElsewhere
from ioasid.fleet._protocol import Phase, VmRecord
from ioasid.fleet._store import Found, Store, decoded

__all__ = ["TenantRecord", "Tenants"]

TENANTS: Final = "tenant/"


class TenantRecord(Message, frozen=True):
    """What a tenant may have and has on all hosts: the sum of the quotas of its VMs."""

    tenant: str
    limit: int | None = None
    """`None` is no limit."""
    used: int = 0


_DECODER: Final = msgpack.Decoder(TenantRecord)


@define(eq=False)
class Tenants:
    """The VMs of a fleet and its tenants' limits, as `store` has them.

    Every method raises `StoreUnavailable`: whether it was done is not known then; and
    `InvalidArgument` for what can be no name.
    """

    store: Store

    async def claim(
        self,
        vm: str,
        host: str,
        quota: int,
        *,
        group: str | None = None,
        tenant: str | None = None,
        there: bool = False,
    ) -> None:
        """Note that a host makes a VM, before it does, and count its quota in its tenant's.

        For a host that has a VM of that name no more, or never had it; it gives up what it noted
        before. What is `there` already counts, whatever the limit is. Raises `VmElsewhere` and
        `TenantExhausted`.
        """
        while True:
            found, revision = await self._vm(vm)
            if found is not None and (found.phase is not Phase.OWNED or found.host != host):
                raise VmElsewhere(vm, found.phase, found.host)
            epoch = 0 if found is None else found.epoch + 1
            made = VmRecord(
                vm, Phase.OWNED, host, epoch=epoch, quota=quota, group=group, tenant=tenant
            )
            if await self._count(vm, found, revision, made, there):
                return

    async def resize(self, vm: str, host: str, quota: int, *, there: bool = False) -> None:
        """Count another quota of a VM that a host has. Raises as `claim` does, and `UnknownVm`."""
        while True:
            found, revision = await self._vm(vm)
            if found is None:
                raise UnknownVm(vm, "in the fleet")
            if found.phase is not Phase.OWNED or found.host != host:
                raise VmElsewhere(vm, found.phase, found.host)
            made = replace(found, quota=quota)
            if quota == found.quota or await self._count(vm, found, revision, made, there):
                return

    async def release(self, vm: str, host: str) -> bool:
        """Forget a VM that a host has no more; tells whether it was its, and moved nowhere."""
        while True:
            found, revision = await self._vm(vm)
            if found is None or found.phase is not Phase.OWNED or found.host != host:
                return False
            if await self._count(vm, found, revision, None, there=True):
                return True

    async def limit(self, tenant: str, limit: int | None) -> TenantRecord:
        """Set what a tenant may have on all hosts, `None` is as much as there is.

        Raises `InvalidArgument` for a limit below what it has.
        """
        if limit is not None and (type(limit) is not int or not 0 < limit < 2**32):
            expected = "a whole number in 1..2^32-1, or none for no limit"
            raise InvalidArgument.of("limit", limit, expected)
        while True:
            found, revision = await self._tenant(tenant)
            if limit is not None and limit < found.used:
                raise InvalidArgument.of("limit", limit, f"{found.used} or more: that is in use")
            made = replace(found, limit=limit)
            value = _encoded(made) if made.used or made.limit is not None else None
            if await self._write({_key(tenant): revision}, {_key(tenant): value}):
                return made

    async def look(self, tenant: str) -> TenantRecord:
        """Return what a tenant may have and has."""
        return (await self._tenant(tenant))[0]

    async def all(self) -> tuple[TenantRecord, ...]:
        """Return the tenants, ascending by name."""
        found, _ = await self.store.get(TENANTS)
        return tuple(decoded(_DECODER, key, found[key].value) for key in sorted(found))

    async def _count(
        self, vm: str, before: VmRecord | None, revision: int, after: VmRecord | None, there: bool
    ) -> bool:
        # In one transaction: the VM's record, and what that changes of one tenant or two.
        compare = {vm_key(vm): revision}
        write: dict[str, bytes | None] = {
            vm_key(vm): None if after is None else encode_record(after)
        }
        change: dict[str, int] = {}
        for record, sign in ((before, -1), (after, 1)):
            if record is not None and record.tenant is not None:
                change[record.tenant] = change.get(record.tenant, 0) + sign * record.quota
        for tenant, more in change.items():
            found, tenant_revision = await self._tenant(tenant)
            over = found.limit is not None and found.used + more > found.limit
            if over and more > 0 and not there:
                raise TenantExhausted(tenant, more, found.used, found.limit or 0)
            compare[_key(tenant)] = tenant_revision
            used = replace(found, used=found.used + more)
            write[_key(tenant)] = _encoded(used) if used.used or used.limit is not None else None
        return await self._write(compare, write)

    async def _write(self, compare: dict[str, int], write: dict[str, bytes | None]) -> bool:
        return await self.store.txn(compare, write) is not None

    async def _vm(self, vm: str) -> tuple[VmRecord | None, int]:
        key = vm_key(vm)
        found = await self._one(key)
        return (None, 0) if found is None else (decode_record(found.value, key), found.revision)

    async def _tenant(self, tenant: str) -> tuple[TenantRecord, int]:
        key = _key(tenant)
        found = await self._one(key)
        if found is None:
            return TenantRecord(tenant), 0
        return decoded(_DECODER, key, found.value), found.revision

    async def _one(self, key: str) -> Found | None:
        return (await self.store.get(key))[0].get(key)


def _key(tenant: str) -> str:
    return TENANTS + _check.name(tenant, "tenant")


def _encoded(record: TenantRecord) -> bytes:
    return msgpack.encode(record)
