"""The life cycle of an IOASID: free, quarantine, waiting, reclaim, and what outlives them."""

from collections.abc import Callable
from typing import Any

import pytest

from ioasid.core import (
    Abandon,
    AdjustSet,
    Alloc,
    Allocated,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CapacityRecord,
    CloseSession,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeSet,
    Get,
    InvalidArgument,
    IoasidFreePending,
    IoasidState,
    ListSet,
    NoSpid,
    Notify,
    Priority,
    Put,
    QuotaExceeded,
    Released,
    Request,
    ReserveCapacity,
    SetFreePending,
    SetRecord,
    SetState,
    SpidInUse,
    SuspendSession,
    TokenInUse,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
    Unsubscribe,
    Waiting,
    WouldDeadlock,
)
from tests.core.helpers import Driver, expect, refused
from tests.core.invariants import unchanged

RequestOf = Callable[[int], Request]
FREE_KINDS = frozenset((EventKind.FREE, EventKind.RECLAIM))


@pytest.fixture
def driver() -> Driver:
    """An allocator with a set, number 0, of quota 16 and token vm-1."""
    driver = Driver()
    driver.set()
    return driver


# -- free and the quarantine ------------------------------------------------------------------


def test_free_reclaims_at_once(driver: Driver) -> None:
    """With no subscriber and no reference, a free reclaims at once and says so."""
    ioasid = driver.alloc()
    assert driver.free(ioasid)
    driver.refused(UnknownIoasid, Find(ioasid), ioasid=ioasid)
    assert ioasid == driver.alloc()


def test_free_of_a_bound_id_reclaims_at_once(driver: Driver) -> None:
    """A binding is no reference: a bound ID that nobody holds goes, and its spid with it."""
    ioasid = driver.bound(spid=7)
    assert driver.free(ioasid)
    driver.refused(UnknownSpid, FindBySpid(0, 7), sid=0, spid=7)


def test_a_reference_keeps_the_id_in_quarantine(driver: Driver) -> None:
    """A freed ID stays FREE_PENDING until the last reference is put, which reclaims it."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    driver.ask(Get(ioasid), "vtd")
    driver.ask(Get(ioasid), "vtd")
    assert not driver.free(ioasid)
    record = driver.find(ioasid)
    assert (IoasidState.FREE_PENDING, {"kvm": 1, "vtd": 2}, 3) == (
        record.state,
        record.references,
        record.reference_count,
    )
    assert Released(False) == driver.ask(Put(ioasid), "vtd")
    assert Released(False) == driver.ask(Put(ioasid), "kvm")
    assert Released(True) == driver.ask(Put(ioasid), "vtd")
    driver.refused(UnknownIoasid, Find(ioasid))


def test_an_unacknowledged_free_keeps_the_id_in_quarantine(driver: Driver) -> None:
    """An ID that nobody references waits for every subscriber to acknowledge its FREE."""
    kvm = driver.subscribe("kvm", kinds=FREE_KINDS)
    vtd = driver.subscribe("vtd", kinds=FREE_KINDS)
    ioasid = driver.alloc()
    assert not driver.free(ioasid)
    driver.acknowledge(kvm, driver.last(kvm).seq, "kvm")
    assert IoasidState.FREE_PENDING is driver.find(ioasid).state
    driver.acknowledge(vtd, driver.last(vtd).seq, "vtd")
    driver.refused(UnknownIoasid, Find(ioasid))
    assert [("FREE", ioasid), ("RECLAIM", ioasid)] == driver.shown(kvm)


def test_free_is_sent_once(driver: Driver) -> None:
    """There is one FREE per life, whoever frees how often; each later free is a no-op."""
    kvm = driver.subscribe("kvm", sid=0, kinds=FREE_KINDS)
    ioasid = driver.alloc()
    for _ in range(3):
        assert not driver.free(ioasid)
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    assert [("FREE", ioasid)] == driver.shown(kvm)
    driver.finish(kvm, "kvm")
    assert [("FREE", ioasid), ("RECLAIM", ioasid)] == driver.shown(kvm)
    driver.refused(UnknownIoasid, Free(ioasid))


def test_quarantine_refuses_everything_but_put_and_find(driver: Driver) -> None:
    """A freed ID takes no reference, bind, data or notification; put, find and free work."""
    ioasid = driver.bound(spid=5)
    driver.ask(AttachData(ioasid, "mine"))
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    for request in (
        Get(ioasid),
        Get(ioasid, 0),
        AttachSpid(ioasid, 9),
        AttachData(ioasid, 1),
        DetachData(ioasid),
        FindBySpid(0, 5, get=True),
        Notify(ioasid, EventKind.BIND),
    ):
        driver.refused(IoasidFreePending, request, ioasid=ioasid)
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, 5))
    assert (5, "mine", {"host": 1}, 1) == (
        driver.find(ioasid).spid,
        driver.find(ioasid).data,
        driver.find(ioasid).references,
        driver.find(ioasid).reference_count,
    )
    assert Released(True) == driver.ask(Put(ioasid))


def test_quarantine_counts_against_the_quota(driver: Driver) -> None:
    """An ID in quarantine is of its set's quota, and not allocated again."""
    sid = driver.set("vm-2", 1)
    ioasid = driver.alloc(sid)
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    driver.refused(QuotaExceeded, Alloc(sid), sid=sid, quota=1, allocated=1, asked=1)
    assert ioasid != driver.alloc(0)
    driver.ask(Put(ioasid))
    assert ioasid == driver.alloc(sid)


