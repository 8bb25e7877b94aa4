"""The shipped scenarios: what goes wrong on real hosts, small enough for thousands of schedules.

Each asserts at its end what has to be true under every schedule; the invariants are checked on
the way by whoever explores it.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio

from ioasid.actors import (
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    Decision,
    Host,
    ProgramPasid,
    Session,
    Step,
    UnknownTransfer,
    Vm,
    open_allocator,
    open_host,
)
from ioasid.core import (
    AllocatorClosed,
    CapacityExhausted,
    Event,
    EventKind,
    IoasidError,
    IoasidState,
    Priority,
    QuotaBelowUse,
    QuotaExceeded,
    Resync,
    SetFreePending,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.testing._picker import choose

__all__ = ["SCENARIOS"]

T = TypeVar("T")

DEVICE: Final = "dsa0"
GPASID: Final = 101
BINDINGS: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


async def guest_crashes_with_dma_in_flight() -> None:
    """A guest dies with DMA under way while its neighbour asks for a PASID."""
    async with open_host(capacity=3, system_quota=1) as host:
        await host.add_device(DEVICE)
        guest = await host.start_vm("vm-1", quota=1)
        neighbour = await host.start_vm("vm-2", quota=1)
        pasid = await guest.alloc()
        await guest.bind(DEVICE, pasid, GPASID)
        await guest.program(DEVICE, GPASID)
        transfer = await guest.submit(DEVICE, GPASID)
        landed: list[str] = []
        given: list[int] = []

        async def complete() -> None:
            landed.append((await host.complete(DEVICE, transfer)).owner)

        async def ask() -> None:
            given.append(await neighbour.alloc(max=pasid + 1))
            in_flight = transfer in host.device(DEVICE).device.transfers
            assert given[0] != pasid or not in_flight, "handed out while DMA was in flight"

        async def unbind_late() -> None:
            try:
                await guest.unbind(DEVICE, pasid)
            except (IoasidError, ActorCrashed):
                pass

        guest.crash()
        async with anyio.create_task_group() as tasks:
            for each in (complete, ask, unbind_late):
                tasks.start_soon(each)
            await guest.gone()
        assert landed == ["vm-1"], "DMA in flight wrote into somebody else's memory"
        await neighbour.close()
        await _host_is_empty(host)


async def two_vms_share_a_device() -> None:
    """Two guests use the same guest PASID on one device, from allocation to free."""
    async with open_host(capacity=4, system_quota=1) as host:
        await host.add_device(DEVICE)

        async def live(name: str) -> None:
            vm = await host.start_vm(name, quota=1)
            pasid = await vm.alloc()
            await vm.bind(DEVICE, pasid, GPASID)
            assert pasid == await vm.program(DEVICE, GPASID)
            transfer = await vm.submit(DEVICE, GPASID)
            landed = await host.complete(DEVICE, transfer)
            assert (landed.owner, landed.ioasid) == (name, pasid)
            await vm.stop(DEVICE, pasid)
            await vm.unbind(DEVICE, pasid)
            assert await vm.free(pasid) in (True, False)
            await vm.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(live, "vm-1")
            tasks.start_soon(live, "vm-2")
        await _host_is_empty(host)


async def one_vm_ends_as_another_begins() -> None:
    """The last that a VM asks of a device races the next VM, which gets its set's number and ID."""
    async with open_host(capacity=2, system_quota=1) as host:
        vdcm = await host.add_device(DEVICE)
        ending = await host.start_vm("vm-1", quota=1)
        pasid = await ending.alloc()
        await ending.bind(DEVICE, pasid, GPASID)
        if choose((False, True)):
            await ending.program(DEVICE, GPASID)

        async def ask(call: Callable[[], Awaitable[int]]) -> None:
            try:
                await call()
            except (IoasidError, ActorStopped):
                pass

        async def take_over() -> Vm:
            while True:
                try:
                    return await host.start_vm("vm-2", quota=1)
                except CapacityExhausted:
                    for transfer in tuple(vdcm.device.transfers):
                        await _tried(partial(host.complete, DEVICE, transfer))
                    await anyio.lowlevel.checkpoint()

        for _ in range(choose((0, 30))):
            vdcm.tell(ProgramPasid(0))  # refused, but it keeps the device busy
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, partial(ending.program, DEVICE, GPASID))
            tasks.start_soon(ask, partial(ending.submit, DEVICE, GPASID))
            for _ in range(choose(range(8))):
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(ask, partial(ending.free, pasid))
            ending.crash()
            following = await take_over()
            assert (ending.sid, pasid) == (following.sid, await following.alloc())
            await following.bind(DEVICE, pasid, GPASID)
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {}), "asked by another VM"
        await following.close()
        await ending.gone()
        await _host_is_empty(host)


