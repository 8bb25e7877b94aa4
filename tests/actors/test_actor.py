"""The base of the device actors: supervision, replies, and the door."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from ioasid.actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    Decision,
    Session,
    Step,
    Subscription,
    open_allocator,
    open_host,
)
from ioasid.core import (
    AllocatorClosed,
    Event,
    EventKind,
    HolderLive,
    InvalidArgument,
    MalformedMessage,
    Message,
    Resync,
    TooManyEvents,
    UnknownIoasid,
)
from tests.actors.hosts import Asked, settle

pytestmark = pytest.mark.anyio


class Say(Message, frozen=True):
    """Answer the same text; `None` is refused."""

    text: str | None


class Wait(Message, frozen=True):
    """Answer when the door is opened, while others are served."""


class Hold(Message, frozen=True):
    """Answer when the door is opened, and serve nobody meanwhile."""


class Break(Message, frozen=True):
    """Break down, in the handler or, later, in what goes on behind it."""

    later: bool = False


class Take(Message, frozen=True):
    """Take a reference of an ID."""

    ioasid: int


class Parrot(Actor):
    """An actor that is told nothing and answers."""

    def __init__(self, holder: str = "parrot", **options: Any) -> None:
        super().__init__(holder, **options)
        self.door = anyio.Event()
        self.starts: list[bool] = []
        self.held: list[tuple[tuple[int, int], ...]] = []

    async def on_start(self, *, restarted: bool) -> None:
        """Note it, and what was held before."""
        self.starts.append(restarted)
        self.held.append(self.session.opened.references)

    async def on_message(self, message: Message) -> Any:
        """Answer."""
        match message:
            case Say(None):
                raise TooManyEvents(1, 16)
            case Say(text):
                return text
            case Wait():
                return self.in_background(self._wait)
            case Hold():
                return await self._wait()
            case Break(True):
                return self.in_background(self._break)
            case Break():
                await self._break()
            case Take(ioasid):
                await self.session.get(ioasid)
            case _:
                await super().on_message(message)
        return None

    async def _wait(self) -> str:
        await self.door.wait()
        if self.starts == [False]:
            return "open"
        raise UnknownIoasid(7)

    async def _break(self) -> None:
        raise ZeroDivisionError("planted")


class Listener(Parrot):
    """A parrot that is told of everything."""

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to the system."""
        return self.session.subscribe(hold=True, replay=restarted, on_message=self.note_event)

    async def on_event(self, message: Event | Resync) -> None:
        """Note it."""
        self.said: list[Event | Resync]
        self.said = [*getattr(self, "said", []), message]


@asynccontextmanager
async def running(actor: Actor) -> AsyncIterator[Session]:
    """Run an allocator and one actor beside it."""
    async with open_allocator(capacity=16) as host, anyio.create_task_group() as tasks:
        await tasks.start(actor.run, host)
        yield host
        tasks.cancel_scope.cancel()


async def test_an_ask_is_answered_by_the_handler() -> None:
    """An ask returns what the handler returns, and raises what it refuses with."""
    parrot = Parrot()
    async with running(parrot):
        assert "hello" == await parrot.ask(Say("hello"))
        with pytest.raises(TooManyEvents) as caught:
            await parrot.ask(Say(None))
        assert (1, 16) == (caught.value.ioasid, caught.value.under_way)
        assert "still there" == await parrot.ask(Say("still there"))


async def test_it_answers_later_while_it_serves_others() -> None:
    """What waits in the background holds nobody up, and is answered or refused later."""
    parrot = Parrot()
    async with running(parrot), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: parrot.ask(Wait()))
        assert "hello" == await parrot.ask(Say("hello"))
        assert {} == asked.came_to
        parrot.door.set()
        await settle()
        assert {"wait": "open"} == asked.came_to
        parrot.crash()
        await asked.ask("refused", lambda: parrot.ask(Wait()))
        assert {"wait": "open", "refused": UnknownIoasid} == asked.came_to


async def test_an_asker_that_gave_up_is_not_served() -> None:
    """A request whose asker was cancelled is dropped before, and its answer after, the handler."""
    steps: list[Decision | Step] = []
    async with running(parrot := Parrot(observer=steps.append)):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(parrot.ask, Wait())
            await settle()
            tasks.cancel_scope.cancel()
        parrot.door.set()
        assert "hello" == await parrot.ask(Say("hello"))
        steps.clear()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await parrot.ask(Say("nobody waits"))
        assert "hello" == await parrot.ask(Say("hello"))
        assert [Step("parrot", Say("hello"))] == steps


