"""Subscriptions by every port, as their consumers see them."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Session, Subscription
from ioasid.core import (
    AllocatorClosed,
    AlreadySubscribed,
    Event,
    EventKind,
    InvalidArgument,
    IoasidState,
    LaggingSubscriber,
    LiveIoasid,
    Priority,
    Resync,
    SessionEnded,
    UnknownSet,
)
from tests.actors.ports import OpenSession

pytestmark = pytest.mark.anyio

ALLOC, BIND, UNBIND, FREE, RECLAIM = EventKind


class Crashed(Exception):
    """What ends a subscriber in these tests."""


def told(message: Event | Resync | None) -> Any:
    """A message in short: the kind and ID of an event, the IDs of a Resync."""
    match message:
        case Event():
            return message.kind, message.ioasid
        case Resync():
            return [each.ioasid for each in message]
        case None:
            return None


async def rest(host: Session, events: Subscription) -> list[Any]:
    """Take everything that is there, in short."""
    await host.statistics()
    messages = []
    while (message := events.take()) is not None:
        messages.append(told(message))
        # What an acknowledgement sets free is there afterwards.
        events.acknowledge(message)
        await host.statistics()
    return messages


async def delivered(host: Session) -> None:
    """Wait until all that was decided by now has arrived, and every consumer has taken it up."""
    await host.statistics()
    await anyio.wait_all_tasks_blocked()


async def lagging(host: Session) -> dict[str, LaggingSubscriber]:
    """Who lags, by holder."""
    return {each.holder: each for each in (await host.statistics()).lagging}


async def collect(
    events: Subscription,
    messages: list[Any],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Iterate to the end and note every message, in short."""
    task_status.started()
    async for message in events:
        messages.append(told(message))  # noqa: PERF401 - each has to be seen at once
    messages.append("end")


# Iteration and acknowledgement


async def test_coming_back_acknowledges(open_session: OpenSession) -> None:
    """A message is acknowledged when its consumer comes back for the next one, not before."""
    async with open_session() as host, host.subscribe(kinds={FREE, RECLAIM}) as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        assert False is await host.free(1)
        assert (FREE, 1) == told(await anext(events))
        assert IoasidState.FREE_PENDING is (await host.find(1)).state
        assert (RECLAIM, 1) == told(await anext(events))
        assert 0 == (await host.statistics()).free_pending


async def test_events_come_in_order_with_everything_in_them(open_session: OpenSession) -> None:
    """Events come in the order of their seq and say all there is to say."""
    async with open_session() as host, host.subscribe() as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0, data="opaque")
        await host.attach_spid(1, 101)
        await host.notify(1, BIND)
        await host.detach_spid(1)
        await host.free(1)
        messages = [await anext(events) for _ in range(6)]
        await host.statistics()
        assert None is events.take()
    assert [
        Event(1, ALLOC, 1, 0, "vm-1", None, "opaque", generation=1),
        Event(2, BIND, 1, 0, "vm-1", 101, "opaque", generation=1),
        Event(3, BIND, 1, 0, "vm-1", 101, "opaque", "host", generation=1),
        Event(4, UNBIND, 1, 0, "vm-1", 101, "opaque", generation=1),
        Event(5, FREE, 1, 0, "vm-1", None, "opaque", generation=1),
        Event(6, RECLAIM, 1, 0, "vm-1", None, "opaque", generation=1),
    ] == messages


async def test_an_early_acknowledgement(open_session: OpenSession) -> None:
    """A message can be acknowledged while it is worked on; again is fine and does nothing."""
    async with open_session() as host, host.subscribe(kinds={FREE}) as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        await host.free(1)
        await host.free(2)
        free = await anext(events)
        events.acknowledge(free)
        events.acknowledge(free)
        assert [2] == [each.ioasid for each in await host.list_set(0)]
        assert (FREE, 2) == told(await anext(events))
        events.acknowledge(free)
        assert [2] == [each.ioasid for each in await host.list_set(0)]