def test_an_event_on_its_way_keeps_the_id_in_quarantine(driver: Driver) -> None:
    """A BIND that a lower tier has yet to be told of comes before the RECLAIM, FREE or none."""
    kinds = frozenset((EventKind.BIND, EventKind.RECLAIM))
    cpu = driver.subscribe("cpu", kinds=kinds, priority=Priority.CPU)
    device = driver.subscribe("device", kinds=kinds, priority=Priority.DEVICE)
    ioasid = driver.bound()
    assert not driver.free(ioasid)
    assert [] == driver.shown(device)
    driver.finish(cpu, "cpu")
    assert [("BIND", ioasid), ("RECLAIM", ioasid)] == driver.shown(device)


def test_a_grant_keeps_the_id_in_quarantine(driver: Driver) -> None:
    """With FREE acknowledged, the grant still waits for the UNBIND that ends its binding."""
    kinds = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))
    kvm = driver.subscribe("kvm", kinds=kinds, hold=True)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    assert not driver.free(ioasid)
    driver.acknowledge(kvm, driver.seqs(kvm)[EventKind.FREE], "kvm")
    assert {"kvm": 1} == driver.find(ioasid).references
    driver.acknowledge(kvm, driver.seqs(kvm)[EventKind.UNBIND], "kvm")
    driver.refused(UnknownIoasid, Find(ioasid))


def test_reclaim_is_sent_when_the_id_is_back(driver: Driver) -> None:
    """RECLAIM comes with the ID's last reference, and from then on it is handed out again."""
    kvm = driver.subscribe("kvm", sid=0, kinds=frozenset((EventKind.RECLAIM, EventKind.ALLOC)))
    ioasid = driver.alloc()
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    assert [("ALLOC", ioasid)] == driver.shown(kvm)
    driver.ask(Put(ioasid))
    assert [("ALLOC", ioasid), ("RECLAIM", ioasid)] == driver.shown(kvm)
    driver.alloc()
    assert ("ALLOC", ioasid) == driver.shown(kvm)[-1]


