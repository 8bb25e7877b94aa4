"""The fake kernel: the rules and errors that a real one showed, byte by byte."""

import errno
from ctypes import c_uint32
from typing import Any, ClassVar

import pytest

from ioasid.linux._structures import (
    HWPT_PASID,
    PASID,
    AllocAddressSpace,
    AllocPageTable,
    AttachPageTable,
    BindIommufd,
    Destroy,
    DetachPageTable,
    GetHardwareInfo,
    Ioctl,
    Map,
    Unmap,
)
from ioasid.testing import FakeKernel

PATH = "/dev/vfio/devices/vfio0"
PLAIN = "/dev/vfio/devices/plain"


class Bench:
    """A bound device on a fake kernel, with an address space, and page tables with and without."""

    def __init__(self, path: str = PATH) -> None:
        self.kernel = FakeKernel({PATH: 8, PLAIN: 0})
        self.iommu = self.kernel.open("/dev/iommu")
        self.device = self.kernel.open(path)
        self.number = self.ask(self.device, BindIommufd.of(iommufd=self.iommu)).out_devid
        self.space = self.ask(self.iommu, AllocAddressSpace.of()).out_ioas_id
        self.table, self.other = self.new_table(HWPT_PASID), self.new_table(HWPT_PASID)
        self.unflagged = self.new_table(0)

    def ask(self, descriptor: int, argument: Any) -> Any:
        """Make an ioctl; returns its argument."""
        self.kernel.ioctl(descriptor, argument.number, argument)
        return argument

    def new_table(self, flags: int) -> int:
        """Make a page table."""
        made = AllocPageTable.of(flags=flags, dev_id=self.number, pt_id=self.space)
        number: int = self.ask(self.iommu, made).out_hwpt_id
        return number

    def attach(self, table: int, pasid: int | None = None) -> None:
        """Attach a PASID, or the device."""
        flags = {} if pasid is None else {"flags": PASID, "pasid": pasid}
        self.ask(self.device, AttachPageTable.of(pt_id=table, **flags))

    def detach(self, pasid: int | None = None) -> None:
        """Detach a PASID, or the device."""
        flags = {} if pasid is None else {"flags": PASID, "pasid": pasid}
        self.ask(self.device, DetachPageTable.of(**flags))

    def refused(self, number: int, descriptor: int, argument: Ioctl) -> None:
        """Assert that an ioctl fails with an errno, and changes nothing."""
        before = self.kernel.attached(), self.kernel.objects, self.kernel.descriptors
        with pytest.raises(OSError, match=errno.errorcode[number]) as caught:
            self.ask(descriptor, argument)
        assert number == caught.value.errno
        assert before == (self.kernel.attached(), self.kernel.objects, self.kernel.descriptors)


def test_a_second_attach_replaces() -> None:
    """A PASID that is attached already is replaced, and it succeeds."""
    bench = Bench()
    bench.attach(bench.table, 5)
    bench.attach(bench.other, 5)
    assert ({PATH: {5: bench.other}}, 1) == (bench.kernel.attached(), bench.kernel.replaced)


def test_a_device_without_pasids_takes_anything() -> None:
    """Where there are no PASIDs, any attach succeeds and does nothing."""
    bench = Bench(PLAIN)
    assert 0 == bench.ask(bench.iommu, GetHardwareInfo.of(dev_id=bench.number)).out_max_pasid_log2
    for pasid in (100, 1 << 20):
        bench.attach(bench.table, pasid)
    assert {} == bench.kernel.attached()


def test_pasid_zero_is_the_device() -> None:
    """PASID 0 is accepted, and attaches and detaches the device itself."""
    bench = Bench()
    bench.ask(
        bench.iommu,
        Map.of(flags=7, ioas_id=bench.space, user_va=1 << 20, length=4096, iova=4096),
    )
    assert {} == bench.kernel.mapped(PATH, 0)
    bench.attach(bench.table, 0)
    assert ({}, {4096: 4096}) == (bench.kernel.attached(), bench.kernel.mapped(PATH, 0))
    bench.detach(0)
    assert {} == bench.kernel.mapped(PATH, 0)


