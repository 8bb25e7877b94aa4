"""The real kernel: what only a machine with a device shows.

`IOASID_DEVICE=/dev/vfio/devices/vfio0 make test ARGS="-n0 -m hardware"` runs them, one after the
other. The device has to be bound to a VFIO driver and idle; it may be reset, and its PASIDs 1 and 2
are attached and detached.
"""

import mmap
import os

import pytest

from ioasid.actors import open_host
from ioasid.linux import open_iommu, probe

DEVICE = os.environ.get("IOASID_DEVICE", "")

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.hardware,
    pytest.mark.skipif(
        not DEVICE, reason="IOASID_DEVICE names no VFIO device that may be used, with PASIDs"
    ),
]


async def test_the_crash_story_on_the_kernel() -> None:
    """A guest crashes while its PASID is attached: another gets it when it is detached."""
    async with (
        open_iommu({"dsa0": DEVICE}) as iommu,
        open_host(capacity=3, system_quota=1, iommu=iommu) as host,
    ):
        await host.add_device("dsa0")
        vm = await host.start_vm("vm-1", quota=1)
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        space = iommu.hardware.address_space(pasid)
        await space.map(1 << 20, mmap.mmap(-1, mmap.PAGESIZE))
        await space.unmap(1 << 20)
        vm.crash()
        await vm.gone()
        assert [] == [*iommu.hardware.attached("dsa0")]
        other = await host.start_vm("vm-2", quota=1)
        assert pasid == await other.alloc(max=pasid)
        await other.bind("dsa0", pasid, 101)
        await other.close()
        await host.remove_device("dsa0")


def test_the_device_has_a_width() -> None:
    """The device that may be used has PASIDs, and can be taken and given back again and again."""
    for _ in range(2):
        found = probe(paths=[DEVICE])
        assert found.ready, found
        assert 0 < (found.devices[0].pasid_bits or 0) <= 20
