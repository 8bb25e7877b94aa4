"""Explaining: who keeps an ID from the pool, where what it has to acknowledge is, and since when.

In random histories, those that are named bring the ID back, and nobody is named for nothing.
"""

import random
import sys
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Abandon,
    ActivateSet,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AttachSpid,
    Awaited,
    Coming,
    Defer,
    DetachSpid,
    EventInFlight,
    Explain,
    Explanation,
    ExportSet,
    Free,
    FreeSet,
    FreezeSet,
    Get,
    HeldReferences,
    ImportSet,
    IoasidState,
    Notify,
    Place,
    Put,
    Request,
    SetExport,
    SuspendSession,
    ThawSet,
    Tick,
    UnknownIoasid,
    Waiting,
    decode_snapshot,
    encode,
)
from tests.core.helpers import BIND, CPU, DEVICE, FREE, IOMMU, LAST, UNBIND, Driver, expect
from tests.core.invariants import check_state
from tests.core.play import Owed, Play
from tests.core.resolving import Resolver
from tests.core.strategies import HOLDERS
from tests.core.test_histories import History

BINDING = frozenset((BIND, UNBIND, FREE))


def at(driver: Driver, now: float) -> None:
    """Tell the time."""
    driver.core.handle(0, Tick(now))


def explain(driver: Driver, ioasid: int = 1) -> Explanation:
    """The explanation of an ID."""
    return expect(Explanation, driver.ask(Explain(ioasid)))


def awaited(explanation: Explanation) -> list[tuple[str, str, Place, int | None, float]]:
    """Whom an ID waits for: for which event, where it is, and for how long."""
    return [
        (each.holder, event.kind.value, each.place, each.seq, each.age)
        for event in explanation.events
        for each in event.waits_for
    ]


def test_in_the_pool(driver: Driver) -> None:
    """ENOENT: an ID that was never allocated, one that is back, and one that can't be."""
    driver.set()
    driver.refused(UnknownIoasid, Explain(1), ioasid=1)
    driver.free(driver.alloc())
    driver.refused(UnknownIoasid, Explain(1), ioasid=1)
    driver.refused(UnknownIoasid, Explain(2**32 - 2))


def test_plain(driver: Driver) -> None:
    """Of an ID that is in use there is its owner to name, and nobody blocks what nobody asked."""
    driver.set("vm-1")
    driver.set(None, 4)
    driver.alloc(1)
    found = explain(driver)
    assert Explanation(1, 1, None, None, IoasidState.ACTIVE, None, (), (), 0) == found
    assert () == found.blockers


def test_references(driver: Driver) -> None:
    """Who took references is named, with how many and whether it crashed, until it puts them."""
    driver.set()
    driver.alloc()
    for name in ("vtd", "vtd", "vdcm"):
        driver.ask(Get(1), name)
    assert () == explain(driver).blockers
    at(driver, 10.0)
    driver.free(1)
    at(driver, 12.5)
    driver.crash("vdcm")
    found = explain(driver)
    assert (
        HeldReferences("vdcm", True, 1, 0, ()),
        HeldReferences("vtd", False, 2, 0, ()),
    ) == found.references
    assert (2.5, IoasidState.FREE_PENDING) == (found.age, found.state)
    assert ("vdcm", "vtd") == found.blockers
    driver.come_back("vdcm")
    driver.ask(Put(1), "vdcm")
    driver.ask(Put(1), "vtd")
    assert (HeldReferences("vtd", False, 1, 0, ()),) == explain(driver).references


def test_tiers(driver: Driver) -> None:
    """An event shows the tier that it reached, whom it waits for there, and who comes then."""
    driver.set()
    kvm = driver.subscribe("kvm", token="vm-1", priority=CPU, kinds=frozenset((FREE,)))
    vdcm = driver.subscribe("vdcm", priority=DEVICE, kinds=frozenset((FREE,)))
    vtd = driver.subscribe("vtd", priority=IOMMU, kinds=frozenset((FREE,)))
    driver.alloc()
    at(driver, 1.0)
    driver.free(1)
    at(driver, 2.0)
    seq = driver.last(kvm).seq
    then = (Coming(DEVICE, (("vdcm", vdcm),)), Coming(IOMMU, (("vtd", vtd),)))
    waits = Awaited("kvm", kvm, CPU, Place.IN_HANDS, seq, 1.0)
    found = explain(driver)
    assert (EventInFlight(seq, FREE, None, CPU, (waits,), then),) == found.events
    assert ("kvm",) == found.blockers
    driver.acknowledge(kvm, seq, "kvm")
    at(driver, 5.0)
    waits = Awaited("vdcm", vdcm, DEVICE, Place.IN_HANDS, seq, 3.0)
    found = explain(driver)
    assert (EventInFlight(seq, FREE, None, DEVICE, (waits,), then[1:]),) == found.events
    assert ("vdcm",) == found.blockers
    assert 4.0 == found.age


