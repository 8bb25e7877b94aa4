"""The base of the device actors: supervision, replies, and the door."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from itertools import pairwise
from threading import Thread
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AsksItself,
    Decision,
    RequestFailed,
    Session,
    Step,
    Subscription,
    WrongThread,
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


class End(Message, frozen=True):
    """End the job with an ID."""

    ioasid: int


class Allocate(Message, frozen=True):
    """Allocate an ID, and answer it."""

    later: bool = False


class Stumble(Message, frozen=True):
    """Fail, and break nothing; in the handler or, later, in what goes on behind it."""

    later: bool = False
    saying: str = "planted"


class Take(Message, frozen=True):
    """Take a reference of an ID."""

    ioasid: int


class Parrot(Actor):
    """An actor that is told nothing and answers."""

    restart_on = (ZeroDivisionError,)

    def __init__(self, holder: str = "parrot", **options: Any) -> None:
        super().__init__(holder, **{"restart_wait": 0, **options})
        self.door = anyio.Event()
        self.starts: list[bool] = []
        self.held: list[tuple[tuple[int, int], ...]] = []

    async def on_start(self, *, restarted: bool) -> None:
        """Note it, and what was held before."""
        self.starts.append(restarted)
        self.held.append(self.session.opened.references)

    async def on_request(self, message: Message) -> Any:
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
            case Stumble(True):
                return self.in_background(self._stumble)
            case Stumble(saying=saying):
                await self._stumble(saying)
            case Take(ioasid):
                await self.session.get(ioasid)
            case _:
                await super().on_request(message)
        return None

    async def _wait(self) -> str:
        await self.door.wait()
        if self.starts == [False]:
            return "open"
        raise UnknownIoasid(7)

    async def _break(self) -> None:
        raise ZeroDivisionError("planted")

    async def _stumble(self, saying: str = "planted") -> None:
        raise LookupError(saying)


class Listener(Parrot):
    """A parrot that is told of everything."""

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to the system."""
        return self.session.subscribe(hold=True, replay=restarted, wake=self.note_event)

    async def on_event(self, message: Event | Resync) -> None:
        """Note it."""
        self.said: list[Event | Resync]
        self.said = [*getattr(self, "said", []), message]


class Engine(Parrot):
    """A parrot whose hardware runs one job for every ID that it took, until it is told to end."""

    def __init__(self, **options: Any) -> None:
        super().__init__("engine", **options)
        self.jobs: set[int] = set()
        self.asked_to_stop = 0

    async def on_request(self, message: Message) -> Any:
        """Begin or end a job."""
        match message:
            case Take(ioasid):
                self.refuse_if_stopping()
                await self.session.get(ioasid)
                self.jobs.add(ioasid)
                return None
            case End(ioasid):
                self.jobs.remove(ioasid)
                await self.session.put(ioasid)
                return None
            case _:
                return await super().on_request(message)

    async def on_stop(self) -> None:
        """Note it."""
        self.asked_to_stop += 1

    def is_clean(self) -> bool:
        """Tell whether no job runs."""
        return not self.jobs


class Allocating(Parrot):
    """A parrot that allocates, and frees what nobody learned of."""

    def __init__(self) -> None:
        super().__init__("allocating")
        self.sid = -1

    async def on_start(self, *, restarted: bool) -> None:
        """Allocate a set."""
        await super().on_start(restarted=restarted)
        if not restarted:
            self.sid = (await self.session.alloc_set("vm-1", 4)).sid

    async def on_request(self, message: Message) -> Any:
        """Allocate, at once or in the background."""
        match message:
            case Allocate(later=True):
                return self.in_background(lambda: self.session.alloc(self.sid))
            case Allocate():
                return await self.session.alloc(self.sid)
            case _:
                return await super().on_request(message)

    async def on_forsaken(self, message: Message, answer: Any) -> None:
        """Free it."""
        await self.session.free(answer)


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
        assert (1, 16) == (caught.value.ioasid, caught.value.in_flight)
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
    async with running(parrot := Parrot(taps=[steps.append])):
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
        assert {"parrot": 2} == (await host.find(ioasid)).references


