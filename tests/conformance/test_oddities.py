"""What went wrong in the kernel series, and does not here: a test for every row of the page."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

from ioasid.actors import Decision, Session, Subscription, open_allocator
from ioasid.core import (
    INVALID_IOASID,
    AdjustSet,
    Alloc,
    Allocated,
    Allocator,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AlreadyBound,
    AlreadySubscribed,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityExhausted,
    CapacityInUse,
    CapacityRecord,
    Deliver,
    DetachData,
    DetachSpid,
    Event,
    EventKind,
    Find,
    FindBySpid,
    FindSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    InvalidArgument,
    IoasidFreePending,
    IoasidState,
    Listing,
    ListSet,
    Notify,
    NotOfThisSet,
    NotReferenced,
    NotReserved,
    Put,
    QuotaBelowUse,
    QuotaExceeded,
    RangeFull,
    Released,
    Request,
    ReserveCapacity,
    SetFreePending,
    SetRecord,
    SpidInUse,
    StaleIoasid,
    Subscribe,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
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
    IOMMU,
    RECLAIM,
    UNBIND,
    Driver,
    expect,
)

PAGE = Path(__file__).parents[2] / "docs" / "oddities.md"


@pytest.fixture
def driver() -> Driver:
    """An allocator of 64 IDs with two sets of 16: 0 with the token vm-1, and 1 with vm-2."""
    driver = Driver(reserve_zero=False)
    driver.set("vm-1")
    driver.set("vm-2")
    return driver


def test_the_page_names_these_tests() -> None:
    """The page has a row for every test below, in the same order, and for no other."""
    _, *tests = (name for name in globals() if name.startswith("test_"))
    rows = re.findall(r"^\|.*\| `(test_\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert tests == rows


async def taken(host: Session, events: Subscription) -> EventKind | None:
    """The kind of the next event, if one is there when all that was asked before is decided."""
    await host.statistics()
    message = events.take()
    return None if message is None else expect(Event, message).kind


# -- capacity and quotas ----------------------------------------------------------------------


def test_the_quota_of_a_destroyed_set_comes_back(driver: Driver) -> None:
    """A set's quota is available again when its last ID is reclaimed, and not before."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "vdcm")
    assert Released(False) == driver.ask(FreeSet(0))
    assert 32 == driver.figures().available
    assert Released(True) == driver.ask(Put(ioasid), "vdcm")
    assert 48 == driver.figures().available


def test_sets_can_be_made_while_capacity_is_left() -> None:
    """As many sets as there is capacity, whatever their numbers."""
    driver = Driver(4, reserve_zero=False)
    assert [0, 1, 2, 3] == [driver.set(f"vm-{number}", 1) for number in range(4)]
    driver.refused(CapacityExhausted, AllocSet("vm-4", 1), asked=1, available=0)


def test_no_set_has_a_quota_of_nothing(driver: Driver) -> None:
    """A quota is 1 or more, and all that is available is refused when that is nothing."""
    driver.refused(InvalidArgument, AllocSet("vm-3", 0), argument="quota")
    driver.refused(InvalidArgument, AdjustSet(0, 0), argument="quota")
    driver.ask(ReserveCapacity(None))
    for request in (AllocSet("vm-3"), AllocSystemSet(), ReserveCapacity(None)):
        driver.refused(CapacityExhausted, request, asked=1, available=0)
    assert 2 == driver.figures().sets


def test_the_capacity_stands_once_it_is_used(driver: Driver) -> None:
    """With a set or a reservation there, the capacity is not installed again."""
    driver.refused(CapacityInUse, InstallCapacity(1024), capacity=64)
    reserved = Driver(reserve_zero=False)
    reserved.ask(ReserveCapacity(1))
    reserved.refused(CapacityInUse, InstallCapacity(1024), capacity=64)


