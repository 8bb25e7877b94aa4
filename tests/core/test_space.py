"""The ID space against a plain set: the same answers, at every edge of a word and a block."""

import random
from itertools import pairwise

import pytest

from ioasid.core._space import (
    FULL,
    MASK,
    SHIFT,
    WORD_BITS,
    IdSpace,
    Owner,
    bits,
    lowest_one,
    lowest_ones,
    lowest_zero,
    ones,
    ranges_of,
    runs,
    words,
)

BLOCK = WORD_BITS * WORD_BITS
TOP = 2**32 - 2
"""The highest ID there may be."""

EDGES = [
    edge + offset
    for edge in (0, WORD_BITS, 2 * WORD_BITS, BLOCK, 3 * BLOCK, 2**31, TOP - WORD_BITS)
    for offset in (-1, 0, 1)
    if edge + offset >= 0
]


def with_owner() -> tuple[IdSpace[Owner], Owner]:
    """A space with one owner."""
    space: IdSpace[Owner] = IdSpace()
    owner = Owner(7)
    space.join(owner)
    return space, owner


def take(space: IdSpace[Owner], ioasid: int, owner: Owner) -> None:
    """Take one free ID."""
    assert ioasid == space.take_lowest(ioasid, ioasid, owner, 1)


def lowest(space: IdSpace[Owner], count: int, low: int, high: int) -> list[tuple[int, int]] | None:
    """The lowest free IDs, as ranges."""
    found = space.next_words(count, low, high)
    if found is None:
        return None
    numbers = [number for number, _ in found]
    assert sorted({*numbers}) == numbers
    return ranges_of((number << SHIFT, word) for number, word in found)


def take_range(space: IdSpace[Owner], first: int, last: int, owner: Owner) -> None:
    """Take a range of free IDs."""
    for number, gained in words([(first, last)]):
        assert 0 == space.used(number) & gained
        space.take_word(number, gained, owner, 1)


def is_free(space: IdSpace[Owner], first: int, last: int) -> bool:
    """Tell whether no ID of a range is taken."""
    return not any(space.used(number) & wanted for number, wanted in words([(first, last)]))


def release(space: IdSpace[Owner], ioasid: int, owner: Owner) -> None:
    """Release one ID."""
    space.release(owner, ioasid, 1 << (ioasid % WORD_BITS))


def taken(members: dict[int, int]) -> list[int]:
    """The IDs that a set's words say it has."""
    return [(number << SHIFT) + bit for number in sorted(members) for bit in ones(members[number])]


SCATTERED = FULL // 3
"""Every second bit, the lowest and not the highest among them."""


@pytest.mark.parametrize(
    "word",
    [0, 1, 2, 0b1011, FULL >> 1, FULL, 1 << 1023, (1 << 512) - 1, SCATTERED, SCATTERED << 1],
)
def test_words(word: int) -> None:
    """Zeros, ones and runs of a word are those that its digits show."""
    digits = f"{word:b}"[::-1]
    assert (digits + "0").index("0") == lowest_zero(word)
    assert max(digits.find("1"), 0) == lowest_one(word)
    positions = [position for position, digit in enumerate(digits) if digit == "1"]
    assert positions == list(ones(word))
    assert positions == [
        position for first, last in runs(word) for position in range(first, last + 1)
    ]
    assert all(earlier[1] + 1 < later[0] for earlier, later in pairwise(runs(word)))
    for count in (1, 2, 300, 512, 1024):
        assert positions[:count] == list(ones(lowest_ones(word, count)))


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 1023), (5, 9), (1023, 1023)])
def test_bits(first: int, last: int) -> None:
    """A span of bits has both its ends."""
    assert sum(1 << position for position in range(first, last + 1)) == bits(first, last)


