"""What tenants may have on all hosts together."""

import anyio
import pytest

from ioasid.core import InvalidArgument
from ioasid.fleet import (
    Agent,
    Coordinator,
    MemoryStore,
    MoveUnderWay,
    TenantExhausted,
    TenantRecord,
    Tenants,
    UnknownVm,
    VmElsewhere,
)
from ioasid.testing import choose, explore
from tests.fleet.worlds import SlowStore, open_world

pytestmark = pytest.mark.anyio


async def test_a_claim_counts_until_it_is_released() -> None:
    """A VM counts by its quota; one of the same name on the same host takes its place."""
    tenants = Tenants(MemoryStore())
    await tenants.limit("acme", 10)
    await tenants.claim("vm-1", "a", 6, group="acme/x", tenant="acme")
    assert TenantRecord("acme", 10, 6) == await tenants.look("acme")
    with pytest.raises(TenantExhausted, match="asked for 5 more for acme, which has 6 of the 10"):
        await tenants.claim("vm-2", "b", 5, tenant="acme")
    await tenants.claim("vm-1", "a", 10, tenant="acme")
    assert TenantRecord("acme", 10, 10) == await tenants.look("acme")
    await tenants.resize("vm-1", "a", 3)
    with pytest.raises(TenantExhausted):
        await tenants.resize("vm-1", "a", 11)
    await tenants.claim("vm-2", "b", 7, tenant="acme")
    assert (TenantRecord("acme", 10, 10),) == await tenants.all()
    assert await tenants.release("vm-2", "b")
    assert not await tenants.release("vm-2", "b")
    assert await tenants.release("vm-1", "a")
    await tenants.limit("acme", None)
    assert () == await tenants.all()


async def test_a_token_belongs_to_one_vm_of_the_fleet() -> None:
    """Another host's is refused, and nobody but its host resizes or releases it."""
    tenants = Tenants(MemoryStore())
    await tenants.claim("vm-1", "a", 6)
    with pytest.raises(VmElsewhere, match="OWNED at a"):
        await tenants.claim("vm-1", "b", 6)
    with pytest.raises(VmElsewhere):
        await tenants.resize("vm-1", "b", 7)
    with pytest.raises(UnknownVm):
        await tenants.resize("vm-2", "a", 7)
    assert not await tenants.release("vm-1", "b")
    assert 6 == (await Coordinator(tenants.store, nowhere).where("vm-1")).quota


def nowhere(host: str) -> Agent:
    """No agent is asked."""
    raise AssertionError(host)


async def test_what_is_there_counts_whatever_the_limit_is() -> None:
    """Who joins with more than there may be makes no more, and can only give up."""
    tenants = Tenants(MemoryStore())
    await tenants.limit("acme", 4)
    await tenants.claim("vm-1", "a", 6, tenant="acme", there=True)
    assert TenantRecord("acme", 4, 6) == await tenants.look("acme")
    await tenants.resize("vm-1", "a", 5)
    with pytest.raises(TenantExhausted):
        await tenants.claim("vm-2", "a", 1, tenant="acme")


@pytest.mark.parametrize("limit", [0, -1, 2**32, True, "8", 1.0])
async def test_a_limit_that_is_none_is_refused(limit: object) -> None:
    """It is a number of IDs, or none."""
    with pytest.raises(InvalidArgument):
        await Tenants(MemoryStore()).limit("acme", limit)  # type: ignore[arg-type]


async def test_a_limit_below_what_is_there_is_refused() -> None:
    """It would be exceeded at once."""
    tenants = Tenants(MemoryStore())
    await tenants.claim("vm-1", "a", 6, tenant="acme")
    with pytest.raises(InvalidArgument, match="in use"):
        await tenants.limit("acme", 5)


async def test_a_move_counts_once() -> None:
    """A tenant at its limit moves its VM, and has as much as before all the way."""
    async with open_world() as world:
        tenants = Tenants(world.store)
        await tenants.limit("acme", 4)
        await tenants.store.txn({}, {"vm/vm-1": None})
        await tenants.claim("vm-1", "a", 4, tenant="acme")
        written = (await world.store.get("tenant/"))[0]
        await world.coordinator().move("vm-1", "b")
        assert written == (await world.store.get("tenant/"))[0]
        assert TenantRecord("acme", 4, 4) == await tenants.look("acme")
        record = await world.coordinator().where("vm-1")
        assert (4, "acme", "b") == (record.quota, record.tenant, record.host)
        assert await tenants.release("vm-1", "b")


async def test_what_moves_is_not_resized() -> None:
    """Its export says what it is."""
    async with open_world() as world:
        await world.coordinator().begin("vm-1", "b")
        with pytest.raises(VmElsewhere, match="PREPARE at a"):
            await Tenants(world.store).resize("vm-1", "a", 5)
        with pytest.raises(MoveUnderWay):
            await world.coordinator().begin("vm-1", "b")


async def hosts_that_create_at_once() -> None:
    """Three of each host's claims race, and one resizes; some are released."""
    tenants = Tenants(SlowStore(latency=lambda: choose((0, 1, 3))))
    await tenants.limit("acme", 10)
    made: list[int] = []

    async def create(host: str) -> None:
        for number in range(3):
            vm, quota = f"{host}-{number}", choose((4, 1))
            try:
                await tenants.claim(vm, host, quota, tenant="acme")
                made.append(quota)
                assert sum(made) <= 10
                if choose((False, True)):
                    await tenants.resize(vm, host, quota + 2)
                    made.append(2)
                    assert sum(made) <= 10
            except TenantExhausted:
                pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(create, "a")
        tasks.start_soon(create, "b")
    assert TenantRecord("acme", 10, sum(made)) == await tenants.look("acme")


def test_a_limit_is_never_exceeded() -> None:
    """However what two hosts do at the same time falls together."""
    assert 150 == explore(hosts_that_create_at_once, range(150)).schedules
