"""Events: who is told what, in which order, and what acknowledging it sets free."""

from typing import Any

import pytest

from ioasid.core import (
    Acknowledge,
    AttachData,
    AttachSpid,
    CloseSession,
    Defer,
    Deliver,
    DetachSpid,
    Done,
    Event,
    EventKind,
    Evict,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    IoasidState,
    Notify,
    NotReferenced,
    Priority,
    Put,
    Request,
    Subscribe,
    TooManyEvents,
    UnknownIoasid,
    UnknownSet,
    UnknownSubscription,
    Unsubscribe,
    Withdraw,
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
    RECLAIM,
    UNBIND,
    Driver,
    expect,
)

pytestmark = pytest.mark.usefixtures("two_sets")


# -- events -----------------------------------------------------------------------------------


def test_an_event_carries_everything(driver: Driver) -> None:
    """A life as a subscriber sees it: in order, each event with all there is to know."""
    kvm = driver.subscribe("kvm", token="vm-1")
    ioasid = driver.alloc()
    driver.ask(AttachData(ioasid, "mine"))
    driver.bind(ioasid, 7)
    driver.unbind(ioasid)
    driver.free(ioasid)
    driver.finish(kvm, "kvm")
    expected = [
        (ALLOC, None, None),
        (BIND, 7, "mine"),
        (UNBIND, 7, "mine"),
        (FREE, None, "mine"),
        (RECLAIM, None, "mine"),
    ]
    events = [expect(Event, message) for message in driver.messages(kvm)]
    assert expected == [(each.kind, each.spid, each.data) for each in events]
    assert {(ioasid, 0, "vm-1", None)} == {
        (each.ioasid, each.sid, each.token, each.publisher) for each in events
    }
    seqs = [each.seq for each in events]
    assert sorted(set(seqs)) == seqs


def test_free_and_reclaim_carry_the_spid(driver: Driver) -> None:
    """The FREE of a bound ID says what it was bound to, and so does its RECLAIM."""
    kvm = driver.subscribe("kvm", sid=0, kinds=frozenset((FREE, RECLAIM)))
    ioasid = driver.bound(spid=9)
    driver.free(ioasid)
    driver.finish(kvm, "kvm")
    assert [9, 9] == [expect(Event, each).spid for each in driver.messages(kvm)]


def test_seq_grows_for_events_that_nobody_sees(driver: Driver) -> None:
    """Every event has a number of its own, whether or not anybody is told."""
    before = driver.figures().seq
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.free(ioasid)
    assert before + 5 == driver.figures().seq


@pytest.mark.parametrize(
    ("scope", "sees"),
    [
        ({}, [0, 1]),
        ({"sid": 0}, [0]),
        ({"sid": 1}, [1]),
        ({"token": "vm-1"}, [0]),
        ({"token": "vm-2"}, [1]),
        ({"token": "vm-3"}, []),
    ],
)
def test_scopes(driver: Driver, scope: dict[str, object], sees: list[int]) -> None:
    """A subscriber is told of its scope and of nothing else."""
    number = driver.subscribe("kvm", **scope)
    for sid in (0, 1):
        driver.alloc(sid)
    events = [expect(Event, message) for message in driver.messages(number)]
    assert sees == [each.sid for each in events]


@pytest.mark.parametrize("kinds", [{ALLOC}, {BIND, UNBIND}, {FREE}, {RECLAIM, ALLOC}, {*EventKind}])
def test_kinds(driver: Driver, kinds: set[EventKind]) -> None:
    """A subscriber is told of any subset of the kinds."""
    number = driver.subscribe("kvm", kinds=frozenset(kinds))
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.free(ioasid)
    driver.finish(number, "kvm")
    assert [kind.value for kind in EventKind if kind in kinds] == [
        kind for kind, _ in driver.shown(number)
    ]


def test_a_subscriber_of_two_scopes_gets_an_event_for_each(driver: Driver) -> None:
    """Subscriptions are independent of each other, also those of one holder."""
    numbers = [driver.subscribe("kvm"), driver.subscribe("kvm", sid=0)]
    ioasid = driver.alloc()
    assert [[("ALLOC", ioasid)]] * 2 == [driver.shown(number) for number in numbers]


@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}])
def test_who_leaves_is_told_no_more(driver: Driver, scope: dict[str, Any]) -> None:
    """That it was told of such an event before keeps nobody from leaving."""
    driver.subscribe("vtd")
    kvm = driver.subscribe("kvm", **scope)
    first = driver.alloc()
    driver.ask(Unsubscribe(kvm), "kvm")
    driver.alloc()
    assert [("ALLOC", first)] == driver.shown(kvm)


