"""Recordings to read and draw."""

from contextlib import ExitStack
from pathlib import Path

import anyio

from demos.guest_sva import Output, tell
from ioasid.actors import Session, open_allocator
from ioasid.core import EventKind, Priority
from ioasid.recorder import record
from ioasid.testing import StormSettings, storm


def of_the_guest(path: Path) -> Path:
    """The story of the demo."""

    class Silent(Output):
        def _line(self, event: object) -> None:
            pass

    out = Silent(as_json=True)
    out.record_into(str(path))
    assert anyio.run(tell, out)
    return path


async def subscriber(session: Session, name: str) -> None:
    """Subscribe, take one FREE and crash with it in hand."""
    async with (
        session.session(name) as own,
        own.subscribe(
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.DEVICE,
            hold=True,
        ) as events,
    ):
        async for event in events:
            if event.kind is EventKind.FREE:  # type: ignore[union-attr]
                raise RuntimeError("the driver crashes")


async def a_driver_crashes() -> None:
    """A driver crashes with an ID in its hands and is evicted; another ID waits at the end."""
    async with open_allocator(capacity=64) as host:
        vm = await host.alloc_set("vm-1", 8)
        first, second = await host.alloc(vm.sid), await host.alloc(vm.sid)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_caught, host)
            await anyio.wait_all_tasks_blocked()
            await host.attach_spid(first, 101)
            await anyio.wait_all_tasks_blocked()
            await host.free(first)
        await host.evict("driver")
        async with (
            host.session("sleeper") as sleeper,
            sleeper.subscribe(priority=Priority.CPU, kinds={EventKind.FREE}, queue_size=2),
        ):
            await host.free(second)
            for _ in range(4):
                await host.free(await host.alloc(vm.sid))


async def _caught(host: Session) -> None:
    try:
        await subscriber(host, "driver")
    except RuntimeError:
        pass


def of_a_crash(path: Path) -> Path:
    """A driver that crashes, comes not back and is evicted; then one that never acknowledges."""
    with record(path):
        anyio.run(a_driver_crashes)
    return path


def of_a_hang(path: Path) -> Path:
    """A device that never finishes: its ID is in quarantine when the recording ends."""

    async def main() -> None:
        with ExitStack() as stack:
            stack.enter_context(record(path))
            async with open_allocator(capacity=64) as host:
                vm = await host.alloc_set("vm-1", 8)
                await host.alloc_many(vm.sid, 3)
                async with (
                    host.session("device") as device,
                    device.subscribe(priority=Priority.DEVICE, kinds={EventKind.FREE}) as events,
                ):
                    await host.free(2)
                    events.defer(await anext(events))
                    await anyio.wait_all_tasks_blocked()
                    stack.close()

    anyio.run(main)
    return path


def of_a_storm(path: Path) -> Path:
    """Everything at once."""

    async def main() -> None:
        report = await storm(StormSettings(vms=4, ops=600, crash_rate=0.03, seed=3))
        assert report.holds, report

    with record(path):
        anyio.run(main)
    return path


ALL = (of_the_guest, of_a_crash, of_a_hang, of_a_storm)
