"""What the tests of the device actors share: a witness of what happens, and what must be left."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.actors import ActorCrashed, Decision, Host, Step, Vm, open_host
from ioasid.core import (
    Deliver,
    Event,
    EventKind,
    Ioasid,
    IoasidError,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Message,
    Priority,
    Resync,
    Subscribed,
    UnknownIoasid,
)
from tests.actors.inside import core_of
from tests.core.invariants import check_state

T = TypeVar("T")
Call: TypeAlias = Callable[[], Awaitable[object]]

QUOTA = 8
SYSTEM_QUOTA = 4
CAPACITY = 64


class Planted(Exception):
    """What an actor crashes with where a test plants a fault."""


class Witness:
    """Watches a host: every step and decision in order, the references of every ID.

    `fault` is asked at every step whether the actor is to crash there.
    """

    def __init__(self, fault: Callable[[Step], bool] = lambda _: False) -> None:
        self._fault = fault
        self.seen: list[Decision | Step] = []
        self.counts: dict[int, list[int]] = {}
        """The reference count of every ID, each time that it changed, over all its lives."""
        self._holders: dict[int, str] = {}
        """By subscription."""

    def __call__(self, seen: Decision | Step) -> None:
        """Note it: a tap."""
        self.seen.append(seen)
        if isinstance(seen, Step):
            return
        if isinstance(seen.answer, Subscribed):
            self._holders[seen.answer.subscription] = seen.holder
        changes = seen.changes
        now = {ioasid: 1 for each in changes.allocated for ioasid in every(each)}
        now |= {each.ioasid: each.reference_count for each in changes.ioasids}
        now |= {ioasid: 0 for each in changes.reclaimed for ioasid in every(each)}
        for ioasid, count in now.items():
            counts = self.counts.setdefault(ioasid, [])
            if not counts or counts[-1] != count:
                counts.append(count)

    def crash(self, step: Step) -> None:
        """Crash the actor if it is to crash here: a fault."""
        if self._fault(step):
            raise Planted(step.actor)

    def steps(self, *kinds: type[Message]) -> list[tuple[str, Message]]:
        """The steps of these kinds, in order, with the actor of each."""
        return [
            (each.actor, each.message)
            for each in self.seen
            if isinstance(each, Step) and isinstance(each.message, kinds)
        ]

    def done_by(self, actor: str, *kinds: type[Message]) -> list[Message]:
        """What an actor did of these kinds, in order: its steps, and its requests when decided."""
        done = [
            (each.actor, each.message) if isinstance(each, Step) else (each.holder, each.request)
            for each in self.seen
        ]
        return [message for who, message in done if who == actor and isinstance(message, kinds)]

    def told(self, kind: EventKind, ioasid: int) -> list[str]:
        """Who was told that this happened to the ID, in order."""
        return [
            self._holders[number]
            for each in self.seen
            if isinstance(each, Decision)
            for number, message in deliveries(each)
            if isinstance(message, Event) and (message.kind, message.ioasid) == (kind, ioasid)
        ]

    def told_by(self, decision: Decision) -> list[str]:
        """Who was told of something by this decision, which was seen, once for each message."""
        return [self._holders[number] for number, _ in deliveries(decision)]

    def resyncs(self, actor: str) -> int:
        """How many Resyncs an actor took up."""
        return sum(each[0] == actor for each in self.steps(Resync))


def deliveries(decision: Decision) -> list[tuple[int, Event | Resync]]:
    """What a decision told each subscription, in order."""
    return [
        (number, effect.message)
        for effect in decision.effects
        if isinstance(effect, Deliver)
        for number in effect.subscriptions
    ]


def every(ioasids: IoasidRange) -> range:
    """The IDs of a range."""
    return range(ioasids.first, ioasids.last + 1)


def fault_at(actor: str, kind: type[Message], times: int = 1) -> Callable[[Step], bool]:
    """A fault for a `Witness`: the actor crashes the first times it takes up or reports this."""
    left = times

    def fault(step: Step) -> bool:
        nonlocal left
        if left and step.actor == actor and isinstance(step.message, kind):
            left -= 1
            return True
        return False

    return fault


async def settle() -> None:
    """Wait until every task waits."""
    # On asyncio, `wait_all_tasks_blocked` sleeps between its looks; most is over before the first.
    for _ in range(100):
        await checkpoint()
    await anyio.wait_all_tasks_blocked()


@asynccontextmanager
async def a_host(
    witness: Witness | None = None, *, max_restarts: int = 3, capacity: int = CAPACITY
) -> AsyncIterator[tuple[Host, Vm]]:
    """Open a host with the devices "dsa0" and "dsa1" and the VM "vm-1"."""
    async with open_host(
        capacity=capacity,
        system_quota=SYSTEM_QUOTA,
        taps=() if witness is None else [witness],
        fault=None if witness is None else witness.crash,
        max_restarts=max_restarts,
        restart_wait=0,
    ) as host:
        await host.add_device("dsa0")
        await host.add_device("dsa1")
        vm = await host.start_vm("vm-1", quota=QUOTA)
        yield host, vm


async def dma_in_flight(host: Host, vm: Vm, gpasid: int = 101) -> tuple[Ioasid, int]:
    """Let a VM use a new ID on "dsa0"; returns the ID and the transfer in flight."""
    pasid = await vm.alloc()
    await vm.bind("dsa0", pasid, gpasid)
    assert pasid == await vm.program("dsa0", gpasid)
    return pasid, await vm.submit("dsa0", gpasid)


async def count(host: Host, pasid: int) -> int:
    """The reference count of an ID, 0 when it is reclaimed."""
    try:
        return (await host.allocator.find(pasid)).reference_count
    except UnknownIoasid:
        return 0


async def record_of(host: Host, pasid: int) -> IoasidRecord | None:
    """The record of an ID, `None` when it is reclaimed."""
    try:
        return await host.allocator.find(pasid)
    except UnknownIoasid:
        return None


async def is_quarantined(host: Host, pasid: int) -> bool:
    """Whether an ID was freed and is not reclaimed."""
    record = await record_of(host, pasid)
    return record is not None and record.state is IoasidState.FREE_PENDING


async def sure(call: Callable[[], Awaitable[T]], *done: type[IoasidError]) -> T | None:
    """Ask until nobody crashes over it; errors of the kinds `done` say that it was done before."""
    while True:
        try:
            return await call()
        except ActorCrashed:
            continue
        except done:
            return None


@asynccontextmanager
async def stuck_at(host: Host, priority: Priority) -> AsyncIterator[None]:
    """Keep the events of every ID from passing a tier, while the scope lasts."""
    async with (
        host.allocator.session("stuck") as session,
        session.subscribe(
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE}, priority=priority
        ) as events,
        anyio.create_task_group() as tasks,
    ):

        async def keep_all() -> None:
            async for each in events:
                events.defer(each)

        tasks.start_soon(keep_all)
        yield
        tasks.cancel_scope.cancel()


class Asked:
    """What asks in the background came to: an answer or the type of an error, by name."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self.came_to: dict[str, object] = {}

    async def ask(self, name: str, call: Call) -> None:
        """Ask in a task of its own, and return when everybody waits."""
        self._tasks.start_soon(self.note, name, call)
        await settle()

    async def note(self, name: str, call: Call) -> None:
        """Ask, and note what it comes to."""
        try:
            self.came_to[name] = await call()
        except IoasidError as error:
            self.came_to[name] = type(error)


