"""`open_allocator`: its arguments, how it ends, and going on from a snapshot, on every backend."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Decision, Session, open_allocator
from ioasid.actors._open import open_driver
from ioasid.actors._port import answered
from ioasid.core import (
    Allocated,
    Allocator,
    AllocatorClosed,
    Event,
    EventKind,
    HolderLive,
    InvalidArgument,
    IoasidState,
    LiveIoasid,
    MalformedMessage,
    OpenSession,
    Released,
    Resync,
    SessionOpened,
    Statistics,
    TakeStatistics,
    decode_snapshot,
    encode,
)
from tests.actors.asking import Answers, free_and_wait, quarantined, reasons
from tests.actors.inside import core_of
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio


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
    with pytest.raises(InvalidArgument, match="holder is"):
        async with open_allocator(holder=value):
            pass


async def test_snapshot_of_another_kind() -> None:
    """What is no snapshot, or comes with a capacity of its own, is refused."""
    with pytest.raises(MalformedMessage):
        async with open_allocator(snapshot=Released(True)):  # type: ignore[arg-type]
            pass
    with pytest.raises(InvalidArgument, match="capacity"):
        async with open_allocator(snapshot=Allocator(8).snapshot(), capacity=8):
            pass


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
        assert (16, 7, 1, 1) == (figures.capacity, figures.available, figures.sets, figures.active)
        assert EventKind.ALLOC is getattr(events_of_one.take(), "kind", None)
        assert None is events_of_one.take()
        kinds = [getattr(await anext(events_of_two), "kind", None) for _ in range(3)]
        assert [EventKind.ALLOC, EventKind.ALLOC, EventKind.FREE] == kinds


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
        async with session.subscribe(kinds={EventKind.ALLOC, EventKind.FREE}) as events:
            task_status.started()
            async for event in events:
                assert isinstance(event, Event)
                kinds.append(event.kind)

    async with anyio.create_task_group() as tasks, open_allocator() as host:
        await tasks.start(consume, host)
        await host.alloc_set("vm-1", 4)
        await host.free(await host.alloc(0))
    assert [EventKind.ALLOC, EventKind.FREE] == kinds


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
@pytest.mark.usefixtures("broken_core")
async def test_shutdown_under_load(end: str, mailbox_size: int) -> None:
    """However it ends, each of 1,000 pending asks gets exactly one answer, an ID or the end."""
    answers = Answers()
    decisions: list[Decision] = []
    raised: type[Exception] | None = None
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            try:
                async with open_allocator(
                    mailbox_size=mailbox_size, taps=[decisions.append]
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


@pytest.mark.usefixtures("broken_core")
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


@pytest.mark.usefixtures("broken_core")
async def test_a_crash_under_the_bodys_own_ask() -> None:
    """The defect itself is raised, not what the body was told of it."""
    with pytest.raises(RuntimeError, match="planted"):
        async with open_allocator() as host:
            await host.reserve_capacity(1)


@pytest.mark.usefixtures("broken_core")
async def test_a_crash_that_the_body_passes_over() -> None:
    """A body that takes the end of the allocator for granted does not hide the defect."""
    with pytest.raises(RuntimeError, match="planted"):  # noqa: PT012
        async with open_allocator() as host:
            with suppress(AllocatorClosed):
                await host.reserve_capacity(1)


@pytest.mark.usefixtures("broken_core")
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
            async with host.subscribe(acknowledge_within=0.001):
                await anyio.sleep_forever()
    with pytest.raises(AllocatorClosed, match=r"crashed .*planted"):
        await host.alloc(0)


# The clock


@pytest.mark.parametrize("kept", [False, True])
async def test_the_first_holder_is_as_old_as_its_allocator(kept: bool, path: Path) -> None:
    """Its age counts from when it was opened, whatever the clock showed then."""
    begun = anyio.current_time()
    async with open_allocator(journal=path if kept else None) as host:
        (first,) = (await host.list_holders()).holders
        assert 0 <= first.age <= anyio.current_time() - begun


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
        assert before == replace(
            after,
            holders=before.holders,
            next_session=before.next_session,
            index=before.index,
        )
        # All suspended, and the first session opened.
        assert before.index + 2 == after.index
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
                    LiveIoasid(1, 0, "vm-1", IoasidState.FREE_PENDING, 101, "opaque", 1),
                    LiveIoasid(2, 0, "vm-1", IoasidState.ACTIVE, None, None, 2),
                ] == list(resync)
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


async def test_a_driver_opens_sessions_for_others() -> None:
    """It is no holder itself; the port of a session that it opened is one as any other."""
    async with open_driver(capacity=16) as driver:
        figures = answered(await driver.send(TakeStatistics()), Statistics)
        assert (0, 16) == (figures.sessions, figures.capacity)
        opened = answered(await driver.send(OpenSession("vm")), SessionOpened)
        vm = Session(driver.join(opened), "vm", opened)
        assert 1 == (await vm.statistics()).sessions
        await vm.alloc_set("vm-1", 4)
        await vm.get(await vm.alloc(0))
        snapshot = await vm.snapshot()
    async with open_driver(snapshot=snapshot) as driver:
        figures = answered(await driver.send(TakeStatistics()), Statistics)
        assert (0, 1) == (figures.sessions, figures.suspended)
