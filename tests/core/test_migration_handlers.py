"""A set that moves: frozen, thawed, exported, imported, activated; what may happen meanwhile."""

import pytest

from ioasid.core import (
    Abandon,
    ActivateSet,
    AdjustSet,
    Alloc,
    Allocated,
    Allocator,
    AllocGroup,
    AllocMany,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CapacityExhausted,
    DetachData,
    Done,
    EventKind,
    Evict,
    ExportedIoasid,
    ExportSet,
    FindBySpid,
    FindSet,
    Free,
    FreeSet,
    FreezeSet,
    Frozen,
    Get,
    GroupExhausted,
    Imported,
    ImportSet,
    InvalidArgument,
    IoasidRange,
    Listing,
    ListSet,
    Notify,
    Priority,
    RangeFull,
    Released,
    Request,
    Resync,
    ReuseOrder,
    SetExport,
    SetFreePending,
    SetFrozen,
    SetNotFrozen,
    SetRecord,
    SetState,
    ThawSet,
    TokenInUse,
    TokenType,
    TooManyEvents,
    UnknownIoasid,
    UnknownSpid,
    Waiting,
    WouldDeadlock,
)
from tests.core.helpers import Driver, expect

FULL = SetExport(
    "vm-1",
    TokenType.MM,
    8,
    (IoasidRange(1, 2), IoasidRange(7, 7)),
    (ExportedIoasid(1, 100, None), ExportedIoasid(7, 101, "seven")),
)


def state_of(driver: Driver, sid: int = 0) -> SetState:
    """The state of a set."""
    return expect(SetRecord, driver.ask(FindSet(sid=sid))).state


def frozen(driver: Driver, sid: int = 0) -> bool:
    """Freeze a set; returns whether nothing of it runs."""
    return expect(Frozen, driver.ask(FreezeSet(sid))).stopped


def exported(driver: Driver, sid: int = 0) -> SetExport:
    """What a set's next host is told."""
    return expect(SetExport, driver.ask(ExportSet(sid)))


def imported(driver: Driver, export: SetExport = FULL) -> Imported:
    """Make a set of an export."""
    return expect(Imported, driver.ask(ImportSet(export)))


# The source


def test_a_freeze_is_the_end_of_every_binding() -> None:
    """Subscribers are told UNBIND when a set is frozen, and BIND when it is thawed."""
    driver = Driver()
    driver.set()
    kvm = driver.subscribe("kvm", token="vm-1", hold=True)
    first, second, _ = driver.bound(spid=7), driver.bound(spid=8), driver.alloc()
    driver.finish(kvm, "kvm")
    begun = len(driver.shown(kvm))
    assert frozen(driver)
    assert SetState.FROZEN is state_of(driver)
    driver.finish(kvm, "kvm")
    assert [("UNBIND", first), ("UNBIND", second)] == driver.shown(kvm)[begun:]
    assert ({}, None) == (driver.find(first).references, driver.find(first).spid)
    assert Done() == driver.ask(ThawSet(0))
    assert [("BIND", first), ("BIND", second)] == driver.shown(kvm)[begun + 2 :]
    assert [7, 8] == [driver.find(each).spid for each in (first, second)]
    assert {"kvm": 1} == driver.find(first).references
    assert SetState.ACTIVE is state_of(driver)


@pytest.mark.parametrize("priority", [Priority.CPU, Priority.DEVICE])
def test_who_only_looks_on_runs_nothing(priority: Priority) -> None:
    """What it has yet to be told of, behind a tier that hangs, is no CPU's and no device's."""
    driver = Driver()
    driver.set()
    for each in (Priority.IOMMU, Priority.LAST):
        driver.subscribe(each.value, priority=each)
    driver.subscribe("watch", priority=priority, awaited=False)
    # The end of the binding waits for its beginning, which the IOMMU has not acknowledged.
    driver.bound()
    assert frozen(driver)


