"""The door: what every request does, and every errno that it is refused with."""

import math

import pytest

from ioasid.core import (
    INVALID_IOASID,
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AlreadyBound,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityExhausted,
    CapacityInUse,
    CapacityRecord,
    DataTaken,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeSet,
    Get,
    HolderLive,
    InstallCapacity,
    InvalidArgument,
    IoasidFreePending,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    MalformedMessage,
    NoSpid,
    Notify,
    NotOfThisSet,
    NotReferenced,
    NotReserved,
    OpenSession,
    Put,
    QuotaBelowUse,
    QuotaExceeded,
    RangeFull,
    Released,
    Request,
    ReserveCapacity,
    SessionEnded,
    SessionOpened,
    SetFreePending,
    SetRecord,
    SetState,
    SpidInUse,
    Subscribe,
    SystemSetExists,
    TakeStatistics,
    TokenInUse,
    TokenType,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
)
from tests.core.helpers import Driver, expect, refused

ACTIVE = IoasidState.ACTIVE


@pytest.fixture
def driver() -> Driver:
    """An allocator of 64 IDs with nothing in it."""
    return Driver()


# -- capacity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 1024, 2**20, 2**32 - 1])
def test_install_capacity(driver: Driver, total: int) -> None:
    """The capacity may be set, and set again, while nothing uses it."""
    assert CapacityRecord(7, 0, 7) == driver.ask(InstallCapacity(7))
    assert CapacityRecord(total, 0, total) == driver.ask(InstallCapacity(total))


@pytest.mark.parametrize("used", [AllocSet("vm-1", 1), ReserveCapacity(1), AllocSystemSet(1)])
def test_install_capacity_in_use(driver: Driver, used: Request) -> None:
    """EBUSY: once there was a set or a reservation, the capacity stands, even after it went."""
    driver.ask(used)
    driver.refused(CapacityInUse, InstallCapacity(100), capacity=64)
    driver.ask(CancelCapacity(1) if isinstance(used, ReserveCapacity) else FreeSet(0))
    driver.refused(CapacityInUse, InstallCapacity(100), capacity=64)


def test_reserve_and_cancel(driver: Driver) -> None:
    """A reservation takes from what is available and gives back, without a set."""
    assert CapacityRecord(64, 10, 54) == driver.ask(ReserveCapacity(10))
    assert CapacityRecord(64, 64, 0) == driver.ask(ReserveCapacity(None))
    driver.refused(CapacityExhausted, ReserveCapacity(1), asked=1, available=0)
    driver.refused(CapacityExhausted, ReserveCapacity(None), asked=1, available=0)
    assert CapacityRecord(64, 60, 4) == driver.ask(CancelCapacity(4))
    driver.refused(CapacityExhausted, ReserveCapacity(5), asked=5, available=4)
    driver.refused(NotReserved, CancelCapacity(61), asked=61, reserved=60)
    driver.refused(NotReserved, CancelCapacity(2**32 - 1), reserved=60)
    assert CapacityRecord(64, 0, 64) == driver.ask(CancelCapacity(60))


@pytest.mark.parametrize("capacity", [1, 2**32 - 1])
def test_extreme_capacities(capacity: int) -> None:
    """An allocator of one ID, which is 0, and one of all there are: the last ID is 2^32-2."""
    driver = Driver(capacity)
    sid = driver.set(quota=None)
    assert Allocated(capacity - 1) == driver.ask(Alloc(sid, min=capacity - 1))
    assert IoasidState.ACTIVE is driver.find(capacity - 1).state
    driver.refused(InvalidArgument, Alloc(sid, max=INVALID_IOASID), argument="max")


@pytest.mark.parametrize("capacity", [0, -1, 2**32, True, 1.0, "1", None])
def test_capacity_is_checked(capacity: object) -> None:
    """EINVAL: a capacity outside 1..2^32-1."""
    with pytest.raises(InvalidArgument, match="capacity"):
        Allocator(capacity)  # type: ignore[arg-type]


# -- sets -------------------------------------------------------------------------------------


def test_alloc_set(driver: Driver) -> None:
    """A set takes its quota from what is available, and the lowest free number."""
    expected = SetRecord(0, "vm-1", TokenType.MM, 10, 0, SetState.ACTIVE, False)
    assert expected == driver.ask(AllocSet("vm-1", 10))
    assert expected == driver.ask(FindSet("vm-1"))
    null = TokenType.NULL
    assert SetRecord(1, None, null, 4, 0, SetState.ACTIVE) == driver.ask(AllocSet(None, 4, null))
    assert SetRecord(2, None, null, 50, 0, SetState.ACTIVE) == driver.ask(
        AllocSet(None, None, null)
    )
    driver.ask(FreeSet(1))
    assert 1 == driver.set("vm-2", 1)
    assert 3 == driver.set("vm-3", 1)


