"""A whole host: the flows of its design, crashes, restarts, cancellation, the end."""

import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from ioasid.actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    BindGuestPasid,
    Cleared,
    Context,
    Decision,
    Device,
    DeviceExists,
    DmaFault,
    DmaLanded,
    Draining,
    Enqcmd,
    Entry,
    Host,
    Iommu,
    Mapped,
    NotBound,
    NotProgrammed,
    PasidTooWide,
    PlantedFault,
    ProgramGuestPasid,
    Programmed,
    ProgramPasid,
    RequestFailed,
    StartDma,
    Step,
    StopDma,
    TornDown,
    UnbindGuestPasid,
    UnbindPending,
    UnknownDevice,
    UnknownTransfer,
    Unmapped,
    Vdcm,
    Vm,
    VmClosed,
    VmExists,
    open_host,
)
from ioasid.core import (
    AllocatorClosed,
    AllocSet,
    AlreadyBound,
    CapacityExhausted,
    EventKind,
    HolderLive,
    InvalidArgument,
    Ioasid,
    IoasidError,
    Message,
    NotOfThisSet,
    OpenSession,
    Priority,
    QuotaBelowUse,
    RangeFull,
    ReuseOrder,
    SessionEnded,
    SetFrozen,
    SetState,
    StaleIoasid,
    Statistics,
    Subscribe,
    TokenInUse,
    UnknownIoasid,
    UnknownToken,
)
from tests.actors.hosts import (
    CAPACITY,
    QUOTA,
    SYSTEM_QUOTA,
    Asked,
    Call,
    Planted,
    Witness,
    a_host,
    count,
    dma_in_flight,
    is_quarantined,
    nothing_is_left,
    settle,
    stuck_at,
    sure,
)
from tests.actors.inside import core_of
from tests.core.helpers import state
from tests.core.invariants import check_state

pytestmark = pytest.mark.anyio

ACTORS = ["vfio", "kvm", "vdcm", "vtd"]


def actor_of(name: str, host: Host, vm: Vm) -> Actor:
    """The actor of this kind that takes part when the VM uses "dsa0"."""
    return {"vfio": vm.vfio, "kvm": vm.kvm, "vdcm": host.device("dsa0"), "vtd": host.vtd}[name]


# The flows that it is made for


async def test_the_normal_flow() -> None:
    """The reference count goes 1 2 3 4 and 3 2 1 0, each step by the one whose turn it is."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        assert 1 == await count(host, pasid)
        await vm.bind("dsa0", pasid, 101)
        assert 3 == await count(host, pasid)
        assert pasid == await vm.program("dsa0", 101)
        assert 4 == await count(host, pasid)
        transfer = await vm.submit("dsa0", 101)
        assert DmaLanded(transfer, pasid, "vm-1") == await host.complete("dsa0", transfer)
        assert 4 == await count(host, pasid)
        await vm.stop("dsa0", pasid)
        assert 3 == await count(host, pasid)
        await vm.unbind("dsa0", pasid)
        assert 1 == await count(host, pasid)
        assert False is await vm.free(pasid)
        await settle()
        assert 0 == await count(host, pasid)
        assert [1, 2, 3, 4, 3, 2, 1, 0] == witness.counts[pasid]
        assert ["kvm:vm-1", "vtd"] == witness.told(EventKind.BIND, pasid)
        assert ["kvm:vm-1", "vdcm:dsa0", "vdcm:dsa1", "vtd"] == witness.told(
            EventKind.UNBIND, pasid
        )
        assert [
            ("vtd", Programmed("dsa0", pasid)),
            ("kvm:vm-1", Mapped(101, pasid)),
            ("vdcm:dsa0", Draining(pasid, 0)),
            ("vdcm:dsa0", Cleared(pasid)),
            ("kvm:vm-1", Unmapped(101, pasid)),
            ("vtd", TornDown(pasid, ("dsa0",))),
        ] == witness.steps(Programmed, TornDown, Mapped, Unmapped, Draining, Cleared)
        await vm.close()
        await nothing_is_left(host)


async def test_the_crash_flow() -> None:
    """Free before unbind, DMA in flight: CPU, device, IOMMU let go in this order, then RECLAIM."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        other = await host.start_vm("vm-2", quota=8)
        pasid, transfer = await dma_in_flight(host, vm)
        assert False is await vm.free(pasid)
        await settle()
        assert ["kvm:vm-1", "vdcm:dsa0", "vdcm:dsa1"] == witness.told(EventKind.FREE, pasid)
        assert [1, 2, 3, 4, 3, 2] == witness.counts[pasid]
        assert await is_quarantined(host, pasid)
        assert pasid not in [await other.alloc() for _ in range(4)]
        assert DmaLanded(transfer, pasid, "vm-1") == await host.complete("dsa0", transfer)
        await settle()
        assert [1, 2, 3, 4, 3, 2, 1, 0] == witness.counts[pasid]
        assert "vtd" == witness.told(EventKind.FREE, pasid)[-1]
        assert [
            ("kvm:vm-1", Unmapped(101, pasid)),
            ("vdcm:dsa0", Draining(pasid, 1)),
            ("vdcm:dsa0", Cleared(pasid)),
            ("vtd", TornDown(pasid, ("dsa0",))),
        ] == witness.steps(TornDown, Unmapped, Draining, Cleared)
        with pytest.raises(UnknownIoasid):
            await vm.unbind("dsa0", pasid)
        again = await other.alloc()
        assert pasid == again
        with pytest.raises(StaleIoasid):
            await vm.unbind("dsa0", pasid)
        with pytest.raises(NotOfThisSet):
            await vm.unbind("dsa0", int(pasid))
        assert 1 == await count(host, again)


STALE: dict[str, Callable[[Host, Vm, Ioasid, Ioasid], Awaitable[object]]] = {
    "free": lambda host, vm, old, process: vm.free(old),
    "bind": lambda host, vm, old, process: vm.bind("dsa1", old, 101),
    "bind again": lambda host, vm, old, process: vm.bind("dsa0", old, 101),
    "unbind": lambda host, vm, old, process: vm.unbind("dsa0", old),
    "stop": lambda host, vm, old, process: vm.stop("dsa0", old),
    "VT-d's bind": lambda host, vm, old, process: host.vtd.ask(
        BindGuestPasid("dsa1", old, vm.sid, 101, "vm-1")
    ),
    "VT-d's unbind": lambda host, vm, old, process: host.vtd.ask(
        UnbindGuestPasid("dsa0", old, vm.sid)
    ),
    "DMA": lambda host, vm, old, process: host.device("dsa0").ask(StartDma(old, vm.sid)),
    "DMA for whom": lambda host, vm, old, process: host.device("dsa0").ask(StartDma(old)),
    "VDCM's stop": lambda host, vm, old, process: host.device("dsa0").ask(StopDma(old, vm.sid)),
    "VDCM's stop for whom": lambda host, vm, old, process: host.device("dsa0").ask(StopDma(old)),
    "program": lambda host, vm, old, process: host.device("dsa0").ask(ProgramPasid(process, 7)),
    "process's DMA": lambda host, vm, old, process: host.sva_submit("dsa0", process, 8),
    "process's stop": lambda host, vm, old, process: host.sva_stop("dsa0", process, 8),
}
"""Every door that takes the number of an ID: an old one of the VM's, or of a process's."""


@pytest.mark.parametrize("door", STALE)
async def test_an_old_number_is_refused_at_every_door(door: str) -> None:
    """Whoever names a life that is over touches nobody who has the number now."""
    async with a_host() as (host, vm):
        old, _ = await dma_in_flight(host, vm)
        await host.complete("dsa0", 1)
        await vm.free(old)
        process = await host.sva_bind("dsa0", 7)
        await host.process_exited(7)
        await settle()
        pasid, transfer = await dma_in_flight(host, vm)
        again = await host.sva_bind("dsa0", 8)
        assert (old, process) == (pasid, again)
        before = (
            state(core_of(host.allocator)),
            {name: dict(table) for name, table in host.vtd.iommu.tables.items()},
            {each: vars_of(context) for each, context in contexts(host).items()},
        )
        with pytest.raises(StaleIoasid):
            await STALE[door](host, vm, old, process)
        await settle()
        assert before == (
            state(core_of(host.allocator)),
            {name: dict(table) for name, table in host.vtd.iommu.tables.items()},
            {each: vars_of(context) for each, context in contexts(host).items()},
        )
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


def contexts(host: Host) -> dict[int, Context]:
    """What the first device has programmed."""
    return host.device("dsa0").device.contexts


def vars_of(context: Context) -> tuple[object, ...]:
    """What there is to say of a context."""
    return context.sid, context.gpasid, context.generation, context.stopping, *context.in_flight


