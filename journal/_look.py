"""Looking into a journal from outside, also while an allocator has it.

What is looked at is a copy, so nothing is changed, and nothing kept from anybody. In the process
that has the journal it must not be called: to close the file there would let go of its lock.
"""

import argparse
import errno
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from ioasid.core import Allocator, Statistics, TakeStatistics, WireFormat, encode
from ioasid.core._plurals import counted
from ioasid.journal._errors import JournalForeign
from ioasid.journal._reboot import boot_id
from ioasid.journal._replay import Checkpoint, Damage, Replay
from ioasid.journal._rows import Row, applied_of
from ioasid.journal._store import (
    VERSION,
    data_of,
    foreign,
    newest,
    place_in_log,
    refuse_foreign,
    rows,
)
from ioasid.journal._wal import wal_end

__all__: list[str] = []

DRIVER: Final = 0
"""The session that may always ask; a service's allocator has none of its own."""
TRIES: Final = 20
"""How often the files are copied until they stand still meanwhile."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status, which is that of `ioasid journal check`."""
    parser = argparse.ArgumentParser(
        prog="python -m ioasid.journal",
        description="Show what is in a journal, and change nothing.",
        epilog="Exit status: 0 if it is sound, 1 if it is damaged or no journal, 2 if this was "
        "called wrongly, 3 if there is no such file, 4 if it may not be read.",
    )
    parser.add_argument("file", help="the journal, and its -wal file is beside it")
    parser.add_argument("--requests", action="store_true", help="show every request, as JSON")
    parser.add_argument("--json", action="store_true", help="show all of it as JSON")
    options = parser.parse_args(arguments)
    try:
        is_sound = show(options.file, requests=options.requests, as_json=options.json)
    except OSError as error:
        print(f"{parser.prog}: {options.file}: {error.strerror}", file=sys.stderr)
        return {FileNotFoundError: 3, NotADirectoryError: 3, PermissionError: 4}.get(type(error), 1)
    except JournalForeign as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0 if is_sound else 1


def show(file: str, *, requests: bool, as_json: bool) -> bool:
    """Print what is in a journal, and return whether it is sound.

    Raises OSError for a file that can't be read, and `JournalForeign` for one that is no journal.
    """
    path = Path(file)
    found = Looked(file)
    try:
        # The log is beside the file itself, and not beside a link to it.
        with _copied(path.resolve(strict=True)) as copy:
            damage = _look(found, path, copy, requests=requests)
    except RuntimeError:
        # What Python before 3.13 says of links that go in a circle.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), file) from None
    except sqlite3.DatabaseError as error:
        damage = Damage("a page of the file", str(error))
    if damage is not None:
        found.damage = f"{damage.place}: {damage.reason}"
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        print("\n".join(_said(found)))
    return damage is None


class Looked(msgspec.Struct, omit_defaults=True):
    """What was found in a journal; from where it is damaged on, the rest is not there."""

    journal: str
    version: int | None = None
    boot: str | None = None
    """The boot of the host that wrote it; empty if that is not known."""
    same_boot: bool | None = None
    checkpoint: int | None = None
    """Its number; the next two are what it holds."""
    checkpoint_index: int | None = None
    checkpoint_bytes: int | None = None
    torn_bytes: int | None = None
    """Which are cut off when it is opened."""
    rows: int | None = None
    requests: int | None = None
    last_index: int | None = None
    last_time: float | None = None
    """Seconds, by the allocator's clock."""
    sets: int | None = None
    active: int | None = None
    free_pending: int | None = None
    sessions: int | None = None
    suspended: int | None = None
    damage: str | None = None


