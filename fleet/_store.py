"""The store of a fleet, as a port of four methods: what any store with transactions can give.

Keys are text, values bytes. Every transaction has a revision, which grows, and every key that of
the transaction that wrote it last; 0 is that of a key that is not there.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import msgspec
from attrs import frozen
from msgspec import msgpack

from ioasid.core import InvalidArgument, _check
from ioasid.fleet._errors import UnreadableRecord

__all__ = ["Changed", "Found", "Lease", "Store"]

T = TypeVar("T")


@frozen
class Found:
    """What is under a key."""

    value: bytes
    revision: int


@frozen
class Changed:
    """A key that was written, or is gone: then `value` is `None`."""

    key: str
    value: bytes | None
    revision: int


class Lease(Protocol):
    """A promise to be alive, which ends by itself unless it is kept up."""

    async def keep(self) -> bool:
        """Keep it up for its seconds again; tells whether there was still something to keep."""
        ...

    async def end(self) -> None:
        """End it now, with all that was written with it."""
        ...


class Store(Protocol):
    """A store; every method raises `StoreUnavailable` when it does not answer.

    `StoreForbidden` and `StoreFull` are of that kind: it answers, and does not do it.
    """

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        """Return all keys that begin so, with what is there, and the revision of that moment."""
        ...

    async def txn(
        self,
        compare: Mapping[str, int],
        write: Mapping[str, bytes | None],
        lease: Lease | None = None,
    ) -> int | None:
        """Write keys, `None` deletes, if others, or they, have these revisions: all or nothing.

        Returns the revision of it, or `None` if nothing was written, as a comparison failed or the
        lease has ended. What is written with a lease goes when that ends. Raises `RecordTooLarge`.
        """
        ...

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        """Return every change of keys that begin so, from the revision `start` on, for ever.

        It goes on where it was when the store was gone meanwhile: nothing is left out. Raises
        `HistoryLost` when the store has dropped some of it.
        """
        ...

    async def lease(self, seconds: int) -> Lease:
        """Begin a lease of so many seconds (1 or more)."""
        ...


def host_name(value: Any, argument: str = "host") -> str:
    """Check the name of a host, a part of keys. Raises `InvalidArgument`."""
    name = _check.name(value, argument)
    if "/" in name:
        raise InvalidArgument.of(argument, value, "a name without a slash")
    return name


def decoded(decoder: msgpack.Decoder[T], key: str, value: bytes) -> T:
    """Return what is under a key. Raises `UnreadableRecord`."""
    try:
        return decoder.decode(value)
    except msgspec.DecodeError as error:
        raise UnreadableRecord(key, str(error)) from None
