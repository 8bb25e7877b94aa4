"""The kernel that this process runs on, as far as any machine has it."""

import os
import sys
from ctypes import Structure, c_ushort
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ioasid.linux import KernelTooOld, LinuxKernel, NotLinux
from ioasid.linux._kernel import request
from ioasid.linux._structures import Destroy

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


class WindowSize(Structure):
    """What a terminal tells of its size."""

    _fields_: ClassVar[Any] = [("rows", c_ushort), ("columns", c_ushort), ("pixels", c_ushort * 2)]


@on_linux
def test_an_ioctl_writes_into_its_argument() -> None:
    """A terminal is asked for its size: the kernel's bytes arrive in the structure."""
    import fcntl
    import termios

    leader, follower = os.openpty()
    try:
        fcntl.ioctl(follower, termios.TIOCSWINSZ, WindowSize(rows=17, columns=71))
        size = WindowSize()
        LinuxKernel().ioctl(leader, termios.TIOCGWINSZ, size)
        assert (17, 71) == (size.rows, size.columns)
    finally:
        os.close(leader)
        os.close(follower)


@on_linux
def test_a_file_is_opened_and_closed(tmp_path: Path) -> None:
    """A descriptor is for reading and writing, for this process alone, and closed once."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    kernel = LinuxKernel()
    descriptor = kernel.open(str(path))
    assert not os.get_inheritable(descriptor)
    assert 2 == os.write(descriptor, b"ab")
    with pytest.raises(KernelTooOld, match="does not know IOMMU_DESTROY on a plain file"):
        request(kernel, descriptor, Destroy.of(id=5), "a plain file")
    kernel.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.close(descriptor)
    with pytest.raises(FileNotFoundError):
        kernel.open(str(tmp_path / "none"))


def test_other_systems_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the package can be imported, and using it says why it can't be used."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotLinux, match="no /dev/iommu on darwin"):
        LinuxKernel()
