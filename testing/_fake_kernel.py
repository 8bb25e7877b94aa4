"""A kernel with `/dev/iommu` and VFIO devices, for tests: the same bytes, rules and errors.

It knows nothing of who asks: it reads the bytes of an ioctl where the kernel's public interface
has them, and answers as a real kernel did. It is as careless as that one, too.
"""

import errno
import struct
from collections.abc import Callable, Mapping
from ctypes import Structure
from itertools import count
from typing import Final, NoReturn

from attrs import define, field

__all__ = ["FakeKernel"]

IOMMU: Final = "/dev/iommu"
DEVICES: Final = "/dev/vfio/devices/"
PAGE: Final = 4096


@define(eq=False)
class _Object:
    """An object of an open `/dev/iommu`."""

    kind: str
    flags: int = 0
    space: int = 0
    """Of a page table."""
    mapped: dict[int, int] = field(factory=dict)
    """Of an address space: length by address."""


@define(eq=False)
class _Iommufd:
    """An open `/dev/iommu`."""

    objects: dict[int, _Object] = field(factory=dict)
    numbers: "count[int]" = field(factory=lambda: count(1))

    def add(self, made: _Object) -> int:
        """Keep a new object; returns its number."""
        number = next(self.numbers)
        self.objects[number] = made
        return number

    def get(self, number: int, *kinds: str) -> _Object:
        """Return an object of one of these kinds."""
        found = self.objects.get(number)
        if found is None or found.kind not in kinds:
            _fail(errno.ENOENT)
        return found


@define(eq=False)
class _Device:
    """An open VFIO device."""

    path: str
    pasid_bits: int
    iommufd: _Iommufd | None = None
    number: int = 0
    """Its object there."""
    own: int | None = None
    """What it is attached to itself."""
    pasids: dict[int, int] = field(factory=dict)
    """What each of its PASIDs is attached to."""


