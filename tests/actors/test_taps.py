"""Taps: who sees every decision, and what becomes of one that raises, on every backend."""

import asyncio
import gc
from collections import deque
from itertools import pairwise
from typing import Any

import anyio
import msgspec
import pytest

from ioasid.actors import Actor, Decision, Step, open_allocator, tapped
from ioasid.core import (
    Alloc,
    Allocated,
    Allocator,
    AllocSet,
    Begin,
    Changes,
    Complete,
    Deliver,
    Done,
    End,
    EventKind,
    Find,
    Free,
    InvalidArgument,
    IoasidRange,
    OpenSession,
    QuotaExceeded,
    Refused,
    Released,
    Snapshot,
    SuspendAll,
    UnknownSet,
    Waiting,
    error_of,
)
from tests.actors.asking import free_and_wait
from tests.actors.inside import actor_of

pytestmark = pytest.mark.anyio


# What they see


async def test_a_tap_sees_every_decision() -> None:
    """Requests, answers, refusals and effects come in the order in which they were decided."""
    seen: list[Decision] = []
    async with open_allocator(capacity=16, taps=[seen.append]) as host:
        with pytest.raises(UnknownSet):
            async with host.subscribe(sid=0):
                pass
        owner = await host.alloc_set("vm-1", 1)
        async with host.session("kvm") as kvm, kvm.subscribe(token="vm-1") as events:
            await host.alloc(owner.sid)
            with pytest.raises(QuotaExceeded):
                await host.alloc(owner.sid)
            alloc = await anext(events)
            events.acknowledge(alloc)
            answers: list[object] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(free_and_wait, host, 1, answers)
                free = await anext(events)
                events.acknowledge(free)
            assert [True] == answers
            reclaim = await anext(events)
        async with host.session("kvm") as kvm, kvm.subscribe(replay=True) as events:
            resync = await anext(events)
    expected: list[tuple[str, str, str, tuple[Any, ...]]] = [
        ("host", "Subscribe", "Refused", ()),
        ("host", "AllocSet", "SetRecord", ()),
        ("host", "OpenSession", "SessionOpened", ()),
        ("kvm", "Subscribe", "Subscribed", (Begin(1),)),
        ("host", "Alloc", "Allocated", (Deliver((1,), alloc),)),
        ("host", "Alloc", "Refused", ()),
        ("", "Acknowledge", "Done", ()),
        ("host", "Free", "Waiting", (Deliver((1,), free),)),
        ("", "Acknowledge", "Done", (Deliver((1,), reclaim), Complete(1, Released(True)))),
        ("kvm", "Unsubscribe", "Done", (End(1, False),)),
        ("kvm", "CloseSession", "Done", ()),
        ("host", "OpenSession", "SessionOpened", ()),
        ("kvm", "Subscribe", "Subscribed", (Begin(2), Deliver((2,), resync))),
        ("kvm", "Unsubscribe", "Done", (End(2, False),)),
        ("kvm", "CloseSession", "Done", ()),
    ]
    assert expected == [
        (each.holder, type(each.request).__name__, type(each.answer).__name__, each.effects)
        for each in seen
    ]
    assert {"host": {1}, "kvm": {2, 3}} == {
        name: {each.session for each in seen if each.holder == name} for name in ("host", "kvm")
    }
    assert all(earlier.time <= later.time for earlier, later in pairwise(seen))


async def test_a_decision_is_plain_data() -> None:
    """It can be kept, compared and encoded, and shows a moment that is over as it was."""
    seen: list[Decision] = []
    async with open_allocator(capacity=16, taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 2)
        await host.attach_data(await host.alloc(0), 5)
        with pytest.raises(UnknownSet):
            await host.alloc(9)
    again = [msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=Decision) for each in seen]
    assert again == seen
    refused = seen[-1].answer
    assert isinstance(refused, Refused)
    assert repr(UnknownSet(9)) == repr(error_of(refused))


async def test_the_index_counts_what_was_carried_out() -> None:
    """It grows by one with every request that may change something, in the state as well."""
    seen: list[Decision] = []
    async with open_allocator(capacity=16, taps=[seen.append]) as host:
        before = (await host.snapshot()).index
        await host.alloc_set("vm-1", 1)
        await host.alloc(0)
        with pytest.raises(QuotaExceeded):
            await host.alloc(0)
        await host.find(1)
        await host.statistics()
        await host.free(1)
        assert before + 3 == (await host.snapshot()).index
    assert [
        (AllocSet, before + 1),
        (Alloc, before + 2),
        (Alloc, before + 2),
        (Find, before + 2),
        (Free, before + 3),
    ] == [
        (type(each.request), each.index)
        for each in seen
        if isinstance(each.request, AllocSet | Alloc | Find | Free)
    ]


