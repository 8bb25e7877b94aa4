"""A VM moves from one host to another while it does DMA, and its coordinator dies on the way.

Two agents, each a process, and an etcd on loopback; the coordinator is killed (SIGKILL). Both hosts
are drawn beside each other on a page. Without an etcd, or with one of the options below that need
it so, the same is told of two hosts in one process, with a store in memory.

    python demos/migrate.py [--dies-after ACT] [--page FILE]
    python demos/migrate.py --one-process [--dies-after ACT] [--backend asyncio|trio]
        [--record FILE]
"""

import argparse
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from attrs import define

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos import migrate_fleet
from demos.terminal import console, end_with_the_pipe
from ioasid.actors import Host, VmExport, open_host
from ioasid.core import IoasidError, SetState, UnknownToken
from ioasid.fleet import Act, Command, Coordinator, HostAgent, HostUnreachable, MemoryStore
from ioasid.recorder import record

VM: Final = "vm-1"
DEVICE: Final = "dsa0"
GPASIDS: Final = tuple(range(101, 109))
HOSTS: Final = ("left", "right")


@define(eq=False)
class Line:
    """The line from a coordinator to an agent; it breaks after the act that it is told to."""

    agent: HostAgent
    breaks_after: Act | None = None

    async def carry_out(self, command: Command) -> VmExport | None:
        answer = await self.agent.carry_out(command)
        if command.act is self.breaks_after:
            raise HostUnreachable(self.agent.name)
        return answer


@define(eq=False)
class Fleet:
    """Two hosts, their agents and the store that they share."""

    hosts: dict[str, Host]
    agents: dict[str, HostAgent]
    store: MemoryStore
    rows: list[tuple[str, ...]]

    def coordinator(self, dies_after: Act | None = None) -> Coordinator:
        """A coordinator, which may lose its lines after an act, as if it had died there."""
        lines = {name: Line(agent, dies_after) for name, agent in self.agents.items()}
        return Coordinator(self.store, lines.__getitem__)

    async def show(self, what: str) -> None:
        """Add a row: the record, and what each host has of the VM."""
        record = await self.coordinator().where(VM)
        row = [what, f"{record.phase} at {record.host}, epoch {record.epoch}"]
        running = 0
        for name in HOSTS:
            host = self.hosts[name]
            try:
                state: SetState | None = (await host.allocator.find_set(VM)).state
            except UnknownToken:
                state = None
            vm = host.vms.get(VM)
            table = {} if vm is None else vm.kvm.table
            transfers = len(host.device(DEVICE).device.transfers)
            running += bool(transfers)
            mapped = (
                "" if not table else f", {ranged(tuple(table))} → {ranged(tuple(table.values()))}"
            )
            flying = f", {transfers} DMA" if transfers else ""
            row.append("—" if state is None else f"{state}{mapped}{flying}")
        if running > 1:
            raise AssertionError("DMA of one VM runs on two hosts")
        self.rows.append(tuple(row))


def ranged(numbers: tuple[int, ...]) -> str:
    """Numbers in a row, in short."""
    found = sorted(numbers)
    return str(found[0]) if len(found) == 1 else f"{found[0]}..{found[-1]}"


@asynccontextmanager
async def open_fleet() -> AsyncIterator[Fleet]:
    """Open the hosts; the right one has another VM, so that PASIDs differ."""
    async with open_host() as left, open_host() as right:
        hosts = dict(zip(HOSTS, (left, right), strict=True))
        for host in hosts.values():
            await host.add_device(DEVICE)
        other = await right.start_vm("vm-2", quota=20)
        for gpasid in range(20):
            await other.bind(DEVICE, await other.alloc(), gpasid)
        store = MemoryStore()
        agents = {name: HostAgent(name, store, host) for name, host in hosts.items()}
        yield Fleet(hosts, agents, store, [])


