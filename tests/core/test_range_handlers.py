"""Ranges: reserving numbers and giving them back, and freeing many IDs at once."""

import pytest

from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocMany,
    AllocSet,
    AttachData,
    CancelCapacity,
    CancelRange,
    CapacityExhausted,
    CapacityRecord,
    Find,
    Free,
    FreeMany,
    FreeSet,
    Get,
    InstallCapacity,
    InvalidArgument,
    IoasidRange,
    IoasidState,
    Listing,
    ListSet,
    NotOfThisSet,
    NotReserved,
    Priority,
    Put,
    RangeFull,
    RangeNotReserved,
    RangeTaken,
    Released,
    ReserveCapacity,
    ReserveRange,
    StaleIoasid,
    TokenType,
    UnknownIoasid,
    UnknownSet,
)
from tests.core.helpers import Driver, expect

ALL = 2**32 - 1
"""The largest capacity."""


def spans(*pairs: tuple[int, int]) -> tuple[IoasidRange, ...]:
    """Ranges from pairs of numbers."""
    return tuple(IoasidRange(first, last) for first, last in pairs)


def test_pasid_0_is_reserved_from_the_start() -> None:
    """Of 8 IDs 7 can be promised, so that what two sets of 4 would be promised can't be had."""
    driver = Driver(8)
    driver.set("vm-1", 4)
    driver.refused(CapacityExhausted, AllocSet("vm-2", 4), asked=4, available=3)
    driver.set("vm-2", 3)
    assert [1, 2, 3, 4] == [driver.alloc(0) for _ in range(4)]
    assert [5, 6, 7] == [driver.alloc(1) for _ in range(3)]
    driver.refused(RangeNotReserved, CancelRange(0, 1), low=0, high=1, ioasid=1)


@pytest.mark.parametrize("capacity", [1, 8, 1024, 1025, ALL])
def test_the_capacity_keeps_0_reserved(capacity: int) -> None:
    """Another capacity leaves PASID 0 as it was: reserved, or not."""
    driver = Driver(64)
    expected = CapacityRecord(capacity, 1, capacity - 1, 1)
    assert expected == driver.ask(InstallCapacity(capacity))
    other = Driver(64, reserve_zero=False)
    assert CapacityRecord(capacity, 0, capacity, 0) == other.ask(InstallCapacity(capacity))


def test_nothing_is_reserved_if_told_so() -> None:
    """An allocator that reserves nothing gives 0 to who asks for it, as the kernel's did."""
    driver = Driver(8, reserve_zero=False)
    driver.set(quota=8)
    assert 1 == expect(Allocated, driver.ask(Alloc(0))).ioasid
    assert 0 == expect(Allocated, driver.ask(Alloc(0, 0))).ioasid


def test_reserved_numbers_are_never_given_out(driver: Driver) -> None:
    """Not by one allocation, not by many, and not to who asks for these very numbers."""
    assert CapacityRecord(64, 5, 59, 5) == driver.ask(ReserveRange(2, 5))
    driver.set(quota=59)
    for low, high in ((2, 2), (2, 5), (0, 0), (4, 5)):
        driver.refused(RangeFull, Alloc(0, low, high), low=low, high=high, count=1)
    assert spans((1, 1), (6, 8)) == expect(AllocatedMany, driver.ask(AllocMany(0, 4, 0))).ranges
    driver.refused(UnknownIoasid, Find(3), ioasid=3)
    driver.refused(UnknownIoasid, Free(3), ioasid=3)
    assert CapacityRecord(64, 3, 2, 3) == driver.ask(CancelRange(3, 4))
    assert 3 == expect(Allocated, driver.ask(Alloc(0))).ioasid
    assert 4 == expect(Allocated, driver.ask(Alloc(0, 2))).ioasid
    assert 9 == expect(Allocated, driver.ask(Alloc(0, 2))).ioasid


def test_reserving_is_refused(driver: Driver) -> None:
    """EBUSY: one is allocated or reserved; ENOSPC: so many are not available; EINVAL."""
    driver.set(quota=32)
    for _ in range(9):
        driver.alloc()
    driver.ask(Free(5))
    driver.refused(RangeTaken, ReserveRange(5, 9), low=5, high=9, ioasid=6)
    driver.refused(RangeTaken, ReserveRange(0, 63), low=0, high=63, ioasid=0)
    driver.ask(ReserveRange(40, 49))
    driver.refused(RangeTaken, ReserveRange(49, 50), low=49, high=50, ioasid=49)
    driver.refused(RangeTaken, ReserveRange(30, 63), low=30, high=63, ioasid=40)
    driver.ask(ReserveCapacity(15))
    driver.refused(CapacityExhausted, ReserveRange(10, 16), asked=7, available=6)
    driver.ask(ReserveRange(10, 15))
    assert 0 == driver.figures().available
    driver.refused(InvalidArgument, ReserveRange(51, 50), argument="max")
    driver.refused(InvalidArgument, ReserveRange(50, 64), argument="max")


