"""A connection under many schedules: in pieces of any size, cut anywhere, and made again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.actors import Session
from ioasid.actors._open import open_driver
from ioasid.actors._port import answered
from ioasid.actors._session import ending_of
from ioasid.core import (
    CloseSession,
    Event,
    EventKind,
    OpenSession,
    SessionEnded,
    SessionOpened,
    SubscriberTable,
    WireFormat,
)
from ioasid.service import Credentials, Limits, Policy, Server, _server
from ioasid.service._link import Link
from ioasid.service._remote_port import RemotePort
from ioasid.service._then import Then
from ioasid.testing import Backend, explore
from ioasid.testing._picker import choose
from tests.service.pipes import End, joined

MOMENTS = tuple(range(0, 60, 3))


class Client:
    """A client of a server, over a connection that is made again whenever it is cut."""

    def __init__(self, server: Server, tasks: TaskGroup, wire_format: WireFormat) -> None:
        self.link = Link(None, wire_format)
        self._server = server
        self._tasks = tasks
        self.end: End

    async def connect(self) -> None:
        """Make a connection."""
        while True:
            self.link.restart()
            self.end = joined(self.link, self._server.new_peer(), self._tasks)
            if await self.link.greeted is not None:
                return

    async def keep(self) -> None:
        """Make it again, as long as there is anything left to say."""
        while True:
            await self.link.broken.wait()
            if self.link.is_over:
                return
            await self.connect()


@asynccontextmanager
async def a_client(
    server: Server, tasks: TaskGroup, name: str, wire_format: WireFormat
) -> AsyncIterator[tuple[Session, Client]]:
    """Connect, and leave in order."""
    client = Client(server, tasks, wire_format)
    link = client.link
    await client.connect()
    tasks.start_soon(client.keep, name=f"the link of {name}")
    reply = link.new_reply()
    link.ask(None, OpenSession(name), reply)
    opened = answered(await reply, SessionOpened)
    port = RemotePort(link, opened.session).join(opened)
    yield Session(port, name, opened), client
    left = anyio.Event()

    def close(_: object) -> None:
        link.close("left", None)
        left.set()

    link.leave(port, CloseSession(), Then(close))
    await left.wait()


async def connections_that_break() -> None:
    """An agent frees what a holding subscriber was told of, and both are cut off at any moment."""
    rounds = 3
    async with open_driver(capacity=16) as driver, anyio.create_task_group() as tasks:
        server = Server(driver, Policy.only(0), Limits(requests=3, waits=2), tasks, None)
        formats = (WireFormat.MSGPACK, WireFormat.JSON)
        async with (
            a_client(server, tasks, "agent", choose(formats)) as (agent, one),
            a_client(server, tasks, "kvm", choose(formats)) as (kvm, two),
        ):
            vm = await agent.alloc_set("vm-1", 8)
            table = SubscriberTable()
            lives: list[int] = []

            async def follow(scope: anyio.CancelScope) -> None:
                kinds = {EventKind.BIND, EventKind.UNBIND, EventKind.FREE}
                with scope:
                    async with kvm.subscribe(token="vm-1", kinds=kinds, hold=True) as events:
                        ready.set()
                        async for message in events:
                            table.update(message)
                            if isinstance(message, Event) and message.kind is EventKind.BIND:
                                lives.append(message.generation)

            async def cut(client: Client) -> None:
                for _ in range(choose(MOMENTS)):
                    await checkpoint()
                client.end.abort()

            ready, following = anyio.Event(), anyio.CancelScope()
            tasks.start_soon(follow, following, name="kvm")
            await ready.wait()
            async with anyio.create_task_group() as cutting:
                for client in (one, two, one):
                    cutting.start_soon(cut, client, name="the cutter")
                given = []
                for spid in range(rounds):
                    ioasid = await agent.alloc(vm.sid)
                    given.append(ioasid.generation)
                    await agent.attach_spid(ioasid, 100 + spid)
                    # It is back when the subscriber has let go of it, over whichever connection.
                    assert await agent.free(ioasid, wait=True)
            # Each request was decided once: nothing was allocated that nobody was told of.
            assert list(range(1, rounds + 1)) == given
            while (figures := await agent.statistics()).suspended:
                # The subscriber is on its way back.
                await checkpoint()
            assert (0, 0) == (figures.active, figures.free_pending)
            while table.bindings:
                await checkpoint()
            assert lives == sorted(set(lives))
            following.cancel()
            assert await agent.free_set(vm.sid, wait=True)
        tasks.cancel_scope.cancel()


async def evictions_of_who_comes_back() -> None:
    """A holder is evicted while its connection breaks and is made again, and asks for nothing."""
    async with open_driver(capacity=16) as driver, anyio.create_task_group() as tasks:
        server = Server(driver, Policy.only(0), Limits(requests=3, waits=2), tasks, None)
        formats = (WireFormat.MSGPACK, WireFormat.JSON)
        async with (
            a_client(server, tasks, "agent", choose(formats)) as (agent, _),
            a_client(server, tasks, "vmm", choose(formats)) as (vmm, client),
        ):
            vm = await agent.alloc_set("vm-1", 8)
            ioasid = await agent.alloc(vm.sid)

            async def cut() -> None:
                for _ in range(choose(MOMENTS)):
                    await checkpoint()
                client.end.abort()

            async def evict() -> None:
                for _ in range(choose(MOMENTS)):
                    await checkpoint()
                await agent.evict("kvm")

            async def follow(kvm: Session) -> None:
                with pytest.raises(SessionEnded):
                    async with kvm.subscribe(token="vm-1", hold=True) as events:
                        following.set()
                        async for _ in events:
                            pass
                followed.set()

            for _ in range(2):
                told, following, followed = anyio.Event(), anyio.Event(), anyio.Event()
                async with vmm.session("kvm") as kvm, anyio.create_task_group() as tries:
                    assert (False, ()) == (kvm.opened.resumed, kvm.opened.references)
                    ending_of(kvm).watch(told.set)
                    await kvm.get(ioasid)
                    subscribes = choose((False, True))
                    if subscribes:
                        tries.start_soon(follow, kvm, name="the subscriber")
                        await following.wait()
                    for each in (cut, evict, cut):
                        tries.start_soon(each)
                    # It asks for nothing, and learns of it whichever connection it has by then.
                    await told.wait()
                    if subscribes:
                        await followed.wait()
                    with pytest.raises(SessionEnded) as ended:
                        await kvm.find(ioasid)
                    assert kvm.number == ended.value.session
                while (figures := await agent.statistics()).suspended or figures.sessions > 2:
                    # It closes what it opened before it knew, or comes back as who has nothing.
                    await checkpoint()
                assert {} == (await agent.find(ioasid)).references
            assert await agent.free_set(vm.sid, wait=True)
        tasks.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "scenario",
    [connections_that_break, evictions_of_who_comes_back],
    ids=lambda each: each.__name__,
)
def test_connections_that_break(
    scenario: Callable[[], Awaitable[None]], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pieces and the cuts, a request is decided once, and who is evicted is told."""
    # There is no socket to ask whose it is.
    found = Credentials(0, frozenset(), 1)
    monkeypatch.setattr(_server, "credentials_of", lambda _: found)
    explore(scenario, range(60), backend=backend)
