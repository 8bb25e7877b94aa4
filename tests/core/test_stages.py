"""Stages: the events of one ID in order, past each other, and out of the way."""

from typing import Any

import pytest

from ioasid.core import (
    AttachSpid,
    Done,
    Event,
    EventKind,
    Free,
    Get,
    IoasidState,
    Notify,
    Priority,
    TooManyEvents,
    UnknownIoasid,
    Unsubscribe,
)
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    DEVICE,
    FREE,
    IOMMU,
    LAST,
    UNBIND,
    Driver,
    expect,
)

pytestmark = pytest.mark.usefixtures("two_sets")


def fill_chain(driver: Driver, count: int = 16) -> tuple[int, int]:
    """Bring events of one ID under way; returns the ID and the subscriber they wait for."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    driver.subscribe("last", kinds=BINDING, priority=LAST)
    ioasid = driver.bound()
    for _ in range(count - 1):
        driver.ask(Notify(ioasid, UNBIND))
    return ioasid, cpu


def test_events_of_different_ids_pass_each_other(driver: Driver) -> None:
    """One that is stuck delays its own ID only."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    last = driver.subscribe("last", kinds=BINDING, priority=LAST)
    stuck = driver.bound(spid=1)
    other = driver.bound(spid=2)
    driver.free(other)
    for message in driver.messages(cpu):
        if expect(Event, message).ioasid == other:
            driver.acknowledge(cpu, message.seq, "cpu")
    driver.finish(last, "last")
    driver.acknowledge(cpu, driver.last(cpu).seq, "cpu")
    assert [("BIND", other), ("FREE", other)] == driver.shown(last)
    assert IoasidState.ACTIVE is driver.find(stuck).state


def test_chain_order(driver: Driver) -> None:
    """The next event of an ID starts when the one before was offered to its last tier."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    last = driver.subscribe("last", kinds=BINDING, priority=LAST)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.free(ioasid)
    assert ["BIND"] == [kind for kind, _ in driver.shown(cpu)]
    driver.acknowledge(cpu, driver.last(cpu).seq, "cpu")
    assert ["BIND", "UNBIND"] == [kind for kind, _ in driver.shown(cpu)]
    assert ["BIND"] == [kind for kind, _ in driver.shown(last)]
    driver.finish(cpu, "cpu")
    assert ["BIND", "UNBIND", "FREE"] == [kind for kind, _ in driver.shown(last)]
    assert IoasidState.FREE_PENDING is driver.find(ioasid).state
    driver.acknowledge(last, driver.seqs(last)[FREE], "last")
    driver.refused(UnknownIoasid, Free(ioasid))


def test_the_next_event_starts_when_the_last_tier_leaves(driver: Driver) -> None:
    """Where nobody is left below, an event need not wait for the one before."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    last = driver.subscribe("last", kinds=BINDING, priority=LAST)
    settled = driver.bound(spid=1)
    driver.finish(cpu, "cpu")
    driver.finish(last, "last")
    ioasid = driver.bound(spid=2)
    driver.unbind(ioasid)
    assert [("BIND", settled), ("BIND", ioasid)] == driver.shown(cpu)
    driver.ask(Unsubscribe(last), "last")
    assert ("UNBIND", ioasid) == driver.shown(cpu)[-1]


