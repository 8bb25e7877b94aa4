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
from attrs import define
from msgspec.structs import replace

from ioasid.actors import (
    AlreadyProgrammed,
    Decision,
    DeviceExists,
    Host,
    NotBound,
    NotProgrammed,
    Session,
    UnbindPending,
    UnknownDevice,
    Vm,
    VmExists,
    open_allocator,
)
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
    ExportedIoasid,
    Find,
    FindBySpid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    Imported,
    InvalidArgument,
    IoasidError,
    IoasidRange,
    Priority,
    Put,
    Refused,
    Resync,
    SetExport,
    SetNotFrozen,
    Statistics,
    Subscribed,
    TokenType,
    UnknownIoasid,
)
from tests.actors.hosts import (
    a_host,
    check_host,
    deliveries,
    dma_in_flight,
    nothing_is_left,
    settle,
)
from tests.actors.inside import actor_of, core_of, nobody_waits
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
    actor, core = actor_of(host), core_of(host)
    assert nobody_waits(host)
    assert not actor._joining
    assert actor._outlets.keys() == {
        number for number, each in core._tables.subscriptions.items() if each.attached
    }
    check_state(core)


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
        self.subscriptions: set[int] = set()

    def note(self, decision: Decision) -> None:
        """Keep account of one decision; what was refused has changed nothing."""
        if decision.holder == "vm" and isinstance(decision.answer, Subscribed):
            self.subscriptions.add(decision.answer.subscription)
        for subscription, message in deliveries(decision):
            match message:
                case Event(seq, EventKind.FREE, ioasid) if subscription in self.subscriptions:
                    self.frees[ioasid] = seq
                case _:
                    pass
        if isinstance(decision.request, Acknowledge):
            self.acknowledged.update(
                seq for number, seq in decision.request.messages if number in self.subscriptions
            )
        if decision.holder != "vm" or isinstance(decision.answer, Refused):
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
            case FreeMany(_, ranges), _:
                for each in ranges:
                    self.freed.update(range(each.first, each.last + 1))
            case AllocSet(), _:
                self.sets += 1
            case FreeSet(), _:
                self.sets -= 1
                self.freed |= self.allocated
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
            "available": 63 - 8 * self.sets,
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
            open_allocator(capacity=64, taps=[ledger.note]) as host,
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
                "available": 63,
                "sessions": 2,
                "subscriptions": 1,
            }
            assert nothing == figures_of(statistics)
            assert (0, ()) == (statistics.in_flight, statistics.lagging)
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
            assert [1, 2] == [each.ioasid for each in resync]
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
        async with open_allocator(capacity=64, taps=[decisions.append]) as host:
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
            check_state(core_of(host))
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


async def test_an_alloc_cancelled_at_every_await(cancel: Cancel) -> None:
    """A cancelled alloc is not decided, or undone: the next one gets the same ID."""
    outcomes = set()
    for at in count(1):
        decisions: list[Decision] = []
        async with open_allocator(capacity=64, taps=[decisions.append]) as host:
            await host.alloc_set("vm-1", 8)

            answers: list[int] = []

            async def alloc(host: Session = host, answers: list[int] = answers) -> None:
                answers.append(await host.alloc(0))

            cut_short = await cancel(alloc(), at)
            active = (await host.statistics()).active
            assert len(answers) == active
            decided = sum(isinstance(each.request, Alloc) for each in decisions)
            undone = sum(isinstance(each.request, Free) for each in decisions)
            assert decided - undone == active
            outcomes.add((cut_short, active))
            assert 1 + active == await host.alloc(0)
        if not cut_short:
            break
    assert (False, 1) in outcomes
    assert 2 == len(outcomes)


