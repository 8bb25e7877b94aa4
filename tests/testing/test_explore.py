"""Exploring: what is found, how it is reported, and that one seed is one history."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from ioasid.actors import open_allocator
from ioasid.actors._allocator import AllocatorActor
from ioasid.core import AllocatorClosed, UnknownSet
from ioasid.core._notifier import Notifier
from ioasid.testing import (
    SCENARIOS,
    Backend,
    InvariantViolated,
    Leaked,
    Run,
    ScheduleFailed,
    explore,
    replay,
)
from tests.testing.broken import guest_with_a_mirror

BACKENDS: tuple[Backend, ...] = ("asyncio", "trio")
ROOT = Path(__file__).parent.parent.parent

both = pytest.mark.parametrize("backend", BACKENDS)


def shipped(name: str) -> Callable[[], Any]:
    """A shipped scenario."""
    return SCENARIOS[name][0]


def failing(call: Callable[[], object]) -> ScheduleFailed:
    """The failure that an exploration ends with."""
    with pytest.raises(ScheduleFailed) as caught:
        call()
    return caught.value


@both
def test_one_seed_is_one_history(backend: Backend) -> None:
    """The same seed gives the same history to the letter, and so do its picks alone."""
    scenario = shipped("resync_races_free")
    first = replay(scenario, 5, backend=backend)
    assert None is first.error
    assert first.text == replay(scenario, 5, backend=backend).text
    assert first.text == replay(scenario, picks=first.picks, backend=backend).text


@both
def test_seeds_differ(backend: Backend) -> None:
    """Different seeds are different interleavings."""
    explored = explore(shipped("resync_races_free"), range(12), backend=backend)
    assert (12, 12) == (explored.schedules, explored.distinct)
    assert explored.requests > 12


@pytest.mark.slow
def test_a_seed_is_the_same_in_every_process() -> None:
    """The order of sets, which differs from process to process, changes no schedule."""
    program = (
        "import zlib; from ioasid.testing import SCENARIOS, replay\n"
        "scenario = SCENARIOS['guest_crashes_with_dma_in_flight'][0]\n"
        "print([zlib.crc32(replay(scenario, seed).text.encode()) for seed in range(3)])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert 1 == len(printed)


def test_a_leaked_reference_is_found() -> None:
    """A subscriber that leaks under some schedules is found, reported, reproduced, shortened."""
    failure = failing(lambda: explore(guest_with_a_mirror, range(500)))
    found, shortest = failure.found, failure.shortest
    assert isinstance(found.error, Leaked)
    assert "'mirror' holds 1 reference of IOASID 1" in found.failure
    assert found == same(replay(guest_with_a_mirror, found.seed), found)
    again = replay(guest_with_a_mirror, picks=shortest.picks)
    assert (shortest.text, shortest.failure) == (again.text, again.failure)
    assert 0 < len(shortest.picks) < len(found.picks)
    assert f"replay(guest_with_a_mirror, {found.seed})" in str(failure)
    assert f"picks={dict(shortest.picks)!r}" in str(failure)
    assert shortest.text in str(failure)
    assert None is replay(guest_with_a_mirror).error


def same(run: Run, as_run: Run) -> Run:
    """A run, checked to be the same to the letter as another one, which is returned."""
    assert (as_run.text, as_run.failure) == (run.text, run.failure)
    assert (as_run.picks, as_run.choices) == (run.picks, run.choices)
    return as_run


@both
def test_a_tier_that_is_not_awaited_is_found(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """A notifier that waits for nobody's acknowledgement is found, with a seed that shows it."""
    offer: Callable[..., None] = Notifier._offer

    def impatient(self: Notifier, subscriptions: Any, event: Any, stage: Any) -> None:
        offer(self, subscriptions, event, stage)
        if stage is not None:
            stage.waiting.clear()

    monkeypatch.setattr(Notifier, "_offer", impatient)
    scenario = shipped("resync_races_free")
    failure = failing(lambda: explore(scenario, range(20), backend=backend))
    assert isinstance(failure.found.error, InvariantViolated)
    assert failure.found.error.number in (3, 6)
    again = replay(scenario, failure.found.seed, backend=backend)
    same(again, failure.found)