def test_one_tier_waits_for_nothing(driver: Driver) -> None:
    """With one tier only, every event is offered at once."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    for _ in range(10):
        ioasid = driver.bound()
        driver.unbind(ioasid)
        driver.ask(Notify(ioasid, BIND))
        driver.free(ioasid)
    assert 10 * 4 == len(driver.messages(cpu))


def test_a_later_subscriber_sees_bind_and_unbind_in_pairs(driver: Driver) -> None:
    """Who joins a tier that the events of an ID have yet to reach sees all of them."""
    slow = driver.subscribe("slow", kinds=frozenset((BIND,)), priority=IOMMU)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    late = driver.subscribe("late", kinds=BINDING, priority=LAST, hold=True)
    driver.finish(slow, "slow")
    driver.finish(late, "late")
    kinds = [kind for kind, _ in driver.shown(late)]
    assert kinds in ([], ["BIND", "UNBIND"])
    assert {} == driver.find(ioasid).references
    driver.free(ioasid)
    driver.finish(late, "late")
    driver.refused(UnknownIoasid, Free(ioasid))


@pytest.mark.parametrize("scope", [{"sid": 0}, {"token": "vm-1"}, {}])
def test_who_joins_is_told_from_then_on(driver: Driver, scope: dict[str, Any]) -> None:
    """That others were told of such an event before keeps nobody from it."""
    kvm = driver.subscribe("kvm", **scope)
    first = driver.alloc()
    vtd = driver.subscribe("vtd", **scope)
    second = driver.alloc()
    assert [("ALLOC", first), ("ALLOC", second)] == driver.shown(kvm)
    assert [("ALLOC", second)] == driver.shown(vtd)


def test_an_event_overtakes_none_on_its_way_to_a_later_subscriber(driver: Driver) -> None:
    """An UNBIND that is done above waits for the BIND that somebody below it joined in time for."""
    device = driver.subscribe("device", kinds=BINDING, priority=DEVICE)
    other = driver.subscribe("other", kinds=frozenset({UNBIND}), priority=IOMMU)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    seqs = driver.seqs(device)
    late = driver.subscribe("late", kinds=BINDING, priority=IOMMU)
    driver.acknowledge(device, seqs[UNBIND], "device")
    assert ([], []) == (driver.shown(other), driver.shown(late))
    driver.acknowledge(device, seqs[BIND], "device")
    assert [("UNBIND", ioasid)] == driver.shown(other)
    assert [("BIND", ioasid), ("UNBIND", ioasid)] == driver.shown(late)


def test_an_event_goes_on_past_one_that_goes_elsewhere(driver: Driver) -> None:
    """An earlier event of the ID that has nobody left up to a tier keeps no later one from it."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    ioasid = driver.bound()
    driver.free(ioasid)
    seqs = driver.seqs(cpu)
    device = driver.subscribe("device", kinds=frozenset({FREE}), priority=DEVICE)
    iommu = driver.subscribe("iommu", kinds=frozenset({BIND}), priority=IOMMU)
    driver.acknowledge(cpu, seqs[FREE], "cpu")
    assert ([("FREE", ioasid)], []) == (driver.shown(device), driver.shown(iommu))
    late = driver.subscribe("late", kinds=BINDING, priority=DEVICE)
    driver.acknowledge(cpu, seqs[BIND], "cpu")
    assert ([("BIND", ioasid)], []) == (driver.shown(iommu), driver.shown(late))


def test_an_event_overtakes_none_of_several(driver: Driver) -> None:
    """One of the earlier events is enough, whatever comes in between."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    ioasid = driver.bound()
    driver.finish(cpu, "cpu")
    driver.unbind(ioasid)
    driver.bind(ioasid)
    driver.free(ioasid)
    late = driver.subscribe("late", kinds=frozenset((UNBIND, FREE)), priority=IOMMU)
    driver.acknowledge(cpu, driver.seqs(cpu)[FREE], "cpu")
    assert [] == driver.shown(late)
    driver.finish(cpu, "cpu")
    assert [("UNBIND", ioasid), ("FREE", ioasid)] == driver.shown(late)


def test_a_resync_is_followed_by_every_event_it_does_not_show(driver: Driver) -> None:
    """Acknowledging a later event of an ID first loses nothing for who joins a lower tier then."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    ioasid = driver.bound(spid=4)
    driver.finish(cpu, "cpu")
    driver.unbind(ioasid)
    driver.bind(ioasid, 5)
    driver.acknowledge(cpu, driver.seqs(cpu)[BIND], "cpu")
    late = driver.subscribe("late", kinds=BINDING, priority=DEVICE, replay=True)
    assert 4 == next(iter(driver.resync(late))).spid
    driver.finish(cpu, "cpu")
    driver.finish(late, "late")
    events = [each for each in driver.messages(late) if isinstance(each, Event)]
    assert [(UNBIND, 4), (BIND, 5)] == [(each.kind, each.spid) for each in events]


def test_who_joins_after_a_free_was_finished(driver: Driver) -> None:
    """A FREE that was acknowledged before the BIND is known to a later subscriber, in order."""
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=IOMMU)
    ioasid = driver.bound()
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    driver.acknowledge(iommu, driver.seqs(iommu)[FREE], "iommu")
    late = driver.subscribe("late", kinds=BINDING, priority=LAST, replay=True)
    state = next(iter(driver.resync(late))).state
    driver.finish(iommu, "iommu")
    driver.finish(late, "late")
    follows = [] if state is IoasidState.FREE_PENDING else ["BIND", "FREE"]
    assert follows == [kind for kind, _ in driver.shown(late)[1:]]