def test_places(driver: Driver) -> None:
    """What is awaited is in somebody's hands, its queue, set aside, folded, or left by a crash."""
    driver.set()
    driver.alloc()
    driver.alloc()
    subscription = driver.subscribe("vtd", hold=True, queue_size=2, kinds=BINDING)
    at(driver, 1.0)
    driver.free(1)
    driver.free(2)
    first, second = (each.seq for each in driver.messages(subscription))
    at(driver, 2.0)
    assert [("vtd", "FREE", Place.IN_HANDS, first, 1.0)] == awaited(explain(driver, 1))
    assert [("vtd", "FREE", Place.QUEUED, second, 1.0)] == awaited(explain(driver, 2))
    driver.ask(Defer(subscription, first), "vtd")
    at(driver, 5.0)
    assert [("vtd", "FREE", Place.DEFERRED, first, 3.0)] == awaited(explain(driver, 1))
    assert [("vtd", "FREE", Place.IN_HANDS, second, 4.0)] == awaited(explain(driver, 2))
    for ioasid in (3, 4):
        driver.alloc()
        driver.free(ioasid)
    assert [("vtd", "FREE", Place.FOLDED, None, 0.0)] == awaited(explain(driver, 4))
    driver.acknowledge(subscription, second, "vtd")
    resync = driver.resync(subscription).seq
    at(driver, 6.0)
    assert [("vtd", "FREE", Place.IN_HANDS, resync, 1.0)] == awaited(explain(driver, 4))
    driver.ask(Defer(subscription, resync), "vtd")
    assert [("vtd", "FREE", Place.DEFERRED, resync, 0.0)] == awaited(explain(driver, 4))
    driver.crash("vtd")
    assert [("vtd", "FREE", Place.SUSPENDED, None, 5.0)] == awaited(explain(driver, 1))
    assert [("vtd", "FREE", Place.SUSPENDED, None, 1.0)] == awaited(explain(driver, 4))


def test_several_events(driver: Driver) -> None:
    """A FREE behind a BIND has reached nobody, and shows who it is for."""
    driver.set()
    kvm = driver.subscribe("kvm", priority=CPU, kinds=BINDING)
    vtd = driver.subscribe("vtd", priority=IOMMU, kinds=BINDING)
    driver.bound()
    driver.free(1)
    bind, free = explain(driver).events
    assert (BIND, CPU, (Coming(IOMMU, (("vtd", vtd),)),)) == (bind.kind, bind.reached, bind.then)
    assert ["kvm"] == [each.holder for each in bind.waits_for]
    assert (FREE, None, ()) == (free.kind, free.reached, free.waits_for)
    assert (Coming(CPU, (("kvm", kvm),)), Coming(IOMMU, (("vtd", vtd),))) == free.then


def test_who_holds_nothing_up_is_not_named(driver: Driver) -> None:
    """Who has yet to acknowledge an earlier event that all were told of does not keep the ID."""
    driver.set()
    driver.subscribe("kvm", kinds=frozenset((BIND,)))
    vtd = driver.subscribe("vtd", kinds=frozenset((FREE,)))
    driver.bound()
    assert ["kvm"] == [each[0] for each in awaited(explain(driver))]
    driver.free(1)
    found = explain(driver)
    assert [("vtd", "FREE", Place.IN_HANDS, driver.last(vtd).seq, 0.0)] == awaited(found)
    assert ("vtd",) == found.blockers
    driver.acknowledge(vtd, driver.last(vtd).seq, "vtd")
    driver.refused(UnknownIoasid, Explain(1))