async def drivers_crash_at_each_tier() -> None:
    """The drivers of KVM, a device and the IOMMU crash, each over any of its steps."""
    steps = {driver: choose(range(8)) for driver in ("kvm:vm-1", f"vdcm:{DEVICE}", "vtd")}

    def crash(seen: Decision | Step) -> None:
        if isinstance(seen, Step) and seen.actor in steps:
            steps[seen.actor] -= 1
            if steps[seen.actor] < 0:
                del steps[seen.actor]
                raise _Crash

    async with open_host(capacity=4, system_quota=1, observer=crash) as host:
        vdcm = await host.add_device(DEVICE)
        vm = await host.start_vm("vm-1", quota=1)
        pasid = await vm.alloc()
        await _tried(partial(vm.bind, DEVICE, pasid, GPASID))
        await _tried(partial(vm.program, DEVICE, GPASID))
        await _tried(partial(vm.submit, DEVICE, GPASID))
        await _tried(partial(vm.free, pasid))
        for transfer in tuple(vdcm.device.transfers):
            await _tried(partial(host.complete, DEVICE, transfer))
        await vm.close()
        await _host_is_empty(host)


async def subscribers_crash_at_each_tier() -> None:
    """One subscriber per tier; one of them crashes at any message, and comes back later."""
    async with open_allocator(capacity=8) as allocator, anyio.create_task_group() as tasks:
        owner = await allocator.alloc_set("vm-1", 4)
        crashing = choose(tuple(Priority))
        after = choose((0, 1, 2, 3))
        holding = choose((True, False))
        back = anyio.Event()
        ready: list[str] = []

        async def follow(priority: Priority) -> None:
            name = priority.name.lower()
            hold = holding or priority is not crashing
            crashes = priority is crashing
            while True:
                try:
                    async with (
                        allocator.session(name) as session,
                        session.subscribe(
                            sid=owner.sid,
                            kinds=BINDINGS,
                            priority=priority,
                            hold=hold,
                            replay=True,
                        ) as events,
                    ):
                        ready.append(name)
                        seen = 0
                        async for _ in events:
                            if crashes and seen == after:
                                raise _Crash
                            seen += 1
                        return
                except _Crash:
                    crashes = False
                    await back.wait()
                except UnknownSet:
                    # It had nothing in its hands, so nobody waited for it.
                    return

        for priority in Priority:
            tasks.start_soon(follow, priority)
        while len(ready) < len(Priority):
            await anyio.sleep(1)
        for spid in (1, 2):
            ioasid = await allocator.alloc(owner.sid)
            await allocator.attach_spid(ioasid, spid)
            if spid == 1:
                await allocator.detach_spid(ioasid)
            await allocator.free(ioasid)
        back.set()
        assert await allocator.free_set(owner.sid, wait=True)


class _Crash(Exception):
    """What a subscriber of a scenario crashes with."""


async def set_freed_while_it_allocates() -> None:
    """Allocations of one set race the end of the set, with a slow subscriber to all of it."""
    async with open_allocator(capacity=8) as allocator:
        owner = await allocator.alloc_set("vm-1", 4)
        freed = False

        async def alloc(name: str) -> None:
            async with allocator.session(name) as session:
                for _ in range(3):
                    before = freed
                    try:
                        ioasid = await session.alloc(owner.sid)
                        assert not before, "allocated after the free was answered"
                        await session.attach_spid(ioasid, ioasid)
                        await session.get(ioasid)
                        await session.put(ioasid)
                    except (SetFreePending, UnknownSet, UnknownIoasid, QuotaExceeded):
                        pass
                    except IoasidError as error:
                        assert error.code in ("EBUSY", "EINVAL"), error

        async def end() -> None:
            nonlocal freed
            await allocator.free_set(owner.sid)
            freed = True

        async with _watching(allocator) as seen, anyio.create_task_group() as tasks:
            for name in ("a", "b"):
                tasks.start_soon(alloc, name)
            tasks.start_soon(end)
        assert "UNBIND" not in seen
        figures = await allocator.statistics()
        assert (figures.available, figures.sets, figures.free_pending) == (8, 0, 0)


