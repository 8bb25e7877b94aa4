"""Pairs: contenders take turns in one process, and what counts is the ratio within a turn.

A machine that is busy with something else slows all contenders of a turn alike, so the median of
the paired ratios stands where the times themselves wander. That is why pyperf does not measure
the ratios: it gives each contender processes of its own, one after the other, and compares the
means. It does measure what has no partner, the plain calls in `benchmarks.calls`.
"""

import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Final, TypeAlias

from anyio import fail_after
from attrs import frozen

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
    """One measured figure, in the unit of its target."""

    name: str
    backend: str
    value: float
    """The median."""
    unit: str
    target: float | None
    """At most this; `None` for a figure that is only shown."""
    at_least: bool
    """Whether the target is a minimum instead."""
    quartiles: tuple[float, float]
    spread: tuple[float, float]
    """The lowest and the highest value."""
    repeats: int
    beside: Mapping[str, float]
    """The medians of what was compared, by contender."""
    beside_unit: str
    note: str
    """What has to be said beside it."""

    @property
    def is_missed(self) -> bool:
        """Tell whether the target is missed."""
        if self.target is None:
            return False
        return self.value < self.target if self.at_least else self.value > self.target


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


def figure(
    values: Sequence[float],
    *,
    name: str,
    backend: str,
    unit: str,
    target: float | None,
    at_least: bool = False,
    beside: Mapping[str, float] | None = None,
    beside_unit: str = "µs",
    note: str = "",
) -> Figure:
    """Return the figure that values measured again and again make."""
    lower, middle, upper = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    return Figure(
        name,
        backend,
        middle,
        unit,
        target,
        at_least,
        (lower, upper),
        (min(values), max(values)),
        len(values),
        beside or {},
        beside_unit,
        note,
    )


def compare(
    times: Mapping[str, Sequence[float]],
    ours: str,
    other: str,
    *,
    name: str,
    backend: str,
    unit: str,
    target: float | None,
    at_least: bool = False,
    note: str = "",
) -> Figure:
    """Return the figure of one contender's times over another's."""
    return figure(
        [mine / theirs for mine, theirs in zip(times[ours], times[other], strict=True)],
        name=name,
        backend=backend,
        unit=unit,
        target=target,
        at_least=at_least,
        beside={contender: median(each) * 1e6 for contender, each in times.items()},
        note=note,
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