def test_grants(driver: Driver) -> None:
    """What was granted names the message whose acknowledgement ends it, as soon as there is one."""
    driver.set()
    kvm = driver.subscribe("kvm", priority=CPU, hold=True, kinds=BINDING)
    vtd = driver.subscribe("vtd", priority=IOMMU, hold=True, kinds=BINDING)
    driver.bound()
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    granted = [HeldReferences(name, False, 0, 1, ()) for name in ("kvm", "vtd")]
    assert granted == list(explain(driver).references)
    driver.finish(vtd, "vtd")
    driver.free(1)
    seq = driver.last(kvm).seq
    end = Awaited("kvm", kvm, CPU, Place.IN_HANDS, seq, 0.0)
    found = explain(driver)
    assert (HeldReferences("kvm", False, 0, 1, (end,)), granted[1]) == found.references
    assert ("kvm",) == found.blockers
    driver.acknowledge(kvm, seq, "kvm")
    end = Awaited("vtd", vtd, IOMMU, Place.IN_HANDS, seq, 0.0)
    assert (HeldReferences("vtd", False, 0, 1, (end,)),) == explain(driver).references


@pytest.mark.parametrize("crashed", [False, True])
def test_grants_of_bindings_that_are_over(driver: Driver, crashed: bool) -> None:
    """A grant is explained when its BIND and UNBIND have cancelled out for everybody else, too."""
    driver.set()
    kvm = driver.subscribe("kvm", hold=True, kinds=BINDING)
    at(driver, 1.0)
    driver.bound()
    bind = driver.last(kvm).seq
    driver.unbind(1)
    if crashed:
        driver.crash("kvm")
    driver.ask(Get(1))
    at(driver, 4.0)
    (host, held) = explain(driver).references
    assert ("host", ()) == (host.holder, host.ends)
    place = Place.SUSPENDED if crashed else Place.QUEUED
    seq = None if crashed else bind + 1
    assert (Awaited("kvm", kvm, LAST, place, seq, 3.0),) == held.ends
    assert 1 == held.granted


def test_a_resync_ends_several_grants(driver: Driver) -> None:
    """Grants that one Resync ends are one message to acknowledge."""
    driver.set()
    kvm = driver.subscribe("kvm", hold=True, kinds=BINDING, queue_size=2)
    driver.bound()
    for spid in (5, 6, 7):
        driver.unbind(1)
        driver.bind(1, spid)
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    driver.free(1)
    resync = driver.messages(kvm)[-2].seq
    (held,) = explain(driver).references
    assert 3 == held.granted
    assert [(Place.IN_HANDS, resync), (Place.QUEUED, resync + 1)] == [
        (each.place, each.seq) for each in held.ends
    ]


def test_two_subscriptions_of_one_holder(driver: Driver) -> None:
    """Each is named for what it was granted, also when both have crashed."""
    driver.set()
    first = driver.subscribe("kvm", hold=True, kinds=BINDING)
    driver.bound()
    second = driver.subscribe("kvm", token="vm-1", hold=True, kinds=BINDING)
    driver.unbind(1)
    driver.crash("kvm")
    driver.ask(Get(1))
    driver.free(1)
    held = explain(driver).references[1]
    assert ("kvm", 1) == (held.holder, held.granted)
    assert [first] == [each.subscription for each in held.ends]
    assert [first, second] == [
        each.subscription for event in explain(driver).events for each in event.waits_for
    ]


def test_waiting_requests(driver: Driver) -> None:
    """Requests that wait for the reclaim are counted, until somebody gives up."""
    driver.set()
    driver.alloc()
    driver.ask(Get(1), "vtd")
    tickets = [expect(Waiting, driver.ask(Free(1, wait=True))).ticket for _ in range(2)]
    assert 2 == explain(driver).waiting
    driver.core.handle(0, Abandon(tickets[0]))
    assert 1 == explain(driver).waiting


def test_publishers(driver: Driver) -> None:
    """A publisher's own event is shown as such."""
    driver.set()
    driver.subscribe("kvm", priority=CPU)
    driver.subscribe("vtd", priority=IOMMU)
    driver.alloc()
    driver.ask(Notify(1, BIND), "vfio")
    (event,) = explain(driver).events
    assert (BIND, "vfio", CPU) == (event.kind, event.publisher, event.reached)
    driver.free(1)
    assert ("kvm",) == explain(driver).blockers


def test_to_explain_changes_nothing(driver: Driver) -> None:
    """It is a look-up: the state and the count of requests that were carried out stay."""
    driver.set()
    driver.subscribe("kvm", hold=True)
    driver.bound()
    driver.free(1)
    before = driver.core.snapshot()
    explain(driver)
    assert before == driver.core.snapshot()
    assert [] == driver.core.drain()