# -- tokens and sets that come and go ---------------------------------------------------------


def test_token_before_the_set_during_and_after(driver: Driver) -> None:
    """A token subscription waits for its set, goes back to waiting, and joins the next one."""
    kvm = driver.subscribe("kvm", token="vm-3")
    for _ in range(2):
        before = len(driver.messages(kvm))
        driver.alloc(0)
        assert before == len(driver.messages(kvm))
        sid = driver.set("vm-3", 4)
        ioasid = driver.bound(sid)
        driver.ask(FreeSet(sid))
        driver.finish(kvm, "kvm")
        driver.refused(UnknownSet, FreeSet(sid))
        seen = driver.shown(kvm)[before:]
        assert ["ALLOC", "BIND", "FREE", "RECLAIM"] == [kind for kind, _ in seen]
        assert {ioasid} == {each for _, each in seen}
        assert [] == driver.ended()


def test_a_set_subscription_ends_with_its_set(driver: Driver) -> None:
    """A subscription by number ends with the set, after its last RECLAIM; the number is free."""
    kvm = driver.subscribe("kvm", sid=0)
    driver.alloc()
    driver.ask(FreeSet(0))
    for message in list(driver.messages(kvm)):
        driver.acknowledge(kvm, message.seq, "kvm")
    assert ["ALLOC", "FREE", "RECLAIM"] == [kind for kind, _ in driver.shown(kvm)]
    assert [(kvm, True)] == driver.ended()
    driver.refused(UnknownSubscription, Acknowledge(kvm, driver.last(kvm).seq), "kvm")
    driver.refused(UnknownSet, Subscribe(sid=0), "kvm", sid=0)
    assert 0 == driver.set("vm-9")
    driver.alloc(0)
    assert 3 == len(driver.messages(kvm))
    assert kvm != driver.subscribe("kvm", sid=0)


def test_a_lagging_subscription_ends_with_its_set(driver: Driver) -> None:
    """Its last acknowledgement ends the set, and after that no Resync comes."""
    kvm = driver.subscribe("kvm", sid=0, kinds=frozenset((FREE, RECLAIM)), queue_size=1)
    last, *held = [driver.alloc() for _ in range(3)]
    for ioasid in held:
        driver.ask(Get(ioasid))
        driver.free(ioasid)
        driver.finish(kvm, "kvm")
    driver.ask(FreeSet(0))
    for ioasid in held:
        driver.ask(Put(ioasid))
    assert [("FREE", each) for each in (*held, last)] == driver.shown(kvm)
    assert [True] == [each.resync_due for each in driver.core.snapshot().subscriptions]
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert [(kvm, True)] == driver.ended()
    assert 3 == len(driver.messages(kvm))


# -- tiers ------------------------------------------------------------------------------------


def subscribe_tiers(driver: Driver, **terms: object) -> dict[str, int]:
    """Subscribe one holder of its own in each tier, lowest first."""
    return {
        tier.value: driver.subscribe(tier.value, priority=tier, **terms)
        for tier in reversed(Priority)
    }


@pytest.mark.parametrize("scopes", [({}, {"sid": 0}), ({"token": "vm-1"}, {}), ({"sid": 0},) * 2])
def test_staged_events_go_tier_by_tier(driver: Driver, scopes: tuple[dict[str, int], ...]) -> None:
    """BIND, UNBIND, FREE and a publisher's event reach a tier when those above are done."""
    numbers = {
        tier.value: driver.subscribe(tier.value, priority=tier, **scopes[index % 2])
        for index, tier in enumerate(reversed(Priority))
    }
    ioasid = driver.alloc()
    for name, number in numbers.items():
        driver.finish(number, name)
    requests = (AttachSpid(ioasid, 5), Notify(ioasid, BIND), DetachSpid(ioasid), Free(ioasid))
    for request in requests:
        driver.ask(request)
        for index, tier in enumerate(Priority):
            counts = [len(driver.messages(numbers[each.value])) for each in Priority]
            ahead = counts[0]
            assert [ahead] * (index + 1) + [ahead - 1] * (3 - index) == counts
            driver.acknowledge(
                numbers[tier.value], driver.last(numbers[tier.value]).seq, tier.value
            )
    assert {tuple(driver.shown(number)) for number in numbers.values()} == {
        tuple((kind, ioasid) for kind in ("ALLOC", "BIND", "BIND", "UNBIND", "FREE", "RECLAIM"))
    }


