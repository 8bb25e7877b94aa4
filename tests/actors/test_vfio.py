"""VFIO: the door of a guest."""

import anyio
import pytest

from ioasid.actors import (
    ActorCrashed,
    AllocPasid,
    AlreadyProgrammed,
    BindPasid,
    CloseVm,
    Enqcmd,
    Entry,
    FreePasid,
    UnbindPasid,
    UnknownDevice,
    VmClosed,
)
from ioasid.core import (
    InvalidArgument,
    IoasidError,
    MalformedMessage,
    Message,
    NotOfThisSet,
    Priority,
    QuotaExceeded,
    RangeFull,
    SetState,
    StaleIoasid,
    UnknownIoasid,
)
from tests.actors.hosts import (
    QUOTA,
    Asked,
    Witness,
    a_host,
    count,
    dma_in_flight,
    fault_at,
    is_quarantined,
    nothing_is_left,
    record_of,
    settle,
    stuck_at,
)

pytestmark = pytest.mark.anyio


async def test_the_set_is_the_vms() -> None:
    """VFIO allocates a set with the VM's name as token and its quota."""
    async with a_host() as (host, vm):
        record = await host.allocator.find_set("vm-1")
        assert (vm.sid, QUOTA, 0) == (record.sid, record.quota, record.allocated)


async def test_alloc_answers_the_lowest_in_the_range() -> None:
    """A guest gets the lowest free ID in the range it asks for, from its VM's set."""
    async with a_host() as (host, vm):
        assert [1, 2, 7, 3] == [
            await vm.alloc(),
            await vm.alloc(),
            await vm.alloc(min=7, max=9),
            await vm.alloc(min=0),
        ]
        assert [1, 2, 3, 7] == [each.ioasid for each in await host.allocator.list_set(vm.sid)]
        with pytest.raises(RangeFull):
            await vm.alloc(min=1, max=2)


async def test_the_quota_is_per_vm_and_counts_the_quarantine() -> None:
    """A VM that spent its quota gets no more while its IDs are in quarantine; another VM does."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        for _ in range(QUOTA - 1):
            await vm.alloc()
        assert False is await vm.free(pasid)
        with pytest.raises(QuotaExceeded):
            await vm.alloc()
        other = await host.start_vm("vm-2", quota=1)
        assert pasid < await other.alloc()
        with pytest.raises(QuotaExceeded):
            await other.alloc()
        await host.complete("dsa0", transfer)
        await settle()
        assert pasid == await vm.alloc()


async def test_a_bind_and_an_unbind_are_answered_when_all_took_part() -> None:
    """After a bind KVM translates and the IOMMU has an entry, after an unbind neither."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        assert ({101: pasid}, ("dsa0",)) == (vm.kvm.table, host.vtd.iommu.devices_of(pasid))
        assert 3 == await count(host, pasid)
        await vm.unbind("dsa0", pasid)
        assert ({}, ()) == (vm.kvm.table, host.vtd.iommu.devices_of(pasid))
        assert 1 == await count(host, pasid)


