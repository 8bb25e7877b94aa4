"""What a journal costs: asks that are kept, the pause of a checkpoint, and going on from one."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from anyio import create_task_group, sleep
from anyio.lowlevel import checkpoint

from benchmarks.asks import CAPACITY, Client, pass_of, through_session
from benchmarks.measure import Figure, Pass, Plan, compare, figure, require, take_turns
from ioasid.actors import Session, open_allocator

HERE: Final = Path(__file__).resolve().parents[1] / "build"
"""Where the files are: on a disk, which a folder for temporary files need not be."""
TICK: Final = 0.0005
"""Seconds between two looks at the clock."""
EVERY: Final = 10_000
"""Requests from one checkpoint to the next."""


async def durable_concurrent(backend: str, plan: Plan) -> list[Figure]:
    """Compare the asks of 1,000 clients with those of an allocator without a journal."""
    with folder() as path:
        async with AsyncExitStack() as stack:
            contenders: dict[str, Client] = {}
            for name, journal in (("durable", path / "journal"), ("without", None)):
                session = await stack.enter_async_context(
                    open_allocator(capacity=CAPACITY, journal=journal)
                )
                vm = await session.alloc_set(token="vm")
                contenders[name] = through_session(session, vm.sid, plan.scaled(10, 5))
            asks = plan.scaled(10, 5)
            passes = {name: pass_of(each, 1000, asks) for name, each in contenders.items()}
            times = await take_turns(passes, plan)
    return [
        compare(
            times,
            "durable",
            "without",
            name="durable_concurrent",
            backend=backend,
            unit="x without a journal",
            target=2.0,
        )
    ]


async def durable_sequential(backend: str, plan: Plan) -> list[Figure]:
    """Compare one client with who commits a row a batch to sqlite by hand, in a thread.

    Shown beside it: the same without a thread, which holds up its event loop for as long as the
    disk takes.
    """
    asks = plan.scaled(1000, 200)
    with folder() as path, _rows(path / "floor") as floor, _rows(path / "thread") as other:
        async with open_allocator(capacity=CAPACITY, journal=path / "journal") as session:
            vm = await session.alloc_set(token="vm")
            passes = {
                "durable": pass_of(through_session(session, vm.sid, asks), 1, asks),
                "sqlite in a thread": _by_thread(other, asks),
                "sqlite that holds up the loop": _by_hand(floor, asks),
            }
            times = await take_turns(passes, plan)
    return [
        compare(
            times,
            "durable",
            "sqlite in a thread",
            name="durable_sequential",
            backend=backend,
            unit="x a commit in a thread by hand",
            target=1.5,
        )
    ]


@contextmanager
def _rows(path: Path) -> Iterator[sqlite3.Connection]:
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        file.execute(f"PRAGMA {pragma}")
    file.execute("CREATE TABLE row (last INTEGER PRIMARY KEY, data BLOB)")
    try:
        yield file
    finally:
        file.close()


def _insert(file: sqlite3.Connection) -> None:
    file.execute("INSERT INTO row (data) VALUES (?)", (b"x" * 80,))


def _by_hand(file: sqlite3.Connection, asks: int) -> Pass:
    async def run() -> float:
        began = perf_counter()
        for _ in range(asks):
            _insert(file)
        return (perf_counter() - began) / asks

    return run


def _by_thread(file: sqlite3.Connection, asks: int) -> Pass:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        jobs: SimpleQueue[asyncio.Future[None] | None] = SimpleQueue()

        def work() -> None:
            while (done := jobs.get()) is not None:
                _insert(file)
                loop.call_soon_threadsafe(done.set_result, None)

        thread = threading.Thread(target=work)
        thread.start()
        began = perf_counter()
        for _ in range(asks):
            done = loop.create_future()
            jobs.put(done)
            await done
        seconds = perf_counter() - began
        jobs.put(None)
        thread.join()
        return seconds / asks

    return run


async def checkpoint_pause(backend: str, plan: Plan) -> list[Figure]:
    """Measure the longest pause of the event loop while a checkpoint of many IDs is made."""
    count = plan.scaled(100_000, 2_000)
    pauses: list[float] = []
    idle: list[float] = []
    with folder() as path:
        async with open_allocator(capacity=CAPACITY, journal=path / "journal") as session:
            await bind(session, count)
            await _until_done(session)
            for _ in range(plan.repeats):
                while not _is_being_made():
                    await _ask(session, 100)
                began = perf_counter()
                pauses.append(await _longest_pause())
                seconds = perf_counter() - began
                idle.append(await _longest_pause(seconds))
    return [
        figure(
            pauses,
            name="checkpoint_pause",
            backend=backend,
            unit="s",
            target=0.005,
            beside={"the same time without": median(idle)},
            beside_unit="s",
            note=f"`checkpoint_pause`: {count:,} bound IDs, asked every {TICK * 1000:g} ms.",
        )
    ]


async def _ask(session: Session, count: int) -> None:
    # As those who ask at a moderate pace, so that a batch is no pause by itself.
    async def ask() -> None:
        for _ in range(count // 10):
            await session.reserve_capacity(1)
            await session.cancel_capacity(1)

    async with create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(ask)


def _is_being_made() -> bool:
    return any(each.name.startswith("ioasid checkpoint") for each in threading.enumerate())


async def _until_done(session: Session) -> None:
    while _is_being_made():  # noqa: ASYNC110 - nothing says when a thread ends
        await sleep(0.01)
    await session.statistics()


async def _longest_pause(seconds: float | None = None) -> float:
    longest = 0.0
    began = before = perf_counter()
    while _is_being_made() if seconds is None else before - began < seconds:
        await sleep(TICK)
        now = perf_counter()
        longest = max(longest, now - before - TICK)
        before = now
    return longest


async def bind(session: Session, count: int) -> None:
    """Allocate and bind so many IDs."""
    vm = await session.alloc_set(token="vm", quota=count)
    pasids = [each for group in await session.alloc_many(vm.sid, count) for each in ids(group)]
    require(count, len(pasids), "IDs")

    async def some(first: int) -> None:
        for pasid in pasids[first::500]:
            await session.attach_spid(pasid, pasid)

    async with create_task_group() as tasks:
        for first in range(500):
            tasks.start_soon(some, first)


def ids(group: object) -> Iterator[int]:
    first, last = group.first, group.last  # type: ignore[attr-defined]
    return iter(range(first, last + 1))


async def recovery(backend: str, plan: Plan) -> list[Figure]:
    """Measure how long it takes to open a journal whose process was killed, or ended in order."""
    bound, requests = plan.scaled(10_000, 500), plan.scaled(EVERY - 10, 500)
    plain = plan.scaled(1_000_000, 10_000)
    with folder() as path:
        async with open_allocator(capacity=CAPACITY, journal=path / "bound") as session:
            await bind(session, bound)
        async with open_allocator(capacity=CAPACITY, journal=path / "bound") as session:
            await _ask(session, requests // 2)
            _copy(path, "bound", "killed")
        async with open_allocator(capacity=CAPACITY, journal=path / "plain") as session:
            vm = await session.alloc_set(token="vm", quota=plain)
            await session.alloc_many(vm.sid, plain)
        async with open_allocator(capacity=CAPACITY, journal=path / "empty"):
            pass
        passes = {name: _opening(path, name) for name in ("killed", "plain", "empty")}
        times = await take_turns(passes, plan)
    beside = {name: median(each) for name, each in times.items()}
    return [
        figure(
            times["killed"],
            name="recovery",
            backend=backend,
            unit="s",
            target=0.25,
            beside=beside,
            beside_unit="s",
            note=f"`recovery`: {bound:,} bound IDs and {requests:,} requests since.",
        ),
        figure(
            times["plain"],
            name="recovery_plain",
            backend=backend,
            unit="s",
            target=0.1,
            note=f"`recovery_plain`: {plain:,} plain IDs.",
        ),
    ]


def _copy(path: Path, name: str, other: str) -> None:
    for end in ("", "-wal"):
        if (path / f"{name}{end}").exists():
            shutil.copyfile(path / f"{name}{end}", path / f"{other}{end}")


def _opening(path: Path, name: str) -> Pass:
    async def run() -> float:
        _copy(path, name, "turn")
        began = perf_counter()
        async with opened(path / "turn") as seconds:
            took = seconds - began
        for end in ("", "-wal"):
            (path / f"turn{end}").unlink(missing_ok=True)
        return took

    return run


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[float]:
    """Open a journal; gives when it was open."""
    async with open_allocator(journal=path):
        yield perf_counter()
        await checkpoint()


@contextmanager
def folder() -> Iterator[Path]:
    HERE.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix="bench-", dir=HERE) as name:
        yield Path(name)