def test_free_with_a_put_of_another_holder(driver: Driver) -> None:
    """A holder's put drops its own reference only, never that of the set or of another."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    assert Released(False) == driver.ask(Put(ioasid), "kvm")
    assert 1 == driver.find(ioasid).reference_count
    assert IoasidState.ACTIVE is driver.find(ioasid).state


# -- unbinding around a free ------------------------------------------------------------------


def test_unbind_after_free_is_silent(driver: Driver) -> None:
    """Once FREE was sent, a detach works, sends no UNBIND and gives the spid back."""
    kvm = driver.subscribe("kvm", sid=0)
    ioasid = driver.bound(spid=5)
    driver.free(ioasid)
    other = driver.alloc()
    driver.refused(SpidInUse, AttachSpid(other, 5), sid=0, spid=5, ioasid=ioasid)
    before = len(driver.messages(kvm))
    assert Done() == driver.ask(DetachSpid(ioasid))
    assert before == len(driver.messages(kvm))
    assert Done() == driver.ask(AttachSpid(other, 5))
    driver.refused(NoSpid, DetachSpid(ioasid), ioasid=ioasid)
    driver.finish(kvm, "kvm")
    assert "UNBIND" not in [kind for kind, _ in driver.shown(kvm)]


def test_unbind_after_reclaim_finds_nothing(driver: Driver) -> None:
    """An unbind that comes after the reclaim says ENOENT, and touches nobody's ID."""
    ioasid = driver.bound(spid=5)
    driver.free(ioasid)
    driver.refused(UnknownIoasid, DetachSpid(ioasid, 0), ioasid=ioasid)
    other = driver.bound(spid=5)
    assert ioasid == other
    assert Allocated(other, 2) == driver.ask(FindBySpid(0, 5))


def test_a_second_life_knows_nothing_of_the_first(driver: Driver) -> None:
    """Data, spid and references end with the life of an ID."""
    ioasid = driver.bound(spid=5)
    driver.ask(AttachData(ioasid, 1))
    driver.ask(Get(ioasid))
    driver.free(ioasid)
    driver.ask(Put(ioasid))
    assert ioasid == driver.alloc()
    record = driver.find(ioasid)
    assert (None, None, {}, 1) == (
        record.spid,
        record.data,
        record.references,
        record.reference_count,
    )


# -- freeing a whole set ----------------------------------------------------------------------


def test_free_set_destroys(driver: Driver) -> None:
    """With its last ID the set goes, its quota, its token and its number with it."""
    ioasids = [driver.alloc() for _ in range(3)]
    driver.ask(AttachData(ioasids[0], "data"))
    assert Released(True) == driver.ask(FreeSet(0))
    driver.refused(UnknownSet, ListSet(0), sid=0)
    driver.refused(UnknownSet, FreeSet(0), sid=0)
    driver.refused(UnknownToken, FindSet("vm-1"), token="vm-1")
    assert CapacityRecord(64, 64, 0, 1) == driver.ask(ReserveCapacity(None))
    assert 0 == driver.figures().sets


def test_free_set_of_an_empty_set(driver: Driver) -> None:
    """A set without an ID is destroyed at once, and stays if that was not asked for."""
    assert Released(True) == driver.ask(FreeSet(0, destroy=False))
    assert 1 == driver.figures().sets
    assert Released(True) == driver.ask(FreeSet(0, destroy=True, wait=True))
    assert 0 == driver.figures().sets


def test_a_set_being_destroyed_takes_nothing(driver: Driver) -> None:
    """While its last IDs are in quarantine, the set allocates nothing and its quota stands."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid))
    assert Released(False) == driver.ask(FreeSet(0))
    driver.refused(SetFreePending, Alloc(0), sid=0)
    driver.refused(SetFreePending, AdjustSet(0, 5), sid=0)
    driver.refused(TokenInUse, AllocSet("vm-1", 1), token="vm-1", sid=0)
    record = expect(SetRecord, driver.ask(FindSet("vm-1")))
    assert (SetState.FREE_PENDING, 16, 1) == (record.state, record.quota, record.allocated)
    assert (1, 1) == (driver.figures().sets, driver.figures().sets_free_pending)
    assert 47 == driver.figures().available
    driver.ask(Put(ioasid))
    assert (0, 63) == (driver.figures().sets, driver.figures().available)
    assert 1 == driver.set("vm-1", 63)


def test_free_set_without_destroy_stays_usable(driver: Driver) -> None:
    """Without destroy the set allocates at once, beside what is still in quarantine."""
    held = driver.alloc()
    driver.alloc()
    driver.ask(Get(held))
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    assert held + 1 == driver.alloc()
    assert IoasidState.FREE_PENDING is driver.find(held).state
    driver.ask(Put(held))
    assert (1, 1) == (driver.figures().sets, driver.figures().active)
    assert 47 == driver.figures().available


def test_a_second_free_set_is_fine(driver: Driver) -> None:
    """A set may be freed again, to stay first and to go later, and not the other way round."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid))
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    assert Released(False) == driver.ask(FreeSet(0, destroy=True))
    assert Released(False) == driver.ask(FreeSet(0, destroy=True))
    assert Released(False) == driver.ask(FreeSet(0, destroy=False))
    driver.refused(SetFreePending, Alloc(0))
    driver.ask(Put(ioasid))
    driver.refused(UnknownSet, ListSet(0))


