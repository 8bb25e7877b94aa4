"""Address spaces: what a device reaches, and memory that stays as long as it does."""

import gc
import mmap
from typing import Any

import pytest

from ioasid.actors import Entry
from ioasid.core import InvalidArgument
from ioasid.linux import AddressSpace, LinuxIommu, MappingExists, ObjectGone, open_iommu
from ioasid.testing import FakeKernel

pytestmark = pytest.mark.anyio

PATH = "/dev/vfio/devices/dsa0"
PAGE = mmap.PAGESIZE
ENTRY = Entry("vm-1", 101, 1)


async def attached(iommu: LinuxIommu, ioasid: int = 5) -> AddressSpace:
    """Attach an ID on a device; returns its address space."""
    await iommu.open("dsa0", 20)
    await iommu.attach("dsa0", ioasid, ENTRY)
    return iommu.hardware.address_space(ioasid)


async def test_memory_is_mapped_until_it_is_unmapped() -> None:
    """A PASID and the device itself reach what was mapped for each, and nothing else."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        space = await attached(iommu)
        own = iommu.hardware.device_space("dsa0")
        await space.map(0x10000, mmap.mmap(-1, 2 * PAGE))
        await own.map(0, mmap.mmap(-1, PAGE), write=False)
        assert ({0x10000: 2 * PAGE}, {0: PAGE}) == (kernel.mapped(PATH, 5), kernel.mapped(PATH, 0))
        await space.unmap(0x10000)
        assert {} == kernel.mapped(PATH, 5)


async def test_memory_is_kept_as_long_as_it_is_mapped() -> None:
    """Memory that a device reaches can't be freed under it; unmapped or detached, it can."""
    async with open_iommu(kernel=FakeKernel()) as iommu:
        space = await attached(iommu)
        memory, other = mmap.mmap(-1, PAGE), mmap.mmap(-1, PAGE)
        await space.map(0, memory)
        await space.map(PAGE, other)
        for each in (memory, other):
            with pytest.raises(BufferError):
                each.close()
        await space.unmap(0)
        gc.collect()
        memory.close()
        await iommu.detach("dsa0", 5)
        gc.collect()
        other.close()


async def test_an_address_is_mapped_once() -> None:
    """What is mapped is refused, whether it begins there or lies over it."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        space = await attached(iommu)
        await space.map(PAGE, mmap.mmap(-1, PAGE))
        for iova, length in ((PAGE, PAGE), (0, 2 * PAGE)):
            with pytest.raises(MappingExists):
                await space.map(iova, mmap.mmap(-1, length))
        assert {PAGE: PAGE} == kernel.mapped(PATH, 5)
        with pytest.raises(ObjectGone):
            await space.unmap(0)


async def test_a_space_ends_with_its_last_detach() -> None:
    """Whoever keeps an address space that is gone can do nothing with it."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        space = await attached(iommu)
        own = iommu.hardware.device_space("dsa0")
        await iommu.detach("dsa0", 5)
        await iommu.close("dsa0")
        for each in (space, own):
            with pytest.raises(ObjectGone):
                await each.map(0, mmap.mmap(-1, PAGE))
            with pytest.raises(ObjectGone):
                await each.unmap(0)
        assert 0 == kernel.objects


@pytest.mark.parametrize("iova", [-1, 1, 1 << 64, True, None, "0", 0.0])
async def test_an_address_that_is_none_is_refused(iova: Any) -> None:
    """An address is a multiple of a page's size in 0..2^64-1."""
    async with open_iommu(kernel=FakeKernel()) as iommu:
        space = await attached(iommu)
        with pytest.raises(InvalidArgument, match="iova"):
            await space.map(iova, mmap.mmap(-1, PAGE))
        with pytest.raises(InvalidArgument, match="iova"):
            await space.unmap(iova)


async def test_memory_does_not_reach_over_the_end() -> None:
    """What would end beyond the last address is refused; what ends there is mapped."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        space = await attached(iommu)
        last = (1 << 64) - PAGE
        with pytest.raises(InvalidArgument, match="room for 8192 bytes"):
            await space.map(last, mmap.mmap(-1, 2 * PAGE))
        await space.map(last, mmap.mmap(-1, PAGE))
        assert {last: PAGE} == kernel.mapped(PATH, 5)


@pytest.mark.parametrize(
    "memory",
    [b"\0" * PAGE, bytearray(100), bytearray(), memoryview(bytearray(PAGE))[::2], None, 4096],
    ids=["read-only", "short", "empty", "strided", "None", "int"],
)
async def test_memory_that_is_none_is_refused(memory: Any) -> None:
    """Memory is whole pages in one piece, and writable."""
    kernel = FakeKernel()
    async with open_iommu(kernel=kernel) as iommu:
        space = await attached(iommu)
        with pytest.raises(InvalidArgument, match="memory"):
            await space.map(0, memory)
        assert {} == kernel.mapped(PATH, 5)
