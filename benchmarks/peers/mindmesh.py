"""mindmesh: an actor with an asyncio queue, messages dispatched by the name of their type."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mindmesh import ActorHive, BaseActor, Request

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


@dataclass
class Alloc(Request[int]):
    sid: int


@dataclass
class Told:
    message: int


class Server(BaseActor):
    def __init__(self, hive: ActorHive, actor_id: str, core: Allocator) -> None:
        super().__init__(hive, actor_id)
        self._core = core

    def on_alloc(self, request: Alloc) -> int:
        return allocate(self._core, request.sid)


class Receiver(BaseActor):
    def __init__(self, hive: ActorHive, actor_id: str, number: int, got: Got) -> None:
        super().__init__(hive, actor_id)
        self._number = number
        self._got = got

    def on_told(self, told: Told) -> None:
        self._got(self._number, told.message)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    hive = ActorHive()
    server = hive.start_actor(Server, core)
    await server.wait_for_start()

    async def ask(sid: int) -> int:
        ioasid: int = await server.ask(Alloc(sid))
        return ioasid

    yield ask
    await hive.shutdown()


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    hive = ActorHive()
    receivers = [hive.start_actor(Receiver, number, got) for number in range(groups * size)]
    for receiver in receivers:
        await receiver.wait_for_start()

    async def publish(group: int, message: int) -> None:
        for receiver in receivers[group * size : (group + 1) * size]:
            receiver.tell(Told(message))

    yield publish
    await hive.shutdown()


PEER = Peer("mindmesh", asking, telling)
