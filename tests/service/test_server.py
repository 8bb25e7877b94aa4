"""The server: who may connect, how many, how long without a word, and how it ends."""

import asyncio
import os
import socket
from contextlib import ExitStack, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync
from msgspec.msgpack import decode

from ioasid.actors import Decision
from ioasid.core import AllocSet, EventKind, OpenSession, Refused
from ioasid.service import (
    Ask,
    Limits,
    PermissionDenied,
    Policy,
    Role,
    Rule,
    Welcome,
    connect_allocator,
)
from tests.service.services import UID, a_client, a_raw_client, a_service

pytestmark = pytest.mark.anyio


async def test_only_the_user_that_runs_it_gets_in() -> None:
    """Without a policy for somebody, the connection is refused, and nothing is said besides."""
    async with a_service(Policy.only(UID + 1)) as service:
        async with a_raw_client(service.path) as client:
            refused = await client.receive()
            assert isinstance(refused, Refused)
            assert "PermissionDenied" == refused.error
            assert None is await client.receive()
        with pytest.raises(PermissionDenied):
            async with connect_allocator(service.path, holder="vm"):
                raise AssertionError
        assert {"PermissionDenied": 2} == service.server.statistics().refusals


async def test_a_policy_that_is_read_again_holds_for_who_comes() -> None:
    """Who is in stays, with the role it came by."""
    async with a_service() as service, a_client(service) as host:
        service.server.policy = Policy(())
        await host.alloc_set("vm-1", 8)
        with pytest.raises(PermissionDenied):
            async with a_client(service, "second"):
                raise AssertionError
        service.server.policy = Policy((Rule(role=Role.OPERATOR, groups=frozenset({os.getgid()})),))
        async with a_client(service, "second") as second:
            assert 2 == (await second.statistics()).sessions


@pytest.mark.parametrize("limits", [Limits(connections=3), Limits(connections_per_user=3)])
async def test_more_connections_than_there_may_be(limits: Limits) -> None:
    """One too many is refused; when another one is gone there is room."""
    async with a_service(limits=limits) as service, a_raw_client(service.path) as first:
        await first.hello()
        async with a_raw_client(service.path) as second, a_raw_client(service.path) as third:
            await second.hello()
            await third.hello()
            async with a_raw_client(service.path) as fourth:
                refused = await fourth.receive()
                assert isinstance(refused, Refused)
                assert "TooMany" == refused.error
        while service.server.statistics().connections > 1:
            await checkpoint()
        async with a_raw_client(service.path) as client:
            assert isinstance(await client.hello(), Welcome)


async def test_what_a_batch_came_to_leaves_with_it(anyio_backend_name: str) -> None:
    """An answer is sent when its batch is told, without a turn of the event loop in between."""
    if anyio_backend_name == "trio":
        pytest.skip("a task of its own sends on trio")
    found: list[bytes] = []

    def look() -> None:
        with suppress(BlockingIOError):
            found.append(sock.recv(100, socket.MSG_PEEK))

    def tap(decision: Decision) -> None:
        if isinstance(decision.request, AllocSet):
            asyncio.get_running_loop().call_soon(look)

    async with a_service(taps=[tap]) as service, a_raw_client(service.path) as client:
        await client.hello()
        session = (await client.ask(Ask(OpenSession("vm"), 1))).session
        sock = client.stream.extra(SocketAttribute.raw_socket)
        with socket.socket(fileno=os.dup(sock.fileno())) as sock:
            await client.ask(Ask(AllocSet("vm-1", 8), 2, session))
    assert [True] == [len(each) > 0 for each in found]


async def test_who_says_nothing_is_cut_off() -> None:
    """A connection has to say hello in time, and one that did may be silent as long as it likes."""
    async with a_service() as service, a_client(service) as host:
        # The host said it in as much time as it took.
        service.server._limits = Limits(hello_within=0.05)
        async with a_raw_client(service.path) as client:
            await client.send(b"\0\0")
            refused = await client.receive()
            assert isinstance(refused, Refused)
            assert "ProtocolViolated" == refused.error
            assert None is await client.receive()
            assert 1 == (await host.statistics()).sessions


async def test_many_connections_come_and_go() -> None:
    """A thousand that connect and end at once, some with half a word, leave nothing behind."""
    async with a_service() as service, a_client(service) as host:
        for number in range(1000):
            stream = await anyio.connect_unix(service.path)
            if number % 3:
                await stream.send(b"\0\0\0"[: number % 3 + 1])
            await stream.aclose()
        figures = service.server.statistics()
        while figures.connections > 1 or figures.accepted < 1001:
            await checkpoint()
            figures = service.server.statistics()
        assert (1, 1001) == (figures.sessions, figures.accepted)
        assert 1 == (await host.statistics()).sessions


async def test_figures() -> None:
    """They say what there is now, and what was refused since it began."""
    async with a_service() as service, a_client(service) as host:
        async with host.session("kvm"), host.subscribe(kinds={EventKind.FREE}):
            with pytest.raises(Exception, match="ENOENT"):
                await host.list_set(5)
            figures = service.server.statistics()
            assert (1, 2, 1, 1) == (
                figures.connections,
                figures.sessions,
                figures.subscriptions,
                figures.accepted,
            )
            assert {"UnknownSet": 1} == figures.refusals


async def test_ending_waits_for_nobody_long() -> None:
    """A client that reads nothing keeps the server from ending for a moment only."""
    async with a_service() as service:
        stream: Any = await anyio.connect_unix(service.path)
        with anyio.fail_after(30):
            await service.server.end("was shut down")
    await stream.aclose()


async def test_ending_while_connections_are_made() -> None:
    """Who has connected and was not heard yet is said goodbye to, and nobody is left hanging."""
    clients = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    with ExitStack() as stack:
        for client in clients:
            client.settimeout(60)
            stack.enter_context(client)
        async with a_service() as service:
            for client in clients:
                client.connect(str(service.path))
            while not service.server.statistics().connections:
                await checkpoint()
            await service.server.end("was shut down")
        said = [await run_sync(all_of, client) for client in clients]
    ended = [decode(each[4:]) for each in said if each]
    assert ended
    assert [{"type": "Goodbye", "reason": "was shut down"}] * len(ended) == ended


def all_of(client: socket.socket) -> bytes:
    """What a socket is sent; nothing where nobody took the connection before the end."""
    received = b""
    with suppress(ConnectionResetError):
        while data := client.recv(1 << 16):
            received += data
    return received
