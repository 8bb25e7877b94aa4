"""The commit stage: nothing leaves before what it tells of is committed, on every backend.

The commit is a gate that a test opens and shuts, so that whatever can happen while a commit takes
its time happens just then.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import (
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    Applied,
    CloseSession,
    Detach,
    Event,
    EventKind,
    FindBySpid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidError,
    OpenSession,
    Priority,
    Put,
    Snapshot,
    Subscribe,
    SuspendSession,
    Tick,
    TokenType,
    UnknownSet,
    Unsubscribe,
)
from tests.actors.asking import reasons
from tests.actors.hosts import settle
from tests.actors.inside import core_of, nobody_waits
from tests.actors.test_cancellation import by_task, by_task_too_late
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio

CAPACITY = 64
PENDING = object()


class Gate:
    """A commit that waits while it is shut, and raises `error` when it is let through."""

    def __init__(self) -> None:
        self.commits: list[list[Applied]] = []
        """What each was given, in order; the last one may be waiting."""
        self.committed: list[Applied] = []
        self.error: BaseException | None = None
        self.then: Callable[[], object] = bool
        """Is called in the step in which a commit ends."""
        self._open = anyio.Event()
        self._open.set()

    async def __call__(self, applied: Sequence[Applied]) -> None:
        """Commit."""
        self.commits.append([*applied])
        await self._open.wait()
        if self.error is not None:
            raise self.error
        self.committed += applied
        self.then()

    @property
    def waiting(self) -> bool:
        """Whether a commit has begun that is not done."""
        return sum(map(len, self.commits)) > len(self.committed)

    def open(self) -> None:
        """Let every commit through."""
        self._open.set()

    def shut(self) -> None:
        """Let none through that begins from now on."""
        self.commits.clear()
        self.committed.clear()
        if self._open.is_set():
            self._open = anyio.Event()

    def requests(self) -> list[list[type]]:
        """The types of the requests that each commit was given."""
        return [[type(each.request) for each in commit] for commit in self.commits]


class Asks:
    """Asks in tasks of their own, and what each came to."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._came_to: list[object] = []

    def start(self, call: Callable[[], Awaitable[object]]) -> anyio.CancelScope:
        """Ask; the scope that is returned cancels it."""
        scope = anyio.CancelScope()
        self._came_to.append(PENDING)
        self._tasks.start_soon(self._ask, call, scope, len(self._came_to) - 1)
        return scope

    async def _ask(
        self, call: Callable[[], Awaitable[object]], scope: anyio.CancelScope, place: int
    ) -> None:
        with scope:
            try:
                self._came_to[place] = await call()
            except IoasidError as error:
                self._came_to[place] = error

    @property
    def ended(self) -> list[object]:
        """What those that ended came to, in the order in which they were started."""
        return [each for each in self._came_to if each is not PENDING]


@asynccontextmanager
async def gated(
    mailbox_size: int = 1024, taps: Sequence[Callable[[Decision], object]] = ()
) -> AsyncIterator[tuple[Gate, Session, Asks]]:
    """Open an allocator with a set, its commit shut from then on."""
    gate = Gate()
    # The asks outlive the allocator: each of them is to be told of its end.
    async with (
        anyio.create_task_group() as tasks,
        open_allocator(
            capacity=CAPACITY, mailbox_size=mailbox_size, taps=taps, commit=gate
        ) as host,
    ):
        await host.alloc_set("vm-1", 32)
        gate.shut()
        yield gate, host, Asks(tasks)


# What waits for it


async def test_nothing_leaves_before_its_commit() -> None:
    """No answer, no event and no tap is given anything of a request that is not committed."""
    seen: list[Decision] = []
    notes: list[str] = []
    async with gated(taps=[seen.append]) as (gate, host, asks):
        gate.open()
        async with host.subscribe(wake=lambda: notes.append("event")) as events:
            gate.shut()
            seen.clear()
            asks.start(partial(host.alloc, 0))
            await settle()
            assert [[Alloc]] == gate.requests()
            assert ([], [], [], None) == (asks.ended, seen, notes, events.take())
            gate.open()
            await settle()
            assert ([1], ["event"]) == (asks.ended, notes)
            assert [Alloc] == [type(each.request) for each in seen]
            assert isinstance(events.take(), Event)


