"""What the ioctls of `/dev/iommu` and of VFIO's devices take, byte by byte.

Numbers, sizes and offsets are those of the kernel's public interface since 6.15. Integers are in
the machine's own order, and every field lies at a multiple of its size. Fault queues, a guest's own
IOMMU and the ranges of an address space have their structures here, and nothing that asks for them.
"""

from ctypes import Structure, c_uint8, c_uint32, c_uint64, sizeof
from typing import Any, ClassVar, Final, Self

__all__: list[str] = []

PASID: Final = 1
"""The flag of an attach or detach that names a PASID."""
HWPT_PASID: Final = 8
"""The flag of a page table that a PASID may be attached to, or a device with PASIDs."""
FIXED: Final = 1
"""The flag of a mapping at the address that is asked for."""
WRITE: Final = 2
"""The flag of a mapping that a device may write to."""
READ: Final = 4
"""The flag of a mapping that a device may read."""


class Ioctl(Structure):
    """The argument of an ioctl; it begins with its own size."""

    number: ClassVar[int]
    """The number of the request."""
    call: ClassVar[str]
    """What the kernel calls it."""

    @classmethod
    def of(cls, **fields: int) -> Self:
        """Return one with its size, these fields, and zeros."""
        return cls(sizeof(cls), **fields)


class BindIommufd(Ioctl):
    """Bind a VFIO device to an open `/dev/iommu`; gives the device's object there."""

    number = 0x3B76
    call = "VFIO_DEVICE_BIND_IOMMUFD"
    _fields_: ClassVar[Any] = [
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("iommufd", c_uint32),
        ("out_devid", c_uint32),
        ("token_uuid_ptr", c_uint64),
    ]


class AttachPageTable(Ioctl):
    """Attach a device, or one of its PASIDs, to a page table, whatever it was attached to."""

    number = 0x3B77
    call = "VFIO_DEVICE_ATTACH_IOMMUFD_PT"
    _fields_: ClassVar[Any] = [
        ("argsz", c_uint32),
        ("flags", c_uint32),
        ("pt_id", c_uint32),
        ("pasid", c_uint32),
    ]


class DetachPageTable(Ioctl):
    """Detach a device, or one of its PASIDs, if it is attached."""

    number = 0x3B78
    call = "VFIO_DEVICE_DETACH_IOMMUFD_PT"
    _fields_: ClassVar[Any] = [("argsz", c_uint32), ("flags", c_uint32), ("pasid", c_uint32)]


class Destroy(Ioctl):
    """Destroy an object of an open `/dev/iommu`."""

    number = 0x3B80
    call = "IOMMU_DESTROY"
    _fields_: ClassVar[Any] = [("size", c_uint32), ("id", c_uint32)]


class AllocAddressSpace(Ioctl):
    """Make an address space, without mappings."""

    number = 0x3B81
    call = "IOMMU_IOAS_ALLOC"
    _fields_: ClassVar[Any] = [("size", c_uint32), ("flags", c_uint32), ("out_ioas_id", c_uint32)]


class GetIovaRanges(Ioctl):
    """Ask which addresses of an address space can be mapped, and how they have to be aligned."""

    number = 0x3B84
    call = "IOMMU_IOAS_IOVA_RANGES"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("num_iovas", c_uint32),
        ("reserved", c_uint32),
        ("allowed_iovas", c_uint64),
        ("out_iova_alignment", c_uint64),
    ]


class Map(Ioctl):
    """Map memory of this process into an address space."""

    number = 0x3B85
    call = "IOMMU_IOAS_MAP"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("ioas_id", c_uint32),
        ("reserved", c_uint32),
        ("user_va", c_uint64),
        ("length", c_uint64),
        ("iova", c_uint64),
    ]


class Unmap(Ioctl):
    """Take mappings out of an address space."""

    number = 0x3B86
    call = "IOMMU_IOAS_UNMAP"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("ioas_id", c_uint32),
        ("iova", c_uint64),
        ("length", c_uint64),
    ]


class AllocPageTable(Ioctl):
    """Make a page table of an address space, for a device."""

    number = 0x3B89
    call = "IOMMU_HWPT_ALLOC"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("pt_id", c_uint32),
        ("out_hwpt_id", c_uint32),
        ("reserved", c_uint32),
        ("data_type", c_uint32),
        ("data_len", c_uint32),
        ("data_uptr", c_uint64),
        ("fault_id", c_uint32),
        ("reserved2", c_uint32),
    ]


class AllocFaultQueue(Ioctl):
    """Make a queue for the faults of page tables; gives it, and a descriptor to read them from."""

    number = 0x3B8E
    call = "IOMMU_FAULT_QUEUE_ALLOC"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("out_fault_id", c_uint32),
        ("out_fault_fd", c_uint32),
    ]


class Fault(Structure):
    """What is read from a fault queue: a device asks for a page."""

    _fields_: ClassVar[Any] = [
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("pasid", c_uint32),
        ("grpid", c_uint32),
        ("perm", c_uint32),
        ("reserved", c_uint32),
        ("addr", c_uint64),
        ("length", c_uint32),
        ("cookie", c_uint32),
    ]


class FaultResponse(Structure):
    """What is written to a fault queue: the answer to all faults with this cookie."""

    _fields_: ClassVar[Any] = [("cookie", c_uint32), ("code", c_uint32)]


class AllocViommu(Ioctl):
    """Make a guest's IOMMU, of a page table that others can be nested in."""

    number = 0x3B90
    call = "IOMMU_VIOMMU_ALLOC"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("type", c_uint32),
        ("dev_id", c_uint32),
        ("hwpt_id", c_uint32),
        ("out_viommu_id", c_uint32),
        ("data_len", c_uint32),
        ("reserved", c_uint32),
        ("data_uptr", c_uint64),
    ]


class AllocVdevice(Ioctl):
    """Make a device of a guest's IOMMU, with the number that the guest knows it by."""

    number = 0x3B91
    call = "IOMMU_VDEVICE_ALLOC"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("viommu_id", c_uint32),
        ("dev_id", c_uint32),
        ("out_vdevice_id", c_uint32),
        ("virt_id", c_uint64),
    ]


class AllocVeventQueue(Ioctl):
    """Make a queue for the events of a guest's IOMMU; gives it, and a descriptor to read from."""

    number = 0x3B93
    call = "IOMMU_VEVENTQ_ALLOC"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("viommu_id", c_uint32),
        ("type", c_uint32),
        ("veventq_depth", c_uint32),
        ("out_veventq_id", c_uint32),
        ("out_veventq_fd", c_uint32),
        ("reserved", c_uint32),
    ]


class GetHardwareInfo(Ioctl):
    """Ask what a device and its IOMMU can do."""

    number = 0x3B8A
    call = "IOMMU_GET_HW_INFO"
    _fields_: ClassVar[Any] = [
        ("size", c_uint32),
        ("flags", c_uint32),
        ("dev_id", c_uint32),
        ("data_len", c_uint32),
        ("data_uptr", c_uint64),
        ("out_data_type", c_uint32),
        ("out_max_pasid_log2", c_uint8),
        ("reserved", c_uint8 * 3),
        ("out_capabilities", c_uint64),
    ]
