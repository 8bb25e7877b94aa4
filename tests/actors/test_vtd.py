"""VT-d: the IOMMU driver, its PASID tables, and the processes of the host."""

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from ioasid.actors import (
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    BindGuestPasid,
    BindProcess,
    ContextStopping,
    Decision,
    DmaFault,
    Enqcmd,
    Entry,
    Host,
    NotBound,
    NotProgrammed,
    ProcessExited,
    Programmed,
    ProgramPasid,
    Step,
    TornDown,
    UnbindGuestPasid,
    UnbindPending,
    UnbindProcess,
    UnknownDevice,
    UnknownProcess,
    Vm,
    open_host,
)
from ioasid.core import (
    Alloc,
    AlreadyBound,
    EventKind,
    HolderLive,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    MalformedMessage,
    Message,
    NotFound,
    NotOfThisSet,
    Priority,
    Put,
    QuotaExceeded,
    Resync,
    SpidInUse,
    StaleIoasid,
    UnknownIoasid,
    UnknownSet,
)
from tests.actors.hosts import (
    CAPACITY,
    QUOTA,
    SYSTEM_QUOTA,
    Asked,
    Call,
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


async def test_the_first_bind_and_the_last_unbind_tell() -> None:
    """One ID on two devices: one BIND by the first, one UNBIND by the last, one reference."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.bind("dsa1", pasid, 101)
        assert 3 == await count(host, pasid)
        assert ("dsa0", "dsa1") == host.vtd.iommu.devices_of(pasid)
        await vm.unbind("dsa0", pasid)
        assert ({101: pasid}, ("dsa1",)) == (vm.kvm.table, host.vtd.iommu.devices_of(pasid))
        await vm.unbind("dsa1", pasid)
        assert ({}, ()) == (vm.kvm.table, host.vtd.iommu.devices_of(pasid))
        assert 1 == await count(host, pasid)
        assert [1, 2, 3, 2, 1] == witness.counts[pasid]
        for kind in (EventKind.BIND, EventKind.UNBIND):
            assert 1 == witness.told(kind, pasid).count("vtd")
    assert [
        ("vtd", Programmed("dsa0", pasid)),
        ("vtd", Programmed("dsa1", pasid)),
        ("vtd", TornDown(pasid, ("dsa0",))),
        ("vtd", TornDown(pasid, ("dsa1",))),
    ] == witness.steps(Programmed, TornDown)
    assert 2 == host.vtd.iommu.flushes


async def test_an_entry_goes_before_the_reference() -> None:
    """While the IOMMU has an entry for an ID, the ID can't become anybody else's."""
    witness = Witness()
    async with a_host(witness) as (_, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.free(pasid)
        await settle()
    put = Put(pasid, generation=pasid.generation)
    assert [TornDown(pasid, ("dsa0",)), put] == witness.done_by("vtd", TornDown, Put)


async def test_an_entry_says_whose_memory_it_is() -> None:
    """A PASID table entry names the VM and its guest PASID, or the process, and the ID's life."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        ours = await host.sva_bind("dsa0", 77)
        assert {
            pasid: Entry("vm-1", 101, pasid.generation),
            ours: Entry("process 77", None, ours.generation),
        } == host.vtd.iommu.tables["dsa0"]


async def test_binds_that_contradict_are_refused() -> None:
    """A second bind on a device, of another guest PASID, or to a taken one changes nothing."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        first, second = await vm.alloc(), await vm.alloc()
        await vm.bind("dsa0", first, 101)
        tables = {name: dict(table) for name, table in host.vtd.iommu.tables.items()}
        for error, device, pasid, gpasid in (
            (AlreadyProgrammed, "dsa0", first, 101),
            (AlreadyProgrammed, "dsa0", first, 102),
            (AlreadyBound, "dsa1", first, 102),
            (SpidInUse, "dsa0", second, 101),
            (UnknownDevice, "dsa2", first, 101),
            (UnknownDevice, "", first, 101),
            (UnknownIoasid, "dsa1", 9, 101),
        ):
            with pytest.raises(error):
                await vm.bind(device, pasid, gpasid)
            assert tables == host.vtd.iommu.tables
            assert (3, 1) == (await count(host, first), await count(host, second))
        assert {101: first} == vm.kvm.table


async def test_unbinds_of_what_is_not_bound_are_refused() -> None:
    """An unbind on a device without an entry, or that does not exist, changes nothing."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        with pytest.raises(NotBound):
            await vm.unbind("dsa0", pasid)
        await vm.bind("dsa0", pasid, 101)
        with pytest.raises(NotBound):
            await vm.unbind("dsa1", pasid)
        with pytest.raises(UnknownDevice):
            await vm.unbind("dsa2", pasid)
        assert 3 == await count(host, pasid)


async def test_a_bind_is_answered_when_it_works() -> None:
    """A bind waits for the CPUs, so that work can be submitted when it is answered."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("first", lambda: vm.bind("dsa0", pasid, 101))
            await asked.ask("second", lambda: vm.bind("dsa1", pasid, 101))
            assert {} == asked.came_to
        await settle()
        assert {"first": None, "second": None} == asked.came_to
        assert {101: pasid} == vm.kvm.table


async def test_what_is_being_unbound_is_left_alone() -> None:
    """While the last unbind is under way, another unbind and a bind are refused with EBUSY."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        calls: list[Call] = [
            lambda: vm.unbind("dsa0", pasid),
            lambda: vm.bind("dsa0", pasid, 101),
            lambda: vm.bind("dsa1", pasid, 102),
        ]
        for call in calls:
            with pytest.raises(UnbindPending):
                await call()
        await host.complete("dsa0", transfer)
        await settle()
        assert {"unbind": None} == asked.came_to
        await vm.bind("dsa1", pasid, 102)
        assert {102: pasid} == vm.kvm.table


