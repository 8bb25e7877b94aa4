"""An allocator whose disk fails: nothing has changed, nothing is lost, and it goes on.

The disk is a layer of sqlite's own that is told to fail (`tests.journal.disk`), so the errors, and
what is on the file then, are real ones.
"""

import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from ioasid.actors import Actor, Decision, Session, Subscription, Tap, open_allocator
from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocatorClosed,
    AllocMany,
    AllocSet,
    AttachSpid,
    CloseSession,
    Defer,
    DiskFailed,
    Event,
    EventKind,
    Evict,
    FindBySpid,
    FreeSet,
    Get,
    IoasidError,
    IoasidState,
    NotCommitted,
    NotReferenced,
    Put,
    Request,
    Resync,
    TokenType,
    UnknownSet,
    Unsubscribe,
)
from ioasid.journal import JournalUnusable
from tests.actors.hosts import settle
from tests.actors.inside import actor_of, core_of, nobody_waits
from tests.actors.ports import OpenSession
from tests.core.invariants import check_state
from tests.journal.disk import IOERR_FSYNC, Disk, copied

pytestmark = pytest.mark.anyio


def break_(disk: Disk) -> None:
    """Let nothing be synced any more."""
    disk.fail("sync", code=IOERR_FSYNC)


async def test_a_request_that_can_t_be_kept_is_refused(path: Path, disk: Disk) -> None:
    """Nothing has changed, here or on the file; what only looks goes on; then all goes on."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.attach_spid(await host.alloc(0), 101)
        before = await host.snapshot()
        break_(disk)
        for _ in range(3):
            with pytest.raises(DiskFailed, match="look after the disk") as caught:
                await host.alloc(0)
            assert str(path) == caught.value.path
            assert before == await host.snapshot()
            assert [1] == [each.ioasid for each in await host.list_set(0)]
            assert 1 == await host.find_by_spid(0, 101)
            with pytest.raises(UnknownSet):
                await host.find_set(sid=9)
        disk.repair()
        assert 2 == await host.alloc(0)
        check_state(core_of(host))
        expected = await host.snapshot()
    async with open_allocator(journal=copied(path)) as host:
        assert expected.sets == (await host.snapshot()).sets


async def test_who_asked_at_once_is_refused_together(path: Path, disk: Disk) -> None:
    """All of a batch, and of those decided meanwhile, are refused; those that look are answered."""
    came_to: list[object] = []

    async def ask(call: Callable[[], Awaitable[object]]) -> None:
        try:
            came_to.append(await call())
        except NotCommitted:
            came_to.append("refused")

    async with open_allocator(capacity=64, mailbox_size=4, journal=path) as host:
        await host.alloc_set("vm-1", 32)
        break_(disk)
        async with anyio.create_task_group() as tasks:
            for _ in range(9):
                tasks.start_soon(ask, partial(host.alloc, 0))
            tasks.start_soon(ask, partial(host.list_set, 0))
        assert ["refused"] * 9 == [each for each in came_to if each == "refused"]
        assert [[]] == [list(each) for each in came_to if each != "refused"]  # type: ignore[call-overload]
        disk.repair()
        assert 1 == await host.alloc(0)
        assert nobody_waits(host)


async def test_what_nobody_waits_for_is_kept_for_later(path: Path, disk: Disk) -> None:
    """An acknowledgement, and the end of a session, are decided when the disk works again."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        async with host.session("dsa") as dsa:
            async with host.subscribe() as events:
                await host.alloc(0)
                await host.alloc(0)
                await dsa.get(2)
                await host.free(1)
                break_(disk)
                while events.take() is not None:
                    pass
                with pytest.raises(NotCommitted):
                    await host.alloc(0)
                assert 1 == (await host.statistics()).free_pending
            assert 1 == (await host.statistics()).subscriptions
        assert 2 == (await host.statistics()).sessions
        disk.repair()
        await host.reserve_capacity(1)
        figures = await host.statistics()
        assert (0, 0, 1) == (figures.free_pending, figures.subscriptions, figures.sessions)
        assert {} == (await host.find(2)).references


