"""What it costs to record: an ask that is recorded beside one that is not, and a line by itself."""

from contextlib import AsyncExitStack
from io import FileIO
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.asks import CAPACITY, pass_of, through_session
from benchmarks.measure import Figure, Plan, figure, require, take_turns
from ioasid.actors import Decision, open_allocator, tapped
from ioasid.core import Allocator
from ioasid.recorder import Recorder, record
from ioasid.testing import StormSettings, storm


async def recorder(backend: str, plan: Plan) -> list[Figure]:
    """Measure how much longer an ask takes, and what one line of a storm's recording does.

    The asks are those of 100 clients at once, so that little but the decisions is measured. A line
    of a storm has events, references and Resyncs in it, which that of an allocation has not.
    """
    clients, asks = 100, plan.scaled(50, 10)
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            plain = await stack.enter_async_context(open_allocator(capacity=CAPACITY))
            stack.enter_context(record(Path(folder) / "asks.jsonl"))
            recorded = await stack.enter_async_context(open_allocator(capacity=CAPACITY))
            passes = {
                name: pass_of(
                    through_session(each, (await each.alloc_set(token="vm")).sid, asks),
                    clients,
                    asks,
                )
                for name, each in (("recorded", recorded), ("not recorded", plain))
            }
            times = await take_turns(passes, plan)
        lines = await _lines(plan, Path(folder))
    more = zip(times["recorded"], times["not recorded"], strict=True)
    return [
        figure(
            [(with_it - without) * 1e6 for with_it, without in more],
            name="recorder",
            backend=backend,
            unit="µs more an ask",
            target=15.0,
            beside={name: mean(each) * 1e6 for name, each in times.items()},
        ),
        figure(
            [each * 1e6 for each in lines],
            name="recorder_line",
            backend=backend,
            unit="µs a line of a storm",
            target=15.0,
        ),
    ]


async def _lines(plan: Plan, folder: Path) -> list[float]:
    decisions: list[Decision] = []
    with tapped(lambda _: decisions.append):
        await storm(StormSettings(vms=10, ops=plan.scaled(3000, 300)))

    times: list[float] = []
    for _ in range(plan.repeats + 1):
        path = folder / "storm.jsonl"
        with FileIO(path, "w") as file:
            tap = Recorder(file).begin(Allocator(64).snapshot())
            began = perf_counter()
            for each in decisions:
                tap(each)
            times.append((perf_counter() - began) / len(decisions))
        with path.open("rb") as written:
            require(len(decisions) + 1, sum(1 for _ in written), "lines")
    # The first one warms up.
    return times[1:]
