"""Sockets become transports, for who connects and for who listens."""

import socket

import anyio
import pytest

from ioasid.service._sockets import listening
from tests.actors.hosts import settle
from tests.service.test_stream import Talker

pytestmark = pytest.mark.anyio


async def test_listening(tmp_path: object) -> None:
    """Each connection gets a receiver of its own."""
    path = f"{tmp_path}/s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        talkers: list[Talker] = []

        def new() -> Talker:
            talkers.append(Talker())
            return talkers[-1]

        async with listening(listener, new):
            for word in (b"a", b"b"):
                async with await anyio.connect_unix(path) as stream:
                    await stream.send(word)
                    await settle()
            for each in talkers:
                await each.ended.wait()
    assert [b"a", b"b"] == [each.got for each in talkers]
