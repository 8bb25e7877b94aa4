"""KVM: the translation that ENQCMD consults."""

import anyio
import pytest

from ioasid.actors import (
    ActorCrashed,
    ActorStopped,
    Decision,
    Enqcmd,
    FreePasid,
    Mapped,
    PasidFault,
    Step,
    Unmapped,
    open_host,
)
from ioasid.core import (
    Event,
    EventKind,
    InvalidArgument,
    MalformedMessage,
    OpenSession,
    Priority,
    Resync,
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


async def test_enqcmd_translates_what_is_bound() -> None:
    """ENQCMD answers the host PASID from the bind on, and faults before it and after the unbind."""
    async with a_host() as (_, vm):
        pasid = await vm.alloc()
        with pytest.raises(PasidFault) as caught:
            await vm.kvm.ask(Enqcmd(101))
        assert ("vm-1", 101, "EFAULT") == (caught.value.vm, caught.value.gpasid, caught.value.code)
        await vm.bind("dsa0", pasid, 101)
        assert pasid == await vm.kvm.ask(Enqcmd(101))
        await vm.unbind("dsa0", pasid)
        with pytest.raises(PasidFault):
            await vm.kvm.ask(Enqcmd(101))


async def test_submit_on_an_unmapped_guest_pasid_faults() -> None:
    """Work submitted with a guest PASID that is not mapped faults before it reaches a device."""
    async with a_host() as (host, vm):
        await dma_in_flight(host, vm)
        with pytest.raises(PasidFault):
            await vm.submit("dsa0", 102)
        assert 1 == host.device("dsa0").device.started


async def test_vms_have_translations_of_their_own() -> None:
    """The same guest PASID means another host PASID in every VM."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=4)
        first, second = await vm.alloc(), await other.alloc()
        await vm.bind("dsa0", first, 101)
        with pytest.raises(PasidFault):
            await other.kvm.ask(Enqcmd(101))
        await other.bind("dsa0", second, 101)
        assert (first, second) == (
            await vm.kvm.ask(Enqcmd(101)),
            await other.kvm.ask(Enqcmd(101)),
        )


async def test_a_reference_comes_with_the_bind_and_goes_with_the_unbind() -> None:
    """KVM holds one reference from the BIND until it has taken up the UNBIND."""
    async with a_host() as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        assert {"vtd": 1, "kvm:vm-1": 1} == (await host.allocator.find(pasid)).references
        await vm.unbind("dsa0", pasid)
        assert {} == (await host.allocator.find(pasid)).references


async def test_mappings_are_reported() -> None:
    """A tap learns of every mapping that comes and goes, in order."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        await vm.free(pasid)
        await host.complete("dsa0", transfer)
        await settle()
    assert [
        ("kvm:vm-1", Mapped(101, pasid)),
        ("kvm:vm-1", Unmapped(101, pasid)),
    ] == witness.steps(Mapped, Unmapped)


async def test_a_freed_id_is_unmapped_first() -> None:
    """A free takes the mapping away at once, while the device still drains."""
    async with a_host() as (host, vm):
        pasid, _ = await dma_in_flight(host, vm)
        await vm.free(pasid)
        await settle()
        assert {} == vm.kvm.table
        assert {"vtd": 1, "vdcm:dsa0": 1} == (await host.allocator.find(pasid)).references
        with pytest.raises(PasidFault):
            await vm.submit("dsa0", 101)


async def test_a_guest_pasid_moves_to_another_id() -> None:
    """A guest PASID that is unbound from one ID and bound to another translates to the other."""
    async with a_host() as (_, vm):
        first, second = await vm.alloc(), await vm.alloc()
        await vm.bind("dsa0", first, 101)
        await vm.unbind("dsa0", first)
        await vm.bind("dsa0", second, 101)
        assert {101: second} == vm.kvm.table
        await vm.bind("dsa0", first, 102)
        assert {101: second, 102: first} == vm.kvm.table


async def test_an_unbind_that_comes_late_leaves_the_new_mapping() -> None:
    """An UNBIND that was held up behind its BIND does not unmap what got the guest PASID since."""
    async with a_host() as (host, vm), anyio.create_task_group() as tasks:
        first, second = await vm.alloc(), await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("bind", lambda: vm.bind("dsa0", first, 101))
            await asked.ask("unbind", lambda: vm.unbind("dsa0", first))
            await asked.ask("bind another", lambda: vm.bind("dsa0", second, 101))
            assert ({101: second}, {}) == (vm.kvm.table, asked.came_to)
        await settle()
        assert {"bind": None, "unbind": None, "bind another": None} == asked.came_to
        assert {101: second} == vm.kvm.table
        assert (1, 3) == (await count(host, first), await count(host, second))
        await vm.close()
        await nothing_is_left(host)


async def test_an_unbind_that_comes_late_is_not_reported() -> None:
    """A mapping that another ID's replaced is not reported as gone when its UNBIND comes."""
    witness = Witness()
    async with a_host(witness) as (host, vm), anyio.create_task_group() as tasks:
        first, second = await vm.alloc(), await vm.alloc()
        asked = Asked(tasks)
        async with stuck_at(host, Priority.CPU):
            await asked.ask("bind", lambda: vm.bind("dsa0", first, 101))
            await asked.ask("unbind", lambda: vm.unbind("dsa0", first))
            await asked.ask("bind another", lambda: vm.bind("dsa0", second, 101))
        await settle()
    assert [
        ("kvm:vm-1", Mapped(101, first)),
        ("kvm:vm-1", Mapped(101, second)),
    ] == witness.steps(Mapped, Unmapped)


async def test_a_publishers_own_events_change_nothing() -> None:
    """A notification of somebody's own neither maps nor unmaps, and lets nothing go."""
    async with a_host() as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        unbound = await vm.alloc()
        for kind in (EventKind.BIND, EventKind.UNBIND, EventKind.FREE):
            await host.allocator.notify(pasid, kind)
            await host.allocator.notify(unbound, kind)
        await settle()
        assert {101: pasid} == vm.kvm.table
        assert (4, 1) == (await count(host, pasid), await count(host, unbound))
        assert "vm-1" == (await host.complete("dsa0", transfer)).owner


async def test_a_crash_keeps_the_reference_and_the_table_is_rebuilt() -> None:
    """KVM that crashes holds on to what it maps, and rebuilds its table from a Resync."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        bound, freed = await vm.alloc(), await vm.alloc()
        await vm.bind("dsa0", bound, 101)
        await vm.bind("dsa0", freed, 102)
        await vm.alloc()
        async with stuck_at(host, Priority.CPU):
            await vm.free(freed)
            vm.kvm.crash()
            await settle()
            assert 1 == witness.resyncs("kvm:vm-1")
            assert {101: bound} == vm.kvm.table
            assert 3 == await count(host, bound)
            assert await is_quarantined(host, freed)
        await settle()
        assert 0 == await count(host, freed)
        await vm.close()
        await nothing_is_left(host)


async def test_a_bind_during_a_crash_is_in_the_resync() -> None:
    """A binding that came while KVM was down is mapped, and held, once, after the Resync."""
    witness = Witness(fault_at("kvm:vm-1", Event))
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        assert [("kvm:vm-1", EventKind.BIND), ("kvm:vm-1", "Resync")] == [
            (actor, message.kind if isinstance(message, Event) else "Resync")
            for actor, message in witness.steps(Event, Resync)
            if actor == "kvm:vm-1"
        ]
        assert {101: pasid} == vm.kvm.table
        assert 3 == await count(host, pasid)
        await vm.close()
        await nothing_is_left(host)


async def test_a_crash_over_the_free_keeps_the_quarantine() -> None:
    """KVM that crashes over a FREE keeps the ID, and lets go when it is back."""
    witness = Witness(
        lambda step: (
            step.actor == "kvm:vm-1"
            and isinstance(step.message, Event)
            and step.message.kind is EventKind.FREE
        )
    )
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.free(pasid)
        await settle()
        assert (1, {}) == (witness.resyncs("kvm:vm-1"), vm.kvm.table)
        assert 0 == await count(host, pasid)
        assert [1, 2, 3, 2, 1, 0] == witness.counts[pasid]
        assert ["kvm:vm-1"] == witness.told(EventKind.FREE, pasid)[:1]


async def test_an_evicted_kvm_maps_nothing_that_it_does_not_hold() -> None:
    """KVM that the operator evicted comes back, and holds again what it translates."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid, transfer = await dma_in_flight(host, vm)
        freed = await vm.alloc()
        await vm.bind("dsa0", freed, 102)
        async with stuck_at(host, Priority.DEVICE):
            await vm.free(freed)
            await host.allocator.evict("kvm:vm-1")
            await settle()
            assert {101: pasid} == vm.kvm.table
            assert {"kvm:vm-1": 1, "vtd": 1, "vdcm:dsa0": 1} == (
                await host.allocator.find(pasid)
            ).references
        await host.complete("dsa0", transfer)
        await vm.close()
        await nothing_is_left(host)


async def test_an_evicted_kvm_translates_nothing_that_is_not_the_vms() -> None:
    """What is asked while KVM comes back from an eviction is answered from the Resync."""
    came_to: list[object] = []

    async def ask() -> None:
        with pytest.raises(PasidFault) as caught:
            await vm.kvm.ask(Enqcmd(101))
        came_to.append(caught.value.gpasid)

    def when_it_is_back(seen: Decision | Step) -> None:
        if isinstance(seen, Decision) and seen.request == OpenSession("kvm:vm-1") and evicted:
            tasks.start_soon(ask)

    evicted = False
    async with (
        open_host(taps=[when_it_is_back], restart_wait=0) as host,
        anyio.create_task_group() as tasks,
    ):
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=4)
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        evicted = True
        await host.allocator.evict("kvm:vm-1")
        await vm.free(pasid)
        await settle()
        assert ([101], 0) == (came_to, await count(host, pasid))


