"""Ray: an actor is a process, and its answers come through an object store.

Receivers that are told would be a process each, so only asks are measured.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import ray

from benchmarks.peers.peer import Ask, Peer, allocate
from ioasid.core import Allocator, encode


class Server:
    def __init__(self, snapshot: bytes) -> None:
        from ioasid.core import decode_snapshot

        self._core = Allocator.restore(decode_snapshot(snapshot))

    def alloc(self, sid: int) -> int:
        return allocate(self._core, sid)


@asynccontextmanager
async def asking(core: Allocator) -> AsyncIterator[Ask]:
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    server: Any = ray.remote(Server).remote(encode(core.snapshot()))

    async def ask(sid: int) -> int:
        ioasid: int = await server.alloc.remote(sid)
        return ioasid

    yield ask
    ray.shutdown()


PEER = Peer("ray", asking, apart=True)
