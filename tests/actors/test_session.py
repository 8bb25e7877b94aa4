"""Sessions by every port: joining, leaving, crashing, coming back, and what they refuse."""

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterator
from functools import partial
from typing import Any, TypeAlias, get_args

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Decision, Session
from ioasid.core import (
    Abandon,
    Alloc,
    Allocated,
    AllocatorClosed,
    AllocSet,
    CapacityRecord,
    Continue,
    Event,
    EventKind,
    ExportedIoasid,
    Find,
    Free,
    GroupPage,
    GroupRecord,
    HolderLive,
    InvalidArgument,
    IoasidError,
    IoasidRange,
    IoasidState,
    LiveIoasid,
    MalformedMessage,
    NoSpace,
    NotReferenced,
    NotReserved,
    Priority,
    Put,
    RangeFull,
    RangeNotReserved,
    RangeTaken,
    Request,
    Resync,
    SessionEnded,
    SetExport,
    SetRecord,
    SetState,
    Snapshot,
    StaleIoasid,
    Statistics,
    Subscribe,
    SuspendAll,
    Tick,
    TokenType,
    UnknownGroup,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
    WouldDeadlock,
)
from tests.actors.asking import free_and_wait
from tests.actors.ports import OpenSession

EXPORT = SetExport("vm-9", TokenType.MM, 2, (IoasidRange(1, 2),), (ExportedIoasid(2, 7, None),))
pytestmark = pytest.mark.anyio


class Crashed(Exception):
    """What ends a holder in these tests."""


async def holders(host: Session) -> dict[str, bool]:
    """The holders there are, and whether each has a live session."""
    return {each.name: each.session is not None for each in (await host.snapshot()).holders}


async def crash(host: Session, name: str, *ioasids: int, hold: int | None = None) -> None:
    """Let a holder take references, subscribe to a set if told, and crash."""
    with pytest.raises(Crashed):  # noqa: PT012
        async with host.session(name) as session:
            for ioasid in ioasids:
                await session.get(ioasid)
            if hold is not None:
                await session.subscribe(sid=hold, hold=True).__aenter__()
            raise Crashed


# Requests


async def test_every_request_has_a_method(open_session: OpenSession) -> None:
    """Each request of the protocol is sent by a method, which gives the answer in its own type."""
    decisions: list[Decision] = []
    async with open_session(capacity=512, taps=[decisions.append]) as host:
        assert CapacityRecord(1024, 1, 1023, 1) == await host.install_capacity(1024)
        assert CapacityRecord(1024, 25, 999, 1) == await host.reserve_capacity(24)
        assert CapacityRecord(1024, 5, 1019, 1) == await host.cancel_capacity(20)
        assert CapacityRecord(1024, 15, 1009, 11) == await host.reserve_range(1000, 1009)
        assert CapacityRecord(1024, 6, 1018, 2) == await host.cancel_range(1001, 1009)
        tenant = GroupRecord("tenant", None, 9, 0)
        assert tenant == await host.alloc_group("tenant", 9)
        assert replace(tenant, limit=10) == await host.adjust_group("tenant", 10)
        desk = GroupRecord("desk", "tenant", 2, 0)
        assert desk == await host.alloc_group("desk", 2, parent="tenant")
        assert GroupPage((desk,), "desk") == await host.list_groups(limit=1)
        assert GroupPage((replace(tenant, limit=10, used=2),), None) == await host.list_groups(
            after="desk"
        )
        await host.free_group("desk")
        assert SetRecord(
            0, None, TokenType.NULL, 20, 0, SetState.ACTIVE, system=True
        ) == await host.alloc_system_set(20)
        vm = SetRecord(1, "vm-1", TokenType.MM, 64, 0, SetState.ACTIVE)
        assert vm == await host.alloc_set("vm-1", 64)
        other = await host.alloc_set(None, None, TokenType.NULL, group="tenant")
        assert (10, "tenant") == (other.quota, other.group)
        ranges = await host.alloc_many(other.sid, 2)
        assert True is await host.free_many(other.sid, ranges)
        assert True is await host.free_many(other.sid, [])
        assert True is await host.free_set(other.sid)
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
        lowest = LiveIoasid(3, 1, "vm-1", IoasidState.ACTIVE, None, None, 4)
        assert lowest == next(iter(await host.list_set(1)))

        with pytest.raises(UnknownIoasid):
            await host.explain(2)
        assert "3 (vm-1) is in use: it was not freed." == (await host.explain(3)).text
        assert [1] == [each.sid for each in (await host.list_sets(after=0, limit=1)).sets]
        assert [] == [each.holder for each in (await host.list_holders(after="host")).holders]

        with pytest.raises(ZeroDivisionError):
            async with host.session("dsa") as dsa, dsa.subscribe(hold=True):
                raise ZeroDivisionError
        assert 1 == (await host.statistics()).suspended
        await host.evict("dsa")
        figures = await host.statistics()
        assert isinstance(figures, Statistics)
        assert (1, 0, 2, 6) == (figures.sessions, figures.suspended, figures.sets, figures.active)
        assert isinstance(await host.snapshot(), Snapshot)
        assert True is await host.freeze_set(1)
        export = await host.export_set(1)
        await host.thaw_set(1)
        assert True is await host.free_set(1)
        with pytest.raises(UnknownSet):
            await host.list_set(1)
        moved = await host.import_set(export, min=9)
        await host.activate_set(moved.sid)
        arrived = await host.find_set("vm-1")
        assert (moved.sid, SetState.ACTIVE) == (arrived.sid, arrived.state)
    of_driver = {Abandon, Continue, SuspendAll, Tick}
    assert set(get_args(Request)) - of_driver == {type(each.request) for each in decisions}


async def test_ask_takes_any_message(open_session: OpenSession) -> None:
    """A request built by hand is answered by a message; what is none is refused."""
    async with open_session(capacity=16) as host:
        await host.ask(AllocSet("vm-1", 4))
        assert Allocated(1, 1) == await host.ask(Alloc(0))
        for stranger in (None, 5, "Alloc", Allocated(1), Alloc):
            with pytest.raises(MalformedMessage):
                await host.ask(stranger)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="call subscribe"):
            await host.ask(Subscribe())
        assert Allocated(2, 2) == await host.ask(Alloc(0))
        assert 0 == (await host.statistics()).subscriptions


