"""Pykka: an actor is a thread. A future of its can be awaited, which blocks when it is not done."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from threading import Event

import pykka

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Server(pykka.ThreadingActor):
    def __init__(self, core: Allocator) -> None:
        super().__init__()
        self._core = core

    def on_receive(self, message: int) -> int:
        return allocate(self._core, message)


class Group:
    """Receivers that set an event when the last of them got what they were told."""

    def __init__(self, size: int) -> None:
        self._size = size
        # The next of a counter is one step of the interpreter: no lock is needed.
        self._count = count(1)
        self.done = Event()

    def got(self) -> None:
        if not next(self._count) % self._size:
            self.done.set()


class Receiver(pykka.ThreadingActor):
    def __init__(self, group: Group, told: list[int]) -> None:
        super().__init__()
        self._group = group
        self._told = told

    def on_receive(self, message: int) -> None:
        self._told.append(message)
        self._group.got()


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    server = Server.start(core)

    async def ask(sid: int) -> int:
        ioasid: int = await server.ask(sid, block=False)
        return ioasid

    yield ask
    server.stop()


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    pools = [Group(size) for _ in range(groups)]
    all_told: list[list[int]] = [[] for _ in range(groups * size)]
    receivers = [
        Receiver.start(pools[number // size], told) for number, told in enumerate(all_told)
    ]

    async def publish(group: int, message: int) -> None:
        pool, members = pools[group], range(group * size, (group + 1) * size)
        pool.done.clear()
        for number in members:
            receivers[number].tell(message)
        pool.done.wait()
        for number in members:
            got(number, all_told[number].pop())

    yield publish
    pykka.ActorRegistry.stop_all()


PEER = Peer("Pykka", asking, telling)
