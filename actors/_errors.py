"""The errors of the device actors, part of the one tree under `ioasid.core.IoasidError`."""

import errno as _errno
from typing import ClassVar

from attrs import define

from ioasid.core import AlreadyExists, Busy, IoasidError, NotFound

__all__ = [
    "ActorCrashed",
    "ActorStopped",
    "AlreadyProgrammed",
    "ContextStopping",
    "DeviceExists",
    "DmaFault",
    "NotBound",
    "NotProgrammed",
    "PasidFault",
    "UnbindPending",
    "UnknownDevice",
    "UnknownProcess",
    "UnknownTransfer",
    "VmClosed",
    "VmExists",
]


@define
class ActorCrashed(IoasidError):
    """EIO: the actor crashed on this request; what was done of it is what it shows.

    It restarts, unless it crashed too often, and can be asked again.
    """

    errno: ClassVar[int] = _errno.EIO
    actor: str

    @property
    def message(self) -> str:
        """The actor that crashed."""
        return f"{self.actor} crashed while it had the request; look at the state, then ask again"


@define
class ActorStopped(IoasidError):
    """ESHUTDOWN: the actor is gone for good: stopped, or given up after too many crashes."""

    errno: ClassVar[int] = _errno.ESHUTDOWN
    actor: str
    reason: str

    @property
    def message(self) -> str:
        """The actor and why it is gone."""
        return f"{self.actor} {self.reason}"


@define
class UnknownDevice(NotFound):
    """ENOENT: the host has no device of this name."""

    device: str

    @property
    def message(self) -> str:
        """The device that does not exist."""
        return f"there is no device {self.device!r}; add it with add_device"


@define
class DeviceExists(AlreadyExists):
    """EEXIST: the host has a device of this name."""

    device: str

    @property
    def message(self) -> str:
        """The device that is there."""
        return f"device {self.device!r} was added already"


@define
class VmExists(AlreadyExists):
    """EEXIST: a VM of this name runs, or is still being cleared away."""

    vm: str

    @property
    def message(self) -> str:
        """The VM that is there."""
        return f"VM {self.vm!r} runs or is being cleared away; wait for it to be gone"


@define
class VmClosed(NotFound):
    """ENOENT: the VM was closed or crashed; its door takes no more requests."""

    vm: str

    @property
    def message(self) -> str:
        """The VM that is closed."""
        return f"VM {self.vm!r} is closed; start another"


@define
class NotBound(NotFound):
    """ENOENT: the ID is not bound to the device (any more); an unbind finds nothing to do."""

    device: str
    ioasid: int

    @property
    def message(self) -> str:
        """The device and the ID it has no entry of."""
        return f"IOASID {self.ioasid} is not bound to {self.device!r}, or was freed"


@define
class AlreadyProgrammed(AlreadyExists):
    """EEXIST: the device has an entry or context of this ID already."""

    device: str
    ioasid: int

    @property
    def message(self) -> str:
        """The device and the ID it has already."""
        return f"{self.device!r} has IOASID {self.ioasid} already; unbind or stop it first"


@define
class UnbindPending(Busy):
    """EBUSY: the last unbind of the ID is on its way through the tiers."""

    ioasid: int

    @property
    def message(self) -> str:
        """The ID that is being unbound."""
        return f"IOASID {self.ioasid} is being unbound; bind it again when that is done"


@define
class NotProgrammed(NotFound):
    """ENOENT: the device has no context for the ID."""

    device: str
    ioasid: int

    @property
    def message(self) -> str:
        """The device and the ID it has no context of."""
        return f"{self.device!r} has no context for IOASID {self.ioasid}; program it first"


@define
class ContextStopping(Busy):
    """EBUSY: the context is being drained; it takes no more work."""

    device: str
    ioasid: int

    @property
    def message(self) -> str:
        """The device and the ID that is being drained."""
        return f"{self.device!r} is draining IOASID {self.ioasid}; it takes no more work"


@define
class UnknownTransfer(NotFound):
    """ENOENT: no transfer of this number is in flight."""

    device: str
    transfer: int

    @property
    def message(self) -> str:
        """The device and the transfer that is not in flight."""
        return f"{self.device!r} has no transfer {self.transfer} in flight"


@define
class UnknownProcess(NotFound):
    """ENOENT: the process has no device bound."""

    process: int

    @property
    def message(self) -> str:
        """The process without a device."""
        return f"process {self.process} has no device bound; bind one with sva_bind"


@define
class PasidFault(IoasidError):
    """EFAULT: a guest submitted work with a PASID that KVM has no translation for."""

    errno: ClassVar[int] = _errno.EFAULT
    vm: str
    gpasid: int

    @property
    def message(self) -> str:
        """The VM and the PASID that maps to nothing."""
        return f"guest PASID {self.gpasid} of {self.vm!r} is not mapped; bind it first"


@define
class DmaFault(IoasidError):
    """EFAULT: the IOMMU has no entry for a DMA request; it was stopped there and wrote nothing."""

    errno: ClassVar[int] = _errno.EFAULT
    device: str
    ioasid: int

    @property
    def message(self) -> str:
        """The device and the ID without an entry."""
        return f"DMA of {self.device!r} with PASID {self.ioasid} faulted: no PASID table entry"
