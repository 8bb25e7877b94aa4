"""IOASIDs: what each request does, and every errno that it is refused with."""

import pytest

from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    AllocMany,
    AlreadyBound,
    AttachData,
    AttachSpid,
    CancelRange,
    DataTaken,
    DetachData,
    DetachSpid,
    Done,
    FindBySpid,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    NoSpid,
    NotReferenced,
    Put,
    QuotaExceeded,
    RangeFull,
    Released,
    SetFreePending,
    SpidInUse,
    UnknownSet,
    UnknownSpid,
)
from tests.core.helpers import Driver, state

ACTIVE = IoasidState.ACTIVE


def test_alloc_lowest_first(driver: Driver) -> None:
    """The lowest free ID of the range; 0 only if it is asked for, and not reserved."""
    driver.set(quota=32)
    assert [1, 2, 3] == [driver.alloc() for _ in range(3)]
    driver.free(2)
    assert Allocated(2, 4) == driver.ask(Alloc(0))
    driver.refused(RangeFull, Alloc(0, min=0, max=0))
    driver.ask(CancelRange(0, 0))
    assert Allocated(0, 5) == driver.ask(Alloc(0, min=0))
    assert Allocated(10, 6) == driver.ask(Alloc(0, 10, 10))
    assert Allocated(11, 7) == driver.ask(Alloc(0, 10, 12))
    assert Allocated(63, 8) == driver.ask(Alloc(0, min=63))
    assert Allocated(4, 9) == driver.ask(Alloc(0, data="mine"))
    assert "mine" == driver.find(4).data


def test_every_id_below_the_capacity_is_allocated(driver: Driver) -> None:
    """The last one too, one by one and together."""
    driver.set()
    assert [Allocated(62, 1), Allocated(63, 2)] == [driver.ask(Alloc(0, 62)) for _ in range(2)]
    driver.refused(RangeFull, Alloc(0, 62), low=62, high=63)
    assert AllocatedMany((IoasidRange(48, 61),), 3) == driver.ask(AllocMany(0, 14, 48))


def test_alloc_is_refused(driver: Driver) -> None:
    """EDQUOT, ENOSPC, ENOENT, EBUSY, EINVAL: the ways an allocation fails."""
    driver.set(quota=2)
    driver.set("vm-2", 32)
    driver.refused(InvalidArgument, Alloc(0, 5, 4), argument="max")
    driver.refused(InvalidArgument, Alloc(0, 1, 64), argument="max")
    driver.refused(InvalidArgument, Alloc(0, 64), argument="min")
    driver.refused(UnknownSet, Alloc(7), sid=7)
    driver.ask(Alloc(0, 5, 5))
    driver.refused(RangeFull, Alloc(1, 5, 5), low=5, high=5, count=1)
    driver.alloc(0)
    driver.refused(QuotaExceeded, Alloc(0), sid=0, quota=2, allocated=2, asked=1)
    driver.ask(Get(5))
    driver.ask(FreeSet(0))
    driver.refused(SetFreePending, Alloc(0), sid=0)


def test_alloc_many_is_told_one_by_one(driver: Driver) -> None:
    """Every ID of an alloc_many has its own ALLOC, in order."""
    driver.set(quota=30)
    driver.ask(Alloc(0, 3, 3))
    kvm = driver.subscribe("kvm", sid=0)
    ranges = (IoasidRange(1, 2), IoasidRange(4, 6))
    assert AllocatedMany(ranges, 2) == driver.ask(AllocMany(0, 5))
    assert [("ALLOC", each) for each in (1, 2, 4, 5, 6)] == driver.shown(kvm)
    assert AllocatedMany((IoasidRange(60, 63),), 3) == driver.ask(AllocMany(0, 4, 60))
    assert AllocatedMany((IoasidRange(7, 7),), 4) == driver.ask(AllocMany(0, 1, 0, 7))


def test_alloc_many_is_all_or_none(driver: Driver) -> None:
    """One too many and nothing is allocated."""
    driver.set(quota=10)
    driver.refused(QuotaExceeded, AllocMany(0, 11), sid=0, quota=10, allocated=0, asked=11)
    driver.refused(RangeFull, AllocMany(0, 5, 10, 13), low=10, high=13, count=5)
    driver.refused(InvalidArgument, AllocMany(0, 0), argument="count")
    driver.refused(InvalidArgument, AllocMany(0, 1, 9, 8), argument="max")
    driver.refused(UnknownSet, AllocMany(7, 1), sid=7)
    assert AllocatedMany((IoasidRange(10, 13),), 1) == driver.ask(AllocMany(0, 4, 10, 13))
    driver.ask(Get(10))
    driver.ask(FreeSet(0))
    driver.refused(SetFreePending, AllocMany(0, 1), sid=0)


