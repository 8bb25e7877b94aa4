"""Pairs: contenders take turns in one process, and what counts is the ratio within a turn.

A machine that is busy with something else slows all contenders of a turn alike, so the median of
the paired ratios stands where the times themselves wander. That is also why pyperf is not used:
it gives each contender processes of its own, minutes apart, and compares the means. Its steps
that matter here are kept: a warm-up, many repeats, a robust average, the spread beside it.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Final, TypeAlias

from anyio import fail_after
from attrs import field, frozen

Pass: TypeAlias = Callable[[], Awaitable[float]]
"""Does a contender's work once, checks it, and returns the seconds that one operation took."""

PATIENCE: Final = 60
"""Seconds that a pass may take at most. A lost message is waited for in vain."""


class Lost(Exception):
    """A reply or a delivery is missing, or not the right one: there is no figure then."""


@frozen
class Plan:
    """How thoroughly to measure."""

    repeats: int
    quick: bool
    collecting: bool
    """Whether the garbage collector stays on during a pass."""

    def scaled(self, full: int, quick: int) -> int:
        """Return the size of something, which is smaller if it is to be quick."""
        return quick if self.quick else full


@frozen
class Figure:
    """One measured ratio."""

    name: str
    backend: str
    value: float
    """The median of the paired ratios."""
    unit: str
    target: float | None
    """At most this; `None` for a figure that is only shown."""
    quartiles: tuple[float, float]
    spread: tuple[float, float]
    """The lowest and the highest of the paired ratios."""
    repeats: int
    microseconds: Mapping[str, float] = field(factory=dict)
    """The median time of one operation, by contender."""

    @property
    def is_over(self) -> bool:
        """Tell whether the target is missed."""
        return self.target is not None and self.value > self.target


async def take_turns(contenders: Mapping[str, Pass], plan: Plan) -> dict[str, list[float]]:
    """Run every contender once per round, back and forth; return the times by contender.

    The order turns round from one round to the next (A B, B A, A B, ...), so that whatever
    drifts evenly favours nobody. The first round warms up and is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    with _garbage_kept():
        for number in range(plan.repeats + 1):
            for name in order:
                gc.collect()
                if plan.collecting:
                    gc.enable()
                try:
                    with fail_after(PATIENCE):
                        seconds = await contenders[name]()
                except TimeoutError:
                    raise Lost(f"{name}: something did not come within {PATIENCE} s") from None
                gc.disable()
                if number:
                    times[name].append(seconds)
            order.reverse()
    return times


def compare(
    times: Mapping[str, Sequence[float]],
    ours: str,
    other: str,
    *,
    name: str,
    backend: str,
    unit: str,
    target: float | None,
) -> Figure:
    """Return the figure of one contender's times over another's."""
    ratios = [mine / theirs for mine, theirs in zip(times[ours], times[other], strict=True)]
    lower, middle, upper = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return Figure(
        name,
        backend,
        middle,
        unit,
        target,
        (lower, upper),
        (min(ratios), max(ratios)),
        len(ratios),
        {contender: median(each) * 1e6 for contender, each in times.items()},
    )


def require(expected: object, actual: object, what: str) -> None:
    """Raise `Lost` unless two things are equal."""
    if expected != actual:
        raise Lost(f"{what}: expected {expected!r:.80}, got {actual!r:.80}")


@contextmanager
def _garbage_kept() -> Iterator[None]:
    # What was set up before is frozen, so that a collection between the passes does not look
    # through it, however much it is.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