async def test_what_is_applied_says_who_asked_and_when() -> None:
    """A commit is given each request with its session, its index and its time, and no other."""
    async with gated() as (gate, host, _):
        gate.open()
        async with host.session("vm") as vm:
            await vm.alloc(0)
            with pytest.raises(UnknownSet):
                await vm.alloc(9)
            await vm.find(1)
            await host.statistics()
        index = (await host.snapshot()).index
    assert [
        (index - 2, 1, OpenSession("vm")),
        (index - 1, vm.number, Alloc(0)),
        (index, vm.number, CloseSession()),
    ] == [(each.index, each.session, each.request) for each in gate.committed]
    assert all(earlier.time <= later.time for earlier, later in pairwise(gate.committed))


async def test_nothing_is_awaited_when_nothing_was_applied() -> None:
    """What was refused or only asked is answered at once, the commit being shut."""
    async with gated() as (gate, host, _):
        figures = await host.statistics()
        assert [] == list(await host.list_set(0))
        with pytest.raises(UnknownSet):
            await host.alloc(9)
        assert figures == await host.statistics()
        assert figures.sets == len((await host.snapshot()).sets)
        assert [] == gate.commits


async def test_what_shows_a_change_waits_for_its_commit() -> None:
    """Who asks what has changed, or is refused because of it, hears of it when it is committed."""
    async with gated() as (gate, host, asks):
        gate.open()
        async with host.session("other") as other:
            gate.shut()
            asks.start(partial(host.alloc, 0))
            await settle()
            asks.start(partial(other.list_set, 0))
            await settle()
            asks.start(partial(other.adjust_set, 0, 2**32 - 1))
            await settle()
            assert [] == asks.ended
            gate.open()
            await settle()
            first, listed, refused = asks.ended
            assert (1, [1]) == (first, [each.ioasid for each in listed])  # type: ignore[attr-defined]
            assert isinstance(refused, IoasidError)


async def test_a_wait_is_completed_when_its_end_is_committed() -> None:
    """Who waits for a reclaim is answered when what brought it is committed, not before."""
    async with gated() as (gate, host, asks):
        gate.open()
        async with host.session("dsa") as dsa:
            await dsa.get(await host.alloc(0))
            asks.start(partial(host.free, 1, wait=True))
            await settle()
            gate.shut()
            asks.start(partial(dsa.put, 1))
            await settle()
            assert ([[Put]], []) == (gate.requests(), asks.ended)
            gate.open()
            await settle()
            assert [True, True] == asks.ended


async def test_a_subscription_begins_and_ends_with_its_commit() -> None:
    """A subscriber gets what comes after its Subscribe; its set's end waits as all else does."""
    got: list[object] = []

    async def consume(host: Session) -> str:
        async with host.subscribe(sid=0, kinds={EventKind.ALLOC}) as events:
            got.append("begun")
            got.extend([message async for message in events])
        return "over"

    async with gated() as (gate, host, asks):
        asks.start(partial(consume, host))
        await settle()
        asks.start(partial(host.alloc, 0))
        await settle()
        asks.start(partial(host.free_set, 0))
        await settle()
        assert ([], []) == (got, asks.ended)
        gate.open()
        await settle()
        begun, event = got
        assert ("begun", 1) == (begun, getattr(event, "ioasid", None))
        assert ["over", 1, True] == asks.ended


# Batches


async def test_the_next_batch_is_decided_meanwhile() -> None:
    """While one commit is under way other requests are decided; they make the next commit."""
    async with gated(mailbox_size=1) as (gate, host, asks):
        asks.start(partial(host.alloc, 0))
        await settle()
        before = core_of(host).index
        for _ in range(9):
            asks.start(partial(host.alloc, 0))
        await settle()
        assert before + 9 == core_of(host).index
        assert ([[Alloc]], []) == (gate.requests(), asks.ended)
        gate.open()
        await settle()
        assert [[Alloc], [Alloc] * 9] == gate.requests()
        assert [*range(1, 11)] == sorted(asks.ended)  # type: ignore[type-var]