class FakeKernel:
    """A kernel for `ioasid.linux.open_iommu`; every file in `/dev/vfio/devices` is a device.

    `widths` has the width of the PASIDs of devices by path, 0 for a device without; every other
    one has `pasid_bits`. Memory is not touched: a mapping is only noted.
    """

    def __init__(self, widths: Mapping[str, int] | None = None, *, pasid_bits: int = 20) -> None:
        self.before: Callable[[str], object] | None = None
        """Is called with the name of every call, before it: what it raises, an OSError for
        instance, fails the call, which has then done nothing."""
        self.calls: list[str] = []
        """The name of every call, in order: "open", "close", or the ioctl's."""
        self.replaced = 0
        """How often an attach replaced what a PASID meant."""
        self._widths = dict(widths or {})
        self._pasid_bits = pasid_bits
        self._numbers = count(3)
        self._open: dict[int, _Iommufd | _Device] = {}

    # -- what a test sees -------------------------------------------------------------------------

    @property
    def descriptors(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    @property
    def objects(self) -> int:
        """How many objects there are in `/dev/iommu`, devices not counted."""
        return sum(
            each.kind != "device"
            for opened in self._open.values()
            if isinstance(opened, _Iommufd)
            for each in opened.objects.values()
        )

    def attached(self) -> dict[str, dict[int, int]]:
        """Return the page table of every PASID that is attached, by the path of its device."""
        return {device.path: dict(device.pasids) for device in self._devices() if device.pasids}

    def mapped(self, path: str, pasid: int) -> dict[int, int]:
        """Return the mappings that DMA of a device reaches with a PASID, 0 for without: lengths."""
        for device in self._devices():
            table = device.pasids.get(pasid) if pasid else device.own
            if device.path == path and table is not None and device.iommufd is not None:
                found = device.iommufd.objects[table]
                space = device.iommufd.objects[found.space] if found.space else found
                return dict(space.mapped)
        return {}

    def _devices(self) -> list[_Device]:
        return [each for each in tuple(self._open.values()) if isinstance(each, _Device)]

    # -- what a process calls ---------------------------------------------------------------------

    def open(self, path: str) -> int:
        """Open a file; ENOENT for any other."""
        self._begin("open")
        if path != IOMMU and not path.startswith(DEVICES):
            _fail(errno.ENOENT)
        descriptor = next(self._numbers)
        bits = self._widths.get(path, self._pasid_bits)
        self._open[descriptor] = _Iommufd() if path == IOMMU else _Device(path, bits)
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a descriptor; whatever a device has attached goes with it."""
        self._begin("close")
        closed = self._open.pop(descriptor, None)
        if closed is None:
            _fail(errno.EBADF)
        if isinstance(closed, _Device) and closed.iommufd is not None:
            del closed.iommufd.objects[closed.number]

    def ioctl(self, descriptor: int, request: int, argument: Structure) -> None:
        """Read an argument, act, and write the answer into it."""
        name, handle, on = self._known(request)
        self._begin(name)
        opened = self._open.get(descriptor)
        if opened is None:
            _fail(errno.EBADF)
        if not isinstance(opened, on):
            _fail(errno.ENOTTY)
        handle(opened, memoryview(argument).cast("B"))

    def _begin(self, name: str) -> None:
        self.calls.append(name)
        if self.before is not None:
            self.before(name)

    def _known(self, request: int) -> tuple[str, Callable[..., None], type]:
        match request:
            case 0x3B76:
                return "VFIO_DEVICE_BIND_IOMMUFD", self._bind, _Device
            case 0x3B77:
                return "VFIO_DEVICE_ATTACH_IOMMUFD_PT", self._attach, _Device
            case 0x3B78:
                return "VFIO_DEVICE_DETACH_IOMMUFD_PT", self._detach, _Device
            case 0x3B80:
                return "IOMMU_DESTROY", self._destroy, _Iommufd
            case 0x3B81:
                return "IOMMU_IOAS_ALLOC", self._alloc_space, _Iommufd
            case 0x3B85:
                return "IOMMU_IOAS_MAP", self._map, _Iommufd
            case 0x3B86:
                return "IOMMU_IOAS_UNMAP", self._unmap, _Iommufd
            case 0x3B89:
                return "IOMMU_HWPT_ALLOC", self._alloc_table, _Iommufd
            case 0x3B8A:
                return "IOMMU_GET_HW_INFO", self._info, _Iommufd
            case _:
                raise OSError(errno.ENOTTY, "ENOTTY")

    # -- a device ---------------------------------------------------------------------------------

    def _bind(self, device: _Device, given: memoryview) -> None:
        size, flags, descriptor = struct.unpack_from("=III", given, 0)
        iommufd = self._open.get(descriptor)
        if size < 16 or flags or device.iommufd or not isinstance(iommufd, _Iommufd):
            _fail(errno.EINVAL)
        if any(each.path == device.path and each.iommufd for each in self._devices()):
            _fail(errno.EBUSY)
        device.iommufd = iommufd
        device.number = iommufd.add(_Object("device"))
        struct.pack_into("=I", given, 12, device.number)

    def _attach(self, device: _Device, given: memoryview) -> None:
        size, flags, table = struct.unpack_from("=III", given, 0)
        iommufd = device.iommufd
        if iommufd is None or flags & ~1 or size < (16 if flags else 12):
            _fail(errno.EINVAL)
        if not flags:
            found = iommufd.get(table, "table", "space")
            if device.pasids and not found.flags & 8:
                _fail(errno.EINVAL)
            device.own = table
            return
        (pasid,) = struct.unpack_from("=I", given, 12)
        if not device.pasid_bits:
            return
        if pasid >> device.pasid_bits or not iommufd.get(table, "table", "space").flags & 8:
            _fail(errno.EINVAL)
        if pasid and device.own is not None and not iommufd.objects[device.own].flags & 8:
            _fail(errno.EINVAL)
        if not pasid:
            device.own = table
            return
        self.replaced += pasid in device.pasids
        device.pasids[pasid] = table

    def _detach(self, device: _Device, given: memoryview) -> None:
        size, flags = struct.unpack_from("=II", given, 0)
        if device.iommufd is None or flags & ~1 or size < (12 if flags else 8):
            _fail(errno.EINVAL)
        (pasid,) = struct.unpack_from("=I", given, 8) if flags else (0,)
        if pasid:
            device.pasids.pop(pasid, None)
        else:
            device.own = None

    # -- /dev/iommu -------------------------------------------------------------------------------

    def _destroy(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, number = struct.unpack_from("=II", given, 0)
        _sized(size, 8)
        iommufd.get(number, "table", "space")
        used = {each.space for each in iommufd.objects.values()}
        for device in self._devices():
            if device.iommufd is iommufd:
                used |= {*device.pasids.values(), device.own or 0}
        if number in used:
            _fail(errno.EBUSY)
        del iommufd.objects[number]

    def _alloc_space(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, flags = struct.unpack_from("=II", given, 0)
        _sized(size, 12)
        if flags:
            _fail(errno.EINVAL)
        struct.pack_into("=I", given, 8, iommufd.add(_Object("space")))

    def _alloc_table(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, flags, device, space = struct.unpack_from("=IIII", given, 0)
        _sized(size, 48)
        if flags & ~8:
            _fail(errno.EINVAL)
        iommufd.get(device, "device")
        iommufd.get(space, "space")
        struct.pack_into("=I", given, 16, iommufd.add(_Object("table", flags, space)))

    def _info(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, flags, number = struct.unpack_from("=III", given, 0)
        _sized(size, 40)
        if flags:
            _fail(errno.EINVAL)
        iommufd.get(number, "device")
        for device in self._devices():
            if (device.iommufd, device.number) == (iommufd, number):
                struct.pack_into("=B", given, 28, device.pasid_bits)

    def _map(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, flags, number = struct.unpack_from("=III", given, 0)
        memory, length, iova = struct.unpack_from("=QQQ", given, 16)
        _sized(size, 40)
        space = iommufd.get(number, "space")
        unaligned = memory % PAGE or length % PAGE or iova % PAGE
        if flags & ~7 or not flags & 1 or not length or unaligned:
            _fail(errno.EINVAL)
        if iova + length > 1 << 64:
            _fail(errno.EOVERFLOW)
        if any(
            iova < start + extent and start < iova + length
            for start, extent in space.mapped.items()
        ):
            _fail(errno.EEXIST)
        space.mapped[iova] = length

    def _unmap(self, iommufd: _Iommufd, given: memoryview) -> None:
        size, number, iova, length = struct.unpack_from("=IIQQ", given, 0)
        _sized(size, 24)
        space = iommufd.get(number, "space")
        if space.mapped.get(iova) != length:
            _fail(errno.ENOENT)
        del space.mapped[iova]


def _sized(size: int, expected: int) -> None:
    if size != expected:
        _fail(errno.EINVAL)


def _fail(number: int) -> NoReturn:
    raise OSError(number, errno.errorcode[number])