async def test_the_door_stays_open_while_an_unbind_waits() -> None:
    """While an unbind waits for DMA to drain, VFIO serves the guest's other requests."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        assert {} == asked.came_to
        assert pasid + 1 == await vm.alloc()
        await host.complete("dsa0", transfer)
        await settle()
        assert {"unbind": None} == asked.came_to
        assert 1 == await count(host, pasid)


async def test_free_is_answered_at_once_and_twice_is_a_no_op() -> None:
    """A free with DMA in flight is answered at once, not reclaimed; a second one likewise."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        assert [False, False] == [await vm.free(pasid), await vm.free(pasid)]
        await host.complete("dsa0", transfer)
        await settle()
        with pytest.raises(UnknownIoasid):
            await vm.free(pasid)


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
async def test_the_ids_of_others_are_refused_at_every_door(*, bound: bool) -> None:
    """A guest that names another VM's ID is refused with EACCES everywhere; nothing changes."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=4)
        transfer = 0
        if bound:
            pasid, transfer = await dma_in_flight(host, vm)
        else:
            pasid = await vm.alloc()
        before = host.allocator, await host.allocator.snapshot()
        tables = {name: dict(table) for name, table in host.vtd.iommu.tables.items()}
        for call in (
            lambda: other.free(pasid),
            lambda: other.bind("dsa0", pasid, 101),
            lambda: other.bind("dsa1", pasid, 101),
            lambda: other.bind("dsa0", pasid, 5),
            lambda: other.unbind("dsa0", pasid),
            lambda: other.unbind("dsa1", pasid),
            lambda: other.stop("dsa0", pasid),
            lambda: other.stop("dsa1", pasid),
        ):
            with pytest.raises(NotOfThisSet) as caught:
                await call()
            assert (pasid, other.sid, "EACCES") == (
                caught.value.ioasid,
                caught.value.sid,
                caught.value.code,
            )
        assert before[1] == await host.allocator.snapshot()
        assert tables == host.vtd.iommu.tables
        if bound:
            assert "vm-1" == (await host.complete("dsa0", transfer)).owner


async def test_the_ids_of_processes_are_refused() -> None:
    """A guest can't reach an ID of the host's own processes."""
    async with a_host() as (host, vm):
        pasid = await host.sva_bind("dsa0", 77)
        for call in (
            lambda: vm.free(pasid),
            lambda: vm.bind("dsa1", pasid, 101),
            lambda: vm.unbind("dsa0", pasid),
            lambda: vm.stop("dsa0", pasid),
        ):
            with pytest.raises(NotOfThisSet):
                await call()
        assert 3 == await count(host, pasid)


async def test_a_closed_door_takes_no_request() -> None:
    """Once the VM is closing, VFIO refuses every request, and the VM every device."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        vm.crash()
        await settle()
        for request in (
            AllocPasid(),
            FreePasid(pasid),
            BindPasid("dsa0", pasid, 5),
            UnbindPasid("dsa0", pasid),
        ):
            with pytest.raises(VmClosed):
                await vm.vfio.ask(request)
        for call in (
            lambda: vm.program("dsa0", 101),
            lambda: vm.submit("dsa0", 101),
            lambda: vm.stop("dsa0", pasid),
        ):
            with pytest.raises(VmClosed):
                await call()
        await host.complete("dsa0", transfer)
        await vm.gone()
        await nothing_is_left(host)


async def test_close_is_answered_when_the_set_is_gone() -> None:
    """CloseVm frees the set, is answered when all is reclaimed, and may come twice."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        _, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("first", lambda: vm.vfio.ask(CloseVm()))
        await asked.ask("second", lambda: vm.vfio.ask(CloseVm()))
        assert {} == asked.came_to
        assert SetState.FREE_PENDING is (await host.allocator.find_set("vm-1")).state
        await host.complete("dsa0", transfer)
        await settle()
        assert {"first": None, "second": None} == asked.came_to
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_fails_what_waits_and_changes_nothing_else() -> None:
    """A crash of VFIO fails an unbind that waits; the unbind goes on, the ID stays the VM's."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        pasid, transfer = await dma_in_flight(host, vm)
        asked = Asked(tasks)
        await asked.ask("unbind", lambda: vm.unbind("dsa0", pasid))
        vm.vfio.crash()
        await settle()
        assert {"unbind": ActorCrashed} == asked.came_to
        assert vm.sid == (await host.allocator.find_set("vm-1")).sid
        await host.complete("dsa0", transfer)
        await settle()
        assert 1 == await count(host, pasid)