def test_free_set_tells_every_subscriber_lowest_first(driver: Driver) -> None:
    """Each ID of a freed set has its own FREE and RECLAIM; IDs do not wait for each other."""
    kvm = driver.subscribe("kvm", token="vm-1", kinds=FREE_KINDS)
    ioasids = [driver.alloc() for _ in range(3)]
    driver.ask(FreeSet(0))
    assert [("FREE", each) for each in ioasids] == driver.shown(kvm)
    driver.acknowledge(kvm, driver.messages(kvm)[1].seq, "kvm")
    assert ("RECLAIM", ioasids[1]) == driver.shown(kvm)[-1]
    driver.finish(kvm, "kvm")
    assert [("RECLAIM", each) for each in (ioasids[0], ioasids[2])] == driver.shown(kvm)[-2:]
    assert 0 == driver.figures().sets


def test_free_set_of_plain_ids(driver: Driver) -> None:
    """Two events are counted for every ID, told or not, and the lowest is the next again."""
    ioasids = [driver.alloc() for _ in range(3)]
    seq = driver.figures().seq
    assert Released(True) == driver.ask(FreeSet(0, destroy=False))
    assert seq + 2 * len(ioasids) == driver.figures().seq
    assert ioasids[0] == driver.alloc()


@pytest.mark.parametrize("kind", [EventKind.FREE, EventKind.RECLAIM])
def test_free_set_tells_who_wants_one_kind(driver: Driver, kind: EventKind) -> None:
    """A subscriber to FREE or to RECLAIM alone is told it of every ID."""
    kvm = driver.subscribe("kvm", kinds=frozenset({kind}))
    ioasids = [driver.alloc() for _ in range(2)]
    driver.ask(FreeSet(0))
    driver.finish(kvm, "kvm")
    assert [(kind.value, each) for each in ioasids] == driver.shown(kvm)


def test_what_one_step_sets_free_goes_lowest_first(driver: Driver) -> None:
    """IDs that a leaving subscriber held up are reclaimed in order, however they were freed."""
    kvm = driver.subscribe("kvm", kinds=FREE_KINDS)
    vtd = driver.subscribe("vtd", kinds=frozenset({EventKind.RECLAIM}))
    first, second = driver.alloc(), driver.alloc()
    driver.free(second)
    driver.free(first)
    driver.ask(Unsubscribe(kvm), "kvm")
    assert [("RECLAIM", first), ("RECLAIM", second)] == driver.shown(vtd)


def test_the_system_set_goes_like_any_other() -> None:
    """The host's own set is destroyed with its last ID and may be made again."""
    driver = Driver()
    sid = expect(SetRecord, driver.ask(AllocSystemSet(4))).sid
    driver.alloc(sid)
    assert Released(True) == driver.ask(FreeSet(sid))
    assert expect(SetRecord, driver.ask(AllocSystemSet(4))).system


# -- waiting ----------------------------------------------------------------------------------