def test_alloc_and_reclaim_go_to_all_at_once(driver: Driver) -> None:
    """Nobody waits for anybody to hear of an ALLOC or RECLAIM."""
    numbers = subscribe_tiers(driver, kinds=frozenset((ALLOC, RECLAIM)))
    ioasid = driver.alloc()
    driver.free(ioasid)
    for number in numbers.values():
        assert [("ALLOC", ioasid), ("RECLAIM", ioasid)] == driver.shown(number)


def test_a_tier_waits_for_everybody_above(driver: Driver) -> None:
    """All subscribers of a tier have to acknowledge, in any order, before the next is reached."""
    cpus = [driver.subscribe(f"cpu-{n}", kinds=BINDING, priority=CPU) for n in range(3)]
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=IOMMU)
    driver.bound()
    for index in (2, 0, 1):
        assert [] == driver.messages(iommu)
        driver.finish(cpus[index], f"cpu-{index}")
    assert 1 == len(driver.messages(iommu))


@pytest.mark.parametrize("way", ["unsubscribe", "close", "evict"])
def test_leaving_acknowledges(driver: Driver, way: str) -> None:
    """Who leaves holds nothing up: what it was told counts as acknowledged."""
    cpu = driver.subscribe("cpu", priority=CPU)
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=IOMMU)
    driver.bound()
    requests: dict[str, tuple[Request, str]] = {
        "unsubscribe": (Unsubscribe(cpu), "cpu"),
        "close": (CloseSession(), "cpu"),
        "evict": (Evict("cpu"), "host"),
    }
    driver.ask(*requests[way])
    assert ["BIND"] == [kind for kind, _ in driver.shown(iommu)]


def test_who_matches_is_decided_when_the_tier_is_reached(driver: Driver) -> None:
    """Who joins a lower tier in time is told; who joins one that was passed is not."""
    device = driver.subscribe("device", kinds=BINDING, priority=DEVICE)
    driver.bound()
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    second = driver.subscribe("second", kinds=BINDING, priority=DEVICE)
    iommu = driver.subscribe("iommu", kinds=BINDING, priority=IOMMU)
    gone = driver.subscribe("gone", kinds=BINDING, priority=IOMMU)
    driver.ask(Unsubscribe(gone), "gone")
    driver.finish(device, "device")
    assert [0, 0, 1, 0] == [len(driver.messages(each)) for each in (cpu, second, iommu, gone)]


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


# -- the chain of one ID ----------------------------------------------------------------------


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
    assert 4 == driver.resync(late).ioasids[0].spid
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
    state = driver.resync(late).ioasids[0].state
    driver.finish(iommu, "iommu")
    driver.finish(late, "late")
    follows = [] if state is IoasidState.FREE_PENDING else ["BIND", "FREE"]
    assert follows == [kind for kind, _ in driver.shown(late)[1:]]


# -- EAGAIN -----------------------------------------------------------------------------------


def fill_chain(driver: Driver, count: int = 16) -> tuple[int, int]:
    """Bring events of one ID under way; returns the ID and the subscriber they wait for."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    driver.subscribe("last", kinds=BINDING, priority=LAST)
    ioasid = driver.bound()
    for _ in range(count - 1):
        driver.ask(Notify(ioasid, UNBIND))
    return ioasid, cpu


def test_sixteen_events_under_way(driver: Driver) -> None:
    """An ID with 16 events under way refuses another notify with EAGAIN, and no other ID does."""
    ioasid, cpu = fill_chain(driver)
    assert 16 == driver.figures().under_way
    for kind in (ALLOC, BIND, UNBIND, FREE):
        driver.refused(TooManyEvents, Notify(ioasid, kind), ioasid=ioasid, under_way=16)
    driver.ask(Notify(driver.bound(spid=7), BIND))
    driver.acknowledge(cpu, driver.messages(cpu)[0].seq, "cpu")
    assert Done() == driver.ask(Notify(ioasid, BIND))
    driver.refused(TooManyEvents, Notify(ioasid, BIND), ioasid=ioasid, under_way=16)


def test_unbind_and_free_are_never_refused(driver: Driver) -> None:
    """At the limit a bind is refused; an unbind and a free are not."""
    ioasid, cpu = fill_chain(driver)
    driver.unbind(ioasid)
    driver.refused(TooManyEvents, AttachSpid(ioasid, 3), ioasid=ioasid, under_way=17)
    assert not driver.free(ioasid)
    assert 18 == driver.figures().under_way
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
    assert 1 >= driver.figures().under_way


def test_what_changes_nothing_any_more_is_not_under_way(driver: Driver) -> None:
    """A bind with its unbind and a publisher's event that all were offered to leave the chain."""
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    assert (2, 0) == (len(driver.messages(last)), driver.figures().under_way)
    driver.ask(Notify(ioasid, BIND))
    assert (3, 0) == (len(driver.messages(last)), driver.figures().under_way)


