"""The order CYCLIC against a plain search, and searches that look at nothing that is taken."""

import random

import pytest

from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocMany,
    Free,
    FreeMany,
    IoasidRange,
    QuotaExceeded,
    RangeFull,
    ReserveRange,
    ReuseOrder,
)
from ioasid.core._reuse import CyclicSpace
from ioasid.core._space import Owner, ones
from tests.core.helpers import Driver, expect


def cyclic(capacity: int = 12) -> Driver:
    """An allocator of this order, with one set that may have all."""
    driver = Driver(capacity, order=ReuseOrder.CYCLIC)
    driver.set(quota=None)
    return driver


def test_round_and_round() -> None:
    """What was freed comes again when all the others have had their turn."""
    driver = cyclic(6)
    assert [1, 2] == [driver.alloc(), driver.alloc()]
    driver.free(1)
    assert [3, 4, 5] == [driver.alloc() for _ in range(3)]
    driver.free(4)
    assert [1, 4] == [driver.alloc(), driver.alloc()]
    driver.free(2)
    assert 2 == driver.alloc()


def test_within_the_range_that_is_asked_for() -> None:
    """The turn is kept inside a range, and begins at its lower end from outside."""
    driver = cyclic(64)
    assert 10 == expect(Allocated, driver.ask(Alloc(0, 10, 12))).ioasid
    assert 11 == expect(Allocated, driver.ask(Alloc(0, 10, 12))).ioasid
    driver.free(10)
    assert 12 == expect(Allocated, driver.ask(Alloc(0, 10, 12))).ioasid
    assert 10 == expect(Allocated, driver.ask(Alloc(0, 10, 12))).ioasid
    driver.refused(RangeFull, Alloc(0, 10, 12), low=10, high=12, count=1)
    assert 13 == expect(Allocated, driver.ask(Alloc(0))).ioasid
    assert 40 == expect(Allocated, driver.ask(Alloc(0, 40))).ioasid
    assert 1 == expect(Allocated, driver.ask(Alloc(0, 1, 9))).ioasid
    assert 2 == expect(Allocated, driver.ask(Alloc(0))).ioasid


def test_many_take_their_turn() -> None:
    """As many as so many allocations would give, as ascending ranges; all or none."""
    driver = cyclic(12)
    assert (IoasidRange(1, 8),) == expect(AllocatedMany, driver.ask(AllocMany(0, 8))).ranges
    driver.ask(FreeMany(0, (IoasidRange(1, 2), IoasidRange(4, 6))))
    driver.refused(QuotaExceeded, AllocMany(0, 9))
    driver.refused(RangeFull, AllocMany(0, 6, 4, 10), count=6)
    expected = (IoasidRange(1, 2), IoasidRange(4, 4), IoasidRange(9, 11))
    assert expected == expect(AllocatedMany, driver.ask(AllocMany(0, 6))).ranges
    assert 5 == expect(Allocated, driver.ask(Alloc(0))).ioasid


def test_a_range_around_the_turn_is_one() -> None:
    """What comes before the turn and what comes after it are one range where they meet."""
    driver = cyclic(12)
    driver.ask(AllocMany(0, 5))
    driver.ask(FreeMany(0, (IoasidRange(1, 5),)))
    assert (IoasidRange(1, 11),) == expect(AllocatedMany, driver.ask(AllocMany(0, 11))).ranges


def test_the_turn_is_in_the_snapshot() -> None:
    """A restored allocator goes on where the first one was."""
    driver = cyclic(8)
    for _ in range(3):
        driver.free(driver.alloc())
    snapshot = driver.core.snapshot()
    assert (ReuseOrder.CYCLIC, 4) == (snapshot.order, snapshot.position)
    again = Allocator.restore(snapshot)
    assert 4 == expect(Allocated, again.handle(again.session, Alloc(0))).ioasid


def test_lowest_has_no_turn() -> None:
    """The default gives the lowest, and its snapshot has no position."""
    driver = Driver(8)
    driver.set(quota=None)
    assert [1, 1] == [driver.free(driver.alloc()) or 1 for _ in range(2)]
    snapshot = driver.core.snapshot()
    assert (ReuseOrder.LOWEST, 0) == (snapshot.order, snapshot.position)
    assert 1 == driver.alloc()


@pytest.mark.parametrize("seed", range(8))
def test_as_a_plain_search(seed: int) -> None:
    """One at a time or many, over the edges of words, as looking at each number would give."""
    choose = random.Random(seed)
    turn = space = CyclicSpace[Owner]()
    owner = Owner(0)
    space.join(owner)
    taken: set[int] = set()
    capacity = 2500
    position = 0
    for _ in range(400):
        low = choose.choice((0, 1, 1000, 1024, choose.randrange(capacity)))
        high = choose.choice((capacity - 1, capacity - 1, choose.randrange(low, capacity)))
        order = [*range(low, high + 1)]
        if low <= position <= high:
            order = [*range(position, high + 1), *range(low, position)]
        free = [each for each in order if each not in taken]
        count = choose.choice((1, 1, 1, 7, 300))
        if count == 1:
            found = turn.take(low, high, owner, 1)
            assert (free[0] if free else None) == found
            given = free[:1]
        else:
            words = turn.next_words(count, low, high) or []
            given = free[:count] if len(free) >= count else []
            numbers = [number * 1024 + bit for number, word in words for bit in ones(word)]
            assert len({number for number, _ in words}) == len(words)
            assert sorted(given) == numbers
            for each in given:
                space.take_lowest(each, each, owner, 1)
        if given:
            position = given[-1] + 1
        taken |= {*given}
        for each in choose.sample(sorted(taken), len(taken) // 3):
            space.release(owner, each, 1 << each % 1024)
            taken.discard(each)


def test_reserved_numbers_have_no_turn() -> None:
    """Numbers out of circulation are passed over, by one allocation or by many."""
    driver = Driver(12, order=ReuseOrder.CYCLIC)
    driver.set(quota=7)
    driver.ask(Free(driver.alloc()))
    driver.ask(ReserveRange(2, 4))
    driver.ask(ReserveRange(6, 6))
    driver.refused(QuotaExceeded, AllocMany(0, 12))
    assert 5 == expect(Allocated, driver.ask(Alloc(0))).ioasid
    assert (IoasidRange(1, 1), IoasidRange(7, 11)) == expect(
        AllocatedMany, driver.ask(AllocMany(0, 6))
    ).ranges


@pytest.mark.parametrize("order", ReuseOrder)
def test_no_search_goes_through_what_is_taken(order: ReuseOrder) -> None:
    """Between two free IDs with four thousand million others, none of these is looked at."""
    last = 2**32 - 2
    driver = Driver(last + 1, order=order)
    driver.ask(ReserveRange(2, last - 1))
    driver.set(quota=None)
    core, session = driver.core, driver.core.session
    assert 1 == expect(Allocated, core.handle(session, Alloc(0))).ioasid
    for _ in range(1000):
        assert last == expect(Allocated, core.handle(session, Alloc(0))).ioasid
        core.handle(session, Free(1))
        assert 1 == expect(Allocated, core.handle(session, Alloc(0))).ioasid
        core.handle(session, Free(last))
    driver.refused(RangeFull, Alloc(0, 2, last - 1), count=1)
    driver.refused(RangeFull, AllocMany(0, 1, 2, last - 1))
