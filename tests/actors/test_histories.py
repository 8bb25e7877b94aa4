"""Random histories of a whole host: whatever happens, no DMA lands in a stranger's memory."""

import itertools
import random

import pytest
from anyio import create_task_group
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from ioasid.actors import (
    DmaFault,
    Host,
    UnknownTransfer,
    Vm,
    open_host,
)
from ioasid.core import IoasidError
from tests.actors.hosts import (
    SYSTEM_QUOTA,
    Call,
    check_host,
    nothing_is_left,
    settle,
    sure,
)

pytestmark = pytest.mark.anyio

DEVICES = ("dsa0", "dsa1")
GPASIDS = range(100, 103)
PROCESSES = range(70, 73)
STEPS = 600
EVERY = 25
"""After so many steps everything settles and the state is checked."""


@define(eq=False)
class History:
    """One history: who did what, chosen by `rng`, on a small host where all meet."""

    host: Host
    tasks: TaskGroup
    rng: random.Random
    evictions: bool
    vms: list[Vm] = field(factory=list)
    pasids: dict[str, list[int]] = field(factory=dict)
    flying: dict[tuple[str, int], str] = field(factory=dict)
    """Whose memory every transfer in flight has to land in."""
    numbers: "itertools.count[int]" = field(factory=itertools.count)
    landed: int = 0
    faults: int = 0

    async def run(self) -> None:
        """Do random things, then clear away and look whether anything is left."""
        for device in DEVICES:
            await self.host.add_device(device)
        for step in range(STEPS):
            await self.act()
            if step % EVERY == 0:
                await settle()
                await check_host(self.host)
        await self.end()

    async def act(self) -> None:
        """Do one random thing, in a task of its own: it may wait for another to be done."""
        rng = self.rng
        act = rng.choices(
            [self.guest, self.complete, self.process, self.start, self.crash_vm, self.crash],
            [40, 12, 6, 3, 1, 2],
        )[0]
        call = act()
        if call is not None:
            self.tasks.start_soon(self.attempt, call)
        for _ in range(rng.choice([0, 1, 4, 40])):
            await checkpoint()

    async def attempt(self, call: Call) -> None:
        """Refusals are part of the history; anything else is a failure."""
        try:
            await call()
        except IoasidError:
            pass

    def guest(self) -> Call | None:
        """A guest does something: the right thing, or with the numbers of others."""
        rng = self.rng
        if not self.vms:
            return None
        vm = rng.choice(self.vms)
        device, gpasid = rng.choice(DEVICES), rng.choice(GPASIDS)
        own = self.pasids.get(vm.name)
        pasid = rng.choice(own) if own and rng.random() < 0.8 else rng.randrange(1, 12)
        return rng.choices(
            [
                lambda: self.alloc(vm),
                lambda: vm.bind(device, pasid, gpasid),
                lambda: vm.program(device, gpasid),
                lambda: self.submit(vm, device, gpasid),
                lambda: vm.stop(device, pasid),
                lambda: vm.unbind(device, pasid),
                lambda: vm.free(pasid),
            ],
            [4, 6, 8, 12, 1, 1, 2],
        )[0]

    async def alloc(self, vm: Vm) -> None:
        """Allocate an ID, and remember it for the VM."""
        self.pasids.setdefault(vm.name, []).append(await vm.alloc())

    async def submit(self, vm: Vm, device: str, gpasid: int) -> None:
        """Submit work, and note who did."""
        transfer = await vm.submit(device, gpasid)
        self.flying[device, transfer] = vm.name

    def process(self) -> Call:
        """A process of the host does something."""
        rng = self.rng
        device, process = rng.choice(DEVICES), rng.choice(PROCESSES)
        return rng.choices(
            [
                lambda: self.bind_and_submit(device, process),
                lambda: self.host.sva_unbind(device, process),
                lambda: self.host.process_exited(process),
            ],
            [4, 1, 2],
        )[0]

    async def bind_and_submit(self, device: str, process: int) -> None:
        """Bind a process and submit its work."""
        pasid = await self.host.sva_bind(device, process)
        transfer = await self.host.sva_submit(device, pasid, process)
        self.flying[device, transfer] = f"process {process}"

    def complete(self) -> Call | None:
        """The hardware completes some transfer."""
        flying = [(d, t) for d, vdcm in self.host.devices.items() for t in vdcm.device.transfers]
        if not flying:
            return None
        device, transfer = self.rng.choice(flying)
        return lambda: self.land(device, transfer)

    async def land(self, device: str, transfer: int) -> None:
        """Complete a transfer: it lands where it has to, or faults."""
        try:
            landed = await self.host.complete(device, transfer)
        except DmaFault:
            self.faults += 1
            return
        assert self.flying[device, transfer] == landed.owner
        self.landed += 1

    def start(self) -> Call | None:
        """A VM starts; there is room for three."""
        return self.start_vm if len(self.host.vms) < 3 else None

    async def start_vm(self) -> None:
        """Start a VM under a name that none had before, so that its memory is known by it."""
        self.vms.append(await self.host.start_vm(f"vm-{next(self.numbers)}", quota=3))

    def crash_vm(self) -> Call | None:
        """A VM crashes."""
        if self.vms:
            self.vms.pop(self.rng.randrange(len(self.vms))).crash()
        return None

    def crash(self) -> Call | None:
        """An actor crashes, or the operator evicts it."""
        actor = self.rng.choice(
            [
                self.host.vtd,
                *self.host.devices.values(),
                *(vm.kvm for vm in self.host.vms.values()),
                *(vm.vfio for vm in self.host.vms.values()),
            ]
        )
        if self.evictions and self.rng.random() < 0.5:
            return lambda: self.host.allocator.evict(actor.holder)
        actor.crash()
        return None

    async def end(self) -> None:
        """Everybody leaves, and everything in flight completes."""
        for vm in self.vms:
            vm.crash()
        for process in PROCESSES:
            await sure(lambda process=process: self.host.process_exited(process))  # type: ignore[misc]
        await settle()
        while (call := self.complete()) is not None:
            await sure(call, UnknownTransfer)
            await settle()
        for process in PROCESSES:
            await sure(lambda process=process: self.host.process_exited(process))  # type: ignore[misc]
        for vm in tuple(self.host.vms.values()):
            await vm.close()
        await nothing_is_left(self.host)


async def play(seed: int, *, evictions: bool) -> History:
    """Play the history of a seed to its end."""
    async with (
        open_host(
            capacity=24, system_quota=SYSTEM_QUOTA, max_restarts=10_000, restart_wait=0
        ) as host,
        create_task_group() as tasks,
    ):
        history = History(host, tasks, random.Random(seed), evictions)
        await history.run()
    return history


@pytest.mark.parametrize("seed", range(6))
async def test_dma_lands_with_its_owner_or_faults(seed: int) -> None:
    """However guests and actors crash, DMA lands with its owner, and everything is reclaimed."""
    history = await play(seed, evictions=False)
    assert 10 <= history.landed


@pytest.mark.parametrize("seed", range(6))
async def test_dma_lands_with_its_owner_or_faults_whoever_is_evicted(seed: int) -> None:
    """The same while the operator evicts actors that are alive, with their DMA in flight."""
    history = await play(seed, evictions=True)
    assert 10 <= history.landed
