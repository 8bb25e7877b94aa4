"""Capacity and sets: what each request does, and every errno that it is refused with."""

import pytest

from ioasid.core import (
    INVALID_IOASID,
    AdjustSet,
    Alloc,
    Allocated,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CapacityExhausted,
    CapacityInUse,
    CapacityRecord,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    InstallCapacity,
    InvalidArgument,
    IoasidRange,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    LiveRange,
    NotOfThisSet,
    NotReserved,
    QuotaBelowUse,
    QuotaExceeded,
    Request,
    ReserveCapacity,
    ReserveRange,
    SetFreePending,
    SetFrozen,
    SetNotFrozen,
    SetRecord,
    SetState,
    SpidInUse,
    SystemSetExists,
    TokenInUse,
    TokenType,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
)
from tests.core.helpers import Driver, expect

ACTIVE = IoasidState.ACTIVE


@pytest.mark.parametrize("total", [1, 2, 1024, 2**20, 2**32 - 1])
def test_install_capacity(driver: Driver, total: int) -> None:
    """The capacity may be set, and set again, while nothing uses it."""
    assert CapacityRecord(7, 1, 6, 1) == driver.ask(InstallCapacity(7))
    assert CapacityRecord(total, 1, total - 1, 1) == driver.ask(InstallCapacity(total))


UNDO: dict[Request, Request] = {
    AllocSet("vm-1", 1): FreeSet(0),
    AllocSystemSet(1): FreeSet(0),
    ReserveCapacity(1): CancelCapacity(1),
    ReserveRange(5, 5): CancelRange(5, 5),
    AllocGroup("tenant", 1): FreeGroup("tenant"),
}


@pytest.mark.parametrize("used", UNDO)
def test_install_capacity_in_use(driver: Driver, used: Request) -> None:
    """EBUSY: once there was a set, group or reservation, the capacity stands for good."""
    driver.ask(used)
    driver.refused(CapacityInUse, InstallCapacity(100), capacity=64)
    driver.ask(UNDO[used])
    driver.refused(CapacityInUse, InstallCapacity(100), capacity=64)


def test_reserve_and_cancel(driver: Driver) -> None:
    """A reservation takes from what is available and gives back, without a set."""
    assert CapacityRecord(64, 11, 53, 1) == driver.ask(ReserveCapacity(10))
    assert CapacityRecord(64, 64, 0, 1) == driver.ask(ReserveCapacity(None))
    driver.refused(CapacityExhausted, ReserveCapacity(1), asked=1, available=0)
    driver.refused(CapacityExhausted, ReserveCapacity(None), asked=1, available=0)
    assert CapacityRecord(64, 60, 4, 1) == driver.ask(CancelCapacity(4))
    driver.refused(CapacityExhausted, ReserveCapacity(5), asked=5, available=4)
    driver.refused(NotReserved, CancelCapacity(60), asked=60, reserved=59)
    driver.refused(NotReserved, CancelCapacity(2**32 - 1), reserved=59)
    assert CapacityRecord(64, 1, 63, 1) == driver.ask(CancelCapacity(59))


@pytest.mark.parametrize("capacity", [1, 2**32 - 1])
def test_extreme_capacities(capacity: int) -> None:
    """An allocator of one ID, which is 0, and one of all there are: the last ID is 2^32-2."""
    driver = Driver(capacity)
    driver.ask(CancelRange(0, 0))
    sid = driver.set(quota=None)
    assert Allocated(capacity - 1, 1) == driver.ask(Alloc(sid, min=capacity - 1))
    assert IoasidState.ACTIVE is driver.find(capacity - 1).state
    driver.refused(InvalidArgument, Alloc(sid, max=INVALID_IOASID), argument="max")


def test_alloc_set(driver: Driver) -> None:
    """A set takes its quota from what is available, and a number that none had before."""
    expected = SetRecord(0, "vm-1", TokenType.MM, 10, 0, SetState.ACTIVE, False)
    assert expected == driver.ask(AllocSet("vm-1", 10))
    assert expected == driver.ask(FindSet("vm-1"))
    null = TokenType.NULL
    assert SetRecord(1, None, null, 4, 0, SetState.ACTIVE) == driver.ask(AllocSet(None, 4, null))
    assert SetRecord(2, None, null, 49, 0, SetState.ACTIVE) == driver.ask(
        AllocSet(None, None, null)
    )
    driver.ask(FreeSet(1))
    driver.refused(UnknownSet, FreeSet(1), sid=1)
    assert 3 == driver.set("vm-2", 1)
    driver.refused(UnknownSet, FreeSet(1), sid=1)
    assert 4 == driver.set("vm-3", 1)


def test_alloc_set_is_refused(driver: Driver) -> None:
    """ENOSPC, EEXIST, EINVAL: too many, a token in use, one missing or superfluous."""
    driver.set("vm-1", 59)
    driver.refused(CapacityExhausted, AllocSet("vm-2", 5), asked=5, available=4)
    driver.refused(TokenInUse, AllocSet("vm-1", 1), token="vm-1", sid=0)
    driver.refused(InvalidArgument, AllocSet(None, 1), argument="token")
    driver.refused(InvalidArgument, AllocSet("x", 1, TokenType.NULL), argument="token")
    driver.set("vm-2", 4)
    for quota in (None, 1):
        driver.refused(CapacityExhausted, AllocSet("vm-3", quota), asked=1, available=0)
        driver.refused(CapacityExhausted, AllocSystemSet(quota), asked=1, available=0)