async def token_subscribed_as_its_set_is_made() -> None:
    """A subscription to a token races the creation, use and end of the token's set."""
    async with open_allocator(capacity=8) as allocator, anyio.create_task_group() as tasks:
        table: dict[int, int | None] = {}
        kinds: list[EventKind] = []
        replay = choose((True, False))
        subscribed = anyio.Event()

        async def follow() -> None:
            async with (
                allocator.session("kvm") as session,
                session.subscribe(
                    token="vm-1",
                    priority=Priority.CPU,
                    hold=True,
                    replay=replay,
                ) as events,
            ):
                subscribed.set()
                while True:
                    message = await anext(events)
                    if isinstance(message, Resync):
                        table.clear()
                        table.update((each.ioasid, each.spid) for each in message.ioasids)
                        kinds.extend([EventKind.ALLOC] * bool(message.ioasids))
                        continue
                    kinds.append(message.kind)
                    if message.kind in (EventKind.RECLAIM, EventKind.FREE):
                        table.pop(message.ioasid, None)
                    else:
                        table[message.ioasid] = message.spid
                    if message.kind is EventKind.RECLAIM and message.data == "last":
                        return

        async def use() -> None:
            owner = await allocator.alloc_set("vm-1", 2)
            first = await allocator.alloc(owner.sid)
            await allocator.attach_spid(first, 1)
            record = await allocator.find(first)
            assert record.references in ({"kvm": 1}, {})
            assert await allocator.free_set(owner.sid, wait=True)

        async with anyio.create_task_group() as both:
            tasks.start_soon(follow)
            both.start_soon(use)
        # Whenever it came, it learns everything of the next set with this token.
        await subscribed.wait()
        owner = await allocator.alloc_set("vm-1", 2)
        last = await allocator.alloc(owner.sid, data="last")
        await allocator.attach_spid(last, 7)
        assert await allocator.free_set(owner.sid, wait=True)
    assert kinds[-4:] == [EventKind.ALLOC, EventKind.BIND, EventKind.FREE, EventKind.RECLAIM]
    assert table == {}


async def quota_adjusted_under_load() -> None:
    """Quotas move between two sets and a reservation while both allocate."""
    async with open_allocator(capacity=8) as allocator:
        sids = [(await allocator.alloc_set(name, 3)).sid for name in ("vm-1", "vm-2")]
        refused: list[type[IoasidError]] = []

        async def load(sid: int, name: str) -> None:
            async with allocator.session(name) as session:
                mine: list[int] = []
                for _ in range(4):
                    try:
                        mine.append(await session.alloc(sid))
                    except QuotaExceeded as error:
                        refused.append(type(error))
                        assert await session.free(mine.pop())
                for ioasid in mine:
                    assert await session.free(ioasid)

        async def move() -> None:
            for quotas in ((1, 5), (4, 2), (2, 6), (3, 3)):
                for sid, quota in zip(sids, quotas, strict=True):
                    try:
                        record = await allocator.adjust_set(sid, quota)
                        assert record.allocated <= record.quota == quota
                    except (QuotaBelowUse, CapacityExhausted) as error:
                        refused.append(type(error))

        async def reserve() -> None:
            for _ in range(2):
                try:
                    await allocator.reserve_capacity(2)
                except CapacityExhausted:
                    continue
                await allocator.cancel_capacity(2)

        async with anyio.create_task_group() as tasks:
            for sid, name in zip(sids, "ab", strict=True):
                tasks.start_soon(load, sid, name)
            tasks.start_soon(move)
            tasks.start_soon(reserve)
        for sid in sids:
            assert await allocator.free_set(sid, wait=True)
        figures = await allocator.statistics()
        assert (figures.available, figures.reserved, figures.active) == (8, 0, 0)


async def resync_races_free() -> None:
    """A holding subscriber with a tiny queue lags behind binds and frees, above another one."""
    async with open_allocator(capacity=8) as allocator, anyio.create_task_group() as tasks:
        owner = await allocator.alloc_set("vm-1", 4)
        ready: list[Session] = []
        tables: tuple[dict[int, int], dict[int, int]] = {}, {}

        async def follow(name: str, priority: Priority, table: dict[int, int]) -> None:
            async with (
                allocator.session(name) as session,
                session.subscribe(
                    sid=owner.sid, kinds=BINDINGS, priority=priority, hold=True, queue_size=1
                ) as events,
            ):
                ready.append(session)
                async for message in events:
                    await anyio.lowlevel.checkpoint()
                    _follow(table, message)
                    for ioasid in table.values():
                        found = await session.find(ioasid)
                        assert name in found.references, "used without a reference"

        tasks.start_soon(follow, "kvm", Priority.CPU, tables[0])
        tasks.start_soon(follow, "vdcm", Priority.DEVICE, tables[1])
        while len(ready) < 2:
            await anyio.sleep(1)

        async def use(*spids: int) -> None:
            for spid in spids:
                ioasid = await allocator.alloc(owner.sid)
                await allocator.attach_spid(ioasid, spid)
                if spid == 1:
                    await allocator.detach_spid(ioasid)
                    await allocator.attach_spid(ioasid, 9)
                await allocator.free(ioasid)

        async with anyio.create_task_group() as users:
            users.start_soon(use, 1, 2)
            users.start_soon(use, 3, 4)
        while (figures := await allocator.statistics()).free_pending or figures.lagging:
            await anyio.sleep(1)
        assert tables == ({}, {}), "a subscriber's table is not the truth"
        assert await allocator.free_set(owner.sid, wait=True)


