"""Connections that break: sessions, subscriptions and requests come back, each decided once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ioasid.actors import Actor, Decision, Session
from ioasid.actors._port import answered
from ioasid.actors._queue import Queue
from ioasid.core import (
    Alloc,
    AllocatorClosed,
    Event,
    EventKind,
    Expel,
    Get,
    IoasidState,
    NotCommitted,
    OpenSession,
    Resync,
    SessionEnded,
    SessionOpened,
    Subscribe,
    WireFormat,
)
from ioasid.service import (
    Answered,
    Ask,
    ConnectionFailed,
    Limits,
    OutcomeUnknown,
    ServerConnection,
    Welcome,
    connect_allocator,
)
from ioasid.service._link import Link
from ioasid.service._remote_port import RemotePort
from tests.journal.disk import IOERR_FSYNC, Disk, failing_disk
from tests.service.proxies import Proxy, a_proxy
from tests.service.services import a_client, a_service

pytestmark = pytest.mark.anyio


@pytest.fixture
def disk() -> Iterator[Disk]:
    """The disk of every journal of a test."""
    with failing_disk() as disk:
        yield disk


async def reconnected(proxy: Proxy, count: int) -> None:
    """Wait until so many connections have come."""
    while proxy.connections < count:
        await anyio.sleep(0.001)


@asynccontextmanager
async def beside_a_proxy(journal: Path) -> AsyncIterator[tuple[Proxy, Session]]:
    """A way to a service with a journal that can be cut, and a client that it does not concern."""
    async with (
        a_service(journal=journal) as service,
        a_proxy(service.path) as proxy,
        a_client(service) as host,
    ):
        yield proxy, host


@pytest.mark.parametrize("part", range(4))
async def test_a_cut_at_every_byte(part: int) -> None:
    """Wherever a connection is cut, each request is decided once and answered once."""
    async with a_service(capacity=1 << 16) as service, a_proxy(service.path) as proxy:
        async with a_client(service) as operator:
            for cut in range(part + 1, 1400, 4 * 3):
                proxy.budgets = [100_000, cut] if cut % 2 else [cut]
                owner = await operator.alloc_set(f"vm-{cut}", 16)
                try:
                    async with connect_allocator(proxy.path, holder=f"kvm:{cut}") as vm:
                        if cut % 2:
                            proxy.cut()
                        held = [await vm.alloc(owner.sid) for _ in range(4)]
                        await vm.get(held[0])
                        await vm.attach_spid(held[1], 101)
                        await vm.get(held[0])
                        assert False is await vm.free(held[0])
                        assert False is await vm.put(held[0])
                        assert True is await vm.put(held[0])
                        assert True is await vm.free(held[2])
                        await vm.notify(held[1], EventKind.BIND)
                except ConnectionFailed as error:
                    # The first connection was cut before anything was agreed on.
                    assert cut < 400 and "began" in error.reason  # noqa: PT018
                    continue
                assert sorted(held)[1:4:2] == [
                    each.ioasid for each in await operator.list_set(owner.sid)
                ]
                assert len(set(held)) == 4
                assert {} == (await operator.find(held[1])).references


async def test_what_was_asked_is_decided_once() -> None:
    """Many requests under way at every cut: as many IDs are given as were answered."""
    decisions: list[Decision] = []
    async with (
        a_service(taps=[decisions.append]) as service,
        a_proxy(service.path) as proxy,
        a_client(service) as operator,
    ):
        owner = await operator.alloc_set("vm-1", 1 << 15)
        got: list[int] = []

        async def ask(vm: Any, count: int) -> None:
            for _ in range(count):
                got.append(await vm.alloc(owner.sid))  # noqa: PERF401 - one after the other

        async with connect_allocator(proxy.path, holder="vm") as vm:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask, vm, 30)
                for cut in (3000, 500, 777, 1234, 5000, 50, 1, 2000):
                    proxy.budgets = [cut]
                    proxy.cut()
                    await reconnected(proxy, proxy.connections + 1)
            assert proxy.connections > 8
        assert 600 == len(set(got))
        assert sorted(got) == [each.ioasid for each in await operator.list_set(owner.sid)]
        assert 600 == sum(type(each.request) is Alloc for each in decisions)


async def test_a_broken_connection_is_a_crash() -> None:
    """Its holder is suspended until it comes back, with what it had."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(owner.sid)
        async with connect_allocator(proxy.path, holder="vm") as vm, vm.session("second") as second:
            await second.get(ioasid)
            proxy.refusing = True
            proxy.cut()
            while (await host.statistics()).suspended != 1:
                await anyio.sleep(0.001)
            assert False is await host.free(ioasid)
            assert {"second": 1} == (await host.find(ioasid)).references
            proxy.refusing = False
            assert True is await second.put(ioasid)
            figures = await host.statistics()
            assert (3, 0) == (figures.sessions, figures.suspended)
        assert 1 == (await host.statistics()).sessions