async def test_a_free_that_overtakes_a_bind() -> None:
    """A bind of an ID that was freed is refused, first or further; nothing is left programmed."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        plain = await vm.alloc()
        await vm.free(pasid)
        async with stuck_at(host, Priority.CPU):
            await vm.free(plain)
            with pytest.raises(IoasidFreePending):
                await vm.bind("dsa1", plain, 102)
        with pytest.raises(IoasidFreePending):
            await vm.bind("dsa1", pasid, 101)
        assert {} == host.vtd.iommu.tables["dsa1"]
        await host.complete("dsa0", transfer)
        await vm.close()
        await nothing_is_left(host)


async def test_a_free_while_a_bind_is_in_flight() -> None:
    """A bind that was accepted before the free is answered; the free then ends it everywhere."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("bind", lambda: vm.bind("dsa0", pasid, 101))
            await vm.free(pasid)
        await settle()
        assert {"bind": None} == asked.came_to
        assert 0 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_a_free_while_an_unbind_is_in_flight() -> None:
    """An unbind that waits for DMA is answered when the DMA is over, freed meanwhile or not."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        await vm.free(pasid)
        await host.complete("dsa0", transfer)
        await settle()
        assert {"unbind": None} == asked.came_to
        assert 0 == await count(host, pasid)


async def test_an_unbind_from_elsewhere_tears_down() -> None:
    """A binding that the host itself detaches is torn down like any other."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await host.allocator.detach_spid(pasid)
        await host.complete("dsa0", transfer)
        await settle()
        assert ((), 1) == (host.vtd.iommu.devices_of(pasid), await count(host, pasid))