async def test_a_decision_says_what_changed() -> None:
    """IDs that left the pool or came back, and the records of IDs and sets that changed."""
    seen: list[Decision] = []
    async with open_allocator(capacity=16, taps=[seen.append]) as host:
        made = await host.alloc_set("vm-1", 4)
        await host.alloc_many(0, 3)
        await host.get(2)
        record = await host.find(2)
        with pytest.raises(UnknownSet):
            await host.alloc(9)
        await host.free_set(0)
        await host.put(2)
    changes = [each.changes for each in seen]
    assert (made,) == changes[0].sets
    assert ((IoasidRange(1, 3),), ()) == (changes[1].allocated, changes[1].reclaimed)
    assert [3] == [each.allocated for each in changes[1].sets]
    assert (record,) == changes[2].ioasids
    assert changes[3] == changes[4]
    assert Changes() == changes[3]
    assert (IoasidRange(1, 1), IoasidRange(3, 3)) == changes[5].reclaimed
    assert [2] == [each.ioasid for each in changes[5].ioasids]
    assert ((IoasidRange(2, 2),), (0,)) == (changes[6].reclaimed, changes[6].sets_gone)


async def test_a_wait_is_completed_by_its_ticket() -> None:
    """A request that waits is answered with a ticket, and a later effect has it and the answer."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        await dsa.get(await host.alloc(0))
        answers: list[object] = []
        async with anyio.create_task_group() as tasks:
            await tasks.start(free_and_wait, host, 1, answers)
            await host.statistics()
            await dsa.put(1)
    (ticket,) = (each.answer.ticket for each in seen if isinstance(each.answer, Waiting))
    assert [Complete(ticket, Released(True))] == [
        effect for each in seen for effect in each.effects if isinstance(effect, Complete)
    ]


async def test_a_tap_sees_what_the_actor_asks_itself() -> None:
    """Going on from a snapshot begins with two requests of session 0, which has no holder."""
    seen: list[Decision] = []
    async with open_allocator(snapshot=Allocator(8).snapshot(), taps=[seen.append]):
        pass
    assert [(0, "", SuspendAll(), Done()), (0, "", OpenSession("host"))] == [
        (seen[0].session, seen[0].holder, seen[0].request, seen[0].answer),
        (seen[1].session, seen[1].holder, seen[1].request),
    ]


async def test_a_decision_is_seen_before_its_answer() -> None:
    """A tap sees a decision before anybody has its answer or its event."""
    order: list[object] = []

    def tap(decision: Decision) -> None:
        order.append(type(decision.request))

    async with (
        open_allocator(taps=[tap]) as host,
        host.subscribe(wake=lambda: order.append("event"), kinds={EventKind.ALLOC}),
    ):
        await host.alloc_set("vm-1", 8)
        order.clear()
        await host.alloc(0)
        order.append("answer")
    assert [Alloc, "event", "answer"] == order[:3]


async def test_a_tap_that_cancels_an_asker() -> None:
    """What was decided for an asker that is cancelled in the same step is undone."""
    scope = anyio.CancelScope()

    def tap(decision: Decision) -> None:
        if isinstance(decision.request, Alloc):
            scope.cancel()

    async with open_allocator(taps=[tap]) as host:
        await host.alloc_set("vm-1", 8)
        with scope:
            await host.alloc(0)
        assert scope.cancelled_caught
        assert 0 == (await host.statistics()).active


# Several, and one that raises


async def test_taps_are_called_in_order() -> None:
    """Each of several taps sees every decision, in the order in which they were given."""
    order: list[tuple[str, Decision]] = []
    async with open_allocator(
        taps=(lambda each: order.append(("a", each)), lambda each: order.append(("b", each)))
    ) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
    assert ["a", "b", "a", "b"] == [name for name, _ in order]
    assert [each for _, each in order[::2]] == [each for _, each in order[1::2]]


@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_tap_that_raises_is_removed(place: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, with its traceback; the others and the allocator go on as before."""
    seen: list[Decision] = []
    others: list[list[Decision]] = [[], []]

    def defective(decision: Decision) -> None:
        seen.append(decision)
        if isinstance(decision.request, Alloc):
            raise LookupError("of its own")

    taps = [each.append for each in others]
    taps.insert(place, defective)
    async with open_allocator(taps=taps) as host, host.subscribe(sid=None) as events:
        await host.alloc_set("vm-1", 8)
        assert 1 == await host.alloc(0)
        assert 2 == await host.alloc(0)
        assert [1, 2] == [getattr(await anext(events), "ioasid", None) for _ in range(2)]
    assert [Alloc(0)] == [each.request for each in seen if isinstance(each.request, Alloc)]
    assert others[0] == others[1]
    assert seen == others[0][: len(seen)]
    assert [Allocated(1, 1), Allocated(2, 2)] == [
        each.answer for each in others[0] if isinstance(each.request, Alloc)
    ]
    (record,) = caplog.records
    assert ("ioasid", "ERROR") == (record.name, record.levelname)
    assert "LookupError: of its own" in caplog.text
    assert "in defective" in caplog.text