@pytest.mark.parametrize("hold", [False, True])
async def test_a_subscription_comes_back_with_a_resync(hold: bool) -> None:
    """What happened meanwhile is in the Resync, what was not taken before is not seen twice."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 8)
        async with (
            connect_allocator(proxy.path, holder="kvm") as kvm,
            kvm.session("first") as first,
            first.subscribe(token="other"),
            kvm.subscribe(token="vm-1", hold=hold) as events,
        ):
            one, two = await host.alloc(owner.sid), await host.alloc(owner.sid)
            assert [one, two] == [getattr(await anext(events), "ioasid", None) for _ in range(2)]
            proxy.refusing = True
            proxy.cut()
            while (await host.statistics()).subscriptions != (hold and 1):
                await anyio.sleep(0.001)
            await host.attach_spid(one, 101)
            await host.free(two)
            proxy.refusing = False
            resync = await anext(events)
            assert isinstance(resync, Resync)
            states = {each.ioasid: (each.state, each.spid) for each in resync}
            expected = {1: (IoasidState.ACTIVE, 101)}
            if hold:
                expected[2] = (IoasidState.FREE_PENDING, None)  # type: ignore[assignment]
            assert expected == states
            if hold:
                assert {"kvm": 1} == (await host.find(one)).references
                reclaim = await anext(events)
                assert isinstance(reclaim, Event)
                assert (EventKind.RECLAIM, 2) == (reclaim.kind, reclaim.ioasid)
            await host.detach_spid(one)
            unbind = await anext(events)
            assert isinstance(unbind, Event)
            assert EventKind.UNBIND is unbind.kind
            # It acknowledges under the number that the subscription has now.
            events.acknowledge(unbind)
            await kvm.statistics()
            lagging = {each.holder for each in (await host.statistics()).lagging}
            assert "kvm" not in lagging
            assert {} == (await host.find(one)).references


async def test_leaving_while_the_connection_is_broken() -> None:
    """A session and a subscription that are left meanwhile are left when it is back."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(owner.sid)
        async with connect_allocator(proxy.path, holder="kvm") as kvm:
            async with kvm.session("second") as second, kvm.subscribe(hold=True):
                await second.get(ioasid)
                proxy.refusing = True
                proxy.cut()
                while (await host.statistics()).suspended != 2:
                    await anyio.sleep(0.001)
            proxy.refusing = False
            await kvm.statistics()
            figures = await host.statistics()
            assert (2, 0, 0) == (figures.sessions, figures.suspended, figures.subscriptions)
            assert {} == (await host.find(ioasid)).references


async def test_a_wait_outlives_a_connection() -> None:
    """Who waits for a reclaim is answered when it comes, over whichever connection."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(owner.sid)
        await host.get(ioasid)
        answers: list[bool] = []

        async def wait(vm: Any) -> None:
            answers.append(await vm.free(ioasid, wait=True))

        async with connect_allocator(proxy.path, holder="vm") as vm:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait, vm)
                while (await host.find(ioasid)).state is IoasidState.ACTIVE:
                    await anyio.sleep(0.001)
                proxy.cut()
                await reconnected(proxy, 2)
                assert True is await host.put(ioasid)
            assert [True] == answers


async def test_giving_up_over_a_broken_connection() -> None:
    """What was given up while there was no connection is not left behind."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 64)
        got: list[int] = []

        async def alloc(vm: Any) -> None:
            got.append(await vm.alloc(owner.sid))

        async with connect_allocator(proxy.path, holder="vm") as vm:
            for turns in range(20):
                proxy.budgets = [turns * 20]
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(alloc, vm)
                    for _ in range(turns):
                        await checkpoint()
                    proxy.refusing = True
                    proxy.cut()
                    tasks.cancel_scope.cancel()
                proxy.refusing = False
                await vm.statistics()
                assert len(got) == (await host.statistics()).active
            assert len(got) < 20


