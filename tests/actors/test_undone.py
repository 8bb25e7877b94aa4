"""Nobody's: thousands of calls are given up at once, and nothing is left without an owner.

Whatever is given up, however and whenever, what is there afterwards is what somebody was answered.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.actors import Commit, Session, open_allocator
from ioasid.core import Applied, IoasidRange, TokenType
from tests.actors.hosts import settle
from tests.actors.inside import core_of, nobody_waits
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio

COUNT = 1000
FEWER = 300
TIMEOUT = 0.002
"""Seconds: some calls are answered within it, and some are not."""

Call: TypeAlias = Callable[[], Awaitable[Any]]
GiveUp: TypeAlias = Callable[[TaskGroup, Call, list[Any]], None]


async def slowly(applied: Sequence[Applied]) -> None:
    """Commit, while the event loop runs a few times."""
    for _ in range(min(5, len(applied))):
        await checkpoint()


async def very_slowly(_: Sequence[Applied]) -> None:
    """Commit, and take about as long as anybody waits."""
    await anyio.sleep(TIMEOUT / 2)


@pytest.fixture(params=[None, slowly, very_slowly], ids=["no commit", "slow", "very slow"])
def commit(request: pytest.FixtureRequest) -> Commit | None:
    """How an allocator commits."""
    method: Commit | None = request.param
    return method


# Ways to give up


def by_wait_for(tasks: TaskGroup, call: Call, answers: list[Any]) -> None:
    """Give up by asyncio's own timeout."""

    async def ask() -> None:
        with suppress(TimeoutError):
            answers.append(await asyncio.wait_for(call(), TIMEOUT))

    tasks.start_soon(ask)


def by_deadline(tasks: TaskGroup, call: Call, answers: list[Any]) -> None:
    """Give up by a cancel scope with a deadline."""

    async def ask() -> None:
        with anyio.move_on_after(TIMEOUT):
            answers.append(await call())

    tasks.start_soon(ask)


def by_scope(tasks: TaskGroup, call: Call, answers: list[Any]) -> None:
    """Give up by a cancel scope that somebody cancels a few steps later: another number each."""
    scope = anyio.CancelScope()
    steps = 1 + len(STEPS) % 7
    STEPS.append(steps)

    async def ask() -> None:
        with scope:
            answers.append(await call())

    async def cancel() -> None:
        for _ in range(steps):
            await checkpoint()
        scope.cancel()

    tasks.start_soon(ask)
    tasks.start_soon(cancel)


def by_task(tasks: TaskGroup, call: Call, answers: list[Any]) -> None:
    """Give up by cancelling the asyncio task, one step or a few later."""
    steps = 1 + len(STEPS) % 7
    STEPS.append(steps)

    async def ask() -> None:
        answers.append(await call())

    async def cancel() -> None:
        task = asyncio.ensure_future(ask())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    tasks.start_soon(cancel)


STEPS: list[int] = []
"""The steps after which each call was given up."""


@pytest.fixture(
    params=[by_wait_for, by_deadline, by_scope, by_task], ids=lambda each: str(each.__name__)
)
def give_up(request: pytest.FixtureRequest, anyio_backend_name: str) -> GiveUp:
    """How an asker gives up."""
    if anyio_backend_name == "trio" and request.param in (by_wait_for, by_task):
        pytest.skip("only a scope cancels on trio")
    STEPS.clear()
    method: GiveUp = request.param
    return method


async def given_up(count: int, call: Call, give_up: GiveUp, host: Session) -> list[Any]:
    """Make a call many times at once, each given up after a while; the answers that came."""
    answers: list[Any] = []
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            give_up(tasks, call, answers)
    await settle()
    for _ in range(3):
        await host.statistics()
    assert nobody_waits(host)
    check_state(core_of(host))
    return answers


