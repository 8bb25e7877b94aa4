"""A VM moves from host to host: frozen, exported, received, run, by the device actors."""

from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from ioasid.actors import (
    BindPasid,
    Entry,
    Host,
    Iommu,
    PasidFault,
    PasidTooWide,
    UnknownDevice,
    Vm,
    VmExport,
    open_host,
)
from ioasid.core import (
    InvalidArgument,
    IoasidError,
    RangeFull,
    SetFrozen,
    SetNotFrozen,
    SetState,
    UnknownSpid,
    UnknownToken,
)

pytestmark = pytest.mark.anyio
DEVICE = "dsa0"


async def running(host: Host, count: int = 2, vm: str = "vm-1") -> Vm:
    """A VM with so many PASIDs that are bound and programmed, guest's numbers from 100 on."""
    guest = await host.start_vm(vm, quota=count + 1)
    for gpasid in range(100, 100 + count):
        await guest.bind(DEVICE, await guest.alloc(), gpasid)
        await guest.program(DEVICE, gpasid)
    return guest


async def state_of(host: Host, vm: str = "vm-1") -> SetState:
    """The state of a VM's set."""
    return (await host.allocator.find_set(vm)).state


async def test_a_freeze_drains_what_runs_and_refuses_the_rest() -> None:
    """It is answered when DMA has landed, and the IOMMU's entries go after that."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        vm = await running(host)
        transfer = await vm.submit(DEVICE, 100)
        frozen = []

        async def freeze() -> None:
            await vm.freeze()
            frozen.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(freeze)
            await wait_all_tasks_blocked()
            assert ([], SetState.FROZEN) == (frozen, await state_of(host))
            with pytest.raises(PasidFault):
                await vm.submit(DEVICE, 101)
            with pytest.raises(SetNotFrozen):
                await vm.export()
            landed = await host.complete(DEVICE, transfer)
        assert ("vm-1", [True]) == (landed.owner, frozen)
        with pytest.raises(SetFrozen):
            await vm.alloc()
        with pytest.raises(SetFrozen):
            await vm.bind(DEVICE, 3, 102)
        with pytest.raises(SetFrozen):
            await vm.unbind(DEVICE, 1)
        with pytest.raises(SetFrozen):
            await vm.program(DEVICE, 100)
        await wait_all_tasks_blocked()
        assert ({}, {}) == (vm.kvm.table, host.vtd.iommu.programmed())
        assert {} == host.device(DEVICE).device.contexts
        await vm.freeze()


async def test_a_frozen_vm_goes_on() -> None:
    """Thawed, its guest's numbers are the host's that they were, and its DMA lands."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        await host.add_device("dsa1")
        vm = await running(host)
        await vm.bind("dsa1", 2, 101)
        table = vm.kvm.table
        for _ in range(2):
            await vm.freeze()
            await vm.run()
            assert table == vm.kvm.table
            assert {1: 1, 2: 2} == {
                ioasid: len(host.vtd.iommu.devices_of(ioasid)) for ioasid in (1, 2)
            }
        await vm.run()
        await vm.program(DEVICE, 100)
        landed = await host.complete(DEVICE, await vm.submit(DEVICE, 100))
        assert ("vm-1", 1) == (landed.owner, landed.ioasid)
        assert 2 == (await host.allocator.find(1)).references["vdcm:dsa0"] + 1
        await vm.unbind("dsa1", 2)
        await vm.close()


