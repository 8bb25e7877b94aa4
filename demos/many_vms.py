"""A storm over one host: many VMs, shared devices, crashes everywhere, and nothing may go wrong.

    python demos/many_vms.py [--vms 200] [--devices 4] [--ops 200000] [--crash-rate 0.01]
                             [--seed N] [--backend asyncio|uvloop|trio] [--kernel] [--json]
                             [--record FILE]

It is `ioasid.testing.storm` with a progress bar and a table. Exits with 1 if any rule was broken.
With --kernel the IOMMU driver programs a fake Linux kernel, by its ioctls and in a worker thread,
in place of a model. With --json it writes one event a line. The same seed and arguments repeat
every choice, whatever the backend; whom each choice meets depends on how the tasks interleave.
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec
from attrs import asdict
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.terminal import console, end_with_the_pipe
from ioasid.core import InvalidArgument, Statistics
from ioasid.recorder import record
from ioasid.testing import FakeKernel, StormReport, StormSettings, storm

BACKENDS = ("asyncio", "uvloop", "trio")


class Lines:
    """Writes what happens as JSON, an event a line."""

    def begin(self, settings: StormSettings, backend: str) -> None:
        """Say what is about to happen."""
        self._write(
            "begin", {**asdict(settings), "backend": backend, "capacity": settings.capacity}
        )

    def sample(self, done: int, figures: Statistics) -> None:
        """Tell of a look at the whole state."""
        facts = msgspec.to_builtins(figures)
        self._write("sample", {"operations": done, **facts, "lagging": len(figures.lagging)})

    def violation(self, text: str) -> None:
        """Tell of a rule that was broken, when it is found."""
        self._write("violation", {"text": text})

    def end(self, report: StormReport) -> None:
        """Tell what it came to."""
        self._write("end", {**report.as_dict(), "peak_mib": peak_memory()})

    def _write(self, event: str, facts: dict[str, Any]) -> None:
        print(json.dumps({"event": event, **facts}), flush=True)


class Page:
    """Writes what happens for people, with a progress bar on a terminal."""

    def __init__(self) -> None:
        self._console = console()
        self._progress = Progress(
            TextColumn("storm"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]} IDs live"),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )

    def begin(self, settings: StormSettings, backend: str) -> None:
        """Say what is about to happen."""
        self._console.print(
            f"{settings.vms} VMs share {settings.devices} devices and {settings.capacity:,} PASIDs "
            f"on {backend}: {settings.ops:,} operations by {settings.workers} tasks, "
            f"crash rate {settings.crash_rate:g}, seed {settings.seed}."
        )
        self._progress.start()
        self._progress.add_task("", total=settings.ops, live=0)

    def sample(self, done: int, figures: Statistics) -> None:
        """Tell of a look at the whole state."""
        for task in self._progress.task_ids:
            live = figures.active + figures.free_pending
            self._progress.update(task, completed=done, live=live)

    def violation(self, text: str) -> None:
        """Tell of a rule that was broken, when it is found."""
        self._console.print(f"[bold red]✗[/bold red] {escape(text)}")

    def end(self, report: StormReport) -> None:
        """Tell what it came to."""
        self._progress.stop()
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        for row in report.figures():
            table.add_row(*row)
        self._console.print(table)
        self._console.print(
            f"\n{report.done:,} operations in {report.seconds:.1f} s: "
            f"{report.done / report.seconds:,.0f} a second; {report.decisions:,} decisions of the "
            f"allocator: {report.decisions / report.seconds:,.0f} a second."
        )
        peak = peak_memory()
        if peak is not None:
            self._console.print(f"Peak memory {peak:,.0f} MiB.")
        self._console.print(
            f"Choices {report.choices or '(not all drawn)'}: repeated by the same seed, VMs, ops "
            "and crash rate on any backend; whom each choice meets depends on the schedule."
        )
        self._console.print(report.summary(), style="bold" if report.holds else "bold red")


def peak_memory() -> float | None:
    """Return the most memory the process ever had, in MiB; `None` where nobody knows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def count(text: str) -> int:
    """Read an option that counts something."""
    if not text.isdecimal() or not 1 <= int(text[:12]) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no count: 1 or more, at most 10^9")
    return int(text)


def rate(text: str) -> float:
    """Read an option that is a part of something."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: a number from 0 to 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the storm; the exit code is 0 if every rule held, 1 if not, 2 for bad arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--vms", type=count, default=200, help="default 200")
    parser.add_argument("--devices", type=count, default=4, help="default 4")
    parser.add_argument("--ops", type=count, default=200_000, help="default 200000")
    parser.add_argument("--crash-rate", type=rate, default=0.01, help="0 to 1, default 0.01")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--backend", choices=BACKENDS, default="asyncio")
    parser.add_argument("--kernel", action="store_true", help="over a fake Linux kernel")
    parser.add_argument("--json", action="store_true", help="write one event a line, as JSON")
    parser.add_argument("--record", metavar="FILE", help="write all that happens into a file")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec(given.backend) is None:
        parser.error(f"{given.backend} is not installed")
    try:
        settings = StormSettings(given.vms, given.devices, given.ops, given.crash_rate, given.seed)
    except InvalidArgument as error:
        parser.error(str(error))
    output = Lines() if given.json else Page()

    async def run() -> StormReport:
        return await storm(
            settings,
            kernel=FakeKernel() if given.kernel else None,
            on_violation=output.violation,
            on_sample=output.sample,
        )

    with ExitStack() as stack:
        if given.record is not None:
            try:
                stack.enter_context(record(given.record))
            except OSError as error:
                parser.error(str(error))
        output.begin(settings, given.backend)
        report = anyio.run(
            run,
            backend="trio" if given.backend == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if given.backend == "uvloop" else {},
        )
    output.end(report)
    return 0 if report.holds else 1


if __name__ == "__main__":
    end_with_the_pipe()
    sys.exit(main())
