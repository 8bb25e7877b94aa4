"""The tables are all that an allocator remembers, and each has its own."""

from ioasid.core import (
    Allocator,
    Evict,
    SuspendAll,
)
from tests.core.helpers import Driver


def test_a_restored_allocator_speaks_for_the_oldest_session(driver: Driver) -> None:
    """Its session is the oldest that is live, and 0, which is nobody's, if none is."""
    for name in ("kvm", "vtd"):
        driver.session(name)
    assert driver.sessions["host"] == Allocator.restore(driver.core.snapshot()).session
    driver.ask(Evict("host"))
    assert driver.sessions["kvm"] == Allocator.restore(driver.core.snapshot()).session
    driver.core.handle(0, SuspendAll())
    assert 0 == Allocator.restore(driver.core.snapshot()).session


def test_all_crash_in_the_same_order(driver: Driver) -> None:
    """When all holders crash at once, a restored allocator does the same in the same order."""
    for name in ("vtd", "kvm", "nic"):
        driver.subscribe(name, hold=True)
    restored = Allocator.restore(driver.core.snapshot())
    driver.core.drain()
    for each in (driver.core, restored):
        each.handle(0, SuspendAll())
    effects = driver.core.drain()
    assert 3 == len(effects)
    assert effects == restored.drain()


def test_two_allocators_share_nothing() -> None:
    """Nothing is global: what one does, the other does not see."""
    one, other = Driver(), Driver()
    before = other.core.snapshot()
    one.set()
    one.bound()
    one.subscribe("kvm")
    assert before == other.core.snapshot()
