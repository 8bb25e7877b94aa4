"""Freezes: who is answered when, if several wait and not all do."""

from ioasid.core import (
    Abandon,
    Done,
    FreeSet,
    FreezeSet,
    Frozen,
    Priority,
    Waiting,
)
from tests.core.helpers import Driver, expect


def waiting(driver: Driver, sid: int) -> int:
    """Freeze a set and wait; returns the ticket."""
    return expect(Waiting, driver.ask(FreezeSet(sid, wait=True))).ticket


def test_the_last_id_answers_all_who_wait_for_its_set() -> None:
    """Each once, and nobody who waits for another set or gave up."""
    driver = Driver()
    driver.set("vm-1", 4)
    driver.set("vm-2", 4)
    vdcm = driver.subscribe("vdcm", sid=0, priority=Priority.DEVICE)
    other = driver.subscribe("other", sid=1, priority=Priority.DEVICE)
    for sid, spid in ((0, 7), (0, 8), (1, 7)):
        driver.bound(sid, spid)
    first, second, third, gone = (waiting(driver, sid) for sid in (0, 0, 1, 0))
    assert [first + 1, first + 2, first + 3] == [second, third, gone]
    assert Done() == driver.core.handle(0, Abandon(gone))
    given = driver.messages(vdcm)
    for message in given[:-1]:
        driver.acknowledge(vdcm, message.seq, "vdcm")
    driver.finish(other, "other")
    assert [(third, Frozen(1, True))] == driver.completed()
    driver.finish(vdcm, "vdcm")
    assert [(first, Frozen(0, True)), (second, Frozen(0, True))] == driver.completed()[1:]


def test_a_set_that_is_freed_meanwhile_is_stopped_by_that() -> None:
    """Who waits is answered when the device is done with what was freed."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    driver.bound()
    ticket = waiting(driver, 0)
    driver.ask(FreeSet(0))
    assert [] == driver.completed()
    driver.finish(vdcm, "vdcm")
    assert [(ticket, Frozen(0, True))] == driver.completed()
    assert 0 == driver.figures().sets