def test_ranges_are_words() -> None:
    """Ranges come a word at a time, a word that holds several of them once."""
    assert [] == list(words([]))
    assert [(0, 0b10111), (1, 0b1)] == list(words([(0, 2), (4, 4), (WORD_BITS, WORD_BITS)]))
    end = 3 * WORD_BITS
    assert [(0, 1 << MASK), (1, FULL), (2, FULL), (3, 0b11)] == list(words([(MASK, end + 1)]))
    assert [(2**22 - 1, FULL >> 1)] == list(words([(2**32 - WORD_BITS, TOP)]))


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge: int) -> None:
    """An ID at an edge is taken, found, passed over and released like any other."""
    space, mine = with_owner()
    assert space.owner(edge) is None
    take(space, edge, mine)
    assert mine is space.owner(edge)
    assert [edge] == taken(mine.members)
    assert edge + 1 == space.lowest_free(edge, edge + 1)
    assert space.lowest_free(edge, edge) is None
    assert space.take_lowest(edge, edge, mine, 2) is None
    assert not is_free(space, max(edge - 1, 0), edge + 1)
    assert is_free(space, edge + 1, edge + 2 * WORD_BITS)
    release(space, edge, mine)
    assert space.owner(edge) is None
    assert edge == space.lowest_free(edge, edge)
    assert ({}, 0, 0) == (mine.members, mine.allocated, space.live)
    assert not any(map(space.used, range(((edge + 1) >> SHIFT) + 1)))


