"""xoscar: an actor in a pool of this process, which calls reach through a reference."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import xoscar

from benchmarks.peers.peer import Ask, Got, Peer, Publish, allocate
from ioasid.core import Allocator


class Server(xoscar.Actor):
    def __init__(self, core: Allocator) -> None:
        super().__init__()
        self._core = core

    def alloc(self, sid: int) -> int:
        return allocate(self._core, sid)


class Receiver(xoscar.Actor):
    def __init__(self, number: int, got: Got) -> None:
        super().__init__()
        self._number = number
        self._got = got

    def tell(self, message: int) -> None:
        self._got(self._number, message)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    async with pool:
        address = pool.external_address
        server = await xoscar.create_actor(Server, core, address=address, uid="server")

        async def ask(sid: int) -> int:
            ioasid: int = await server.alloc(sid)
            return ioasid

        yield ask


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    async with pool:
        address = pool.external_address
        receivers = [
            await xoscar.create_actor(Receiver, number, got, address=address, uid=f"r-{number}")
            for number in range(groups * size)
        ]

        async def publish(group: int, message: int) -> None:
            for receiver in receivers[group * size : (group + 1) * size]:
                await receiver.tell.tell(message)

        yield publish


PEER = Peer("xoscar", asking, telling)
