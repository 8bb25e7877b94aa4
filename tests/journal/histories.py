"""What the tests of the journal share: histories to keep, and a journal to keep them in."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    Applied,
    AttachSpid,
    Free,
    Request,
    Tick,
)
from ioasid.journal._journal import Journal
from ioasid.journal._store import Store

T = TypeVar("T")


class History:
    """An allocator, and what it carried out."""

    def __init__(self, core: Allocator | None = None) -> None:
        self.core = Allocator(64) if core is None else core
        self.applied: list[Applied] = []

    def ask(self, request: Request) -> Applied:
        """Carry a request out, a second after the last one."""
        core = self.core
        time = core.now + 1.0
        core.handle(0, Tick(time))
        core.handle(core.session, request)
        core.drain()
        self.applied.append(Applied(core.index, time, core.session, request))
        return self.applied[-1]

    def some(self, count: int) -> list[Applied]:
        """Carry some requests out: IDs that are allocated, bound and freed."""
        found: list[Applied] = []
        while len(found) < count:
            index = self.core.index
            last = int(self.core.snapshot().generation)
            requests: list[Request] = [AttachSpid(1, 100), Free(1), Alloc(0)]
            if index == 1:
                found.append(self.ask(AllocSet("vm-1", 32)))
            elif last == 0:
                found.append(self.ask(Alloc(0)))
            else:
                found.append(self.ask(requests[(index - 3) % 3]))
        return found


def do(journal: Journal, job: Callable[[], T]) -> T:
    """Let the journal's thread do a job."""
    future: Future[Any] = Future()

    def done(result: Any) -> None:
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)

    journal.submit(job, done)
    result: T = future.result(60)
    return result


@contextmanager
def opened(
    path: Path,
    new: Allocator | None = None,
    *,
    every: int = 10_000,
    orderly: bool = False,
    forget: bool = False,
    store: Callable[[Path], Store] = Store,
) -> Iterator[tuple[Journal, Allocator]]:
    """Open a journal; gives the state that it goes on from."""
    journal = Journal(path, every=every, store=store)
    ends = False
    try:
        core = Allocator(64) if new is None else new
        on_reboot = "forget" if forget else "keep"
        found = do(journal, lambda: journal.recover(core, on_reboot))  # type: ignore[arg-type]
        yield journal, found.core
        ends = orderly
    finally:
        journal.close(orderly=ends)


def keep(journal: Journal, applied: Sequence[Applied], at_once: int = 1) -> None:
    """Keep what was carried out, so many requests in each commit."""
    for first in range(0, len(applied), at_once):
        part = applied[first : first + at_once]
        do(journal, lambda part=part: journal.append(part))  # type: ignore[misc]