def test_a_freeze_waits_for_cpus_and_devices() -> None:
    """It is answered when both tiers acknowledged, whoever comes after them."""
    driver = Driver()
    driver.set()
    tiers = {
        each.value: driver.subscribe(each.value, priority=each)
        for each in (Priority.CPU, Priority.DEVICE, Priority.IOMMU)
    }
    driver.bound()
    for name, number in tiers.items():
        driver.finish(number, name)
    ticket = expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket
    driver.finish(tiers["CPU"], "CPU")
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="FROZEN", running=1)
    assert [] == driver.completed()
    driver.finish(tiers["DEVICE"], "DEVICE")
    assert [(ticket, Frozen(0, True))] == driver.completed()
    assert ("UNBIND", 1) == driver.shown(tiers["IOMMU"])[-1]
    assert 16 == exported(driver).quota
    assert Frozen(0, True) == driver.ask(FreezeSet(0, wait=True))


def test_a_freeze_waits_for_what_was_freed_and_unbound_before() -> None:
    """A device that still drains what ended before the freeze may still run it."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    log = driver.subscribe("log", priority=Priority.DEVICE)
    freed, unbound = driver.bound(spid=7), driver.bound(spid=8)
    driver.finish(vdcm, "vdcm")
    driver.free(freed)
    driver.unbind(unbound)
    driver.finish(log, "log")
    assert not frozen(driver)
    waiting = expect(Waiting, driver.ask(FreezeSet(0, wait=True)))
    driver.finish(vdcm, "vdcm")
    assert [(waiting.ticket, Frozen(0, True))] == driver.completed()
    assert (IoasidRange(unbound, unbound),) == exported(driver).ranges


def test_an_unbind_that_a_device_drains_does_not_cancel_out() -> None:
    """Though somebody lags behind the bind before it, a freeze sees that the device is not done."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    ioasid = driver.bound()
    driver.unbind(ioasid)
    assert [("ALLOC", 1), ("BIND", 1), ("UNBIND", 1)] == driver.shown(vdcm)
    driver.ask(Notify(ioasid, EventKind.ALLOC))
    assert not frozen(driver)
    driver.finish(vdcm, "vdcm")
    assert frozen(driver)


def test_a_free_of_what_is_unbound_holds_no_freeze_up() -> None:
    """Before or after it, in a binding's wake or alone: nothing runs that would end with it."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    bound, plain, unbound, freed = (
        driver.bound(spid=7),
        driver.alloc(),
        driver.bound(spid=8),
        driver.alloc(),
    )
    driver.finish(vdcm, "vdcm")
    driver.unbind(unbound)
    driver.free(freed)
    ticket = expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket
    driver.free(plain)
    driver.free(unbound)
    told = [("UNBIND", unbound), ("FREE", freed), ("UNBIND", bound)]
    assert [*told, ("FREE", plain), ("FREE", unbound)] == driver.shown(vdcm)[-5:]
    last = [each.seq for each in driver.messages(vdcm)[-5:]]
    driver.acknowledge(vdcm, last[2], "vdcm")
    assert [] == driver.completed()
    driver.acknowledge(vdcm, last[0], "vdcm")
    assert [(ticket, Frozen(0, True))] == driver.completed()
    assert (7,) == tuple(each.spid for each in exported(driver).ioasids)


def test_an_evicted_device_holds_no_freeze_up() -> None:
    """Who is declared dead is not waited for."""
    driver = Driver()
    driver.set()
    driver.subscribe("vdcm", priority=Priority.DEVICE, hold=True)
    driver.bound()
    ticket = expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket
    driver.crash("vdcm")
    assert [] == driver.completed()
    driver.ask(Evict("vdcm"))
    assert [(ticket, Frozen(0, True))] == driver.completed()


def test_a_thaw_answers_who_waits_for_the_freeze() -> None:
    """It was not stopped; and who has given up is not answered."""
    driver = Driver()
    driver.set()
    driver.subscribe("vdcm", priority=Priority.DEVICE)
    driver.bound()
    tickets = [expect(Waiting, driver.ask(FreezeSet(0, wait=True))).ticket for _ in range(2)]
    assert Done() == driver.core.handle(0, Abandon(tickets[0]))
    driver.ask(ThawSet(0))
    assert [(tickets[1], Frozen(0, False))] == driver.completed()
    assert Done() == driver.ask(ThawSet(0))
    assert 1 == len(driver.completed())


def test_nobody_waits_for_a_freeze_that_waits_for_it() -> None:
    """A CPU or device that waits for its own acknowledgement is refused; others are not."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    driver.subscribe("vtd", priority=Priority.IOMMU)
    assert Frozen(0, True) == driver.ask(FreezeSet(0, wait=True), "vdcm")
    driver.ask(ThawSet(0))
    ioasid = driver.bound()
    reason = "it has to acknowledge the UNBIND itself"
    facts = {"holder": "vdcm", "ioasid": ioasid, "reason": reason}
    driver.refused(WouldDeadlock, FreezeSet(0, wait=True), "vdcm", **facts)
    assert Frozen(0, False) == driver.ask(FreezeSet(0), "vdcm")
    driver.refused(WouldDeadlock, FreezeSet(0, wait=True), "vdcm", **facts)
    expect(Waiting, driver.ask(FreezeSet(0, wait=True), "vtd"))
    driver.finish(vdcm, "vdcm")
    assert Frozen(0, True) == driver.ask(FreezeSet(0, wait=True), "vdcm")
    driver.ask(ThawSet(0))
    driver.finish(vdcm, "vdcm")
    driver.free(ioasid)
    reason = "it has to acknowledge the FREE itself"
    driver.refused(WouldDeadlock, FreezeSet(0, wait=True), "vdcm", reason=reason)