async def test_two_vms_share_a_device() -> None:
    """Two VMs with the same guest PASID on one device: each one's DMA lands in its own memory."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=8)
        first, one = await dma_in_flight(host, vm)
        second, two = await dma_in_flight(host, other)
        assert first != second
        assert DmaLanded(two, second, "vm-2") == await host.complete("dsa0", two)
        vm.crash()
        await settle()
        three = await other.submit("dsa0", 101)
        assert DmaLanded(three, second, "vm-2") == await host.complete("dsa0", three)
        assert DmaLanded(one, first, "vm-1") == await host.complete("dsa0", one)
        await vm.gone()
        assert 4 == await count(host, second)
        await other.close()
        await nothing_is_left(host)


# VMs


async def test_a_vm_that_crashes_with_dma_in_flight() -> None:
    """Its set goes, with quota and token, when its devices have drained and not before."""
    async with a_host() as (host, vm):
        available = (await host.allocator.statistics()).available
        _, transfer = await dma_in_flight(host, vm)
        vm.crash()
        vm.crash()
        await settle()
        figures = await host.allocator.statistics()
        assert (available, 1, 1) == (
            figures.available,
            figures.sets_free_pending,
            figures.free_pending,
        )
        with pytest.raises(VmExists):
            await host.start_vm("vm-1", quota=1)
        with pytest.raises(TokenInUse):
            await host.allocator.alloc_set("vm-1", 1)
        await host.complete("dsa0", transfer)
        await vm.gone()
        await vm.gone()
        await vm.close()
        with pytest.raises(UnknownToken):
            await host.allocator.find_set("vm-1")
        await nothing_is_left(host)


async def test_a_name_is_free_again_when_its_vm_is_gone() -> None:
    """A VM of the same name starts as soon as `gone` or `close` returns, any number of times."""
    async with a_host() as (host, vm):
        for _ in range(5):
            pasid, transfer = await dma_in_flight(host, vm)
            assert 1 == pasid
            await host.complete("dsa0", transfer)
            await vm.close()
            vm = await host.start_vm("vm-1", quota=8)  # noqa: PLW2901
            assert {"vm-1": vm} == host.vms
        await vm.close()
        await nothing_is_left(host)


async def test_a_vm_that_is_gone_reaches_nothing_of_the_next_one() -> None:
    """A new VM gets the ID of an old one, never its set number; the old one stays out."""
    async with a_host() as (host, vm):
        before = await vm.alloc()
        await vm.close()
        successor = await host.start_vm("vm-2", quota=8)
        assert vm.sid < successor.sid
        pasid = await successor.alloc()
        assert before == pasid
        await successor.bind("dsa0", pasid, 101)
        refused: list[Call] = [
            vm.alloc,
            lambda: vm.free(pasid),
            lambda: vm.bind("dsa1", pasid, 101),
            lambda: vm.unbind("dsa0", pasid),
        ]
        for call in refused:
            with pytest.raises(ActorStopped):
                await call()
        closed: list[Call] = [
            lambda: vm.program("dsa0", 101),
            lambda: vm.submit("dsa0", 101),
            lambda: vm.stop("dsa0", pasid),
        ]
        for call in closed:
            with pytest.raises(VmClosed):
                await call()
        assert 3 == await count(host, pasid)
        assert successor.name in host.vms


async def test_quotas_come_out_of_what_is_available() -> None:
    """A VM whose quota is not available does not start, and leaves nothing behind."""
    async with a_host() as (host, vm):
        available = (await host.allocator.statistics()).available
        with pytest.raises(CapacityExhausted):
            await host.start_vm("vm-2", quota=available + 1)
        other = await host.start_vm("vm-2", quota=available)
        with pytest.raises(CapacityExhausted):
            await host.start_vm("vm-3", quota=1)
        await other.close()
        await vm.close()
        await nothing_is_left(host)


async def test_names_are_taken_once() -> None:
    """A device or VM of a name that is there is refused, and so is a name that others bear."""
    async with a_host() as (host, vm):
        with pytest.raises(DeviceExists):
            await host.add_device("dsa0")
        with pytest.raises(VmExists):
            await host.start_vm("vm-1", quota=1)
        assert (vm, ["dsa0", "dsa1"]) == (host.vms["vm-1"], sorted(host.devices))
        for taken in ("vdcm:dsa2", "kvm:vm-2", "vfio:vm-3"):
            async with host.allocator.session(taken):
                kind, _, name = taken.partition(":")
                with pytest.raises(HolderLive):
                    await (
                        host.add_device(name) if kind == "vdcm" else host.start_vm(name, quota=1)
                    )
        owner = await host.allocator.alloc_set("vm-4", 2)
        with pytest.raises(TokenInUse):
            await host.start_vm("vm-4", quota=1)
        assert owner == await host.allocator.find_set("vm-4")
        await host.allocator.free_set(owner.sid)
        await host.add_device("dsa2")
        for name in ("vm-2", "vm-3", "vm-4"):
            await (await host.start_vm(name, quota=1)).close()
        await vm.close()
        await nothing_is_left(host)


async def test_names_are_taken_from_the_first_moment() -> None:
    """Of two that start a device or VM of the same name at once, one gets it."""
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        came_to: list[type | None] = []

        async def attempt(call: Call) -> None:
            try:
                await call()
                came_to.append(None)
            except IoasidError as error:
                came_to.append(type(error))

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(attempt, lambda: host.add_device("dsa0"))
                tasks.start_soon(attempt, lambda: host.start_vm("vm-1", quota=1))
        assert 2 == came_to.count(None)
        assert {DeviceExists, VmExists} == {each for each in came_to if each}
        await host.vms["vm-1"].close()
        await nothing_is_left(host)


async def test_two_hosts_in_one_process() -> None:
    """Two hosts share nothing: the same names and IDs, and the end of one is not the other's."""
    async with a_host() as (first, one):
        async with a_host() as (second, two):
            assert 1 == (await dma_in_flight(first, one))[0]
            assert 1 == (await dma_in_flight(second, two))[0]
            two.crash()
            second.vtd.crash()
            await settle()
            assert 4 == await count(first, 1)
        assert "vm-1" == (await first.complete("dsa0", 1)).owner
        with pytest.raises(ActorStopped):
            await second.complete("dsa0", 1)
        await one.close()
        await nothing_is_left(first)


# Crashes: every actor, at every moment


@pytest.mark.parametrize("who", ACTORS)
async def test_a_crash_when_idle(who: str) -> None:
    """An actor that crashes when there is nothing to do comes back, and all goes as before."""
    async with a_host() as (host, vm):
        actor_of(who, host, vm).crash()
        await settle()
        _, transfer = await dma_in_flight(host, vm)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
async def test_a_crash_with_bindings(who: str) -> None:
    """An actor that crashes while an ID is bound keeps what it holds, and finds its table again."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.program("dsa0", 101)
        references = (await host.allocator.find(pasid)).references
        actor_of(who, host, vm).crash()
        await settle()
        assert references == (await host.allocator.find(pasid)).references
        assert ({101: pasid}, {pasid: Entry("vm-1", 101, pasid.generation)}) == (
            vm.kvm.table,
            host.vtd.iommu.tables["dsa0"],
        )
        transfer = await vm.submit("dsa0", 101)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await vm.stop("dsa0", pasid)
        await vm.unbind("dsa0", pasid)
        assert 1 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
async def test_a_crash_with_dma_in_flight(who: str) -> None:
    """A free after a crash with DMA in flight quarantines the ID until the DMA is over."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        actor_of(who, host, vm).crash()
        await settle()
        await vm.free(pasid)
        await settle()
        assert await is_quarantined(host, pasid)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert 0 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
