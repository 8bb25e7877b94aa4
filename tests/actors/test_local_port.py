"""The port to an allocator in the same process; `test_port` has what every port does."""

from contextlib import suppress

import pytest

from ioasid.actors import Decision, open_allocator
from ioasid.actors._local_port import LocalPort
from ioasid.actors._open import open_driver
from ioasid.actors._port import Port, answered
from ioasid.actors._queue import Queue
from ioasid.core import (
    Acknowledge,
    Alloc,
    AllocatorClosed,
    AllocSet,
    CloseSession,
    Detach,
    Done,
    EventKind,
    Evict,
    Free,
    OpenSession,
    Put,
    Request,
    Resync,
    SessionEnded,
    SessionOpened,
    SetRecord,
    Subscribe,
    SuspendSession,
    TakeStatistics,
    UnknownHolder,
)
from tests.actors.hosts import settle
from tests.actors.inside import actor_of

pytestmark = pytest.mark.anyio


async def test_a_local_port_is_a_port() -> None:
    """It is made of the actor and a session's number, and a session talks to nothing else."""
    async with open_allocator() as host:
        port: Port = LocalPort(actor_of(host), host.number)
        await port.send(AllocSet("vm-1", 8))
        assert isinstance(host._port, LocalPort)
        assert 1 == await host.alloc(0)


async def test_ports_of_one_session_have_lanes_of_their_own() -> None:
    """Each port is a sender: one that floods keeps another of the same session waiting little."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 2000)
        flood = LocalPort(actor_of(host), host.number)
        modest = flood.beside()
        for _ in range(1000):
            flood.tell(Alloc(0))
        await modest.send(TakeStatistics())
        before = len(seen)
    assert before < 500


def asked(seen: list[Decision]) -> list[tuple[int, Request]]:
    """What was decided since the last time, and which session asked."""
    found = [(each.session, each.request) for each in seen]
    seen.clear()
    return found


async def test_all_who_come_back_are_decided_at_once() -> None:
    """What several sessions are done with by the next batch is one request, and comes first."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.session("a") as a,
        host.session("b") as b,
        a.subscribe(kinds={EventKind.FREE}) as first,
        b.subscribe(kinds={EventKind.FREE}) as second,
    ):
        await host.alloc_set("vm-1", 8)
        for _ in range(3):
            await host.alloc(0)
        for ioasid in (1, 2):
            await host.free(ioasid)
        seen.clear()
        host._port.tell(Free(3))
        for events in (first, second, first):
            events.acknowledge(await anext(events))
        await settle()
        at_once = Acknowledge(((first.number, 4), (second.number, 4), (first.number, 5)))
        assert [(0, at_once), (host.number, Free(3))] == asked(seen)


async def test_nobody_is_woken_for_what_nobody_waits_for() -> None:
    """That an ALLOC or a RECLAIM is dealt with is decided with what is asked next."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.subscribe(kinds={EventKind.ALLOC, EventKind.RECLAIM}) as events,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        events.acknowledge(await anext(events))
        await host.free(1)
        seen.clear()
        events.acknowledge(await anext(events))
        await settle()
        assert [] == asked(seen)
        await host.alloc(0)
        assert [(0, Acknowledge(((1, 3),))), (1, Alloc(0))] == asked(seen)


@pytest.mark.parametrize("kind", [EventKind.ALLOC, EventKind.BIND])
async def test_the_allocator_is_woken_for_what_has_an_order(kind: EventKind) -> None:
    """What a publisher sent, of any kind, is decided at once."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with host.subscribe(kinds={kind}) as events:
            await host.notify(1, kind)
            message = await anext(events)
            seen.clear()
            events.acknowledge(message)
            await settle()
            assert [(0, Acknowledge(((1, message.seq),)))] == asked(seen)


async def test_the_allocator_is_woken_by_who_is_behind() -> None:
    """A Resync comes as soon as who lagged is back, and who has more to take is heard at once."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe(kinds={EventKind.ALLOC}, queue_size=1) as events:
            for _ in range(3):
                await host.alloc(0)
            assert 1 == getattr(await anext(events), "ioasid", None)
            resync = await anext(events)
            assert isinstance(resync, Resync)
            assert [1, 2, 3] == [each.ioasid for each in resync]
            events.acknowledge(resync)
            for _ in range(2):
                await host.alloc(0)
            fourth = await anext(events)
            seen.clear()
            events.acknowledge(fourth)
            await settle()
            assert [(0, Acknowledge(((1, fourth.seq),)))] == asked(seen)


async def test_what_counts_before_the_end() -> None:
    """What was acknowledged before the allocator was shut down in order is decided."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.subscribe(kinds={EventKind.ALLOC}) as events,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        events.acknowledge(await anext(events))
        actor_of(host).stop()
        await settle()
        assert Acknowledge(((1, 1),)) == seen[-1].request


