"""Two coordinators, a guest that does DMA, and faults everywhere: what has to hold nevertheless.

    python -m tests.fleet.races --runs 1000

A run is one schedule: two coordinators move, finish and abort as they please, with up to eight
faults between them at any of the points of `tests.fleet.worlds`; meanwhile the guest programs
devices and submits work wherever it is let. Then somebody finishes what is left. In no run does
DMA of the VM run on two hosts, is an ID left over, or differ spids or data; and the VM runs.

`--without` takes away what the protocol rests on, and then runs fail.
"""

import argparse
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from random import Random

from anyio import create_task_group, sleep
from anyio.lowlevel import checkpoint
from attrs import define, frozen

from ioasid.actors import VmExport
from ioasid.core import IoasidError
from ioasid.fleet import Act, Command, HostAgent, HostUnreachable, Phase
from ioasid.testing import ScheduleFailed, choose, explore
from tests.fleet.worlds import (
    DEVICE,
    GPASIDS,
    VM,
    CoordinatorDied,
    Faults,
    Line,
    Some,
    World,
    open_world,
)

FAULTS = (8, 0)
"""How many there are in a run, at most."""
TIMES = (3, 1)
"""How often a coordinator does something."""
LONGEST = 400
"""Seconds of virtual time after which nothing completes any more: who still waits is stuck."""
LATENCIES = (0, 0, 1, 256)
"""How many steps of the event loop the store may take to answer."""


async def act(world: World, faults: Faults, times: int) -> None:
    """Move, finish and abort, as a coordinator that may die and be started again."""
    for _ in range(times):
        for _ in range(choose((0, 20, 200))):
            await checkpoint()
        coordinator = world.coordinator(faults)
        try:
            match choose(("move", "move", "finish", "abort")):
                case "move":
                    await coordinator.move(VM, choose(("b", "a")))
                case "finish":
                    await coordinator.finish(VM)
                case _:
                    await coordinator.abort(VM)
        except (IoasidError, CoordinatorDied):
            pass


async def work(world: World) -> None:
    """Submit DMA wherever the guest is let: at a host that runs it."""
    for _ in range(LONGEST // 4):
        for host in world.hosts.values():
            vm = host.vms.get(VM)
            if vm is None:
                continue
            for call in (vm.program, vm.submit):
                try:
                    await call(DEVICE, GPASIDS[0])
                except IoasidError:
                    pass
        await sleep(choose((1, 2)))


async def complete(world: World) -> None:
    """Complete what is in flight, when nothing else goes on."""
    for _ in range(LONGEST):
        await sleep(1)
        for host in world.hosts.values():
            for transfer in tuple(host.device(DEVICE).device.transfers):
                try:
                    await host.complete(DEVICE, transfer)
                except IoasidError:
                    # Somebody ended it with its VM.
                    pass


async def race(world: World, faults: Faults, times: int) -> None:
    """Two coordinators act beside a guest; then one ends what is left, and all is well."""
    async with create_task_group() as beside:
        beside.start_soon(work, world)
        beside.start_soon(complete, world)
        async with create_task_group() as tasks:
            tasks.start_soon(act, world, faults, times)
            tasks.start_soon(act, world, faults, times)
        record = await world.coordinator().finish(VM)
        assert Phase.OWNED is record.phase
        beside.cancel_scope.cancel()
    for name, host in world.hosts.items():
        for transfer in tuple(host.device(DEVICE).device.transfers):
            assert record.host == name, "DMA goes on where the VM does not run"
            await host.complete(DEVICE, transfer)
    assert record.host == await world.check()


async def nothing(world: World) -> None:
    """Take nothing away."""


class Careless(HostAgent):
    """Carries out whatever comes, however old it is."""

    async def _refuse_stale(self, command: Command) -> None:
        pass


class Hasty(HostAgent):
    """Looks at a record and acts on it while others do."""

    async def carry_out(self, command: Command) -> VmExport | None:
        await self._refuse_stale(command)
        return await self._act(command)


@define(eq=False)
class Undertaker(Line):
    """Takes a host whose agent does not answer for one that is dead, with its hardware."""

    dead: bool = False

    async def carry_out(self, command: Command) -> VmExport | None:
        if not self.dead:
            try:
                return await Line.carry_out(self, command)
            except HostUnreachable:
                self.dead = True
        match command.act:
            case Act.FREEZE | Act.EXPORT:
                return self.world.known
            case Act.LEAVE:
                return None
            case _:
                raise HostUnreachable(self.host)


async def no_fence(world: World) -> None:
    """Let agents carry out old commands."""
    for name, host in world.hosts.items():
        world.agents[name] = Careless(name, world.store, host)


async def no_lock(world: World) -> None:
    """Let agents carry out several commands of a VM at a time."""
    for name, host in world.hosts.items():
        world.agents[name] = Hasty(name, world.store, host)


async def lease_is_death(world: World) -> None:
    """Let coordinators take a host that says nothing for dead; they know what ran there."""
    vm = world.hosts["a"].vms[VM]
    await vm.freeze()
    world.known = await vm.export()
    await vm.run()
    world.line = Undertaker


@frozen
class Racing:
    """A scenario of a world in which something is taken away."""

    weaken: Callable[[World], Awaitable[None]] = nothing
    faults: tuple[int, ...] = FAULTS
    times: tuple[int, ...] = TIMES

    async def __call__(self) -> None:
        faults = Some(Random(choose(range(1000))), choose(self.faults))
        async with open_world(lambda: choose(LATENCIES)) as world:
            await self.weaken(world)
            await race(world, faults, choose(self.times))
            for host in world.hosts.values():
                for vm in tuple(host.vms.values()):
                    await vm.close()


WITHOUT = {
    "the fence": Racing(no_fence, (8,), (3,)),
    "the lock": Racing(no_lock, (0,), (1,)),
    "doubt about the dead": Racing(lease_is_death, (8,), (3,)),
}
"""Races that fail soon: without the lock it is one that nothing mends afterwards."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.races")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--without", choices=WITHOUT, help="what to take away")
    options = parser.parse_args(arguments)
    scenario = WITHOUT.get(options.without, Racing())
    seeds = range(options.first, options.first + options.runs)
    begin = time.perf_counter()
    with ProcessPoolExecutor(options.jobs) as pool:
        try:
            explored = explore(scenario, seeds, executor=pool, chunk=10)
        except ScheduleFailed as failure:
            print(failure)
            return 1
    seconds = time.perf_counter() - begin
    print(
        f"{explored.schedules:,} races, {explored.distinct:,} of them different, "
        f"{explored.requests:,} requests, in {seconds:.0f} s: none failed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