async def test_a_server_that_starts_anew_has_forgotten_everything() -> None:
    """Its allocator is another one: every call says so, and subscriptions end."""
    async with a_service() as one, a_service() as two, a_proxy(one.path) as proxy:
        async with connect_allocator(proxy.path, holder="vm") as vm:
            events = await vm.subscribe().__aenter__()
            proxy.upstream = two.path
            proxy.cut()
            with pytest.raises(AllocatorClosed, match="was restarted"):
                await anext(events)
            with pytest.raises(AllocatorClosed, match="connect again"):
                await vm.statistics()


async def test_a_server_that_does_not_remember() -> None:
    """What only looks is asked again, and of the rest nobody knows whether it was decided."""
    async with (
        a_service(limits=Limits(remembered_clients=0)) as service,
        a_proxy(service.path) as proxy,
        a_client(service) as host,
    ):
        await host.alloc_set("vm-1", 8)
        held = await host.alloc(0)
        await host.get(held)
        outcomes: list[object] = []

        async def note(call: Any) -> None:
            try:
                outcomes.append(await call)
            except OutcomeUnknown as error:
                outcomes.append(error.request)

        async with connect_allocator(proxy.path, holder="vm") as vm:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(note, vm.free(held, wait=True))
                while (await host.find(held)).state is IoasidState.ACTIVE:
                    await anyio.sleep(0.001)
                proxy.cut()
                tasks.start_soon(note, vm.find_set(sid=0))
                await reconnected(proxy, 2)
                assert 0 == (await vm.find_set("vm-1")).sid
        assert {"Free", 0} == {getattr(each, "sid", each) for each in outcomes}


async def test_nobody_answers_any_more() -> None:
    """After the time that it was given, every call is refused, and what waits as well."""
    async with a_service() as service, a_proxy(service.path) as proxy:
        async with connect_allocator(proxy.path, holder="vm", reconnect_within=0.05) as vm:
            proxy.refusing = True
            proxy.cut()
            with pytest.raises(AllocatorClosed, match="connection was lost; "):
                await vm.statistics()
            with pytest.raises(AllocatorClosed):
                await vm.statistics()


async def test_nobody_answers_in_the_middle_of_coming_back() -> None:
    """Wherever that was cut for good, everybody is told of the end."""
    async with a_service() as service, a_proxy(service.path) as proxy:
        for cut in range(0, 700, 12):
            async with (
                connect_allocator(proxy.path, holder="vm", reconnect_within=0.02) as vm,
                vm.session("second") as second,
                vm.subscribe(hold=True) as first_told,
                second.subscribe(hold=True) as second_told,
            ):
                proxy.budgets = [cut, *[0] * 100]
                proxy.cut()
                for events in (first_told, second_told):
                    with pytest.raises(AllocatorClosed, match="connection was lost"):
                        while True:
                            await anext(events)
                with pytest.raises(AllocatorClosed):
                    await second.statistics()
            proxy.budgets = []


@pytest.mark.parametrize("syncs", range(3))
async def test_coming_back_while_the_disk_fails(tmp_path: Path, disk: Disk, syncs: int) -> None:
    """From whichever write on it fails, it is tried again until it works, and nothing is lost."""

    def fail(done: Any) -> int:
        nonlocal syncs
        syncs -= done.action == "sync"
        return IOERR_FSYNC if syncs < 0 else 0

    async with beside_a_proxy(tmp_path / "j") as (proxy, host):
        owner = await host.alloc_set("vm-1", 8)
        one, two = await host.alloc(owner.sid), await host.alloc(owner.sid)
        await host.attach_spid(one, 101)
        async with (
            connect_allocator(proxy.path, holder="kvm", reconnect_within=inf) as kvm,
            kvm.session("second") as second,
            kvm.subscribe(replay=True, hold=True) as events,
        ):
            assert isinstance(await anext(events), Resync)
            await second.get(two)
            before = proxy.connections
            disk.fails = fail
            proxy.cut()
            await reconnected(proxy, before + 3)
            with pytest.raises(NotCommitted):
                await host.free(one)
            assert {"kvm": 1} == (await host.find(one)).references
            assert {"second": 1} == (await host.find(two)).references
            disk.repair()
            # Asked for meanwhile, and decided once.
            three = await second.alloc(owner.sid)
            assert [one, two, three] == [each.ioasid for each in await host.list_set(owner.sid)]
            figures = await host.statistics()
            assert (3, 0, 1) == (figures.sessions, figures.suspended, figures.subscriptions)
            message = await anext(events)
            while not isinstance(message, Resync):
                message = await anext(events)
            assert {one, two} <= {each.ioasid for each in message}
            assert False is await second.put(two)
            assert False is await host.free(one)
        assert 1 == (await host.statistics()).sessions
        assert [two, three] == [each.ioasid for each in await host.list_set(owner.sid)]
        assert {} == (await host.find(two)).references


