"""What it takes to write a state of many IDs down, and to go on from it."""

import gc
from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter

from benchmarks.measure import Figure, Pass, Plan, figure, require, take_turns
from benchmarks.memory import bound, in_a_row, scattered, shuffled
from ioasid.core import Allocator, decode_snapshot, encode


async def snapshot(backend: str, plan: Plan) -> list[Figure]:
    """Measure a snapshot with its encoding, and a restore with its decoding.

    Of IDs in a row, of every second ID, and of those in lives that began in no order; what counts
    is the slowest of the ways, and the most bytes.
    """
    times, sizes = await snapshot_of(plan.scaled(1_000_000, 10_000), plan)
    slowest = [max(each) for each in zip(*times.values(), strict=True)]
    return [
        figure(
            slowest,
            name="snapshot",
            backend=backend,
            unit="s",
            target=0.6,
            beside={name: median(each) for name, each in times.items()},
            beside_unit="s",
        ),
        figure(
            [max(sizes.values())],
            name="snapshot_bytes",
            backend=backend,
            unit="bytes per plain ID",
            target=16.0,
            beside=sizes,
            beside_unit="bytes",
        ),
    ]


async def restore_bound(backend: str, plan: Plan) -> list[Figure]:
    """Measure a restore of 100,000 bound IDs with its decoding, and beside it their snapshot.

    The garbage collector is on: so much is made that it is a good part of the time.
    """
    core = bound(plan.scaled(100_000, 1000))
    encoded = encode(core.snapshot())
    restored = Allocator.restore(decode_snapshot(encoded))
    require(True, restored.snapshot() == core.snapshot(), "restored as it was")
    del restored
    passes = {
        "restore": _collecting(_restoring(encoded)),
        "snapshot": _collecting(_taking(core, encoded)),
    }
    times = await take_turns(passes, plan)
    return [
        figure(
            times["restore"],
            name="restore_bound",
            backend=backend,
            unit="s",
            target=0.5,
            beside={name: median(each) for name, each in times.items()},
            beside_unit="s",
        )
    ]


def _collecting(do: Pass) -> Pass:
    async def run() -> float:
        gc.enable()
        return await do()

    return run


async def snapshot_of(count: int, plan: Plan) -> tuple[dict[str, list[float]], Mapping[str, float]]:
    """Return the seconds of each way, and the bytes per ID of each pattern."""
    passes: dict[str, Pass] = {}
    sizes: dict[str, float] = {}
    patterns: dict[str, Callable[[int], Allocator]] = {
        "in a row": in_a_row,
        "scattered": scattered,
        "shuffled": shuffled,
    }
    for pattern, build in patterns.items():
        core = build(count)
        encoded = encode(core.snapshot())
        restored = Allocator.restore(decode_snapshot(encoded))
        require(True, restored.snapshot() == core.snapshot(), "restored as it was")
        sizes[pattern] = len(encoded) / count
        passes[f"snapshot {pattern}"] = _taking(core, encoded)
        passes[f"restore {pattern}"] = _restoring(encoded)
    return await take_turns(passes, plan), sizes


def _taking(core: Allocator, encoded: bytes) -> Pass:
    async def run() -> float:
        began = perf_counter()
        taken = encode(core.snapshot())
        seconds = perf_counter() - began
        require(True, taken == encoded, "the same bytes")
        return seconds

    return run


def _restoring(encoded: bytes) -> Pass:
    async def run() -> float:
        began = perf_counter()
        core = Allocator.restore(decode_snapshot(encoded))
        seconds = perf_counter() - began
        del core
        return seconds

    return run