@pytest.mark.parametrize("tier", [Priority.CPU, Priority.DEVICE, Priority.IOMMU])
async def test_a_crash_while_a_free_is_on_its_way(who: str, tier: Priority) -> None:
    """An actor that crashes before, while or after it is told of a FREE: it ends the same way."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        async with stuck_at(host, tier):
            await vm.free(pasid)
            actor_of(who, host, vm).crash()
            await settle()
            assert await is_quarantined(host, pasid)
            assert pasid + 1 == await vm.alloc()
            assert "vm-1" == (await host.complete("dsa0", transfer)).owner
            await settle()
            assert await is_quarantined(host, pasid)
        await settle()
        assert 0 == await count(host, pasid)
        assert 0 == witness.counts[pasid][-1]
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
async def test_a_crash_while_an_unbind_waits(who: str) -> None:
    """An unbind goes on over a crash; who asked is told of the crash if it was in those hands."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        actor_of(who, host, vm).crash()
        await settle()
        assert ({"unbind": ActorCrashed} if who in {"vfio", "vtd"} else {}) == asked.came_to
        assert ("dsa0",) == host.vtd.iommu.devices_of(pasid)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {"unbind": ActorCrashed if who in {"vfio", "vtd"} else None} == asked.came_to
        assert ({}, (), 1) == (
            vm.kvm.table,
            host.vtd.iommu.devices_of(pasid),
            await count(host, pasid),
        )
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
async def test_a_crash_while_a_vm_is_cleared_away(who: str) -> None:
    """A VM that crashed is cleared away to the end, whoever crashes meanwhile."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        vm.crash()
        await settle()
        actor_of(who, host, vm).crash()
        await settle()
        assert await is_quarantined(host, pasid)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await vm.gone()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ACTORS)
async def test_asks_that_are_queued_over_a_crash(who: str) -> None:
    """What is asked of an actor behind its crash is answered when it is back."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        actor_of(who, host, vm).crash()
        asked = Asked(tasks)
        async with anyio.create_task_group() as at_once:
            at_once.start_soon(asked.ask, "alloc", vm.alloc)
            at_once.start_soon(asked.ask, "enqcmd", lambda: vm.kvm.ask(Enqcmd(101)))
            at_once.start_soon(asked.ask, "program", lambda: vm.program("dsa0", 101))
            at_once.start_soon(asked.ask, "bind", lambda: vm.bind("dsa1", pasid, 101))
        assert {
            "alloc": pasid + 1,
            "enqcmd": pasid,
            "program": pasid,
            "bind": None,
        } == asked.came_to
        assert 4 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("who", ["vfio", "kvm"])
async def test_a_vm_that_lost_an_actor_is_cleared_away(who: str) -> None:
    """A VM whose VFIO or KVM gave up is cleared away by the host, and its name is free again."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        # The host's own session may watch the VM; that is in nobody's way.
        async with host.allocator.subscribe(token="vm-1", kinds={EventKind.RECLAIM}):
            pasid, transfer = await dma_in_flight(host, vm)
            asked = Asked(tasks)
            await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
            for _ in range(4):
                actor_of(who, host, vm).crash()
            await settle()
            assert await is_quarantined(host, pasid)
            with pytest.raises(ActorStopped if who == "vfio" else VmClosed):
                await vm.alloc()
            await host.complete("dsa0", transfer)
            await vm.gone()
        again = await host.start_vm("vm-1", quota=8)
        assert pasid == await again.alloc()
        await again.close()
        await nothing_is_left(host)


async def use_and_leave(host: Host, vm: Vm, pasid: int) -> None:
    """The normal flow on two devices, by a guest that insists."""
    await sure(lambda: vm.bind("dsa0", pasid, 101), AlreadyProgrammed)
    await sure(lambda: vm.bind("dsa1", pasid, 101), AlreadyProgrammed)
    await sure(lambda: vm.program("dsa0", 101), AlreadyProgrammed)
    transfer = await sure(lambda: vm.submit("dsa0", 101))
    assert transfer is not None
    landed = await sure(lambda: host.complete("dsa0", transfer), UnknownTransfer)
    assert landed is None or "vm-1" == landed.owner
    await sure(lambda: vm.stop("dsa0", pasid), NotProgrammed)
    await sure(lambda: vm.unbind("dsa0", pasid), NotBound, UnbindPending)
    await sure(lambda: vm.unbind("dsa1", pasid), NotBound, UnbindPending)
    await sure(lambda: vm.free(pasid), UnknownIoasid)


async def use_and_crash(vm: Vm, pasid: int) -> None:
    """The crash flow: a free with DMA in flight."""
    await sure(lambda: vm.bind("dsa0", pasid, 101), AlreadyProgrammed)
    await sure(lambda: vm.program("dsa0", 101), AlreadyProgrammed)
    await sure(lambda: vm.submit("dsa0", 101))
    await sure(lambda: vm.free(pasid), UnknownIoasid)


async def use_a_process(host: Host) -> None:
    """A process that exits with DMA in flight."""
    pasid = await sure(lambda: host.sva_bind("dsa0", 77), AlreadyProgrammed)
    if pasid is not None:
        await sure(lambda: host.sva_submit("dsa0", pasid, 77))
    await sure(lambda: host.process_exited(77))


async def scenario(host: Host, vm: Vm) -> None:
    """Everything that a VM and a process do."""
    first = await sure(vm.alloc)
    assert first is not None
    await use_and_leave(host, vm, first)
    await settle()
    second = await sure(vm.alloc)
    assert second is not None
    await use_and_crash(vm, second)
    await settle()
    await use_a_process(host)
    await settle()


async def end_of(host: Host, vm: Vm) -> None:
    """Let everything in flight complete, close the VM, and look whether anything is left."""
    vm.crash()
    while True:
        await settle()
        flying = [(d, t) for d, vdcm in host.devices.items() for t in vdcm.device.transfers]
        if not flying:
            break
        for device, transfer in flying:
            landed = await sure(
                lambda device=device, transfer=transfer: host.complete(device, transfer),  # type: ignore[misc]
                DmaFault,
                UnknownTransfer,
            )
            assert landed is None or landed.owner in {"vm-1", "process 77"}
    await sure(lambda: host.process_exited(77))
    await vm.gone()
    await nothing_is_left(host)


@pytest.mark.parametrize("who", ["vfio:vm-1", "kvm:vm-1", "vdcm:dsa0", "vdcm:dsa1", "vtd"])
async def test_a_crash_at_every_step(who: str) -> None:
    """Whichever step an actor crashes at, all is as right, and as empty, at the end."""
    for crash_at in itertools.count():
        steps = itertools.count()

        def fault(step: Step, steps: Any = steps, crash_at: int = crash_at) -> bool:
            return step.actor == who and next(steps) == crash_at

        witness = Witness(fault)
        async with a_host(witness) as (host, vm):
            await scenario(host, vm)
            await end_of(host, vm)
        assert {0} == {counts[-1] for counts in witness.counts.values()}
        if next(steps) <= crash_at:
            break
    assert 4 <= crash_at


# The operator


async def test_a_host_that_was_evicted_itself_ends() -> None:
    """A host whose own session was evicted can't clear a VM away: it ends with that error."""

    async def evict_the_host() -> None:
        async with a_host() as (host, vm), host.allocator.session("operator") as operator:
            await operator.evict("host")
            vm.vfio.stop()
            await anyio.sleep_forever()

    with pytest.raises(SessionEnded):
        await evict_the_host()


@pytest.mark.parametrize("holder", ["vfio:vm-1", "kvm:vm-1", "vdcm:dsa0", "vtd"])
async def test_an_eviction_with_dma_in_flight(holder: str) -> None:
    """An actor whose session is evicted comes back anew, and everything ends reclaimed."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        await host.allocator.evict(holder)
        await settle()
        vm.crash()
        try:
            assert "vm-1" == (await sure(lambda: host.complete("dsa0", transfer))).owner  # type: ignore[union-attr]
        except (UnknownTransfer, DmaFault):
            assert holder in {"vdcm:dsa0", "vtd"}
        await vm.gone()
        await nothing_is_left(host)


# Devices that are busy


def keep_busy(vdcm: Vdcm) -> None:
    """Give a device more to do than anybody here waits for."""
    for _ in range(500):
        vdcm.client().tell(ProgramPasid(CAPACITY - 1, 1))


async def turns(count: int) -> None:
    """Let the event loop run that often: enough for a few steps, and not for all of them."""
    for _ in range(count):
        await checkpoint()


async def test_what_a_vm_asked_a_device_ends_with_it() -> None:
    """What waits at a busy device when its VM ends does not reach the next VM of that name."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        vdcm = host.device("dsa0")
        keep_busy(vdcm)
        tasks.start_soon(asked.note, "program", lambda: vm.program("dsa0", 101))
        await turns(20)
        await vm.close()
        following = await host.start_vm("vm-1", quota=QUOTA)
        await following.bind("dsa0", await following.alloc(), 101)
        assert vm.sid < following.sid
        await settle()
        assert ({"program": VmClosed}, {}) == (asked.came_to, vdcm.device.contexts)