async def test_deferring_and_acknowledging_later(open_session: OpenSession) -> None:
    """A deferred message stays unacknowledged over others, until it is acknowledged."""
    async with open_session() as host, host.subscribe(kinds={FREE}) as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 3)
        for ioasid in (1, 2, 3):
            await host.free(ioasid)
        first = await anext(events)
        events.defer(first)
        assert (FREE, 2) == told(await anext(events))
        third = await anext(events)
        assert [1, 3] == [each.ioasid for each in await host.list_set(0)]
        assert 1 == (await lagging(host))["host"].deferred
        events.defer(third)
        assert None is events.take()
        events.acknowledge(first)
        assert [3] == [each.ioasid for each in await host.list_set(0)]
        events.acknowledge(third)
        assert [] == list(await host.list_set(0))
        assert {} == await lagging(host)


async def test_only_the_last_message_can_be_deferred(open_session: OpenSession) -> None:
    """To defer another message than the one in hand is a mistake of the caller's."""
    async with open_session() as host, host.subscribe() as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        first = await anext(events)
        second = await anext(events)
        with pytest.raises(RuntimeError, match="the message that came last"):
            events.defer(first)
        events.acknowledge(second)
        with pytest.raises(RuntimeError, match="the message that came last"):
            events.defer(second)
        assert {} == await lagging(host)


async def test_waiting_for_a_message(open_session: OpenSession) -> None:
    """A consumer sleeps until there is something, and is woken by it."""
    messages: list[Any] = []
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        async with anyio.create_task_group() as tasks, host.subscribe() as events:
            await tasks.start(collect, events, messages)
            for ioasid in (1, 2):
                assert ioasid == await host.alloc(0)
                await delivered(host)
                assert [(ALLOC, each) for each in range(1, ioasid + 1)] == messages
    assert [(ALLOC, 1), (ALLOC, 2), "end"] == messages


async def test_a_cancelled_consumer_loses_nothing(open_session: OpenSession) -> None:
    """A consumer cancelled while it sleeps leaves the next message to whoever comes next."""
    async with open_session() as host, host.subscribe() as events:
        await host.alloc_set("vm-1", 8)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, events)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await host.alloc(0)
        assert (ALLOC, 1) == told(await anext(events))


async def test_one_consumer(open_session: OpenSession) -> None:
    """A second task that waits is refused, and the first one gets its message."""
    messages: list[Any] = []
    async with open_session() as host, anyio.create_task_group() as tasks:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe() as events:
            await tasks.start(collect, events, messages)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await anext(events)
            await host.alloc(0)
            await delivered(host)
    assert [(ALLOC, 1), "end"] == messages


async def test_breaking_and_leaving(open_session: OpenSession) -> None:
    """After leaving, what was told counts as acknowledged, and nothing comes any more."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        async with host.subscribe(kinds={FREE}) as events:
            await host.free(1)
            await host.free(2)
            async for message in events:
                assert (FREE, 1) == told(message)
                break
        assert None is events.take()
        figures = await host.statistics()
        assert (0, 0, ()) == (figures.subscriptions, figures.free_pending, figures.lagging)
        await host.alloc(0)
        assert [] == [message async for message in events]


async def test_a_message_on_its_way_to_one_who_left(open_session: OpenSession) -> None:
    """What is decided between leaving and the allocator's learning of it reaches nobody."""
    notes: list[None] = []
    async with open_session() as host, anyio.create_task_group() as tasks:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe(wake=lambda: notes.append(None)) as events:
            asked = anyio.Event()

            async def alloc() -> None:
                asked.set()
                await host.alloc(0)

            tasks.start_soon(alloc)
            await asked.wait()
        assert len(notes) <= 1
        before = len(notes)
        await host.statistics()
        assert before == len(notes)
        assert None is events.take()


# Scopes and filters


async def test_a_token_before_its_set(open_session: OpenSession) -> None:
    """A subscription to a token waits for the set, survives it, and waits for the next one."""
    async with open_session() as host, host.subscribe(token="vm-1") as events:
        await host.alloc_set("vm-2", 8)
        await host.alloc(0)
        await host.alloc_set("vm-1", 8)
        assert 2 == await host.alloc(1)
        assert (ALLOC, 2) == told(await anext(events))
        await host.free_set(1)
        assert [(FREE, 2), (RECLAIM, 2)] == await rest(host, events)
        assert 2 == (await host.alloc_set("vm-1", 8)).sid
        assert 2 == await host.alloc(2)
        assert [(ALLOC, 2)] == await rest(host, events)