async def test_restarts_are_bounded_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    """After `max_restarts` in a row it gives up: suspended, and everybody who asks is told."""
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
            "parrot crashed; restart 1 of 2 in 0.00 s",
            "parrot crashed; restart 2 of 2 in 0.00 s",
            (
                "parrot gave up after 2 restarts; what it holds stays in quarantine until its "
                "holder comes back or is evicted"
            ),
        ] == caplog.messages
        assert ["on purpose"] * 3 == [
            str(each.exc_info[1]) for each in caplog.records if each.exc_info is not None
        ]
        assert {"queued": ActorStopped} == asked.came_to
        with pytest.raises(ActorStopped) as caught:
            await parrot.ask(Say("hello"))
        assert ("parrot", "gave up after 2 restarts") == (caught.value.actor, caught.value.reason)
        assert parrot.ended.is_set()
        assert "down" == parrot.statistics().state
        await host.free(ioasid)
        assert {"parrot": 1} == (await host.find(ioasid)).references
        parrot.crash()
        parrot.stop()
        await host.evict("parrot")
        with pytest.raises(UnknownIoasid):
            await host.find(ioasid)


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
        owner = await host.alloc_set("vm-1", 8)
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
    listener = Listener(taps=[steps.append])
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
    listener = Listener(taps=[steps.append])
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


