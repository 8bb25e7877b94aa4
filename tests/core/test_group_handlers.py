"""Groups: what each request does, and every errno that it is refused with."""

import pytest
from msgspec.structs import replace

from ioasid.core import (
    MAX_GROUP_DEPTH,
    AdjustGroup,
    Allocator,
    AllocGroup,
    AllocSet,
    Changes,
    Done,
    FreeGroup,
    FreeSet,
    GroupExists,
    GroupNotEmpty,
    GroupPage,
    GroupRecord,
    InvalidArgument,
    LimitBelowUse,
    ListGroups,
    MalformedMessage,
    SnapshotGroup,
    UnknownGroup,
)
from tests.core.helpers import Driver, expect


def test_alloc_group(driver: Driver) -> None:
    """A group takes its limit from what is available, or from its parent."""
    assert GroupRecord("tenant", None, 20, 0) == driver.ask(AllocGroup("tenant", 20))
    assert 43 == driver.figures().available
    expected = GroupRecord("department", "tenant", 20, 0)
    assert expected == driver.ask(AllocGroup("department", 20, "tenant"))
    assert (43, 2) == (driver.figures().available, driver.figures().groups)


def test_alloc_group_is_refused(driver: Driver) -> None:
    """EEXIST: the name is taken, at whatever level; ENOENT: there is no such parent."""
    driver.ask(AllocGroup("tenant", 20))
    driver.ask(AllocGroup("department", 5, "tenant"))
    for parent in (None, "tenant", "department"):
        driver.refused(GroupExists, AllocGroup("department", 1, parent), group="department")
    driver.refused(UnknownGroup, AllocGroup("new", 1, "nobody"), group="nobody")
    driver.refused(UnknownGroup, AllocGroup("new", 1, "new"), group="new")
    driver.refused(UnknownGroup, AllocSet("vm-1", 1, group="nobody"), group="nobody")


def test_groups_are_so_deep_at_most(driver: Driver) -> None:
    """EINVAL: a parent that has as many above it as there may be."""
    parent = None
    for depth in range(MAX_GROUP_DEPTH):
        driver.ask(AllocGroup(f"group {depth}", 9, parent))
        parent = f"group {depth}"
    driver.refused(InvalidArgument, AllocGroup("too deep", 1, parent), argument="parent")
    assert 1 == expect(GroupRecord, driver.ask(AllocGroup("beside", 1))).limit
    snapshot = driver.core.snapshot()
    assert snapshot == Allocator.restore(snapshot).snapshot()
    deeper = replace(snapshot, groups=(SnapshotGroup("a group", parent, 1), *snapshot.groups))
    with pytest.raises(MalformedMessage, match="too deep"):
        Allocator.restore(deeper)


def test_adjust_group(driver: Driver) -> None:
    """The limit moves up to what its parent has left and down to what it gave."""
    driver.ask(AllocGroup("tenant", 20))
    driver.ask(AllocGroup("department", 5, "tenant"))
    assert GroupRecord("department", "tenant", 20, 0) == driver.ask(AdjustGroup("department", 20))
    assert GroupRecord("department", "tenant", 1, 0) == driver.ask(AdjustGroup("department", 1))
    assert GroupRecord("tenant", None, 63, 1) == driver.ask(AdjustGroup("tenant", 63))
    assert 0 == driver.figures().available
    driver.ask(AllocSet("vm-1", 3, group="tenant"))
    driver.refused(LimitBelowUse, AdjustGroup("tenant", 3), group="tenant", limit=3, used=4)
    assert GroupRecord("tenant", None, 4, 4) == driver.ask(AdjustGroup("tenant", 4))
    assert 59 == driver.figures().available
    driver.refused(UnknownGroup, AdjustGroup("nobody", 3), group="nobody")


def test_free_group(driver: Driver) -> None:
    """EBUSY: it has sets or groups; without, its limit goes back and its name is free."""
    driver.ask(AllocGroup("tenant", 20))
    driver.ask(AllocGroup("department", 5, "tenant"))
    driver.ask(AllocSet("vm-1", 2, group="department"))
    driver.refused(GroupNotEmpty, FreeGroup("tenant"), group="tenant", used=5)
    driver.refused(GroupNotEmpty, FreeGroup("department"), group="department", used=2)
    driver.ask(FreeSet(0))
    assert Done() == driver.ask(FreeGroup("department"))
    assert Done() == driver.ask(FreeGroup("tenant"))
    driver.refused(UnknownGroup, FreeGroup("tenant"), group="tenant")
    assert (63, 0) == (driver.figures().available, driver.figures().groups)
    driver.ask(AllocGroup("tenant", 1))


def test_list_groups(driver: Driver) -> None:
    """By name, page after page."""
    assert GroupPage((), None) == driver.ask(ListGroups())
    records = {
        name: expect(GroupRecord, driver.ask(AllocGroup(name, 2, parent)))
        for name, parent in (("m", None), ("z", None), ("a", None), ("b", None))
    }
    assert GroupPage((records["a"], records["b"], records["m"]), "m") == driver.ask(
        ListGroups(limit=3)
    )
    assert GroupPage((records["z"],), None) == driver.ask(ListGroups("m", 3))
    driver.ask(FreeGroup("m"))
    assert GroupPage((records["z"],), None) == driver.ask(ListGroups("m"))


def test_what_changed_names_the_groups(driver: Driver) -> None:
    """Whose limit or use is another, and those that went."""
    driver.core.watch()
    tenant = expect(GroupRecord, driver.ask(AllocGroup("tenant", 20)))
    assert Changes(groups=(tenant,)) == driver.core.changes()
    department = expect(GroupRecord, driver.ask(AllocGroup("department", 5, "tenant")))
    assert (department, replace(tenant, used=5)) == driver.core.changes().groups
    driver.ask(AllocSet("vm-1", 2, group="department"))
    assert (replace(department, used=2),) == driver.core.changes().groups
    driver.ask(FreeSet(0))
    assert (department,) == driver.core.changes().groups
    driver.ask(FreeGroup("department"))
    changes = driver.core.changes()
    assert ((tenant,), ("department",)) == (changes.groups, changes.groups_gone)


@pytest.mark.parametrize(
    "groups",
    [
        (SnapshotGroup("a", "a", 1),),
        (SnapshotGroup("a", "b", 1), SnapshotGroup("b", "a", 1)),
        (SnapshotGroup("a", "nobody", 1),),
        (SnapshotGroup("a", None, 1), SnapshotGroup("a", None, 1)),
        (SnapshotGroup("b", None, 1), SnapshotGroup("a", None, 1)),
        (SnapshotGroup("a", None, 0),),
        (SnapshotGroup("", None, 1),),
        (SnapshotGroup("a", None, 64),),
        (SnapshotGroup("a", None, 3), SnapshotGroup("b", "a", 4)),
    ],
)
def test_groups_that_can_not_be(driver: Driver, groups: tuple[SnapshotGroup, ...]) -> None:
    """A snapshot of groups in themselves, in none, twice, out of order or too large is refused."""
    driver.ask(AllocGroup("a", 1))
    driver.ask(FreeGroup("a"))
    snapshot = driver.core.snapshot()
    with pytest.raises(MalformedMessage):
        Allocator.restore(replace(snapshot, groups=groups))
