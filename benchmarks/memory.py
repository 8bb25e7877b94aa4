"""How many bytes an ID takes, as Python's own allocators count them."""

import gc
import tracemalloc
from collections.abc import Callable
from random import Random

from benchmarks.measure import Figure, Plan, figure, require
from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    Allocator,
    AllocMany,
    AllocSet,
    AttachData,
    AttachSpid,
    Deliver,
    Free,
    Get,
    OpenSession,
    Priority,
    Released,
    SessionOpened,
    SetRecord,
    Subscribe,
    Subscribed,
)


async def plain_ids(backend: str, plan: Plan) -> list[Figure]:
    """Count the bytes of plain IDs at 1,000,000: in a row, and with every second one free.

    The worse counts. What is counted is the same in every run, so it is counted once.
    """
    count = plan.scaled(1_000_000, 10_000)
    beside = {"in a row": bytes_each(in_a_row, count), "scattered": bytes_each(scattered, count)}
    return [
        figure(
            [max(beside.values())],
            name="plain_id_bytes",
            backend=backend,
            unit="bytes",
            target=32.0,
            beside=beside,
            beside_unit="bytes",
        )
    ]


async def full_ids(backend: str, plan: Plan) -> list[Figure]:
    """Count the bytes of 100,000 IDs with a spid, data, and two holders of a reference each."""
    taken = bytes_each(full, plan.scaled(100_000, 1000))
    return [figure([taken], name="full_id_bytes", backend=backend, unit="bytes", target=600.0)]


def bytes_each(build: Callable[[int], Allocator], count: int) -> float:
    """Return how many bytes an allocator with IDs has more than one without, per ID."""
    empty = _bytes_of(lambda: in_a_row(0))
    return (_bytes_of(lambda: build(count)) - empty) / count


def _bytes_of(build: Callable[[], Allocator]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        core = build()
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del core
    return taken


def new_core(count: int) -> tuple[Allocator, int]:
    """Return an allocator with room for so many IDs, and the number of its one set."""
    # ID 0 is reserved, and a set has room for one ID at least.
    core = Allocator(1 + max(count, 1))
    vm = core.handle(core.session, AllocSet("vm"))
    assert isinstance(vm, SetRecord)
    return core, vm.sid


def in_a_row(count: int) -> Allocator:
    """Return an allocator with IDs allocated one by one."""
    core, sid = new_core(count)
    for ioasid in range(1, count + 1):
        require(Allocated(ioasid, ioasid), core.handle(core.session, Alloc(sid)), "ID")
    core.drain()
    return core


def scattered(count: int) -> Allocator:
    """Return an allocator whose every second ID is allocated."""
    core, sid = new_core(2 * count)
    core.handle(core.session, AllocMany(sid, 2 * count))
    for ioasid in range(2, 2 * count + 1, 2):
        require(Released(True), core.handle(core.session, Free(ioasid)), "answer")
    core.drain()
    return core


def shuffled(count: int) -> Allocator:
    """Return an allocator whose every second ID is allocated, in lives that began in no order."""
    core, sid = new_core(2 * count)
    core.handle(core.session, AllocMany(sid, 2 * count))
    ioasids = list(range(1, 2 * count + 1, 2))
    Random(0).shuffle(ioasids)
    for generation, ioasid in enumerate(ioasids, 2):
        require(Released(True), core.handle(core.session, Free(ioasid)), "answer")
        require(Allocated(ioasid, generation), core.handle(core.session, Alloc(sid)), "ID")
    for ioasid in range(2, 2 * count + 1, 2):
        require(Released(True), core.handle(core.session, Free(ioasid)), "answer")
    core.drain()
    return core


def bound(count: int) -> Allocator:
    """Return an allocator with VMs of 100 IDs, each bound and at rest.

    A holding subscriber of its VM's token at CPU was granted each, and a driver has a reference.
    """
    core = Allocator(1 + count)
    kvm, driver = (_session(core, name) for name in ("kvm", "driver"))
    for number in range(count // 100):
        vm = core.handle(core.session, AllocSet(f"vm-{number}", 100))
        assert isinstance(vm, SetRecord)
        subscribe = Subscribe(token=vm.token, priority=Priority.CPU, hold=True)
        assert isinstance(core.handle(kvm, subscribe), Subscribed)
        for spid in range(100):
            found = core.handle(core.session, Alloc(vm.sid))
            assert isinstance(found, Allocated)
            core.handle(core.session, AttachSpid(found.ioasid, spid))
            core.handle(driver, Get(found.ioasid))
            told = [each for each in core.drain() if isinstance(each, Deliver)]
            messages = tuple((each.subscriptions[0], each.message.seq) for each in told)
            core.handle(kvm, Acknowledge(messages))
    return core


def _session(core: Allocator, name: str) -> int:
    opened = core.handle(core.session, OpenSession(name))
    assert isinstance(opened, SessionOpened)
    return opened.session


def full(count: int) -> Allocator:
    """Return an allocator whose IDs have a spid, data, and two holders of a reference each."""
    core = in_a_row(count)
    holders = [_session(core, name) for name in ("driver-1", "driver-2")]
    for ioasid in range(1, count + 1):
        core.handle(core.session, AttachSpid(ioasid, ioasid + 1_000_000))
        core.handle(core.session, AttachData(ioasid, 0x7F00_0000_0000 + ioasid))
        for holder in holders:
            core.handle(holder, Get(ioasid))
    core.drain()
    return core