def test_a_number_in_quarantine_is_busy(driver: Driver) -> None:
    """What is still referenced can't be reserved; when it is reclaimed, it can."""
    driver.set()
    ioasid = driver.alloc()
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    driver.refused(RangeTaken, ReserveRange(ioasid, ioasid), ioasid=ioasid)
    driver.ask(Put(ioasid))
    driver.ask(ReserveRange(ioasid, ioasid))
    assert ioasid + 1 == driver.alloc()


def test_cancelling_is_refused(driver: Driver) -> None:
    """ENOENT: not all are reserved; a count gives back nothing that was reserved by number."""
    driver.ask(ReserveRange(10, 19))
    driver.refused(RangeNotReserved, CancelRange(10, 20), low=10, high=20, ioasid=20)
    driver.refused(RangeNotReserved, CancelRange(9, 10), low=9, high=10, ioasid=9)
    driver.refused(NotReserved, CancelCapacity(1), asked=1, reserved=0)
    driver.refused(InvalidArgument, CancelRange(11, 10), argument="max")
    driver.ask(CancelRange(12, 14))
    driver.refused(RangeNotReserved, CancelRange(10, 19), ioasid=12)
    assert CapacityRecord(64, 9, 55, 9) == driver.ask(ReserveRange(14, 14))
    driver.ask(CancelRange(10, 11))
    assert CapacityRecord(64, 1, 63, 1) == driver.ask(CancelRange(14, 19))


@pytest.mark.parametrize(
    ("first", "last"),
    [(1, 1023), (1023, 1024), (1024, 2047), (1, 5000), (1024, 2**21), (5, ALL - 1), (3000, 3000)],
)
def test_over_the_edges_of_words(first: int, last: int) -> None:
    """Whole words of the space, parts of words, and nearly all there is: none is given."""
    driver = Driver(ALL)
    driver.ask(ReserveRange(first, last))
    driver.set(quota=None)
    low = 1 if first > 1 else last + 1
    found = driver.ask(AllocMany(0, 3, low)) if last + 3 < ALL else None
    if found is not None:
        for each in expect(AllocatedMany, found).ranges:
            assert each.last < first or each.first > last
    driver.ask(FreeSet(0))
    driver.refused(RangeTaken, ReserveRange(last, last), ioasid=last)
    middle = (first + last) // 2
    driver.ask(CancelRange(middle, middle))
    driver.set(quota=1)
    assert middle == expect(Allocated, driver.ask(Alloc(1, first, last))).ioasid
    driver.ask(FreeSet(1))
    driver.ask(ReserveRange(middle, middle))
    assert CapacityRecord(ALL, 1, ALL - 1, 1) == driver.ask(CancelRange(first, last))
    driver.set(quota=1)
    assert first == expect(Allocated, driver.ask(Alloc(2, first))).ioasid


def test_reserved_numbers_are_in_the_snapshot() -> None:
    """They come back as the ranges that they were."""
    driver = Driver(ALL)
    driver.ask(ReserveRange(5, 9))
    driver.ask(ReserveRange(2000, 2**31))
    snapshot = driver.core.snapshot()
    assert spans((0, 0), (5, 9), (2000, 2**31)) == snapshot.reserved_numbers
    restored = Allocator.restore(snapshot)
    assert snapshot == restored.snapshot()
    driver.core = restored
    driver.set(quota=1)
    driver.refused(RangeFull, Alloc(0, 2000, 2**31))


def test_free_many(driver: Driver) -> None:
    """Plain IDs go at once, those that somebody uses when they are done with."""
    driver.set(quota=30)
    driver.ask(AllocMany(0, 20))
    assert Released(True) == driver.ask(FreeMany(0, ()))
    assert Released(True) == driver.ask(FreeMany(0, spans((1, 3), (5, 5), (7, 9))))
    assert [4, 6] == ioasids(driver)[:2]
    driver.ask(Get(12))
    driver.ask(AttachData(13, "mine"))
    assert Released(False) == driver.ask(FreeMany(0, spans((10, 14))))
    assert IoasidState.FREE_PENDING is driver.find(12).state
    assert [4, 6, 12, 15] == ioasids(driver)[:4]
    assert Released(False) == driver.ask(FreeMany(0, spans((12, 12))))
    driver.ask(Put(12))
    driver.refused(UnknownIoasid, FreeMany(0, spans((12, 12))), ioasid=12, others=0)


def ioasids(driver: Driver, sid: int = 0) -> list[int]:
    """The IDs of a set."""
    return [each.ioasid for each in expect(Listing, driver.ask(ListSet(sid)))]


def test_free_many_is_told_of_each(driver: Driver) -> None:
    """Subscribers see what they would of one free after the other."""
    driver.set()
    driver.ask(AllocMany(0, 4))
    vtd = driver.subscribe("vtd", priority=Priority.IOMMU)
    assert Released(False) == driver.ask(FreeMany(0, spans((1, 2), (4, 4))))
    assert [("FREE", 1), ("FREE", 2), ("FREE", 4)] == driver.shown(vtd)
    driver.finish(vtd, "vtd")
    assert [("RECLAIM", each) for each in (1, 2, 4)] == sorted(driver.shown(vtd)[3:])
    assert [3] == ioasids(driver)


