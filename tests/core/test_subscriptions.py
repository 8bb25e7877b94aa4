"""What a subscription has yet to acknowledge, and since when."""

import pytest

from ioasid.core import (
    Defer,
    Evict,
    SuspendSession,
    Tick,
)
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    LAST,
    Driver,
)

pytestmark = pytest.mark.usefixtures("two_sets")


def test_lag_is_shown_by_name_and_age(driver: Driver) -> None:
    """A subscriber that hangs shows up with its scope, what waits for it and for how long."""
    for by, scope in (("vtd", {}), ("kvm", {"sid": 0}), ("vdcm", {"token": "vm-1"})):
        driver.subscribe(by, **scope, queue_size=2, acknowledge_within=5)
    assert () == driver.figures().lagging
    driver.core.handle(0, Tick(100))
    driver.alloc()
    driver.core.handle(0, Tick(103.0))
    driver.alloc()
    driver.finish(1, "vtd")
    driver.core.handle(0, Tick(104.5))
    assert [False, False] == [each.overdue for each in driver.figures().lagging]
    driver.core.handle(0, Tick(105.5))
    kvm, vdcm = driver.core.lagging()
    assert ("kvm", "set 0", LAST, True, 2, 0, 0, 5.5, True) == (
        kvm.holder,
        kvm.scope,
        kvm.priority,
        kvm.attached,
        kvm.queued,
        kvm.deferred,
        kvm.folded,
        kvm.oldest_age,
        kvm.overdue,
    )
    assert ("vdcm", "token 'vm-1'") == (vdcm.holder, vdcm.scope)
    driver.alloc()
    assert "the system" == driver.core.lagging()[0].scope


def test_folded_events_keep_their_age(driver: Driver) -> None:
    """What waits in a Resync, and the Resync itself, are as old as the oldest event in them."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1, acknowledge_within=5)
    driver.core.handle(0, Tick(10))
    for _ in range(3):
        driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.core.handle(0, Tick(20))
    driver.acknowledge(kvm, first, "kvm")
    lag = driver.core.lagging()[0]
    assert (10.0, True) == (lag.oldest_age, lag.overdue)
    driver.finish(kvm, "kvm")
    assert () == driver.core.lagging()


def test_the_oldest_message_is_the_one_offered_first(driver: Driver) -> None:
    """An event that was long on its way has a lower number than one that is older here."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    kvm = driver.subscribe("kvm", queue_size=1)
    ioasid = driver.bound()
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    driver.core.handle(0, Tick(20))
    driver.alloc()
    driver.core.handle(0, Tick(30))
    driver.acknowledge(cpu, driver.last(cpu).seq, "cpu")
    assert ("BIND", ioasid) == driver.shown(kvm)[-1]
    driver.alloc()
    (lag,) = driver.core.lagging()
    first, bind = driver.seqs(kvm)[ALLOC], driver.seqs(cpu)[BIND]
    assert bind < first
    assert (first, 10.0) == (lag.oldest_seq, lag.oldest_age)


def test_a_crash_makes_nothing_younger(driver: Driver) -> None:
    """What a lagging subscriber had in its hands when it crashed keeps its age."""
    driver.subscribe("kvm", sid=0, hold=True, queue_size=1, acknowledge_within=5)
    driver.core.handle(0, Tick(10))
    driver.alloc()
    driver.core.handle(0, Tick(13))
    driver.alloc()
    driver.alloc()
    first = driver.core.lagging()[0].oldest_seq
    driver.ask(SuspendSession(), by="kvm")
    driver.core.handle(0, Tick(15))
    lag = driver.core.lagging()[0]
    assert (first, 5.0, True) == (lag.oldest_seq, lag.oldest_age, lag.overdue)


def test_a_crash_sets_nothing_aside(driver: Driver) -> None:
    """What a subscriber had set aside when it crashed is folded with the rest."""
    kvm = driver.subscribe("kvm", sid=0, hold=True)
    for _ in range(2):
        driver.alloc()
    driver.ask(Defer(kvm, driver.messages(kvm)[0].seq), "kvm")
    driver.crash("kvm")
    lag = driver.core.lagging()[0]
    assert (0, 0, 1) == (lag.queued, lag.deferred, lag.oldest_seq)


def test_who_is_suspended(driver: Driver) -> None:
    """A subscription is suspended from its crash until it comes back or is gone."""
    kvm, vtd = (driver.subscribe(each, hold=True) for each in ("kvm", "vtd"))
    assert set() == driver.core.suspended()
    for each in ("kvm", "vtd"):
        driver.crash(each)
    assert {kvm, vtd} == driver.core.suspended() == driver.core.suspended((kvm, vtd, 99))
    assert {vtd} == driver.core.suspended([vtd])
    driver.subscribe("vtd", hold=True)
    driver.ask(Evict("kvm"))
    assert set() == driver.core.suspended() == driver.core.suspended((kvm, vtd))


def test_never_overdue(driver: Driver) -> None:
    """A subscriber without a deadline may take for ever."""
    driver.subscribe("kvm", sid=0, acknowledge_within=None)
    driver.alloc()
    driver.core.handle(0, Tick(1e9))
    assert [False] == [each.overdue for each in driver.core.lagging()]


def test_who_defers_everything_is_bounded(driver: Driver) -> None:
    """Who sets every message aside has no more than its bound, however much happens."""
    shelf = driver.subscribe("shelf", queue_size=2)
    for _ in range(16):
        driver.alloc()
        for message in driver.messages(shelf):
            driver.ask(Defer(shelf, message.seq), by="shelf")
    (lag,) = driver.figures().lagging
    assert 3 == lag.queued == lag.deferred


def test_what_it_holds_is_found_wherever_it_is(driver: Driver) -> None:
    """Staged events in the queue, folded, and in a Resync are each there once, by seq."""
    kvm = driver.subscribe("kvm", kinds=BINDING, queue_size=1)
    for spid in range(4):
        driver.bound(spid=spid)
    subscription = driver.core._tables.subscriptions[kvm]
    everything = [each.event.seq for each in driver.core.snapshot().stages]
    (first, *_) = everything
    assert everything == sorted(subscription.held_stages())
    driver.acknowledge(kvm, first, "kvm")
    assert everything[1:] == sorted(subscription.held_stages())
    assert all(seq == stage.event.seq for seq, stage in subscription.held_stages().items())