async def test_what_a_vm_asked_the_iommu_ends_with_it() -> None:
    """A bind that waits at VT-d when its VM ends does not reach the next owner of its ID."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        pasid = await vm.alloc()
        for _ in range(500):
            host.vtd.client().tell(BindGuestPasid("dsa1", CAPACITY - 1, vm.sid, 9, "vm-1"))
        tasks.start_soon(asked.note, "bind", lambda: vm.bind("dsa0", pasid, 101))
        await turns(20)
        await vm.close()
        following = await host.start_vm("vm-2", quota=QUOTA)
        again = await following.alloc()
        assert (True, pasid) == (vm.sid < following.sid, again)
        await settle()
        assert ({"bind": VmClosed}, {}) == (asked.came_to, host.vtd.iommu.tables["dsa0"])
        assert None is (await host.allocator.find(again)).spid


async def test_work_waiting_at_a_device_does_not_reach_another_vm() -> None:
    """Work is refused if the PASID it was translated to is another VM's when its turn comes."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        vdcm = host.device("dsa0")
        asked = Asked(tasks)
        other = await host.start_vm("vm-2", quota=QUOTA)
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.program("dsa0", 101)
        keep_busy(vdcm)
        vdcm.tell(ProgramGuestPasid(other.sid, 101))
        tasks.start_soon(asked.note, "submit", lambda: vm.submit("dsa0", 101))
        await turns(20)
        await vm.free(pasid)
        while await count(host, pasid):
            await checkpoint()
        again = await other.alloc()
        assert pasid == again
        await other.bind("dsa0", again, 101)
        await settle()
        assert {"submit": StaleIoasid} == asked.came_to
        assert again.generation == vdcm.device.contexts[pasid].generation
        assert ([pasid], {}) == ([*vdcm.device.contexts], vdcm.device.transfers)


# Devices that come and go


async def test_an_id_that_does_not_fit_a_device_is_refused() -> None:
    """Nothing is programmed of an ID that is wider than the device's PASIDs, at every door."""
    async with open_host(capacity=1024, system_quota=600) as host:
        await host.add_device("small", pasid_bits=8)
        await host.add_device("wide")
        vm = await host.start_vm("vm-1", quota=400)
        pasid = await vm.alloc(min=300)
        with pytest.raises(PasidTooWide) as caught:
            await vm.bind("small", pasid, 101)
        assert ("small", 300, 8, "EOVERFLOW") == (
            caught.value.device,
            caught.value.ioasid,
            caught.value.pasid_bits,
            caught.value.code,
        )
        await vm.bind("wide", pasid, 101)
        with pytest.raises(PasidTooWide):
            await vm.bind("small", pasid, 101)
        with pytest.raises(PasidTooWide):
            await vm.program("small", 101)
        with pytest.raises(PasidTooWide):
            await host.device("small").ask(ProgramPasid(pasid, 77))
        assert ({}, {}) == (host.vtd.iommu.tables["small"], host.device("small").device.contexts)
        assert {"vtd": 1, "kvm:vm-1": 1} == (await host.allocator.find(pasid)).references
        assert 255 >= await vm.alloc(device="small")
        with pytest.raises(InvalidArgument):
            await vm.alloc(min=256, device="small")
        assert 255 == await vm.alloc(min=255, max=1000, device="small")
        with pytest.raises(UnknownDevice):
            await vm.alloc(device="none")


async def test_a_process_gets_a_pasid_that_fits_its_first_device() -> None:
    """The PASID of a process fits the device that it binds first; a narrower one refuses it."""
    async with open_host(capacity=1024, system_quota=600) as host:
        await host.add_device("small", pasid_bits=2)
        await host.add_device("wide")
        fitting = [await host.sva_bind("small", process) for process in range(3)]
        assert [1, 2, 3] == fitting
        with pytest.raises(RangeFull):
            await host.sva_bind("small", 3)
        wide = await host.sva_bind("wide", 3)
        assert 4 == wide
        with pytest.raises(PasidTooWide):
            await host.sva_bind("small", 3)
        assert {"vtd": 1, "vdcm:wide": 1} == (await host.allocator.find(wide)).references


@pytest.mark.parametrize("pasid_bits", [0, 21, -1, True, 8.0, None, "8"])
async def test_widths_that_are_none_are_refused(pasid_bits: Any) -> None:
    """A width that no device has adds none."""
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        with pytest.raises(InvalidArgument, match="pasid_bits"):
            await host.add_device("dsa0", pasid_bits=pasid_bits)
        assert {} == host.devices
        await host.add_device("dsa0")


async def test_a_removed_device_is_drained_and_unbound_first() -> None:
    """It takes no more work, waits for what is in flight, and goes; others are untouched."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.bind("dsa1", pasid, 101)
        alone = await vm.alloc()
        await vm.bind("dsa0", alone, 102)
        ours = await host.sva_bind("dsa0", 77)
        assert ours == await host.sva_bind("dsa1", 77)
        work = await host.sva_submit("dsa0", ours, 77)
        gone = host.device("dsa0")
        asked = Asked(tasks)
        await asked.ask("remove", lambda: host.remove_device("dsa0"))
        await asked.ask("remove again", lambda: host.remove_device("dsa0"))
        calls: list[Call] = [
            lambda: vm.bind("dsa0", alone, 102),
            lambda: vm.program("dsa0", 101),
            lambda: vm.submit("dsa0", 101),
            lambda: host.sva_bind("dsa0", 78),
            lambda: host.sva_submit("dsa0", ours, 77),
            lambda: vm.alloc(device="none"),
        ]
        for call in calls:
            with pytest.raises(UnknownDevice):
                await call()
        with pytest.raises(DeviceExists):
            await host.add_device("dsa0")
        assert {} == asked.came_to
        assert "process 77" == (await host.complete("dsa0", work)).owner
        await settle()
        assert {} == asked.came_to
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {"remove": None, "remove again": None} == asked.came_to
        with pytest.raises(UnknownDevice):
            await host.remove_device("dsa0")
        assert ({}, {}) == (gone.device.contexts, gone.device.transfers)
        assert ["dsa1"] == [*host.vtd.iommu.tables] == [*host.devices]
        assert {
            pasid: Entry("vm-1", 101, pasid.generation),
            ours: Entry("process 77", None, ours.generation),
        } == host.vtd.iommu.tables["dsa1"]
        assert (3, 1, 3) == tuple([await count(host, each) for each in (pasid, alone, ours)])
        landed = await host.complete("dsa1", await host.sva_submit("dsa1", ours, 77))
        assert "process 77" == landed.owner
        await host.add_device("dsa0", pasid_bits=8)
        await vm.bind("dsa0", alone, 102)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_removal_goes_on_when_nobody_waits_and_drivers_crash() -> None:
    """Who removes a device and gives up finds it gone when its DMA is over, crashes or not."""
    async with a_host() as (host, vm):
        _, transfer = await dma_in_flight(host, vm)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.remove_device, "dsa0")
            await settle()
            tasks.cancel_scope.cancel()
        host.vtd.crash()
        await settle()
        states = {each.actor: each.state for each in host.statistics()}
        assert "stopping" == states["vdcm:dsa0"]
        await host.complete("dsa0", transfer)
        host.vtd.crash()
        await settle()
        assert ["dsa1"] == [*host.devices]
        await host.add_device("dsa0")
        await vm.close()
        await nothing_is_left(host)


async def test_a_removal_while_an_unbind_waits() -> None:
    """An unbind that waits for its DMA is answered, and the device goes."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        await asked.ask("remove", lambda: host.remove_device("dsa0"))
        await host.complete("dsa0", transfer)
        await settle()
        assert {"unbind": None, "remove": None} == asked.came_to
        assert 1 == await count(host, pasid)


@pytest.mark.parametrize("drain", [True, False])
async def test_a_stopped_iommu_driver_leaves_no_entry_to_the_next_owner(*, drain: bool) -> None:
    """Its entries are torn down, or their IDs stay in quarantine: no DMA reaches a stranger."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        pasid = await host.sva_bind("dsa0", 1)
        await host.sva_submit("dsa0", pasid, 1)
        host.vtd.stop(drain=drain)
        await host.vtd.ended.wait()
        await asked.ask("free", lambda: host.allocator.free(pasid, wait=True))
        if drain:
            assert {"dsa0": {}, "dsa1": {}} == host.vtd.iommu.tables
            with pytest.raises(DmaFault):
                await host.complete("dsa0", 1)
            await settle()
            assert {"free": True} == asked.came_to
            assert pasid == await vm.alloc()
        else:
            assert "suspended" == host.vtd.statistics().state
            assert "process 1" == (await host.complete("dsa0", 1)).owner
            await settle()
            assert {} == asked.came_to
            assert await is_quarantined(host, pasid)
            assert pasid != await vm.alloc()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("drain", [True, False])
async def test_a_stopped_device_driver_leaves_no_context_to_the_next_owner(*, drain: bool) -> None:
    """Bound, at work, stopped; the process exits and a VM binds: the VM's memory is its own."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 1)
        transfer = await host.sva_submit("dsa0", pasid, 1)
        vdcm = host.device("dsa0")
        vdcm.stop(drain=drain)
        await settle()
        await host.process_exited(1)
        await settle()
        taken = await vm.alloc()
        assert pasid != taken
        await vm.bind("dsa0", taken, 101)
        if drain:
            assert "stopping" == vdcm.statistics().state
            assert "process 1" == (await host.complete("dsa0", transfer)).owner
            await vdcm.ended.wait()
            await settle()
            assert pasid == await vm.alloc()
        else:
            assert "suspended" == vdcm.statistics().state
            assert await is_quarantined(host, pasid)
        with pytest.raises(ActorStopped):
            await vm.program("dsa0", 101)
        with pytest.raises(ActorStopped):
            await host.sva_bind("dsa0", 2)


