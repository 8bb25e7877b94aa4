"""Snapshots: the whole state as a message, and an allocator that goes on from it."""

from typing import Any

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
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
    ask(Subscribe(token="vm-2", kinds=frozenset({EventKind.BIND})))
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


@pytest.mark.parametrize("wire_format", WireFormat)
def test_round_trip(wire_format: WireFormat) -> None:
    """A snapshot encodes, decodes and restores to an equal state."""
    snapshot = rich_allocator().snapshot()
    decoded = decode_snapshot(encode(snapshot, wire_format), wire_format)
    assert snapshot == decoded
    assert snapshot == Allocator.restore(decoded).snapshot()


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


@pytest.mark.parametrize("other", [None, 1, b"", rich_allocator()])
def test_only_a_snapshot_restores(other: Any) -> None:
    """Anything else is refused with a typed error."""
    with pytest.raises(MalformedMessage):
        Allocator.restore(other)
