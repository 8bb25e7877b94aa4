"""The errors of the device actors, part of the one tree under `ioasid.core.IoasidError`."""

import errno as _errno

from attrs import define

from ioasid.core import (
    AllocatorClosed,
    AlreadyExists,
    Busy,
    InvalidRequest,
    IoasidError,
    NotFound,
)

__all__ = [
    "ActorCrashed",
    "ActorStopped",
    "AlreadyProgrammed",
    "AsksItself",
    "ContextStopping",
    "DeviceExists",
    "DmaFault",
    "NotBound",
    "NotProgrammed",
    "PasidFault",
    "PasidTooWide",
    "PasidZero",
    "RequestFailed",
    "UnbindPending",
    "UnknownDevice",
    "UnknownProcess",
    "UnknownTransfer",
    "VmClosed",
    "VmExists",
    "WrongThread",
]


@define
class ActorCrashed(IoasidError):
    """EIO: the actor crashed on this request; what was done of it is what it shows.

    It restarts, unless it crashed too often, and can be asked again.
    """

    errno = _errno.EIO
    template = "{actor} crashed while it had the request; look at the state, then ask again"
    actor: str


@define
class RequestFailed(IoasidError):
    """EIO: handling this request raised what no request should; the actor goes on.

    A bug in the actor; `__cause__` is what was raised, `error` the first 1,000 characters of it.
    The request may be half done: look at the state. Others are not concerned.
    """

    errno = _errno.EIO
    template = "{actor} failed on the request with {error}; look at the cause, then at the state"
    actor: str
    error: str


@define
class AsksItself(IoasidError):
    """EDEADLK: a handler asked its own actor, which would wait for itself; the caller's mistake.

    The actor goes on with the handler.
    """

    errno = _errno.EDEADLK
    template = "{actor} would wait for itself; call what handles the message, or tell it"
    actor: str


@define
class WrongThread(IoasidError):
    """EPERM: something that belongs to one event loop was called from another thread.

    The caller's mistake; nothing has happened, and the object is as it was.
    """

    errno = _errno.EPERM
    template = (
        "{what} was called from another thread than its own; "
        "use tell_from_thread, or anyio.from_thread to run the call on its event loop"
    )
    what: str


@define
class PasidTooWide(IoasidError):
    """EOVERFLOW: the ID has more bits than the device's PASIDs; nothing was programmed.

    An allocation that is told the device, or given a `max`, fits.
    """

    errno = _errno.EOVERFLOW
    template = (
        "IOASID {ioasid} has more bits than a PASID of {device!r} ({pasid_bits}); "
        "allocate one for this device"
    )
    device: str
    ioasid: int
    pasid_bits: int


@define
class PasidZero(InvalidRequest):
    """EINVAL: PASID 0 means the device itself, its DMA without a PASID; nothing was programmed."""

    template = "PASID 0 of {device!r} is the device itself; keep 0 reserved, and bind another ID"
    device: str


@define
class ActorStopped(IoasidError):
    """ESHUTDOWN: the actor does not serve: it never ran, was stopped, or gave up after crashes.

    It can't be asked. One that is gone does not come back: start another.
    """

    errno = _errno.ESHUTDOWN
    template = "{actor} {reason}; only an actor that runs can be asked"
    actor: str
    reason: str


@define
class UnknownDevice(NotFound):
    """ENOENT: the host has no device of this name."""

    template = "there is no device {device!r}; add it with add_device"
    device: str


@define
class DeviceExists(AlreadyExists):
    """EEXIST: the host has a device of this name."""

    template = "device {device!r} was added already; use it"
    device: str


@define
class VmExists(AlreadyExists):
    """EEXIST: a VM of this name runs, or is still being cleared away."""

    template = "VM {vm!r} runs or is being cleared away; wait for it to be gone"
    vm: str


@define
class VmClosed(NotFound):
    """ENOENT: the VM was closed or crashed; its door takes no more requests."""

    template = "VM {vm!r} is closed; start another"
    vm: str


@define
class NotBound(NotFound):
    """ENOENT: the ID is not bound to the device (any more); an unbind finds nothing to do."""

    template = "IOASID {ioasid} is not bound to {device!r}; it was unbound or freed, or never bound"
    device: str
    ioasid: int


@define
class AlreadyProgrammed(AlreadyExists):
    """EEXIST: the device has an entry or context of this ID already."""

    template = "{device!r} has IOASID {ioasid} already; unbind or stop it first"
    device: str
    ioasid: int


@define
class UnbindPending(Busy):
    """EBUSY: the last unbind of the ID is on its way through the tiers."""

    template = "IOASID {ioasid} is being unbound; bind it again when that is done"
    ioasid: int


@define
class NotProgrammed(NotFound):
    """ENOENT: the device has no context for the ID."""

    template = "{device!r} has no context for IOASID {ioasid}; program it first"
    device: str
    ioasid: int


@define
class ContextStopping(Busy):
    """EBUSY: the context is being drained; it takes no more work."""

    template = "{device!r} is draining IOASID {ioasid}; it takes no more work"
    device: str
    ioasid: int


@define
class UnknownTransfer(NotFound):
    """ENOENT: no transfer of this number is in flight."""

    template = "{device!r} has no transfer {transfer} in flight; it ended or was never started"
    device: str
    transfer: int


@define
class UnknownProcess(NotFound):
    """ENOENT: the process has no device bound."""

    template = "process {process} has no device bound; bind one with sva_bind"
    process: int


@define
class PasidFault(IoasidError):
    """EFAULT: a guest submitted work with a PASID that KVM has no translation for."""

    errno = _errno.EFAULT
    template = "guest PASID {gpasid} of {vm!r} is not mapped; bind it first"
    vm: str
    gpasid: int


@define
class DmaFault(IoasidError):
    """EFAULT: the IOMMU has no entry for a DMA request; it was stopped there and wrote nothing."""

    errno = _errno.EFAULT
    template = "DMA of {device!r} with PASID {ioasid} faulted, no PASID table entry; bind it first"
    device: str
    ioasid: int


def alone(error: Exception) -> Exception:
    """Return what a task group wrapped; of several, the one that means the allocator's end."""
    while isinstance(error, ExceptionGroup):
        closed = error.subgroup(AllocatorClosed)
        if closed is None and len(error.exceptions) > 1:
            break
        error = (closed or error).exceptions[0]
    return error
