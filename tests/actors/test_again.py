"""Hosts whose disk fails: what lets go is asked again, or done by itself when the disk works."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from ioasid.actors import (
    AllocPasid,
    Decision,
    Host,
    Step,
    Vm,
    open_host,
)
from ioasid.core import DetachSpid, IoasidError, NotCommitted, Put, Request
from tests.actors.hosts import QUOTA, SYSTEM_QUOTA, check_host, count, dma_in_flight, settle
from tests.journal.disk import IOERR_FSYNC, Disk

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is tried again, is soon.
    monkeypatch.setattr("ioasid.actors._allocator.RETRY", 0.005)
    monkeypatch.setattr("ioasid.actors._again.PAUSE", 0.005)


def break_(disk: Disk) -> None:
    """Let nothing be synced any more."""
    disk.fail("sync", code=IOERR_FSYNC)


class Breaks:
    """A tap: the disk fails from the moment on at which a holder has made a request of a kind."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.after: tuple[str, type[Request]] | None = None

    def are_over(self) -> bool:
        """Whether the disk was broken."""
        return self.after is None

    def __call__(self, seen: Decision | Step) -> None:
        """Break the disk, if this is it."""
        if isinstance(seen, Decision) and self.after == (seen.holder, type(seen.request)):
            self.after = None
            break_(self._disk)


@asynccontextmanager
async def a_host(
    path: Path, disk: Disk, max_restarts: int = 3
) -> AsyncIterator[tuple[Host, Vm, Breaks]]:
    """Open a host with a journal, a device and a VM; the disk works at its end."""
    breaks = Breaks(disk)
    async with open_host(
        capacity=64,
        system_quota=SYSTEM_QUOTA,
        taps=[breaks],
        journal=path,
        restart_wait=0,
        max_restarts=max_restarts,
    ) as host:
        await host.add_device("dsa0")
        yield host, await host.start_vm("vm-1", quota=QUOTA), breaks
        disk.repair()
        await works(host)


async def works(host: Host) -> None:
    """Return when the disk works, and what was kept for then is done."""
    await host.allocator.reserve_capacity(1)
    await host.allocator.cancel_capacity(1)


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    """Assert that something can't be kept."""
    with pytest.raises(NotCommitted):
        await call()


async def test_what_is_stopped_while_the_disk_fails(path: Path, disk: Disk) -> None:
    """It is stopped, its reference is kept meanwhile and dropped once, and it may begin anew."""
    async with a_host(path, disk) as (host, vm, _):
        pasid, transfer = await dma_in_flight(host, vm)
        break_(disk)
        await refused(vm.alloc)
        await host.complete("dsa0", transfer)
        await vm.stop("dsa0", pasid)
        assert {} == host.device("dsa0").device.contexts
        assert 4 == await count(host, pasid)
        await refused(lambda: vm.program("dsa0", 101))
        disk.repair()
        await works(host)
        assert 3 == await count(host, pasid)
        assert pasid == await vm.program("dsa0", 101)
        await vm.stop("dsa0", pasid)
        await check_host(host)


async def test_a_transfer_that_ends_what_is_drained(path: Path, disk: Disk) -> None:
    """The last one lands, whoever waits is answered, and what waited for the drain goes on."""
    async with a_host(path, disk) as (host, vm, _), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        tasks.start_soon(vm.stop, "dsa0", pasid)
        await settle()
        break_(disk)
        await refused(vm.alloc)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {} == host.device("dsa0").device.contexts
        disk.repair()
        while await count(host, pasid):
            await settle()


async def test_an_unbind_that_is_refused(path: Path, disk: Disk) -> None:
    """It is bound as before, and unbound when it is asked again."""
    async with a_host(path, disk) as (host, vm, _):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        break_(disk)
        await refused(lambda: vm.unbind("dsa0", pasid))
        assert host.vtd.iommu.translate("dsa0", pasid)
        disk.repair()
        await vm.unbind("dsa0", pasid)
        assert 1 == await count(host, pasid)
        await vm.bind("dsa0", pasid, 101)
        await check_host(host)


async def test_a_reference_that_can_t_be_dropped_in_the_midst_of_an_unbind(
    path: Path, disk: Disk
) -> None:
    """The entry is torn down and the IOMMU driver goes on; the reference follows, once."""
    async with a_host(path, disk) as (host, vm, breaks):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        breaks.after = ("vtd", DetachSpid)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vm.unbind, "dsa0", pasid)
            while not breaks.are_over():
                await settle()
            await refused(vm.alloc)
            disk.repair()
        await works(host)
        assert 1 == await count(host, pasid)
        assert host.vtd.statistics().error is None
        await check_host(host)


async def test_a_bind_that_is_undone_while_the_disk_fails(path: Path, disk: Disk) -> None:
    """No entry is left of what was refused, nor a reference, and a retry binds."""
    async with a_host(path, disk) as (host, vm, _):
        pasid = await vm.alloc()
        break_(disk)
        await refused(lambda: vm.bind("dsa0", pasid, 101))
        assert host.vtd.iommu.translate("dsa0", pasid) is None
        disk.repair()
        await vm.bind("dsa0", pasid, 101)
        assert 3 == await count(host, pasid)
        await check_host(host)