def test_events_that_become_pointless_together_leave_together(driver: Driver) -> None:
    """When the lower tier goes, a bind, its unbind and a publisher's event leave the chain."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    last = driver.subscribe("last", kinds=BINDING)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    driver.ask(Notify(ioasid, FREE))
    assert 3 == driver.figures().under_way
    driver.ask(Unsubscribe(last), "last")
    assert ["BIND", "UNBIND", "FREE"] == [kind for kind, _ in driver.shown(cpu)]
    assert 0 == driver.figures().under_way


# -- a publisher's own ------------------------------------------------------------------------


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


# -- holding ----------------------------------------------------------------------------------


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
    assert 0 == driver.figures().under_way


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


# -- lagging and Resync -----------------------------------------------------------------------


def test_at_the_bound_the_queue_becomes_one_resync(driver: Driver) -> None:
    """One message in its hands, the bound in its queue: one more, and a Resync stands for all."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=3)
    ioasids = [driver.alloc() for _ in range(4)]
    assert [("ALLOC", each) for each in ioasids] == driver.shown(kvm)
    first = driver.messages(kvm)[0].seq
    ioasids.append(driver.alloc())
    assert Withdraw(kvm, first) == driver.effects[-1]
    assert [("ALLOC", ioasids[0])] == driver.shown(kvm)
    ioasids.append(driver.alloc())
    driver.free(ioasids[0])
    assert [("ALLOC", ioasids[0])] == driver.shown(kvm)
    driver.acknowledge(kvm, first, "kvm")
    resync = driver.resync(kvm)
    assert ioasids == [each.ioasid for each in resync.ioasids]
    assert IoasidState.FREE_PENDING is resync.ioasids[0].state
    assert 1 == driver.figures().free_pending
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert ("RECLAIM", ioasids[0]) == driver.shown(kvm)[-1]


def test_a_lagging_subscriber_costs_no_memory(driver: Driver) -> None:
    """However much a lagging subscriber misses, one Resync stands for it."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1)
    ioasid = driver.alloc()
    for _ in range(100):
        driver.bind(ioasid)
        driver.ask(Notify(ioasid, FREE))
        driver.unbind(ioasid)
    lag = driver.figures().lagging[0]
    assert (1, 0, 0) == (lag.queued, lag.deferred, lag.folded)
    driver.finish(kvm, "kvm")
    assert () == driver.figures().lagging


def test_a_resync_shows_an_id_as_of_the_tier(driver: Driver) -> None:
    """What is on its way through higher tiers is not revealed, and follows as an event."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU)
    bound = driver.bound(spid=1)
    driver.finish(cpu, "cpu")
    unbound, freed, plain = driver.bound(spid=2), driver.bound(spid=3), driver.alloc()
    driver.finish(cpu, "cpu")
    driver.unbind(unbound)
    driver.free(freed)
    fresh = driver.bound(spid=5)
    late = driver.subscribe("late", priority=DEVICE, replay=True, hold=True)
    shown = {each.ioasid: (each.state, each.spid) for each in driver.resync(late).ioasids}
    active = IoasidState.ACTIVE
    assert {
        bound: (active, 1),
        unbound: (active, 2),
        freed: (active, 3),
        plain: (active, None),
        fresh: (active, None),
    } == shown
    for ioasid, references in ((bound, 1), (unbound, 1), (freed, 1), (fresh, 0), (plain, 0)):
        assert references == driver.find(ioasid).references.get("late", 0)
    driver.finish(cpu, "cpu")
    assert [("UNBIND", unbound), ("FREE", freed), ("BIND", fresh)] == driver.shown(late)[1:]
    assert {"late": 1} == driver.find(fresh).references
    driver.finish(late, "late")
    assert ("RECLAIM", freed) == driver.shown(late)[-1]
    assert {} == driver.find(unbound).references