async def test_one_commit_at_a_time() -> None:
    """The next one begins when the last one is done, however many batches wait for it."""
    at_once = 0

    async def commit(applied: Sequence[Applied]) -> None:
        nonlocal at_once
        at_once += 1
        assert 1 == at_once
        await checkpoint()
        await checkpoint()
        at_once -= 1
        indices.extend(each.index for each in applied)

    indices: list[int] = []
    async with open_allocator(commit=commit, mailbox_size=2) as host:
        await host.alloc_set("vm-1", 200)
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(host.alloc, 0)
    assert [*range(indices[0], indices[0] + 101)] == indices


@pytest.mark.parametrize("mailbox_size", [1, 3, 1024])
async def test_order_holds_over_commits(mailbox_size: int) -> None:
    """Taps and events come in the order in which all was decided, and the answers with them."""
    seen: list[Decision] = []
    async with gated(mailbox_size, taps=[seen.append]) as (gate, host, asks):
        gate.open()
        async with host.subscribe(kinds={EventKind.ALLOC}) as events:
            for round_ in range(5):
                gate.shut()
                for _ in range(1 + round_):
                    asks.start(partial(host.alloc, 0))
                    await settle()
                gate.open()
                await settle()
            taken = []
            while (message := events.take()) is not None:
                taken.append(getattr(message, "ioasid", None))
    assert [*range(1, 16)] == taken == asks.ended
    indices = [each.index for each in seen]
    assert sorted(indices) == indices


async def test_what_was_committed_replays() -> None:
    """An allocator that is given what was committed, at the times it says, ends in that state."""
    gate = Gate()
    async with open_allocator(capacity=CAPACITY, commit=gate) as host:
        await host.alloc_set("vm-1", 8)
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True) as events:
            await host.attach_spid(await host.alloc(0), 101)
            await anext(events)
            await anext(events)
            await host.alloc_many(0, 3)
            await kvm.get(2)
            await host.free(1)
            await anyio.wait_all_tasks_blocked()
            expected = replace(await host.snapshot(), now=gate.committed[-1].time)
            assert expected.index == gate.committed[-1].index
            assert expected == replayed(gate.committed, expected).snapshot()


def replayed(applied: Sequence[Applied], after: Snapshot) -> Allocator:
    """A new allocator that was given the same requests, and began when the one after them did."""
    (begun,) = (each.since for each in after.holders if each.name == "host")
    core = Allocator(CAPACITY, now=begun)
    for each in applied:
        core.handle(0, Tick(each.time))
        core.handle(each.session, each.request)
        core.drain()
        assert each.index == core.index
    return core


# Giving up


