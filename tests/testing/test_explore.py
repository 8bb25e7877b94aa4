"""Exploring: what is found, how it is reported, and that one seed is one history."""

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec.structs import replace

from ioasid.actors import Decision, open_allocator
from ioasid.actors._allocator import AllocatorActor
from ioasid.core import AllocSet, InvalidArgument, Tick, UnknownSet
from ioasid.core._notifier import Notifier
from ioasid.core._set_handlers import SetHandlers
from ioasid.recorder import Decided, read
from ioasid.testing import (
    SCENARIOS,
    Backend,
    CheckedAllocator,
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


def test_a_failure_comes_with_its_recording(tmp_path: Path) -> None:
    """What is recorded is the shortest schedule that fails, request by request."""
    path = tmp_path / "failed.jsonl"
    failure = failing(lambda: explore(guest_with_a_mirror, range(60), record=path))
    recorded = [each.request for each in read(path).lines if isinstance(each, Decided)]
    assert [line.request for line in failure.shortest.history] == [
        each for each in recorded if type(each) is not Tick
    ]


@both
def test_one_seed_is_one_history(backend: Backend) -> None:
    """The same seed gives the same history to the letter, and so do its picks alone."""
    scenario = shipped("resync_races_free")
    first = replay(scenario, 5, backend=backend)
    assert None is first.error
    assert first.text == replay(scenario, 5, backend=backend).text
    assert first.text == replay(scenario, picks=first.picks, backend=backend).text


@both
def test_the_order_of_a_set_is_no_part_of_a_schedule(backend: Backend) -> None:
    """Scopes that are cancelled in one step, in whatever order, give the same history."""

    async def scenario(forward: bool) -> None:
        scopes: list[anyio.CancelScope] = []

        async def wait(token: str) -> None:
            async with anyio.create_task_group() as tasks:
                scopes.append(tasks.cancel_scope)
                tasks.start_soon(anyio.sleep_forever)
                tasks.start_soon(anyio.sleep_forever)
            await host.alloc_set(token, 1)

        async with open_allocator() as host, anyio.create_task_group() as tasks:
            for token in ("vm-1", "vm-2", "vm-3"):
                tasks.start_soon(wait, token)
            await anyio.wait_all_tasks_blocked()
            for scope in scopes if forward else reversed(scopes):
                scope.cancel()

    for seed in range(40):
        told = {
            replay(partial(scenario, forward), seed, backend=backend).text
            for forward in (True, False)
        }
        assert 1 == len(told), seed


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
        "from ioasid.testing import SCENARIOS, explore\n"
        "for scenario, leaks in SCENARIOS.values():\n"
        "    print(explore(scenario, range(3), leaks=leaks))"
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
    assert len(SCENARIOS) == len(printed.pop().splitlines())


def test_a_digest_stands_for_a_history() -> None:
    """It is equal for equal ones, and differs where they do."""
    scenario = shipped("resync_races_free")
    one, other = replay(scenario, 1), replay(scenario, 2)
    assert one.digest == replay(scenario, 1).digest != other.digest
    assert explore(scenario, (1, 2)).digest == explore(scenario, (1, 2)).digest
    assert explore(scenario, (1, 2)).digest != explore(scenario, (2, 1)).digest


@pytest.mark.slow
def test_any_number_of_workers_finds_the_same() -> None:
    """On none, on processes and on threads, in whatever parts: the same, and the same failure."""
    holds = shipped("a_vm_moves_while_its_guest_works")
    seen: list[int] = []
    alone = explore(holds, range(10))
    with ProcessPoolExecutor(2) as processes, ThreadPoolExecutor(2) as threads:
        for pool, chunk in ((processes, 3), (processes, 1), (threads, 4)):
            explored = explore(holds, range(10), executor=pool, chunk=chunk, progress=seen.append)
            assert alone == explored
        assert [3, 6, 9, 10, *range(1, 11), 4, 8, 10] == seen
        first = failing(lambda: explore(guest_with_a_mirror, range(60)))
        for pool, chunk in ((processes, 2), (threads, 60)):
            failure = failing(
                lambda: explore(guest_with_a_mirror, range(60), executor=pool, chunk=chunk)  # noqa: B023
            )
            assert str(first) == str(failure)
            assert (first.found.digest, first.shortest.digest) == (
                failure.found.digest,
                failure.shortest.digest,
            )


async def nothing() -> None:
    """Do nothing."""


@pytest.mark.parametrize("call", [explore, replay])
@pytest.mark.parametrize("scenario", [None, 7, "nothing"])
def test_a_scenario_that_cannot_be_called_is_refused(
    call: Callable[..., object], scenario: Any
) -> None:
    """It is an argument error, and no schedule that fails."""
    with pytest.raises(InvalidArgument, match="scenario"):
        call(scenario)


@pytest.mark.parametrize(
    ("name", "value"),
    [("chunk", 0), ("chunk", True), ("chunk", "9"), ("executor", 2), ("executor", Executor)],
)
def test_arguments_that_are_none_are_refused(name: str, value: Any) -> None:
    """By name, before anything runs."""
    with pytest.raises(InvalidArgument, match=name):
        explore(nothing, **{name: value})


def test_what_fails_once_alone_is_said_to() -> None:
    """A scenario that does not follow from its seed alone is told apart."""
    left = [True]

    async def careless() -> None:
        if left:
            left.pop()
            raise ValueError

    failure = failing(lambda: explore(careless, range(1)))
    assert "not all of it follows from the seed" in failure.found.failure


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
    assert f"  print(replay(guest_with_a_mirror, {found.seed}).failure)\n" in str(failure)
    assert f"picks={dict(shortest.picks)!r}).failure)\n" in str(failure)
    came = "on asyncio: Leaked: holder 'mirror' is suspended 'mirror' holds 1 reference of"
    assert f"<Run of guest_with_a_mirror, seed {found.seed} {came} IOASID 1 ...>" == repr(found)
    assert f"<Run of guest_with_a_mirror, picks={dict(again.picks)!r} {came} IOASID 1 ...>" == repr(
        again
    )
    assert repr(replay(guest_with_a_mirror, 0)).endswith(", seed 0 on asyncio: no failure>")
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

    def careless(self: AllocatorActor) -> None:
        self._waiting.clear()
        close(self)

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
    run = replay(waiting, 1, backend=backend, stuck_after=10)
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


def test_a_loop_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another event loop is refused at the door, and so is trio where it is not installed."""
    scenario = shipped("resync_races_free")
    for call in (explore, replay):
        with pytest.raises(InvalidArgument, match="'asyncio' or 'trio'"):
            call(scenario, backend="curio")  # type: ignore[arg-type]
    monkeypatch.setattr("ioasid.testing._explore.find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="install trio"):
        explore(scenario, range(1), backend="trio")


def test_progress() -> None:
    """Whoever shows progress is called after every schedule."""
    seen: list[int] = []
    explored = explore(nothing, range(3), progress=seen.append)
    assert [1, 2, 3] == seen
    assert (3, 1, 0) == (explored.schedules, explored.distinct, explored.requests)


def test_shrinking_is_bounded() -> None:
    """With nothing to be tried, the schedule that was found is the shortest."""
    failure = failing(lambda: explore(guest_with_a_mirror, range(500), shrink=0))
    assert failure.found is failure.shortest
    assert 0 == failure.tried


def test_nobody_looks_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an exploration, an allocator that is opened is watched by nobody."""
    seen: list[Decision] = []
    see = CheckedAllocator.see

    def note(self: CheckedAllocator, decision: Decision) -> None:
        seen.append(decision)
        see(self, decision)

    monkeypatch.setattr(CheckedAllocator, "see", note)
    explored = explore(shipped("quota_adjusted_under_load"), range(1))
    assert explored.requests <= len(seen)
    seen.clear()

    async def ask() -> None:
        async with open_allocator(capacity=4) as allocator:
            await allocator.alloc_set("vm-1", 2)

    anyio.run(ask)
    assert [] == seen


def test_a_decision_by_more_than_the_state_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocator that decides the same request in the same state differently is found."""
    alloc_set = SetHandlers.alloc_set
    calls = count()

    def moody(self: SetHandlers, holder: Any, request: AllocSet) -> Any:
        quota = None if request.quota is None else request.quota - next(calls) % 2
        return alloc_set(self, holder, replace(request, quota=quota))

    monkeypatch.setattr(SetHandlers, "alloc_set", moody)
    failure = failing(lambda: explore(shipped("quota_adjusted_under_load"), range(1)))
    assert "decided differently" in failure.found.failure