def test_a_resync_grants_no_binding_twice(driver: Driver) -> None:
    """A binding that was granted with its BIND is not granted again by a Resync."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasids = [driver.bound(spid=spid) for spid in range(4)]
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 4 == len(driver.resync(kvm).ioasids)
    driver.finish(kvm, "kvm")
    assert [{"kvm": 1}] * 4 == [driver.find(each).references for each in ioasids]


def test_stale_grants_go_with_the_resync(driver: Driver) -> None:
    """A grant of a binding that the Resync no longer shows goes when it is acknowledged."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    first = driver.messages(kvm)[0].seq
    driver.unbind(ioasid)
    driver.bind(ioasid, 7)
    driver.unbind(ioasid)
    driver.bind(ioasid, 8)
    assert {"kvm": 3} == driver.find(ioasid).references
    driver.acknowledge(kvm, first, "kvm")
    resync = driver.resync(kvm)
    assert [8] == [each.spid for each in resync.ioasids]
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references


def test_a_resync_leaves_alone_what_is_in_hand(driver: Driver) -> None:
    """An UNBIND that was set aside keeps its grant until it is acknowledged itself."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    driver.finish(kvm, "kvm")
    driver.unbind(ioasid)
    unbind = driver.last(kvm).seq
    driver.ask(Defer(kvm, unbind), "kvm")
    for spid in (7, 8):
        driver.bind(driver.alloc(), spid)
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    resync = driver.resync(kvm)
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, unbind, "kvm")
    assert {} == driver.find(ioasid).references


def test_a_resync_leaves_alone_what_another_ends(driver: Driver) -> None:
    """A binding that a Resync was the first not to show goes with that one, set aside or not."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True, queue_size=1)
    ioasid = driver.bound()
    bind = driver.last(kvm).seq
    driver.unbind(ioasid)
    driver.ask(Notify(ioasid, BIND))
    driver.acknowledge(kvm, bind, "kvm")
    first = driver.resync(kvm)
    driver.ask(Defer(kvm, first.seq), "kvm")
    for _ in range(2):
        driver.ask(Notify(ioasid, BIND))
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert first != driver.resync(kvm)
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, first.seq, "kvm")
    assert {} == driver.find(ioasid).references


