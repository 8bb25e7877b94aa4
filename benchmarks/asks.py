"""What an ask costs when 1,000 clients ask at once, and what a hung subscriber adds to it."""

from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any, Final, TypeAlias

from anyio import Event, Lock, create_task_group
from anyio.lowlevel import checkpoint

from benchmarks.floor import Floor, open_floor
from benchmarks.measure import Figure, Lost, Pass, Plan, compare, require, take_turns
from ioasid.actors import Session, open_allocator
from ioasid.core import Alloc, Allocator, AllocSet, SetRecord

CLIENTS: Final = 1000
CAPACITY: Final = 1 << 28
"""Nothing is freed: enough for any number of repeats, and memory follows what is in use."""

Client: TypeAlias = Callable[[list[int]], Awaitable[None]]
"""Asks several times in sequence, and appends the ID that each ask got."""


async def ask_concurrent(names: Collection[str], backend: str, plan: Plan) -> list[Figure]:
    """Compare an ask through a session with the floor and with a lock around the core.

    Every contender has a core of its own, in the same state, and decides the same requests.
    """
    asks = plan.scaled(10, 5)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_allocator(capacity=CAPACITY))
        vm = await session.alloc_set(token="vm")
        contenders = {"session": _through_session(session, vm.sid, asks)}
        if "ask_concurrent" in names:
            core, sid = _new_core()
            floor = await stack.enter_async_context(open_floor(core, backend))
            contenders["floor"] = _through_floor(floor, sid, asks)
        if "ask_concurrent_lock" in names:
            contenders["anyio.Lock"] = _under_lock(*_new_core(), asks)
        contenders["plain call"] = _plainly(*_new_core(), asks)
        passes = {name: _pass_of(each, asks) for name, each in contenders.items()}
        times = await take_turns(passes, plan)
        taken = (plan.repeats + 1) * CLIENTS * asks
        require(taken, (await session.statistics()).active, "IDs that the allocator knows of")
    shown_only = backend == "trio"
    figures = []
    if "ask_concurrent" in names:
        figures.append(
            compare(
                times,
                "session",
                "floor",
                name="ask_concurrent",
                backend=backend,
                unit="x floor",
                target=None if shown_only else 2.0,
            )
        )
    if "ask_concurrent_lock" in names:
        figures.append(
            compare(
                times,
                "session",
                "anyio.Lock",
                name="ask_concurrent_lock",
                backend=backend,
                unit="x anyio.Lock",
                target=None if shown_only else 1.0,
            )
        )
    return figures


async def hung_subscriber(_names: Collection[str], backend: str, plan: Plan) -> list[Figure]:
    """Compare asks beside a hung subscriber with the same asks where nobody subscribes.

    It subscribes to the whole system, so every ask has an event for it; its queue is full, and
    it never comes back from the first message.
    """
    asks = plan.scaled(10, 5)
    queue_size = 256
    async with (
        open_allocator(capacity=CAPACITY) as beside,
        open_allocator(capacity=CAPACITY) as without,
        beside.session("driver") as driver,
        driver.subscribe(queue_size=queue_size) as events,
    ):
        passes = {}
        for name, session in (("one hangs", beside), ("without", without)):
            vm = await session.alloc_set(token="vm")
            for _ in range(queue_size + 2):
                await session.alloc(vm.sid)
            client = _through_session(session, vm.sid, asks)
            passes[name] = _pass_of(client, asks, first=queue_size + 3)
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


# -- the contenders -------------------------------------------------------------------------------


def _through_session(session: Session, sid: int, asks: int) -> Client:
    async def client(ids: list[int]) -> None:
        for _ in range(asks):
            ioasid = await session.alloc(sid)
            ids.append(ioasid)

    return client


def _through_floor(floor: Floor, sid: int, asks: int) -> Client:
    async def client(ids: list[int]) -> None:
        for _ in range(asks):
            reply = await floor.ask(Alloc(sid))
            ids.append(reply.ioasid)

    return client


def _under_lock(core: Allocator, sid: int, asks: int) -> Client:
    lock = Lock()
    number = core.session

    async def client(ids: list[int]) -> None:
        for _ in range(asks):
            reply: Any
            async with lock:
                reply = core.handle(number, Alloc(sid))
            ids.append(reply.ioasid)

    return client


def _plainly(core: Allocator, sid: int, asks: int) -> Client:
    number = core.session

    async def client(ids: list[int]) -> None:
        for _ in range(asks):
            reply: Any = core.handle(number, Alloc(sid))
            ids.append(reply.ioasid)

    return client


def _new_core() -> tuple[Allocator, int]:
    core = Allocator(CAPACITY)
    vm = core.handle(core.session, AllocSet("vm"))
    assert isinstance(vm, SetRecord)
    return core, vm.sid


# -- a pass ---------------------------------------------------------------------------------------


def _pass_of(client: Client, asks: int, first: int = 1) -> Pass:
    """Return the pass in which all clients ask; each ID, from `first` on, is got exactly once.

    The clients are started before the clock is, and wait at a gate; the last one stops it.
    """
    expected = first

    async def run() -> float:
        nonlocal expected
        ids: list[int] = []
        gate = Event()
        ready = 0
        ended = 0.0

        async def start() -> None:
            nonlocal ready, ended
            ready += 1
            await gate.wait()
            await client(ids)
            ready -= 1
            if not ready:
                ended = perf_counter()

        async with create_task_group() as tasks:
            for _ in range(CLIENTS):
                tasks.start_soon(start)
            while ready < CLIENTS:
                await checkpoint()
            began = perf_counter()
            gate.set()
        count = CLIENTS * asks
        require(count, len(ids), "replies")
        if sorted(ids) != list(range(expected, expected + count)):
            raise Lost(f"IDs that are not the {count} from {expected} on, each once")
        expected += count
        return (ended - began) / count

    return run
