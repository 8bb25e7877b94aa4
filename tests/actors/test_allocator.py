"""The allocator actor and `open_allocator`, on every backend."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_args

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import (
    Alloc,
    Allocated,
    Allocator,
    AllocatorClosed,
    AllocSet,
    CapacityRecord,
    Event,
    EventKind,
    Free,
    HolderLive,
    InvalidArgument,
    IoasidRange,
    IoasidState,
    LiveIoasid,
    MalformedMessage,
    QuotaExceeded,
    Released,
    Request,
    ReserveCapacity,
    Resync,
    SessionEnded,
    SetRecord,
    SetState,
    Snapshot,
    Statistics,
    Subscribe,
    TokenType,
    UnknownSet,
    WouldDeadlock,
    decode_snapshot,
    encode,
)
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio


def core_of(session: Session) -> Allocator:
    """The state machine behind a session, to look at what no request shows."""
    return session._actor.core


def no_ticket_is_left(session: Session) -> bool:
    """Whether neither the actor nor the core remembers a caller that waits."""
    actor = session._actor
    return not (actor._waiting or actor._tickets or actor.core._tables.waiters)


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a defect: the core breaks down over a `ReserveCapacity`."""
    handle = Allocator.handle

    def faulty(self: Allocator, session: int, request: Request, ticket: int = 0) -> Any:
        if isinstance(request, ReserveCapacity):
            raise RuntimeError("planted")
        return handle(self, session, request, ticket)

    monkeypatch.setattr(Allocator, "handle", faulty)


class Answers:
    """Collects what calls come to: an answer or an error, by the caller's number."""

    def __init__(self) -> None:
        self.of: dict[int, object] = {}
        self.asked: list[int] = []

    async def alloc(self, number: int, session: Session, sid: int) -> None:
        """Allocate one ID and note what came of it, once."""
        self.asked.append(number)
        assert number not in self.of
        try:
            self.of[number] = await session.alloc(sid)
        except AllocatorClosed as error:
            assert number not in self.of
            self.of[number] = error

    @property
    def closed(self) -> int:
        """How many calls were told that the allocator is closed."""
        return sum(isinstance(each, AllocatorClosed) for each in self.of.values())

    @property
    def ids(self) -> list[int]:
        """The IDs that were allocated, in ascending order."""
        return sorted(each for each in self.of.values() if isinstance(each, int))


def reasons(answers: list[object]) -> list[object]:
    """What those who were told that the allocator is closed were told of it."""
    return [each.reason if isinstance(each, AllocatorClosed) else each for each in answers]