def test_the_largest_amounts_count_exactly() -> None:
    """Amounts above 2^31 are what they say, and nobody gives back what was not taken."""
    everything = 2**32 - 1
    driver = Driver(everything, reserve_zero=False)
    much = 2**31 + 1
    rest = everything - much
    assert CapacityRecord(everything, much, rest, 0) == driver.ask(ReserveCapacity(much))
    driver.refused(CapacityExhausted, ReserveCapacity(much), asked=much, available=rest)
    driver.refused(NotReserved, CancelCapacity(everything), asked=everything, reserved=much)
    assert CapacityRecord(everything, 0, everything, 0) == driver.ask(CancelCapacity(much))


def test_the_capacity_bounds_the_ids() -> None:
    """No ID reaches the capacity, so that a table of that size is large enough."""
    driver = Driver(4, reserve_zero=False)
    driver.set(quota=None)
    driver.refused(InvalidArgument, Alloc(0, max=4), argument="max")
    driver.refused(InvalidArgument, Alloc(0, min=4), argument="min")
    assert [1, 2, 3] == [driver.alloc() for _ in range(3)]
    driver.refused(RangeFull, Alloc(0), low=1, high=3, count=1)
    assert Allocated(0, 4) == driver.ask(Alloc(0, min=0))


def test_a_refused_allocation_charges_nothing(driver: Driver) -> None:
    """However many allocations were refused, a set still gets its whole quota."""
    driver.alloc()
    for _ in range(20):
        driver.refused(RangeFull, Alloc(0, 1, 1), low=1, high=1, count=1)
        driver.refused(QuotaExceeded, AllocMany(0, 16), allocated=1, asked=16)
    assert [*range(2, 17)] == [driver.alloc() for _ in range(15)]


# -- sets -------------------------------------------------------------------------------------


def test_unsubscribing_leaves_the_set(driver: Driver) -> None:
    """An empty set stays when its subscriber goes, or one that was never there."""
    driver.refused(UnknownSubscription, Unsubscribe(1), subscription=1)
    kvm = driver.subscribe("kvm", sid=0)
    driver.refused(UnknownSubscription, Unsubscribe(kvm), subscription=kvm)
    driver.ask(Unsubscribe(kvm), "kvm")
    assert 1 == driver.alloc(0)


