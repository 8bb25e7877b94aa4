"""A subscriber forgets that it may be given a Resync; the explorer finds when that matters.

    python demos/forgotten_resync.py [--record FILE]

It exits with 0 if the bug was found in the first driver, and none in the second. With --record, the
shortest schedule that shows it is written into FILE.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill

import anyio

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.terminal import WIDTH, console, end_with_the_pipe
from ioasid.actors import Session, open_allocator
from ioasid.core import Began, Binding, Ended, Event, EventKind, Resync, SubscriberTable
from ioasid.testing import Scenario, ScheduleFailed, explore

BINDINGS = frozenset({EventKind.BIND, EventKind.UNBIND, EventKind.FREE})
SEEDS = range(200)


class Forgetful:
    """A driver's table of PASIDs, kept from events alone."""

    def __init__(self) -> None:
        self.entries: set[int] = set()

    def update(self, message: Event | Resync) -> None:
        """Set an entry with a BIND, and remove it with what ends it."""
        if isinstance(message, Resync):
            return  # It never came while this was written.
        if message.kind is EventKind.BIND:
            self.entries.add(message.ioasid)
        else:
            self.entries.discard(message.ioasid)


class Careful(Forgetful):
    """The same, from what the library's table makes of events and Resyncs alike."""

    def __init__(self) -> None:
        super().__init__()
        self.table = SubscriberTable()

    def update(self, message: Event | Resync) -> None:
        """Do what the table says."""
        for change in self.table.update(message):
            match change:
                case Began(Binding(ioasid)):
                    self.entries.add(ioasid)
                case Ended(Binding(ioasid)):
                    self.entries.discard(ioasid)
                case _:
                    pass


def scenario_with(make: Callable[[], Forgetful]) -> Scenario:
    """Return a scenario: a guest binds and frees, a driver with a small queue keeps up or not."""

    async def a_driver_keeps_a_table() -> None:
        driver = make()
        async with open_allocator(capacity=8) as host, anyio.create_task_group() as tasks:
            vm = await host.alloc_set("vm-1", quota=4)
            ready = anyio.Event()
            tasks.start_soon(serve, host, vm.sid, driver, ready)
            await ready.wait()
            pasid = await host.alloc(vm.sid)
            await host.attach_spid(pasid, 101)
            await host.detach_spid(pasid)
            await host.attach_spid(pasid, 102)
            await host.free(pasid, wait=True)
            assert not driver.entries, (
                f"the driver still has {sorted(driver.entries)}, which is free"
            )
            tasks.cancel_scope.cancel()

    return a_driver_keeps_a_table


async def serve(host: Session, sid: int, driver: Forgetful, ready: anyio.Event) -> None:
    """Let a driver be told, until the scenario is over."""
    async with (
        host.session("driver") as session,
        session.subscribe(sid=sid, kinds=BINDINGS, queue_size=1) as events,
    ):
        ready.set()
        async for message in events:
            driver.update(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Explore both; the exit code is 0 if exactly the first one has the bug."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--record", metavar="FILE", help="where to record the schedule found")
    options = parser.parse_args(arguments)
    found = False
    out = console()
    out.print(
        "A driver is told what is bound, by messages in a queue. If it lags, one message, a "
        "Resync, stands for all that waited. This driver ignores it, and passes every test. Here "
        "it runs in hundreds of orders of events, each of which follows from a seed."
    )
    out.print("\nThe driver that forgets the Resync\n", style="bold")
    try:
        explore(scenario_with(Forgetful), SEEDS, record=options.record)
    except ScheduleFailed as failure:
        found = True
        for line in str(failure).splitlines():
            out.print(folded(line), markup=False, soft_wrap=True)
    if found:
        out.print("\n✓ found", style="green")
    else:
        out.print("✗ NOT SO: nothing was found", style="bold red")
    explored = explore(scenario_with(Careful), SEEDS)
    out.print(
        f"✓ with the library's table, none of {explored.schedules} schedules fails", style="green"
    )
    return 0 if found else 1


def folded(line: str) -> str:
    """A line of a report in several, where it is too long, below each other."""
    column = len(line) - len(line.lstrip())
    if column < 17 and line.startswith(" "):
        column = 17  # who asked stands to the left of what
    return fill(line, WIDTH, subsequent_indent=" " * (column + 4), break_on_hyphens=False)


if __name__ == "__main__":
    end_with_the_pipe()
    sys.exit(main())
