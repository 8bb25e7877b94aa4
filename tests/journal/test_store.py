"""The store: what is on the disk when something fails, is torn or is somebody else's."""

import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ioasid.core import Allocator, DiskFailed, DiskFull, DiskReadOnly, IoasidError, NotCommitted
from ioasid.journal import (
    JournalDamaged,
    JournalFolderMissing,
    JournalForbidden,
    JournalForeign,
    JournalInUse,
    JournalUnusable,
)
from ioasid.journal._replay import Damage, checkpoint_of, parts_of
from ioasid.journal._rows import FIRST_SEAL, Row, row_of
from ioasid.journal._store import LOG_SIZE, Store
from tests.journal.disk import (
    IOERR_FSYNC,
    IOERR_TRUNCATE,
    IOERR_WRITE,
    Disk,
    Done,
    failing_disk,
)
from tests.journal.histories import History


def rows_of(count: int) -> list[Row]:
    """Rows, one request each."""
    seal, rows = FIRST_SEAL, []
    for each in History().some(count):
        rows.append(row_of(seal, [each]))
        seal = rows[-1].seal
    return rows


ROWS = rows_of(8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


def begun(path: Path) -> Store:
    """A new store with its first checkpoint."""
    store = Store(path)
    store.replace(*checkpoint_of(Allocator(64), FIRST_SEAL), "boot")
    return store


def log_of(path: Path) -> Path:
    """The write-ahead log."""
    return Path(f"{path}-wal")


def copied(path: Path, name: str = "copy") -> Path:
    """What somebody finds whose machine stops here."""
    target = path.with_name(name)
    for each in (path, log_of(path)):
        if each.exists():
            shutil.copyfile(each, target.with_name(each.name.replace(path.name, name, 1)))
    return target


def found(path: Path) -> list[Row]:
    """The rows in a file."""
    store = Store(path)
    rows = store.rows(0)
    store.close()
    return rows


def test_what_is_written_is_there_again(path: Path) -> None:
    """A checkpoint, rows and the boot ID are read as they were written."""
    checkpoint, data = checkpoint_of(Allocator(64), FIRST_SEAL)
    store = begun(path)
    for row in ROWS:
        store.append(row)
    store.close()
    again = Store(path)
    assert (1, checkpoint) == again.checkpoint()
    assert data == b"".join(again.data_of(1))
    assert (ROWS, "boot") == (again.rows(0), again.boot_id)
    assert ROWS[3:5] == again.rows(ROWS[2].last, ROWS[4].last)
    again.set_boot_id("other")
    again.close()
    assert not log_of(path).exists()
    last = Store(path)
    assert "other" == last.boot_id
    last.close()


def test_every_row_survives_without_a_close(path: Path) -> None:
    """Whatever the moment, a copy of the files has every row that was appended."""
    store = begun(path)
    for count, row in enumerate(ROWS, start=1):
        store.append(row)
        assert ROWS[:count] == found(copied(path, f"copy-{count}"))
    store.close()


def test_a_torn_end_is_cut_off(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut at every byte of the last write, a journal has all before it, and warns."""
    store = begun(path)
    for row in ROWS[:4]:
        store.append(row)
    before = log_of(path).stat().st_size
    store.append(ROWS[4])
    whole = log_of(path).read_bytes()
    for size in [*range(before, len(whole), 97), len(whole) - 1]:
        caplog.clear()
        copy = copied(path)
        log_of(copy).write_bytes(whole[:size])
        assert ROWS[:4] == found(copy)
        warned = any("unfinished write at its end" in each for each in caplog.messages)
        assert (size > before) == warned
        copy.unlink()
    store.close()


def test_a_log_that_is_damaged_is_refused(path: Path) -> None:
    """A frame that rots before the end is named, and the log stays as it was found."""
    store = begun(path)
    for row in ROWS:
        store.append(row)
    copy = copied(path)
    store.close()
    log = bytearray(log_of(copy).read_bytes())
    log[-3 * 4096] ^= 1
    log_of(copy).write_bytes(log)
    for _ in range(2):
        with pytest.raises(JournalDamaged) as caught:
            Store(copy)
        assert caught.value.place.startswith("frame ")
        assert caught.value.place.endswith(" of its write-ahead log")
        assert log == log_of(copy).read_bytes()


@pytest.mark.parametrize("page", [0, 1, 2, 3, 4])
def test_a_page_that_is_damaged(path: Path, page: int) -> None:
    """A page full of noise is never taken for what was written."""
    store = begun(path)
    for row in ROWS:
        store.append(row)
    store.close()
    data = bytearray(path.read_bytes())
    first = 4096 * page + 100 * (page == 0)
    data[first : 4096 * (page + 1)] = bytes(range(1, 256)) * 17
    path.write_bytes(data[: 4096 * (page + 1)] + data[4096 * (page + 1) :])
    with pytest.raises((IoasidError, sqlite3.DatabaseError)):  # noqa: PT012
        again = Store(path)
        try:
            rows = again.rows(0)
            found_checkpoint = again.checkpoint()
            assert found_checkpoint is not None
            assert ROWS == rows
            assert b"".join(again.data_of(1))
        finally:
            again.close()
        raise JournalUnusable(str(path), "the page was not used")


@pytest.mark.parametrize("content", [b"", b"\0" * 10])
def test_a_file_that_is_no_journal(path: Path, content: bytes) -> None:
    """Text, and the database of another program, are refused and not touched."""
    path.write_bytes(b"This is a text, and longer than the head of a database. " * 99 + content)
    before = path.read_bytes()
    with pytest.raises(JournalForeign, match="not an ioasid journal"):
        Store(path)
    assert before == path.read_bytes()
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(JournalForeign, match="another program"):
        Store(path)
    assert before == path.read_bytes()


def test_a_version_of_the_future(path: Path) -> None:
    """A journal of a version that is not known is refused, and says which."""
    begun(path).close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 2")
    file.close()
    with pytest.raises(JournalForeign) as caught:
        Store(path)
    facts = (caught.value.found, caught.value.known)
    assert ("a journal of version 2", "a journal of version 1") == facts


def test_one_at_a_time(path: Path) -> None:
    """While it is open nobody opens it, in this process or another; then anybody."""
    store = begun(path)
    with pytest.raises(JournalInUse):
        Store(path)
    program = (
        "import sys; from pathlib import Path\n"
        "from ioasid.journal._store import Store\n"
        "try: Store(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    arguments = [sys.executable, "-c", program, str(path)]
    other = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "JournalInUse\n" == other.stdout
    store.append(ROWS[0])
    store.close()
    assert ROWS[:1] == found(path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.parent, "it is a folder"),
        (lambda path: path.with_name("x" * 300), "File name too long"),
    ],
)
def test_a_place_that_can_t_be(path: Path, make: Callable[[Path], Path], reason: str) -> None:
    """Where no file can be, the reason is given."""
    with pytest.raises(JournalUnusable) as caught:
        Store(make(path))
    assert reason == caught.value.reason


@pytest.mark.parametrize("place", ["no/folder/journal", "file/journal", "link"])
def test_a_folder_that_is_not_there(place: str, tmp_path: Path) -> None:
    """Where no folder is, or something else that is none, there is no place for a journal."""
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("no/folder/journal")
    with pytest.raises(JournalFolderMissing) as caught:
        Store(tmp_path / place)
    assert str(tmp_path / place) == caught.value.path
    assert {"file", "link"} == {each.name for each in tmp_path.iterdir()}


@pytest.mark.parametrize("files", range(4))
def test_an_opening_that_fails_for_want_of_files(path: Path, files: int) -> None:
    """Wherever the opening of what a crash left fails, the next one finds every row."""
    store = begun(path)
    for row in ROWS:
        store.append(row)
    copy = copied(path)
    store.close()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with copy.open() as probe:
        free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + files, limit[1]))
    try:
        with suppress(JournalUnusable):
            Store(copy).close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert ROWS == found(copy)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_file_that_may_not_be_written(path: Path) -> None:
    """Without permission for the file or for its folder, the journal is refused as such."""
    begun(path).close()
    for place, mode in ((path, 0o400), (path, 0), (path.parent, 0o500), (path.parent, 0)):
        before = place.stat().st_mode
        place.chmod(mode)
        try:
            with pytest.raises(JournalForbidden):
                Store(path)
        finally:
            place.chmod(before)
    Store(path).close()


@pytest.fixture(params=["write", "sync"])
def failing(request: pytest.FixtureRequest, path: Path) -> Any:
    """A store with rows on a disk that can be made to fail, and how to fail it."""
    with failing_disk() as disk:
        store = begun(path)
        for row in ROWS[:3]:
            store.append(row)
        code = IOERR_WRITE if request.param == "write" else IOERR_FSYNC
        yield store, disk, lambda: disk.fail(request.param, code=code)
        disk.repair()
        store.close()


Failing = tuple[Store, Disk, Callable[[], None]]


def test_what_failed_is_not_there(failing: Failing, path: Path) -> None:
    """A row that could not be written or synced is in no copy of the file, then or later."""
    store, disk, fail = failing
    fail()
    for _ in range(3):
        with pytest.raises(DiskFailed, match="look after the disk"):
            store.append(ROWS[3])
        copy = copied(path, "at-once")
        with pytest.raises(DiskFailed):
            store.retry()
        disk.repair()
        assert ROWS[:3] == found(copy) == found(copied(path)) == store.rows(0)
        fail()
    disk.repair()
    store.retry()
    store.append(ROWS[3])
    assert ROWS[:4] == found(copied(path, "later")) == store.rows(0)


def test_a_full_disk(path: Path) -> None:
    """Without room a row is refused; with room it is taken."""
    store = begun(path)
    with failing_disk():
        pass
    limit = "PRAGMA max_page_count"
    full = store._file.execute("PRAGMA page_count").fetchone()[0]
    store._file.execute(f"{limit} = {full}")
    big = Row(9, FIRST_SEAL, b"x" * 100_000)
    with pytest.raises(DiskFull, match="make room"):
        store.append(big)
    store.append(ROWS[0])
    assert ROWS[:1] == found(copied(path))
    store._file.execute(f"{limit} = 1000000")
    store.append(big)
    assert [ROWS[0], big] == found(copied(path))
    store.close()


def test_a_disk_that_is_read_only(path: Path) -> None:
    """What may not be written is refused so."""
    store = begun(path)
    store._file.execute("PRAGMA query_only = 1")
    with pytest.raises(DiskReadOnly, match="make it writable"):
        store.append(ROWS[0])
    store._file.execute("PRAGMA query_only = 0")
    store.append(ROWS[0])
    store.close()
    assert ROWS[:1] == found(path)


def test_a_folder_that_goes_away(path: Path) -> None:
    """What is written to a file that nobody finds any more is refused; when it is back, taken."""
    folder, away = path.parent / "here", path.parent / "away"
    folder.mkdir()
    store = begun(folder / "journal")
    store.append(ROWS[0])
    folder.rename(away)
    with pytest.raises(DiskFailed, match="No such file"):
        store.append(ROWS[1])
    with pytest.raises(DiskFailed, match="No such file"):
        store.set_boot_id("another boot")
    folder.mkdir()
    shutil.copyfile(away / "journal", folder / "journal")
    shutil.copyfile(away / "journal-wal", folder / "journal-wal")
    with pytest.raises(DiskFailed, match="not the one that was opened"):
        store.append(ROWS[1])
    assert ROWS[:1] == store.rows(0)
    shutil.rmtree(folder)
    away.rename(folder)
    store.append(ROWS[1])
    store.close()
    assert ROWS[:2] == found(folder / "journal")
    again = Store(folder / "journal")
    assert "boot" == again.boot_id
    again.close()


def test_a_log_that_can_t_be_moved(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A long log stays when it can't be moved into the file; what is in it is committed."""
    with failing_disk() as disk:
        store = begun(path)

        def fails(done: Done) -> int:
            return IOERR_WRITE if done.name == "journal" else 0

        disk.fails = fails
        seal, rows, last = FIRST_SEAL, [], 1
        while log_of(path).stat().st_size <= LOG_SIZE:
            last += 1
            rows.append(Row(last, seal, bytes(100_000)))
            store.append(rows[-1])
        assert any("keeps its long log for now" in each for each in caplog.messages)
        disk.repair()
        assert rows == found(copied(path))
        for more in (1, 2):
            rows.append(Row(last + more, seal, b""))
            store.append(rows[-1])
        assert store._log.size < LOG_SIZE
        store.close()
    assert rows == found(path)


def test_nothing_of_a_failed_commit_comes_back_if_it_can_t_be_cut_off(path: Path) -> None:
    """What stands in the log uncut is overwritten by the next row."""
    with failing_disk() as disk:
        store = begun(path)
        store.append(ROWS[0])
        disk.fail("sync", "truncate", code=IOERR_TRUNCATE)
        with pytest.raises(NotCommitted):
            store.append(ROWS[1])
        disk.repair()
        other = row_of(ROWS[0].seal, History().some(2)[1:])
        store.append(other)
        assert [ROWS[0], other] == found(copied(path))
        store.close()


@contextmanager
def log_out_of_reach(store: Store) -> Iterator[None]:
    """Let the log be neither read nor written but by sqlite."""
    log = store._log._file
    kept, folder = os.dup(log), os.open(store.path.parent, os.O_RDONLY)
    os.dup2(folder, log)
    try:
        yield
    finally:
        os.dup2(kept, log)
        os.close(kept)
        os.close(folder)


needs_folders = pytest.mark.skipif(
    sys.platform == "win32", reason="needs folders that can be opened"
)


@needs_folders
def test_an_end_of_the_log_that_can_t_be_read(path: Path) -> None:
    """What was committed stays, and what fails later is cut off behind it and not before."""
    with failing_disk() as disk:
        store = begun(path)
        with log_out_of_reach(store):
            store.append(ROWS[0])
            for _ in range(2):
                with pytest.raises(DiskFailed, match="look after the disk"):
                    store.append(ROWS[1])
        store.append(ROWS[1])
        disk.fail("sync", code=IOERR_FSYNC)
        with pytest.raises(DiskFailed):
            store.append(ROWS[2])
        disk.repair()
        assert ROWS[:2] == found(copied(path))
        store.close()


@needs_folders
def test_nothing_is_written_behind_what_can_t_be_cut_off(path: Path) -> None:
    """One commit that failed is left at most; it is cut off before anything else is kept."""
    big = Row(9, FIRST_SEAL, b"x" * 100_000)
    with failing_disk() as disk:
        store = begun(path)
        store.append(ROWS[0])
        disk.fail("sync", code=IOERR_FSYNC)
        with log_out_of_reach(store):
            for row in (big, *ROWS[1:4]):
                with pytest.raises(DiskFailed):
                    store.append(row)
        disk.repair()
        # Two of them would be taken for damage.
        assert ROWS[0] in found(copied(path, "at-once"))
        store.retry()
        assert ROWS[:1] == found(copied(path, "settled")) == store.rows(0)
        store.append(ROWS[1])
        assert ROWS[:2] == found(copied(path))
        store.close()


def test_what_can_t_be_taken_back_at_once(path: Path) -> None:
    """It is taken back before anything else is kept, when its folder and the disk are back."""
    folder, away = path.parent / "here", path.parent / "away"
    folder.mkdir()
    with failing_disk() as disk:
        store = begun(folder / "journal")
        store.append(ROWS[0])
        folder.rename(away)
        syncs = []

        def fails_later(done: Done) -> int:
            syncs.append(done)
            return IOERR_FSYNC if len(syncs) > 1 else 0

        disk.fails = lambda done: fails_later(done) if done.action == "sync" else 0
        with pytest.raises(DiskFailed, match="No such file"):
            store.append(ROWS[1])
        assert 2 == len(syncs)
        disk.repair()
        away.rename(folder)
        store.retry()
        assert ROWS[:1] == found(copied(folder / "journal")) == store.rows(0)
        store.append(ROWS[1])
        assert ROWS[:2] == found(copied(folder / "journal"))
        store.close()


def test_a_step_that_ends_half_way(path: Path) -> None:
    """Whatever ended it, what is kept next is no part of it."""
    store = begun(path)
    checkpoint, _ = checkpoint_of(Allocator(64), FIRST_SEAL)
    nothing: Any = None
    with pytest.raises(TypeError):
        store.replace(checkpoint, nothing, "other")
    store.append(ROWS[0])
    assert ROWS[:1] == found(copied(path))
    store.close()


def test_a_checkpoint_counts_when_it_is_finished(path: Path) -> None:
    """Its parts count for nothing before; what it replaces goes after it, some at a time."""
    store = begun(path)
    for row in ROWS:
        store.append(row)
    history = History()
    history.some(6)
    checkpoint, data = checkpoint_of(history.core, ROWS[5].seal)
    number = store.begin_checkpoint()
    for place, part in enumerate(parts_of(data)):
        store.add_part(number, place, part)
    assert 1 == store.checkpoint()[0]  # type: ignore[index]
    store.finish_checkpoint(number, checkpoint)
    assert (number, checkpoint) == store.checkpoint()
    assert ROWS == store.rows(0)
    assert not store.drop_replaced()
    assert ROWS[6:] == store.rows(0)
    assert b"" == store.part(1, 0)
    store.close()


def test_a_checkpoint_that_was_not_written_as_meant(path: Path) -> None:
    """A part that is missing or another shows before the checkpoint counts."""
    store = begun(path)
    checkpoint, data = checkpoint_of(Allocator(99), FIRST_SEAL)
    number = store.begin_checkpoint()
    store.add_part(number, 0, data[:-1])
    with pytest.raises(Damage, match="not written so"):
        store.finish_checkpoint(number, checkpoint)
    assert number == store.begin_checkpoint()
    assert b"" == store.part(number, 0)
    assert 1 == store.checkpoint()[0]  # type: ignore[index]
    store.close()


def test_many_rows_go_in_slices(path: Path) -> None:
    """More than a slice of rows takes several steps, so that commits have their turn between."""
    store = begun(path)
    store._file.execute("BEGIN")
    for last in range(2, 1203):
        store._file.execute("INSERT INTO row VALUES (?, ?, ?)", (last, FIRST_SEAL, b""))
    store._file.execute("COMMIT")
    history = History()
    history.core._tables.index = 1202
    store.replace(*checkpoint_of(history.core, FIRST_SEAL), "boot")
    assert [True, True, False] == [store.drop_replaced() for _ in range(3)]
    assert [] == store.rows(0)
    store.close()


def test_nothing_is_logged_of_a_file_in_order(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that was closed, or whose process was killed between commits, has no torn end."""
    caplog.set_level(logging.WARNING)
    store = begun(path)
    store.append(ROWS[0])
    assert ROWS[:1] == found(copied(path))
    store.close()
    assert ROWS[:1] == found(path)
    assert [] == caplog.messages


def test_a_row_of_many_megabytes(path: Path) -> None:
    """However much is carried out at once, it is kept whole; a row behind it, too."""
    store = begun(path)
    huge = Row(ROWS[0].last, ROWS[0].seal, bytes(range(256)) * (32 << 12))
    store.append(huge)
    store.append(ROWS[1])
    assert [huge, ROWS[1]] == found(copied(path))
    store.close()
    assert [huge, ROWS[1]] == found(path)
