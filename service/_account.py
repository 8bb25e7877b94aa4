"""What a server counts since it began: what it was asked, how long that took, what it refused."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from time import perf_counter
from typing import Final

from attrs import frozen

from ioasid.core import IoasidError
from ioasid.service._memory import Asked

__all__ = ["Asks"]

BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
"""In seconds; what took longer is beyond the last."""


@frozen
class Asks:
    """What was asked: how many `by_request`, and how long it took, but for what waits."""

    by_request: Mapping[str, int]
    took: tuple[tuple[float, int], ...]
    """How many answers came within so many seconds; the last bound is infinite."""
    seconds: float
    """All of their time."""


class Account:
    """What a server counts."""

    __slots__ = ("_by_kind", "_refusals", "_seconds", "_took", "accepted")

    def __init__(self) -> None:
        self.accepted = 0
        """Connections that came, the refused ones included."""
        self._refusals: dict[str, int] = {}
        self._by_kind: defaultdict[type, int] = defaultdict(int)
        self._took = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def refuse(self, error: IoasidError) -> None:
        """Count a refusal."""
        name = type(error).__name__
        self._refusals[name] = self._refusals.get(name, 0) + 1

    def answer(self, asked: Asked) -> None:
        """Count an answer of the allocator, a refusal or not."""
        self._by_kind[type(asked.request)] += 1
        if not asked.waits:
            seconds = perf_counter() - asked.began
            self._seconds += seconds
            self._took[bisect_left(BOUNDS, seconds)] += 1

    @property
    def refusals(self) -> dict[str, int]:
        """How many were refused, by the name of the error."""
        return dict(self._refusals)

    @property
    def asks(self) -> Asks:
        """What was asked."""
        by_request = {kind.__name__: count for kind, count in self._by_kind.items()}
        return Asks(
            by_request,
            tuple(zip((*BOUNDS, float("inf")), self._took, strict=True)),
            self._seconds,
        )
