"""The kernel as this package reaches it: open, close and ioctl, and nothing else."""

import os
import sys
from ctypes import Structure
from typing import Final, Protocol

from ioasid.linux._errors import NotLinux, refusal
from ioasid.linux._structures import Ioctl

__all__ = ["Kernel", "LinuxKernel"]

IOMMU: Final = "/dev/iommu"
DEVICES: Final = "/dev/vfio/devices"
"""Where VFIO's devices are, each a file."""


class Kernel(Protocol):
    """What is asked of a kernel; a call that fails raises OSError. One call at a time."""

    def open(self, path: str) -> int:
        """Open a file for reading and writing; returns its descriptor, which no child inherits."""
        ...

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        ...

    def ioctl(self, descriptor: int, request: int, argument: Structure) -> None:
        """Make an ioctl, which reads and writes its argument in place."""
        ...


class LinuxKernel:
    """The kernel that this process runs on. Raises `NotLinux` on any other."""

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise NotLinux(sys.platform)

    def open(self, path: str) -> int:
        """Open a file for reading and writing; returns its descriptor, which no child inherits."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def ioctl(self, descriptor: int, request: int, argument: Structure) -> None:
        """Make an ioctl, which reads and writes its argument in place."""
        from fcntl import ioctl

        ioctl(descriptor, request, argument, True)  # type: ignore[call-overload,unused-ignore]


def request(kernel: Kernel, descriptor: int, argument: Ioctl, target: str) -> None:
    """Make an ioctl on something that a message can name; raises the kernel's refusal, typed."""
    try:
        kernel.ioctl(descriptor, argument.number, argument)
    except OSError as error:
        raise refusal(argument.call, target, error) from error
