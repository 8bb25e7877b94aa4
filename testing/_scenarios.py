"""The shipped scenarios: what goes wrong on real hosts, small enough for thousands of schedules.

Each asserts at its end what has to be true under every schedule; the invariants are checked on
the way by whoever explores it.
"""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import partial
from itertools import combinations
from typing import Final, TypeVar

import anyio
from attrs import frozen

from ioasid.actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    Host,
    ProgramPasid,
    Session,
    Step,
    UnknownTransfer,
    Vdcm,
    Vm,
    open_allocator,
)
from ioasid.core import (
    AllocatorClosed,
    Began,
    Binding,
    CapacityExhausted,
    Change,
    Ended,
    Event,
    EventKind,
    IoasidError,
    Life,
    Priority,
    QuotaBelowUse,
    QuotaExceeded,
    Resync,
    SetFreePending,
    SubscriberTable,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.testing._disk import on_a_disk
from ioasid.testing._disk_scenarios import (
    DISK_SCENARIOS,
    disk_fails_under_a_host,
    drivers_crash_while_a_disk_fails,
)
from ioasid.testing._hardware import host_is_empty, on_linux, watched_host
from ioasid.testing._picker import choose

__all__ = ["SCENARIOS"]

T = TypeVar("T")

DEVICE: Final = "dsa0"
GPASID: Final = 101
BINDINGS: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


async def guest_crashes_with_dma_in_flight() -> None:
    """A guest dies with DMA under way while its neighbour asks for a PASID."""
    async with watched_host(capacity=4, system_quota=1) as host:
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
        await host_is_empty(host)


async def two_vms_share_a_device() -> None:
    """Two guests use the same guest PASID on one device, from allocation to free."""
    async with watched_host(capacity=5, system_quota=1) as host:
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
        await host_is_empty(host)


async def a_vm_moves_while_its_guest_works() -> None:
    """A guest binds and submits while it is frozen; then it goes on, here or on another host."""
    async with (
        watched_host(capacity=6, system_quota=1) as source,
        watched_host(capacity=6, system_quota=1) as target,
    ):
        for host in (source, target):
            await host.add_device(DEVICE)
        guest = await source.start_vm("vm-1", quota=2)
        first, second = await guest.alloc(), await guest.alloc()
        await guest.bind(DEVICE, first, GPASID)

        async def work() -> None:
            try:
                await guest.program(DEVICE, GPASID)
                await source.complete(DEVICE, await guest.submit(DEVICE, GPASID))
            except IoasidError:
                pass

        async def bind() -> None:
            try:
                await guest.bind(DEVICE, second, GPASID + 1)
            except IoasidError:
                pass

        async with anyio.create_task_group() as tasks:
            for each in (work, bind, guest.freeze):
                tasks.start_soon(each)
        device = source.device(DEVICE).device
        assert not device.contexts, "a frozen VM has a context"
        assert not device.transfers, "a frozen VM has DMA in flight"
        export = await guest.export()
        there = source
        if choose((False, True)):
            arrived = await target.receive_vm(export)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(guest.close)
                tasks.start_soon(arrived.run)
            guest, there = arrived, target
        else:
            await guest.run()
        spids = [each.spid for each in export.set.ioasids]
        assert spids == sorted(guest.kvm.table)
        await guest.program(DEVICE, GPASID)
        landed = await there.complete(DEVICE, await guest.submit(DEVICE, GPASID))
        assert (landed.owner, landed.ioasid) == ("vm-1", guest.kvm.table[GPASID])
        await guest.close()
        await host_is_empty(there)


async def one_vm_ends_as_another_begins() -> None:
    """The last that a VM asks of a device races the next VM, which gets its ID."""
    async with watched_host(capacity=3, system_quota=1) as host:
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
            vdcm.client().tell(ProgramPasid(0, 1))  # refused, but it keeps the device busy
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, partial(ending.program, DEVICE, GPASID))
            tasks.start_soon(ask, partial(ending.submit, DEVICE, GPASID))
            for _ in range(choose(range(8))):
                await anyio.lowlevel.checkpoint()
            tasks.start_soon(ask, partial(ending.free, pasid))
            ending.crash()
            following = await take_over()
            again = await following.alloc()
            assert pasid == again
            assert ending.sid < following.sid
            await following.bind(DEVICE, again, GPASID)
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {}), "asked by another VM"
        await following.close()
        await ending.gone()
        await host_is_empty(host)


