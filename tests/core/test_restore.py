"""Restoring a snapshot: an allocator that goes on from it, or a refusal."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.msgpack import decode as unpack
from msgspec.msgpack import encode as pack
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    Defer,
    Deliver,
    EventKind,
    Explain,
    Explanation,
    Free,
    FreeSet,
    Get,
    HolderPage,
    ListHolders,
    MalformedMessage,
    OpenSession,
    Priority,
    Request,
    Snapshot,
    SnapshotHolder,
    Subscribe,
    SuspendSession,
    Tick,
    WireFormat,
    decode_snapshot,
    encode,
)
from tests.core.allocators import ALLOCATORS, full_allocator, rich_allocator
from tests.core.invariants import check_state


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
        *((2, Acknowledge(((1, seq),))) for seq in range(first.snapshot().seq)),
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


def test_a_snapshot_without_an_index_restores() -> None:
    """What an earlier release wrote has no index, and begins to count at 0."""
    tree = unpack(pack(rich_allocator().snapshot()))
    assert 2 == tree["version"]
    del tree["index"]
    restored = Allocator.restore(decode_snapshot(pack(tree)))
    assert 0 == restored.index
    restored.handle(restored.session, AllocSet("vm-9", 1))
    assert (1, 1) == (restored.index, restored.snapshot().index)


def test_ages_go_on_where_they_were() -> None:
    """What was offered before a snapshot is as old after it, in a queue or folded."""
    core = Allocator(16)
    core.handle(core.session, AllocSet("vm", 4))
    core.handle(0, Tick(1000.0))
    core.handle(core.session, Subscribe(hold=True, acknowledge_within=5.0))
    session = core.handle(core.session, OpenSession("kvm")).session  # type: ignore[union-attr]
    core.handle(session, Subscribe(hold=True, queue_size=1, acknowledge_within=5.0))
    core.handle(core.session, AllocMany(0, 2))
    core.handle(0, Tick(1002.0))
    core.handle(session, SuspendSession())
    restored = Allocator.restore(decode_snapshot(encode(core.snapshot())))
    assert 1002.0 == restored.now
    assert [(2.0, False)] * 2 == [(each.oldest_age, each.overdue) for each in restored.lagging()]
    restored.handle(0, Tick(1005.0))
    assert [(5.0, True)] * 2 == [(each.oldest_age, each.overdue) for each in restored.lagging()]


def aged_allocator() -> Allocator:
    """An ID was freed, which one of two puts aside a second later, and a holder crashed."""
    core = Allocator(16)
    core.handle(core.session, AllocSet("vm", 4))
    for sid in (0, None):
        core.handle(core.session, Subscribe(sid, kinds=frozenset({EventKind.FREE})))
    kvm = core.handle(core.session, OpenSession("kvm")).session  # type: ignore[union-attr]
    core.handle(core.session, Alloc(0))
    core.handle(kvm, Get(1))
    core.handle(0, Tick(1002.0))
    core.handle(core.session, Free(1))
    core.handle(0, Tick(1003.0))
    (free,) = (each for each in core.drain() if isinstance(each, Deliver))
    core.handle(core.session, Defer(1, free.message.seq))
    core.handle(kvm, SuspendSession())
    core.handle(0, Tick(1004.0))
    return core


def ages(core: Allocator) -> tuple[Any, ...]:
    """All that is said to last of an allocator."""
    explained = core.handle(core.session, Explain(1))
    assert isinstance(explained, Explanation)
    holders = core.handle(core.session, ListHolders())
    assert isinstance(holders, HolderPage)
    waiting = [[each.age for each in event.waits_for] for event in explained.events]
    return explained.age, waiting, {each.holder: each.age for each in holders.holders}


def test_every_age_goes_on_where_it_was() -> None:
    """A quarantine, an event under way, one that was put aside and a crash last on."""
    core = aged_allocator()
    expected = ages(core)
    assert (2.0, [[1.0, 2.0]], {"host": 1004.0, "kvm": 1.0}) == expected
    assert expected == ages(Allocator.restore(decode_snapshot(encode(core.snapshot()))))


def test_a_snapshot_without_times_counts_from_then_on() -> None:
    """What an earlier release wrote has no times: everything was offered just now."""
    for core in (rich_allocator(), aged_allocator()):
        tree = unpack(pack(core.snapshot()))
        del tree["now"]
        for each in tree["subscriptions"]:
            del each["folded_at"]
            for offer in each["outstanding"]:
                del offer["offered"], offer["deferred_at"]
        for each in tree["sets"]:
            each["freed_at"] = [0.0] * len(each["freed"])
        for each in tree["stages"]:
            del each["offered"]
        for each in tree["holders"]:
            del each["since"]
        restored = Allocator.restore(decode_snapshot(pack(tree)))
        assert {0.0} == {each.oldest_age for each in restored.lagging()}
        if restored.record(1) is not None:
            assert (0.0, [[0.0, 0.0]], {"host": 0.0, "kvm": 0.0}) == ages(restored)


@pytest.mark.parametrize("time", [2.0**63, -(2.0**63)])
def test_a_time_beyond_all_use_is_refused(time: float) -> None:
    """No clock shows it, and no wire could carry it on."""
    good = rich_allocator().snapshot()
    lagging = next(each for each in good.subscriptions if each.outstanding)
    (first, *others) = lagging.outstanding
    for bad in (
        replace(good, now=time),
        replace(
            good,
            subscriptions=(
                replace(lagging, outstanding=(replace(first, offered=time), *others)),
                *(each for each in good.subscriptions if each is not lagging),
            ),
        ),
    ):
        with pytest.raises(MalformedMessage, match="a number of seconds"):
            Allocator.restore(bad)


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


def contradictions() -> dict[str, Snapshot]:
    """Snapshots that decode, and cannot be."""
    good = rich_allocator().snapshot()
    vm, null = good.sets
    holders = good.holders
    subscription = good.subscriptions[0]
    return {
        "version": replace(good, version=3),
        "a foreign value": replace(good, reserved=object()),
        "a foreign version": replace(good, version=10**30),
        "capacity": replace(good, capacity=0),
        "quotas": replace(good, reserved=1000),
        "negative": replace(good, reserved=-1),
        "same set": replace(good, sets=(vm, vm)),
        "same ID": replace(good, sets=(vm, replace(null, ranges=vm.ranges, quota=400))),
        "over quota": replace(good, sets=(replace(vm, quota=5), null)),
        "beyond capacity": replace(good, capacity=1000, sets=(replace(vm, quota=990), null)),
        "no member": replace(good, sets=(replace(vm, ranges=(), words=()), null)),
        "two names": replace(good, holders=(*holders, SnapshotHolder("kvm", None, (), ()))),
        "owner": replace(good, holders=(replace(holders[0], owner=-1), *holders[1:])),
        "session": replace(good, holders=(replace(holders[0], session=99), *holders[1:])),
        "no holder": replace(good, holders=holders[1:]),
        "no stage": replace(good, stages=()),
        "same number": replace(good, subscriptions=(subscription, *good.subscriptions)),
        "next number": replace(good, next_subscription=1),
        "no grant": replace(
            good,
            subscriptions=(
                replace(subscription, grants=(1,), granted=(1999,)),
                *good.subscriptions[1:],
            ),
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
