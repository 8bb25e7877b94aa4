"""The floor: the least that an actor can be on each event loop, written by hand.

It has a queue, one future that wakes it, a future per reply, and the same core behind it. It has
no bound, no cancellation, no errors, no shutdown that answers the rest, no deliveries. Putting is
a plain function, so that an ask is not even a coroutine. Nothing here is meant to be used.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from anyio import create_task_group

from ioasid.core import Allocator, Request


class Floor(Protocol):
    """A bare actor around a core."""

    def ask(self, request: Request) -> Awaitable[Any]:
        """Put a request in the queue; await what is returned for the reply."""


class AsyncioFloor:
    """The floor on asyncio, with or without uvloop: the loop's own futures and a deque."""

    def __init__(self, core: Allocator) -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._queue: deque[tuple[Request, asyncio.Future[Any]]] = deque()
        self._wakeup: asyncio.Future[None] | None = None

    def ask(self, request: Request) -> Awaitable[Any]:
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append((request, reply))
        if self._wakeup is not None:
            self._wakeup.set_result(None)
            self._wakeup = None
        return reply

    async def serve(self) -> None:
        queue = self._queue
        handle = self._core.handle
        session = self._core.session
        while True:
            self._wakeup = self._loop.create_future()
            await self._wakeup
            while queue:
                request, reply = queue.popleft()
                reply.set_result(handle(session, request))


@asynccontextmanager
async def open_floor(core: Allocator, backend: str) -> AsyncIterator[Floor]:
    """Run the floor of a backend for the length of an `async with`."""
    floor: Any
    if backend == "trio":
        from benchmarks.floor_trio import TrioFloor

        floor = TrioFloor(core)
    else:
        floor = AsyncioFloor(core)
    async with create_task_group() as tasks:
        tasks.start_soon(floor.serve)
        yield floor
        tasks.cancel_scope.cancel()
