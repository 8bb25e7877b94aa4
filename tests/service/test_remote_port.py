"""The port over a connection; `tests/actors/test_port.py` has what every port does."""

import threading
from typing import Any

import pytest

from ioasid.actors import WrongThread
from ioasid.actors._queue import Queue
from ioasid.core import (
    Alloc,
    Allocated,
    AllocSet,
    CloseSession,
    InvalidArgument,
    MalformedMessage,
    OpenSession,
    Subscribe,
    SuspendAll,
    Tick,
)
from ioasid.service._remote_port import RemotePort
from tests.actors.hosts import settle
from tests.service.services import a_client, a_service

pytestmark = pytest.mark.anyio


async def test_what_would_harm_an_allocator_does_not_cross() -> None:
    """It is refused at the door, by a reply as any other; what is told goes nowhere."""
    async with a_service() as service, a_client(service) as host:
        port = host._port
        assert isinstance(port, RemotePort)
        for request, kind in (
            (Subscribe(), InvalidArgument),
            (Tick(1e9), MalformedMessage),
            (SuspendAll(), MalformedMessage),
        ):
            port.tell(request)
            reply = port.send(request)
            assert reply.done()
            assert isinstance(await reply, kind)
        request_: Any = Alloc(0)
        assert isinstance(await port.attach(request_, Queue(1, None)), InvalidArgument)
        assert 1 == (await host.statistics()).sessions


async def test_another_thread() -> None:
    """A port belongs to the thread of its event loop."""
    refused: list[Exception] = []
    async with a_service() as service, a_client(service) as host:
        port = host._port

        def use() -> None:
            for call in (
                lambda: port.send(Alloc(0)),
                lambda: port.tell(Alloc(0)),
                lambda: port.leave(CloseSession()),
                lambda: port.attach(Subscribe(), Queue(1, None)),
                port.check,
            ):
                try:
                    call()
                except WrongThread as error:
                    refused.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert 5 == len(refused)


async def test_giving_up_what_was_opened() -> None:
    """A session that nobody learned of is closed, whether its answer is there or not."""
    async with a_service() as service, a_client(service) as host:
        port = host._port
        for settled in (False, True):
            request = OpenSession("vm")
            reply = port.send(request)
            if settled:
                await settle()
                assert reply.done()
            port.give_up(request, reply)
            assert 1 == (await host.statistics()).sessions
        await port.send(AllocSet("vm-1", 4))
        assert Allocated(1, 1) == await port.send(Alloc(0))