async def free_and_wait(
    session: Session,
    ioasid: int,
    answers: list[object],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Free an ID and note what the wait for its reclaim came to."""
    task_status.started()
    try:
        answers.append(await session.free(ioasid, wait=True))
    except AllocatorClosed as error:
        answers.append(error)


async def quarantined(host: Session) -> int:
    """Allocate an ID that a crashed holder, "dsa", keeps from being reclaimed."""
    owner = await host.alloc_set("vm-1", 1000)
    ioasid = await host.alloc(owner.sid)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with host.session("dsa") as dsa:
            await dsa.get(ioasid)
            raise ZeroDivisionError
    return ioasid


# Every request


async def test_every_request_has_a_method() -> None:
    """Each request of the protocol is sent by a method, which gives the answer in its own type."""
    decisions: list[Decision] = []
    async with open_allocator(capacity=512, observer=decisions.append) as host:
        assert CapacityRecord(1024, 0, 1024) == await host.install_capacity(1024)
        assert CapacityRecord(1024, 24, 1000) == await host.reserve_capacity(24)
        assert CapacityRecord(1024, 4, 1020) == await host.cancel_capacity(20)
        assert SetRecord(
            0, None, TokenType.NULL, 20, 0, SetState.ACTIVE, system=True
        ) == await host.alloc_system_set(20)
        vm = SetRecord(1, "vm-1", TokenType.MM, 64, 0, SetState.ACTIVE)
        assert vm == await host.alloc_set("vm-1", 64)
        assert replace(vm, quota=65) == await host.adjust_set(1, 65)
        assert replace(vm, quota=65) == await host.find_set("vm-1")
        assert replace(vm, quota=65) == await host.find_set(sid=1)

        async with host.session("kvm") as kvm, kvm.subscribe(sid=1) as events:
            assert (False, ()) == (kvm.opened.resumed, kvm.opened.references)
            assert 1 == await host.alloc(1, data="opaque")
            assert 7 == await host.alloc(1, min=7, max=9)
            event = await anext(events)
            events.defer(event)
            events.acknowledge(event)
        assert (IoasidRange(2, 6), IoasidRange(8, 8)) == await host.alloc_many(1, 6, max=100)

        assert 1 == await host.find_sid(1)
        record = await host.find(1, sid=1)
        assert ("opaque", {}, 1) == (record.data, record.references, record.reference_count)
        await host.detach_data(1, sid=1)
        await host.attach_data(1, 5, sid=1)
        await host.attach_spid(1, 101, sid=1)
        assert 1 == await host.find_by_spid(1, 101)
        assert 1 == await host.find_by_spid(1, 101, get=True)
        await host.get(1, sid=1)
        assert {"host": 2} == (await host.find(1)).references
        await host.notify(1, EventKind.BIND, sid=1)
        assert False is await host.free(1, sid=1)
        await host.detach_spid(1, sid=1)
        assert [False, True] == [await host.put(1, sid=1), await host.put(1)]
        assert True is await host.free(2)
        assert (
            LiveIoasid(3, 1, "vm-1", IoasidState.ACTIVE, None, None) == (await host.list_set(1))[0]
        )

        with pytest.raises(ZeroDivisionError):
            async with host.session("dsa") as dsa, dsa.subscribe(hold=True):
                raise ZeroDivisionError
        assert 1 == (await host.statistics()).suspended
        await host.evict("dsa")
        figures = await host.statistics()
        assert isinstance(figures, Statistics)
        assert (1, 0, 2, 6) == (figures.sessions, figures.suspended, figures.sets, figures.active)
        assert isinstance(await host.snapshot(), Snapshot)
        assert True is await host.free_set(1)
        with pytest.raises(UnknownSet):
            await host.list_set(1)
    assert set(get_args(Request)) == {type(each.request) for each in decisions}


async def test_ask_takes_any_message() -> None:
    """A request built by hand is answered by a message; what is none is refused."""
    async with open_allocator(capacity=16) as host:
        await host.ask(AllocSet("vm-1", 4))
        assert Allocated(1) == await host.ask(Alloc(0))
        for stranger in (None, 5, "Alloc", Allocated(1), Alloc):
            with pytest.raises(MalformedMessage):
                await host.ask(stranger)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="call subscribe"):
            await host.ask(Subscribe())
        assert Allocated(2) == await host.ask(Alloc(0))
        assert 0 == (await host.statistics()).subscriptions


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
        open_allocator(observer=decisions.append) as host,
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
        open_allocator(observer=decisions.append, mailbox_size=7) as host,
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


async def test_a_name_is_free_as_soon_as_its_session_was_left() -> None:
    """However much a holder has in the mailbox when it leaves, its name can be taken at once."""
    async with open_allocator() as host:
        owner = await host.alloc_set("vm-1", 2000)
        for _ in range(3):
            async with (
                host.session("driver") as driver,
                driver.subscribe(sid=owner.sid, kinds={EventKind.ALLOC}) as events,
            ):
                await host.alloc_many(owner.sid, 50)
                taken = 0
                while events.take() is not None:
                    taken += 1
            assert 50 == taken
        assert 1 == (await host.statistics()).sessions


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


async def test_two_allocators_know_nothing_of_each_other() -> None:
    """Each allocator in a process has its own sets, IDs, tokens, holders and events."""
    async with (
        open_allocator(capacity=16) as one,
        open_allocator(capacity=32) as two,
        one.subscribe() as events_of_one,
        two.subscribe() as events_of_two,
    ):
        for host in (one, two):
            assert 0 == (await host.alloc_set("vm-1", 8)).sid
            assert 1 == await host.alloc(0)
        assert 2 == await two.alloc(0)
        await two.free_set(0)
        figures = await one.statistics()
        assert (16, 8, 1, 1) == (figures.capacity, figures.available, figures.sets, figures.active)
        assert EventKind.ALLOC is getattr(events_of_one.take(), "kind", None)
        assert None is events_of_one.take()
        kinds = [getattr(await anext(events_of_two), "kind", None) for _ in range(3)]
        assert [EventKind.ALLOC, EventKind.ALLOC, EventKind.FREE] == kinds


# Arguments


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "8", None])
async def test_mailbox_size_out_of_range(value: Any) -> None:
    """A mailbox needs room for a whole number of requests, at least one."""
    with pytest.raises(InvalidArgument, match="mailbox_size"):
        async with open_allocator(mailbox_size=value):
            pass


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "8", 2**32, 2**64])
async def test_capacity_out_of_range(value: Any) -> None:
    """The capacity is an int in 1..2^32-1."""
    with pytest.raises(InvalidArgument, match="capacity"):
        async with open_allocator(capacity=value):
            pass


@pytest.mark.parametrize("value", ["", 5, None, b"host", "x" * 256])
async def test_holder_out_of_range(value: Any) -> None:
    """The first session's holder has a name of 1 to 255 bytes."""
    with pytest.raises(InvalidArgument, match="name"):
        async with open_allocator(holder=value):
            pass


@pytest.mark.parametrize("value", [0, "observer"])
async def test_observer_not_callable(value: Any) -> None:
    """An observer that can't be called is refused before anything runs."""
    with pytest.raises(InvalidArgument, match="observer"):
        async with open_allocator(observer=value):
            pass


async def test_snapshot_of_another_kind() -> None:
    """What is no snapshot, or comes with a capacity of its own, is refused."""
    with pytest.raises(MalformedMessage):
        async with open_allocator(snapshot=Released(True)):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidArgument, match="capacity"):
        async with open_allocator(snapshot=Allocator(8).snapshot(), capacity=8):
            pass