def _follow(table: dict[int, int], message: Event | Resync) -> None:
    if isinstance(message, Resync):
        table.clear()
        for each in message.ioasids:
            if each.spid is not None and each.state is IoasidState.ACTIVE:
                table[each.spid] = each.ioasid
        return
    assert message.spid is not None, "every ID of the scenario is bound until it is freed"
    if message.kind is EventKind.BIND:
        table[message.spid] = message.ioasid
    else:
        assert table.pop(message.spid) == message.ioasid, "the end of a binding that was not told"


async def shutdown_under_load() -> None:
    """The allocator ends, in order or by a crash of its owner, while everybody asks and waits."""
    answers: dict[str, list[str]] = {name: [] for name in ("alloc", "wait", "follow", "session")}

    async def asking(kind: str, work: Callable[[], Awaitable[object]]) -> None:
        try:
            while True:
                await work()
                answers[kind].append("answered")
        except AllocatorClosed:
            answers[kind].append("closed")
        except StopAsyncIteration:
            answers[kind].append("ended")

    crashes = choose((False, True))
    async with anyio.create_task_group() as tasks:
        try:
            async with open_allocator(capacity=8) as allocator:
                owner = await allocator.alloc_set("vm-1", 8)
                kept = await allocator.alloc(owner.sid)
                await allocator.get(kept)

                async def alloc() -> None:
                    await allocator.free(await allocator.alloc(owner.sid))

                async def wait() -> None:
                    async with allocator.session("waiter") as session:
                        await session.free(kept, wait=True)

                async def follow() -> None:
                    async with (
                        allocator.session("follower") as session,
                        session.subscribe(sid=owner.sid, kinds={EventKind.ALLOC}) as events,
                    ):
                        while True:
                            await anext(events)

                async def session() -> None:
                    async with allocator.session("guest") as guest:
                        await guest.statistics()

                for name, work in (
                    ("alloc", alloc),
                    ("wait", wait),
                    ("follow", follow),
                    ("session", session),
                ):
                    tasks.start_soon(asking, name, work)
                for _ in range(choose((3, 0, 8))):
                    await anyio.lowlevel.checkpoint()
                if crashes:
                    raise _Crash
        except _Crash:
            pass
    for name, came_to in answers.items():
        assert came_to[-1] in ("closed", "ended"), f"{name} was left waiting"
        assert set(came_to[:-1]) <= {"answered"}


# -- what they share --------------------------------------------------------------------------


def _watching(allocator: Session) -> "_Watch":
    return _Watch(allocator)


class _Watch:
    """A slow subscriber to everything, beside a scenario; gives the kinds that it was told of."""

    def __init__(self, allocator: Session) -> None:
        self._allocator = allocator
        self._tasks = anyio.create_task_group()
        self._seen: set[str] = set()
        self._over = False

    async def __aenter__(self) -> set[str]:
        await self._tasks.__aenter__()
        await self._tasks.start(self._follow)
        return self._seen

    async def _follow(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with (
            self._allocator.session("watch") as session,
            session.subscribe(queue_size=2) as events,
        ):
            task_status.started()
            async for message in events:
                await anyio.lowlevel.checkpoint()
                if isinstance(message, Event):
                    self._seen.add(message.kind.name)

    async def __aexit__(self, *raised: object) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)


async def _tried(call: Callable[[], Awaitable[T]]) -> T | None:
    # Again after a crash of the driver, which may have done it before it crashed.
    while True:
        try:
            return await call()
        except ActorCrashed:
            continue
        except (AlreadyProgrammed, UnknownTransfer):
            return None


async def _host_is_empty(host: Host) -> None:
    figures = await host.allocator.statistics()
    assert (figures.active, figures.free_pending, figures.suspended) == (0, 0, 0)
    vms: dict[str, Vm] = host.vms
    assert vms == {}
    assert not any(host.vtd.iommu.tables.values()), "an entry outlived its ID"
    for vdcm in host.devices.values():
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {})


SCENARIOS: Final[dict[str, tuple[Callable[[], Awaitable[None]], bool]]] = {
    each.__name__: (each, each is not shutdown_under_load)
    for each in (
        guest_crashes_with_dma_in_flight,
        two_vms_share_a_device,
        one_vm_ends_as_another_begins,
        drivers_crash_at_each_tier,
        subscribers_crash_at_each_tier,
        set_freed_while_it_allocates,
        token_subscribed_as_its_set_is_made,
        quota_adjusted_under_load,
        resync_races_free,
        shutdown_under_load,
    )
}
"""The shipped scenarios by name, each with whether it has to leave nothing behind."""
