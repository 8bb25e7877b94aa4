"""Transports: what of one turn of the event loop is sent at once; `test_stream` has the rest."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from ioasid.service._sockets import connect
from ioasid.service._transport import CHUNK
from tests.actors.hosts import settle
from tests.service.test_stream import Talker

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def connected(talker: Talker) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Let it use a socket, and end it; both ends, the other side's first."""
    one, two = socket.socketpair()
    with one:
        async with anyio.create_task_group() as tasks:
            two.setblocking(False)
            await connect(two, talker, tasks)
            await settle()
            yield one, two
            talker.transport.abort()
            await talker.ended.wait()


async def test_what_comes_in_one_turn_is_sent_at_once() -> None:
    """Waking it many times asks for what there is once, when everybody had a turn."""
    asked = []

    class Counting(Talker):
        def data_to_send(self) -> bytes:
            asked.append(self.out)
            return super().data_to_send()

    talker = Counting()
    async with connected(talker) as (one, two):
        asked.clear()
        for each in b"abc":
            talker.out += bytes([each])
            talker.transport.wake()
        await settle()
        assert [b"abc"] == [each for each in asked if each]
        assert b"abc" == one.recv(10)
        assert two.fileno() == talker.transport.fileno() or talker.transport.fileno() > 0


async def test_more_than_leaves_at_once() -> None:
    """A receiver that gives a chunk is asked again, until it gives less."""
    talker = Talker()
    async with connected(talker) as (one, _):
        chunks = [bytes([each]) * CHUNK for each in b"ab"]
        left = [*chunks, b"c"]
        talker.data_to_send = lambda: left.pop(0) if left else b""  # type: ignore[method-assign]
        talker.transport.wake()
        one.setblocking(False)
        came = b""
        while len(came) <= 2 * CHUNK:
            await anyio.wait_readable(one)
            came += one.recv(CHUNK)
        assert b"".join(chunks) + b"c" == came
