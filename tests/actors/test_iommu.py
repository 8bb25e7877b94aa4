"""The IOMMU: tables as careless as a kernel's, and the care that is taken over them."""

import anyio
import pytest

from ioasid.actors import (
    Adopted,
    AlreadyProgrammed,
    Entry,
    Iommu,
    ModelTables,
    PasidTooWide,
    PasidZero,
    TornDown,
    UnknownDevice,
    open_host,
)
from tests.actors.hosts import Witness, a_host, count, nothing_is_left, settle

pytestmark = pytest.mark.anyio

ENTRY = Entry("vm-1", 101, 1)
OTHER = Entry("vm-2", 7, 2)


async def test_the_iommu_translates_what_it_has() -> None:
    """An IOMMU translates by device and PASID, and tears an ID down on every device."""
    iommu = Iommu()
    for device, ioasids in (("dsa0", (5,)), ("dsa1", (5, 6))):
        assert 20 == await iommu.open(device, 20)
        for ioasid in ioasids:
            await iommu.attach(device, ioasid, ENTRY)
    assert (ENTRY, None) == (iommu.translate("dsa0", 5), iommu.translate("dsa0", 6))
    assert {5: ENTRY, 6: ENTRY} == iommu.programmed()
    assert 20 == await iommu.open("dsa1", 8)
    with pytest.raises(UnknownDevice):
        iommu.last_of("gone")
    assert ("dsa0", "dsa1") == await iommu.tear_down(5)
    assert ({"dsa0": {}, "dsa1": {6: ENTRY}}, 2) == (iommu.tables, iommu.flushes)
    assert () == await iommu.tear_down(5)
    assert [6] == [*iommu.hardware.attached("dsa1")]
    await iommu.close("dsa1")
    assert (["dsa0"], []) == ([*iommu.tables], [*iommu.hardware.attached("dsa1")])


async def test_the_model_is_as_careless_as_a_kernel() -> None:
    """It replaces without a word, detaches what is not there, and takes anything without PASIDs."""
    model = ModelTables()
    assert (8, 0) == (await model.open("dsa0", 8), await model.open("plain", 0))
    await model.attach("dsa0", 5, ENTRY)
    await model.attach("dsa0", 5, OTHER)
    assert (OTHER, 1) == (model.entries["dsa0"][5], model.replaced)
    await model.attach("dsa0", 0, ENTRY)
    for _ in range(2):
        await model.detach("dsa0", 5)
    assert [0] == [*model.attached("dsa0")]
    for ioasid in (100, 1 << 20):
        await model.attach("plain", ioasid, ENTRY)
    assert [] == [*model.attached("plain")]
    with pytest.raises(PasidTooWide):
        await model.attach("dsa0", 256, ENTRY)
    with pytest.raises(UnknownDevice):
        await model.attach("gone", 5, ENTRY)
    await model.detach("gone", 5)


async def test_nothing_is_replaced() -> None:
    """What is attached is refused, whether the driver knows it or the hardware alone."""
    iommu = Iommu()
    await iommu.open("dsa0", 8)
    await iommu.attach("dsa0", 5, ENTRY)
    await iommu.hardware.attach("dsa0", 6, ENTRY)
    for ioasid in (5, 6):
        with pytest.raises(AlreadyProgrammed):
            await iommu.attach("dsa0", ioasid, OTHER)
    model = iommu.hardware
    assert isinstance(model, ModelTables)
    assert ({5: ENTRY, 6: ENTRY}, 0) == (model.entries["dsa0"], model.replaced)
    assert {5: ENTRY} == iommu.tables["dsa0"]


async def test_pasid_zero_is_the_device() -> None:
    """PASID 0 is refused, and nothing is attached, also when somebody gives it out on purpose."""
    iommu = Iommu()
    await iommu.open("dsa0", 8)
    with pytest.raises(PasidZero, match="PASID 0 of 'dsa0' is the device itself"):
        await iommu.attach("dsa0", 0, ENTRY)
    async with open_host(capacity=8, system_quota=1) as host:
        await host.add_device("dsa0")
        await host.allocator.cancel_range(0, 0)
        vm = await host.start_vm("vm-1", quota=2)
        pasid = await vm.alloc(min=0)
        assert 0 == pasid
        with pytest.raises(PasidZero):
            await vm.bind("dsa0", pasid, 101)
        assert 1 == await count(host, pasid)
        assert [] == [*host.vtd.iommu.hardware.attached("dsa0")]
        await vm.close()