async def test_statistics_name_who_is_down() -> None:
    """Every driver and VM actor is there by name, with its state; one that gave up stays."""
    async with a_host() as (host, _):
        for _ in range(4):
            host.device("dsa0").crash()
        await settle()
        assert {
            "kvm:vm-1": "serving",
            "vdcm:dsa0": "down",
            "vdcm:dsa1": "serving",
            "vfio:vm-1": "serving",
            "vtd": "serving",
        } == {each.actor: each.state for each in host.statistics()}
        assert isinstance(host.device("dsa0").statistics().error, PlantedFault)


async def test_a_guests_nonsense_takes_no_device_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that a guest meets six times is the failure of those requests alone."""

    def broken(self: Any, ioasid: int) -> None:
        raise KeyError(ioasid)

    async with a_host(max_restarts=0) as (host, vm):
        _, transfer = await dma_in_flight(host, vm)
        other = await vm.alloc()
        await vm.bind("dsa0", other, 102)
        with monkeypatch.context() as patched:
            patched.setattr(Device, "fits", broken)
            for _ in range(6):
                with pytest.raises(RequestFailed) as caught:
                    await vm.program("dsa0", 102)
                assert isinstance(caught.value.__cause__, KeyError)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


async def test_a_flood_of_binds_delays_another_vm_by_little() -> None:
    """Each VM has its lane at the IOMMU driver and at every device."""
    witness = Witness()
    async with a_host(witness) as (host, vm), anyio.create_task_group() as tasks:
        other = await host.start_vm("vm-2", quota=QUOTA)
        pasid, _ = await dma_in_flight(host, other)
        flood = host.vtd.client()
        for _ in range(2000):
            flood.tell(BindGuestPasid("dsa0", CAPACITY - 1, vm.sid, 9, "vm-1"))
        line = host.device("dsa0").client()
        for _ in range(2000):
            line.tell(StartDma(CAPACITY - 1, vm.sid))
        await other.bind("dsa1", pasid, 101)
        await other.submit("dsa0", 101)
        assert 1900 < host.vtd.statistics().waiting
        assert 1900 < host.device("dsa0").statistics().waiting
        tasks.cancel_scope.cancel()


# The end


@pytest.mark.parametrize("orderly", [True, False], ids=["orderly", "abrupt"])
async def test_the_end_with_asks_pending(*, orderly: bool) -> None:
    """Whoever waits when the host ends is told so, in order or not; nothing hangs."""

    async def end_with_asks_pending(asked: Asked) -> None:
        async with a_host() as (host, vm):
            other = await host.start_vm("vm-2", quota=4)
            pasid, _ = await dma_in_flight(host, vm)
            await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
            await asked.ask("stop", lambda: vm.stop("dsa0", pasid))
            await asked.ask("close", vm.close)
            await asked.ask("gone", other.gone)
            await asked.ask("free", lambda: host.allocator.free(pasid, wait=True))
            await asked.ask("sva", lambda: host.sva_bind("dsa0", 77))
            await asked.ask("sva_unbind", lambda: host.sva_unbind("dsa0", 77))
            assert ["stop", "sva", "sva_unbind", "unbind"] == sorted(asked.came_to)
            if not orderly:
                raise Custom
        assert orderly

    async with anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        with nullcontext() if orderly else pytest.raises(Custom):
            await end_with_asks_pending(asked)
        await settle()
        came_to = {name: each for name, each in asked.came_to.items() if "sva" not in name}
        assert {
            "unbind": VmClosed,
            "stop": VmClosed,
            "close": ActorStopped,
            "gone": ActorStopped,
            "free": AllocatorClosed,
        } == came_to


async def test_everything_is_refused_after_the_end() -> None:
    """After the end of its host every method of a VM, and of the host, says so."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
    calls: list[Call] = [
        vm.alloc,
        lambda: vm.free(pasid),
        lambda: vm.bind("dsa1", pasid, 101),
        lambda: vm.unbind("dsa0", pasid),
        lambda: vm.program("dsa0", 101),
        lambda: vm.submit("dsa0", 101),
        lambda: vm.stop("dsa0", pasid),
        vm.gone,
        lambda: host.add_device("dsa2"),
        lambda: host.start_vm("vm-2", quota=1),
        lambda: host.complete("dsa0", transfer),
        lambda: host.sva_bind("dsa0", 77),
        lambda: host.sva_submit("dsa0", pasid, 77),
        lambda: host.sva_stop("dsa0", pasid, 77),
        lambda: host.sva_unbind("dsa0", 77),
        lambda: host.process_exited(77),
    ]
    for call in calls:
        with pytest.raises(ActorStopped):
            await call()
    vm.crash()
    with pytest.raises((ActorStopped, VmClosed)):
        await vm.close()
    with pytest.raises(AllocatorClosed):
        await host.allocator.statistics()
    assert ({}, ["dsa0", "dsa1"]) == (host.vms, sorted(host.devices))


async def test_starts_that_the_end_overtakes() -> None:
    """A device or VM that is being started when the host ends does not start, and says so."""
    async with anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:

            async def start(name: str, call: Call) -> None:
                try:
                    asked.came_to[name] = await call()
                except IoasidError as error:
                    asked.came_to[name] = type(error)

            tasks.start_soon(start, "device", lambda: host.add_device("dsa0"))
            tasks.start_soon(start, "vm", lambda: host.start_vm("vm-1", quota=4))
            await checkpoint()
        await settle()
        assert ["device", "vm"] == sorted(asked.came_to)
        assert {ActorStopped} >= {each for each in asked.came_to.values() if isinstance(each, type)}
        assert {} == host.vms


class Custom(Exception):
    """What a test raises."""


@pytest.mark.parametrize(
    "error",
    [Custom("one"), ExceptionGroup("of the caller's own", [Custom("in a group")]), Planted("x")],
    ids=["plain", "group", "planted"],
)
async def test_exceptions_leave_as_they_were_raised(error: Exception) -> None:
    """An exception of the body leaves `open_host` itself, not wrapped, with its cause."""
    cause = Custom("the cause")

    async def fail() -> None:
        async with a_host() as (host, vm):
            await dma_in_flight(host, vm)
            raise error from cause

    with pytest.raises(type(error)) as caught:
        await fail()
    # trio makes a group anew when it passes.
    assert repr(error) == repr(caught.value)
    assert cause is caught.value.__cause__
    if not isinstance(error, ExceptionGroup):
        assert error is caught.value


async def test_a_host_can_be_cancelled() -> None:
    """A host whose task is cancelled ends at once, DMA in flight or not."""
    with anyio.CancelScope() as scope:
        async with a_host() as (host, vm):
            await dma_in_flight(host, vm)
            vm.crash()
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(ActorStopped):
        await vm.gone()


@pytest.mark.usefixtures("broken_core")
async def test_an_allocator_that_crashes_takes_the_host_along() -> None:
    """A defect in the allocator ends the host with that error."""

    async def crash_it() -> None:
        async with a_host() as (host, vm):
            await dma_in_flight(host, vm)
            vm.crash()
            await settle()
            await host.allocator.reserve_capacity(1)
            raise AssertionError("not reached")

    with pytest.raises(RuntimeError, match="planted"):
        await crash_it()


