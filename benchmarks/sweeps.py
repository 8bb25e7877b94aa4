"""Cost against size: the contenders of the benchmarks again, over a range of sizes.

Prints what it measures, and draws it into docs/performance/, one SVG file for each sweep.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias
from unittest.mock import patch

from attrs import frozen

if not __package__:
    # Run as a file: the folder above is where `benchmarks` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import asks, isolation, memory, plots
from benchmarks.crowds import open_crowd
from benchmarks.fanout import ALLOC, BIND, open_audience, open_floor
from benchmarks.lookups import Guest
from benchmarks.measure import Pass, Plan, take_turns
from benchmarks.snapshots import snapshot_of
from ioasid.core import Priority

Lines: TypeAlias = dict[str, dict[int, float]]
"""By contender, the cost by size."""
FOLDER: Final = Path(__file__).resolve().parents[1] / "docs" / "performance"


@frozen
class Sweep:
    """A plot to be."""

    name: str
    title: str
    size: str
    cost: str
    measure: Callable[[Plan], Awaitable[Lines]]


async def asks_by_clients(plan: Plan) -> Lines:
    lines: Lines = {}
    for clients in _sizes(10_000, plan):
        each = max(10, plan.scaled(10_000, 100) // clients)
        async with asks.open_contenders("asyncio", clients, each) as contenders:
            await _add(lines, clients, contenders, plan, 1e6)
    return lines


async def events_by_subscribers(plan: Plan) -> Lines:
    lines: Lines = {}
    for subscribers in _sizes(1000, plan):
        tiers, events = [Priority.LAST] * subscribers, max(10, 5000 // subscribers)
        async with (
            open_floor(subscribers) as floor,
            open_audience(ALLOC, tiers) as allocs,
            open_audience(BIND, tiers) as binds,
        ):
            contenders = {
                "floor": floor.until_acknowledged(events),
                "ALLOC": allocs.until_acknowledged(events),
                "BIND or UNBIND": binds.until_acknowledged(events),
            }
            await _add(lines, subscribers, contenders, plan, 1e6 / subscribers)
    return lines


async def events_by_sets(plan: Plan) -> Lines:
    sizes = _sizes(10_000, plan)[1:]
    async with AsyncExitStack() as stack:
        crowds = {str(sets): await stack.enter_async_context(open_crowd(sets)) for sets in sizes}
        times = await take_turns({sets: each.passing(1000) for sets, each in crowds.items()}, plan)
    return {"an event of one set": {int(sets): median(times[sets]) * 1e6 for sets in times}}


async def lookups_by_ids(plan: Plan) -> Lines:
    guests = {ids: Guest(ids) for ids in _sizes(100_000, plan)[2:]}
    passes: dict[str, Pass] = {}
    for ids, guest in guests.items():
        passes[f"{ids} of 100"] = guest.looking_up(100, 20_000)
        passes[f"{ids} of all"] = guest.looking_up(ids, 20_000)
    times = await take_turns(passes, plan)
    return {
        name: {ids: median(times[f"{ids} {key}"]) * 1e6 for ids in guests}
        for name, key in (("any of 100 IDs", "of 100"), ("any of all IDs", "of all"))
    }


async def bytes_by_ids(plan: Plan) -> Lines:
    return {
        name: {ids: memory.bytes_each(build, ids) for ids in _sizes(largest, plan)[2:]}
        for name, build, largest in (
            ("plain, in a row", memory.in_a_row, 1_000_000),
            ("plain, every second", memory.scattered, 1_000_000),
            ("spid, data, two holders", memory.full, 100_000),
        )
    }


async def snapshots_by_ids(plan: Plan) -> Lines:
    lines: Lines = {}
    for ids in _sizes(1_000_000, plan)[3:]:
        times, _ = await snapshot_of(ids, plan)
        for name, seconds in times.items():
            lines.setdefault(name, {})[ids] = median(seconds)
    return lines


async def tiers_by_events(plan: Plan) -> Lines:
    lines: Lines = {}
    for at_once in _sizes(1000, plan):
        async with (
            open_audience(BIND, list(Priority), at_once) as chain,
            open_audience(BIND, [Priority.LAST], at_once) as single,
        ):
            rounds = 2 * max(1, 250 // at_once)  # as many UNBINDs as BINDs
            contenders = {
                "through four tiers": chain.until_acknowledged(rounds),
                "through one": single.until_acknowledged(rounds),
            }
            await _add(lines, at_once, contenders, plan, 1e6)
    return lines


async def isolation_by_share(plan: Plan) -> Lines:
    lines: Lines = {"p99 of the other's ask, x idle": {}, "throughput, x flood alone": {}}
    for share in (1, 2, 4, 8, 16, 64):
        # Nobody is to choose it but here, so it is no argument of anything.
        with patch("ioasid.actors._mailbox.SHARE", share):
            late, throughput, _ = await isolation.isolation("asyncio", plan)
        for line, found in zip(lines.values(), (late, throughput), strict=True):
            line[share] = found.value
    return lines


SWEEPS: Final = (
    Sweep("asks", "An ask", "clients asking at once", "µs", asks_by_clients),
    Sweep(
        "fanout",
        "An event, acknowledged by all",
        "subscribers",
        "µs per subscriber",
        events_by_subscribers,
    ),
    Sweep(
        "filtered",
        "An event for 10 subscribers among others",
        "sets with 10 subscribers each",
        "µs",
        events_by_sets,
    ),
    Sweep(
        "isolation",
        "Beside another VM's flood",
        "share: the most requests of a lane in a batch",
        "x",
        isolation_by_share,
    ),
    Sweep("lookups", "find_by_spid", "IDs of the set", "µs", lookups_by_ids),
    Sweep("memory", "Memory of an ID", "IDs", "bytes", bytes_by_ids),
    Sweep("snapshots", "A whole snapshot, encoded, and back", "IDs", "s", snapshots_by_ids),
    Sweep("tiers", "A BIND, acknowledged", "BINDs under way at once", "µs", tiers_by_events),
)


def _sizes(largest: int, plan: Plan) -> list[int]:
    """Return the powers of ten up to the largest, or up to 1,000 if it is to be quick."""
    sizes = [10**power for power in range(len(str(largest)))]
    return [size for size in sizes if not plan.quick or size <= 1000]


async def _add(
    lines: Lines, size: int, contenders: dict[str, Pass], plan: Plan, per_second: float
) -> None:
    times = await take_turns(contenders, plan)
    for name, seconds in times.items():
        lines.setdefault(name, {})[size] = median(seconds) * per_second


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = [each.name for each in SWEEPS]
    parser.add_argument("--only", action="append", choices=names, help="measure only this")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: to try it out")
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder of the SVG files")
    options = parser.parse_args(arguments)
    plan = Plan(2 if options.quick else 5, options.quick, collecting=False)
    options.output.mkdir(parents=True, exist_ok=True)
    for sweep in SWEEPS:
        if options.only and sweep.name not in options.only:
            continue
        lines = asyncio.run(_measure(sweep, plan))
        for name, costs in lines.items():
            print(
                f"{sweep.name}: {name}:", *(f"{size}: {cost:.3g}" for size, cost in costs.items())
            )
        path = options.output / f"{sweep.name}.svg"
        plots.draw(path, sweep.title, sweep.size, sweep.cost, lines)
        print(f"drawn: {path}")


async def _measure(sweep: Sweep, plan: Plan) -> Lines:
    return await sweep.measure(plan)


if __name__ == "__main__":
    main()
