"""What others do to a journal: files that go, come from elsewhere or have two names, and forks."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ioasid.journal import JournalDamaged, JournalInUse, JournalUnusable
from ioasid.journal._look import main as look
from ioasid.journal._store import log_of
from tests.journal.histories import History, keep, opened
from tests.journal.test_store import copied


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


@pytest.fixture
def stopped(path: Path) -> Path:
    """The files of a journal whose machine stopped."""
    with opened(path) as (journal, _):
        keep(journal, History().some(9))
        return copied(path)


def empty(path: Path) -> None:
    """Leave nothing in a file."""
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [Path.unlink, empty])
def test_a_file_that_is_gone_and_its_log_not(stopped: Path, spoil: Callable[[Path], None]) -> None:
    """It is no new journal, and what is left stays as it is."""
    spoil(stopped)
    log = log_of(stopped).read_bytes()
    for _ in range(2):
        with pytest.raises(JournalDamaged, match="empty or gone"), opened(stopped):
            raise AssertionError("not reached")
        assert log == log_of(stopped).read_bytes()


def test_a_log_that_is_gone(stopped: Path) -> None:
    """The file says that there was one: without what was in it nothing is guessed."""
    away = stopped.with_name("away")
    log_of(stopped).rename(away)
    assert 1 == look([str(stopped)])
    for _ in range(2):
        with pytest.raises(JournalDamaged, match="put copy-wal back"), opened(stopped):
            raise AssertionError("not reached")
    away.rename(log_of(stopped))
    with opened(stopped) as (_, core):
        assert 10 == core.index


def test_a_copy_of_a_closed_one_is_whole(path: Path) -> None:
    """Closed, it is the one file, wherever that is taken; the last process may have failed."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(9))
    for number in range(2):
        assert not log_of(path).exists()
        copy = path.with_name(f"copy-{number}")
        shutil.copyfile(path, copy)
        with opened(copy) as (_, core):
            assert history.core.snapshot() == core.snapshot()
        with opened(path):
            pass


def test_two_names(path: Path) -> None:
    """By hard links it is refused by either name until there is one, before a log is left out."""
    history = History()
    with opened(path) as (journal, _):
        keep(journal, history.some(3))
    other = path.with_name("other")
    other.hardlink_to(path)
    for each in (path, other):
        with pytest.raises(JournalUnusable, match="2 names"), opened(each):
            raise AssertionError("not reached")
    other.unlink()
    with opened(path) as (_, core):
        assert history.core.snapshot() == core.snapshot()


def test_a_log_that_can_t_be_read(stopped: Path) -> None:
    """What is in the place of the log is refused for what it is."""
    log_of(stopped).unlink()
    log_of(stopped).mkdir()
    with pytest.raises(JournalUnusable), opened(stopped):
        raise AssertionError("not reached")


OWNER = """
import os, sys
from pathlib import Path
from tests.journal.histories import History, keep, opened
with opened(Path(sys.argv[1])) as (journal, core):
    print("open", flush=True)
    sys.stdin.readline()
    os._exit(0)
"""


def owner(path: Path, program: str = OWNER) -> "subprocess.Popen[str]":
    """Start a process that opens the journal."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_an_owner_that_stands_still(path: Path) -> None:
    """Stopped, it has the journal still; killed, it has it no more."""
    with owner(path) as process:
        assert process.stdout is not None
        assert "open\n" == process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(JournalInUse), opened(path):
            raise AssertionError("not reached")
        process.kill()
        process.wait()
        with opened(path) as (_, core):
            assert 1 == core.index


def test_a_race_to_open(path: Path) -> None:
    """Of several that begin at once, one has it, and the others are told so."""
    processes = [owner(path) for _ in range(4)]
    said = []
    for each in processes:
        assert each.stdout is not None
        said.append(each.stdout.readline())
    for each in processes:
        _, errors = each.communicate("\n")
        said.append(errors.strip().rpartition("\n")[2])
    assert 1 == said[:4].count("open\n")
    assert 3 == sum("JournalInUse" in each or "EBUSY" in each for each in said[4:]), said


FORKING = """
import os, sys
from pathlib import Path
from ioasid.journal import JournalInUse
from tests.journal.histories import History, do, keep, opened
history = History()
with opened(Path(sys.argv[1])) as (journal, _):
    keep(journal, history.some(3))
    child = os.fork()
    if child == 0:
        try:
            do(journal, journal.retry)
        except JournalInUse:
            print("refused in the child", flush=True)
        # Nothing is left of it, as at the end of a process.
        journal._store._file = None
        sys.exit()
    keep(journal, history.some(3))
    assert os.waitpid(child, 0)[1] == 0
    print("the child ended", flush=True)
    sys.stdin.readline()
    keep(journal, history.some(3))
    print("kept", history.core.index, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_leaves_it_alone(path: Path) -> None:
    """An agent that forks keeps its journal; the child is refused, and its end takes nothing."""
    with owner(path, FORKING) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert "refused in the child\n" == process.stdout.readline()
        assert "the child ended\n" == process.stdout.readline()
        assert log_of(path).exists()
        with pytest.raises(JournalInUse), opened(path):
            raise AssertionError("not reached")
        process.stdin.write("\n")
        process.stdin.flush()
        assert "kept 10\n" == process.stdout.readline()
        process.wait()
    with opened(path) as (_, core):
        assert 10 == core.index