async def test_a_publishers_own_events_tear_nothing_down() -> None:
    """A notification of somebody's own leaves every entry in place."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        for kind in (EventKind.UNBIND, EventKind.FREE, EventKind.BIND):
            await host.allocator.notify(pasid, kind)
        await settle()
        assert ("dsa0",) == host.vtd.iommu.devices_of(pasid)


# Processes of the host


async def test_a_process_that_exits_after_its_device_stopped() -> None:
    """Bare-metal SVA in order: bind, DMA, stop, unbind, and the ID left for the exit."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        assert (0, 3) == (await host.allocator.find_sid(pasid), await count(host, pasid))
        transfer = await host.sva_submit("dsa0", pasid, 77)
        assert "process 77" == (await host.complete("dsa0", transfer)).owner
        await host.sva_stop("dsa0", pasid, 77)
        await host.sva_unbind("dsa0", 77)
        await settle()
        assert [1, 2, 3, 2, 1] == witness.counts[pasid]
        await host.process_exited(77)
        await settle()
        assert [1, 2, 3, 2, 1, 0] == witness.counts[pasid]
        with pytest.raises(UnknownProcess):
            await host.sva_unbind("dsa0", 77)
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("unbound", [False, True])
async def test_a_failed_bind_after_a_crash_ends_no_other(*, unbound: bool) -> None:
    """A bind that fails over a crash of the driver leaves the process the PASID that it had."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        if unbound:
            await host.sva_unbind("dsa0", 77)
        assert pasid == await host.vtd.ask(BindProcess("dsa1", 77))
        host.vtd.crash()
        await settle()
        await host.vtd.ask(UnbindProcess("dsa1", 77, failed=True))
        await settle()
        assert (pasid, 1 if unbound else 3) == (host.vtd.ioasid_of(77), await count(host, pasid))
        assert pasid == await host.sva_bind("dsa0", 77)
        await host.process_exited(77)
        await settle()
        assert None is host.vtd.ioasid_of(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_process_that_exits_before_its_device_stopped() -> None:
    """A process that exits with DMA in flight: its ID is quarantined until the device drained."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        await host.process_exited(77)
        await settle()
        assert await is_quarantined(host, pasid)
        assert pasid != await vm.alloc()
        with pytest.raises(IoasidError, match="EBUSY"):
            await host.sva_submit("dsa0", pasid, 77)
        again = await host.sva_bind("dsa0", 77)
        assert pasid != again
        assert "process 77" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert ([1, 2, 3, 2, 1, 0], 3) == (witness.counts[pasid], await count(host, again))
        await host.process_exited(77)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_two_processes_on_two_devices() -> None:
    """A process has one ID for all devices until it exits; unbinding it concerns nobody else."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        first = await host.sva_bind("dsa0", 77)
        second = await host.sva_bind("dsa0", 78)
        assert first == await host.sva_bind("dsa1", 77)
        assert second == await host.sva_bind("dsa1", 78)
        transfers = [
            await host.sva_submit("dsa1", pasid, process)
            for pasid, process in ((first, 77), (second, 78))
        ]
        assert ["process 77", "process 78"] == [
            (await host.complete("dsa1", each)).owner for each in transfers
        ]
        await host.sva_unbind("dsa0", 77)
        with pytest.raises(NotBound):
            await host.sva_unbind("dsa0", 77)
        assert (3, 4) == (await count(host, first), await count(host, second))
        await host.sva_unbind("dsa1", 77)
        await settle()
        assert (1, 4) == (await count(host, first), await count(host, second))
        await host.process_exited(77)
        await settle()
        assert (0, 4) == (await count(host, first), await count(host, second))
        await host.process_exited(78)
        await vm.close()
        await nothing_is_left(host)


async def test_a_process_binds_a_device_twice() -> None:
    """Binds of one device count: only the last unbind stops the device and takes the entry."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        assert pasid == await host.sva_bind("dsa0", 77)
        assert (2, 3) == (host.vtd.binds_of("dsa0", 77), await count(host, pasid))
        await host.sva_unbind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        assert "process 77" == (await host.complete("dsa0", transfer)).owner
        await host.sva_unbind("dsa0", 77)
        assert (0, 1) == (host.vtd.binds_of("dsa0", 77), await count(host, pasid))
        with pytest.raises(NotBound):
            await host.sva_unbind("dsa0", 77)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_an_unbound_process_keeps_its_pasid() -> None:
    """A thread that submits with its PASID after the unbind reaches no other process, ever."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 100)
        await host.sva_unbind("dsa0", 100)
        other = await host.sva_bind("dsa0", 200)
        assert pasid != other
        for stale in (pasid, other):
            with pytest.raises(NotProgrammed):
                await host.sva_submit("dsa0", stale, 100)
            with pytest.raises(NotProgrammed):
                await host.sva_stop("dsa0", stale, 100)
        assert pasid == await host.sva_bind("dsa1", 100)
        await host.process_exited(100)
        await host.process_exited(200)
        await vm.close()
        await nothing_is_left(host)


async def test_an_unbind_undoes_its_bind_while_others_stay() -> None:
    """Unbound on one of two devices, a process is gone from that one, and can be bound again."""
    async with a_host() as (host, _):
        pasid = await host.sva_bind("dsa0", 77)
        await host.sva_bind("dsa1", 77)
        await host.sva_unbind("dsa0", 77)
        assert ({}, {}) == (host.device("dsa0").device.contexts, host.vtd.iommu.tables["dsa0"])
        assert {"vtd": 1, "vdcm:dsa1": 1} == (await host.allocator.find(pasid)).references
        assert pasid == await host.sva_bind("dsa0", 77)
        for device in ("dsa0", "dsa1"):
            transfer = await host.sva_submit(device, pasid, 77)
            assert "process 77" == (await host.complete(device, transfer)).owner


async def test_a_process_number_that_is_used_again_is_another_process() -> None:
    """After the exit a process of the same number has another PASID, and not the old DMA."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        await host.process_exited(77)
        again = await host.sva_bind("dsa0", 77)
        assert pasid != again
        assert pasid == (await host.complete("dsa0", transfer)).ioasid
        await settle()
        assert (0, 3) == (await count(host, pasid), await count(host, again))
        with pytest.raises(NotProgrammed):
            await host.sva_submit("dsa0", pasid, 77)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_stale_pasid_reaches_no_process_that_has_it_now() -> None:
    """Submitting and stopping with an old PASID are refused, and with one of another process."""
    async with a_host() as (host, _):
        pasid = await host.sva_bind("dsa0", 77)
        await host.process_exited(77)
        await settle()
        again = await host.sva_bind("dsa0", 78)
        assert pasid == again
        transfer = await host.sva_submit("dsa0", again, 78)
        for number, process, error in (
            (pasid, 77, NotProgrammed),
            (int(pasid), 77, NotProgrammed),
            (pasid, 78, StaleIoasid),
        ):
            with pytest.raises(error):
                await host.sva_submit("dsa0", number, process)
            with pytest.raises(error):
                await host.sva_stop("dsa0", number, process)
        with pytest.raises(StaleIoasid):
            await host.device("dsa0").ask(ProgramPasid(pasid, 78))
        assert not host.device("dsa0").device.contexts[pasid].stopping
        assert "process 78" == (await host.complete("dsa0", transfer)).owner


