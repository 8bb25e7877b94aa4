"""The store: a journal's file, which is a database of sqlite.

It belongs to the thread that opened it. What is written is on the disk when a method returns; when
one raises, nothing of it is in the file. A store that is opened keeps every other one out until it
is closed, or its process is gone.

The write-ahead log is written over from its beginning each time that it was moved into the
database. Its end is where the last commit ended. What a commit that failed left there is cut off:
nobody was told of it, and it must not come back.
"""

import ctypes
import logging
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from ioasid.core import DiskFailed, DiskFull, DiskReadOnly, IoasidError, NotCommitted
from ioasid.core._plurals import counted
from ioasid.journal._errors import (
    JournalDamaged,
    JournalFolderMissing,
    JournalForbidden,
    JournalForeign,
    JournalInUse,
    JournalUnusable,
)
from ioasid.journal._identity import Identity, asked_for
from ioasid.journal._replay import Checkpoint, Damage, digest_of, parts_of
from ioasid.journal._rows import Row
from ioasid.journal._wal import LogEnd, WalEnd, wal_end

__all__: list[str] = []

logger = logging.getLogger("ioasid")

T = TypeVar("T")

APPLICATION: Final = 0x494F4153
"""What sqlite keeps in the head of the file: whose it is."""
VERSION: Final = 1
LOG_SIZE: Final = 2 << 20
"""Bytes of the write-ahead log from which on it is moved into the database."""
SLICE: Final = 500
"""Rows that are read, or dropped, at once."""