@both
def test_a_reply_lost_at_shutdown_is_found(
    monkeypatch: pytest.MonkeyPatch, backend: Backend
) -> None:
    """An allocator that leaves a request unanswered leaves the scenario stuck, and says who."""
    close = AllocatorActor._close

    def careless(self: AllocatorActor, batch: list[Any]) -> None:
        self._waiting.clear()
        close(self, batch)

    monkeypatch.setattr(AllocatorActor, "_close", careless)
    scenario = shipped("shutdown_under_load")
    failure = failing(lambda: explore(scenario, range(40), backend=backend, leaks=False, shrink=5))
    assert "Stuck" == failure.found.kind
    assert "asking" in failure.found.failure
    same(replay(scenario, failure.found.seed, backend=backend, leaks=False), failure.found)


@both
def test_stuck(backend: Backend) -> None:
    """A scenario that waits for ever fails, shielded or not, and so does one that never ends."""

    async def shielded() -> None:
        async with open_allocator(capacity=4):
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()

    async def waiting() -> None:
        await anyio.Event().wait()

    async def ticking() -> None:
        while True:
            await anyio.sleep(1)

    for scenario in (shielded, waiting):
        run = replay(scenario, 1, backend=backend)
        assert "Stuck" == run.kind
        assert scenario.__name__ in run.failure
    run = replay(waiting, 1, backend=backend, patience=10)
    assert "Stuck" == run.kind


def test_what_a_scenario_raises_is_the_failure() -> None:
    """An error of the scenario's own is what it fails with, taken out of groups."""

    async def refused() -> None:
        async with open_allocator(capacity=4) as allocator, anyio.create_task_group() as tasks:
            tasks.start_soon(allocator.alloc, 7)
            await anyio.sleep(1)

    run = replay(refused)
    assert isinstance(run.error, UnknownSet)
    assert run.failure.startswith("UnknownSet: ENOENT")
    assert None is run.seed


def test_what_nobody_handles_is_a_failure() -> None:
    """An error in a callback that nobody waits for fails the schedule."""

    async def careless() -> None:
        import asyncio

        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await anyio.sleep(1)

    assert "nobody handled" in replay(careless).failure


def test_leaks_may_be_allowed() -> None:
    """A scenario that ends with something left fails only if that matters."""

    async def leaving() -> None:
        async with open_allocator(capacity=4) as allocator:
            owner = await allocator.alloc_set("vm-1", 2)
            ioasid = await allocator.alloc(owner.sid)
            await allocator.get(ioasid)
            await allocator.free(ioasid)

    assert "IOASID 1 is in quarantine" in replay(leaving).failure
    assert "" == replay(leaving, leaks=False).failure


def test_progress() -> None:
    """Whoever shows progress is called after every schedule."""
    seen: list[int] = []

    async def nothing() -> None:
        pass

    explored = explore(nothing, range(3), progress=seen.append)
    assert [1, 2, 3] == seen
    assert (3, 1, 0) == (explored.schedules, explored.distinct, explored.requests)


def test_shrinking_is_bounded() -> None:
    """With nothing to be tried, the schedule that was found is the shortest."""
    failure = failing(lambda: explore(guest_with_a_mirror, range(500), shrink=0))
    assert failure.found is failure.shortest
    assert 0 == failure.tried


def test_the_core_comes_back() -> None:
    """After an exploration, an allocator is opened as before: with the core itself."""
    explore(shipped("quota_adjusted_under_load"), range(1))

    async def look() -> str:
        async with open_allocator(capacity=4) as allocator:
            return type(allocator._actor.core).__name__

    assert "Allocator" == anyio.run(look)
    assert issubclass(AllocatorClosed, Exception)