async def test_giving_up_while_the_disk_fails(tmp_path: Path, disk: Disk) -> None:
    """What takes an answer back is done once, though it was sent again over a broken connection."""
    async with beside_a_proxy(tmp_path / "j") as (proxy, host):
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        async with connect_allocator(proxy.path, holder="vm", reconnect_within=inf) as vm:
            await vm.get(ioasid)
            await vm.get(ioasid)
            reply = vm._port.send(Get(ioasid))
            await reply
            disk.fail("sync", code=IOERR_FSYNC)
            with pytest.raises(NotCommitted):
                await host.reserve_capacity(1)
            vm._port.give_up(Get(ioasid), reply)
            assert {"vm": 3} == (await vm.find(ioasid)).references
            proxy.cut()
            await reconnected(proxy, 3)
            assert {"vm": 3} == (await host.find(ioasid)).references
            disk.repair()
            assert {"vm": 2} == (await vm.find(ioasid)).references
            await vm.put(ioasid)
            assert {"vm": 1} == (await host.find(ioasid)).references


async def test_a_disk_that_fails_for_longer(tmp_path: Path, disk: Disk) -> None:
    """After the time that it was given it comes back no more, and its holder is suspended."""
    async with beside_a_proxy(tmp_path / "j") as (proxy, host):
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        async with connect_allocator(proxy.path, holder="vm", reconnect_within=0.05) as vm:
            await vm.get(ioasid)
            disk.fail("sync", code=IOERR_FSYNC)
            proxy.cut()
            with pytest.raises(AllocatorClosed, match=r"connection was lost .*could not keep"):
                await vm.statistics()
        disk.repair()
        await host.reserve_capacity(1)
        figures = await host.statistics()
        assert (1, 1) == (figures.sessions, figures.suspended)
        assert {"vm": 1} == (await host.find(ioasid)).references


async def suspended(host: Session, count: int) -> None:
    """Wait until so many holders are."""
    while (await host.statistics()).suspended != count:
        await anyio.sleep(0.001)


