"""What tells queues of one's own: blinker and psygnal call a receiver that puts into its queue."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import blinker
import psygnal

from benchmarks.peers.peer import Got, Peer, Publish, reading


class Topic:
    """A group for psygnal, which declares signals in a class."""

    told = psygnal.Signal(int)


@asynccontextmanager
async def telling_by_blinker(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    topics = [blinker.Signal() for _ in range(groups)]
    # A signal keeps its receivers weakly.
    receivers = []

    def connect(group: int, queue: asyncio.Queue[int]) -> None:
        def receive(message: int) -> None:
            queue.put_nowait(message)

        topics[group].connect(receive)
        receivers.append(receive)

    async def publish(group: int, message: int) -> None:
        topics[group].send(message)

    async with _reading(groups, size, got, connect):
        yield publish


@asynccontextmanager
async def telling_by_psygnal(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    topics = [Topic() for _ in range(groups)]

    def connect(group: int, queue: asyncio.Queue[int]) -> None:
        topics[group].told.connect(queue.put_nowait)

    async def publish(group: int, message: int) -> None:
        topics[group].told.emit(message)

    async with _reading(groups, size, got, connect):
        yield publish


@asynccontextmanager
async def _reading(
    groups: int, size: int, got: Got, connect: Callable[[int, asyncio.Queue[int]], None]
) -> AsyncIterator[None]:
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(groups * size)]
    for number, queue in enumerate(queues):
        connect(number // size, queue)
    async with reading([queue.get for queue in queues], got):
        yield


BLINKER = Peer("blinker", telling=telling_by_blinker)
PSYGNAL = Peer("psygnal", telling=telling_by_psygnal)