@pytest.mark.parametrize("kind", [Decision, Step])
async def test_a_tap_that_raises_is_removed_everywhere(
    kind: type[Decision | Step], caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once and sees no decision and no step any more; the host and others go on."""
    before: list[Decision | Step] = []
    witness = Witness()

    def bad(seen: Decision | Step) -> None:
        before.append(seen)
        if isinstance(seen, kind):
            raise LookupError("of its own")

    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA, taps=[bad, witness]) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=QUOTA)
        pasid, transfer = await dma_in_flight(host, vm)
        await host.complete("dsa0", transfer)
        await vm.close()
    assert {pasid: [1, 2, 3, 4, 3, 2, 1, 0]} == witness.counts
    assert witness.seen[: len(before)] == before
    assert [kind] == [type(each) for each in before if isinstance(each, kind)]
    assert 1 == caplog.text.count("LookupError: of its own")


async def test_a_host_leaves_no_cycle_behind() -> None:
    """A host that ended is collected when nobody refers to it."""
    async with a_host() as (host, vm):
        await dma_in_flight(host, vm)
        ref = weakref.ref(host)
    del host, vm
    # CPython 3.13 keeps what a task was woken with, and its traceback, until the next time.
    await checkpoint()
    gc.collect()
    assert None is ref()


@pytest.mark.parametrize(
    "call",
    [
        lambda vm: vm.unbind("dsa0", 5),
        lambda vm: vm.bind("dsa0", CAPACITY, 101),
        lambda vm: vm.program("dsa0", 77),
        lambda vm: vm.stop("dsa0", 5),
        lambda vm: vm.free(5),
    ],
    ids=["unbind", "bind", "program", "stop", "free"],
)
async def test_a_refusal_leaves_nothing_behind(call: Callable[[Vm], Awaitable[object]]) -> None:
    """What was refused, and how, is collected: a guest that errs for ever takes no memory."""
    async with a_host() as (_, vm):
        refs: list[weakref.ref[BaseException]] = []
        for _ in range(3):
            with pytest.raises(IoasidError) as caught:
                await call(vm)
            refs.append(weakref.ref(caught.value))
            del caught
        gc.collect()
        # An actor may have the last one in hand still.
        assert [None, None] == [each() for each in refs[:2]]


# Cancellation


@pytest.mark.parametrize(
    ("call", "at"),
    [
        ("add_device", OpenSession),
        ("add_device", Subscribe),
        ("start_vm", OpenSession),
        ("start_vm", Subscribe),
        ("start_vm", AllocSet),
    ],
)
@pytest.mark.parametrize("nth", [0, 1])
async def test_a_start_that_is_cancelled_leaves_nothing(
    call: str, at: type[Message], nth: int
) -> None:
    """Cancelled at any point, a start leaves no device, VM, set or holder, and the name free."""
    scope = anyio.CancelScope()
    seen = itertools.count()

    def cancel_there(step: Decision | Step) -> None:
        if armed and isinstance(step, Decision) and type(step.request) is at and next(seen) == nth:
            scope.cancel()

    armed = False
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA, taps=[cancel_there]) as host:
        armed = True
        with scope:
            if call == "add_device":
                await host.add_device("dsa0")
            else:
                await host.start_vm("vm-1", quota=8)
        armed = False
        await settle()
        if scope.cancelled_caught:
            figures = await host.allocator.statistics()
            assert (2, 0, 1) == (figures.sessions, figures.suspended, figures.sets)
            assert ({}, {}) == (host.devices, host.vms)
            assert (await host.allocator.statistics()).available == CAPACITY - 1 - SYSTEM_QUOTA
            await host.add_device("dsa0")
            vm = await host.start_vm("vm-1", quota=8)
        else:
            # There was no such request any more.
            assert nth == 1 or at is AllocSet
            vm = host.vms["vm-1"] if call == "start_vm" else await host.start_vm("vm-1", quota=8)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("passes", range(12))
async def test_a_start_that_is_cancelled_after_any_time_leaves_nothing(passes: int) -> None:
    """However far a start got when it was cancelled, it is there in full or not at all."""
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(host.add_device, "dsa0")
            tasks.start_soon(lambda: host.start_vm("vm-1", quota=8))
            for _ in range(passes):
                await checkpoint()
            tasks.cancel_scope.cancel()
        await settle()
        if "dsa0" not in host.devices:
            await host.add_device("dsa0")
        vm = host.vms.get("vm-1") or await host.start_vm("vm-1", quota=8)
        _, transfer = await dma_in_flight(host, vm)
        await host.complete("dsa0", transfer)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("passes", range(12))
async def test_a_device_that_is_not_there_yet_is_bound_by_nobody(passes: int) -> None:
    """A guest that is quicker than the device is refused, and holds nothing if it does not come."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        refused: list[IoasidError] = []

        async def bind() -> None:
            while not refused or isinstance(refused[-1], UnknownDevice):
                try:
                    await vm.bind("dsa2", pasid, 101)
                    return
                except IoasidError as error:
                    refused.append(error)
                    await checkpoint()

        async with anyio.create_task_group() as binding:
            binding.start_soon(bind)
            await settle_a_little()
            async with anyio.create_task_group() as adding:
                adding.start_soon(host.add_device, "dsa2")
                for _ in range(passes):
                    await checkpoint()
                adding.cancel_scope.cancel()
            await settle_a_little()
            binding.cancel_scope.cancel()
        with anyio.fail_after(30):
            await vm.close()
        await nothing_is_left(host)


async def settle_a_little() -> None:
    """Let others have some turns."""
    for _ in range(30):
        await checkpoint()


async def test_a_bind_that_is_cancelled_goes_on() -> None:
    """Who asks for a bind and gives up finds the ID bound in full, later."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        async with stuck_at(host, Priority.CPU), anyio.create_task_group() as tasks:
            tasks.start_soon(vm.bind, "dsa0", pasid, 101)
            await settle()
            tasks.cancel_scope.cancel()
        await settle()
        assert ({101: pasid}, 3) == (vm.kvm.table, await count(host, pasid))
        await vm.bind("dsa0", pasid, 101)
        with pytest.raises(AlreadyProgrammed):
            await vm.bind("dsa0", pasid, 101)
        assert 3 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_an_unbind_that_is_cancelled_goes_on() -> None:
    """Who asks for an unbind and gives up finds the ID unbound when its DMA is over."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vm.unbind, "dsa0", pasid)
            await settle()
            tasks.cancel_scope.cancel()
        await host.complete("dsa0", transfer)
        await settle()
        assert ({}, 1) == (vm.kvm.table, await count(host, pasid))
        await vm.close()
        await nothing_is_left(host)


async def test_a_close_that_is_cancelled_goes_on() -> None:
    """Who closes a VM and gives up finds it gone when its DMA is over."""
    async with a_host() as (host, vm):
        _, transfer = await dma_in_flight(host, vm)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vm.close)
            await settle()
            tasks.cancel_scope.cancel()
        assert ["vm-1"] == list(host.vms)
        await host.complete("dsa0", transfer)
        await settle()
        await nothing_is_left(host)


async def test_a_stop_that_is_cancelled_goes_on() -> None:
    """Who stops a device and gives up finds it stopped when its DMA is over."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(vm.stop, "dsa0", pasid)
            await settle()
            tasks.cancel_scope.cancel()
        await host.complete("dsa0", transfer)
        assert 3 == await count(host, pasid)


# Bad input


@pytest.mark.parametrize(
    "name", ["", "x" * 201, "\ud800", "ü" * 200, None, 5, True, b"dsa0", [], {}]
)
async def test_names_that_are_none_are_refused(name: Any) -> None:
    """A name of the wrong type or length is refused with EINVAL, and nothing is left of it."""
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        with pytest.raises(InvalidArgument):
            await host.add_device(name)
        with pytest.raises(InvalidArgument):
            await host.start_vm(name, quota=1)
        assert 2 == (await host.allocator.statistics()).sessions
        await nothing_is_left(host)
        await host.add_device("x" * 200)
        await (await host.start_vm("x" * 200, quota=1)).close()


@pytest.mark.parametrize("quota", [0, -1, True, 1.0, "8", [], 2**32, 2**64])
async def test_quotas_that_are_none_are_refused(quota: Any) -> None:
    """A quota of the wrong type or range starts no VM and opens no host; nothing is left."""
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        with pytest.raises(InvalidArgument):
            await host.start_vm("vm-1", quota=quota)
        await nothing_is_left(host)
    with pytest.raises(InvalidArgument):
        async with open_host(system_quota=quota):
            raise AssertionError("not reached")


@pytest.mark.parametrize(
    "options",
    [
        {"capacity": 0},
        {"capacity": True},
        {"capacity": "64"},
        {"capacity": 2**32},
        {"taps": 5},
        {"taps": [5]},
        {"fault": 5},
    ],
    ids=str,
)
async def test_hosts_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    """A host with an argument of the wrong type or range is not opened."""
    with pytest.raises(InvalidArgument):
        async with open_host(**options):
            raise AssertionError("not reached")


async def test_a_system_quota_beyond_the_capacity_is_refused() -> None:
    """A host whose processes may have more IDs than there are is not opened, and says what may."""
    with pytest.raises(InvalidArgument, match=r"system_quota is 8; pass 1\.\.7"):
        async with open_host(capacity=8, system_quota=8):
            raise AssertionError("not reached")


@pytest.mark.parametrize(("capacity", "quota"), [(2, 1), (64, 32), (2048, 1024), (1 << 20, 1024)])
async def test_the_system_quota_by_itself(capacity: int, quota: int) -> None:
    """A small host leaves half of its IDs to its VMs, without being told."""
    async with open_host(capacity=capacity) as host:
        (system,) = (await host.allocator.list_sets()).sets
        assert quota == system.quota


async def test_a_system_quota_beyond_what_a_journal_leaves_is_refused(tmp_path: Path) -> None:
    """What the host's processes had before counts among what they may have."""
    options: dict[str, Any] = {"capacity": 8, "journal": tmp_path / "journal"}
    async with open_host(system_quota=4, **options):
        pass
    with pytest.raises(InvalidArgument, match=r"system_quota is 8; pass 1\.\.7"):
        async with open_host(system_quota=8, **options):
            raise AssertionError("not reached")


