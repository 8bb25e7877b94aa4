"""Lags: the figures of a subscriber that has not acknowledged everything."""

from ioasid.core import Defer, LaggingSubscriber, Priority, Tick
from tests.core.helpers import CPU, Driver


def test_lag(driver: Driver) -> None:
    """It counts what waits, what was set aside and what was folded, and dates the oldest."""
    driver.set()
    driver.core.handle(0, Tick(10.0))
    kvm = driver.subscribe("kvm", token="vm-1", priority=CPU, queue_size=2)
    assert () == driver.figures().lagging
    first = driver.alloc()
    driver.ask(Defer(kvm, driver.messages(kvm)[0].seq), "kvm")
    driver.core.handle(0, Tick(13.0))
    driver.bind(first)
    expected = LaggingSubscriber(
        "kvm", kvm, "token 'vm-1'", Priority.CPU, True, 2, 1, 0, 1, 3.0, 10.0, False
    )
    assert (expected,) == driver.figures().lagging
    driver.core.handle(0, Tick(20.0))
    assert driver.figures().lagging[0].overdue


def test_the_oldest_may_be_folded(driver: Driver) -> None:
    """What a crash left behind counts from when it was offered, before all that came later."""
    driver.set()
    driver.core.handle(0, Tick(1.0))
    driver.subscribe("kvm", hold=True)
    driver.bound()
    driver.crash("kvm")
    driver.core.handle(0, Tick(4.0))
    driver.free(1)
    (lag,) = driver.figures().lagging
    assert (False, 0, 2, 1, 3.0) == (
        lag.attached,
        lag.queued,
        lag.folded,
        lag.oldest_seq,
        lag.oldest_age,
    )
