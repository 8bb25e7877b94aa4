"""Looking into a journal: what is shown of a sound one, and of one that is not."""

import json
import sqlite3
from pathlib import Path

import pytest

from ioasid.core import Allocator
from ioasid.journal._look import main
from ioasid.journal._store import Store
from tests.journal.histories import History, keep, opened
from tests.journal.test_journal import lose_row
from tests.journal.test_store import copied


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with nine requests behind its checkpoint."""
    path = tmp_path / "journal"
    with opened(path, Allocator(64)) as (journal, _):
        keep(journal, History().some(9), at_once=3)
    return path


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, str]]:
    """The exit status, and what is shown, by what it is called."""
    capsys.readouterr()
    status = main(arguments)
    lines = capsys.readouterr().out.splitlines()
    pairs = [line.partition(": ") for line in lines]
    return status, {name: text.strip() for name, _, text in pairs}


def test_a_sound_journal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Version, boot, checkpoint, rows, last index and time, and the state; nothing changes."""
    before = path.read_bytes()
    status, found = shown(capsys, str(path))
    assert (0, "none") == (status, found["damage"])
    assert f"{path}, version 1" == found["journal"]
    assert found["boot"].endswith(", this one")
    assert found["checkpoint"].startswith("1, up to index 1, ")
    assert ("3, with 9 requests since", "10") == (found["rows"], found["last index"])
    assert "9.000000 s by the allocator's clock" == found["last time"]
    assert "1 set, 1 ID in use, 0 in quarantine" == found["state"]
    assert "1 connected when it was last written, 0 suspended" == found["holders"]
    assert before == path.read_bytes()
    assert ["journal"] == [each.name for each in path.parent.iterdir()]


def test_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For scripts it is one document, which says as much as was found."""
    assert 0 == main(["--json", str(path)])
    found = json.loads(capsys.readouterr().out)
    assert (str(path), True, 9, 10) == (
        *(found["journal"], found["same_boot"]),
        *(found["requests"], found["last_index"]),
    )
    assert "damage" not in found
    with sqlite3.connect(path) as file:
        file.execute("UPDATE row SET data = zeroblob(9) WHERE last = 7")
    file.close()
    assert 1 == main(["--json", str(path)])
    found = json.loads(capsys.readouterr().out)
    assert found["damage"].startswith("the row up to index 7: its seal")
    assert "last_index" not in found


def test_a_link(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind a link there is what the file has, its write-ahead log included."""
    link = path.with_name("link")
    link.symlink_to(path)
    with opened(path) as (journal, core):
        keep(journal, History(core).some(2))
        assert "12" == shown(capsys, str(link))[1]["last index"]


def test_its_requests(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for, every request is shown with its index, time and session, as JSON."""
    assert 0 == main([str(path), "--requests"])
    lines = [each for each in capsys.readouterr().out.splitlines() if each.startswith("{")]
    assert 9 == len(lines)
    assert '{"type":"Applied","index":2,"time":1.0,"session":1,' in lines[0]


def test_a_damaged_journal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The place of the damage is shown, and the exit status says that there is some."""
    with sqlite3.connect(path) as file:
        file.execute("UPDATE row SET data = zeroblob(9) WHERE last = 7")
    file.close()
    status, found = shown(capsys, str(path))
    assert 1 == status
    assert found["damage"].startswith("the row up to index 7: its seal")
    with sqlite3.connect(path) as file:
        lose_row(file)
        file.execute("UPDATE journal SET boot_id = 'other'")
        file.execute("UPDATE checkpoint SET size = 7")
    file.close()
    status, found = shown(capsys, str(path))
    assert found["boot"] == "other, another one than this"
    assert found["damage"].startswith("the checkpoint of index 1: its digest")


def test_a_torn_and_a_damaged_log(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is behind the last commit is told; a frame that rots before it is damage."""
    with opened(path) as (journal, core):
        keep(journal, History(core).some(6))
        copy = copied(path)
    log = Path(f"{copy}-wal")
    whole = log.read_bytes()
    log.write_bytes(whole[:-50])
    status, found = shown(capsys, str(copy))
    assert (0, "none") == (status, found["damage"])
    assert found["torn end"].startswith("4,070 bytes")
    assert "15" == found["last index"]
    spoilt = bytearray(whole)
    spoilt[-3 * 4096] ^= 1
    log.write_bytes(spoilt)
    status, found = shown(capsys, str(copy))
    assert 1 == status
    assert "of its write-ahead log: it is not as it was written" in found["damage"]


def test_no_journal(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is none, or is not there, is refused; one without a checkpoint is new."""
    other, circle = path.with_name("other"), path.with_name("circle")
    other.write_text("a text that is longer than the head of a database " * 99)
    circle.symlink_to(circle)
    nowhere = path.with_name("nowhere")
    for each, status in ((other, 1), (nowhere, 3), (other / "nowhere", 3), (circle, 1)):
        assert status == main([str(each)])
        assert str(each) in capsys.readouterr().err
    new = path.with_name("new")
    Store(new).close()
    assert 0 == main([str(new)])
    assert "nobody was told of anything" in capsys.readouterr().out