def test_a_set_being_freed_does_not_allocate(driver: Driver) -> None:
    """Nothing is allocated in a set that is marked for freeing, so it goes with its last ID."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "vdcm")
    driver.ask(FreeSet(0))
    driver.refused(SetFreePending, Alloc(0), sid=0)
    driver.refused(SetFreePending, AllocMany(0, 1), sid=0)
    driver.ask(Put(ioasid), "vdcm")
    driver.refused(UnknownSet, ListSet(0), sid=0)


def test_freeing_a_set_keeps_what_is_referenced(driver: Driver) -> None:
    """An ID of a freed set is found, and its spid taken, until its last reference is put."""
    ioasid = driver.bound(spid=101)
    driver.ask(Get(ioasid), "vdcm")
    driver.ask(FreeSet(0, destroy=False))
    assert {"vdcm": 1} == driver.find(ioasid).references
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, 101))
    other = driver.alloc()
    driver.refused(SpidInUse, AttachSpid(other, 101), sid=0, spid=101, ioasid=ioasid)
    driver.ask(Put(ioasid), "vdcm")
    driver.refused(UnknownIoasid, Find(ioasid), ioasid=ioasid)
    driver.bind(other, 101)


def test_a_free_need_not_name_the_set(driver: Driver) -> None:
    """A free without a set frees, and says whether the ID is reclaimed."""
    first, second = driver.alloc(), driver.alloc()
    assert Released(True) == driver.ask(Free(first))
    driver.ask(Get(second), "vdcm")
    assert Released(False) == driver.ask(Free(second))
    assert IoasidState.FREE_PENDING is driver.find(second).state


def test_a_set_that_is_gone_is_unknown(driver: Driver) -> None:
    """Whoever still has the number of a freed set reaches nothing with it."""
    stranger = driver.alloc(1)
    driver.ask(FreeSet(0))
    for request in (
        Alloc(0),
        AllocMany(0, 1),
        AdjustSet(0, 5),
        FreeSet(0),
        FindBySpid(0, 5),
        ListSet(0),
        Subscribe(sid=0),
    ):
        driver.refused(UnknownSet, request, sid=0)
    driver.set("vm-3")
    driver.refused(UnknownSet, Free(stranger, 0), sid=0)


def test_a_spid_is_bound_by_its_own_set(driver: Driver) -> None:
    """Who names its set neither binds nor unbinds an ID of another one."""
    ioasid = driver.alloc(0)
    driver.refused(NotOfThisSet, AttachSpid(ioasid, 101, sid=1), ioasid=ioasid, sid=1)
    driver.bind(ioasid, 101)
    driver.refused(NotOfThisSet, DetachSpid(ioasid, sid=1), ioasid=ioasid, sid=1)
    assert 101 == driver.find(ioasid).spid


# -- IDs --------------------------------------------------------------------------------------


def test_a_failed_allocation_leaves_nothing_behind(driver: Driver) -> None:
    """An allocation that fails, for whatever reason, hands out no ID and touches no live one."""
    driver.set("vm-3", 2)
    live = driver.alloc(2)
    for error, request in (
        (InvalidArgument, Alloc(2, data=object())),  # type: ignore[arg-type]
        (RangeFull, Alloc(2, live, live)),
        (RangeFull, AllocMany(2, 1, live, live)),
        (QuotaExceeded, AllocMany(2, 2)),
    ):
        driver.refused(error, request)
    listing = expect(Listing, driver.ask(ListSet(2)))
    assert [live] == [each.ioasid for each in listing]
    assert live + 1 == driver.alloc(2)


def test_the_invalid_id_is_never_allocated() -> None:
    """With every number there is as capacity, the last ID is 2^32-2; 2^32-1 is refused."""
    driver = Driver(INVALID_IOASID)
    driver.set(quota=None)
    driver.refused(InvalidArgument, Alloc(0, min=INVALID_IOASID), argument="min")
    driver.refused(InvalidArgument, Alloc(0, max=INVALID_IOASID), argument="max")
    assert Allocated(INVALID_IOASID - 1, 1) == driver.ask(Alloc(0, min=INVALID_IOASID - 1))
    driver.refused(InvalidArgument, Find(INVALID_IOASID), argument="ioasid")
    assert 1 == driver.figures().active


@pytest.mark.parametrize("sid", [None, 0, 7])
def test_an_unknown_id_is_the_same_everywhere(driver: Driver, sid: int | None) -> None:
    """ENOENT, from every request that names an ID, with or without a set."""
    requests: list[Request] = [
        Free(1, sid),
        Get(1, sid),
        Put(1, sid),
        Find(1, sid),
        FindSid(1),
        AttachData(1, 0, sid),
        DetachData(1, sid),
        AttachSpid(1, 101, sid),
        DetachSpid(1, sid),
        Notify(1, BIND, sid),
    ]
    codes = [driver.refused(UnknownIoasid, request, ioasid=1).code for request in requests]
    assert ["ENOENT"] * len(requests) == codes


def test_a_stale_number_does_not_hit_its_next_owner(driver: Driver) -> None:
    """A free or an unbind that comes late, by the life it means, touches nobody."""
    driver.free(driver.bound(spid=101))
    ioasid = driver.bound(1, spid=101)
    for request in (Free(ioasid, generation=1), DetachSpid(ioasid, generation=1)):
        driver.refused(StaleIoasid, request, ioasid=ioasid, generation=1, current=2)
    assert 101 == driver.find(ioasid).spid


# -- spids ------------------------------------------------------------------------------------


def test_nothing_is_found_by_the_invalid_spid(driver: Driver) -> None:
    """IDs that are not bound have no spid, least of all the invalid one, and are not found."""
    ioasid = driver.alloc()
    driver.refused(InvalidArgument, FindBySpid(0, INVALID_IOASID, get=True), argument="spid")
    driver.refused(InvalidArgument, AttachSpid(ioasid, INVALID_IOASID), argument="spid")
    assert {} == driver.find(ioasid).references


def test_an_id_being_freed_is_not_taken_by_its_spid(driver: Driver) -> None:
    """A lookup by spid takes no reference on an ID in quarantine; without one it still answers."""
    ioasid = driver.bound(spid=101)
    driver.ask(Get(ioasid), "kvm")
    driver.free(ioasid)
    driver.refused(IoasidFreePending, FindBySpid(0, 101, get=True), ioasid=ioasid)
    assert {"kvm": 1} == driver.find(ioasid).references
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, 101))


def test_binding_again_is_refused(driver: Driver) -> None:
    """A bound ID keeps its spid and its one BIND until it is unbound."""
    kvm = driver.subscribe("kvm", sid=0, kinds=BINDING)
    ioasid = driver.bound(spid=101)
    for spid in (101, 102):
        driver.refused(AlreadyBound, AttachSpid(ioasid, spid), ioasid=ioasid, spid=101)
    driver.refused(UnknownSpid, FindBySpid(0, 102), sid=0, spid=102)
    driver.unbind(ioasid)
    driver.bind(ioasid, 102)
    driver.finish(kvm, "kvm")
    told = [expect(Event, each) for each in driver.messages(kvm)]
    assert [(BIND, 101), (UNBIND, 101), (BIND, 102)] == [(each.kind, each.spid) for each in told]


def test_a_spid_is_found_in_one_step() -> None:
    """The lookup executes as many instructions among 1,000 bound IDs as among 10."""
    assert steps_to_find(10) == steps_to_find(1_000)


def steps_to_find(count: int) -> int:
    """The bytecode instructions that it takes to find the last of `count` bound IDs by spid."""
    core = Allocator(2_000)
    core.handle(core.session, AllocSet("vm-1"))
    core.handle(core.session, AllocMany(0, count))
    for ioasid in range(1, count + 1):
        core.handle(core.session, AttachSpid(ioasid, ioasid))
    steps = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = core.handle(core.session, FindBySpid(0, count))
    finally:
        sys.settrace(before)
    assert Allocated(count, 1) == found
    return steps


# -- references -------------------------------------------------------------------------------


def test_nobody_puts_the_reference_of_another(driver: Driver) -> None:
    """One put too many is refused, and the ID stays with those who hold it."""
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    driver.ask(Get(ioasid), "vdcm")
    driver.free(ioasid)
    assert Released(False) == driver.ask(Put(ioasid), "kvm")
    driver.refused(NotReferenced, Put(ioasid), "host", holder="host", ioasid=ioasid)
    driver.refused(NotReferenced, Put(ioasid), "kvm", holder="kvm", ioasid=ioasid)
    assert {"vdcm": 1} == driver.find(ioasid).references
    assert Released(True) == driver.ask(Put(ioasid), "vdcm")


@pytest.mark.anyio
async def test_a_reference_is_dropped_inside_a_callback() -> None:
    """KVM lets go within the allocator's own call, VDCM puts while it handles the FREE."""
    async with open_allocator() as host, host.session("kvm") as kvm, host.session("vdcm") as vdcm:
        vm = await host.alloc_set("vm-1", 8)
        seen: list[EventKind] = []

        def called() -> None:
            # Taking the next message acknowledges the one before: the FREE drops the grant.
            while isinstance(message := calls.take(), Event):
                seen.append(message.kind)

        calls = kvm.subscribe(priority=CPU, kinds=BINDING, hold=True, wake=called)
        async with calls, vdcm.subscribe(priority=DEVICE, kinds={FREE}) as events:
            ioasid = await host.alloc(vm.sid)
            await host.attach_spid(ioasid, 101)
            await vdcm.find_by_spid(vm.sid, 101, get=True)
            await host.free(ioasid)
            assert FREE is await taken(host, events)
            assert {"vdcm": 1} == (await vdcm.find(ioasid)).references
            assert not await vdcm.put(ioasid)
            assert None is await taken(host, events)
            assert ioasid == await host.alloc(vm.sid)
        assert [BIND, FREE] == seen


