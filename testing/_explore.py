"""Run a scenario under many schedules, and show the one under which it fails.

A scenario is an async function without arguments over real actors. One seed is one schedule, in
every process: who runs next at every point where several could. Every allocator that a scenario
opens checks the invariants after every request that may have changed something.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import anyio
from attrs import define, field, frozen

from ioasid.actors._allocator import core_type
from ioasid.testing._loop import SeededLoop, Stuck
from ioasid.testing._picker import Picker, current
from ioasid.testing._recorder import CheckedAllocator, Line
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

THOROUGH: Final = 16
"""Of so many seeds, one looks at every refusal besides: whether it changed nothing."""


LOOPS: Final = frozenset(("anyio", "asyncio", "trio", "contextlib.py"))
"""What a report of who waits does not look into."""

MAIN: Final = "_run.<locals>.main"


class Leaked(AssertionError):
    """A scenario ended and something of its holders was left in an allocator."""


@frozen
class Run:
    """What one schedule came to."""

    scenario: str
    backend: Backend
    seed: int | None
    """`None` for a schedule that is given by its picks alone."""
    picks: Mapping[int, int]
    """The choices that did not take the first in line: place taken, by number of the choice."""
    choices: int
    """How many choices there were."""
    history: tuple[Line, ...]
    """Every request that an allocator decided, in order, up to the failure."""
    error: BaseException | None
    """Why it failed; raise it to see the traceback. `None` if it did not."""

    @property
    def text(self) -> str:
        """The history, a request per line with what it set off below; the same every time."""
        return "\n".join(map(str, self.history))

    @property
    def failure(self) -> str:
        """Why it failed, in words; empty if it did not."""
        if self.error is None:
            return ""
        if isinstance(self.error, InvariantViolated | Leaked | Stuck):
            return f"{type(self.error).__name__}: {self.error}"
        return f"{type(self.error).__name__}: {self.error!s}".rstrip(": ")

    @property
    def kind(self) -> str:
        """What kind of failure it is: two of one kind are taken for the same."""
        if isinstance(self.error, InvariantViolated):
            return f"invariant {self.error.number}"
        return type(self.error).__name__


@frozen
class Explored:
    """What was explored without a failure."""

    schedules: int
    distinct: int
    """How many different histories there were among them."""
    requests: int
    """How many requests were decided; those that may change something were checked after."""


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
                "",
                shortest.text,
                "",
                "To run exactly these again:",
                f"  replay({found.scenario}, {found.seed}{where})",
                f"  replay({found.scenario}, picks={dict(shortest.picks)!r}{where})",
            )
        )


def explore(
    scenario: Scenario,
    seeds: Iterable[int] = range(1000),
    *,
    backend: Backend = "asyncio",
    leaks: bool = True,
    patience: float = 3600.0,
    shrink: int = 300,
    progress: Callable[[int], object] | None = None,
) -> Explored:
    """Run a scenario under one schedule per seed; returns what was explored.

    With `leaks`, a scenario fails, too, if it leaves a holder besides the first, a reference, a
    subscription, a waiting request or an ID in quarantine behind in an allocator that ended in
    order. `patience` is how many seconds of virtual time may pass before a scenario that does
    nothing is taken to be stuck, above 0. A failure is repeated with up to `shrink` other
    schedules, 0 or more, to find a short one. `progress` is called after every schedule with how
    many there were. Call it outside of any event loop; it silences the logger "ioasid" meanwhile.

    Raises `ScheduleFailed` for the first schedule that fails.
    """
    histories: set[int] = set()
    schedules = requests = 0
    for seed in seeds:
        run = _run(scenario, backend, Picker(seed), seed, leaks=leaks, patience=patience)
        if run.error is not None:
            raise _shortest(scenario, run, leaks=leaks, patience=patience, most=shrink)
        schedules += 1
        requests += len(run.history)
        histories.add(hash(run.text))
        if progress is not None:
            progress(schedules)
    return Explored(schedules, len(histories), requests)


def replay(
    scenario: Scenario,
    seed: int | None = None,
    *,
    picks: Mapping[int, int] | None = None,
    backend: Backend = "asyncio",
    leaks: bool = True,
    patience: float = 3600.0,
) -> Run:
    """Run exactly one schedule again: that of a seed, or the one that a report names by `picks`.

    Without either it is first come, first served. The other arguments are those of `explore`,
    and have to be the same. Returns what it came to, a failure included.
    """
    picker = Picker(seed, picks)
    return _run(scenario, backend, picker, seed, leaks=leaks, patience=patience)


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
    patience: float,
) -> Run:
    world = _World()
    thorough = seed is None or seed % THOROUGH == 0

    class Core(CheckedAllocator):
        def _set_up(self, tables: Any) -> None:
            self.thorough = thorough
            super()._set_up(tables)
            world.cores.append(self)

    async def main() -> None:
        core_type.set(Core)
        current.set(picker)
        with anyio.CancelScope() as world.scope:
            await scenario()

    error: BaseException | None = None
    unhandled: list[str] = []
    with _quiet():
        try:
            _run_on(backend, main, picker, world, patience, unhandled)
        except Exception as raised:  # noqa: BLE001 - whatever it fails with is the finding
            error = raised
    error = _cause(world, error, unhandled)
    if error is None and leaks:
        error = _leaked(world)
    history = world.history()
    if world.stuck:
        history = history[: world.stuck[0][1]]
    return Run(_name(scenario), backend, seed, picker.picks, picker.choices, history, error)


def _run_on(
    backend: Backend,
    main: Callable[[], Awaitable[None]],
    picker: Picker,
    world: _World,
    patience: float,
    unhandled: list[str],
) -> None:
    if backend == "trio":
        from ioasid.testing._seeded_trio import seeded

        with seeded(picker, world.on_stuck, patience) as clock:
            anyio.run(main, backend="trio", backend_options={"clock": clock})
        return

    def new_loop() -> SeededLoop:
        loop = SeededLoop(picker, world.on_stuck, patience=patience)
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
                place = frame.f_code.co_filename.replace("\\", "/").split("/")
                if not LOOPS & {*place, place[-1]}:
                    where = f" at {'/'.join(place[-2:])}:{frame.f_lineno}, {frame.f_code.co_name}"
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
    scenario: Scenario, found: Run, *, leaks: bool, patience: float, most: int
) -> ScheduleFailed:
    best = found
    tried = 0

    def fails(picks: Mapping[int, int]) -> bool:
        nonlocal best, tried
        if tried >= most:
            return False
        tried += 1
        run = replay(scenario, picks=picks, backend=found.backend, leaks=leaks, patience=patience)
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