def test_alloc_many_counts_without_subscribers() -> None:
    """A large allocation that nobody is told of is taken and freed by the word."""
    driver = Driver(1 << 20)
    driver.set(quota=None)
    assert AllocatedMany((IoasidRange(1, 50_000),), 1) == driver.ask(AllocMany(0, 50_000))
    assert (50_000, 50_000) == (driver.figures().active, driver.figures().seq)
    driver.ask(Get(30_000))
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    assert (0, 1) == (driver.figures().active, driver.figures().free_pending)
    assert Released(True) == driver.ask(Put(30_000))


def test_get_and_put(driver: Driver) -> None:
    """References are counted per holder, beside the set's own, which put can't drop."""
    driver.set()
    ioasid = driver.alloc()
    driver.refused(NotReferenced, Put(ioasid), holder="host", ioasid=ioasid)
    assert Done() == driver.ask(Get(ioasid), "kvm")
    assert Done() == driver.ask(Get(ioasid, 0), "kvm")
    assert IoasidRecord(ioasid, 0, None, ACTIVE, None, {"kvm": 2}, 3, 1) == driver.find(ioasid)
    driver.refused(NotReferenced, Put(ioasid), holder="host", ioasid=ioasid)
    for _ in range(2):
        assert Released(False) == driver.ask(Put(ioasid, 0), "kvm")
    driver.refused(NotReferenced, Put(ioasid), "kvm", holder="kvm", ioasid=ioasid)
    assert IoasidRecord(ioasid, 0, None, ACTIVE, None, {}, 1, 1) == driver.find(ioasid)


def test_put_drops_the_callers_own(driver: Driver) -> None:
    """Whoever took a reference last, a put drops one of the holder that asks."""
    driver.set()
    ioasid = driver.alloc()
    for name in ("kvm", "vdcm", "vtd"):
        driver.ask(Get(ioasid), name)
    driver.ask(Put(ioasid), "vdcm")
    assert {"kvm": 1, "vtd": 1} == driver.find(ioasid).references


@pytest.mark.parametrize("value", [0, -(2**63), 2**64 - 1, "", "x" * 4096, "\N{SNOWMAN}"])
def test_data(driver: Driver, value: int | str) -> None:
    """One opaque value per ID; detaching it twice is nothing."""
    driver.set()
    ioasid = driver.alloc()
    assert Done() == driver.ask(DetachData(ioasid))
    assert Done() == driver.ask(AttachData(ioasid, value, 0))
    assert value == driver.find(ioasid).data
    driver.refused(DataTaken, AttachData(ioasid, value), ioasid=ioasid)
    for _ in range(2):
        assert Done() == driver.ask(DetachData(ioasid, 0))
        assert driver.find(ioasid).data is None
    assert Done() == driver.ask(AttachData(ioasid, value))


@pytest.mark.parametrize("spid", [0, 1, 2**20, 2**32 - 2])
def test_spids(driver: Driver, spid: int) -> None:
    """A spid is unique within its set; each ID has one; it is found in one step."""
    driver.set()
    driver.set("vm-2")
    ioasid, second, stranger = driver.alloc(), driver.alloc(), driver.alloc(1)
    driver.refused(UnknownSpid, FindBySpid(0, spid), sid=0, spid=spid)
    driver.bind(ioasid, spid)
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, spid))
    driver.refused(UnknownSpid, FindBySpid(1, spid), sid=1, spid=spid)
    driver.refused(SpidInUse, AttachSpid(second, spid), sid=0, spid=spid, ioasid=ioasid)
    driver.refused(AlreadyBound, AttachSpid(ioasid, 5), ioasid=ioasid, spid=spid)
    driver.bind(stranger, spid)
    assert Allocated(stranger, 3) == driver.ask(FindBySpid(1, spid))
    driver.unbind(ioasid)
    driver.refused(NoSpid, DetachSpid(ioasid), ioasid=ioasid)
    driver.refused(UnknownSpid, FindBySpid(0, spid))
    driver.bind(second, spid)


def test_find_by_spid_takes_a_reference_if_asked(driver: Driver) -> None:
    """With get the caller has a reference in the same step; without, it has none."""
    driver.set()
    ioasid = driver.bound(spid=5)
    driver.ask(FindBySpid(0, 5), "vdcm")
    assert {} == driver.find(ioasid).references
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, 5, get=True), "vdcm")
    assert {"vdcm": 1} == driver.find(ioasid).references
    driver.refused(UnknownSet, FindBySpid(9, 5), sid=9)
    driver.refused(UnknownSpid, FindBySpid(0, 6, get=True), sid=0, spid=6)


def test_plain_ids_need_no_record(driver: Driver) -> None:
    """What was attached and detached, taken and put, leaves the state as if it never was."""
    driver.set()
    ioasid = driver.alloc()
    before = state(driver.core)
    driver.ask(AttachData(ioasid, 1))
    driver.ask(DetachData(ioasid))
    driver.ask(Get(ioasid))
    driver.ask(Put(ioasid))
    assert before == state(driver.core)
