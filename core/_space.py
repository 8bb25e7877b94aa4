"""The ID space: which IOASIDs are taken, and by which set.

A bitmap of Python integers, 1,024 IDs to a word, with two levels above it that mark the words,
and the blocks of 1,024 words, that are full. The lowest zero bit of an integer `n` is the highest
bit of `n ^ (n + 1)`, so finding the lowest free ID of any range takes at most a handful of such
steps, at any capacity. What is not stored is free: memory grows with the IDs in use and
not with the capacity.
"""

import re
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import define, field

__all__: list[str] = []

WORD_BITS: Final = 1024
SHIFT: Final = 10
MASK: Final = WORD_BITS - 1
FULL: Final = (1 << WORD_BITS) - 1
_ONES: Final = re.compile("1+")


def lowest_zero(word: int) -> int:
    """Return the position of the lowest bit that is 0; there always is one."""
    return (word ^ (word + 1)).bit_length() - 1


def lowest_one(word: int) -> int:
    """Return the position of the lowest bit that is 1; 0 if there is none."""
    return (word ^ (word - 1)).bit_length() - 1


def ones(word: int) -> Iterator[int]:
    """Yield the positions of the bits that are 1, ascending."""
    while word:
        bit = word & -word
        yield bit.bit_length() - 1
        word ^= bit


def runs(word: int, base: int = 0) -> list[tuple[int, int]]:
    """Return the runs of 1 bits, ascending, as (first, last) position, counted from `base`.

    Read off the digits: where runs are many, shifting the word along costs five times that.
    """
    low = lowest_one(word)
    found = map(re.Match.span, _ONES.finditer(f"{word >> low:b}"[::-1]))
    first, last = base + low, base + low - 1
    return [(first + start, last + end) for start, end in found]


def bits(first: int, last: int) -> int:
    """Return a word whose bits from `first` to `last`, both included, are 1."""
    return ((1 << (last - first + 1)) - 1) << first