def ids_of(ranges: Sequence[IoasidRange]) -> list[int]:
    """The IDs in ranges."""
    return [ioasid for each in ranges for ioasid in range(each.first, each.last + 1)]


# What is given up


@pytest.mark.slow
@pytest.mark.parametrize("count", [COUNT, 3 * COUNT])
async def test_ids(count: int, give_up: GiveUp, commit: Commit | None) -> None:
    """Every ID that is allocated then is one that somebody was given, and the quota holds."""
    if count > COUNT and commit is slowly:
        pytest.skip("the other commits are enough for so many")
    async with open_allocator(commit=commit) as host:
        sid = (await host.alloc_set("vm-1", count + 1)).sid
        answers = await given_up(count, partial(host.alloc, sid), give_up, host)
        assert sorted(answers) == [each.ioasid for each in await host.list_set(sid)]
        # None is charged for, either.
        await host.alloc_many(sid, count + 1 - len(answers))


async def test_many_ids_at_once(give_up: GiveUp, commit: Commit | None) -> None:
    """The same of several IDs in one call."""
    async with open_allocator(commit=commit) as host:
        sid = (await host.alloc_set("vm-1", 4 * FEWER)).sid
        answers = await given_up(FEWER, partial(host.alloc_many, sid, 4), give_up, host)
        owned = sorted(ioasid for each in answers for ioasid in ids_of(each))
        assert owned == [each.ioasid for each in await host.list_set(sid)]


async def test_sets_without_a_token(give_up: GiveUp, commit: Commit | None) -> None:
    """A set that nobody can name is gone, and its quota is back."""
    async with open_allocator(commit=commit) as host:
        available = (await host.statistics()).available
        make = partial(host.alloc_set, None, 4, TokenType.NULL)
        answers = await given_up(FEWER, make, give_up, host)
        figures = await host.statistics()
        assert (len(answers), available - 4 * len(answers)) == (figures.sets, figures.available)


@pytest.mark.parametrize("how", ["get", "find_by_spid"])
async def test_references(how: str, give_up: GiveUp, commit: Commit | None) -> None:
    """A holder has the references that it was told of, and others keep theirs."""
    async with open_allocator(commit=commit) as host, host.session("other") as other:
        sid = (await host.alloc_set("vm-1", 4)).sid
        ioasid = await host.alloc(sid)
        await host.attach_spid(ioasid, 101)
        await other.get(ioasid)
        call: Call = (
            partial(host.get, ioasid)
            if how == "get"
            else partial(host.find_by_spid, sid, 101, get=True)
        )
        answers = await given_up(FEWER, call, give_up, host)
        references = Counter((await host.find(ioasid)).references)
        assert Counter(other=1, host=len(answers)) == references
        for _ in answers:
            await host.put(ioasid)
        assert {"other": 1} == (await host.find(ioasid)).references


async def test_who_gives_up_and_leaves(give_up: GiveUp, commit: Commit | None) -> None:
    """A session that is cut off leaves what it was told of, the rest is undone."""
    names = iter(range(FEWER))
    kept: dict[str, list[int]] = {}

    async with open_allocator(commit=commit) as host:
        sid = (await host.alloc_set("vm-1", FEWER)).sid

        async def live() -> str:
            name = f"holder-{next(names)}"
            async with host.session(name) as session:
                mine = kept[name] = []
                ioasid = await session.alloc(sid)
                mine.append(ioasid)
                await session.get(ioasid)
                mine.append(ioasid)
            return name

        answers = await given_up(FEWER, live, give_up, host)
        owned = {mine[0] for mine in kept.values() if mine}
        assert sorted(owned) == [each.ioasid for each in await host.list_set(sid)]
        crashed = {name for name, mine in kept.items() if len(mine) == 2} - {*answers}
        figures = await host.statistics()
        assert (1, len(crashed)) == (figures.sessions, figures.suspended)
        for name in crashed:
            await host.evict(name)
        assert 0 == (await host.statistics()).suspended