async def crash(host: Session, ioasid: int) -> None:
    """Let the holder "vm" crash with a reference and a holding subscription."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with host.session("vm") as vm, vm.subscribe(hold=True):
            await vm.get(ioasid)
            raise ZeroDivisionError


async def join(host: Session) -> None:
    """Open a session."""
    async with host.session("vm"):
        raise AssertionError("not reached")


async def subscribe(session: Session) -> None:
    """Subscribe."""
    async with session.subscribe(hold=True):
        raise AssertionError("not reached")


async def alloc(host: Session) -> None:
    """Allocate an ID."""
    await host.alloc(0)
    raise AssertionError("not reached")


async def alloc_many(host: Session) -> None:
    """Allocate several."""
    await host.alloc_many(0, 3)
    raise AssertionError("not reached")


async def alloc_set(host: Session) -> None:
    """Make a set that has no name."""
    await host.alloc_set(None, 3, TokenType.NULL)
    raise AssertionError("not reached")


async def get(host: Session) -> None:
    """Take a reference."""
    await host.get(2)
    raise AssertionError("not reached")


async def find_by_spid(host: Session) -> None:
    """Look up an ID and take a reference in the same step."""
    await host.find_by_spid(0, 102, get=True)
    raise AssertionError("not reached")


async def wait(host: Session) -> None:
    """Wait for a reclaim that does not come."""
    await host.free(1, wait=True)
    raise AssertionError("not reached")


Start = Callable[[Session], Coroutine[Any, Any, None]]

GIVEN_UP: dict[str, tuple[Start, type, type | None]] = {
    "session": (join, OpenSession, CloseSession),
    "session taken up again": (join, OpenSession, SuspendSession),
    "subscription": (subscribe, Subscribe, Unsubscribe),
    "subscription taken up again": (subscribe, Subscribe, Detach),
    "alloc": (alloc, Alloc, Free),
    "alloc_many": (alloc_many, AllocMany, FreeMany),
    "alloc_set": (alloc_set, AllocSet, FreeSet),
    "get": (get, Get, Put),
    "find_by_spid": (find_by_spid, FindBySpid, Put),
    "wait": (wait, Free, None),
}
"""What is given up: the call, its request, and what undoes it."""


@asynccontextmanager
async def before_giving_up(
    what: str, mailbox_size: int = 1024
) -> AsyncIterator[tuple[Gate, Session, Session, Asks]]:
    """Open an allocator in which all of `GIVEN_UP` can be asked for; with who asks."""
    async with gated(mailbox_size) as (gate, host, asks):
        gate.open()
        await host.alloc_many(0, 2)
        if what == "find_by_spid":
            await host.attach_spid(2, 102)
        async with host.session("dsa") as dsa:
            await dsa.get(1)
            if what.endswith("again"):
                await crash(host, 2)
            if what == "subscription taken up again":
                async with host.session("vm") as vm:
                    await settle()
                    gate.shut()
                    yield gate, host, vm, asks
                    gate.open()
            else:
                await settle()
                gate.shut()
                yield gate, host, host, asks
                gate.open()


async def test_what_is_left_of_many_ids_is_undone(give_up: "GiveUp") -> None:
    """Somebody frees one of several IDs before their asker gives up: the others are freed too."""
    async with gated() as (gate, host, asks):

        async def find_one_meanwhile() -> None:
            asks.start(lambda: host.free(2, sid=0))
            await host.alloc_many(0, 3)
            raise AssertionError("not reached")

        await give_up(find_one_meanwhile())
        gate.open()
        await settle()
        assert [True] == asks.ended
        assert not tuple(await host.list_set(0))


async def by_wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    """Give up by asyncio's own timeout."""
    task = asyncio.ensure_future(coroutine)
    await settle()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(task, 0.001)


async def by_native_cancel(coroutine: Coroutine[Any, Any, None]) -> None:
    """Give up by cancelling an asyncio task."""
    task = asyncio.ensure_future(coroutine)
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_cancel_scope(coroutine: Coroutine[Any, Any, None]) -> None:
    """Give up by a cancel scope."""

    async def run(scope: anyio.CancelScope) -> None:
        with scope:
            await coroutine

    async with anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()
        tasks.start_soon(run, scope)
        await settle()
        scope.cancel()
    assert scope.cancelled_caught


GiveUp = Callable[[Coroutine[Any, Any, None]], Awaitable[None]]


@pytest.fixture(
    params=[by_cancel_scope, by_native_cancel, by_wait_for], ids=lambda each: each.__name__
)
def give_up(request: pytest.FixtureRequest, anyio_backend_name: str) -> GiveUp:
    """How an asker gives up while it waits."""
    if anyio_backend_name == "trio" and request.param is not by_cancel_scope:
        pytest.skip("a task of trio can only be cancelled by a scope")
    method: GiveUp = request.param
    return method


async def is_undone(what: str, host: Session, before: dict[str, object]) -> None:
    """Assert that nothing of what was given up is left, and that it can be asked for again."""
    await settle()
    assert before == await figures(host)
    assert nobody_waits(host)
    check_state(core_of(host))
    if what == "wait":
        assert {"dsa": 1} == (await host.find(1)).references
        await host.evict("dsa")
        assert 0 == (await host.statistics()).free_pending
    elif what.startswith("session"):
        async with host.session("vm") as vm:
            assert vm.opened.resumed == (what != "session")


