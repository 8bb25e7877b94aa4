"""What the core's plain calls cost, measured by pyperf: several processes, calibrated, warmed up.

Run as a program it is pyperf's: `python benchmarks/calls.py --help`. `core_calls` runs it so.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import pyperf
from attrs import frozen

if not __package__:
    # Run as a file: the folder above is where `benchmarks` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Figure, Lost, Plan, figure, require
from benchmarks.memory import new_core
from ioasid.core import Alloc, Allocated, AllocatedMany, AllocMany, Free, FreeSet, Released

CAPACITY: Final = 1 << 28


@frozen
class Call:
    """A figure that pyperf measures."""

    name: str
    unit: str
    target: float | None
    per: float
    """How much of its unit a second is."""


CALLS: Final = (
    Call("core_alloc", "µs", None, 1e6),
    Call("core_alloc_free", "µs", None, 1e6),
    Call("core_floor", "µs", None, 1e6),
    Call("alloc_many", "s", 0.2, 1),
    Call("free_set_plain", "s", 0.5, 1),
)


FLOORS: Final = 4.2
"""How many times the floor of the same run an alloc with a free may cost."""


async def core_calls(backend: str, plan: Plan) -> list[Figure]:
    """Let pyperf measure the calls, and beside them the floor of an alloc."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "calls.json"
        command = [sys.executable, __file__, "--quiet", "--output", str(output)]
        command += ["--ids", str(plan.scaled(1_000_000, 10_000))]
        if plan.quick:
            command += ["--loops", "100", "--processes", "1", "--values", "2", "--warmups", "0"]
        else:
            command += ["--processes", "5", "--values", "3", "--warmups", "1"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: ASYNC221
        if ran.returncode:
            raise Lost(f"pyperf ended with {ran.returncode}: {ran.stderr}")
        suite = pyperf.BenchmarkSuite.load(str(output))
    values = {
        call.name: [each * call.per for each in suite.get_benchmark(call.name).get_values()]
        for call in CALLS
    }
    targets = {call.name: call.target for call in CALLS}
    targets["core_alloc_free"] = FLOORS * median(values["core_floor"])
    return [
        figure(
            values[call.name],
            name=call.name,
            backend=backend,
            unit=call.unit,
            target=targets[call.name],
        )
        for call in CALLS
    ]


# -- what pyperf calls: each does its work so often, and returns the seconds ----------------------


def alloc(loops: int) -> float:
    core, sid = new_core(CAPACITY)
    handle, session = core.handle, core.session
    began = perf_counter()
    for _ in range(loops):
        handle(session, Alloc(sid))
    seconds = perf_counter() - began
    require(Allocated(loops + 1, loops + 1), handle(session, Alloc(sid)), "the next ID")
    return seconds


def alloc_free(loops: int) -> float:
    core, sid = new_core(CAPACITY)
    handle, session = core.handle, core.session
    began = perf_counter()
    for _ in range(loops):
        handle(session, Alloc(sid))
        handle(session, Free(1))
    seconds = perf_counter() - began
    require(Allocated(1, loops + 1), handle(session, Alloc(sid)), "the next ID")
    return seconds


class Floor:
    """The least that an alloc can be: two messages, two calls, the lowest free bit of one word."""

    def __init__(self) -> None:
        self._word = 0
        self._handlers = {Alloc: self._alloc}

    def handle(self, request: Alloc) -> Allocated:
        return self._handlers[type(request)](request)

    def _alloc(self, _: Alloc) -> Allocated:
        word = self._word
        bit = ~word & (word + 1)
        # As many bits as a word of the core has; then from the start again.
        self._word = word | bit if bit < 1 << 1023 else 0
        return Allocated(bit.bit_length() - 1)


def floor(loops: int) -> float:
    handle = Floor().handle
    began = perf_counter()
    for _ in range(loops):
        handle(Alloc(1))
    return perf_counter() - began


def alloc_many(loops: int, ids: int) -> float:
    seconds = 0.0
    for _ in range(loops):
        core, sid = new_core(ids)
        began = perf_counter()
        answer = core.handle(core.session, AllocMany(sid, ids))
        seconds += perf_counter() - began
        assert isinstance(answer, AllocatedMany)
        require([(1, ids)], [(each.first, each.last) for each in answer.ranges], "ranges")
    return seconds


def free_set(loops: int, ids: int) -> float:
    seconds = 0.0
    for _ in range(loops):
        core, sid = new_core(ids)
        core.handle(core.session, AllocMany(sid, ids))
        core.drain()
        began = perf_counter()
        answer = core.handle(core.session, FreeSet(sid))
        seconds += perf_counter() - began
        require(Released(True), answer, "answer")
    return seconds


def main() -> None:
    def add_arguments(command: list[str], options: argparse.Namespace) -> None:
        command += ["--ids", str(options.ids)]

    runner = pyperf.Runner(add_cmdline_args=add_arguments)
    runner.argparser.add_argument("--ids", type=int, default=1_000_000)
    options = runner.parse_args()
    runner.bench_time_func("core_alloc", alloc)
    runner.bench_time_func("core_alloc_free", alloc_free)
    runner.bench_time_func("core_floor", floor)
    runner.bench_time_func("alloc_many", alloc_many, options.ids)
    runner.bench_time_func("free_set_plain", free_set, options.ids)


if __name__ == "__main__":
    main()
