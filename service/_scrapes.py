"""Scrapes: whoever asks for the metrics by HTTP, on a Unix socket of its own.

prometheus-client makes the text, and its own servers are threads that listen on TCP. What this one
serves is asked of an allocator on an event loop, so it has as much of HTTP/1.1 as a scraper needs:
a request, an answer, and the end of the connection.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from socket import socket as Socket  # noqa: N812 - a class
from typing import Final
from urllib.parse import urlsplit

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

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/1\.([01])")
_FIELD: Final = re.compile(rf"({_TOKEN}):[\t\x20-\x7e\x80-\xff]*")


def asked(head: bytes) -> tuple[HTTPStatus, str]:
    """Return the status that a request leads to, and its method; OK is for the metrics."""
    line, *fields = head.decode("latin-1").split("\r\n")
    parts = _REQUEST_LINE.fullmatch(line)
    names = [found[1].lower() for found in map(_FIELD.fullmatch, fields) if found]
    is_bad = parts is None or len(names) < len(fields) or names.count("host") > 1
    if parts is None or is_bad or (parts[3] == "1" and "host" not in names):
        return HTTPStatus.BAD_REQUEST, ""
    try:
        path = urlsplit(parts[2]).path
    except ValueError:
        return HTTPStatus.BAD_REQUEST, ""
    if path != PATH:
        return HTTPStatus.NOT_FOUND, parts[1]
    return HTTPStatus.OK if parts[1] in METHODS else HTTPStatus.METHOD_NOT_ALLOWED, parts[1]


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
        self._received = b""
        self._out = b""
        self._transport: Transport | None = None
        self._came = Signal()
        """The request is there, or will not be."""
        self._gone = Signal()
        self._refused: HTTPStatus | None = None

    def connected(self, transport: Transport) -> None:
        self._transport = transport
        self._scrapes.open += 1
        if self._scrapes.open > CONNECTIONS:
            self._refused = HTTPStatus.SERVICE_UNAVAILABLE
            self._came.set()
        self._scrapes.tasks.start_soon(self._serve, transport, name="ioasid metrics")

    def data_received(self, data: bytes) -> None:
        if self._came.is_set():
            # One request is answered, and then it is over.
            return
        self._received += data
        if b"\r\n\r\n" in self._received[:REQUEST]:
            self._came.set()
        elif len(self._received) >= REQUEST:
            self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
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
        status, method, body = self._refused, "", b""
        if status is None:
            status, method = asked(self._received.partition(b"\r\n\r\n")[0])
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
        head = [f"HTTP/1.1 {status.value} {status.phrase}"]
        kind = "; version=0.0.4" if status is HTTPStatus.OK else ""
        head.append(f"Content-Type: text/plain{kind}; charset=utf-8")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            head.append(f"Allow: {', '.join(METHODS)}")
        head += ["Connection: close", f"Content-Length: {len(body)}", "", ""]
        self._out = "\r\n".join(head).encode() + (b"" if method == "HEAD" else body)

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