def test_free_many_is_refused(driver: Driver) -> None:
    """ENOENT, EACCES: the first that is nobody's or another set's is named, and none is freed."""
    driver.set("vm-1")
    driver.set("vm-2")
    driver.ask(AllocMany(0, 4))
    driver.ask(AllocMany(1, 2))
    driver.refused(NotOfThisSet, FreeMany(0, spans((1, 2), (4, 5))), ioasid=5, sid=0, others=0)
    driver.refused(NotOfThisSet, FreeMany(0, spans((3, 5), (7, 9))), ioasid=5, sid=0, others=3)
    driver.refused(UnknownIoasid, FreeMany(1, spans((5, 7))), ioasid=7, others=0)
    driver.refused(UnknownIoasid, FreeMany(0, spans((0, 1), (6, 6))), ioasid=0, others=1)
    rest = 2**32 - 2 - 7
    error = driver.refused(UnknownIoasid, FreeMany(1, spans((5, 2**32 - 2))), ioasid=7, others=rest)
    assert f"IOASID 7 is not allocated, nor does the set have {rest:,} more of these;" in str(error)
    of_another_life = FreeMany(0, spans((1, 4)), 9)
    driver.refused(StaleIoasid, of_another_life, ioasid=1, generation=9)
    driver.refused(UnknownSet, FreeMany(2, spans((1, 1))), sid=2)
    driver.refused(InvalidArgument, FreeMany(0, spans((2, 2), (1, 1))), argument="ranges")
    driver.refused(InvalidArgument, FreeMany(0, spans((1, 2), (2, 3))), argument="ranges")
    assert [1, 2, 3, 4] == ioasids(driver)


def test_free_many_passes_over_what_is_missing(driver: Driver) -> None:
    """With `missing_ok` what the set still has of the ranges goes, in the life that is meant."""
    driver.set("vm-1")
    driver.set("vm-2")
    driver.ask(AllocMany(0, 6))
    driver.ask(AllocMany(1, 2))
    driver.ask(FreeMany(0, spans((2, 3))))
    assert 2 == driver.alloc(0)
    assert 3 == driver.alloc(1)
    of_one_life = FreeMany(0, spans((0, 4), (6, 7), (9, 60)), 1, missing_ok=True)
    assert Released(True) == driver.ask(of_one_life)
    assert [2, 5] == ioasids(driver)
    assert [3, 7, 8] == ioasids(driver, 1)
    driver.ask(Get(5))
    assert Released(False) == driver.ask(FreeMany(0, spans((0, 5)), missing_ok=True))
    assert [5] == ioasids(driver)
    assert Released(True) == driver.ask(FreeMany(0, spans((6, 7)), missing_ok=True))
    assert Released(True) == driver.ask(FreeMany(0, (), missing_ok=True))
    driver.refused(UnknownSet, FreeMany(2, spans((1, 1)), missing_ok=True), sid=2)


def test_what_is_missing_is_not_looked_for() -> None:
    """All numbers there are are as quickly passed over as a few, and every word of a set found."""
    driver = Driver(ALL)
    driver.set(quota=None)
    high = [1023, 1024, 2**31, 2**32 - 2**11, 2**32 - 2**11 + 1, ALL - 1]
    for ioasid in (*high, 3000):
        driver.ask(Alloc(0, ioasid, ioasid))
    every = spans((0, 1023), (1024, 2999), (3001, 2**31 - 1), (2**31, ALL - 1))
    assert Released(True) == driver.ask(FreeMany(0, every, missing_ok=True))
    assert [3000] == ioasids(driver)


def test_free_many_ends_a_set_with_its_last_id(driver: Driver) -> None:
    """Of a set that is being freed, all is freed already; that is fine, and changes nothing."""
    driver.set()
    driver.ask(AllocMany(0, 2))
    driver.ask(Get(1))
    driver.ask(FreeSet(0))
    assert Released(False) == driver.ask(FreeMany(0, spans((1, 1))))
    driver.ask(Put(1))
    driver.refused(UnknownSet, FreeMany(0, spans((1, 1))), sid=0)


def test_a_few_of_many_cost_as_much_as_a_few() -> None:
    """Freeing IDs a few at a time looks at these and not at all that a set has to say."""
    core = Allocator(1 << 20)
    session = core.session
    core.handle(session, AllocSet(None, None, TokenType.NULL))
    core.handle(session, AllocMany(0, 40_000))
    for ioasid in range(2, 40_000, 2):
        core.handle(session, AttachData(ioasid, ioasid))
    # Looking at every record each time would be 400 million of them.
    for ioasid in range(1, 40_000, 2):
        assert Released(True) == core.handle(session, FreeMany(0, spans((ioasid, ioasid))))
    assert 20_000 == len(list(expect(Listing, core.handle(session, ListSet(0)))))