# Joining


async def test_the_first_session(open_session: OpenSession) -> None:
    """Opening the allocator gives a session with a name, number and figures of its own."""
    async with open_session(holder="agent") as host:
        assert "agent" == host.name
        assert "<Session 1 of holder 'agent'>" == repr(host)
        assert (1, False, ()) == (host.opened.session, host.opened.resumed, host.opened.references)
        assert {"agent": True} == await holders(host)


async def test_sessions_are_numbered(open_session: OpenSession) -> None:
    """Every session gets a number that no other one had, the same holder's next one too."""
    async with open_session() as host:
        numbers = []
        for name in ("vm-1", "vm-1", "vm-2"):
            async with host.session(name) as session:
                assert name == session.name
                assert session.number == session.opened.session
                numbers.append(session.number)
        assert [2, 3, 4] == numbers


async def test_names_of_live_sessions_are_unique(open_session: OpenSession) -> None:
    """A name that a live session has is refused, and the session is not disturbed."""
    async with open_session() as host, host.session("vm-1") as vm:
        for session in (host, vm):
            with pytest.raises(HolderLive) as caught:
                async with session.session("vm-1"):
                    pass
            assert "vm-1" == caught.value.name
        assert 2 == (await vm.statistics()).sessions


async def test_sessions_open_sessions(open_session: OpenSession) -> None:
    """Any session opens others, and they live on when it is gone."""
    async with open_session() as host:
        first = host.session("first")
        one = await first.__aenter__()
        async with one.session("second") as two:
            await first.__aexit__(None, None, None)
            assert {"host": True, "second": True} == await holders(two)
            with pytest.raises(SessionEnded):
                async with one.session("third"):
                    pass


# Leaving and crashing


async def test_leaving_drops_references(open_session: OpenSession) -> None:
    """A session that leaves is done: its references go, and what waited for them is reclaimed."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        async with host.session("dsa") as dsa:
            await dsa.get(1)
            await dsa.get(1)
            await dsa.get(2)
            assert False is await host.free(1)
            assert {"dsa": 2} == (await host.find(1)).references
        with pytest.raises(UnknownIoasid):
            await host.find(1)
        assert {} == (await host.find(2)).references
        assert {"host": True} == await holders(host)


async def test_leaving_acknowledges(open_session: OpenSession) -> None:
    """What a session that leaves was told counts as acknowledged, in its queue or in its hands."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        async with host.session("kvm") as kvm:
            events = await kvm.subscribe(kinds={EventKind.FREE}).__aenter__()
            assert [False, False] == [await host.free(1), await host.free(2)]
            await anext(events)
            assert 2 == (await host.statistics()).free_pending
        assert 0 == (await host.statistics()).free_pending
        with pytest.raises(SessionEnded):
            events.take()


@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_a_crash_with_references_suspends(open_session: OpenSession, end: str) -> None:
    """A holder that crashes while it has references is suspended: its IDs stay in quarantine."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        if end == "exception":
            await crash(host, "dsa", 1, 1)
        else:
            with anyio.CancelScope() as scope:
                async with host.session("dsa") as dsa:
                    await dsa.get(1)
                    await dsa.get(1)
                    scope.cancel()
                    await checkpoint()
            assert scope.cancelled_caught
        assert {"dsa": False, "host": True} == await holders(host)
        assert False is await host.free(1)
        assert {"dsa": 2} == (await host.find(1)).references
        figures = await host.statistics()
        assert (1, 1, 1) == (figures.sessions, figures.suspended, figures.free_pending)


@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_a_crash_with_a_holding_subscription_suspends(
    open_session: OpenSession, end: str
) -> None:
    """A crashed holder keeps what was granted with events, and is not done with its FREE."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        with anyio.CancelScope() as scope:
            try:
                async with host.session("kvm") as kvm, kvm.subscribe(sid=0, hold=True):
                    await host.attach_spid(1, 101)
                    if end == "exception":
                        raise Crashed
                    scope.cancel()
                    await checkpoint()
            except Crashed:
                pass
        assert scope.cancelled_caught == (end == "cancellation")
        assert {"kvm": False, "host": True} == await holders(host)
        await host.free(1)
        record = await host.find(1)
        assert (IoasidState.FREE_PENDING, {"kvm": 1}) == (record.state, record.references)
        (lagging,) = (await host.statistics()).lagging
        assert ("kvm", False) == (lagging.holder, lagging.attached)


async def test_a_crash_without_either_just_leaves(open_session: OpenSession) -> None:
    """A holder without references or holding subscriptions has nothing to come back for."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await crash(host, "idle")
        with pytest.raises(Crashed):  # noqa: PT012
            async with host.session("reader") as reader, reader.subscribe(sid=0):
                await reader.get(1)
                await reader.put(1)
                await host.notify(1, EventKind.BIND)
                raise Crashed
        assert {"host": True} == await holders(host)
        figures = await host.statistics()
        assert (0, 0, 0) == (figures.subscriptions, figures.in_flight, len(figures.lagging))
        assert True is await host.free(1)


async def test_exceptions_leave_a_session_as_raised(open_session: OpenSession) -> None:
    """A session's scope neither wraps nor swallows what ends it."""
    error = Crashed()
    async with open_session() as host:
        with pytest.raises(Crashed) as caught:
            async with host.session("vm"):
                raise error
        assert error is caught.value


async def test_a_session_that_left_is_over(open_session: OpenSession) -> None:
    """After leaving or crashing, every call of the session is refused with SessionEnded."""
    async with open_session() as host:
        async with host.session("vm") as left:
            pass
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        with pytest.raises(Crashed):  # noqa: PT012
            async with host.session("dsa") as crashed:
                await crashed.get(1)
                raise Crashed
        for session in (left, crashed):
            for call in CALLS.values():
                with pytest.raises(SessionEnded) as caught:
                    await call(session)
                assert session.number == caught.value.session
        assert {"dsa": False, "host": True} == await holders(host)


async def test_a_name_is_free_as_soon_as_its_session_was_left(open_session: OpenSession) -> None:
    """However much a holder has in the mailbox when it leaves, its name can be taken at once."""
    async with open_session() as host:
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