async def test_a_vm_that_closes_stays_closed_over_a_crash() -> None:
    """VFIO that crashes while the set is being freed comes back closed, and frees it."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        vm.crash()
        await settle()
        vm.vfio.crash()
        await settle()
        with pytest.raises(VmClosed):
            await vm.alloc()
        assert await is_quarantined(host, pasid)
        await host.complete("dsa0", transfer)
        await vm.gone()
        await nothing_is_left(host)


@pytest.mark.parametrize("bare", [False, True])
async def test_a_bind_that_stood_ends_with_the_life_of_its_id(bare: bool) -> None:
    """A bind that nobody was told of does not count for the next life of its ID."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        async with stuck_at(host, Priority.CPU), anyio.create_task_group() as tasks:
            tasks.start_soon(vm.bind, "dsa0", pasid, 101)
            await settle()
            tasks.cancel_scope.cancel()
        await settle()
        assert {101: pasid} == vm.kvm.table
        await host.allocator.free(pasid, wait=True)
        again = await vm.alloc()
        assert (pasid, {}) == (again, vm.kvm.table)
        with pytest.raises(StaleIoasid):
            await vm.bind("dsa0", pasid, 101)
        await vm.bind("dsa0", int(again) if bare else again, 101)
        assert {101: again} == vm.kvm.table
        entry = host.vtd.iommu.translate("dsa0", again)
        assert Entry("vm-1", 101, again.generation) == entry


@pytest.mark.parametrize("bare", [False, True])
async def test_a_bind_that_stood_is_answered_for_its_life_alone(bare: bool) -> None:
    """A bind that nobody was told of is refused to an old number after the ID was bound anew."""
    async with a_host() as (host, vm):
        old = await vm.alloc()
        await host.allocator.free(old, wait=True)
        pasid = await vm.alloc()
        assert old == pasid
        async with stuck_at(host, Priority.CPU), anyio.create_task_group() as tasks:
            tasks.start_soon(vm.bind, "dsa0", pasid, 101)
            await settle()
            tasks.cancel_scope.cancel()
        await settle()
        with pytest.raises(StaleIoasid):
            await vm.bind("dsa0", old, 101)
        await vm.bind("dsa0", int(pasid) if bare else pasid, 101)
        assert ({101: pasid}, 3) == (vm.kvm.table, await count(host, pasid))


@pytest.mark.parametrize("bare", [False, True])
async def test_a_bind_under_way_is_of_one_life(bare: bool) -> None:
    """A bind under way whose asker is gone goes on for its own life, not for an old number."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        old = await vm.alloc()
        await host.allocator.free(old, wait=True)
        pasid = await vm.alloc()
        assert old == pasid
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            async with anyio.create_task_group() as gone:
                gone.start_soon(vm.bind, "dsa0", pasid, 101)
                await settle()
                gone.cancel_scope.cancel()
            await asked.ask("old", lambda: vm.bind("dsa0", old, 101))
            assert {"old": StaleIoasid} == asked.came_to
            again = int(pasid) if bare else pasid
            await asked.ask("again", lambda: vm.bind("dsa0", again, 101))
            assert {"old": StaleIoasid} == asked.came_to
        await settle()
        assert {"old": StaleIoasid, "again": None} == asked.came_to
        assert ({101: pasid}, 3) == (vm.kvm.table, await count(host, pasid))


async def test_an_unknown_device_is_refused_first() -> None:
    """A bind names its device wrong before its ID."""
    async with a_host() as (_, vm):
        with pytest.raises(UnknownDevice):
            await vm.vfio.ask(BindPasid("dsa9", 7, 101))
        with pytest.raises(UnknownIoasid):
            await vm.vfio.ask(BindPasid("dsa0", 7, 101))


@pytest.mark.parametrize("how", ["free", "unbind"])
async def test_an_old_number_forgets_no_bind(how: str) -> None:
    """A refused free or unbind by an old number leaves a bind that stands to who asks again."""
    async with a_host() as (host, vm):
        old = await vm.alloc()
        await host.allocator.free(old, wait=True)
        pasid = await vm.alloc()
        async with stuck_at(host, Priority.CPU), anyio.create_task_group() as tasks:
            tasks.start_soon(vm.bind, "dsa0", pasid, 101)
            await settle()
            tasks.cancel_scope.cancel()
        await settle()
        with pytest.raises(StaleIoasid):
            await (vm.free(old) if how == "free" else vm.unbind("dsa0", old))
        await vm.bind("dsa0", pasid, 101)
        with pytest.raises(AlreadyProgrammed):
            await vm.bind("dsa0", pasid, 101)


async def test_a_vfio_that_was_evicted_comes_back() -> None:
    """VFIO whose session the operator evicted is told so at once, and serves again."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await host.allocator.evict("vfio:vm-1")
        await settle()
        assert pasid + 1 == await vm.alloc()
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_over_a_close_is_asked_again() -> None:
    """The host asks again when VFIO crashes over the close itself."""
    witness = Witness(fault_at("vfio:vm-1", CloseVm, times=2))
    async with a_host(witness) as (host, vm):
        await dma_in_flight(host, vm)
        vm.crash()
        await settle()
        assert 3 == len(witness.steps(CloseVm))
        await host.complete("dsa0", 1)
        await vm.gone()
        await nothing_is_left(host)