@pytest.mark.parametrize("orderly", [True, False])
async def test_it_ends_with_the_allocator(
    *, orderly: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An allocator that is gone, in order or not, ends every actor, without a restart."""
    actors = [Parrot(), Listener("listener"), Listener("waiter")]

    async def serve(tasks: TaskGroup) -> None:
        async with open_allocator(capacity=16) as host:
            for actor in actors:
                await tasks.start(actor.run, host)
            await asked.ask("later", lambda: actors[2].ask(Wait()))
            if not orderly:
                raise ZeroDivisionError

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            asked = Asked(tasks)
            with nullcontext() if orderly else pytest.raises(ZeroDivisionError):
                await serve(tasks)
            for actor in actors:
                await actor.ended.wait()
                assert "stopped" == actor.statistics().state
                with pytest.raises(ActorStopped, match="allocator, which was shut down"):
                    await actor.ask(Say("hello"))
    assert {"later": ActorStopped} == asked.came_to
    assert [[False]] * 3 == [actor.starts for actor in actors]
    assert {
        f"{each.holder} ended with the allocator, which was shut down" for each in actors
    } == set(caplog.messages)


async def test_it_deals_with_what_it_was_told_before_the_allocator_ended() -> None:
    """What waited in its queue at an orderly end is handled first."""
    listener = Listener("listener")
    async with anyio.create_task_group() as tasks:
        async with open_allocator(capacity=16) as host:
            await tasks.start(listener.run, host)
            await host.alloc((await host.alloc_set("vm-1", 4)).sid)
        await listener.ended.wait()
    assert ["ALLOC"] == [each.kind for each in listener.said if isinstance(each, Event)]


async def test_it_does_not_start_without_an_allocator() -> None:
    """Started when its allocator is gone, an actor raises so."""
    async with open_allocator(capacity=16) as host:
        pass
    parrot = Parrot()
    async with anyio.create_task_group() as tasks:
        with pytest.raises(AllocatorClosed):
            await tasks.start(parrot.run, host)
    assert parrot.ended.is_set()


@pytest.mark.parametrize("kind", [Parrot, Listener])
async def test_a_live_actor_that_is_evicted(
    kind: type[Parrot], caplog: pytest.LogCaptureFixture
) -> None:
    """It says so, without a traceback, and starts anew with nothing; its asker is told."""
    actor = kind("victim")
    async with running(actor) as host:
        ioasid = await host.alloc((await host.alloc_set("vm-1", 4)).sid)
        await actor.ask(Take(ioasid))
        await host.evict("victim")
        # Whether or not it is told of events, it waits for nobody to ask.
        await settle()
        assert [False, True] == actor.starts
        assert "hello" == await actor.ask(Say("hello"))
        assert [(), ()] == actor.held
    (message,) = caplog.messages
    assert message.startswith("victim was evicted while it served")
    assert [None] == [each.exc_info for each in caplog.records]


async def test_whoever_is_told_nothing_may_note_more_than_once() -> None:
    """Without a subscription, each note lets the actor look again whether it is clean."""
    engine = Engine()
    async with running(engine) as host:
        ioasid = await host.alloc((await host.alloc_set("vm-1", 4)).sid)
        await engine.ask(Take(ioasid))
        engine.note_event()
        await settle()
        engine.stop()
        await settle()
        assert "stopping" == engine.statistics().state
        engine.jobs.clear()
        engine.note_event()
        await engine.ended.wait()


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
                raise ZeroDivisionError("as well")

    noisy = Noisy()
    async with running(noisy), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: noisy.ask(Wait()))
        await asked.ask("break", lambda: noisy.ask(Break(later=True)))
        assert {"wait": ActorCrashed, "break": ActorCrashed} == asked.came_to
        assert "hello" == await noisy.ask(Say("hello"))
    assert "ZeroDivisionError: planted" in caplog.text
    assert "ZeroDivisionError: as well" in caplog.text
    assert 1 == len(caplog.messages)


async def test_a_tap_sees_every_step_in_order() -> None:
    """A tap is called with every request and event that the actor takes up."""
    steps: list[Decision | Step] = []
    listener = Listener(taps=[steps.append])
    async with running(listener) as host:
        owner = await host.alloc_set("vm-1", 4)
        await listener.ask(Say("hello"))
        ioasid = await host.alloc(owner.sid)
        await settle()
        with pytest.raises(TooManyEvents):
            await listener.ask(Say(None))
    assert [
        Step("parrot", Say("hello")),
        Step("parrot", Event(1, EventKind.ALLOC, ioasid, owner.sid, "vm-1", generation=1)),
        Step("parrot", Say(None)),
    ] == steps


async def test_tell_waits_for_nothing() -> None:
    """What is told is handled in its turn; refusals and the end of the actor are nobody's."""
    steps: list[Decision | Step] = []
    parrot = Parrot(taps=[steps.append])
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
    parrot = Parrot(taps=[steps.append])
    async with running(parrot):
        for stranger in (None, 5, "Say", Say, object(), [], {}):
            with pytest.raises(MalformedMessage):
                await parrot.ask(stranger)  # type: ignore[arg-type]
        for bad in (Say(5), Say(b"text"), Take(True), Take(1.0), Take("1"), Break(1)):  # type: ignore[arg-type]
            with pytest.raises(InvalidArgument):
                await parrot.ask(bad)
        with pytest.raises(InvalidArgument) as caught:
            await parrot.ask(Say([1]))  # type: ignore[arg-type]
        assert ("text", "[1]", "str or None") == (
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
    parrot = Parrot(mailbox_size=2, taps=[steps.append])
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


# What a handler raises


@pytest.mark.parametrize("later", [False, True])
async def test_a_request_that_fails_fails_alone(
    *, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """However often a handler raises on a request, the actor goes on and nobody else is hit."""
    parrot = Parrot(max_restarts=0)
    async with running(parrot), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        await asked.ask("wait", lambda: parrot.ask(Wait()))
        for _ in range(10):
            with pytest.raises(RequestFailed) as caught:
                await parrot.ask(Stumble(later))
            assert ("parrot", "LookupError('planted')") == (caught.value.actor, caught.value.error)
            cause = caught.value.__cause__
            assert isinstance(cause, LookupError)
            assert cause.__traceback__ is not None
        assert "hello" == await parrot.ask(Say("hello"))
        assert [False] == parrot.starts
        parrot.door.set()
        await settle()
        assert {"wait": "open"} == asked.came_to
    assert 10 * ["parrot failed on a request, and goes on"] == caplog.messages
    assert 10 == caplog.text.count("LookupError: planted")


async def wait_for_what_is_cancelled() -> None:
    """Wait for a task that somebody else cancels."""
    task = asyncio.ensure_future(asyncio.sleep(100))
    task.cancel()
    await task


class Astray(Parrot):
    """A parrot that waits for what is cancelled, where it is told to."""

    at = ""

    async def on_request(self, message: Message) -> Any:
        """Wait, in the handler or behind it."""
        if not isinstance(message, Break):
            return await super().on_request(message)
        if self.at == "background":
            return self.in_background(wait_for_what_is_cancelled)
        if self.at == "task":
            self.tasks.start_soon(wait_for_what_is_cancelled)
            return None
        return await wait_for_what_is_cancelled()

    async def on_stop(self) -> None:
        """Wait once."""
        if self.at == "stop" and len(self.starts) == 1:
            await wait_for_what_is_cancelled()

    def is_clean(self) -> bool:
        """Tell that it may leave."""
        return True


async def test_what_a_request_failed_with_is_shown_whole() -> None:
    """Its asker sees a long message to its end, and of one without end a thousand characters."""
    parrot = Parrot(max_restarts=0)
    async with running(parrot):
        for length, kept in ((500, 500 + len("LookupError('')")), (5000, 1000)):
            with pytest.raises(RequestFailed) as caught:
                await parrot.ask(Stumble(saying=length * "x"))
            assert kept == len(caught.value.error)


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("at", ["request", "background"])
async def test_what_a_request_waits_for_is_cancelled(
    at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """That is the failure of the request, and no cancellation of the actor."""
    parrot = Astray()
    parrot.at = at
    async with running(parrot):
        with pytest.raises(RequestFailed, match="waited for what was cancelled") as caught:
            await parrot.ask(Break())
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert isinstance(caught.value.__cause__.__cause__, asyncio.CancelledError)
        assert "hello" == await parrot.ask(Say("hello"))
        assert [False] == parrot.starts
    assert "test_actor.py" in caplog.text


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
@pytest.mark.parametrize("at", ["task", "stop"])
async def test_what_an_actor_waits_for_is_cancelled(at: str) -> None:
    """It is a crash: its references stay, and it comes back; it does not leave as if in order."""
    parrot = Astray()
    parrot.at = at
    async with open_allocator() as host, anyio.create_task_group() as tasks:
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        await tasks.start(parrot.run, host)
        await parrot.ask(Take(ioasid))
        if at == "task":
            await parrot.ask(Break())
        else:
            parrot.stop()
            await parrot.ended.wait()
        await settle()
        assert [False, True] == parrot.starts
        assert ((int(ioasid), 1),) == parrot.held[1]
        assert isinstance(parrot.statistics().error, RuntimeError)
        parrot.stop()


async def test_a_crash_of_a_stop_with_nothing_to_clean() -> None:
    """An actor that was told to stop leaves when it is back, though nobody asks it anything."""

    class Stumbling(Parrot):
        async def on_stop(self) -> None:
            if len(self.starts) == 1:
                raise ZeroDivisionError

        def is_clean(self) -> bool:
            return True

    parrot = Stumbling()
    async with open_allocator() as host, anyio.create_task_group() as tasks:
        await tasks.start(parrot.run, host)
        parrot.stop()
        with anyio.fail_after(60):
            await parrot.ended.wait()
        assert ([False, True], "stopped") == (parrot.starts, parrot.statistics().state)


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
async def test_an_actor_that_asyncio_cancels_is_suspended() -> None:
    """A cancellation of its own task, by whatever means, is the end of the actor."""
    parrot = Astray()
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        task = asyncio.ensure_future(parrot.run(host))
        await settle()
        await parrot.ask(Take(ioasid))
        waits = asyncio.ensure_future(parrot.ask(Hold()))
        await settle()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ActorStopped, match="was cancelled"):
            await waits
        assert ([False], "suspended") == (parrot.starts, parrot.statistics().state)
        assert {"parrot": 1} == (await host.find(ioasid)).references


@pytest.mark.parametrize("later", [False, True])
async def test_a_crash_has_its_cause(*, later: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Who asked is given what the handler raised, with its traceback, which is on the log, too."""
    parrot = Parrot()
    async with running(parrot):
        with pytest.raises(ActorCrashed) as caught:
            await parrot.ask(Break(later))
        cause = caught.value.__cause__
        assert isinstance(cause, ZeroDivisionError)
        assert cause.__traceback__ is not None
        await settle()
        error = parrot.statistics().error
        assert cause is error
    assert "in _break" in caplog.text
    assert "ZeroDivisionError: planted" in caplog.text


async def test_a_told_request_that_fails_is_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A failure that nobody waits for is still seen."""
    parrot = Parrot()
    async with running(parrot):
        parrot.tell(Stumble())
        parrot.tell(Stumble(later=True))
        await settle()
        assert [False] == parrot.starts
    assert 2 == caplog.text.count("LookupError: planted")


async def test_an_event_that_fails_is_a_crash() -> None:
    """What was missed there is in the Resync that it restarts with."""

    class Picky(Listener):
        async def on_event(self, message: Event | Resync) -> None:
            await super().on_event(message)
            if isinstance(message, Event) and message.kind is EventKind.BIND:
                raise LookupError("planted")

    picky = Picky()
    async with running(picky) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await host.attach_spid(ioasid, 101)
        await settle()
        assert [False, True] == picky.starts
        assert [Event, Event, Resync] == [type(each) for each in picky.said]
        assert isinstance(picky.statistics().error, LookupError)


# Restarts


async def test_waits_between_restarts_grow(anyio_backend_name: str) -> None:
    """A start that fails while a device resets is tried again, later each time."""
    if anyio_backend_name != "trio":
        pytest.skip("needs virtual time")

    class Resetting(Parrot):
        async def on_start(self, *, restarted: bool) -> None:
            times.append(anyio.current_time())
            if restarted and anyio.current_time() < ready_at:
                raise OSError("the device resets")

    times: list[float] = []
    resetting = Resetting(restart_wait=0.01)
    async with running(resetting):
        ready_at = anyio.current_time() + 0.3
        resetting.crash()
        assert "hello" == await resetting.ask(Say("hello"))
        waits = [after - before for before, after in pairwise(times)]
        assert [0.01, 0.04, 0.16, 0.64] == [round(each, 6) for each in waits][:4]
        assert 0 == resetting.statistics().restarts
        times.clear()
        resetting.crash()
        await resetting.ask(Say("hello"))
        assert 1 == len(times)


async def test_what_is_asked_while_it_waits_is_answered_after() -> None:
    """An actor that waits before a restart says so, and keeps its mailbox."""
    parrot = Parrot(restart_wait=0.05)
    async with running(parrot), anyio.create_task_group() as tasks:
        parrot.crash()
        for _ in range(20):
            await checkpoint()
        tasks.start_soon(parrot.ask, Say("hello"))
        for _ in range(3):
            await checkpoint()
        found = parrot.statistics()
        assert ("parrot", "restarting", 1, 1) == (
            found.actor,
            found.state,
            found.restarts,
            found.waiting,
        )
        assert "hello" == await parrot.ask(Say("hello"))
        assert ("serving", 0) == (parrot.statistics().state, parrot.statistics().restarts)


@pytest.mark.parametrize("restart_wait", [-0.1, float("nan"), float("inf"), True, None, "1"])
async def test_restart_waits_are_seconds(restart_wait: Any) -> None:
    """A wait that is none is refused, by the actor and by the host."""
    with pytest.raises(InvalidArgument, match="restart_wait"):
        Parrot(restart_wait=restart_wait)
    with pytest.raises(InvalidArgument, match="restart_wait"):
        async with open_host(restart_wait=restart_wait):
            raise AssertionError("not reached")


async def test_an_actor_that_gives_up_may_declare_its_hardware_clean() -> None:
    """Only a class that says so is evicted; there may be nothing left to evict."""

    class Resetting(Parrot):
        async def on_give_up(self, allocator: Session) -> None:
            await self.evict_self(allocator)
            await self.evict_self(allocator)

    resetting = Resetting(max_restarts=0)
    async with running(resetting) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await resetting.ask(Take(ioasid))
        resetting.crash()
        await resetting.ended.wait()
        assert {} == (await host.find(ioasid)).references
        assert 0 == (await host.statistics()).suspended


# Stopping


@asynccontextmanager
async def an_engine_at_work(**options: Any) -> AsyncIterator[tuple[Session, Engine, int]]:
    """Run an engine with one job, whose ID was freed."""
    engine = Engine(**options)
    async with running(engine) as host:
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await engine.ask(Take(ioasid))
        await host.free(ioasid)
        yield host, engine, ioasid


async def test_a_stop_waits_until_the_hardware_is_clean() -> None:
    """A stop is no promise: the ID is back in the pool when its job has ended, not before."""
    async with an_engine_at_work() as (host, engine, ioasid):
        engine.stop()
        await settle()
        assert ("stopping", 1) == (engine.statistics().state, engine.asked_to_stop)
        assert {"engine": 1} == (await host.find(ioasid)).references
        with pytest.raises(ActorStopped, match="is being stopped"):
            await engine.ask(Take(ioasid))
        assert not engine.ended.is_set()
        await engine.ask(End(ioasid))
        await engine.ended.wait()
        assert "stopped" == engine.statistics().state
        with pytest.raises(UnknownIoasid):
            await host.find(ioasid)
        assert 0 == (await host.statistics()).suspended


async def test_a_stop_of_clean_hardware_is_over_at_once() -> None:
    """An actor with nothing programmed leaves, in one way as in the other."""
    for drain in (True, False):
        engine = Engine()
        async with running(engine) as host:
            engine.stop(drain=drain)
            await engine.ended.wait()
            assert "stopped" == engine.statistics().state
            assert 1 == (await host.statistics()).sessions


@pytest.mark.parametrize("first", [True, False])
async def test_a_stop_without_waiting_is_suspended(*, first: bool) -> None:
    """Programmed hardware that nobody waits for keeps its IDs, until its holder is evicted."""
    async with an_engine_at_work() as (host, engine, ioasid):
        if first:
            engine.stop()
            await settle()
        engine.stop(drain=False)
        await engine.ended.wait()
        assert "suspended" == engine.statistics().state
        assert 1 == (await host.statistics()).suspended
        assert {"engine": 1} == (await host.find(ioasid)).references
        await host.evict("engine")
        with pytest.raises(UnknownIoasid):
            await host.find(ioasid)


async def test_a_class_that_cannot_tell_is_suspended() -> None:
    """The base does not know what is programmed: what it holds stays; one with nothing leaves."""
    parrot, idle = Parrot(), Parrot("idle")
    async with running(parrot) as host, anyio.create_task_group() as tasks:
        await tasks.start(idle.run, host)
        owner = await host.alloc_set("vm-1", 4)
        ioasid = await host.alloc(owner.sid)
        await parrot.ask(Take(ioasid))
        for each in (parrot, idle):
            each.stop()
            await each.ended.wait()
            assert "suspended" == each.statistics().state
        await host.free(ioasid)
        assert {"parrot": 1} == (await host.find(ioasid)).references
        assert (1, 1) == ((await host.statistics()).sessions, (await host.statistics()).suspended)


async def test_a_crash_while_it_drains_goes_on_draining() -> None:
    """An actor that was told to stop stays so over a crash, and gives up suspended."""
    async with an_engine_at_work(max_restarts=1) as (host, engine, ioasid):
        engine.stop()
        await settle()
        engine.crash()
        await settle()
        assert ("stopping", 2) == (engine.statistics().state, engine.asked_to_stop)
        with pytest.raises(ActorStopped):
            await engine.ask(Take(ioasid))
        engine.crash()
        engine.crash()
        await engine.ended.wait()
        assert "down" == engine.statistics().state
        assert {"engine": 1} == (await host.find(ioasid)).references


async def test_an_actor_whose_task_is_cancelled_is_suspended() -> None:
    """A cancellation in the middle is a crash: what is programmed stays in quarantine."""
    engine = Engine()
    async with open_allocator(capacity=16) as host:
        async with anyio.create_task_group() as tasks:
            await tasks.start(engine.run, host)
            owner = await host.alloc_set("vm-1", 4)
            ioasid = await host.alloc(owner.sid)
            await engine.ask(Take(ioasid))
            tasks.cancel_scope.cancel()
        assert "suspended" == engine.statistics().state
        await host.free(ioasid)
        assert {"engine": 1} == (await host.find(ioasid)).references


# Askers who are gone


@pytest.mark.parametrize("later", [False, True])
async def test_what_nobody_learned_of_is_undone(*, later: bool) -> None:
    """Wherever an asker is cancelled, an ID is its own or nobody's."""
    answers: list[int] = []
    for passes in range(30):
        allocating = Allocating()
        answers = []

        async def ask(allocating: Allocating = allocating, answers: list[int] = answers) -> None:
            answers.append(await allocating.ask(Allocate(later)))

        async with running(allocating) as host:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                for _ in range(passes):
                    await checkpoint()
                tasks.cancel_scope.cancel()
            await settle()
            assert answers == [each.ioasid for each in await host.list_set(allocating.sid)]
    assert answers


async def test_what_was_told_is_answered_to_nobody() -> None:
    """Who tells wants no answer, so there is nothing to undo."""
    allocating = Allocating()
    async with running(allocating) as host:
        allocating.tell(Allocate())
        allocating.tell(Allocate(later=True))
        await settle()
        assert 2 == len(list(await host.list_set(allocating.sid)))


async def test_an_undo_that_fails_is_on_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal there says that somebody else ended it; a bug is logged, and the actor goes on."""

    class Late(Allocating):
        async def on_forsaken(self, message: Message, answer: Any) -> None:
            await super().on_forsaken(message, answer)
            await super().on_forsaken(message, answer)

    class Clumsy(Allocating):
        async def on_forsaken(self, message: Message, answer: Any) -> None:
            await super().on_forsaken(message, answer)
            raise LookupError("planted")

    for kind, logged in ((Late, False), (Clumsy, True)):
        caplog.clear()
        for passes in range(30):
            allocating = kind()
            async with running(allocating) as host:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(allocating.ask, Allocate())
                    for _ in range(passes):
                        await checkpoint()
                    tasks.cancel_scope.cancel()
                await settle()
                assert len(list(await host.list_set(allocating.sid))) <= 1
                assert [False] == allocating.starts
        assert logged == ("LookupError: planted" in caplog.text)
        assert "UnknownIoasid" not in caplog.text


# The door


async def test_an_actor_that_does_not_run_can_not_be_asked() -> None:
    """Before it runs and after it ended, whoever asks is told at once, and nothing hangs."""
    parrot = Parrot()
    for call in (parrot.ask, parrot.client().ask):
        with pytest.raises(ActorStopped, match=r"does not run; await tasks\.start"):
            await call(Say("hello"))
    with pytest.raises(ActorStopped, match="does not run"):
        parrot.tell(Say("hello"))
    with pytest.raises(ActorStopped, match="does not run"):
        parrot.tell_from_thread(Say("hello"))
    assert "new" == parrot.statistics().state
    async with running(parrot) as host:
        with pytest.raises(ActorStopped, match="runs already"):
            await parrot.run(host)
        assert "hello" == await parrot.ask(Say("hello"))
        parrot.stop()
        await parrot.ended.wait()
        with pytest.raises(ActorStopped, match="was stopped"):
            await parrot.run(host)


async def test_a_handler_that_asks_its_own_actor_is_refused() -> None:
    """It would wait for itself, in a request, an event or a start; to tell is fine."""

    class Selfish(Listener):
        async def on_start(self, *, restarted: bool) -> None:
            await super().on_start(restarted=restarted)
            await self._ask("start")

        async def on_request(self, message: Message) -> Any:
            if message == Say("self"):
                await self._ask("request")
                self.tell(Say("told"))
                return self.in_background(lambda: self.ask(Say("in the background")))
            return await super().on_request(message)

        async def on_event(self, message: Event | Resync) -> None:
            await self._ask("event")

        async def _ask(self, where: str) -> None:
            with pytest.raises(AsksItself, match="parrot would wait for itself"):
                await self.ask(Say("never"))
            refused.append(where)

    refused: list[str] = []
    steps: list[Decision | Step] = []
    selfish = Selfish(taps=[steps.append])
    async with running(selfish) as host:
        assert "in the background" == await selfish.ask(Say("self"))
        owner = await host.alloc_set("vm-1", 4)
        await host.alloc(owner.sid)
        await settle()
        assert "told" in [getattr(e.message, "text", "") for e in steps if isinstance(e, Step)]
    assert ["start", "request", "event"] == refused


async def test_only_a_request_can_be_answered_later() -> None:
    """From an event, which nobody waits for, it is refused with a clear error."""

    class Mistaken(Listener):
        async def on_event(self, message: Event | Resync) -> None:
            for call in (self.reply_later, lambda: self.in_background(self._wait)):
                with pytest.raises(RuntimeError, match="only a request is answered"):
                    call()
            seen.append(message)

    seen: list[Event | Resync] = []
    mistaken = Mistaken()
    async with running(mistaken) as host:
        owner = await host.alloc_set("vm-1", 4)
        await host.alloc(owner.sid)
        await settle()
        assert ([False], 1) == (mistaken.starts, len(seen))


async def test_every_door_is_shut_to_other_threads() -> None:
    """What belongs to the event loop raises at once in another thread, and nothing has happened."""
    steps: list[Decision | Step] = []
    parrot = Parrot(taps=[steps.append])

    def try_every_door() -> None:
        calls: list[Callable[[], object]] = [
            lambda: parrot.tell(Say("hello")),
            lambda: client.tell(Say("hello")),
            lambda: parrot.ask(Say("hello")).send(None),
            parrot.stop,
            parrot.crash,
        ]
        for call in calls:
            with pytest.raises(WrongThread, match="tell_from_thread") as caught:
                call()
            assert ("parrot", "EPERM") == (caught.value.what, caught.value.code)

    async with running(parrot):
        client = parrot.client()
        await anyio.to_thread.run_sync(try_every_door)
        await settle()
        assert ([], [False]) == (steps, parrot.starts)
        assert "hello" == await parrot.ask(Say("hello"))


async def test_a_thread_may_tell() -> None:
    """What an interrupt's thread tells is handled at once, without anything else happening."""
    handled = anyio.Event()

    class Interrupted(Parrot):
        async def on_request(self, message: Message) -> Any:
            handled.set()
            return await super().on_request(message)

    interrupted = Interrupted()
    async with running(interrupted):
        thread = Thread(target=interrupted.tell_from_thread, args=(Say("hello"),))
        thread.start()
        await handled.wait()
        thread.join()
        with pytest.raises(InvalidArgument):
            interrupted.tell_from_thread(Say(5))  # type: ignore[arg-type]
        interrupted.stop()
        await interrupted.ended.wait()
        interrupted.tell_from_thread(Say("too late"))
        await settle()


def test_a_thread_may_tell_after_the_event_loop_has_ended(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    """An event loop that has ended is an actor that is gone."""
    parrot = Parrot
    actors: list[Parrot] = []

    async def main() -> None:
        actors.append(parrot())
        async with running(actors[0]):
            await actors[0].ask(Say("hello"))

    anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
    actors[0].tell_from_thread(Say("hello"))
    assert actors[0].ended.is_set()


async def test_each_client_has_its_place_in_line() -> None:
    """Whoever asks ten thousand times delays another's only request by a few."""
    steps: list[Decision | Step] = []
    parrot = Parrot(taps=[steps.append])
    async with running(parrot):
        flood, other = parrot.client(), parrot.client()
        for _ in range(10_000):
            flood.tell(Say("flood"))
        assert 10_000 == parrot.statistics().waiting
        await other.ask(Say("other"))
        before = [each.message for each in steps if isinstance(each, Step)].index(Say("other"))
        assert before <= 20