def test_a_detach_always_succeeds() -> None:
    """Twice, or never attached: nothing is said."""
    bench = Bench()
    bench.attach(bench.table, 5)
    for pasid in (5, 5, 77, None):
        bench.detach(pasid)
    assert {} == bench.kernel.attached()


def test_closing_a_device_detaches_everything() -> None:
    """With its descriptor a device's PASIDs are gone, and another may bind it."""
    bench = Bench()
    for pasid in (5, 6):
        bench.attach(bench.table, pasid)
    bench.kernel.close(bench.device)
    assert ({}, 1) == (bench.kernel.attached(), bench.kernel.descriptors)
    for table in (bench.table, bench.other, bench.unflagged):
        bench.ask(bench.iommu, Destroy.of(id=table))
    bench.device = bench.kernel.open(PATH)
    bench.ask(bench.device, BindIommufd.of(iommufd=bench.iommu))


def test_the_width() -> None:
    """A PASID at or above the width is invalid, where there are PASIDs."""
    bench = Bench()
    assert 8 == bench.ask(bench.iommu, GetHardwareInfo.of(dev_id=bench.number)).out_max_pasid_log2
    bench.attach(bench.table, 255)
    wide = AttachPageTable.of(flags=PASID, pt_id=bench.table, pasid=256)
    bench.refused(errno.EINVAL, bench.device, wide)


def test_page_tables_need_the_flag() -> None:
    """A PASID needs a page table with the flag; so does the device, before one and beside it."""
    bench = Bench()
    for wrong in (bench.unflagged, bench.space):
        asked = AttachPageTable.of(flags=PASID, pt_id=wrong, pasid=5)
        bench.refused(errno.EINVAL, bench.device, asked)
    asked = AttachPageTable.of(flags=PASID, pt_id=bench.table, pasid=5)
    for own in (bench.unflagged, bench.space):
        bench.attach(own)
        bench.refused(errno.EINVAL, bench.device, asked)
    bench.detach()
    bench.attach(bench.table, 5)
    for wrong in (bench.unflagged, bench.space):
        bench.refused(errno.EINVAL, bench.device, AttachPageTable.of(pt_id=wrong))
    bench.attach(bench.other)


def test_old_sizes_and_unknown_flags() -> None:
    """The sizes of before 6.15 do, but not with the PASID flag; other flags are invalid."""
    bench = Bench()
    bench.ask(bench.device, AttachPageTable(12, 0, bench.table, 0))
    bench.ask(bench.device, DetachPageTable(8, 0, 0))
    for old in (
        AttachPageTable(12, PASID, bench.table, 5),
        DetachPageTable(8, PASID, 5),
        AttachPageTable.of(flags=2, pt_id=bench.table),
        DetachPageTable.of(flags=2),
        AttachPageTable(8, 0, bench.table, 0),
        BindIommufd.of(iommufd=bench.iommu),
    ):
        bench.refused(errno.EINVAL, bench.device, old)
    for unknown in (
        AllocAddressSpace.of(flags=1),
        AllocPageTable.of(flags=64, dev_id=bench.number, pt_id=bench.space),
        GetHardwareInfo.of(dev_id=bench.number, flags=1),
        Destroy(4, bench.table),
    ):
        bench.refused(errno.EINVAL, bench.iommu, unknown)


def test_what_is_in_use_stays() -> None:
    """A page table that is attached, or an address space that has one, is busy."""
    bench = Bench()
    bench.attach(bench.table, 5)
    bench.attach(bench.other)
    for used in (bench.table, bench.other, bench.space):
        bench.refused(errno.EBUSY, bench.iommu, Destroy.of(id=used))
    bench.detach(5)
    bench.ask(bench.iommu, Destroy.of(id=bench.table))
    bench.refused(errno.ENOENT, bench.iommu, Destroy.of(id=bench.table))
    gone = AttachPageTable.of(flags=PASID, pt_id=bench.table, pasid=5)
    bench.refused(errno.ENOENT, bench.device, gone)


