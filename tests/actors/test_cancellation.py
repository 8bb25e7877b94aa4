"""Cancellation at every await: whatever is cut short, nothing is left behind but what must be.

A scenario of real calls runs again and again, cancelled as it suspends for the first time, the
second time, and so on, until it gets through. After each the allocator has to be as it
should: a holder that crashed with something in its hands is suspended, anything else is gone.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocatorClosed,
    AllocMany,
    AllocSet,
    Event,
    EventKind,
    Find,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    IoasidError,
    Priority,
    Put,
    Resync,
    Statistics,
)
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio

Interrupt = Callable[[Any], object]


class Stepper:
    """Awaits a coroutine and calls `interrupt` when it suspends for the `at`-th time.

    That is between the coroutine's last step and the event loop's learning that it waits, on
    every event loop, and in the same task: what cancels it then finds it waiting right there.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None], at: int, interrupt: Interrupt) -> None:
        self._coroutine = coroutine
        self._at = at
        self._interrupt = interrupt
        self.suspensions = 0

    def __await__(self) -> Generator[Any, Any, None]:
        """Run the coroutine, step by step."""
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                trap = step()
            except StopIteration:
                return
            self.suspensions += 1
            if self.suspensions == self._at:
                self._interrupt(trap)
            try:
                value = yield trap
            except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
                step = _throw(self._coroutine, error)
            else:
                step = _send(self._coroutine, value)


def _send(coroutine: Coroutine[Any, Any, None], value: Any) -> Callable[[], Any]:
    return lambda: coroutine.send(value)