@pytest.mark.parametrize(
    "request_",
    [
        AllocPasid(min="1"),  # type: ignore[arg-type]
        AllocPasid(min=True),
        AllocPasid(min=-1),
        AllocPasid(min=2**64),
        AllocPasid(min=9, max=3),
        AllocPasid(max=2**32 - 1),
        AllocPasid(max=[]),  # type: ignore[arg-type]
        FreePasid(None),  # type: ignore[arg-type]
        FreePasid(True),
        FreePasid(-1),
        FreePasid(2**32 - 1),
        FreePasid({}),  # type: ignore[arg-type]
        BindPasid(None, 1, 1),  # type: ignore[arg-type]
        BindPasid([], 1, 1),  # type: ignore[arg-type]
        BindPasid("dsa0", "1", 1),  # type: ignore[arg-type]
        BindPasid("dsa0", 1, True),
        BindPasid("dsa0", 1, -1),
        BindPasid("dsa0", 1, 2**32 - 1),
        BindPasid("dsa0", 1, []),  # type: ignore[arg-type]
        UnbindPasid({}, 1),  # type: ignore[arg-type]
        UnbindPasid("dsa0", 1.0),  # type: ignore[arg-type]
        UnbindPasid("dsa0", 2**64),
    ],
    ids=str,
)
async def test_bad_values_are_refused(request_: Message) -> None:
    """A value of the wrong type or out of range is refused with EINVAL; nothing changes."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        before = await host.allocator.snapshot()
        with pytest.raises(InvalidArgument):
            await vm.vfio.ask(request_)
        assert before.sets == (await host.allocator.snapshot()).sets
        assert 1 == witness.counts[pasid][-1]
        assert {"dsa0": {}, "dsa1": {}} == host.vtd.iommu.tables


async def test_messages_for_others_are_refused() -> None:
    """A message that is none of VFIO's is refused with EBADMSG, and VFIO goes on."""
    async with a_host() as (_, vm):
        for stranger in (Enqcmd(101), None, "alloc", 5, AllocPasid, object()):
            with pytest.raises(MalformedMessage):
                await vm.vfio.ask(stranger)  # type: ignore[arg-type]
        assert 1 == await vm.alloc()


async def test_an_unbind_after_a_free_finds_nothing() -> None:
    """An unbind that comes after the free is refused with ENOENT, before and after RECLAIM."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        for _ in range(2):
            with pytest.raises(IoasidError) as caught:
                await vm.unbind("dsa0", pasid)
            assert "ENOENT" == caught.value.code
            if transfer in host.device("dsa0").device.transfers:
                await host.complete("dsa0", transfer)
                await settle()
        assert None is await record_of(host, pasid)
