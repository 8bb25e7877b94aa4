"""`connect_allocator`: an allocator in another process, for the length of an `async with`."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import fspath
from pathlib import Path
from typing import Any, Final

from anyio import Event as Signal
from anyio import create_task_group, current_time, move_on_after, sleep
from anyio.abc import TaskGroup

from ioasid.actors import Session
from ioasid.actors._looker import Looker
from ioasid.actors._one_task import one_task
from ioasid.actors._port import answered
from ioasid.actors._reply import Reply
from ioasid.core import (
    AllocatorClosed,
    CloseSession,
    InvalidArgument,
    IoasidError,
    OpenSession,
    Refused,
    Request,
    SessionOpened,
    WireFormat,
    _check,
)
from ioasid.service._connection import ClientConnection
from ioasid.service._errors import ConnectionFailed, SocketDenied, error_from
from ioasid.service._link import Link
from ioasid.service._remote_port import RemotePort
from ioasid.service._sockets import connect
from ioasid.service._then import Then
from ioasid.service._transport import READ

__all__ = ["DEFAULT_PATH", "connect_allocator"]

DEFAULT_PATH: Final = "/run/ioasid/ioasid.sock"
"""Where the service of a host is found unless told otherwise."""
LEAVE_WITHIN: Final = 5.0
"""Seconds that leaving waits for its acknowledgement."""
FIRST_WAIT: Final = 0.01
LONGEST_WAIT: Final = 1.0
"""Seconds between attempts to connect."""
CLOSED: Final = "connection was shut down"


@asynccontextmanager
async def connect_allocator(
    path: str | Path | socket.socket = DEFAULT_PATH,
    *,
    holder: str,
    token: str | None = None,
    reconnect_within: float = 30.0,
    wire_format: WireFormat = WireFormat.MSGPACK,
) -> AsyncIterator[Session]:
    """Join the allocator that serves the Unix socket `path`, as the holder `holder`.

    Gives the same `Session` as `open_allocator`: the same methods, answers, errors, events and
    Resyncs; sessions that it opens share the connection. `path` may be a connected socket that was
    handed on. `token` is for tenants whose policy leaves a choice. The wire is msgpack, or JSON.

    Leaving the scope in order leaves: the session is closed, and the server has acknowledged it.
    Sessions that are open besides, or all when an exception ends it, crashed: they are suspended.
    A connection that breaks is made again within `reconnect_within` seconds (0 or more): sessions
    are opened again under their names, subscriptions start again with a `Resync`, and requests are
    sent again and decided once; one whose fate nobody knows raises `OutcomeUnknown`. A session that
    was evicted meanwhile has ended, as its calls and subscriptions say (`SessionEnded`). If that
    fails, or the server was restarted, every call raises `AllocatorClosed`.

    Raises `ConnectionFailed` if nobody answers, `SocketDenied` for whom the permissions of the file
    keep away, `PermissionDenied` for whom the policy lets not in, what `OpenSession` is refused
    with, and `InvalidArgument`.
    """
    _check_all(path, holder, token, reconnect_within, wire_format)
    link = Link(token, WireFormat(wire_format))
    async with _linked(link, path, reconnect_within, "connect_allocator"):
        opened = await _open(link, holder)
        port = RemotePort(link, opened.session).join(opened)
        yield Session(port, holder, opened)
        await _leave(link, port)


def _check_all(path: Any, holder: Any, token: Any, within: Any, wire_format: Any) -> None:
    is_path = isinstance(path, str | Path) and "\0" not in fspath(path) and fspath(path)
    if not is_path and not isinstance(path, socket.socket):
        raise InvalidArgument.of("path", path, "the path of a socket, or a connected one")
    _check.name(holder, "holder")
    if token is not None:
        _check.name(token, "token")
    is_number = isinstance(within, int | float) and not isinstance(within, bool)
    if not is_number or not within >= 0:
        raise InvalidArgument.of("reconnect_within", within, "a number of seconds, 0 or more")
    if type(wire_format) not in (str, WireFormat) or wire_format not in set(WireFormat):
        raise InvalidArgument.of("wire_format", wire_format, "WireFormat.MSGPACK or JSON")


@asynccontextmanager
async def looking(path: str | Path, token: str | None) -> AsyncIterator[Looker]:
    """Connect to look, without a session; a connection that breaks is not made again.

    Raises as `connect_allocator` does.
    """
    link = Link(token, WireFormat.MSGPACK, comes_back=False)
    async with _linked(link, path, 0, "looking"):

        def send(request: Request) -> Reply[Any]:
            reply = link.new_reply()
            link.ask(None, request, reply)
            return reply

        yield Looker(send)
        link.close(CLOSED, None)


@asynccontextmanager
async def _linked(
    link: Link, path: str | Path | socket.socket, within: float, what: str
) -> AsyncIterator[None]:
    raised: BaseException | None = None
    with one_task(what):
        async with create_task_group() as tasks:
            try:
                await _connect(link, path, tasks)
                tasks.start_soon(_keep, link, path, within, tasks, name="ioasid link")
                yield
            except BaseException as error:  # noqa: BLE001 - raised again below, as it was
                raised = error
                link.close(CLOSED, AllocatorClosed(CLOSED))
            with move_on_after(1, shield=True):
                if link.is_connected:
                    await link.broken.wait()
            link.abort()
            tasks.cancel_scope.cancel()
    if raised is not None:
        try:
            raise raised
        finally:
            del raised


async def _connect(link: Link, path: str | Path | socket.socket, tasks: TaskGroup) -> None:
    link.restart()
    where = "a socket that was handed on" if isinstance(path, socket.socket) else fspath(path)
    try:
        sock = path if isinstance(path, socket.socket) else await _connected(where)
        rest = sock.dup()
    except PermissionError:
        raise SocketDenied(where) from None
    except OSError as error:
        raise ConnectionFailed(where, _reason(error, where)) from None
    with rest:
        await connect(sock, link, tasks)
        greeted = await link.greeted or _refusal(rest)
    if greeted is None:
        raise ConnectionFailed(where, "the connection ended before it began")
    if isinstance(greeted, IoasidError):
        raise greeted.with_traceback(None)


def _refusal(rest: socket.socket) -> IoasidError | None:
    # An event loop that could not write reads no more, and whoever is refused at once can't.
    try:
        data = rest.recv(READ, socket.MSG_DONTWAIT)
    except OSError:
        return None
    for frame in ClientConnection(WireFormat.MSGPACK).receive(data):
        if type(frame) is Refused:
            return error_from(frame)
    return None


def _reason(error: OSError, path: str) -> str:
    # The system's own words would name another errno than this error has.
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there" if Path(path).is_socket() else "it is no socket"
    return error.strerror or str(error)


async def _connected(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        for _ in range(50):
            try:
                sock.connect(path)
            except BlockingIOError:
                # Its queue of connections is full.
                await sleep(FIRST_WAIT)
            else:
                return sock
        raise TimeoutError("its queue of connections is full")
    except BaseException:
        sock.close()
        raise


async def _open(link: Link, holder: str) -> SessionOpened:
    reply = link.new_reply()
    link.ask(None, OpenSession(holder), reply)
    return answered(await reply, SessionOpened)


async def _leave(link: Link, port: RemotePort) -> None:
    left = Signal()

    def close(_: object) -> None:
        # Before the end of its subscriptions comes, which are to end in order.
        link.close(CLOSED, None)
        left.set()

    if not link.is_over:
        link.leave(port, CloseSession(), Then(close))
        with move_on_after(LEAVE_WITHIN, shield=True):
            await left.wait()
    link.close(CLOSED, None)


async def _keep(
    link: Link, path: str | Path | socket.socket, within: float, tasks: TaskGroup
) -> None:
    # Makes the connection again whenever it breaks.
    while True:
        await link.broken.wait()
        if link.ending.error is not None:
            return
        deadline = current_time() + within
        wait = FIRST_WAIT
        while True:
            try:
                if isinstance(path, socket.socket):
                    raise ConnectionFailed("a socket that was handed on", "it broke")
                await _connect(link, path, tasks)
                break
            except IoasidError as error:
                if link.is_over:
                    return
                if current_time() >= deadline:
                    # That nobody answers is the same fact; what else is in the way is not.
                    more = "" if isinstance(error, ConnectionFailed) else f" ({error})"
                    reason = f"connection was lost{more}"
                    link.close(reason, AllocatorClosed(reason))
                    return
            await sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
