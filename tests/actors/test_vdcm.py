"""VDCM: contexts that guests program, and their DMA."""

from typing import Any

import anyio
import pytest

from ioasid.actors import (
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    Cleared,
    CompleteDma,
    ContextStopping,
    DmaFault,
    DmaLanded,
    Draining,
    Enqcmd,
    NotProgrammed,
    ProgramGuestPasid,
    ProgramPasid,
    StartDma,
    StopDma,
    UnknownDevice,
    UnknownTransfer,
)
from ioasid.core import (
    Event,
    EventKind,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    MalformedMessage,
    Message,
    NotFound,
    NotOfThisSet,
    Priority,
    Put,
    Resync,
    UnknownSet,
    UnknownSpid,
)
from tests.actors.hosts import (
    Asked,
    Witness,
    a_host,
    count,
    dma_in_flight,
    fault_at,
    is_quarantined,
    nothing_is_left,
    settle,
    stuck_at,
)
from tests.actors.inside import undivided

pytestmark = pytest.mark.anyio


async def test_programming_takes_a_reference_and_clearing_drops_it() -> None:
    """A context holds one reference of the device's own from the programming to the clearing."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        assert pasid == await vm.program("dsa0", 101)
        assert 1 == (await host.allocator.find(pasid)).references["vdcm:dsa0"]
        await vm.stop("dsa0", pasid)
        assert "vdcm:dsa0" not in (await host.allocator.find(pasid)).references


async def test_a_context_goes_before_the_reference() -> None:
    """While a device has a context for an ID, the ID can't become anybody else's."""
    witness = Witness()
    async with a_host(witness) as (_, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.program("dsa0", 101)
        await vm.free(pasid)
        await settle()
    put = Put(pasid, generation=pasid.generation)
    assert [Cleared(pasid), put] == witness.done_by("vdcm:dsa0", Cleared, Put)


async def test_programming_needs_a_binding() -> None:
    """A guest PASID that is not bound can't be programmed, on a device that exists or not."""
    async with a_host() as (_, vm):
        with pytest.raises(UnknownSpid):
            await vm.program("dsa0", 101)
        strangers: tuple[Any, ...] = ("dsa2", "", None, [], 5)
        for device in strangers:
            with pytest.raises(UnknownDevice):
                await vm.program(device, 101)


async def test_programming_twice_is_refused() -> None:
    """A second context for an ID on the same device is refused and takes no reference."""
    async with a_host() as (host, vm):
        pasid, _ = await dma_in_flight(host, vm)
        with pytest.raises(AlreadyProgrammed):
            await vm.program("dsa0", 101)
        with pytest.raises(AlreadyProgrammed):
            await host.device("dsa0").ask(ProgramPasid(pasid, 77))
        assert 4 == await count(host, pasid)
        assert pasid == await vm.program("dsa1", 101)
        assert 5 == await count(host, pasid)


async def test_programming_what_was_freed_is_refused() -> None:
    """An ID in quarantine can't be programmed into another device."""
    async with a_host() as (host, vm):
        pasid, _ = await dma_in_flight(host, vm)
        await vm.free(pasid)
        with pytest.raises(IoasidFreePending):
            await vm.program("dsa1", 101)
        assert {} == host.device("dsa1").device.contexts


async def test_dma_lands_in_the_memory_of_the_owner() -> None:
    """A transfer writes into the memory of the VM that submitted it, and is over then."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=4)
        first, transfer = await dma_in_flight(host, vm)
        second, another = await dma_in_flight(host, other)
        assert DmaLanded(another, second, "vm-2") == await host.complete("dsa0", another)
        assert DmaLanded(transfer, first, "vm-1") == await host.complete("dsa0", transfer)
        for each in (transfer, another, 3, 0, -1, 2**64 - 1):
            with pytest.raises(UnknownTransfer):
                await host.complete("dsa0", each)
        with pytest.raises(UnknownTransfer):
            await host.complete("dsa1", transfer)


async def test_dma_without_an_entry_faults() -> None:
    """A device whose PASID table has no entry starts no DMA, however well it is programmed."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        with pytest.raises(NotProgrammed):
            await vm.submit("dsa1", 101)
        await vm.program("dsa1", 101)
        with pytest.raises(DmaFault) as caught:
            await vm.submit("dsa1", 101)
        assert ("dsa1", pasid, "EFAULT") == (
            caught.value.device,
            caught.value.ioasid,
            caught.value.code,
        )
        assert {} == host.device("dsa1").device.transfers
        await vm.bind("dsa1", pasid, 101)
        assert 1 == await vm.submit("dsa1", 101)