async def figures(host: Session) -> dict[str, object]:
    """What must be as it was before something that was given up."""
    found = await host.statistics()
    return {
        "sessions": found.sessions,
        "suspended": found.suspended,
        "subscriptions": found.subscriptions,
        "sets": found.sets,
        "live": found.active + found.free_pending,
        "references": (await host.find(2)).references,
        "attached": sorted(
            each.number for each in (await host.snapshot()).subscriptions if each.attached
        ),
    }


@pytest.mark.parametrize("what", GIVEN_UP)
async def test_giving_up_before_it_is_decided(what: str) -> None:
    """What nobody waits for any more when its turn comes is not carried out at all."""
    call, request, _ = GIVEN_UP[what]
    async with before_giving_up(what, mailbox_size=1) as (gate, host, asker, asks):
        before = await figures(host)
        for _ in range(20):
            asks.start(asker.statistics)
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(call, asker)
            await checkpoint()
            impatient.cancel_scope.cancel()
        gate.open()
        await settle()
        assert request not in [type(each.request) for each in gate.committed]
        assert before == await figures(host)
        assert nobody_waits(host)


@pytest.mark.parametrize("what", GIVEN_UP)
async def test_giving_up_while_it_is_committed(what: str, give_up: GiveUp) -> None:
    """Who gives up then ends at once; the actor undoes it, and commits that as well."""
    call, request, undo = GIVEN_UP[what]
    async with before_giving_up(what) as (gate, host, asker, _):
        before = await figures(host)
        await give_up(call(asker))
        assert gate.waiting
        assert [[request]] == gate.requests()
        gate.open()
        await settle()
        undone = [type(each.request) for each in gate.committed]
        assert ([request] if undo is None else [request, undo]) == undone
        await is_undone(what, host, before)


@pytest.mark.parametrize("what", GIVEN_UP)
async def test_giving_up_in_the_step_of_the_commit(what: str) -> None:
    """Who is cancelled, and has yet to find out, when its commit ends: that is undone as well."""
    call, request, undo = GIVEN_UP[what]
    async with before_giving_up(what) as (gate, host, asker, asks):
        before = await figures(host)
        scope = asks.start(partial(call, asker))
        await settle()
        gate.then = scope.cancel
        gate.open()
        await settle()
        assert (True, []) == (scope.cancelled_caught, asks.ended)
        undone = [type(each.request) for each in gate.committed]
        assert ([request] if undo is None else [request, undo]) == undone
        await is_undone(what, host, before)


@pytest.mark.parametrize("what", GIVEN_UP)
@pytest.mark.parametrize("cancel", [by_task, by_task_too_late], ids=lambda each: each.__name__)
async def test_giving_up_when_it_is_committed(
    what: str, cancel: Callable[..., Awaitable[bool]], anyio_backend_name: str
) -> None:
    """An asyncio task that is cancelled when its answer is there undoes it, too."""
    if anyio_backend_name == "trio":
        pytest.skip("a reply that is there can't be cancelled on trio")
    call, _, _ = GIVEN_UP[what]
    async with before_giving_up(what) as (gate, host, asker, asks):
        before = await figures(host)
        gate.open()
        if what == "wait" and cancel is by_task_too_late:
            # Answered when the other holder is gone, and there is nothing to undo.
            asks.start(partial(host.evict, "dsa"))
            assert await cancel(call(asker), 1)
            await settle()
            assert nobody_waits(host)
            return
        assert await cancel(call(asker), 1)
        await is_undone(what, host, before)


async def test_a_retry_need_not_wait_for_the_commit(give_up: GiveUp) -> None:
    """Who gives up joining and joins again while the first commit is open gets the name."""
    joined: list[int] = []

    async def join_again(host: Session) -> None:
        async with host.session("vm") as vm:
            joined.append(vm.number)

    async with gated() as (gate, host, asks):
        await give_up(join(host))
        asks.start(partial(join_again, host))
        await settle()
        assert [] == joined
        gate.open()
        await settle()
        assert 1 == len(joined)
        assert [None] == asks.ended
        assert 1 == (await host.statistics()).sessions


