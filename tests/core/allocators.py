"""Allocators with something of everything in them, for the tests of snapshots."""

from typing import Any, Final

from ioasid.core import (
    Alloc,
    Allocator,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    Defer,
    Deliver,
    DetachSpid,
    EventKind,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    OpenSession,
    Priority,
    Request,
    ReserveRange,
    ReuseOrder,
    Subscribe,
    SuspendSession,
    TokenType,
)
from tests.core.helpers import Driver


def rich_allocator() -> Allocator:
    """An allocator with something of everything: lag, quarantine, grants, a suspended holder."""
    core = Allocator(2000, order=ReuseOrder.CYCLIC)

    def ask(request: Request, session: int = core.session) -> Any:
        return core.handle(session, request)

    sid = ask(AllocSet("vm-1", 1500)).sid
    ask(AllocGroup("tenants", 100))
    ask(AllocGroup("a tenant", 50, "tenants"))
    ask(AllocSet(None, 10, TokenType.NULL, "a tenant"))
    ask(ReserveRange(1990, 1999))
    kvm = ask(OpenSession("kvm")).session
    vdcm = ask(OpenSession("vdcm")).session
    cpu = ask(Subscribe(token="vm-1", priority=Priority.CPU, hold=True, queue_size=2), kvm)
    ask(Subscribe(priority=Priority.DEVICE, replay=True), vdcm)
    ask(Subscribe(token="vm-2", kinds=frozenset({EventKind.ALLOC, EventKind.BIND})))
    ask(AllocMany(sid, 1100, 5))
    for ioasid in (5, 6, 7, 8):
        ask(AttachSpid(ioasid, ioasid))
    ask(Get(9), vdcm)
    ask(FindBySpid(sid, 8, True), vdcm)
    ask(AttachData(10, "ten"))
    first = next(each.message.seq for each in core.drain() if isinstance(each, Deliver))
    ask(Defer(cpu.subscription, first), kvm)
    ask(DetachSpid(6))
    ask(Free(7))
    ask(Alloc(1, 1200, None, 77))
    ask(SuspendSession(), vdcm)
    ask(Free(8))
    core.drain()
    return core


def full_allocator() -> Allocator:
    """An allocator with nothing left to give, queues that are full, and several of everything."""
    driver = Driver(17)
    driver.ask(AllocSystemSet(3))
    sid = driver.set("vm-1", 8)
    driver.subscribe("kvm", token="vm-1", priority=Priority.CPU, hold=True)
    vtd = driver.subscribe("vtd", sid=sid, priority=Priority.CPU, hold=True, queue_size=1)
    # Its bind and its unbind cancel out while kvm has them in hand.
    driver.unbind(driver.bound(sid))
    for spid in (1, 2):
        driver.bound(sid, spid)
    # What vtd keeps is the first message of all; the Resync is for what it missed.
    driver.ask(Defer(vtd, driver.messages(vtd)[0].seq), "vtd")
    driver.unbind(driver.bound(sid, 3))
    for spid in (4, 5):
        driver.bound(sid, spid)
    assert [("ALLOC", 1), ("Resync", 3)] == driver.shown(vtd)
    driver.free(5)
    going = driver.set(None, 1)
    driver.subscribe("vfio", sid=going)
    last = driver.alloc(going)
    for holder in ("kvm", "vtd"):
        driver.ask(Get(last), holder)
    driver.ask(FreeSet(going))
    driver.set("vm-2", None)
    driver.ask(AllocMany(3, 4))
    driver.collect()
    return driver.core


ALLOCATORS: Final = (Allocator, rich_allocator, full_allocator)
