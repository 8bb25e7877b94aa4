"""What VFIO and the IOMMU driver are asked when a VM moves to another host."""

from ioasid.core import Message, SetExport

__all__ = ["AwaitBind", "ExportVm", "FreezeVm", "ResumeGuestPasid", "RunVm", "VmExport"]


class FreezeVm(Message, frozen=True):
    """Stop all that the VM has running; answers `None` when no CPU or device runs it any more.

    Binds that are under way come first, and what is allocated, bound or unbound from then on is
    refused. A second time is fine. Errors: those of `FreezeSet`, and `SetNotFrozen` if the VM runs
    again meanwhile.
    """


class ExportVm(Message, frozen=True):
    """Ask for all that the next host of a frozen VM has to know; answers a `VmExport`.

    Errors: those of `ExportSet`.
    """


class RunVm(Message, frozen=True):
    """Let a frozen VM go on, or one that came from another host begin; answers `None`.

    The IOMMU's entries come first, then the bindings, and the answer when CPUs and devices have
    taken them up, but for those that a device has yet to stop. One that runs goes on. Errors: those
    of `ThawSet` and `ActivateSet`, `UnknownDevice`, `PasidTooWide`.
    """


class VmExport(Message, frozen=True):
    """A frozen VM: its set, and which of its IDs are bound for which device.

    `bound` are triples, ascending: a device, an ID of the source, and the guest's PASID for it.
    """

    set: SetExport
    bound: tuple[tuple[str, int, int], ...]


class ResumeGuestPasid(Message, frozen=True):
    """Program an ID of a set that is about to run into a device's PASID table.

    Its binding begins with the set, and not with this. Answers whether it is programmed: if not, it
    is when what an earlier binding of the ID left there is torn down. A second time is fine.
    Errors: `UnknownDevice`, `PasidTooWide`, and those of `Find` and `Get`.
    """

    device: str
    ioasid: int
    sid: int
    gpasid: int
    vm: str


class AwaitBind(Message, frozen=True):
    """Wait until CPUs and devices have taken up the binding of a resumed ID; answers `None`."""

    ioasid: int
