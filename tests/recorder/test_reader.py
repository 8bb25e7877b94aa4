"""Reading: whole files, torn ones, and files that are something else."""

import os
import warnings
from pathlib import Path

import pytest

from ioasid.recorder import BadRecording, TornRecording, read
from tests.recorder.recordings import of_a_hang


def test_torn_anywhere(tmp_path: Path) -> None:
    """Cut off at any byte, what is whole of it is read, and a warning says so if a line is torn."""
    path = of_a_hang(tmp_path / "whole.jsonl")
    data, whole = path.read_bytes(), read(path).lines
    torn = tmp_path / "torn.jsonl"
    for size in range(data.index(b"\n"), len(data)):
        torn.write_bytes(data[:size])
        cut = data[:size].rpartition(b"\n")
        lines = data[:size].count(b"\n")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = read(torn).lines
        # A line without its end is whole if only the end is missing.
        is_whole = data[size : size + 1] == b"\n" and bool(cut[2])
        assert whole[: lines + is_whole] == found
        assert ([TornRecording] if cut[2] and not is_whole else []) == [
            each.category for each in caught
        ]


@pytest.mark.filterwarnings("ignore::ioasid.recorder.TornRecording")
@pytest.mark.parametrize(
    ("data", "line", "problem"),
    [
        (b"", 1, "no whole line"),
        (b'{"type":"Op', 1, "no whole line"),
        (b"\n", 1, "no line of a recording"),
        (b"hello\n", 1, "no line of a recording"),
        (b"\xff\xfe\x00\n", 1, "no line of a recording"),
        (b"[" * 100_000 + b"\n", 1, "no line of a recording"),
        (b'{"type":"Step","time":1.0,"actor":"a","message":{}}\n', 1, "begin with an allocator"),
        (b'{"type":"Opened","format":1,"allocator":0}\n', 1, "no line of a recording"),
    ],
)
def test_no_recording(tmp_path: Path, data: bytes, line: int, problem: str) -> None:
    """A file that is something else is refused with the line where that shows."""
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(BadRecording, match=problem) as caught:
        read(path)
    assert (str(path), line, "EBADMSG") == (caught.value.path, caught.value.line, caught.value.code)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (b'"format":1', b'"format":2', "it is in format 2, and this version knows 1"),
        (b'"allocator":0', b'"allocator":1', "allocator 0 was to begin here"),
        (b'"generation":0}}\n', b'"generation":0},"allocator":7}\n', "there is no allocator 7"),
        (b'"generation":0}}\n', b'"generation":0},"allocator":-1}\n', "there is no allocator -1"),
        (b'"index":', b'"inedx":', "no line of a recording"),
        (b'"index":2,"time":', b'"index":2,"time":1e300,"time":1e', "is no time|no line"),
    ],
)
def test_not_as_this_version_writes(tmp_path: Path, old: bytes, new: bytes, problem: str) -> None:
    """Another format, an allocator that never began, or an unknown field is refused."""
    path = of_a_hang(tmp_path / "whole.jsonl")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(BadRecording, match=problem):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    """What is not there is an OSError, and what is no regular file is never waited for."""
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing")
    with pytest.raises(BadRecording, match="no regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadRecording, match="no regular file"):
        read(tmp_path / "pipe")