# -- notifications ----------------------------------------------------------------------------


def test_free_is_told_before_the_id_is_reclaimed(driver: Driver) -> None:
    """That one subscriber drops the last reference reclaims nothing under the next."""
    kvm = driver.subscribe("kvm", kinds=frozenset((FREE,)), priority=CPU)
    vtd = driver.subscribe("vtd", kinds=frozenset((FREE, RECLAIM)), priority=IOMMU)
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    driver.free(ioasid)
    assert Released(False) == driver.ask(Put(ioasid), "kvm")
    driver.finish(kvm, "kvm")
    assert [("FREE", ioasid)] == driver.shown(vtd)
    assert IoasidState.FREE_PENDING is driver.find(ioasid).state
    driver.finish(vtd, "vtd")
    assert [("FREE", ioasid), ("RECLAIM", ioasid)] == driver.shown(vtd)


def test_free_is_told_without_a_reference(driver: Driver) -> None:
    """The FREE of a bound ID that nobody holds goes to everybody who matches, with its spid."""
    kvm = driver.subscribe("kvm", sid=0, kinds=frozenset((FREE,)))
    ioasid = driver.bound(spid=101)
    assert 1 == driver.find(ioasid).reference_count
    driver.free(ioasid)
    assert (FREE, ioasid, 101) == (
        driver.last(kvm).kind,
        driver.last(kvm).ioasid,
        driver.last(kvm).spid,
    )


