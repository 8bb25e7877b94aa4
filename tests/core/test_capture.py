"""Taking a snapshot: the whole state, in one form, and nothing happens by it."""

from ioasid.core import (
    Allocator,
    AllocMany,
    AllocSet,
    Get,
    TakeSnapshot,
    encode,
)
from tests.core.allocators import rich_allocator
from tests.core.helpers import Driver


def test_taking_one_changes_nothing() -> None:
    """Two snapshots in a row are equal, and nothing is to be done after one."""
    core = rich_allocator()
    assert core.snapshot() == core.snapshot()
    assert [] == core.drain()


def test_whoever_drives_takes_one(driver: Driver) -> None:
    """A request takes it, of the driver and of any session, and it is the same."""
    for session in (0, driver.core.session):
        assert driver.core.snapshot() == driver.core.handle(session, TakeSnapshot())


def test_plain_ids_are_ranges() -> None:
    """A million plain IDs take a few bytes, whatever words they lie in."""
    core = Allocator()
    core.handle(core.session, AllocSet("vm"))
    core.handle(core.session, AllocMany(0, 1_000_000))
    snapshot = core.snapshot()
    assert [(1, 1_000_000)] == [(each.first, each.last) for each in snapshot.sets[0].ranges]
    assert len(encode(snapshot)) < 1000


def test_spids_are_ascending(driver: Driver) -> None:
    """In whatever order they were attached; the IDs and bindings beside them are theirs."""
    driver.set()
    for spid in (3, 1, 2):
        driver.bound(spid=spid)
    taken = driver.core.snapshot().sets[0]
    assert ((1, 2, 3), (2, 3, 1)) == (taken.spids, taken.bound)
    third, first, second = (each or 0 for each in taken.bindings[2:] + taken.bindings[:2])
    assert third < first < second


def test_equal_states_are_equal_bytes() -> None:
    """However a state came about, it is encoded the same."""

    def taken(*holders: str) -> bytes:
        driver = Driver()
        driver.set()
        for name in ("kvm", "vdcm"):
            driver.session(name)
        driver.alloc()
        for name in holders:
            driver.ask(Get(1), name)
        return encode(driver.core.snapshot())

    assert taken("kvm", "vdcm") == taken("vdcm", "kvm")
