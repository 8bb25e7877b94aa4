"""Hosts, agents and a store in memory, with faults at every point of what they do.

A move is a row of steps: a command that a host carries out, or a record that is written. Where a
step can go wrong, and by whose fault, is a point, such as "source applied IMPORT":

- the coordinator dies before it, when it has sent it, and when it is answered;
- a host's agent is not reached before it, dies in the middle of it (applied, in part), and dies
  when it is done, so that nobody is answered;
- the store is gone before it, and when what was written has persisted.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random

from anyio import CancelScope, create_task_group, wait_all_tasks_blocked
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import define, field

from ioasid.actors import AlreadyProgrammed, Decision, Host, Step, VmExport, open_host
from ioasid.core import IoasidError, SetState, UnknownToken
from ioasid.fleet import (
    Agent,
    Changed,
    Command,
    Coordinator,
    Found,
    HostAgent,
    HostUnreachable,
    Lease,
    MemoryStore,
    RecordTooLarge,
    Store,
    StoreUnavailable,
    decode_record,
)

VM = "vm-1"
DEVICE = "dsa0"
HOSTS = ("a", "b")
GPASIDS = (100, 101)


class CoordinatorDied(Exception):
    """The coordinator ended where it was."""


class Faults:
    """What goes wrong, and where; nothing unless told."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        """The points that were passed."""
        self.depth = 1
        """How many steps of the event loop an agent goes into what it dies in."""

    def happens(self, point: str) -> bool:
        """Whether it goes wrong here."""
        self.passed.append(point)
        return False


class One(Faults):
    """One fault, at the n-th point that is passed, from 1 on."""

    def __init__(self, at: int, depth: int) -> None:
        super().__init__()
        self.at = at
        self.depth = depth

    def happens(self, point: str) -> bool:
        """Whether it goes wrong here."""
        self.passed.append(point)
        return len(self.passed) == self.at


class Some(Faults):
    """Faults here and there, so many at most."""

    def __init__(self, random: Random, most: int, one_in: int = 6) -> None:
        super().__init__()
        self._random = random
        self._left = most
        self._one_in = one_in

    def happens(self, point: str) -> bool:
        """Whether it goes wrong here."""
        self.passed.append(point)
        # What comes late, from a coordinator that is dead, is the hardest.
        one_in = self._one_in // 2 if " sent " in point else self._one_in
        happens = self._left > 0 and not self._random.randrange(one_in)
        if happens:
            self._left -= 1
            self.depth = self._random.choice((1, 8, 64, 512, 2048))
        return happens


@define(eq=False)
class SlowStore(MemoryStore):
    """A store whose answers take agents a while, as over a network: steps of the event loop."""

    latency: Callable[[], int] = field(default=lambda: 0, kw_only=True)

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        answer = await MemoryStore.get(self, prefix)
        for _ in range(self.latency()):
            await checkpoint()
        return answer


@define(eq=False)
class FaultyStore:
    """A store that may be gone before or after it did what it was asked."""

    world: "World"
    faults: Faults

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        if self.faults.happens("store before get"):
            raise StoreUnavailable("gone")
        return await MemoryStore.get(self.world.store, prefix)

    async def txn(
        self,
        compare: Mapping[str, int],
        write: Mapping[str, bytes | None],
        lease: Lease | None = None,
    ) -> int | None:
        (value,) = write.values()
        assert value is not None
        phase = decode_record(value).phase
        if self.faults.happens(f"coordinator before {phase}"):
            raise CoordinatorDied
        if self.faults.happens(f"store before {phase}"):
            raise StoreUnavailable("gone")
        answer = await self.world.store.txn(compare, write, lease)
        if self.faults.happens(f"store persisted {phase}"):
            raise StoreUnavailable("gone")
        if self.faults.happens(f"coordinator answered {phase}"):
            raise CoordinatorDied
        return answer

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        return self.world.store.watch(prefix, start)

    async def lease(self, seconds: int) -> Lease:
        return await self.world.store.lease(seconds)


@define(eq=False)
class SmallStore:
    """A store that takes no record, or answer, with an export: it does not fit."""

    world: "World"

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        return await self.world.store.get(prefix)

    async def txn(
        self,
        compare: Mapping[str, int],
        write: Mapping[str, bytes | None],
        lease: Lease | None = None,
    ) -> int | None:
        if any(each and b"VmExport" in each for each in write.values()):
            raise RecordTooLarge("so much")
        return await self.world.store.txn(compare, write, lease)

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        return self.world.store.watch(prefix, start)

    async def lease(self, seconds: int) -> Lease:
        return await self.world.store.lease(seconds)


@define(eq=False)
class Line:
    """A line to the agent of a host, at both ends of which something may die."""

    world: "World"
    host: str
    faults: Faults

    async def carry_out(self, command: Command) -> VmExport | None:
        world, faults, act = self.world, self.faults, command.act
        # By the record, and not by the name: a VM may go either way.
        side = "target" if act in ("IMPORT", "ACTIVATE", "DISCARD") else "source"
        if faults.happens(f"coordinator before {act}"):
            raise CoordinatorDied
        if faults.happens(f"{side} before {act}"):
            raise HostUnreachable(self.host)
        if faults.happens(f"coordinator sent {act}"):
            world.tasks.start_soon(self._deliver_late, command)
            raise CoordinatorDied
        if faults.happens(f"{side} applied {act}"):
            await self._die_within(command, min(faults.depth, 64))
            raise HostUnreachable(self.host)
        answer = await world.tell(self.host, command)
        if faults.happens(f"{side} done {act}"):
            world.restart_agent(self.host)
            raise HostUnreachable(self.host)
        if faults.happens(f"coordinator answered {act}"):
            raise CoordinatorDied
        return answer

    async def _deliver_late(self, command: Command) -> None:
        for _ in range(self.faults.depth):
            await checkpoint()
        try:
            await self.world.tell(self.host, command)
        except (IoasidError, HostUnreachable):
            pass

    async def _die_within(self, command: Command, depth: int) -> None:
        async with create_task_group() as tasks:

            async def die() -> None:
                for _ in range(depth):
                    await checkpoint()
                self.world.restart_agent(self.host)

            tasks.start_soon(die)
            try:
                await self.world.tell(self.host, command)
            except (IoasidError, HostUnreachable):
                pass


@define(eq=False)
class World:
    """Two hosts, and a VM that runs on the first."""

    hosts: dict[str, Host]
    store: MemoryStore
    agents: dict[str, Agent]
    tasks: TaskGroup
    wrong: list[str] = field(factory=list)
    """What must never be, and was seen."""
    line: type[Line] = Line
    known: VmExport | None = None
    """What a coordinator remembers of the VM, if it does."""
    under_way: dict[str, set[CancelScope]] = field(factory=lambda: {each: set() for each in HOSTS})

    def coordinator(self, faults: Faults | None = None) -> Coordinator:
        """A coordinator whose calls may go wrong."""
        faults = Faults() if faults is None else faults
        lines = {name: self.line(self, name, faults) for name in self.hosts}
        return Coordinator(FaultyStore(self, faults), lines.__getitem__)

    async def tell(self, host: str, command: Command) -> VmExport | None:
        """Let the agent of a host carry out a command, until it ends or the agent does."""
        with CancelScope() as scope:
            self.under_way[host].add(scope)
            try:
                return await self.agents[host].carry_out(command)
            finally:
                self.under_way[host].discard(scope)
        raise HostUnreachable(host)

    def restart_agent(self, host: str) -> None:
        """End an agent in the middle of all that it does; another one takes its place."""
        for scope in self.under_way[host]:
            scope.cancel()
        before = self.agents[host]
        assert isinstance(before, HostAgent)
        self.agents[host] = type(before)(host, before.store, self.hosts[host])

    def look(self, _: Decision | Step | None = None) -> None:
        """Note it if the VM does DMA on two hosts, or runs on both."""
        running = [
            name
            for name, host in self.hosts.items()
            if DEVICE in host.devices and host.device(DEVICE).device.transfers
        ]
        if len(running) > 1:
            self.wrong.append("DMA of one VM runs on two hosts")

    async def states(self) -> dict[str, SetState]:
        """The state of the VM's set, by host."""
        found = {}
        for name, host in self.hosts.items():
            try:
                found[name] = (await host.allocator.find_set(VM)).state
            except UnknownToken:
                pass
        return found

    async def check(self, store: Store | None = None) -> str:
        """Assert that the VM runs whole on one host, and is nowhere else; returns which."""
        await wait_all_tasks_blocked()  # What drains at the host that it left is gone.
        assert not self.wrong, self.wrong[0]
        coordinator = Coordinator(store or self.store, self.agents.__getitem__)
        record = await coordinator.where(VM)
        assert {record.host: SetState.ACTIVE} == await self.states()
        vm = self.hosts[record.host].vms[VM]
        listed = list(await self.hosts[record.host].allocator.list_set(vm.sid))
        assert [(each, f"data of {each}") for each in GPASIDS] == sorted(
            (each.spid, each.data) for each in listed
        )
        assert {each.spid: each.ioasid for each in listed} == dict(vm.kvm.table)
        for gpasid in GPASIDS:
            try:
                await vm.program(DEVICE, gpasid)
            except AlreadyProgrammed:
                # It was never frozen, or this is not the first look.
                pass
            transfer = await vm.submit(DEVICE, gpasid)
            landed = await self.hosts[record.host].complete(DEVICE, transfer)
            assert VM == landed.owner
        for name, host in self.hosts.items():
            figures = await host.allocator.statistics()
            here = len(GPASIDS) * (name == record.host)
            assert (here, 0) == (figures.active, figures.free_pending)
            if name != record.host:
                assert {} == host.vtd.iommu.programmed()
        return record.host


@asynccontextmanager
async def open_world(latency: Callable[[], int] = lambda: 0) -> AsyncIterator[World]:
    """Open two hosts, of which one runs a VM."""
    looks: list[World] = []

    def look(seen: Decision | Step) -> None:
        for each in looks:
            each.look(seen)

    async with (
        open_host(capacity=16, system_quota=1, taps=[look]) as a,
        open_host(capacity=64, system_quota=1, taps=[look]) as b,
        create_task_group() as tasks,
    ):
        store = SlowStore(latency=latency)
        hosts = {"a": a, "b": b}
        for host in hosts.values():
            await host.add_device(DEVICE)
        agents: dict[str, Agent] = {
            name: HostAgent(name, store, host) for name, host in hosts.items()
        }
        vm = await a.start_vm(VM, quota=4)
        for gpasid in GPASIDS:
            pasid = await vm.alloc()
            await vm.bind(DEVICE, pasid, gpasid)
            await a.allocator.attach_data(pasid, f"data of {gpasid}")
        world = World(hosts, store, agents, tasks)
        looks.append(world)
        await world.coordinator().own(VM, "a")
        yield world
        tasks.cancel_scope.cancel()