@pytest.mark.parametrize("edge", [edge for edge in EDGES if edge > 0])
@pytest.mark.parametrize("length", [1, 2, WORD_BITS - 1, WORD_BITS, WORD_BITS + 1, 3 * WORD_BITS])
def test_ranges_at_edges(edge: int, length: int) -> None:
    """A range across an edge is one range, and leaves nothing behind when it is released."""
    space, mine = with_owner()
    first = max(edge - length // 2, 0)
    last = min(first + length - 1, TOP)
    assert [(first, last)] == lowest(space, last - first + 1, first, TOP)
    assert [(first, last)] == lowest(space, last - first + 1, first, last)
    assert lowest(space, last - first + 2, first, last) is None
    take_range(space, first, last, mine)
    assert list(range(first, last + 1)) == taken(mine.members)
    assert [mine, mine] == [space.owner(first), space.owner(last)]
    assert space.lowest_free(first, last) is None
    assert lowest(space, 1, first, last) is None
    assert last - first + 1 == mine.allocated == space.live
    for number, word in tuple(mine.members.items()):
        space.release(mine, (number << SHIFT) + next(ones(word)), word, word.bit_count())
    assert ({}, 0, 0) == (mine.members, mine.allocated, space.live)
    assert is_free(space, first, last)


def test_full_words_and_blocks_are_passed_over() -> None:
    """Behind whole blocks that are taken, the next free ID is found, and again after a release."""
    space, mine = with_owner()
    take_range(space, 0, 2 * BLOCK + 5 * WORD_BITS + 2, mine)
    assert 2 * BLOCK + 5 * WORD_BITS + 3 == space.lowest_free(0, TOP)
    for hole in (0, WORD_BITS - 1, BLOCK - 1, BLOCK, BLOCK + 3 * WORD_BITS, 2 * BLOCK):
        release(space, hole, mine)
        assert hole == space.lowest_free(0, TOP)
        assert hole == space.lowest_free(hole, TOP)
        assert 2 * BLOCK + 5 * WORD_BITS + 3 == space.lowest_free(hole + 1, TOP)
        take(space, hole, mine)


def test_a_free_block_begins_with_its_first_word() -> None:
    """Behind words that are full to the end of their block, the first ID of the next is found."""
    space, mine = with_owner()
    first = BLOCK - 2 * WORD_BITS
    take_range(space, first, BLOCK - 1, mine)
    assert BLOCK == space.lowest_free(first, TOP)
    # Nor does a full word of that block make another one look full.
    take_range(space, BLOCK + WORD_BITS, BLOCK + 2 * WORD_BITS - 1, mine)
    assert BLOCK == space.lowest_free(first, TOP)


def test_holes_become_ranges() -> None:
    """Free IDs between taken ones are answered as ranges, lowest first, all or none."""
    space, mine = with_owner()
    for first, last in ((0, 0), (3, 4), (1000, 1030), (2048, 3071)):
        take_range(space, first, last, mine)
    expected = [(1, 2), (5, 999), (1031, 2047), (3072, 3080)]
    wanted = sum(last - first + 1 for first, last in expected)
    assert expected == lowest(space, wanted, 0, TOP)
    assert expected == lowest(space, wanted, 0, 3080)
    assert lowest(space, wanted, 0, 3079) is None
    assert lowest(space, wanted + 1, 0, 3080) is None


@pytest.mark.parametrize("seed", range(12))
def test_against_a_plain_set(seed: int) -> None:
    """Random requests are answered as a dict and a search from the low end would."""
    choose = random.Random(seed)
    base = choose.choice((0, WORD_BITS - 40, BLOCK - 300, 2**31 - 700, TOP - 900))
    span = choose.choice((60, 900, 2500))
    span = min(span, TOP - base + 1)
    space: IdSpace[Owner] = IdSpace()
    owners = {sid: Owner(sid) for sid in (0, 1, 2**63)}
    for owner in owners.values():
        space.join(owner)
    model: dict[int, int] = {}
    generations: dict[int, int] = {}
    generation = 0

    def free_ids(low: int, high: int) -> list[int]:
        return [ioasid for ioasid in range(low, high + 1) if ioasid not in model]

    for _ in range(250):
        low = base + choose.randrange(span)
        high = choose.randrange(low, base + span)
        sid = choose.choice(list(owners))
        generation += choose.choice((1, 1, 1, 2**20, 2**33))
        free = free_ids(low, high)
        assert (free[0] if free else None) == space.lowest_free(low, high)
        assert (len(free) == high - low + 1) == is_free(space, low, high)
        match choose.randrange(4):
            case 0:
                got_one = space.take_lowest(low, high, owners[sid], generation)
                assert (free[0] if free else None) == got_one
                if got_one is not None:
                    model[got_one] = sid
                    generations[got_one] = generation
            case 1:
                wanted = choose.randrange(1, span)
                ranges = lowest(space, wanted, low, high)
                if ranges is None:
                    assert wanted > len(free)
                    continue
                got = [each for first, last in ranges for each in range(first, last + 1)]
                assert free[:wanted] == got
                assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
                for number, gained in words(ranges):
                    space.take_word(number, gained, owners[sid], generation)
                generations.update(dict.fromkeys(got, generation))
                model.update(dict.fromkeys(got, sid))
            case 2 if model:
                released = choose.choice(sorted(model))
                release(space, released, owners[model.pop(released)])
            case 3:
                for released in [ioasid for ioasid in model if low <= ioasid <= high]:
                    release(space, released, owners[model.pop(released)])
            case _:
                pass
        for ioasid in choose.sample(range(base, base + span), 10):
            found = space.owner(ioasid)
            assert model.get(ioasid) == (None if found is None else found.sid)
            if found is not None:
                assert generations[ioasid] == space.generation(ioasid)
    assert len(model) == space.live
    for sid, own in owners.items():
        mine = sorted(ioasid for ioasid in model if model[ioasid] == sid)
        assert (mine, len(mine)) == (taken(own.members), own.allocated)
    for number in {ioasid >> SHIFT for ioasid in model}:
        for first, last in runs(space.used(number), number << SHIFT):
            expected = [generations[ioasid] for ioasid in range(first, last + 1)]
            assert expected == space.generations(first, last)
    for ioasid, sid in model.items():
        release(space, ioasid, owners[sid])
    assert is_free(space, base, base + span)
    assert base == space.lowest_free(base, TOP)
