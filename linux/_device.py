"""A VFIO device that is open and bound to `/dev/iommu`, and the PASIDs attached there."""

import errno
from typing import Final

from ioasid.actors import AlreadyProgrammed, PasidTooWide, PasidZero
from ioasid.linux._errors import NoPasids, NoVfioDevice, refusal
from ioasid.linux._iommufd import Iommufd, close
from ioasid.linux._kernel import Kernel, request
from ioasid.linux._structures import PASID, AttachPageTable, BindIommufd, DetachPageTable

__all__: list[str] = []


class VfioDevice:
    """A VFIO device in use by this process. Its methods block.

    The kernel checks neither that a PASID is free, nor, where the device has none, that it
    exists; this does. Making one raises `NoPasids` for a device without, and what the kernel
    refuses with; then nothing is left open.
    """

    def __init__(self, kernel: Kernel, name: str, path: str, iommufd: Iommufd) -> None:
        self._kernel: Final = kernel
        self._iommufd: Final = iommufd
        self.name: Final = name
        self.path: Final = path
        self.attached: dict[int, int] = {}
        """The page table of every PASID that is attached."""
        self._tables: list[int] = []
        self._descriptor: Final = open_device(kernel, path)
        try:
            self.number: Final = bind_device(kernel, self._descriptor, path, iommufd)
            """Its object in `/dev/iommu`."""
            self.pasid_bits: Final = iommufd.pasid_bits(self.number, path)
            """The width of its PASIDs."""
            if not self.pasid_bits:
                raise NoPasids(name)
            self.space: Final = iommufd.new_address_space()
            """What its DMA without a PASID reaches; nothing, until something is mapped."""
            self._tables.append(self.space)
            # Before any PASID: later, the kernel would take no page table for the device itself.
            table = iommufd.new_page_table(self.number, self.space, path)
            self._tables.insert(0, table)
            request(kernel, self._descriptor, AttachPageTable.of(pt_id=table), path)
        except BaseException:
            self.close()
            raise

    def attach(self, pasid: int, table: int) -> None:
        """Attach a PASID to a page table.

        Raises `PasidZero`, `PasidTooWide` and `AlreadyProgrammed`, and what the kernel refuses
        with; then nothing has changed.
        """
        if not pasid:
            raise PasidZero(self.name)
        if pasid >> self.pasid_bits:
            raise PasidTooWide(self.name, pasid, self.pasid_bits)
        if pasid in self.attached:
            raise AlreadyProgrammed(self.name, pasid)
        asked = AttachPageTable.of(flags=PASID, pt_id=table, pasid=pasid)
        request(self._kernel, self._descriptor, asked, self.path)
        self.attached[pasid] = table

    def detach(self, pasid: int) -> None:
        """Detach a PASID, if it is attached; one that the kernel does not detach stays so."""
        if pasid in self.attached:
            asked = DetachPageTable.of(flags=PASID, pasid=pasid)
            request(self._kernel, self._descriptor, asked, self.path)
            del self.attached[pasid]

    def close(self) -> None:
        """Close it, which detaches everything; its own page table and address space go."""
        close(self._kernel, self._descriptor, self.path)
        self.attached.clear()
        self._iommufd.discard(*self._tables)


def open_device(kernel: Kernel, path: str) -> int:
    """Open a VFIO device; returns its descriptor. Raises `NoVfioDevice`, and other refusals."""
    try:
        return kernel.open(path)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise NoVfioDevice(path) from error
        raise refusal("open", path, error) from error


def bind_device(kernel: Kernel, descriptor: int, path: str, iommufd: Iommufd) -> int:
    """Bind an open VFIO device to an open `/dev/iommu`; returns its object there."""
    bound = BindIommufd.of(iommufd=iommufd.descriptor)
    request(kernel, descriptor, bound, path)
    return int(bound.out_devid)
