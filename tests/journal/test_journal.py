"""The journal: what it recovers to, when it makes checkpoints, and what it says."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as enumerate_threads

import pytest

from ioasid.core import Allocator, Applied, DiskFailed, FindSet, Free, NotCommitted
from ioasid.journal import JournalDamaged, JournalInUse
from ioasid.journal._journal import Journal
from ioasid.journal._store import Store
from tests.journal.disk import IOERR_FSYNC, failing_disk
from tests.journal.histories import History, do, keep, opened
from tests.journal.test_store import copied


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


def rows_in(path: Path) -> int:
    """How many rows a file has."""
    with sqlite3.connect(path) as file:
        count: int = file.execute("SELECT count(*) FROM row").fetchone()[0]
    file.close()
    return count


@pytest.mark.parametrize("at_once", [1, 3, 50])
@pytest.mark.parametrize("orderly", [False, True])
def test_it_goes_on_from_what_was_kept(path: Path, at_once: int, orderly: bool) -> None:
    """Closed in order or not, it recovers to the state that the requests led to."""
    history = History()
    with opened(path, History().core, orderly=orderly) as (journal, _):
        keep(journal, history.some(50), at_once)
    assert (0 if orderly else -(-50 // at_once)) == rows_in(path)
    with opened(path) as (journal, core):
        assert history.core.snapshot() == core.snapshot()
        assert history.core.now == core.now
        again = History(core)
        keep(journal, again.some(10))
    with opened(path) as (_, core):
        assert again.core.snapshot() == core.snapshot()


def test_every_row_is_a_state(path: Path) -> None:
    """Whenever its machine stops, it recovers to the state of the last commit."""
    history, states = History(), []
    with opened(path, every=9) as (journal, _):
        for number in range(40):
            keep(journal, history.some(1))
            states.append(history.core.snapshot())
            copied(path, f"copy-{number}")
    for number, expected in enumerate(states):
        with opened(path.with_name(f"copy-{number}")) as (_, core):
            assert expected == core.snapshot()


def test_a_new_one_begins_with_what_it_is_given(path: Path) -> None:
    """A new file has the state that it was given, and one without a checkpoint is new."""
    Store(path).close()
    given = History()
    given.some(5)
    with opened(path, given.core) as (_, core):
        assert given.core is core
    with opened(path) as (_, core):
        assert given.core.snapshot() == core.snapshot()


def folded(journal: Journal) -> None:
    """Wait for the checkpoint that is being made."""
    folding = journal._folding
    if folding is not None:
        folding[0].join(60)
        assert not folding[0].is_alive()


def test_checkpoints_are_made_meanwhile(path: Path) -> None:
    """Every so many requests a process makes one while others are kept; old rows go then."""
    history = History()
    with opened(path, every=20) as (journal, _):
        keep(journal, history.some(20))
        keep(journal, history.some(15))
        folded(journal)
        assert 15 >= do(journal, lambda: len(journal._store.rows(0)))
        found = do(journal, journal._store.checkpoint)
        assert found is not None
        assert found[1].index >= 21
        assert history.core.snapshot() == do(journal, journal.committed).snapshot()
        keep(journal, history.some(25))
        folded(journal)
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_big_one_closes_with_a_process(path: Path) -> None:
    """With much to decide again, the last checkpoint is made by a process as well."""
    history = History()
    with opened(path, orderly=True) as (journal, _):
        keep(journal, history.some(1100), 100)
    assert 0 == rows_in(path)
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_checkpoint_that_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a process there is no checkpoint; that is logged, and nothing is lost."""
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    history = History()
    with opened(path, every=10) as (journal, _):
        keep(journal, history.some(15))
        keep(journal, history.some(15))
        assert 30 == do(journal, lambda: len(journal._store.rows(0)))
    assert 3 == sum("has no new checkpoint" in each for each in caplog.messages)
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_checkpoint_on_a_disk_that_fails(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that can't be written is given up; the one before and the rows since stand."""
    history = History()
    with failing_disk() as disk:
        with opened(path, orderly=True) as (journal, _):
            keep(journal, history.some(5))
            disk.fail("sync", code=IOERR_FSYNC)
        disk.repair()
        with opened(path, every=5) as (journal, core):
            again = History(core)
            applied = again.some(5)
            disk.fails = lambda done: IOERR_FSYNC if len(done.data) > 1 << 16 else 0
            keep(journal, applied)
            folded(journal)
    assert any("has no new checkpoint" in each for each in caplog.messages)
    with opened(path) as (_, core):
        assert again.core.snapshot() == core.snapshot()


def test_what_fails_is_not_kept(path: Path) -> None:
    """After a commit that failed the state is that of the last one, and others follow it."""
    history = History()
    with failing_disk() as disk, opened(path) as (journal, _):
        keep(journal, history.some(5))
        before = history.core.snapshot()
        lost = history.some(3)
        disk.fail("sync", code=IOERR_FSYNC)
        with pytest.raises(DiskFailed):
            keep(journal, lost)
        with pytest.raises(NotCommitted):
            do(journal, journal.retry)
        core = do(journal, journal.committed)
        assert before == core.snapshot()
        disk.repair()
        do(journal, journal.retry)
        again = History(core)
        keep(journal, again.some(4))
    with opened(path) as (_, core):
        assert again.core.snapshot() == core.snapshot()


def boot(path: Path, name: str) -> None:
    """Let the file be of another boot."""
    with sqlite3.connect(path) as file:
        file.execute("UPDATE journal SET boot_id = ?", (name,))
    file.close()


def test_a_reboot_keeps_everything(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By default all stays as after a restart; the log says so once, and how to go on."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(9))
    boot(path, "another boot")
    for _ in range(2):
        with opened(path) as (_, core):
            assert history.core.snapshot() == core.snapshot()
    told = [each for each in caplog.messages if "the host was booted since" in each]
    assert 1 == len(told)
    assert "Evict the holders whose hardware is clean" in told[0]
    assert "on_reboot='forget'" in told[0]


def test_a_reboot_that_forgets(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Told so, sets and holders are forgotten once for each boot, and the counters go on."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(9))
    with opened(path, forget=True) as (_, core):
        assert history.core.snapshot() == core.snapshot()
    assert [] == [each for each in caplog.messages if "forgotten" in each]
    boot(path, "another boot")
    before = history.core.snapshot()
    for _ in range(2):
        with opened(path, forget=True) as (_, core):
            after = core.snapshot()
            assert ((), ()) == (after.sets, after.holders)
            assert before.generation == after.generation
            assert (before.next_sid, before.index) == (after.next_sid, after.index)
    assert 1 == sum("are forgotten" in each for each in caplog.messages)


@pytest.mark.parametrize("unknown", ["there", "here"])
def test_a_boot_that_nobody_knows(
    path: Path, monkeypatch: pytest.MonkeyPatch, unknown: str
) -> None:
    """Nothing is forgotten where it is not known that the host was booted, nor after that."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(9))
    with monkeypatch.context() as patched:
        if unknown == "here":
            patched.setattr("ioasid.journal._reboot.BOOT_ID", path / "none")
        boot(path, "another boot" if unknown == "here" else "")
        with opened(path, forget=True) as (_, core):
            assert history.core.snapshot() == core.snapshot()
    with opened(path, forget=True) as (_, core):
        assert history.core.snapshot() == core.snapshot()
    boot(path, "another boot")
    with opened(path, forget=True) as (_, core):
        assert () == core.snapshot().sets


def spoil_checkpoint(file: sqlite3.Connection) -> None:
    """Change the bytes of a checkpoint."""
    file.execute("UPDATE part SET data = zeroblob(length(data))")


def spoil_row(file: sqlite3.Connection) -> None:
    """Change the bytes of a row."""
    file.execute("UPDATE row SET data = zeroblob(length(data)) WHERE last = 5")


def lose_row(file: sqlite3.Connection) -> None:
    """Drop a row in the middle."""
    file.execute("DELETE FROM row WHERE last = 5")


@pytest.mark.parametrize(
    ("spoil", "place"),
    [
        (spoil_checkpoint, "the checkpoint of index 1"),
        (spoil_row, "the row up to index 5"),
        (lose_row, "the row up to index 6"),
    ],
)
def test_damage_is_refused(
    path: Path, spoil: Callable[[sqlite3.Connection], None], place: str
) -> None:
    """Whatever is not as it was written is refused with its place, and the file let go."""
    with opened(path) as (journal, _):
        keep(journal, History().some(9))
    with sqlite3.connect(path) as file:
        spoil(file)
    file.close()
    for _ in range(2):
        with pytest.raises(JournalDamaged) as caught, opened(path):
            raise AssertionError("not reached")
        assert (place, str(path)) == (caught.value.place, caught.value.path)


def test_one_at_a_time(path: Path) -> None:
    """A second one is refused while the first is open, and it goes on."""
    history = History()
    with opened(path) as (journal, _):
        with pytest.raises(JournalInUse), opened(path):
            raise AssertionError("not reached")
        keep(journal, history.some(3))
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_long_recovery_is_told_of(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says how far it is while it takes long, and from where it goes on."""
    with opened(path) as (journal, _):
        keep(journal, History().some(9))
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("ioasid.journal._journal.PATIENCE", -1.0)
    with opened(path):
        pass
    assert 9 == sum("so far" in each for each in caplog.messages)
    assert any("goes on from index 10; replayed 9 requests" in each for each in caplog.messages)


def test_jobs_are_done_in_order_and_errors_told(path: Path) -> None:
    """What a job returns or raises is told to whoever gave it, one job after the other."""
    journal = Journal(path)
    told: list[object] = []
    over = Event()
    for number in range(9):
        journal.submit(lambda number=number: 9 // (number - 3), told.append)  # type: ignore[misc]
    journal.submit(over.set, lambda _: None)
    assert over.wait(60)
    journal.close(orderly=False)
    assert [-3, -5, -9] == told[:3]
    assert ZeroDivisionError is type(told[3])
    assert 9 == len(told)


def test_a_checkpoint_that_begins_while_it_is_closed(path: Path) -> None:
    """What was submitted before, and waited for by nobody, is done; its checkpoint ends, too."""
    history = History()
    with opened(path, every=5) as (journal, _):

        def until_it_is_closed() -> None:
            while journal._jobs.qsize() < 2:
                pass

        journal.submit(until_it_is_closed, lambda _: None)
        applied = history.some(9)
        journal.submit(lambda: journal.append(applied), lambda _: None)
    assert [] == [each for each in enumerate_threads() if "checkpoint" in each.name]
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_only_what_a_journal_keeps(path: Path) -> None:
    """What is kept is decided again in any process, so what only looks is no part of it."""
    with opened(path) as (journal, _):
        keep(journal, [*History().some(2), Applied(4, 9.0, 1, FindSet("vm-1"))])
    with pytest.raises(JournalDamaged, match="none that a journal keeps"), opened(path):
        raise AssertionError("not reached")


def test_a_free_that_waits_is_kept_without(path: Path) -> None:
    """Whoever waits is gone with its process; the free is not."""
    history = History()
    with opened(path) as (journal, _):
        applied = history.some(2)
        freed = history.ask(Free(1, wait=True))
        keep(journal, [*applied, freed])
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()
        assert Allocator(64).index == 1


def test_a_process_that_hangs(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One that never answers is ended after a while, and a close in order does not wait for it."""
    monkeypatch.setattr("ioasid.journal._fold.PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr("ioasid.journal._journal.LIMIT", 0.1)
    history = History()
    with opened(path, every=10, orderly=True) as (journal, _):
        keep(journal, history.some(15))
    assert any("has no new checkpoint" in each for each in caplog.messages)
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_checkpoint_that_takes_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was not made in time has twice as long the next time, so it is made in the end."""
    monkeypatch.setattr("ioasid.journal._journal.LIMIT", 0.05)
    history = History()
    with opened(path, every=10) as (journal, _):
        for _ in range(20):
            keep(journal, history.some(11), at_once=11)
            folding = do(journal, lambda: journal._folding)
            if folding is not None:
                folding[0].join()
            if found_checkpoint(journal) > 1:
                break
        assert found_checkpoint(journal) > 1


def found_checkpoint(journal: Journal) -> int:
    """The number of the last checkpoint."""
    found = do(journal, journal._store.checkpoint)
    assert found is not None
    return found[0]


def test_no_thread_for_a_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no thread can be started there is no checkpoint; all is kept, and the next is made."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    history = History()
    with opened(path, every=10, orderly=True) as (journal, _):
        with monkeypatch.context() as patched:
            patched.setattr(Thread, "start", refuse)
            keep(journal, history.some(10), at_once=10)
        assert any("can't start new thread" in each for each in caplog.messages)
        keep(journal, history.some(10), at_once=10)
    with opened(path) as (journal, core):
        assert history.core.snapshot() == core.snapshot()
        assert 2 == found_checkpoint(journal)


@pytest.mark.parametrize("page", range(1, 8))
def test_a_page_that_is_damaged(path: Path, page: int) -> None:
    """Noise in any page is refused as damage, or does no harm; the file is let go then."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(60))
    data = bytearray(path.read_bytes())
    if len(data) <= 4096 * page:
        pytest.skip("the file has no such page")
    data[4096 * page : 4096 * (page + 1)] = bytes(range(1, 256)) * 16 + bytes(16)
    path.write_bytes(data)
    for _ in range(2):
        with suppress(JournalDamaged), opened(path) as (_, core):
            assert history.core.snapshot() == core.snapshot()


def test_a_page_that_rots_while_it_is_open(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Noise under an open journal shows at its close, which lets the file go all the same."""
    with opened(path) as (journal, _):
        keep(journal, History().some(60))
    with opened(path, orderly=True) as (journal, core):
        keep(journal, History(core).some(1))
        do(journal, lambda: journal._store._file.execute("PRAGMA cache_size = 0"))
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(range(1, 256)) * 200)
    assert any("has no new checkpoint" in each for each in caplog.messages)
    assert not journal._thread.is_alive()


@pytest.mark.parametrize("ends", ["journal", "link"])
def test_a_link(path: Path, ends: str) -> None:
    """By a link or by its name, it is the same journal, of one at a time."""
    link = path.with_name("link")
    link.symlink_to(path)
    history = History()
    with opened(link) as (journal, _):
        keep(journal, history.some(5))
        with pytest.raises(JournalInUse), opened(path):
            raise AssertionError("not reached")
    with opened(path.with_name(ends)) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_process_that_goes_elsewhere(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path means what it meant when the journal was opened."""
    monkeypatch.chdir(path.parent)
    history = History()
    with opened(Path(path.name)) as (journal, _):
        monkeypatch.chdir("/")
        keep(journal, history.some(5))
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()
