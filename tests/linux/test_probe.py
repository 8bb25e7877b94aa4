"""What a machine can do, in plain words."""

import errno
import os

import pytest

from ioasid.linux import probe
from ioasid.testing import FakeKernel

PATHS = ("/dev/vfio/devices/vfio0", "/dev/vfio/devices/vfio1")


def test_a_machine_that_is_ready() -> None:
    """A device with PASIDs is enough, and it says how wide they are; nothing stays open."""
    kernel = FakeKernel({PATHS[0]: 10, PATHS[1]: 0})
    found = probe(kernel=kernel, release="6.18.1-distribution", paths=reversed(PATHS))
    assert (True, ()) == (found.ready, found.missing)
    assert [10, 0] == [each.pasid_bits for each in found.devices]
    first, second, third, last = str(found).splitlines()
    assert "kernel 6.18.1-distribution" == first
    assert f"{PATHS[0]}: PASIDs of 10 bits" == second
    assert third.startswith(f"{PATHS[1]}: '{PATHS[1]}' has no PASIDs; take one with")
    assert "PASIDs can be attached here." == last
    assert 0 == kernel.descriptors


@pytest.mark.parametrize(
    ("release", "old"),
    [("6.15.0", False), ("7.0", False), ("6.14.9", True), ("5.10.0-1", True), ("odd", True)],
)
def test_the_kernel_has_to_be_new_enough(release: str, old: bool) -> None:
    """Before 6.15 nothing attaches PASIDs, and a release that can't be read is not trusted."""
    found = probe(kernel=FakeKernel(), release=release, paths=PATHS)
    assert old != found.ready
    assert old == any("needs 6.15 or later" in each for each in found.missing)


def test_a_machine_without_devices() -> None:
    """Without a device in VFIO's hands it says how to find one."""
    found = probe(kernel=FakeKernel(), release="6.18.1", paths=[])
    assert not found.ready
    assert "no device is bound to a VFIO driver" in str(found)


def test_a_machine_without_permission() -> None:
    """A device that this user may not open is told apart, and one of them is named."""
    kernel = FakeKernel()

    def before(name: str) -> None:
        if name == "open" and kernel.calls.count("open") > 1:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    kernel.before = before
    found = probe(kernel=kernel, release="6.18.1", paths=PATHS)
    assert [None, None] == [each.pasid_bits for each in found.devices]
    assert "none of the devices can be used: open is not permitted on" in found.missing[0]
    assert 0 == kernel.descriptors


def test_a_machine_without_iommufd() -> None:
    """Without `/dev/iommu` the devices are listed and not asked."""
    kernel = FakeKernel()

    def before(name: str) -> None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    kernel.before = before
    found = probe(kernel=kernel, release="6.18.1", paths=PATHS)
    assert "there is no /dev/iommu; load the module iommufd" in found.missing[0]
    assert ["not asked", "not asked"] == [each.problem for each in found.devices]


def test_this_machine_is_told_of() -> None:
    """Whatever this machine is, the answer is an answer."""
    found = probe()
    assert str(found)
    assert found.ready == (not found.missing)


def test_another_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux it says so, and raises nothing."""
    monkeypatch.setattr("sys.platform", "darwin")
    found = probe()
    assert (False, ()) == (found.ready, found.devices)
    assert "no /dev/iommu on darwin" in found.missing[0]