async def test_no_snapshot_for_a_session_that_ended(open_session: OpenSession) -> None:
    """A snapshot is a request as any other: a session that left gets none."""
    async with open_session() as host:
        async with host.session("vm") as vm:
            pass
        with pytest.raises(SessionEnded):
            await vm.snapshot()


# Coming back


async def test_coming_back_with_references(open_session: OpenSession) -> None:
    """A holder that comes back is told so, has its references, and can put them."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 3)
        await crash(host, "dsa", 3, 1, 3)
        await host.free(3)
        async with host.session("dsa") as dsa:
            assert (True, ((1, 1), (3, 2))) == (dsa.opened.resumed, dsa.opened.references)
            assert 0 == (await host.statistics()).suspended
            assert [False, True] == [await dsa.put(3), await dsa.put(3)]
            with pytest.raises(NotReferenced):
                await dsa.put(2)
        assert {} == (await host.find(1)).references


async def test_coming_back_starts_with_a_resync(open_session: OpenSession) -> None:
    """What a holder missed is in the Resync that its subscription comes back with."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        await crash(host, "kvm", hold=0)
        await host.attach_spid(1, 101)
        await host.free(2)
        async with host.session("kvm") as kvm:
            assert kvm.opened.resumed
            async with kvm.subscribe(sid=0, hold=True) as events:
                assert events.resumed
                resync = await anext(events)
                assert isinstance(resync, Resync)
                assert (
                    LiveIoasid(1, 0, "vm-1", IoasidState.ACTIVE, 101, None, 1),
                    LiveIoasid(2, 0, "vm-1", IoasidState.FREE_PENDING, None, None, 1),
                ) == tuple(resync)
                assert {"kvm": 1} == (await host.find(1)).references
                events.acknowledge(resync)
                reclaim = await anext(events)
                assert isinstance(reclaim, Event)
                assert (EventKind.RECLAIM, 2) == (reclaim.kind, reclaim.ioasid)


async def test_crashing_again(open_session: OpenSession) -> None:
    """A holder that comes back and crashes again is suspended again, nothing lost."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        for times in range(1, 4):
            await crash(host, "dsa", 1)
            assert {"dsa": times} == (await host.find(1)).references


# Eviction


async def test_evicting_a_suspended_holder(open_session: OpenSession) -> None:
    """Eviction acknowledges and drops what a suspended holder left, and the name is free."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)
        await host.attach_spid(2, 102)
        await crash(host, "dsa", 1, hold=0)
        assert [False, False] == [await host.free(1), await host.free(2)]
        await host.evict("dsa")
        figures = await host.statistics()
        assert (0, 0, 0) == (figures.suspended, figures.active, figures.free_pending)
        with pytest.raises(UnknownHolder):
            await host.evict("dsa")
        async with host.session("dsa") as dsa:
            assert (False, ()) == (dsa.opened.resumed, dsa.opened.references)