async def submit(host: Host) -> list[int]:
    """Let the guest program its PASIDs and submit work with each; returns the transfers."""
    vm = host.vms[VM]
    transfers = []
    for gpasid in GPASIDS:
        await vm.program(DEVICE, gpasid)
        transfers.append(await vm.submit(DEVICE, gpasid))
    return transfers


async def land(host: Host, transfers: list[int]) -> None:
    """Let transfers complete: all of them write into the VM's memory."""
    for transfer in transfers:
        landed = await host.complete(DEVICE, transfer)
        if landed.owner != VM:
            raise AssertionError(f"DMA of {VM} wrote into the memory of {landed.owner}")


async def tell(dies_after: Act) -> list[tuple[str, ...]]:
    """Tell the story, and return its rows."""
    async with open_fleet() as fleet:
        left, right = (fleet.hosts[name] for name in HOSTS)
        vm = await left.start_vm(VM, quota=len(GPASIDS))
        for gpasid in GPASIDS:
            await vm.bind(DEVICE, await vm.alloc(), gpasid)
        await fleet.coordinator().own(VM, "left")
        transfers = await submit(left)
        await fleet.show("the guest runs, with DMA in flight")

        async def move() -> None:
            try:
                await fleet.coordinator(dies_after).move(VM, "right")
            except HostUnreachable:
                return
            raise AssertionError("the coordinator was to die")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(move)
            await anyio.wait_all_tasks_blocked()
            await fleet.show("a coordinator moves it: the freeze waits for the DMA")
            try:
                await vm.submit(DEVICE, GPASIDS[0])
            except IoasidError as error:
                await fleet.show(f"the guest submits: {error.code}")
            await land(left, transfers)
        await anyio.wait_all_tasks_blocked()
        await fleet.show(f"the coordinator died after {dies_after}")
        await fleet.coordinator().finish(VM)
        await anyio.wait_all_tasks_blocked()
        await fleet.show("another coordinator finished the move")
        transfers = await submit(right)
        await fleet.show("the guest runs on, by the same numbers")
        await land(right, transfers)
        if tuple(right.vms[VM].kvm.table) != GPASIDS:
            raise AssertionError("the guest's numbers changed")
        await fleet.show("its DMA landed in its memory")
        return fleet.rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="migrate", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--dies-after", type=Act, default=Act.IMPORT, choices=list(Act)[:5])
    parser.add_argument("--page", default="build/migrate.html", type=Path, help="where to draw it")
    parser.add_argument("--one-process", action="store_true", help="without processes and an etcd")
    parser.add_argument("--backend", choices=("asyncio", "trio"))
    parser.add_argument("--record", metavar="FILE", help="write all that happens into a file")
    options = parser.parse_args(arguments)
    out = console()
    out.print(
        "A VM with eight PASIDs moves to another host. The guest's numbers, 101 to 108, stay; the "
        "host's change. A record, which both hosts look at, decides where it may run: "
        "whoever moves it may die at any moment, and anybody else can go on."
    )
    alone = options.one_process or options.backend is not None or options.record is not None
    missing = None if alone else migrate_fleet.missing()
    if missing is not None:
        out.print(f"\nThere is {missing}: this is all in one process, with a store in memory.")
    if not alone and missing is None:
        told = anyio.run(migrate_fleet.tell, options.dies_after, options.page)
        for what, how in told:
            out.print(f"\n{what}", style="bold")
            out.print(f"  {how}")
        out.print(f"\nBoth hosts, side by side: {options.page}")
        return 0
    with ExitStack() as stack:
        if options.record is not None:
            try:
                stack.enter_context(record(options.record))
            except OSError as error:
                parser.error(str(error))
        rows = anyio.run(tell, options.dies_after, backend=options.backend or "asyncio")
    for what, decided, *has in rows:
        out.print(f"\n{what}", style="bold")
        out.print(f"  the record  {decided}")
        for name, each in zip(HOSTS, has, strict=True):
            out.print(f"  host {name:<6} {each}")
    return 0


if __name__ == "__main__":
    end_with_the_pipe()
    sys.exit(main())
