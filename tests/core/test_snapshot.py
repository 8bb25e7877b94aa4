"""Snapshots: the whole state as a message, and an allocator that goes on from it."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from msgspec import Struct, to_builtins
from msgspec.msgpack import decode as unpack
from msgspec.msgpack import encode as pack
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    Defer,
    DetachSpid,
    EventKind,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    MalformedMessage,
    OpenSession,
    Priority,
    Request,
    Snapshot,
    SnapshotHolder,
    Subscribe,
    SuspendSession,
    TokenType,
    WireFormat,
    decode_snapshot,
    encode,
)
from tests.core.helpers import Driver
from tests.core.invariants import check_state


def rich_allocator() -> Allocator:
    """An allocator with something of everything: lag, quarantine, grants, a suspended holder."""
    core = Allocator(2000)

    def ask(request: Request, session: int = core.session) -> Any:
        return core.handle(session, request)

    sid = ask(AllocSet("vm-1", 1500)).sid
    ask(AllocSet(None, 10, TokenType.NULL))
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
    first = next(iter(core.drain())).message.seq  # type: ignore[union-attr]
    ask(Defer(cpu.subscription, first), kvm)
    ask(DetachSpid(6))
    ask(Free(7))
    ask(Alloc(1, 0, 0, 77))
    ask(SuspendSession(), vdcm)
    ask(Free(8))
    core.drain()
    return core


def full_allocator() -> Allocator:
    """An allocator with nothing left to give, queues that are full, and several of everything."""
    driver = Driver(16)
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


@pytest.mark.parametrize("made", ALLOCATORS)
@pytest.mark.parametrize("wire_format", WireFormat)
def test_round_trip(wire_format: WireFormat, made: Callable[[], Allocator]) -> None:
    """A snapshot encodes, decodes and restores to an equal state."""
    snapshot = made().snapshot()
    decoded = decode_snapshot(encode(snapshot, wire_format), wire_format)
    assert snapshot == decoded
    restored = Allocator.restore(decoded)
    check_state(restored)
    assert snapshot == restored.snapshot()


def test_goes_on_as_the_first_would_have() -> None:
    """Everything asked after a restore is answered, told and remembered as by the first."""
    first = rich_allocator()
    second = Allocator.restore(first.snapshot())
    requests: list[tuple[int, Request]] = [
        (1, OpenSession("vdcm")),
        (4, Subscribe(priority=Priority.DEVICE)),
        *((2, Acknowledge(1, seq)) for seq in range(first.snapshot().seq)),
        (1, Free(5)),
        (1, AllocMany(0, 20)),
        (1, FreeSet(0)),
        (1, AllocSet("vm-2", 1)),
        (1, Alloc(2, 1900)),
    ]
    for session, request in requests:
        assert first.handle(session, request) == second.handle(session, request)
        assert first.drain() == second.drain()
    assert first.snapshot() == second.snapshot()


def test_taking_one_changes_nothing() -> None:
    """Two snapshots in a row are equal, and nothing is to be done after one."""
    core = rich_allocator()
    assert core.snapshot() == core.snapshot()
    assert [] == core.drain()


def test_plain_ids_are_ranges() -> None:
    """A million plain IDs take a few bytes, whatever words they lie in."""
    core = Allocator()
    core.handle(core.session, AllocSet("vm"))
    core.handle(core.session, AllocMany(0, 1_000_000))
    snapshot = core.snapshot()
    assert [(1, 1_000_000)] == [(each.first, each.last) for each in snapshot.sets[0].ioasids]
    assert len(encode(snapshot)) < 1000


def test_equal_states_are_equal_bytes() -> None:
    """However a state came about, it is encoded the same."""

    def taken(*holders: str) -> bytes:
        driver = Driver()
        driver.set()
        for name in ("kvm", "vdcm"):
            driver.session(name)
        driver.alloc()
        for name in holders:
            driver.ask(Get(1), name)
        return encode(driver.core.snapshot())

    assert taken("kvm", "vdcm") == taken("vdcm", "kvm")


def parts(value: object) -> Iterator[Struct]:
    """A snapshot and everything that it consists of."""
    if isinstance(value, Struct):
        yield value
        value = tuple(getattr(value, name) for name in value.__struct_fields__)
    if isinstance(value, tuple):
        for each in value:
            yield from parts(each)


@pytest.mark.parametrize("made", ALLOCATORS)
def test_snapshots_are_frozen(made: Callable[[], Allocator]) -> None:
    """Nobody changes a snapshot, or a part of one, that others have."""
    for part in parts(made().snapshot()):
        for name in part.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(part, name, getattr(part, name))


def orders(part: Any) -> Iterator[list[Any]]:
    """The lists of a snapshot whose order is not part of the state."""
    if isinstance(part, dict):
        for name, each in part.items():
            yield from orders(each if name != "outstanding" else dict(enumerate(each)))
    elif isinstance(part, list):
        if part != part[::-1]:
            yield part
        for each in part:
            yield from orders(each)


@pytest.mark.parametrize("made", ALLOCATORS)
def test_another_order_is_refused(made: Callable[[], Allocator]) -> None:
    """A state has one snapshot, so that equal states have equal ones."""
    tree = unpack(pack(made().snapshot()))
    for each in orders(tree):
        each.reverse()
        with pytest.raises(MalformedMessage):
            Allocator.restore(decode_snapshot(pack(tree)))
        each.reverse()
    Allocator.restore(decode_snapshot(pack(tree)))


def test_an_unknown_field_is_refused() -> None:
    """What a part of a snapshot does not have may be meant, and is not passed over."""
    tree = unpack(pack(full_allocator().snapshot()))
    owner, subscription = tree["sets"][1], tree["subscriptions"][0]
    lists = (owner["records"], tree["stages"], tree["holders"], subscription["outstanding"])
    for part in (tree, owner, subscription, *(each[0] for each in lists)):
        part["color"] = None
        with pytest.raises(MalformedMessage, match="color"):
            decode_snapshot(pack(tree))
        del part["color"]


def contradictions() -> dict[str, Snapshot]:
    """Snapshots that decode, and cannot be."""
    good = rich_allocator().snapshot()
    vm, null = good.sets
    holders = good.holders
    subscription = good.subscriptions[0]
    return {
        "version": replace(good, version=2),
        "a foreign value": replace(good, reserved=object()),
        "a foreign version": replace(good, version=10**30),
        "capacity": replace(good, capacity=0),
        "quotas": replace(good, reserved=1000),
        "negative": replace(good, reserved=-1),
        "same set": replace(good, sets=(vm, vm)),
        "same ID": replace(good, sets=(vm, replace(null, ioasids=vm.ioasids, quota=400))),
        "over quota": replace(good, sets=(replace(vm, quota=5), null)),
        "beyond capacity": replace(good, capacity=1000, sets=(replace(vm, quota=990), null)),
        "no member": replace(good, sets=(replace(vm, ioasids=()), null)),
        "two names": replace(good, holders=(*holders, SnapshotHolder("kvm", None))),
        "session": replace(good, holders=(replace(holders[0], session=99), *holders[1:])),
        "no holder": replace(good, holders=holders[1:]),
        "no stage": replace(good, stages=()),
        "same number": replace(good, subscriptions=(subscription, *good.subscriptions)),
        "next number": replace(good, next_subscription=1),
        "no grant": replace(
            good,
            subscriptions=(replace(subscription, grants=((1, 1999),)), *good.subscriptions[1:]),
        ),
    }


CONTRADICTIONS = contradictions()


@pytest.mark.parametrize("which", CONTRADICTIONS)
def test_a_contradiction_is_refused(which: str) -> None:
    """A snapshot that contradicts itself is refused with a typed error."""
    with pytest.raises(MalformedMessage):
        Allocator.restore(CONTRADICTIONS[which])


@pytest.mark.parametrize(
    "other",
    [None, 1, b"", rich_allocator(), to_builtins(full_allocator().snapshot())],
    ids=lambda each: type(each).__name__,
)
def test_only_a_snapshot_restores(other: Any) -> None:
    """Anything else is refused with a typed error."""
    with pytest.raises(MalformedMessage):
        Allocator.restore(other)
