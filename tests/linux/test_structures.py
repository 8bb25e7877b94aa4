"""The arguments of ioctls: every number, size and offset."""

from ctypes import Structure, sizeof

import pytest

from ioasid.linux import _structures
from ioasid.linux._structures import (
    AllocAddressSpace,
    AllocFaultQueue,
    AllocPageTable,
    AllocVdevice,
    AllocVeventQueue,
    AllocViommu,
    AttachPageTable,
    BindIommufd,
    Destroy,
    DetachPageTable,
    Fault,
    FaultResponse,
    GetHardwareInfo,
    GetIovaRanges,
    Ioctl,
    Map,
    Unmap,
)

EXPECTED = (
    (
        BindIommufd,
        ("VFIO_DEVICE_BIND_IOMMUFD", 0x3B76, 24),
        {"argsz": 0, "flags": 4, "iommufd": 8, "out_devid": 12, "token_uuid_ptr": 16},
    ),
    (
        AttachPageTable,
        ("VFIO_DEVICE_ATTACH_IOMMUFD_PT", 0x3B77, 16),
        {"argsz": 0, "flags": 4, "pt_id": 8, "pasid": 12},
    ),
    (
        DetachPageTable,
        ("VFIO_DEVICE_DETACH_IOMMUFD_PT", 0x3B78, 12),
        {"argsz": 0, "flags": 4, "pasid": 8},
    ),
    (Destroy, ("IOMMU_DESTROY", 0x3B80, 8), {"size": 0, "id": 4}),
    (
        AllocAddressSpace,
        ("IOMMU_IOAS_ALLOC", 0x3B81, 12),
        {"size": 0, "flags": 4, "out_ioas_id": 8},
    ),
    (
        Map,
        ("IOMMU_IOAS_MAP", 0x3B85, 40),
        {
            "size": 0,
            "flags": 4,
            "ioas_id": 8,
            "reserved": 12,
            "user_va": 16,
            "length": 24,
            "iova": 32,
        },
    ),
    (
        Unmap,
        ("IOMMU_IOAS_UNMAP", 0x3B86, 24),
        {"size": 0, "ioas_id": 4, "iova": 8, "length": 16},
    ),
    (
        AllocPageTable,
        ("IOMMU_HWPT_ALLOC", 0x3B89, 48),
        {
            "size": 0,
            "flags": 4,
            "dev_id": 8,
            "pt_id": 12,
            "out_hwpt_id": 16,
            "reserved": 20,
            "data_type": 24,
            "data_len": 28,
            "data_uptr": 32,
            "fault_id": 40,
            "reserved2": 44,
        },
    ),
    (
        GetHardwareInfo,
        ("IOMMU_GET_HW_INFO", 0x3B8A, 40),
        {
            "size": 0,
            "flags": 4,
            "dev_id": 8,
            "data_len": 12,
            "data_uptr": 16,
            "out_data_type": 24,
            "out_max_pasid_log2": 28,
            "reserved": 29,
            "out_capabilities": 32,
        },
    ),
    (
        GetIovaRanges,
        ("IOMMU_IOAS_IOVA_RANGES", 0x3B84, 32),
        {
            "size": 0,
            "ioas_id": 4,
            "num_iovas": 8,
            "reserved": 12,
            "allowed_iovas": 16,
            "out_iova_alignment": 24,
        },
    ),
    (
        AllocFaultQueue,
        ("IOMMU_FAULT_QUEUE_ALLOC", 0x3B8E, 16),
        {"size": 0, "flags": 4, "out_fault_id": 8, "out_fault_fd": 12},
    ),
    (
        AllocViommu,
        ("IOMMU_VIOMMU_ALLOC", 0x3B90, 40),
        {
            "size": 0,
            "flags": 4,
            "type": 8,
            "dev_id": 12,
            "hwpt_id": 16,
            "out_viommu_id": 20,
            "data_len": 24,
            "reserved": 28,
            "data_uptr": 32,
        },
    ),
    (
        AllocVdevice,
        ("IOMMU_VDEVICE_ALLOC", 0x3B91, 24),
        {"size": 0, "viommu_id": 4, "dev_id": 8, "out_vdevice_id": 12, "virt_id": 16},
    ),
    (
        AllocVeventQueue,
        ("IOMMU_VEVENTQ_ALLOC", 0x3B93, 32),
        {
            "size": 0,
            "flags": 4,
            "viommu_id": 8,
            "type": 12,
            "veventq_depth": 16,
            "out_veventq_id": 20,
            "out_veventq_fd": 24,
            "reserved": 28,
        },
    ),
)


RECORDS = (
    (
        Fault,
        40,
        {
            "flags": 0,
            "dev_id": 4,
            "pasid": 8,
            "grpid": 12,
            "perm": 16,
            "reserved": 20,
            "addr": 24,
            "length": 32,
            "cookie": 36,
        },
    ),
    (FaultResponse, 8, {"cookie": 0, "code": 4}),
)
"""What a fault queue is read and written in."""


def offsets_of(kind: type[Structure]) -> dict[str, int]:
    """Where each field of a structure is."""
    return {name: getattr(kind, name).offset for name, _ in kind._fields_}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("kind", "known", "offsets"), EXPECTED, ids=[kind.call for kind, _, _ in EXPECTED]
)
def test_layout(kind: type[Ioctl], known: tuple[str, int, int], offsets: dict[str, int]) -> None:
    """A structure has the kernel's name, number, size and offsets, and begins with its size."""
    assert known == (kind.call, kind.number, sizeof(kind))
    assert offsets == offsets_of(kind)
    assert sizeof(kind).to_bytes(4, "little") == bytes(kind.of())[:4]
    assert not any(bytes(kind.of())[4:])


@pytest.mark.parametrize(("kind", "size", "offsets"), RECORDS)
def test_records(kind: type[Structure], size: int, offsets: dict[str, int]) -> None:
    """A record of a fault queue has the kernel's size and offsets."""
    assert (size, offsets) == (sizeof(kind), offsets_of(kind))


def test_every_structure_is_known() -> None:
    """No structure is left out of the tables above."""
    known = {kind for kind, _, _ in (*EXPECTED, *RECORDS)}
    assert known == {each for each in vars(_structures).values() if _is_structure(each)}


def _is_structure(value: object) -> bool:
    return (
        isinstance(value, type) and issubclass(value, Structure) and value not in (Structure, Ioctl)
    )


def test_flags() -> None:
    """The flags have the kernel's values."""
    assert (1, 8) == (_structures.PASID, _structures.HWPT_PASID)
    assert (1, 2, 4) == (_structures.FIXED, _structures.WRITE, _structures.READ)
