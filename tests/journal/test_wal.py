"""The end of sqlite's write-ahead log: whole, torn, or damaged before its end."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest

from ioasid.journal._wal import FRAME, HEADER, LogEnd, WalEnd, wal_end

PAGE = 512
SIZE = FRAME.size + PAGE


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log of five commits, one frame each."""
    path = tmp_path_factory.mktemp("wal") / "db"
    file = sqlite3.connect(path, isolation_level=None)
    file.execute(f"PRAGMA page_size = {PAGE}")
    file.execute("CREATE TABLE t (a)")
    file.execute("PRAGMA locking_mode = EXCLUSIVE")
    file.execute("PRAGMA journal_mode = WAL")
    for number in range(5):
        file.execute("INSERT INTO t VALUES (?)", (number,))
    data = Path(f"{path}-wal").read_bytes()
    file.close()
    assert HEADER.size + 5 * SIZE == len(data)
    return data


def spoilt(log: bytes, frame: int) -> bytes:
    """The log with a frame that is not as it was written."""
    at = HEADER.size + frame * SIZE + 30
    return log[:at] + bytes([log[at] ^ 64]) + log[at + 1 :]


def test_a_whole_log(log: bytes) -> None:
    """All of its frames can be read, and nothing is left."""
    assert WalEnd(5, 0, damaged=False) == wal_end(log)
    assert WalEnd(0, 0, damaged=False) == wal_end(b"")


def test_a_log_cut_at_every_byte(log: bytes) -> None:
    """What is left of a frame, or of the header, is a torn end, wherever it was cut."""
    for size in range(len(log)):
        whole = max(0, (size - HEADER.size) // SIZE)
        left = size - (HEADER.size + whole * SIZE if whole else 0)
        assert WalEnd(whole, left, damaged=False) == wal_end(log[:size])


@pytest.mark.parametrize("frame", range(5))
@pytest.mark.parametrize("place", [9, 30, SIZE - 1])
def test_a_frame_that_rots(log: bytes, frame: int, place: int) -> None:
    """The last one could be a write that was never done; any other was told of, and is damage."""
    at = HEADER.size + frame * SIZE + place
    spoilt = log[:at] + bytes([log[at] ^ 64]) + log[at + 1 :]
    end = wal_end(spoilt)
    assert (frame, frame < 4) == (end.frames, end.damaged)


def test_a_header_that_rots(log: bytes) -> None:
    """Without a header nothing can be read, and with frames behind it that is damage."""
    for place in range(HEADER.size):
        spoilt = log[:place] + bytes([log[place] ^ 64]) + log[place + 1 :]
        end = wal_end(spoilt)
        assert (0, True) == (end.frames, end.damaged), place
        assert not wal_end(spoilt[: HEADER.size]).damaged


def test_frames_of_an_earlier_log(log: bytes) -> None:
    """What a longer log left behind this one has another salt, and is nobody's."""
    frame = bytearray(log[HEADER.size : HEADER.size + SIZE])
    frame[8] ^= 1
    assert WalEnd(5, 0, damaged=False) == wal_end(log + bytes(frame) * 3)
    assert WalEnd(4, SIZE, damaged=False) == wal_end(spoilt(log, 4) + bytes(frame) * 3)
    assert wal_end(spoilt(log, 3) + bytes(frame) * 3).damaged


def test_a_transaction_that_is_not_whole(log: bytes) -> None:
    """Frames without a commit behind them are not counted."""
    frame = bytearray(log[HEADER.size + 3 * SIZE : HEADER.size + 4 * SIZE])
    frame[4:8] = bytes(4)
    spoilt = log[: HEADER.size + 3 * SIZE] + bytes(frame)
    assert WalEnd(3, SIZE, damaged=False) == wal_end(spoilt)


def test_a_write_that_was_never_done(log: bytes) -> None:
    """Where a frame of the last commit is missing, what a log before left there is no damage."""
    (salt,) = struct.unpack_from(">I", log, 16)
    for older, is_rot in ((1, False), (7, False), (-1, True)):
        frame = bytearray(log[HEADER.size : HEADER.size + SIZE])
        frame[8:12] = struct.pack(">I", (salt - older) & 0xFFFFFFFF)
        frame[12] ^= 1
        at = HEADER.size + 3 * SIZE
        end = wal_end(log[:at] + bytes(frame) + log[at + SIZE :])
        assert WalEnd(3, 2 * SIZE, damaged=is_rot) == end


def test_the_end_is_followed(tmp_path: Path) -> None:
    """From commit to commit, of many frames or none, and back when the log begins anew."""
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "wal_autocheckpoint = 0"):
            file.execute(f"PRAGMA {pragma}")
        file.execute("CREATE TABLE t (a)")
        end = LogEnd(log)
        assert log.stat().st_size == end.size
        for size in (0, 1, 100_000, 3):
            file.execute("INSERT INTO t VALUES (?)", (bytes(size),))
            end.follow()
            assert log.stat().st_size == end.size
        file.execute("DELETE FROM t WHERE a = 'nothing'")
        end.follow()
        assert log.stat().st_size == end.size
        file.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        end.follow()
        assert log.stat().st_size == end.size
        file.execute("INSERT INTO t VALUES (1)")
        end.follow()
        assert HEADER.size < end.size < log.stat().st_size
        whole = wal_end(log.read_bytes())
        assert (end.size, 0) == (HEADER.size + whole.frames * (FRAME.size + 4096), whole.left)
        end.close()


def test_a_commit_is_cut_off(tmp_path: Path) -> None:
    """None of its frames is read again, not even behind a shorter commit in its place."""
    path, log = tmp_path / "db", tmp_path / "db-wal"
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "wal_autocheckpoint = 0"):
            file.execute(f"PRAGMA {pragma}")
        file.execute("CREATE TABLE t (a)")
        end = LogEnd(log)
        end.cut_off()
        before = wal_end(log.read_bytes())
        file.execute("INSERT INTO t VALUES (?)", (bytes(100_000),))
        assert before.frames + 20 < wal_end(log.read_bytes()).frames
        end.cut_off()
        assert before == wal_end(log.read_bytes())
        end.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_log_that_can_t_be_read_is_let_go_of() -> None:
    """What was opened to look for its end is closed again."""
    before = sorted(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="Input/output"):
        # There is nothing at its beginning.
        LogEnd(Path("/proc/self/mem"))
    assert before == sorted(Path("/proc/self/fd").iterdir())
