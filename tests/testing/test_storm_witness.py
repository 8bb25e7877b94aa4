"""What a witness objects to, decision by decision and step by step."""

from collections.abc import AsyncIterator

import pytest

from ioasid.actors import CompleteDma, Entry, Host, Programmed, StartDma, Vm, open_host
from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    AllocMany,
    AllocSet,
    Done,
    Event,
    EventKind,
    Evict,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Subscribe,
    Subscribed,
    UnknownSet,
    refusal_of,
)
from ioasid.testing import StormReport, StormSettings
from ioasid.testing._storm_witness import Witness

FRESH = IoasidRecord(1, 0, None, IoasidState.ACTIVE, None, {}, 1)

pytestmark = pytest.mark.anyio


class Watched:
    """A witness, and what it objects to."""

    def __init__(self, host: Host | None = None) -> None:
        self.report = StormReport(StormSettings())
        self.violated: list[str] = []
        self.witness = Witness(self.report, self.violated.append)
        self.witness.host = host

    def event(self, kind: EventKind, record: IoasidRecord | None = FRESH) -> None:
        """Let a life begin or end."""
        event = Event(1, kind, ioasid=1, sid=0, token="vm-1")
        self.witness.lives_on(event, record if kind is EventKind.ALLOC else None)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """A witness of a host with a device."""
    async with open_host(capacity=64, system_quota=8) as host:
        await host.add_device("dsa0")
        yield Watched(host)


async def programmed(watched: Watched) -> tuple[Host, Vm, int]:
    """The host with a VM, one of whose PASIDs is bound and programmed into the device."""
    host = watched.witness.host
    assert host is not None
    vm = await host.start_vm("vm-1", quota=8)
    pasid = await vm.alloc()
    await vm.bind("dsa0", pasid, gpasid=7)
    await vm.program("dsa0", gpasid=7)
    return host, vm, pasid


def test_lives_do_not_overlap() -> None:
    """An ID is not allocated twice, nor reclaimed twice; in turns it is right."""
    watched = Watched()
    for kind in (EventKind.ALLOC, EventKind.RECLAIM, EventKind.ALLOC):
        watched.event(kind)
    assert [] == watched.violated
    watched.event(EventKind.ALLOC)
    watched.event(EventKind.RECLAIM)
    watched.event(EventKind.RECLAIM)
    assert [
        "IOASID 1 was allocated twice without a RECLAIM between",
        "IOASID 1 was reclaimed without being allocated",
    ] == watched.violated
    assert 1 == watched.report.most_live


def test_an_id_is_fresh() -> None:
    """Nobody but its set has a reference to an ID that is handed out, and it has no spid."""
    for record in (None, IoasidRecord(1, 0, 7, IoasidState.ACTIVE, None, {}, 1)):
        watched = Watched()
        watched.event(EventKind.ALLOC, record)
        assert 1 == len(watched.violated)
        assert "was not fresh" in watched.violated[0]


def test_what_is_handed_out_is_what_was_asked_for() -> None:
    """It was told of before, is of the set, and in the range."""
    watched = Watched()
    watched.witness.answered(Alloc(0), Allocated(1))
    many = AllocatedMany((IoasidRange(1, 2),))
    watched.witness.answered(AllocMany(0, 2), many)
    assert ["nobody was told"] * 3 == [each[:15] for each in watched.violated]
    watched.violated.clear()
    watched.event(EventKind.ALLOC)
    watched.witness.answered(Alloc(0, 1, 1), Allocated(1))
    assert [] == watched.violated
    for request in (Alloc(1), Alloc(0, 2), Alloc(0, 0, 0)):
        watched.witness.answered(request, Allocated(1))
    assert 3 == len(watched.violated)


def test_vms_of_one_name_are_told_apart() -> None:
    """An ID is that of the VM that had it, not of the next one of its name."""
    watched = Watched()
    watched.witness.decided("host", AllocSet("vm-1", 8), Done())
    watched.event(EventKind.ALLOC)
    assert watched.witness.belongs(1, "vm-1", 1)
    watched.event(EventKind.RECLAIM)
    assert not watched.witness.belongs(1, "vm-1", 1)
    watched.witness.check_owner(1, "vm-1", 1, "was freed by")
    assert [] == watched.violated
    watched.witness.check_owner(1, "vm-1", 2, "was freed by")
    assert 1 == len(watched.violated)