async def test_an_unbind_of_a_process_waits_for_its_dma() -> None:
    """An unbind of a process is answered when its device drained, and so is a bind meanwhile."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await host.sva_bind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: host.sva_unbind("dsa0", 77))
        await asked.ask("bind", lambda: host.sva_bind("dsa0", 77))
        assert {} == asked.came_to
        with pytest.raises(ContextStopping):
            await host.sva_submit("dsa0", pasid, 77)
        assert "process 77" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert {"unbind": None, "bind": pasid} == asked.came_to
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_processes_share_the_quota_of_the_system_set() -> None:
    """When the system set is spent, a bind is refused and nothing is left of it."""
    async with a_host() as (host, _):
        for process in range(SYSTEM_QUOTA):
            await host.sva_bind("dsa0", process)
        with pytest.raises(QuotaExceeded):
            await host.sva_bind("dsa0", SYSTEM_QUOTA)
        with pytest.raises(UnknownProcess):
            await host.sva_unbind("dsa0", SYSTEM_QUOTA)
        await host.process_exited(0)
        await settle()
        await host.sva_bind("dsa0", SYSTEM_QUOTA)


async def test_a_bind_that_the_device_refuses_is_undone() -> None:
    """A process that VDCM can't take is unbound again, and its ID freed if it was the first."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa1", 77)
        for _ in range(4):
            host.device("dsa0").crash()
        with pytest.raises(ActorStopped):
            await host.sva_bind("dsa0", 77)
        with pytest.raises(ActorStopped):
            await host.sva_bind("dsa0", 78)
        await settle()
        assert ({}, 3) == (host.vtd.iommu.tables["dsa0"], await count(host, pasid))
        with pytest.raises(UnknownProcess):
            await host.sva_unbind("dsa0", 78)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_an_id_freed_from_elsewhere_is_not_the_processs_any_more() -> None:
    """When the host itself freed a process's ID, the process gets another, and exits harmlessly."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        await host.allocator.free(pasid)
        await settle()
        assert 0 == await count(host, pasid)
        again, transfer = await dma_in_flight(host, vm)
        assert (pasid, 1) == (again, transfer)
        await host.process_exited(77)
        assert 4 == await count(host, again)
        other = await host.sva_bind("dsa0", 77)
        assert pasid != other
        assert "vm-1" == (await host.complete("dsa0", 1)).owner


async def test_a_bind_of_what_is_freed_from_elsewhere_is_undone() -> None:
    """A process whose ID is in quarantine can't take it to another device."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        await host.allocator.free(pasid)
        with pytest.raises(IoasidFreePending):
            await host.sva_bind("dsa1", 77)
        await settle()
        assert {} == host.vtd.iommu.tables["dsa1"]
        await host.complete("dsa0", transfer)
        await vm.close()
        await nothing_is_left(host)


# Crashes


async def bound_both_ways(vm: Vm) -> int:
    """Bind a new ID of the VM to guest PASID 101 on both devices."""
    pasid = await vm.alloc()
    await vm.bind("dsa0", pasid, 101)
    await vm.bind("dsa1", pasid, 101)
    return pasid


