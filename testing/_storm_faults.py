"""What crashes in a storm: VMs, drivers and devices, once or for good."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
from anyio.lowlevel import checkpoint
from attrs import frozen

from ioasid.actors import Actor, Vm
from ioasid.core import IoasidError
from ioasid.testing._storm_devices import PACE
from ioasid.testing._storm_operations import Choice, Operation, Worker
from ioasid.testing._storm_owners import NO_GUEST_PASID
from ioasid.testing._storm_scene import Scene, passes
from ioasid.testing._storm_vms import BIND, SUBMIT, Guests, NoVm

__all__: list[str] = []

FLOOD: Final = 100
"""Requests that a VM sends to a device at once before it crashes; or crashes that wait."""


async def crash_for_good(actor: Actor) -> None:
    """Crash an actor until it gives up; an event in between gives it new restarts."""
    while not actor.ended.is_set():
        # Many in a row, for what is handled in between gives it new restarts; but not for ever
        # while it waits before one.
        if actor.statistics().waiting < FLOOD:
            actor.crash()
            await checkpoint()
        else:
            await anyio.sleep(PACE)


@frozen
class Faults:
    """What the tasks make crash."""

    scene: Scene
    guests: Guests

    def operations(self) -> Sequence[Operation]:
        """Return what may crash."""
        return (
            Operation("crash VM", self.crash_vm, 30, crash=True),
            Operation("crash VM in a flood", self.crash_in_a_flood, 4, crash=True),
            Operation("crash VFIO", self.crash_vfio, 8, crash=True),
            Operation("crash KVM", self.crash_kvm, 10, crash=True),
            Operation("crash VDCM", self.crash_vdcm, 12, crash=True),
            Operation("crash VT-d", self.crash_vtd, 8, crash=True),
            Operation("VFIO gives up", self.give_up_vfio, 2, crash=True),
            Operation("KVM gives up", self.give_up_kvm, 2, crash=True),
            Operation("device gives up", self.give_up_device, 0.5, crash=True),
        )

    async def crash_vm(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM, and perhaps wait until it is cleared away."""
        vm = await self.guests.vm(worker, choice)
        worker.slot.vm = None
        vm.crash()
        self.scene.happened("VMs crashed")
        if choice.numbers[0] % 2:
            await vm.gone()

    async def crash_in_a_flood(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM while a device has much of it to do.

        What it asked must not outlive it, and reach whoever gets the numbers of its set and IDs
        next: here itself, started again at once.
        """
        vm = await self.guests.vm(worker, choice)
        slot, generation = worker.slot, worker.slot.generation
        device, _, gpasid = self.guests.among(slot.programmed or slot.bound, worker, choice)

        async def ask(
            call: Callable[[Vm, int, str, int], Awaitable[object]], vm: Vm, spid: int
        ) -> None:
            try:
                await call(vm, generation, device, spid)
            except IoasidError as error:
                self.scene.refused("submit", error, SUBMIT)

        async with anyio.create_task_group() as tasks:
            for _ in range(FLOOD):
                tasks.start_soon(ask, self.guests.program_for, vm, NO_GUEST_PASID)
            await checkpoint()
            tasks.start_soon(ask, self.guests.program_for, vm, gpasid)
            tasks.start_soon(ask, self.guests.submit_for, vm, gpasid)
            await passes(choice.numbers[1] % 16)
            slot.vm = None if slot.vm is vm else slot.vm
            vm.crash()
            self.scene.happened("VMs crashed")
            await vm.gone()
            await self._start_again(worker, choice, device, gpasid)

    async def _start_again(self, worker: Worker, choice: Choice, device: str, gpasid: int) -> None:
        try:
            with suppress(NoVm):
                vm = await self.guests.vm(worker, choice)
                pasid = await vm.alloc()
                worker.slot.pasids.append(pasid)
                await vm.bind(device, pasid, gpasid)
        except IoasidError as error:
            self.scene.refused("bind", error, BIND)

    async def crash_vfio(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM's VFIO."""
        (await self.guests.vm(worker, choice)).vfio.crash()

    async def crash_kvm(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM's KVM."""
        (await self.guests.vm(worker, choice)).kvm.crash()

    async def crash_vdcm(self, worker: Worker, choice: Choice) -> None:
        """Crash the driver of a device."""
        self.scene.host.device(self.scene.device(choice.numbers[0])).crash()

    async def crash_vtd(self, worker: Worker, choice: Choice) -> None:
        """Crash the IOMMU driver, one crash at a time: a host does not outlive many in a row."""
        if not self.scene.witness.vtd_restarts:
            self.scene.witness.vtd_restarts = True
            self.scene.host.vtd.crash()

    async def give_up_vfio(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM's VFIO for good; that ends the VM."""
        vm = await self.guests.vm(worker, choice)
        await self._end(worker, vm, vm.vfio)

    async def give_up_kvm(self, worker: Worker, choice: Choice) -> None:
        """Crash the VM's KVM for good; that ends the VM."""
        vm = await self.guests.vm(worker, choice)
        await self._end(worker, vm, vm.kvm)

    async def _end(self, worker: Worker, vm: Vm, actor: Actor) -> None:
        worker.slot.vm = None
        await crash_for_good(actor)
        await vm.gone()

    async def give_up_device(self, worker: Worker, choice: Choice) -> None:
        """Crash the driver of a device for good."""
        await crash_for_good(self.scene.host.device(self.scene.device(choice.numbers[0])))
