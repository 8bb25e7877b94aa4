"""Parts: what concerns many IDs is done a part at a time, with others served between."""

from collections.abc import Iterable, Iterator
from random import Random

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Abandon,
    Acknowledge,
    ActivateSet,
    Alloc,
    Allocated,
    Allocator,
    AllocMany,
    AllocSet,
    Answer,
    AskAgain,
    AttachData,
    AttachSpid,
    CloseSession,
    Complete,
    Continue,
    Deliver,
    DetachSpid,
    Done,
    Effect,
    Event,
    EventKind,
    Evict,
    Explain,
    Explanation,
    ExportedIoasid,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    Free,
    FreeMany,
    FreeSet,
    FreezeSet,
    Frozen,
    Get,
    Imported,
    ImportSet,
    InvalidArgument,
    IoasidError,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Listing,
    ListSet,
    MalformedMessage,
    Notify,
    OpenSession,
    Place,
    Priority,
    Put,
    RangeTaken,
    Released,
    Request,
    ReserveRange,
    SessionEnded,
    SessionOpened,
    SetExport,
    SetFreePending,
    SetFrozen,
    SetNotFrozen,
    SetRecord,
    SetState,
    SnapshotImporting,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    ThawSet,
    TokenInUse,
    TokenType,
    TooManyEvents,
    UnknownHolder,
    UnknownIoasid,
    UnknownSubscription,
    Unsubscribe,
    Waiting,
    decode_snapshot,
    encode,
)
from ioasid.testing import CheckedAllocator
from tests.core.helpers import BINDING, CPU, Driver, expect, state
from tests.core.invariants import check_state, nothing_leaks

PART = 10
COUNT = 64
IOASIDS = range(1000, 1000 + COUNT)
"""IDs of the set: the parts are many, and the words of the ID space two."""


@pytest.fixture
def driver() -> Driver:
    """An allocator that deals with few IDs at once, with a set of 64 at the border of two words."""
    driver = Driver(4096)
    driver.core = Allocator(4096, part=PART)
    driver.sessions = {"host": driver.core.session}
    driver.set("vm-1", 4000)
    driver.ask(AllocMany(0, COUNT, 1000))
    return driver


def go_on(driver: Driver) -> None:
    """Let one part be done, as whoever drives the allocator does; a restored one does the same."""
    core = driver.core
    again = Allocator.restore(decode_snapshot(encode(core.snapshot())))
    assert core.snapshot() == again.snapshot()
    assert Done() == core.handle(0, Continue()) == again.handle(0, Continue())
    # Who waits for an answer is no part of a snapshot.
    effects = [each for each in again.drain() if not isinstance(each, Complete | AskAgain)]
    done = len(driver.effects)
    driver.collect()
    assert effects == [
        each for each in driver.effects[done:] if not isinstance(each, Complete | AskAgain)
    ]
    assert core.snapshot() == again.snapshot()


def every(ranges: Iterable[IoasidRange]) -> Iterator[int]:
    """The IDs in ranges."""
    for each in ranges:
        yield from range(each.first, each.last + 1)


def finish(driver: Driver) -> int:
    """Let all parts be done; returns how many there were."""
    parts = 0
    while driver.core.has_work:
        go_on(driver)
        parts += 1
        assert parts < 1000
    return parts


def bind_all(driver: Driver) -> None:
    """Bind every ID of the set."""
    for ioasid in IOASIDS:
        driver.bind(ioasid, ioasid)


def freeze(driver: Driver) -> None:
    """Freeze the set, all parts of it."""
    ticket = expect(Waiting, driver.ask(FreezeSet(0))).ticket
    finish(driver)
    assert (ticket, Frozen(0, True)) == driver.completed()[-1]


def bound(driver: Driver) -> list[int]:
    """The IDs of the set that are bound."""
    listing = expect(Listing, driver.ask(ListSet(0)))
    return [each.ioasid for each in listing if each.spid is not None]


def pending(driver: Driver) -> list[int]:
    """The IDs in quarantine."""
    listing = expect(Listing, driver.ask(ListSet(0)))
    return [each.ioasid for each in listing if each.state is IoasidState.FREE_PENDING]


def left(driver: Driver) -> list[int]:
    """The IDs of the set."""
    return [each.ioasid for each in expect(Listing, driver.ask(ListSet(0)))]


# -- freeing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("destroy", [True, False])
def test_a_set_is_freed_in_parts(driver: Driver, destroy: bool) -> None:
    """Lowest IDs first, others served between, and the answer when all of them are freed."""
    bind_all(driver)
    ticket = expect(Waiting, driver.ask(FreeSet(0, destroy))).ticket
    assert list(IOASIDS)[-len(left(driver)) :] == left(driver)
    assert COUNT // 2 < len(left(driver))
    assert [] == driver.completed()
    other = driver.set("vm-2", 8)
    assert driver.alloc(other) in range(1, 1000)
    assert 3 < finish(driver) < COUNT
    assert [(ticket, Released(True))] == driver.completed()
    assert destroy == (0 not in [each.sid for each in driver.core.snapshot().sets])


@pytest.mark.parametrize("destroy", [True, False])
def test_a_frozen_set_is_freed_in_parts(driver: Driver, destroy: bool) -> None:
    """Nothing of it begins again, unless it is not destroyed and thawed before it is freed."""
    bind_all(driver)
    freeze(driver)
    ticket = expect(Waiting, driver.ask(FreeSet(0, destroy))).ticket
    expected: list[tuple[int, Answer]] = [(ticket, Released(True))]
    remain = [each for each in left(driver) if each in IOASIDS]
    assert COUNT // 2 < len(remain)
    if destroy:
        driver.refused(SetFreePending, ThawSet(0), sid=0)
        driver.refused(SetFreePending, AttachSpid(remain[-1], 9), sid=0)
        driver.refused(SetFreePending, FindBySpid(0, remain[-1], get=True), sid=0)
    else:
        thawing = expect(Waiting, driver.ask(ThawSet(0))).ticket
        expected.append((thawing, Done()))
    assert 3 < finish(driver) < COUNT
    assert expected == driver.completed()[1:]
    assert destroy == (not driver.core.snapshot().sets)


def test_what_is_plain_and_told_to_nobody_is_freed_at_once(driver: Driver) -> None:
    """It costs the same as one ID, so there are no parts."""
    assert Released(True) == driver.ask(FreeSet(0))
    assert not driver.core.has_work


def test_few_are_freed_at_once(driver: Driver) -> None:
    """A request that concerns no more than a part is answered as ever."""
    driver.subscribe("host", kinds=BINDING)
    few = IoasidRange(1000, 1000 + PART - 1)
    assert Released(False) == driver.ask(FreeMany(0, (few,)))
    assert not driver.core.has_work
    assert list(range(1000, 1000 + PART)) == pending(driver)


