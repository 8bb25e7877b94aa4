"""The program behind `python -m ioasid.testing`: every shipped scenario, on every processor.

Exits with 0 if no schedule failed, with 1 if one did, and prints the report then.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeAlias

from attrs import define, frozen

from ioasid.testing._explore import Backend, ScheduleFailed, explore, replay
from ioasid.testing._scenarios import SCENARIOS

__all__: list[str] = []

CHUNK: Final = 100
"""How many schedules a process runs before it reports."""

Advance: TypeAlias = Callable[[str, int], None]


@frozen
class Chunk:
    """Some schedules of one scenario."""

    scenario: str
    backend: Backend
    first: int
    count: int


@define
class Total:
    """What the schedules of one scenario on one backend came to."""

    schedules: int = 0
    requests: int = 0
    seconds: float = 0.0
    report: str = ""
    """Of the failure with the lowest seed of all chunks that failed."""
    failed: int | None = None


def run_chunk(chunk: Chunk) -> Total:
    """Run some schedules, in this process; a failure is told in the report."""
    scenario, leaks = SCENARIOS[chunk.scenario]
    seeds = range(chunk.first, chunk.first + chunk.count)
    begin = time.perf_counter()
    try:
        explored = explore(scenario, seeds, backend=chunk.backend, leaks=leaks)
    except ScheduleFailed as failure:
        seconds = time.perf_counter() - begin
        seed = failure.found.seed
        assert seed is not None
        return Total(seed - chunk.first, 0, seconds, str(failure), seed)
    seconds = time.perf_counter() - begin
    return Total(explored.schedules, explored.requests, seconds)


def run_all(
    names: Sequence[str], schedules: int, on_trio: int, *, jobs: int, first: int, advance: Advance
) -> dict[tuple[str, Backend], Total]:
    """Run `schedules` per scenario on asyncio and `on_trio` on trio, in `jobs` processes.

    `advance` is called with a scenario's name and how many schedules more are done.
    """
    counts: tuple[tuple[Backend, int], ...] = (("asyncio", schedules), ("trio", on_trio))
    chunks = [
        Chunk(name, backend, start, min(CHUNK, first + count - start))
        for backend, count in counts
        for name in names
        for start in range(first, first + count, CHUNK)
    ]
    totals: dict[tuple[str, Backend], Total] = {
        (each.scenario, each.backend): Total() for each in chunks
    }
    with ProcessPoolExecutor(jobs) as pool:
        pending: dict[Future[Total], Chunk] = {
            pool.submit(run_chunk, each): each for each in chunks
        }
        for done in as_completed(pending):
            chunk, found = pending[done], done.result()
            total = totals[chunk.scenario, chunk.backend]
            total.schedules += found.schedules
            total.requests += found.requests
            total.seconds += found.seconds
            if found.failed is not None and (total.failed is None or found.failed < total.failed):
                total.failed, total.report = found.failed, found.report
            advance(chunk.scenario, chunk.count)
    return totals


@contextmanager
def shown(names: Sequence[str], each: int) -> Iterator[Advance]:
    """Show progress, a bar per scenario; gives what advances one."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:<38}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        tasks = {name: progress.add_task(name, total=each) for name in names}
        yield lambda name, count: progress.advance(tasks[name], count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    options = _parser().parse_args(arguments)
    names = options.scenarios or list(SCENARIOS)
    if options.seed is not None:
        return _show(names, options.seed, options.backend)
    on_trio = options.schedules // 20 if options.trio is None else options.trio
    begin = time.perf_counter()
    run = partial(
        run_all, names, options.schedules, on_trio, jobs=options.jobs, first=options.first
    )
    with shown(names, options.schedules + on_trio) as advance:
        totals = run(advance=advance)
    seconds = time.perf_counter() - begin
    for (name, backend), total in totals.items():
        if total.report:
            print(f"\n{total.report}")
            print(
                f"\nOr: python -m ioasid.testing {name} --backend {backend} --seed {total.failed}"
            )
    schedules = sum(each.schedules for each in totals.values())
    requests = sum(each.requests for each in totals.values())
    failed = sum(each.failed is not None for each in totals.values())
    print(
        f"{schedules:,} schedules of {len(names)} scenarios, {requests:,} requests with the "
        f"invariants checked on the way, in {seconds:.0f} s ({schedules / seconds:.0f} a second): "
        f"{failed or 'none'} failed"
    )
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ioasid.testing",
        description="Run the shipped scenarios under many schedules, every invariant checked.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--schedules", type=int, default=10_000, help="per scenario, on asyncio")
    parser.add_argument("--trio", type=int, help="per scenario, on trio (a twentieth of those)")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="run this one schedule and show its history")
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    return parser


def _show(names: Sequence[str], seed: int, backend: Backend) -> int:
    failed = False
    for name in names:
        scenario, leaks = SCENARIOS[name]
        run = replay(scenario, seed, backend=backend, leaks=leaks)
        print(f"{name}, seed {seed} on {backend}: {run.failure or 'holds'}\n\n{run.text}\n")
        failed = failed or run.error is not None
    return 1 if failed else 0
