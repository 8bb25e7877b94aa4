"""Scrapes: whoever asks for the metrics by HTTP, on a Unix socket of its own.

prometheus-client makes the text, and its own servers are threads that listen on TCP. What this one
serves is asked of an allocator on an event loop, so h11 reads the request and writes the answer on
a transport of the service: one request, one answer, and the end of the connection.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from socket import socket as Socket  # noqa: N812 - a class
from typing import Final
from urllib.parse import urlsplit

import h11
from anyio import Event as Signal
from anyio import move_on_after
from anyio.abc import TaskGroup
from attrs import define

from ioasid.core import AllocatorClosed
from ioasid.service._sockets import listening
from ioasid.service._transport import Transport

__all__: list[str] = []

logger = logging.getLogger("ioasid.service")

PATH: Final = "/metrics"
METHODS: Final = ("GET", "HEAD")
REQUEST: Final = 8192
"""The most bytes of a request."""
WITHIN: Final = 10.0
"""Seconds that a connection has for its request and its answer."""
CONNECTIONS: Final = 32
"""The most that are open at once."""
END: Final = h11.EndOfMessage()


def status_of(request: h11.Request) -> HTTPStatus:
    """Return the status that a request leads to; OK is for the metrics."""
    if not request.http_version.startswith(b"1."):
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    try:
        path = urlsplit(request.target).path
    except ValueError:
        return HTTPStatus.BAD_REQUEST
    if path != PATH.encode():
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.OK if request.method.decode() in METHODS else HTTPStatus.METHOD_NOT_ALLOWED


@define(eq=False)
class _Scrapes:
    """What the connections of one listener share."""

    collect: Callable[[], Awaitable[bytes]]
    tasks: TaskGroup
    open: int = 0


class _Scrape:
    """One connection, with one request."""

    def __init__(self, scrapes: _Scrapes) -> None:
        self._scrapes = scrapes
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST)
        self._out = b""
        self._transport: Transport | None = None
        self._came = Signal()
        """The request is there, or will not be."""
        self._gone = Signal()
        self._status = HTTPStatus.BAD_REQUEST
        self._takes_body = True

    def connected(self, transport: Transport) -> None:
        self._transport = transport
        self._scrapes.open += 1
        if self._scrapes.open > CONNECTIONS:
            self._status = HTTPStatus.SERVICE_UNAVAILABLE
            self._came.set()
        self._scrapes.tasks.start_soon(self._serve, transport, name="ioasid metrics")

    def data_received(self, data: bytes) -> None:
        if self._came.is_set():
            # One request is answered, and then it is over.
            return
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            self._status = HTTPStatus(error.error_status_hint)
            self._came.set()
            return
        if isinstance(event, h11.Request):
            self._status = status_of(event)
            self._takes_body = event.method != b"HEAD"
            self._came.set()

    async def _serve(self, transport: Transport) -> None:
        with move_on_after(WITHIN):
            await self._came.wait()
            if not self._gone.is_set():
                await self._answer()
                transport.close()
                await self._gone.wait()
        if not self._gone.is_set():
            transport.abort()

    async def _answer(self) -> None:
        status, body = self._status, b""
        if status is HTTPStatus.OK:
            try:
                body = await self._scrapes.collect()
            except AllocatorClosed as error:
                status, body = HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode()
            except Exception:
                # What is wrong in what is counted is no reason to serve nobody any more.
                logger.exception("the metrics could not be taken")
                status, body = HTTPStatus.INTERNAL_SERVER_ERROR, b""
        if status is not HTTPStatus.OK and not body:
            body = f"{status.phrase}; GET {PATH} shows the metrics\n".encode()
        kind = "; version=0.0.4" if status is HTTPStatus.OK else ""
        headers = [
            ("Content-Type", f"text/plain{kind}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers.append(("Allow", ", ".join(METHODS)))
        head = h11.Response(status_code=status, headers=headers, reason=status.phrase)
        rest = h11.Data(data=body if self._takes_body else b"")
        self._out = b"".join(self._http.send(each) or b"" for each in (head, rest, END))

    def data_to_send(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def disconnected(self) -> None:
        self._scrapes.open -= 1
        self._gone.set()
        self._came.set()


def serving_metrics(
    listener: Socket, collect: Callable[[], Awaitable[bytes]], tasks: TaskGroup
) -> AbstractAsyncContextManager[None]:
    """Serve what `collect` returns to whoever asks by HTTP, for the length of an `async with`."""
    scrapes = _Scrapes(collect, tasks)
    return listening(listener, lambda: _Scrape(scrapes))