async def drivers_crash_at_each_tier() -> None:
    """The drivers of KVM, a device and the IOMMU crash, each over any of its steps."""
    steps = {driver: choose(range(8)) for driver in ("kvm:vm-1", f"vdcm:{DEVICE}", "vtd")}

    def crash(seen: Step) -> None:
        if seen.actor in steps:
            steps[seen.actor] -= 1
            if steps[seen.actor] < 0:
                del steps[seen.actor]
                raise _Crash

    async with watched_host(capacity=5, system_quota=1, fault=crash) as host:
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
        await host_is_empty(host)


async def drivers_stop_at_any_point() -> None:
    """A driver is stopped, waiting or not, while a guest does what guests do; another goes on."""
    drain = choose((True, False))
    at = choose(range(7))
    async with watched_host(capacity=5, system_quota=1) as host:
        vdcm = await host.add_device(DEVICE)
        stopped: Actor = choose((host.vtd, vdcm))
        vm = await host.start_vm("vm-1", quota=1)
        neighbour = await host.start_vm("vm-2", quota=1)
        for number, call in enumerate(_life(host, vm)):
            if number == at:
                stopped.stop(drain=drain)
            await _attempt(call)
        stopped.stop(drain=drain)
        vm.crash()
        for call in _life(host, neighbour)[:4]:
            await _attempt(call)
        await _complete_all(host, vdcm)
        await stopped.ended.wait()
        if stopped.statistics().state == "suspended":
            # Nobody stopped what is programmed: it is in quarantine until somebody does.
            figures = await host.allocator.statistics()
            assert figures.suspended == 0 or figures.active + figures.free_pending > 0
            if stopped is vdcm:
                vdcm.device.reset()
            else:
                for ioasid in host.vtd.iommu.programmed():
                    await host.vtd.iommu.tear_down(ioasid)
            await _attempt(partial(host.allocator.evict, stopped.holder))
        await _complete_all(host, vdcm)
        await vm.gone()
        await neighbour.close()
        await host_is_empty(host)


async def drivers_give_up_at_any_point() -> None:
    """KVM or the driver of a device gives up over any of its steps: what it had is safe."""
    left = choose(range(8))
    who = choose(("kvm:vm-1", f"vdcm:{DEVICE}"))

    def crash(seen: Step) -> None:
        nonlocal left
        if seen.actor == who:
            left -= 1
            if left < 0:
                raise _Crash

    async with watched_host(capacity=5, system_quota=1, max_restarts=0, fault=crash) as host:
        vdcm = await host.add_device(DEVICE)
        vm = await host.start_vm("vm-1", quota=1)
        neighbour = await host.start_vm("vm-2", quota=1)
        for call in _life(host, vm):
            await _attempt(call)
        vm.crash()
        for call in _life(host, neighbour)[:4]:
            await _attempt(call)
        await _complete_all(host, vdcm)
        await vm.gone()
        await _complete_all(host, vdcm)
        await neighbour.close()
        await host_is_empty(host)


async def device_removed_at_any_point() -> None:
    """A device goes while a guest and a process use it; another device goes on."""
    async with watched_host(capacity=5, system_quota=2) as host, anyio.create_task_group() as tasks:
        vdcm, other = await host.add_device(DEVICE), await host.add_device("dsa1")
        vm = await host.start_vm("vm-1", quota=1)
        at = choose(range(10))
        removed = anyio.Event()

        async def remove() -> None:
            await host.remove_device(DEVICE)
            assert DEVICE not in host.vtd.iommu.tables, "gone, and its table is not"
            assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {}), "gone undrained"
            removed.set()

        async def work() -> None:
            # The hardware completes what is in flight, sooner or later.
            while not removed.is_set():
                await _complete_all(host, vdcm)
                await anyio.sleep(1)

        tasks.start_soon(work)
        calls: list[Callable[[], Awaitable[object]]] = [
            *_life(host, vm)[:4],
            partial(host.sva_bind, DEVICE, 7),
            partial(host.sva_bind, "dsa1", 7),
            partial(_submit, host, DEVICE, 7),
            partial(_submit, host, "dsa1", 7),
            partial(host.sva_unbind, DEVICE, 7),
        ]
        for number, call in enumerate(calls):
            if number == at:
                tasks.start_soon(remove)
            await _attempt(call)
        if at >= len(calls):
            tasks.start_soon(remove)
        await removed.wait()
        assert await _complete_all(host, other) == ["process 7"]
        assert await host.add_device(DEVICE) is not vdcm
        await host.process_exited(7)
        await vm.close()
        await host_is_empty(host)