def test_one_subscriber_of_two_sets(driver: Driver) -> None:
    """A holder subscribes to two sets, is told of each in its own queue, and leaves one alone."""
    kinds = frozenset((ALLOC,))
    first, second = (driver.subscribe("vdcm", sid=sid, kinds=kinds) for sid in (0, 1))
    one, other = driver.alloc(0), driver.alloc(1)
    assert [("ALLOC", one)] == driver.shown(first)
    assert [("ALLOC", other)] == driver.shown(second)
    driver.ask(Unsubscribe(first), "vdcm")
    driver.alloc(0)
    third = driver.alloc(1)
    assert [("ALLOC", one)] == driver.shown(first)
    assert [("ALLOC", other), ("ALLOC", third)] == driver.shown(second)


def test_equal_priorities_are_called_in_order(driver: Driver) -> None:
    """Subscribers that waited for a set are told in the order in which they subscribed."""
    waiting = [
        driver.subscribe(name, token="vm-3", priority=CPU) for name in ("kvm", "vdcm", "vtd")
    ]
    sid = driver.set("vm-3")
    driver.bind(driver.alloc(sid))
    told = [
        (each.message.kind, number)
        for each in driver.effects
        if isinstance(each, Deliver) and isinstance(each.message, Event)
        for number in each.subscriptions
    ]
    assert [(kind, number) for kind in (ALLOC, BIND) for number in waiting] == told


def test_priorities_hold_across_scopes(driver: Driver) -> None:
    """The system-wide IOMMU driver, though first to subscribe, is told after the set's device."""
    kinds = frozenset((FREE,))
    vtd = driver.subscribe("vtd", kinds=kinds, priority=IOMMU)
    vdcm = driver.subscribe("vdcm", sid=0, kinds=kinds, priority=DEVICE)
    agent = driver.subscribe("agent", kinds=kinds, priority=CPU)
    ioasid = driver.alloc()
    driver.free(ioasid)
    told = [("FREE", ioasid)]
    assert [told, [], []] == [driver.shown(each) for each in (agent, vdcm, vtd)]
    driver.finish(agent, "agent")
    assert [told, told, []] == [driver.shown(each) for each in (agent, vdcm, vtd)]
    driver.finish(vdcm, "vdcm")
    assert [told, told, told] == [driver.shown(each) for each in (agent, vdcm, vtd)]


