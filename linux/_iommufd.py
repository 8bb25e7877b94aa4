"""An open `/dev/iommu`, and the objects that were made there."""

import errno
import logging
from typing import Final

from ioasid.core import IoasidError
from ioasid.linux._errors import NoIommufd, refusal
from ioasid.linux._kernel import IOMMU, Kernel, request
from ioasid.linux._structures import (
    FIXED,
    HWPT_PASID,
    READ,
    WRITE,
    AllocAddressSpace,
    AllocPageTable,
    Destroy,
    GetHardwareInfo,
    Map,
    Unmap,
)

__all__: list[str] = []

logger = logging.getLogger("ioasid")


class Iommufd:
    """An open `/dev/iommu`. Its methods block, and raise what the kernel refuses with.

    Objects that are discarded and could not be destroyed are tried again with the next; closing
    it destroys them all.
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel: Final = kernel
        self._left: set[int] = set()
        try:
            self.descriptor: Final = kernel.open(IOMMU)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NoIommufd(IOMMU) from error
            raise refusal("open", IOMMU, error) from error

    def pasid_bits(self, device: int, target: str) -> int:
        """Return the width of a bound device's PASIDs, 0 for none."""
        asked = GetHardwareInfo.of(dev_id=device)
        request(self._kernel, self.descriptor, asked, target)
        return int(asked.out_max_pasid_log2)

    def new_address_space(self) -> int:
        """Make an address space without mappings: all DMA into it faults."""
        made = AllocAddressSpace.of()
        request(self._kernel, self.descriptor, made, IOMMU)
        return int(made.out_ioas_id)

    def new_page_table(self, device: int, space: int, target: str) -> int:
        """Make a page table of an address space, for a device or one of its PASIDs."""
        made = AllocPageTable.of(flags=HWPT_PASID, dev_id=device, pt_id=space)
        request(self._kernel, self.descriptor, made, target)
        return int(made.out_hwpt_id)

    def map(self, space: int, iova: int, address: int, length: int, *, write: bool) -> None:
        """Map memory of this process at an address of the device's."""
        flags = FIXED | READ | (WRITE if write else 0)
        asked = Map.of(flags=flags, ioas_id=space, user_va=address, length=length, iova=iova)
        request(self._kernel, self.descriptor, asked, f"{iova:#x}")

    def unmap(self, space: int, iova: int, length: int) -> None:
        """Take a mapping away; returns when no device reaches the memory any more."""
        asked = Unmap.of(ioas_id=space, iova=iova, length=length)
        request(self._kernel, self.descriptor, asked, f"{iova:#x}")

    def discard(self, *objects: int) -> None:
        """Destroy objects that nothing uses any more, in order; never fails."""
        for each in (*self._left, *objects):
            try:
                request(self._kernel, self.descriptor, Destroy.of(id=each), f"object {each}")
            except IoasidError as error:
                if each not in self._left:
                    logger.warning("an object of %s stays until later", IOMMU, exc_info=error)
                self._left.add(each)
            else:
                self._left.discard(each)

    def close(self) -> None:
        """Close it, with every object in it; devices are closed before."""
        close(self._kernel, self.descriptor, IOMMU)


def close(kernel: Kernel, descriptor: int, path: str) -> None:
    """Close a descriptor; it is closed whatever the kernel says."""
    try:
        kernel.close(descriptor)
    except OSError as error:
        logger.warning("closing %s failed", path, exc_info=error)