@pytest.mark.parametrize("device", ["dsa9", "", None, 5, [], {}, b"dsa0"])
async def test_devices_that_do_not_exist_are_refused(device: Any) -> None:
    """A device that does not exist, or is no name at all, is refused at every door."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        ours = await host.sva_bind("dsa0", 77)
        calls: list[Call] = [
            lambda: vm.bind(device, pasid, 101),
            lambda: vm.unbind(device, pasid),
            lambda: vm.program(device, 101),
            lambda: vm.submit(device, 101),
            lambda: vm.stop(device, pasid),
            lambda: host.complete(device, transfer),
            lambda: host.sva_bind(device, 78),
            lambda: host.sva_submit(device, ours, 77),
            lambda: host.sva_stop(device, ours, 77),
            lambda: host.sva_unbind(device, 77),
        ]
        for call in calls:
            with pytest.raises((UnknownDevice, InvalidArgument)):
                await call()
        with pytest.raises(UnknownDevice):
            host.device(device)
        assert (4, 3) == (await count(host, pasid), await count(host, ours))


@pytest.mark.parametrize(
    "number",
    [None, True, 1.0, "1", [], {}, b"1", 2**64, -(10**5000)],
    ids=lambda n: type(n).__name__,
)
async def test_what_is_no_number_is_refused(number: Any) -> None:
    """A value that is no number is refused with EINVAL where a number belongs; no actor falls."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm, gpasid=1)
        ours = await host.sva_bind("dsa0", 1)
        calls: list[Call] = [
            lambda: vm.alloc(min=number),
            lambda: vm.alloc(max=number if number is not None else True),
            lambda: vm.bind("dsa1", number, 1),
            lambda: vm.bind("dsa1", pasid, number),
            lambda: vm.unbind("dsa0", number),
            lambda: vm.free(number),
            lambda: vm.program("dsa1", number),
            lambda: vm.submit("dsa0", number),
            lambda: vm.stop("dsa0", number),
            lambda: host.complete("dsa0", number),
            lambda: host.sva_bind("dsa1", number),
            lambda: host.sva_submit("dsa0", number, 1),
            lambda: host.sva_stop("dsa0", number, 1),
            lambda: host.sva_unbind("dsa0", number),
            lambda: host.process_exited(number),
        ]
        for call in calls:
            with pytest.raises(InvalidArgument):
                await call()
        assert (4, 3) == (await count(host, pasid), await count(host, ours))
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


@pytest.mark.parametrize("number", [-1, 2**32 - 2, 2**32 - 1, 2**64 - 1])
async def test_numbers_out_of_range_are_refused(number: int) -> None:
    """A number that nothing has is refused with an error of its own at every door."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        ours = await host.sva_bind("dsa0", 77)
        calls: list[Call] = [
            lambda: vm.alloc(min=number),
            lambda: vm.alloc(max=number),
            lambda: vm.bind("dsa1", number, 101),
            lambda: vm.unbind("dsa0", number),
            lambda: vm.free(number),
            lambda: vm.program("dsa1", number),
            lambda: vm.submit("dsa0", number),
            lambda: vm.stop("dsa0", number),
            lambda: host.complete("dsa0", number),
            lambda: host.sva_submit("dsa0", number, 1),
            lambda: host.sva_stop("dsa0", number, 1),
            lambda: host.sva_unbind("dsa0", number),
        ]
        for call in calls:
            with pytest.raises(IoasidError):
                await call()
        with pytest.raises(AlreadyBound):
            await vm.bind("dsa1", pasid, 2**32 - 2)
        await host.process_exited(number)
        assert (4, 3) == (await count(host, pasid), await count(host, ours))
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


# A host that goes on from a journal


async def killed(path: Path, body: Callable[[Host], Awaitable[object]], **options: Any) -> Host:
    """Run a host that ends without notice; what is left of it is its hardware."""
    left: list[Host] = []
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with open_host(
            capacity=CAPACITY, system_quota=SYSTEM_QUOTA, journal=path, **options
        ) as host:
            left.append(host)
            await host.add_device("dsa0")
            await body(host)
            raise ZeroDivisionError
    return left[0]


@asynccontextmanager
async def going_on(path: Path, before: Host) -> AsyncIterator[Host]:
    """Open the host again, with its hardware as it is."""
    async with open_host(
        capacity=CAPACITY, system_quota=SYSTEM_QUOTA, journal=path, iommu=before.vtd.iommu
    ) as host:
        await host.add_device("dsa0", hardware=before.device("dsa0").device)
        yield host


async def bound(host: Host) -> None:
    """Start a VM with an ID that is bound and has DMA in flight, and a process with one."""
    vm = await host.start_vm("vm-1", quota=QUOTA)
    pasid = await vm.alloc()
    await vm.bind("dsa0", pasid, 101)
    await vm.program("dsa0", 101)
    await vm.submit("dsa0", 101)
    await host.sva_bind("dsa0", 4711)


async def until(host: Host, holds: Callable[[Statistics], bool]) -> None:
    """Wait for something; whoever has a commit of its own has waited for those before."""
    for _ in range(200):
        if holds(await host.allocator.statistics()):
            return
        await host.allocator.reserve_capacity(1)
        await host.allocator.cancel_capacity(1)
    raise AssertionError("it does not come")


def is_empty(figures: Statistics) -> bool:
    """Whether no ID is allocated."""
    return figures.active + figures.free_pending == 0


async def test_a_host_goes_on_with_its_hardware(tmp_path: Path) -> None:
    """Entries, contexts, translations and transfers are adopted, and end in order as ever."""
    before = await killed(tmp_path / "journal", bound)
    async with going_on(tmp_path / "journal", before) as host:
        assert ["vm-1"] == [*host.left]
        vm = await host.start_vm("vm-1", quota=QUOTA + 1)
        assert {} == host.left
        assert QUOTA + 1 == (await host.allocator.find_set("vm-1")).quota
        other = await host.start_vm("vm-2", quota=QUOTA)
        assert 1 != await other.alloc()
        assert "vm-1" == (await host.complete("dsa0", 1)).owner
        second = await vm.submit("dsa0", 101)
        assert "vm-1" == (await host.complete("dsa0", second)).owner
        pasid = host.vtd.ioasid_of(4711)
        assert pasid == await host.sva_bind("dsa0", 4711)
        await host.process_exited(4711)
        await vm.close()
        await other.close()
        await until(host, is_empty)
        assert {} == host.vtd.iommu.programmed()
        check_state(core_of(host.allocator))


@pytest.mark.parametrize("passes", [0, 1, 2, 4, 8, 16])
async def test_who_gives_up_adding_a_device_of_before(passes: int, tmp_path: Path) -> None:
    """What is bound and under way there stays as it is, for who adds it after all."""
    before = await killed(tmp_path / "journal", bound)
    device = before.device("dsa0").device
    async with open_host(
        capacity=CAPACITY,
        system_quota=SYSTEM_QUOTA,
        journal=tmp_path / "journal",
        iommu=before.vtd.iommu,
    ) as host:
        entries = dict(host.vtd.iommu.tables["dsa0"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: host.add_device("dsa0", hardware=device))
            for _ in range(passes):
                await checkpoint()
            tasks.cancel_scope.cancel()
        if "dsa0" not in host.devices:
            await host.add_device("dsa0", hardware=device)
            assert entries == host.vtd.iommu.tables["dsa0"]
            assert "vm-1" == (await host.complete("dsa0", 1)).owner
            vm = await host.start_vm("vm-1", quota=QUOTA)
            await host.process_exited(4711)
            await vm.close()
            await until(host, is_empty)
            assert {} == host.vtd.iommu.programmed()


async def test_a_vm_that_was_ending_ends(tmp_path: Path) -> None:
    """A VM whose set was being freed is brought to its end, without anybody asking for it."""

    async def ending(host: Host) -> None:
        await bound(host)
        host.vms["vm-1"].crash()
        await until(host, lambda figures: figures.sets_free_pending == 1)

    before = await killed(tmp_path / "journal", ending)
    async with going_on(tmp_path / "journal", before) as host:
        assert {} == host.left
        assert "vm-1" == (await host.complete("dsa0", 1)).owner
        await until(host, lambda figures: figures.sets == 1 and "vm-1" not in host.vms)
        assert {"vm-1"} == {(await host.start_vm("vm-1", quota=1)).name}


async def test_a_vm_on_its_way_is_not_ended(tmp_path: Path) -> None:
    """A VM whose set was frozen is left, keeps its set, and goes on only if it is told to."""

    async def moving(host: Host) -> None:
        vm = await host.start_vm("vm-1", quota=QUOTA)
        await vm.bind("dsa0", await vm.alloc(), 101)
        await vm.freeze()
        await host.allocator.reserve_capacity(1)

    before = await killed(tmp_path / "journal", moving)
    async with going_on(tmp_path / "journal", before) as host:
        assert {"vm-1": SetState.FROZEN} == {name: each.state for name, each in host.left.items()}
        vm = await host.start_vm("vm-1", quota=QUOTA)
        with pytest.raises(SetFrozen):
            await vm.alloc()
        assert 1 == (await host.allocator.find_set("vm-1")).allocated
        await vm.run()
        assert SetState.ACTIVE is (await host.allocator.find_set("vm-1")).state
        assert {} == host.vtd.iommu.programmed()
        await vm.close()
        await until(host, is_empty)
        check_state(core_of(host.allocator))


async def test_a_journal_knows_how_many_there_are(tmp_path: Path) -> None:
    """Whoever goes on from one need not say, and has the same share for the host's processes."""
    path = tmp_path / "journal"
    for arguments in ({"capacity": 10, "order": ReuseOrder.CYCLIC}, {}):
        async with open_host(journal=path, **arguments) as host:  # type: ignore[arg-type]
            assert 10 == (await host.allocator.statistics()).capacity
            assert 5 == (await host.allocator.find_set(sid=0)).quota