async def test_the_only_tap_raises(caplog: pytest.LogCaptureFixture) -> None:
    """With no tap left the allocator serves as one that never had any."""

    def defective(_: Decision) -> None:
        raise LookupError("of its own")

    async with open_allocator(taps=[defective]) as host:
        await host.alloc_set("vm-1", 8)
        assert [1, 2, 3] == [await host.alloc(0) for _ in range(3)]
    assert 1 == len(caplog.records)


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})])
async def test_a_tap_that_looks_at_what_was_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """A cancellation that it raises is its own, and not the allocator's."""
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()
    async with open_allocator(taps=[lambda _: cancelled.result()]) as host:
        await host.alloc_set("vm-1", 8)
        assert 1 == await host.alloc(0)
    assert 1 == len(caplog.records)


@pytest.mark.parametrize("value", [None, 0, "tap", [0], [None], print, {"tap": print}], ids=str)
async def test_taps_that_are_none(value: Any) -> None:
    """What is no collection of callables is refused before anything runs."""
    with pytest.raises(InvalidArgument, match="taps"):
        async with open_allocator(taps=value):
            raise AssertionError("not reached")


# Everywhere


async def test_tapping_every_allocator() -> None:
    """Each that is opened in the block gets a tap of its own, with the state it begins with."""
    begun: list[Snapshot] = []
    seen: list[list[Decision]] = []

    def make(snapshot: Snapshot) -> Any:
        begun.append(snapshot)
        seen.append([])
        return seen[-1].append

    own: list[Decision] = []
    async with open_allocator() as before:
        with tapped(make):
            async with open_allocator(capacity=64, taps=[own.append]) as host:
                await host.alloc_set("vm-1", 8)
                snapshot = await host.snapshot()
            async with open_allocator(snapshot=snapshot) as again:
                await again.alloc(0)
            await before.alloc_set("vm-2", 8)
    async with open_allocator() as after:
        await after.alloc_set("vm-3", 8)
    assert [Allocator(64, now=begun[0].now).snapshot(), snapshot] == begun
    assert own == seen[0]
    assert [SuspendAll(), OpenSession("host"), Alloc(0)] == [each.request for each in seen[1]]


async def test_every_actor_made_in_the_block_shows_its_steps() -> None:
    """Of an actor made in the block the steps are seen, and of no other."""
    steps: list[Step] = []
    before = Actor("before")
    with tapped(lambda _: lambda _: None, steps.append):
        inside = Actor("inside", taps=[])
    after = Actor("after")
    for each in (before, inside, after):
        each.report(Done())
    assert [Step("inside", Done())] == steps


# Memory


def names_within(root: object, prefix: str) -> set[str]:
    """The strings that begin with `prefix`, of all that `root` is made of."""
    found: set[str] = set()
    known: dict[int, object] = {}
    ahead = [root]
    while ahead:
        each = ahead.pop()
        known[id(each)] = each
        if isinstance(each, str):
            if each.startswith(prefix):
                found.add(each)
        elif isinstance(each, msgspec.Struct):
            ahead += msgspec.structs.astuple(each)
        elif isinstance(each, dict | list | tuple | set | deque) or (
            type(each).__module__.startswith("ioasid.")
        ):
            ahead += [one for one in gc.get_referents(each) if id(one) not in known]
    return found


async def test_nothing_is_kept_of_who_left() -> None:
    """A thousand sessions that ended, with their subscriptions, leave no name behind."""
    async with open_allocator(taps=[lambda _: None]) as host, host.session("holder here"):
        await host.alloc_set("vm-1", 8)
        for number in range(1000):
            async with host.session(f"holder {number}") as session, session.subscribe():
                pass
        await host.statistics()
        assert {"holder here"} == names_within(actor_of(host), "holder ")
        figures = await host.statistics()
        assert (2, 0, 0) == (figures.sessions, figures.suspended, figures.subscriptions)
