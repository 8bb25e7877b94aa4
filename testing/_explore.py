"""Run a scenario under many schedules, and show the one under which it fails.

This is deterministic simulation testing. A scenario is an async function without arguments over
real actors. One seed is one schedule, in every process: who runs next at every point where several
could. Every allocator that a scenario opens is decided again beside it, with the invariants checked
after every request that may have changed something.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from textwrap import shorten
from threading import Lock
from typing import Any, Final, Literal, TypeAlias, get_args

import anyio
from attrs import define, evolve, field, frozen

from ioasid import recorder
from ioasid.actors import Decision, Tap, tapped
from ioasid.core import InvalidArgument, Snapshot
from ioasid.testing._checked import CheckedAllocator
from ioasid.testing._lines import Line
from ioasid.testing._loop import SeededLoop, Stuck
from ioasid.testing._picker import Picker, current
from ioasid.testing._reasons import chosen_in_words, kind_of, place_of, reason_of
from ioasid.testing._spread import parts_of, spread
from ioasid.testing._violated import InvariantViolated

__all__ = [
    "Backend",
    "Explored",
    "Leaked",
    "Run",
    "Scenario",
    "ScheduleFailed",
    "explore",
    "replay",
]

Scenario: TypeAlias = Callable[[], Awaitable[object]]
"""An async function without arguments, over the real actors."""

Backend: TypeAlias = Literal["asyncio", "trio"]
"""The event loop whose scheduling is seeded."""

BACKENDS: Final = get_args(Backend)

THOROUGH: Final = 16
"""Of so many seeds, one looks at every refusal besides: whether it changed nothing."""
RESTORED: Final = 8
"""Before one decision in so many, the allocator that decides again is restored from a snapshot."""

DIFFERS: Final = "it failed once and not when it was repeated: not all of it follows from the seed"

_ALONE: Final = Lock()
"""What is tapped is every allocator of the process: in its threads, one schedule at a time."""

MAIN: Final = "_run.<locals>.main"


class Leaked(AssertionError):
    """A scenario ended and something of its holders was left in an allocator."""


@frozen(repr=False)
class Run:
    """What one schedule came to."""

    scenario: str
    backend: Backend
    seed: int | None
    """`None` for a schedule that is given by its picks alone."""
    picks: Mapping[int, int]
    """The choices that did not take the first in line: place taken, by number of the choice.

    Below 0, -1 for the first, are the decisions before which the allocator beside was restored.
    """
    choices: int
    """How many choices there were."""
    chosen: tuple[str, ...]
    """What the scenario chose with `choose`, in order, as it says of itself."""
    history: tuple[Line, ...]
    """Every request that an allocator decided, in order, up to the failure."""
    error: BaseException | None
    """Why it failed; raise it to see the traceback. `None` if it did not."""

    def __repr__(self) -> str:
        """What ran and what came of it, without the history."""
        came = shorten(self.failure or "no failure", 80, placeholder=" ...")
        how = f"picks={dict(self.picks)!r}" if self.seed is None else f"seed {self.seed}"
        return f"<Run of {self.scenario}, {how} on {self.backend}: {came}>"

    @property
    def text(self) -> str:
        """The history, a request per line with what it set off below; the same every time."""
        return "\n".join(map(str, self.history))

    @property
    def digest(self) -> str:
        """What stands for the history: the same in every process, whatever its hash seed."""
        return _digest([self.text.encode()])

    @property
    def failure(self) -> str:
        """Why it failed, in words; empty if it did not."""
        if self.error is None:
            return ""
        if isinstance(self.error, InvariantViolated | Leaked | Stuck):
            return f"{type(self.error).__name__}: {self.error}"
        return reason_of(self.error)

    @property
    def kind(self) -> str:
        """What kind of failure it is: two of one kind are taken for the same."""
        if isinstance(self.error, InvariantViolated):
            return f"invariant {self.error.number}"
        return "" if self.error is None else kind_of(self.error)


@frozen
class Explored:
    """What was explored without a failure."""

    schedules: int
    distinct: int
    """How many different histories there were among them."""
    requests: int
    """How many requests were decided; those that may change something were checked after."""
    digest: str
    """What stands for all the histories, in the order of the seeds; the same everywhere."""


class ScheduleFailed(AssertionError):
    """A schedule failed; the message says which, why, and how to run exactly that one again."""

    def __init__(self, found: Run, shortest: Run, tried: int) -> None:
        super().__init__(found, shortest, tried)
        self.found = found
        """The schedule that failed first."""
        self.shortest = shortest
        """The one with the fewest choices out of turn that fails in the same way."""
        self.tried = tried
        """How many schedules it took to find the shortest."""

    def __str__(self) -> str:
        """The report."""
        found, shortest = self.found, self.shortest
        where = "" if found.backend == "asyncio" else f", backend={found.backend!r}"
        return "\n".join(
            (
                f"{found.scenario} fails with seed {found.seed} on {found.backend}:",
                f"  {found.failure}",
                "",
                (
                    f"The shortest way there (of {self.tried} tried) has {len(shortest.picks)} of "
                    f"{shortest.choices} choices out of turn and {len(shortest.history)} requests:"
                ),
                f"  {shortest.failure}",
                *chosen_in_words(shortest.chosen),
                "",
                shortest.text,
                "",
                "To run exactly these again, and see the failure:",
                f"  print(replay({found.scenario}, {found.seed}{where}).failure)",
                f"  print(replay({found.scenario}, picks={dict(shortest.picks)!r}{where}).failure)",
                "To see one drawn, give its replay(...) record='failed.jsonl', run it, and then:",
                "  python -m ioasid.recorder draw failed.jsonl -o failed.html",
            )
        )


def explore(
    scenario: Scenario,
    seeds: Iterable[int] = range(1000),
    *,
    backend: Backend = "asyncio",
    leaks: bool = True,
    stuck_after: float = 3600.0,
    shrink: int = 300,
    progress: Callable[[int], object] | None = None,
    record: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    chunk: int = 500,
) -> Explored:
    """Run a scenario under one schedule per seed; returns what was explored.

    With `leaks`, a scenario fails, too, if it leaves a holder besides the first, a reference, a
    subscription, a waiting request or an ID in quarantine behind in an allocator that ended in
    order. `stuck_after` is how many seconds of virtual time may pass before a scenario that does
    nothing is taken to be stuck, above 0. A failure is repeated with up to `shrink` other
    schedules, 0 or more, to find a short one. `progress` is called after every schedule with how
    many there were. `record` is a file that the shortest schedule that fails is recorded into, for
    `ioasid.recorder`. Call it outside of any event loop; it silences the logger "ioasid" meanwhile.

    With an `executor` its workers run the schedules, `chunk` of them (1 or more) at a time, and
    `progress` is called after so many. Its threads take turns; its processes do not. They have to
    find the scenario: it is at a module's top level, unless the executor sends code as well. How
    many workers there are changes nothing of what is returned, nor which failure is the first.

    Raises `ScheduleFailed` for the first schedule that fails, in the order of the seeds, and
    `InvalidArgument`.
    """
    _check(scenario, backend)
    if type(chunk) is not int or chunk < 1:
        raise InvalidArgument.of("chunk", chunk, "a whole number of 1 or more")
    if executor is not None and not isinstance(executor, Executor):
        raise InvalidArgument.of("executor", executor, "a concurrent.futures.Executor")
    call = partial(_explore_part, scenario, backend, leaks, stuck_after)
    parts = parts_of(seeds, 1 if executor is None else chunk)
    digests: list[bytes] = []
    requests = 0
    found = (call(part) for part in parts) if executor is None else spread(executor, call, parts)
    with closing(found):
        for part in found:
            digests += part.digests
            requests += part.requests
            if part.failed is not None:
                break
            if progress is not None:
                progress(len(digests))
        else:
            return Explored(len(digests), len(set(digests)), requests, _digest(digests))
    again = partial(_run, scenario, backend, leaks=leaks, stuck_after=stuck_after)
    failed = again(Picker(part.failed), part.failed)
    if failed.error is None:
        failed = evolve(failed, error=AssertionError(DIFFERS))
    failure = _shortest(scenario, failed, leaks=leaks, stuck_after=stuck_after, most=shrink)
    if record is not None:
        shortest = failure.shortest
        again(Picker(shortest.seed, shortest.picks), shortest.seed, record=record)
    raise failure


@frozen
class _Part:
    """What some seeds came to, in order, up to the first that failed."""

    digests: list[bytes]
    requests: int
    failed: int | None


def _explore_part(
    scenario: Scenario, backend: Backend, leaks: bool, stuck_after: float, seeds: tuple[int, ...]
) -> _Part:
    digests: list[bytes] = []
    requests = 0
    for seed in seeds:
        run = _run(scenario, backend, Picker(seed), seed, leaks=leaks, stuck_after=stuck_after)
        if run.error is not None:
            return _Part(digests, requests, seed)
        digests.append(bytes.fromhex(run.digest))
        requests += len(run.history)
    return _Part(digests, requests, None)


def _digest(parts: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _check(scenario: Any, backend: Any) -> None:
    if not callable(scenario):
        raise InvalidArgument.of("scenario", scenario, "an async function without arguments")
    if backend not in BACKENDS:
        raise InvalidArgument.of("backend", backend, "'asyncio' or 'trio'")
    if backend == "trio" and find_spec("trio") is None:
        raise InvalidArgument.of("backend", backend, "'asyncio', or install trio")


def replay(
    scenario: Scenario,
    seed: int | None = None,
    *,
    picks: Mapping[int, int] | None = None,
    backend: Backend = "asyncio",
    leaks: bool = True,
    stuck_after: float = 3600.0,
    record: str | os.PathLike[str] | None = None,
) -> Run:
    """Run exactly one schedule again: that of a seed, or the one that a report names by `picks`.

    Without either it is first come, first served. The other arguments are those of `explore`,
    and have to be the same; `record` is a file that this schedule is recorded into. Returns what it
    came to: a failure is not raised, but is its `failure` in words, and its `error`. Raises
    `InvalidArgument`.
    """
    _check(scenario, backend)
    picker = Picker(seed, picks)
    return _run(
        scenario, backend, picker, seed, leaks=leaks, stuck_after=stuck_after, record=record
    )


# -- one schedule -----------------------------------------------------------------------------


@define(eq=False)
class _World:
    """What a schedule watches: its allocators, and whether it got stuck."""

    cores: list[CheckedAllocator] = field(factory=list)
    stuck: list[tuple[str, int]] = field(factory=list)
    """Who waited, and how much had happened by then."""
    scope: anyio.CancelScope | None = None

    def history(self) -> tuple[Line, ...]:
        return tuple(line for core in self.cores for line in core.history)

    def on_stuck(self, reason: str) -> None:
        waiting = "".join(f"\n    {each}" for each in _who_waits())
        self.stuck.append((f"{reason}; still there:{waiting}", len(self.history())))
        if self.scope is None or len(self.stuck) > 1:
            # Cancelling it did not help: it is shielded.
            raise Stuck(self.stuck[0][0])
        self.scope.cancel()


def _run(
    scenario: Scenario,
    backend: Backend,
    picker: Picker,
    seed: int | None,
    *,
    leaks: bool,
    stuck_after: float,
    record: str | os.PathLike[str] | None = None,
) -> Run:
    world = _World()
    thorough = seed is None or seed % THOROUGH == 0

    def tap(begun: Snapshot) -> Tap:
        core = CheckedAllocator.restore(begun)
        core.thorough = thorough
        world.cores.append(core)

        def see(decision: Decision) -> None:
            if picker.happens(RESTORED):
                core.go_on_restored()
            core.see(decision)

        return see

    async def main() -> None:
        current.set(picker)
        with anyio.CancelScope() as world.scope:
            await scenario()

    error: BaseException | None = None
    unhandled: list[str] = []
    recorded = nullcontext() if record is None else recorder.record(record)
    with _ALONE, _quiet(), recorded, tapped(tap):
        try:
            _run_on(backend, main, picker, world, stuck_after, unhandled)
        except Exception as raised:  # noqa: BLE001 - whatever it fails with is the finding
            error = raised
    error = _cause(world, error, unhandled)
    if error is None and leaks:
        error = _leaked(world)
    history = world.history()
    if world.stuck:
        history = history[: world.stuck[0][1]]
    picks, choices, chosen = picker.picks, picker.choices, tuple(picker.chosen)
    return Run(_name(scenario), backend, seed, picks, choices, chosen, history, error)


def _run_on(
    backend: Backend,
    main: Callable[[], Awaitable[None]],
    picker: Picker,
    world: _World,
    stuck_after: float,
    unhandled: list[str],
) -> None:
    if backend == "trio":
        from ioasid.testing._seeded_trio import seeded

        with seeded(picker, world.on_stuck, stuck_after) as clock:
            anyio.run(main, backend="trio", backend_options={"clock": clock})
        return

    def new_loop() -> SeededLoop:
        loop = SeededLoop(picker, world.on_stuck, stuck_after=stuck_after)
        loop.unhandled = unhandled
        return loop

    anyio.run(main, backend="asyncio", backend_options={"loop_factory": new_loop})


def _cause(
    world: _World, error: BaseException | None, unhandled: list[str]
) -> BaseException | None:
    # What was wrong first: everything else may follow from it.
    for core in world.cores:
        if core.violation is not None:
            return core.violation
    if world.stuck:
        return Stuck(world.stuck[0][0])
    if error is None and unhandled:
        return AssertionError(f"nobody handled: {unhandled[0]}")
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _leaked(world: _World) -> Leaked | None:
    left = [each for core in world.cores for each in core.leaks()]
    return Leaked("".join(f"\n    {each}" for each in left)) if left else None


def _who_waits() -> list[str]:
    # Every task with the innermost place that is not the event loop's own.
    found: list[str] = []
    for task in anyio.get_running_tasks():
        where = ""
        coroutine: Any = task.coro
        while coroutine is not None:
            kind = next(
                (each for each in ("cr", "gi", "ag") if hasattr(coroutine, f"{each}_frame")), ""
            )
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                place = place_of(frame, frame.f_lineno)
                where = f" at {place}" if place else where
            coroutine = getattr(
                coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None
            )
        name = task.name or ""
        if not name.startswith("<"):
            found.append(("the scenario" if name.endswith(MAIN) else name) + where)
    return sorted(found)


def _name(scenario: Scenario) -> str:
    return getattr(scenario, "__name__", repr(scenario))


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("ioasid")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


# -- the shortest schedule that fails ---------------------------------------------------------


def _shortest(
    scenario: Scenario, found: Run, *, leaks: bool, stuck_after: float, most: int
) -> ScheduleFailed:
    best = found
    tried = 0

    def fails(picks: Mapping[int, int]) -> bool:
        nonlocal best, tried
        if tried >= most:
            return False
        tried += 1
        run = replay(
            scenario, picks=picks, backend=found.backend, leaks=leaks, stuck_after=stuck_after
        )
        if run.error is None or run.kind != found.kind:
            return False
        best = run
        return True

    # First the part of the schedule after which first come, first served fails as well ...
    numbers = sorted(found.picks)
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if fails({number: found.picks[number] for number in numbers[:middle]}):
            high = middle
        else:
            low = middle + 1
    # ... then what of it is not needed, in ever smaller pieces.
    size = max(len(best.picks) // 2, 1)
    while best.picks and tried < most:
        left = sorted(best.picks)
        shorter = False
        for start in range(0, len(left), size):
            without = {n: best.picks[n] for n in left if n not in left[start : start + size]}
            if fails(without):
                shorter = True
                break
        if not shorter:
            if size == 1:
                break
            size = max(size // 2, 1)
    return ScheduleFailed(found, best, tried)