async def test_what_stands_is_not_undone(give_up: GiveUp) -> None:
    """What its asker can find again stands, though given up while it was committed."""

    async def alloc_set(host: Session) -> None:
        await host.alloc_set("vm-2", 8)

    async with gated() as (gate, host, _):
        await give_up(alloc_set(host))
        gate.open()
        await settle()
        assert "vm-2" == (await host.find_set("vm-2")).token


async def test_giving_up_a_wait_whose_end_is_being_committed() -> None:
    """Nobody is answered twice: the reclaim that the wait was for is released to nobody."""
    async with before_giving_up("wait") as (gate, host, _, asks):
        gate.open()
        scope = asks.start(partial(host.free, 1, wait=True))
        await settle()
        gate.shut()
        asks.start(partial(host.evict, "dsa"))
        await settle()
        scope.cancel()
        await settle()
        assert (True, []) == (scope.cancelled_caught, asks.ended)
        gate.open()
        await settle()
        assert nobody_waits(host)
        assert [None] == asks.ended
        assert 0 == (await host.statistics()).free_pending


# The end, while a commit is open


async def consume(host: Session) -> object:
    """Iterate to the end; what ends it."""
    async with host.subscribe(kinds={EventKind.ALLOC}) as events:
        return [getattr(message, "ioasid", None) async for message in events]


async def test_stopping_waits_for_the_commit() -> None:
    """Left in order, the allocator ends when all that was asked is committed and answered."""
    order: list[str] = []
    gate = Gate()

    async def open_later() -> None:
        await settle()
        order.append("open")
        gate.open()

    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)
        async with open_allocator(capacity=CAPACITY, mailbox_size=1, commit=gate) as host:
            await host.alloc_set("vm-1", 32)
            asks.start(partial(consume, host))
            await settle()
            gate.shut()
            for _ in range(5):
                asks.start(partial(host.alloc, 0))
            await settle()
            asks.start(partial(host.alloc, 0))
            tasks.start_soon(open_later)
            for _ in range(3):
                await checkpoint()
            order.append("leave")
        order.append("left")
        assert not gate.waiting
    assert ["leave", "open", "left"] == order
    assert [1, 2, 3, 4, 5, 6] == sorted(each for each in asks.ended if isinstance(each, int))
    assert [1, 2, 3, 4, 5, 6] in asks.ended


async def test_who_gives_up_while_it_stops_is_undone() -> None:
    """A session whose asker gives up during the last commit is closed before the end."""
    gate = Gate()
    stopping = anyio.Event()

    async def give_up_then(scope: anyio.CancelScope) -> None:
        await stopping.wait()
        await settle()
        scope.cancel()
        await settle()
        gate.open()

    async with anyio.create_task_group() as tasks:
        async with open_allocator(capacity=CAPACITY, commit=gate) as host:
            await host.statistics()
            gate.shut()
            scope = Asks(tasks).start(partial(join, host))
            tasks.start_soon(give_up_then, scope)
            await settle()
            stopping.set()
        assert scope.cancelled_caught
    assert [OpenSession, CloseSession] == [type(each.request) for each in gate.committed]


@pytest.mark.parametrize("end", ["exception", "cancellation"])
async def test_an_abrupt_end_waits_for_no_commit(end: str) -> None:
    """Everything ends at once: nobody is answered, no event or decision is shown."""
    gate = Gate()
    seen: list[Decision] = []
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)
        with anyio.CancelScope() as scope:
            try:
                async with open_allocator(
                    capacity=CAPACITY, mailbox_size=1, taps=[seen.append], commit=gate
                ) as host:
                    await host.alloc_set("vm-1", 32)
                    asks.start(partial(consume, host))
                    await settle()
                    gate.shut()
                    seen.clear()
                    for _ in range(3):
                        asks.start(partial(host.alloc, 0))
                    await settle()
                    assert gate.waiting
                    if end == "exception":
                        raise LookupError("mine")
                    scope.cancel()
                    await anyio.sleep_forever()
            except LookupError:
                pass
        assert scope.cancelled_caught == (end == "cancellation")
    assert ["was shut down"] * 4 == reasons(asks.ended)
    assert ([], []) == (seen, gate.committed)