async def process_unbound_at_any_point() -> None:
    """Two processes bind, work, unbind and exit on two devices; whoever asks may give up."""
    async with watched_host(capacity=5, system_quota=3) as host:
        devices = [await host.add_device(name) for name in (DEVICE, "dsa1")]
        busy = 2
        owners: list[str] = []

        async def live(process: int) -> None:
            nonlocal busy
            for device in (DEVICE, "dsa1", DEVICE):
                patience = choose((None, 0, 1, 3, 9))
                await _impatiently(patience, partial(host.sva_bind, device, process))
                pasid = await host.sva_bind(device, process)
                transfer = await host.sva_submit(device, pasid, process)
                assert (await host.complete(device, transfer)).owner == f"process {process}"
                await host.sva_submit(device, pasid, process)
                await _impatiently(choose((None, 0, 2)), partial(host.sva_unbind, device, process))
            await host.process_exited(process)
            busy -= 1

        async def work() -> None:
            while busy:
                for vdcm in devices:
                    owners.extend(await _complete_all(host, vdcm))
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            tasks.start_soon(live, 7)
            tasks.start_soon(live, 8)
        for vdcm in devices:
            await _complete_all(host, vdcm)
        while (figures := await host.allocator.statistics()).free_pending or figures.active:
            await anyio.sleep(1)
        assert set(owners) <= {"process 7", "process 8"}
        await host_is_empty(host)


async def subscribers_crash_at_each_tier() -> None:
    """One subscriber per tier; one of them crashes at any message, and comes back later."""
    async with open_allocator(capacity=9) as allocator, anyio.create_task_group() as tasks:
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
    async with open_allocator(capacity=9) as allocator:
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
    async with open_allocator(capacity=9) as allocator, anyio.create_task_group() as tasks:
        table = SubscriberTable()
        told: list[Change] = []
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
                    told.extend(table.update(message))
                    if isinstance(message, Resync):
                        continue
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
    assert [(type(each), type(each.what)) for each in told[-4:]] == [
        (Began, Life),
        (Began, Binding),
        (Ended, Binding),
        (Ended, Life),
    ]
    assert table.lives == {}


async def quota_adjusted_under_load() -> None:
    """Quotas move between two sets and a reservation while both allocate."""
    async with open_allocator(capacity=9) as allocator:
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
        assert (figures.available, figures.reserved, figures.active) == (8, 1, 0)


async def resync_races_free() -> None:
    """A holding subscriber with a tiny queue lags behind binds and frees, above another one."""
    async with open_allocator(capacity=9) as allocator, anyio.create_task_group() as tasks:
        owner = await allocator.alloc_set("vm-1", 4)
        ready: list[Session] = []
        tables = SubscriberTable(), SubscriberTable()

        async def follow(name: str, priority: Priority, table: SubscriberTable) -> None:
            async with (
                allocator.session(name) as session,
                session.subscribe(
                    sid=owner.sid, kinds=BINDINGS, priority=priority, hold=True, queue_size=1
                ) as events,
            ):
                ready.append(session)
                async for message in events:
                    await anyio.lowlevel.checkpoint()
                    changes = table.update(message)
                    assert changes or isinstance(message, Resync), "an event that changed nothing"
                    for ioasid in table.bindings:
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
        assert not any(table.lives for table in tables), "a subscriber's table is not the truth"
        assert await allocator.free_set(owner.sid, wait=True)


ANY_KINDS: Final = tuple(
    frozenset(kinds)
    for count in range(len(EventKind), 0, -1)
    for kinds in combinations(EventKind, count)
)


async def subscribers_to_any_kinds() -> None:
    """Subscribers to any kinds, at any tier, come and go between the tiers of every event."""
    async with open_allocator(capacity=8) as host:
        owner = await host.alloc_set("vm-1", 4)

        async def listen(name: str) -> None:
            async with host.session(name) as session:
                for _ in range(2):
                    kinds = choose(ANY_KINDS)
                    subscription = session.subscribe(
                        sid=choose((None, owner.sid)),
                        kinds=kinds,
                        priority=choose(tuple(Priority)),
                        hold=kinds >= BINDINGS and choose((True, False)),
                        replay=choose((False, True)),
                        queue_size=choose((8, 1)),
                    )
                    async with subscription as events:
                        with anyio.move_on_after(choose((1, 3))):
                            async for _ in events:
                                await anyio.sleep(choose((0, 1)))

        async with anyio.create_task_group() as tasks:
            for name in ("one", "two", "three"):
                tasks.start_soon(listen, name)
            for spid in (101, 102):
                ioasid = await host.alloc(owner.sid)
                await host.attach_spid(ioasid, spid)
                if choose((False, True)):
                    await host.detach_spid(ioasid)
                await anyio.sleep(choose((0, 1)))
                await host.free(ioasid)
        assert not tuple(await host.list_set(owner.sid))


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
            async with open_allocator(capacity=9) as allocator:
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