@pytest.mark.parametrize("turns", [*range(1, 17), 200])
async def test_an_import_in_parts_that_is_given_up_leaves_nothing(turns: int) -> None:
    """While it is checked or made, whose set nobody else would know of: there is none then."""
    count = 8000
    answers: list[Imported] = []
    ioasids = tuple(ExportedIoasid(each, each, None) for each in range(1, count + 1))
    export = SetExport(None, TokenType.NULL, count, (IoasidRange(1, count),), ioasids)
    async with open_allocator() as host:

        async def make() -> None:
            answers.append(await host.import_set(export))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(make)
            for _ in range(turns):
                await checkpoint()
            tasks.cancel_scope.cancel()
        await settle()
        assert len(answers) == (await host.statistics()).sets
        for each in answers:
            await host.free_set(each.sid)
        made = await host.import_set(export)
        assert (IoasidRange(1, count),) == made.ranges
    assert (turns == 200) == bool(answers)


async def test_a_move_in_parts() -> None:
    """Whoever asks learns nothing of the parts, and what is wrong refuses as ever."""
    count = 2500
    async with open_allocator() as host:
        owner = await host.alloc_set("vm-1", count)
        await host.alloc_many(owner.sid, count)
        for ioasid in range(1, count + 1):
            await host.attach_spid(ioasid, ioasid)
        assert await host.freeze_set(owner.sid)
        export = await host.export_set(owner.sid)
        assert count == len(export.ioasids)
        await host.thaw_set(owner.sid)
        assert 1 == await host.find_by_spid(owner.sid, 1, get=True)
        await host.put(1)
        await host.free_set(owner.sid)
        twice = ExportedIoasid(count, 1, None)
        with pytest.raises(InvalidArgument):
            await host.import_set(replace(export, ioasids=(*export.ioasids[:-1], twice)))
        assert 0 == (await host.statistics()).sets
        made = await host.import_set(export)
        await host.activate_set(made.sid)
        assert count == await host.find_by_spid(made.sid, count)


async def test_an_export_of_a_set_that_is_thawed_meanwhile() -> None:
    """It is refused: what was looked up is not what moves."""
    count = 2500
    async with open_allocator() as host:
        owner = await host.alloc_set("vm-1", count)
        await host.alloc_many(owner.sid, count)
        for ioasid in range(1, count + 1):
            await host.attach_spid(ioasid, ioasid)
        assert await host.freeze_set(owner.sid)
        refused: list[SetNotFrozen] = []

        async def export() -> None:
            with pytest.raises(SetNotFrozen) as caught:
                await host.export_set(owner.sid)
            refused.append(caught.value)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(export)
            await checkpoint()
            await host.thaw_set(owner.sid)
        assert [owner.sid] == [each.sid for each in refused]


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
        open_allocator(mailbox_size=1, taps=[decisions.append]) as host,
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
                tasks.start_soon(ask, partial(impatient.ask, Find(int(ioasid))))
            while asked < 2000:
                await checkpoint()
            tasks.cancel_scope.cancel()
        await host.find(ioasid)
        assert 0 == (await host.statistics()).mailbox


# A host


@define
class Try:
    """One operation of a host: tried, cancelled somewhere, and tried again."""

    prepare: Callable[[Host, Vm], Awaitable[object]]
    call: Callable[[Host, Vm], Awaitable[object]]
    again: tuple[type[IoasidError], ...] = ()
    """What the second try may say if the first one went on and is done."""
    once: type[IoasidError] | None = None
    """What the second try says if the first one was answered; `None` if it works again."""


async def nothing(host: Host, vm: Vm) -> None:
    """Prepare nothing."""


async def bound(host: Host, vm: Vm) -> None:
    """Bind an ID of the VM."""
    assert 1 == await vm.alloc()
    await vm.bind("dsa0", 1, 101)


async def at_work(host: Host, vm: Vm) -> None:
    """Let the VM have work in flight."""
    await dma_in_flight(host, vm)
    await host.complete("dsa0", 1)