async def test_cancelling_while_it_stops() -> None:
    """A timeout around an allocator whose last commit takes too long is a timeout."""
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)
        with anyio.CancelScope() as scope:
            async with open_allocator(capacity=CAPACITY, commit=gate) as host:
                await host.alloc_set("vm-1", 32)
                gate.shut()
                asks.start(partial(host.alloc, 0))
                await settle()

                async def cancel() -> None:
                    await settle()
                    scope.cancel()

                tasks.start_soon(cancel)
        assert scope.cancelled_caught
    assert ["was shut down"] == reasons(asks.ended)


class DiskFull(Exception):
    """What a commit fails with in these tests."""


@pytest.mark.parametrize("mailbox_size", [1, 1024])
async def test_a_commit_that_raises(mailbox_size: int) -> None:
    """The scope ends with that error; everybody is told, and nothing of it was shown."""
    gate = Gate()
    seen: list[Decision] = []
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)

        async def run() -> None:
            async with open_allocator(
                capacity=CAPACITY, mailbox_size=mailbox_size, taps=[seen.append], commit=gate
            ) as host:
                await host.alloc_set("vm-1", 32)
                async with host.session("dsa") as dsa:
                    await dsa.get(await host.alloc(0))
                    asks.start(partial(host.free, 1, wait=True))
                    asks.start(partial(consume, host))
                    await settle()
                    gate.shut()
                    seen.clear()
                    for _ in range(3):
                        asks.start(partial(host.alloc, 0))
                    await settle()
                    asks.start(host.statistics)
                    await settle()
                    gate.error = DiskFull("disk full")
                    gate.open()
                    await anyio.sleep_forever()

        with pytest.raises(DiskFull, match="disk full"):
            await run()
    assert ["crashed (DiskFull: disk full)"] * 6 == reasons(asks.ended)
    assert [] == seen


async def test_the_last_commit_raises() -> None:
    """An error in a commit that an orderly end waits for is raised from the scope."""
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)

        async def fail() -> None:
            await settle()
            gate.error = DiskFull()
            gate.open()

        async def run() -> None:
            async with open_allocator(capacity=CAPACITY, mailbox_size=1, commit=gate) as host:
                await host.alloc_set("vm-1", 32)
                gate.shut()
                asks.start(partial(host.alloc, 0))
                await settle()
                asks.start(partial(host.alloc, 0))
                for _ in range(3):
                    await checkpoint()
                tasks.start_soon(fail)

        with pytest.raises(DiskFull):
            await run()
    assert ["crashed (DiskFull: )"] * 2 == reasons(asks.ended)


async def test_a_commit_that_is_cancelled_from_outside(anyio_backend_name: str) -> None:
    """A commit that ends by a cancellation of its own has failed, and takes all of it down."""
    if anyio_backend_name == "trio":
        pytest.skip("only a scope cancels on trio")
    gate = Gate()
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)

        async def run() -> None:
            async with open_allocator(capacity=CAPACITY, commit=gate) as host:
                await host.alloc_set("vm-1", 32)
                gate.error = asyncio.CancelledError()
                asks.start(partial(host.alloc, 0))
                await anyio.sleep_forever()

        with pytest.raises(RuntimeError, match="the commit was cancelled"):
            await run()
    assert ["crashed (RuntimeError: the commit was cancelled)"] == reasons(asks.ended)