def _throw(coroutine: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


async def by_scope(coroutine: Coroutine[Any, Any, None], at: int) -> bool:
    """Run a coroutine, cancelled by its scope as it suspends; tell whether it got that far."""
    with anyio.CancelScope() as scope:
        stepper = Stepper(coroutine, at, lambda _: scope.cancel())
        await stepper
    return stepper.suspensions >= at


async def by_task(coroutine: Coroutine[Any, Any, None], at: int) -> bool:
    """As `by_scope`, but cancelled the asyncio way."""
    stepper = Stepper(coroutine, at, lambda _: task.cancel())
    task = asyncio.ensure_future(stepper)
    await asyncio.wait({task})
    with suppress(asyncio.CancelledError):
        task.result()
    return stepper.suspensions >= at


async def by_task_too_late(coroutine: Coroutine[Any, Any, None], at: int) -> bool:
    """As `by_task`, but when what it waits for is there and the task has yet to find out."""

    def interrupt(trap: Any) -> None:
        if trap is None:
            task.cancel()
        else:
            # Called before the task's own wake-up: it comes first.
            trap.add_done_callback(lambda _: task.cancel())

    stepper = Stepper(coroutine, at, interrupt)
    task = asyncio.ensure_future(stepper)
    await asyncio.wait({task})
    with suppress(asyncio.CancelledError):
        task.result()
    return stepper.suspensions >= at


Cancel = Callable[[Coroutine[Any, Any, None], int], Awaitable[bool]]


@pytest.fixture(params=[by_scope, by_task, by_task_too_late], ids=lambda each: each.__name__)
def cancel(request: pytest.FixtureRequest, anyio_backend_name: str) -> Cancel:
    """How a task is cancelled: by a scope, or on asyncio by its own `cancel`, in time or late."""
    if anyio_backend_name == "trio" and request.param is not by_scope:
        pytest.skip("a task of trio can only be cancelled by a scope")
    method: Cancel = request.param
    return method


async def settled(host: Session) -> Statistics:
    """Let everybody else do what there is to do, and return the figures."""
    for _ in range(12):
        await host.statistics()
    return await host.statistics()


def figures_of(statistics: Statistics) -> dict[str, object]:
    """What the scenarios compare of the figures."""
    return {
        "available": statistics.available,
        "sets": statistics.sets,
        "active": statistics.active,
        "free_pending": statistics.free_pending,
        "sessions": statistics.sessions,
        "suspended": statistics.suspended,
        "subscriptions": statistics.subscriptions,
    }


def nobody_is_forgotten(host: Session) -> None:
    """Neither the actor nor the core remembers a caller that waits, and the state is sound."""
    actor = host._actor
    assert ({}, {}, {}) == (actor._waiting, actor._tickets, actor.core._tables.waiters)
    assert actor._subscriptions.keys() == {
        number for number, each in actor.core._tables.subscriptions.items() if each.attached
    }
    check_state(actor.core)


# A virtual machine


async def machine(host: Session, milestones: set[str]) -> None:
    """Live the life of a VM: join, subscribe, bind, unbind, free, wait, leave."""
    async with host.session("vm") as vm:
        milestones.add("joined")
        sid = (await vm.alloc_set("vm-1", 8)).sid
        async with vm.subscribe(token="vm-1", priority=Priority.CPU, hold=True) as events:
            milestones.add("subscribed")
            ioasid = await vm.alloc(sid)
            await vm.get(ioasid, sid=sid)
            await vm.attach_spid(ioasid, 101, sid=sid)
            await vm.find_by_spid(sid, 101, get=True)
            async for event in events:
                assert isinstance(event, Event)
                match event.kind:
                    case EventKind.BIND:
                        await vm.detach_spid(ioasid, sid=sid)
                    case EventKind.UNBIND:
                        await vm.free(ioasid, sid=sid)
                    case EventKind.FREE:
                        await vm.put(ioasid, sid=sid)
                        await vm.put(ioasid, sid=sid)
                    case EventKind.RECLAIM:
                        break
                    case _:
                        pass
        milestones.add("unsubscribed")
        second = await vm.alloc(sid)
        await vm.free(second, wait=True)
        await vm.alloc_many(sid, 3)
        await vm.free_set(sid, wait=True)
        await vm.snapshot()
    milestones.add("left")


async def device(session: Session) -> None:
    """Acknowledge everything, below the VM, for as long as there is an allocator."""
    async with session.subscribe(priority=Priority.DEVICE) as events:
        async for _ in events:
            pass


class Ledger:
    """What the decisions alone say there must be: who holds what, and what was freed."""

    def __init__(self) -> None:
        self.milestones: set[str] = set()
        self.references: Counter[int] = Counter()
        self.allocated: set[int] = set()
        self.freed: set[int] = set()
        self.acknowledged: set[int] = set()
        self.frees: dict[int, int] = {}
        self.sets = 0

    def note(self, decision: Decision) -> None:
        """Keep account of one decision; what was refused has changed nothing."""
        for holder, message in decision.told:
            if (holder, getattr(message, "kind", None)) == ("vm", EventKind.FREE):
                assert isinstance(message, Event)
                self.frees[message.ioasid] = message.seq
        if decision.holder != "vm" or isinstance(decision.answer, IoasidError):
            return
        match decision.request, decision.answer:
            case Get(ioasid), _:
                self.references[ioasid] += 1
            case FindBySpid(get=True), Allocated(ioasid):
                self.references[ioasid] += 1
            case Put(ioasid), _:
                self.references[ioasid] -= 1
            case Alloc(), Allocated(ioasid):
                self.allocated.add(ioasid)
                self.freed.discard(ioasid)
            case AllocMany(), AllocatedMany(ranges):
                for each in ranges:
                    self.allocated.update(range(each.first, each.last + 1))
                    self.freed.difference_update(range(each.first, each.last + 1))
            case Free(ioasid), _:
                self.freed.add(ioasid)
            case AllocSet(), _:
                self.sets += 1
            case FreeSet(), _:
                self.sets -= 1
                self.freed |= self.allocated
            case Acknowledge(seq=seq), _:
                self.acknowledged.add(seq)
            case _:
                pass

    def expected(self) -> dict[str, object]:
        """The figures there must be once everybody else has done what there is to do."""
        there = "joined" in self.milestones and "left" not in self.milestones
        subscribed = "subscribed" in self.milestones and "unsubscribed" not in self.milestones
        suspended = there and (subscribed or self.references.total() > 0)
        pending = {
            ioasid
            for ioasid in self.freed
            if suspended
            and (
                self.references[ioasid]
                or (subscribed and self.frees.get(ioasid) not in self.acknowledged)
            )
        }
        return {
            "available": 64 - 8 * self.sets,
            "sets": self.sets,
            "active": len(self.allocated - self.freed),
            "free_pending": len(pending),
            "sessions": 2,
            "suspended": int(suspended),
            "subscriptions": 1 + int(suspended and subscribed),
        }


async def test_a_machine_cancelled_at_every_await(cancel: Cancel) -> None:
    """Wherever a VM is cut off, what it held is suspended and the rest is gone, then all of it."""
    reached = 0
    suspended = 0
    ledger = Ledger()
    for at in count(1):
        ledger = Ledger()
        async with (
            open_allocator(capacity=64, observer=ledger.note) as host,
            host.session("dsa") as dsa,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(device, dsa)
            await settled(host)
            cut_short = await cancel(machine(host, ledger.milestones), at)
            figures = figures_of(await settled(host))
            assert ledger.expected() == figures, f"cancelled at suspension {at}"
            nobody_is_forgotten(host)

            if figures["suspended"]:
                suspended += 1
                await host.evict("vm")
            if figures["sets"]:
                await host.free_set(0)
            statistics = await settled(host)
            nothing = dict.fromkeys(figures, 0) | {
                "available": 64,
                "sessions": 2,
                "subscriptions": 1,
            }
            assert nothing == figures_of(statistics)
            assert (0, ()) == (statistics.under_way, statistics.lagging)
            nobody_is_forgotten(host)
            async with host.session("vm") as vm:
                assert not vm.opened.resumed
            tasks.cancel_scope.cancel()
        if not cut_short:
            break
        reached = at
    assert "left" in ledger.milestones
    assert reached >= 15
    assert 8 <= suspended < reached


# Coming back


async def comeback(host: Session, milestones: set[str]) -> None:
    """Come back as a crashed VM, take up its subscription and let go of what it held."""
    async with host.session("vm") as vm:
        async with vm.subscribe(token="vm-1", hold=True) as events:
            resync = await anext(events)
            assert isinstance(resync, Resync)
            assert [1, 2] == [each.ioasid for each in resync.ioasids]
            await vm.detach_spid(1)
            async for event in events:
                assert isinstance(event, Event)
                if event.kind is EventKind.UNBIND:
                    break
            milestones.add("unbound")
        await vm.put(2)
        milestones.add("put")
    milestones.add("left")


async def test_a_comeback_cancelled_at_every_await(cancel: Cancel) -> None:
    """A holder that is cut off while it comes back is as suspended as before, and can try again."""
    decisions: list[Decision] = []
    milestones: set[str] = set()
    for at in count(1):
        async with open_allocator(capacity=64, observer=decisions.append) as host:
            await host.alloc_set("vm-1", 8)
            await host.alloc_many(0, 2)
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with host.session("vm") as vm, vm.subscribe(token="vm-1", hold=True):
                    await vm.attach_spid(1, 101)
                    await vm.get(2)
                    raise ZeroDivisionError
            await host.statistics()
            decisions.clear()
            milestones.clear()
            cut_short = await cancel(comeback(host, milestones), at)
            statistics = await settled(host)
            put = any(isinstance(each.request, Put) for each in decisions)
            kept = int(not put)
            subscribed = "unbound" not in milestones
            assert (1, kept, int(subscribed)) == (
                statistics.sessions,
                statistics.suspended,
                statistics.subscriptions,
            ), f"cancelled at suspension {at}"
            assert ({"vm": 1} if kept else {}) == (await host.find(2)).references
            check_state(host._actor.core)
            if subscribed:
                # It holds what it was granted, whichever part of the way it came.
                assert {"vm": 1} == (await host.find(1)).references or (
                    (await host.find(1)).spid is None
                )
            if kept:
                async with host.session("vm") as vm:
                    assert (True, ((2, 1),)) == (vm.opened.resumed, vm.opened.references)
                    async with vm.subscribe(token="vm-1", hold=True) as events:
                        assert subscribed == events.resumed
            assert {} == (await host.find(1)).references
            assert {} == (await host.find(2)).references
            nobody_is_forgotten(host)
        if not cut_short:
            break
    assert {"unbound", "put", "left"} == milestones
    assert at >= 5


# The allocator itself


async def test_an_allocator_cancelled_at_every_await(cancel: Cancel) -> None:
    """Wherever its scope is cut off, no task is left and every call says that it is closed."""
    opened: list[Session] = []

    async def live() -> None:
        async with open_allocator(capacity=64) as host:
            opened.append(host)
            await host.alloc_set("vm-1", 8)
            async with host.session("vm") as vm, vm.subscribe(hold=True) as events:
                opened.append(vm)
                await host.attach_spid(await vm.alloc(0), 101)
                await anext(events)
                await anext(events)

    for at in count(1):
        opened.clear()
        before = {task.id for task in anyio.get_running_tasks()}
        cut_short = await cancel(live(), at)
        assert before == {task.id for task in anyio.get_running_tasks()}
        for session in opened:
            with pytest.raises(AllocatorClosed):
                await session.statistics()
        if not cut_short:
            break
    assert 2 == len(opened)
    assert at >= 5


# Single calls, cancelled when their answer is there


async def test_what_was_decided_stays_decided(cancel: Cancel) -> None:
    """A cancelled alloc is decided or not, as it was cut off, and nothing in between."""
    outcomes = set()
    for at in count(1):
        decisions: list[Decision] = []
        async with open_allocator(capacity=64, observer=decisions.append) as host:
            await host.alloc_set("vm-1", 8)

            async def alloc(host: Session = host) -> None:
                await host.alloc(0)

            cut_short = await cancel(alloc(), at)
            decided = sum(isinstance(each.request, Alloc) for each in decisions)
            active = (await host.statistics()).active
            assert decided == active
            outcomes.add((cut_short, active))
            assert 1 + active == await host.alloc(0)
        if not cut_short:
            break
    assert (False, 1) in outcomes
    assert 2 == len(outcomes)


async def test_asyncio_cancels_a_session_just_opened(anyio_backend_name: str) -> None:
    """A session that opened for a task cancelled meanwhile is closed: its name is free."""
    if anyio_backend_name != "asyncio":
        pytest.skip("a reply that is there can't be cancelled on trio")
    async with open_allocator() as host:

        async def join() -> None:
            async with host.session("vm"):
                raise AssertionError

        assert await by_task_too_late(join(), 1)
        async with host.session("vm") as vm:
            assert not vm.opened.resumed
            assert await by_task_too_late(join(), 1)
            assert 2 == (await vm.statistics()).sessions


async def test_asyncio_cancels_a_subscription_just_made(anyio_backend_name: str) -> None:
    """A subscription made for a task cancelled meanwhile is ended: the scope is free."""
    if anyio_backend_name != "asyncio":
        pytest.skip("a reply that is there can't be cancelled on trio")
    async with open_allocator() as host:

        async def subscribe() -> None:
            async with host.subscribe(hold=True, replay=True):
                raise AssertionError

        assert await by_task_too_late(subscribe(), 1)
        assert 0 == (await host.statistics()).subscriptions
        async with host.subscribe() as events:
            assert not events.resumed
            assert await by_task_too_late(subscribe(), 1)
            assert 1 == (await host.statistics()).subscriptions


async def test_asyncio_cancels_who_is_told_of_the_end(anyio_backend_name: str) -> None:
    """Who is cancelled just when the allocator ends stays cancelled, and troubles nobody."""
    if anyio_backend_name != "asyncio":
        pytest.skip("a reply that is there can't be cancelled on trio")
    cancelled = []

    async def wait(
        session: Session, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        async def free() -> None:
            await session.free(1, wait=True)
            raise AssertionError

        task_status.started()
        cancelled.append(await by_task_too_late(free(), 1))

    async with anyio.create_task_group() as tasks, open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with host.session("dsa") as dsa:
                await dsa.get(await host.alloc(0))
                raise ZeroDivisionError
        await tasks.start(wait, host)
        await settled(host)
    assert [True] == cancelled


async def test_a_request_given_up_in_the_mailbox_is_not_decided() -> None:
    """A request cancelled before its turn is dropped; those around it are decided."""
    decisions: list[Decision] = []
    async with (
        open_allocator(mailbox_size=1, observer=decisions.append) as host,
        anyio.create_task_group() as tasks,
    ):
        await host.alloc_set("vm-1", 200)
        decisions.clear()
        asked = 0

        async def alloc() -> None:
            nonlocal asked
            asked += 1
            await host.alloc(0)

        for _ in range(100):
            tasks.start_soon(alloc)
        while asked < 100:
            await checkpoint()

        async def give_up(*, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
            task_status.started()
            await host.reserve_capacity(1)

        async with anyio.create_task_group() as impatient:
            await impatient.start(give_up)
            impatient.cancel_scope.cancel()
        assert len(decisions) < 100
    assert [Alloc(0)] * 100 == [each.request for each in decisions]


async def test_a_deadline_that_passes_in_the_mailbox_leaves_no_trace() -> None:
    """Who waits behind others for longer than it would, has asked for nothing."""
    async with open_allocator(mailbox_size=1) as host:
        owner = await host.alloc_set("vm-1", 200)
        asked = 0

        async def alloc() -> None:
            nonlocal asked
            asked += 1
            await host.alloc(owner.sid)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(alloc)
            while asked < 100:
                await checkpoint()
            with pytest.raises(TimeoutError), anyio.fail_after(0):
                await host.alloc(owner.sid, data="late")
        listed = await host.list_set(owner.sid)
    assert [(ioasid, None) for ioasid in range(1, 101)] == [
        (each.ioasid, each.data) for each in listed
    ]


async def test_who_asks_and_gives_up_fills_no_mailbox() -> None:
    """However many requests are given up, of whatever kind, nothing is left a turn later."""
    async with open_allocator() as host, host.session("impatient") as impatient:
        owner = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(owner.sid)
        asked = 0

        async def ask(find: Callable[[], Awaitable[object]]) -> None:
            nonlocal asked
            asked += 1
            await find()

        async with anyio.create_task_group() as tasks:
            for _ in range(1000):
                tasks.start_soon(ask, partial(impatient.find, ioasid))
                tasks.start_soon(ask, partial(impatient.ask, Find(ioasid)))
            while asked < 2000:
                await checkpoint()
            tasks.cancel_scope.cancel()
        await host.find(ioasid)
        assert 0 == (await host.statistics()).mailbox
