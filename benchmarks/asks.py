"""What an ask costs: 1,000 clients at once, and one client in sequence."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any, Final, TypeAlias

from anyio import Event, Lock, create_task_group
from anyio.lowlevel import checkpoint

from benchmarks.floor import Floor, open_floor
from benchmarks.measure import Figure, Lost, Pass, Plan, compare, require, take_turns
from ioasid.actors import Session, open_allocator
from ioasid.core import Alloc, Allocator, AllocSet, SetRecord

CAPACITY: Final = 1 << 28
"""Nothing is freed: enough for any number of repeats, and memory follows what is in use."""

Client: TypeAlias = Callable[[list[int]], Awaitable[None]]
"""Asks several times in sequence, and appends the ID that each ask got."""


async def ask_concurrent(backend: str, plan: Plan) -> list[Figure]:
    """Compare the asks of 1,000 clients with the floor and with a lock around the core."""
    async with open_contenders(backend, 1000, plan.scaled(10, 5)) as passes:
        times = await take_turns(passes, plan)
    return [
        _over_floor("ask_concurrent", times, backend),
        compare(
            times,
            "session",
            "anyio.Lock",
            name="ask_concurrent_lock",
            backend=backend,
            unit="x anyio.Lock",
            target=1.0,
        ),
    ]


async def ask_sequential(backend: str, plan: Plan) -> list[Figure]:
    """Compare the asks of one client, one after the other, with the floor."""
    async with open_contenders(backend, 1, plan.scaled(5000, 500)) as passes:
        times = await take_turns(passes, plan)
    return [_over_floor("ask_sequential", times, backend)]


def _over_floor(name: str, times: dict[str, list[float]], backend: str) -> Figure:
    return compare(
        times,
        "session",
        "floor",
        name=name,
        backend=backend,
        unit="x floor",
        target=1.3 if backend == "trio" else 1.5,
    )


@asynccontextmanager
async def open_contenders(backend: str, clients: int, asks: int) -> AsyncIterator[dict[str, Pass]]:
    """Give a pass of each contender, in which every client asks so many times in sequence.

    Every contender has a core of its own, in the same state, and decides the same requests.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(open_allocator(capacity=CAPACITY))
        vm = await session.alloc_set(token="vm")
        beside = await stack.enter_async_context(open_allocator(capacity=CAPACITY))
        await stack.enter_async_context(beside.session("idle"))
        other_vm = await beside.alloc_set(token="vm")
        core, sid = new_core()
        floor = await stack.enter_async_context(open_floor(core, backend))
        contenders = {
            "session": through_session(session, vm.sid, asks),
            "session beside another": through_session(beside, other_vm.sid, asks),
            "floor": _through_floor(floor, sid, asks),
            "anyio.Lock": _under_lock(Lock(), *new_core(), asks),
            "plain call": _plainly(*new_core(), asks),
        }
        if backend != "trio":
            # Nothing is awaited while it is held, so it is never contended.
            contenders["asyncio.Lock"] = _under_lock(asyncio.Lock(), *new_core(), asks)
        yield {name: pass_of(each, clients, asks) for name, each in contenders.items()}


# -- the contenders -------------------------------------------------------------------------------


def through_session(session: Session, sid: int, asks: int) -> Client:
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


def _under_lock(lock: Lock | asyncio.Lock, core: Allocator, sid: int, asks: int) -> Client:
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


def new_core() -> tuple[Allocator, int]:
    core = Allocator(CAPACITY)
    vm = core.handle(core.session, AllocSet("vm"))
    assert isinstance(vm, SetRecord)
    return core, vm.sid


# -- a pass ---------------------------------------------------------------------------------------


def pass_of(client: Client, clients: int, asks: int, first: int = 1) -> Pass:
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
            for _ in range(clients):
                tasks.start_soon(start)
            while ready < clients:
                await checkpoint()
            began = perf_counter()
            gate.set()
        count = clients * asks
        require(count, len(ids), "replies")
        if sorted(ids) != list(range(expected, expected + count)):
            raise Lost(f"IDs that are not the {count} from {expected} on, each once")
        expected += count
        return (ended - began) / count

    return run