@pytest.mark.usefixtures("broken_core")
@pytest.mark.parametrize("mailbox_size", [1, 1024])
async def test_a_crash_of_the_core_while_a_commit_is_open(mailbox_size: int) -> None:
    """What was decided before and in the batch of the crash is released to nobody."""
    gate = Gate()
    seen: list[Decision] = []
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)

        async def run() -> None:
            async with open_allocator(
                capacity=CAPACITY, mailbox_size=mailbox_size, taps=[seen.append], commit=gate
            ) as host:
                await host.alloc_set("vm-1", 32)
                asks.start(partial(consume, host))
                await settle()
                gate.shut()
                seen.clear()
                asks.start(partial(host.alloc, 0))
                await settle()
                asks.start(partial(host.alloc, 0))
                asks.start(partial(host.reserve_capacity, 1))
                asks.start(partial(host.alloc, 0))
                await anyio.sleep_forever()

        with pytest.raises(RuntimeError, match="planted"):
            await run()
    assert ["crashed (RuntimeError: planted)"] * 5 == reasons(asks.ended)
    assert ([], []) == (seen, gate.committed)


@pytest.mark.usefixtures("broken_core")
async def test_a_crash_of_the_core_inside_a_batch() -> None:
    """Who was decided in the same batch as the crash is told, and of it nothing is committed."""
    gate = Gate()
    seen: list[Decision] = []
    async with anyio.create_task_group() as tasks:
        asks = Asks(tasks)

        async def run() -> None:
            async with open_allocator(capacity=CAPACITY, taps=[seen.append], commit=gate) as host:
                await host.alloc_set("vm-1", 32)
                gate.shut()
                seen.clear()
                asks.start(partial(host.alloc, 0))
                asks.start(partial(host.reserve_capacity, 1))
                asks.start(partial(host.alloc, 0))
                await anyio.sleep_forever()

        with pytest.raises(RuntimeError, match="planted"):
            await run()
    assert ["crashed (RuntimeError: planted)"] * 3 == reasons(asks.ended)
    assert [] == seen
    assert {Alloc} >= {type(each.request) for commit in gate.commits for each in commit}
    assert [] == gate.committed


@pytest.mark.parametrize("value", [0, "commit", [], True])
async def test_a_commit_that_is_none(value: Any) -> None:
    """What can't be called is refused before anything runs."""
    with pytest.raises(InvalidArgument, match="commit"):
        async with open_allocator(commit=value):
            raise AssertionError("not reached")


# At random


@pytest.mark.parametrize("seed", range(10))
async def test_at_random(seed: int) -> None:
    """Whatever happens while commits open and shut: what is seen is committed, and replays."""
    chance = random.Random(seed)
    gate = Gate()
    everything: list[Applied] = []
    late: list[int] = []

    async def commit(applied: Sequence[Applied]) -> None:
        await gate(applied)
        everything.extend(applied)

    def tap(decision: Decision) -> None:
        if decision.index > everything[-1].index:
            late.append(decision.index)

    async def live(host: Session, number: int) -> None:
        tier = chance.choice([*Priority])
        async with (
            host.session(f"vm-{number}") as vm,
            vm.subscribe(sid=0, hold=True, priority=tier) as events,
        ):
            for _ in range(6):
                ioasid = await vm.alloc(0)
                await vm.find(ioasid)
                await vm.attach_spid(ioasid, 100 * number + ioasid)
                await vm.get(ioasid)
                while (message := events.take()) is not None:
                    events.acknowledge(message)
                await vm.free(ioasid)
                await vm.put(ioasid)

    async def run(host: Session, number: int, scope: anyio.CancelScope) -> None:
        with scope:
            await live(host, number)

    async with open_allocator(
        capacity=CAPACITY, mailbox_size=chance.choice([1, 3, 1024]), taps=[tap], commit=commit
    ) as host:
        await host.alloc_set("vm-1", 60)
        async with anyio.create_task_group() as tasks:
            scopes = [anyio.CancelScope() for _ in range(6)]
            for number, scope in enumerate(scopes):
                tasks.start_soon(run, host, number, scope)
            for _ in range(60):
                chance.choice([gate.open, gate.shut])()
                for _ in range(chance.randrange(8)):
                    await checkpoint()
                if chance.random() < 0.05:
                    chance.choice(scopes).cancel()
            gate.open()
        await settle()
        expected = await host.snapshot()
        assert nobody_waits(host)
        check_state(core_of(host))
    assert [] == late
    again = replayed(everything[: expected.index - everything[0].index + 1], expected)
    again.handle(0, Tick(expected.now))
    assert expected == again.snapshot()
