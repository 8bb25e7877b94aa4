"""Replay: from a checkpoint and the rows since to the state that they stand for.

Without input or output: what is read comes in, and the allocator comes out, or what is wrong and
where. Recovery does it, the making of a checkpoint, and an allocator that has to go back to what
was committed last.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from attrs import define, field
from msgspec import Struct

from ioasid.core import (
    Abandon,
    Allocator,
    IoasidError,
    MalformedMessage,
    Tick,
    Waiting,
    decode_snapshot,
    encode,
)
from ioasid.journal._rows import Row, entries_of, seal_of

__all__: list[str] = []

DRIVER: Final = 0
PART: Final = 1 << 18
"""Bytes of a checkpoint that are read and written at once."""


class Checkpoint(Struct, frozen=True, gc=False):
    """What is said of a checkpoint beside its bytes, which are an encoded snapshot."""

    index: int
    """How many requests had been carried out."""
    seal: bytes
    """Of the last row that is part of it."""
    size: int
    """Bytes."""
    digest: bytes
    """Of the bytes."""


class Damage(Exception):
    """Something is not what was written; where, and why not."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason


def digest_of(parts: Iterable[bytes]) -> bytes:
    """Return the digest of a checkpoint's bytes, which come in parts."""
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(part)
    return digest.digest()


def checkpoint_of(core: Allocator, seal: bytes) -> tuple[Checkpoint, bytes]:
    """Return the checkpoint of a state behind a row with this seal, and its bytes."""
    data = encode(core.snapshot())
    return Checkpoint(core.index, seal, len(data), digest_of([data])), data


def parts_of(data: bytes) -> Iterable[bytes]:
    """Return the bytes of a checkpoint in parts."""
    return (data[first : first + PART] for first in range(0, len(data), PART))


@define(eq=False)
class Replay:
    """A state on its way from a checkpoint to the last row; raises `Damage`."""

    core: Allocator
    seal: bytes
    requests: int = field(init=False, default=0)
    """How many were decided again."""

    @classmethod
    def begin(cls, checkpoint: Checkpoint, data: bytes) -> "Replay":
        """Begin with a checkpoint and its bytes."""
        place = f"the checkpoint of index {checkpoint.index}"
        if len(data) != checkpoint.size or digest_of([data]) != checkpoint.digest:
            raise Damage(place, "its digest is that of other bytes")
        try:
            core = Allocator.restore(decode_snapshot(data))
        except MalformedMessage as error:
            raise Damage(place, error.message) from None
        if core.index != checkpoint.index:
            raise Damage(place, f"it is a state of index {core.index}")
        return cls(core, checkpoint.seal)

    def take(self, row: Row) -> None:
        """Decide the requests of the next row again."""
        core = self.core
        place = f"the row up to index {row.last}"
        if row.seal != seal_of(self.seal, row.data):
            raise Damage(place, "its seal is that of other bytes, or a row before it is missing")
        try:
            entries = entries_of(row)
        except ValueError as error:
            raise Damage(place, str(error)) from None
        index = core.index
        if not entries or row.last != index + len(entries):
            raise Damage(place, f"it does not go on from index {index}")
        handle, repeat, now = core.handle, core.repeat, core.now
        for time, session, request in entries:
            index += 1
            if time < now:
                raise Damage(place, f"the time of request {index} is before the last one's")
            try:
                if time > now:
                    handle(DRIVER, Tick(time))
                    now = time
                answer = repeat(session, request)
            except IoasidError as error:
                raise Damage(place, f"request {index} is refused now ({error})") from None
            if core.index != index:
                raise Damage(place, f"request {index} is none that a journal keeps")
            if type(answer) is Waiting:
                # It is done in parts, and who waits for the last one is gone with their process.
                handle(DRIVER, Abandon(answer.ticket))
        core.drain()
        self.seal = row.seal
        self.requests += len(entries)