def _life(host: Host, vm: Vm) -> list[Callable[[], Awaitable[object]]]:
    # What a guest does with its only PASID, from the first to the last.
    given: list[int] = []

    async def alloc() -> None:
        given.append(await vm.alloc())

    async def free() -> None:
        for pasid in given:
            await vm.free(pasid)

    async def bind() -> None:
        for pasid in given:
            await vm.bind(DEVICE, pasid, GPASID)

    async def complete() -> None:
        for vdcm in tuple(host.devices.values()):
            await _complete_all(host, vdcm)

    program = partial(vm.program, DEVICE, GPASID)
    return [alloc, bind, program, partial(vm.submit, DEVICE, GPASID), free, complete]


async def _submit(host: Host, device: str, process: int) -> None:
    pasid = host.vtd.ioasid_of(process)
    if pasid is not None:
        await host.sva_submit(device, pasid, process)


async def _complete_all(host: Host, vdcm: Vdcm) -> list[str]:
    # Whose memory it was that they landed in.
    owners = []
    for transfer in tuple(vdcm.device.transfers):
        try:
            owners.append((await host.complete(vdcm.device.name, transfer)).owner)
        except IoasidError:
            pass
    return owners


async def _attempt(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except IoasidError:
        pass


async def _impatiently(passes: int | None, call: Callable[[], Awaitable[object]]) -> None:
    # Give up after so many turns of the event loop.
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_attempt, call)
        if passes is not None:
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()


async def _tried(call: Callable[[], Awaitable[T]]) -> T | None:
    # Again after a crash of the driver, which may have done it before it crashed.
    while True:
        try:
            return await call()
        except ActorCrashed:
            continue
        except (AlreadyProgrammed, UnknownTransfer):
            return None


@frozen
class _OnLinux:
    """A scenario on the kernel's tables; workers of other processes find it by the other one."""

    scenario: Callable[[], Awaitable[None]]

    @property
    def __name__(self) -> str:
        return f"{self.scenario.__name__}_on_linux"

    async def __call__(self) -> None:
        token = on_linux.set(True)
        try:
            await self.scenario()
        finally:
            on_linux.reset(token)


@frozen
class _PerhapsOnADisk:
    """A scenario whose allocators have a journal in every other schedule, with a disk that is slow.

    What is kept takes any number of turns then, so nothing is released in the step it is decided.
    """

    scenario: Callable[[], Awaitable[None]]

    @property
    def __name__(self) -> str:
        name: str = self.scenario.__name__
        return name

    async def __call__(self) -> None:
        with on_a_disk() if choose((False, True)) else nullcontext():
            await self.scenario()


ON_A_HOST: Final = (
    guest_crashes_with_dma_in_flight,
    two_vms_share_a_device,
    one_vm_ends_as_another_begins,
    drivers_crash_at_each_tier,
    drivers_stop_at_any_point,
    drivers_give_up_at_any_point,
    device_removed_at_any_point,
    process_unbound_at_any_point,
)

_SHIPPED: Final[tuple[Callable[[], Awaitable[None]], ...]] = (
    a_vm_moves_while_its_guest_works,
    *ON_A_HOST,
    *map(_OnLinux, ON_A_HOST),
    subscribers_crash_at_each_tier,
    set_freed_while_it_allocates,
    token_subscribed_as_its_set_is_made,
    quota_adjusted_under_load,
    resync_races_free,
    subscribers_to_any_kinds,
    shutdown_under_load,
)

_ON_A_DISK: Final[tuple[Callable[[], Awaitable[None]], ...]] = (
    *DISK_SCENARIOS,
    _OnLinux(disk_fails_under_a_host),
    _OnLinux(drivers_crash_while_a_disk_fails),
)

SCENARIOS: Final[dict[str, tuple[Callable[[], Awaitable[None]], bool]]] = {
    each.__name__: (_PerhapsOnADisk(each), each is not shutdown_under_load) for each in _SHIPPED
} | {each.__name__: (each, True) for each in _ON_A_DISK}
"""The shipped scenarios by name, each with whether it has to leave nothing behind."""
