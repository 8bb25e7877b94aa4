"""The ID space: which IOASIDs are taken, and by which set.

A bitmap of Python integers, 1,024 IDs to a word, with two levels above it that mark the words,
and the blocks of 1,024 words, that are full. The lowest zero bit of an integer `n` is the highest
bit of `n ^ (n + 1)`, so finding the lowest free ID of any range takes at most a handful of such
steps, at any capacity. What is not stored is free: memory grows with the IDs in use and
not with the capacity. IDs that are withheld are marked as taken and have no owner; of a whole word
of them there is only the mark that it is full.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Final, Generic, TypeVar

from attrs import define, field

__all__: list[str] = []

WORD_BITS: Final = 1024
SHIFT: Final = 10
MASK: Final = WORD_BITS - 1
FULL: Final = (1 << WORD_BITS) - 1
_DIGITS: Final = bytes.maketrans(b"01", b"\x00\x01")
_POSITIONS: Final = tuple(range(WORD_BITS))
_MANY: Final = 48
"""As many bits of a word are found for less by reading off its digits than one after the other."""


WORD_COST: Final = 32
"""What looking through a word counts for, in IDs, where the work of a request is measured."""


def lowest_zero(word: int) -> int:
    """Return the position of the lowest bit that is 0; there always is one."""
    return (word ^ (word + 1)).bit_length() - 1


def lowest_one(word: int) -> int:
    """Return the position of the lowest bit that is 1; 0 if there is none."""
    return (word ^ (word - 1)).bit_length() - 1


def ones(word: int) -> Iterator[int]:
    """Return the positions of the bits of a word that are 1, ascending."""
    if word.bit_count() < _MANY:
        return _one_by_one(word)
    return compress(_POSITIONS, _selectors(word))


def _one_by_one(word: int) -> Iterator[int]:
    while word:
        bit = word & -word
        yield bit.bit_length() - 1
        word ^= bit


def lowest_ones(word: int, count: int) -> int:
    """Return the lowest `count` of the bits that are 1, or all of them if they are fewer."""
    if word.bit_count() <= count:
        return word

    def below(width: int) -> int:
        return (word & ((1 << width) - 1)).bit_count()

    width = bisect_left(range(word.bit_length()), count, key=below)
    return word & ((1 << width) - 1)


def runs(word: int, base: int = 0) -> list[tuple[int, int]]:
    """Return the runs of 1 bits, ascending, as (first, last) position, counted from `base`."""
    low = lowest_one(word)
    digits = word >> low
    if digits and not digits & (digits + 1):
        # A single run, as most are, needs no looking for.
        return [(base + low, base + low + digits.bit_length() - 1)]
    edges = zip(ones(word & ~(word << 1)), ones(word & ~(word >> 1)), strict=True)
    return [(base + first, base + last) for first, last in edges]


def ranges_of(chosen: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (the ID of a word's first bit, its bits), ascending, as ranges that don't touch."""
    ranges: list[tuple[int, int]] = []
    for base, word in chosen:
        found = runs(word, base) if word else []
        if ranges and found and ranges[-1][1] == found[0][0] - 1:
            found[0] = (ranges.pop()[0], found[0][1])
        ranges += found
    return ranges


def is_one_run(word: int) -> bool:
    """Tell whether the bits that are 1 in a word are all of its lowest ones."""
    return not word & (word + 1)


def _selectors(word: int) -> bytes:
    # A 0 or 1 for each bit, the lowest first.
    return f"{word:b}"[::-1].encode().translate(_DIGITS)


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


_FEW: Final = 8
"""As many numbers are looked at one by one for less than comparing them at once costs."""


def _last_counting(lives: "array[int]", low: int, high: int, step: int) -> int:
    # How far generations go on from `low` as they begin, `step` by `step`.
    last, expected = low, lives[low] + step
    few = min(high, low + _FEW)
    while last < few and lives[last + 1] == expected:
        last += 1
        expected += step
    length = high - last if last == few else 0
    # What is long is compared piece by piece: all that is left, or half of that, and so on.
    while length:
        end = last + length
        if lives[last + 1 : end + 1] == _counting(lives.typecode, expected, length, step):
            last, expected, length = end, expected + step * length, high - end
        else:
            length >>= 1
    return last


