"""`read`: a recording from its file."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from attrs import frozen

from ioasid.recorder._errors import BadRecording, TornRecording
from ioasid.recorder._lines import FORMAT, Decided, Noted, Opened, RecordedLine

__all__ = ["Recording", "read"]


@frozen
class Recording:
    """What a file says happened."""

    path: str
    lines: tuple[RecordedLine, ...]
    """In the order in which they were written; the first one but for notes is an `Opened`."""


_decode: Final[Any] = msgspec.json.Decoder(RecordedLine).decode


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a recording.

    One that ends in the middle of a line is read up to there, with a `TornRecording` warning:
    its program was killed, or still runs. Raises `BadRecording` for a file that is none, and
    `OSError` if it cannot be read.
    """
    name = os.fspath(path)
    if not Path(path).is_file():
        Path(path).stat()
        raise BadRecording(name, 0, "this is no regular file")
    return Recording(name, tuple(_lines(name, Path(path).read_bytes())))


def _lines(name: str, data: bytes) -> Iterator[RecordedLine]:
    texts = data.split(b"\n")
    begun = 0
    for number, text in enumerate(texts, 1):
        is_last = number == len(texts)
        if is_last and not text:
            break
        line = _line(name, number, text, is_last=is_last)
        if line is None:
            break
        if isinstance(line, Opened):
            if line.format != FORMAT:
                problem = f"it is in format {line.format}, and this version knows {FORMAT}"
                raise BadRecording(name, number, problem)
            if line.allocator != begun:
                raise BadRecording(name, number, f"allocator {begun} was to begin here")
            begun += 1
        elif not begun and not isinstance(line, Noted):
            raise BadRecording(name, number, "it does not begin with an allocator")
        elif isinstance(line, Decided) and not 0 <= line.allocator < begun:
            raise BadRecording(name, number, f"there is no allocator {line.allocator}")
        if not isinstance(line, Opened) and not -(2.0**63) < line.time < 2.0**63:
            raise BadRecording(name, number, f"{line.time} is no time")
        yield line
    if not begun:
        raise BadRecording(name, 1, "there is no whole line in it")


def _line(name: str, number: int, text: bytes, *, is_last: bool) -> RecordedLine | None:
    try:
        line: RecordedLine = _decode(text)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        if is_last:
            warnings.warn(
                f"{name}, line {number} is torn, and left out: its writer was killed or still runs",
                TornRecording,
                stacklevel=4,
            )
            return None
        raise BadRecording(name, number, f"no line of a recording ({error})") from None
    return line
