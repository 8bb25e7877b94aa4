"""The floor on trio: tasks put to sleep and woken by hand. Imported only under trio."""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from outcome import Value
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

from ioasid.core import Allocator, Request


class TrioFloor:
    """A bare actor: the asker's task itself stands in the queue for its reply."""

    def __init__(self, core: Allocator) -> None:
        self._core = core
        self._queue: deque[tuple[Request, Task]] = deque()
        self._sleeper: Task | None = None

    def ask(self, request: Request) -> Awaitable[Any]:
        self._queue.append((request, current_task()))
        if self._sleeper is not None:
            reschedule(self._sleeper)
            self._sleeper = None
        return wait_task_rescheduled(_stay)  # noqa: ASYNC105 - the asker awaits it

    async def serve(self) -> None:
        queue = self._queue
        handle = self._core.handle
        session = self._core.session
        while True:
            self._sleeper = current_task()
            await wait_task_rescheduled(_leave)
            while queue:
                request, asker = queue.popleft()
                reschedule(asker, Value(handle(session, request)))


def _stay(_raise_cancel: Callable[[], NoReturn]) -> Abort:
    return Abort.FAILED


def _leave(_raise_cancel: Callable[[], NoReturn]) -> Abort:
    return Abort.SUCCEEDED
