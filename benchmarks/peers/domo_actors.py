"""domo-actors: an actor behind a proxy whose method calls are messages.

It handles what is in a mailbox by recursion, a level for each message, and fails with 1,000 asks
outstanding at Python's usual limit of 1,000 levels: the limit is raised for it.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from domo_actors import Actor, Definition, Protocol, stage
from domo_actors.actors.address import Uuid7Address
from domo_actors.actors.protocol import ProtocolInstantiator

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Server(Actor):
    def __init__(self, core: Allocator) -> None:
        super().__init__()
        self._core = core

    async def alloc(self, sid: int) -> int:
        return allocate(self._core, sid)


class Receiver(Actor):
    def __init__(self, number: int, got: Got) -> None:
        super().__init__()
        self._number = number
        self._got = got

    async def tell(self, message: int) -> None:
        self._got(self._number, message)


class Kind(Protocol):
    """Makes actors of one class, from the parameters of their definitions."""

    def __init__(self, kind: type[Actor]) -> None:
        self._kind = kind

    def type(self) -> str:
        return self._kind.__name__

    def instantiator(self) -> ProtocolInstantiator:
        kind = self._kind

        class Instantiator(ProtocolInstantiator):
            def instantiate(self, definition: Definition) -> Actor:
                return kind(*definition.parameters())

        return Instantiator()


def _start(kind: type[Actor], *parameters: object) -> Any:
    definition = Definition(kind.__name__, Uuid7Address(), parameters)
    return stage().actor_for(Kind(kind), definition)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    server = _start(Server, core)

    async def ask(sid: int) -> int:
        ioasid: int = await server.alloc(sid)
        return ioasid

    yield ask
    await stage().close()
    sys.setrecursionlimit(limit)


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    receivers = [_start(Receiver, number, got) for number in range(groups * size)]

    async def publish(group: int, message: int) -> None:
        for receiver in receivers[group * size : (group + 1) * size]:
            receiver.tell(message)

    yield publish
    await stage().close()


PEER = Peer("domo-actors", asking, telling)