def test_events_go_out_in_parts(driver: Driver) -> None:
    """Each FREE once, ascending; what others do with an ID before its turn stands before it."""
    kvm = driver.subscribe("kvm", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    ticket = expect(Waiting, driver.ask(FreeSet(0))).ticket
    assert 0 < len(pending(driver)) <= PART
    last = IOASIDS[-1]
    assert Done() == driver.ask(Get(last, generation=1))
    driver.ask(DetachSpid(last))
    finish(driver)
    assert list(IOASIDS) == pending(driver)
    assert [(ticket, Released(False))] == driver.completed()
    shown = driver.shown(kvm)
    assert [("FREE", ioasid) for ioasid in IOASIDS] == [each for each in shown if "FREE" in each]
    assert shown.index(("UNBIND", last)) < shown.index(("FREE", last))
    driver.finish(kvm, "kvm")
    assert [last] == left(driver)
    driver.ask(Put(last))
    assert 0 == driver.figures().sets


def test_later_lives_are_not_freed(driver: Driver) -> None:
    """What is allocated while a set is being emptied was not there when that was asked."""
    bind_all(driver)
    driver.ask(FreeSet(0, destroy=False))
    driver.ask(Free(IOASIDS[-1]))
    again = expect(Allocated, driver.ask(Alloc(0, IOASIDS[-1], IOASIDS[-1])))
    above = expect(Allocated, driver.ask(Alloc(0, 2000)))
    finish(driver)
    assert [again.ioasid, above.ioasid] == left(driver)


def test_many_are_freed_in_parts(driver: Driver) -> None:
    """`FreeMany` of more than a part frees those, and no others."""
    driver.subscribe("host", kinds=BINDING, queue_size=1000)
    ranges = (IoasidRange(1000, 1029), IoasidRange(1032, 1050))
    assert isinstance(driver.ask(FreeMany(0, ranges)), Waiting)
    finish(driver)
    assert [*range(1000, 1030), *range(1032, 1051)] == pending(driver)


def test_waiting_for_the_reclaim_of_many(driver: Driver) -> None:
    """With `wait`, the answer comes when all are freed and the last of them is reclaimed."""
    kvm = driver.subscribe("kvm", kinds=BINDING, queue_size=1000)
    ticket = expect(Waiting, driver.ask(FreeSet(0, wait=True))).ticket
    driver.finish(kvm, "kvm")
    assert driver.core.has_work
    assert [] == driver.completed()
    finish(driver)
    assert [] == driver.completed()
    driver.finish(kvm, "kvm")
    assert [(ticket, Released(True))] == driver.completed()


def test_what_is_reclaimed_between_two_parts_is_waited_for_no_more(driver: Driver) -> None:
    """With `wait`, the answer comes with the last part, if all was reclaimed before."""
    bind_all(driver)
    ticket = expect(Waiting, driver.ask(FreeSet(0, wait=True))).ticket
    assert 3 < finish(driver)
    assert [(ticket, Released(True))] == driver.completed()


@pytest.mark.parametrize("wait", [True, False])
def test_giving_up_cancels_nothing(driver: Driver, wait: bool) -> None:
    """A caller that gives up between two parts is not answered, and all is freed."""
    kvm = driver.subscribe("kvm", kinds=BINDING, hold=True, queue_size=1000)
    ticket = expect(Waiting, driver.ask(FreeSet(0, wait=wait))).ticket
    driver.core.handle(0, Abandon(ticket))
    driver.crash("kvm")
    finish(driver)
    assert list(IOASIDS) == pending(driver)
    driver.come_back("kvm")
    driver.ask(Unsubscribe(kvm), "kvm")
    finish(driver)
    assert ([], []) == (
        driver.completed(),
        driver.core.snapshot().sets[:].__class__ is tuple and [],
    )
    assert 0 == driver.figures().sets


def test_others_free_what_is_left(driver: Driver) -> None:
    """A set that goes between two parts ends the work, and whoever asked for it is answered."""
    bind_all(driver)
    ticket = expect(Waiting, driver.ask(FreeSet(0))).ticket
    for ioasid in left(driver):
        driver.ask(Free(ioasid))
    assert [(ticket, Released(True))] == driver.completed()
    assert not driver.core.has_work


# -- leaving ----------------------------------------------------------------------------------


def test_a_holder_is_evicted_in_parts(driver: Driver) -> None:
    """It is gone at once; its references follow, its name is free with the answer."""
    for ioasid in IOASIDS:
        driver.ask(Get(ioasid), "vdcm")
    session = driver.session("vdcm")
    driver.ask(FreeSet(0))
    finish(driver)
    ticket = expect(Waiting, driver.ask(Evict("vdcm"))).ticket
    assert COUNT - PART == len(left(driver))
    again = expect(Waiting, driver.ask(Evict("vdcm"))).ticket
    with pytest.raises(SessionEnded):
        driver.core.handle(session, Get(1000))
    assert ["vdcm"] == explained(driver, IOASIDS[-1])
    driver.set("vm-2", 3)
    assert 3 < finish(driver)
    done = [each for each in driver.completed() if each[1] == Done()]
    assert [(ticket, Done()), (again, Done())] == done
    assert 1 == driver.figures().sets
    driver.refused(UnknownHolder, Evict("vdcm"), name="vdcm")
    assert not expect(SessionOpened, driver.ask(OpenSession("vdcm"))).resumed


@pytest.mark.parametrize("leave", [Evict("vtd"), CloseSession()], ids=["evicted", "closed"])
def test_a_name_is_free_at_once(driver: Driver, leave: Request) -> None:
    """Who opens a session of the name of one that is leaving has nothing of it."""
    driver.subscribe("vtd", kinds=BINDING, hold=True, queue_size=3)
    driver.subscribe("vtd", sid=0, kinds=BINDING, queue_size=1000)
    bind_all(driver)
    for ioasid in IOASIDS:
        driver.ask(Get(ioasid), "vtd")
    by = "vtd" if isinstance(leave, CloseSession) else "host"
    ticket = expect(Waiting, driver.ask(leave, by)).ticket
    opened = driver.come_back("vtd")
    assert (False, ()) == (opened.resumed, opened.references)
    assert [(ticket, Done())] == driver.completed()
    assert 0 == driver.figures().subscriptions
    driver.ask(Get(1000), "vtd")
    finish(driver)
    assert {"vtd": 1} == driver.find(1000).references
    assert 1 == len(driver.completed())


def explained(driver: Driver, ioasid: int) -> list[str]:
    """Who has references of an ID."""
    return [each.holder for each in expect(Explanation, driver.ask(Explain(ioasid))).references]


def test_a_session_that_ends_leaves_in_parts(driver: Driver) -> None:
    """References, what was granted and what was told, whichever of them are many."""
    vtd = driver.subscribe("vtd", kinds=BINDING, hold=True, queue_size=1000)
    bind_all(driver)
    for ioasid in IOASIDS:
        driver.ask(Get(ioasid), "vtd")
    driver.ask(FreeSet(0))
    finish(driver)
    assert isinstance(driver.ask(CloseSession(), "vtd"), Waiting)
    assert [(vtd, False)] == driver.ended()
    assert 15 < finish(driver)
    assert (0, 0, 1) == (
        driver.figures().sets,
        driver.figures().subscriptions,
        driver.figures().sessions,
    )
    nothing_leaks_but_the_host(driver)


def nothing_leaks_but_the_host(driver: Driver) -> None:
    """All tables are empty when the last session is gone as well."""
    driver.core.handle(driver.core.session, CloseSession())
    driver.core.drain()
    nothing_leaks(driver.core)


def test_a_subscription_ends_in_parts(driver: Driver) -> None:
    """It is told nothing more, what it had is let go of, and the tiers below go on meanwhile."""
    kvm = driver.subscribe("kvm", kinds=BINDING, priority=CPU, queue_size=5)
    late = driver.subscribe("late", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    assert Done() == driver.ask(Unsubscribe(kvm), "kvm")
    assert PART == len(driver.messages(late))
    waits = expect_awaited(driver, IOASIDS[-1])
    assert [("kvm", Place.DEALT_WITH)] == waits
    driver.refused(UnknownSubscription, Unsubscribe(kvm), "kvm")
    assert Done() == driver.ask(Acknowledge(((kvm, 1),)), "kvm")
    again = driver.subscribe("kvm", kinds=BINDING, priority=CPU)
    assert kvm < again
    driver.ask(DetachSpid(IOASIDS[-1]))
    finish(driver)
    bound = [each for each in driver.shown(late) if each[0] == "BIND"]
    assert [("BIND", ioasid) for ioasid in IOASIDS] == sorted(bound)
    assert (1, 2) == (driver.figures().sets, driver.figures().subscriptions)


def test_a_subscription_that_ends_while_it_is_let_go_of(driver: Driver) -> None:
    """The last that it let go of is the last of its set: both are gone, with nothing left over."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING, queue_size=1)
    driver.ask(FreeSet(0))
    finish(driver)
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    finish(driver)
    driver.acknowledge(kvm, driver.resync(kvm).seq, "kvm")
    finish(driver)
    assert (0, 0) == (driver.figures().sets, driver.figures().subscriptions)
    assert [(kvm, True)] == driver.ended()


def expect_awaited(driver: Driver, ioasid: int) -> list[tuple[str, Place]]:
    """Who the events of an ID wait for, and where those are."""
    events = expect(Explanation, driver.ask(Explain(ioasid))).events
    return [(each.holder, each.place) for event in events for each in event.waits_for]


def test_a_resync_is_acknowledged_in_parts(driver: Driver) -> None:
    """What it stands for is let go of a part at a time; its subscriber is served meanwhile."""
    kvm = driver.subscribe("kvm", kinds=BINDING, priority=CPU, queue_size=1, hold=True)
    late = driver.subscribe("late", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    driver.acknowledge(kvm, driver.messages(kvm)[0].seq, "kvm")
    finish(driver)
    resync = driver.resync(kvm)
    assert list(IOASIDS) == [each.ioasid for each in resync]
    driver.acknowledge(kvm, resync.seq, "kvm")
    assert 1 + PART == len(driver.messages(late))
    driver.ask(DetachSpid(IOASIDS[-1]))
    driver.ask(DetachSpid(IOASIDS[0]))
    driver.finish(kvm, "kvm")
    finish(driver)
    driver.finish(kvm, "kvm")
    driver.finish(late, "late")
    finish(driver)
    records = [expect(IoasidRecord, driver.ask(Find(each))) for each in IOASIDS]
    assert [{}] + [{"kvm": 1}] * (COUNT - 2) + [{}] == [each.references for each in records]
    assert 0 == driver.figures().in_flight


def test_who_joins_is_told_in_parts(driver: Driver) -> None:
    """Of events that nobody had yet to reach, whoever subscribes between their tiers is told."""
    last = driver.subscribe("last", kinds=BINDING, priority=Priority.LAST, queue_size=1000)
    bind_all(driver)
    for ioasid in IOASIDS:
        driver.ask(DetachSpid(ioasid))
        driver.ask(AttachSpid(ioasid, ioasid))
    joins = driver.subscribe("cpu", kinds=BINDING, priority=CPU, queue_size=1000)
    finish(driver)
    driver.finish(last, "last")
    driver.finish(joins, "cpu")
    driver.finish(last, "last")
    assert 0 == driver.figures().in_flight


# -- freezing, thawing, activating ------------------------------------------------------------


def test_a_set_is_frozen_in_parts(driver: Driver) -> None:
    """Bindings end, lowest IDs first; who freezes it meanwhile is answered with the first."""
    log = driver.subscribe("log", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    first = expect(Waiting, driver.ask(FreezeSet(0))).ticket
    assert list(IOASIDS)[-len(bound(driver)) :] == bound(driver)
    assert COUNT // 2 < len(bound(driver))
    driver.refused(SetFrozen, Alloc(0), sid=0, state="FROZEN")
    driver.refused(SetFrozen, AttachSpid(IOASIDS[0], 9), sid=0, state="FROZEN")
    driver.refused(SetFrozen, FindBySpid(0, IOASIDS[-1], get=True), sid=0, state="FROZEN")
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="FROZEN", running=COUNT)
    other = driver.set("vm-2", 8)
    assert driver.alloc(other) in range(1, 1000)
    second = expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket
    driver.ask(DetachSpid(IOASIDS[-1]))
    driver.ask(Free(IOASIDS[-2]))
    assert 3 < finish(driver) < COUNT
    assert [(first, Frozen(0, True)), (second, Frozen(0, True))] == driver.completed()
    shown = driver.shown(log)[COUNT:]
    assert [("UNBIND", each) for each in IOASIDS[:-2]] == [
        each for each in shown if each[1] < IOASIDS[-2]
    ]
    last = [("UNBIND", IOASIDS[-1]), ("FREE", IOASIDS[-2])]
    assert last == [each for each in shown if each[1] >= IOASIDS[-2]]
    assert COUNT - 2 == len(expect(SetExport, driver.late(ExportSet(0))).ioasids)


@pytest.mark.parametrize("wait", [True, False])
def test_a_freeze_in_parts_waits_for_devices(driver: Driver, wait: bool) -> None:
    """With `wait` the answer comes when they are done, and without with the last part."""
    vdcm = driver.subscribe("vdcm", kinds=BINDING, priority=Priority.DEVICE, queue_size=1000)
    driver.bind(IOASIDS[-1], 1)
    driver.finish(vdcm, "vdcm")
    driver.unbind(IOASIDS[-1])
    for ioasid in IOASIDS[:-1]:
        driver.bind(ioasid, ioasid)
    ticket = expect(Waiting, driver.ask(FreezeSet(0, wait=wait))).ticket
    finish(driver)
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="FROZEN", running=COUNT)
    assert ([] if wait else [(ticket, Frozen(0, False))]) == driver.completed()
    driver.finish(vdcm, "vdcm")
    assert [(ticket, Frozen(0, wait))] == driver.completed()
    assert COUNT - 1 == len(expect(SetExport, driver.late(ExportSet(0))).ioasids)


def test_a_thaw_meets_a_freeze_in_parts(driver: Driver) -> None:
    """What was not unbound yet stays bound, and who froze it is told that it runs."""
    log = driver.subscribe("log", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    tickets = [expect(Waiting, driver.ask(FreezeSet(0, wait))).ticket for wait in (True, False)]
    go_on(driver)
    ended = [each for kind, each in driver.shown(log) if kind == "UNBIND"]
    thawing = expect(Waiting, driver.ask(ThawSet(0))).ticket
    assert {(each, Frozen(0, False)) for each in tickets} == set(driver.completed())
    driver.refused(SetFrozen, Alloc(0), sid=0, state="FROZEN")
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="FROZEN", running=COUNT)
    finish(driver)
    assert (thawing, Done()) == driver.completed()[-1]
    assert list(IOASIDS) == bound(driver)
    assert [("BIND", each) for each in ended] == driver.shown(log)[COUNT + len(ended) :]
    assert Done() == driver.ask(ThawSet(0))
    driver.alloc()


def test_a_freeze_meets_a_thaw_in_parts(driver: Driver) -> None:
    """What was not bound yet stays unbound; who thawed it hears that it was."""
    log = driver.subscribe("log", kinds=BINDING, queue_size=1000)
    bind_all(driver)
    freeze(driver)
    thawing = [expect(Waiting, driver.ask(ThawSet(0))).ticket for _ in range(2)]
    go_on(driver)
    begun = bound(driver)
    assert list(IOASIDS)[: len(begun)] == begun
    assert 0 < len(begun) < COUNT // 2
    freezing = expect(Waiting, driver.ask(FreezeSet(0))).ticket
    assert [(each, Done()) for each in thawing] == driver.completed()[1:]
    finish(driver)
    assert (freezing, Frozen(0, True)) == driver.completed()[-1]
    assert [] == bound(driver)
    shown = driver.shown(log)[2 * COUNT :]
    assert [("BIND", each) for each in begun] == shown[: len(begun)]
    assert [("UNBIND", each) for each in begun] == shown[len(begun) :]


def test_a_set_is_activated_in_parts(driver: Driver) -> None:
    """It is INCOMING until the last binding begins; what is freed meanwhile is not bound."""
    bind_all(driver)
    freeze(driver)
    export = expect(SetExport, driver.late(ExportSet(0)))
    expect(Waiting, driver.ask(FreeSet(0)))
    finish(driver)
    ioasids = [*every(expect(Imported, driver.late(ImportSet(export))).ranges)]
    ticket = expect(Waiting, driver.ask(ActivateSet(1))).ticket
    driver.refused(SetFrozen, FindBySpid(1, IOASIDS[-1], get=True), sid=1, state="INCOMING")
    driver.refused(SetNotFrozen, ExportSet(1), sid=1, state="INCOMING", running=0)
    second = expect(Waiting, driver.ask(ActivateSet(1))).ticket
    assert Released(True) == driver.ask(Free(ioasids[-1]))
    driver.ask(DetachSpid(ioasids[-2]))
    assert 3 < finish(driver) < COUNT
    assert [(ticket, Done()), (second, Done())] == driver.completed()[-2:]
    found = [driver.find(each).spid for each in ioasids[:-1]]
    assert [*IOASIDS[:-2], None] == found
    driver.alloc(1)


# -- exporting --------------------------------------------------------------------------------


def test_a_set_is_exported_in_parts(driver: Driver) -> None:
    """It is as of the answer: what is freed or unbound meanwhile is not in it."""
    for ioasid in IOASIDS[:-2]:
        driver.bind(ioasid, ioasid)
    driver.ask(AttachData(IOASIDS[-1], "last"))
    freeze(driver)
    before = driver.core.snapshot()
    tickets = [expect(Waiting, driver.ask(ExportSet(0))).ticket for _ in range(2)]
    assert driver.core.has_work
    assert before == driver.core.snapshot()
    go_on(driver)
    for ioasid in (IOASIDS[0], IOASIDS[30]):
        driver.ask(Free(ioasid))
    driver.ask(DetachSpid(IOASIDS[1]))
    assert 2 == finish(driver)
    (first, found), (second, same) = driver.completed()[-2:]
    assert (tickets, found) == ([first, second], same)
    export = expect(SetExport, found)
    stays = [each for each in IOASIDS if each not in (IOASIDS[0], IOASIDS[30])]
    assert stays == [*every(export.ranges)]
    assert (
        IoasidRange(IOASIDS[1], IOASIDS[29]),
        IoasidRange(IOASIDS[31], IOASIDS[-1]),
    ) == export.ranges
    named = [*stays[1:-2], IOASIDS[-1]]
    assert named == [each.ioasid for each in export.ioasids]
    assert "last" == export.ioasids[-1].data
    assert export == driver.late(ExportSet(0))


def test_what_a_part_to_come_frees_is_not_exported(driver: Driver) -> None:
    """A set that moves takes along what stays of it: the export waits for the rest."""
    bind_all(driver)
    keep = IOASIDS[-1]
    freeze(driver)
    expect(Waiting, driver.ask(FreeMany(0, (IoasidRange(IOASIDS[0], keep - 1),))))
    ticket = expect(Waiting, driver.ask(ExportSet(0))).ticket
    finish(driver)
    found = dict(driver.completed())[ticket]
    assert isinstance(found, SetExport)
    assert ((IoasidRange(keep, keep),), (keep,)) == (
        found.ranges,
        tuple(each.ioasid for each in found.ioasids),
    )
    assert found == driver.late(ExportSet(0))


@pytest.mark.parametrize("request_", [ThawSet(0), FreeSet(0)], ids=lambda each: type(each).__name__)
def test_a_set_that_is_not_frozen_any_more_is_not_exported(
    driver: Driver, request_: Request
) -> None:
    """Who waits for the export is to ask again, and is refused then; who gave up is not."""
    bind_all(driver)
    freeze(driver)
    tickets = [expect(Waiting, driver.ask(ExportSet(0))).ticket for _ in range(2)]
    driver.core.handle(0, Abandon(tickets[1]))
    go_on(driver)
    driver.ask(request_)
    assert [AskAgain(tickets[0])] == [each for each in driver.effects if isinstance(each, AskAgain)]
    driver.refused(SetNotFrozen, ExportSet(0), sid=0)
    finish(driver)
    assert tickets[0] not in dict(driver.completed())


def test_nobody_waits_for_an_export(driver: Driver) -> None:
    """It is dropped when whoever asked for it gives up."""
    bind_all(driver)
    freeze(driver)
    ticket = expect(Waiting, driver.ask(ExportSet(0))).ticket
    driver.core.handle(0, Abandon(ticket))
    go_on(driver)
    assert not driver.core.has_work


# -- importing --------------------------------------------------------------------------------


def an_export(driver: Driver) -> SetExport:
    """What the set is to its next host; it is gone here."""
    for ioasid in IOASIDS[::2]:
        driver.bind(ioasid, ioasid - 900)
    for ioasid in IOASIDS[::3]:
        driver.ask(AttachData(ioasid, ioasid))
    driver.ask(Free(IOASIDS[5]))
    driver.late(FreezeSet(0))
    export = expect(SetExport, driver.late(ExportSet(0)))
    driver.late(FreeSet(0))
    assert 0 == driver.figures().sets
    return export


def begin_import(driver: Driver, export: SetExport, low: int = 1) -> int:
    """Ask for the import of a set, and again when it is checked; returns the ticket."""
    before = state(driver.core)
    checking = expect(Waiting, driver.ask(ImportSet(export, min=low))).ticket
    while AskAgain(checking) not in driver.effects:
        assert before == state(driver.core)
        go_on(driver)
    return expect(Waiting, driver.ask(ImportSet(export, min=low))).ticket


def test_a_set_is_imported_in_parts(driver: Driver) -> None:
    """Lowest IDs first, each as it is to be; nobody else is given the others, and none runs."""
    export = an_export(driver)
    other = driver.set("vm-2", 64)
    driver.ask(AllocMany(other, 3, 1010))
    log = driver.subscribe("log", token="vm-1", queue_size=1000)
    ticket = begin_import(driver, export, 1000)
    sid, count = other + 1, COUNT - 1
    record = expect(SetRecord, driver.ask(FindSet("vm-1")))
    assert (SetState.INCOMING, 4000) == (record.state, record.quota)
    assert 0 < record.allocated < count // 2
    above = expect(Allocated, driver.ask(Alloc(other, 1000))).ioasid
    assert [*range(1000, 1010), *range(1013, 1066)][-1] + 1 == above
    driver.refused(UnknownIoasid, Find(1065), ioasid=1065)
    driver.refused(RangeTaken, ReserveRange(1065, 1065), low=1065, high=1065)
    driver.refused(SetFrozen, Alloc(sid), sid=sid, state="INCOMING")
    driver.refused(TokenInUse, AllocSet("vm-1", 2), token="vm-1", sid=sid)
    driver.ask(Free(1000))
    driver.subscribe("late", sid=sid, replay=True, queue_size=1000)
    assert 3 < finish(driver) < COUNT
    ranges = IoasidRange(1000, 1009), IoasidRange(1013, 1065)
    found = expect(Imported, dict(driver.completed())[ticket])
    assert (sid, ranges) == (found.sid, found.ranges)
    here = dict(zip(every(export.ranges), every(ranges), strict=True))
    shown = [each for each in driver.shown(log) if each != ("RECLAIM", 1000)]
    assert [("ALLOC", each) for each in here.values()] == [
        each for each in shown if each[0] == "ALLOC"
    ]
    driver.late(ActivateSet(sid))
    for each in export.ioasids[1:]:
        record_ = driver.find(here[each.ioasid])
        assert (each.spid, each.data) == (record_.spid, record_.data)
    told = {each.ioasid: each.data for each in driver.messages(log) if isinstance(each, Event)}
    assert all(told[here[each.ioasid]] == each.data for each in export.ioasids[1:])


def test_what_waits_for_an_import_goes_on_in_the_same_parts(driver: Driver) -> None:
    """A set that is to run when it is made does so as whoever is restored meanwhile lets it run."""
    ends = tuple(ExportedIoasid(each, each, None) for each in (IOASIDS[0], IOASIDS[-1]))
    ranges = (IoasidRange(IOASIDS[0], IOASIDS[-1]),)
    export = SetExport("vm-2", TokenType.MM, COUNT, ranges, ends)
    made = expect(Waiting, driver.ask(ImportSet(export, None, 2020))).ticket
    run = expect(Waiting, driver.ask(ActivateSet(1))).ticket
    finish(driver)
    assert [made, run] == [ticket for ticket, _ in driver.completed()]
    assert SetState.ACTIVE is expect(SetRecord, driver.ask(FindSet("vm-2"))).state


def test_what_is_wrong_with_an_import_is_found_in_parts(driver: Driver) -> None:
    """It is refused as a whole, when it is asked for again: nothing has changed."""
    export = an_export(driver)
    last = export.ioasids[-1]
    for wrong in (
        replace(last, spid=export.ioasids[0].spid),
        replace(last, ioasid=IOASIDS[5]),
        replace(last, ioasid=export.ioasids[-2].ioasid),
        replace(last, spid=-1),
        replace(last, data="x" * 4097),
    ):
        request = ImportSet(replace(export, ioasids=(*export.ioasids[:-1], wrong)))
        checking = expect(Waiting, driver.ask(request)).ticket
        assert 3 < finish(driver)
        assert AskAgain(checking) == driver.effects[-1]
        driver.refused(InvalidArgument, request, argument="export")
    driver.late(ImportSet(export))
    checking = expect(Waiting, driver.ask(ImportSet(export))).ticket
    finish(driver)
    driver.refused(TokenInUse, ImportSet(export), token="vm-1", sid=1)


def test_a_check_that_nobody_waits_for_ends(driver: Driver) -> None:
    """Who gives up while an export is checked leaves nothing."""
    export = an_export(driver)
    before = state(driver.core)
    ticket = expect(Waiting, driver.ask(ImportSet(export))).ticket
    driver.core.handle(0, Abandon(ticket))
    go_on(driver)
    assert not driver.core.has_work
    assert before == state(driver.core)


@pytest.mark.parametrize("destroy", [True, False])
def test_a_set_that_is_freed_while_it_is_imported(driver: Driver, destroy: bool) -> None:
    """It gets no more IDs, and what was withheld for it can be had."""
    export = an_export(driver)
    ticket = begin_import(driver, export, 1000)
    made = expect(SetRecord, driver.ask(FindSet("vm-1"))).allocated
    assert 0 < made < COUNT // 2
    driver.late(FreeSet(1, destroy))
    found = expect(Imported, dict(driver.completed())[ticket])
    assert (IoasidRange(1000, 1000 + made - 1),) == found.ranges
    assert destroy == (0 == driver.figures().sets)
    other = driver.set("vm-2", 64)
    assert 1000 == expect(Allocated, driver.ask(Alloc(other, 1000))).ioasid


@pytest.mark.parametrize("freeze_it", [True, False])
def test_an_activation_waits_for_the_import(driver: Driver, freeze_it: bool) -> None:
    """All IDs are there before the first is bound, and before the set is frozen again."""
    export = an_export(driver)
    expected = {each.spid for each in export.ioasids if each.spid is not None}
    importing = begin_import(driver, export)
    activating = expect(Waiting, driver.ask(ActivateSet(1))).ticket
    if freeze_it:
        expect(Waiting, driver.ask(FreezeSet(1)))
        driver.refused(SetNotFrozen, ExportSet(1), sid=1)
    finish(driver)
    order = [each for each, _ in driver.completed()]
    assert freeze_it == (order.index(activating) < order.index(importing))
    if freeze_it:
        assert expected <= {
            each.spid for each in expect(SetExport, driver.late(ExportSet(1))).ioasids
        }
    else:
        listing = expect(Listing, driver.ask(ListSet(1)))
        assert expected == {each.spid for each in listing} - {None}


def test_an_import_is_decided_again(driver: Driver) -> None:
    """What is being made is gone on with, and what was only checked is asked for again."""
    export = an_export(driver)
    checking = expect(Waiting, driver.ask(ImportSet(export))).ticket
    fall_back(driver, now(driver), {checking: ImportSet(export)})
    assert [AskAgain(checking)] == driver.effects
    ticket = begin_import(driver, export)
    fall_back(driver, now(driver), {ticket: ImportSet(export)})
    finish(driver)
    assert COUNT - 1 == len([*every(expect(Imported, dict(driver.completed())[ticket]).ranges)])


def test_an_import_that_contradicts_the_rest_is_refused(driver: Driver) -> None:
    """EBADMSG: a set that is made twice, of nothing, of what it has, or of another's numbers."""
    export = an_export(driver)
    begin_import(driver, export, 1000)
    good = driver.core.snapshot()
    (work,) = good.work
    assert isinstance(work, SnapshotImporting)
    ranges = (IoasidRange(1000, 1000 + COUNT - 2),)
    assert ranges == work.ranges
    bad = (
        (work, work),
        (replace(work, sid=7),),
        (replace(work, done=COUNT - 1),),
        (replace(work, done=0),),
        (replace(work, generation=99),),
        (replace(work, ranges=(IoasidRange(1000, 1001),)),),
        (replace(work, ranges=(IoasidRange(4095 - COUNT + 3, 4097),)),),
        (replace(work, export=replace(export, quota=1)),),
    )
    for each in bad:
        with pytest.raises(MalformedMessage):
            Allocator.restore(replace(good, work=each))


def test_a_set_that_turns_is_freed(driver: Driver) -> None:
    """Nothing of it begins any more; what was to end ends, and the set goes."""
    bind_all(driver)
    expect(Waiting, driver.ask(FreezeSet(0)))
    expect(Waiting, driver.ask(FreeSet(0, destroy=False)))
    finish(driver)
    assert [] == left(driver)
    driver.ask(ThawSet(0))
    driver.ask(AllocMany(0, COUNT, 1000))
    bind_all(driver)
    freeze(driver)
    done = len(driver.completed())
    thawing = expect(Waiting, driver.ask(ThawSet(0))).ticket
    freeing = expect(Waiting, driver.ask(FreeSet(0))).ticket
    driver.refused(SetFreePending, ThawSet(0), sid=0)
    assert [(thawing, Done())] == driver.completed()[done:]
    finish(driver)
    assert [(thawing, Done()), (freeing, Released(True))] == driver.completed()[done:]
    assert 0 == driver.figures().sets


def test_a_set_that_is_emptied_while_it_is_frozen(driver: Driver) -> None:
    """Who waits for the freeze of a set that goes meanwhile is answered: nothing of it runs."""
    bind_all(driver)
    ticket = expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket
    freeing = expect(Waiting, driver.ask(FreeSet(0))).ticket
    for ioasid in left(driver):
        driver.ask(Free(ioasid))
    assert not driver.core.has_work
    assert {(ticket, Frozen(0, True)), (freeing, Released(True))} == set(driver.completed())


def test_giving_up_a_freeze_cancels_nothing(driver: Driver) -> None:
    """A caller that gives up between two parts is not answered, and all is unbound."""
    bind_all(driver)
    for wait in (True, False):
        ticket = expect(Waiting, driver.ask(FreezeSet(0, wait))).ticket
        driver.core.handle(0, Abandon(ticket))
    finish(driver)
    assert ([], []) == (driver.completed(), bound(driver))


def test_too_much_under_way_refuses_a_thaw_as_a_whole(driver: Driver) -> None:
    """Though the ID's turn would be in the last part, nothing has begun."""
    driver.subscribe("cpu", priority=CPU, kinds=BINDING)
    driver.subscribe("last", kinds=frozenset((EventKind.ALLOC, *BINDING)))
    bind_all(driver)
    for _ in range(14):
        driver.ask(Notify(IOASIDS[-1], EventKind.ALLOC))
    expect(Waiting, driver.ask(FreezeSet(0)))
    finish(driver)
    facts = {"ioasid": IOASIDS[-1], "in_flight": 16}
    driver.refused(TooManyEvents, ThawSet(0), **facts)
    driver.core = Allocator.restore(driver.core.snapshot())
    driver.refused(TooManyEvents, ThawSet(0), **facts)


# -- anything, in parts or at once ------------------------------------------------------------


class Pair:
    """Two allocators that are asked the same: one in parts of a few IDs, and one all at once."""

    queue_sizes: tuple[int, ...] = (1, 3, 100)

    def __init__(self, seed: int, *, moving: bool = False) -> None:
        self.random = Random(seed)
        self.moves = Random(seed)
        self.moving = moving
        self.exported: SetExport | None = None
        self.few = Allocator(2048, part=self.random.choice((1, 2, 5)))
        self.all = Allocator(2048)
        self.sessions = {"host": 1}
        self.numbers: dict[str, dict[int | None, int]] = {}
        self.told: dict[int, list[int]] = {}
        self.told_all: dict[int, list[int]] = {}

    def ask(self, name: str, request: Request) -> Answer | None:
        """Ask both; the parts are done before anything else is asked."""
        few = self.ask_one(self.few, self.told, name, request)
        all_ = self.ask_one(self.all, self.told_all, name, request)
        assert few == all_, request
        return None if isinstance(few, type) else few

    def ask_one(
        self, core: Allocator, told: dict[int, list[int]], name: str, request: Request
    ) -> Answer | type[IoasidError]:
        """Ask one of them, and again if it says so."""
        refused: type[IoasidError] | None = None
        answer: Answer | None = None
        try:
            answer = core.handle(self.sessions[name], request)
        except IoasidError as error:
            refused = type(error)
        check_state(core)
        effects = core.drain()
        while core.has_work:
            assert core is self.few
            again = Allocator.restore(decode_snapshot(encode(core.snapshot())))
            core.handle(0, Continue())
            again.handle(0, Continue())
            check_state(core)
            assert core.snapshot() == again.snapshot()
            effects += core.drain()
        note(told, effects)
        if any(isinstance(each, AskAgain) for each in effects):
            return self.ask_one(core, told, name, request)
        if answer is None:
            assert refused is not None
            return refused
        late = [each.answer for each in effects if isinstance(each, Complete)]
        return late[-1] if isinstance(answer, Waiting) and late else answer

    def step(self) -> None:
        """Ask something, or let a subscriber deal with some of what it was told."""
        choose = self.random
        name = choose.choice(sorted(self.sessions))
        ioasid = choose.randrange(1020, 1034)
        sort = choose.randrange(14)
        if sort == 0:
            self.ask(name, AllocSet(None, 12, TokenType.NULL))
        elif sort == 1:
            self.ask(name, AllocMany(choose.randrange(3), choose.randrange(1, 9), 1020, 1033))
        elif sort < 5:
            self.ask(name, AttachSpid(ioasid, choose.randrange(9)))
        elif sort == 5:
            self.ask(name, DetachSpid(ioasid))
        elif sort == 6:
            self.ask(name, Get(ioasid))
        elif sort == 7:
            self.ask(name, FreeSet(choose.randrange(3), destroy=choose.random() < 0.2))
        elif sort == 8:
            name = choose.choice(("kvm", "vdcm", "vtd"))
            if name not in self.sessions:
                opened = self.ask("host", OpenSession(name))
                assert isinstance(opened, SessionOpened)
                self.sessions[name] = opened.session
            sid = choose.choice((None, None, 0, 1))
            terms = Subscribe(
                sid,
                kinds=BINDING,
                priority=choose.choice(tuple(Priority)),
                hold=choose.random() < 0.5,
                queue_size=choose.choice(self.queue_sizes),
                replay=choose.random() < 0.5,
            )
            answer = self.ask(name, terms)
            if isinstance(answer, Subscribed):
                self.numbers.setdefault(name, {})[sid] = answer.subscription
        elif sort == 9 and name != "host":
            self.ask(name, choose.choice((SuspendSession(), CloseSession())))
            del self.sessions[name]
        elif sort == 10:
            gone = choose.choice(("kvm", "vdcm", "vtd"))
            self.ask("host", Evict(gone))
            self.sessions.pop(gone, None)
        elif sort == 11:
            mine = self.numbers.get(name, {})
            if mine:
                self.ask(name, Unsubscribe(choose.choice(sorted(mine.values()))))
        else:
            self.deal(name)
        if self.moving and self.moves.random() < 0.3:
            self.move(self.moves.randrange(4))

    def move(self, sid: int) -> None:
        """A step of a set on its way to another host, which is this one again."""
        sort = self.moves.randrange(6)
        if sort < 2:
            self.ask("host", FreezeSet(sid))
        elif sort == 2:
            self.ask("host", ThawSet(sid))
        elif sort == 3:
            self.ask("host", ActivateSet(sid))
        else:
            found = self.ask("host", ExportSet(sid))
            if isinstance(found, SetExport):
                self.exported = found
            if self.exported is not None:
                self.ask("host", ImportSet(self.exported, max=self.moves.choice((1030, 2047))))

    def deal(self, name: str) -> None:
        """Acknowledge the first messages of a subscription: as many as both were told."""
        mine = self.numbers.get(name, {})
        if not mine or name not in self.sessions:
            return
        number = self.random.choice(sorted(mine.values()))
        for core, told in ((self.few, self.told), (self.all, self.told_all)):
            for seq in told.pop(number, []):
                try:
                    core.handle(self.sessions[name], Acknowledge(((number, seq),)))
                except IoasidError:
                    break
                effects = core.drain()
                while core.has_work:
                    core.handle(0, Continue())
                    check_state(core)
                    effects += core.drain()
                note(told, effects)

    def compare(self) -> None:
        """Whatever the order in which it came about, what there is is the same."""
        pictures = []
        for core in (self.few, self.all):
            ids = [core.record(ioasid) for ioasid in range(1020, 1034)]
            figures = expect(Statistics, core.handle(core.session, TakeStatistics()))
            counts = figures.sets, figures.active, figures.free_pending, figures.subscriptions
            pictures.append((ids, counts, figures.in_flight, figures.suspended))
        assert pictures[0] == pictures[1]


def note(told: dict[int, list[int]], effects: list[Effect]) -> None:
    """Keep account of what subscriptions were told."""
    for each in effects:
        if isinstance(each, Deliver):
            for number in each.subscriptions:
                told.setdefault(number, []).append(each.message.seq)


@pytest.mark.parametrize("seed", range(60))
def test_parts_come_to_the_same(seed: int) -> None:
    """Done in parts of a few IDs or all at once, the same requests lead to the same state."""
    pair = Pair(seed)
    for _ in range(120):
        pair.step()
        pair.compare()


class Moves(Pair):
    """The same of sets that move, with nobody who lags."""

    queue_sizes = (1000,)


@pytest.mark.parametrize("seed", range(60))
def test_moves_in_parts_come_to_the_same(seed: int) -> None:
    """Frozen, thawed, exported, imported and activated in parts, or at once."""
    pair = Moves(seed, moving=True)
    for _ in range(80):
        pair.step()
        pair.compare()


def test_the_size_of_a_part_is_kept(driver: Driver) -> None:
    """A journal is decided again in the same parts, whatever a later version takes for one."""
    again = Allocator.restore(driver.core.snapshot())
    assert PART == again.snapshot().part == driver.core.snapshot().part
    assert state(again) == state(driver.core)


class Between(Pair):
    """One allocator that checks itself, with whatever comes between the parts."""

    def __init__(self, seed: int, *, moving: bool = False) -> None:
        super().__init__(seed, moving=moving)
        self.few = CheckedAllocator(2048, part=self.random.choice((1, 2, 5)))
        self.waiting: dict[int, tuple[str, Request]] = {}

    def ask(self, name: str, request: Request) -> Answer | None:
        """Ask, at times between two parts of something else."""
        core = self.few
        if core.has_work and self.random.random() < 0.5:
            self.go_on()
        answer: Answer | None = None
        try:
            answer = core.handle(self.sessions[name], request)
        except IoasidError as error:
            assert not isinstance(error, SessionEnded) or name not in self.sessions  # noqa: PT017
        if isinstance(answer, Waiting):
            self.waiting[answer.ticket] = name, request
        self.note()
        again = Allocator.restore(decode_snapshot(encode(core.snapshot())))
        assert core.snapshot() == again.snapshot()
        return answer

    def go_on(self) -> None:
        """Do one part."""
        self.few.handle(0, Continue())
        self.note()

    def note(self) -> None:
        """Note what came of it, and ask again what is to be asked again."""
        effects = self.few.drain()
        note(self.told, effects)
        for each in effects:
            if isinstance(each, Complete) and isinstance(each.answer, SetExport):
                self.exported = each.answer
            if isinstance(each, AskAgain):
                name, request = self.waiting.pop(each.ticket)
                if name in self.sessions:
                    self.ask(name, request)

    def deal(self, name: str) -> None:
        """Acknowledge the first messages of a subscription."""
        mine = self.numbers.get(name, {})
        if mine:
            number = self.random.choice(sorted(mine.values()))
            for seq in self.told.pop(number, [])[:3]:
                self.ask(name, Acknowledge(((number, seq),)))

    def end(self) -> None:
        """Let everybody go, and everything be freed."""
        core = self.few
        for name in ("kvm", "vdcm", "vtd"):
            self.ask("host", Evict(name))
            self.sessions.pop(name, None)
        for sid in range(80):
            self.ask("host", FreeSet(sid))
        self.finish()
        self.ask("host", CloseSession())
        self.finish()
        nothing_leaks(core)

    def finish(self) -> None:
        """Do all parts."""
        while self.few.has_work:
            self.go_on()


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_anything_may_come_between_parts(seed: int, moving: bool) -> None:
    """Every invariant holds between any two parts, every state restores, and nothing is left."""
    between = Between(seed, moving=moving)
    for _ in range(120):
        between.step()
    between.end()


# -- an allocator that takes the place of another ------------------------------------------------


def fall_back(driver: Driver, before: bytes, waits: dict[int, Request]) -> None:
    """Go on with the state of before, in place of what was decided since; who waits stays."""
    driver.collect()
    again = Allocator.restore(decode_snapshot(before))
    again.take_place_of(driver.core, waits)
    assert before == encode(again.snapshot())
    driver.core = again
    driver.effects.clear()
    driver.collect()


def now(driver: Driver) -> bytes:
    """The state as it is kept."""
    return encode(driver.core.snapshot())


@pytest.mark.parametrize("more", [0, 3, 1000])
def test_a_set_that_is_freed_in_parts_again(driver: Driver, more: int) -> None:
    """However far it had come, whoever freed a set is answered once, when all is freed again."""
    bind_all(driver)
    request = FreeSet(0)
    ticket = expect(Waiting, driver.ask(request)).ticket
    before = now(driver)
    for _ in range(more):
        if driver.core.has_work:
            go_on(driver)
    fall_back(driver, before, {ticket: request})
    assert [] == driver.completed()
    assert 3 < finish(driver)
    assert [(ticket, Released(True))] == driver.completed()
    assert 0 == driver.figures().sets


@pytest.mark.parametrize("wait", [True, False])
def test_a_set_in_quarantine_that_is_freed_again(driver: Driver, wait: bool) -> None:
    """With `wait` the answer comes with the last reclaim, and without with the last part."""
    kvm = driver.subscribe("kvm", kinds=BINDING, hold=True, queue_size=1000)
    request = FreeSet(0, wait=wait)
    ticket = expect(Waiting, driver.ask(request)).ticket
    before = now(driver)
    finish(driver)
    fall_back(driver, before, {ticket: request})
    finish(driver)
    assert ([] if wait else [(ticket, Released(False))]) == driver.completed()
    driver.ask(Unsubscribe(kvm), "kvm")
    finish(driver)
    assert [(ticket, Released(wait))] == driver.completed()
    assert {} == driver.core._tables.waiters


@pytest.mark.parametrize("late", [True, False])
def test_giving_up_what_is_done_again(driver: Driver, late: bool) -> None:
    """Who gives up before or behind the last part is not answered, and all is freed."""
    kvm = driver.subscribe("kvm", kinds=BINDING, hold=True, queue_size=1000)
    request = FreeSet(0, wait=True)
    ticket = expect(Waiting, driver.ask(request)).ticket
    fall_back(driver, now(driver), {ticket: request})
    if late:
        finish(driver)
    driver.core.handle(0, Abandon(ticket))
    finish(driver)
    driver.ask(Unsubscribe(kvm), "kvm")
    finish(driver)
    assert [] == driver.completed()
    assert ({}, {}) == (driver.core._tables.waiters, driver.core._tables.resumed)
    assert 0 == driver.figures().sets


def test_one_id_is_waited_for_whatever_work_is_left(driver: Driver) -> None:
    """Who waits for one ID is answered with its reclaim, and not by its next life."""
    other = driver.set("vm-2", 8)
    ioasid = driver.alloc(other)
    driver.ask(Get(ioasid), "dsa")
    bind_all(driver)
    request = Free(ioasid, wait=True)
    ticket = expect(Waiting, driver.ask(request)).ticket
    many = expect(Waiting, driver.ask(FreeSet(0))).ticket
    fall_back(driver, now(driver), {ticket: request, many: FreeSet(0)})
    driver.ask(Put(ioasid), "dsa")
    assert [(ticket, Released(True))] == driver.completed()
    assert ioasid == driver.alloc(other)
    driver.ask(Get(ioasid), "dsa")
    driver.ask(Free(ioasid))
    finish(driver)
    assert [(ticket, Released(True)), (many, Released(True))] == driver.completed()


def test_many_that_are_freed_again(driver: Driver) -> None:
    """The answer is of the IDs that were asked for, whatever else of the set is in quarantine."""
    for ioasid in (1000, 1001, 1031):
        driver.ask(Get(ioasid), "dsa")
    bind_all(driver)
    for ioasid in (1000, 1031):
        driver.ask(Free(ioasid))
    requests = [
        FreeMany(0, (IoasidRange(1002, 1030), IoasidRange(1032, 1063))),
        FreeMany(0, (IoasidRange(1001, 1001), IoasidRange(1003, 1062)), missing_ok=True),
    ]
    waits: dict[int, Request] = {}
    for request in requests:
        waits[expect(Waiting, driver.ask(request)).ticket] = request
    fall_back(driver, now(driver), waits)
    finish(driver)
    assert [Released(True), Released(False)] == [answer for _, answer in driver.completed()]
    assert [1000, 1001, 1031] == pending(driver)


def test_a_holder_that_is_evicted_again(driver: Driver) -> None:
    """Whoever evicted it is answered when its references are dropped."""
    for ioasid in IOASIDS:
        driver.ask(Get(ioasid), "vdcm")
    ticket = expect(Waiting, driver.ask(Evict("vdcm"))).ticket
    before = now(driver)
    go_on(driver)
    fall_back(driver, before, {ticket: Evict("vdcm")})
    assert [] == driver.completed()
    assert 3 < finish(driver)
    assert [(ticket, Done())] == driver.completed()
    assert all(explained(driver, ioasid) == [] for ioasid in IOASIDS)


def test_an_export_is_asked_for_again(driver: Driver) -> None:
    """It changed nothing, so there is nothing to go on with."""
    bind_all(driver)
    freeze(driver)
    ticket = expect(Waiting, driver.ask(ExportSet(0))).ticket
    fall_back(driver, now(driver), {ticket: ExportSet(0)})
    assert [AskAgain(ticket)] == driver.effects


def test_a_freeze_and_a_thaw_that_are_decided_again(driver: Driver) -> None:
    """Each is answered once, as it went."""
    bind_all(driver)
    freezing = expect(Waiting, driver.ask(FreezeSet(0))).ticket
    fall_back(driver, now(driver), {freezing: FreezeSet(0)})
    assert 3 < finish(driver)
    assert [(freezing, Frozen(0, True))] == driver.completed()
    thawing = expect(Waiting, driver.ask(ThawSet(0))).ticket
    fall_back(driver, now(driver), {thawing: ThawSet(0)})
    assert 3 < finish(driver)
    assert [(thawing, Done())] == driver.completed()


def test_others_free_what_is_left_again(driver: Driver) -> None:
    """Work that ends with somebody else's request answers who was taken over, too."""
    bind_all(driver)
    request = FreeSet(0)
    ticket = expect(Waiting, driver.ask(request)).ticket
    fall_back(driver, now(driver), {ticket: request})
    for ioasid in left(driver):
        driver.ask(Free(ioasid))
    assert not driver.core.has_work
    assert [(ticket, Released(True))] == driver.completed()
