"""What a peer has to say of itself to be measured: how it asks, and how it tells."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

from attrs import frozen

from ioasid.core import Alloc, Allocated, Allocator

Ask: TypeAlias = Callable[[int], Awaitable[int]]
"""Asks the peer's actor to allocate an ID of a set, and returns the ID."""
Got: TypeAlias = Callable[[int, int], None]
"""Notes that a receiver, by its number, got a message."""
Publish: TypeAlias = Callable[[int, int], Awaitable[object]]
"""Tells every receiver of a group, by the group's number, a message."""


@frozen
class Peer:
    """A library that is used as its own documentation recommends."""

    name: str
    """The distribution."""
    asking: Callable[[Allocator], AbstractAsyncContextManager[Ask]] | None = None
    """Serves a core for the length of an `async with`."""
    telling: Callable[[int, int, Got], AbstractAsyncContextManager[Publish]] | None = None
    """Has so many groups of so many receivers; the first group's are numbered from 0 on."""
    apart: bool = False
    """Whether it runs processes of its own, which would disturb the others."""


def allocate(core: Allocator, sid: int) -> int:
    """Allocate an ID: the core call behind every ask."""
    reply = core.handle(core.session, Alloc(sid))
    assert isinstance(reply, Allocated)
    return reply.ioasid


@asynccontextmanager
async def reading(
    gets: list[Callable[[], Awaitable[Any]]], got: Callable[[int, Any], None]
) -> AsyncIterator[None]:
    """Run a task for each receiver that gets one message after the other."""

    async def read(number: int, get: Callable[[], Awaitable[Any]]) -> None:
        while True:
            got(number, await get())

    async with asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(read(number, get)) for number, get in enumerate(gets)]
        yield
        for reader in readers:
            reader.cancel()
