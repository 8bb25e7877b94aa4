"""The kernel's PASID tables, as the IOMMU driver of a host programs them."""

from collections.abc import Collection, Mapping
from typing import Final

from ioasid.actors import AlreadyProgrammed, Entry, UnknownDevice
from ioasid.core import InvalidArgument, IoasidError
from ioasid.linux._address_space import AddressSpace, Space
from ioasid.linux._device import VfioDevice
from ioasid.linux._errors import IommuClosed, NotAttached
from ioasid.linux._iommufd import Iommufd
from ioasid.linux._kernel import DEVICES, Kernel
from ioasid.linux._run import Run

__all__ = ["LinuxTables"]


class LinuxTables:
    """PASID tables of the kernel, `ioasid.actors.PasidTables`; made by `open_iommu`.

    Every ID that is attached has an address space of its own, which its devices share. Nothing
    blocks the event loop. A call that was begun is finished, whoever is cancelled; one that
    fails has changed nothing.
    """

    def __init__(self, kernel: Kernel, paths: Mapping[str, str], run: Run) -> None:
        self._kernel: Final = kernel
        self._paths: Final = paths
        self._run: Final = run
        self._opened: Iommufd | None = None
        self._over = False
        self._devices: dict[str, VfioDevice] = {}
        self._own: dict[str, Space] = {}
        """What each device reaches without a PASID."""
        self._spaces: dict[int, Space] = {}

    # -- what a driver does ---------------------------------------------------------------------

    async def open(self, device: str, pasid_bits: int) -> int:
        """Open and bind a device; returns the width of its PASIDs, at most `pasid_bits` (1..20).

        Raises `NoVfioDevice`, `NotPermitted`, `NoPasids`, `ObjectInUse` if another process has it,
        `InvalidArgument` for a name that is no file's, and what the kernel refuses with.
        """
        path = self._path(device)

        def call() -> int:
            if device not in self._devices:
                vfio = VfioDevice(self._kernel, device, path, self._iommufd)
                self._devices[device] = vfio
                self._own[device] = Space(vfio.space)
            return min(pasid_bits, self._devices[device].pasid_bits)

        return await self._run(call)

    async def close(self, device: str) -> None:
        """Detach what is attached on a device, and close it."""
        await self._run(lambda: self._close(device))

    async def attach(self, device: str, ioasid: int, entry: Entry) -> None:
        """Attach an ID to its address space, which is made with the first device.

        Raises `PasidZero`, `PasidTooWide`, `AlreadyProgrammed`, `UnknownDevice`, and what the
        kernel refuses with.
        """
        await self._run(lambda: self._attach(device, ioasid))

    async def detach(self, device: str, ioasid: int) -> None:
        """Detach an ID, if it is attached; with its last device, its address space goes."""
        await self._run(lambda: self._detach(device, ioasid))

    def attached(self, device: str) -> Collection[int]:
        """Return the PASIDs that are attached."""
        vfio = self._devices.get(device)
        return frozenset(() if vfio is None else vfio.attached)

    # -- what a VMM does ------------------------------------------------------------------------

    def address_space(self, ioasid: int) -> AddressSpace:
        """Return what DMA with an ID reaches, to map memory into. Raises `NotAttached`."""
        space = self._spaces.get(ioasid)
        if space is None:
            raise NotAttached(ioasid)
        return AddressSpace(space, self._iommufd, self._run)

    def device_space(self, device: str) -> AddressSpace:
        """Return what DMA of a device without a PASID reaches. Raises `UnknownDevice`."""
        if device not in self._own:
            raise UnknownDevice(device)
        return AddressSpace(self._own[device], self._iommufd, self._run)

    # -- the scope ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open `/dev/iommu`; for `open_iommu`."""

        def call() -> None:
            if not self._over:
                self._opened = Iommufd(self._kernel)

        await self._run(call)

    async def stop(self) -> None:
        """Close every device, then `/dev/iommu`; for `open_iommu`."""

        def call() -> None:
            self._over = True
            for device in tuple(self._devices):
                self._close(device)
            if self._opened is not None:
                self._opened.close()
                self._opened = None

        await self._run(call)

    # -- in the thread --------------------------------------------------------------------------

    @property
    def _iommufd(self) -> Iommufd:
        if self._opened is None:
            raise IommuClosed
        return self._opened

    def _path(self, device: str) -> str:
        path = self._paths.get(device, f"{DEVICES}/{device}")
        if device not in self._paths and ("/" in device or device in (".", "..")):
            raise InvalidArgument.of("device", device, f"a name in {DEVICES}, or one with a path")
        return path

    def _attach(self, device: str, ioasid: int) -> None:
        vfio = self._devices.get(device)
        if vfio is None:
            raise UnknownDevice(device)
        if ioasid in vfio.attached:
            raise AlreadyProgrammed(device, ioasid)
        iommufd = self._iommufd
        known = self._spaces.get(ioasid)
        space = Space(iommufd.new_address_space()) if known is None else known
        made: list[int] = [] if known is not None else [space.number]
        try:
            table = iommufd.new_page_table(vfio.number, space.number, vfio.path)
            made.insert(0, table)
            vfio.attach(ioasid, table)
        except IoasidError:
            iommufd.discard(*made)
            raise
        space.tables[device] = table
        self._spaces[ioasid] = space

    def _detach(self, device: str, ioasid: int) -> None:
        vfio = self._devices.get(device)
        if vfio is None or ioasid not in vfio.attached:
            return
        vfio.detach(ioasid)
        self._let_go(device, ioasid)

    def _let_go(self, device: str, ioasid: int) -> None:
        # What was for a PASID that is detached.
        space = self._spaces[ioasid]
        self._iommufd.discard(space.tables.pop(device))
        if not space.tables:
            del self._spaces[ioasid]
            self._end(space)

    def _end(self, space: Space) -> None:
        space.gone = True
        self._iommufd.discard(space.number)
        space.mapped.clear()

    def _close(self, device: str) -> None:
        vfio = self._devices.get(device)
        if vfio is None:
            return
        attached = tuple(vfio.attached)
        # What can't be detached alone goes with the descriptor.
        for ioasid in attached:
            try:
                vfio.detach(ioasid)
            except IoasidError:
                pass
        vfio.close()
        del self._devices[device]
        own = self._own.pop(device)
        own.gone = True
        own.mapped.clear()
        for ioasid in attached:
            self._let_go(device, ioasid)