async def test_only_what_matches_comes(open_session: OpenSession) -> None:
    """A subscriber is told of its scope and kinds and of nothing else."""
    async with (
        open_session() as host,
        host.session("binds") as one,
        host.session("second") as two,
        one.subscribe(kinds=[BIND, UNBIND]) as binds,
        host.subscribe() as everything,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        async with two.subscribe(sid=1) as second:
            await host.alloc(0)
            await host.alloc(1)
            await host.attach_spid(1, 7)
            assert [(BIND, 1)] == await rest(host, binds)
            assert [(ALLOC, 2)] == await rest(host, second)
        assert [(ALLOC, 1), (ALLOC, 2), (BIND, 1)] == await rest(host, everything)


async def test_tiers_wait_for_those_above(open_session: OpenSession) -> None:
    """A lower tier is told when everybody above has acknowledged."""
    async with (
        open_session() as host,
        host.session("kvm") as kvm,
        host.session("vtd") as vtd,
        vtd.subscribe(priority=Priority.IOMMU, kinds={FREE}) as iommu,
        kvm.subscribe(priority=Priority.CPU, kinds={FREE}) as cpu,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.free(1)
        free = await anext(cpu)
        await host.statistics()
        assert None is iommu.take()
        cpu.acknowledge(free)
        assert free == await anext(iommu)


async def test_replay_begins_with_a_resync(open_session: OpenSession) -> None:
    """A late subscriber that asks for it is first shown what there is."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0, data=5)
        async with host.subscribe(sid=0, replay=True) as events:
            await host.alloc(0)
            resync = await anext(events)
            assert isinstance(resync, Resync)
            assert (LiveIoasid(1, 0, "vm-1", IoasidState.ACTIVE, None, 5, 1),) == tuple(resync)
            assert (ALLOC, 2) == told(await anext(events))
            assert not events.resumed


async def test_a_holding_subscriber_is_granted_its_references(open_session: OpenSession) -> None:
    """A reference comes with the BIND and goes when its end is acknowledged."""
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        async with kvm.subscribe(token="vm-1", hold=True) as events:
            await host.attach_spid(1, 101)
            assert {"kvm": 1} == (await host.find(1)).references
            assert (BIND, 1) == told(await anext(events))
            await host.free(1)
            assert (FREE, 1) == told(await anext(events))
            assert {"kvm": 1} == (await host.find(1)).references
            assert (RECLAIM, 1) == told(await anext(events))
            assert 0 == (await host.statistics()).free_pending


# Delivery into a queue of one's own


async def test_delivery_into_an_own_mailbox(open_session: OpenSession) -> None:
    """With wake an actor is called for every message, and takes them in its own time."""
    notes: list[str] = []
    async with (
        open_session() as host,
        host.subscribe(wake=lambda: notes.append("note")) as events,
    ):
        await host.alloc_set("vm-1", 8)
        assert [] == notes
        for ioasid in (1, 2, 3):
            await host.alloc(0)
            await delivered(host)
            assert ["note"] * ioasid == notes
        assert 3 == (await lagging(host))["host"].queued
        assert [(ALLOC, 1), (ALLOC, 2), (ALLOC, 3), None] == [told(events.take()) for _ in range(4)]
        assert {} == await lagging(host)
        await host.evict("host")
    # Its own leaving is no news to the actor, the end from outside is.
    assert ["note"] * 4 == notes


async def test_wake_besides_iterating(open_session: OpenSession) -> None:
    """An iterator is woken also if somebody wants to be called."""
    notes: list[str] = []
    messages: list[Any] = []
    async with open_session() as host, anyio.create_task_group() as tasks:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe(wake=lambda: notes.append("note")) as events:
            await tasks.start(collect, events, messages)
            await anyio.wait_all_tasks_blocked()
            await host.alloc(0)
            await delivered(host)
    assert (["note"], [(ALLOC, 1), "end"]) == (notes, messages)


async def test_the_end_of_the_allocator_is_a_call_too(open_session: OpenSession) -> None:
    """Whoever is woken is called when the allocator ends, takes the rest and is told."""
    notes: list[str] = []
    async with open_session() as host:
        events = await host.subscribe(wake=lambda: notes.append("note")).__aenter__()
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
    assert ["note", "note"] == notes
    assert (ALLOC, 1) == told(events.take())
    for _ in range(2):
        with pytest.raises(AllocatorClosed, match="was shut down"):
            events.take()


# Lagging


async def test_a_subscriber_that_lags_gets_a_resync(open_session: OpenSession) -> None:
    """At the bound the queue is replaced by one Resync; memory is bounded, nothing is lost."""
    async with open_session() as host, host.subscribe(queue_size=4) as events:
        await host.alloc_set("vm-1", 200)
        for count in range(1, 101):
            await host.alloc(0)
            assert (await lagging(host))["host"].queued <= 5
            if count == 5:
                assert 5 == (await lagging(host))["host"].queued
        first = await anext(events)
        assert (ALLOC, 1) == told(first)
        assert None is events.take()
        resync = await anext(events)
        assert list(range(1, 101)) == told(resync)
        await host.alloc(0)
        assert (ALLOC, 101) == told(await anext(events))
        assert first.seq < resync.seq


async def test_what_a_resync_replaces_is_acknowledged_with_it(open_session: OpenSession) -> None:
    """A FREE that was folded into a Resync keeps its ID until the Resync is acknowledged."""
    async with open_session() as host, host.subscribe(queue_size=1, kinds={FREE}) as events:
        await host.alloc_set("vm-1", 100)
        await host.alloc_many(0, 10)
        first = None
        for ioasid in range(1, 11):
            await host.free(ioasid)
            if first is None:
                first = await anext(events)
        assert 10 == (await host.statistics()).free_pending
        resync = await anext(events)
        # The first ID was reclaimed by coming back for the Resync.
        assert list(range(2, 11)) == told(resync)
        assert 9 == (await host.statistics()).free_pending
        events.acknowledge(resync)
        assert 0 == (await host.statistics()).free_pending
        assert {} == await lagging(host)


async def test_a_deferred_message_is_no_lag(open_session: OpenSession) -> None:
    """Deferred messages are kept over a Resync, and the Resync comes while they are worked on."""
    async with open_session() as host, host.subscribe(queue_size=2, kinds={FREE}) as events:
        await host.alloc_set("vm-1", 100)
        await host.alloc_many(0, 10)
        await host.free(1)
        deferred = await anext(events)
        events.defer(deferred)
        for ioasid in range(2, 11):
            await host.free(ioasid)
        messages = await rest(host, events)
        assert (FREE, 2) == messages[0]
        assert [1, *range(3, 11)] == messages[1]
        assert 2 == len(messages)
        assert [1] == [each.ioasid for each in await host.list_set(0)]
        events.acknowledge(deferred)
        assert [] == list(await host.list_set(0))


async def test_a_hung_subscriber_delays_nobody_else(open_session: OpenSession) -> None:
    """Asks and other subscribers of the same tier go on as if it weren't there."""
    async with (
        open_session() as host,
        host.session("hung") as hung,
        hung.subscribe(queue_size=8),
        host.subscribe(kinds={ALLOC, FREE}) as events,
    ):
        await host.alloc_set("vm-1", 100)
        for ioasid in range(1, 51):
            assert ioasid == await host.alloc(0)
            assert (ALLOC, ioasid) == told(await anext(events))
            assert False is await host.free(ioasid)
            assert (FREE, ioasid) == told(await anext(events))
        figures = await lagging(host)
        assert (1, 50) == (figures["hung"].queued, figures["hung"].folded)
        assert 50 == (await host.statistics()).free_pending
        await host.evict("hung")
        assert 1 == (await host.statistics()).free_pending


# The end


async def test_the_sets_end_ends_the_iteration(open_session: OpenSession) -> None:
    """When its set goes, a subscription ends after all that is queued was read."""
    messages: list[Any] = []
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        async with (
            host.session("kvm") as kvm,
            kvm.subscribe(sid=0, kinds={ALLOC, RECLAIM}) as events,
        ):
            await host.alloc_many(0, 2)
            assert True is await host.free_set(0)
            await collect(events, messages)
            with pytest.raises(StopAsyncIteration):
                await anext(events)
            assert 0 == (await host.statistics()).subscriptions
    assert [(ALLOC, 1), (ALLOC, 2), (RECLAIM, 1), (RECLAIM, 2), "end"] == messages


async def test_the_sets_end_wakes_a_sleeper(open_session: OpenSession) -> None:
    """A consumer that waits when its set goes is woken and ends."""
    messages: list[Any] = []
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        async with (
            kvm.subscribe(sid=0, kinds={BIND}) as events,
            anyio.create_task_group() as tasks,
        ):
            await tasks.start(collect, events, messages)
            await anyio.wait_all_tasks_blocked()
            await host.free_set(0)
    assert ["end"] == messages


async def test_an_orderly_close_leaves_what_is_queued(open_session: OpenSession) -> None:
    """After the allocator shut down in order, queued messages can be read, and then it ends."""
    messages: list[Any] = []
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        events = await host.subscribe().__aenter__()
        await host.alloc_many(0, 2)
    await collect(events, messages)
    assert [(ALLOC, 1), (ALLOC, 2), "end"] == messages
    await events.__aexit__(None, None, None)


async def test_a_session_that_leaves_ends_its_subscriptions(open_session: OpenSession) -> None:
    """A subscription that outlives its session in another task is told so."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        async with host.session("kvm") as kvm:
            events = await kvm.subscribe().__aenter__()
            await host.alloc(0)
        await host.statistics()
        with pytest.raises(SessionEnded):
            await anext(events)
        with pytest.raises(SessionEnded):
            await anext(events)
        await events.__aexit__(None, None, None)


# Crashes


@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_a_crash_keeps_a_holding_subscription(open_session: OpenSession, end: str) -> None:
    """It goes on matching unattached, and who subscribes next starts with a Resync."""
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        events = kvm.subscribe(sid=0, hold=True)
        with anyio.CancelScope() as scope:
            try:
                async with events:
                    await host.attach_spid(1, 101)
                    assert (BIND, 1) == told(await anext(events))
                    if end == "exception":
                        raise Crashed
                    scope.cancel()
                    await checkpoint()
            except Crashed:
                pass
        number = events.number
        assert None is events.take()
        await host.attach_spid(2, 102)
        await host.free(1)
        figures = await lagging(host)
        assert (False, 3) == (figures["kvm"].attached, figures["kvm"].folded)
        async with kvm.subscribe(sid=0, hold=True) as events:
            assert (number, True) == (events.number, events.resumed)
            resync = await anext(events)
            assert isinstance(resync, Resync)
            assert [(1, IoasidState.FREE_PENDING, 101), (2, IoasidState.ACTIVE, 102)] == [
                (each.ioasid, each.state, each.spid) for each in resync
            ]
            assert {"kvm": 1} == (await host.find(2)).references
            assert (RECLAIM, 1) == told(await anext(events))
        assert {} == (await host.find(2)).references


async def test_coming_back_at_once(open_session: OpenSession) -> None:
    """A crash and the comeback may reach the allocator together: the new consumer is the one."""
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        for ioasid in (1, 2, 3):
            with pytest.raises(Crashed):
                async with kvm.subscribe(hold=True):
                    raise Crashed
            async with kvm.subscribe(hold=True) as events:
                assert events.resumed
                assert list(range(1, ioasid)) == told(await anext(events))
                await host.alloc(0)
                assert (ALLOC, ioasid) == told(await anext(events))


async def test_what_the_one_before_was_told_comes_to_nobody(open_session: OpenSession) -> None:
    """Told, crashed and back in one batch: the new consumer hears of it by the Resync alone."""
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        entered, crash = anyio.Event(), anyio.Event()

        async def come_back() -> None:
            with pytest.raises(Crashed):  # noqa: PT012
                async with kvm.subscribe(hold=True):
                    entered.set()
                    await crash.wait()
                    raise Crashed
            async with kvm.subscribe(hold=True) as events:
                # trio runs tasks in any order: the ID may come after it.
                assert [1] == told(await anext(events)) or (ALLOC, 1) == told(await anext(events))
                await host.alloc(0)
                assert (ALLOC, 2) == told(await anext(events))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await entered.wait()
            tasks.start_soon(host.alloc, 0)
            crash.set()


async def test_a_crash_while_the_holder_has_references_keeps_it(open_session: OpenSession) -> None:
    """A subscription that doesn't hold is kept if its holder has references."""
    async with open_session() as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        await dsa.get(await host.alloc(0))
        with pytest.raises(Crashed):
            async with dsa.subscribe(sid=0):
                raise Crashed
        assert 1 == (await host.statistics()).subscriptions
        async with dsa.subscribe(sid=0) as events:
            assert events.resumed
            assert [1] == told(await anext(events))


async def test_a_crash_with_nothing_to_keep_ends_it(open_session: OpenSession) -> None:
    """A subscription without grants, of a holder without references, simply ends."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        with pytest.raises(Crashed):  # noqa: PT012
            async with host.subscribe(kinds={FREE}):
                await host.free(1)
                raise Crashed
        figures = await host.statistics()
        assert (0, 0) == (figures.subscriptions, figures.free_pending)


async def test_coming_back_on_other_terms_is_refused(open_session: OpenSession) -> None:
    """What was folded by the old terms can't be taken up by others."""
    async with open_session() as host:
        with pytest.raises(Crashed):
            async with host.subscribe(hold=True):
                raise Crashed
        changes: list[dict[str, Any]] = [
            {"hold": False},
            {"hold": True, "priority": Priority.CPU},
            {"hold": True, "kinds": {BIND, UNBIND, FREE}},
        ]
        for terms in changes:
            with pytest.raises(InvalidArgument, match="what the suspended subscription has"):
                await host.subscribe(**terms).__aenter__()
        async with host.subscribe(hold=True, queue_size=2, acknowledge_within=1) as events:
            assert events.resumed


# Misuse


async def test_a_subscription_that_was_not_entered(open_session: OpenSession) -> None:
    """Before it is entered a subscription has no number, and nothing can be done with it."""
    uses: list[Callable[[Subscription], object]] = [
        lambda events: events.number,
        lambda events: events.resumed,
        lambda events: events.take(),
        lambda events: events.acknowledge(Resync(1, ())),
    ]
    async with open_session() as host:
        events = host.subscribe()
        for use in uses:
            with pytest.raises(RuntimeError, match="not entered"):
                use(events)
        with pytest.raises(RuntimeError, match="not entered"):
            await anext(events)
        with pytest.raises(RuntimeError, match="not entered"):
            await events.__aexit__(None, None, None)
        assert 0 == (await host.statistics()).subscriptions


async def test_entering_twice(open_session: OpenSession) -> None:
    """A subscription is entered once; the second attempt doesn't disturb it."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe() as events:
            with pytest.raises(RuntimeError, match="entered already"):
                await events.__aenter__()
            await host.alloc(0)
            assert (ALLOC, 1) == told(await anext(events))
        with pytest.raises(RuntimeError, match="entered already"):
            await events.__aenter__()
        assert 0 == (await host.statistics()).subscriptions


async def test_entering_again_after_a_refusal(open_session: OpenSession) -> None:
    """One that was refused may be entered when the reason is gone."""
    async with open_session() as host:
        events = host.subscribe(sid=0)
        with pytest.raises(UnknownSet):
            await events.__aenter__()
        await host.alloc_set("vm-1", 8)
        async with events:
            await host.alloc(0)
            assert (ALLOC, 1) == told(await anext(events))


async def test_one_subscription_per_scope(open_session: OpenSession) -> None:
    """A holder's second subscription of a scope is refused; other scopes are not."""
    async with open_session() as host, host.subscribe() as events:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(AlreadySubscribed) as caught:
            await host.subscribe().__aenter__()
        assert events.number == caught.value.subscription
        async with host.subscribe(sid=0), host.subscribe(token="vm-1"):
            assert 3 == (await host.statistics()).subscriptions


async def test_acknowledging_what_was_never_told(open_session: OpenSession) -> None:
    """An acknowledgement of a message that is not outstanding changes nothing."""
    async with open_session() as host, host.subscribe(kinds={FREE}) as events:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.free(1)
        before = await host.snapshot()
        for seq in (0, 1, 99, 2**64):
            events.acknowledge(Resync(seq, ()))
        events.acknowledge(Resync(-1, ()))
        assert before == replace(await host.snapshot(), index=before.index)