class Refusing(ModelTables):
    """Tables that refuse an attach, or a detach, as long as they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing = ""

    async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
        """Refuse, or attach."""
        if self.refusing == "attach":
            raise UnknownDevice(device)
        await super().attach(device, ioasid, entry)

    async def detach(self, device: str, ioasid: int) -> None:
        """Refuse, or detach."""
        if self.refusing == "detach":
            raise UnknownDevice(device)
        await super().detach(device, ioasid)


async def test_a_refused_attach_leaves_nothing() -> None:
    """When the tables refuse an entry, reference, binding and a process's ID are as before."""
    tables = Refusing()
    async with open_host(capacity=64, system_quota=4, iommu=Iommu(hardware=tables)) as host:
        await host.add_device("dsa0")
        await host.add_device("dsa1")
        vm = await host.start_vm("vm-1", quota=4)
        pasid = await vm.alloc()
        tables.refusing = "attach"
        for _ in range(2):
            with pytest.raises(UnknownDevice):
                await vm.bind("dsa0", pasid, 101)
            with pytest.raises(UnknownDevice):
                await host.sva_bind("dsa0", 7)
        assert (1, None) == (await count(host, pasid), host.vtd.ioasid_of(7))
        assert 1 == (await host.allocator.statistics()).active
        tables.refusing = ""
        await vm.bind("dsa0", pasid, 101)
        known = await host.sva_bind("dsa0", 7)
        tables.refusing = "attach"
        with pytest.raises(UnknownDevice):
            await vm.bind("dsa1", pasid, 101)
        with pytest.raises(UnknownDevice):
            await host.sva_bind("dsa1", 7)
        assert ({101: pasid}, known) == (vm.kvm.table, host.vtd.ioasid_of(7))
        assert ("dsa0",) == host.vtd.iommu.devices_of(pasid)
        await vm.close()


async def test_a_refused_detach_keeps_the_id() -> None:
    """While an entry can't be torn down, its ID is not reused, and the driver tries again."""
    tables = Refusing()
    witness = Witness()
    async with open_host(
        capacity=64,
        system_quota=4,
        iommu=Iommu(hardware=tables),
        taps=[witness],
        restart_wait=60,
    ) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=4)
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        tables.refusing = "detach"
        await vm.free(pasid)
        await settle()
        assert "restarting" == host.vtd.statistics().state
        assert ([pasid], 1) == ([*tables.attached("dsa0")], await count(host, pasid))
        assert pasid != await vm.alloc()


class Waiting(ModelTables):
    """Tables whose detach takes as long as a test wants it to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_end = anyio.Event()

    async def detach(self, device: str, ioasid: int) -> None:
        """Wait, then detach."""
        await self.may_end.wait()
        await super().detach(device, ioasid)


async def test_an_id_is_reused_when_it_is_detached() -> None:
    """A detach that takes its time is waited for: its FREE is acknowledged behind it."""
    tables = Waiting()
    async with open_host(capacity=64, system_quota=4, iommu=Iommu(hardware=tables)) as host:
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=4)
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.free(pasid)
        await settle()
        assert ([pasid], 1) == ([*tables.attached("dsa0")], await count(host, pasid))
        assert "vtd" in (await host.allocator.explain(pasid)).blockers
        other = await vm.alloc()
        assert pasid != other
        tables.may_end.set()
        await settle()
        assert [] == [*tables.attached("dsa0")]
        assert pasid == await vm.alloc()
        await vm.close()


async def test_after_a_crash_it_says_what_it_keeps() -> None:
    """A driver that crashed adopts what it has entries for, and detaches what nobody knows."""
    witness = Witness()
    async with a_host(witness) as (host, vm):
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await host.vtd.iommu.hardware.attach("dsa1", 9, OTHER)
        host.vtd.crash()
        await settle()
        assert [("vtd", Adopted((pasid,)))] == witness.steps(Adopted, TornDown)
        assert [] == [*host.vtd.iommu.hardware.attached("dsa1")]
        await vm.close()
        await nothing_is_left(host)
