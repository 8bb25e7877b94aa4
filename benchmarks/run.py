"""Measure what an ask and an event cost, against a floor in the same run.

Prints a table and writes the figures to build/bench.json. The exit status is 0 when everything
was measured, be the figures over their targets or not (those are marked), and 1 when a reply or
a delivery was lost, for then there is no figure.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import anyio
from attrs import frozen
from rich.console import Console
from rich.table import Table

if not __package__:
    # Run as a file: the folder above is where `benchmarks` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.asks import ask_concurrent, hung_subscriber
from benchmarks.events import fanout_filtered
from benchmarks.lookups import find_by_spid
from benchmarks.measure import Figure, Lost, Plan

ASYNCIO: Final = ("asyncio", "uvloop")
EVERYWHERE: Final = ("asyncio", "uvloop", "trio")
NO_LOOP: Final = "core"
"""The backend of what is measured by plain calls."""


@frozen
class Benchmark:
    """Contenders that take turns in one run, and the figures that come out of it."""

    names: tuple[str, ...]
    backends: tuple[str, ...]
    measure: Callable[[Collection[str], str, Plan], Awaitable[list[Figure]]]


BENCHMARKS: Final = (
    Benchmark(("ask_concurrent", "ask_concurrent_lock"), EVERYWHERE, ask_concurrent),
    Benchmark(("fanout_filtered",), ASYNCIO, fanout_filtered),
    Benchmark(("find_by_spid",), (NO_LOOP,), find_by_spid),
    Benchmark(("hung_subscriber",), ASYNCIO, hung_subscriber),
)
NAMES: Final = tuple(name for benchmark in BENCHMARKS for name in benchmark.names)

CAVEATS: Final = """\
- Read the ratios, not the times: machines are noisy, and what disturbs a turn disturbs all that
  are compared in it. One process, one thread, no network.
- A plain method call beats every actor on one event loop, where it is atomic already. What an
  actor is for is order, isolation, backpressure and events.
- All contenders of an ask pay for the same core. The floor has no bound, no cancellation, no
  errors, no deliveries and no shutdown; on trio it is shown without a target.
- find_by_spid looks up as many different IDs on both sides. Random look-ups of all IDs ("any of")
  cost more among more, for they don't fit into the processor's caches."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    plan = Plan(options.repeats or (5 if options.quick else 11), options.quick, options.gc)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    began = perf_counter()
    figures: list[Figure] = []
    for benchmark in BENCHMARKS:
        names = [name for name in benchmark.names if not options.only or name in options.only]
        for backend in benchmark.backends:
            if not names or (options.backend and backend not in (*options.backend, NO_LOOP)):
                continue
            if not is_installed(backend):
                console.print(f"{backend} is not installed here: left out")
                continue
            print(f"measuring {', '.join(names)} on {backend} ...", file=sys.stderr, flush=True)
            try:
                figures += run(benchmark, names, backend, plan)
            except (Lost, ExceptionGroup) as error:
                lost = lost_in(error)
                if not lost:
                    raise
                print(*lost, "There is no figure then.", sep="\n", file=sys.stderr)
                return 1
    about = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version_of(name) for name in ("anyio", "uvloop", "trio", "msgspec")},
        "processors": f"{os.cpu_count()} x {processor()}",
        "gc": "on" if plan.collecting else "off during a pass, collected before each",
        "repeats": plan.repeats,
        "quick": plan.quick,
        "seconds": round(perf_counter() - began, 1),
    }
    show(console, figures, about)
    write(options.output, figures, about)
    console.print(f"written to {options.output}")
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=NAMES, help="measure only this")
    parser.add_argument("--backend", action="append", choices=EVERYWHERE, help="only on this one")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to try it out")
    parser.add_argument("--repeats", type=positive, help="turns that count (default 11, quick 5)")
    parser.add_argument("--gc", action="store_true", help="leave the garbage collector on")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parents[1] / "build" / "bench.json",
        help="where to write the figures (default build/bench.json)",
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number of 1 or more")
    return int(text)


def run(benchmark: Benchmark, names: Collection[str], backend: str, plan: Plan) -> list[Figure]:
    """Run a benchmark on an event loop of its own."""
    options: dict[str, Any] = {"use_uvloop": True} if backend == "uvloop" else {}
    loop = "trio" if backend == "trio" else "asyncio"
    return anyio.run(benchmark.measure, names, backend, plan, backend=loop, backend_options=options)


def lost_in(error: Exception) -> list[Lost]:
    """Return what was lost, if that is all that happened."""
    if isinstance(error, Lost):
        return [error]
    if not isinstance(error, ExceptionGroup):
        return []
    parts = [lost_in(each) for each in error.exceptions]
    return [lost for part in parts for lost in part] if all(parts) else []


def is_installed(backend: str) -> bool:
    return backend in ("asyncio", NO_LOOP) or find_spec(backend) is not None


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def show(console: Console, figures: Sequence[Figure], about: Mapping[str, object]) -> None:
    table = Table(title="measured against one another, in turns", title_justify="left")
    table.add_column("figure")
    table.add_column("on")
    table.add_column("median", justify="right")
    table.add_column("quartiles", justify="right")
    table.add_column("target", justify="right")
    table.add_column("unit")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.backend,
            f"{figure.value:.2f}{' !' if figure.is_over else '  '}",
            f"{figure.quartiles[0]:.2f}..{figure.quartiles[1]:.2f}",
            "shown" if figure.target is None else f"{figure.target:.1f}",
            figure.unit,
            style="bold red" if figure.is_over else None,
        )
    console.print(table)
    console.print("median µs of one operation, to see what was compared:")
    # Figures that share their contenders share their times as well.
    times = {(each.backend, *each.microseconds): each for each in figures}
    for figure in times.values():
        parts = ", ".join(f"{name} {each:.1f}" for name, each in figure.microseconds.items())
        console.print(f"  {figure.name.removesuffix('_lock')} on {figure.backend}: {parts}")
    console.print("; ".join(f"{name}: {each}" for name, each in about.items()))
    console.print(CAVEATS)
    over = [f"{figure.name} ({figure.backend})" for figure in figures if figure.is_over]
    with_target = sum(figure.target is not None for figure in figures)
    if over:
        console.print(
            f"OVER TARGET (!): {len(over)} of {with_target}: {', '.join(over)}. The exit status "
            "says only that everything was measured and nothing lost."
        )
    else:
        console.print(f"within target: all {with_target} figures that have one")


def write(path: Path, figures: Sequence[Figure], about: Mapping[str, object]) -> None:
    results = [
        {
            "name": figure.name,
            "backend": figure.backend,
            "value": round(figure.value, 4),
            "unit": figure.unit,
            "target": figure.target,
            "quartiles": [round(each, 4) for each in figure.quartiles],
            "spread": [round(each, 4) for each in figure.spread],
            "repeats": figure.repeats,
            "microseconds": {name: round(each, 4) for name, each in figure.microseconds.items()},
        }
        for figure in figures
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"results": results, "about": about}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
