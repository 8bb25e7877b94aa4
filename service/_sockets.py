"""Sockets become transports: the one of the event loop that runs."""

import asyncio
import socket
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

from anyio import get_cancelled_exc_class

from ioasid.service._stream import Stream, accepting
from ioasid.service._transport import NewReceiver, Receiver, Soon, Wire, Wires

__all__: list[str] = []


def on_asyncio() -> bool:
    """Tell whether asyncio or uvloop runs."""
    return get_cancelled_exc_class() is asyncio.CancelledError


async def connect(sock: socket.socket, receiver: Receiver, tasks: Any) -> None:
    """Let a receiver use a connected socket, with tasks in a group where it takes tasks."""
    sock.setblocking(False)
    if on_asyncio():
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: Wire(Wires(), receiver), sock=sock)
        return
    Stream(sock, receiver).start(tasks)


def listening(
    listener: socket.socket, new_receiver: NewReceiver, soon: Soon | None = None
) -> AbstractAsyncContextManager[None]:
    """Take connections from a listening socket, for the length of an `async with`.

    Connections that are open when it ends are the receivers' to close. On asyncio what they have to
    send leaves when `soon` calls, or in the next turn.
    """
    listener.setblocking(False)
    if on_asyncio():
        return _Listening(listener, new_receiver, soon)
    return accepting(listener, new_receiver)


class _Listening:
    def __init__(
        self, listener: socket.socket, new_receiver: NewReceiver, soon: Soon | None
    ) -> None:
        self._listener = listener
        self._soon = soon
        self._new_receiver = new_receiver

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        wires = Wires(self._soon)
        # The file is not this server's: a service manager's socket outlives it.
        kept: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        self._server = await loop.create_unix_server(
            lambda: Wire(wires, self._new_receiver()), sock=self._listener, backlog=1024, **kept
        )

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
