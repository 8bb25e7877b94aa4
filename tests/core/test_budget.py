"""What is charged to a group or the system, and given back on every way out."""

import pytest

from ioasid.core import (
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocator,
    AllocGroup,
    AllocSet,
    AllocSystemSet,
    CapacityExhausted,
    FreeGroup,
    FreeSet,
    Get,
    GroupExhausted,
    GroupPage,
    GroupRecord,
    IoasidError,
    ListGroups,
    OpenSession,
    Put,
    Released,
    Request,
    SetRecord,
    SystemSetExists,
    TokenInUse,
    TokenType,
)
from tests.core.helpers import Driver, expect


@pytest.fixture
def driver() -> Driver:
    """An allocator of 64 IDs with a tenant of 20, and a department of 10 in it."""
    driver = Driver()
    driver.ask(AllocGroup("tenant", 20))
    driver.ask(AllocGroup("department", 10, "tenant"))
    return driver


def used(driver: Driver) -> dict[str, int]:
    """What each group gave, and the system."""
    groups = expect(GroupPage, driver.ask(ListGroups())).groups
    figures = driver.figures()
    given = figures.capacity - figures.reserved - figures.available
    return {each.name: each.used for each in groups} | {"": given}


def make(driver: Driver, token: str, quota: int | None, group: str | None) -> SetRecord:
    """Make a set in a group."""
    return expect(SetRecord, driver.ask(AllocSet(token, quota, group=group)))


def test_each_level_is_charged_once(driver: Driver) -> None:
    """A group's whole limit is charged to the one above it; a quota in it, to the group alone."""
    assert {"tenant": 10, "department": 0, "": 20} == used(driver)
    record = make(driver, "vm-1", 4, "department")
    assert ("department", 4) == (record.group, record.quota)
    assert {"tenant": 10, "department": 4, "": 20} == used(driver)
    make(driver, "vm-2", 3, "tenant")
    assert {"tenant": 13, "department": 4, "": 20} == used(driver)
    make(driver, "vm-3", 5, None)
    assert {"tenant": 13, "department": 4, "": 25} == used(driver)


def test_no_level_gives_more_than_it_has(driver: Driver) -> None:
    """ENOSPC: beyond the limit of the group, however much the levels above have left."""
    make(driver, "vm-1", 8, "department")
    driver.refused(
        GroupExhausted, AllocSet("vm-2", 3, group="department"), group="department", asked=3, left=2
    )
    driver.refused(GroupExhausted, AllocSet("vm-2", 11, group="tenant"), asked=11, left=10)
    driver.refused(GroupExhausted, AllocGroup("other", 11, "tenant"), asked=11, left=10)
    driver.refused(CapacityExhausted, AllocGroup("other", 44), asked=44, available=43)
    driver.refused(CapacityExhausted, AdjustGroup("tenant", 64), asked=44, available=43)
    driver.refused(GroupExhausted, AdjustGroup("department", 21), asked=11, left=10)


def test_none_takes_all_that_the_group_has_left(driver: Driver) -> None:
    """Which has to be something."""
    assert 10 == make(driver, "vm-1", None, "department").quota
    driver.refused(GroupExhausted, AllocSet("vm-2", None, group="department"), asked=1, left=0)
    assert 10 == make(driver, "vm-2", None, "tenant").quota
    assert 43 == make(driver, "vm-3", None, None).quota


REFUSED: list[tuple[Request, type[IoasidError]]] = [
    (AllocSet("vm-1", 2, group="department"), TokenInUse),
    (AllocSet("vm-9", 99, group="department"), GroupExhausted),
    (AllocSystemSet(1), SystemSetExists),
    (AdjustSet(0, 12), GroupExhausted),
    (AllocGroup("desk", 9, "department"), GroupExhausted),
    (AdjustGroup("department", 21), GroupExhausted),
]


@pytest.mark.parametrize(("request_", "error"), REFUSED, ids=repr)
def test_a_refusal_charges_nothing(
    driver: Driver, request_: Request, error: type[IoasidError]
) -> None:
    """However often it is asked again, what the groups gave stays as it was."""
    make(driver, "vm-1", 4, "department")
    driver.ask(AllocSystemSet(1))
    before = used(driver)
    for _ in range(3):
        driver.refused(error, request_)
    assert before == used(driver)


def test_a_quota_moves_within_its_group(driver: Driver) -> None:
    """What a set gains its group loses, and gets back when it shrinks."""
    sid = make(driver, "vm-1", 4, "department").sid
    for quota in (10, 1, 6):
        driver.ask(AdjustSet(sid, quota))
        assert {"tenant": 10, "department": quota, "": 20} == used(driver)


def test_a_set_gives_back_with_its_last_id(driver: Driver) -> None:
    """Until then its quota is charged; then it is not, at any level."""
    sid = make(driver, "vm-1", 4, "department").sid
    ioasid = driver.alloc(sid)
    driver.ask(Get(ioasid))
    assert Released(False) == driver.ask(FreeSet(sid))
    assert 4 == used(driver)["department"]
    driver.ask(Put(ioasid))
    assert {"tenant": 10, "department": 0, "": 20} == used(driver)
    driver.ask(FreeGroup("department"))
    assert {"tenant": 0, "": 20} == used(driver)
    driver.ask(FreeGroup("tenant"))
    assert {"": 0} == used(driver)


def test_a_thousand_refusals_leave_nothing(driver: Driver) -> None:
    """The kernel's own attempt leaked a charge with every allocation that was refused."""
    sid = make(driver, "vm-1", 1, "department").sid
    driver.alloc(sid)
    for _ in range(1000):
        with pytest.raises(Exception, match="EDQUOT"):
            driver.core.handle(driver.core.session, Alloc(sid))
    assert {"tenant": 10, "department": 1, "": 20} == used(driver)


def test_a_restored_allocator_charges_the_same(driver: Driver) -> None:
    """Groups come back with what they gave, a group before the one that it is in as well."""
    driver.ask(AllocGroup("a desk", 3, "department"))
    sid = make(driver, "vm-1", 2, "a desk").sid
    expected = used(driver)
    snapshot = driver.core.snapshot()
    driver.core = Allocator.restore(snapshot)
    assert snapshot == driver.core.snapshot()
    assert expected == used(driver) == {"tenant": 10, "department": 3, "a desk": 2, "": 20}
    driver.refused(GroupExhausted, AdjustSet(sid, 4), group="a desk", asked=2, left=1)
    driver.ask(FreeSet(sid))
    assert {"tenant": 10, "department": 3, "a desk": 0, "": 20} == used(driver)


def test_a_crash_charges_nothing(driver: Driver) -> None:
    """Sets and groups belong to no session: they stay as they are when one goes."""
    session = driver.opened("kvm").session
    driver.core.handle(session, AllocSet(None, 2, TokenType.NULL, "department"))
    driver.sessions["kvm"] = session
    driver.ask(Get(driver.alloc()), "kvm")
    before = used(driver)
    driver.crash("kvm")
    assert before == used(driver)
    driver.ask(OpenSession("kvm"))
    assert before == used(driver)


def test_records_name_the_group(driver: Driver) -> None:
    """Of the sets in it, and of the groups above."""
    record = make(driver, "vm-1", 4, "department")
    assert (
        GroupRecord("department", "tenant", 10, 4)
        == expect(GroupPage, driver.ask(ListGroups())).groups[0]
    )
    assert None is make(driver, "vm-2", 1, None).group
    assert "department" == record.group
