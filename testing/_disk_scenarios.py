"""Scenarios of a journal whose disk fails now and then: whoever is refused asks again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ioasid.actors import Host, Session, Step, open_allocator
from ioasid.core import EventKind, Ioasid, IoasidError, NotCommitted, QuotaExceeded, SubscriberTable
from ioasid.testing._disk import on_a_disk
from ioasid.testing._hardware import host_is_empty, watched_host
from ioasid.testing._picker import choose

__all__: list[str] = []

T = TypeVar("T")

DEVICE: Final = "dsa0"
GPASID: Final = 101
BINDINGS: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


async def disk_fails_while_all_ask() -> None:
    """Users allocate, bind, give up and free beside a driver; what is refused changes nothing."""
    with on_a_disk(fails=True):
        async with open_allocator(capacity=9) as allocator:
            owner = await _again(partial(allocator.alloc_set, "vm-1", 6))
            table = SubscriberTable()
            ready = anyio.Event()

            async def drive(session: Session) -> None:
                async with session.subscribe(
                    sid=owner.sid, kinds=BINDINGS, hold=True, queue_size=choose((8, 1))
                ) as events:
                    ready.set()
                    async for message in events:
                        table.update(message)
                        for ioasid in table.bindings:
                            found = await session.find(ioasid)
                            assert found.references.get("driver"), "used without a reference"

            async def live(session: Session) -> None:
                for _ in range(3):
                    ioasid = await _again(partial(session.alloc, owner.sid))
                    spid = int(ioasid)
                    await _again(partial(session.attach_spid, ioasid, spid))
                    assert ioasid == await session.find_by_spid(owner.sid, spid)
                    for extra in await _impatiently(partial(session.alloc, owner.sid)):
                        await _again(partial(session.free, extra))
                    for _ in await _impatiently(partial(session.get, ioasid)):
                        await _again(partial(session.put, ioasid))
                    await _again(partial(session.free, ioasid))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_joined, allocator, "driver", drive)
                await ready.wait()
                async with anyio.create_task_group() as users:
                    for name in ("one", "two"):
                        users.start_soon(_joined, allocator, name, live)
                assert await _again(partial(allocator.free_set, owner.sid, wait=True))
            assert table.lives == {}
            # What was kept for later, such as the end of a session, comes before what succeeds.
            await _again(partial(allocator.reserve_capacity, 1))
            await _again(partial(allocator.cancel_capacity, 1))
            figures = await allocator.statistics()
            assert (figures.sessions, figures.suspended) == (1, 0)
            assert (figures.available, figures.sets, figures.active) == (8, 0, 0)


async def disk_fails_under_a_host() -> None:
    """Guests and a process come, work, move on and go, and their device is removed at the end."""
    async with _on_a_host_whose_disk_fails() as host:
        vdcm = await _again(partial(host.add_device, DEVICE))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_guest, host, "vm-1")
            tasks.start_soon(_guest, host, "vm-2")
            tasks.start_soon(_process, host)
        await _again(partial(host.remove_device, DEVICE))
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {}), "gone undrained"
        assert DEVICE not in host.vtd.iommu.tables, "gone, and its table is not"


async def drivers_crash_while_a_disk_fails() -> None:
    """An actor of a host crashes over any of its steps; whoever is refused asks again."""
    who = choose(("vtd", f"vdcm:{DEVICE}", "vfio:vm-1", "kvm:vm-1"))
    left = choose(range(12))
    most = choose((5, 0)) if who != "vtd" else 5

    def crash(seen: Step) -> None:
        nonlocal left
        if seen.actor == who:
            left -= 1
            if left == 0:
                raise _Crash

    async with _on_a_host_whose_disk_fails(fault=crash, max_restarts=most) as host:
        vdcm = await _again(partial(host.add_device, DEVICE))
        busy = True

        async def complete() -> None:
            while busy:
                for transfer in tuple(vdcm.device.transfers):
                    await _anyhow(partial(host.complete, DEVICE, transfer))
                await anyio.sleep(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(complete)
            async with anyio.create_task_group() as users:
                for name in ("vm-1", "vm-2"):
                    users.start_soon(_live, host, name)
                users.start_soon(_use, host)
            await _again(partial(host.remove_device, DEVICE))
            busy = False
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {}), "gone undrained"


class _Crash(Exception):
    """Planted."""


@asynccontextmanager
async def _on_a_host_whose_disk_fails(**options: Any) -> AsyncIterator[Host]:
    with on_a_disk() as disks:
        async with watched_host(capacity=6, system_quota=2, **options) as host:
            disks[0].fails = True
            yield host
            disks[0].fails = False
            # What was kept for later comes before what succeeds.
            await _again(partial(host.allocator.reserve_capacity, 1))
            await _again(partial(host.allocator.cancel_capacity, 1))
            await host_is_empty(host)


async def _guest(host: Host, name: str) -> None:
    vm = await _again(partial(host.start_vm, name, quota=1))
    pasid = await _again(vm.alloc)
    bind = partial(vm.bind, DEVICE, pasid, GPASID)
    if not await _impatiently(bind):
        await _again(bind)
    assert pasid == await _again(partial(vm.program, DEVICE, GPASID))
    transfer = await _again(partial(vm.submit, DEVICE, GPASID))
    landed = await _again(partial(host.complete, DEVICE, transfer))
    assert (landed.owner, landed.ioasid) == (name, pasid)
    match choose(("in order", "frozen", "freed", "killed")):
        case "in order":
            await _again(partial(vm.stop, DEVICE, pasid))
            await _again(partial(vm.unbind, DEVICE, pasid))
            await _again(partial(vm.free, pasid))
        case "frozen":
            await _again(vm.freeze)
            await _again(vm.run)
            assert host.vtd.iommu.translate(DEVICE, pasid), "it runs, and nothing is programmed"
            assert pasid == await _again(partial(vm.program, DEVICE, GPASID))
        case "freed":
            await _again(partial(vm.free, pasid))
        case _:
            pass
    await vm.close()


async def _process(host: Host) -> None:
    for process in (7, 8):
        bind = partial(host.sva_bind, DEVICE, process)
        bound = await _impatiently(bind)
        await _work(host, bound[0] if bound else await _again(bind), process)
        await _again(partial(host.process_exited, process))
        assert host.vtd.ioasid_of(process) is None


async def _work(host: Host, pasid: Ioasid, process: int) -> None:
    transfer = await _again(partial(host.sva_submit, DEVICE, pasid, process))
    landed = await _again(partial(host.complete, DEVICE, transfer))
    assert landed.owner == f"process {process}"
    await _again(partial(host.sva_unbind, DEVICE, process))


async def _live(host: Host, name: str) -> None:
    vm = await _again(partial(host.start_vm, name, quota=1))
    for pasid in await _anyhow(vm.alloc):
        await _anyhow(partial(vm.bind, DEVICE, pasid, GPASID))
        await _anyhow(partial(vm.program, DEVICE, GPASID))
        await _anyhow(partial(vm.submit, DEVICE, GPASID))
        if choose((True, False)):
            await _anyhow(partial(vm.stop, DEVICE, pasid))
            await _anyhow(partial(vm.unbind, DEVICE, pasid))
        await _anyhow(partial(vm.free, pasid))
    await vm.close()


async def _use(host: Host) -> None:
    for pasid in await _anyhow(partial(host.sva_bind, DEVICE, 7)):
        await _anyhow(partial(host.sva_submit, DEVICE, pasid, 7))
        await _anyhow(partial(host.sva_unbind, DEVICE, 7))
    while not await _anyhow(partial(host.process_exited, 7)):
        pass


async def _anyhow(call: Callable[[], Awaitable[T]]) -> list[T]:
    # The answer, unless whoever is asked crashes or is gone, or refuses it for what crashed before.
    try:
        return [await _again(call)]
    except IoasidError:
        return []


async def _joined(
    allocator: Session, name: str, work: Callable[[Session], Awaitable[object]]
) -> None:
    while True:
        try:
            async with allocator.session(name) as session:
                await work(session)
            return
        except NotCommitted:
            await checkpoint()


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except NotCommitted:
            await checkpoint()
        except QuotaExceeded:
            # What was given up is freed, and acknowledged, some time.
            await anyio.sleep(1)


async def _impatiently(call: Callable[[], Awaitable[T]]) -> list[T]:
    # The answer, unless it does not come in so many turns of the event loop, or is a refusal.
    answers: list[T] = []

    async def ask() -> None:
        try:
            answers.append(await call())
        except IoasidError:
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        for _ in range(choose((3, 0, 1, 9))):
            await checkpoint()
        tasks.cancel_scope.cancel()
    return answers


DISK_SCENARIOS: Final[tuple[Callable[[], Awaitable[None]], ...]] = (
    disk_fails_while_all_ask,
    disk_fails_under_a_host,
    drivers_crash_while_a_disk_fails,
)