def test_alloc_set_is_refused(driver: Driver) -> None:
    """ENOSPC, EEXIST, EINVAL: too many, a token in use, one missing or superfluous."""
    driver.set("vm-1", 60)
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
    driver.set("vm-1", 63)
    assert 1 == driver.set("vm-2", 1)
    driver.ask(FreeSet(0))
    assert 63 == expect(SetRecord, driver.ask(AllocSet("vm-3"))).quota


def test_system_set(driver: Driver) -> None:
    """There is one system set; it is a set like any other, without a token."""
    expected = SetRecord(0, None, TokenType.NULL, 4, 0, SetState.ACTIVE, True)
    assert expected == driver.ask(AllocSystemSet(4))
    driver.refused(SystemSetExists, AllocSystemSet(4), sid=0)
    assert 1 == driver.alloc(0)
    driver.ask(FreeSet(0))
    assert SetRecord(0, None, TokenType.NULL, 64, 0, SetState.ACTIVE, True) == driver.ask(
        AllocSystemSet()
    )


def test_adjust_set(driver: Driver) -> None:
    """A quota moves up to what is available and down to what is allocated."""
    driver.set("vm-1", 10)
    driver.set("vm-2", 50)
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
    assert Listing(
        0,
        (
            LiveIoasid(ioasid, 0, "vm-1", ACTIVE, 5, None),
            LiveIoasid(other, 0, "vm-1", IoasidState.FREE_PENDING, None, "mine"),
        ),
    ) == driver.ask(ListSet(0))
    driver.refused(UnknownSet, ListSet(2), sid=2)


# -- allocating -------------------------------------------------------------------------------


def test_alloc_lowest_first(driver: Driver) -> None:
    """The lowest free ID of the range; 0 only if it is asked for."""
    driver.set(quota=32)
    assert [1, 2, 3] == [driver.alloc() for _ in range(3)]
    driver.free(2)
    assert Allocated(2) == driver.ask(Alloc(0))
    assert Allocated(0) == driver.ask(Alloc(0, min=0))
    assert Allocated(10) == driver.ask(Alloc(0, 10, 10))
    assert Allocated(11) == driver.ask(Alloc(0, 10, 12))
    assert Allocated(63) == driver.ask(Alloc(0, min=63))
    assert Allocated(4) == driver.ask(Alloc(0, data="mine"))
    assert "mine" == driver.find(4).data


def test_alloc_is_refused(driver: Driver) -> None:
    """EDQUOT, ENOSPC, ENOENT, EBUSY, EINVAL: the ways an allocation fails."""
    driver.set(quota=2)
    driver.set("vm-2", 32)
    driver.refused(InvalidArgument, Alloc(0, 5, 4), argument="min")
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
    assert AllocatedMany(ranges) == driver.ask(AllocMany(0, 5))
    assert [("ALLOC", each) for each in (1, 2, 4, 5, 6)] == driver.shown(kvm)
    assert AllocatedMany((IoasidRange(60, 63),)) == driver.ask(AllocMany(0, 4, 60))
    assert AllocatedMany((IoasidRange(0, 0),)) == driver.ask(AllocMany(0, 1, 0, 0))


def test_alloc_many_is_all_or_none(driver: Driver) -> None:
    """One too many and nothing is allocated."""
    driver.set(quota=10)
    driver.refused(QuotaExceeded, AllocMany(0, 11), sid=0, quota=10, allocated=0, asked=11)
    driver.refused(RangeFull, AllocMany(0, 5, 10, 13), low=10, high=13, count=5)
    driver.refused(InvalidArgument, AllocMany(0, 0), argument="count")
    driver.refused(InvalidArgument, AllocMany(0, 1, 9, 8), argument="min")
    driver.refused(UnknownSet, AllocMany(7, 1), sid=7)
    assert AllocatedMany((IoasidRange(10, 13),)) == driver.ask(AllocMany(0, 4, 10, 13))
    driver.ask(Get(10))
    driver.ask(FreeSet(0))
    driver.refused(SetFreePending, AllocMany(0, 1), sid=0)


