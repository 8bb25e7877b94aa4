"""What guests do in a storm: allocate, bind, program, submit, stop, unbind, free, in any order."""

from collections.abc import Sequence
from typing import Final

import anyio
from attrs import frozen

from ioasid.actors import (
    AlreadyProgrammed,
    ContextStopping,
    DmaFault,
    NotBound,
    NotProgrammed,
    PasidFault,
    UnbindPending,
    UnknownTransfer,
    Vm,
    VmExists,
)
from ioasid.core import (
    AlreadyBound,
    CapacityExhausted,
    IoasidFreePending,
    IoasidState,
    NotOfThisSet,
    QuotaExceeded,
    RangeFull,
    SpidInUse,
    StaleIoasid,
    TooManyEvents,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
)
from ioasid.testing._storm_operations import (
    GONE,
    GUEST_PASIDS,
    REMEMBERED,
    Binding,
    Choice,
    Operation,
    Refusals,
    Worker,
    forget,
    remember,
)
from ioasid.testing._storm_scene import Scene

__all__: list[str] = []

PATIENCE: Final = 50
"""How often a task tries to start its VM before it goes on to something else."""

# A step for which there is nothing yet does the step before it.
ALLOC: Final[Refusals] = (*GONE, QuotaExceeded, RangeFull)
BIND: Final[Refusals] = (
    *ALLOC,
    UnknownIoasid,
    StaleIoasid,
    NotOfThisSet,
    IoasidFreePending,
    AlreadyProgrammed,
    AlreadyBound,
    UnbindPending,
    SpidInUse,
    TooManyEvents,
)
PROGRAM: Final[Refusals] = (*BIND, UnknownSpid, UnknownSet)
SUBMIT: Final[Refusals] = (*PROGRAM, PasidFault, NotProgrammed, ContextStopping, DmaFault)
COMPLETE: Final[Refusals] = (*GONE, UnknownTransfer, DmaFault)
FREE: Final[Refusals] = (*GONE, UnknownIoasid, StaleIoasid, NotOfThisSet)
START: Final[Refusals] = (VmExists, CapacityExhausted)


class NoVm(Exception):
    """The VM of a task could not be started for too long."""