def test_a_resync_leaves_alone_what_has_yet_to_come(driver: Driver) -> None:
    """The grant of a BIND that has yet to reach the tier outlives a Resync that can't show it."""
    cpu = driver.subscribe("cpu", sid=0, kinds=BINDING, priority=CPU)
    kvm = driver.subscribe("kvm", sid=0, hold=True, queue_size=1)
    ioasid = driver.bound()
    for _ in range(3):
        driver.alloc()
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert (ioasid, None) == (
        driver.resync(kvm).ioasids[0].ioasid,
        driver.resync(kvm).ioasids[0].spid,
    )
    driver.finish(kvm, "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.finish(cpu, "cpu")
    assert ("BIND", ioasid) == driver.shown(kvm)[-1]


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
    bindings = [binding for binding, _ in subscription.grants]
    assert [second, first] == [ioasid for _, ioasid in subscription.grants]
    assert [tuple(bindings)] == [offer.stale for offer in subscription.outstanding]
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


def test_who_sets_everything_aside_gets_its_resync_when_there_is_room(driver: Driver) -> None:
    """What is set aside counts against the bound: the Resync comes with an acknowledgement."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=2)
    for _ in range(3):
        driver.alloc()
        driver.ask(Defer(kvm, driver.last(kvm).seq), "kvm")
    driver.alloc()
    assert Withdraw(kvm, None) in driver.effects
    assert 3 == len(driver.messages(kvm))
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 4 == len(driver.resync(kvm).ioasids)
    driver.finish(kvm, "kvm")
    assert () == driver.figures().lagging


def test_deferring_the_last_message_in_hand_brings_the_resync(driver: Driver) -> None:
    """A lagging subscriber that comes back without acknowledging gets its Resync too."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1)
    for _ in range(3):
        driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.ask(Defer(kvm, first), "kvm")
    assert 3 == len(driver.resync(kvm).ioasids)
    driver.finish(kvm, "kvm")


def test_a_resync_is_replaced_by_the_next(driver: Driver) -> None:
    """A Resync that waits in a queue at its bound is folded into the next one."""
    kvm = driver.subscribe("kvm", sid=0, queue_size=1, hold=True)
    ioasid = driver.bound()
    driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.acknowledge(kvm, first, "kvm")
    driver.ask(Defer(kvm, driver.messages(kvm)[-1].seq), "kvm")
    driver.free(ioasid)
    for _ in range(4):
        driver.alloc()
        driver.ask(Defer(kvm, driver.messages(kvm)[-1].seq), "kvm")
    driver.finish(kvm, "kvm")
    driver.finish(kvm, "kvm")
    driver.refused(UnknownIoasid, Free(ioasid))


def test_a_crash_with_a_resync_in_hand_acknowledges_nothing(driver: Driver) -> None:
    """What that Resync stood for is acknowledged with the next one, and not before."""
    terms = {"sid": 0, "kinds": BINDING, "priority": CPU, "hold": True, "queue_size": 1}
    kvm = driver.subscribe("kvm", **terms)
    last = driver.subscribe("last", kinds=BINDING)
    ioasids = [driver.bound(spid=spid) for spid in range(3)]
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    assert 3 == len(driver.resync(kvm).ioasids)
    driver.crash("kvm")
    assert 2 == driver.core.lagging()[0].folded
    driver.come_back("kvm")
    driver.ask(Subscribe(**terms), "kvm")  # type: ignore[arg-type]
    assert [("BIND", ioasids[0])] == driver.shown(last)
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    assert [("BIND", each) for each in ioasids] == driver.shown(last)


def test_who_leaves_with_a_resync_in_hand_acknowledges_it(driver: Driver) -> None:
    """Whoever leaves has acknowledged what its Resync stood for, as anything else."""
    cpu = driver.subscribe("cpu", kinds=BINDING, priority=CPU, queue_size=1)
    last = driver.subscribe("last", kinds=BINDING)
    ioasids = [driver.bound(spid=spid) for spid in range(3)]
    driver.acknowledge(cpu, driver.messages(cpu)[0].seq, "cpu")
    assert 3 == len(driver.resync(cpu).ioasids)
    driver.ask(Unsubscribe(cpu), "cpu")
    assert [("BIND", each) for each in ioasids] == driver.shown(last)


def test_a_resync_has_a_number_of_its_own(driver: Driver) -> None:
    """It is numbered like an event, and the next event follows it."""
    driver.alloc()
    before = driver.figures().seq
    kvm = driver.subscribe("kvm", replay=True)
    driver.alloc()
    assert [before + 1, before + 2] == [each.seq for each in driver.messages(kvm)]


@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}, {"token": "vm-9"}])
def test_replay(driver: Driver, scope: dict[str, object]) -> None:
    """A late subscriber that asks for it starts with a Resync of its scope."""
    first, second = driver.bound(), driver.alloc(1)
    number = driver.subscribe("kvm", replay=True, hold=True, **scope)
    expected = {"": [first, second], "sid": [first], "token": [first]}["".join(scope)]
    expected = [] if scope == {"token": "vm-9"} else expected
    assert expected == [each.ioasid for each in driver.resync(number).ioasids]
    assert [number] == [each.subscription for each in driver.figures().lagging]
    driver.finish(number, "kvm")
    assert () == driver.figures().lagging
    assert ({"kvm": 1} if expected else {}) == driver.find(first).references


def test_without_replay_nothing_is_repeated(driver: Driver) -> None:
    """A late subscriber that does not ask gets neither a Resync nor grants."""
    ioasid = driver.bound()
    kvm = driver.subscribe("kvm", hold=True)
    assert [] == driver.messages(kvm)
    driver.unbind(ioasid)
    driver.finish(kvm, "kvm")
    assert [("UNBIND", ioasid)] == driver.shown(kvm)
    assert {} == driver.find(ioasid).references


def test_fan_out_is_in_order_of_subscription(driver: Driver) -> None:
    """Within a tier, who subscribed first is served first, whatever the scope."""
    numbers = [
        driver.subscribe("a", sid=0),
        driver.subscribe("b"),
        driver.subscribe("c", token="vm-1"),
        driver.subscribe("d"),
    ]
    before = len(driver.effects)
    driver.alloc()
    assert numbers == [
        each.subscription for each in driver.effects[before:] if isinstance(each, Deliver)
    ]


def test_who_defers_everything_is_bounded(driver: Driver) -> None:
    """Who sets every message aside has no more than its bound, however much happens."""
    shelf = driver.subscribe("shelf", queue_size=2)
    for _ in range(16):
        driver.alloc()
        for message in driver.messages(shelf):
            driver.ask(Defer(shelf, message.seq), by="shelf")
    (lag,) = driver.figures().lagging
    assert 3 == lag.queued == lag.deferred
