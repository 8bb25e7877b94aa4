"""A disk between sqlite and the file system, which fails when a test wants it to.

It is a file layer of sqlite's own (a "VFS") on top of the usual one, made through sqlite's C
interface: whatever sqlite writes, cuts off and syncs comes through here, for real, and may be
refused with the errno of a real fault. It can also note all that is done, so that a test can tell
what a disk would hold whose power fails in between.
"""

import _sqlite3
import ctypes
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, Final

import pytest
from attrs import define, field

IOERR_WRITE: Final = sqlite3.SQLITE_IOERR | 3 << 8
IOERR_FSYNC: Final = sqlite3.SQLITE_IOERR | 4 << 8
IOERR_TRUNCATE: Final = sqlite3.SQLITE_IOERR | 6 << 8


class _Vfs(ctypes.Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", c_void_p),
        ("xDelete", c_void_p),
        ("rest", c_void_p * 14),
    )


class _Methods(ctypes.Structure):
    _fields_ = (
        ("iVersion", c_int),
        ("xClose", c_void_p),
        ("xRead", c_void_p),
        ("xWrite", c_void_p),
        ("xTruncate", c_void_p),
        ("xSync", c_void_p),
        ("rest", c_void_p * 13),
    )


class _File(ctypes.Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


@define
class Done:
    """Something that was done to a file."""

    name: str
    """The last part of its path."""
    action: str
    """ "write", "truncate", "sync" or "delete"."""
    place: int = 0
    """Where it was written, how long the file is from then on, or whether its end is synced."""
    data: bytes = b""


@define(eq=False)
class Disk:
    """What the disk does; a test sets what is to fail."""

    fails: Callable[[Done], int] = lambda _: 0
    """Is asked before anything is done: 0, or the code of sqlite to refuse it with."""
    after: Callable[[Done], int] = lambda _: 0
    """Is asked when it was done, and makes it look as if it had not been."""
    notes: list[Done] | None = None
    """Everything that was done, if it is to be noted."""
    opened: list[str] = field(factory=list)

    def fail(self, *actions: str, code: int) -> None:
        """Refuse these actions from now on."""
        self.fails = lambda done: code if done.action in actions else 0

    def fail_late(self, *actions: str, code: int) -> None:
        """Do these actions from now on, and say that they failed."""
        self.after = lambda done: code if done.action in actions else 0

    def repair(self) -> None:
        """Work again."""
        self.fails = self.after = lambda _: 0


def copied(path: Path) -> Path:
    """A copy of a journal's files, as somebody finds them whose machine stops here."""
    copy = path.with_name("copied")
    for end in ("", "-wal"):
        if Path(f"{path}{end}").exists():
            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
    return copy


@contextmanager
def failing_disk() -> Iterator[Disk]:
    """Let whatever is opened in this block be on a disk that can fail."""
    library = ctypes.CDLL(_sqlite3.__file__)
    try:
        find, register = library.sqlite3_vfs_find, library.sqlite3_vfs_register
    except AttributeError:
        pytest.skip("this Python has a sqlite without its C interface")
    find.restype, find.argtypes = c_void_p, [c_char_p]
    unregister = library.sqlite3_vfs_unregister
    register.argtypes, unregister.argtypes = [c_void_p, c_int], [c_void_p]
    usual = _Vfs.from_address(find(None))
    disk = Disk()
    layer = _Vfs.from_buffer_copy(usual)
    layer.zName = b"failing"
    kept: list[Any] = []
    by_methods: dict[int, Any] = {}

    def run(done: Done, work: Callable[[], int]) -> int:
        if code := disk.fails(done):
            return code
        code = work()
        if not code:
            if disk.notes is not None:
                disk.notes.append(done)
            code = disk.after(done)
        return code

    def methods_of(methods: Any, name: str) -> Any:
        # Those of the usual layer, with ours in between; one for each file.
        ours = _Methods.from_buffer_copy(methods.contents)
        write, cut, sync = _WRITE(ours.xWrite), _TRUNCATE(ours.xTruncate), _SYNC(ours.xSync)

        def write_(file: int, data: int, size: int, place: int) -> int:
            done = Done(name, "write", place, ctypes.string_at(data, size))
            return run(done, lambda: int(write(file, data, size, place)))

        def cut_(file: int, size: int) -> int:
            return run(Done(name, "truncate", size), lambda: int(cut(file, size)))

        def sync_(file: int, flags: int) -> int:
            return run(Done(name, "sync"), lambda: int(sync(file, flags)))

        calls = (_WRITE(write_), _TRUNCATE(cut_), _SYNC(sync_))
        kept.extend((calls, write, cut, sync, ours))
        for field_, call in zip(("xWrite", "xTruncate", "xSync"), calls, strict=True):
            setattr(ours, field_, ctypes.cast(call, c_void_p))
        return ours

    opening = _OPEN(usual.xOpen)

    def open_(vfs: int, path: int | None, file: int, flags: int, out: int) -> int:
        # The path by its address: the layer below keeps that, for the names of its other files.
        code = int(opening(vfs, path, file, flags, out))
        given = _File.from_address(file)
        if not code and path is not None and given.methods:
            name = Path(ctypes.string_at(path).decode()).name
            disk.opened.append(name)
            made = methods_of(given.methods, name)
            by_methods[ctypes.addressof(made)] = made
            given.methods = ctypes.pointer(made)
        return code

    deleting = _DELETE(usual.xDelete)

    def delete_(vfs: int, path: bytes, synced: int) -> int:
        done = Done(Path(path.decode()).name, "delete", synced)
        return run(done, lambda: int(deleting(vfs, path, synced)))

    ours, deletes = _OPEN(open_), _DELETE(delete_)
    layer.xOpen, layer.xDelete = (ctypes.cast(each, c_void_p) for each in (ours, deletes))
    register(ctypes.byref(layer), 1)
    try:
        yield disk
    finally:
        unregister(ctypes.byref(layer))
        register(find(b"unix"), 1)
