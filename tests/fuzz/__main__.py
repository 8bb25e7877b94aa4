"""Feed anything to the decoders, a socket, the core and `restore`: `python -m tests.fuzz`.

Exits with 0 if nothing but messages, typed errors and sound allocators came of it, with 1 if
something else did; the failing cases are printed then, each with how to run it again.
"""

import argparse
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from attrs import define, field, frozen
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.fuzz.targets import TARGETS

CASES: Final = {
    "decode": 700_000,
    "frames": 200_000,
    "handle": 300_000,
    "restore": 50_000,
    "bursts": 2000,
}
"""How many cases of each target make a run."""
PER_ROUND: Final = {"decode": 2000, "frames": 1000, "handle": 1000, "restore": 200, "bursts": 5}
"""How many cases share a seed, and with it a state or examples."""


@frozen
class Round:
    """Some cases of a target; everything in them follows from the seed."""

    target: str
    seed: int
    cases: int


@define
class Outcome:
    """What rounds came to."""

    counts: Counter[str] = field(factory=Counter)
    """How many cases came to what."""
    seconds: float = 0.0
    """Of processor time."""
    failures: list[str] = field(factory=list)


def run_round(each: Round) -> Outcome:
    """Run one round, up to its first failure."""
    choose = random.Random(f"{each.target} {each.seed}")
    outcome = Outcome()
    begin = time.process_time()
    target = None
    try:
        target = TARGETS[each.target](choose)
        for _ in range(each.cases):
            outcome.counts[target.case()] += 1
    except Exception:  # noqa: BLE001 - this is what is looked for
        shown = "no case yet" if target is None else target.shown
        outcome.failures.append(
            f"{traceback.format_exc()}{each.target}, seed {each.seed}, "
            f"case {outcome.counts.total()}: {shown}\n"
            f"Again: python -m tests.fuzz --target {each.target} --seed {each.seed}"
        )
    outcome.seconds = time.process_time() - begin
    return outcome


def run(rounds: Sequence[Round], jobs: int) -> dict[str, Outcome]:
    """Run all the rounds, in `jobs` processes, with progress shown."""
    totals = {each.target: Outcome() for each in rounds}
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with ProcessPoolExecutor(jobs) as pool, Progress(*columns) as progress:
        tasks = {
            name: progress.add_task(name, total=sum(x.cases for x in rounds if x.target == name))
            for name in totals
        }
        outcomes = map(run_round, rounds) if jobs == 1 else pool.map(run_round, rounds)
        for each, outcome in zip(rounds, outcomes, strict=True):
            total = totals[each.target]
            total.counts += outcome.counts
            total.seconds += outcome.seconds
            total.failures += outcome.failures
            progress.advance(tasks[each.target], each.cases)
    return totals


def report(totals: dict[str, Outcome]) -> None:
    """Print what came of it."""
    for target, total in totals.items():
        speed = total.counts.total() / max(total.seconds, 0.001)
        print(f"\n{target}: {total.counts.total():,} cases, {speed:,.0f} a second and core")
        for outcome, times in total.counts.most_common():
            print(f"  {times:>9,}  {outcome}")
    failures = [failure for total in totals.values() for failure in total.failures]
    for failure in failures[:10]:
        print(f"\n{failure}")
    count = sum(total.counts.total() for total in totals.values())
    print(f"\n{count:,} cases, {len(failures) or 'no'} failures")


def rounds_of(target: str, cases: int, first: int) -> Iterator[Round]:
    """So many cases of a target as rounds, from the first seed on."""
    size = PER_ROUND[target]
    for index in range(-(-cases // size)):
        yield Round(target, first + index, min(size, cases - index * size))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--target", choices=TARGETS, help="this one only")
    parser.add_argument("--scale", type=float, default=1.0, help="times as many cases")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="run this one round of each target")
    options = parser.parse_args(arguments)
    targets = [options.target] if options.target else list(TARGETS)
    if options.seed is not None:
        rounds = [Round(each, options.seed, PER_ROUND[each]) for each in targets]
    else:
        rounds = [
            round_
            for each in targets
            for round_ in rounds_of(each, max(1, int(CASES[each] * options.scale)), options.first)
        ]
    totals = run(rounds, options.jobs)
    report(totals)
    return 1 if any(total.failures for total in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
