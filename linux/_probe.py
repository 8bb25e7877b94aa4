"""What this machine can do, and what it lacks, in plain words."""

import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import frozen

from ioasid.core import IoasidError
from ioasid.linux._device import bind_device, open_device
from ioasid.linux._errors import NoPasids, NotLinux
from ioasid.linux._iommufd import Iommufd, close
from ioasid.linux._kernel import DEVICES, Kernel, LinuxKernel

__all__ = ["Probe", "ProbedDevice", "probe"]

OLDEST: Final = (6, 15)
"""The first kernel that attaches PASIDs for user space."""
NO_DEVICE: Final = (
    f"no device is bound to a VFIO driver ({DEVICES} is empty); bind one that has PASIDs, which "
    "`lspci -vv` shows as the capability Process Address Space ID"
)


@frozen
class ProbedDevice:
    """A VFIO device, as far as this user may look at it."""

    path: str
    """Its file."""
    address: str
    """Where it is in the machine, "0000:6a:01.0" for instance; empty if that is not known."""
    pasid_bits: int | None
    """The width of its PASIDs, 0 for none; `None` if it could not be asked."""
    problem: str
    """What keeps it from being used; empty if nothing does."""

    def __str__(self) -> str:
        """Say it in a line."""
        where = f" ({self.address})" if self.address else ""
        return f"{self.path}{where}: {self.problem or f'PASIDs of {self.pasid_bits} bits'}"


@frozen
class Probe:
    """What `probe` found."""

    release: str
    """The kernel's."""
    devices: tuple[ProbedDevice, ...]
    """What is bound to a VFIO driver."""
    missing: tuple[str, ...]
    """What is missing, and how to get it; empty if PASIDs can be attached."""

    @property
    def ready(self) -> bool:
        """Whether PASIDs can be attached to one device at least."""
        return not self.missing

    def __str__(self) -> str:
        """Say it in plain words, a line each."""
        lines = [f"kernel {self.release}", *map(str, self.devices)]
        lines += [f"missing: {each}" for each in self.missing]
        if self.ready:
            lines.append("PASIDs can be attached here.")
        return "\n".join(lines)


def probe(
    *,
    kernel: Kernel | None = None,
    release: str | None = None,
    paths: Iterable[str] | None = None,
) -> Probe:
    """Look at what this machine can do; raises nothing for what it lacks.

    Every VFIO device that nobody has open is opened for a moment, to be asked for its width, which
    may reset it. `kernel`, `release` (such as "6.18.1") and `paths` of devices are those of this
    machine, unless told. It blocks.
    """
    release = platform.release() if release is None else release
    missing: list[str] = []
    try:
        kernel = LinuxKernel() if kernel is None else kernel
    except NotLinux as error:
        return Probe(release, (), (error.message,))
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        missing.append(f"the kernel is {release}; attaching PASIDs needs 6.15 or later")
    paths = sorted(_paths() if paths is None else paths)
    try:
        iommufd = Iommufd(kernel)
    except IoasidError as error:
        missing.append(error.message)
        devices = tuple(ProbedDevice(path, _address(path), None, "not asked") for path in paths)
    else:
        try:
            devices = tuple(_ask(kernel, path, iommufd) for path in paths)
        finally:
            iommufd.close()
        if devices and all(each.problem for each in devices):
            missing.append(f"none of the devices can be used: {devices[0].problem}")
    if not devices:
        missing.append(NO_DEVICE)
    return Probe(release, devices, tuple(missing))


def _ask(kernel: Kernel, path: str, iommufd: Iommufd) -> ProbedDevice:
    bits: int | None = None
    problem = ""
    try:
        descriptor = open_device(kernel, path)
        try:
            number = bind_device(kernel, descriptor, path, iommufd)
            bits = iommufd.pasid_bits(number, path)
        finally:
            close(kernel, descriptor, path)
    except IoasidError as error:
        problem = error.message
    else:
        problem = "" if bits else NoPasids(path).message
    return ProbedDevice(path, _address(path), bits, problem)


def _paths() -> list[str]:
    try:
        return [f"{DEVICES}/{name}" for name in os.listdir(DEVICES)]  # noqa: PTH208 - names alone
    except OSError:
        return []


def _address(path: str) -> str:
    link = Path("/sys/class/vfio-dev", Path(path).name, "device")
    return link.resolve().name if link.exists() else ""
