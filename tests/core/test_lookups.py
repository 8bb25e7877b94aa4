"""Look-ups that are made in parts: the answer is that of one made at once."""

from random import Random

import pytest

from ioasid.core import (
    Allocator,
    AllocMany,
    AttachData,
    AttachSpid,
    Continue,
    DetachSpid,
    ExportSet,
    Free,
    FreezeSet,
    IoasidRange,
    SetExport,
)
from tests.core.helpers import Driver, expect

FIRST, LAST = 1000, 3100
"""IDs of three words."""


def frozen(part: int, seed: int) -> Driver:
    """A frozen set with runs and holes, spids and data; parts are of this size."""
    driver, random = Driver(4096), Random(seed)
    driver.core = Allocator(4096, part=part)
    driver.sessions = {"host": driver.core.session}
    driver.set("vm-1", 4000)
    driver.ask(AllocMany(0, LAST - FIRST + 1, FIRST))
    core = driver.core
    for ioasid in random.sample(range(FIRST, LAST + 1), 60):
        core.handle(core.session, AttachSpid(ioasid, ioasid))
    for ioasid in random.sample(range(FIRST, LAST + 1), 20):
        core.handle(core.session, AttachData(ioasid, ioasid))
    for ioasid in random.sample(range(FIRST, LAST + 1), 50):
        core.handle(core.session, Free(ioasid))
    driver.late(FreezeSet(0))
    return driver


@pytest.mark.parametrize("seed", range(5))
def test_an_export_in_parts_is_one_at_once(seed: int) -> None:
    """However small the parts are, ranges and IDs with something to say are the same."""
    few, all_ = frozen(1, seed), frozen(100_000, seed)
    found = expect(SetExport, few.late(ExportSet(0)))
    assert all_.ask(ExportSet(0)) == found
    assert not all_.core.has_work
    ends = [each.last for each in found.ranges]
    starts = [each.first for each in found.ranges[1:]]
    assert all(start > end + 1 for start, end in zip(starts, ends, strict=False))


def test_what_changes_on_the_way_is_looked_at_again() -> None:
    """Freed, unbound or gone, before its word's turn or after it: the export is as of its end."""
    driver = frozen(1, 0)
    before = expect(SetExport, driver.late(ExportSet(0)))
    expected = {each.ioasid: each for each in before.ioasids}
    driver.ask(ExportSet(0))
    for each in tuple(expected.values()):
        if not driver.core.has_work:
            break
        if each.spid is not None:
            driver.ask(DetachSpid(each.ioasid) if each.ioasid % 2 else Free(each.ioasid))
        driver.core.handle(0, Continue())
        driver.collect()
    driver.late(FreezeSet(0))
    found = [each for _, each in driver.completed() if isinstance(each, SetExport)][-1]
    assert found == driver.late(ExportSet(0))
    assert found != before


def test_ranges_that_meet_at_a_word_are_one() -> None:
    """The words of the ID space show nowhere."""
    driver = Driver(4096)
    driver.core = Allocator(4096, part=1)
    driver.sessions = {"host": driver.core.session}
    driver.set("vm-1", 4000)
    driver.ask(AllocMany(0, LAST - FIRST + 1, FIRST))
    driver.late(FreezeSet(0))
    found = expect(SetExport, driver.late(ExportSet(0)))
    assert (IoasidRange(FIRST, LAST),) == found.ranges
