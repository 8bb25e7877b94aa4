"""The allocator's actor: order, batches, fairness, and who gives up waiting, on every backend."""

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import (
    Alloc,
    Continue,
    EventKind,
    Free,
    FreeSet,
    Statistics,
    UnknownSet,
)
from tests.actors.asking import Answers, free_and_wait, quarantined
from tests.actors.inside import actor_of, core_of, nobody_waits
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio


# Order and batches


async def test_requests_are_decided_in_the_order_asked() -> None:
    """Whoever asks first gets the lower ID, whichever task is told first."""
    answers = Answers()
    async with open_allocator() as host, anyio.create_task_group() as tasks:
        owner = await host.alloc_set("vm-1", 100)
        for number in range(50):
            tasks.start_soon(answers.alloc, number, host, owner.sid)
    assert list(range(1, 51)) == [answers.of[number] for number in answers.asked]


@pytest.mark.parametrize("mailbox_size", [1, 4, 64])
async def test_askers_beyond_the_mailbox_bound_wait_their_turn(mailbox_size: int) -> None:
    """A batch has as many requests as the mailbox's bound; others wait, all are answered."""
    figures: list[Statistics] = []

    async def ask(session: Session) -> None:
        figures.append(await session.statistics())

    async with (
        open_allocator(mailbox_size=mailbox_size) as host,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(50):
            tasks.start_soon(ask, host)
    assert 50 == len(figures)
    most_waiting = max(each.mailbox for each in figures)
    assert max(0, 50 - 2 * mailbox_size) <= most_waiting < 50


async def test_a_holder_that_floods_does_not_starve_another() -> None:
    """Behind a thousand requests of one holder, another's is decided after a few of them."""
    decisions: list[Decision] = []
    async with (
        open_allocator(taps=[decisions.append]) as host,
        host.session("flooding") as flooding,
        host.session("modest") as modest,
        anyio.create_task_group() as tasks,
    ):
        owner = await host.alloc_set("vm-1", 2000)
        for _ in range(1000):
            tasks.start_soon(flooding.alloc, owner.sid)
        await checkpoint()
        decisions.clear()
        for _ in range(10):
            await modest.alloc(owner.sid)
        holders = [each.holder for each in decisions if isinstance(each.request, Alloc)]
    assert 10 == holders.count("modest")
    assert len(holders) <= 100


async def test_requests_of_a_holder_are_decided_in_order() -> None:
    """Fairness between holders leaves the order of each one's own requests as it was."""
    decisions: list[Decision] = []
    asked: dict[str, list[int]] = {"a": [], "b": []}

    async def alloc(session: Session, sid: int, number: int) -> None:
        asked[session.name].append(number)
        await session.alloc(sid, data=number)

    async with (
        open_allocator(taps=[decisions.append], mailbox_size=7) as host,
        host.session("a") as a,
        host.session("b") as b,
    ):
        owner = await host.alloc_set("vm-1", 2000)
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(alloc, a, owner.sid, number)
                if number % 9 == 0:
                    tasks.start_soon(alloc, b, owner.sid, number)
    for name, numbers in asked.items():
        assert numbers == [
            each.request.data
            for each in decisions
            if each.holder == name and isinstance(each.request, Alloc)
        ]


async def test_a_refusal_leaves_the_rest_of_its_batch_alone() -> None:
    """One request that is refused does not keep those beside it from being carried out."""
    answers = Answers()
    refused = []

    async def fail(session: Session) -> None:
        with pytest.raises(UnknownSet) as caught:
            await session.alloc(99)
        refused.append(caught.value.sid)

    async with open_allocator() as host, anyio.create_task_group() as tasks:
        owner = await host.alloc_set("vm-1", 10)
        for number in range(5):
            tasks.start_soon(answers.alloc, number, host, owner.sid)
            tasks.start_soon(fail, host)
    assert ([1, 2, 3, 4, 5], [99] * 5) == (answers.ids, refused)


# Giving up a wait


async def test_a_wait_given_up_cancels_nothing() -> None:
    """The ID stays freed, no ticket is left, and a second waiter still gets its answer."""
    answers: list[object] = []
    async with open_allocator() as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await dsa.get(1)
        async with anyio.create_task_group() as tasks:
            async with anyio.create_task_group() as impatient:
                await impatient.start(free_and_wait, host, 1, answers)
                await host.statistics()
                assert 1 == len(core_of(host)._tables.waiters)
                impatient.cancel_scope.cancel()
            await host.statistics()
            assert nobody_waits(host)
            check_state(core_of(host))
            await tasks.start(free_and_wait, host, 1, answers)
            await host.statistics()
            assert [] == answers
            await dsa.put(1)
        assert [True] == answers
        assert nobody_waits(host)


@pytest.mark.parametrize("mailbox_size", [1024, 1])
async def test_a_wait_given_up_at_reclaim(mailbox_size: int) -> None:
    """A waiter that gives up in the batch that brings the reclaim, or the next, hurts nobody."""
    answers: list[object] = []
    async with (
        open_allocator(mailbox_size=mailbox_size) as host,
        host.session("kvm") as kvm,
        kvm.subscribe(kinds={EventKind.FREE}) as events,
    ):
        await host.alloc_set("vm-1", 8)
        # Who runs first is by chance on trio: in some of the rounds it is the waiter.
        for _ in range(20):
            assert 1 == await host.alloc(0)
            async with anyio.create_task_group() as impatient:
                await impatient.start(free_and_wait, host, 1, answers)
                free = await anext(events)
                impatient.cancel_scope.cancel()
                events.acknowledge(free)
            await host.statistics()
            assert nobody_waits(host)


async def test_a_wait_by_hand_given_up() -> None:
    """A waiting request sent with `ask` is given up as one sent by a method is."""
    async with open_allocator() as host:
        ioasid = await quarantined(host)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(host.ask, Free(int(ioasid), None, wait=True))
            while not core_of(host)._tables.waiters:
                await checkpoint()
            impatient.cancel_scope.cancel()
        await host.statistics()
        assert nobody_waits(host)


# Parts


async def bound(host: Session, count: int) -> tuple[int, list[int]]:
    """Make a set of bound IDs."""
    sid = (await host.alloc_set("vm-1", count)).sid
    ioasids = [await host.alloc(sid) for _ in range(count)]
    for ioasid in ioasids:
        await host.attach_spid(ioasid, int(ioasid))
    return sid, [int(each) for each in ioasids]


async def until(host: Session, *, has_work: bool) -> None:
    """Let the others go on until something is done in parts, or nothing is any more."""
    for _ in range(10_000):
        if core_of(host).has_work == has_work:
            return
        await checkpoint()
    raise AssertionError("nothing came of it")


@pytest.mark.slow
async def test_others_are_served_between_parts() -> None:
    """Whoever asks while many IDs are freed is answered between two parts, and not behind them."""
    seen: list[Decision] = []
    async with open_allocator(taps=[seen.append]) as host, host.session("vfio") as vfio:
        sid, _ = await bound(host, 4000)
        other = (await host.alloc_set("vm-2", 8)).sid
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.free_set, sid)
                await until(host, has_work=True)
                ioasid = await vfio.alloc(other)
                assert core_of(host).has_work
        assert not core_of(host).has_work
        assert [other] == [each.sid for each in (await host.list_sets()).sets]
        assert ioasid == (await host.find(ioasid)).ioasid
    kinds = [type(each.request) for each in seen]
    first, last = kinds.index(Continue), len(kinds) - kinds[::-1].index(Continue) - 1
    between = kinds[first:last]
    assert 3 <= between.count(Continue)
    assert Alloc in kinds[kinds.index(FreeSet) : last]


