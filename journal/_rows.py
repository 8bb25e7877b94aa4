"""Rows: what was carried out in one commit, as bytes, each vouching for those before it.

A row holds requests in the order in which they were carried out. Its seal is a digest of its bytes
and of the seal before, so that a row that is missing, changed or in another's place shows.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeAlias

from msgspec import MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import replace

from ioasid.core import Applied, Free, FreeSet, FreezeSet, Request

__all__: list[str] = []

SEAL_SIZE: Final = 16
"""Bytes."""

FIRST_SEAL: Final = bytes(SEAL_SIZE)
"""The seal before the first row."""


class Row(Struct, frozen=True, gc=False):
    """The requests of one commit."""

    last: int
    """The index of the last one."""
    seal: bytes
    data: bytes


Entry: TypeAlias = tuple[float, int, Request]
"""When, for which session, and what."""
# A number that knows its generation needs none here: the request was carried out.
_ENCODER: Final = Encoder(enc_hook=int)
_DECODER: Final = Decoder(tuple[Entry, ...])
_WAITS: Final = frozenset((Free, FreeSet, FreezeSet))


def row_of(seal: bytes, applied: Sequence[Applied]) -> Row:
    """Return the row that goes behind one with this seal."""
    # Who waits for a reclaim or a freeze is gone with its process.
    data = _ENCODER.encode(
        [
            (each.time, each.session, _without_wait(each.request))
            if type(each.request) in _WAITS
            else (each.time, each.session, each.request)
            for each in applied
        ]
    )
    return Row(applied[-1].index, seal_of(seal, data), data)


def _without_wait(request: Request) -> Request:
    assert isinstance(request, Free | FreeSet | FreezeSet)
    return replace(request, wait=False) if request.wait else request


def seal_of(before: bytes, data: bytes) -> bytes:
    """Return the seal of a row's bytes behind another seal."""
    return blake2b(before + data, digest_size=SEAL_SIZE).digest()


def entries_of(row: Row) -> tuple[Entry, ...]:
    """Return what is in a row, in order. Raises ValueError if it holds something else."""
    try:
        entries: tuple[Entry, ...] = _DECODER.decode(row.data)
    except (MsgspecError, RecursionError) as error:
        raise ValueError(f"no requests ({error})") from None
    return entries


def applied_of(row: Row) -> list[Applied]:
    """Return the requests of a row. Raises ValueError if it holds something else."""
    entries = entries_of(row)
    first = row.last - len(entries) + 1
    return [Applied(first + place, *entry) for place, entry in enumerate(entries)]