def test_alloc_many_counts_without_subscribers() -> None:
    """A large allocation that nobody is told of is taken and freed by the word."""
    driver = Driver(1 << 20)
    driver.set(quota=None)
    assert AllocatedMany((IoasidRange(1, 50_000),)) == driver.ask(AllocMany(0, 50_000))
    assert (50_000, 50_000) == (driver.figures().active, driver.figures().seq)
    driver.ask(Get(30_000))
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    assert (0, 1) == (driver.figures().active, driver.figures().free_pending)
    assert Released(True) == driver.ask(Put(30_000))


# -- references, data and spids ---------------------------------------------------------------


def test_get_and_put(driver: Driver) -> None:
    """References are counted per holder, beside the set's own, which put can't drop."""
    driver.set()
    ioasid = driver.alloc()
    driver.refused(NotReferenced, Put(ioasid), holder="host", ioasid=ioasid)
    assert Done() == driver.ask(Get(ioasid), "kvm")
    assert Done() == driver.ask(Get(ioasid, 0), "kvm")
    assert IoasidRecord(ioasid, 0, None, ACTIVE, None, {"kvm": 2}, 3) == driver.find(ioasid)
    driver.refused(NotReferenced, Put(ioasid), holder="host", ioasid=ioasid)
    for _ in range(2):
        assert Released(False) == driver.ask(Put(ioasid, 0), "kvm")
    driver.refused(NotReferenced, Put(ioasid), "kvm", holder="kvm", ioasid=ioasid)
    assert IoasidRecord(ioasid, 0, None, ACTIVE, None, {}, 1) == driver.find(ioasid)


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
    assert Allocated(ioasid) == driver.ask(FindBySpid(0, spid))
    driver.refused(UnknownSpid, FindBySpid(1, spid), sid=1, spid=spid)
    driver.refused(SpidInUse, AttachSpid(second, spid), sid=0, spid=spid, ioasid=ioasid)
    driver.refused(AlreadyBound, AttachSpid(ioasid, 5), ioasid=ioasid, spid=spid)
    driver.bind(stranger, spid)
    assert Allocated(stranger) == driver.ask(FindBySpid(1, spid))
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
    assert Allocated(ioasid) == driver.ask(FindBySpid(0, 5, get=True), "vdcm")
    assert {"vdcm": 1} == driver.find(ioasid).references
    driver.refused(UnknownSet, FindBySpid(9, 5), sid=9)
    driver.refused(UnknownSpid, FindBySpid(0, 6, get=True), sid=0, spid=6)


OF_ONE_ID = [
    Free(1, 1),
    Get(1, 1),
    Put(1, 1),
    Find(1, 1),
    AttachData(1, 0, 1),
    DetachData(1, 1),
    AttachSpid(1, 2, 1),
    DetachSpid(1, 1),
    Notify(1, EventKind.BIND, 1),
]


@pytest.mark.parametrize("request_", OF_ONE_ID, ids=lambda each: type(each).__name__)
def test_permission(driver: Driver, request_: Request) -> None:
    """EACCES: the ID is not of the set that the request names, be there such a set or not."""
    driver.set()
    driver.bound(spid=1)
    driver.ask(Get(1))
    driver.refused(NotOfThisSet, request_, ioasid=1, sid=1)
    driver.set("vm-2")
    driver.refused(NotOfThisSet, request_, ioasid=1, sid=1)
    driver.free(1)
    in_quarantine = IoasidFreePending if isinstance(request_, Get) else NotOfThisSet
    driver.refused(in_quarantine, request_, ioasid=1)


@pytest.mark.parametrize("request_", OF_ONE_ID, ids=lambda each: type(each).__name__)
def test_unknown_ids(driver: Driver, request_: Request) -> None:
    """ENOENT: an ID that was never allocated, and one that has been reclaimed."""
    driver.refused(UnknownIoasid, request_, ioasid=1)
    driver.set()
    driver.free(driver.alloc())
    driver.refused(UnknownIoasid, request_, ioasid=1)


def test_plain_ids_need_no_record(driver: Driver) -> None:
    """What was attached and detached, taken and put, leaves the state as if it never was."""
    driver.set()
    ioasid = driver.alloc()
    before = driver.core.snapshot()
    driver.ask(AttachData(ioasid, 1))
    driver.ask(DetachData(ioasid))
    driver.ask(Get(ioasid))
    driver.ask(Put(ioasid))
    assert before == driver.core.snapshot()


# -- sessions and figures ---------------------------------------------------------------------


