"""`open_iommu`: the kernel's PASID tables for the length of an `async with`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from anyio import CancelScope
from attrs import define, field

from ioasid.actors import Iommu
from ioasid.core import InvalidArgument
from ioasid.linux._kernel import Kernel, LinuxKernel
from ioasid.linux._run import Run, in_a_thread
from ioasid.linux._tables import LinuxTables

__all__ = ["LinuxIommu", "open_iommu"]


@define(eq=False)
class LinuxIommu(Iommu):
    """What the IOMMU driver has programmed in the kernel; made by `open_iommu`."""

    hardware: LinuxTables = field(kw_only=True)
    """The kernel's tables, and the address spaces to map memory into."""


@asynccontextmanager
async def open_iommu(
    devices: Mapping[str, str] | None = None,
    *,
    kernel: Kernel | None = None,
    run: Run | None = None,
) -> AsyncIterator[LinuxIommu]:
    """Open `/dev/iommu`; gives what `ioasid.actors.open_host(iommu=...)` takes.

    `devices` has the path of every device by its name on the host, "/dev/vfio/devices/vfio0" for
    "dsa0"; a name that is not there is that of a file in `/dev/vfio/devices`. A device is opened
    when the host adds it, and closed when it is removed. `kernel` is another kernel, for tests,
    and `run` another way to run what blocks than a worker thread.

    Leaving the scope closes everything, which detaches whatever is still attached; leave the host
    first. Raises `NotLinux`, `NoIommufd`, `NotPermitted`, `InvalidArgument`, and what the kernel
    refuses with; then nothing is left open.
    """
    paths = dict(check_paths(devices))
    tables = LinuxTables(
        LinuxKernel() if kernel is None else kernel, paths, in_a_thread() if run is None else run
    )
    try:
        await tables.start()
        yield LinuxIommu(hardware=tables)
    finally:
        with CancelScope(shield=True):
            await tables.stop()


def check_paths(devices: object) -> Mapping[str, str]:
    """Return the paths of devices, if they can be that."""
    if devices is None:
        return {}
    if not isinstance(devices, Mapping) or not all(
        type(part) is str and part for item in devices.items() for part in item
    ):
        raise InvalidArgument.of("devices", devices, "a mapping of names to paths")
    return devices