async def test_evicting_a_live_holder(open_session: OpenSession) -> None:
    """The evicted session's calls raise SessionEnded and so do its iterators, at once."""
    ended: list[int] = []
    async with open_session() as host, host.session("kvm") as kvm:
        await host.alloc_set("vm-1", 8)
        await host.alloc_many(0, 2)

        async def iterate(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            async with kvm.subscribe(kinds={EventKind.RECLAIM}) as events:
                task_status.started()
                with pytest.raises(SessionEnded) as caught:
                    await anext(events)
                ended.append(caught.value.session)

        async with anyio.create_task_group() as tasks, kvm.subscribe(sid=0) as lagging:
            await tasks.start(iterate)
            await kvm.get(1)
            await host.free(1)
            await host.free(2)
            free = await anext(lagging)
            await host.evict("kvm")
            assert [] == list((await host.statistics()).lagging)
            with pytest.raises(SessionEnded):
                lagging.take()
            with pytest.raises(SessionEnded):
                await anext(lagging)
            lagging.acknowledge(free)
        assert [kvm.number] == ended
        for call in CALLS.values():
            with pytest.raises(SessionEnded):
                await call(kvm)
        figures = await host.statistics()
        assert (1, 0, 0) == (figures.sessions, figures.subscriptions, figures.free_pending)
        async with host.session("kvm") as successor:
            assert not successor.opened.resumed
            assert {"host": True, "kvm": True} == await holders(host)
    # The old session's leaving has not ended the new one's holder, nor anything else.


async def test_leaving_after_eviction_spares_the_successor(open_session: OpenSession) -> None:
    """When an evicted session's scope ends at last, a new one of the name is not disturbed."""
    async with open_session() as host:
        scope = host.session("vm")
        await scope.__aenter__()
        await host.evict("vm")
        async with host.session("vm") as successor:
            await scope.__aexit__(None, None, None)
            assert {"host": True, "vm": True} == await holders(successor)


async def test_evicting_oneself(open_session: OpenSession) -> None:
    """A session may declare itself dead; it is refused from then on."""
    async with open_session() as host, host.session("vm") as vm:
        await vm.evict("vm")
        with pytest.raises(SessionEnded):
            await vm.statistics()


async def test_evicting_nobody(open_session: OpenSession) -> None:
    """A name that nobody has is refused."""
    async with open_session() as host:
        with pytest.raises(UnknownHolder) as caught:
            await host.evict("nobody")
        assert "nobody" == caught.value.name


# Waiting for a reclaim


async def test_a_waiting_free_is_answered_at_reclaim(open_session: OpenSession) -> None:
    """With wait, free answers when the last reference is dropped, and not before."""
    answers: list[object] = []
    async with open_session() as host, host.session("dsa") as dsa:
        await host.alloc_set("vm-1", 8)
        assert 1 == await host.alloc(0)
        await dsa.get(1)
        async with anyio.create_task_group() as tasks:
            await tasks.start(free_and_wait, host, 1, answers)
            assert IoasidState.FREE_PENDING is (await host.find(1)).state
            assert [] == answers
            assert True is await dsa.put(1)
        assert [True] == answers
        assert 1 == await host.alloc(0)
        assert True is await host.free(1, wait=True)


async def test_a_waiting_free_of_a_set(open_session: OpenSession) -> None:
    """With wait, free_set answers when all of its IDs are reclaimed and the set is gone."""
    answers: list[bool] = []

    async def free(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        answers.append(await session.free_set(0, wait=True))

    async with open_session() as host, host.session("dsa") as dsa:
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
        with pytest.raises(UnknownSet):
            await host.list_set(0)
        assert 1 == (await host.alloc_set("vm-1", 8)).sid
        assert True is await host.free_set(1, destroy=False, wait=True)
        assert 1 == (await host.statistics()).sets


async def test_waiting_for_oneself_is_refused(open_session: OpenSession) -> None:
    """Who has to acknowledge or put itself first is refused with EDEADLK, and nothing is freed."""
    async with open_session() as host, host.session("vm") as vm:
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


# Permission


async def test_a_set_that_is_not_the_ids_is_refused(open_session: OpenSession) -> None:
    """A session that names its set gets at no ID of another one."""
    async with open_session() as host, host.session("vm") as vm:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        await host.alloc(0)
        before = await host.snapshot()
        for call in (vm.find, vm.get, vm.put, vm.free, vm.detach_spid, vm.detach_data):
            with pytest.raises(IoasidError, match="EACCES: IOASID 1 does not belong to set 1"):
                await call(1, sid=1)
        assert before == await host.snapshot()


# Generations


OF_ONE_LIFE: dict[str, Callable[..., Awaitable[object]]] = {
    "find_sid": Session.find_sid,
    "free": Session.free,
    "get": Session.get,
    "put": Session.put,
    "find": Session.find,
    "explain": Session.explain,
    "attach_data": lambda session, ioasid, **life: session.attach_data(ioasid, 5, **life),
    "detach_data": Session.detach_data,
    "attach_spid": lambda session, ioasid, **life: session.attach_spid(ioasid, 102, **life),
    "detach_spid": Session.detach_spid,
    "notify": lambda session, ioasid, **life: session.notify(ioasid, EventKind.BIND, **life),
}
"""Every call that takes an ID, with what else it needs."""


def test_every_call_of_one_life_is_listed() -> None:
    """Whatever takes a generation is in the table; a number of ranges has a test of its own."""
    takes = {
        name
        for name, method in inspect.getmembers(Session)
        if not name.startswith("_")
        and callable(method)
        and "generation" in inspect.signature(method).parameters
    }
    assert {*OF_ONE_LIFE, "free_many"} == takes


@pytest.mark.parametrize("name", OF_ONE_LIFE)
async def test_an_id_of_a_life_that_is_over_is_refused(
    open_session: OpenSession, name: str
) -> None:
    """An ID remembers its life, a generation goes before it, a bare number has none."""
    call = OF_ONE_LIFE[name]
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        old = await host.alloc(0)
        await host.free(old)
        new = await host.alloc(0)
        assert (1, 1, 1, 2) == (old, old.generation, new, new.generation)
        await host.attach_spid(new, 101)
        found = await host.find_by_spid(0, 101, get=True)
        assert (1, 2) == (found, found.generation)
        before = await host.snapshot()
        stale: tuple[tuple[int, dict[str, int]], ...] = (
            (old, {}),
            (1, {"generation": 1}),
            (new, {"generation": 1}),
        )
        for ioasid, life in (*stale, (found, {"generation": 3})):
            with pytest.raises(StaleIoasid) as caught:
                await call(host, ioasid, **life)
            error = caught.value
            meant = life.get("generation", 1)
            assert (1, meant, 2) == (error.ioasid, error.generation, error.current)
            assert before == await host.snapshot()


@pytest.mark.parametrize("name", OF_ONE_LIFE)
@pytest.mark.parametrize("way", ["own", "found", "bare", "named", "named over own"])
async def test_an_id_of_the_life_that_goes_on(
    open_session: OpenSession, name: str, way: str
) -> None:
    """What is of this life, or says nothing of it, is taken."""
    decisions: list[Decision] = []
    async with open_session(taps=[decisions.append]) as host:
        await host.alloc_set("vm-1", 8)
        old = await host.alloc(0)
        await host.free(old)
        new = await host.alloc(0)
        await host.attach_spid(new, 101)
        found = await host.find_by_spid(0, 101, get=True)
        if name == "attach_spid":
            await host.detach_spid(new)
        ways: dict[str, tuple[int, dict[str, int]]] = {
            "own": (new, {}),
            "found": (found, {}),
            "bare": (1, {}),
            "named": (1, {"generation": 2}),
            "named over own": (old, {"generation": 2}),
        }
        ioasid, life = ways[way]
        await OF_ONE_LIFE[name](host, ioasid, **life)
        request: Any = decisions[-1].request
        assert (1, None if way == "bare" else 2) == (request.ioasid, request.generation)


async def test_freeing_many_of_one_life(open_session: OpenSession) -> None:
    """With a generation, IDs of another life are not freed, nor are those beside them."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        ranges = await host.alloc_many(0, 3)
        await host.free(2)
        again = await host.alloc(0)
        assert (2, 2) == (again, again.generation)
        with pytest.raises(StaleIoasid):
            await host.free_many(0, ranges, generation=1)
        assert 3 == (await host.statistics()).active
        assert True is await host.free_many(0, [IoasidRange(2, 2)], generation=2)
        assert True is await host.free_many(0, [IoasidRange(1, 1), IoasidRange(3, 3)], generation=1)


async def test_ranges_remember_their_life(open_session: OpenSession) -> None:
    """What alloc_many returned frees no ID of a later life, unless another one is named."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        old = await host.alloc_many(0, 3)
        await host.free_many(0, old)
        new = await host.alloc_many(0, 3)
        assert (old, 2) == (new, new[0].last.generation)  # type: ignore[attr-defined]
        before = await host.snapshot()
        for ranges in (old, [IoasidRange(old[0].first, 2)], [IoasidRange(1, old[0].last)]):
            with pytest.raises(StaleIoasid) as caught:
                await host.free_many(0, ranges)
            assert (1, 1, 2) == (
                caught.value.ioasid,
                caught.value.generation,
                caught.value.current,
            )
        both = [IoasidRange(old[0].first, 1), IoasidRange(2, new[0].last)]
        with pytest.raises(InvalidArgument, match="one generation"):
            await host.free_many(0, both)
        assert before == await host.snapshot()
        with pytest.raises(StaleIoasid):
            await host.free(new[0].first, generation=1)
        with pytest.raises(StaleIoasid):
            await host.free(old[0].first)
        assert True is await host.free_many(0, both, generation=2)


async def test_an_id_is_a_number_wherever_a_number_is_meant(open_session: OpenSession) -> None:
    """As a spid, as data, and as the end of a range, an ID that remembers its life is an int."""
    async with open_session(capacity=64) as host:
        owner = await host.alloc_set("vm-1", 8)
        first = await host.alloc(owner.sid)
        assert 5 == await host.alloc(owner.sid, min=5)
        same = await host.alloc(owner.sid, min=9, data=first)
        await host.attach_spid(first, first)
        assert first == await host.find_by_spid(owner.sid, first)
        await host.attach_data(first, same)
        assert (9, 1) == ((await host.find(first)).data, (await host.find(same)).data)
        with pytest.raises(RangeFull):
            await host.alloc(owner.sid, min=first, max=first)
        assert (IoasidRange(10, 11),) == await host.alloc_many(owner.sid, 2, min=same)
        await host.free(same)
        assert 2 == (await host.reserve_range(same, same)).reserved
        assert 1 == (await host.cancel_range(same, same)).reserved


async def test_a_request_built_by_hand_takes_an_id_as_the_methods_do(
    open_session: OpenSession,
) -> None:
    """`ask` names the life that an ID remembers, and one that is over is refused."""
    async with open_session() as host:
        await host.alloc_set("vm-1", 8)
        old = await host.alloc(0)
        await host.free(old)
        new = await host.alloc(0)
        assert await host.find(1) == await host.ask(Find(new))
        for request in (Find(old), Free(old), Find(new, generation=1)):
            with pytest.raises(StaleIoasid):
                await host.ask(request)
        assert await host.find(1) == await host.ask(Find(old, generation=2))
        explained = replace(await host.explain(new), ioasid=new)
        strangers: tuple[Any, ...] = (Allocated(new, 2), explained)
        for stranger in strangers:
            with pytest.raises(MalformedMessage):
                await host.ask(stranger)


# Bad input

Call: TypeAlias = Callable[[Session], Awaitable[object]]


async def enter(scope: Any) -> None:
    """Enter a scope that is refused."""
    async with scope:
        raise AssertionError


CALLS: dict[str, Call] = {
    "install_capacity": lambda session: session.install_capacity(8),
    "reserve_capacity": lambda session: session.reserve_capacity(1),
    "cancel_capacity": lambda session: session.cancel_capacity(1),
    "reserve_range": lambda session: session.reserve_range(5, 6),
    "cancel_range": lambda session: session.cancel_range(0, 0),
    "alloc_group": lambda session: session.alloc_group("tenant", 1),
    "adjust_group": lambda session: session.adjust_group("tenant", 1),
    "free_group": lambda session: session.free_group("tenant"),
    "list_groups": lambda session: session.list_groups(),
    "free_many": lambda session: session.free_many(0, [IoasidRange(1, 1)]),
    "alloc_system_set": lambda session: session.alloc_system_set(1),
    "alloc_set": lambda session: session.alloc_set("token", 1),
    "adjust_set": lambda session: session.adjust_set(0, 9),
    "free_set": lambda session: session.free_set(0),
    "free_set waiting": lambda session: session.free_set(0, wait=True),
    "freeze_set": lambda session: session.freeze_set(0, wait=False),
    "freeze_set waiting": lambda session: session.freeze_set(0),
    "thaw_set": lambda session: session.thaw_set(0),
    "export_set": lambda session: session.export_set(0),
    "import_set": lambda session: session.import_set(EXPORT),
    "activate_set": lambda session: session.activate_set(0),
    "find_sid": lambda session: session.find_sid(1),
    "find_set": lambda session: session.find_set("vm-1"),
    "list_sets": lambda session: session.list_sets(),
    "list_holders": lambda session: session.list_holders(),
    "explain": lambda session: session.explain(1),
    "list_set": lambda session: session.list_set(0),
    "alloc": lambda session: session.alloc(0),
    "alloc_many": lambda session: session.alloc_many(0, 2),
    "free": lambda session: session.free(1),
    "free waiting": lambda session: session.free(1, wait=True),
    "get": lambda session: session.get(1),
    "put": lambda session: session.put(1),
    "find": lambda session: session.find(1),
    "attach_data": lambda session: session.attach_data(1, 5),
    "detach_data": lambda session: session.detach_data(1),
    "attach_spid": lambda session: session.attach_spid(1, 101),
    "detach_spid": lambda session: session.detach_spid(1),
    "find_by_spid": lambda session: session.find_by_spid(0, 101),
    "notify": lambda session: session.notify(1, EventKind.BIND),
    "session": lambda session: enter(session.session("other")),
    "evict": lambda session: session.evict("host"),
    "subscribe": lambda session: enter(session.subscribe()),
    "statistics": lambda session: session.statistics(),
    "snapshot": lambda session: session.snapshot(),
    "ask": lambda session: session.ask(Alloc(0)),
    "insist": lambda session: session.insist(Put(1)),
}
"""Every call of a session, with arguments that are in range."""


def test_the_table_of_calls_is_complete() -> None:
    """Every public method of a session is in the table of calls."""
    methods = {
        name
        for name, value in inspect.getmembers(Session)
        if not name.startswith("_") and not isinstance(value, property)
    }
    assert methods == {name.split()[0] for name in CALLS}


async def test_calls_after_close(open_session: OpenSession) -> None:
    """Every call is refused with AllocatorClosed once the scope is left, and leaving is silent."""
    async with open_session() as host:
        scope = host.session("vm")
        vm = await scope.__aenter__()
        events = vm.subscribe()
        await events.__aenter__()
    for session in (host, vm):
        with pytest.raises(AllocatorClosed, match="was shut down; open another"):
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


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_after_close(open_session: OpenSession, name: str) -> None:
    """Each call is refused with AllocatorClosed when there is no allocator any more."""
    async with open_session() as host:
        pass
    with pytest.raises(AllocatorClosed):
        await CALLS[name](host)


NAN = float("nan")
HUGE = ("x" * 256, "x" * 2**20, "\u00e9" * 128)
NO_INTS: tuple[Any, ...] = (True, False, -1, -(2**63), 1.0, NAN, "1", b"1", (), [1], object())
NO_NAMES: tuple[Any, ...] = ("", *HUGE, "\ud800", 5, True, b"vm", (), [])
NO_FLAGS: tuple[Any, ...] = (0, 1, None, "yes")
FAR = (2**32 - 1, 2**32, 2**64 - 1)
"""What is in no range, or past every one."""


NO_GENERATIONS: tuple[Any, ...] = (*NO_INTS, 2**64)


def with_generation(
    call: Callable[..., Awaitable[object]], session: Session, generation: Any
) -> Awaitable[object]:
    """Call what takes an ID first, and the generation that is meant."""
    return call(session, 1, generation=generation)


class Failing(Collection[IoasidRange]):
    """What begins to give ranges, and fails."""

    def __len__(self) -> int:
        return 2

    def __contains__(self, each: object) -> bool:
        return False

    def __iter__(self) -> Iterator[IoasidRange]:
        yield IoasidRange(1, 1)
        raise LookupError


BAD: dict[str, tuple[Callable[[Session, Any], Any], tuple[Any, ...]]] = {
    "install_capacity": (Session.install_capacity, (*NO_INTS, None, 0, 2**32, 2**64)),
    "reserve_capacity": (Session.reserve_capacity, (*NO_INTS, 0, 2**32, 2**64)),
    "cancel_capacity": (Session.cancel_capacity, (*NO_INTS, None, 0, 2**32, 2**64)),
    "reserve_range min": (lambda s, v: s.reserve_range(v, 9), (*NO_INTS, None, *FAR, 10)),
    "reserve_range max": (lambda s, v: s.reserve_range(5, v), (*NO_INTS, None, 4, *FAR, 64)),
    "cancel_range min": (lambda s, v: s.cancel_range(v, 0), (*NO_INTS, None, *FAR, 1)),
    "cancel_range max": (lambda s, v: s.cancel_range(0, v), (*NO_INTS, None, *FAR, 64)),
    "alloc_group name": (lambda s, v: s.alloc_group(v, 1), (*NO_NAMES, None)),
    "alloc_group limit": (lambda s, v: s.alloc_group("g", v), (*NO_INTS, None, 0, 2**32, 2**64)),
    "alloc_group parent": (lambda s, v: s.alloc_group("g", 1, parent=v), NO_NAMES),
    "adjust_group name": (lambda s, v: s.adjust_group(v, 1), (*NO_NAMES, None)),
    "adjust_group limit": (lambda s, v: s.adjust_group("g", v), (*NO_INTS, None, 0, 2**32)),
    "free_group": (Session.free_group, (*NO_NAMES, None)),
    "list_groups after": (lambda s, v: s.list_groups(after=v), NO_NAMES),
    "list_groups limit": (lambda s, v: s.list_groups(limit=v), (*NO_INTS, None, 0, 1001, 2**64)),
    "alloc_set group": (lambda s, v: s.alloc_set("t", 4, group=v), NO_NAMES),
    "free_many sid": (lambda s, v: s.free_many(v, []), (*NO_INTS, None)),
    "free_many ranges": (
        lambda s, v: s.free_many(0, v),
        (
            *(None, 1, "1", [1], [(1, 1)], [IoasidRange(2, 1)], [IoasidRange(1, 1)] * 2),
            *(Failing(), iter(())),
        ),
    ),
    "alloc_system_set quota": (Session.alloc_system_set, (*NO_INTS, 0, 2**32, 2**64)),
    "alloc_set token": (lambda s, v: s.alloc_set(v, 4), (*NO_NAMES, None)),
    "alloc_set quota": (lambda s, v: s.alloc_set("t", v), (*NO_INTS, 0, 2**32, 2**64)),
    "alloc_set type": (
        lambda s, v: s.alloc_set("t", 4, v),
        (TokenType.NULL, "MM", "mm", 1, None, True),
    ),
    "adjust_set sid": (lambda s, v: s.adjust_set(v, 4), (*NO_INTS, None)),
    "adjust_set quota": (lambda s, v: s.adjust_set(0, v), (*NO_INTS, None, 0, 2**32, 2**64)),
    "free_set sid": (Session.free_set, (*NO_INTS, None)),
    "free_set sid waiting": (lambda s, v: s.free_set(v, wait=True), (*NO_INTS, None)),
    "free_set destroy": (lambda s, v: s.free_set(0, destroy=v), NO_FLAGS),
    "free_set wait": (lambda s, v: s.free_set(0, wait=v), NO_FLAGS),
    "freeze_set sid": (lambda s, v: s.freeze_set(v), (*NO_INTS, None)),
    "freeze_set wait": (lambda s, v: s.freeze_set(0, wait=v), NO_FLAGS),
    "thaw_set": (lambda s, v: s.thaw_set(v), (*NO_INTS, None)),
    "export_set": (lambda s, v: s.export_set(v), (*NO_INTS, None)),
    "activate_set": (lambda s, v: s.activate_set(v), (*NO_INTS, None)),
    "import_set export": (lambda s, v: s.import_set(v), (*NO_INTS, None, replace(EXPORT, quota=0))),
    "import_set group": (lambda s, v: s.import_set(EXPORT, group=v), NO_NAMES),
    "import_set min": (lambda s, v: s.import_set(EXPORT, min=v), (*NO_INTS, None, 2**32)),
    "import_set max": (lambda s, v: s.import_set(EXPORT, max=v), (*NO_INTS, 2**32)),
    "find_sid": (lambda s, v: s.find_sid(v), (*NO_INTS, None, *FAR)),
    "find_set": (lambda s, v: s.find_set(v), (*NO_NAMES, None)),
    "find_set sid": (lambda s, v: s.find_set(sid=v), (*NO_INTS, None)),
    "list_sets after": (lambda s, v: s.list_sets(after=v), NO_INTS),
    "list_sets limit": (lambda s, v: s.list_sets(limit=v), (*NO_INTS, None, 0, 1001, 2**64)),
    "list_holders after": (lambda s, v: s.list_holders(after=v), NO_NAMES),
    "list_holders limit": (lambda s, v: s.list_holders(limit=v), (*NO_INTS, None, 0, 1001, 2**64)),
    "explain": (lambda s, v: s.explain(v), (*NO_INTS, None, *FAR)),
    "find_set both": (lambda s, v: s.find_set("vm-1", sid=v), (0,)),
    "list_set": (lambda s, v: s.list_set(v), (*NO_INTS, None)),
    "alloc sid": (Session.alloc, (*NO_INTS, None)),
    "alloc min": (lambda s, v: s.alloc(0, min=v), (*NO_INTS, None, *FAR, 64)),
    "alloc max": (lambda s, v: s.alloc(0, max=v), (*NO_INTS, 0, *FAR, 64)),
    "alloc data": (
        lambda s, v: s.alloc(0, data=v),
        (True, 1.0, b"", (), object(), 2**64, -(2**63) - 1, "x" * 4097, "\ud800"),
    ),
    "alloc_many sid": (lambda s, v: s.alloc_many(v, 1), (*NO_INTS, None)),
    "alloc_many count": (lambda s, v: s.alloc_many(0, v), (*NO_INTS, None, 0, 2**32, 2**64)),
    "alloc_many min": (lambda s, v: s.alloc_many(0, 1, min=v), (*NO_INTS, None, *FAR, 64)),
    "alloc_many max": (lambda s, v: s.alloc_many(0, 1, max=v), (*NO_INTS, 0, *FAR, 64)),
    "free": (Session.free, (*NO_INTS, None, *FAR)),
    "free sid": (lambda s, v: s.free(1, sid=v), NO_INTS),
    "free wait": (lambda s, v: s.free(1, wait=v), NO_FLAGS),
    "free waiting": (lambda s, v: s.free(v, wait=True), (*NO_INTS, None, *FAR)),
    "get": (Session.get, (*NO_INTS, None, *FAR)),
    "get sid": (lambda s, v: s.get(1, sid=v), NO_INTS),
    "put": (Session.put, (*NO_INTS, None, *FAR)),
    "put sid": (lambda s, v: s.put(1, sid=v), NO_INTS),
    "find": (lambda s, v: s.find(v), (*NO_INTS, None, *FAR)),
    "find sid": (lambda s, v: s.find(1, sid=v), NO_INTS),
    "attach_data": (lambda s, v: s.attach_data(v, 5), (*NO_INTS, None, *FAR)),
    "attach_data data": (
        lambda s, v: s.attach_data(1, v),
        (None, True, 1.0, b"", (), object(), 2**64, -(2**63) - 1, "x" * 4097, "\ud800"),
    ),
    "attach_data sid": (lambda s, v: s.attach_data(1, 5, sid=v), NO_INTS),
    "detach_data": (Session.detach_data, (*NO_INTS, None, *FAR)),
    "detach_data sid": (lambda s, v: s.detach_data(1, sid=v), NO_INTS),
    "attach_spid": (lambda s, v: s.attach_spid(v, 5), (*NO_INTS, None, *FAR)),
    "attach_spid spid": (lambda s, v: s.attach_spid(1, v), (*NO_INTS, None, *FAR)),
    "attach_spid sid": (lambda s, v: s.attach_spid(1, 5, sid=v), NO_INTS),
    "detach_spid": (Session.detach_spid, (*NO_INTS, None, *FAR)),
    "detach_spid sid": (lambda s, v: s.detach_spid(1, sid=v), NO_INTS),
    "find_by_spid sid": (lambda s, v: s.find_by_spid(v, 5), (*NO_INTS, None)),
    "find_by_spid spid": (lambda s, v: s.find_by_spid(0, v), (*NO_INTS, None, *FAR)),
    "find_by_spid get": (lambda s, v: s.find_by_spid(0, 5, get=v), NO_FLAGS),
    "notify": (lambda s, v: s.notify(v, EventKind.BIND), (*NO_INTS, None, *FAR)),
    "notify kind": (
        lambda s, v: s.notify(1, v),
        (EventKind.RECLAIM, "BIND", "", None, 1, True, ["BIND"]),
    ),
    "notify sid": (lambda s, v: s.notify(1, EventKind.BIND, sid=v), NO_INTS),
    "free_many generation": (
        lambda s, v: s.free_many(0, [IoasidRange(1, 1)], generation=v),
        NO_GENERATIONS,
    ),
    "session": (lambda s, v: enter(s.session(v)), (*NO_NAMES, None)),
    "evict": (Session.evict, (*NO_NAMES, None)),
    "subscribe sid": (lambda s, v: enter(s.subscribe(sid=v)), NO_INTS),
    "subscribe token": (lambda s, v: enter(s.subscribe(token=v)), NO_NAMES),
    "subscribe both": (lambda s, v: enter(s.subscribe(sid=0, token=v)), ("vm-1",)),
    "subscribe kinds": (
        lambda s, v: enter(s.subscribe(kinds=v)),
        (None, 5, (), "BIND", ["BIND"], [EventKind.BIND, 5], [[]], b"", {"BIND": 1}),
    ),
    "subscribe priority": (
        lambda s, v: enter(s.subscribe(priority=v)),
        (None, "CPU", 0, True, EventKind.BIND),
    ),
    "subscribe hold": (lambda s, v: enter(s.subscribe(hold=v)), NO_FLAGS),
    "subscribe hold without its kinds": (
        lambda s, v: enter(s.subscribe(hold=True, kinds=v)),
        ([EventKind.BIND], [EventKind.BIND, EventKind.UNBIND], [EventKind.FREE]),
    ),
    "subscribe replay": (lambda s, v: enter(s.subscribe(replay=v)), NO_FLAGS),
    "subscribe queue_size": (
        lambda s, v: enter(s.subscribe(queue_size=v)),
        (*NO_INTS, None, 0, 2**20 + 1, *FAR),
    ),
    "subscribe acknowledge_within": (
        lambda s, v: enter(s.subscribe(acknowledge_within=v)),
        (True, 0, 0.0, -1, float("nan"), float("inf"), 10**400, "1", [], object()),
    ),
    "subscribe wake": (
        lambda s, v: enter(s.subscribe(wake=v)),
        (0, "call me", [], True),
    ),
} | {
    f"{name} generation": (partial(with_generation, call), NO_GENERATIONS)
    for name, call in OF_ONE_LIFE.items()
}
"""Per argument: a call with a value in its place, and values that are no good there."""


@pytest.mark.parametrize("name", BAD)
async def test_bad_input(open_session: OpenSession, name: str) -> None:
    """A value of the wrong type or out of range is refused by name, and changes nothing."""
    call, values = BAD[name]
    async with open_session(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        before = await host.snapshot()
        for value in values:
            with pytest.raises(InvalidArgument):
                await call(host, value)
            assert before == await host.snapshot()


UNKNOWN: dict[str, tuple[Callable[[Session, Any], Any], Any, type[IoasidError]]] = {
    "adjust_set": (lambda s, v: s.adjust_set(v, 4), FAR, UnknownSet),
    "free_set": (Session.free_set, FAR, UnknownSet),
    "free_set waiting": (lambda s, v: s.free_set(v, wait=True), FAR, UnknownSet),
    "freeze_set": (Session.freeze_set, FAR, UnknownSet),
    "thaw_set": (Session.thaw_set, FAR, UnknownSet),
    "export_set": (Session.export_set, FAR, UnknownSet),
    "activate_set": (Session.activate_set, FAR, UnknownSet),
    "list_set": (Session.list_set, FAR, UnknownSet),
    "alloc": (Session.alloc, FAR, UnknownSet),
    "alloc_many": (lambda s, v: s.alloc_many(v, 1), FAR, UnknownSet),
    "find_by_spid": (lambda s, v: s.find_by_spid(v, 5), FAR, UnknownSet),
    "find_by_spid spid": (lambda s, v: s.find_by_spid(0, v), (0, 5, 2**32 - 2), UnknownSpid),
    "subscribe": (lambda s, v: enter(s.subscribe(sid=v)), FAR, UnknownSet),
    "find_set sid": (lambda s, v: s.find_set(sid=v), FAR, UnknownSet),
    "find_set": (Session.find_set, ("vm", "vm-1 ", "x" * 255), UnknownToken),
    "evict": (Session.evict, ("x" * 255, "Host", "dsa"), UnknownHolder),
    "reserve_capacity": (Session.reserve_capacity, (57, 2**32 - 1), NoSpace),
    "cancel_capacity": (Session.cancel_capacity, (1, 2**32 - 1), NotReserved),
    "reserve_range": (lambda s, v: s.reserve_range(0, v), (0, 1, 63), RangeTaken),
    "cancel_range": (lambda s, v: s.cancel_range(v, 63), (0, 1, 63), RangeNotReserved),
    "alloc_group": (lambda s, v: s.alloc_group("g", v), (57, 2**32 - 1), NoSpace),
    "alloc_group parent": (lambda s, v: s.alloc_group("g", 1, parent=v), ("g", "x"), UnknownGroup),
    "adjust_group": (lambda s, v: s.adjust_group(v, 1), ("g", "x" * 255), UnknownGroup),
    "free_group": (Session.free_group, ("g", "x" * 255), UnknownGroup),
    "alloc_set group": (lambda s, v: s.alloc_set("t", 1, group=v), ("g", "x"), UnknownGroup),
    "free_many sid": (lambda s, v: s.free_many(v, []), FAR, UnknownSet),
    "free_many": (
        lambda s, v: s.free_many(0, [IoasidRange(1, 1), IoasidRange(v, v)]),
        (2, 63, 2**32 - 2),
        UnknownIoasid,
    ),
    "alloc_set": (lambda s, v: s.alloc_set("t", v), (57, 2**32 - 1), NoSpace),
    "find": (Session.find, (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free": (Session.free, (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free waiting": (lambda s, v: s.free(v, wait=True), (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "explain": (Session.explain, (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free deadlock": (lambda s, v: s.free(v, wait=True), (1,), WouldDeadlock),
}
"""Per call: values in range that nothing goes by, or that there is not enough for."""


@pytest.mark.parametrize("name", UNKNOWN)
async def test_unknown_input(open_session: OpenSession, name: str) -> None:
    """A value that is in range and names nothing is refused by its own error, nothing changes."""
    call, values, refusal = UNKNOWN[name]
    async with open_session(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.get(1)
        before = await host.snapshot()
        for value in values:
            with pytest.raises(refusal):
                await call(host, value)
            assert before == await host.snapshot()


async def test_a_range_upside_down(open_session: OpenSession) -> None:
    """A range whose end comes before its beginning is refused."""
    async with open_session(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(InvalidArgument, match="max is 4"):
            await host.alloc(0, min=5, max=4)
        with pytest.raises(InvalidArgument, match="max is 4"):
            await host.alloc_many(0, 1, min=5, max=4)
        assert 5 == await host.alloc(0, min=5, max=5)


async def test_a_foreign_value_without_a_repr(open_session: OpenSession) -> None:
    """An object whose own methods fail is refused as any other, and hurts nobody."""

    class Hostile:
        def __repr__(self) -> str:
            raise LookupError

        def __eq__(self, other: object) -> bool:
            raise LookupError

        __hash__ = None  # type: ignore[assignment]

    hostile: Any = Hostile()
    async with open_session(capacity=64) as host:
        with pytest.raises(InvalidArgument, match="a value without a repr"):
            await host.alloc(hostile)
        with pytest.raises(InvalidArgument, match="kinds"):
            host.subscribe(kinds=hostile)
        with pytest.raises(InvalidArgument, match="kinds"):
            host.subscribe(kinds=[hostile])
        assert 0 == (await host.statistics()).sets


async def test_priorities_are_what_they_say(open_session: OpenSession) -> None:
    """Each priority is taken as it is, and kinds in any collection."""
    async with open_session() as host:
        for priority in Priority:
            async with host.subscribe(priority=priority, kinds=[EventKind.FREE, EventKind.FREE]):
                assert 1 == (await host.statistics()).subscriptions


async def test_an_id_may_be_its_own_spid(open_session: OpenSession) -> None:
    """What `alloc` returned does for a guest's number as well, which is a bare one then."""
    async with open_session() as host:
        vm = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(vm.sid)
        await host.attach_spid(ioasid, ioasid)
        assert ioasid == await host.find_by_spid(vm.sid, ioasid)
        assert int is type((await host.find(ioasid)).spid)