async def test_a_crash_fails_what_is_in_hand_and_serves_what_is_queued() -> None:
    """The request that crashes it, and those that wait, fail; what is queued is served after."""
    parrot = Parrot()
    async with running(parrot), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: parrot.ask(Wait()))
        parrot.crash()
        await asked.ask("after the crash", lambda: parrot.ask(Say("hello")))
        assert {"wait": ActorCrashed, "after the crash": "hello"} == asked.came_to
        with pytest.raises(ActorCrashed) as caught:
            await parrot.ask(Break())
        assert "parrot" == caught.value.actor
        await settle()
        assert [False, True, True] == parrot.starts


async def test_a_crash_in_the_background_is_a_crash() -> None:
    """An error in what goes on behind a request crashes the actor, and it restarts."""
    parrot = Parrot()
    async with running(parrot), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: parrot.ask(Wait()))
        with pytest.raises(ActorCrashed):
            await parrot.ask(Break(later=True))
        await settle()
        assert {"wait": ActorCrashed} == asked.came_to
        assert "hello" == await parrot.ask(Say("hello"))
        assert [False, True] == parrot.starts


async def test_what_is_held_outlives_a_crash() -> None:
    """The references of an actor that crashed are kept, and it learns of them at its return."""
    parrot = Parrot()
    async with running(parrot) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await parrot.ask(Take(ioasid))
        await parrot.ask(Take(ioasid))
        parrot.crash()
        await host.free(ioasid)
        await settle()
        assert [(), ((ioasid, 2),)] == parrot.held
        assert {"parrot": 2} == (await host.find(ioasid)).references
        parrot.stop()
        await parrot.ended.wait()
        with pytest.raises(UnknownIoasid):
            await host.find(ioasid)


async def test_restarts_are_bounded_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    """After `max_restarts` in a row it gives up: evicted, and everybody who asks is told."""
    parrot = Parrot(max_restarts=2)
    async with running(parrot) as host, anyio.create_task_group() as tasks:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await parrot.ask(Take(ioasid))
        with caplog.at_level(logging.WARNING, logger="ioasid"):
            for _ in range(3):
                parrot.crash("on purpose")
            asked = Asked(tasks)
            await asked.ask("queued", lambda: parrot.ask(Say("hello")))
        assert [
            "parrot crashed (PlantedFault('on purpose')); restart 1 of 2",
            "parrot crashed (PlantedFault('on purpose')); restart 2 of 2",
            "parrot gave up after 2 restarts: PlantedFault('on purpose')",
        ] == caplog.messages
        assert {"queued": ActorStopped} == asked.came_to
        with pytest.raises(ActorStopped) as caught:
            await parrot.ask(Say("hello"))
        assert ("parrot", "gave up after 2 restarts") == (caught.value.actor, caught.value.reason)
        assert parrot.ended.is_set()
        assert {} == (await host.find(ioasid)).references
        parrot.crash()
        parrot.stop()


async def test_a_request_in_between_starts_the_count_again() -> None:
    """Restarts between which something was served never add up."""
    parrot = Parrot(max_restarts=1)
    async with running(parrot):
        for _ in range(5):
            parrot.crash()
            assert "hello" == await parrot.ask(Say("hello"))
        assert 6 == len(parrot.starts)


async def test_an_event_in_between_starts_the_count_again() -> None:
    """Events count as served too; the Resync that a restart begins with does not."""
    listener = Listener(max_restarts=1)
    async with running(listener) as host:
        owner = await host.alloc_set("vm-1", 16)
        for _ in range(3):
            listener.crash()
            await settle()
            await host.alloc(owner.sid)
            await settle()
        assert not listener.ended.is_set()
        listener.crash()
        await settle()
        listener.crash()
        await settle()
        assert listener.ended.is_set()


async def test_with_no_restarts_the_first_crash_is_the_last() -> None:
    """`max_restarts=0` gives up at once; an actor that held nothing has nothing to be evicted."""
    parrot = Parrot(max_restarts=0)
    async with running(parrot):
        with pytest.raises(ActorCrashed):
            await parrot.ask(Break())
        await parrot.ended.wait()
        with pytest.raises(ActorStopped):
            await parrot.ask(Say("hello"))
        assert [False] == parrot.starts


async def test_it_starts_over_from_a_resync_before_it_serves() -> None:
    """What happened comes before what is asked: the Resync is dealt with before the queue."""
    steps: list[Decision | Step] = []
    listener = Listener(observer=steps.append)
    async with running(listener) as host, anyio.create_task_group() as tasks:
        owner = await host.alloc_set("vm-1", 4)
        await host.alloc(owner.sid)
        await settle()
        listener.crash()
        asked = Asked(tasks)
        await asked.ask("queued", lambda: listener.ask(Say("hello")))
        assert {"queued": "hello"} == asked.came_to
        assert [Event, Resync, Say] == [type(e.message) for e in steps if isinstance(e, Step)]