async def test_the_tables_outlive_a_crash() -> None:
    """DMA goes on while the driver is down, and a bind goes on where it was."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await bound_both_ways(vm)
        ours = await host.sva_bind("dsa0", 77)
        host.vtd.crash()
        await vm.program("dsa0", 101)
        assert "vm-1" == (await host.complete("dsa0", await vm.submit("dsa0", 101))).owner
        await settle()
        assert 1 == witness.resyncs("vtd")
        assert [] == witness.steps(TornDown)
        assert (4, 3) == (await count(host, pasid), await count(host, ours))
        await vm.unbind("dsa0", pasid)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_between_the_free_and_its_acknowledgement() -> None:
    """A driver that crashes over the FREE keeps the ID, tears it down from the Resync, lets go."""
    witness = Witness(
        lambda step: step.actor == "vtd" and getattr(step.message, "kind", None) is EventKind.FREE
    )
    async with a_host(witness) as (host, vm):
        pasid = await bound_both_ways(vm)
        await vm.free(pasid)
        await settle()
        assert ([1, 2, 3, 2, 1, 0], 1) == (witness.counts[pasid], witness.resyncs("vtd"))
        assert [("vtd", TornDown(pasid, ("dsa0", "dsa1")))] == witness.steps(TornDown)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_before_the_reference_is_dropped() -> None:
    """A reference whose entries are gone when the driver crashed is dropped at its return."""
    witness = Witness(fault_at("vtd", TornDown))
    async with a_host(witness) as (host, vm):
        pasid = await bound_both_ways(vm)
        await vm.free(pasid)
        await settle()
        assert 0 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_over_a_bind() -> None:
    """A bind that the driver crashed over left nothing, and can be asked for again."""
    witness = Witness(fault_at("vtd", Programmed))
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        with pytest.raises(ActorCrashed):
            await vm.bind("dsa0", pasid, 101)
        await settle()
        assert (1, ()) == (await count(host, pasid), host.vtd.iommu.devices_of(pasid))
        await vm.bind("dsa0", pasid, 101)
        assert 3 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_over_a_bind_of_a_process() -> None:
    """A bind of a process that the driver crashed over has not happened, and can be asked again."""
    witness = Witness(fault_at("vtd", Programmed))
    async with a_host(witness) as (host, vm):
        with pytest.raises(ActorCrashed):
            await host.sva_bind("dsa0", 77)
        await settle()
        assert {} == host.vtd.iommu.tables["dsa0"]
        pasid = await host.sva_bind("dsa0", 77)
        assert 1 == pasid
        entry = Entry("process 77", None, pasid.generation)
        assert {1: entry} == host.vtd.iommu.tables["dsa0"]
        assert 3 == await count(host, pasid)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_over_the_first_bind_of_a_process_keeps_nothing() -> None:
    """Nobody knows the ID of a process whose first bind failed: it is freed, and no other is."""
    witness = Witness(fault_at("vtd", Programmed, 2))
    async with a_host(witness) as (host, vm):
        with pytest.raises(ActorCrashed):
            await host.sva_bind("dsa0", 77)
        await settle()
        assert None is host.vtd.ioasid_of(77)
        assert 0 == (await host.allocator.statistics()).active
        with pytest.raises(ActorCrashed):
            await host.sva_bind("dsa0", 77)
        await settle()
        pasid = await host.sva_bind("dsa0", 77)
        await host.sva_unbind("dsa0", 77)
        host.vtd.crash()
        await settle()
        assert pasid == host.vtd.ioasid_of(77)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_while_a_bind_is_in_flight() -> None:
    """A bind that waits fails when the driver crashes, and goes on behind the Resync."""
    witness = Witness()
    async with a_host(witness) as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("bind", lambda: vm.bind("dsa0", pasid, 101))
            host.vtd.crash()
            await settle()
            assert {"bind": ActorCrashed} == asked.came_to
            assert ("dsa0",) == host.vtd.iommu.devices_of(pasid)
            with pytest.raises(AlreadyProgrammed):
                await vm.bind("dsa0", pasid, 101)
        await vm.bind("dsa1", pasid, 101)
        assert ({101: pasid}, 3) == (vm.kvm.table, await count(host, pasid))
        assert [] == witness.steps(TornDown)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_while_an_unbind_is_in_flight() -> None:
    """An unbind that waits fails when the driver crashes; it ends when the DMA does."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        host.vtd.crash()
        await settle()
        assert {"unbind": ActorCrashed} == asked.came_to
        calls: list[Call] = [
            lambda: vm.unbind("dsa0", pasid),
            lambda: vm.bind("dsa1", pasid, 101),
        ]
        for call in calls:
            with pytest.raises(UnbindPending):
                await call()
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert ((), 1) == (host.vtd.iommu.devices_of(pasid), await count(host, pasid))
        await vm.bind("dsa0", pasid, 101)


async def test_a_crash_while_an_exit_is_in_flight() -> None:
    """The ID of a process that exited stays in quarantine over a crash, and is reclaimed."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        transfer = await host.sva_submit("dsa0", pasid, 77)
        await host.process_exited(77)
        host.vtd.crash()
        await settle()
        assert await is_quarantined(host, pasid)
        other = await host.sva_bind("dsa1", 77)
        assert pasid != other
        assert "process 77" == (await host.complete("dsa0", transfer)).owner
        await settle()
        assert (0, 3) == (await count(host, pasid), await count(host, other))
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_requests_that_are_queued_over_a_crash_are_served() -> None:
    """Requests behind a crash are served in order when the driver is back."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        asked = Asked(tasks)
        pasid = await vm.alloc()
        host.vtd.crash()
        tasks.start_soon(host.sva_bind, "dsa1", 77)
        await asked.ask("bind", lambda: vm.bind("dsa0", pasid, 101))
        assert {"bind": None} == asked.came_to
        assert ({101: pasid}, 3) == (vm.kvm.table, await count(host, pasid))
        entry = Entry("process 77", None, pasid.generation + 1)
        assert [entry] == list(host.vtd.iommu.tables["dsa1"].values())


