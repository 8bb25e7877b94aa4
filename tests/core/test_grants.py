"""Grants: a reference for each binding that a holding subscriber may use, as long as it may."""

import pytest

from ioasid.core import (
    Defer,
    Evict,
    FindBySpid,
    Free,
    Notify,
    NotReferenced,
    Priority,
    Put,
    Subscribe,
    UnknownIoasid,
    Unsubscribe,
)
from tests.core.helpers import (
    BIND,
    BINDING,
    CPU,
    FREE,
    IOMMU,
    UNBIND,
    Driver,
)

pytestmark = pytest.mark.usefixtures("two_sets")


def subscribe_tiers(driver: Driver, **terms: object) -> dict[str, int]:
    """Subscribe one holder of its own in each tier, lowest first."""
    return {
        tier.value: driver.subscribe(tier.value, priority=tier, **terms)
        for tier in reversed(Priority)
    }


def test_a_grant_from_bind_to_the_acknowledged_unbind(driver: Driver) -> None:
    """The reference comes in the step of the BIND and goes with the acknowledged UNBIND."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True)
    ioasid = driver.bound()
    assert ({"kvm": 1}, 2) == (
        driver.find(ioasid).references,
        driver.find(ioasid).reference_count,
    )
    driver.finish(kvm, "kvm")
    driver.unbind(ioasid)
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.finish(kvm, "kvm")
    assert {} == driver.find(ioasid).references
    assert 0 == driver.figures().in_flight


def test_a_grant_ends_with_the_acknowledged_free(driver: Driver) -> None:
    """The FREE of a bound ID ends its binding; until it is acknowledged the ID stays."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True)
    ioasid = driver.bound()
    assert not driver.free(ioasid)
    driver.acknowledge(kvm, driver.seqs(kvm)[BIND], "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, driver.seqs(kvm)[FREE], "kvm")
    driver.refused(UnknownIoasid, Free(ioasid))


def test_a_grant_is_not_the_holders_to_put(driver: Driver) -> None:
    """What was granted goes with an acknowledgement; put drops what get took."""
    driver.subscribe("kvm", sid=0, hold=True)
    ioasid = driver.bound()
    driver.refused(NotReferenced, Put(ioasid), "kvm", holder="kvm", ioasid=ioasid)
    driver.ask(FindBySpid(0, 100, get=True), "kvm")
    assert {"kvm": 2} == driver.find(ioasid).references
    driver.ask(Put(ioasid), "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references


def test_a_grant_for_tiers_that_the_bind_has_yet_to_reach(driver: Driver) -> None:
    """Between a BIND and its delivery there is no window in which the ID could vanish."""
    numbers = subscribe_tiers(driver, kinds=BINDING, hold=True)
    ioasid = driver.bound()
    assert dict.fromkeys(("CPU", "DEVICE", "IOMMU", "LAST"), 1) == driver.find(ioasid).references
    driver.free(ioasid)
    for tier in ("CPU", "DEVICE", "IOMMU", "LAST"):
        assert tier in driver.find(ioasid).references
        driver.finish(numbers[tier], tier)
        driver.finish(numbers["CPU"], "CPU")
    for tier in ("DEVICE", "IOMMU", "LAST"):
        driver.finish(numbers[tier], tier)
    driver.refused(UnknownIoasid, Free(ioasid))


def test_a_grant_belongs_to_one_binding(driver: Driver) -> None:
    """With BIND, UNBIND, BIND under way, acknowledging the UNBIND drops the first grant only."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.bind(ioasid, 200)
    assert {"kvm": 2} == driver.find(ioasid).references
    seqs = [message.seq for message in driver.messages(kvm)]
    driver.acknowledge(kvm, seqs[1], "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, seqs[0], "kvm")
    driver.acknowledge(kvm, seqs[2], "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.unbind(ioasid)
    driver.finish(kvm, "kvm")
    assert {} == driver.find(ioasid).references


def test_a_late_subscriber_is_granted_when_the_bind_reaches_it(driver: Driver) -> None:
    """Who joins while a BIND is under way above is granted the binding with the event."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    ioasid = driver.bound()
    late = driver.subscribe("late", kinds=BINDING, hold=True)
    assert {} == driver.find(ioasid).references
    driver.finish(cpu, "cpu")
    assert {"late": 1} == driver.find(ioasid).references
    driver.ask(Unsubscribe(late), "late")
    assert {} == driver.find(ioasid).references


def test_stale_grants_go_with_the_resync(driver: Driver) -> None:
    """A grant of a binding that the Resync no longer shows goes when it is acknowledged."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    first = driver.messages(kvm)[0].seq
    driver.unbind(ioasid)
    driver.bind(ioasid, 7)
    driver.unbind(ioasid)
    driver.bind(ioasid, 8)
    assert {"kvm": 2} == driver.find(ioasid).references
    driver.acknowledge(kvm, first, "kvm")
    resync = driver.resync(kvm)
    assert {"kvm": 2} == driver.find(ioasid).references
    assert [8] == [each.spid for each in resync]
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references


def test_a_binding_whose_end_is_missed_is_stale(driver: Driver) -> None:
    """Though its BIND is set aside: the Resync does not show it and stands for its UNBIND."""
    driver.subscribe("last", kinds=frozenset((UNBIND,)))
    kvm = driver.subscribe("kvm", priority=IOMMU, kinds=BINDING, hold=True, queue_size=2)
    ioasid = driver.bound()
    bind = driver.last(kvm).seq
    driver.ask(Defer(kvm, bind), "kvm")
    driver.bind(driver.alloc(), 7)
    in_hand = driver.last(kvm).seq
    driver.unbind(ioasid)
    driver.bind(driver.alloc(), 8)
    driver.acknowledge(kvm, in_hand, "kvm")
    (offer,) = [
        offer
        for each in driver.core.snapshot().subscriptions
        for offer in each.outstanding
        if offer.resync
    ]
    assert (bind,) == offer.stale
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert {} == driver.find(ioasid).references


def test_stale_grants_are_listed_by_binding(driver: Driver) -> None:
    """Whatever was granted first: equal states have equal snapshots."""
    first, second = driver.alloc(), driver.alloc()
    for ioasid in (second, first):
        driver.bind(ioasid, ioasid)
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, replay=True)
    driver.crash("kvm")
    for ioasid in (first, second):
        driver.unbind(ioasid)
    driver.come_back("kvm")
    driver.ask(Subscribe(sid=0, kinds=BINDING, hold=True), "kvm")
    (subscription,) = driver.core.snapshot().subscriptions
    assert (second, first) == subscription.granted
    assert [subscription.grants] == [offer.stale for offer in subscription.outstanding]
    driver.finish(kvm, "kvm")
    assert [{}, {}] == [driver.find(ioasid).references for ioasid in (first, second)]


def test_a_stale_grant_goes_whatever_has_yet_to_come(driver: Driver) -> None:
    """That a later event of the ID has yet to reach the tier keeps no grant of an ended binding."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    first = driver.last(kvm).seq
    driver.unbind(ioasid)
    driver.bind(ioasid, 7)
    driver.unbind(ioasid)
    driver.subscribe("cpu", sid=0, kinds=BINDING, priority=CPU)
    driver.ask(Notify(ioasid, BIND))
    driver.acknowledge(kvm, first, "kvm")
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert {} == driver.find(ioasid).references


@pytest.mark.parametrize("delivered", [1, 3])
def test_grants_are_bounded_whatever_is_missed(driver: Driver, delivered: int) -> None:
    """A binding that began and ended undelivered leaves no grant: to one that crashed, or hangs."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=4)
    ioasid = driver.bound()
    if delivered == 1:
        driver.finish(kvm, "kvm")
        driver.crash("kvm")
    for _ in range(100):
        driver.unbind(ioasid)
        driver.bind(ioasid)
    assert {"kvm": delivered + 1} == driver.find(ioasid).references
    driver.unbind(ioasid)
    assert {"kvm": delivered} == driver.find(ioasid).references
    (subscription,) = driver.core.snapshot().subscriptions
    assert (delivered, ()) == (len(subscription.grants), subscription.unseen)


def test_what_was_delivered_keeps_its_grant(driver: Driver) -> None:
    """Whoever crashes, or whose queue is withdrawn, may have taken all that was delivered to it."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=2)
    first, second, third, missed = (driver.bound(spid=spid) for spid in range(4))
    for ioasid in (first, second, third, missed):
        driver.unbind(ioasid)
    found = [driver.find(ioasid).references for ioasid in (first, second, third, missed)]
    assert [{"kvm": 1}, {"kvm": 1}, {"kvm": 1}, {}] == found
    driver.crash("kvm")
    assert {"kvm": 1} == driver.find(third).references
    driver.come_back("kvm")
    driver.ask(Subscribe(sid=0, kinds=BINDING, hold=True), "kvm")
    driver.finish(kvm, "kvm")
    assert [{}] * 3 == [driver.find(each).references for each in (first, second, third)]


def test_what_a_resync_showed_keeps_its_grant(driver: Driver) -> None:
    """Its subscriber learned of the binding from it, and lets go of it with what ends it."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    first, second = driver.bound(spid=1), driver.alloc()
    for _ in range(2):
        driver.ask(Notify(first, FREE))
    driver.bind(second, 3)
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    resync = driver.resync(kvm)
    assert [1, 3] == [each.spid for each in resync]
    driver.ask(Notify(first, FREE))
    driver.unbind(second)
    assert {"kvm": 1} == driver.find(second).references
    driver.acknowledge(kvm, resync.seq, "kvm")
    driver.finish(kvm, "kvm")
    assert [{"kvm": 1}, {}] == [driver.find(each).references for each in (first, second)]


def test_who_never_saw_a_binding_still_acknowledges_the_free(driver: Driver) -> None:
    """Without a grant the FREE alone keeps the ID, until it is acknowledged."""
    driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True)
    driver.crash("kvm")
    ioasid = driver.bound()
    assert not driver.free(ioasid)
    assert {} == driver.find(ioasid).references
    driver.ask(Evict("kvm"))
    driver.refused(UnknownIoasid, Free(ioasid))