async def test_events_come_before_requests() -> None:
    """An event that came while a request was handled is taken up before the next request."""
    steps: list[Decision | Step] = []
    listener = Listener(observer=steps.append)
    async with running(listener) as host, anyio.create_task_group() as tasks:
        owner = await host.alloc_set("vm-1", 4)
        tasks.start_soon(listener.ask, Hold())
        await settle()
        tasks.start_soon(listener.ask, Say("hello"))
        await settle()
        ioasid = await host.alloc(owner.sid)
        await host.attach_spid(ioasid, 101)
        assert [Hold()] == [each.message for each in steps if isinstance(each, Step)]
        listener.door.set()
        await settle()
    assert [Hold, Event, Event, Say] == [type(e.message) for e in steps if isinstance(e, Step)]


async def test_events_are_acknowledged_when_handled() -> None:
    """What the subscription grants is let go when the actor has dealt with the end of it."""
    listener = Listener()
    async with running(listener) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await host.attach_spid(ioasid, 101)
        await settle()
        assert {"parrot": 1} == (await host.find(ioasid)).references
        await host.free(ioasid)
        await settle()
        with pytest.raises(UnknownIoasid):
            await host.find(ioasid)
        assert () == (await host.statistics()).lagging


async def test_stop_lets_it_finish_what_came_before() -> None:
    """A stop is in order: what was asked before is answered, what waits or comes later is not."""
    parrot = Parrot()
    async with running(parrot) as host, anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: parrot.ask(Wait()))
        async with anyio.create_task_group() as askers:
            before = Asked(askers)
            askers.start_soon(before.ask, "before", lambda: parrot.ask(Say("hello")))
            await settle()
        parrot.stop()
        parrot.stop()
        await parrot.ended.wait()
        await settle()
        assert {"before": "hello"} == before.came_to
        assert {"wait": ActorStopped} == asked.came_to
        with pytest.raises(ActorStopped, match="was stopped"):
            await parrot.ask(Say("hello"))
        assert 1 == (await host.statistics()).sessions


async def test_a_cancelled_actor_answers_everybody() -> None:
    """When its task is cancelled, what is in hand, waits or is queued gets ActorStopped."""
    parrot = Parrot()
    async with anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        async with running(parrot):
            await asked.ask("wait", lambda: parrot.ask(Wait()))
        await settle()
        assert {"wait": ActorStopped} == asked.came_to


async def test_it_ends_with_the_allocator() -> None:
    """An allocator that is gone ends the actor, without a restart."""
    parrot, listener = Parrot(), Listener("listener")

    async def fail(tasks: TaskGroup) -> None:
        async with open_allocator(capacity=16) as host:
            await tasks.start(parrot.run, host)
            await tasks.start(listener.run, host)
            raise ZeroDivisionError

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ZeroDivisionError):
            await fail(tasks)
        await listener.ended.wait()
        assert not parrot.ended.is_set()
        with pytest.raises(ActorStopped, match="ended with the allocator"):
            await parrot.ask(Take(1))
        with pytest.raises(ActorStopped, match="ended with the allocator"):
            await listener.ask(Say("hello"))
    assert ([False], [False]) == (parrot.starts, listener.starts)


async def test_a_start_that_fails_raises() -> None:
    """An actor that can't start raises why, is over, and leaves no session behind."""
    parrot = Parrot()
    async with open_allocator(capacity=16) as host, host.session("parrot"):
        async with anyio.create_task_group() as tasks:
            with pytest.raises(HolderLive):
                await tasks.start(parrot.run, host)
        with pytest.raises(ActorStopped, match="did not start"):
            await parrot.ask(Say("hello"))
        assert 2 == (await host.statistics()).sessions


async def test_an_eviction_is_a_crash() -> None:
    """An actor that is evicted notices at once if it is told of events, and comes back anew."""
    listener = Listener()
    async with running(listener) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await listener.ask(Take(ioasid))
        await host.evict("parrot")
        await settle()
        assert [False, True] == listener.starts
        assert [(), ()] == listener.held
        assert {} == (await host.find(ioasid)).references
        assert isinstance(listener.said[-1], Resync)