async def check_host(host: Host) -> None:
    """Assert what has to hold at any quiet moment: who may reach an ID, references it."""
    check_state(core_of(host.allocator))
    iommu = host.vtd.iommu
    expected: dict[int, dict[str, int]] = {}
    for ioasid in iommu.programmed():
        expected.setdefault(ioasid, {})["vtd"] = 1
    for vdcm in host.devices.values():
        for ioasid in vdcm.device.contexts:
            expected.setdefault(ioasid, {})[vdcm.holder] = 1
    for vm in host.vms.values():
        for ioasid in vm.kvm.table.values():
            expected.setdefault(ioasid, {})[vm.kvm.holder] = 1
    found = {}
    for owner in (0, *(vm.sid for vm in host.vms.values())):
        for each in await host.allocator.list_set(owner):
            references = (await host.allocator.find(each.ioasid)).references
            if references:
                found[each.ioasid] = references
    assert expected == found


async def nothing_is_left(host: Host) -> None:
    """Assert that no VM, ID, entry, context, transfer, reference or suspended holder is left."""
    await settle()
    check_state(core_of(host.allocator))
    figures = await host.allocator.statistics()
    assert {} == host.vms
    assert (0, 0, 1) == (figures.active, figures.free_pending, figures.sets)
    assert figures.capacity - figures.reserved - SYSTEM_QUOTA == figures.available
    assert (0, ()) == (figures.suspended, figures.lagging)
    assert {each: {} for each in host.devices} == host.vtd.iommu.tables
    for vdcm in host.devices.values():
        assert ({}, {}) == (vdcm.device.contexts, vdcm.device.transfers)
