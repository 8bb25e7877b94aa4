"""The transport of two tasks: on every backend it does what the other one does on its own."""

import socket
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from ioasid.core import MalformedMessage
from ioasid.service._sockets import connect, on_asyncio
from ioasid.service._stream import Stream, accepting
from ioasid.service._transport import Transport, Wire
from tests.actors.hosts import settle

pytestmark = pytest.mark.anyio


class Talker:
    """A receiver that notes what it is told, and sends what it has."""

    def __init__(self, out: bytes = b"") -> None:
        self.out = out
        self.got = b""
        self.transport: Transport
        self.ended = anyio.Event()

    def connected(self, transport: Transport) -> None:
        """Take the transport."""
        self.transport = transport
        transport.wake()

    def data_received(self, data: bytes) -> None:
        """Note what came."""
        self.got += data

    def data_to_send(self) -> bytes:
        """Some of what there is."""
        data, self.out = self.out[:100_000], self.out[100_000:]
        return data

    def disconnected(self) -> None:
        """Note the end."""
        self.ended.set()


async def pair(tasks: Any, one: Talker, two: Talker, *, own: bool) -> None:
    """Connect two, by the backend's own transport or by tasks."""
    for sock, talker in zip(socket.socketpair(), (one, two), strict=True):
        sock.setblocking(False)
        if own:
            await connect(sock, talker, tasks)
        else:
            Stream(sock, talker).start(tasks)


@pytest.mark.parametrize("own", [True, False])
async def test_everything_arrives(own: bool) -> None:
    """Megabytes in both directions at once, and closing sends what there is."""
    one, two = Talker(b"a" * 3_000_000), Talker(b"b" * 2_000_000)
    async with anyio.create_task_group() as tasks:
        await pair(tasks, one, two, own=own)
        assert (own and on_asyncio()) is isinstance(one.transport, Wire)
        while len(two.got) < 3_000_000 or len(one.got) < 2_000_000:
            await anyio.lowlevel.checkpoint()
        one.out = b"c" * 500_000
        one.transport.close()
        await two.ended.wait()
        await one.ended.wait()
    assert two.got.endswith(b"c" * 500_000)
    assert 3_500_000 == len(two.got)
    assert 2_000_000 == len(one.got)


@pytest.mark.parametrize("own", [True, False])
async def test_pausing_and_aborting(own: bool) -> None:
    """Nothing is read while it is paused, and nothing is sent after it is aborted."""
    one, two = Talker(), Talker()
    async with anyio.create_task_group() as tasks:
        await pair(tasks, one, two, own=own)
        two.transport.pause()
        two.transport.pause()
        one.out = b"x"
        one.transport.wake()
        await settle()
        assert b"" == two.got
        two.transport.resume()
        two.transport.resume()
        await settle()
        assert b"x" == two.got
        one.out = b"y"
        one.transport.abort()
        one.transport.wake()
        await one.ended.wait()
        await two.ended.wait()
        two.transport.wake()
        two.transport.resume()
        two.transport.close()
        two.transport.abort()
    assert b"x" == two.got


@pytest.mark.parametrize("own", [True, False])
async def test_a_half_closed_connection_is_gone(own: bool) -> None:
    """Who shuts down its sending is taken for one that ended."""
    talker = Talker()
    async with anyio.create_task_group() as tasks:
        one, two = socket.socketpair()
        with one:
            two.setblocking(False)
            if own:
                await connect(two, talker, tasks)
            else:
                Stream(two, talker).start(tasks)
            one.shutdown(socket.SHUT_WR)
            await talker.ended.wait()
            assert b"" == one.recv(1)


@pytest.mark.parametrize("own", [True, False])
async def test_who_is_gone_while_nothing_is_read(own: bool) -> None:
    """It is noticed by what can't be sent, if by nothing else."""
    talker = Talker()
    async with anyio.create_task_group() as tasks:
        one, two = socket.socketpair()
        two.setblocking(False)
        if own:
            await connect(two, talker, tasks)
        else:
            Stream(two, talker).start(tasks)
        talker.transport.pause()
        await settle()
        one.close()
        talker.out = b"x"
        talker.transport.wake()
        await talker.ended.wait()


@pytest.mark.parametrize("own", [True, False])
async def test_a_receiver_that_can_not_say_what_it_has(
    own: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raises ends its connection, is on the log, and does nothing to others."""

    class Broken(Talker):
        def data_to_send(self) -> bytes:
            if self.out:
                raise MalformedMessage("message", "no form")
            return b""

    broken, end, one, two = Broken(), Talker(), Talker(), Talker()
    async with anyio.create_task_group() as tasks:
        await pair(tasks, broken, end, own=own)
        await pair(tasks, one, two, own=own)
        broken.out = one.out = b"x"
        broken.transport.wake()
        one.transport.wake()
        await broken.ended.wait()
        await end.ended.wait()
        await settle()
        assert b"x" == two.got
        one.transport.abort()
        await two.ended.wait()
    assert ["a connection could not be served"] == [each.message for each in caplog.records]


async def test_a_receiver_that_takes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it raises about what came ends its connection alone, on any event loop."""

    class Broken(Talker):
        def data_received(self, data: bytes) -> None:
            raise TypeError(data)

    broken, end = Broken(), Talker(b"x")
    async with anyio.create_task_group() as tasks:
        await pair(tasks, broken, end, own=False)
        await broken.ended.wait()
        await end.ended.wait()
    assert ["a connection could not be served"] == [each.message for each in caplog.records]


async def test_accepting(tmp_path: Any) -> None:
    """Connections come until it ends; those that are open are waited for."""
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    listener.setblocking(False)
    talkers: list[Talker] = []

    def new() -> Talker:
        talkers.append(Talker(b"hello"))
        return talkers[-1]

    async with accepting(listener, new):
        for _ in range(3):
            async with await anyio.connect_unix(path) as stream:
                assert b"hello" == await stream.receive()
        for each in talkers:
            await each.ended.wait()
    assert 3 == len(talkers)
    assert -1 == listener.fileno()