def test_sessions() -> None:
    """The first session is the host's; others join by name, numbers are never used again."""
    core = Allocator(8, holder="agent")
    opened = expect(SessionOpened, core.handle(core.session, OpenSession("kvm")))
    assert (False, ()) == (opened.resumed, opened.references)
    assert core.session != opened.session
    refused(core, HolderLive, OpenSession("agent"), core.session, name="agent")
    refused(core, UnknownHolder, Evict("nobody"), core.session, name="nobody")
    core.handle(opened.session, Evict("kvm"))
    again = core.open_session("kvm")
    assert opened.session < again.session
    with pytest.raises(HolderLive):
        core.open_session("kvm")


@pytest.mark.parametrize("session", [0, 99, 2**64 - 1])
def test_ended_sessions(driver: Driver, session: int) -> None:
    """ESTALE: a session that is not live asks for nothing, whatever it asks for."""
    for request in (TakeStatistics(), AllocSet("vm-1", 1), "nonsense"):
        error = refused(driver.core, SessionEnded, request, session)
        assert session == getattr(error, "session", None)


def test_the_last_session_may_leave(driver: Driver) -> None:
    """An allocator without sessions goes on; whoever drives it opens one."""
    driver.set()
    driver.ask(Evict("host"))
    assert 0 == driver.core.open_session("kvm").session - 2


def test_suspend_all(driver: Driver) -> None:
    """Every session crashes at once: who has something is suspended, the others are gone."""
    driver.set()
    driver.ask(Get(driver.alloc()), "kvm")
    driver.session("vtd")
    driver.core.suspend_all()
    assert [("kvm", None)] == [(each.name, each.session) for each in driver.core.snapshot().holders]
    refused(driver.core, SessionEnded, TakeStatistics(), driver.core.session)
    assert driver.core.open_session("kvm").resumed
    assert not driver.core.open_session("host").resumed


def test_record(driver: Driver) -> None:
    """Whoever drives the allocator reads an ID's record without a session."""
    assert driver.core.record(1) is None
    driver.set()
    assert driver.find(driver.bound()) == driver.core.record(1)
    with pytest.raises(InvalidArgument, match="ioasid"):
        driver.core.record(-1)


@pytest.mark.parametrize("stranger", [None, 7, "Alloc", Done(), {"type": "Alloc"}, Alloc, object()])
def test_what_is_no_request(driver: Driver, stranger: object) -> None:
    """EBADMSG: an object that is none of the requests."""
    error = refused(driver.core, MalformedMessage, stranger, driver.core.session)
    assert type(stranger).__name__ in str(error)


def test_statistics(driver: Driver) -> None:
    """All the figures, taken at once."""
    driver.ask(ReserveCapacity(4))
    driver.set(quota=10)
    driver.set("vm-2", 20)
    for _ in range(3):
        driver.alloc()
    driver.ask(Get(1), "kvm")
    driver.free(1)
    driver.subscribe("vtd")
    driver.ask(AttachSpid(2, 7))
    figures = driver.figures()
    assert (64, 4, 30) == (figures.capacity, figures.reserved, figures.available)
    assert (2, 0, 2, 1) == (
        figures.sets,
        figures.sets_free_pending,
        figures.active,
        figures.free_pending,
    )
    assert (3, 0, 1) == (figures.sessions, figures.suspended, figures.subscriptions)
    assert (5, 1, 0) == (figures.seq, figures.under_way, figures.mailbox)
    assert ["vtd"] == [each.holder for each in figures.lagging]


@pytest.mark.parametrize("now", [0, 1.5, -3])
def test_tick(driver: Driver, now: float) -> None:
    """Any clock will do."""
    driver.core.tick(now)


@pytest.mark.parametrize("now", ["1", None, True, 1j, math.nan, math.inf, 10**400])
def test_tick_is_checked(driver: Driver, now: object) -> None:
    """EINVAL: a time that is no number, or that no figure could tell."""
    with pytest.raises(InvalidArgument, match="now"):
        driver.core.tick(now)  # type: ignore[arg-type]


def test_two_allocators_share_nothing() -> None:
    """Nothing is global: what one does, the other does not see."""
    one, other = Driver(), Driver()
    before = other.core.snapshot()
    one.set()
    one.bound()
    one.subscribe("kvm")
    assert before == other.core.snapshot()


def test_a_subscriber_costs_others_nothing(driver: Driver) -> None:
    """An event for one set comes out for that set's subscribers only, however many there are."""
    for number in range(10):
        driver.set(f"vm-{number}", 2)
        driver.ask(Subscribe(sid=number), f"kvm-{number}")
    before = len(driver.effects)
    driver.alloc(7)
    assert 1 == len(driver.effects) - before
