"""What the allocator keeps of an ID: nothing beyond a bit, unless there is something to say."""

import tracemalloc
from collections.abc import Callable, Iterable

import pytest

from ioasid.core import (
    Allocator,
    AllocMany,
    AttachData,
    AttachSpid,
    CloseSession,
    DetachData,
    DetachSpid,
    EventKind,
    FreeSet,
    Get,
    Notify,
    Priority,
    Put,
    Request,
)
from tests.core.helpers import Driver
from tests.core.invariants import nothing_leaks


def recorded(core: Allocator) -> list[int]:
    """The IDs that have a record."""
    return sorted(ioasid for owner in core._tables.sets.values() for ioasid in owner.records)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (Get, Put),
        (lambda i: AttachData(i, 0), DetachData),
        (lambda i: AttachData(i, ""), DetachData),
        (lambda i: AttachSpid(i, 0), DetachSpid),
    ],
    ids=["reference", "data-0", "data-empty", "spid-0"],
)
def test_a_record_lives_as_long_as_there_is_something_to_say(
    begin: Callable[[int], Request], end: Callable[[int], Request]
) -> None:
    """A reference, data or a spid makes a record, also where the value is falsy."""
    driver = Driver()
    driver.set()
    ioasid = driver.alloc()
    assert [] == recorded(driver.core)
    driver.ask(begin(ioasid))
    assert [ioasid] == recorded(driver.core)
    driver.ask(end(ioasid))
    assert [] == recorded(driver.core)


def test_a_notification_that_nobody_is_told_of_leaves_no_record() -> None:
    """A publisher's event without subscribers leaves nothing behind."""
    driver = Driver()
    driver.set()
    ioasid = driver.alloc()
    driver.ask(Notify(ioasid, EventKind.BIND))
    assert [] == recorded(driver.core)
    nobody = driver.subscribe("kvm", sid=0, kinds=frozenset((EventKind.BIND,)))
    driver.ask(Notify(ioasid, EventKind.FREE))
    assert [] == recorded(driver.core)
    assert [] == driver.messages(nobody)


def test_a_record_goes_with_its_last_acknowledgement() -> None:
    """Once everybody acknowledged an unbind, the ID is plain again."""
    driver = Driver()
    driver.set()
    cpu = driver.subscribe("cpu", sid=0, priority=Priority.CPU, hold=True)
    last = driver.subscribe("last", token="vm-1", hold=True)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.finish(cpu, "cpu")
    driver.finish(last, "last")
    driver.finish(cpu, "cpu")
    driver.finish(last, "last")
    assert [] == recorded(driver.core)


def test_many_plain_ids_are_one_range() -> None:
    """A hundred thousand IDs in their plain state take no record each."""
    driver = Driver(1 << 20)
    driver.set(quota=None)
    driver.core.handle(driver.core.session, AllocMany(0, 100_000))
    snapshot = driver.core.snapshot()
    assert [(1, 100_000)] == [(each.first, each.last) for each in snapshot.sets[0].ranges]
    assert [] == recorded(driver.core)
    driver.core.handle(driver.core.session, FreeSet(0))
    assert () == driver.core.snapshot().sets


def bytes_taken(driver: Driver, requests: Iterable[tuple[str, Request]]) -> int:
    """What is allocated and kept while requests are handled."""
    sessions = {name: driver.opened(name).session for name in ("vtd", "vdcm")}
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for name, request in requests:
            driver.core.handle(sessions[name], request)
        driver.core.drain()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_a_plain_id_takes_a_few_bytes() -> None:
    """A bit in its set, one in the space and its owner's number are all there is of it."""
    driver = Driver(1 << 20)
    driver.set(quota=None)
    taken = bytes_taken(driver, [("vtd", AllocMany(0, 100_000))])
    assert 0 < taken < 8 * 100_000


@pytest.mark.slow
def test_an_id_with_spid_data_and_two_holders_takes_600_bytes() -> None:
    """What an ID has nothing of, a chain or grants, takes no room in its record."""
    driver = Driver(1 << 20)
    driver.set(quota=None)
    count = 25_000
    driver.core.handle(driver.core.session, AllocMany(0, count))
    taken = bytes_taken(
        driver,
        (
            each
            for ioasid in range(1, count + 1)
            for each in (
                ("vtd", AttachSpid(ioasid, ioasid + 1000)),
                ("vtd", AttachData(ioasid, ioasid + 2000)),
                ("vtd", Get(ioasid)),
                ("vdcm", Get(ioasid)),
            )
        ),
    )
    assert 0 < taken < 600 * count


def test_nothing_is_left_at_the_end() -> None:
    """After everything went, the tables are as empty as at the start."""
    driver = Driver()
    driver.set()
    driver.subscribe("kvm", token="vm-1", hold=True)
    driver.subscribe("vtd", hold=True)
    driver.subscribe("vdcm", sid=0)
    driver.bound()
    driver.ask(FreeSet(0))
    for name in ("kvm", "vtd", "vdcm", "host"):
        driver.ask(CloseSession(), name)
    driver.core.drain()
    nothing_leaks(driver.core)