async def test_an_evicted_driver_holds_nothing_that_was_bound_anew() -> None:
    """A driver that was evicted tears down its entry of an ID that has another spid by now."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa1", pasid, 101)
        async with stuck_at(host, Priority.CPU):
            await host.allocator.evict("vtd")
            await host.allocator.detach_spid(pasid)
            await host.allocator.attach_spid(pasid, 202)
            await settle()
            assert {} == host.vtd.iommu.tables["dsa1"]
            assert "vtd" not in (await host.allocator.find(pasid)).references


async def test_an_evicted_driver_binds_nothing_anew_before_its_unbind_is_over() -> None:
    """An UNBIND that is under way when the driver is evicted ends no binding that came after it."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
            await host.allocator.evict("vtd")
            await settle()
            assert {} == host.vtd.iommu.tables["dsa0"]
            with pytest.raises(UnbindPending):
                await vm.bind("dsa0", pasid, 101)
        await settle()
        await vm.bind("dsa0", pasid, 101)
        assert [pasid] == [*host.vtd.iommu.tables["dsa0"]]
        assert 1 == (await host.allocator.find(pasid)).references["vtd"]
        await vm.close()
        await nothing_is_left(host)


async def test_an_evicted_driver_holds_again_what_is_still_bound() -> None:
    """A driver that was evicted comes back and references what its tables still have entries of."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.bind("dsa1", pasid, 101)
        ours = await host.sva_bind("dsa1", 77)
        await host.allocator.evict("vtd")
        await settle()
        assert [] == witness.steps(TornDown)
        assert (1, {"vtd": 1, "vdcm:dsa0": 1, "kvm:vm-1": 1}, {"vtd": 1, "vdcm:dsa1": 1}) == (
            witness.resyncs("vtd"),
            (await host.allocator.find(pasid)).references,
            (await host.allocator.find(ours)).references,
        )
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner
        await vm.unbind("dsa0", pasid)
        await vm.unbind("dsa1", pasid)
        assert 1 == await count(host, pasid)
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_an_evicted_driver_tears_down_what_was_freed() -> None:
    """An ID that is in quarantine or gone when the driver comes back loses its entries at once."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        quick = await vm.alloc()
        await vm.bind("dsa1", quick, 102)
        ours = await host.sva_bind("dsa1", 77)
        await vm.free(pasid)
        await settle()
        async with stuck_at(host, Priority.DEVICE):
            await vm.free(quick)
            await host.process_exited(77)
            await host.allocator.evict("vtd")
            await settle()
            assert {"dsa0": {}, "dsa1": {}} == host.vtd.iommu.tables
        with pytest.raises(DmaFault):
            await host.complete("dsa0", transfer)
        await settle()
        assert [0, 0, 0] == [await count(host, each) for each in (pasid, quick, ours)]
        assert sorted([pasid, quick, ours]) == sorted(
            message.ioasid
            for _, message in witness.steps(TornDown)
            if isinstance(message, TornDown)
        )
        await vm.close()
        await nothing_is_left(host)


async def test_what_went_to_others_during_an_eviction_is_torn_down() -> None:
    """An entry whose ID was reclaimed, and allocated by others, while the driver was out goes."""
    witness = Witness()
    out, back = anyio.Event(), anyio.Event()

    async def keep_out(host: Host) -> None:
        # As long as somebody else bears its name, the driver can't come back.
        while not out.is_set():
            try:
                async with host.allocator.session("vtd"):
                    out.set()
                    await back.wait()
            except HolderLive:
                pass

    async with (
        a_host(witness, max_restarts=1000) as (host, vm),
        anyio.create_task_group() as tasks,
    ):
        other = await host.start_vm("vm-2", quota=4)
        ours = await host.sva_bind("dsa0", 77)
        pasid = await bound_both_ways(vm)
        gone = await vm.alloc()
        await vm.bind("dsa0", gone, 102)
        tasks.start_soon(keep_out, host)
        while not out.is_set():
            await host.allocator.evict("vtd")
            for _ in range(10):
                await checkpoint()
        for each in (ours, pasid, gone):
            await host.allocator.free(each, wait=True)
        others = [await other.alloc(), await other.alloc()]
        assert [ours, pasid] == others
        assert [] == witness.steps(TornDown)
        back.set()
        await settle()
        assert {"dsa0": {}, "dsa1": {}} == host.vtd.iommu.tables
        assert [1, 1, 0] == [await count(host, each) for each in (*others, gone)]
        with pytest.raises(StaleIoasid):
            await other.bind("dsa0", pasid, 101)
        await other.bind("dsa0", others[1], 101)
        assert ours != await host.sva_bind("dsa0", 77)
        await host.process_exited(77)
        await vm.close()
        await other.close()
        await nothing_is_left(host)


