"""Events: who is told what, in which order, and what acknowledging it sets free."""

import pytest

from ioasid.core import (
    AllocMany,
    AttachData,
    AttachSpid,
    CloseSession,
    Defer,
    DetachSpid,
    Event,
    EventKind,
    Evict,
    Free,
    FreeSet,
    Get,
    Notify,
    Priority,
    Put,
    Request,
    Subscribe,
    UnknownSet,
    UnknownSubscription,
    Unsubscribe,
)
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    FREE,
    IOMMU,
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


# -- tokens and sets that come and go ---------------------------------------------------------


def test_a_set_subscription_ends_with_its_set(driver: Driver) -> None:
    """A subscription by number ends with the set, after its last RECLAIM, for ever."""
    kvm = driver.subscribe("kvm", sid=0)
    driver.alloc()
    driver.ask(FreeSet(0))
    for message in list(driver.messages(kvm)):
        driver.acknowledge(kvm, message.seq, "kvm")
    assert ["ALLOC", "FREE", "RECLAIM"] == [kind for kind, _ in driver.shown(kvm)]
    assert [(kvm, True)] == driver.ended()
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    driver.refused(UnknownSubscription, Defer(kvm, driver.last(kvm).seq), "kvm")
    driver.refused(UnknownSet, Subscribe(sid=0), "kvm", sid=0)
    assert 2 == driver.set("vm-9")
    driver.alloc(2)
    assert 3 == len(driver.messages(kvm))
    driver.refused(UnknownSet, Subscribe(sid=0), "kvm", sid=0)
    assert kvm != driver.subscribe("kvm", sid=2)


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


# -- the chain of one ID ----------------------------------------------------------------------


# -- EAGAIN -----------------------------------------------------------------------------------


# -- a publisher's own ------------------------------------------------------------------------


# -- holding ----------------------------------------------------------------------------------


# -- lagging and Resync -----------------------------------------------------------------------


def test_a_crash_takes_nothing_back_that_is_over(driver: Driver) -> None:
    """A Resync in the hands of who crashes counts for what somebody waits for, no more."""
    driver.ask(Get(driver.alloc()), "kvm")
    told = driver.subscribe("kvm", kinds=frozenset({EventKind.BIND}), queue_size=1)
    _, *others = [driver.bound(spid=200 + number) for number in range(6)]
    driver.acknowledge(told, driver.messages(told)[0].seq, "kvm")
    driver.resync(told)
    for ioasid in others[1:]:
        assert driver.free(ioasid)
    driver.crash("kvm")
    [subscription] = driver.core.snapshot().subscriptions
    assert [others[0]] == [
        stage.event.ioasid
        for stage in driver.core.snapshot().stages
        if stage.event.seq in subscription.folded
    ]


def test_many_that_are_allocated_at_once(driver: Driver) -> None:
    """Who has room is told of each; who lags has all in its Resync; and each has a number."""
    few = driver.subscribe("few", kinds={ALLOC}, queue_size=2)
    many = driver.subscribe("many", kinds={ALLOC, BIND}, queue_size=20)
    before = driver.figures().seq
    ioasids = [*range(1, 9)]
    driver.ask(AllocMany(0, len(ioasids)))
    assert [("ALLOC", each) for each in ioasids] == driver.shown(many)
    assert [before + each for each in ioasids] == [each.seq for each in driver.messages(many)]
    driver.ask(AllocMany(1, 16))
    assert before + 24 == driver.figures().seq
    driver.finish(few, "few")
    driver.finish(many, "many")
    assert [("ALLOC", 1), ("Resync", 24)] == driver.shown(few)
    assert [("ALLOC", 1), ("Resync", 24)] == driver.shown(many)
