"""A transport of two tasks around a socket, for every event loop that anyio runs on."""

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from anyio import CancelScope, create_task_group, sleep, wait_readable, wait_writable
from anyio.abc import TaskGroup

from ioasid.actors._reply import Reply, reply_factory
from ioasid.service._transport import READ, NewReceiver, Receiver

__all__: list[str] = []

logger = logging.getLogger("ioasid.service")

NO_ROOM_WAIT: Final = 0.1
"""Seconds to wait when there is no descriptor left for another connection."""


class Stream:
    """A transport on any event loop; see `Transport`."""

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        self._socket = sock
        self._receiver = receiver
        self._new_reply = reply_factory()
        self._writing: Reply[None] = self._new_reply()
        """What the writer sleeps with."""
        self._reading: Reply[None] | None = None
        """What the reader sleeps with while it is paused."""
        self._closing = False
        self._scope = CancelScope()

    def start(self, tasks: TaskGroup) -> None:
        """Begin."""
        self._receiver.connected(self)
        tasks.start_soon(self._run, name="ioasid connection")

    async def _run(self) -> None:
        try:
            with self._scope:
                async with create_task_group() as tasks:
                    tasks.start_soon(self._write, name="ioasid writer")
                    await self._read()
                    tasks.cancel_scope.cancel()
        finally:
            self._socket.close()
            self._receiver.disconnected()

    async def _read(self) -> None:
        while True:
            if self._reading is not None:
                await self._reading
            await wait_readable(self._socket)
            if self._reading is not None:
                continue
            try:
                data = self._socket.recv(READ)
            except BlockingIOError:
                continue
            except OSError:
                return
            if not data:
                return
            if not self._closing:
                try:
                    self._receiver.data_received(data)
                except Exception:
                    # It costs this connection, and not all that runs here.
                    logger.exception("a connection could not be served")
                    return

    async def _write(self) -> None:
        while True:
            try:
                data = memoryview(self._receiver.data_to_send())
            except Exception:
                logger.exception("a connection could not be served")
                self._scope.cancel()
                return
            if not data:
                if self._closing:
                    self._scope.cancel()
                    return
                await self._writing
                self._writing = self._new_reply()
            while data:
                try:
                    data = data[self._socket.send(data) :]
                except BlockingIOError:
                    await wait_writable(self._socket)
                except OSError:
                    # The reader learns of it only if it is not paused.
                    self._scope.cancel()
                    return

    # -- what its receiver calls --------------------------------------------------------------

    def wake(self) -> None:
        """Let the writer ask."""
        if not self._writing.done():
            self._writing.set_result(None)

    def pause(self) -> None:
        """Stop reading."""
        if self._reading is None:
            self._reading = self._new_reply()

    def resume(self) -> None:
        """Read again."""
        reading, self._reading = self._reading, None
        if reading is not None and not reading.done():
            reading.set_result(None)

    def close(self) -> None:
        """Send what there is, and end."""
        self._closing = True
        self.wake()

    def abort(self) -> None:
        """End at once."""
        self._closing = True
        self._scope.cancel()

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()


@asynccontextmanager
async def accepting(listener: socket.socket, new_receiver: NewReceiver) -> AsyncIterator[None]:
    """Take connections from a listening socket, for the length of an `async with`."""
    async with create_task_group() as connections, create_task_group() as tasks:

        async def accept() -> None:
            while True:
                await wait_readable(listener)
                try:
                    sock, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError:
                    # No descriptor is left: whoever waits, waits for one that ends.
                    await sleep(NO_ROOM_WAIT)
                    continue
                sock.setblocking(False)
                Stream(sock, new_receiver()).start(connections)

        tasks.start_soon(accept, name="ioasid listener")
        yield
        tasks.cancel_scope.cancel()
    listener.close()