async def test_a_kvm_that_gives_up_takes_its_vm_along() -> None:
    """KVM that crashes too often is evicted, and its VM is cleared away; others go on."""
    async with a_host() as (host, vm):
        other = await host.start_vm("vm-2", quota=4)
        _, transfer = await dma_in_flight(host, vm)
        for _ in range(4):
            vm.kvm.crash()
        await settle()
        with pytest.raises(ActorStopped, match="gave up after 3 restarts"):
            await vm.kvm.ask(Enqcmd(101))
        assert ["vm-1", "vm-2"] == sorted(host.vms)
        await host.complete("dsa0", transfer)
        await vm.gone()
        assert 1 == await other.alloc()
        await other.close()
        await nothing_is_left(host)


async def test_what_it_is_told_while_a_request_crashes_it() -> None:
    """The request that KVM crashes over fails, those behind it are served."""
    witness = Witness(fault_at("kvm:vm-1", Enqcmd))
    async with a_host(witness) as (host, vm), anyio.create_task_group() as tasks:
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        came_to: list[object] = []

        async def ask() -> None:
            try:
                came_to.append(await vm.kvm.ask(Enqcmd(101)))
            except ActorCrashed as error:
                came_to.append(error.actor)

        for _ in range(3):
            tasks.start_soon(ask)
        await settle()
        assert ["kvm:vm-1", pasid, pasid] == sorted(came_to, key=str, reverse=True)
        assert 3 == await count(host, pasid)