def test_wait_for_one_id(driver: Driver) -> None:
    """A waiting free answers when the ID is reclaimed, with the ticket it was given."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(Free(ioasid, wait=True))
    assert Waiting(2) == driver.ask(Free(ioasid, 0, wait=True), "vfio")
    assert [] == driver.completed()
    driver.ask(Put(ioasid), "kvm")
    assert [(1, Released(True)), (2, Released(True))] == driver.completed()


def test_wait_with_nothing_to_wait_for(driver: Driver) -> None:
    """A waiting free of what is reclaimed at once answers at once."""
    assert Released(True) == driver.ask(Free(driver.alloc(), wait=True))
    driver.alloc()
    assert Released(True) == driver.ask(FreeSet(0, wait=True))
    assert [] == driver.completed()


def test_wait_for_a_whole_set(driver: Driver) -> None:
    """A waiting free_set answers once, when the last of its IDs is reclaimed."""
    ioasids = [driver.alloc() for _ in range(3)]
    for ioasid in ioasids[1:]:
        driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(FreeSet(0, wait=True))
    driver.ask(Put(ioasids[2]), "kvm")
    assert [] == driver.completed()
    driver.ask(Put(ioasids[1]), "kvm")
    assert [(1, Released(True))] == driver.completed()
    assert 0 == driver.figures().sets


def test_wait_for_a_set_that_stays(driver: Driver) -> None:
    """Waiting for a set that stays waits for what was freed, and not for what came later."""
    held = driver.alloc()
    driver.ask(Get(held), "kvm")
    assert Waiting(1) == driver.ask(FreeSet(0, destroy=False, wait=True))
    driver.ask(Get(driver.alloc()), "kvm")
    driver.ask(Put(held), "kvm")
    assert [(1, Released(True))] == driver.completed()


def test_giving_up_cancels_nothing(driver: Driver) -> None:
    """Who gives up waiting gets no answer, and what it asked for happens all the same."""
    ioasids = [driver.alloc(), driver.alloc()]
    for ioasid in ioasids:
        driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(FreeSet(0, wait=True))
    driver.ask(Put(ioasids[0]), "kvm")
    for _ in range(2):
        driver.core.handle(0, Abandon(1))
    driver.collect()
    driver.ask(Put(ioasids[1]), "kvm")
    assert [] == driver.completed()
    assert 0 == driver.figures().sets


def test_every_wait_has_a_number_of_its_own(driver: Driver) -> None:
    """Waits are numbered from 1 on, whoever waits, and no number is given again."""
    ioasids = [driver.alloc() for _ in range(3)]
    for ioasid in ioasids:
        driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(Free(ioasids[0], wait=True))
    driver.ask(Put(ioasids[0]), "kvm")
    assert Waiting(2) == driver.ask(Free(ioasids[1], wait=True), "vfio")
    driver.core.handle(0, Abandon(2))
    assert Waiting(3) == driver.ask(FreeSet(0, wait=True))
    for ioasid in ioasids[1:]:
        driver.ask(Put(ioasid), "kvm")
    assert [(1, Released(True)), (3, Released(True))] == driver.completed()


def test_a_refused_wait_has_no_number(driver: Driver) -> None:
    """What is refused, or answered at once, uses none up."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    driver.refused(WouldDeadlock, Free(ioasid, wait=True), "kvm")
    driver.ask(Free(driver.alloc(), wait=True))
    assert Waiting(1) == driver.ask(Free(ioasid, wait=True))


@pytest.mark.parametrize("ticket", [-1, 2**64, None, "1", True, []])
def test_a_ticket_is_checked(driver: Driver, ticket: Any) -> None:
    """EINVAL: a ticket that is no number."""
    refused(driver.core, InvalidArgument, Abandon(ticket), 0, argument="ticket")


def test_abandon_of_an_unknown_ticket(driver: Driver) -> None:
    """Giving up what nobody waits for is nothing."""
    before = driver.core.snapshot()
    assert Done() == driver.core.handle(0, Abandon(99))
    unchanged(before, driver.core)


