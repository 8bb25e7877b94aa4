"""The watch over what hardware has programmed."""

import pytest

from ioasid.actors import Entry, Host
from ioasid.linux import LinuxTables
from ioasid.testing import InvariantViolated
from ioasid.testing._hardware import on_linux, watched_host

pytestmark = pytest.mark.anyio


async def use(host: Host) -> int:
    """Let a process use a device."""
    await host.add_device("dsa0")
    return await host.sva_bind("dsa0", 7)


async def test_a_host_that_is_right_holds() -> None:
    """From the first bind to the exit, everything programmed is its owner's."""
    async with watched_host(capacity=8, system_quota=4) as host:
        pasid = await use(host)
        await host.complete("dsa0", await host.sva_submit("dsa0", pasid, 7))
        await host.process_exited(7)
        await host.sva_bind("dsa0", 8)


async def test_what_is_in_the_pool_is_found() -> None:
    """An entry of an ID that nobody has is invariant 11 broken."""

    async def break_it() -> None:
        async with watched_host(capacity=8, system_quota=4) as host:
            await use(host)
            host.vtd.iommu.tables["dsa0"][5] = Entry("vm-1", 101, generation=1)
            await host.allocator.statistics()

    with pytest.raises(InvariantViolated, match="table of dsa0 has IOASID 5, which is in the pool"):
        await break_it()


async def test_what_is_in_another_life_is_found() -> None:
    """A context that outlives its ID is found, also when the ID was given to somebody else."""

    async def break_it() -> None:
        async with watched_host(capacity=8, system_quota=4) as host:
            pasid = await use(host)
            host.device("dsa0").device.transfers[99] = pasid
            async with host.allocator.session("agent") as session:
                await session.free(pasid, wait=True)
                await session.alloc(0)

    with pytest.raises(InvariantViolated, match="vdcm:dsa0 has IOASID 1") as caught:
        await break_it()
    assert 11 == caught.value.number


async def test_what_the_kernel_keeps_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PASID that a kernel has attached when its ID is reclaimed breaks invariant 11."""

    def keep(self: LinuxTables, device: str, ioasid: int) -> None:
        pass

    async def run_it() -> None:
        async with watched_host(capacity=8, system_quota=4) as host:
            await use(host)
            await host.process_exited(7)
            while (await host.allocator.statistics()).free_pending:
                pass

    token = on_linux.set(True)
    try:
        await run_it()
        monkeypatch.setattr(LinuxTables, "_detach", keep)
        with pytest.raises(InvariantViolated, match="vfio/devices/dsa0 has IOASID 1") as caught:
            await run_it()
        assert 11 == caught.value.number
    finally:
        on_linux.reset(token)