async def test_dma_in_flight_faults_when_its_entry_is_gone() -> None:
    """A transfer whose device was unbound meanwhile, others being bound, writes nothing."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.bind("dsa1", pasid, 101)
        await vm.unbind("dsa0", pasid)
        with pytest.raises(DmaFault):
            await host.complete("dsa0", transfer)
        with pytest.raises(UnknownTransfer):
            await host.complete("dsa0", transfer)
        assert {} == host.device("dsa0").device.transfers
        await vm.close()
        await nothing_is_left(host)


async def test_stop_waits_for_what_is_in_flight() -> None:
    """A stop takes no more work, and is answered when the last transfer is over."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, first = await dma_in_flight(host, vm)
        second = await vm.submit("dsa0", 101)
        asked = Asked(tasks)
        await asked.ask("stop", lambda: vm.stop("dsa0", pasid))
        await asked.ask("again", lambda: vm.stop("dsa0", pasid))
        with pytest.raises(ContextStopping):
            await vm.submit("dsa0", 101)
        with pytest.raises(AlreadyProgrammed):
            await vm.program("dsa0", 101)
        await host.complete("dsa0", second)
        await settle()
        assert {} == asked.came_to
        assert "vm-1" == (await host.complete("dsa0", first)).owner
        await settle()
        assert {"stop": None, "again": None} == asked.came_to
        with pytest.raises(NotProgrammed):
            await vm.stop("dsa0", pasid)
        assert pasid == await vm.program("dsa0", 101)


async def test_dma_for_another_set_is_refused() -> None:
    """A device starts nothing for a set that it was not programmed for, or that is gone."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        gone = await host.allocator.alloc_set("gone", 1)
        await host.allocator.free_set(gone.sid, destroy=True)
        other = await host.start_vm("vm-2", quota=1)
        with pytest.raises(NotOfThisSet):
            await host.device("dsa0").ask(StartDma(pasid, other.sid))
        with pytest.raises(UnknownSet):
            await host.device("dsa0").ask(StartDma(pasid, gone.sid))
        assert transfer + 1 == await host.device("dsa0").ask(StartDma(pasid, vm.sid))
        for each in (transfer, transfer + 1):
            await host.complete("dsa0", each)


async def test_dma_while_the_id_is_freed_is_refused() -> None:
    """After a free the device takes no more work for the ID, whoever submits it."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        await settle()
        with pytest.raises(ContextStopping):
            await host.device("dsa0").ask(StartDma(pasid))
        await host.complete("dsa0", transfer)
        await settle()
        with pytest.raises(NotProgrammed):
            await host.device("dsa0").ask(StartDma(pasid))
    assert [
        ("vdcm:dsa0", Draining(pasid, 1)),
        ("vdcm:dsa0", Cleared(pasid)),
    ] == witness.steps(Draining, Cleared)


async def test_an_unbind_drains() -> None:
    """An unbind takes the context away too: drained and cleared before the IOMMU lets go."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        assert ({}, ("dsa0",)) == (vm.kvm.table, host.vtd.iommu.devices_of(pasid))
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {"unbind": None} == asked.came_to
        assert 1 == await count(host, pasid)
        assert {} == host.device("dsa0").device.contexts


async def test_an_answer_that_nobody_got_is_of_its_own_life() -> None:
    """To undo it comes too late once the ID is somebody else's: their context stays."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        vdcm, sid = host.device("dsa0"), vm.sid
        answer = await vm.program("dsa0", 101)
        undo = vdcm.forsaken(ProgramGuestPasid(sid, 101), answer)
        await vm.close()
        other = await host.start_vm("vm-2", quota=8)
        await other.bind("dsa0", await other.alloc(), 101)
        assert pasid == await other.program("dsa0", 101)
        vdcm.tell(undo)
        transfer = await other.submit("dsa0", 101)
        assert "vm-2" == (await host.complete("dsa0", transfer)).owner


async def test_one_device_that_drains_delays_its_own_ids_only() -> None:
    """While one ID waits for its DMA, another is unbound and reclaimed on the same device."""
    async with a_host() as (host, vm):
        stuck, _ = await dma_in_flight(host, vm)
        quick, transfer = await dma_in_flight(host, vm, gpasid=102)
        await vm.free(stuck)
        await host.complete("dsa0", transfer)
        await vm.free(quick)
        await settle()
        assert (2, 0) == (await count(host, stuck), await count(host, quick))