def test_what_is_not_there() -> None:
    """Objects, files and ioctls that there are not."""
    bench = Bench()
    for asked in (
        AllocPageTable.of(dev_id=99, pt_id=bench.space),
        AllocPageTable.of(dev_id=bench.number, pt_id=bench.table),
        GetHardwareInfo.of(dev_id=bench.space),
        Map.of(flags=7, ioas_id=99, length=4096),
        Unmap.of(ioas_id=bench.space, iova=0, length=4096),
    ):
        bench.refused(errno.ENOENT, bench.iommu, asked)
    with pytest.raises(OSError, match="ENOENT"):
        bench.kernel.open("/dev/null")
    with pytest.raises(OSError, match="EBADF"):
        bench.kernel.close(99)
    bench.refused(errno.EBADF, 99, Destroy.of(id=1))
    bench.refused(errno.ENOTTY, bench.device, Destroy.of(id=1))
    bench.refused(errno.ENOTTY, bench.iommu, Unknown(4))


class Unknown(Ioctl):
    """An ioctl that no kernel knows."""

    number = 0x3BFF
    call = "UNKNOWN"
    _fields_: ClassVar[Any] = [("size", c_uint32)]


def test_a_device_is_bound_once() -> None:
    """Before it is bound a device does nothing, and what another descriptor bound is busy."""
    bench = Bench()
    second = bench.kernel.open(PATH)
    bench.refused(errno.EINVAL, second, AttachPageTable.of(pt_id=bench.table))
    bench.refused(errno.EINVAL, second, DetachPageTable.of())
    bench.refused(errno.EINVAL, second, BindIommufd.of(iommufd=bench.device))
    bench.refused(errno.EBUSY, second, BindIommufd.of(iommufd=bench.iommu))


def test_mappings() -> None:
    """A mapping is aligned and fixed, and lies over no other; it is undone as a whole."""
    bench = Bench()
    mapping = {"ioas_id": bench.space, "user_va": 8192, "length": 8192, "iova": 4096}
    bench.ask(bench.iommu, Map.of(flags=3, **mapping))
    bench.attach(bench.table, 5)
    assert {4096: 8192} == bench.kernel.mapped(PATH, 5)
    assert {} == bench.kernel.mapped(PATH, 6)
    bench.refused(errno.EEXIST, bench.iommu, Map.of(flags=7, **{**mapping, "iova": 8192}))
    for wrong in ({"iova": 1}, {"length": 0}, {"length": 100}, {"user_va": 7}):
        bench.refused(errno.EINVAL, bench.iommu, Map.of(flags=7, **{**mapping, **wrong}))
    for flags in (6, 15):
        bench.refused(errno.EINVAL, bench.iommu, Map.of(flags=flags, **mapping))
    over = Map.of(flags=7, **{**mapping, "iova": (1 << 64) - 4096})
    bench.refused(errno.EOVERFLOW, bench.iommu, over)
    asked = Unmap.of(ioas_id=bench.space, iova=4096, length=4096)
    bench.refused(errno.ENOENT, bench.iommu, asked)
    bench.ask(bench.iommu, Unmap.of(ioas_id=bench.space, iova=4096, length=8192))
    assert {} == bench.kernel.mapped(PATH, 5)


def test_a_call_can_be_made_to_fail() -> None:
    """What `before` raises is what the call fails with, and the call did nothing."""
    bench = Bench()

    def before(name: str) -> None:
        raise OSError(errno.EIO, f"EIO at {name}")

    bench.kernel.before = before
    bench.refused(errno.EIO, bench.iommu, AllocAddressSpace.of())
    assert "IOMMU_IOAS_ALLOC" == bench.kernel.calls[-1]
