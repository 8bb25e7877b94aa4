"""The store of a fleet, as a port of four methods: what any store with transactions can give.

Keys are text, values bytes. Every transaction has a revision, which grows, and every key that of
the transaction that wrote it last; 0 is that of a key that is not there.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import frozen

__all__ = ["Changed", "Found", "Lease", "Store"]


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
    """A store; every method raises `StoreUnavailable` when it does not answer."""

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

        Returns the revision of it, or `None` if a comparison failed and nothing was written. What
        is written with a lease goes when that ends.
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