TRIES = {
    "alloc": Try(nothing, lambda _, vm: vm.alloc()),
    "bind": Try(
        lambda _, vm: vm.alloc(), lambda _, vm: vm.bind("dsa0", 1, 101), once=AlreadyProgrammed
    ),
    "program": Try(bound, lambda _, vm: vm.program("dsa0", 101), once=AlreadyProgrammed),
    "submit": Try(at_work, lambda _, vm: vm.submit("dsa0", 101)),
    "stop": Try(at_work, lambda _, vm: vm.stop("dsa0", 1), (NotProgrammed,), NotProgrammed),
    "unbind": Try(at_work, lambda _, vm: vm.unbind("dsa0", 1), (NotBound, UnbindPending), NotBound),
    "free": Try(at_work, lambda _, vm: vm.free(1), (UnknownIoasid,)),
    "sva_bind": Try(nothing, lambda host, _: host.sva_bind("dsa0", 77)),
    "sva_unbind": Try(
        lambda host, _: host.sva_bind("dsa0", 77),
        lambda host, _: host.sva_unbind("dsa0", 77),
        (NotBound,),
        NotBound,
    ),
    "process_exited": Try(
        lambda host, _: host.sva_bind("dsa0", 77), lambda host, _: host.process_exited(77)
    ),
    "add_device": Try(nothing, lambda host, _: host.add_device("new"), once=DeviceExists),
    "remove_device": Try(
        at_work, lambda host, _: host.remove_device("dsa0"), (UnknownDevice,), UnknownDevice
    ),
    "start_vm": Try(nothing, lambda host, _: host.start_vm("vm-2", quota=4), once=VmExists),
    "close": Try(at_work, lambda _, vm: vm.close()),
}


@pytest.mark.parametrize("how", ["at an await", "after a while"])
@pytest.mark.parametrize("name", TRIES)
async def test_a_host_cancelled_at_every_point(name: str, how: str, cancel: Cancel) -> None:
    """Whatever is cancelled on a host, wherever it is, is undone or finished: a retry works."""
    if how != "at an await" and cancel is not by_scope:
        pytest.skip("one way to cancel is enough there")
    operation = TRIES[name]
    for at in count(1):
        async with a_host() as (host, vm):
            await operation.prepare(host, vm)
            answers: list[object] = []

            async def attempt(
                host: Host = host, vm: Vm = vm, answers: list[object] = answers
            ) -> None:
                answers.append(await operation.call(host, vm))

            reached = (
                await cancel(attempt(), at)
                if how == "at an await"
                else await after_a_while(attempt, at)
            )
            await try_again(operation, attempt, answers)
            await as_it_should_be(host, vm, name, answers)
        if not reached:
            break
    assert at > 1


async def after_a_while(call: Callable[[], Coroutine[Any, Any, None]], passes: int) -> bool:
    """Cancel a call when the event loop has run so often; tell whether it was not over by then."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        for _ in range(passes - 1):
            await checkpoint()
        tasks.cancel_scope.cancel()
    return passes < 40


async def try_again(
    operation: Try, attempt: Callable[[], Awaitable[None]], answers: list[object]
) -> None:
    """Try once more, at once: it works, unless the first one was answered or is done."""
    if answers and operation.once is not None:
        with pytest.raises(operation.once):
            await attempt()
        return
    try:
        await attempt()
    except operation.again:
        pass


async def as_it_should_be(host: Host, vm: Vm, name: str, answers: list[object]) -> None:
    """Nothing is there but what was answered, and all of it can be cleared away."""
    await settle()
    await check_host(host)
    match name:
        case "alloc":
            owned = [each.ioasid for each in await host.allocator.list_set(vm.sid)]
            assert sorted(owned) == sorted(answers)  # type: ignore[type-var]
        case "submit":
            assert [*host.device("dsa0").device.transfers] == answers
        case "sva_bind":
            assert len(answers) == host.vtd.binds_of("dsa0", 77)
            assert {host.vtd.ioasid_of(77)} == {*answers}
        case "sva_unbind":
            assert 0 == host.vtd.binds_of("dsa0", 77)
        case "remove_device":
            assert ["dsa1"] == [*host.devices]
        case _:
            pass
    for vdcm in host.devices.values():
        for transfer in tuple(vdcm.device.transfers):
            await host.complete(vdcm.device.name, transfer)
    await host.process_exited(77)
    for each in tuple(host.vms.values()):
        await each.close()
    await nothing_is_left(host)