async def test_an_acknowledgement_overtakes() -> None:
    """It may be decided before what its session sent earlier."""
    seen: list[Decision] = []
    async with (
        open_allocator(taps=[seen.append]) as host,
        host.subscribe(kinds={EventKind.ALLOC}) as events,
    ):
        await host.alloc_set("vm-1", 8)
        await host.get(await host.alloc(0))
        message = await anext(events)
        seen.clear()
        host._port.tell(Put(1))
        events.acknowledge(message)
        await settle()
        assert [(0, Acknowledge(((1, 1),))), (1, Put(1))] == asked(seen)


async def test_nothing_counts_after_the_scope() -> None:
    """Who crashed acknowledges nothing any more, though its end is not decided yet."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        with suppress(ZeroDivisionError):
            async with kvm.subscribe(hold=True) as events:
                await host.free(1)
                message = await anext(events)
                seen.clear()
                raise ZeroDivisionError
        events.acknowledge(message)
        assert None is events.take()
        await settle()
        assert [(2, Detach(1))] == asked(seen)
        assert 1 == (await host.statistics()).free_pending


async def test_nothing_counts_after_the_session() -> None:
    """Who is suspended acknowledges nothing any more, though that is not decided yet."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True) as events:
            await host.free(1)
            message = await anext(events)
            seen.clear()
            kvm._port.leave(SuspendSession())
            events.acknowledge(message)
            await settle()
            assert [(2, SuspendSession())] == asked(seen)
            assert 1 == (await host.statistics()).free_pending


async def test_what_it_says_when_the_allocator_is_gone() -> None:
    """The error names how the allocator ended."""
    async with open_allocator() as host:
        port = LocalPort(actor_of(host), host.number)
    with pytest.raises(AllocatorClosed, match="was shut down"):
        await port.send(Alloc(0))
    with pytest.raises(AllocatorClosed, match="was shut down"):
        await port.attach(Subscribe(), Queue(host.number, None))


async def test_giving_up_comes_before_what_is_sent_next() -> None:
    """Who hears that somebody gave up and takes the name itself gets it, however many wait."""
    async with open_allocator(mailbox_size=1) as host:
        await host.alloc_set("vm-1", 2000)
        port = LocalPort(actor_of(host), host.number)
        asked = [(each, port.send(each)) for each in map(OpenSession, "abcde")]
        await settle()
        for _ in range(100):
            port.tell(Alloc(0))
        for request, reply in asked:
            port.give_up(request, reply)
        async with host.session("e") as session:
            assert not session.opened.resumed


async def test_giving_up_after_the_end() -> None:
    """An allocator that is gone has nothing to undo."""
    async with open_allocator() as host:
        port = LocalPort(actor_of(host), host.number)
        request = OpenSession("vm")
        reply = port.send(request)
        await settle()
    port.give_up(request, reply)
    port.leave(CloseSession())


async def test_a_reply_of_ones_own() -> None:
    """A request may be posted with a reply, and the last request as well."""
    async with open_allocator() as host:
        port = LocalPort(actor_of(host), host.number)
        reply, last = port.new_reply(), port.new_reply()
        port.post(AllocSet("vm-1", 8), reply)
        port.leave(CloseSession(), last)
        assert isinstance(await reply, SetRecord)
        assert Done() == await last
    with pytest.raises(AllocatorClosed):
        port.post(Alloc(0), port.new_reply())


async def test_who_is_evicted_before_it_has_a_port() -> None:
    """It learns when it takes the port; one that opens the name anew, or leaves, hears nothing."""
    async with open_driver(capacity=16) as driver:
        host = driver.join(answered(await driver.send(OpenSession("host")), SessionOpened))
        opening, evicting = driver.send(OpenSession("vm")), host.send(Evict("vm"))
        opened = answered(await opening, SessionOpened)
        answered(await evicting, Done)
        error = driver.join(opened).ending.error
        assert isinstance(error, SessionEnded)
        assert opened.session == error.session
        anew = driver.join(answered(await driver.send(OpenSession("vm")), SessionOpened))
        assert anew.ending.error is None
        anew.leave(CloseSession())
        assert isinstance(await host.send(Evict("vm")), UnknownHolder)
        assert (None, None) == (anew.ending.error, host.ending.error)