async def test_a_driver_that_gives_up_ends_the_host() -> None:
    """No host runs without its IOMMU driver: after too many crashes it ends and tells everybody."""
    came_to: list[object] = []

    async def wait(vm: Vm) -> None:
        with pytest.raises(ActorStopped) as caught:
            await vm.gone()
        came_to.append(caught.value.actor)

    async def crash_too_often(tasks: TaskGroup) -> None:
        async with a_host() as (host, vm):
            await dma_in_flight(host, vm)
            tasks.start_soon(wait, vm)
            await settle()
            for _ in range(4):
                host.vtd.crash()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ActorStopped, match="no host runs without its IOMMU driver"):
            await crash_too_often(tasks)
        await settle()
        assert ["vfio:vm-1"] == came_to


async def test_a_driver_that_crashes_now_and_then_goes_on() -> None:
    """Restarts count in a row: a driver that serves in between may crash any number of times."""
    async with open_host(max_restarts=1, restart_wait=0) as host:
        await host.add_device("dsa0")
        for process in range(10):
            host.vtd.crash()
            await host.sva_bind("dsa0", process)
        for process in range(10):
            host.vtd.crash()
            await host.process_exited(process)
        await settle()
        figures = await host.allocator.statistics()
        assert (0, 0) == (figures.active, figures.free_pending)


async def test_a_lagging_driver_ends_right() -> None:
    """More events than the queue holds become a Resync, from which the tables are put right."""
    witness = Witness()
    async with a_host(witness, capacity=4096) as (host, vm):
        undivided(host.allocator)
        big = await host.start_vm("vm-2", quota=1200)
        await host.allocator.alloc_many(big.sid, 1190)
        freed = await bound_both_ways(big)
        kept = await bound_both_ways(vm)
        ours = await host.sva_bind("dsa0", 77)
        async with stuck_at(host, Priority.CPU):
            big.crash()
            await settle()
            assert ("dsa0", "dsa1") == host.vtd.iommu.devices_of(freed)
        await big.gone()
        assert 1 == witness.resyncs("vtd")
        assert (0, 3, 3) == (
            await count(host, freed),
            await count(host, kept),
            await count(host, ours),
        )
        await host.process_exited(77)
        await vm.close()
        await nothing_is_left(host)


async def test_a_process_that_is_bound_while_the_driver_lags_keeps_its_entry() -> None:
    """A Resync that is older than what the driver did since takes none of it away."""
    told = 0

    def bind_when_it_lags(seen: Decision | Step) -> None:
        nonlocal told
        witness(seen)
        if isinstance(seen, Decision):
            before = told
            told += witness.told_by(seen).count("vtd")
            # More than its queue holds: it comes to the bind first, and then to its Resync.
            if before <= 1000 < told:
                host.vtd.tell(BindProcess("dsa0", 78))

    witness = Witness()
    async with open_host(
        capacity=4096, system_quota=SYSTEM_QUOTA, taps=[bind_when_it_lags]
    ) as host:
        await host.add_device("dsa0")
        undivided(host.allocator)
        many = await host.allocator.alloc_set("many", 1200)
        await host.allocator.alloc_many(many.sid, 1200)
        async with stuck_at(host, Priority.DEVICE):
            await host.allocator.free_set(many.sid)
            await settle()
        await settle()
        ((pasid, entry),) = host.vtd.iommu.tables["dsa0"].items()
        assert ("process 78", 2) == (entry.owner, await count(host, pasid))
        (resync,) = (each for actor, each in witness.steps(Resync) if actor == "vtd")
        assert isinstance(resync, Resync)
        assert pasid not in [each.ioasid for each in resync]
        await host.process_exited(78)
        await nothing_is_left(host)


async def test_an_eviction_in_the_middle_of_a_bind() -> None:
    """A process that was being bound when the driver was evicted has no ID left behind."""

    async def evict() -> None:
        await host.allocator.evict("vtd")

    def in_the_middle(seen: Decision | Step) -> None:
        if isinstance(seen, Decision) and type(seen.request) is Alloc:
            tasks.start_soon(evict)

    async with (
        open_host(
            capacity=CAPACITY, system_quota=SYSTEM_QUOTA, restart_wait=0, taps=[in_the_middle]
        ) as host,
        anyio.create_task_group() as tasks,
    ):
        await host.add_device("dsa0")
        try:
            await host.sva_bind("dsa0", 77)
        except ActorCrashed:
            pass
        await settle()
        await host.process_exited(77)
        await settle()
        await nothing_is_left(host)


async def test_ids_that_the_host_allocates_itself_are_left_alone() -> None:
    """A driver that comes back frees no ID of the system set that it did not allocate."""
    async with a_host() as (host, _):
        own = [await host.allocator.alloc(0, data=data) for data in (77, "77", "process x")]
        host.vtd.crash()
        await settle()
        assert [1, 1, 1] == [await count(host, each) for each in own]


# Bad input


