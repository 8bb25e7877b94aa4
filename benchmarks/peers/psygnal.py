"""psygnal: a signal calls receivers, each of which puts into a queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psygnal import Signal

from benchmarks.peers.peer import Got, Peer, Publish, reading


class Group:
    """What has the signal."""

    told = Signal(int)


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    publishers = [Group() for _ in range(groups)]
    queues: list[asyncio.Queue[int]] = [asyncio.Queue() for _ in range(groups * size)]
    for number, queue in enumerate(queues):
        publishers[number // size].told.connect(queue.put_nowait)

    async def publish(group: int, message: int) -> None:
        publishers[group].told.emit(message)

    async with reading([queue.get for queue in queues], got):
        yield publish


PEER = Peer("psygnal", telling=telling)
