"""Sessions: joining, leaving, crashing, coming back, and what they refuse, on every backend."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from ioasid.actors import Session, open_allocator
from ioasid.core import (
    Alloc,
    AllocatorClosed,
    Event,
    EventKind,
    HolderLive,
    InvalidArgument,
    IoasidError,
    IoasidState,
    LiveIoasid,
    NoSpace,
    NotReferenced,
    NotReserved,
    Priority,
    Resync,
    SessionEnded,
    TokenType,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
    WouldDeadlock,
)

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


# Joining


async def test_the_first_session() -> None:
    """Opening the allocator gives a session with a name, number and figures of its own."""
    async with open_allocator(holder="agent") as host:
        assert "agent" == host.name
        assert "<Session 1 of holder 'agent'>" == repr(host)
        assert (1, False, ()) == (host.opened.session, host.opened.resumed, host.opened.references)
        assert {"agent": True} == await holders(host)


async def test_sessions_are_numbered() -> None:
    """Every session gets a number that no other one had, the same holder's next one too."""
    async with open_allocator() as host:
        numbers = []
        for name in ("vm-1", "vm-1", "vm-2"):
            async with host.session(name) as session:
                assert name == session.name
                assert session.number == session.opened.session
                numbers.append(session.number)
        assert [2, 3, 4] == numbers


async def test_names_of_live_sessions_are_unique() -> None:
    """A name that a live session has is refused, and the session is not disturbed."""
    async with open_allocator() as host, host.session("vm-1") as vm:
        for session in (host, vm):
            with pytest.raises(HolderLive) as caught:
                async with session.session("vm-1"):
                    pass
            assert "vm-1" == caught.value.name
        assert 2 == (await vm.statistics()).sessions


async def test_sessions_open_sessions() -> None:
    """Any session opens others, and they live on when it is gone."""
    async with open_allocator() as host:
        first = host.session("first")
        one = await first.__aenter__()
        async with one.session("second") as two:
            await first.__aexit__(None, None, None)
            assert {"host": True, "second": True} == await holders(two)
            with pytest.raises(SessionEnded):
                async with one.session("third"):
                    pass


# Leaving and crashing


async def test_leaving_drops_references() -> None:
    """A session that leaves is done: its references go, and what waited for them is reclaimed."""
    async with open_allocator() as host:
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


async def test_leaving_acknowledges() -> None:
    """What a session that leaves was told counts as acknowledged, in its queue or in its hands."""
    async with open_allocator() as host:
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
async def test_a_crash_with_references_suspends(end: str) -> None:
    """A holder that crashes while it has references is suspended: its IDs stay in quarantine."""
    async with open_allocator() as host:
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
async def test_a_crash_with_a_holding_subscription_suspends(end: str) -> None:
    """A crashed holder keeps what was granted with events, and is not done with its FREE."""
    async with open_allocator() as host:
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


async def test_a_crash_without_either_just_leaves() -> None:
    """A holder without references or holding subscriptions has nothing to come back for."""
    async with open_allocator() as host:
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
        assert (0, 0, 0) == (figures.subscriptions, figures.under_way, len(figures.lagging))
        assert True is await host.free(1)


async def test_exceptions_leave_a_session_as_raised() -> None:
    """A session's scope neither wraps nor swallows what ends it."""
    error = Crashed()
    async with open_allocator() as host:
        with pytest.raises(Crashed) as caught:
            async with host.session("vm"):
                raise error
        assert error is caught.value


async def test_a_session_that_left_is_over() -> None:
    """After leaving or crashing, every call of the session is refused with SessionEnded."""
    async with open_allocator() as host:
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


# Coming back


async def test_coming_back_with_references() -> None:
    """A holder that comes back is told so, has its references, and can put them."""
    async with open_allocator() as host:
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


async def test_coming_back_starts_with_a_resync() -> None:
    """What a holder missed is in the Resync that its subscription comes back with."""
    async with open_allocator() as host:
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
                    LiveIoasid(1, 0, "vm-1", IoasidState.ACTIVE, 101, None),
                    LiveIoasid(2, 0, "vm-1", IoasidState.FREE_PENDING, None, None),
                ) == resync.ioasids
                assert {"kvm": 1} == (await host.find(1)).references
                events.acknowledge(resync)
                reclaim = await anext(events)
                assert isinstance(reclaim, Event)
                assert (EventKind.RECLAIM, 2) == (reclaim.kind, reclaim.ioasid)


async def test_crashing_again() -> None:
    """A holder that comes back and crashes again is suspended again, nothing lost."""
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        for times in range(1, 4):
            await crash(host, "dsa", 1)
            assert {"dsa": times} == (await host.find(1)).references


# Eviction


async def test_evicting_a_suspended_holder() -> None:
    """Eviction acknowledges and drops what a suspended holder left, and the name is free."""
    async with open_allocator() as host:
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


async def test_evicting_a_live_holder() -> None:
    """The evicted session's calls raise SessionEnded and so do its iterators, at once."""
    ended: list[int] = []
    async with open_allocator() as host, host.session("kvm") as kvm:
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


async def test_leaving_after_eviction_spares_the_successor() -> None:
    """When an evicted session's scope ends at last, a new one of the name is not disturbed."""
    async with open_allocator() as host:
        scope = host.session("vm")
        await scope.__aenter__()
        await host.evict("vm")
        async with host.session("vm") as successor:
            await scope.__aexit__(None, None, None)
            assert {"host": True, "vm": True} == await holders(successor)


async def test_evicting_oneself() -> None:
    """A session may declare itself dead; it is refused from then on."""
    async with open_allocator() as host, host.session("vm") as vm:
        await vm.evict("vm")
        with pytest.raises(SessionEnded):
            await vm.statistics()


