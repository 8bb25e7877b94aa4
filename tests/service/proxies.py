"""A proxy between a client and a service that cuts connections where a test wants them cut."""

import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from ioasid.service._sockets import connect, listening
from ioasid.service._transport import Transport


class Side:
    """One side of a proxied connection: a receiver that sends what the other side received."""

    def __init__(self, proxy: "Proxy", budget: list[int]) -> None:
        self._proxy = proxy
        self._budget = budget
        self._out = b""
        self.other: Side | None = None
        self.transport: Transport | None = None

    def connected(self, transport: Transport) -> None:
        """Connect the other side, if this is the first."""
        self.transport = transport
        if self.other is None:
            self._proxy.came(self, self._budget)
        else:
            transport.wake()

    def data_received(self, data: bytes) -> None:
        """Pass on as much as may be."""
        passed = data[: self._budget[0]]
        self._budget[0] -= len(passed)
        assert self.other is not None
        self.other.send(passed)
        if len(passed) < len(data):
            self.cut()

    def send(self, data: bytes) -> None:
        """Send as soon as there is a connection."""
        self._out += data
        if self.transport is not None:
            self.transport.wake()

    def data_to_send(self) -> bytes:
        """All there is."""
        data, self._out = self._out, b""
        return data

    def disconnected(self) -> None:
        """End the other side as well, when it was sent everything."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def cut(self) -> None:
        """End both, at once."""
        for side in (self, self.other):
            if side is not None and side.transport is not None:
                side.transport.abort()


class Proxy:
    """Passes bytes on, until it has passed as many as it may; then it cuts the connection."""

    def __init__(self, path: Path, upstream: Path, tasks: TaskGroup) -> None:
        self.path = path
        self.upstream = upstream
        self.budgets: list[int] = []
        """For the connections that come, in order; those beyond are not cut."""
        self.refusing = False
        self.connections = 0
        self._tasks = tasks
        self._sides: list[Side] = []

    def new_side(self) -> Side:
        """The receiver of a connection that comes."""
        return Side(self, [self.budgets.pop(0) if self.budgets and not self.refusing else 1 << 40])

    def came(self, side: Side, budget: list[int]) -> None:
        """Connect it to the service."""
        if self.refusing:
            side.cut()
            return
        self.connections += 1
        self._sides.append(side)
        side.other = Side(self, budget)
        side.other.other = side
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(os.fspath(self.upstream))
        self._tasks.start_soon(connect, sock, side.other, self._tasks)

    def cut(self) -> None:
        """Cut every connection there is, now."""
        for side in self._sides:
            side.cut()
        self._sides.clear()


@asynccontextmanager
async def a_proxy(upstream: Path) -> AsyncIterator[Proxy]:
    """Open a proxy to a service."""
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        path = Path(folder, "proxy")
        listener.bind(os.fspath(path))
        listener.listen()
        async with anyio.create_task_group() as tasks:
            proxy = Proxy(path, upstream, tasks)
            async with listening(listener, proxy.new_side):
                yield proxy
                proxy.cut()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
