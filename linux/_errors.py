"""The errors of a kernel, part of the one tree under `ioasid.core.IoasidError`.

An ioctl that fails has changed nothing. Every errno has its class, which says what to do.
"""

import errno as _errno
from collections.abc import Callable
from typing import Final

from attrs import define

from ioasid.core import AlreadyExists, Busy, InvalidRequest, IoasidError, NoSpace, NotFound

__all__ = [
    "DeviceGone",
    "IommuClosed",
    "KernelExhausted",
    "KernelFailed",
    "KernelRefused",
    "KernelTooOld",
    "MappingExists",
    "NoIommufd",
    "NoPasids",
    "NoVfioDevice",
    "NotAttached",
    "NotLinux",
    "NotPermitted",
    "ObjectGone",
    "ObjectInUse",
]


@define
class NotLinux(IoasidError):
    """ENOSYS: there is no `/dev/iommu` on a system of this kind."""

    errno = _errno.ENOSYS
    template = "there is no /dev/iommu on {system}; run it on Linux, 6.15 or later"
    system: str


@define
class NoIommufd(NotFound):
    """ENOENT: the kernel offers no `/dev/iommu`."""

    template = "there is no {path}; load the module iommufd, of a kernel with CONFIG_IOMMUFD"
    path: str


@define
class NoVfioDevice(NotFound):
    """ENOENT: there is no VFIO device of this name."""

    template = (
        "there is no {path}; bind the device to a VFIO driver, vfio-pci for instance, "
        "on a kernel with CONFIG_VFIO_DEVICE_CDEV"
    )
    path: str


@define
class NotPermitted(IoasidError):
    """EACCES: this user may not do this; the files' owner and mode decide."""

    errno = _errno.EACCES
    template = "{call} is not permitted on {target}; give this user the file, or run as its owner"
    call: str
    target: str


@define
class NoPasids(IoasidError):
    """EOPNOTSUPP: the device, or the driver of its IOMMU, has no PASIDs.

    The kernel would accept any attach on such a device, and do nothing.
    """

    errno = _errno.EOPNOTSUPP
    template = (
        "{device!r} has no PASIDs; take one with the PCIe capability, behind an IOMMU whose "
        "driver attaches PASIDs, and see that both are on"
    )
    device: str


@define
class KernelTooOld(IoasidError):
    """ENOTTY: the kernel does not know this ioctl."""

    errno = _errno.ENOTTY
    template = "the kernel does not know {call} on {target}; attaching PASIDs needs 6.15 or later"
    call: str
    target: str


@define
class KernelRefused(InvalidRequest):
    """EINVAL: the kernel found an argument wrong.

    Everything is checked before, so it is most likely a kernel that does not know the PASID flag.
    """

    template = (
        "{call} on {target} was refused as invalid; attaching PASIDs needs 6.15 or later, "
        "a page table with the PASID flag, and a PASID below the device's width"
    )
    call: str
    target: str


@define
class ObjectInUse(Busy):
    """EBUSY: the kernel still uses it: a device of another process, or a page table attached."""

    template = "{call} on {target}: it is in use; close or detach what uses it first"
    call: str
    target: str


@define
class ObjectGone(NotFound):
    """ENOENT: the kernel has no such page table, address space or mapping any more."""

    template = "{call} on {target}: what it names is gone; look at what is attached"
    call: str
    target: str


@define
class MappingExists(AlreadyExists):
    """EEXIST: something is mapped there."""

    template = "{call} on {target}: part of it is mapped already; unmap that first"
    call: str
    target: str


@define
class DeviceGone(NotFound):
    """ENODEV: the device was unplugged, or taken from its driver."""

    errno = _errno.ENODEV
    template = "{call} on {target}: the device is gone; remove it from the host"
    call: str
    target: str


@define
class KernelExhausted(NoSpace):
    """ENOSPC: no memory, descriptors or locked pages are left, as the reason says."""

    template = "{call} on {target} failed with {reason}; raise the limit of it, or free some"
    call: str
    target: str
    reason: str


@define
class KernelFailed(IoasidError):
    """EIO: the kernel failed in a way that has no class of its own; its log may say more."""

    errno = _errno.EIO
    template = "{call} on {target} failed with {reason}; look at the kernel's log"
    call: str
    target: str
    reason: str


@define
class NotAttached(NotFound):
    """ENOENT: no device has the ID attached, so it has no address space."""

    template = "IOASID {ioasid} is attached to no device; bind it first"
    ioasid: int


@define
class IommuClosed(IoasidError):
    """ESHUTDOWN: the scope of `open_iommu` was left; open it again."""

    errno = _errno.ESHUTDOWN
    template = "/dev/iommu was closed; leave the host before open_iommu, and open both again"


_OF_CALLS: Final[dict[int, Callable[[str, str], IoasidError]]] = {
    _errno.EACCES: NotPermitted,
    _errno.EPERM: NotPermitted,
    _errno.ENOTTY: KernelTooOld,
    _errno.EINVAL: KernelRefused,
    _errno.E2BIG: KernelTooOld,
    _errno.EBUSY: ObjectInUse,
    _errno.ENOENT: ObjectGone,
    _errno.EEXIST: MappingExists,
    _errno.ENODEV: DeviceGone,
    _errno.ENXIO: DeviceGone,
}
_EXHAUSTED: Final = (_errno.ENOMEM, _errno.ENOSPC, _errno.EMFILE, _errno.ENFILE, _errno.EDQUOT)


def refusal(call: str, target: str, error: OSError) -> IoasidError:
    """Return the error for what the kernel answered to a call."""
    number = error.errno or 0
    if number == _errno.EOPNOTSUPP:
        return NoPasids(target)
    if number in _OF_CALLS:
        return _OF_CALLS[number](call, target)
    reason = _errno.errorcode.get(number, str(number))
    return (KernelExhausted if number in _EXHAUSTED else KernelFailed)(call, target, reason)
