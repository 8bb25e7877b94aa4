"""Which hosts are alive, by their leases."""

import asyncio

import anyio
import pytest
from attrs import define
from msgspec import msgpack

from ioasid.core import InvalidArgument
from ioasid.fleet import HostRecord, Lease, MemoryStore, StoreUnavailable, alive_hosts, announce

pytestmark = pytest.mark.anyio


async def test_a_host_that_says_nothing_is_not_alive(anyio_backend_name: str) -> None:
    """Kept up it stays; when its time is over, it is not among the hosts that are."""
    if anyio_backend_name != "trio":
        pytest.skip("time is virtual on trio alone")
    store = MemoryStore()
    async with announce(store, "a", seconds=3):
        await anyio.sleep(60)
        assert (HostRecord("a"),) == await alive_hosts(store)
    lease = await store.lease(3)
    await store.txn({}, {"host/b": msgpack.encode(HostRecord("b"))}, lease)
    assert (HostRecord("b"),) == await alive_hosts(store)
    await anyio.sleep(4)
    assert () == await alive_hosts(store)
    assert not await lease.keep()
    assert None is await store.txn({}, {"host/b": b""}, lease)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_left_in_another_task() -> None:
    """Whoever leaves in another task is told what is wrong; the host is announced no more."""
    store = MemoryStore()
    announced = announce(store, "a")
    await asyncio.create_task(announced.__aenter__())
    await anyio.wait_all_tasks_blocked()
    with pytest.raises(RuntimeError, match="announce was left in another task"):
        await asyncio.create_task(announced.__aexit__(None, None, None))
    await anyio.wait_all_tasks_blocked()
    assert () == await alive_hosts(store)


async def test_a_store_that_is_gone_ends_nothing() -> None:
    """A host whose store does not answer leaves in order all the same."""

    class Going(MemoryStore):
        async def lease(self, seconds: int) -> Lease:
            return GoneLease(await super().lease(seconds))

    @define
    class GoneLease:
        real: Lease

        async def keep(self) -> bool:
            return await self.real.keep()

        async def end(self) -> None:
            raise StoreUnavailable("gone")

    store = Going()
    async with announce(store, "a"):
        await anyio.wait_all_tasks_blocked()
        assert 1 == len(store.leases)


@pytest.mark.parametrize("seconds", [0, -1, 1.5, True, None, "3"])
async def test_seconds_that_are_none_are_refused(seconds: object) -> None:
    """It is an int of 1 or more."""
    with pytest.raises(InvalidArgument):
        async with announce(MemoryStore(), "a", seconds=seconds):  # type: ignore[arg-type]
            pass
