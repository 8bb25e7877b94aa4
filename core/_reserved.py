"""The numbers that are never given out, as ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Final

from attrs import define, field

__all__: list[str] = []

ZERO: Final = ((0, 0),)
"""What is reserved from the start: PASID 0 means "DMA without PASID"."""


@define(eq=False)
class Reserved:
    """Ranges of numbers, (first, last): ascending, with a gap between any two."""

    count: int = 0
    """How many numbers they have."""
    _firsts: list[int] = field(factory=list)
    _lasts: list[int] = field(factory=list)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges, ascending."""
        return zip(self._firsts, self._lasts, strict=True)

    def add(self, first: int, last: int) -> None:
        """Add numbers, none of which is in any of the ranges."""
        self.count += last - first + 1
        start = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        # At most its two neighbours touch it.
        if start < end:
            first = min(first, self._firsts[start])
            last = max(last, self._lasts[end - 1])
        self._replace(start, end, [(first, last)])

    def remove(self, first: int, last: int) -> None:
        """Take numbers out, all of which are in the ranges."""
        self.count -= last - first + 1
        index = bisect_left(self._lasts, first)
        rest = [
            (low, high)
            for low, high in ((self._firsts[index], first - 1), (last + 1, self._lasts[index]))
            if low <= high
        ]
        self._replace(index, index + 1, rest)

    def lowest_missing(self, first: int, last: int) -> int | None:
        """Return the lowest number from `first` to `last` in none of the ranges, if there is one.

        Numbers that are all there are in one range, for ranges have gaps between them.
        """
        index = bisect_left(self._lasts, first)
        if index == len(self._lasts) or self._firsts[index] > first:
            return first
        end = self._lasts[index]
        return end + 1 if end < last else None

    def _replace(self, start: int, end: int, ranges: list[tuple[int, int]]) -> None:
        self._firsts[start:end] = [first for first, _ in ranges]
        self._lasts[start:end] = [last for _, last in ranges]
