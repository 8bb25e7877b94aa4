"""Imports that are made in parts: the set is that of one made at once, whatever the parts are."""

import pytest

from ioasid.core import (
    Allocator,
    AllocMany,
    Continue,
    ExportedIoasid,
    Free,
    Imported,
    ImportSet,
    IoasidRange,
    ReuseOrder,
    SetExport,
    TokenType,
    Waiting,
    decode_snapshot,
    encode,
)
from tests.core.helpers import Driver, expect

COUNT = 90
SOURCE = (IoasidRange(5, 20), IoasidRange(22, 22), IoasidRange(2000, 2072))
"""IDs in runs of the source, as many as `COUNT`."""
NAMED = (5, 6, 19, 20, 22, 2000, 2001, 2040, 2072)
EXPORT = SetExport(
    "vm-1",
    TokenType.MM,
    100,
    SOURCE,
    tuple(
        ExportedIoasid(each, None if each == 19 else each + 1, each if each % 2 else None)
        for each in NAMED
    ),
)


def scattered(part: int, order: ReuseOrder) -> Driver:
    """An allocator whose free IDs are in runs of other lengths, with parts of this size."""
    driver = Driver(4096)
    driver.core = Allocator(4096, part=part, order=order)
    driver.sessions = {"host": driver.core.session}
    driver.set("other", 2000)
    driver.ask(AllocMany(0, 1100))
    for ioasid in (*range(3, 9), *range(500, 540), 600, *range(1020, 1030)):
        driver.core.handle(driver.core.session, Free(ioasid))
    return driver


def finish(core: Allocator) -> None:
    """Let all parts be done."""
    while core.has_work:
        core.handle(0, Continue())


@pytest.mark.parametrize("order", ReuseOrder)
@pytest.mark.parametrize("part", [1, 2, 7, 40])
def test_an_import_in_parts_is_one_at_once(part: int, order: ReuseOrder) -> None:
    """IDs, spids, data and generations are the same, and so is what is free afterwards."""
    few, all_ = scattered(part, order), scattered(1000, order)
    found = expect(Imported, few.late(ImportSet(EXPORT)))
    assert found == all_.ask(ImportSet(EXPORT))
    assert COUNT == sum(each.last - each.first + 1 for each in found.ranges)
    assert few.core.snapshot().sets == all_.core.snapshot().sets
    more = [each.late(AllocMany(0, 300)) for each in (few, all_)]
    generations = [each.core.snapshot().generation for each in (few, all_)]
    assert (more[0], generations[0]) == (more[1], generations[1])


@pytest.mark.parametrize("part", [1, 7])
def test_an_import_goes_on_behind_any_part(part: int) -> None:
    """A snapshot between two parts has all that is left to do."""
    driver = scattered(part, ReuseOrder.LOWEST)
    ticket = expect(Waiting, driver.ask(ImportSet(EXPORT))).ticket
    finish(driver.core)
    expect(Waiting, driver.ask(ImportSet(EXPORT)))
    states = []
    while driver.core.has_work:
        states.append(encode(driver.core.snapshot()))
        driver.core.handle(0, Continue())
        driver.collect()
    assert len(states) > COUNT // part - 2
    for state in states:
        again = Allocator.restore(decode_snapshot(state))
        finish(again)
        assert driver.core.snapshot().sets == again.snapshot().sets
    assert ticket not in dict(driver.completed())