def test_a_token_is_joined_at_any_time(driver: Driver) -> None:
    """Who subscribes by the token of a set with IDs is shown them first, then told the rest."""
    ioasid = driver.bound(spid=101)
    kvm = driver.subscribe("kvm", token="vm-1", replay=True)
    assert [(ioasid, 101)] == [(each.ioasid, each.spid) for each in driver.resync(kvm)]
    driver.free(ioasid)
    assert [("Resync", 1), ("FREE", ioasid)] == driver.shown(kvm)


def test_subscribing_twice_is_refused(driver: Driver) -> None:
    """A second subscription to the same scope is an error, and the first goes on as it was."""
    kvm = driver.subscribe("kvm", token="vm-1", kinds=frozenset((ALLOC,)))
    driver.refused(AlreadySubscribed, Subscribe(token="vm-1"), "kvm", subscription=kvm)
    ioasid = driver.alloc()
    assert [("ALLOC", ioasid)] == driver.shown(kvm)


class Failed(Exception):
    """What goes wrong in a subscriber."""


async def fail_over_free(host: Session, ioasid: int, *, hold: bool) -> None:
    """Be KVM, see an ID bound and freed, and fail."""
    async with (
        host.session("kvm") as kvm,
        kvm.subscribe(kinds=BINDING, priority=CPU, hold=hold) as events,
    ):
        await host.attach_spid(ioasid, 101)
        assert BIND is await taken(host, events)
        await host.free(ioasid)
        assert FREE is await taken(host, events)
        raise Failed


@pytest.mark.anyio
@pytest.mark.parametrize("hold", [False, True])
async def test_a_failing_subscriber_stops_nobody(hold: bool) -> None:
    """Others are told FREE though one fails over it, those below when it is given up."""
    async with (
        open_allocator() as host,
        host.session("vdcm") as vdcm,
        host.session("vtd") as vtd,
        vdcm.subscribe(kinds={FREE}, priority=CPU) as beside,
        vtd.subscribe(kinds={FREE}, priority=IOMMU) as below,
    ):
        vm = await host.alloc_set("vm-1", 8)
        ioasid = await host.alloc(vm.sid)
        with pytest.raises(Failed):
            await fail_over_free(host, ioasid, hold=hold)
        assert FREE is await taken(host, beside)
        assert None is await taken(host, beside)
        if hold:
            # What it programmed may still be there, so the tiers below wait for a decision.
            assert None is await taken(host, below)
            await host.evict("kvm")
        assert FREE is await taken(host, below)
        assert None is await taken(host, below)
        assert 0 == (await host.statistics()).free_pending


# -- from the review of the first version ----------------------------------------------------


@pytest.mark.anyio
async def test_a_subscriber_may_sleep() -> None:
    """While the IOMMU driver sleeps over a FREE, others free and allocate, and nothing waits."""
    flushed = anyio.Event()

    async def tear_down(events: Subscription) -> None:
        async for _ in events:
            await flushed.wait()

    async with open_allocator() as host, host.session("vtd") as vtd:
        vm = await host.alloc_set("vm-1", 8)
        async with (
            anyio.create_task_group() as tasks,
            vtd.subscribe(kinds={FREE}, priority=IOMMU) as events,
        ):
            tasks.start_soon(tear_down, events)
            assert [1, 2] == [await host.alloc(vm.sid) for _ in range(2)]
            with anyio.fail_after(5):
                assert [False, False] == [await host.free(ioasid) for ioasid in (1, 2)]
            await anyio.wait_all_tasks_blocked()
            assert [3, 4] == [await host.alloc(vm.sid) for _ in range(2)]
            flushed.set()
            await anyio.wait_all_tasks_blocked()
            assert [1, 2] == [await host.alloc(vm.sid) for _ in range(2)]
            tasks.cancel_scope.cancel()