async def test_hardware_is_not_forgotten(tmp_path: Path) -> None:
    """Without its tables, or its devices, a host that goes on is refused, and nothing is freed."""
    before = await killed(tmp_path / "journal", bound)
    with pytest.raises(InvalidArgument, match="iommu"):
        async with open_host(capacity=CAPACITY, journal=tmp_path / "journal"):
            raise AssertionError("not reached")
    for value in ("iommu", 1):
        with pytest.raises(InvalidArgument, match="iommu"):
            async with open_host(iommu=value):  # type: ignore[arg-type]
                raise AssertionError("not reached")
    async with open_host(
        capacity=CAPACITY,
        system_quota=SYSTEM_QUOTA,
        journal=tmp_path / "journal",
        iommu=before.vtd.iommu,
    ) as host:
        with pytest.raises(InvalidArgument, match="hardware"):
            await host.add_device("dsa0")
        with pytest.raises(InvalidArgument, match="hardware"):
            await host.add_device("dsa1", hardware=before.device("dsa0").device)
        await host.add_device("dsa1")
        assert {"vdcm:dsa0", "vtd", "kvm:vm-1"} >= {*(await host.allocator.find(1)).references}
        await host.add_device("dsa0", hardware=Device("dsa0"))
        assert "vdcm:dsa0" not in (await host.allocator.find(1)).references


async def test_hardware_that_came_up_clean(tmp_path: Path) -> None:
    """Told that the hardware is new, the drivers let go of what they had programmed."""
    await killed(tmp_path / "journal", bound)
    async with open_host(
        capacity=CAPACITY, system_quota=SYSTEM_QUOTA, journal=tmp_path / "journal", iommu=Iommu()
    ) as host:
        await host.add_device("dsa0", hardware=Device("dsa0"))
        vm = await host.start_vm("vm-1", quota=QUOTA)
        pasid = 1
        assert {"kvm:vm-1": 1} == (await host.allocator.find(pasid)).references
        # The guest's number still stands for the ID, and nothing else does.
        with pytest.raises(AlreadyBound):
            await vm.bind("dsa0", pasid, 102)
        await vm.bind("dsa0", pasid, 101)
        assert [pasid] == [*host.vtd.iommu.tables["dsa0"]]
        await vm.program("dsa0", 101)
        landed = await host.complete("dsa0", await vm.submit("dsa0", 101))
        assert ("vm-1", pasid) == (landed.owner, landed.ioasid)
        await vm.unbind("dsa0", pasid)
        await vm.bind("dsa0", pasid, 102)
        await vm.close()
        assert {} == host.vtd.iommu.programmed()


async def test_a_quota_that_is_too_small(tmp_path: Path) -> None:
    """A VM that is left stays so if it can't be taken up with that quota."""

    async def two(host: Host) -> None:
        vm = await host.start_vm("vm-1", quota=QUOTA)
        await vm.alloc()
        await vm.alloc()

    before = await killed(tmp_path / "journal", two)
    async with going_on(tmp_path / "journal", before) as host:
        with pytest.raises(QuotaBelowUse):
            await host.start_vm("vm-1", quota=1)
        vm = await host.start_vm("vm-1", quota=2)
        await vm.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 36, 3))
async def test_killed_at_every_step(tmp_path: Path, number: int) -> None:
    """Wherever it dies, what was half done is finished or undone, and no ID is reused early."""
    steps = 0

    def die(_: Step) -> None:
        nonlocal steps
        steps += 1
        if steps >= number + 1:
            raise ZeroDivisionError

    before: list[Host] = []
    path = tmp_path / "journal"
    with suppress(ZeroDivisionError, IoasidError, ExceptionGroup):
        async with open_host(
            capacity=CAPACITY,
            system_quota=SYSTEM_QUOTA,
            journal=path,
            fault=die,
            max_restarts=0,
        ) as host:
            before.append(host)
            await host.add_device("dsa0")
            await bound(host)
            vm = host.vms["vm-1"]
            await host.complete("dsa0", 1)
            await vm.stop("dsa0", 1)
            await vm.unbind("dsa0", 1)
            await vm.free(1)
            raise ZeroDivisionError
    iommu = before[0].vtd.iommu if before else Iommu()
    known = before[0].devices.get("dsa0") if before else None
    hardware = Device("dsa0") if known is None else known.device
    for ioasid in [*hardware.contexts]:
        assert iommu.translate("dsa0", ioasid) is not None
    async with open_host(
        capacity=CAPACITY, system_quota=SYSTEM_QUOTA, journal=path, iommu=iommu
    ) as host:
        await host.add_device("dsa0", hardware=hardware)
        for name in [*host.left]:
            await host.start_vm(name, quota=QUOTA)
        other = await host.start_vm("vm-2", quota=QUOTA)
        for _ in range(4):
            pasid = await other.alloc()
            assert pasid not in hardware.contexts
            assert iommu.translate("dsa0", pasid) is None
        for transfer in [*hardware.transfers]:
            assert "vm-2" != (await host.complete("dsa0", transfer)).owner
        for vm in [*host.vms.values()]:
            await vm.close()
        await host.process_exited(4711)
        await until(host, is_empty)
        assert ({}, {}) == (iommu.programmed(), hardware.contexts)
        check_state(core_of(host.allocator))


async def test_arguments_are_named_as_they_were_written() -> None:
    """What an actor or the allocator calls otherwise is named as in the call that was made."""

    async def named(call: Awaitable[object]) -> str:
        with pytest.raises(InvalidArgument) as caught:
            await call
        return caught.value.argument

    with pytest.raises(InvalidArgument, match="system_quota is"):
        async with open_host(capacity=CAPACITY, system_quota=-1):
            pass
    async with open_host(capacity=CAPACITY, system_quota=SYSTEM_QUOTA) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=4)
        pasid = await vm.alloc()
        assert ["gpasid"] * 2 == [
            await named(vm.bind("dsa0", pasid, -1)),
            await named(vm.program("dsa0", -1)),
        ]
        for wrong in (-1, "1", None):
            number: Any = wrong
            assert ["pasid"] * 4 == [
                await named(vm.bind("dsa0", number, 101)),
                await named(vm.unbind("dsa0", number)),
                await named(vm.free(number)),
                await named(vm.stop("dsa0", number)),
            ]
        assert ["pasid"] * 2 == [
            await named(host.sva_submit("dsa0", "1", 7)),  # type: ignore[arg-type]
            await named(host.sva_stop("dsa0", "1", 7)),  # type: ignore[arg-type]
        ]
