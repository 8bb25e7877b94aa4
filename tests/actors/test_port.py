"""What every port owes a session and a subscription, and how its answers are read."""

from typing import Any

import pytest

from ioasid.actors import Session, Subscription
from ioasid.actors._port import Outlet, Port, answered
from ioasid.actors._queue import Queue
from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    AllocatorClosed,
    AllocMany,
    AllocSet,
    CloseSession,
    Detach,
    Event,
    EventKind,
    Evict,
    Find,
    Free,
    InvalidArgument,
    IoasidRange,
    IoasidRecord,
    OpenSession,
    Put,
    Request,
    SessionEnded,
    SessionOpened,
    SetRecord,
    Subscribe,
    Subscribed,
    SuspendSession,
    UnknownSet,
)
from tests.actors.hosts import settle
from tests.actors.ports import OpenSession as Open

pytestmark = pytest.mark.anyio


def port_of(session: Session) -> Port:
    """The port that a session talks to."""
    return session._port


async def joined(port: Port, name: str) -> tuple[Port, SessionOpened]:
    """Open a session by hand."""
    opened = answered(await port.send(OpenSession(name)), SessionOpened)
    return port.join(opened), opened


# Answers


def test_an_answer_is_returned() -> None:
    """What a request was answered with is given to its asker as it is."""
    answer = Allocated(1)
    assert answer is answered(answer, Allocated)


def test_a_refusal_is_raised() -> None:
    """What a request was refused with is raised, without the traceback of who raised it before."""
    error = UnknownSet(1)
    for _ in range(2):
        with pytest.raises(UnknownSet) as caught:
            answered(error, Allocated)
        assert error is caught.value
        assert 2 == len(caught.traceback)


# Requests


async def test_requests_go_in_order(open_session: Open) -> None:
    """What is sent through one port is decided in that order, before anything is awaited."""
    async with open_session() as host:
        port = port_of(host)
        replies = [port.send(AllocSet("vm-1", 8)), *(port.send(Alloc(0)) for _ in range(3))]
        assert [False] * 4 == [each.done() for each in replies]
        answers = [await each for each in replies]
        assert isinstance(answers[0], SetRecord)
        assert [Allocated(1, 1), Allocated(2, 2), Allocated(3, 3)] == answers[1:]


async def test_a_refusal_is_a_value(open_session: Open) -> None:
    """A reply brings the error that a request was refused with, and does not raise it."""
    async with open_session() as host:
        refused = await port_of(host).send(Alloc(9))
        assert isinstance(refused, UnknownSet)
        assert 9 == refused.sid


async def test_a_subscribe_is_attached(open_session: Open) -> None:
    """It goes with the outlet for its messages, which are delivered there and count."""
    async with open_session() as host:
        port = port_of(host)
        queue = Queue(host.number, None)
        outlet: Outlet = queue
        answer = await port.attach(Subscribe(kinds=frozenset({EventKind.ALLOC})), outlet)
        assert isinstance(answer, Subscribed)
        await port.send(AllocSet("vm-1", 8))
        await port.send(Alloc(0))
        await settle()
        (event,) = queue.messages
        assert isinstance(event, Event)
        assert 1 == event.ioasid
        assert 1 == len((await host.statistics()).lagging)
        port.tell(Acknowledge(((answer.subscription, event.seq),)))
        assert () == (await host.statistics()).lagging


async def test_a_subscribe_without_an_outlet_is_refused(open_session: Open) -> None:
    """Sent or told, it has nobody to deliver to: nothing subscribes, and all goes on."""
    async with open_session() as host:
        port = port_of(host)
        port.tell(Subscribe())
        refused = await port.send(Subscribe())
        assert isinstance(refused, InvalidArgument)
        assert "request" == refused.argument
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        assert 0 == (await host.statistics()).subscriptions


async def test_telling_waits_for_nothing(open_session: Open) -> None:
    """What is told is decided in its turn; that it is refused is nobody's."""
    async with open_session() as host:
        port = port_of(host)
        port.tell(AllocSet("vm-1", 8))
        port.tell(Alloc(9))
        port.tell(Alloc(0))
        assert isinstance(await port.send(Find(1)), IoasidRecord)


# Sessions


async def test_joining(open_session: Open) -> None:
    """A joined port speaks for its own session, and the first one still for the first."""
    async with open_session() as host:
        port, opened = await joined(port_of(host), "vm")
        await port.send(Evict("host"))
        assert isinstance(await port_of(host).send(Alloc(0)), SessionEnded)
        assert 2 == opened.session
        assert isinstance(await port.send(AllocSet("vm-1", 8)), SetRecord)


