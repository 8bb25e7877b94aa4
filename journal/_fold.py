"""Making a checkpoint in a process of its own, so that the event loop does not stop for it.

The process is given the last checkpoint and the rows since, decides them again, and returns the
state that comes of it, when it has restored that once for a trial: a recovery, done beforehand. A
thread would stop the event loop with it, for as long as a big state is encoded, and a fork would
copy the page tables of whatever program this is embedded in, and share pages that its hardware
may write to.

Both ways go frames of a length (4 bytes) and so many bytes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, Any, Final

from msgspec import MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from ioasid.core import Allocator, decode_snapshot
from ioasid.journal._replay import Checkpoint, Damage, Replay, checkpoint_of, parts_of
from ioasid.journal._rows import Row

__all__: list[str] = []

PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[1:]; from ioasid.journal._fold import main; main()"
)
NICE: Final = 10


class Failed(Struct, frozen=True, tag=True):
    """What a process says in place of a checkpoint."""

    reason: str


class Begun(Struct, frozen=True, tag=True):
    """Comes before the parts."""

    checkpoint: Checkpoint


_ENCODER: Final = Encoder()
_CHECKPOINTS: Final = Decoder(Checkpoint)
_ROWS: Final = Decoder(Row)
_ANSWERS: Final[Decoder[Begun | Failed]] = Decoder(Begun | Failed)


class NotFolded(Exception):
    """The process made no checkpoint; why not."""


def fold(checkpoint: Checkpoint, data: bytes, rows: Iterable[Row]) -> tuple[Checkpoint, bytes]:
    """Return a checkpoint of the state behind some rows, which was restored once for a trial.

    Raises `Damage`.
    """
    replay = Replay.begin(checkpoint, data)
    for row in rows:
        replay.take(row)
    made, encoded = checkpoint_of(replay.core, replay.seal)
    if Allocator.restore(decode_snapshot(encoded)).index != made.index:
        raise Damage(f"the checkpoint of index {made.index}", "it does not restore")
    return made, encoded


class Folding:
    """A process that makes a checkpoint; used by one thread, and ended by another."""

    def __init__(self) -> None:
        # Raises OSError, and ValueError if this program knows no interpreter.
        if not sys.executable:
            raise ValueError("this program has no interpreter to start")
        path = [each for each in sys.path if each] + [os.getcwd()] * ("" in sys.path)  # noqa: PTH109
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def run(
        self,
        checkpoint: Checkpoint,
        parts: Iterable[bytes],
        rows: Iterable[Row],
        keep: Callable[[int, bytes], object],
    ) -> Checkpoint:
        """Fold; every part of what comes of it is given to `keep` with its place.

        Raises `NotFolded` if the process can't, or was ended.
        """
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as given:
                _send(given, _ENCODER.encode(checkpoint))
                for part in parts:
                    _send(given, part)
                _send(given, b"")
                for row in rows:
                    _send(given, _ENCODER.encode(row))
            frames = _frames(process.stdout)
            answer = _ANSWERS.decode(next(frames, b""))
            if isinstance(answer, Failed):
                raise NotFolded(answer.reason)
            size = 0
            for place, part in enumerate(frames):
                keep(place, part)
                size += len(part)
            if size != answer.checkpoint.size:
                raise NotFolded("the process ended in the middle of it")
            return answer.checkpoint
        except (OSError, MsgspecError) as error:
            raise NotFolded(f"the process ended ({error})") from None
        finally:
            self.end()

    def kill(self) -> None:
        """End the process, whatever it does; for any thread."""
        with suppress(OSError):
            self._process.kill()

    def end(self) -> None:
        """Let the process go; for the thread that runs it, which may do so again."""
        self.kill()
        process = self._process
        process.wait()
        for each in (process.stdin, process.stdout):
            assert each is not None
            with suppress(OSError, ValueError):
                each.close()


def main() -> None:
    """Fold what comes in; what the process is there for."""
    with suppress(AttributeError, OSError):
        os.nice(NICE)
    given, returned = sys.stdin.buffer, sys.stdout.buffer
    answer: Begun | Failed
    data = b""
    try:
        frames = _frames(given)
        checkpoint = _CHECKPOINTS.decode(next(frames))
        before = b"".join(iter(frames.__next__, b""))
        made, data = fold(checkpoint, before, map(_ROWS.decode, frames))
        answer = Begun(made)
    except Damage as damage:
        answer = Failed(f"{damage.place}: {damage.reason}")
    with suppress(BrokenPipeError):
        _send(returned, _ENCODER.encode(answer))
        for part in parts_of(data):
            _send(returned, part)
        returned.flush()


def _send(file: IO[bytes], data: bytes) -> None:
    file.write(len(data).to_bytes(4, "big"))
    file.write(data)


def _frames(file: Any) -> Iterator[bytes]:
    while head := file.read(4):
        size = int.from_bytes(head, "big")
        data = file.read(size)
        if len(head) != 4 or len(data) != size:
            return
        yield data
