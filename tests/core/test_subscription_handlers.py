"""Subscriptions: what a subscriber may ask for, and what is known of one that lags."""

import pytest
from hypothesis import given
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Allocator,
    AlreadySubscribed,
    Begin,
    Defer,
    Deliver,
    Detach,
    Done,
    Effect,
    Event,
    EventKind,
    Evict,
    Explain,
    Explanation,
    Free,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidState,
    Put,
    Resync,
    Subscribe,
    Subscribed,
    SuspendSession,
    Tick,
    UnknownIoasid,
    UnknownSet,
    UnknownSubscription,
    Unsubscribe,
)
from tests.core.helpers import (
    BIND,
    BINDING,
    CPU,
    DEVICE,
    FREE,
    UNBIND,
    Driver,
    expect,
    state,
)
from tests.core.play import SETTINGS, Owed, Play, Step, steps
from tests.core.strategies import CAPACITY

pytestmark = pytest.mark.usefixtures("two_sets")


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("scope", [{}, {"sid": 0}, {"token": "vm-1"}])
def test_who_joins_between_the_tiers_is_told_at_once(
    driver: Driver, scope: dict[str, object], replay: bool
) -> None:
    """An event that nobody had yet to be offered goes on to who joins below, in that very step."""
    cpu = driver.subscribe("cpu", kinds=frozenset((BIND, FREE)), priority=CPU)
    ioasid = driver.bound()
    driver.ask(Get(ioasid))
    driver.ask(Defer(cpu, driver.last(cpu).seq), "cpu")
    driver.free(ioasid)
    driver.acknowledge(cpu, driver.last(cpu).seq, "cpu")
    late = driver.subscribe("late", kinds=frozenset((FREE,)), replay=replay, **scope)
    if replay:
        (shown,) = list(driver.resync(late))
        assert (ioasid, IoasidState.FREE_PENDING) == (shown.ioasid, shown.state)
    else:
        assert [("FREE", ioasid)] == driver.shown(late)
    snapshot = driver.core.snapshot()
    assert snapshot == Allocator.restore(snapshot).snapshot()
    driver.ask(Put(ioasid))
    driver.finish(late, "late")
    driver.refused(UnknownIoasid, Free(ioasid))


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
    for request in (Unsubscribe(number), Detach(number), Defer(number, 1)):
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


def test_nothing_waits_for_who_is_not_awaited(driver: Driver) -> None:
    """It is told in its tier, keeps no tier and no ID, is not named, and is never overdue."""
    kvm = driver.subscribe("kvm", priority=CPU)
    top = driver.subscribe("top", priority=CPU, awaited=False, queue_size=1)
    log = driver.subscribe("log", awaited=False)
    ioasid = driver.alloc()
    driver.free(ioasid)
    # Not before who is above it is done, as everybody.
    assert [["ALLOC", "FREE"], ["ALLOC"]] == [
        [kind for kind, _ in driver.shown(each)] for each in (top, log)
    ]
    why = expect(Explanation, driver.ask(Explain(ioasid)))
    assert ("kvm",) == why.blockers
    assert [()] == [each.then for each in why.events]
    driver.finish(kvm, "kvm")
    assert ["ALLOC", "FREE", "RECLAIM"] == [kind for kind, _ in driver.shown(log)]
    driver.refused(UnknownIoasid, Explain(ioasid), ioasid=ioasid)
    driver.finish(top, "top")
    expect(Resync, driver.messages(top)[-1])
    driver.core.handle(0, Tick(1000.0))
    driver.alloc()
    driver.core.handle(0, Tick(2000.0))
    overdue = {each.holder: each.overdue for each in driver.figures().lagging}
    assert {"kvm": True, "top": False, "log": False} == overdue


def test_who_is_not_awaited_can_wait(driver: Driver) -> None:
    """Waiting for a reclaim of which it is told, it does not wait for itself."""
    driver.subscribe("kvm", awaited=False)
    driver.ask(Free(driver.alloc(), wait=True), "kvm")


def test_who_holds_is_awaited(driver: Driver) -> None:
    """What is held is there until it is acknowledged."""
    driver.refused(InvalidArgument, Subscribe(hold=True, awaited=False), argument="awaited")


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
    assert 1 == len(list(driver.resync(kvm)))
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
    before = state(driver.core)
    for seq in (0, driver.last(kvm).seq + 1, 2**64 - 1):
        driver.acknowledge(kvm, seq, "kvm")
        assert Done() == driver.ask(Defer(kvm, seq), "kvm")
    assert before == state(driver.core)
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
    for request in (Acknowledge(((kvm, seq),)), Defer(kvm, seq), Detach(kvm)):
        driver.refused(UnknownSubscription, request, "vtd", subscription=kvm)


def test_acknowledging_for_a_subscription_that_ended_is_ignored(driver: Driver) -> None:
    """What crossed with the end of a subscription does no harm to the others it came with."""
    gone = driver.subscribe("kvm", sid=1)
    kvm = driver.subscribe("kvm", sid=0)
    driver.alloc(1)
    driver.alloc(0)
    driver.ask(Unsubscribe(gone), "kvm")
    messages = ((gone, 1), (kvm, driver.last(kvm).seq), (gone, 2**64 - 1))
    assert Done() == driver.ask(Acknowledge(messages), "kvm")
    assert () == driver.core.lagging()