def test_sixteen_events_in_flight(driver: Driver) -> None:
    """An ID with 16 events under way refuses another notify with EAGAIN, and no other ID does."""
    ioasid, cpu = fill_chain(driver)
    assert 16 == driver.figures().in_flight
    for kind in (ALLOC, BIND, UNBIND, FREE):
        driver.refused(TooManyEvents, Notify(ioasid, kind), ioasid=ioasid, in_flight=16)
    driver.ask(Notify(driver.bound(spid=7), BIND))
    driver.acknowledge(cpu, driver.messages(cpu)[0].seq, "cpu")
    assert Done() == driver.ask(Notify(ioasid, BIND))
    driver.refused(TooManyEvents, Notify(ioasid, BIND), ioasid=ioasid, in_flight=16)


def test_unbind_and_free_are_never_refused(driver: Driver) -> None:
    """At the limit a bind is refused; an unbind and a free are not."""
    ioasid, cpu = fill_chain(driver)
    driver.unbind(ioasid)
    driver.refused(TooManyEvents, AttachSpid(ioasid, 3), ioasid=ioasid, in_flight=17)
    assert not driver.free(ioasid)
    assert 18 == driver.figures().in_flight
    driver.finish(cpu, "cpu")
    last = driver.subscribe("other")
    driver.finish(cpu + 1, "last")
    driver.refused(UnknownIoasid, Free(ioasid))
    assert [("RECLAIM", ioasid)] == driver.shown(last)


def test_the_last_tier_may_hang_without_a_limit(driver: Driver) -> None:
    """Events that were offered to everybody are not under way, however late they are done."""
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.alloc()
    for _ in range(40):
        driver.bind(ioasid)
        driver.unbind(ioasid)
        driver.ask(Notify(ioasid, BIND))
    assert 120 == len(driver.messages(last))
    assert 1 >= driver.figures().in_flight


def test_what_changes_nothing_any_more_is_not_in_flight(driver: Driver) -> None:
    """A bind with its unbind and a publisher's event that all were offered to leave the chain."""
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    assert (2, 0) == (len(driver.messages(last)), driver.figures().in_flight)
    driver.ask(Notify(ioasid, BIND))
    assert (3, 0) == (len(driver.messages(last)), driver.figures().in_flight)


def test_events_that_become_pointless_together_leave_together(driver: Driver) -> None:
    """When the lower tier goes, a bind, its unbind and a publisher's event leave the chain."""
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=Priority.IOMMU)
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.ask(Notify(ioasid, FREE))
    assert 3 == driver.figures().in_flight
    driver.ask(Unsubscribe(last), "last")
    assert ["BIND", "UNBIND", "FREE"] == [kind for kind, _ in driver.shown(iommu)]
    assert 0 == driver.figures().in_flight


@pytest.mark.parametrize("kind", [ALLOC, BIND, UNBIND, FREE])
def test_notify_changes_no_state(driver: Driver, kind: EventKind) -> None:
    """A publisher's event names it, carries the ID's state and changes nothing else."""
    kvm = driver.subscribe("kvm", sid=0, hold=True)
    ioasid = driver.bound(spid=6)
    before = driver.find(ioasid)
    driver.ask(Notify(ioasid, kind, 0), "vfio")
    event = driver.last(kvm)
    assert (kind, 6, "vfio") == (event.kind, event.spid, event.publisher)
    driver.acknowledge(kvm, event.seq, "kvm")
    assert before == driver.find(ioasid)


def test_notify_goes_tier_by_tier(driver: Driver) -> None:
    """A publisher's event is staged, whatever its kind."""
    cpu = driver.subscribe("cpu", priority=CPU, kinds=frozenset((ALLOC,)))
    last = driver.subscribe("last", kinds=frozenset((ALLOC,)))
    ioasid = driver.alloc()
    driver.ask(Notify(ioasid, ALLOC))
    assert [2, 1] == [len(driver.messages(cpu)), len(driver.messages(last))]
    driver.finish(cpu, "cpu")
    assert 2 == len(driver.messages(last))