def words(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield ranges of IDs, (first, last), as (number of the word, its bits); ascending, once each.

    Ranges out of order are in a word that comes again, and overlapping ones have fewer bits.
    """
    number = gained = 0
    for first, last in ranges:
        start = first
        while start <= last:
            if start >> SHIFT != number:
                if gained:
                    yield number, gained
                number, gained = start >> SHIFT, 0
            end = (number << SHIFT) | MASK
            if last < end:
                end = last
            gained |= bits(start & MASK, end & MASK)
            start = end + 1
    if gained:
        yield number, gained


_NO_OWNERS: Final = array("I", bytes(4)) * WORD_BITS
"""What a new word begins with; a copy costs a fourth of making it anew."""


@define
class Word:
    """The taken IDs of one word of the ID space: a bit each, and by position who owns it."""

    used: int = 0
    owners: "array[int]" = field(factory=lambda: _NO_OWNERS[:])


@define
class IdSpace:
    """The IDs that are taken, each with the number of the set that owns it.

    Whoever takes or releases IDs for a set passes the set's members along, a bit each by word of
    the space: they are marked in the same step.
    """

    _words: dict[int, Word] = field(factory=dict)
    _full_words: dict[int, int] = field(factory=dict)
    _full_blocks: int = 0
    _run_first: int = 0
    _run_end: int = 0
    """From `_run_first` up to here all IDs are taken: filling up from below need not search."""
    _spare: Word | None = None
    """The word that was emptied last, for the next that begins."""

    def owner(self, ioasid: int) -> int | None:
        """Return the set that owns an ID, or `None` if it is free."""
        word = self._words.get(ioasid >> SHIFT)
        position = ioasid & MASK
        if word is None or not word.used >> position & 1:
            return None
        return word.owners[position]

    def lowest_free(self, low: int, high: int) -> int | None:
        """Return the lowest free ID in [low, high], or `None` if all are taken."""
        number = low >> SHIFT
        above = self.used(number) >> (low & MASK)
        candidate = low + lowest_zero(above) if above else low
        if candidate >> SHIFT != number:
            number = self._next_open_word(number + 1)
            candidate = (number << SHIFT) + lowest_zero(self.used(number))
        return candidate if candidate <= high else None

    def take_lowest(self, low: int, high: int, sid: int, members: dict[int, int]) -> int | None:
        """Give the lowest free ID in [low, high] to a set and return it, if there is one."""
        first = self._run_first
        ioasid = self._run_end
        if not first <= low <= ioasid:
            first = ioasid = low
        if ioasid > high:
            return None
        number, position = ioasid >> SHIFT, ioasid & MASK
        word = self._words.get(number)
        if word is not None and word.used >> position & 1:
            found = self.lowest_free(ioasid, high)
            if found is None:
                return None
            ioasid = found
            number, position = ioasid >> SHIFT, ioasid & MASK
            word = self._words.get(number)
        # All from `first` to here are taken now: where the next search from `low` begins.
        self._run_first = first
        self._run_end = ioasid + 1
        bit = 1 << position
        if word is None:
            word = self._words[number] = self._spare or Word()
            self._spare = None
        word.owners[position] = sid
        word.used |= bit
        members[number] = members.get(number, 0) | bit
        if word.used == FULL:
            self._mark_full(number)
        return ioasid

    def release(self, lowest: int, released: int, members: dict[int, int]) -> None:
        """Take IDs of one word back from their set: the bits in `released`, `lowest` the first."""
        number = lowest >> SHIFT
        word = self._words[number]
        if word.used == FULL:
            self._unmark_full(number)
        word.used ^= released
        if not word.used:
            self._spare = self._words.pop(number)
        rest = members[number] ^ released
        if rest:
            members[number] = rest
        else:
            del members[number]
        if lowest < self._run_end:
            self._run_end = lowest

    def lowest_ranges(self, count: int, low: int, high: int) -> list[tuple[int, int]] | None:
        """Return the `count` lowest free IDs in [low, high] as ranges, or `None` if too few."""
        ranges: list[tuple[int, int]] = []
        while count:
            start = self.lowest_free(low, high)
            if start is None:
                return None
            number = start >> SHIFT
            above = self.used(number) >> (start & MASK)
            free = lowest_one(above) if above else WORD_BITS - (start & MASK)
            length = min(free, count, high - start + 1)
            if ranges and ranges[-1][1] == start - 1:
                ranges[-1] = (ranges[-1][0], start + length - 1)
            else:
                ranges.append((start, start + length - 1))
            count -= length
            low = start + length
        return ranges

    def take_word(self, number: int, gained: int, sid: int, members: dict[int, int]) -> None:
        """Give the free IDs of a word whose bits are 1 in `gained` to a set."""
        word = self._words.get(number)
        if word is None:
            # Who owns a free ID does not matter, so the set may stand at every position.
            word = self._words[number] = Word(gained, array("I", [sid]) * WORD_BITS)
        else:
            word.used |= gained
            for first, last in runs(gained):
                word.owners[first : last + 1] = array("I", [sid]) * (last - first + 1)
        members[number] = members.get(number, 0) | gained
        if word.used == FULL:
            self._mark_full(number)

    def used(self, number: int) -> int:
        """Return the taken IDs of a word, a bit each."""
        word = self._words.get(number)
        return 0 if word is None else word.used

    def _next_open_word(self, number: int) -> int:
        block = number >> SHIFT
        start = number & MASK
        candidate = start + lowest_zero(self._full_words.get(block, 0) >> start)
        if candidate < WORD_BITS:
            return (block << SHIFT) + candidate
        block += 1
        block += lowest_zero(self._full_blocks >> block)
        return (block << SHIFT) + lowest_zero(self._full_words.get(block, 0))

    def _mark_full(self, number: int) -> None:
        block = number >> SHIFT
        full = self._full_words.get(block, 0) | 1 << (number & MASK)
        self._full_words[block] = full
        if full == FULL:
            self._full_blocks |= 1 << block

    def _unmark_full(self, number: int) -> None:
        block = number >> SHIFT
        self._full_words[block] &= ~(1 << (number & MASK))
        self._full_blocks &= ~(1 << block)