async def test_every_device_drains_before_the_iommu_lets_go() -> None:
    """An ID in use on two devices keeps its entries until both have drained."""
    async with a_host() as (host, vm):
        pasid, first = await dma_in_flight(host, vm)
        await vm.bind("dsa1", pasid, 101)
        await vm.program("dsa1", 101)
        second = await vm.submit("dsa1", 101)
        await vm.free(pasid)
        await host.complete("dsa1", second)
        await settle()
        assert ("dsa0", "dsa1") == host.vtd.iommu.devices_of(pasid)
        assert {"vtd": 1, "vdcm:dsa0": 1} == (await host.allocator.find(pasid)).references
        await host.complete("dsa0", first)
        await settle()
        assert 0 == await count(host, pasid)


async def test_a_publishers_own_events_stop_nothing() -> None:
    """A notification of somebody's own does not stop a device."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await host.allocator.notify(pasid, EventKind.FREE)
        await settle()
        assert transfer + 1 == await vm.submit("dsa0", 101)


# Crashes


async def test_the_hardware_outlives_a_crash() -> None:
    """What the device had programmed and in flight is there after a crash of its driver."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        host.device("dsa0").crash()
        await settle()
        assert 4 == await count(host, pasid)
        assert transfer + 1 == await vm.submit("dsa0", 101)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


async def test_a_crash_between_the_free_and_its_acknowledgement() -> None:
    """A driver that crashes while it drains comes back draining, and the ID stays in quarantine."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        await settle()
        host.device("dsa0").crash()
        await settle()
        assert 1 == witness.resyncs("vdcm:dsa0")
        assert await is_quarantined(host, pasid)
        assert {"vtd": 1, "vdcm:dsa0": 1} == (await host.allocator.find(pasid)).references
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert 0 == await count(host, pasid)
        assert [1, 2, 3, 4, 3, 2, 1, 0] == witness.counts[pasid]


async def test_a_crash_during_a_stop() -> None:
    """A stop that waits fails when the driver crashes, and the device goes on draining."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("stop", lambda: vm.stop("dsa0", pasid))
        host.device("dsa0").crash()
        await settle()
        assert {"stop": ActorCrashed} == asked.came_to
        with pytest.raises(ContextStopping):
            await vm.submit("dsa0", 101)
        await host.complete("dsa0", transfer)
        assert {} == host.device("dsa0").device.contexts
        assert 3 == await count(host, pasid)


async def test_a_crash_before_the_reference_is_dropped() -> None:
    """A reference whose context was cleared when the driver crashed is dropped at its return."""
    witness = Witness(fault_at("vdcm:dsa0", Cleared))
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await host.complete("dsa0", transfer)
        with pytest.raises(ActorCrashed):
            await vm.stop("dsa0", pasid)
        await settle()
        assert 3 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_before_the_context_is_cleared() -> None:
    """A context that was stopped and drained when the driver crashed is cleared at its return."""
    witness = Witness(fault_at("vdcm:dsa0", Draining))
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await host.complete("dsa0", transfer)
        with pytest.raises(ActorCrashed):
            await vm.stop("dsa0", pasid)
        await settle()
        assert {} == host.device("dsa0").device.contexts
        assert 3 == await count(host, pasid)


async def test_a_crash_over_the_last_completion() -> None:
    """A transfer that the driver crashed over is still in flight, and can be completed again."""
    witness = Witness(fault_at("vdcm:dsa0", CompleteDma))
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        with pytest.raises(ActorCrashed):
            await host.complete("dsa0", transfer)
        await settle()
        assert await is_quarantined(host, pasid)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert 0 == await count(host, pasid)


async def test_an_unbind_during_a_crash_is_in_the_resync() -> None:
    """An unbind that came while the driver was down is drained for after the Resync."""
    witness = Witness(fault_at("vdcm:dsa0", Event))
    async with a_host(witness) as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        used, other = await dma_in_flight(host, vm, gpasid=102)
        await host.sva_bind("dsa0", 77)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        assert 1 == witness.resyncs("vdcm:dsa0")
        assert ("dsa0",) == host.vtd.iommu.devices_of(pasid)
        assert other + 1 == await vm.submit("dsa0", 102)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {"unbind": None} == asked.came_to
        assert (1, 4) == (await count(host, pasid), await count(host, used))


