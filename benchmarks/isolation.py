"""What one VM's flood, or a subscriber that hangs, costs the asks of others."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median, quantiles
from time import perf_counter
from typing import Final

from anyio import Event, create_task_group, sleep
from attrs import define, field

from benchmarks.asks import CAPACITY, pass_of, through_session
from benchmarks.measure import Figure, Lost, Plan, compare, require, take_turns
from ioasid.actors import Session, open_allocator

SAMPLES: Final = 100
"""Asks that a 99th percentile is taken of, at the least."""

RECOVERY: Final = 0.05
"""Seconds after a single ask in which a flood's throughput is looked at."""


async def isolation(backend: str, plan: Plan) -> list[Figure]:
    """Compare a VM's asks beside another VM's flood with the same on an idle allocator.

    The flood is 10,000 tasks, each of which asks again as soon as it is answered; the other VM
    is one client that asks in sequence. Each of the two has a session of its own. Compared as well
    is what the flood gets done right after the other one asked just once.
    """
    tasks, seconds = plan.scaled(10_000, 500), plan.scaled(10, 1) / 10
    idle: list[float] = []
    flooded: list[float] = []
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_allocator())
        flood = await _Vm.create(await stack.enter_async_context(session.session("flood")))
        other = await _Vm.create(await stack.enter_async_context(session.session("other")))

        async def undisturbed() -> float:
            began = perf_counter()
            await other.ask_in_sequence(began + seconds)
            idle.append(other.percentile())
            return median(other.latencies)

        async def alone() -> float:
            async with _flooding(flood, tasks):
                before, began = flood.answered, perf_counter()
                await sleep(seconds)
                return (perf_counter() - began) / (flood.answered - before)

        async def both() -> float:
            async with _flooding(flood, tasks):
                before, began = flood.answered, perf_counter()
                await other.ask_in_sequence(began + seconds)
                answered = flood.answered - before + len(other.latencies)
                flooded.append(other.percentile())
                return (perf_counter() - began) / answered

        async def after_one() -> float:
            answered, took = 0, 0.0
            async with _flooding(flood, tasks):
                for _ in range(plan.scaled(5, 1)):
                    await other.ask_once()
                    before, began = flood.answered, perf_counter()
                    await sleep(RECOVERY)
                    took += perf_counter() - began
                    answered += flood.answered - before
                    await sleep(3 * RECOVERY)
            return took / answered

        passes = {
            "idle": undisturbed,
            "flood alone": alone,
            "flood and other": both,
            "flood after an ask": after_one,
        }
        times = await take_turns(passes, plan)
    # The first of each is the round that warms up.
    late = {"p99 beside the flood": flooded[1:], "p99 when idle": idle[1:]}
    return [
        compare(
            late,
            "p99 beside the flood",
            "p99 when idle",
            name="isolation_p99",
            backend=backend,
            unit="x idle",
            target=2.0,
        ),
        compare(
            times,
            "flood alone",
            "flood and other",
            name="isolation_throughput",
            backend=backend,
            unit="x of the flood alone, at least",
            target={"asyncio": 0.5, "uvloop": 0.55}[backend],
            at_least=True,
        ),
        compare(
            times,
            "flood alone",
            "flood after an ask",
            name="flood_recovery",
            backend=backend,
            unit="x of the flood alone, at least",
            target=0.9,
            at_least=True,
        ),
    ]


@define
class _Vm:
    """A VM with a session and a set of its own, that allocates an ID and frees it, in turn."""

    session: Session
    sid: int
    answered: int = 0
    latencies: list[float] = field(factory=list)

    @classmethod
    async def create(cls, session: Session) -> "_Vm":
        vm = await session.alloc_set(token=session.name, quota=20_000)
        return cls(session, vm.sid)

    async def ask_once(self) -> None:
        """Ask, where there are no latencies to measure."""
        require(True, await self.session.free(await self.session.alloc(self.sid)), "reclaimed")

    async def ask_in_sequence(self, until: float) -> None:
        """Ask until then, and longer if that gave too few samples."""
        self.latencies.clear()
        ioasid: int | None = None
        asked = perf_counter()
        while asked < until or len(self.latencies) < SAMPLES or ioasid is not None:
            if ioasid is None:
                ioasid = await self.session.alloc(self.sid)
            else:
                require(True, await self.session.free(ioasid), "reclaimed")
                ioasid = None
            answered = perf_counter()
            self.latencies.append(answered - asked)
            asked = answered

    def percentile(self) -> float:
        """Return the 99th percentile of the latencies, in seconds."""
        return quantiles(self.latencies, n=100)[-1]

    async def flood(self, leave: Event, joined: Callable[[], None]) -> None:
        """Ask again whenever answered, until it is time to leave."""
        first = True
        while not leave.is_set():
            ioasid = await self.session.alloc(self.sid)
            self.answered += 1
            if first:
                first = False
                joined()
            require(True, await self.session.free(ioasid), "reclaimed")
            self.answered += 1


@asynccontextmanager
async def _flooding(vm: _Vm, tasks: int) -> AsyncIterator[None]:
    # Gives way once every task was answered, and has thus asked again.
    leave, all_joined = Event(), Event()
    joined = 0

    def join() -> None:
        nonlocal joined
        joined += 1
        if joined == tasks:
            all_joined.set()

    async with create_task_group() as group:
        for _ in range(tasks):
            group.start_soon(vm.flood, leave, join)
        await all_joined.wait()
        yield
        leave.set()


async def hung_subscriber(backend: str, plan: Plan) -> list[Figure]:
    """Compare asks beside a hung subscriber with the same asks where its session is idle.

    It subscribes to the whole system, so every ask has an event for it; its queue is full, and
    it never comes back from the first message.
    """
    clients, asks, queue_size = 1000, plan.scaled(10, 5), 256
    async with (
        open_allocator(capacity=CAPACITY) as beside,
        open_allocator(capacity=CAPACITY) as without,
        beside.session("driver") as driver,
        without.session("driver"),
        driver.subscribe(queue_size=queue_size) as events,
    ):
        passes = {}
        for name, session in (("one hangs", beside), ("without", without)):
            vm = await session.alloc_set(token="vm")
            for _ in range(queue_size + 2):
                await session.alloc(vm.sid)
            client = through_session(session, vm.sid, asks)
            passes[name] = pass_of(client, clients, asks, first=queue_size + 3)
        await anext(events)
        times = await take_turns(passes, plan)
        (lagging,) = (await beside.statistics()).lagging
        if lagging.holder != "driver" or not 0 < lagging.queued <= queue_size + 1:
            raise Lost(f"the subscriber is to hang behind a bounded queue: {lagging}")
        require((), (await without.statistics()).lagging, "subscribers that lag")
    return [
        compare(
            times,
            "one hangs",
            "without",
            name="hung_subscriber",
            backend=backend,
            unit="x without",
            target=1.2,
        )
    ]
