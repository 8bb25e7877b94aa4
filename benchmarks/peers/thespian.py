"""Thespian, with its system base for one process: a message is handled when it is sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from thespian.actors import Actor, ActorSystem

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Server(Actor):
    _core: Allocator

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - its name
        if isinstance(message, Allocator):
            self._core = message
        elif isinstance(message, int):
            self.send(sender, allocate(self._core, message))


class Receiver(Actor):
    _number: int
    _got: Got

    def receiveMessage(self, message: Any, sender: Any) -> None:  # noqa: N802 - its name
        if isinstance(message, tuple):
            self._number, self._got = message
        elif isinstance(message, int):
            self._got(self._number, message)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    system = ActorSystem("simpleSystemBase")
    server = system.createActor(Server)
    system.tell(server, core)

    async def ask(sid: int) -> int:
        ioasid: int = system.ask(server, sid)
        return ioasid

    yield ask
    system.shutdown()


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    system = ActorSystem("simpleSystemBase")
    receivers = [system.createActor(Receiver) for _ in range(groups * size)]
    for number, receiver in enumerate(receivers):
        system.tell(receiver, (number, got))

    async def publish(group: int, message: int) -> None:
        for receiver in receivers[group * size : (group + 1) * size]:
            system.tell(receiver, message)

    yield publish
    system.shutdown()


PEER = Peer("thespian", asking, telling)