async def test_an_eviction_aborts_what_nothing_protects() -> None:
    """A driver that was evicted comes back with its device idle: nothing writes for nobody."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await host.allocator.evict("vdcm:dsa0")
        await settle()
        device = host.device("dsa0").device
        assert ({}, {}) == (device.contexts, device.transfers)
        assert [("vdcm:dsa0", Cleared(pasid))] == witness.steps(Cleared)
        with pytest.raises(UnknownTransfer):
            await host.complete("dsa0", transfer)
        assert 3 == await count(host, pasid)
        assert pasid == await vm.program("dsa0", 101)
        assert transfer + 1 == await vm.submit("dsa0", 101)
        await host.complete("dsa0", transfer + 1)
        await vm.close()
        await nothing_is_left(host)


async def test_an_eviction_ends_the_quarantine() -> None:
    """An eviction of a driver that drains lets the ID go, and the next owner is not written to."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        other = await host.start_vm("vm-2", quota=4)
        await vm.free(pasid)
        await host.allocator.evict("vdcm:dsa0")
        await settle()
        assert (pasid, 2) == await dma_in_flight(host, other)
        with pytest.raises(UnknownTransfer):
            await host.complete("dsa0", transfer)
        assert "vm-2" == (await host.complete("dsa0", 2)).owner


async def test_a_driver_that_gives_up_resets_its_device() -> None:
    """A driver that crashes too often is evicted and its device reset: nothing stays in flight."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        vdcm = host.device("dsa0")
        for _ in range(4):
            vdcm.crash()
        await settle()
        assert ({}, {}) == (vdcm.device.contexts, vdcm.device.transfers)
        assert 0 == await count(host, pasid)
        for call in (
            lambda: host.complete("dsa0", transfer),
            lambda: vm.program("dsa0", 101),
            lambda: vm.stop("dsa0", pasid),
        ):
            with pytest.raises(ActorStopped):
                await call()
        pasid = await vm.alloc()
        await vm.bind("dsa1", pasid, 102)
        await vm.program("dsa1", 102)
        assert "vm-1" == (await host.complete("dsa1", await vm.submit("dsa1", 102))).owner
        await vm.close()
        await nothing_is_left(host)


async def test_a_lagging_driver_ends_right() -> None:
    """More events than the queue holds become a Resync; what is in flight is drained for it."""
    witness = Witness()
    async with a_host(witness, capacity=4096) as (host, vm):
        undivided(host.allocator)
        big = await host.start_vm("vm-2", quota=1200)
        await host.allocator.alloc_many(big.sid, 1198)
        pasid, transfer = await dma_in_flight(host, big)
        idle, other = await dma_in_flight(host, vm)
        big.crash()
        await settle()
        assert 1 == witness.resyncs("vdcm:dsa0") == witness.resyncs("vdcm:dsa1")
        assert await is_quarantined(host, pasid)
        assert "vm-2" == (await host.complete("dsa0", transfer)).owner
        await big.gone()
        assert 4 == await count(host, idle)
        assert "vm-1" == (await host.complete("dsa0", other)).owner
        await vm.close()
        await nothing_is_left(host)


async def test_a_resync_ends_what_is_bound_to_another_spid() -> None:
    """A context of an ID that was bound anew while the driver was down is drained and cleared."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        host.device("dsa0").crash()
        await host.allocator.detach_spid(pasid)
        await host.allocator.attach_spid(pasid, 202)
        await settle()
        with pytest.raises(ContextStopping):
            await host.device("dsa0").ask(StartDma(pasid))
        await host.complete("dsa0", transfer)
        await settle()
        assert {} == host.device("dsa0").device.contexts


async def test_a_resync_waits_for_its_own_drains_only() -> None:
    """While a Resync waits for DMA, later events are dealt with and acknowledged."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        first, transfer = await dma_in_flight(host, vm)
        second, other = await dma_in_flight(host, vm, gpasid=102)
        await vm.free(first)
        await settle()
        host.device("dsa0").crash()
        await settle()
        await host.complete("dsa0", other)
        await vm.free(second)
        await settle()
        assert (2, 0) == (await count(host, first), await count(host, second))
        await host.complete("dsa0", transfer)
        await settle()
        assert 0 == await count(host, first)


async def test_a_resync_is_acknowledged_when_all_of_it_is_drained() -> None:
    """A Resync that ends two contexts waits for both, and so do their IDs."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        first, one = await dma_in_flight(host, vm)
        second, two = await dma_in_flight(host, vm, gpasid=102)
        async with stuck_at(host, Priority.CPU):
            await vm.free(first)
            await vm.free(second)
            await settle()
        await settle()
        host.device("dsa0").crash()
        await settle()
        await host.complete("dsa0", one)
        await settle()
        assert {"vtd": 1} == (await host.allocator.find(first)).references
        await host.complete("dsa0", two)
        await settle()
        assert (0, 0) == (await count(host, first), await count(host, second))


