"""Measure what the allocator costs, against floors in the same run.

Prints a table and writes the figures to build/bench.json. The exit status is 0 when everything
was measured, be the targets met or not (those missed are marked), and 1 when a reply or a delivery
was lost anywhere, for then there is no figure of that.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import anyio
from attrs import frozen
from rich.console import Console

if not __package__:
    # Run as a file: the folder above is where `benchmarks` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import report
from benchmarks.asks import ask_concurrent, ask_sequential
from benchmarks.calls import CALLS, core_calls
from benchmarks.crowds import fanout_filtered
from benchmarks.drivers import fair_driver
from benchmarks.durable import (
    checkpoint_pause,
    durable_concurrent,
    durable_sequential,
    recovery,
)
from benchmarks.fanout import fanout, tiers
from benchmarks.isolation import hung_subscriber, isolation
from benchmarks.lookups import find_by_spid
from benchmarks.measure import Figure, Lost, Plan
from benchmarks.memory import full_ids, plain_ids
from benchmarks.migration import migration
from benchmarks.pauses import SCENES, pauses, references_flat
from benchmarks.peers.compare import peer_asks, peer_fanout, peer_filtered, peers
from benchmarks.recording import recorder
from benchmarks.snapshots import restore_bound, snapshot
from benchmarks.sockets import (
    socket_concurrent,
    socket_memory,
    socket_sequential,
    socket_stopped_reader,
)

ASYNCIO: Final = ("asyncio", "uvloop")
EVERYWHERE: Final = ("asyncio", "uvloop", "trio")
NO_LOOP: Final = "core"
"""The backend of what is measured by plain calls."""


@frozen
class Benchmark:
    """Contenders that take turns in one run, and the figures that come out of it."""

    names: tuple[str, ...]
    backends: tuple[str, ...]
    measure: Callable[[str, Plan], Awaitable[list[Figure]]]


BENCHMARKS: Final = (
    Benchmark(("ask_concurrent", "ask_concurrent_lock"), EVERYWHERE, ask_concurrent),
    Benchmark(("ask_sequential",), EVERYWHERE, ask_sequential),
    Benchmark(tuple(call.name for call in CALLS), (NO_LOOP,), core_calls),
    Benchmark(("plain_id_bytes",), (NO_LOOP,), plain_ids),
    Benchmark(("full_id_bytes",), (NO_LOOP,), full_ids),
    Benchmark(("fanout", "fanout_told", "fanout_staged", "fanout_staged_told"), ASYNCIO, fanout),
    Benchmark(("fanout_filtered",), ASYNCIO, fanout_filtered),
    Benchmark(("find_by_spid",), (NO_LOOP,), find_by_spid),
    Benchmark(("migrate_1024",), (NO_LOOP,), migration),
    Benchmark(tuple(SCENES), (NO_LOOP,), pauses),
    Benchmark(("references_flat",), (NO_LOOP,), references_flat),
    Benchmark(("tiers",), ASYNCIO, tiers),
    Benchmark(("snapshot", "snapshot_bytes"), (NO_LOOP,), snapshot),
    Benchmark(("restore_bound",), (NO_LOOP,), restore_bound),
    Benchmark(("isolation_p99", "isolation_throughput", "flood_recovery"), ASYNCIO, isolation),
    Benchmark(("hung_subscriber",), ASYNCIO, hung_subscriber),
    Benchmark(("fair_driver",), ASYNCIO, fair_driver),
    Benchmark(("durable_concurrent",), ASYNCIO, durable_concurrent),
    Benchmark(("durable_sequential",), ASYNCIO, durable_sequential),
    Benchmark(("checkpoint_pause",), ASYNCIO, checkpoint_pause),
    Benchmark(("recovery", "recovery_plain"), ("asyncio",), recovery),
    Benchmark(("recorder", "recorder_line"), ASYNCIO, recorder),
    Benchmark(("socket_sequential",), ASYNCIO, socket_sequential),
    Benchmark(("socket_concurrent",), ASYNCIO, socket_concurrent),
    Benchmark(("socket_stopped_reader",), ASYNCIO, socket_stopped_reader),
    Benchmark(("socket_memory", "socket_crowd", "socket_connects"), ASYNCIO, socket_memory),
)
PEERS: Final = (
    Benchmark(("peer_ask_fastest", "peer_ask_rest"), ASYNCIO, peer_asks),
    Benchmark(("peer_fanout_fastest",), ASYNCIO, peer_fanout),
    Benchmark(("peer_filtered_fastest",), ASYNCIO, peer_filtered),
)
NAMES: Final = tuple(name for each in (*BENCHMARKS, *PEERS) for name in each.names)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    plan = Plan(options.repeats or (3 if options.quick else 7), options.quick, options.gc)
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    began = perf_counter()
    figures: list[Figure] = []
    lost: list[Lost] = []
    for benchmark in PEERS if options.peers else BENCHMARKS:
        names = [name for name in benchmark.names if not options.only or name in options.only]
        for backend in benchmark.backends:
            if not names or (options.backend and backend not in (*options.backend, NO_LOOP)):
                continue
            if not is_installed(backend):
                console.print(f"{backend} is not installed here: left out")
                continue
            print(f"measuring {', '.join(names)} on {backend} ...", file=sys.stderr, flush=True)
            try:
                measured = run(benchmark, backend, plan)
            except (Lost, ExceptionGroup) as error:
                if not lost_in(error):
                    raise
                lost += lost_in(error)
                print(*lost_in(error), "There is no figure then.", sep="\n", file=sys.stderr)
            else:
                figures += [each for each in measured if each.name in names]
    if figures:
        facts = report.about(plan, perf_counter() - began, peers() if options.peers else [])
        report.show(console, figures, facts)
        report.write(options.output, figures, facts, keeping=options.peers)
        console.print(f"written to {options.output}")
    return 1 if lost else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", choices=NAMES, help="measure only this")
    parser.add_argument("--backend", action="append", choices=EVERYWHERE, help="only on this one")
    parser.add_argument("--peers", action="store_true", help="compare with peers, add the figures")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to try it out")
    parser.add_argument("--repeats", type=positive, help="turns that count (default 7, quick 3)")
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


def run(benchmark: Benchmark, backend: str, plan: Plan) -> list[Figure]:
    """Run a benchmark on an event loop of its own."""
    options: dict[str, Any] = {"use_uvloop": True} if backend == "uvloop" else {}
    loop = "trio" if backend == "trio" else "asyncio"
    return anyio.run(benchmark.measure, backend, plan, backend=loop, backend_options=options)


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


if __name__ == "__main__":
    sys.exit(main())