@pytest.mark.parametrize(
    "request_",
    [
        Alloc(0),
        AllocMany(0, 2),
        AdjustSet(0, 20),
        AttachSpid(2, 9),
        AttachData(2, 9),
        DetachData(2),
        FindBySpid(0, 100, get=True),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("state", [SetState.FROZEN, SetState.INCOMING])
def test_nothing_of_a_set_on_its_way_changes(request_: Request, state: SetState) -> None:
    """Whoever would bind, allocate, program or change its data is refused."""
    driver = Driver()
    if state is SetState.FROZEN:
        driver.set()
        driver.bound()
        driver.alloc()
        frozen(driver)
    else:
        imported(driver)
    driver.refused(SetFrozen, request_, sid=0, state=state)


def test_references_and_look_ups_go_on() -> None:
    """A driver may take a reference, and anybody find what a spid stands for."""
    driver = Driver()
    driver.set()
    ioasid = driver.bound()
    frozen(driver)
    assert Done() == driver.ask(Get(ioasid), "vtd")
    assert Allocated(ioasid, 1) == driver.ask(FindBySpid(0, 100))
    listed = expect(Listing, driver.ask(ListSet(0)))
    assert ((), [ioasid]) == (listed.ioasids, [each.first for each in listed.ranges])


def test_what_is_freed_or_unbound_voids_the_export() -> None:
    """Both succeed in a frozen set, in silence, and the next export says so."""
    driver = Driver()
    driver.set()
    log = driver.subscribe("log")
    first, second, third = (driver.bound(spid=spid) for spid in (7, 8, 9))
    frozen(driver)
    driver.finish(log, "log")
    before, told = exported(driver), len(driver.shown(log))
    assert (7, 8, 9) == tuple(each.spid for each in before.ioasids)
    assert not driver.free(first)
    driver.unbind(second)
    after = exported(driver)
    assert (IoasidRange(second, third),) == after.ranges
    assert (ExportedIoasid(third, 9, None),) == after.ioasids
    driver.finish(log, "log")
    assert [("FREE", first), ("RECLAIM", first)] == driver.shown(log)[told:]
    assert None is driver.messages(log)[told].spid  # type: ignore[union-attr]
    driver.refused(UnknownSpid, FindBySpid(0, 8), sid=0, spid=8)
    driver.ask(ThawSet(0))
    assert [None, 9] == [driver.find(each).spid for each in (second, third)]


def test_what_is_in_quarantine_stays_on_the_source() -> None:
    """It is in no export, and goes when its holders are done, as in any other set."""
    driver = Driver()
    driver.set()
    first, second = driver.bound(spid=7), driver.bound(spid=8)
    driver.ask(Get(first), "vtd")
    driver.free(first)
    frozen(driver)
    assert (IoasidRange(second, second),) == exported(driver).ranges
    assert Released(False) == driver.ask(FreeSet(0))
    driver.refused(SetFreePending, ThawSet(0), sid=0)
    assert 1 == expect(SetRecord, driver.ask(FindSet("vm-1"))).allocated


def test_a_resync_shows_no_binding_of_a_frozen_set() -> None:
    """Who comes back while a set is frozen finds its IDs unbound, and bound when it is thawed."""
    driver = Driver()
    driver.set()
    kvm = driver.subscribe("kvm", token="vm-1", hold=True, priority=Priority.CPU)
    ioasid = driver.bound()
    driver.finish(kvm, "kvm")
    driver.crash("kvm")
    assert not frozen(driver)
    driver.come_back("kvm")
    assert kvm == driver.subscribe("kvm", token="vm-1", hold=True, priority=Priority.CPU)
    resync = driver.resync(kvm)
    assert ((), [ioasid]) == (resync.ioasids, [each.first for each in resync.ranges])
    driver.finish(kvm, "kvm")
    assert frozen(driver)


def test_a_frozen_set_survives_a_restart() -> None:
    """A snapshot keeps it, still running or not, and its spids."""
    driver = Driver()
    driver.set()
    vdcm = driver.subscribe("vdcm", priority=Priority.DEVICE)
    driver.bound()
    frozen(driver)
    driver.core = Allocator.restore(driver.core.snapshot())
    driver.refused(SetNotFrozen, ExportSet(0), running=1)
    driver.finish(vdcm, "vdcm")
    assert (ExportedIoasid(1, 100, None),) == exported(driver).ioasids
    driver.ask(ThawSet(0))
    assert 100 == driver.find(1).spid


def test_thaw_and_activate_are_refused_when_too_much_is_under_way() -> None:
    """An ID with 16 events that somebody has yet to be told of refuses the BIND: all or none."""
    driver = Driver()
    driver.set()
    driver.subscribe("cpu", priority=Priority.CPU)
    driver.subscribe("last")
    first, second = driver.bound(spid=7), driver.bound(spid=8)
    for _ in range(14):
        driver.ask(Notify(second, EventKind.ALLOC))
    frozen(driver)
    driver.refused(TooManyEvents, ThawSet(0), ioasid=second, in_flight=16)
    assert None is driver.find(first).spid


# The target


def test_an_import_has_the_same_spids_and_other_ids() -> None:
    """Spids, data, quota and token are those of the source; nothing of it is bound."""
    driver = Driver()
    driver.set("other", 4)
    for _ in range(4):
        driver.alloc()
    log = driver.subscribe("log", token="vm-1")
    made = imported(driver)
    assert Imported(1, (IoasidRange(5, 7),), 5) == made
    record = expect(SetRecord, driver.ask(FindSet("vm-1")))
    assert SetRecord(1, "vm-1", TokenType.MM, 8, 3, SetState.INCOMING) == record
    assert [("ALLOC", 5), ("ALLOC", 6), ("ALLOC", 7)] == driver.shown(log)
    assert ([None] * 3, [None, None, "seven"]) == (
        [driver.find(each).spid for each in (5, 6, 7)],
        [driver.find(each).data for each in (5, 6, 7)],
    )
    assert Done() == driver.ask(ActivateSet(1))
    assert [("BIND", 5), ("BIND", 7)] == driver.shown(log)[3:]
    assert Allocated(7, 5) == driver.ask(FindBySpid(1, 101, get=True))
    assert Done() == driver.ask(ActivateSet(1))
    assert 5 == len(driver.shown(log))


def test_what_was_exported_is_what_a_target_exports() -> None:
    """There and back again: the same but for the IDs."""
    driver = Driver()
    imported(driver)
    driver.ask(ActivateSet(0))
    frozen(driver)
    assert (IoasidRange(1, 3),) == exported(driver).ranges
    expected = (ExportedIoasid(1, 100, None), ExportedIoasid(3, 101, "seven"))
    assert expected == exported(driver).ioasids


def test_an_import_is_all_or_nothing() -> None:
    """Where it does not fit, nothing of it is there."""
    driver = Driver(16)
    driver.ask(AllocGroup("tenant", 4))
    driver.refused(GroupExhausted, ImportSet(FULL, "tenant"), group="tenant", asked=8, left=4)
    driver.refused(RangeFull, ImportSet(FULL, min=14, max=15), low=14, high=15, count=3)
    cyclic = Driver(8, order=ReuseOrder.CYCLIC)
    cyclic.refused(CapacityExhausted, ImportSet(FULL), asked=8, available=7)
    driver.set("other", 4)
    driver.refused(CapacityExhausted, ImportSet(FULL), asked=8, available=7)
    driver.ask(AdjustSet(0, 3))
    imported(driver)
    driver.refused(TokenInUse, ImportSet(FULL), token="vm-1", sid=1)


def test_an_import_follows_the_order_of_reuse() -> None:
    """CYCLIC gives it the next IDs in turn, within the range asked for."""
    driver = Driver(order=ReuseOrder.CYCLIC)
    driver.set("other", 4)
    driver.free(driver.alloc())
    made = expect(Imported, driver.ask(ImportSet(FULL)))
    assert (IoasidRange(2, 4),) == made.ranges
    assert 5 == driver.alloc()


def test_an_import_without_ids() -> None:
    """A set that has none moves as well; its generation is none that an ID has."""
    driver = Driver()
    empty = SetExport(None, TokenType.NULL, 4, (), ())
    assert Imported(0, (), 0) == imported(driver, empty)
    assert SetState.INCOMING is state_of(driver)
    driver.ask(ActivateSet(0))
    assert 1 == driver.alloc()


def test_an_incoming_set_is_freed_in_silence() -> None:
    """When the move is given up, its IDs go at once: nobody was told of a binding."""
    driver = Driver()
    log = driver.subscribe("log", kinds={EventKind.BIND, EventKind.UNBIND})
    imported(driver)
    assert Released(True) == driver.ask(FreeSet(0))
    assert [] == driver.shown(log)
    driver.refused(UnknownIoasid, Free(1), ioasid=1)
    assert Imported(1, (IoasidRange(1, 3),), 2) == imported(driver)


def test_a_step_that_does_not_follow_is_refused() -> None:
    """An incoming set is not frozen or thawed, a frozen one not activated, and so on."""
    driver = Driver()
    imported(driver)
    driver.refused(SetFrozen, FreezeSet(0), sid=0, state="INCOMING")
    driver.refused(SetFrozen, ThawSet(0), sid=0, state="INCOMING")
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="INCOMING", running=0)
    driver.ask(ActivateSet(0))
    driver.refused(SetNotFrozen, ExportSet(0), sid=0, state="ACTIVE", running=0)
    frozen(driver)
    driver.refused(SetFrozen, ActivateSet(0), sid=0, state="FROZEN")
    driver.ask(Get(1), "vtd")
    driver.ask(FreeSet(0))
    for request in (FreezeSet(0), ThawSet(0), ActivateSet(0)):
        driver.refused(SetFreePending, request, sid=0)


def test_the_systems_set_stays() -> None:
    """The processes of a host don't move with a VM."""
    driver = Driver()
    driver.ask(AllocSystemSet(4))
    for request in (FreezeSet(0), ThawSet(0), ActivateSet(0)):
        driver.refused(InvalidArgument, request, argument="sid")


def test_a_set_moves_between_two_allocators() -> None:
    """The source lets go, the target runs: the guest's numbers are the same."""
    source, target = Driver(), Driver()
    target.set("other", 5)
    for _ in range(5):
        target.alloc()
    source.set()
    for spid in range(100, 108):
        source.bound(spid=spid)
    frozen(source)
    export = exported(source)
    made = imported(target, export)
    assert Released(True) == source.ask(FreeSet(0))
    target.ask(ActivateSet(made.sid))
    found = [target.ask(FindBySpid(made.sid, spid, get=True)) for spid in range(100, 108)]
    assert [Allocated(ioasid, made.generation) for ioasid in range(6, 14)] == found
    assert 0 == source.figures().active


def test_a_resync_of_an_incoming_set() -> None:
    """Its IDs are live and unbound to whoever subscribes now, and bound after the activation."""
    driver = Driver()
    imported(driver)
    kvm = driver.subscribe("kvm", token="vm-1", hold=True, replay=True)
    (message,) = driver.messages(kvm)
    resync = expect(Resync, message)
    assert [None] == [each.spid for each in resync.ioasids]
    assert 3 == len(resync.ioasids) + sum(each.last - each.first + 1 for each in resync.ranges)
    driver.finish(kvm, "kvm")
    driver.ask(ActivateSet(0))
    assert [("BIND", 1), ("BIND", 3)] == driver.shown(kvm)[1:]
