"""The deadlines of subscribers: who has not acknowledged in time, said once and by name.

Looking at who lags costs as much as there are that lag, so it is done when a deadline that is
known of passes, and after something happened, at most once in the shortest deadline there is. An
allocator in which nothing happens is left alone.
"""

import logging
from collections import Counter
from math import inf
from typing import Final

from attrs import define, field

from ioasid.core import Allocator
from ioasid.core._errors import shown

__all__: list[str] = []

logger = logging.getLogger("ioasid")

LEAST_WAIT: Final = 0.001
"""Seconds; never so short that a rounded clock does not move."""

CRASHED_WAIT: Final = 1.0
"""Seconds; how late it may be noticed at most that a subscriber that crashed begins to lag."""


@define(eq=False)
class Deadlines:
    """The deadlines of an allocator's subscribers."""

    core: Allocator
    pace: float = inf
    """How long after something happened to look, in seconds: the shortest deadline there may be."""
    alarm: float = inf
    """When to look next."""
    _suspended: set[int] | None = field(factory=set)
    """Subscriptions whose subscribers crashed: when they go, nobody is told. `None` for all there
    are, after the crash of a process."""
    _within: dict[int, float] = field(factory=dict)
    """The deadline of every subscription that is attached and has one."""
    _users: Counter[float] = field(factory=Counter)
    """How many of them have the same."""
    _reported: set[tuple[int, int]] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        """Look after those of a snapshot, too."""
        if self._suspended is None:
            self._set_pace()

    def begin(self, subscription: int, within: float | None) -> None:
        """Look after a subscription, unless it has all the time there is."""
        self._forget(subscription)
        if within is not None:
            self._within[subscription] = within
            self._users[within] += 1
            if within < self.pace:
                self._set_pace()

    def end(self, subscription: int) -> None:
        """Look after a subscription no more that has ended, or as after one that crashed."""
        self._forget(subscription)
        if self._suspended is not None and self.core.suspended((subscription,)):
            self._suspended.add(subscription)
            self._set_pace()

    def _forget(self, subscription: int) -> None:
        within = self._within.pop(subscription, None)
        if within is not None:
            self._users[within] -= 1
            if not self._users[within]:
                del self._users[within]
                self._set_pace()

    def _set_pace(self) -> None:
        shortest = min(self._users, default=inf)
        crashed = self._suspended is None or self._suspended
        self.pace = max(min(shortest, CRASHED_WAIT) if crashed else shortest, LEAST_WAIT)

    def look(self, now: float) -> None:
        """Log who is overdue and was not logged for that message before."""
        if self._suspended is None or self._suspended:
            self._suspended = self.core.suspended(self._suspended)
            self._set_pace()
        due = [each for each in self.core.lagging() if each.acknowledge_within is not None]
        overdue = [each for each in due if each.overdue]
        for each in overdue:
            if (each.subscription, each.oldest_seq) not in self._reported:
                logger.warning(
                    "subscriber %s (subscription %d to %s) has not acknowledged message %d "
                    "for %.1f s; what it holds stays in quarantine until it does or is evicted",
                    _on_a_line(each.holder),
                    each.subscription,
                    each.scope,
                    each.oldest_seq,
                    each.oldest_age,
                )
        self._reported = {(each.subscription, each.oldest_seq) for each in overdue}
        waits = [
            each.acknowledge_within - each.oldest_age
            for each in due
            if not each.overdue and each.acknowledge_within is not None
        ]
        self.alarm = now + max(min(waits), LEAST_WAIT) if waits else inf


def _on_a_line(name: str) -> str:
    # Whoever chooses a name writes no line of a log with it.
    return name if name.isprintable() else shown(name)
