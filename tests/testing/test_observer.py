"""Subscribers as the invariants see them: what they object to."""

import pytest

from ioasid.core import (
    Allocator,
    AllocSet,
    Deliver,
    Event,
    EventKind,
    IoasidState,
    LiveIoasid,
    Priority,
    Resync,
    Subscribe,
    Withdraw,
)
from ioasid.testing import InvariantViolated
from ioasid.testing._observer import Observer, Observers

BINDINGS = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


def event(seq: int, kind: EventKind, spid: int | None = None, ioasid: int = 1) -> Event:
    """An event of set 0."""
    return Event(seq, kind, ioasid, 0, spid=spid)


def told(*events: Event, terms: Subscribe | None = None) -> Observer:
    """A subscriber that has taken and acknowledged events."""
    observer = Observer(1, "kvm", Subscribe() if terms is None else terms)
    for each in events:
        observer.deliver(each)
        observer.take()
        observer.acknowledge(each.seq)
    return observer


def test_a_life_in_order() -> None:
    """ALLOC, BIND, UNBIND, BIND, FREE, RECLAIM, and another life, follow from each other."""
    kinds = ("ALLOC", "BIND", "UNBIND", "BIND", "FREE", "RECLAIM", "ALLOC")
    spids = {"BIND": 5, "UNBIND": 5, "FREE": 5}
    observer = told(
        *(event(seq, EventKind[kind], spids.get(kind)) for seq, kind in enumerate(kinds, start=1))
    )
    assert {1: frozenset({"unbound"})} == observer.known
    assert set() == observer.unacknowledged()


@pytest.mark.parametrize(
    "kinds",
    [
        ("BIND",),
        ("ALLOC", "ALLOC"),
        ("ALLOC", "UNBIND"),
        ("ALLOC", "BIND", "BIND"),
        ("ALLOC", "RECLAIM"),
        ("ALLOC", "FREE", "FREE"),
        ("ALLOC", "FREE", "BIND"),
        ("ALLOC", "FREE", "ALLOC"),
    ],
)
def test_what_does_not_follow(kinds: tuple[str, ...]) -> None:
    """An event that nothing before it leads to is a violation of invariant 5."""
    with pytest.raises(InvariantViolated) as caught:
        told(*(event(seq, EventKind[kind], 5) for seq, kind in enumerate(kinds, start=1)))
    assert 5 == caught.value.number


def test_twice_or_out_of_order() -> None:
    """An event that comes twice, or after a later one of its ID, is a violation."""
    observer = told(event(3, EventKind.ALLOC))
    for seq in (3, 2):
        observer.deliver(event(seq, EventKind.BIND, 5))
        with pytest.raises(InvariantViolated, match="come in order"):
            observer.take()


def test_hidden_kinds_are_allowed_for() -> None:
    """Who is told of some kinds only may find an ID in any state that the others lead to."""
    terms = Subscribe(kinds=frozenset((EventKind.BIND, EventKind.RECLAIM)))
    observer = told(event(1, EventKind.BIND, 5), event(4, EventKind.BIND, 6), terms=terms)
    assert {1: frozenset({"bound"})} == observer.known


def test_a_withdrawn_queue_has_to_be_replaced() -> None:
    """After a withdrawal, or a crash, the next message is a Resync and nothing else."""
    observer = told()
    for seq in (1, 2, 3):
        observer.deliver(event(seq, EventKind.ALLOC, ioasid=seq))
    observer.take()
    observer.withdraw(1)
    assert {1, 2, 3} == observer.unacknowledged()
    with pytest.raises(InvariantViolated):
        observer.deliver(event(4, EventKind.FREE))
    live = LiveIoasid(2, 0, None, IoasidState.ACTIVE, 9, None)
    observer.acknowledge(1)
    observer.hand = None
    observer.deliver(Resync(5, (live,)))
    observer.take()
    assert {2: frozenset({"bound"})} == observer.known
    observer.crash()
    assert {2, 3, 5} == observer.unacknowledged()


def test_a_wrong_withdrawal() -> None:
    """A withdrawal that keeps anything but what is in the subscriber's hands is a violation."""
    observer = told()
    observer.deliver(event(1, EventKind.ALLOC))
    with pytest.raises(InvariantViolated):
        observer.withdraw(None)


def test_what_is_taken_out_of_turn_is_learned_in_turn() -> None:
    """Who acknowledges the end of a life first knows what came before, and hears it once."""
    observer = told(event(1, EventKind.ALLOC))
    for each in (event(2, EventKind.BIND, 5), event(3, EventKind.FREE, 5)):
        observer.deliver(each)
    observer.take_out_of_turn(observer.queue[1])
    observer.acknowledge(3)
    assert {2} == observer.unacknowledged()
    observer.take()
    observer.acknowledge(2)
    assert {1: frozenset({"free pending"})} == observer.known
    observer.deliver(event(6, EventKind.BIND, 7))
    observer.deliver(event(7, EventKind.FREE, 7))
    with pytest.raises(InvariantViolated, match="come in order"):
        observer.take_out_of_turn(observer.queue[1])


def test_what_is_used_needs_a_reference() -> None:
    """A holding subscriber uses an ID from its BIND to the acknowledgement of its end."""
    terms = Subscribe(kinds=BINDINGS, hold=True)
    observer = Observer(1, "kvm", terms)
    observer.begin([1])
    for each in (event(1, EventKind.BIND, 5), event(2, EventKind.UNBIND, 5)):
        observer.deliver(each)
        observer.take()
        assert {1} == observer.programmed()
    observer.acknowledge(2)
    assert set() == observer.programmed()


def two_tiers() -> Observers:
    """A subscriber at CPU, number 1, and one at LAST, number 2, to everything."""
    core = Allocator(8)
    core.handle(core.session, AllocSet("vm-1", 4))
    observers = Observers(core)
    observers.present[1] = Observer(1, "cpu", Subscribe(priority=Priority.CPU))
    observers.present[2] = Observer(2, "last", Subscribe())
    for each in observers.present.values():
        each.begin([1])
    return observers


def test_an_event_ahead_of_a_higher_tier() -> None:
    """An event at a lower tier that a higher one has not acknowledged breaks invariant 6."""
    observers = two_tiers()
    bind = event(1, EventKind.BIND, 5)
    observers.carry_out([Deliver((1,), bind)])
    with pytest.raises(InvariantViolated) as caught:
        observers.carry_out([Deliver((2,), bind)])
    assert 6 == caught.value.number
    observers.present[1].take()
    observers.present[1].acknowledge(1)
    observers.present[1].hand = None
    observers.carry_out([Deliver((2,), bind)])


def test_a_resync_ahead_of_a_higher_tier() -> None:
    """A Resync that shows a binding a higher tier has not acknowledged breaks invariant 6."""
    observers = two_tiers()
    bind = event(1, EventKind.BIND, 5)
    observers.bound(bind)
    observers.carry_out([Deliver((1,), bind)])
    live = LiveIoasid(1, 0, "vm-1", IoasidState.ACTIVE, 5, None)
    with pytest.raises(InvariantViolated) as caught:
        observers.carry_out([Deliver((2,), Resync(2, (live,)))])
    assert 6 == caught.value.number


def test_withdrawals_reach_their_observer() -> None:
    """A withdrawal is carried out on its own subscriber."""
    observers = two_tiers()
    observers.carry_out([Deliver((1,), event(1, EventKind.BIND, 5)), Withdraw(1, 1)])
    assert observers.present[1].lags
    assert not observers.present[2].lags