@pytest.mark.parametrize("number", [0, 99, 2**64 - 1])
def test_acknowledging_for_what_never_was_refuses_all(driver: Driver, number: int) -> None:
    """ENOENT: a number that was never given, whatever else is acknowledged with it."""
    kvm = driver.subscribe("kvm", sid=0)
    driver.alloc()
    messages = ((kvm, driver.last(kvm).seq), (number, 1))
    driver.refused(UnknownSubscription, Acknowledge(messages), "kvm", subscription=number)
    assert ["kvm"] == [each.holder for each in driver.core.lagging()]


def roomy(step: Step) -> Step:
    """A step in which nobody's queue is too small for what comes."""
    if isinstance(step, tuple) and isinstance(step[1], Subscribe):
        return step[0], replace(step[1], queue_size=1024, replay=False)
    return step


def told_of_each_id(effects: list[Effect]) -> dict[tuple[int, int], list[Event]]:
    """The events that each subscription was given of each ID, without their numbers."""
    found: dict[tuple[int, int], list[Event]] = {}
    for effect in effects:
        if isinstance(effect, Deliver) and isinstance(effect.message, Event):
            event = replace(effect.message, seq=0)
            for number in effect.subscriptions:
                found.setdefault((number, event.ioasid), []).append(event)
    return found


@SETTINGS
@given(steps)
def test_many_at_once_are_as_good_as_one_by_one(history: list[Step]) -> None:
    """One `Acknowledge` of many leads where one each leads; only IDs may take turns otherwise."""
    play = Play()
    play.begin()
    for step in map(roomy, history):
        if not isinstance(step, Owed):
            if not isinstance(step[1], SuspendSession):
                play.ask(*step)
            continue
        asked = play.owed(step)
        if asked is None:
            continue
        name, request = asked
        one_by_one = Play(Allocator.restore(play.core.snapshot()))
        play.core.drain()
        play.ask(name, request)
        for message in request.messages:
            one_by_one.ask(name, Acknowledge((message,)))
        assert told_of_each_id(one_by_one.core.drain()) == told_of_each_id(play.core.drain())
        for ioasid in range(CAPACITY):
            assert one_by_one.core.record(ioasid) == play.core.record(ioasid)
        ours, theirs = play.core.snapshot(), one_by_one.core.snapshot()
        assert (theirs.seq, theirs.sets, theirs.holders) == (ours.seq, ours.sets, ours.holders)
        assert ours.index + len(request.messages) - 1 == theirs.index


@SETTINGS
@given(steps)
def test_those_of_all_at_once_are_as_good_as_of_each(history: list[Step]) -> None:
    """One `Acknowledge` of the driver for all holders leads where one each of theirs leads."""
    play = Play()
    play.begin()
    for step in map(roomy, history):
        if not isinstance(step, Owed):
            if not isinstance(step[1], SuspendSession):
                play.ask(*step)
            continue
        owed = [
            (each.holder, (each.number, offer.seq))
            for each in play.core.snapshot().subscriptions
            for offer in each.outstanding
        ]
        if not owed:
            continue
        chosen = [owed[which % len(owed)] for which in step.which]
        one_by_one = Play(Allocator.restore(play.core.snapshot()))
        play.core.drain()
        at_once = Acknowledge(tuple(message for _, message in chosen))
        assert Done() == play.core.handle(0, at_once)
        for name, message in chosen:
            one_by_one.ask(name, Acknowledge((message,)))
        assert told_of_each_id(one_by_one.core.drain()) == told_of_each_id(play.core.drain())
        for ioasid in range(CAPACITY):
            assert one_by_one.core.record(ioasid) == play.core.record(ioasid)
        ours, theirs = play.core.snapshot(), one_by_one.core.snapshot()
        assert (theirs.seq, theirs.sets, theirs.holders) == (ours.seq, ours.sets, ours.holders)
        assert ours.index + len(chosen) - 1 == theirs.index


def test_the_driver_acknowledges_for_all(driver: Driver) -> None:
    """What was never given is refused, with all that it came with; what ended is left out."""
    kvm = driver.subscribe("kvm", sid=0)
    vtd = driver.subscribe("vtd")
    gone = driver.subscribe("dsa")
    driver.alloc()
    driver.ask(Unsubscribe(gone), "dsa")
    seq = driver.last(kvm).seq
    with pytest.raises(UnknownSubscription):
        driver.core.handle(0, Acknowledge(((kvm, seq), (99, seq))))
    assert ["kvm", "vtd"] == [each.holder for each in driver.core.lagging()]
    assert Done() == driver.core.handle(0, Acknowledge(((kvm, seq), (gone, seq), (vtd, seq))))
    assert () == driver.core.lagging()


def test_acknowledging_nothing(driver: Driver) -> None:
    """No messages are as good as some."""
    before = state(driver.core)
    assert Done() == driver.ask(Acknowledge(()), "kvm")
    driver.ask(Evict("kvm"))
    assert before.holders == driver.core.snapshot().holders


def test_a_subscription_begins_before_its_first_message(driver: Driver) -> None:
    """`Begin` comes first, also where a Resync comes with it, and again after a crash."""
    kvm = driver.subscribe("kvm", sid=0, hold=True, replay=True)
    driver.crash("kvm")
    driver.come_back("kvm")
    driver.ask(Subscribe(sid=0, hold=True), "kvm")
    names = [type(each).__name__ for each in driver.effects]
    assert ["Begin", "Deliver", "End", "Begin", "Deliver"] == names
    assert [Begin(kvm), Begin(kvm)] == [each for each in driver.effects if type(each) is Begin]


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