@pytest.mark.parametrize("door", ["open", "gone"])
async def test_a_vm_that_ends_while_the_disk_fails(path: Path, disk: Disk, door: str) -> None:
    """It is gone when the disk works again, though nobody asks again: its VFIO there or not."""
    async with a_host(path, disk, 0) as (host, vm, _), anyio.create_task_group() as tasks:
        _, transfer = await dma_in_flight(host, vm)
        break_(disk)
        await refused(vm.alloc)
        if door == "gone":
            vm.vfio.crash()
        else:
            vm.crash()
        await settle()
        await host.complete("dsa0", transfer)
        tasks.start_soon(vm.gone)
        await settle()
        assert {"vm-1": vm} == host.vms
        disk.repair()
        await vm.gone()
        await works(host)
        assert 1 == (await host.allocator.statistics()).sets
        await check_host(host)


async def test_a_device_that_is_removed_while_the_disk_fails(path: Path, disk: Disk) -> None:
    """It goes when the disk works again, and its name can be had again."""
    async with a_host(path, disk) as (host, vm, _), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        await host.sva_bind("dsa0", 7)
        break_(disk)
        await refused(vm.alloc)
        await host.complete("dsa0", transfer)
        tasks.start_soon(host.remove_device, "dsa0")
        await settle()
        assert {"dsa0"} == set(host.vtd.iommu.tables)
        disk.repair()
        await host.remove_device("dsa0")
        assert {} == host.vtd.iommu.tables
        await works(host)
        assert 1 == await count(host, pasid)
        await host.add_device("dsa0")
        await check_host(host)


async def test_a_process_on_a_disk_that_fails(path: Path, disk: Disk) -> None:
    """What is refused is as before, what is undone is undone once, and an exit is asked again."""
    async with a_host(path, disk) as (host, vm, _):
        break_(disk)
        await refused(lambda: host.sva_bind("dsa0", 7))
        disk.repair()
        pasid = await host.sva_bind("dsa0", 7)
        break_(disk)
        await refused(vm.alloc)
        await host.sva_unbind("dsa0", 7)
        assert host.vtd.iommu.translate("dsa0", pasid) is None
        await refused(lambda: host.process_exited(7))
        assert pasid == host.vtd.ioasid_of(7)
        disk.repair()
        await host.process_exited(7)
        assert host.vtd.ioasid_of(7) is None
        assert 0 == await count(host, pasid)
        await check_host(host)


async def test_a_freeze_that_is_refused(path: Path, disk: Disk) -> None:
    """The guest goes on as before, and can be frozen and let go on later."""
    async with a_host(path, disk) as (host, vm, _):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        break_(disk)
        await refused(vm.freeze)
        disk.repair()
        assert 2 == await vm.alloc()
        await vm.freeze()
        break_(disk)
        await refused(vm.run)
        disk.repair()
        await vm.run()
        assert host.vtd.iommu.translate("dsa0", pasid)
        await check_host(host)


async def test_an_id_that_nobody_learned_of(path: Path, disk: Disk) -> None:
    """It is freed when the disk works again."""
    async with a_host(path, disk) as (host, vm, _):
        ioasid = await vm.alloc()
        break_(disk)
        await refused(vm.alloc)
        await vm.vfio.on_forsaken(AllocPasid(), ioasid)
        assert 1 == await count(host, ioasid)
        disk.repair()
        await works(host)
        assert 0 == await count(host, ioasid)


async def test_a_driver_that_gives_up_while_the_disk_fails(path: Path, disk: Disk) -> None:
    """Its device is reset, the host goes on, and what it held follows when the disk works."""
    async with a_host(path, disk, 0) as (host, vm, _):
        pasid, _ = await dma_in_flight(host, vm)
        break_(disk)
        await refused(vm.alloc)
        vdcm = host.device("dsa0")
        vdcm.crash()
        await vdcm.ended.wait()
        assert ({}, 4) == (vdcm.device.contexts, await count(host, pasid))
        disk.repair()
        await works(host)
        assert ("down", 3) == (vdcm.statistics().state, await count(host, pasid))


async def test_restarts_by_a_disk_are_not_held_against_an_actor(path: Path, disk: Disk) -> None:
    """Once it serves again, it may crash as often as any other before it gives up."""
    async with a_host(path, disk, 1) as (host, vm, _):
        break_(disk)
        await refused(vm.alloc)
        vdcm = host.device("dsa0")
        vdcm.crash()
        while vdcm.statistics().restarts < 3:
            await settle()
        disk.repair()
        while vdcm.statistics().state != "serving":
            await settle()
        assert 0 == vdcm.statistics().restarts


async def test_insisting(path: Path, disk: Disk) -> None:
    """What is insisted on is done at once or in its turn, once; other refusals are raised."""
    async with a_host(path, disk) as (host, vm, _):
        pasid = await vm.alloc()
        allocator = host.allocator
        for _ in range(3):
            await allocator.get(pasid)
        assert await allocator.insist(Put(pasid))
        break_(disk)
        assert not await allocator.insist(Put(pasid))
        assert 3 == await count(host, pasid)
        disk.repair()
        await allocator.put(pasid)
        assert 1 == await count(host, pasid)
        with pytest.raises(IoasidError, match="reference"):
            await allocator.insist(Put(pasid))