SCHEMA: Final = f"""
BEGIN;
CREATE TABLE journal (boot_id TEXT NOT NULL, tries INTEGER NOT NULL);
CREATE TABLE checkpoint (
    number INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    seal BLOB NOT NULL,
    size INTEGER NOT NULL,
    digest BLOB NOT NULL
);
CREATE TABLE part (
    checkpoint INTEGER NOT NULL,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (checkpoint, number)
);
CREATE TABLE row (last INTEGER PRIMARY KEY, seal BLOB NOT NULL, data BLOB NOT NULL);
INSERT INTO journal VALUES ('', 0);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""


TRY: Final = "UPDATE journal SET tries = tries + 1"
"""Writes something. The tries are 0 in a file that was closed, and so needs no log beside it."""


class Store:
    """An open file of a journal. Raises `JournalInUse` and the like."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # As sqlite names it: behind links, and wherever the process goes.
        self._home_path = Path(os.path.realpath(path))
        self._log_path = log_of(self._home_path)
        self._undo: Callable[[], object] | None = None
        """What takes back something that was refused, and could not be taken back yet."""
        self._home: tuple[Identity, Identity] | None = None
        """Which files are open, as soon as that is known."""
        self._look_at_files()
        try:
            self._file = sqlite3.connect(self._home_path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise _unusable(path, error) from None
        try:
            self._open()
        except BaseException as error:
            self._close_file()
            if isinstance(error, sqlite3.Error):
                raise self._refusal(error) from None
            if isinstance(error, OSError):
                raise _unusable(path, error) from None
            raise

    def _look_at_files(self) -> None:
        # Before sqlite does, to which a file that is empty is a new one, and a log nobody's.
        home, log = _found(self._home_path), _found(self._log_path)
        self._has_log = log is not None
        if home is not None and stat.S_ISREG(home.st_mode) and home.st_nlink > 1:
            raise JournalUnusable(
                str(self.path),
                f"it has {home.st_nlink} names (hard links), and a -wal file belongs to one of "
                "them; remove the others",
            )
        if log is not None and log.st_size and (home is None or not home.st_size):
            raise JournalDamaged(
                str(self.path), "the file", "it is empty or gone, and its write-ahead log is there"
            )

    def _open(self) -> None:
        file = self._file
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        refuse_foreign(file, self.path)
        self._look_at_log()
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = FULL")
        file.execute("PRAGMA wal_autocheckpoint = 0")
        file.execute(f"PRAGMA journal_size_limit = {LOG_SIZE}")
        if not file.execute("SELECT 1 FROM sqlite_schema").fetchone():
            file.executescript(SCHEMA)
        elif not self._has_log and file.execute("SELECT tries FROM journal").fetchone()[0]:
            raise JournalDamaged(
                str(self.path),
                "its write-ahead log",
                f"it is gone; put {self._log_path.name} back beside it",
            )
        # What is not to be read any more goes: a torn end, and what a longer log left.
        self._move_log("TRUNCATE")
        # For a log file to be there, and its end known.
        self._has_log = True
        file.execute(TRY)
        _sync_folder(self._home_path)
        # From here on the file itself says that there is a log.
        self._move_log()
        file.execute(TRY)
        self._home_now, self._log_now = asked_for(self._home_path), asked_for(self._log_path)
        self._home = self._home_now(), self._log_now()
        self.boot_id: str = file.execute("SELECT boot_id FROM journal").fetchone()[0]
        self._log = LogEnd(self._log_path)

    def _look_at_log(self) -> None:
        # From here on nobody else writes it, and sqlite has not written it.
        try:
            log = self._log_path.read_bytes()
        except FileNotFoundError:
            return
        end = wal_end(log)
        if end.damaged:
            # sqlite takes the log away when it closes.
            self._file.close()
            self._log_path.write_bytes(log)
            raise JournalDamaged(str(self.path), place_in_log(end), "it is not as it was written")
        if end.left:
            logger.warning(
                "the journal %s has an unfinished write at its end, %s; nobody was told of "
                "it, and it is cut off",
                self.path,
                counted(end.left, "byte"),
            )

    def _refusal(self, error: sqlite3.Error) -> Exception:
        match _code(error):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return JournalInUse(str(self.path))
            case sqlite3.SQLITE_NOTADB:
                return foreign(self.path, "not an ioasid journal")
            case sqlite3.SQLITE_CORRUPT:
                return JournalDamaged(str(self.path), "a page of the file", str(error))
            case sqlite3.SQLITE_FULL:
                return self._failure(error)
            case _:
                return _unusable(self.path, error)

    # -- reading ------------------------------------------------------------------------------

    def checkpoint(self) -> tuple[int, Checkpoint] | None:
        """Return the last whole checkpoint and its number, `None` in a new file."""
        return self._read(lambda: newest(self._file))

    def part(self, number: int, part: int) -> bytes:
        """Return a part of a checkpoint's bytes, nothing behind the last one."""
        return self._read(lambda: part_of(self._file, number, part))

    def data_of(self, number: int) -> Iterator[bytes]:
        """Return the bytes of a checkpoint, in parts."""
        return iter(partial(next, (self.part(number, each) for each in count())), b"")

    def rows(self, after: int, up_to: int | None = None) -> list[Row]:
        """Return the next rows behind an index, some of them."""
        return self._read(lambda: rows(self._file, after, up_to))

    def _read(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except sqlite3.Error as error:
            raise self._refusal(error) from None

    # -- writing ------------------------------------------------------------------------------

    def append(self, row: Row) -> None:
        """Keep a row. Raises `NotCommitted`."""

        def work() -> None:
            self._file.execute("INSERT INTO row VALUES (?, ?, ?)", (row.last, row.seal, row.data))

        def undo() -> None:
            self._file.execute("DELETE FROM row WHERE last = ?", (row.last,))

        self._write(work, undo)
        if self._log.size > LOG_SIZE:
            self._move_log_or_later()

    def set_boot_id(self, boot_id: str) -> None:
        """Keep the ID of the host's boot. Raises `NotCommitted`."""

        def note(each: str) -> None:
            self._file.execute("UPDATE journal SET boot_id = ?", (each,))

        self._write(partial(note, boot_id), partial(note, self.boot_id))
        self.boot_id = boot_id

    def retry(self) -> None:
        """Write something, to see whether it can be. Raises `NotCommitted`."""
        self._write(lambda: self._file.execute(TRY))

    def begin_checkpoint(self) -> int:
        """Return the number of a checkpoint to be written; what is left of another one goes."""
        found = self.checkpoint()
        number = 1 if found is None else found[0] + 1
        self._write(lambda: self._file.execute("DELETE FROM part WHERE checkpoint >= ?", (number,)))
        return number

    def add_part(self, number: int, part: int, data: bytes) -> None:
        """Write a part of a checkpoint that begins to count when it is finished."""
        row = (number, part, data)
        self._write(lambda: self._file.execute("INSERT INTO part VALUES (?, ?, ?)", row))
        if self._log.size > LOG_SIZE:
            self._move_log_or_later()

    def finish_checkpoint(self, number: int, checkpoint: Checkpoint) -> None:
        """Let a checkpoint count, when it is on the disk as it was meant to be.

        Raises `Damage` if it is not; `NotCommitted`.
        """
        if digest_of(self.data_of(number)) != checkpoint.digest:
            raise Damage(f"the checkpoint of index {checkpoint.index}", "it was not written so")
        row = (number, checkpoint.index, checkpoint.seal, checkpoint.size, checkpoint.digest)
        self._write(
            lambda: self._file.execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?)", row)
        )

    def replace(self, checkpoint: Checkpoint, data: bytes, boot_id: str) -> None:
        """Write a checkpoint that stands for all there is, in one step. Raises `NotCommitted`."""
        number = self.begin_checkpoint()

        def work() -> None:
            execute = self._file.execute
            execute("BEGIN IMMEDIATE")
            for place, part in enumerate(parts_of(data)):
                execute("INSERT INTO part VALUES (?, ?, ?)", (number, place, part))
            row = (number, checkpoint.index, checkpoint.seal, checkpoint.size, checkpoint.digest)
            execute("INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?)", row)
            execute("UPDATE journal SET boot_id = ?", (boot_id,))
            execute("COMMIT")

        self._write(work)
        self.boot_id = boot_id

    def drop_replaced(self) -> bool:
        """Drop some of what the last checkpoint replaces; tells whether there is more."""
        found = self.checkpoint()
        if found is None:
            return False
        number, checkpoint = found
        execute = self._file.execute
        statement = "DELETE FROM row WHERE last IN (SELECT last FROM row WHERE last <= ? LIMIT ?)"
        dropped = [0]

        def work() -> None:
            execute("BEGIN IMMEDIATE")
            execute("DELETE FROM part WHERE checkpoint < ?", (number,))
            execute("DELETE FROM checkpoint WHERE number < ?", (number,))
            dropped[0] = execute(statement, (checkpoint.index, SLICE)).rowcount
            execute("COMMIT")

        self._write(work)
        if self._log.size > LOG_SIZE:
            self._move_log_or_later()
        return dropped[0] == SLICE

    def _write(self, work: Callable[[], object], undo: Callable[[], object] = bool) -> None:
        self._settle()
        self._commit(work)
        try:
            if self._home == (self._home_now(), self._log_now()):
                return
            reason = "its file is not the one that was opened"
        except OSError as error:
            reason = _said(error)
        # It was written, to a file that nobody finds any more. A checkpoint may stay: it says the
        # same again.
        self._undo = undo
        with suppress(NotCommitted):
            self._settle()
        raise DiskFailed(str(self.path), reason)

    def _settle(self) -> None:
        # What was refused goes before anything is kept behind it.
        try:
            self._log.settle()
        except OSError as error:
            raise DiskFailed(str(self.path), _said(error)) from None
        if self._undo is not None:
            self._commit(self._undo)
            self._undo = None

    def _commit(self, work: Callable[[], object]) -> None:
        # That the log's end can't be read or written is told of to who writes next.
        try:
            work()
        except BaseException as error:
            with suppress(sqlite3.Error):
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
            with suppress(OSError):
                self._log.cut_off()
            if isinstance(error, sqlite3.Error):
                raise self._failure(error) from None
            raise
        with suppress(OSError):
            self._log.follow()

    def _failure(self, error: sqlite3.Error) -> NotCommitted:
        match _code(error):
            case sqlite3.SQLITE_FULL:
                return DiskFull(str(self.path), str(error))
            case sqlite3.SQLITE_READONLY:
                return DiskReadOnly(str(self.path), str(error))
            case _:
                return DiskFailed(str(self.path), str(error))

    def _move_log(self, how: str = "RESTART") -> None:
        busy, *_ = self._file.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
        if busy:
            raise sqlite3.OperationalError("the log could not be moved into the database")

    def _move_log_or_later(self) -> None:
        # What is in the log is committed, wherever it stands.
        try:
            self._move_log()
        except sqlite3.Error as error:
            logger.warning("the journal %s keeps its long log for now: %s", self.path, error)

    def leave(self) -> None:
        """Never touch the file again, for it is the parent's: in a child of a fork."""
        # To close it, as the end of the child would, moves and removes the log under the parent.
        # There is no way to let go of a connection without that, so it is kept for good.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file))

    def close(self) -> None:
        """Let the file go."""
        with suppress(NotCommitted):
            self._write(lambda: self._file.execute("UPDATE journal SET tries = 0"))
            self._has_log = False
        with suppress(OSError):
            self._log.close()
        self._close_file()

    def _close_file(self) -> None:
        self._file.close()
        if self._has_log:
            # sqlite takes it away when all of it is in the file, and that says that there is one.
            with suppress(OSError):
                if self._home is None or self._home[0] == self._home_now():
                    self._log_path.touch()


def refuse_foreign(file: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalForeign` for the file of somebody else, or of another version."""
    application = file.execute("PRAGMA application_id").fetchone()[0]
    version = file.execute("PRAGMA user_version").fetchone()[0]
    if application != APPLICATION:
        if application or file.execute("SELECT 1 FROM sqlite_schema").fetchone():
            raise foreign(path, "a database of another program")
    elif version != VERSION:
        raise foreign(path, f"a journal of version {version}")


def foreign(path: Path, found: str) -> JournalForeign:
    """Return the error of a file that is something else."""
    return JournalForeign(str(path), found, f"a journal of version {VERSION}")


def log_of(path: Path) -> Path:
    """Return where the write-ahead log of a file is, which is no link."""
    return Path(f"{path}-wal")


def place_in_log(end: WalEnd) -> str:
    """Return where a log is damaged."""
    return f"frame {end.frames + 1} of its write-ahead log"


def newest(file: sqlite3.Connection) -> tuple[int, Checkpoint] | None:
    """Return the last whole checkpoint and its number, `None` if there is none."""
    statement = "SELECT number, last, seal, size, digest FROM checkpoint ORDER BY number DESC"
    row = file.execute(statement).fetchone()
    return None if row is None else (row[0], Checkpoint(*row[1:]))


def part_of(file: sqlite3.Connection, number: int, part: int) -> bytes:
    """Return a part of a checkpoint's bytes, nothing behind the last one."""
    statement = "SELECT data FROM part WHERE checkpoint = ? AND number = ?"
    row = file.execute(statement, (number, part)).fetchone()
    return b"" if row is None else bytes(row[0])


def data_of(file: sqlite3.Connection, number: int) -> Iterator[bytes]:
    """Return the bytes of a checkpoint, in parts."""
    return iter(partial(next, (part_of(file, number, each) for each in count())), b"")


def rows(file: sqlite3.Connection, after: int, up_to: int | None) -> list[Row]:
    """Return the next rows behind an index, some of them."""
    statement = (
        "SELECT last, seal, data FROM row WHERE last > ? AND last <= ? ORDER BY last LIMIT ?"
    )
    last = 2**63 - 1 if up_to is None else up_to
    return [Row(*each) for each in file.execute(statement, (after, last, SLICE))]


def _code(error: sqlite3.Error) -> int:
    # Without what tells which way it failed; an error of the module itself has none.
    code: Any = getattr(error, "sqlite_errorcode", 0)
    return int(code) & 0xFF


def _unusable(path: Path, error: sqlite3.Error | OSError) -> IoasidError:
    # sqlite does not say more than that it could not open it. The file itself is not opened here:
    # closing it would let go of the lock of another allocator in this process.
    home = Path(os.path.realpath(path))
    # Beside a file that is there, others are made.
    places = [home.parent]
    try:
        home.parent.stat()
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(home.stat().st_mode):
                return JournalUnusable(str(path), "it is a folder")
            places.append(home)
    except (FileNotFoundError, NotADirectoryError):
        return JournalFolderMissing(str(path))
    except PermissionError:
        return JournalForbidden(str(path))
    except OSError as found:
        return JournalUnusable(str(path), _said(found))
    if not all(os.access(each, os.R_OK | os.W_OK) for each in places):
        return JournalForbidden(str(path))
    return JournalUnusable(str(path), _said(error))


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _found(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        # Whoever opens it says what is wrong.
        return None


def _sync_folder(path: Path) -> None:
    # The name of a new file is on the disk when its folder is.
    if not hasattr(os, "O_DIRECTORY"):
        return
    folder = os.open(path.parent, os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
