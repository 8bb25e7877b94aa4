"""Listings: plain IDs as ranges by their generations, and the others one by one."""

from random import Random

import pytest

from ioasid.core import (
    Alloc,
    AllocMany,
    AttachData,
    Free,
    FreeMany,
    Get,
    IoasidRange,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    LiveRange,
)
from tests.core.helpers import CPU, Driver, expect


@pytest.fixture
def driver() -> Driver:
    """An allocator of more than one word, with a set of nearly all of it."""
    driver = Driver(4096)
    driver.set("vm-1", 4000)
    driver.ask(AllocMany(0, 3000))
    return driver


def listed(driver: Driver, sid: int = 0) -> Listing:
    """The IDs of a set."""
    return expect(Listing, driver.ask(ListSet(sid)))


def ranges(driver: Driver) -> tuple[tuple[int, int, int, int], ...]:
    """The ranges of the first set: their ends, and their generations."""
    found = listed(driver).ranges
    return tuple((each.first, each.last, each.generation, each.step) for each in found)


def test_plain_ids_are_ranges(driver: Driver) -> None:
    """Over the borders of words; only what is shown of an ID parts them, and what is missing."""
    driver.bind(1024, 7)
    driver.ask(AttachData(5, "five"))
    driver.ask(Get(6))
    driver.free(2000)
    driver.ask(Get(2999))
    driver.free(2999)
    listing = listed(driver)
    active, pending = IoasidState
    assert (
        Listing(
            0,
            (
                LiveIoasid(5, 0, "vm-1", active, None, "five", 1),
                LiveIoasid(1024, 0, "vm-1", active, 7, None, 1),
                LiveIoasid(2999, 0, "vm-1", pending, None, None, 1),
            ),
            tuple(
                LiveRange(first, last, 0, "vm-1", 1)
                for first, last in ((1, 4), (6, 1023), (1025, 1999), (2001, 2998), (3000, 3000))
            ),
        )
        == listing
    )
    assert [each for each in range(1, 3001) if each != 2000] == [each.ioasid for each in listing]
    late = driver.subscribe("late", replay=True)
    resync = driver.resync(late)
    assert (listing.ioasids, listing.ranges) == (resync.ioasids, resync.ranges)
    assert list(listing) == list(resync)


def test_generations_part_ranges() -> None:
    """IDs allocated at once are a range, and so are those allocated one after the other."""
    driver = Driver(8192)
    driver.set("vm-1", 8000)
    for _ in range(1500):
        driver.ask(Alloc(0))
    driver.ask(AllocMany(0, 1500))
    expected: tuple[tuple[int, int, int, int], ...]
    # The first of those at once goes on from the last of those before.
    expected = ((1, 1501, 1, 1), (1502, 3000, 1501, 0))
    assert expected == ranges(driver)
    driver.ask(FreeMany(0, (IoasidRange(700, 701), IoasidRange(2000, 2000))))
    driver.ask(AllocMany(0, 3))
    expected = (
        (1, 699, 1, 1),
        (700, 701, 1502, 0),
        (702, 1501, 702, 1),
        (1502, 1999, 1501, 0),
        (2000, 2000, 1502, 0),
        (2001, 3000, 1501, 0),
    )
    assert expected == ranges(driver)
    assert {2000: 1502, 2001: 1501, 702: 702, 701: 1502, 700: 1502} == {
        each.ioasid: each.generation
        for each in listed(driver)
        if each.ioasid in (700, 701, 702, 2000, 2001)
    }


@pytest.mark.parametrize("seed", range(20))
def test_ranges_say_the_same_as_looking_up(seed: int) -> None:
    """However lives follow each other, every ID is listed once, with its generation."""
    choose = Random(seed)
    driver = Driver(4096)
    driver.set("vm-1", 4000)
    for _ in range(60):
        sort, low = choose.randrange(3), choose.randrange(1, 3000)
        if sort == 0:
            driver.ask(AllocMany(0, choose.randrange(1, 40), low))
        elif sort == 1:
            for _ in range(choose.randrange(40)):
                driver.ask(Alloc(0, low))
        else:
            for each in choose.sample(list(listed(driver)), listed_count(driver) // 5):
                driver.free(each.ioasid)
    found = listed(driver)
    owner = driver.core.record
    truth = {each: record.generation for each in range(4096) if (record := owner(each))}
    assert truth == {each.ioasid: each.generation for each in found}
    assert listed_count(driver) == sum(each.last - each.first + 1 for each in found.ranges)
    for one, other in zip(found.ranges, found.ranges[1:], strict=False):
        goes_on = one.generation + one.step * (one.last + 1 - one.first)
        apart = one.last + 1 < other.first
        same = one.first == one.last or other.first == other.last or one.step == other.step
        single = one.first == one.last and other.first == other.last
        assert apart or goes_on != other.generation or not same or single


def listed_count(driver: Driver) -> int:
    """How many IDs the set has."""
    return len(list(listed(driver)))


def test_a_resync_lists_by_tier(driver: Driver) -> None:
    """What is on its way through a higher tier does not part a range."""
    driver.subscribe("cpu", priority=CPU)
    driver.bind(1, 7)
    late = driver.subscribe("late", replay=True)
    assert (LiveRange(1, 3000, 0, "vm-1", 1),) == driver.resync(late).ranges
    assert () == driver.resync(late).ioasids
    assert [1] == [each.ioasid for each in listed(driver).ioasids]


def test_a_set_without_plain_ids(driver: Driver) -> None:
    """There are no ranges then, and nothing at all of an empty set."""
    sid = driver.set("vm-2", 2)
    assert Listing(sid, ()) == listed(driver, sid)
    driver.bound(sid)
    assert () == listed(driver, sid).ranges
    driver.ask(Free(3001))
    assert Listing(sid, ()) == listed(driver, sid)
