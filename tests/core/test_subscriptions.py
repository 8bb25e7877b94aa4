"""Subscriptions: what a subscriber may ask for, and what is known of one that lags."""

import pytest

from ioasid.core import (
    Acknowledge,
    AlreadySubscribed,
    Defer,
    Detach,
    Done,
    EventKind,
    Free,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidState,
    Put,
    Subscribe,
    Subscribed,
    SuspendSession,
    UnknownIoasid,
    UnknownSet,
    UnknownSubscription,
    Unsubscribe,
)
from tests.core.helpers import (
    ALLOC,
    BIND,
    BINDING,
    CPU,
    DEVICE,
    FREE,
    LAST,
    UNBIND,
    Driver,
    expect,
)

pytestmark = pytest.mark.usefixtures("two_sets")


@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}, {"token": "vm-9"}])
def test_a_scope_is_subscribed_once(driver: Driver, scope: dict[str, object]) -> None:
    """A holder has one subscription per scope; another holder may have its own."""
    number = driver.subscribe("kvm", **scope)
    driver.refused(AlreadySubscribed, Subscribe(**scope), "kvm", subscription=number)  # type: ignore[arg-type]
    driver.subscribe("vtd", **scope)
    assert Done() == driver.ask(Unsubscribe(number), "kvm")
    assert number != driver.subscribe("kvm", **scope)


def test_unsubscribe(driver: Driver) -> None:
    """Who unsubscribes is told nothing more, and only its own holder can do it, once."""
    number = driver.subscribe("kvm")
    driver.refused(UnknownSubscription, Unsubscribe(number), "vtd", subscription=number)
    assert Done() == driver.ask(Unsubscribe(number), "kvm")
    assert [(number, False)] == driver.ended()
    driver.alloc()
    assert [] == driver.messages(number)
    for request in (Unsubscribe(number), Detach(number), Acknowledge(number, 1), Defer(number, 1)):
        driver.refused(UnknownSubscription, request, "kvm", subscription=number)


@pytest.mark.parametrize(
    "changed", [{"kinds": frozenset(EventKind)}, {"priority": DEVICE}, {"hold": False}]
)
def test_a_subscription_is_taken_up_on_its_terms(
    driver: Driver, changed: dict[str, object]
) -> None:
    """What was folded was chosen by the old terms: others are refused until it is unsubscribed."""
    terms: dict[str, object] = {"sid": 0, "kinds": BINDING, "priority": CPU, "hold": True}
    kvm = driver.subscribe("kvm", **terms)
    driver.crash("kvm")
    driver.come_back("kvm")
    request = Subscribe(**{**terms, **changed})  # type: ignore[arg-type]
    driver.refused(InvalidArgument, request, "kvm", argument=next(iter(changed)))
    driver.ask(Unsubscribe(kvm), "kvm")
    assert not expect(Subscribed, driver.ask(request, "kvm")).resumed


def test_who_comes_back_may_change_its_bounds(driver: Driver) -> None:
    """How much may wait for it, and for how long, has nothing to do with what was folded."""
    driver.subscribe("kvm", sid=0, hold=True, queue_size=7, acknowledge_within=9.0)
    driver.crash("kvm")
    driver.come_back("kvm")
    driver.ask(Subscribe(sid=0, hold=True, queue_size=3, acknowledge_within=4.0), "kvm")
    (kvm,) = driver.core.snapshot().subscriptions
    assert (3, 4.0) == (kvm.queue_size, kvm.acknowledge_within)


def test_detach_keeps_what_holds(driver: Driver) -> None:
    """The crash of one consumer suspends its holding subscription, and no other."""
    kvm = driver.subscribe("kvm", sid=0, hold=True)
    other = driver.subscribe("kvm", sid=1)
    ioasid = driver.bound()
    assert Done() == driver.ask(Detach(kvm), "kvm")
    assert Done() == driver.ask(Detach(kvm), "kvm")
    assert [(kvm, False)] == driver.ended()
    driver.unbind(ioasid)
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.alloc(1)
    assert 1 == len(driver.messages(other))
    lag = driver.figures().lagging[0]
    assert (kvm, False, 0) == (lag.subscription, lag.attached, lag.queued)
    assert Subscribed(kvm, True) == driver.ask(Subscribe(sid=0, hold=True), "kvm")
    assert 1 == len(driver.resync(kvm).ioasids)
    driver.finish(kvm, "kvm")
    assert {} == driver.find(ioasid).references


def test_detach_keeps_what_a_holder_of_references_was_told(driver: Driver) -> None:
    """A subscription without hold is kept as well, if its holder has references."""
    kvm = driver.subscribe("kvm", sid=0)
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    driver.ask(Detach(kvm), "kvm")
    driver.free(ioasid)
    driver.ask(Put(ioasid), "kvm")
    assert IoasidState.FREE_PENDING is driver.find(ioasid).state
    assert Subscribed(kvm, True) == driver.ask(Subscribe(sid=0), "kvm")
    driver.finish(kvm, "kvm")
    driver.refused(UnknownIoasid, Free(ioasid))