@pytest.mark.parametrize(
    "request_of", [lambda i: Free(i, wait=True), lambda _: FreeSet(0, wait=True)]
)
class TestWaitingForOneself:
    """EDEADLK: who has to do something itself may not wait for the result."""

    def test_own_reference(self, driver: Driver, request_of: RequestOf) -> None:
        """Who holds a reference would wait for its own put."""
        ioasid = driver.alloc()
        driver.ask(Get(ioasid), "kvm")
        driver.refused(WouldDeadlock, request_of(ioasid), "kvm", holder="kvm", ioasid=ioasid)
        assert IoasidState.ACTIVE is driver.find(ioasid).state
        assert Waiting(1) == driver.ask(request_of(ioasid), "vfio")
        driver.refused(WouldDeadlock, request_of(ioasid), "kvm", holder="kvm", ioasid=ioasid)

    def test_own_grant(self, driver: Driver, request_of: RequestOf) -> None:
        """Who was granted a binding would wait for its own acknowledgement."""
        cpu = driver.subscribe("cpu", kinds=FREE_KINDS, priority=Priority.CPU)
        driver.subscribe("kvm", sid=0, hold=True)
        ioasid = driver.bound()
        driver.refused(WouldDeadlock, request_of(ioasid), "kvm", holder="kvm", ioasid=ioasid)
        driver.free(ioasid)
        driver.finish(cpu, "cpu")
        driver.refused(WouldDeadlock, request_of(ioasid), "kvm", holder="kvm", ioasid=ioasid)

    def test_own_acknowledgement_to_come(self, driver: Driver, request_of: RequestOf) -> None:
        """Who will be told of the FREE would wait for its own acknowledgement of it."""
        driver.subscribe("kvm", token="vm-1", kinds=FREE_KINDS)
        ioasid = driver.alloc()
        driver.refused(WouldDeadlock, request_of(ioasid), "kvm", holder="kvm", ioasid=ioasid)

    def test_own_acknowledgement_outstanding(self, driver: Driver, request_of: RequestOf) -> None:
        """Who was told of the FREE, or will be in a lower tier, has to acknowledge it first."""
        kvm = driver.subscribe("kvm", kinds=FREE_KINDS, priority=Priority.CPU)
        vdcm = driver.subscribe("vdcm", kinds=FREE_KINDS, priority=Priority.DEVICE)
        vtd = driver.subscribe("vtd", kinds=FREE_KINDS, priority=Priority.LAST)
        ioasid = driver.alloc()
        driver.free(ioasid)
        for name in ("kvm", "vdcm", "vtd"):
            driver.refused(WouldDeadlock, request_of(ioasid), name, holder=name, ioasid=ioasid)
        driver.finish(kvm, "kvm")
        assert Waiting(1) == driver.ask(request_of(ioasid), "kvm")
        driver.refused(WouldDeadlock, request_of(ioasid), "vdcm", holder="vdcm", ioasid=ioasid)
        driver.finish(vdcm, "vdcm")
        assert Waiting(2) == driver.ask(request_of(ioasid), "vdcm")
        driver.finish(vtd, "vtd")
        assert [(1, Released(True)), (2, Released(True))] == driver.completed()


def test_own_acknowledgement_among_others(driver: Driver) -> None:
    """That others have to acknowledge the FREE, too, makes nobody wait for itself."""
    for name in ("kvm", "vdcm"):
        driver.subscribe(name, kinds=FREE_KINDS)
    ioasid = driver.alloc()
    driver.free(ioasid)
    driver.refused(WouldDeadlock, Free(ioasid, wait=True), "kvm", holder="kvm", ioasid=ioasid)


def test_others_may_wait(driver: Driver) -> None:
    """Subscriptions to something else keep nobody from waiting."""
    driver.subscribe("vfio", kinds=frozenset((EventKind.RECLAIM, EventKind.ALLOC)))
    driver.subscribe("vfio", token="another", kinds=FREE_KINDS)
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(Free(ioasid, wait=True), "vfio")


@pytest.mark.parametrize("way", ["close", "evict", "put"])
def test_what_ends_a_wait(driver: Driver, way: str) -> None:
    """A wait ends however the last reference goes: put, its holder leaving, or its eviction."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    assert Waiting(1) == driver.ask(Free(ioasid, wait=True))
    match way:
        case "close":
            driver.ask(CloseSession(), "kvm")
        case "evict":
            driver.ask(SuspendSession(), "kvm")
            assert [] == driver.completed()
            driver.ask(Evict("kvm"))
        case _:
            driver.ask(Put(ioasid), "kvm")
    assert [(1, Released(True))] == driver.completed()


def test_unsubscribing_ends_a_wait(driver: Driver) -> None:
    """A subscriber that leaves acknowledges its FREEs with that."""
    kvm = driver.subscribe("kvm", kinds=FREE_KINDS)
    ioasid = driver.alloc()
    assert Waiting(1) == driver.ask(Free(ioasid, wait=True))
    driver.ask(Unsubscribe(kvm), "kvm")
    assert [(1, Released(True))] == driver.completed()
    driver.refused(UnknownIoasid, FindSid(ioasid))
