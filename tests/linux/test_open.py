"""`open_iommu` under a host: a guest's PASID in the kernel, from bind to reclaim, and crashes."""

import asyncio
import errno
import mmap
import threading
from typing import Any

import anyio
import pytest

from ioasid.actors import Adopted, Decision, Host, PasidTooWide, Step, TornDown, Vm, open_host
from ioasid.core import InvalidArgument
from ioasid.linux import NoPasids, NotLinux, NotPermitted, open_iommu
from ioasid.testing import FakeKernel, StormSettings, storm
from ioasid.testing._hardware import in_turn
from tests.actors.hosts import Witness, settle

pytestmark = pytest.mark.anyio

PATH = "/dev/vfio/devices/vfio0"


async def a_guest(host: Host) -> tuple[Vm, int]:
    """Let a guest use a PASID on the device."""
    await host.add_device("dsa0")
    vm = await host.start_vm("vm-1", quota=4)
    pasid = await vm.alloc(device="dsa0")
    await vm.bind("dsa0", pasid, 101)
    return vm, pasid


async def test_a_guest_s_pasid_is_in_the_kernel_while_it_is_bound() -> None:
    """Bound, the kernel has it attached to its own address space; unbound, nothing is left."""
    kernel = FakeKernel({PATH: 8})
    async with (
        open_iommu({"dsa0": PATH}, kernel=kernel) as iommu,
        open_host(capacity=1024, system_quota=4, iommu=iommu) as host,
    ):
        vm, pasid = await a_guest(host)
        assert [pasid] == [*kernel.attached()[PATH]]
        await iommu.hardware.address_space(pasid).map(0, mmap.mmap(-1, mmap.PAGESIZE))
        assert {0: mmap.PAGESIZE} == kernel.mapped(PATH, pasid)
        assert (8, 8) == (iommu.pasid_bits["dsa0"], host.device("dsa0").device.pasid_bits)
        wide = await vm.alloc(min=256)
        with pytest.raises(PasidTooWide):
            await vm.bind("dsa0", wide, 102)
        assert pasid == await vm.program("dsa0", 101)
        await vm.stop("dsa0", pasid)
        await vm.unbind("dsa0", pasid)
        assert {} == kernel.attached()
        await vm.close()
        await host.remove_device("dsa0")
        assert (1, 0) == (kernel.descriptors, kernel.objects)
    assert 0 == kernel.descriptors


async def test_a_crashed_guest_s_pasid_is_detached_before_it_is_reclaimed() -> None:
    """The kernel lets go before the allocator hands the ID out again."""
    kernel = FakeKernel()
    seen: list[tuple[str, int]] = []

    async with open_iommu(kernel=kernel) as iommu:

        def tap(each: Decision | Step) -> None:
            spans = each.changes.reclaimed if isinstance(each, Decision) else ()
            seen.extend(("reclaimed", span.first) for span in spans)

        def before(name: str) -> None:
            if name.startswith("VFIO_DEVICE_DETACH"):
                seen.append(("detached", 0))

        kernel.before = before
        async with open_host(capacity=64, system_quota=4, iommu=iommu, taps=[tap]) as host:
            vm, pasid = await a_guest(host)
            vm.crash()
            await vm.gone()
            assert [("detached", 0), ("reclaimed", pasid)] == seen


async def test_a_driver_that_crashed_adopts_what_the_kernel_has() -> None:
    """After a crash the same PASIDs are attached, to the same page tables, and it says which."""
    kernel = FakeKernel()
    witness = Witness()
    async with (
        open_iommu(kernel=kernel, run=in_turn) as iommu,
        open_host(capacity=64, system_quota=4, iommu=iommu, taps=[witness], restart_wait=0) as host,
    ):
        vm, pasid = await a_guest(host)
        attached = kernel.attached()
        host.vtd.crash()
        await settle()
        assert attached == kernel.attached()
        assert [("vtd", Adopted((pasid,)))] == witness.steps(Adopted, TornDown)
        await vm.close()
        assert {} == kernel.attached()


