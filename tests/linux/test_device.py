"""A VFIO device: what the kernel does not check, and nothing left open on any path."""

import errno

import pytest

from ioasid.actors import AlreadyProgrammed, PasidTooWide, PasidZero
from ioasid.core import IoasidError
from ioasid.linux import KernelFailed, NoPasids, NoVfioDevice, ObjectInUse
from ioasid.linux._device import VfioDevice
from ioasid.linux._iommufd import Iommufd
from ioasid.testing import FakeKernel

PATH = "/dev/vfio/devices/vfio0"
PLAIN = "/dev/vfio/devices/vfio1"


def a_device(kernel: FakeKernel, path: str = PATH) -> tuple[Iommufd, VfioDevice]:
    """Open a device."""
    iommufd = Iommufd(kernel)
    return iommufd, VfioDevice(kernel, "dsa0", path, iommufd)


def a_table(iommufd: Iommufd, device: VfioDevice) -> int:
    """Make a page table."""
    return iommufd.new_page_table(device.number, iommufd.new_address_space(), PATH)


def test_a_pasid_is_attached_and_detached() -> None:
    """The kernel has a PASID from attach to detach; closing the device detaches the rest."""
    kernel = FakeKernel({PATH: 8})
    iommufd, device = a_device(kernel)
    assert (8, {}) == (device.pasid_bits, kernel.attached())
    tables = [a_table(iommufd, device) for _ in range(2)]
    for pasid, table in zip((5, 255), tables, strict=True):
        device.attach(pasid, table)
    assert {PATH: {5: tables[0], 255: tables[1]}} == kernel.attached()
    device.detach(5)
    device.detach(5)
    device.detach(9)
    assert {PATH: {255: tables[1]}} == kernel.attached()
    assert 1 == kernel.calls.count("VFIO_DEVICE_DETACH_IOMMUFD_PT")
    device.close()
    assert ({}, 1) == (kernel.attached(), kernel.descriptors)
    iommufd.close()
    assert (0, 0) == (kernel.descriptors, kernel.objects)


def test_what_the_kernel_would_take_is_refused() -> None:
    """PASID 0, one beyond the width and one that is attached are refused, and nothing changes."""
    kernel = FakeKernel({PATH: 8})
    iommufd, device = a_device(kernel)
    table, other = a_table(iommufd, device), a_table(iommufd, device)
    device.attach(5, table)
    asked = len(kernel.calls)
    for pasid, kind in ((0, PasidZero), (256, PasidTooWide), (5, AlreadyProgrammed)):
        with pytest.raises(kind):
            device.attach(pasid, other)
    assert ({PATH: {5: table}}, 0, asked) == (
        kernel.attached(),
        kernel.replaced,
        len(kernel.calls),
    )


def test_a_device_without_pasids_is_refused() -> None:
    """The kernel would take any attach there and do nothing, so the device is not taken at all."""
    kernel = FakeKernel({PLAIN: 0})
    iommufd = Iommufd(kernel)
    with pytest.raises(NoPasids, match="'plain' has no PASIDs"):
        VfioDevice(kernel, "plain", PLAIN, iommufd)
    assert (1, 0) == (kernel.descriptors, kernel.objects)


def test_a_device_that_is_not_there_is_refused() -> None:
    """A path without a file is named, with what to do."""
    kernel = FakeKernel()
    with pytest.raises(NoVfioDevice, match="bind the device to a VFIO driver"):
        VfioDevice(kernel, "dsa0", "/dev/null/none", Iommufd(kernel))


def test_a_device_that_another_has_is_refused() -> None:
    """A device is bound once."""
    kernel = FakeKernel()
    iommufd, _ = a_device(kernel)
    with pytest.raises(ObjectInUse):
        VfioDevice(kernel, "dsa1", PATH, iommufd)
    assert 2 == kernel.descriptors


@pytest.mark.parametrize("at", range(6))
def test_a_failed_open_leaves_nothing(at: int) -> None:
    """Whichever call of an open fails, no descriptor and no object stays."""
    kernel = FakeKernel()
    iommufd = Iommufd(kernel)
    left = at

    def before(name: str) -> None:
        nonlocal left
        left -= 1
        if left < 0 and name not in ("close", "IOMMU_DESTROY"):
            raise OSError(errno.EIO, "planted")

    kernel.before = before
    with pytest.raises(KernelFailed):
        VfioDevice(kernel, "dsa0", PATH, iommufd)
    assert (1, 0) == (kernel.descriptors, kernel.objects)


def test_a_failed_attach_or_detach_changes_nothing() -> None:
    """A PASID that the kernel did not attach is not attached, one that it kept still is."""
    kernel = FakeKernel()
    iommufd, device = a_device(kernel)
    table = a_table(iommufd, device)

    def before(name: str) -> None:
        raise OSError(errno.EIO, "planted")

    kernel.before = before
    with pytest.raises(IoasidError):
        device.attach(5, table)
    assert ({}, {}) == (device.attached, kernel.attached())
    kernel.before = None
    device.attach(5, table)
    kernel.before = before
    with pytest.raises(IoasidError):
        device.detach(5)
    assert {5: table} == device.attached == kernel.attached()[PATH]