async def test_a_context_of_a_binding_that_is_on_its_way_outlives_a_crash() -> None:
    """A guest that programs before its bind is answered keeps its context over a crash."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("bind", lambda: vm.bind("dsa0", pasid, 101))
            assert pasid == await vm.program("dsa0", 101)
            host.device("dsa0").crash()
            await settle()
            assert not host.device("dsa0").device.contexts[pasid].stopping
        await settle()
        assert {"bind": None} == asked.came_to
        assert "vm-1" == (await host.complete("dsa0", await vm.submit("dsa0", 101))).owner


async def test_dma_goes_on_while_the_cpu_tier_is_stuck() -> None:
    """A device learns of a free only when the tier above it is done; until then DMA goes on."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        async with stuck_at(host, Priority.CPU):
            await vm.free(pasid)
            host.device("dsa0").crash()
            await settle()
            assert not host.device("dsa0").device.contexts[pasid].stopping
            assert "vm-1" == (await host.complete("dsa0", transfer)).owner
            assert transfer + 1 == await host.device("dsa0").ask(StartDma(pasid))
        await settle()
        assert host.device("dsa0").device.contexts[pasid].stopping
        await host.complete("dsa0", transfer + 1)
        await vm.close()
        await nothing_is_left(host)


# Bad input


@pytest.mark.parametrize(
    "request_",
    [
        ProgramGuestPasid(None, 101),  # type: ignore[arg-type]
        ProgramGuestPasid(True, 101),
        ProgramGuestPasid(-1, 101),
        ProgramGuestPasid(1, "101"),  # type: ignore[arg-type]
        ProgramGuestPasid(1, []),  # type: ignore[arg-type]
        ProgramGuestPasid(1, 2**32 - 1),
        ProgramPasid(-1, 77),
        ProgramPasid({}, 77),  # type: ignore[arg-type]
        ProgramPasid(1, "x"),  # type: ignore[arg-type]
        StartDma(None),  # type: ignore[arg-type]
        StartDma(True),
        StartDma([]),  # type: ignore[arg-type]
        StopDma({}),  # type: ignore[arg-type]
        StopDma(1.0),  # type: ignore[arg-type]
        StopDma(1, sid=True),
        StopDma(2**64 - 1, sid=1),
        StopDma(2**64),
        StartDma(10**5000),
        CompleteDma(-(10**5000)),
        CompleteDma([]),  # type: ignore[arg-type]
        CompleteDma(True),
        CompleteDma("1"),  # type: ignore[arg-type]
    ],
    ids=lambda request: type(request).__name__,
)
async def test_bad_values_are_refused(request_: Message) -> None:
    """A value of the wrong type or out of range is refused with EINVAL; nothing changes."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm, gpasid=1)
        with pytest.raises(InvalidArgument):
            await host.device("dsa0").ask(request_)
        assert 4 == await count(host, pasid)
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


@pytest.mark.parametrize(
    "request_",
    [
        ProgramGuestPasid(7, 101),
        ProgramGuestPasid(1, 102),
        ProgramGuestPasid(2**64 - 1, 101),
        ProgramPasid(9, 77),
        StartDma(-1),
        StartDma(9),
        StartDma(2**64 - 1),
        StopDma(-1),
        StopDma(9),
        StopDma(2**64 - 1),
        StopDma(9, sid=1),
    ],
    ids=str,
)
async def test_what_does_not_exist_is_refused(request_: Message) -> None:
    """An ID, set or guest PASID that does not exist is refused with ENOENT; nothing changes."""
    async with a_host() as (host, vm):
        pasid, _ = await dma_in_flight(host, vm)
        with pytest.raises(IoasidError) as caught:
            await host.device("dsa0").ask(request_)
        assert isinstance(caught.value, NotFound)
        assert 4 == await count(host, pasid)


async def test_messages_for_others_are_refused() -> None:
    """A message that is none of VDCM's is refused with EBADMSG, and VDCM goes on."""
    async with a_host() as (host, vm):
        await dma_in_flight(host, vm)
        resync = Resync(1, ())
        for stranger in (Enqcmd(101), Cleared(1), resync, None, "start", StartDma):
            with pytest.raises(MalformedMessage):
                await host.device("dsa0").ask(stranger)  # type: ignore[arg-type]
        assert 2 == await vm.submit("dsa0", 101)