def _counting(typecode: str, first: int, count: int, step: int) -> "array[int]":
    if not step:
        return array(typecode, [first]) * count
    if typecode == "I" and first + count <= len(_UP):
        return _UP[first : first + count]
    return array(typecode, range(first, first + count))


_UP: Final = array("I", range(4 * WORD_BITS))
"""What counts up from near the lowest generation of a word, as most do."""

WITHHELD: Final = 0
"""The slot of whoever owns an ID that is withheld, which is nobody."""
_NO_OWNERS: Final = array("I", bytes(4)) * WORD_BITS
"""What a new word begins with; a copy costs a fourth of making it anew."""
_SHORT: Final = 8
"""In runs of fewer than so many on average, to put them one by one costs less than run by run."""
_SAME: Final = array("I")
"""The generations of a word whose IDs are all of one."""


@define
class Word:
    """The taken IDs of one word of the ID space: a bit each, and by position whose and which life.

    An owner is named by its slot in the space, which is small, and used again when it is gone. A
    generation is how far it is from `base`, the lowest of the word: four bytes are enough for one,
    until a word was never empty for 2^32 allocations. Where all have one generation, as after
    `alloc_many`, there are none.
    """

    used: int = 0
    owners: "array[int]" = field(factory=lambda: _NO_OWNERS[:])
    base: int = 0
    generations: "array[int]" = _SAME

    def give(self, gained: int, slot: int, generation: int) -> None:
        """Give IDs, a bit each, to an owner, in a life of this generation."""
        if self.generations or generation != self.base:
            self.make_room(generation, generation)
        _put(self.owners, gained, slot)
        if self.generations:
            _put(self.generations, gained, generation - self.base)

    def make_room(self, lowest: int, highest: int) -> None:
        """See to it that there is a place by position for generations in this range."""
        if not self.generations:
            self.generations = _NO_OWNERS[:]
        if lowest < self.base:
            # While IDs are allocated, generations count up: this is for who restores.
            less, self.base = self.base - lowest, lowest
            self.generations = array("Q", [each + less for each in self.generations])
        if highest - self.base >> 32 and self.generations.typecode == "I":
            self.generations = array("Q", self.generations)


def _put(values: "array[int]", places: int, value: int) -> None:
    # A value at many places, a bit each.
    short = (places & ~(places << 1)).bit_count() * _SHORT > places.bit_count()
    if short:
        for place in ones(places):
            values[place] = value
        return
    for first, last in runs(places):
        values[first : last + 1] = array(values.typecode, [value]) * (last - first + 1)


@define(eq=False)
class Owner:
    """Who owns IDs of a space: how many, and which."""

    sid: int
    slot: int = field(default=-1, init=False)
    """Its number in the space, as long as it is there."""
    allocated: int = field(default=0, kw_only=True)
    members: dict[int, int] = field(factory=dict, kw_only=True)
    """Its IDs, a bit each, by word of the space."""


OwnerT = TypeVar("OwnerT", bound=Owner)


