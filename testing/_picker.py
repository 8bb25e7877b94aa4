"""Which of several comes next: the choices of one schedule, drawn from a seed or given."""

import random
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Final, TypeVar

__all__ = ["choose"]

T = TypeVar("T")

SKEWS: Final = (1, 4, 32)
"""How much likelier a favoured task is picked than another, by schedule: 1 favours nobody."""


class Picker:
    """The choices of one schedule.

    With a `seed` they are random: some schedules pick everybody alike, others favour half of the
    tasks over the rest, so that a task may be passed over many times in a row, which picking
    everybody alike hardly ever does. Without a seed, choice number n is `picks[n]`, and the
    first in line where `picks` says nothing: without any picks, first come, first served. What
    happens beside it is numbered apart, below 0, and without a seed happens where `picks` says so.
    """

    def __init__(self, seed: int | None, picks: Mapping[int, int] | None = None) -> None:
        self._random = None if seed is None else random.Random(f"schedule {seed}")
        self._beside = None if seed is None else random.Random(f"beside schedule {seed}")
        self._asked = 0
        self._given = picks or {}
        self._skew = 1 if self._random is None else self._random.choice(SKEWS)
        self._weights: dict[object, int] = {}
        self.choices = 0
        """How many choices there were so far."""
        self.picks: dict[int, int] = {}
        """The choices that did not take the first in line, by number, and what happened beside."""
        self.chosen: list[str] = []
        """What the scenario chose, as it says of itself."""

    def pick(self, ready: Sequence[object]) -> int:
        """Choose one of those in line, 2 or more; returns its place, 0 for the first."""
        number = self.choices
        self.choices += 1
        picked = 0
        if self._random is None:
            picked = min(self._given.get(number, 0), len(ready) - 1)
        elif self._skew == 1:
            picked = int(self._random.random() * len(ready))
        else:
            weights = [self._weights.get(each) or self._weight(each) for each in ready]
            left = self._random.random() * sum(weights)
            while picked < len(weights) - 1 and left >= weights[picked]:
                left -= weights[picked]
                picked += 1
        if picked:
            self.picks[number] = picked
        return picked

    def happens(self, one_in: int) -> bool:
        """Tell whether something happens beside the schedule, that once in so many times does."""
        self._asked -= 1
        if self._beside is None:
            happens = self._asked in self._given
        else:
            happens = self._beside.random() * one_in < 1
        if happens:
            self.picks[self._asked] = 1
        return happens

    def _weight(self, owner: object) -> int:
        assert self._random is not None
        weight = self._weights[owner] = self._random.choice((1, self._skew))
        return weight


current: ContextVar[Picker] = ContextVar("picker")
"""The picker of the schedule that runs."""


def choose(options: Sequence[T]) -> T:
    """Choose one of several in a scenario: part of the schedule, as who runs next is.

    A shortest schedule takes the first option wherever that fails as well, so put what is plain
    first. Raises IndexError without options, and LookupError outside of an explored scenario:
    where `anyio.run(scenario)` would do, it is `replay(scenario)`, which takes the first options.
    """
    picker = current.get(None)
    if picker is None:
        raise LookupError(
            "choose is for scenarios that are explored; in place of anyio.run(scenario), "
            "replay(scenario) runs one with the first of all options"
        )
    option = options[picker.pick(range(len(options))) if len(options) > 1 else 0]
    picker.chosen.append(repr(option))
    return option