async def test_who_was_evicted_while_its_connection_was_broken() -> None:
    """Whoever comes back and has nothing any more is told that its session ended, and stays so."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        owner = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(owner.sid)
        async with (
            connect_allocator(proxy.path, holder="vm") as vm,
            vm.session("taker") as taker,
            vm.session("holding") as holding,
            vm.session("clean") as clean,
            vm.session("kept") as kept,
        ):
            await taker.get(ioasid)
            seen = await taker.subscribe().__aenter__()
            events = await holding.subscribe(token="vm-1", hold=True).__aenter__()
            for session in (clean, kept):
                await session.get(ioasid)
            await clean.put(ioasid)
            proxy.refusing = True
            proxy.cut()
            await suspended(host, 3)
            for name in ("taker", "holding"):
                await host.evict(name)
            proxy.refusing = False
            for over in (taker, holding):
                with pytest.raises(SessionEnded) as caught:
                    await over.find(ioasid)
                assert over.number == caught.value.session
            for subscription in (seen, events):
                with pytest.raises(SessionEnded):
                    await anext(subscription)
            # Who had nothing to lose, or lost nothing, goes on.
            assert {"kept": 1} == (await clean.find(ioasid)).references
            proxy.cut()
            await reconnected(proxy, 3)
            with pytest.raises(SessionEnded):
                await taker.find(ioasid)
            # The names are free: whoever restarts comes back under them, and has nothing.
            for name in ("taker", "holding"):
                async with vm.session(name) as anew:
                    assert (False, ()) == (anew.opened.resumed, anew.opened.references)
            assert False is await kept.put(ioasid)
        assert 1 == (await host.statistics()).sessions


@pytest.mark.parametrize("cuts", [False, True])
async def test_an_actor_that_is_evicted(cuts: bool) -> None:
    """It learns without a call or a subscription, whatever its connection does, and starts anew."""

    class Taker(Actor):
        async def on_start(self, *, restarted: bool) -> None:
            """Take what the one before had, too."""
            await self.session.get(1)
            starts.append(self.session.opened)
            started.set()

    starts: list[SessionOpened] = []
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        await host.alloc((await host.alloc_set("vm-1", 8)).sid)
        async with connect_allocator(proxy.path, holder="vm") as vm:
            async with anyio.create_task_group() as tasks:
                started = anyio.Event()
                taker = Taker("taker", restart_wait=0)
                await tasks.start(taker.run, vm)
                started = anyio.Event()
                if cuts:
                    proxy.refusing = True
                    proxy.cut()
                    await suspended(host, 1)
                await host.evict("taker")
                proxy.refusing = False
                await started.wait()
                assert [(False, ()), (False, ())] == [(e.resumed, e.references) for e in starts]
                taker.stop(drain=False)
                await taker.ended.wait()


class Nowhere:
    """A transport that leads nowhere."""

    def wake(self) -> None:
        """Send nothing."""

    close = abort = pause = resume = wake

    def fileno(self) -> int:
        """There is none."""
        return -1


async def test_giving_up_what_a_server_does_not_remember() -> None:
    """What it was told of and forgot is not asked for again, for nobody would have it."""
    link = Link(None, WireFormat.MSGPACK)
    pack = ServerConnection().pack
    welcome = pack(Welcome(1, "e", False, 8, 8, "operator"))
    link.connected(Nowhere())
    link.data_received(welcome)
    opening = link.new_reply()
    link.ask(None, OpenSession("vm"), opening)
    link.data_received(pack(Answered(1, SessionOpened(7, False))))
    port = RemotePort(link, 0).join(answered(await opening, SessionOpened))
    request = Subscribe(hold=True)
    port.give_up(request, port.attach(request, Queue(7, None)))
    link.data_to_send()
    link.disconnected()
    link.restart()
    link.connected(Nowhere())
    link.data_received(welcome)
    again = ServerConnection()
    found = again.receive(link.data_to_send())
    (reopening,) = [each for each in found if isinstance(each, Ask)]
    link.data_received(pack(Answered(reopening.id or 0, SessionOpened(8, False))))
    assert [] == again.receive(link.data_to_send())
    link.close("over", None)


async def test_who_is_evicted_before_it_has_a_port() -> None:
    """The end may come with the number; it is told when the port is made."""
    link = Link(None, WireFormat.MSGPACK)
    link.connected(Nowhere())
    pack = ServerConnection().pack
    link.data_received(pack(Welcome(1, "e", False, 8, 8, "operator")))
    opening = link.new_reply()
    link.ask(None, OpenSession("vm"), opening)
    link.data_received(pack(Answered(1, SessionOpened(7, False))) + pack(Expel(7)))
    port = RemotePort(link, 0).join(answered(await opening, SessionOpened))
    error = port.ending.error
    assert isinstance(error, SessionEnded)
    assert 7 == error.session
    link.close("over", None)


async def test_a_name_that_was_taken_meanwhile() -> None:
    """A session that can't be opened again has ended, and its subscriptions with it."""
    async with a_service() as service, a_proxy(service.path) as proxy, a_client(service) as host:
        async with connect_allocator(proxy.path, holder="vm") as vm, vm.session("other") as other:
            events = await vm.subscribe().__aenter__()
            proxy.refusing = True
            proxy.cut()
            while (await host.statistics()).sessions != 1:
                await anyio.sleep(0.001)
            async with host.session("vm"):
                proxy.refusing = False
                with pytest.raises(SessionEnded) as caught:
                    await vm.statistics()
                assert vm.number == caught.value.session
                with pytest.raises(SessionEnded):
                    await anext(events)
                assert 3 == (await other.statistics()).sessions
