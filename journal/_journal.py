"""The journal: its thread, and when a checkpoint is due.

All that touches the file is done in one thread, in the order in which it is asked for. Whoever asks
is called back there when it is done.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, Timer
from time import monotonic
from typing import Any, Final, TypeVar
from weakref import WeakSet

from attrs import frozen

from ioasid.core import Allocator, Applied, IoasidError
from ioasid.core._plurals import counted
from ioasid.journal._errors import JournalDamaged, JournalInUse
from ioasid.journal._fold import Folding, NotFolded, fold
from ioasid.journal._reboot import OnReboot, boot_id, forgotten
from ioasid.journal._replay import Checkpoint, Damage, Replay, checkpoint_of
from ioasid.journal._rows import FIRST_SEAL, Row, row_of
from ioasid.journal._store import Store

__all__: list[str] = []

logger = logging.getLogger("ioasid")

EVERY: Final = 10_000
"""Requests from one checkpoint to the next."""
FEW: Final = 1_000
"""Requests that are decided again sooner than a process has started."""
SMALL: Final = 1 << 17
"""Bytes of a checkpoint that is made sooner than a process has started."""
LIMIT: Final = 120.0
"""Seconds after which a process that makes a checkpoint is ended; the next has twice as long."""
LONGEST: Final = 3600.0
"""Seconds that none of them may take."""
PATIENCE: Final = 2.0
"""Seconds of a recovery after which the log is told how far it is, again and again."""

_journals: "Final[WeakSet[Journal]]" = WeakSet()


def _leave_all() -> None:
    for each in _journals:
        each.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)

T = TypeVar("T")
Job = tuple[Callable[[], Any], Callable[[Any], object]]


@frozen
class Recovered:
    """The state that an allocator begins with."""

    core: Allocator
    is_new: bool
    """Whether the file was new, so that nobody was told of anything."""


class Journal:
    """A journal of the file `path`; `store` opens it, and `every` is how often to checkpoint.

    `submit` may be called by any thread. The other methods are what to submit.
    """

    def __init__(
        self, path: Path, *, every: int = EVERY, store: Callable[[Path], Store] = Store
    ) -> None:
        self.path = path
        self._every = every
        self._open_store = store
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name=f"ioasid journal {path}", daemon=True)
        self._thread.start()
        self._store: Store
        self._opened = False
        self._seal = FIRST_SEAL
        self._index = 0
        """That of the last request that is kept."""
        self._since = 0
        """Requests since the last checkpoint."""
        self._wait_until = 0
        """The index before which no checkpoint is tried again."""
        self._limit = LIMIT
        """Seconds that the next one may take."""
        self._folding: tuple[Thread, Folding] | None = None
        self._is_parents = False
        """Whether this is the child of a fork, which has neither the thread nor the lock."""
        _journals.add(self)

    # -- the thread ---------------------------------------------------------------------------

    def submit(self, job: Callable[[], T], done: Callable[[T | BaseException], object]) -> None:
        """Let the thread do a job; `done` is called there with what it returns or raises."""
        if self._is_parents:
            done(JournalInUse(str(self.path)))
            return
        self._jobs.put((job, done))

    def leave(self) -> None:
        """Leave the file to the parent, in the child of a fork: all that is asked is refused."""
        self._is_parents = True
        if self._opened:
            self._store.leave()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001 - it is whose job it is that is told
                result = error
            done(result)
            del item, job, done, result

    def _call(self, job: Callable[[], T]) -> T:
        # For the thread that folds: do a job between others, and wait for it.
        future: Future[T] = Future()

        def done(result: Any) -> None:
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self.submit(job, done)
        return future.result()

    # -- beginning ----------------------------------------------------------------------------

    def recover(self, new: Allocator, on_reboot: OnReboot) -> Recovered:
        """Open the file, and return the state that was committed last.

        In a new file that is `new`. Raises the errors of a journal.
        """
        self._store = self._open_store(self.path)
        self._opened = True
        here = boot_id()
        if self._store.checkpoint() is None:
            self._begin_with(new, here)
            return Recovered(new, is_new=True)
        began = monotonic()
        replay = self._replay()
        core = replay.core
        logger.info(
            "the journal %s goes on from index %d; replayed %s in %.2f s",
            self.path,
            core.index,
            counted(replay.requests, "request"),
            monotonic() - began,
        )
        there = self._store.boot_id
        if there != here:
            if there and here:
                core = self._rebooted(core, on_reboot, here)
            else:
                # Of one of them it is not known, so the hardware may be programmed yet.
                self._store.set_boot_id(here)
        return Recovered(core, is_new=False)

    def _begin_with(self, core: Allocator, boot: str) -> None:
        checkpoint, data = checkpoint_of(core, self._seal)
        self._store.replace(checkpoint, data, boot)
        self._index = core.index
        self._since = 0
        while self._store.drop_replaced():
            pass

    def _rebooted(self, core: Allocator, on_reboot: OnReboot, here: str) -> Allocator:
        if on_reboot == "forget":
            logger.warning(
                "the host was booted since the journal %s was written: its IDs, sets and holders "
                "are forgotten, as on_reboot='forget' says",
                self.path,
            )
            core = forgotten(core)
            self._begin_with(core, here)
            return core
        logger.warning(
            "the host was booted since the journal %s was written; its IDs, sets and holders stay, "
            "for a kernel can be replaced under running DMA. Evict the holders whose hardware is "
            "clean and free the sets that are gone; where every boot leaves hardware clean, open "
            "with on_reboot='forget' from the next one on",
            self.path,
        )
        self._store.set_boot_id(here)
        return core

    def committed(self) -> Allocator:
        """Return the state that was committed last. Raises `JournalDamaged`."""
        return self._replay().core

    def _replay(self) -> Replay:
        began = told = monotonic()
        found = self._store.checkpoint()
        assert found is not None, "there is one from the beginning"
        number, checkpoint = found
        try:
            replay = Replay.begin(checkpoint, b"".join(self._store.data_of(number)))
            for row in self._rows(checkpoint.index, None):
                replay.take(row)
                if monotonic() - told > PATIENCE:
                    told = monotonic()
                    logger.info(
                        "the journal %s: replayed %s in %.0f s so far",
                        self.path,
                        counted(replay.requests, "request"),
                        told - began,
                    )
        except Damage as damage:
            raise JournalDamaged(str(self.path), damage.place, damage.reason) from None
        self._seal = replay.seal
        self._index = replay.core.index
        self._since = replay.requests
        return replay

    def _rows(self, after: int, up_to: int | None) -> Iterator[Row]:
        while rows := self._store.rows(after, up_to):
            yield from rows
            after = rows[-1].last

    # -- keeping ------------------------------------------------------------------------------

    def append(self, applied: Sequence[Applied]) -> None:
        """Keep what was carried out. Raises `NotCommitted`: nothing of it is kept then."""
        row = row_of(self._seal, applied)
        self._store.append(row)
        self._seal = row.seal
        self._index = row.last
        self._since += len(applied)
        if self._since >= self._every and self._index >= self._wait_until:
            self._begin_to_fold()

    def retry(self) -> None:
        """Find out whether it can be written again. Raises `NotCommitted`."""
        self._store.retry()

    # -- checkpoints --------------------------------------------------------------------------

    def _begin_to_fold(self) -> None:
        if self._folding is not None:
            return
        try:
            folding = Folding()
        except (OSError, ValueError) as error:
            self._not_folded(str(error))
            return
        last = self._index
        limit = Timer(self._limit, folding.kill)
        limit.daemon = True
        thread = Thread(
            target=self._fold,
            args=(folding, limit, last),
            name=f"ioasid checkpoint {last}",
            daemon=True,
        )
        try:
            limit.start()
            thread.start()
        except RuntimeError as error:
            # There are as many threads as there may be.
            limit.cancel()
            folding.end()
            self._not_folded(str(error))
            return
        self._folding = thread, folding

    def _not_folded(self, reason: str) -> None:
        self._wait_until = self._index + self._every
        # There is more to do the next time, and the host may stay as slow as it is.
        self._limit = min(2 * self._limit, LONGEST)
        logger.warning(
            "the journal %s has no new checkpoint (%s); it grows until the next one",
            self.path,
            reason,
        )

    def _fold(self, folding: Folding, limit: Timer, last: int) -> None:
        # In a thread of its own. The rows up to `last` and the checkpoint stay meanwhile.
        call = self._call
        try:
            found = call(self._store.checkpoint)
            assert found is not None, "there is one from the beginning"
            number, before = found
            after = call(self._store.begin_checkpoint)
            checkpoint = folding.run(
                before,
                self._parts_between(number),
                self._rows_between(before.index, last),
                lambda place, part: call(lambda: self._store.add_part(after, place, part)),
            )
            call(lambda: self._store.finish_checkpoint(after, checkpoint))
            call(lambda: self._folded(checkpoint))
            while call(self._store.drop_replaced):
                pass
        except (NotFolded, IoasidError, Damage) as error:
            reason = str(error)
            call(lambda: self._not_folded(reason))
        finally:
            limit.cancel()
            folding.end()
            call(self._end_folding)

    def _parts_between(self, number: int) -> Iterator[bytes]:
        for place in count():
            part = self._call(partial(self._store.part, number, place))
            if not part:
                return
            yield part

    def _rows_between(self, after: int, last: int) -> Iterator[Row]:
        while rows := self._call(partial(self._store.rows, after, last)):
            yield from rows
            after = rows[-1].last

    def _folded(self, checkpoint: Checkpoint) -> None:
        self._since = self._index - checkpoint.index
        self._limit = LIMIT

    def _end_folding(self) -> None:
        self._folding = None

    # -- the end ------------------------------------------------------------------------------

    def close(self, *, orderly: bool) -> None:
        """End the thread when all that was submitted is done; in order, with a checkpoint.

        For any thread but the journal's own; blocks until then.
        """
        if self._is_parents:
            return
        # Whatever was submitted is done first, for it may begin a checkpoint.
        folding = self._call(lambda: self._folding)
        self._wait_for(folding, LIMIT if orderly else 0.0)
        if orderly:
            self._call(self._checkpoint_here_if_small)
            self._wait_for(self._folding, LIMIT)
        self._call(self._close_store)
        self._jobs.put(None)
        self._thread.join()

    def _wait_for(self, folding: tuple[Thread, Folding] | None, limit: float) -> None:
        if folding is not None:
            thread, process = folding
            thread.join(limit)
            process.kill()
            thread.join()

    def _checkpoint_here_if_small(self) -> None:
        if not self._opened or not self._since:
            return
        try:
            found = self._store.checkpoint()
            assert found is not None, "there is one from the beginning"
            number, before = found
            if self._since > FEW or before.size > SMALL:
                self._begin_to_fold()
                return
            data = b"".join(self._store.data_of(number))
            made, encoded = fold(before, data, self._rows(before.index, None))
            self._store.replace(made, encoded, self._store.boot_id)
            while self._store.drop_replaced():
                pass
        except (IoasidError, Damage) as error:
            self._not_folded(str(error))

    def _close_store(self) -> None:
        if self._opened:
            self._store.close()
