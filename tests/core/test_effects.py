"""The outbox: what is to be done comes out once, in order, and is harmless to carry out late."""

import pytest

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocSet,
    AskAgain,
    Begin,
    Complete,
    Deliver,
    Effect,
    End,
    Event,
    EventKind,
    Expel,
    Find,
    Free,
    FreeSet,
    Get,
    OpenSession,
    Put,
    Released,
    Resync,
    SessionOpened,
    Subscribe,
    UnknownIoasid,
    Unsubscribe,
    Waiting,
    Withdraw,
)
from tests.core.helpers import expect


@pytest.fixture
def core() -> Allocator:
    """An allocator with one set, number 0, that the host subscribes to as 1 with a queue of 1."""
    core = Allocator(16)
    core.handle(core.session, AllocSet("vm-1", 8))
    core.handle(core.session, Subscribe(sid=0, queue_size=1))
    return core


def opened(core: Allocator, name: str) -> int:
    """A session of another holder."""
    return expect(SessionOpened, core.handle(0, OpenSession(name))).session


def kinds(effects: list[Effect]) -> list[str]:
    """The effects in short."""
    return [
        effect.message.kind.value
        if isinstance(effect, Deliver) and isinstance(effect.message, Event)
        else type(effect.message if isinstance(effect, Deliver) else effect).__name__
        for effect in effects
    ]


def test_drained_once(core: Allocator) -> None:
    """What was drained does not come again, and the list is the caller's to keep."""
    core.handle(core.session, Alloc(0))
    drained = core.drain()
    event = Event(1, EventKind.ALLOC, 1, 0, "vm-1", generation=1)
    assert [Begin(1), Deliver((1,), event)] == drained
    assert [] == core.drain()
    core.handle(core.session, Alloc(0))
    assert 2 == len(drained)


def test_a_batch_is_drained_in_order(core: Allocator) -> None:
    """After several requests the effects are those of each, one after the other."""
    core.handle(core.session, Alloc(0))
    core.handle(core.session, Get(1))
    core.handle(core.session, Free(1))
    core.handle(core.session, Acknowledge(((1, 1),)))
    core.handle(core.session, Acknowledge(((1, 2),)))
    core.handle(core.session, Put(1))
    assert ["Begin", "ALLOC", "FREE", "RECLAIM"] == kinds(core.drain())


def test_a_refused_request_has_no_effects(core: Allocator) -> None:
    """Between the effects of others, a refused request leaves none."""
    core.handle(core.session, Alloc(0))
    with pytest.raises(UnknownIoasid):
        core.handle(core.session, Find(5))
    assert ["Begin", "ALLOC"] == kinds(core.drain())


def test_withdraw_comes_between(core: Allocator) -> None:
    """What is withdrawn was delivered before, and the Resync for it comes after."""
    for _ in range(4):
        core.handle(core.session, Alloc(0))
    core.handle(core.session, Acknowledge(((1, 1),)))
    effects = core.drain()
    assert ["Begin", "ALLOC", "ALLOC", "Withdraw", "Resync"] == kinds(effects)
    assert Withdraw(1, 1) == effects[3]
    assert isinstance(effects[4], Deliver)
    assert isinstance(effects[4].message, Resync)
    assert [1, 2, 3, 4] == [each.ioasid for each in effects[4].message]


@pytest.mark.parametrize("drained", [True, False])
def test_end_is_the_last(core: Allocator, drained: bool) -> None:
    """A subscription's end comes after everything it was given."""
    core.handle(core.session, FreeSet(0) if drained else Unsubscribe(1))
    assert [Begin(1), End(1, drained)] == core.drain()


def test_complete_comes_after_the_reclaim(core: Allocator) -> None:
    """Who waits is answered when the subscribers' messages are out."""
    other = opened(core, "kvm")
    core.handle(core.session, Alloc(0))
    core.handle(other, Get(1))
    assert Waiting(1) == core.handle(opened(core, "vfio"), Free(1, wait=True))
    core.handle(core.session, Acknowledge(((1, 1),)))
    core.handle(core.session, Acknowledge(((1, 2),)))
    core.drain()
    core.handle(other, Put(1))
    effects = core.drain()
    assert ["RECLAIM", "Complete"] == kinds(effects)
    assert Complete(1, Released(True)) == effects[1]


@pytest.mark.parametrize(
    "effect",
    [
        Deliver((1,), Event(1, EventKind.ALLOC, 1, 0, "vm-1")),
        Begin(1),
        Withdraw(1, None),
        End(1, True),
        Complete(9, Released(True)),
        AskAgain(9),
        Expel(2),
    ],
)
def test_effects_are_frozen(effect: Effect) -> None:
    """Who carries an effect out can't change it for whoever looks at it next."""
    with pytest.raises(AttributeError, match="immutable"):
        setattr(effect, effect.__struct_fields__[0], 2)
