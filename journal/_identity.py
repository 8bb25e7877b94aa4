"""Which file a path names, by its device and number.

`os.stat` also asks when the file was changed. Linux from 6.13 on notes the next change of a file
that was asked so to the nanosecond, and on the disk (multigrain timestamps): a file that is written
and synced takes half as long again each time. So it is asked for its number alone.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from struct import Struct as Layout
from typing import Any, Final, TypeAlias

__all__: list[str] = []

FROM_HERE: Final = -100
"""A path that is not absolute begins where the process is (AT_FDCWD)."""
NUMBER: Final = 0x100
"""What is asked for: the number of the file (STATX_INO); its device is always told."""
FOUND: Final = Layout("32xQ96xII112x")
"""What is answered: among others the number, and the device in two halves."""


Identity: TypeAlias = tuple[int, ...]
"""What tells a file from every other."""


def asked_by_stat(path: Path) -> Callable[[], Identity]:
    """Do as `asked_for` where the system has no `statx`, or refuses it."""

    def ask() -> Identity:
        found = os.stat(path)  # noqa: PTH116 - it comes with every commit
        return found.st_ino, found.st_dev

    return ask


def asked_for(path: Path) -> Callable[[], Identity]:
    """Return what tells which file is at a path, each time that it is called; it raises OSError."""
    if STATX is None:
        return asked_by_stat(path)
    name, found = os.fsencode(path), ctypes.create_string_buffer(FOUND.size)

    def ask() -> Identity:
        if STATX(FROM_HERE, name, 0, NUMBER, found):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
        identity: Identity = FOUND.unpack_from(found)
        return identity

    return ask


def _statx() -> Any:
    try:
        statx: Any = ctypes.CDLL(None, use_errno=True).statx
    except (AttributeError, OSError, TypeError):
        return None
    # A sandbox may refuse a call that it does not know, whatever the file.
    refused = statx(FROM_HERE, b"/", 0, NUMBER, ctypes.create_string_buffer(FOUND.size))
    return None if refused else statx


STATX: Final = _statx()