@pytest.mark.parametrize("end", [CloseSession(), SuspendSession()])
async def test_leaving(open_session: Open, end: CloseSession | SuspendSession) -> None:
    """It is decided after all that was sent before, and before what anybody sends later."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 200)
        port, opened = await joined(port_of(host), "vm")
        for _ in range(100):
            port.tell(Alloc(0))
        port.leave(end)
        figures = await host.statistics()
        assert (100, 1) == (figures.active, figures.sessions)
        refused = await port.send(Alloc(0))
        assert isinstance(refused, SessionEnded)
        assert opened.session == refused.session


# Giving up


async def test_giving_up_what_is_not_decided(open_session: Open) -> None:
    """A request whose asker gives up at once is not decided, and its reply is cancelled."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        port = port_of(host)
        request = Alloc(0)
        reply = port.send(request)
        port.give_up(request, reply)
        assert reply.cancelled()
        assert 0 == (await host.statistics()).active


async def test_giving_up_what_is_answered(open_session: Open) -> None:
    """What only the answer names is undone, and what can be found again stands."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        port = port_of(host)
        alloc, named = Alloc(0), AllocSet("vm-2", 8)
        join, subscribe = OpenSession("vm"), Subscribe()
        asked: list[tuple[Request, Reply[Any]]] = [
            (alloc, port.send(alloc)),
            (named, port.send(named)),
            (join, port.send(join)),
            (subscribe, port.attach(subscribe, Queue(host.number, None))),
        ]
        await settle()
        before = await host.statistics()
        assert (1, 2) == (before.active, before.sets)
        assert (2, 1) == (before.sessions, before.subscriptions)
        for request, reply in asked:
            assert reply.done()
            port.give_up(request, reply)
        after = await host.statistics()
        assert (0, 2) == (after.active, after.sets)
        assert (1, 0) == (after.sessions, after.subscriptions)


async def test_giving_up_a_life_that_is_over(open_session: Open) -> None:
    """What the answer gave is undone, and not what somebody has by the same number since."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        port = port_of(host)
        asked: list[tuple[Request, Reply[Any]]] = [
            (each, port.send(each)) for each in (Alloc(0), AllocMany(0, 2))
        ]
        await settle()
        assert True is await host.free_many(0, [IoasidRange(1, 3)])
        again = [await host.alloc(0) for _ in range(3)]
        assert [1, 2, 3] == again
        for request, reply in asked:
            assert reply.done()
            port.give_up(request, reply)
        assert [(1, 3), (2, 4), (3, 5)] == [
            (each.ioasid, each.generation) for each in await host.list_set(0)
        ]


async def test_giving_up_a_wait(open_session: Open) -> None:
    """Its reply is cancelled, and the reclaim that it was for comes all the same."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        port, _ = await joined(port_of(host), "vm")
        await host.get(await host.alloc(0))
        request = Free(1, None, wait=True)
        reply = port.send(request)
        await settle()
        assert not reply.done()
        port.give_up(request, reply)
        assert reply.cancelled()
        await port_of(host).send(Put(1))
        assert 0 == (await host.statistics()).free_pending


async def test_giving_up_what_was_refused(open_session: Open) -> None:
    """Nothing is to be undone of it."""
    async with open_session() as host:
        before = await host.snapshot()
        port = port_of(host)
        request = OpenSession("host")
        reply = port.send(request)
        await settle()
        port.give_up(request, reply)
        assert before == await host.snapshot()


# The end


async def test_a_port_to_an_allocator_that_is_gone(open_session: Open) -> None:
    """What waits for an answer is refused; what does not passes in silence."""
    async with open_session() as host:
        port, _ = await joined(port_of(host), "vm")
        queue = Queue(host.number, None)
        subscribed = answered(await port.attach(Subscribe(), queue), Subscribed)
    assert (True, None) == (queue.ended, queue.error)
    with pytest.raises(AllocatorClosed):
        await port.send(Alloc(0))
    with pytest.raises(AllocatorClosed):
        await port.attach(Subscribe(), Queue(host.number, None))
    port.tell(Detach(subscribed.subscription))
    port.leave(CloseSession())


async def test_a_port_hands_out_replies_of_its_loop(open_session: Open) -> None:
    """Who waits beside, for a message say, waits with a reply of the same event loop."""
    async with open_session() as host:
        reply = port_of(host).new_reply()
        reply.set_result(5)
        assert 5 == await reply


async def test_a_session_needs_nothing_but_a_port(open_session: Open) -> None:
    """A session and its subscriptions made by hand on a port are as good as any."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        port, opened = await joined(port_of(host), "vm")
        vm = Session(port, "vm", opened)
        async with Subscription(port, Subscribe(sid=0), vm.number, None) as events:
            assert 1 == await vm.alloc(0)
            assert 1 == getattr(await anext(events), "ioasid", None)