@pytest.mark.slow
async def test_giving_up_between_parts_cancels_nothing() -> None:
    """The set goes although nobody waits for it, and no ticket is left."""
    async with open_allocator() as host:
        sid, _ = await bound(host, 3000)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.free_set, sid)
            await until(host, has_work=True)
            tasks.cancel_scope.cancel()
        await until(host, has_work=False)
        assert 0 == (await host.statistics()).sets
        assert nobody_waits(host)
        check_state(core_of(host))


@pytest.mark.slow
async def test_a_restored_allocator_goes_on_with_the_parts() -> None:
    """What a snapshot between two parts has left is done by whoever goes on from it."""
    async with open_allocator() as host, anyio.create_task_group() as tasks:
        sid, _ = await bound(host, 3000)
        tasks.start_soon(host.free_set, sid)
        await until(host, has_work=True)
        snapshot = core_of(host).snapshot()
        assert 3000 > (await host.statistics()).active
    async with open_allocator(snapshot=snapshot) as host:
        await until(host, has_work=False)
        assert 0 == (await host.statistics()).sets


@pytest.mark.slow
async def test_stopping_in_order_does_all_parts() -> None:
    """Whoever waits when the allocator ends in order has the answer, and all is freed."""
    answers: list[bool] = []
    async with open_allocator() as host, anyio.create_task_group() as tasks:
        sid, _ = await bound(host, 3000)

        async def free_set() -> None:
            answers.append(await host.free_set(sid))

        tasks.start_soon(free_set)
        await until(host, has_work=True)
        actor_of(host).stop()
        await actor_of(host).ended
    assert [True] == answers