def _said(found: Looked) -> Iterator[str]:
    if found.version is not None:
        which = "this one" if found.same_boot else "another one than this"
        yield f"journal:     {found.journal}, version {found.version}"
        yield f"boot:        {found.boot or 'unknown'}, {which}"
        if found.checkpoint is None:
            yield "checkpoint:  none, so nobody was told of anything"
        else:
            yield (
                f"checkpoint:  {found.checkpoint}, up to index {found.checkpoint_index}, "
                f"{counted(found.checkpoint_bytes or 0, 'byte')}"
            )
    if found.torn_bytes is not None:
        yield f"torn end:    {counted(found.torn_bytes, 'byte')}, cut off when it is opened"
    if found.rows is not None:
        yield f"rows:        {found.rows}, with {counted(found.requests or 0, 'request')} since"
    if found.last_index is not None:
        yield f"last index:  {found.last_index}"
        yield f"last time:   {found.last_time:.6f} s by the allocator's clock"
        yield (
            f"state:       {counted(found.sets or 0, 'set')}, "
            f"{counted(found.active or 0, 'ID')} in use, {found.free_pending} in quarantine"
        )
        # A process that was killed wrote nothing of its end, nor of that of its clients.
        yield (
            f"holders:     {found.sessions} connected when it was last written, "
            f"{found.suspended} suspended"
        )
    yield f"damage:      {found.damage or 'none'}"


@contextmanager
def _copied(path: Path) -> Iterator[Path]:
    with TemporaryDirectory(prefix="ioasid-journal-") as folder:
        copy = Path(folder, "journal")
        for _ in range(TRIES):
            before = _state_of(path)
            shutil.copyfile(path, copy)
            log = Path(f"{path}-wal")
            if log.exists():
                shutil.copyfile(log, f"{copy}-wal")
            if _state_of(path) == before:
                break
        yield copy


def _state_of(path: Path) -> list[tuple[int, int]]:
    found = [each.stat() for each in (path, Path(f"{path}-wal")) if each.exists()]
    return [(each.st_size, each.st_mtime_ns) for each in found]


def _look(found: Looked, path: Path, copy: Path, *, requests: bool) -> Damage | None:
    log = Path(f"{copy}-wal")
    had_log = log.exists()
    end = wal_end(log.read_bytes() if had_log else b"")
    if end.damaged:
        return Damage(place_in_log(end), "it is not as it was written")
    with closing(sqlite3.connect(copy, isolation_level=None)) as file:
        try:
            refuse_foreign(file, path)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
                raise
            raise foreign(path, "not an ioasid journal") from None
        found.boot, tries = file.execute("SELECT boot_id, tries FROM journal").fetchone()
        if tries and not had_log:
            return Damage("its write-ahead log", "it is gone")
        found.version, found.same_boot = VERSION, found.boot == boot_id()
        newest_one = newest(file)
        if newest_one is None:
            return None
        found.checkpoint, checkpoint = newest_one
        found.checkpoint_index, found.checkpoint_bytes = checkpoint.index, checkpoint.size
        if end.left:
            found.torn_bytes = end.left
        try:
            core = _replayed(file, found, checkpoint, requests=requests)
        except Damage as damage:
            return damage
    figures = core.handle(DRIVER, TakeStatistics())
    found.last_index, found.last_time = core.index, core.now
    if isinstance(figures, Statistics):
        found.sets, found.active = figures.sets, figures.active
        found.free_pending, found.suspended = figures.free_pending, figures.suspended
        found.sessions = figures.sessions
    return None


def _replayed(
    file: sqlite3.Connection, found: Looked, checkpoint: Checkpoint, *, requests: bool
) -> Allocator:
    number = found.checkpoint or 0
    replay = Replay.begin(checkpoint, b"".join(data_of(file, number)))
    after, count = checkpoint.index, 0
    while read := rows(file, after, None):
        for row in read:
            replay.take(row)
            if requests:
                _show_requests(row)
        count += len(read)
        after = read[-1].last
    found.rows, found.requests = count, replay.requests
    return replay.core


def _show_requests(row: Row) -> None:
    for each in applied_of(row):
        print(encode(each, WireFormat.JSON).decode())