async def test_a_vm_that_is_frozen_again_while_a_device_drains_goes_on() -> None:
    """Each end of a binding takes its entries along, and what is bound since gets them again."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        await host.add_device("dsa1")
        vm = await running(host)
        await vm.bind("dsa1", 1, 100)
        transfer = await vm.submit(DEVICE, 100)
        for _ in range(3):
            async with anyio.create_task_group() as tasks:

                async def freeze() -> None:
                    with pytest.raises(SetNotFrozen):
                        await vm.freeze()

                tasks.start_soon(freeze)
                await wait_all_tasks_blocked()
                await vm.run()
        await host.complete(DEVICE, transfer)
        await wait_all_tasks_blocked()
        assert {1: 2, 2: 1} == {ioasid: len(host.vtd.iommu.devices_of(ioasid)) for ioasid in (1, 2)}
        for device, gpasid in ((DEVICE, 100), (DEVICE, 101), ("dsa1", 100)):
            await vm.program(device, gpasid)
            landed = await host.complete(device, await vm.submit(device, gpasid))
            assert "vm-1" == landed.owner
        assert 1 == (await host.allocator.find(1)).references["vtd"]
        await vm.close()
        assert {} == host.vtd.iommu.programmed()


async def test_an_entry_that_is_not_programmed_lets_go_and_can_be_asked_for_again() -> None:
    """A thaw that the hardware refuses leaves the VM frozen; the next one goes on."""

    class Failing(Iommu):
        """An IOMMU that may refuse entries."""

        fails = False

        async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
            if self.fails:
                raise PasidTooWide(device, ioasid, 20)
            await super().attach(device, ioasid, entry)

    iommu = Failing()
    async with open_host(iommu=iommu) as host:
        await host.add_device(DEVICE)
        vm = await running(host)
        await vm.freeze()
        await wait_all_tasks_blocked()
        iommu.fails = True
        for _ in range(2):
            with pytest.raises(PasidTooWide):
                await vm.run()
        assert SetState.FROZEN is await state_of(host)
        assert {} == iommu.programmed()
        assert {} == (await host.allocator.find(1)).references
        iommu.fails = False
        await vm.run()
        await vm.program(DEVICE, 100)
        landed = await host.complete(DEVICE, await vm.submit(DEVICE, 100))
        assert "vm-1" == landed.owner
        await vm.close()


async def test_a_vm_moves() -> None:
    """The guest's numbers stay, the host's change; the source is empty, the target runs."""
    async with open_host() as source, open_host() as target:
        for host in (source, target):
            await host.add_device(DEVICE)
        other = await running(target, 3, "vm-2")
        vm = await running(source)
        await vm.freeze()
        export = await vm.export()
        assert (("dsa0", 1, 100), ("dsa0", 2, 101)) == export.bound
        arrived = await target.receive_vm(export)
        assert ({}, SetState.INCOMING) == (arrived.kvm.table, await state_of(target))
        with pytest.raises(PasidFault):
            await arrived.submit(DEVICE, 100)
        with pytest.raises(SetFrozen):
            await arrived.program(DEVICE, 100)
        await vm.close()
        await arrived.run()
        assert {100: 4, 101: 5} == arrived.kvm.table
        await arrived.program(DEVICE, 101)
        landed = await target.complete(DEVICE, await arrived.submit(DEVICE, 101))
        assert ("vm-1", 5) == (landed.owner, landed.ioasid)
        assert (0, 5) == (
            (await source.allocator.statistics()).active,
            (await target.allocator.statistics()).active,
        )
        await arrived.close()
        await other.close()


async def test_a_move_that_is_given_up() -> None:
    """What was received is closed, and leaves nothing; the source runs again."""
    async with open_host() as source, open_host() as target:
        for host in (source, target):
            await host.add_device(DEVICE)
        vm = await running(source)
        await vm.freeze()
        arrived = await target.receive_vm(await vm.export())
        await arrived.close()
        with pytest.raises(UnknownToken):
            await state_of(target)
        assert {} == target.vtd.iommu.programmed()
        await vm.run()
        await vm.program(DEVICE, 100)
        await source.complete(DEVICE, await vm.submit(DEVICE, 100))
        await vm.close()


async def test_what_was_freed_while_frozen_does_not_come_back() -> None:
    """The guest's number is free, and the rest of the VM runs."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        vm = await running(host)
        await vm.freeze()
        assert await vm.free(1) in (True, False)
        await vm.run()
        assert {101: 2} == vm.kvm.table
        with pytest.raises(UnknownSpid):
            await vm.program(DEVICE, 100)
        assert {2} == set(host.vtd.iommu.programmed())
        await vm.close()


