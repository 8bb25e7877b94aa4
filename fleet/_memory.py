"""The store in memory: for tests, exploring and a fleet within one process."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from anyio import Event as Signal
from anyio import current_time
from attrs import define, field

from ioasid.fleet._store import Changed, Found, Lease

__all__ = ["MemoryStore"]


@define(eq=False)
class _Lease:
    store: "MemoryStore"
    seconds: int
    until: float
    keys: set[str] = field(factory=set)

    async def keep(self) -> bool:
        self.store.expire()
        if self not in self.store.leases:
            return False
        self.until = current_time() + self.seconds
        return True

    async def end(self) -> None:
        self.store.drop(self)


@define(eq=False)
class MemoryStore:
    """A `Store` that lives as long as its process; leases go by the event loop's clock.

    A lease that nobody keeps up ends with the next call after its time.
    """

    revision: int = 0
    leases: list[_Lease] = field(factory=list)
    _found: dict[str, Found] = field(factory=dict)
    _changes: list[Changed] = field(factory=list)
    _changed: Signal = field(factory=Signal)

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        """Return all keys that begin so, with what is there, and the revision of that moment."""
        self.expire()
        found = {key: each for key, each in sorted(self._found.items()) if key.startswith(prefix)}
        return found, self.revision

    async def txn(
        self,
        compare: Mapping[str, int],
        write: Mapping[str, bytes | None],
        lease: Lease | None = None,
    ) -> int | None:
        """Write keys if these have the revisions that are expected: all or nothing."""
        self.expire()
        for key, revision in compare.items():
            present = self._found.get(key)
            if revision != (0 if present is None else present.revision):
                return None
        if isinstance(lease, _Lease) and lease not in self.leases:
            return None
        for each in self.leases:
            # What is written again goes with the lease of the last write, or with none.
            each.keys.difference_update(write)
        if isinstance(lease, _Lease):
            lease.keys.update(write)
        self._write(write)
        return self.revision

    def watch(self, prefix: str, start: int) -> AbstractAsyncContextManager[AsyncIterator[Changed]]:
        """Return every change of keys that begin so, from the revision `start` on."""
        return self._watch(prefix, start)

    @asynccontextmanager
    async def _watch(self, prefix: str, start: int) -> AsyncIterator[AsyncIterator[Changed]]:
        async def changes() -> AsyncGenerator[Changed, None]:
            place = 0
            while True:
                while place < len(self._changes):
                    each = self._changes[place]
                    place += 1
                    if each.revision >= start and each.key.startswith(prefix):
                        yield each
                await self._changed.wait()

        async with aclosing(changes()) as found:
            yield found

    async def lease(self, seconds: int) -> Lease:
        """Begin a lease."""
        lease = _Lease(self, seconds, current_time() + seconds)
        self.leases.append(lease)
        return lease

    def expire(self) -> None:
        """End the leases whose time is over."""
        now = current_time() if self.leases else 0.0
        for lease in [each for each in self.leases if each.until <= now]:
            self.drop(lease)

    def drop(self, lease: _Lease) -> None:
        """End a lease, and delete what was written with it."""
        if lease in self.leases:
            self.leases.remove(lease)
            keys = sorted(lease.keys & self._found.keys())
            if keys:
                self._write(dict.fromkeys(keys))

    def _write(self, write: Mapping[str, bytes | None]) -> None:
        self.revision += 1
        for key, value in write.items():
            if value is None:
                self._found.pop(key, None)
            else:
                self._found[key] = Found(value, self.revision)
            self._changes.append(Changed(key, value, self.revision))
        changed, self._changed = self._changed, Signal()
        changed.set()
