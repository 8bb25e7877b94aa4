"""Ranges of reserved numbers, against a plain set of numbers."""

import random
from itertools import pairwise

import pytest

from ioasid.core._reserved import Reserved

TOP = 40


def check(reserved: Reserved, numbers: set[int]) -> None:
    """Compare the ranges with the numbers that they should have."""
    ranges = list(reserved)
    assert numbers == {each for first, last in ranges for each in range(first, last + 1)}
    assert len(numbers) == reserved.count
    assert all(first <= last for first, last in ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(ranges))


@pytest.mark.parametrize("seed", range(10))
def test_as_a_set_of_numbers(seed: int) -> None:
    """Whatever is added and removed, the ranges are those of the numbers, as few as can be."""
    choose = random.Random(seed)
    reserved, numbers = Reserved(), set[int]()
    for _ in range(300):
        first = choose.randrange(TOP)
        last = min(first + choose.choice((0, 0, 1, 2, 9)), TOP - 1)
        wanted = {*range(first, last + 1)}
        missing = sorted(wanted - numbers)
        assert (missing[0] if missing else None) == reserved.lowest_missing(first, last)
        if not wanted & numbers:
            reserved.add(first, last)
            numbers |= wanted
        elif wanted <= numbers:
            reserved.remove(first, last)
            numbers -= wanted
        check(reserved, numbers)


def test_neighbours_become_one_range() -> None:
    """What fills the gap between two ranges joins them."""
    reserved = Reserved()
    reserved.add(0, 3)
    reserved.add(6, 2**32 - 2)
    assert [(0, 3), (6, 2**32 - 2)] == list(reserved)
    reserved.add(4, 5)
    assert [(0, 2**32 - 2)] == list(reserved)
    reserved.remove(5, 5)
    assert [(0, 4), (6, 2**32 - 2)] == list(reserved)
    assert 2**32 - 2 == reserved.count