@frozen
class Guests:
    """What the tasks do for their VMs."""

    scene: Scene

    def operations(self) -> Sequence[Operation]:
        """Return what a guest may do."""
        return (
            Operation("alloc", self.alloc, 14, ALLOC),
            Operation("bind", self.bind, 14, BIND),
            Operation("program", self.program, 8, PROGRAM),
            Operation("submit", self.submit, 16, SUBMIT),
            Operation("complete", self.complete, 10, COMPLETE),
            Operation("stop", self.stop, 4, (*FREE, NotProgrammed)),
            Operation("unbind", self.unbind, 6, (*FREE, NotBound, UnbindPending)),
            Operation("free", self.free, 9, FREE),
            Operation("relearn", self.relearn, 2, (UnknownSet,)),
            Operation("close VM", self.close_vm, 0.3),
        )

    async def vm(self, worker: Worker, choice: Choice) -> Vm:
        """Return the VM of a task, started if there is none. Raises `NoVm`."""
        slot, scene = worker.slot, self.scene
        for _ in range(PATIENCE):
            if slot.vm is not None:
                return slot.vm
            try:
                slot.vm = await scene.host.start_vm(slot.name, quota=8 + choice.numbers[2] % 17)
            except START as error:
                scene.refused("start VM", error, START)
                await anyio.sleep(0.002)
            else:
                scene.happened("VMs started")
                slot.generation = scene.witness.generations[slot.name]
                slot.forget()
        raise NoVm(slot.name)

    def among(self, known: list[Binding], worker: Worker, choice: Choice) -> Binding:
        """Return mostly what the guest knows to be there, sometimes anything at all."""
        a, b, c = choice.numbers
        if known and c % 8:
            return known[a % len(known)]
        return self.scene.device(a), worker.slot.pasid(b), 1 + (c >> 8) % GUEST_PASIDS

    async def alloc(self, worker: Worker, choice: Choice) -> None:
        """Allocate a PASID, in some range."""
        a, b, _ = choice.numbers
        vm = await self.vm(worker, choice)
        low = 1 + a % 32 if b % 8 == 0 else 1  # within the capacity, also of a single VM
        generation = worker.slot.generation
        pasid = await vm.alloc(min=low, max=low + 16 if b % 16 == 0 else None)
        self.scene.witness.check_owner(pasid, vm.name, generation, "was allocated by")
        worker.slot.pasids.append(pasid)
        del worker.slot.pasids[:-REMEMBERED]

    async def bind(self, worker: Worker, choice: Choice) -> None:
        """Bind a PASID for a device."""
        a, b, c = choice.numbers
        vm = await self.vm(worker, choice)
        slot, device = worker.slot, self.scene.device(a)
        if not slot.pasids and c % 8:
            await self.alloc(worker, choice)
            return
        pasid, gpasid = slot.pasid(b), 1 + c % GUEST_PASIDS
        if (c >> 8) % 4 == 0:
            # Another device for what has one already.
            _, pasid, gpasid = self.among(slot.bound, worker, choice)
        await vm.bind(device, pasid, gpasid)
        remember(slot.bound, (device, pasid, gpasid))

    async def program(self, worker: Worker, choice: Choice) -> None:
        """Program what is bound into its device."""
        vm = await self.vm(worker, choice)
        if not worker.slot.bound and choice.numbers[2] % 8:
            await self.bind(worker, choice)
            return
        device, _, gpasid = self.among(worker.slot.bound, worker, choice)
        pasid = await self.program_for(vm, worker.slot.generation, device, gpasid)
        remember(worker.slot.programmed, (device, pasid, gpasid))

    async def program_for(self, vm: Vm, generation: int, device: str, gpasid: int) -> int:
        """Program a guest's PASID into a device, and check whose the host's PASID is."""
        pasid = await vm.program(device, gpasid)
        what = f"was programmed into {device} by"
        self.scene.witness.check_owner(pasid, vm.name, generation, what)
        return pasid

    async def submit(self, worker: Worker, choice: Choice) -> None:
        """Submit work to a device."""
        vm = await self.vm(worker, choice)
        if not worker.slot.programmed and choice.numbers[2] % 8:
            await self.program(worker, choice)
            return
        device, _, gpasid = self.among(worker.slot.programmed, worker, choice)
        transfer = await self.submit_for(vm, worker.slot.generation, device, gpasid)
        worker.slot.transfers.append((device, transfer))
        del worker.slot.transfers[:-64]

    async def submit_for(self, vm: Vm, generation: int, device: str, gpasid: int) -> int:
        """Submit work with a guest's PASID, and check whose DMA it starts."""
        transfer = await vm.submit(device, gpasid)
        begun = self.scene.witness.transfers.get((device, transfer))
        mine = begun is None or (begun[1].owner, begun[1].generation) == (vm.name, generation)
        who = f"{vm.name}, its number {generation}"
        self.scene.check(mine, f"DMA {transfer} on {device}, started by {who}, is of {begun}")
        return transfer

    async def complete(self, worker: Worker, choice: Choice) -> None:
        """Let the hardware complete a transfer."""
        a, b, _ = choice.numbers
        transfers = worker.slot.transfers
        mine = bool(transfers and b % 16)
        if mine:
            device, transfer = transfers.pop(a % len(transfers))
        else:
            device, transfer = self.scene.device(a), b % (1 << 20)
        landed = await self.scene.host.complete(device, transfer)
        right = not mine or landed.owner == worker.slot.name
        self.scene.check(right, f"DMA of {worker.slot.name} on {device} landed: {landed}")

    async def stop(self, worker: Worker, choice: Choice) -> None:
        """Stop a device's work with a PASID."""
        vm = await self.vm(worker, choice)
        known = self.among(worker.slot.programmed, worker, choice)
        forget(worker.slot.programmed, known)
        await vm.stop(known[0], known[1])

    async def unbind(self, worker: Worker, choice: Choice) -> None:
        """Undo a bind."""
        vm = await self.vm(worker, choice)
        known = self.among(worker.slot.bound, worker, choice)
        if choice.numbers[1] % 4:
            forget(worker.slot.bound, known)
        await vm.unbind(known[0], known[1])

    async def free(self, worker: Worker, choice: Choice) -> None:
        """Free a PASID, whatever it is used for; some are kept in mind all the same."""
        vm = await self.vm(worker, choice)
        slot, pasid = worker.slot, worker.slot.pasid(choice.numbers[1])
        if choice.numbers[0] % 8:
            slot.pasids[:] = [each for each in slot.pasids if each != pasid]
            for known in (slot.bound, slot.programmed):
                known[:] = [each for each in known if each[1] != pasid]
        generation = slot.generation
        await vm.free(pasid)
        self.scene.witness.check_owner(pasid, vm.name, generation, "was freed by")

    async def relearn(self, worker: Worker, choice: Choice) -> None:
        """Ask the allocator which PASIDs the VM has."""
        vm = await self.vm(worker, choice)
        generation = worker.slot.generation
        listing = await self.scene.allocator.list_set(vm.sid)
        spids = [each.spid for each in listing if each.spid is not None]
        unique = len(spids) == len(set(spids))
        self.scene.check(unique, f"the spids of {vm.name} are not unique: {spids}")
        active = [each.ioasid for each in listing if each.state is IoasidState.ACTIVE]
        lowest = min(active, default=0)
        if worker.slot.vm is vm and self.scene.witness.belongs(lowest, vm.name, generation):
            worker.slot.pasids[:] = active[-REMEMBERED:]

    async def close_vm(self, worker: Worker, choice: Choice) -> None:
        """End the VM in order."""
        vm = await self.vm(worker, choice)
        worker.slot.vm = None
        await vm.close()
        self.scene.happened("VMs closed")
