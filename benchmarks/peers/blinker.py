"""blinker: a signal calls receivers, each of which puts into a queue."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from blinker import Signal

from benchmarks.peers.peer import Got, Peer, Publish, reading


class Receiver:
    """A queue, and what puts into it; a signal keeps it weakly."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[int] = asyncio.Queue()

    def receive(self, message: int) -> None:
        self.queue.put_nowait(message)


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    signals = [Signal() for _ in range(groups)]
    receivers = [Receiver() for _ in range(groups * size)]
    for number, receiver in enumerate(receivers):
        signals[number // size].connect(receiver.receive)

    async def publish(group: int, message: int) -> None:
        signals[group].send(message)

    async with reading([receiver.queue.get for receiver in receivers], got):
        yield publish


PEER = Peer("blinker", telling=telling)
