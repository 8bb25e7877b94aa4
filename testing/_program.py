"""The program behind `python -m ioasid.testing`: every shipped scenario, on every processor.

Exits with 0 if no schedule failed, with 1 if one did, and prints the report then.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import mkstemp
from typing import Final, TypeAlias

from attrs import define

from ioasid.testing._explore import Backend, ScheduleFailed, explore, replay
from ioasid.testing._scenarios import SCENARIOS

__all__: list[str] = []

CHUNK: Final = 500
"""How many schedules a process runs at most before it reports."""

Advance: TypeAlias = Callable[[str, int], None]


@define
class Total:
    """What the schedules of one scenario on one backend came to."""

    schedules: int = 0
    requests: int = 0
    failure: ScheduleFailed | None = None


def run_all(
    names: Sequence[str], schedules: int, on_trio: int, *, jobs: int, first: int, advance: Advance
) -> dict[tuple[str, Backend], Total]:
    """Run `schedules` per scenario on asyncio and `on_trio` on trio, in `jobs` processes.

    `advance` is called with a scenario's name and how many of its schedules on a backend are done.
    """
    counts: tuple[tuple[Backend, int], ...] = (("asyncio", schedules), ("trio", on_trio))
    totals: dict[tuple[str, Backend], Total] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for backend, count in counts:
            # Every process gets several parts, so that none waits long for the last one.
            chunk = min(CHUNK, max(1, count // (4 * jobs)))
            for name in names:
                total = totals[name, backend] = Total()
                scenario, leaks = SCENARIOS[name]
                before = schedules * (backend == "trio")

                def note(
                    done: int, name: str = name, total: Total = total, before: int = before
                ) -> None:
                    total.schedules = done
                    advance(name, before + done)

                try:
                    explored = explore(
                        scenario,
                        range(first, first + count),
                        backend=backend,
                        leaks=leaks,
                        progress=note,
                        executor=pool,
                        chunk=chunk,
                    )
                except ScheduleFailed as failure:
                    total.failure = failure
                else:
                    total.requests = explored.requests
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
        yield lambda name, done: progress.update(tasks[name], completed=done)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.record is not None and not options.record.absolute().parent.is_dir():
        parser.error(f"{options.record.parent} is no folder to record into")
    names = options.scenarios or list(SCENARIOS)
    if options.seed is not None:
        return _show(names, options.seed, options.backend, options.record)
    on_trio = options.schedules // 20 if options.trio is None else options.trio
    begin = time.perf_counter()
    run = partial(
        run_all, names, options.schedules, on_trio, jobs=options.jobs, first=options.first
    )
    with shown(names, options.schedules + on_trio) as advance:
        totals = run(advance=advance)
    seconds = time.perf_counter() - begin
    several = sum(each.failure is not None for each in totals.values()) > 1
    for (name, backend), total in totals.items():
        if total.failure is not None:
            print(f"\n{total.failure}")
            seed = total.failure.found.seed
            print(f"\nOr: python -m ioasid.testing {name} --backend {backend} --seed {seed}")
            part = f"-{name}-{backend}" if several else ""
            path = _record(name, backend, total.failure.shortest.picks, options.record, part)
            print(f"Recorded; draw it: python -m ioasid.recorder draw {path} -o failed.html")
    schedules = sum(each.schedules for each in totals.values())
    requests = sum(each.requests for each in totals.values())
    failed = sum(each.failure is not None for each in totals.values())
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
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="where to record what fails (a temporary file), or with --seed that schedule",
    )
    return parser


def _record(
    name: str, backend: Backend, picks: Mapping[int, int], path: Path | None, part: str
) -> Path:
    if path is None:
        handle, made = mkstemp(prefix=f"{name}-", suffix=".jsonl")
        os.close(handle)
        path = Path(made)
    elif part:
        path = path.with_stem(path.stem + part)
    scenario, leaks = SCENARIOS[name]
    replay(scenario, picks=picks, backend=backend, leaks=leaks, record=path)
    return path


def _show(names: Sequence[str], seed: int, backend: Backend, path: Path | None) -> int:
    failed = False
    for name in names:
        scenario, leaks = SCENARIOS[name]
        several = path is not None and len(names) > 1
        record = path.with_stem(f"{path.stem}-{name}") if path and several else path
        run = replay(scenario, seed, backend=backend, leaks=leaks, record=record)
        print(f"{name}, seed {seed} on {backend}: {run.failure or 'holds'}\n\n{run.text}\n")
        failed = failed or run.error is not None
    return 1 if failed else 0