@define
class IdSpace(Generic[OwnerT]):
    """The IDs that are taken, each with its owner and the generation of its life.

    Whoever takes or releases IDs names the owner: its members and what it has allocated move in
    the same step as the bits, here and nowhere else.
    """

    _owners: list[OwnerT | None] = field(factory=lambda: [None])
    """By slot; the first one is that of nobody."""
    _free_slots: list[int] = field(factory=list)
    _words: dict[int, Word] = field(factory=dict)
    _full_words: dict[int, int] = field(factory=dict)
    _full_blocks: int = 0
    _run_first: int = 0
    _run_end: int = 0
    """From `_run_first` up to here all IDs are taken: filling up from below need not search."""
    _spare: Word | None = None
    """The word that was emptied last, for the next that begins."""

    @property
    def live(self) -> int:
        """How many IDs are taken."""
        return sum(owner.allocated for owner in self._owners if owner is not None)

    def join(self, owner: OwnerT) -> None:
        """Let an owner have IDs from now on."""
        if self._free_slots:
            owner.slot = self._free_slots.pop()
            self._owners[owner.slot] = owner
        else:
            owner.slot = len(self._owners)
            self._owners.append(owner)

    def part(self, owner: OwnerT) -> None:
        """Forget an owner that has no IDs."""
        self._owners[owner.slot] = None
        self._free_slots.append(owner.slot)

    def owner(self, ioasid: int) -> OwnerT | None:
        """Return who owns an ID, or `None` if it is free or withheld."""
        word = self._words.get(ioasid >> SHIFT)
        position = ioasid & MASK
        if word is None or not word.used >> position & 1:
            return None
        return self._owners[word.owners[position]]

    def generation(self, ioasid: int) -> int:
        """Return the generation of a taken ID."""
        word = self._words[ioasid >> SHIFT]
        return word.base + (word.generations[ioasid & MASK] if word.generations else 0)

    def generations(self, first: int, last: int) -> list[int]:
        """Return the generations of taken IDs of one word, from `first` to `last`."""
        word = self._words[first >> SHIFT]
        base, found = word.base, word.generations[first & MASK : (last & MASK) + 1]
        return [base + each for each in found] if found else [base] * (last - first + 1)

    def live_ranges(self, number: int, used: int) -> list[tuple[int, int, int, int]]:
        """Return taken IDs of a word, a bit each in `used`, as ranges by ID and generation.

        Each is (first, last, generation of the first, 0 or 1 more of each next one).
        """
        word = self._words[number]
        start, base, lives = number << SHIFT, word.base, word.generations
        if not lives:
            return [(first, last, base, 0) for first, last in runs(used, start)]
        found = []
        for first, high in runs(used):
            low = first
            while low <= high:
                step = lives[low + 1] - lives[low] if low < high else 0
                last = _last_counting(lives, low, high, step) if step in (0, 1) else low
                found.append((start + low, start + last, base + lives[low], step * (last > low)))
                low = last + 1
        return found

    def lives(self, number: int, used: int) -> "tuple[int, array[int]]":
        """Return the generations of some taken IDs of a word, a bit each in `used`, ascending.

        They are how far each one's is from a first number, which they come with; none of them if
        all are the same.
        """
        word = self._words[number]
        found = word.generations
        if found and used != FULL:
            low = lowest_one(used)
            if is_one_run(used >> low):
                found = found[low : used.bit_length()]
            else:
                found = array(found.typecode, compress(found, _selectors(used)))
        return word.base, found

    def set_lives(
        self, number: int, used: int, lowest: int, offsets: Sequence[int], highest: int
    ) -> None:
        """Give the taken IDs of a word, a bit each in `used`, their generations, ascending.

        They are how far each one's is above the lowest; `highest` is the highest of these offsets.
        """
        word = self._words[number]
        word.make_room(lowest, lowest + highest)
        shift = lowest - word.base
        low = lowest_one(used)
        if shift:
            offsets = [each + shift for each in offsets]
        if is_one_run(used >> low):
            word.generations[low : used.bit_length()] = array(word.generations.typecode, offsets)
        else:
            generations = word.generations
            positions = compress(range(WORD_BITS), _selectors(used))
            for position, offset in zip(positions, offsets, strict=True):
                generations[position] = offset

    def lowest_free(self, low: int, high: int) -> int | None:
        """Return the lowest free ID in [low, high], or `None` if all are taken."""
        number = low >> SHIFT
        above = self.used(number) >> (low & MASK)
        candidate = low + lowest_zero(above) if above else low
        if candidate >> SHIFT != number:
            number = self._next_open_word(number + 1)
            candidate = (number << SHIFT) + lowest_zero(self.used(number))
        return candidate if candidate <= high else None

    def take_lowest(self, low: int, high: int, owner: OwnerT, generation: int) -> int | None:
        """Give the lowest free ID in [low, high] to an owner and return it, if there is one.

        It begins a life of this generation.
        """
        ioasid = self._run_end
        if not self._run_first <= low <= ioasid:
            # A run that is empty yet, whatever comes of this.
            self._run_first = self._run_end = ioasid = low
        if ioasid > high:
            return None
        number, position = ioasid >> SHIFT, ioasid & MASK
        bit = 1 << position
        word = self._words.get(number)
        if word is None or word.used & bit:
            found = self.lowest_free(ioasid, high)
            if found is None:
                return None
            ioasid = found
            number, position = ioasid >> SHIFT, ioasid & MASK
            bit = 1 << position
            word = self._words.get(number)
            if word is None:
                word = self._words[number] = self._spare or Word()
                word.base = generation
                self._spare = None
        # All up to here are taken now: where the next search from `low` begins.
        self._run_end = ioasid + 1
        word.owners[position] = owner.slot
        try:
            word.generations[position] = generation - word.base
        except (IndexError, OverflowError):
            word.make_room(generation, generation)
            word.generations[position] = generation - word.base
        word.used = used = word.used | bit
        members = owner.members
        members[number] = members.get(number, 0) | bit
        owner.allocated += 1
        if used == FULL:
            self._mark_full(number)
        return ioasid

    take = take_lowest
    """Gives an ID of a range to an owner, by the order of reuse: here the lowest."""

    def next_words(self, count: int, low: int, high: int) -> list[tuple[int, int]] | None:
        """Return `count` free IDs in [low, high], by the order of reuse, or `None` if too few.

        Here that is the lowest. They come ascending, as `words` has them.
        """
        found, missing = self.some_words(count, low, high)
        return None if missing else found

    def release(self, owner: OwnerT, lowest: int, released: int, count: int = 1) -> None:
        """Take `count` IDs of one word back: the bits in `released`, `lowest` the first ID."""
        number = lowest >> SHIFT
        word = self._words[number]
        used = word.used
        if used == FULL:
            self._unmark_full(number)
        word.used = used = used ^ released
        if not used:
            self._spare = self._words.pop(number)
        members = owner.members
        rest = members[number] ^ released
        if rest:
            members[number] = rest
        else:
            del members[number]
        if lowest < self._run_end:
            self._run_end = lowest
        owner.allocated -= count

    def some_words(self, count: int, low: int, high: int) -> tuple[list[tuple[int, int]], int]:
        """Return the lowest free IDs in [low, high], at most `count`, and how many are missing."""
        found: list[tuple[int, int]] = []
        while count:
            start = self.lowest_free(low, high)
            if start is None:
                break
            number = start >> SHIFT
            end = min(high, start | MASK)
            free = lowest_ones(bits(start & MASK, end & MASK) & ~self.used(number), count)
            found.append((number, free))
            count -= free.bit_count()
            low = end + 1
        return found, count

    def take_word(self, number: int, gained: int, owner: OwnerT, generation: int) -> None:
        """Give the free IDs of a word whose bits are 1 in `gained` to an owner.

        Each begins a life of this generation.
        """
        slot, members = owner.slot, owner.members
        word = self._words.get(number)
        if word is None:
            # Who owns a free ID does not matter, so the set may stand at every position.
            word = self._words[number] = Word(gained, array("I", [slot]) * WORD_BITS, generation)
        else:
            word.used |= gained
            word.give(gained, slot, generation)
        members[number] = members.get(number, 0) | gained
        count = gained.bit_count()
        owner.allocated += count
        if word.used == FULL:
            self._mark_full(number)

    def word_numbers(self, first: int) -> list[int]:
        """Return the numbers of the words from `first` on that have taken IDs, ascending."""
        return sorted(number for number in self._words if number >= first)

    def used(self, number: int) -> int:
        """Return the taken or withheld IDs of a word, a bit each."""
        word = self._words.get(number)
        if word is None:
            return FULL if self._is_full(number) else 0
        return word.used

    # -- withholding --------------------------------------------------------------------------

    def lowest_taken(self, first: int, last: int) -> int | None:
        """Return the lowest ID from `first` to `last` that is taken or withheld, if one is."""
        low, high = first >> SHIFT, last >> SHIFT
        numbers: Iterable[int] = range(low, high + 1)
        if high - low > len(self._words):
            numbers = sorted(number for number in self._words if low <= number <= high)
        found = []
        for number in numbers:
            base = number << SHIFT
            taken = self.used(number) & bits(max(first - base, 0), min(last - base, MASK))
            if taken:
                found.append(base + lowest_one(taken))
                break
        for block, mask in words([(low, high)]):
            full = self._full_words.get(block, 0) & mask
            if full:
                found.append(max(first, ((block << SHIFT) + lowest_one(full)) << SHIFT))
                break
        return min(found, default=None)

    def withhold(self, first: int, last: int) -> None:
        """Let nobody have the IDs from `first` to `last`, which are free."""
        edges, whole = _parts(first, last)
        for number, gained in edges:
            self.withhold_word(number, gained)
        for block, full in words(whole):
            self._mark_full_block(block, full)

    def withhold_word(self, number: int, gained: int) -> None:
        """Let nobody have the free IDs of a word whose bits are 1 in `gained`."""
        if gained != FULL:
            word = self._words.get(number)
            if word is None:
                word = self._words[number] = self._spare or Word()
                self._spare = None
            word.give(gained, WITHHELD, word.base)
            word.used |= gained
            if word.used != FULL:
                return
        self._mark_full(number)

    def readmit(self, first: int, last: int) -> None:
        """Let the IDs from `first` to `last` be had again, which are withheld."""
        edges, whole = _parts(first, last)
        for number, lost in edges:
            self.readmit_word(number, lost)
        for low, high in whole:
            numbers: Iterable[int] = range(low, high + 1)
            if high - low > len(self._words):
                numbers = tuple(self._words)
            for number in numbers:
                if low <= number <= high:
                    self._words.pop(number, None)
        for block, full in words(whole):
            self._full_words[block] ^= full
            self._full_blocks &= ~(1 << block)
        self._run_end = min(self._run_end, first)

    def readmit_word(self, number: int, lost: int) -> None:
        """Let the IDs of a word whose bits are 1 in `lost` be had again, which are withheld."""
        word = self._words.get(number)
        if word is None:
            word = self._words[number] = Word(FULL)
            word.give(FULL, WITHHELD, 0)
        if word.used == FULL:
            self._unmark_full(number)
        word.used ^= lost
        if not word.used:
            self._spare = self._words.pop(number)
        self._run_end = min(self._run_end, (number << SHIFT) + lowest_one(lost))

    def _next_open_word(self, number: int) -> int:
        block = number >> SHIFT
        start = number & MASK
        candidate = start + lowest_zero(self._full_words.get(block, 0) >> start)
        if candidate < WORD_BITS:
            return (block << SHIFT) + candidate
        block += 1
        block += lowest_zero(self._full_blocks >> block)
        return (block << SHIFT) + lowest_zero(self._full_words.get(block, 0))

    def _is_full(self, number: int) -> int:
        return self._full_words.get(number >> SHIFT, 0) >> (number & MASK) & 1

    def _mark_full(self, number: int) -> None:
        self._mark_full_block(number >> SHIFT, 1 << (number & MASK))

    def _mark_full_block(self, block: int, gained: int) -> None:
        full = self._full_words.get(block, 0) | gained
        self._full_words[block] = full
        if full == FULL:
            self._full_blocks |= 1 << block

    def _unmark_full(self, number: int) -> None:
        block = number >> SHIFT
        self._full_words[block] &= ~(1 << (number & MASK))
        self._full_blocks &= ~(1 << block)


def _parts(first: int, last: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return a range as the bits of the words at its ends, and the words between, as a range."""
    low, high = first >> SHIFT, last >> SHIFT
    if low == high:
        ends = [(low, bits(first & MASK, last & MASK))]
    else:
        ends = [(low, bits(first & MASK, MASK)), (high, bits(0, last & MASK))]
    edges = [(number, gained) for number, gained in ends if gained != FULL]
    numbers = {number for number, _ in edges}
    low, high = low + (low in numbers), high - (high in numbers)
    return edges, [(low, high)] if low <= high else []