async def test_a_lagging_kvm_ends_right() -> None:
    """More events than KVM's queue holds become a Resync, and nothing of them is lost."""
    witness = Witness()
    async with a_host(witness, capacity=4096) as (host, vm):
        undivided(host.allocator)
        big = await host.start_vm("vm-2", quota=1200)
        pasid = await big.alloc()
        await big.bind("dsa0", pasid, 101)
        await host.allocator.alloc_many(big.sid, 1199)
        await big.close()
        assert (0, 1) == (witness.resyncs("kvm:vm-1"), witness.resyncs("kvm:vm-2"))
        assert {} == big.kvm.table
        await vm.close()
        await nothing_is_left(host)


@pytest.mark.parametrize("gpasid", [-1, 0, 2**32 - 1, 2**64 - 1])
async def test_a_guest_pasid_out_of_range_faults(gpasid: int) -> None:
    """A number that no guest PASID can be is not mapped, so it faults."""
    async with a_host() as (host, vm):
        await dma_in_flight(host, vm, gpasid=1)
        with pytest.raises(PasidFault):
            await vm.submit("dsa0", gpasid)


@pytest.mark.parametrize("gpasid", [True, 1.0, "1", None, [], {}, 2**64])
async def test_what_is_no_guest_pasid_is_refused(gpasid: object) -> None:
    """A value of the wrong type is refused with EINVAL, however equal to a mapped one it is."""
    async with a_host() as (host, vm):
        await dma_in_flight(host, vm, gpasid=1)
        with pytest.raises(InvalidArgument):
            await vm.submit("dsa0", gpasid)  # type: ignore[arg-type]


async def test_messages_for_others_are_refused() -> None:
    """A message that is none of KVM's is refused with EBADMSG, and KVM goes on."""
    async with a_host() as (host, vm):
        pasid, _ = await dma_in_flight(host, vm)
        for stranger in (FreePasid(1), Mapped(1, 1), None, "enqcmd", Enqcmd):
            with pytest.raises(MalformedMessage):
                await vm.kvm.ask(stranger)  # type: ignore[arg-type]
        assert pasid == await vm.kvm.ask(Enqcmd(101))
