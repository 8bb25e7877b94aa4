"""What the tests of the service share: a service on a socket, and a client that speaks by hand."""

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import SocketStream
from attrs import define

from ioasid.actors import Session
from ioasid.actors._local_port import LocalPort
from ioasid.actors._open import open_driver
from ioasid.core import WireFormat
from ioasid.service import (
    Answered,
    ClientConnection,
    Frame,
    Gate,
    Hello,
    Limits,
    Permit,
    Policy,
    Role,
    Rule,
    Server,
    Welcome,
    connect_allocator,
    serving,
)

UID = os.getuid()


@define
class Service:
    """A service that runs."""

    path: Path
    server: Server
    driver: LocalPort


@asynccontextmanager
async def a_service(
    policy: Policy | None = None,
    limits: Limits | None = None,
    gate: Gate | None = None,
    **options: Any,
) -> AsyncIterator[Service]:
    """Serve an allocator on a socket of its own; takes what `open_allocator` takes."""
    with tempfile.TemporaryDirectory() as folder, listening(Path(folder, "socket")) as listener:
        policy = policy or Policy.only(UID)
        async with (
            open_driver(**options) as driver,
            serving(driver, listener, policy, limits=limits, gate=gate) as server,
        ):
            yield Service(Path(folder, "socket"), server, driver)


def listening(path: Path) -> socket.socket:
    """A socket that listens."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.fspath(path))
    listener.listen()
    return listener


def everybody(role: Role, **fields: Any) -> Policy:
    """A policy by which who runs the tests has a role."""
    return Policy((Rule(role=role, users=frozenset({UID}), **fields),))


def a_permit(role: Role, **fields: Any) -> Permit:
    """A permit of who runs the tests."""
    return Permit(role, UID, **fields)


class Raw:
    """A client that sends frames, or bytes, and shows what comes."""

    def __init__(self, stream: SocketStream, wire_format: WireFormat) -> None:
        self.stream = stream
        self._connection = ClientConnection(wire_format)
        self._frames: list[Any] = []

    async def send(self, *frames: Frame | bytes) -> None:
        """Send all at once."""
        pack = self._connection.pack
        await self.stream.send(b"".join(f if isinstance(f, bytes) else pack(f) for f in frames))

    async def receive(self) -> Any:
        """The next frame, or nothing if the connection ended."""
        while not self._frames:
            try:
                data = await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None
            self._frames += self._connection.receive(data)
            assert self._connection.error is None
        return self._frames.pop(0)

    async def ask(self, *frames: Frame | bytes) -> Any:
        """Send, and return what the next answer is."""
        await self.send(*frames)
        while not isinstance(frame := await self.receive(), Answered):
            assert frame is not None
        return frame.answer

    async def hello(
        self, client: str | None = None, token: str | None = None, *, takes: tuple[str, ...] = ()
    ) -> Welcome:
        """Say hello."""
        await self.send(Hello((1,), client, token, takes))
        welcome = await self.receive()
        assert isinstance(welcome, Welcome), welcome
        return welcome


@asynccontextmanager
async def a_raw_client(
    path: Path, wire_format: WireFormat = WireFormat.MSGPACK
) -> AsyncIterator[Raw]:
    """Connect by hand."""
    async with await anyio.connect_unix(path) as stream:
        yield Raw(stream, wire_format)


@asynccontextmanager
async def a_client(
    service: Service, holder: str = "host", **options: Any
) -> AsyncIterator[Session]:
    """Connect to a service."""
    async with connect_allocator(service.path, holder=holder, **options) as session:
        yield session