async def test_what_was_freed_while_frozen_stays_behind() -> None:
    """It is in no export, and the rest of the VM runs on its next host."""
    async with open_host() as source, open_host() as target:
        for host in (source, target):
            await host.add_device(DEVICE)
        vm = await running(source)
        await vm.freeze()
        whole = await vm.export()
        await vm.free(1)
        export = await vm.export()
        assert ((DEVICE, 2, 101),) == export.bound
        for each in (VmExport(export.set, whole.bound), export):
            arrived = await target.receive_vm(each)
            await arrived.run()
            assert [101] == [*arrived.kvm.table]
            assert [*arrived.kvm.table.values()] == [*target.vtd.iommu.programmed()]
            await arrived.close()
        await vm.close()


async def test_a_frozen_vm_is_closed() -> None:
    """A VM that ends while it is frozen, or has come and does not run, leaves nothing."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        vm = await running(host)
        await vm.freeze()
        await vm.close()
        assert 0 == (await host.allocator.statistics()).active


async def test_a_freeze_waits_for_the_binds_under_way() -> None:
    """A bind that the IOMMU driver has in hand is frozen with the others."""
    async with open_host() as host:
        await host.add_device(DEVICE)
        vm = await host.start_vm("vm-1", quota=2)
        pasid = await vm.alloc()
        vm.vfio.tell(BindPasid(DEVICE, pasid, 100))
        while not host.vtd.iommu.programmed():
            await checkpoint()
        await vm.freeze()
        assert ((DEVICE, pasid, 100),) == (await vm.export()).bound
        await vm.run()
        assert {100: pasid} == vm.kvm.table
        await vm.close()


async def test_what_does_not_fit_is_not_received() -> None:
    """A host without the device, or what is no export, is refused, and nothing is left."""
    async with open_host() as source, open_host(capacity=4, system_quota=1) as target:
        await source.add_device(DEVICE)
        vm = await running(source)
        await vm.freeze()
        export = await vm.export()
        with pytest.raises(UnknownDevice):
            await target.receive_vm(export)
        await target.add_device(DEVICE)
        with pytest.raises(IoasidError, match="ENOSPC"):
            await target.receive_vm(export)
        wrong: tuple[Any, ...] = ((DEVICE, 1), (1, 1, 1), (DEVICE, 1, "100"), DEVICE, None)
        none: list[Any] = [export.set, *(VmExport(export.set, (bound,)) for bound in wrong)]
        for each in none:
            with pytest.raises(InvalidArgument):
                await target.receive_vm(each)
        assert {} == target.vms
        await vm.close()


async def test_what_comes_fits_its_devices() -> None:
    """A VM gets numbers that its devices have, or is refused before it is anywhere else."""
    async with open_host() as source, open_host(capacity=64, system_quota=1) as target:
        await source.add_device(DEVICE)
        await target.add_device(DEVICE, pasid_bits=3)
        vm = await running(source)
        await vm.freeze()
        export = await vm.export()
        other = await target.start_vm("vm-2", quota=6)
        taken = [await other.alloc() for _ in range(6)]
        with pytest.raises(RangeFull):
            await target.receive_vm(export)
        assert {other.name: other} == target.vms
        await other.free(taken[0])
        arrived = await target.receive_vm(export)
        await arrived.run()
        assert {100: 1, 101: 7} == arrived.kvm.table
        await arrived.close()
        await other.close()
        await vm.close()


async def test_drivers_that_crash_meanwhile_stop_what_was_frozen() -> None:
    """KVM, VDCM and VT-d come back to a Resync that shows no binding: nothing of it runs."""
    async with open_host() as host:
        vdcm = await host.add_device(DEVICE)
        vm = await running(host)
        transfer = await vm.submit(DEVICE, 100)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vm.freeze)
            await wait_all_tasks_blocked()
            for actor in (vm.kvm, vdcm, host.vtd):
                actor.crash()
            await wait_all_tasks_blocked()
            await host.complete(DEVICE, transfer)
        await wait_all_tasks_blocked()
        assert ({}, {}) == (vdcm.device.contexts, host.vtd.iommu.programmed())
        await vm.run()
        await vm.program(DEVICE, 100)
        await host.complete(DEVICE, await vm.submit(DEVICE, 100))
        await vm.close()
