"""Holders: who joins, leaves, crashes, comes back, or is declared dead."""

import pytest

from ioasid.core import (
    CloseSession,
    Done,
    Evict,
    Expel,
    Free,
    Get,
    Put,
    SessionEnded,
    SessionOpened,
    Subscribe,
    Subscribed,
    UnknownHolder,
    UnknownIoasid,
)
from tests.core.helpers import (
    BINDING,
    CPU,
    DEVICE,
    Driver,
)

pytestmark = pytest.mark.usefixtures("two_sets")


def test_a_session_without_anything_leaves_when_it_crashes(driver: Driver) -> None:
    """Without references and holding subscriptions, a crash is as good as leaving."""
    kvm = driver.subscribe("kvm", priority=CPU)
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.crash("kvm")
    assert [(kvm, False)] == driver.ended()
    assert [("BIND", ioasid)] == driver.shown(last)
    assert not driver.come_back("kvm").resumed
    assert (0, 3) == (driver.figures().suspended, driver.figures().sessions)


def test_leaving_drops_everything(driver: Driver) -> None:
    """A session that is closed acknowledges all and drops its references and grants."""
    driver.subscribe("kvm", sid=0, hold=True)
    ioasid = driver.bound()
    driver.ask(Get(ioasid), "kvm")
    driver.free(ioasid)
    driver.ask(CloseSession(), "kvm")
    driver.refused(UnknownIoasid, Free(ioasid))
    assert not [each for each in driver.effects if isinstance(each, Expel)]


def test_a_suspended_holder_keeps_its_ids(driver: Driver) -> None:
    """After a crash references stay, FREEs stay unacknowledged, IDs stay in quarantine."""
    kvm = driver.subscribe("kvm", sid=0, hold=True)
    granted, taken, told = driver.bound(), driver.alloc(), driver.alloc()
    driver.ask(Get(taken), "kvm")
    driver.free(told)
    driver.crash("kvm")
    assert [(kvm, False)] == driver.ended()
    assert 1 == driver.figures().suspended
    for ioasid in (granted, taken):
        assert not driver.free(ioasid)
        assert {"kvm": 1} == driver.find(ioasid).references
    assert 3 == driver.figures().free_pending
    before = len(driver.effects)
    fresh = driver.alloc()
    assert fresh not in (granted, taken, told)
    assert before == len(driver.effects)


def test_the_return_starts_with_a_resync(driver: Driver) -> None:
    """Who comes back is told what it still has, and everything that it missed, at once."""
    terms = {"sid": 0, "hold": True, "priority": DEVICE}
    kvm = driver.subscribe("kvm", **terms)
    bound, freed = driver.bound(spid=1), driver.alloc()
    driver.ask(Get(freed), "kvm")
    driver.ask(Get(freed), "kvm")
    driver.crash("kvm")
    driver.unbind(bound)
    driver.free(freed)
    missed = driver.bound(spid=2)
    assert {"kvm": 1} == driver.find(missed).references
    assert SessionOpened(3, True, ((freed, 2),)) == driver.come_back("kvm")
    assert Subscribed(kvm, True) == driver.ask(Subscribe(**terms, queue_size=7), "kvm")  # type: ignore[arg-type]
    resync = driver.resync(kvm)
    assert [(bound, None), (freed, None), (missed, 2)] == [
        (each.ioasid, each.spid) for each in resync
    ]
    assert {"kvm": 1} == driver.find(bound).references
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert {} == driver.find(bound).references
    assert {"kvm": 1} == driver.find(missed).references
    for _ in range(2):
        driver.ask(Put(freed), "kvm")
    driver.refused(UnknownIoasid, Free(freed))


def test_a_suspended_subscriber_holds_up_the_tiers_below(driver: Driver) -> None:
    """What a suspended subscriber would be told stays unacknowledged until it is back."""
    terms = {"kinds": BINDING, "priority": CPU, "hold": True}
    cpu = driver.subscribe("cpu", **terms)
    last = driver.subscribe("last", kinds=BINDING)
    driver.crash("cpu")
    ioasid = driver.bound()
    assert [] == driver.messages(last)
    driver.come_back("cpu")
    driver.ask(Subscribe(**terms), "cpu")  # type: ignore[arg-type]
    assert [] == driver.messages(last)
    driver.finish(cpu, "cpu")
    assert [("BIND", ioasid)] == driver.shown(last)


@pytest.mark.parametrize("suspended", [False, True])
def test_evict(driver: Driver, suspended: bool) -> None:
    """An evicted holder is dead: its events acknowledged, its references dropped."""
    driver.subscribe("kvm", sid=0, hold=True, priority=CPU)
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.ask(Get(ioasid), "kvm")
    session = driver.session("kvm")
    if suspended:
        driver.crash("kvm")
    driver.effects.clear()
    assert Done() == driver.ask(Evict("kvm"))
    # Who has no session has nobody to tell.
    expelled = [each for each in driver.effects if isinstance(each, Expel)]
    assert ([] if suspended else [Expel(session)]) == expelled
    assert {} == driver.find(ioasid).references
    assert [("BIND", ioasid)] == driver.shown(last)
    driver.refused(UnknownHolder, Evict("kvm"), name="kvm")
    if not suspended:
        driver.refused(SessionEnded, Get(ioasid), "kvm")
    assert not driver.come_back("kvm").resumed


def test_a_holder_may_evict_itself(driver: Driver) -> None:
    """Evicting oneself is leaving."""
    driver.ask(Evict("kvm"), "kvm")
    driver.refused(SessionEnded, Evict("kvm"), "kvm")
