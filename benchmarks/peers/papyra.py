"""papyra: an actor with a bounded anyio stream as its mailbox."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from papyra import Actor, ActorSystem

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Server(Actor):
    def __init__(self, core: Allocator) -> None:
        self._core = core

    async def receive(self, message: int) -> int:
        return allocate(self._core, message)


class Receiver(Actor):
    def __init__(self, number: int, got: Got) -> None:
        self._number = number
        self._got = got

    async def receive(self, message: int) -> None:
        self._got(self._number, message)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    system = ActorSystem()
    await system.start()
    server = system.spawn(lambda: Server(core))

    async def ask(sid: int) -> int:
        ioasid: int = await server.ask(sid)
        return ioasid

    yield ask
    await system.aclose()


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    system = ActorSystem()
    await system.start()

    def spawn(number: int) -> Any:
        return system.spawn(lambda: Receiver(number, got))

    receivers = [spawn(number) for number in range(groups * size)]

    async def publish(group: int, message: int) -> None:
        for receiver in receivers[group * size : (group + 1) * size]:
            await receiver.tell(message)

    yield publish
    await system.aclose()


PEER = Peer("papyra", asking, telling)