async def test_evicting_nobody() -> None:
    """A name that nobody has is refused."""
    async with open_allocator() as host:
        with pytest.raises(UnknownHolder) as caught:
            await host.evict("nobody")
        assert "nobody" == caught.value.name


# Permission


async def test_a_set_that_is_not_the_ids_is_refused() -> None:
    """A session that names its set gets at no ID of another one."""
    async with open_allocator() as host, host.session("vm") as vm:
        await host.alloc_set("vm-1", 8)
        await host.alloc_set("vm-2", 8)
        await host.alloc(0)
        before = await host.snapshot()
        for call in (vm.find, vm.get, vm.put, vm.free, vm.detach_spid, vm.detach_data):
            with pytest.raises(IoasidError, match="EACCES: IOASID 1 does not belong to set 1"):
                await call(1, sid=1)
        assert before == await host.snapshot()


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
    "alloc_system_set": lambda session: session.alloc_system_set(1),
    "alloc_set": lambda session: session.alloc_set("token", 1),
    "adjust_set": lambda session: session.adjust_set(0, 9),
    "free_set": lambda session: session.free_set(0),
    "free_set waiting": lambda session: session.free_set(0, wait=True),
    "find_sid": lambda session: session.find_sid(1),
    "find_set": lambda session: session.find_set("vm-1"),
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
}
"""Every call of a session, with arguments that are in range."""


def test_the_table_of_calls_is_complete() -> None:
    """Every public method of a session is in the table of calls."""
    methods = {
        name
        for name, value in vars(Session).items()
        if not name.startswith("_") and not isinstance(value, property)
    }
    assert methods == {name.split()[0] for name in CALLS}


@pytest.mark.parametrize("name", CALLS)
async def test_every_call_after_close(name: str) -> None:
    """Each call is refused with AllocatorClosed when there is no allocator any more."""
    async with open_allocator() as host:
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

BAD: dict[str, tuple[Callable[[Session, Any], Any], tuple[Any, ...]]] = {
    "install_capacity": (Session.install_capacity, (*NO_INTS, None, 0, 2**32, 2**64)),
    "reserve_capacity": (Session.reserve_capacity, (*NO_INTS, 0, 2**32, 2**64)),
    "cancel_capacity": (Session.cancel_capacity, (*NO_INTS, None, 0, 2**32, 2**64)),
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
    "find_sid": (Session.find_sid, (*NO_INTS, None, *FAR)),
    "find_set": (Session.find_set, (*NO_NAMES, None)),
    "find_set sid": (lambda s, v: s.find_set(sid=v), (*NO_INTS, None)),
    "find_set both": (lambda s, v: s.find_set("vm-1", sid=v), (0,)),
    "list_set": (Session.list_set, (*NO_INTS, None)),
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
    "find": (Session.find, (*NO_INTS, None, *FAR)),
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
    "subscribe on_message": (
        lambda s, v: enter(s.subscribe(on_message=v)),
        (0, "call me", [], True),
    ),
}
"""Per argument: a call with a value in its place, and values that are no good there."""


@pytest.mark.parametrize("name", BAD)
async def test_bad_input(name: str) -> None:
    """A value of the wrong type or out of range is refused by name, and changes nothing."""
    call, values = BAD[name]
    async with open_allocator(capacity=64) as host:
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
    "alloc_set": (lambda s, v: s.alloc_set("t", v), (57, 2**32 - 1), NoSpace),
    "find": (Session.find, (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free": (Session.free, (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free waiting": (lambda s, v: s.free(v, wait=True), (0, 2, 64, 2**32 - 2), UnknownIoasid),
    "free deadlock": (lambda s, v: s.free(v, wait=True), (1,), WouldDeadlock),
}
"""Per call: values in range that nothing goes by, or that there is not enough for."""


@pytest.mark.parametrize("name", UNKNOWN)
async def test_unknown_input(name: str) -> None:
    """A value that is in range and names nothing is refused by its own error, nothing changes."""
    call, values, refusal = UNKNOWN[name]
    async with open_allocator(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        await host.get(1)
        before = await host.snapshot()
        for value in values:
            with pytest.raises(refusal):
                await call(host, value)
            assert before == await host.snapshot()


async def test_a_range_upside_down() -> None:
    """A range whose end comes before its beginning is refused."""
    async with open_allocator(capacity=64) as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(InvalidArgument, match="min is 5"):
            await host.alloc(0, min=5, max=4)
        with pytest.raises(InvalidArgument, match="min is 5"):
            await host.alloc_many(0, 1, min=5, max=4)
        assert 5 == await host.alloc(0, min=5, max=5)


async def test_a_foreign_value_without_a_repr() -> None:
    """An object whose own methods fail is refused as any other, and hurts nobody."""

    class Hostile:
        def __repr__(self) -> str:
            raise LookupError

        def __eq__(self, other: object) -> bool:
            raise LookupError

        __hash__ = None  # type: ignore[assignment]

    hostile: Any = Hostile()
    async with open_allocator(capacity=64) as host:
        with pytest.raises(InvalidArgument, match="a value without a repr"):
            await host.alloc(hostile)
        with pytest.raises(InvalidArgument, match="kinds"):
            host.subscribe(kinds=hostile)
        with pytest.raises(InvalidArgument, match="kinds"):
            host.subscribe(kinds=[hostile])
        assert 0 == (await host.statistics()).sets


async def test_priorities_are_what_they_say() -> None:
    """Each priority is taken as it is, and kinds in any collection."""
    async with open_allocator() as host:
        for priority in Priority:
            async with host.subscribe(priority=priority, kinds=[EventKind.FREE, EventKind.FREE]):
                assert 1 == (await host.statistics()).subscriptions
