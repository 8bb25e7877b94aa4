"""The ID space: which IOASIDs are taken, and by which set.

A bitmap of Python integers, 1,024 IDs to a word, with two levels above it that mark the words,
and the blocks of 1,024 words, that are full. The lowest zero bit of an integer `n` is the highest
bit of `~n & (n + 1)`, so finding the lowest free ID of any range takes at most a handful of such
steps, at any capacity. What is not stored is free: memory grows with the IDs in use and
not with the capacity.
"""

from array import array
from collections.abc import Iterator
from typing import Final

from attrs import define, field

__all__: list[str] = []

WORD_BITS: Final = 1024
SHIFT: Final = 10
MASK: Final = WORD_BITS - 1
FULL: Final = (1 << WORD_BITS) - 1


def lowest_zero(word: int) -> int:
    """Return the position of the lowest bit that is 0; there always is one."""
    return (~word & (word + 1)).bit_length() - 1


def ones(word: int) -> Iterator[int]:
    """Yield the positions of the bits that are 1, ascending."""
    while word:
        bit = word & -word
        yield bit.bit_length() - 1
        word ^= bit


def runs(word: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of 1 bits, ascending, as (first position, length)."""
    position = 0
    while word:
        zeros = (word & -word).bit_length() - 1
        word >>= zeros
        length = lowest_zero(word)
        yield position + zeros, length
        word >>= length
        position += zeros + length


def bits(first: int, last: int) -> int:
    """Return a word whose bits from `first` to `last`, both included, are 1."""
    return ((1 << (last - first + 1)) - 1) << first


@define
class IdSpace:
    """The IDs that are taken, each with the number of the set that owns it."""

    _used: dict[int, int] = field(factory=dict)
    _full_words: dict[int, int] = field(factory=dict)
    _full_blocks: int = 0
    _owners: dict[int, "array[int]"] = field(factory=dict)
    _run_first: int = 0
    _run_last: int = -1
    """A run of IDs that are all taken, so that filling up from below need not search."""

    def owner(self, ioasid: int) -> int | None:
        """Return the set that owns an ID, or `None` if it is free."""
        word = ioasid >> SHIFT
        if not self._used.get(word, 0) >> (ioasid & MASK) & 1:
            return None
        return self._owners[word][ioasid & MASK]

    def lowest_free(self, low: int, high: int) -> int | None:
        """Return the lowest free ID in [low, high], or `None` if all are taken."""
        start = self._run_last + 1 if self._run_first <= low <= self._run_last else low
        word = start >> SHIFT
        above = self._used.get(word, 0) >> (start & MASK)
        candidate = start + lowest_zero(above) if above else start
        if candidate >> SHIFT != word:
            word = self._next_open_word(word + 1)
            candidate = (word << SHIFT) + lowest_zero(self._used.get(word, 0))
        return candidate if candidate <= high else None

    def take_lowest(self, low: int, high: int, sid: int) -> int | None:
        """Mark the lowest free ID in [low, high] as taken by a set and return it, if any."""
        ioasid = self.lowest_free(low, high)
        if ioasid is not None:
            self.take(ioasid, sid)
            # All from `low` to here are taken now: where the next search from `low` begins.
            if not self._run_first <= low <= self._run_last + 1:
                self._run_first = low
            self._run_last = ioasid
        return ioasid

    def take(self, ioasid: int, sid: int) -> None:
        """Mark a free ID as taken by a set."""
        word = ioasid >> SHIFT
        used = self._used.get(word, 0) | 1 << (ioasid & MASK)
        self._used[word] = used
        owners = self._owners.get(word)
        if owners is None:
            owners = self._owners[word] = array("I", bytes(4 * WORD_BITS))
        owners[ioasid & MASK] = sid
        if used == FULL:
            self._mark_full(word)

    def release(self, word: int, released: int) -> None:
        """Mark the taken IDs of a word whose bits are 1 in `released` as free."""
        lowest = (word << SHIFT) + (released & -released).bit_length() - 1
        if lowest <= self._run_last:
            self._run_last = max(lowest, self._run_first) - 1
        used = self._used[word]
        if used == FULL:
            block = word >> SHIFT
            self._full_words[block] &= ~(1 << (word & MASK))
            self._full_blocks &= ~(1 << block)
        used &= ~released
        if used:
            self._used[word] = used
        else:
            del self._used[word]
            del self._owners[word]

    def lowest_ranges(self, count: int, low: int, high: int) -> list[tuple[int, int]] | None:
        """Return the `count` lowest free IDs in [low, high] as ranges, or `None` if too few."""
        ranges: list[tuple[int, int]] = []
        while count:
            start = self.lowest_free(low, high)
            if start is None:
                return None
            word = start >> SHIFT
            used = self._used.get(word, 0)
            if used:
                above = used >> (start & MASK)
                free = (above & -above).bit_length() - 1 if above else WORD_BITS - (start & MASK)
            else:
                free = WORD_BITS - (start & MASK)
            length = min(free, count, high - start + 1)
            if ranges and ranges[-1][1] == start - 1:
                ranges[-1] = (ranges[-1][0], start + length - 1)
            else:
                ranges.append((start, start + length - 1))
            count -= length
            low = start + length
            if count and low > high:
                return None
        return ranges

    def take_range(self, first: int, last: int, sid: int) -> Iterator[tuple[int, int]]:
        """Mark free IDs as taken by a set; yield each word touched with the bits it gained."""
        while first <= last:
            word = first >> SHIFT
            end = min(last, (word << SHIFT) | MASK)
            gained = bits(first & MASK, end & MASK)
            used = self._used.get(word, 0) | gained
            self._used[word] = used
            owners = self._owners.get(word)
            if owners is None:
                owners = self._owners[word] = array("I", bytes(4 * WORD_BITS))
            length = end - first + 1
            owners[first & MASK : (end & MASK) + 1] = array("I", [sid]) * length
            if used == FULL:
                self._mark_full(word)
            yield word, gained
            first = end + 1

    def is_free(self, first: int, last: int) -> bool:
        """Tell whether no ID from `first` to `last`, both included, is taken."""
        while first <= last:
            word = first >> SHIFT
            end = min(last, (word << SHIFT) | MASK)
            if self._used.get(word, 0) & bits(first & MASK, end & MASK):
                return False
            first = end + 1
        return True

    def _next_open_word(self, word: int) -> int:
        block = word >> SHIFT
        start = word & MASK
        candidate = start + lowest_zero(self._full_words.get(block, 0) >> start)
        if candidate < WORD_BITS:
            return (block << SHIFT) + candidate
        block += 1
        block += lowest_zero(self._full_blocks >> block)
        return (block << SHIFT) + lowest_zero(self._full_words.get(block, 0))

    def _mark_full(self, word: int) -> None:
        block = word >> SHIFT
        full = self._full_words.get(block, 0) | 1 << (word & MASK)
        self._full_words[block] = full
        if full == FULL:
            self._full_blocks |= 1 << block
