"""`record`: write every decision and step into a file, while it happens.

Each line is in the file before anything of its decision leaves the allocator, written at once and
in one piece: whoever is killed leaves all of them behind, the last one perhaps torn. The file
belongs to the operating system by then; it is not forced to the disk.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Any, Final

import msgspec
from anyio import current_time
from msgspec.structs import replace

from ioasid.actors import Decision, Step, Tap, tapped
from ioasid.core import Done, InvalidArgument, Ioasid, Snapshot
from ioasid.recorder._lines import FORMAT, Noted, Opened

__all__ = ["Recorder", "record"]

logger = logging.getLogger("ioasid")


@contextmanager
def record(path: str | os.PathLike[str]) -> Iterator["Recorder"]:
    """Record every allocator that is opened, and every actor that is made, in this block.

    `path` is a file, written anew. What was opened before is not recorded, and what outlives the
    block only until its end. Gives a `Recorder`, with which notes can be made. A disk that is full
    ends the recording, which is logged, and nothing else. Raises `OSError` if the file cannot be
    written.
    """
    with FileIO(os.fspath(path), "w") as file:
        recorder = Recorder(file)
        with tapped(recorder.begin, recorder.step):
            yield recorder


class Recorder:
    """Writes lines into a file; after an error, or when the file was closed, no more.

    `record` makes one. `begin` and `step` are what it taps with.
    """

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._begun = 0
        self._failed = False
        self._time = 0.0
        """That of the last line."""
        self._ahead: float | None = None
        """How far decisions' clock is ahead of the event loop's; `None`: no decision told yet."""

    def begin(self, snapshot: Snapshot) -> Tap:
        """Note that an allocator begins, and return its tap."""
        number = self._begun
        self._begun += 1
        self._ahead = None
        self._time = snapshot.now
        try:
            self._write(_encode(Opened(FORMAT, number, snapshot)))
        except OSError:
            # The allocator begins all the same.
            logger.exception("the recording of allocators ends before it began")
        # The number of the allocator is the line's last field; 0 is left out.
        end = b',"allocator":%d}' % number if number else b"}"

        def decided(decision: Decision) -> None:
            self._time = decision.time
            if self._ahead is None:
                self._ahead = decision.time - current_time()
            if type(decision.answer) is Snapshot:
                decision = replace(decision, answer=Done())
            self._write(_encode(decision)[:-1] + end)

        return decided

    def step(self, step: Step) -> None:
        """Write a step of an actor."""
        self._write(_step(self._now(), step))

    def note(self, text: str) -> None:
        """Write a heading (1 to 200 characters) for what happens from here on.

        Raises `InvalidArgument`.
        """
        if type(text) is not str or not 0 < len(text) <= LONGEST:
            raise InvalidArgument.of("text", text, f"text of 1 to {LONGEST} characters")
        self._write(_encode(Noted(self._now(), text)))

    def _now(self) -> float:
        if self._ahead is not None:
            # Never before what was written already: a batch is decided before it is seen.
            self._time = max(self._time, current_time() + self._ahead)
        return self._time

    def _write(self, line: bytes) -> None:
        if self._failed or self._file.closed:
            return
        try:
            written = self._file.write(line + b"\n")
            if written != len(line) + 1:
                raise OSError(f"{written} of {len(line) + 1} bytes were written")
        except OSError:
            self._failed = True
            raise


def _said(value: object) -> object:
    # An ID that remembers its generation is an int; what an actor's own message has is its own.
    return int(value) if isinstance(value, Ioasid) else repr(value)[:LONGEST]


LONGEST: Final = 200
_encoder: Final = msgspec.json.Encoder(enc_hook=_said)
_encode: Final = _encoder.encode


def _step(time: float, step: Step) -> bytes:
    line: dict[str, Any] = {"type": "Step", "time": time, "actor": step.actor}
    try:
        return _encode(line | {"message": step.message})
    except Exception:  # noqa: BLE001 - a message of an actor's own may have anything in it
        return _encode(line | {"message": {"type": type(step.message).__name__}})