@pytest.mark.parametrize(
    "request_",
    [
        BindGuestPasid(None, 1, 1, 1, "vm-1"),  # type: ignore[arg-type]
        BindGuestPasid("dsa1", "1", 1, 1, "vm-1"),  # type: ignore[arg-type]
        BindGuestPasid("dsa1", 1, None, 1, "vm-1"),  # type: ignore[arg-type]
        BindGuestPasid("dsa1", 1, 1, True, "vm-1"),
        BindGuestPasid("dsa1", 1, 1, 1.0, "vm-1"),  # type: ignore[arg-type]
        BindGuestPasid("dsa1", 1, 1, 1, ["vm-1"]),  # type: ignore[arg-type]
        BindGuestPasid("dsa1", -1, 1, 1, "vm-1"),
        BindGuestPasid("dsa1", 2, 1, -1, "vm-1"),
        BindGuestPasid("dsa1", 2, 1, 2**64, "vm-1"),
        UnbindGuestPasid([], 1, 1),  # type: ignore[arg-type]
        UnbindGuestPasid("dsa0", True, 1),
        UnbindGuestPasid("dsa0", 2**32 - 1, 1),
        UnbindGuestPasid("dsa0", 1, -1),
        BindProcess({}, 77),  # type: ignore[arg-type]
        BindProcess("dsa0", "77"),  # type: ignore[arg-type]
        BindProcess("dsa0", True),
        BindProcess("dsa0", -1),
        BindProcess("dsa0", 2**64),
        BindProcess("dsa0", []),  # type: ignore[arg-type]
        UnbindProcess("dsa0", []),  # type: ignore[arg-type]
        UnbindProcess("dsa0", True),
        UnbindProcess(5, 77),  # type: ignore[arg-type]
        ProcessExited({}),  # type: ignore[arg-type]
        ProcessExited(1.0),  # type: ignore[arg-type]
        ProcessExited(10**5000),
        UnbindProcess("dsa0", 2**64),
        BindProcess("dsa0", 2**32),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_bad_values_are_refused(request_: Message) -> None:
    """A value of the wrong type or out of range is refused with EINVAL; nothing changes."""
    async with a_host() as (host, vm):
        first, second = await vm.alloc(), await vm.alloc()
        await vm.bind("dsa0", first, 1)
        ours = await host.sva_bind("dsa0", 1)
        tables = {name: dict(table) for name, table in host.vtd.iommu.tables.items()}
        with pytest.raises(InvalidArgument):
            await host.vtd.ask(request_)
        assert tables == host.vtd.iommu.tables
        assert [3, 1, 3] == [await count(host, each) for each in (first, second, ours)]


@pytest.mark.parametrize(
    "request_",
    [
        BindGuestPasid("dsa2", 1, 1, 1, "vm-1"),
        BindGuestPasid("dsa1", 9, 1, 1, "vm-1"),
        UnbindGuestPasid("dsa2", 1, 1),
        UnbindGuestPasid("dsa0", 9, 1),
        BindProcess("dsa2", 77),
        UnbindProcess("dsa2", 77),
        UnbindProcess("dsa0", 78),
        UnbindProcess("dsa0", -1),
        UnbindProcess("dsa0", 2**64 - 1),
        UnbindProcess("dsa1", 77),
    ],
    ids=str,
)
async def test_what_does_not_exist_is_refused(request_: Message) -> None:
    """A device, ID or process that does not exist is refused with ENOENT; nothing changes."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 1)
        ours = await host.sva_bind("dsa0", 77)
        with pytest.raises(NotFound):
            await host.vtd.ask(request_)
        assert (3, 3) == (await count(host, pasid), await count(host, ours))


async def test_a_set_that_is_not_the_ids_is_refused() -> None:
    """A set that the ID is not of is refused with EACCES, one that there is not with ENOENT."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=QUOTA)
        gone = await host.start_vm("vm-3", quota=QUOTA)
        await gone.close()
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 1)
        refused: dict[int, type[IoasidError]] = {
            0: NotOfThisSet,
            other.sid: NotOfThisSet,
            gone.sid: UnknownSet,
            2**63 - 1: UnknownSet,
        }
        for sid, error in refused.items():
            with pytest.raises(error):
                await host.vtd.ask(BindGuestPasid("dsa1", pasid, sid, 1, "vm-1"))
            with pytest.raises(error):
                await host.vtd.ask(UnbindGuestPasid("dsa0", pasid, sid))
        assert 3 == await count(host, pasid)


async def test_messages_for_others_are_refused() -> None:
    """A message that is none of VT-d's is refused with EBADMSG, and VT-d goes on."""
    async with a_host() as (host, _):
        for stranger in (Enqcmd(101), Programmed("dsa0", 1), TornDown(1, ()), None, BindProcess):
            with pytest.raises(MalformedMessage):
                await host.vtd.ask(stranger)  # type: ignore[arg-type]
        assert 1 == await host.sva_bind("dsa0", 77)