# Orderly shutdown


async def test_an_orderly_shutdown_answers_what_was_asked_before() -> None:
    """Every request asked before the scope is left is decided and answered, waiting ones too."""
    answers = Answers()
    asked = anyio.Event()

    async def last(session: Session, sid: int) -> None:
        while len(answers.asked) < 1000:
            await checkpoint()
        asked.set()
        await answers.alloc(1000, session, sid)

    async with anyio.create_task_group() as tasks, open_allocator(mailbox_size=1) as host:
        owner = await host.alloc_set("vm-1", 2000)
        for number in range(1000):
            tasks.start_soon(answers.alloc, number, host, owner.sid)
        tasks.start_soon(last, host, owner.sid)
        await asked.wait()
    assert list(range(1, 1002)) == answers.ids
    assert 1001 == len(answers.of)


async def test_an_orderly_shutdown_fails_who_waits_for_more() -> None:
    """Who waits for a reclaim that can't come any more is told that the allocator is closed."""
    answers: list[object] = []
    async with anyio.create_task_group() as tasks, open_allocator() as host:
        ioasid = await quarantined(host)
        await tasks.start(free_and_wait, host, ioasid, answers)
        await host.statistics()
        assert [] == answers
    assert ["was shut down"] == reasons(answers)


async def test_an_orderly_shutdown_ends_iterators() -> None:
    """Iterators read what is queued and then end, without an error."""
    kinds: list[EventKind] = []

    async def consume(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        async with session.subscribe() as events:
            task_status.started()
            async for event in events:
                assert isinstance(event, Event)
                kinds.append(event.kind)

    async with anyio.create_task_group() as tasks, open_allocator() as host:
        await tasks.start(consume, host)
        await host.alloc_set("vm-1", 4)
        await host.free(await host.alloc(0))
    assert [EventKind.ALLOC, EventKind.FREE, EventKind.RECLAIM] == kinds


async def test_calls_after_close() -> None:
    """Every call is refused with AllocatorClosed once the scope is left, and leaving is silent."""
    async with open_allocator() as host:
        scope = host.session("vm")
        vm = await scope.__aenter__()
        events = vm.subscribe()
        await events.__aenter__()
    for session in (host, vm):
        with pytest.raises(AllocatorClosed, match="was shut down; open a new one"):
            await session.alloc_set("vm-1", 4)
        with pytest.raises(AllocatorClosed):
            await session.free(1, wait=True)
        with pytest.raises(AllocatorClosed):
            await session.statistics()
        with pytest.raises(AllocatorClosed):
            await session.snapshot()
        with pytest.raises(AllocatorClosed):
            async with session.session("other"):
                pass
        with pytest.raises(AllocatorClosed):
            async with session.subscribe():
                pass
    assert [] == [event async for event in events]
    await events.__aexit__(None, None, None)
    await scope.__aexit__(None, None, None)


# Abrupt shutdown


async def test_an_exception_in_the_body_ends_everything_at_once() -> None:
    """It leaves as raised; asks and waits of other tasks fail, iterators end with an error."""
    answers = Answers()
    waits: list[object] = []
    ended: list[str] = []

    async def consume(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with pytest.raises(AllocatorClosed) as caught:  # noqa: PT012
            async with session.subscribe(kinds={EventKind.RECLAIM}) as events:
                task_status.started()
                async for _ in events:
                    raise AssertionError
        ended.append(caught.value.reason)

    async def everything(tasks: Any) -> None:
        async with open_allocator(mailbox_size=1) as host:
            ioasid = await quarantined(host)
            await tasks.start(free_and_wait, host, ioasid, waits)
            await tasks.start(consume, host)
            for number in range(100):
                tasks.start_soon(answers.alloc, number, host, 0)
            while len(answers.asked) < 100:
                await checkpoint()
            raise LookupError("mine") from KeyError("cause")

    async with anyio.create_task_group() as tasks:
        with pytest.raises(LookupError, match="mine") as caught:
            await everything(tasks)
        assert isinstance(caught.value.__cause__, KeyError)
    assert ["was shut down"] == reasons(waits)
    assert ["was shut down"] == ended
    assert 100 == len(answers.of)
    assert answers.closed > 50
    assert 100 == answers.closed + len(answers.ids)


async def test_an_exception_in_the_body_keeps_its_context() -> None:
    """What was being handled when it was raised is still what a traceback shows."""
    with pytest.raises(LookupError) as caught:  # noqa: PT012
        async with open_allocator():
            try:
                raise KeyError("first")
            except KeyError:
                raise LookupError("second")  # noqa: B904
    assert isinstance(caught.value.__context__, KeyError)
    assert not caught.value.__suppress_context__


async def test_a_group_in_the_body_leaves_as_raised() -> None:
    """An exception group of the caller's own is neither wrapped nor unwrapped."""
    group = ExceptionGroup("mine", [ValueError("one")])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_allocator():
            raise group
    assert group is caught.value


async def test_cancelling_the_body_stays_a_cancellation() -> None:
    """A cancelled body ends as cancelled, and everybody else's asks and waits fail."""
    answers = Answers()
    waits: list[object] = []
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            async with open_allocator(mailbox_size=1) as host:
                ioasid = await quarantined(host)
                await tasks.start(free_and_wait, host, ioasid, waits)
                for number in range(100):
                    tasks.start_soon(answers.alloc, number, host, 0)
                while len(answers.asked) < 100:
                    await checkpoint()
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
    assert ["was shut down"] == reasons(waits)
    assert 100 == len(answers.of) == answers.closed + len(answers.ids)
    assert answers.closed > 50


async def test_cancelling_a_body_that_waits_for_an_answer() -> None:
    """A timeout around the allocator is a timeout, and not the end of the allocator to its body."""

    async def cancel(session: Session, scope: anyio.CancelScope) -> None:
        await session.statistics()
        scope.cancel()

    with anyio.CancelScope() as scope:
        async with open_allocator() as host, anyio.create_task_group() as tasks:
            ioasid = await quarantined(host)
            tasks.start_soon(cancel, host, scope)
            await host.free(ioasid, wait=True)
    assert scope.cancelled_caught


@pytest.mark.parametrize("mailbox_size", [1, 16, 1024])
@pytest.mark.parametrize("end", ["orderly", "exception", "cancellation", "crash"])
@pytest.mark.usefixtures("fault")
async def test_shutdown_under_load(end: str, mailbox_size: int) -> None:
    """However it ends, each of 1,000 pending asks gets exactly one answer, an ID or the end."""
    answers = Answers()
    decisions: list[Decision] = []
    raised: type[Exception] | None = None
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            try:
                async with open_allocator(
                    mailbox_size=mailbox_size, observer=decisions.append
                ) as host:
                    await host.alloc_set("vm-1", 1000)
                    for number in range(1000):
                        tasks.start_soon(answers.alloc, number, host, 0)
                    while len(answers.asked) < 500:
                        await checkpoint()
                    match end:
                        case "exception":
                            raise LookupError
                        case "cancellation":
                            scope.cancel()
                            await checkpoint()
                        case "crash":
                            await host.reserve_capacity(1)
                        case _:
                            while len(answers.asked) < 1000:
                                await checkpoint()
            except (LookupError, RuntimeError) as error:
                raised = type(error)
        assert {"exception": LookupError, "crash": RuntimeError}.get(end) == raised
        assert scope.cancelled_caught == (end == "cancellation")
    assert 1000 == len(answers.of)
    decided = [each.answer.ioasid for each in decisions if isinstance(each.answer, Allocated)]
    assert list(range(1, len(decided) + 1)) == decided
    assert 1000 == len(answers.ids) + answers.closed
    assert list(range(1, len(answers.ids) + 1)) == answers.ids
    if end == "crash":
        # What was decided in the same batch as the crash was not released.
        assert len(answers.ids) <= len(decided) < len(answers.ids) + mailbox_size
    else:
        assert decided == answers.ids
    if mailbox_size == 1 and end in {"exception", "cancellation"}:
        assert answers.closed > 0


# A crash of the allocator


@pytest.mark.usefixtures("fault")
async def test_a_crash_takes_the_scope_down() -> None:
    """A defect ends the scope as it was raised; every ask, wait and iterator learns of it."""
    answers = Answers()
    waits: list[object] = []
    ended: list[str] = []

    async def consume(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        with pytest.raises(AllocatorClosed) as caught:  # noqa: PT012
            async with session.subscribe() as events:
                task_status.started()
                async for _ in events:
                    raise AssertionError
        ended.append(caught.value.reason)

    async def break_it(session: Session) -> None:
        with pytest.raises(AllocatorClosed, match="planted"):
            await session.reserve_capacity(1)

    left = anyio.Event()
    async with anyio.create_task_group() as tasks:
        with pytest.raises(RuntimeError, match="planted"):  # noqa: PT012
            async with open_allocator(mailbox_size=1) as host:
                ioasid = await quarantined(host)
                await tasks.start(free_and_wait, host, ioasid, waits)
                await tasks.start(consume, host)
                tasks.start_soon(break_it, host)
                await checkpoint()
                for number in range(10):
                    tasks.start_soon(answers.alloc, number, host, 0)
                try:
                    await anyio.sleep_forever()
                finally:
                    left.set()
        assert left.is_set()
        reason = "crashed (RuntimeError: planted)"
        with pytest.raises(AllocatorClosed, match="planted"):
            await host.statistics()
    assert [reason] == reasons(waits)
    assert [reason] == ended
    assert 10 == len(answers.of)
    assert answers.closed >= 8


@pytest.mark.usefixtures("fault")
async def test_a_crash_under_the_bodys_own_ask() -> None:
    """The defect itself is raised, not what the body was told of it."""
    with pytest.raises(RuntimeError, match="planted"):
        async with open_allocator() as host:
            await host.reserve_capacity(1)


@pytest.mark.usefixtures("fault")
async def test_a_crash_that_the_body_passes_over() -> None:
    """A body that takes the end of the allocator for granted does not hide the defect."""
    with pytest.raises(RuntimeError, match="planted"):  # noqa: PT012
        async with open_allocator() as host:
            with suppress(AllocatorClosed):
                await host.reserve_capacity(1)


@pytest.mark.usefixtures("fault")
async def test_a_crash_hides_no_other_failure() -> None:
    """A body that fails for a reason of its own while the allocator crashes loses neither."""
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with open_allocator() as host:
            try:
                await host.reserve_capacity(1)
            finally:
                raise LookupError("mine")
    assert ["mine", "planted"] == sorted(str(each) for each in caught.value.exceptions)


async def test_a_crash_of_the_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect met while looking for overdue subscribers takes the scope down as any other."""

    def broken(self: Allocator) -> None:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):  # noqa: PT012
        async with open_allocator() as host:
            await checkpoint()
            monkeypatch.setattr(Allocator, "lagging", broken)
            async with host.subscribe():
                await anyio.sleep_forever()
    with pytest.raises(AllocatorClosed, match=r"crashed .*planted"):
        await host.alloc(0)


async def test_a_crash_of_the_observer() -> None:
    """An observer that raises is a defect of its own and takes the scope down."""

    def observer(_: Decision) -> None:
        raise RuntimeError("observed badly")

    with pytest.raises(RuntimeError, match="observed badly"):
        async with open_allocator(observer=observer) as host:
            await host.statistics()


# Snapshots


async def test_a_snapshot_goes_on_in_another_allocator() -> None:
    """State, suspended holders and what they have not acknowledged come back from a snapshot."""
    async with open_allocator(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        assert 1 == await host.alloc(0, data="opaque")
        assert 2 == await host.alloc(0)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with host.session("kvm") as kvm, kvm.subscribe(token="vm-1", hold=True):
                await kvm.get(2)
                await host.attach_spid(1, 101)
                await host.free(1)
                raise ZeroDivisionError
        before = await host.snapshot()
    snapshot = decode_snapshot(encode(before))
    assert before == snapshot

    async with open_allocator(snapshot=snapshot) as host:
        assert not host.opened.resumed
        after = await host.snapshot()
        assert before == replace(after, holders=before.holders, next_session=before.next_session)
        figures = await host.statistics()
        assert (1, 1, 1, 1) == (
            figures.sessions,
            figures.suspended,
            figures.active,
            figures.free_pending,
        )
        async with host.session("kvm") as kvm:
            assert (True, ((2, 1),)) == (kvm.opened.resumed, kvm.opened.references)
            async with kvm.subscribe(token="vm-1", hold=True) as events:
                assert events.resumed
                resync = await anext(events)
                assert isinstance(resync, Resync)
                assert [
                    LiveIoasid(1, 0, "vm-1", IoasidState.FREE_PENDING, 101, "opaque"),
                    LiveIoasid(2, 0, "vm-1", IoasidState.ACTIVE, None, None),
                ] == list(resync.ioasids)
                assert 1 == (await host.statistics()).free_pending
                events.acknowledge(resync)
                assert 0 == (await host.statistics()).free_pending
                check_state(core_of(host))
        assert 1 == await host.alloc(0)


async def test_a_snapshot_suspends_who_was_live() -> None:
    """Sessions that were live when it was taken are suspended, the first one comes back."""
    async with open_allocator(holder="agent") as host:
        await host.alloc_set("vm-1", 8)
        await host.get(await host.alloc(0))
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True):
            snapshot = await kvm.snapshot()
    async with open_allocator(snapshot=snapshot, holder="agent") as host:
        assert (True, ((1, 1),)) == (host.opened.resumed, host.opened.references)
        assert 1 == (await host.statistics()).suspended
        with pytest.raises(HolderLive):
            async with host.session("agent"):
                pass
        async with host.session("kvm") as kvm:
            assert kvm.opened.resumed


async def test_no_snapshot_for_a_session_that_ended() -> None:
    """A snapshot is a request as any other: a session that left gets none."""
    async with open_allocator() as host:
        async with host.session("vm") as vm:
            pass
        with pytest.raises(SessionEnded):
            await vm.snapshot()


# The observer


async def test_the_observer_sees_every_decision() -> None:
    """Requests, answers, refusals and deliveries come in the order in which they were decided."""
    seen: list[tuple[str, Any, Any]] = []
    told: list[tuple[tuple[str, Any], ...]] = []
    found: list[bool] = []

    def observer(decision: Decision) -> None:
        seen.append((decision.holder, decision.request, decision.answer))
        told.append(decision.told)
        found.append(decision.find(1) is not None)

    async with open_allocator(capacity=16, observer=observer) as host:
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
    expected = [
        ("host", "Subscribe", "UnknownSet", ()),
        ("host", "AllocSet", "SetRecord", ()),
        ("host", "OpenSession", "SessionOpened", ()),
        ("kvm", "Subscribe", "Subscribed", ()),
        ("host", "Alloc", "Allocated", (("kvm", alloc),)),
        ("host", "Alloc", "QuotaExceeded", ()),
        ("kvm", "Acknowledge", "Done", ()),
        ("host", "Free", "NoneType", (("kvm", free),)),
        ("kvm", "Acknowledge", "Done", (("kvm", reclaim),)),
        ("kvm", "Unsubscribe", "Done", ()),
        ("kvm", "CloseSession", "Done", ()),
        ("host", "OpenSession", "SessionOpened", ()),
        ("kvm", "Subscribe", "Subscribed", (("kvm", resync),)),
        ("kvm", "Unsubscribe", "Done", ()),
        ("kvm", "CloseSession", "Done", ()),
    ]
    assert expected == [
        (holder, type(request).__name__, type(answer).__name__, messages)
        for (holder, request, answer), messages in zip(seen, told, strict=True)
    ]
    assert [False] * 4 + [True] * 4 + [False] * 7 == found


async def test_an_observer_that_cancels_an_asker() -> None:
    """What was decided for an asker that is cancelled in the same step stays decided."""
    scope = anyio.CancelScope()

    def observer(decision: Decision) -> None:
        if isinstance(decision.request, Alloc):
            scope.cancel()

    async with open_allocator(observer=observer) as host:
        await host.alloc_set("vm-1", 8)
        with scope:
            await host.alloc(0)
        assert scope.cancelled_caught
        assert 1 == (await host.statistics()).active


async def test_the_observer_keeps_nothing_of_who_left() -> None:
    """What is remembered for an observer goes with the subscriptions it was for."""
    async with open_allocator(observer=lambda _: None) as host:
        for _ in range(5):
            async with host.subscribe():
                pass
        await host.statistics()
        assert {} == host._actor._subscribers


# Acknowledgement deadlines


class Log(logging.Handler):
    """Collects what is logged, and wakes who waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._event: anyio.Event | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.lines.append(record.getMessage())
        if self._event is not None:
            self._event.set()

    def seqs(self, holder: str) -> list[int]:
        """The messages that a holder is on the log for, in order."""
        return [
            int(line.split(" message ")[1].split()[0])
            for line in self.lines
            if line.startswith(f"subscriber {holder} ")
        ]

    async def wait_for(self, holder: str, count: int) -> None:
        """Wait until there are so many lines about a holder."""
        while len(self.seqs(holder)) < count:
            self._event = anyio.Event()
            await self._event.wait()


@pytest.fixture
def log() -> Iterator[Log]:
    """What the project logs."""
    handler = Log()
    logger = logging.getLogger("ioasid")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


async def test_an_overdue_subscriber_is_named_once_per_message(log: Log) -> None:
    """Past its deadline it is on the log once, and in the statistics for as long as it lags."""
    async with (
        open_allocator() as host,
        host.session("slow") as slow,
        host.session("slower") as slower,
    ):
        await host.alloc_set("vm-1", 8)
        kinds = {EventKind.ALLOC}
        async with (
            slow.subscribe(kinds=kinds, acknowledge_within=0.002) as events,
            slower.subscribe(sid=0, kinds=kinds, acknowledge_within=0.03) as clock,
            host.subscribe(kinds=kinds, acknowledge_within=None) as unhurried,
        ):
            await host.alloc(0)
            await host.alloc(0)
            await log.wait_for("slower", 1)
            lagging = {each.holder: each for each in (await host.statistics()).lagging}
            assert {"slow": True, "slower": True, "host": False} == {
                name: each.overdue for name, each in lagging.items()
            }
            assert lagging["slow"].oldest_age >= 0.03
            first = await anext(events)
            assert (first.seq, 2) == (lagging["slow"].oldest_seq, lagging["slow"].queued)
            second = await anext(events)
            await log.wait_for("slow", 2)
            assert [first.seq, second.seq] == log.seqs("slow")
            assert [first.seq] == log.seqs("slower")
            for each in (events, clock, unhurried):
                each.acknowledge(first)
                each.acknowledge(second)
            figures = await host.statistics()
            assert () == figures.lagging
            assert [first.seq, second.seq] == log.seqs("slow")
            assert [] == log.seqs("host")
    assert "slow (subscription 1 to the system) has not acknowledged message " in log.lines[0]
    assert log.lines[0].endswith("what it holds stays in quarantine until it does or is evicted")


async def test_a_subscriber_in_time_is_not_on_the_log(anyio_backend_name: str, log: Log) -> None:
    """Who acknowledges before the deadline is never logged, however often it is told."""
    if anyio_backend_name != "trio":
        pytest.skip("needs virtual time")
    async with open_allocator() as host, host.subscribe(acknowledge_within=10) as events:
        await host.alloc_set("vm-1", 8)
        for ioasid in range(1, 6):
            await host.alloc(0)
            message = await anext(events)
            assert ioasid == getattr(message, "ioasid", None)
            await anyio.sleep(9)
            events.acknowledge(message)
            await anyio.sleep(100)
        assert [] == log.lines
        await host.alloc(0)
        await anyio.sleep(9.9)
        assert [False] == [each.overdue for each in (await host.statistics()).lagging]
        assert [] == log.lines
        await anyio.sleep(0.2)
        assert [True] == [each.overdue for each in (await host.statistics()).lagging]
        assert 1 == len(log.lines)
        await anyio.sleep(1000)
        assert 1 == len(log.lines)


async def test_a_shorter_deadline_is_watched_at_once(anyio_backend_name: str, log: Log) -> None:
    """A subscriber with a short deadline is found while the watch sleeps for a long one."""
    if anyio_backend_name != "trio":
        pytest.skip("needs virtual time")
    async with open_allocator() as host, host.subscribe(acknowledge_within=1000):
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await anyio.sleep(1)
        async with host.session("hasty") as hasty, hasty.subscribe(acknowledge_within=1):
            await host.alloc(0)
            await anyio.sleep(2.1)
            assert 1 == len(log.seqs("hasty"))


async def test_a_crashed_subscriber_is_overdue_too(log: Log) -> None:
    """What a suspended holder left unacknowledged is on the log until it is evicted."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(ZeroDivisionError):
            async with (
                host.session("kvm") as kvm,
                kvm.subscribe(hold=True, acknowledge_within=0.005),
            ):
                raise ZeroDivisionError
        await host.free(await host.alloc(0))
        await log.wait_for("kvm", 1)
        (lagging,) = (await host.statistics()).lagging
        assert ("kvm", False, True) == (lagging.holder, lagging.attached, lagging.overdue)
        await host.evict("kvm")
        assert () == (await host.statistics()).lagging


# Waiting for a reclaim


async def test_a_waiting_free_is_answered_at_reclaim() -> None:
    """With wait, free answers when the last reference is dropped, and not before."""
    answers: list[object] = []
    async with open_allocator() as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        assert 1 == await host.alloc(0)
        await dsa.get(1)
        async with anyio.create_task_group() as tasks:
            await tasks.start(free_and_wait, host, 1, answers)
            assert IoasidState.FREE_PENDING is (await host.find(1)).state
            assert [] == answers
            assert True is await dsa.put(1)
        assert [True] == answers
        assert no_ticket_is_left(host)
        assert 1 == await host.alloc(0)
        assert True is await host.free(1, wait=True)


async def test_a_waiting_free_of_a_set() -> None:
    """With wait, free_set answers when all of its IDs are reclaimed and the set is gone."""
    answers: list[bool] = []

    async def free(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        answers.append(await session.free_set(0, wait=True))

    async with open_allocator() as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 4)
        await dsa.get(2)
        await dsa.get(3)
        async with anyio.create_task_group() as tasks:
            await tasks.start(free, host)
            assert [2, 3] == [each.ioasid for each in await host.list_set(0)]
            await dsa.put(2)
            await host.statistics()
            assert [] == answers
            await dsa.put(3)
        assert [True] == answers
        assert no_ticket_is_left(host)
        with pytest.raises(UnknownSet):
            await host.list_set(0)
        await host.alloc_set("vm-1", 8)
        assert True is await host.free_set(0, destroy=False, wait=True)
        assert 1 == (await host.statistics()).sets


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
            assert no_ticket_is_left(host)
            check_state(core_of(host))
            await tasks.start(free_and_wait, host, 1, answers)
            await host.statistics()
            assert [] == answers
            await dsa.put(1)
        assert [True] == answers
        assert no_ticket_is_left(host)


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
            assert no_ticket_is_left(host)


async def test_a_wait_by_hand_given_up() -> None:
    """A waiting request sent with `ask` is given up as one sent by a method is."""
    async with open_allocator() as host:
        ioasid = await quarantined(host)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(host.ask, Free(ioasid, None, wait=True))
            while not core_of(host)._tables.waiters:
                await checkpoint()
            impatient.cancel_scope.cancel()
        await host.statistics()
        assert no_ticket_is_left(host)


async def test_waiting_for_oneself_is_refused() -> None:
    """Who has to acknowledge or put itself first is refused with EDEADLK, and nothing is freed."""
    async with open_allocator() as host, host.session("vm") as vm:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.get(1)
        with pytest.raises(WouldDeadlock, match=r"EDEADLK: host would .*holds a reference itself"):
            await host.free(1, wait=True)
        async with vm.subscribe(sid=0):
            with pytest.raises(WouldDeadlock, match="acknowledge the FREE itself"):
                await vm.free(1, wait=True)
            with pytest.raises(WouldDeadlock):
                await vm.free_set(0, wait=True)
            assert IoasidState.ACTIVE is (await host.find(1)).state
        await host.put(1)
        assert True is await vm.free_set(0, wait=True)
        assert no_ticket_is_left(host)
