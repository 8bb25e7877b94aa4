"""A scenario of a journal whose disk fails now and then: whoever is refused asks again."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from ioasid.actors import Session, open_allocator
from ioasid.core import EventKind, IoasidError, NotCommitted, QuotaExceeded, SubscriberTable
from ioasid.testing._disk import on_a_disk
from ioasid.testing._picker import choose

__all__: list[str] = []

T = TypeVar("T")

BINDINGS: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


async def disk_fails_while_all_ask() -> None:
    """Users allocate, bind, give up and free beside a driver; what is refused changes nothing."""
    with on_a_disk(fails=True):
        async with open_allocator(capacity=9) as allocator:
            owner = await _again(partial(allocator.alloc_set, "vm-1", 6))
            table = SubscriberTable()
            ready = anyio.Event()

            async def drive(session: Session) -> None:
                async with session.subscribe(
                    sid=owner.sid, kinds=BINDINGS, hold=True, queue_size=choose((8, 1))
                ) as events:
                    ready.set()
                    async for message in events:
                        table.update(message)
                        for ioasid in table.bindings:
                            found = await session.find(ioasid)
                            assert found.references.get("driver"), "used without a reference"

            async def live(session: Session) -> None:
                for _ in range(3):
                    ioasid = await _again(partial(session.alloc, owner.sid))
                    spid = int(ioasid)
                    await _again(partial(session.attach_spid, ioasid, spid))
                    assert ioasid == await session.find_by_spid(owner.sid, spid)
                    for extra in await _impatiently(partial(session.alloc, owner.sid)):
                        await _again(partial(session.free, extra))
                    for _ in await _impatiently(partial(session.get, ioasid)):
                        await _again(partial(session.put, ioasid))
                    await _again(partial(session.free, ioasid))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_joined, allocator, "driver", drive)
                await ready.wait()
                async with anyio.create_task_group() as users:
                    for name in ("one", "two"):
                        users.start_soon(_joined, allocator, name, live)
                assert await _again(partial(allocator.free_set, owner.sid, wait=True))
            assert table.lives == {}
            # What was kept for later, such as the end of a session, comes before what succeeds.
            await _again(partial(allocator.reserve_capacity, 1))
            await _again(partial(allocator.cancel_capacity, 1))
            figures = await allocator.statistics()
            assert (figures.sessions, figures.suspended) == (1, 0)
            assert (figures.available, figures.sets, figures.active) == (8, 0, 0)


async def _joined(
    allocator: Session, name: str, work: Callable[[Session], Awaitable[object]]
) -> None:
    while True:
        try:
            async with allocator.session(name) as session:
                await work(session)
            return
        except NotCommitted:
            await checkpoint()


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except NotCommitted:
            await checkpoint()
        except QuotaExceeded:
            # What was given up is freed, and acknowledged, some time.
            await anyio.sleep(1)


async def _impatiently(call: Callable[[], Awaitable[T]]) -> list[T]:
    # The answer, unless it does not come in so many turns of the event loop, or is a refusal.
    answers: list[T] = []

    async def ask() -> None:
        try:
            answers.append(await call())
        except IoasidError:
            pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        for _ in range(choose((3, 0, 1, 9))):
            await checkpoint()
        tasks.cancel_scope.cancel()
    return answers