def test_the_cost_does_not_grow_with_the_ids() -> None:
    """Explaining one ID, granted and referenced, calls nothing more often with 5,000 others."""
    driver = Driver(1 << 14)
    driver.set(quota=1 << 13)
    driver.subscribe("vtd", priority=IOMMU, hold=True, kinds=BINDING)
    driver.subscribe("kvm", token="vm-1", priority=CPU, hold=True, kinds=BINDING)
    driver.ask(Get(driver.bound()), "vtd")
    driver.free(1)
    few = calls(lambda: driver.core.handle(driver.core.session, Explain(1)))
    driver.core.handle(driver.core.session, AllocMany(0, 5000))
    for ioasid in range(2, 1002):
        driver.core.handle(driver.core.session, AttachSpid(ioasid, 1000 + ioasid))
    assert few == calls(lambda: driver.core.handle(driver.core.session, Explain(1)))


def calls(what: Callable[[], object]) -> int:
    """How many calls, of C functions and steps of generators too, something takes."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        what()
    finally:
        sys.setprofile(None)
    return count


# -- in random histories ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 40, 10))
def test_the_named_and_nobody_else(first: int) -> None:
    """Every quarantined ID has a blocker; the named bring it back, and without one it never is."""
    for seed in range(first, first + 10):
        history = History(seed)
        choose = random.Random(seed)
        for step in range(150):
            history.step()
            if step % 15 == 14:
                look_at_all(history.core, choose)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 12, 3))
def test_the_named_while_sets_move(first: int) -> None:
    """The same where sets are frozen, thawed, exported and imported; and every state restores."""
    for seed in range(first, first + 3):
        choose = random.Random(seed)
        play = Play(Allocator(16))
        play.begin()
        exports: list[SetExport] = []
        for step in range(300):
            name = choose.choice(HOLDERS)
            answer = play.ask(name, a_move(play.core, choose, exports))
            if isinstance(answer, SetExport):
                exports.append(answer)
            owed = play.owed(Owed(choose.randrange(9), [choose.randrange(9)]))
            if owed is not None and choose.random() < 0.3:
                play.ask(*owed)
            check_state(play.core)
            if step % 30 == 29:
                snapshot = play.core.snapshot()
                assert snapshot == Allocator.restore(decode_snapshot(encode(snapshot))).snapshot()
                look_at_all(play.core, choose)


def a_move(core: Allocator, choose: random.Random, exports: list[SetExport]) -> Request:
    """A request of those that concern an ID, most often, or a set on its way."""
    ioasid = choose.randrange(1, 14)
    sid = choose.choice([each.sid for each in core.snapshot().sets] or [0])
    requests: list[tuple[int, Request]] = [
        (10, Alloc(sid)),
        (6, Free(ioasid)),
        (14, AttachSpid(ioasid, choose.randrange(6))),
        (8, DetachSpid(ioasid)),
        (6, Get(ioasid)),
        (6, Put(ioasid)),
        (4, FreezeSet(sid, False)),
        (4, ThawSet(sid)),
        (3, ExportSet(sid)),
        (3, ActivateSet(sid)),
        (1, SuspendSession()),
        (1, FreeSet(sid, choose.random() < 0.7)),
        (1, AllocSet(choose.choice("abc"), choose.randrange(1, 5))),
        (2, Notify(ioasid, choose.choice((BIND, UNBIND, FREE)))),
    ]
    if exports:
        export = replace(choose.choice(exports), token=choose.choice("de"))
        requests.append((3, ImportSet(export)))
    weights = [weight for weight, _ in requests]
    return choose.choices([request for _, request in requests], weights)[0]


def look_at_all(core: Allocator, choose: random.Random) -> None:
    """Explain every quarantined ID, and let those that are named act, or all others."""
    state = core.snapshot()
    for ioasid in [ioasid for owner in state.sets for ioasid in owner.freed]:
        found = Resolver(Allocator.restore(state)).explain(ioasid)
        assert found is not None
        assert found.blockers
        # Whoever is told of the FREE later has to acknowledge it, too.
        later = {
            holder
            for event in found.events
            if event.kind is FREE and event.publisher is None
            for tier in event.then
            for holder, _ in tier.subscribers
        }
        for name in sorted({*found.blockers, *later}):
            others = Resolver(Allocator.restore(state))
            others.everybody_else(name)
            left = others.explain(ioasid)
            assert left is not None, f"{name} blocks nothing: {found}"
            assert (name,) == left.blockers
        Resolver(Allocator.restore(state), lambda: choose.random() < 0.5).resolve(ioasid)