def test_what_comes_before_the_host_is_counted() -> None:
    """A witness counts steps and refusals before it knows the host; a refusal changes nothing."""
    watched = Watched()
    watched.witness.stepped("vtd", Programmed("dsa0", 1))
    assert {"Programmed": 1} == watched.report.steps
    watched.witness.decided("host", AllocSet("vm-1", 8), refusal_of(UnknownSet(1)))
    assert {"UnknownSet": 1} == watched.report.refusals
    assert 1 == watched.report.decisions
    assert {} == watched.witness.generations


async def test_nothing_programmed_is_in_the_pool(watched: Watched) -> None:
    """Entries, contexts, translations and what users' drivers have are named, each of them."""
    _, vm, pasid = await programmed(watched)
    await vm.submit("dsa0", gpasid=7)
    watched.witness.hardware = lambda: [("nic", {pasid: vm.sid})]
    watched.event(EventKind.ALLOC)
    assert 5 == len(watched.violated), watched.violated
    assert all("was handed out while" in each for each in watched.violated)
    watched.violated.clear()
    watched.event(EventKind.RECLAIM)
    assert 5 == len(watched.violated)
    assert all("was reclaimed while" in each for each in watched.violated)


async def test_whatever_is_programmed_is_held(watched: Watched) -> None:
    """Hardware without a reference behind it, or of another set, is named."""
    host, vm, pasid = await programmed(watched)
    record = await host.allocator.find(pasid)
    watched.witness.lives_on(Event(1, EventKind.ALLOC, pasid, vm.sid, "vm-1"), FRESH)
    watched.violated.clear()
    watched.witness.hardware = lambda: [("nic", {pasid: vm.sid})]
    watched.witness.look(lambda _: record)
    assert [] == watched.violated
    watched.witness.decided("host", Evict(vm.kvm.holder), Done())
    watched.witness.look(lambda _: FRESH)
    assert ["vtd", "vdcm:dsa0"] == [each.split()[0] for each in watched.violated]
    watched.violated.clear()
    watched.witness.decided(vm.kvm.holder, Subscribe(), Subscribed(9, resumed=False))
    watched.witness.look(lambda _: FRESH)
    assert ["vtd", "vdcm:dsa0", "kvm:vm-1"] == [each.split()[0] for each in watched.violated]
    watched.violated.clear()
    watched.witness.hardware = lambda: [("nic", {pasid: 99, 60: vm.sid})]
    watched.witness.stepped("nic", Programmed("dsa0", pasid))
    assert 2 == len(watched.violated)
    assert "programmed for set 99" in watched.violated[0]
    assert "programmed, which is in the pool" in watched.violated[1]


async def test_dma_lands_in_the_life_that_started_it(watched: Watched) -> None:
    """A transfer that was started by another life of its ID, or never, is named."""
    host, vm, pasid = await programmed(watched)
    alloc = Event(1, EventKind.ALLOC, pasid, vm.sid, "vm-1")
    watched.witness.lives_on(alloc, FRESH)
    for _ in range(3):
        watched.witness.stepped("vdcm:dsa0", StartDma(pasid))
        await vm.submit("dsa0", gpasid=7)
    watched.violated.clear()
    watched.witness.stepped("vdcm:dsa0", CompleteDma(1))
    assert ([], 1) == (watched.violated, watched.report.landed)
    watched.witness.stepped("vdcm:dsa0", CompleteDma(1))
    assert "transfer 1 of dsa0 was never started" in watched.violated[0]
    watched.witness.lives_on(alloc, FRESH)
    watched.witness.stepped("vdcm:dsa0", CompleteDma(2))
    assert "landed in a later life" in watched.violated[-1]
    host.vtd.iommu.tables["dsa0"][pasid] = Entry("vm-2", 7, generation=1)
    watched.violated.clear()
    watched.witness.stepped("vtd", Programmed("dsa0", pasid))
    assert "the entry of IOASID" in watched.violated[0]
    watched.witness.stepped("vdcm:dsa0", StartDma(pasid))
    transfer = await host.device("dsa0").ask(StartDma(pasid))
    watched.witness.stepped("vdcm:dsa0", CompleteDma(transfer))
    assert "landed in vm-2" in watched.violated[-1]
    await host.vtd.iommu.tear_down(pasid)
    watched.witness.stepped("vdcm:dsa0", CompleteDma(3))
    assert 1 == watched.report.faulted
    host.device("dsa0").device.reset()