def test_detach_ends_what_has_nothing_to_keep(driver: Driver) -> None:
    """Without hold and references, a detached subscription ends."""
    kvm = driver.subscribe("kvm", sid=0)
    ioasid = driver.alloc()
    driver.free(ioasid)
    driver.ask(Detach(kvm), "kvm")
    assert [(kvm, False)] == driver.ended()
    driver.refused(UnknownIoasid, Free(ioasid))
    driver.refused(UnknownSubscription, Detach(kvm), "kvm", subscription=kvm)


def test_a_suspended_set_subscription_ends_with_its_set(driver: Driver) -> None:
    """A set that goes takes the subscriptions of its number along, suspended ones too."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, hold=True)
    driver.session("other")
    driver.ask(Get(driver.alloc(1)), "kvm")
    driver.crash("kvm")
    driver.ask(FreeSet(0))
    driver.come_back("kvm")
    driver.refused(UnknownSet, Subscribe(sid=0, kinds=BINDING, hold=True), "kvm", sid=0)
    driver.refused(UnknownSubscription, Unsubscribe(kvm), "kvm")


def test_acknowledging_twice_or_what_never_was_is_ignored(driver: Driver) -> None:
    """A message that is not outstanding is ignored, before and after."""
    kvm = driver.subscribe("kvm", sid=0)
    ioasid = driver.bound()
    before = driver.core.snapshot()
    for seq in (0, driver.last(kvm).seq + 1, 2**64 - 1):
        driver.acknowledge(kvm, seq, "kvm")
        assert Done() == driver.ask(Defer(kvm, seq), "kvm")
    assert before == driver.core.snapshot()
    for _ in range(2):
        driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert Done() == driver.ask(Defer(kvm, driver.last(kvm).seq), "kvm")
    driver.free(ioasid)
    assert 1 == driver.figures().free_pending


def test_a_subscription_is_acknowledged_by_its_holder(driver: Driver) -> None:
    """Nobody acknowledges for another."""
    kvm = driver.subscribe("kvm", sid=0)
    driver.alloc()
    seq = driver.last(kvm).seq
    for request in (Acknowledge(kvm, seq), Defer(kvm, seq), Detach(kvm)):
        driver.refused(UnknownSubscription, request, "vtd", subscription=kvm)


def test_deferral(driver: Driver) -> None:
    """A subscriber sets messages aside, takes later ones and acknowledges in any order."""
    cpu = driver.subscribe("cpu", priority=CPU, kinds=BINDING)
    last = driver.subscribe("last", kinds=BINDING)
    ioasids = [driver.bound(spid=spid) for spid in range(3)]
    seqs = [message.seq for message in driver.messages(cpu)]
    for seq in seqs:
        driver.ask(Defer(cpu, seq), "cpu")
    assert (3, 3) == (driver.figures().lagging[0].queued, driver.figures().lagging[0].deferred)
    for index in (1, 2, 0):
        driver.acknowledge(cpu, seqs[index], "cpu")
        assert ("BIND", ioasids[index]) == driver.shown(last)[-1]
    assert ["last"] == [each.holder for each in driver.core.lagging()]


@pytest.mark.parametrize("kinds", [{BIND}, {BIND, UNBIND}, {UNBIND, FREE}, {*EventKind} - {FREE}])
def test_holding_needs_its_kinds(driver: Driver, kinds: set[EventKind]) -> None:
    """Who holds has to be told of BIND, UNBIND and FREE."""
    request = Subscribe(kinds=frozenset(kinds), hold=True)
    error = driver.refused(InvalidArgument, request, argument="kinds")
    assert f"kinds is {', '.join(sorted(kinds))};" in str(error)


def test_lag_is_shown_by_name_and_age(driver: Driver) -> None:
    """A subscriber that hangs shows up with its scope, what waits for it and for how long."""
    for by, scope in (("vtd", {}), ("kvm", {"sid": 0}), ("vdcm", {"token": "vm-1"})):
        driver.subscribe(by, **scope, queue_size=2, acknowledge_within=5)
    assert () == driver.figures().lagging
    driver.core.tick(100)
    driver.alloc()
    driver.core.tick(103.0)
    driver.alloc()
    driver.finish(1, "vtd")
    driver.core.tick(104.5)
    assert [False, False] == [each.overdue for each in driver.figures().lagging]
    driver.core.tick(105.5)
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
    driver.core.tick(10)
    for _ in range(3):
        driver.alloc()
    first = driver.messages(kvm)[0].seq
    driver.core.tick(20)
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
    driver.core.tick(20)
    driver.alloc()
    driver.core.tick(30)
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
    driver.core.tick(10)
    driver.alloc()
    driver.core.tick(13)
    driver.alloc()
    driver.alloc()
    first = driver.core.lagging()[0].oldest_seq
    driver.ask(SuspendSession(), by="kvm")
    driver.core.tick(15)
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


def test_never_overdue(driver: Driver) -> None:
    """A subscriber without a deadline may take for ever."""
    driver.subscribe("kvm", sid=0, acknowledge_within=None)
    driver.alloc()
    driver.core.tick(1e9)
    assert [False] == [each.overdue for each in driver.core.lagging()]