def test_a_quota_may_equal_what_is_available(driver: Driver) -> None:
    """A set may take all that is left, by figure or by None."""
    driver.set("vm-1", 62)
    assert 1 == driver.set("vm-2", 1)
    driver.ask(FreeSet(0))
    assert 62 == expect(SetRecord, driver.ask(AllocSet("vm-3"))).quota


def test_system_set(driver: Driver) -> None:
    """There is one system set; it is a set like any other, without a token."""
    expected = SetRecord(0, None, TokenType.NULL, 4, 0, SetState.ACTIVE, True)
    assert expected == driver.ask(AllocSystemSet(4))
    driver.refused(SystemSetExists, AllocSystemSet(4), sid=0)
    assert 1 == driver.alloc(0)
    driver.ask(FreeSet(0))
    assert SetRecord(1, None, TokenType.NULL, 63, 0, SetState.ACTIVE, True) == driver.ask(
        AllocSystemSet()
    )


def test_adjust_set(driver: Driver) -> None:
    """A quota moves up to what is available and down to what is allocated."""
    driver.set("vm-1", 10)
    driver.set("vm-2", 49)
    for _ in range(3):
        driver.alloc()
    for quota, available in ((14, 0), (3, 11), (10, 4), (10, 4)):
        assert quota == expect(SetRecord, driver.ask(AdjustSet(0, quota))).quota
        assert available == driver.figures().available
    driver.refused(QuotaBelowUse, AdjustSet(0, 2), sid=0, quota=2, allocated=3)
    driver.refused(CapacityExhausted, AdjustSet(0, 15), asked=5, available=4)
    driver.refused(UnknownSet, AdjustSet(9, 5), sid=9)
    driver.ask(Get(1))
    driver.ask(FreeSet(0))
    driver.refused(SetFreePending, AdjustSet(0, 12), sid=0)


def test_find_set_and_sid(driver: Driver) -> None:
    """ENOENT: a token that no live set has, an ID that is not allocated."""
    driver.refused(UnknownToken, FindSet("vm-1"), token="vm-1")
    driver.refused(UnknownSet, FindSet(sid=0), sid=0)
    driver.refused(InvalidArgument, FindSet(), argument="token")
    driver.refused(UnknownIoasid, FindSid(1), ioasid=1)
    driver.set()
    driver.set("vm-2")
    assert FoundSid(1) == driver.ask(FindSid(driver.alloc(1)))
    assert 1 == expect(SetRecord, driver.ask(FindSet("vm-2"))).sid
    assert driver.ask(FindSet("vm-2")) == driver.ask(FindSet(sid=1))


def test_list_set(driver: Driver) -> None:
    """A listing has the IDs of the set, ascending, with states, spids and data."""
    driver.set()
    driver.set("vm-2")
    assert Listing(0, ()) == driver.ask(ListSet(0))
    ioasid, _, other = driver.bound(spid=5), driver.alloc(1), driver.alloc()
    driver.ask(AttachData(other, "mine"))
    driver.ask(Get(other))
    driver.free(other)
    plain = [driver.alloc() for _ in range(3)]
    driver.ask(Get(plain[1]))
    assert Listing(
        0,
        (
            LiveIoasid(ioasid, 0, "vm-1", ACTIVE, 5, None, 1),
            LiveIoasid(other, 0, "vm-1", IoasidState.FREE_PENDING, None, "mine", 3),
        ),
        (LiveRange(plain[0], plain[2], 0, "vm-1", 4, 1),),
    ) == driver.ask(ListSet(0))
    driver.refused(UnknownSet, ListSet(2), sid=2)


@pytest.mark.parametrize("token", ["vm-1", None])
def test_a_refusal_names_the_set(driver: Driver, token: str | None) -> None:
    """What is refused because of a set says its number, and its token if it has one."""
    other = driver.alloc(driver.set("vm-2", 1))
    sid = driver.set(token, 2)
    first, second = driver.alloc(sid), driver.alloc(sid)
    driver.bind(first, 100)
    driver.ask(Get(second))
    others = (IoasidRange(other, other),)
    refusals = [
        driver.refused(QuotaExceeded, Alloc(sid)),
        driver.refused(QuotaExceeded, AllocMany(sid, 1)),
        driver.refused(QuotaBelowUse, AdjustSet(sid, 1)),
        driver.refused(SpidInUse, AttachSpid(second, 100)),
        driver.refused(UnknownSpid, FindBySpid(sid, 5)),
        driver.refused(NotOfThisSet, Find(other, sid)),
        driver.refused(NotOfThisSet, Get(other, sid)),
        driver.refused(NotOfThisSet, FreeMany(sid, others)),
        driver.refused(SetNotFrozen, ExportSet(sid)),
    ]
    driver.ask(FreezeSet(sid))
    refusals.append(driver.refused(SetFrozen, Alloc(sid)))
    driver.ask(FreeSet(sid))
    refusals.append(driver.refused(SetFreePending, Alloc(sid)))
    named = f"set {sid} ('vm-1')" if token else f"set {sid}"
    for refusal in refusals:
        assert named in refusal.message
        assert bool(token) == ("vm-1" in refusal.message)
        assert (token or "") == getattr(refusal, "token", None)
