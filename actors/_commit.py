"""The commit stage: batches that were decided wait here until they are kept, and leave in order.

One commit is awaited at a time, and each takes all that was decided by then: while a disk syncs,
what is asked meanwhile makes the next one.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

from anyio import get_cancelled_exc_class
from msgspec import Struct

from ioasid.actors._envelope import Envelope, Fate
from ioasid.actors._reply import Reply, is_cancelled, reply_factory
from ioasid.actors._taps import Decision
from ioasid.core import Answer, Applied, Effect, IoasidError, NotCommitted

__all__ = ["Commit"]

Commit: TypeAlias = Callable[[Sequence[Applied]], Awaitable[object]]
"""Is awaited with what was carried out since the last time, before anything of it leaves.

One is awaited at a time; what it raises takes the allocator down.
"""

Answers: TypeAlias = list[tuple[Reply[Any], Answer | IoasidError, Envelope]]


class Batch(Struct, frozen=True):
    """What was decided and has not been released."""

    answers: "Answers"
    effects: list[Effect]
    applied: Sequence[Applied]
    decisions: Sequence[Decision]
    envelopes: Sequence[Envelope]
    """What it was, for a journal that may fail."""
    fate: Fate


class CommitStage:
    """What waits to be committed, or is being; `release` is called with each batch that is.

    `go_back` is awaited when nothing can be kept: all that was `decided` is void then, and it is
    told so by `take_back`. Without one a commit may not fail.
    """

    def __init__(
        self,
        commit: Commit,
        release: Callable[[Batch], object],
        go_back: Callable[[NotCommitted], Awaitable[object]] | None,
    ) -> None:
        self._commit: Final = commit
        self._release: Final = release
        self._go_back: Final = go_back
        self._new_reply = reply_factory()
        self._more: Reply[None] = self._new_reply()
        self._ended = False
        self.decided: deque[Batch] = deque()
        self.commits = 0
        """How many were made."""

    def add(self, batch: Batch) -> None:
        """Commit a batch behind those before it; one of which nothing is kept waits for those."""
        if not (self.decided or batch.applied):
            self._release(batch)
            return
        self.decided.append(batch)
        if not self._more.done():
            self._more.set_result(None)

    def take_back(self) -> tuple[Batch, ...]:
        """Return what was decided, which is to be committed no more."""
        batches = tuple(self.decided)
        self.decided.clear()
        return batches

    def end(self) -> None:
        """Let `run` end when nothing is left."""
        self._ended = True
        if not self._more.done():
            self._more.set_result(None)

    async def run(self) -> None:
        """Commit what there is and what comes; raises what a commit does."""
        decided = self.decided
        while True:
            while decided:
                await self._commit_decided()
            if self._ended:
                return
            self._more = self._new_reply()
            await self._more

    async def _commit_decided(self) -> None:
        decided = self.decided
        group = tuple(decided)
        applied = [each for batch in group for each in batch.applied]
        if applied:
            try:
                await self._commit(applied)
            except NotCommitted as error:
                if self._go_back is None:
                    raise
                await self._go_back(error)
                return
            except get_cancelled_exc_class():
                if is_cancelled():
                    raise
                raise RuntimeError("the commit was cancelled") from None
            self.commits += 1
        for batch in group:
            decided.popleft()
            self._release(batch)