async def test_several_errors_at_once_are_one_crash(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of several background tasks at once crash the actor once."""

    class Noisy(Parrot):
        async def _wait(self) -> str:
            try:
                await anyio.sleep_forever()
            finally:
                raise LookupError("planted")

    noisy = Noisy()
    async with running(noisy), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: noisy.ask(Wait()))
        await asked.ask("break", lambda: noisy.ask(Break(later=True)))
        assert {"wait": ActorCrashed, "break": ActorCrashed} == asked.came_to
        assert "hello" == await noisy.ask(Say("hello"))
    assert "[ZeroDivisionError('planted'), LookupError('planted')]" in caplog.text
    assert 1 == len(caplog.messages)


async def test_the_observer_sees_every_step_in_order() -> None:
    """The observer is called with every request and event that the actor takes up."""
    steps: list[Decision | Step] = []
    listener = Listener(observer=steps.append)
    async with running(listener) as host:
        owner = await host.alloc_set("vm-1", 4)
        await listener.ask(Say("hello"))
        ioasid = await host.alloc(owner.sid)
        await settle()
        with pytest.raises(TooManyEvents):
            await listener.ask(Say(None))
    assert [
        Step("parrot", Say("hello")),
        Step("parrot", Event(1, EventKind.ALLOC, ioasid, owner.sid, "vm-1")),
        Step("parrot", Say(None)),
    ] == steps


async def test_tell_waits_for_nothing() -> None:
    """What is told is handled in its turn; refusals and the end of the actor are nobody's."""
    steps: list[Decision | Step] = []
    parrot = Parrot(observer=steps.append)
    async with running(parrot):
        parrot.tell(Say(None))
        parrot.tell(Say("told"))
        assert "asked" == await parrot.ask(Say("asked"))
        with pytest.raises(InvalidArgument):
            parrot.tell(Say(5))  # type: ignore[arg-type]
        parrot.stop()
        await parrot.ended.wait()
        parrot.tell(Say("too late"))
    assert [Say(None), Say("told"), Say("asked")] == [
        each.message for each in steps if isinstance(each, Step)
    ]


async def test_a_note_to_an_actor_that_is_gone_is_nothing() -> None:
    """An actor that ended takes note of no event any more."""
    listener = Listener()
    async with running(listener):
        listener.stop()
        await listener.ended.wait()
        listener.note_event()
        assert listener.ended.is_set()


async def test_an_actor_that_does_nothing() -> None:
    """The base itself is told nothing, knows no request, and starts and ends."""
    actor = Actor("idle")
    async with running(actor):
        with pytest.raises(MalformedMessage, match="idle does not know Say"):
            await actor.ask(Say("hello"))
        actor.stop()
        await actor.ended.wait()


async def test_what_is_no_message_is_refused_at_the_door() -> None:
    """Something that is no message, or has a field of the wrong type, never reaches the actor."""
    steps: list[Decision | Step] = []
    parrot = Parrot(observer=steps.append)
    async with running(parrot):
        for stranger in (None, 5, "Say", Say, object(), [], {}):
            with pytest.raises(MalformedMessage):
                await parrot.ask(stranger)  # type: ignore[arg-type]
        for bad in (Say(5), Say(b"text"), Take(True), Take(1.0), Take("1"), Break(1)):  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument):
                await parrot.ask(bad)
        with pytest.raises(InvalidArgument) as caught:
            await parrot.ask(Say([1]))  # type: ignore[arg-type]
        assert ("text", "[1] (list)", "str or None") == (
            caught.value.argument,
            caught.value.found,
            caught.value.expected,
        )
    assert [] == steps


@pytest.mark.parametrize("max_restarts", [-1, True, 1.0, None, "3"])
async def test_max_restarts_is_a_number(max_restarts: Any) -> None:
    """A number of restarts that is none is refused, by the actor and by the host."""
    with pytest.raises(InvalidArgument, match="max_restarts"):
        Parrot(max_restarts=max_restarts)
    with pytest.raises(InvalidArgument, match="max_restarts"):
        async with open_host(max_restarts=max_restarts):
            raise AssertionError("not reached")


async def test_asks_beyond_the_mailbox_wait_their_turn() -> None:
    """More asks than the mailbox admits are all served, over a crash as well."""
    steps: list[Decision | Step] = []
    parrot = Parrot(mailbox_size=2, observer=steps.append)
    texts = [str(number) for number in range(20)]
    async with running(parrot):
        parrot.crash()
        async with anyio.create_task_group() as tasks:
            for text in texts:
                tasks.start_soon(parrot.ask, Say(text))
    assert sorted(texts) == sorted(
        each.message.text or ""
        for each in steps
        if isinstance(each, Step) and isinstance(each.message, Say)
    )


async def test_the_allocators_end_in_the_background_is_the_allocators_end() -> None:
    """Background work that meets the end of the allocator ends the actor, without a restart."""

    class Owner(Parrot):
        async def _wait(self) -> str:
            await self.door.wait()
            await self.session.alloc_set("vm-1", 1)
            return "never"

    owner = Owner()
    async with anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        async with open_allocator(capacity=16) as host:
            await tasks.start(owner.run, host)
            await asked.ask("wait", lambda: owner.ask(Wait()))
        owner.door.set()
        await owner.ended.wait()
        await settle()
        assert {"wait": ActorStopped} == asked.came_to
        with pytest.raises(ActorStopped, match="ended with the allocator"):
            await owner.ask(Say("hello"))
        with pytest.raises(AllocatorClosed):
            await host.statistics()