async def test_a_host_that_ends_leaves_nothing() -> None:
    """Whatever the guests still have, every descriptor is closed, and everything with it."""
    kernel = FakeKernel()

    async def fail() -> None:
        async with (
            open_iommu(kernel=kernel) as iommu,
            open_host(capacity=64, system_quota=4, iommu=iommu) as host,
        ):
            await a_guest(host)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (0, 0, {}) == (kernel.descriptors, kernel.objects, kernel.attached())


async def test_a_device_that_is_refused_is_not_added() -> None:
    """Who adds a device that can't be used is told why, and may try again."""
    kernel = FakeKernel({"/dev/vfio/devices/plain": 0})
    async with (
        open_iommu(kernel=kernel) as iommu,
        open_host(capacity=64, system_quota=4, iommu=iommu) as host,
    ):
        with pytest.raises(NoPasids):
            await host.add_device("plain")

        def before(name: str) -> None:
            if name == "open":
                raise OSError(errno.EACCES, "planted")

        kernel.before = before
        with pytest.raises(NotPermitted):
            await host.add_device("dsa0")
        assert ({}, {}, 1) == (host.devices, iommu.tables, kernel.descriptors)
        kernel.before = None
        vm, _ = await a_guest(host)
        await vm.close()


async def test_who_gives_up_adding_a_device_leaves_nothing() -> None:
    """An open that is under way is finished, and undone."""
    kernel = FakeKernel()
    begun, go = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "IOMMU_GET_HW_INFO":
            begun.set()
            assert go.wait(10)

    kernel.before = before
    async with (
        open_iommu(kernel=kernel) as iommu,
        open_host(capacity=64, system_quota=4, iommu=iommu) as host,
    ):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.add_device, "dsa0")
            await anyio.to_thread.run_sync(begun.wait, 10)
            tasks.cancel_scope.cancel()
        go.set()
        await host.add_device("dsa0")
        assert (2, 2) == (kernel.descriptors, kernel.objects)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_scope_that_asyncio_cancels_leaves_nothing() -> None:
    """Cancelled natively while it opens, it closes what was opened behind its back."""
    kernel = FakeKernel()
    begun, go = threading.Event(), threading.Event()

    def before(name: str) -> None:
        if name == "open":
            begun.set()
            assert go.wait(10)

    kernel.before = before

    async def use() -> None:
        async with open_iommu(kernel=kernel):
            raise AssertionError("it was cancelled before")

    task = asyncio.ensure_future(use())
    await anyio.to_thread.run_sync(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (["open", "close"], 0) == (kernel.calls, kernel.descriptors)


async def test_foreign_arguments_are_refused() -> None:
    """Devices are names and paths."""
    values: tuple[Any, ...] = (5, "dsa0", ["dsa0"], {"dsa0": 5}, {5: "path"}, {"": "path"})
    for devices in values:
        with pytest.raises(InvalidArgument, match="devices"):
            async with open_iommu(devices, kernel=FakeKernel()):
                pass


async def test_elsewhere_than_on_linux_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another system opening raises a typed error."""
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(NotLinux):
        async with open_iommu():
            pass


async def test_a_storm_over_the_kernel_holds() -> None:
    """In a storm, with worker threads, every rule holds of what the kernel has attached."""
    kernel = FakeKernel()
    settings = StormSettings(vms=6, devices=2, ops=900, crash_rate=0.03, seed=5, stall=20)
    report = await storm(settings, kernel=kernel)
    assert report.holds, report
    assert report.landed > 0
    for name in ("ATTACH", "DETACH"):
        assert kernel.calls.count(f"VFIO_DEVICE_{name}_IOMMUFD_PT") > 10
    assert (0, 0) == (kernel.descriptors, kernel.replaced)