def test_a_quota_may_take_all_that_is_available() -> None:
    """A quota that merely equals what is available is granted, new or adjusted."""
    driver = Driver(64, reserve_zero=False)
    driver.set("vm-1", 40)
    driver.set("vm-2", 24)
    driver.ask(FreeSet(1))
    assert 64 == expect(SetRecord, driver.ask(AdjustSet(0, 64))).quota
    assert 0 == driver.figures().available


def test_an_adjusted_quota_pays_the_difference() -> None:
    """What a changed quota adds is taken from what is available; what it drops comes back."""
    driver = Driver(64, reserve_zero=False)
    driver.set("vm-1", 40)
    driver.set("vm-2", 14)
    assert 50 == expect(SetRecord, driver.ask(AdjustSet(0, 50))).quota
    driver.refused(CapacityExhausted, AdjustSet(0, 51), asked=1, available=0)
    assert 4 == expect(SetRecord, driver.ask(AdjustSet(1, 4))).quota
    assert 10 == driver.figures().available


@pytest.mark.anyio
async def test_sets_made_at_once_share_what_there_is() -> None:
    """Of ten callers that want a set at the same time, those get one for whom there is room."""
    quotas = []
    refused = []

    async def make(host: Session, token: str) -> None:
        try:
            quotas.append((await host.alloc_set(token, 10)).quota)
        except CapacityExhausted:
            refused.append(token)

    async with open_allocator(capacity=64) as host:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(make, host, f"vm-{number}")
        assert 3 == (await host.statistics()).available
    assert [10] * 6 == quotas
    assert 4 == len(refused)


def test_every_event_carries_the_token(driver: Driver) -> None:
    """A system-wide subscriber is told with each event which VM it is about."""
    everything = driver.subscribe("agent")
    kvm = driver.subscribe("kvm:vm-2", token="vm-2")
    for sid in (0, 1):
        ioasid = driver.bound(sid, spid=101)
        driver.unbind(ioasid)
        driver.ask(Notify(ioasid, BIND))
        driver.free(ioasid)
    driver.finish(everything, "agent")
    driver.finish(kvm, "kvm:vm-2")
    driver.finish(everything, "agent")
    told = [expect(Event, each) for each in driver.messages(everything)]
    life = [ALLOC, BIND, UNBIND, BIND, FREE, RECLAIM]
    for token in ("vm-1", "vm-2"):
        assert life == [each.kind for each in told if each.token == token]
    assert ["vm-2"] * len(life) == [expect(Event, each).token for each in driver.messages(kvm)]


@pytest.mark.anyio
async def test_a_quota_adjusted_under_load_is_kept() -> None:
    """While some allocate and others change the quota, no more is allocated than the quota."""
    quotas: list[int] = []
    allocated: list[int] = []
    over = []

    def watch(decision: Decision) -> None:
        match decision.answer:
            case Allocated(ioasid):
                allocated.append(ioasid)
            case SetRecord():
                quotas.append(decision.answer.quota)
            case _:
                pass
        if len(allocated) > quotas[-1]:
            over.append((len(allocated), quotas[-1]))

    async def attempt(call: Callable[..., Any], *arguments: int) -> None:
        try:
            await call(*arguments)
        except (QuotaExceeded, QuotaBelowUse):
            pass

    async with open_allocator(capacity=64, taps=[watch]) as host:
        vm = await host.alloc_set("vm-1", 8)
        async with anyio.create_task_group() as tasks:
            for quota in (4, 6, 12, 5, 16):
                for _ in range(5):
                    tasks.start_soon(attempt, host.alloc, vm.sid)
                tasks.start_soon(attempt, host.adjust_set, vm.sid, quota)
        found = await host.find_set(sid=vm.sid)
    assert [] == over
    assert (quotas[-1], len(allocated)) == (found.quota, found.allocated)
