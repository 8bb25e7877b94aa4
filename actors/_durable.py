"""The allocator's side of a journal: jobs for its thread, awaited on the event loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from anyio import CancelScope
from anyio.to_thread import run_sync

from ioasid.actors._reply import Reply, reply_factory
from ioasid.actors._thread import Door
from ioasid.core import Allocator, Applied
from ioasid.journal._journal import Journal, Recovered
from ioasid.journal._reboot import OnReboot

__all__: list[str] = []

T = TypeVar("T")

BRIEF: Final = 0.0005
"""Seconds that the event loop stands still for at most, to wait for the commit of one request.

To be woken costs as much as a disk takes that is quick, and whoever asks alone pays it each time.
"""


class Keeper(Protocol):
    """What keeps what an allocator carries out; what it raises is `NotCommitted`."""

    async def commit(self, applied: Sequence[Applied], /) -> None:
        """Return when it is kept; when this raises, nothing of it is."""

    async def committed(self) -> Allocator:
        """Return the state that was committed last, made anew."""

    async def retry(self) -> None:
        """Return when something could be kept again."""


_everywhere: Final[list[Callable[[Allocator], Keeper]]] = []


@contextmanager
def kept_by(make: Callable[[Allocator], Keeper]) -> Iterator[None]:
    """Keep what every allocator carries out that is opened in this block, and not kept otherwise.

    For tools that run a program they did not write. `make` is called with the state that it begins
    with.
    """
    _everywhere.append(make)
    try:
        yield
    finally:
        _everywhere.remove(make)


def keeper_everywhere(core: Allocator) -> Keeper | None:
    """Return what keeps what an allocator carries out that begins with this state."""
    return _everywhere[-1](core) if _everywhere else None


class Durable:
    """A journal, as seen from the event loop that this is made on; a `Keeper`."""

    def __init__(self, path: Path, on_reboot: OnReboot) -> None:
        self._run_soon = Door("the journal").run_soon
        self._new_reply = reply_factory()
        self._on_reboot = on_reboot
        self._journal = Journal(path)
        self._is_quick = False
        """Whether the last commit was made in so little time that the next one is waited for."""

    async def recover(self, new: Allocator) -> Recovered:
        """Open the file, and return the state to go on from; in a new file the one given."""
        return await self._do(lambda: self._journal.recover(new, self._on_reboot))

    async def commit(self, applied: Sequence[Applied]) -> None:
        """Return when it is kept. Raises `NotCommitted`: nothing of it is kept then."""

        def append() -> None:
            began = perf_counter()
            self._journal.append(applied)
            self._is_quick = perf_counter() - began < BRIEF

        alone = len(applied) == 1
        await self._do(append, BRIEF if alone and self._is_quick else 0.0)

    async def committed(self) -> Allocator:
        """Return the state that was committed last, made anew."""
        return await self._do(self._journal.committed)

    async def retry(self) -> None:
        """Return when the file could be written. Raises `NotCommitted`."""
        await self._do(self._journal.retry)

    async def close(self, *, orderly: bool) -> None:
        """Let the file go; in order, with a checkpoint. It is not to be cancelled."""
        with CancelScope(shield=True):
            await run_sync(partial(self._journal.close, orderly=orderly))

    async def _do(self, job: Callable[[], T], brief: float = 0.0) -> T:
        reply: Reply[Any] = self._new_reply()
        results: list[T | BaseException] = []
        there = Lock()
        there.acquire()
        asleep = not brief

        def wake() -> None:
            if not reply.done():
                reply.set_result(None)

        def done(result: T | BaseException) -> None:
            results.append(result)
            there.release()
            # The other way round than below, so that one of both sees what the other did.
            if asleep:
                self._run_soon(wake)

        self._journal.submit(job, done)
        if brief:
            there.acquire(timeout=brief)
            asleep = True
        if not results:
            await reply
        result = results[0]
        if isinstance(result, BaseException):
            raise result
        return result