async def test_leaving_is_kept_for_later(path: Path, disk: Disk, open_session: OpenSession) -> None:
    """Who leaves in order while the disk fails has left when it works, by every port."""
    async with open_session(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.alloc(0)
        async with host.session("dsa") as dsa:
            await dsa.get(2)
            async with host.subscribe(), dsa.subscribe(hold=True):
                await host.free(1)
                break_(disk)
                await failed(host)
            figures = await host.statistics()
            assert (1, 2, 2) == (figures.free_pending, figures.subscriptions, figures.sessions)
        figures = await host.statistics()
        assert (1, 2, 2) == (figures.free_pending, figures.subscriptions, figures.sessions)
        await failed(host)
        disk.repair()
        await host.reserve_capacity(1)
        figures = await host.statistics()
        assert (0, 0, 1) == (figures.free_pending, figures.subscriptions, figures.sessions)
        assert 0 == figures.suspended
        assert {} == (await host.find(2)).references
        async with host.session("dsa") as dsa:
            assert not dsa.opened.resumed


async def test_crashing_is_kept_for_later(
    path: Path, disk: Disk, open_session: OpenSession
) -> None:
    """Who leaves by an exception while the disk fails is suspended when it works, by every port."""
    async with open_session(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with host.session("dsa") as dsa, dsa.subscribe(hold=True):
                await host.attach_spid(await host.alloc(0), 101)
                await host.free(1)
                break_(disk)
                await failed(host)
                raise ZeroDivisionError
        assert 0 == (await host.statistics()).suspended
        disk.repair()
        await host.reserve_capacity(1)
        figures = await host.statistics()
        assert (1, 1, 1) == (figures.free_pending, figures.subscriptions, figures.suspended)
        async with host.session("dsa") as dsa, dsa.subscribe(hold=True) as events:
            assert (dsa.opened.resumed, events.resumed) == (True, True)


GIVES: dict[str, Request] = {
    "an ID": Alloc(0),
    "IDs": AllocMany(0, 3),
    "a set": AllocSet(None, 3, TokenType.NULL),
    "a reference": Get(1),
    "a reference by its spid": FindBySpid(0, 101, get=True),
}
"""Requests that give something which only the answer names."""


@pytest.mark.parametrize("what", GIVES)
async def test_an_answer_that_nobody_took_by_every_port(
    path: Path, disk: Disk, open_session: OpenSession, what: str
) -> None:
    """Given up while the disk fails, what it gave is taken back once, when the disk works."""
    async with open_session(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.attach_spid(await host.alloc(0), 101)
        await host.get(1)
        await host.get(1)

        async def there_is() -> tuple[int, int, int]:
            figures = await host.statistics()
            return figures.sets, figures.active, (await host.find(1)).references["host"]

        before = await there_is()
        reply = host._port.send(GIVES[what])
        await reply
        given = await there_is()
        break_(disk)
        await failed(host)
        host._port.give_up(GIVES[what], reply)
        for _ in range(3):
            assert before != given == await there_is()
            await failed(host)
        disk.repair()
        await host.reserve_capacity(1)
        assert before == await there_is()


async def test_insisting_by_every_port(
    path: Path, disk: Disk, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is insisted on while the disk fails is done once when it works; afar one waits."""
    monkeypatch.setattr("ioasid.actors._again.PAUSE", 0.01)
    came_to: list[bool] = []
    async with open_session(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        pasid = await host.alloc(0)
        for _ in range(4):
            await host.get(pasid)
        assert await host.insist(Put(pasid))

        async def insist() -> None:
            came_to.append(await host.insist(Put(pasid)))

        break_(disk)
        await failed(host)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(insist)
            await settle()
            await failed(host)
            assert {"host": 3} == (await host.find(pasid)).references
            assert ([] if not host._port.keeps else [False]) == came_to
            disk.repair()
        await host.reserve_capacity(1)
        assert {"host": 2} == (await host.find(pasid)).references
        assert [not host._port.keeps] == came_to
        await host.put(pasid)
        await host.put(pasid)
        with pytest.raises(NotReferenced):
            await host.insist(Put(pasid))


async def test_who_waits_to_have_left(path: Path, disk: Disk, open_session: OpenSession) -> None:
    """It is answered when the disk works; giving that up leaves it undone, and nothing behind."""
    async with open_session(capacity=64, journal=path) as host:
        async with host.subscribe() as events:
            request = Unsubscribe(events.number)
            break_(disk)
            await failed(host)
            for _ in range(3):
                with anyio.CancelScope() as scope:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(host.ask, request)
                        await settle()
                        scope.cancel()
            await host.statistics()
            disk.repair()
            await host.reserve_capacity(1)
            assert 1 == (await host.statistics()).subscriptions
            break_(disk)
            await failed(host)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(host.ask, request)
                await settle()
                assert 1 == (await host.statistics()).subscriptions
                disk.repair()
                await host.reserve_capacity(1)
        assert 0 == (await host.statistics()).subscriptions


async def test_what_was_given_up_is_kept_no_more(path: Path, disk: Disk) -> None:
    """However often somebody asks to leave and gives up, nothing of it is left."""
    async with open_allocator(capacity=64, journal=path) as host, host.subscribe() as events:
        break_(disk)
        await failed(host)
        for _ in range(10):
            reply = host._port.send(Unsubscribe(events.number))
            await host.statistics()
            host._port.give_up(Unsubscribe(events.number), reply)
            await failed(host)
        assert [] == actor_of(host)._outage.kept
        disk.repair()


async def test_who_waits_to_have_left_at_the_end(path: Path, disk: Disk) -> None:
    """An allocator that ends while its disk fails says so to who waits to have left."""
    raised: list[AllocatorClosed] = []

    async def leave(host: Session, number: int) -> None:
        try:
            await host.ask(Unsubscribe(number))
        except AllocatorClosed as closed:
            raised.append(closed)

    async with (
        anyio.create_task_group() as tasks,
        open_allocator(capacity=64, journal=path) as host,
        host.subscribe() as events,
    ):
        break_(disk)
        await failed(host)
        tasks.start_soon(leave, host, events.number)
        await settle()
    assert 1 == len(raised)


async def test_what_is_kept_has_a_bound(path: Path, disk: Disk) -> None:
    """However often something is told, it is kept once, and what has no effect is not."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        async with host.subscribe() as events, host.session("log") as log:
            await host.alloc(0)
            await host.free(1)
            async with log.subscribe(queue_size=1, acknowledge_within=None) as lagging:
                await host.alloc(0)
                for _ in range(3):
                    await host.free(await host.alloc(0))
                break_(disk)
                with pytest.raises(NotCommitted):
                    await host.alloc(0)
                own, other = host._port, log._port
                for count in range(50):
                    seqs = range(100 * count + 100)
                    own.tell(Acknowledge(tuple((events.number, seq) for seq in seqs)))
                    # Another's, and one that never was: refused as a whole.
                    own.tell(Acknowledge(((events.number, 1), (lagging.number, 1))))
                    own.tell(Acknowledge(((events.number + 99, 1),)))
                    own.tell(Defer(events.number, count))
                    other.tell(Defer(lagging.number, count))
                    other.tell(Acknowledge(((lagging.number, 1000 + count),)))
                    other.tell(Acknowledge(((lagging.number, "1"),)))  # type: ignore[arg-type]
                    await host.statistics()
                kept = [each.request for each in actor_of(host)._outage.kept]
                told = [each for each in kept if isinstance(each, Acknowledge)]
                queued = {each.holder: each.queued for each in (await host.statistics()).lagging}
                pairs = [pair for each in told for pair in each.messages]
                assert len(set(pairs)) == len(pairs) <= sum(queued.values()) + 1
                assert len(kept) - len(told) <= sum(queued.values()) + 1
                disk.repair()
                await host.reserve_capacity(1)
                # All that was told counts: only who lags has anything left to do.
                pending = [
                    each.ioasid
                    for each in await host.list_set(0)
                    if each.state is IoasidState.FREE_PENDING
                ]
                assert pending
                for ioasid in pending:
                    assert ("log",) == (await host.explain(ioasid)).blockers
                while lagging.take() is not None:
                    pass
                assert 0 == (await host.statistics()).free_pending


async def test_it_goes_on_by_itself(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With something kept the disk is tried again, though nobody asks."""
    monkeypatch.setattr("ioasid.actors._allocator.RETRY", 0.01)
    closed = anyio.Event()

    def look(decision: Decision) -> None:
        if isinstance(decision.request, CloseSession):
            closed.set()

    async with open_allocator(capacity=64, journal=path, taps=[look]) as host:
        async with host.session("dsa"):
            break_(disk)
            with pytest.raises(NotCommitted):
                await host.reserve_capacity(1)
        await host.statistics()
        assert not closed.is_set()
        disk.repair()
        await closed.wait()


async def test_it_goes_on_by_itself_though_nobody_ever_asked(
    path: Path, disk: Disk, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails may be what nobody waits for, alone: it is tried again all the same."""
    monkeypatch.setattr("ioasid.actors._allocator.RETRY", 0.01)
    closed = anyio.Event()

    def look(decision: Decision) -> None:
        if isinstance(decision.request, CloseSession):
            closed.set()

    async with open_allocator(capacity=64, journal=path, taps=[look]) as host:
        async with host.session("dsa"):
            break_(disk)
        while not any("what only looks goes on" in each for each in log.lines):
            await settle()
        disk.repair()
        await closed.wait()


async def test_a_wait_outlives_a_failed_commit(path: Path, disk: Disk) -> None:
    """Who waits for a reclaim goes on waiting when the state went back, and is answered."""
    answers: list[bool] = []

    async def wait(call: Callable[[], Awaitable[bool]]) -> None:
        answers.append(await call())

    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        async with host.session("dsa") as dsa, anyio.create_task_group() as tasks:
            for sid in (0, 1):
                await dsa.get(await host.alloc(sid))
            tasks.start_soon(wait, partial(host.free, 1, wait=True))
            tasks.start_soon(wait, partial(host.free_set, 1, wait=True))
            await anyio.wait_all_tasks_blocked()
            await host.statistics()
            break_(disk)
            for number in (1, 2):
                with pytest.raises(NotCommitted):
                    await dsa.put(number)
            with pytest.raises(NotCommitted):
                await host.free(2, wait=True)
            disk.repair()
            assert [] == answers
            await dsa.put(1)
            await anyio.wait_all_tasks_blocked()
            assert [True] == answers
            await dsa.put(2)
        assert [True, True] == answers
        assert nobody_waits(host)


PART, MANY = 4, 100
"""IDs that are dealt with at once, and how many there are: some parts are decided together."""


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch, disk: Disk) -> Tap:
    """Fails the disk as soon as something is begun that is done in parts, which are small."""
    monkeypatch.setitem(Allocator.__init__.__kwdefaults__ or {}, "part", PART)
    monkeypatch.setattr("ioasid.actors._allocator.RETRY", 0.01)

    def look(decision: Decision) -> None:
        if isinstance(decision.request, FreeSet | Evict):
            break_(disk)

    return look


async def failed(host: Session) -> None:
    """Wait until a commit has failed, and the state is that of the last one again."""
    with pytest.raises(NotCommitted):
        await host.reserve_capacity(1)


@pytest.mark.parametrize("wait", [True, False])
async def test_a_set_freed_in_parts_on_a_disk_that_fails(
    path: Path, disk: Disk, breaks: Tap, wait: bool
) -> None:
    """What was begun goes on when the disk works again, and whoever waits for it is answered."""
    answers: list[bool] = []

    async def free(host: Session) -> None:
        answers.append(await host.free_set(0, wait=wait))

    async with (
        open_allocator(journal=path, taps=[breaks]) as host,
        host.session("kvm") as kvm,
    ):
        await host.alloc_set("vm-1", MANY)
        async with kvm.subscribe(sid=0, queue_size=2 * MANY) as events:
            await host.alloc_many(0, MANY)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(free, host)
                await settle()
                await failed(host)
                assert [] == answers
                assert 0 < (await host.statistics()).free_pending < MANY
                disk.repair()
                while core_of(host).has_work:
                    await host.reserve_capacity(1)
                assert MANY == (await host.statistics()).free_pending
                await settle()
                assert ([] if wait else [False]) == answers
                freed = 0
                while freed < MANY:
                    message = await anext(events)
                    freed += isinstance(message, Event) and message.kind is EventKind.FREE
                events.take()
            assert [wait] == answers
        await settle()
        assert nobody_waits(host)
        assert 0 == (await host.statistics()).sets
        check_state(core_of(host))


async def test_an_eviction_in_parts_on_a_disk_that_fails(
    path: Path, disk: Disk, breaks: Tap
) -> None:
    """Whoever evicted a holder is answered when its references are dropped, a bit later."""
    async with open_allocator(journal=path, taps=[breaks]) as host:
        await host.alloc_set("vm-1", MANY)
        await host.alloc_many(0, MANY)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with host.session("vdcm") as vdcm:
                async with anyio.create_task_group() as tasks:
                    for ioasid in range(1, MANY + 1):
                        tasks.start_soon(vdcm.get, ioasid)
                raise ZeroDivisionError
        await host.reserve_capacity(1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.evict, "vdcm")
            await settle()
            await failed(host)
            assert {"vdcm": 1} == (await host.find(MANY)).references
            assert not nobody_waits(host)
            disk.repair()
        assert {} == (await host.find(MANY)).references
        assert nobody_waits(host)
        assert 0 == (await host.statistics()).suspended


async def test_giving_up_what_is_done_in_parts_on_a_disk_that_fails(
    path: Path, disk: Disk, breaks: Tap
) -> None:
    """Nobody is answered then, what was asked for is done, and nothing is left of the asker."""
    async with open_allocator(journal=path, taps=[breaks]) as host:
        await host.alloc_set("vm-1", MANY)
        async with host.session("kvm") as kvm, kvm.subscribe(sid=0, queue_size=2 * MANY):
            await host.alloc_many(0, MANY)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(partial(host.free_set, 0, wait=True))
                await settle()
                await failed(host)
                tasks.cancel_scope.cancel()
            await host.statistics()
            assert nobody_waits(host)
            disk.repair()
            while core_of(host).has_work:
                await host.reserve_capacity(1)
        # Who leaves lets go in parts, too.
        await host.reserve_capacity(1)
        while core_of(host).has_work:
            await host.reserve_capacity(1)
        assert nobody_waits(host)
        assert 0 == (await host.statistics()).free_pending


async def test_an_end_in_the_middle_of_parts_on_a_disk_that_fails(
    path: Path, disk: Disk, breaks: Tap, log: Any
) -> None:
    """Whoever waits is told of the end, nothing is lost, and the next process goes on with it."""
    raised: list[AllocatorClosed] = []

    async def free(host: Session) -> None:
        try:
            await host.free_set(0)
        except AllocatorClosed as closed:
            raised.append(closed)

    async with (
        anyio.create_task_group() as tasks,
        open_allocator(journal=path, taps=[breaks]) as host,
    ):
        await host.alloc_set("vm-1", MANY)
        async with host.subscribe(sid=0, queue_size=2 * MANY, hold=True):
            await host.alloc_many(0, MANY)
            tasks.start_soon(free, host)
            await settle()
            await failed(host)
    assert 1 == len(raised)
    assert not any("2 acknowledgements" in each for each in log.lines)
    disk.repair()
    async with open_allocator(journal=path) as host:
        while core_of(host).has_work:
            await host.reserve_capacity(1)
        assert MANY == (await host.statistics()).free_pending
        check_state(core_of(host))


async def test_giving_up_what_is_never_committed(path: Path, disk: Disk) -> None:
    """What undoes a request is void with it: it must not take away what was had before."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.get(await host.alloc(0))
        release = Flag()
        disk.fails = lambda done: IOERR_FSYNC if done.action == "sync" and release.wait(60) else 0

        async def fail() -> None:
            with pytest.raises(NotCommitted):
                await host.reserve_capacity(1)

        async def give_up(scope: anyio.CancelScope) -> None:
            with scope:
                await host.get(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            await settle()
            scope = anyio.CancelScope()
            tasks.start_soon(give_up, scope)
            await settle()
            assert {"host": 2} == references(host)
            scope.cancel()
            await settle()
            assert {"host": 1} == references(host)
            release.set()
        disk.repair()
        await host.reserve_capacity(1)
        assert {"host": 1} == references(host)
        check_state(core_of(host))


def references(host: Session) -> dict[str, int]:
    """Who references the first ID, as decided so far."""
    record = core_of(host).record(1)
    assert record is not None
    return dict(record.references)


async def test_a_subscription_that_never_began(path: Path, disk: Disk) -> None:
    """One whose beginning could not be kept is refused, and can be asked for again."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        break_(disk)
        with pytest.raises(NotCommitted):
            async with host.subscribe(acknowledge_within=1.0):
                raise AssertionError("not reached")
        with pytest.raises(NotCommitted):
            async with host.session("dsa"):
                raise AssertionError("not reached")
        disk.repair()
        async with host.session("dsa"), host.subscribe(acknowledge_within=1.0) as events:
            await host.alloc(0)
            message = await anext(events)
            assert isinstance(message, Event)
            assert EventKind.ALLOC is message.kind


async def test_taps_see_only_what_is_kept(path: Path, disk: Disk) -> None:
    """No tap is shown what was never committed; what follows is shown with its changes."""
    seen: list[Decision] = []
    async with open_allocator(capacity=64, journal=path, taps=[seen.append]) as host:
        await host.alloc_set("vm-1", 8)
        break_(disk)
        with pytest.raises(NotCommitted):
            await host.alloc(0)
        disk.repair()
        await host.alloc(0)
    indices = [each.index for each in seen]
    assert sorted({*indices}) == indices
    assert 1 == sum(bool(each.changes.allocated) for each in seen)


async def test_an_end_without_a_disk(path: Path, disk: Disk, log: Any) -> None:
    """Left in order while the disk fails, it ends; what was kept is lost, and that is logged."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        async with host.session("dsa") as dsa:
            await dsa.get(ioasid)
            break_(disk)
            with pytest.raises(NotCommitted):
                await host.alloc(0)
    assert any("are lost, 1 in all, so whoever they are of" in each for each in log.lines)
    disk.repair()
    async with open_allocator(journal=path) as host:
        assert {"dsa": 1} == (await host.find(ioasid)).references
        assert 1 == (await host.statistics()).suspended


async def test_an_end_that_finds_the_disk_working(path: Path, disk: Disk) -> None:
    """Left in order when the disk works again, what was kept is decided before the end."""
    async with open_allocator(capacity=64, journal=path) as host:
        await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(0)
        async with host.session("dsa") as dsa:
            await dsa.get(ioasid)
            break_(disk)
            with pytest.raises(NotCommitted):
                await host.alloc(0)
        disk.repair()
    async with open_allocator(journal=path) as host:
        assert {} == (await host.find(ioasid)).references


async def test_a_disk_that_fails_from_the_beginning(path: Path, disk: Disk) -> None:
    """An allocator that can't keep its first session does not open."""
    async with open_allocator(journal=path) as host:
        await host.alloc_set("vm-1", 8)
    break_(disk)
    with pytest.raises((NotCommitted, JournalUnusable)):
        async with open_allocator(journal=path):
            raise AssertionError("not reached")
    disk.repair()
    async with open_allocator(journal=path) as host:
        assert 8 == (await host.find_set("vm-1")).quota


class Keeper(Actor):
    """Takes a reference to every ID that is bound."""

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Be told of all that is bound, and of what was."""
        return self.session.subscribe(
            kinds={EventKind.BIND}, replay=restarted, wake=self.note_event
        )

    async def on_event(self, message: Event | Resync) -> None:
        """Take a reference."""
        if isinstance(message, Event):
            await self.session.get(message.ioasid)


async def test_a_driver_outlives_the_outage(path: Path, disk: Disk) -> None:
    """However often it is restarted meanwhile, it does not give up, and goes on with the disk."""
    driver = Keeper("driver", max_restarts=1, restart_wait=0.0)

    def look(decision: Decision) -> None:
        if isinstance(decision.request, AttachSpid):
            break_(disk)

    async with (
        open_allocator(capacity=64, journal=path, taps=[look]) as host,
        anyio.create_task_group() as tasks,
    ):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await tasks.start(driver.run, host)
        await host.attach_spid(1, 101)
        while driver.statistics().restarts < 5:
            assert driver.statistics().state != "down"
            await host.statistics()
        disk.repair()
        while driver.statistics().state != "serving":
            await host.statistics()
        driver.stop()


@pytest.mark.parametrize("seed", range(8))
async def test_at_random(path: Path, disk: Disk, seed: int) -> None:
    """The disk fails and works at random: whoever was answered finds it so, and others nothing."""
    chance = random.Random(seed)
    mine: dict[int, set[int]] = {number: set() for number in range(5)}
    spids: dict[int, int] = {}

    async def live(host: Session, number: int) -> None:
        own = mine[number]
        async with host.session(f"vm-{number}") as vm:
            for step in range(12):
                try:
                    match chance.randrange(4):
                        case 0 | 1:
                            own.add(await vm.alloc(0))
                        case 2 if own:
                            ioasid = chance.choice(sorted(own))
                            if ioasid not in spids:
                                await vm.attach_spid(ioasid, 1000 * number + step)
                                spids[ioasid] = 1000 * number + step
                        case _ if own:
                            ioasid = chance.choice(sorted(own))
                            await vm.free(ioasid)
                            own.discard(ioasid)
                            spids.pop(ioasid, None)
                        case _:
                            pass
                except NotCommitted:
                    pass
                if chance.random() < 0.2:
                    break_(disk)
                elif chance.random() < 0.5:
                    disk.repair()
            disk.repair()

    async def insist(host: Session, number: int) -> None:
        while True:
            try:
                await live(host, number)
                return
            except NotCommitted:
                disk.repair()

    async with open_allocator(
        capacity=256, mailbox_size=chance.choice([1, 3, 1024]), journal=path
    ) as host:
        await host.alloc_set("vm-1", 200)
        async with anyio.create_task_group() as tasks:
            for number in mine:
                tasks.start_soon(insist, host, number)
        disk.repair()
        await host.reserve_capacity(1)
        expected = await host.snapshot()
        check_state(core_of(host))
        assert nobody_waits(host)
        assert sorted(each for own in mine.values() for each in own) == sorted(
            each.ioasid for each in await host.list_set(0)
        )
        assert spids == {
            each.ioasid: each.spid for each in await host.list_set(0) if each.spid is not None
        }
        copy = copied(path)
    async with open_allocator(journal=copy) as host:
        found = await host.snapshot()
        assert expected.sets == found.sets
        assert expected.generation == found.generation
    assert issubclass(NotCommitted, IoasidError)
    assert replace(expected, now=1.0) == expected
