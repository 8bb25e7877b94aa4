"""An asyncio event loop whose order is a schedule's and whose time is virtual.

asyncio runs what is ready first come, first served. This loop lets a `Picker` choose instead, one
callback at a time. What may change places is what no code that also runs on uvloop and trio may
rely on:

- Tasks that are ready at the same time run in any order, and one may be passed over again and
  again, while others take many steps. A single task's steps stay in order, as there is at most
  one of them at a time.
- Callbacks of one future may change places among each other, and with tasks that the same future
  or another one woke. asyncio promises their order; nothing here needs it.
- Timers fire in order of their time, and only when nothing is ready; those due at the same time
  in any order. So a schedule never depends on how fast the machine is.

What was made ready in one step and has no order of its own (a cancelled group cancels its tasks
in the order of a set) is put in the order in which the tasks were made, or those that a cancelled
scope is of, so that one seed is one schedule in every process.
"""

import asyncio
import heapq
from collections.abc import Callable
from typing import Any, Final

from ioasid.testing._picker import Picker

__all__: list[str] = []

IDLE_SPINS: Final = 200
"""After so many callbacks in a row that belong to no task, time goes on: they only spin."""


class Stuck(Exception):
    """A schedule does not end: nobody can go on, or they go on and on; the message says who."""


class SeededLoop(asyncio.BaseEventLoop):
    """The event loop of one schedule; it does no input or output, and no threads reach it.

    `stuck` is called with the reason when nothing is ready and no timer will change that within
    `stuck_after` seconds, or when `max_steps` callbacks ran; it cancels something, or raises.
    """

    # Kept by BaseEventLoop, which appends to the first and pushes on the second.
    _ready: list[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(
        self,
        picker: Picker,
        stuck: Callable[[str], None],
        *,
        stuck_after: float,
        max_steps: int = 1_000_000,
    ) -> None:
        super().__init__()
        self._stuck = stuck
        self._stuck_after = self._until = stuck_after
        self._max_steps = max_steps
        self._ready = []
        self._picker = picker
        self._left = max_steps
        self._spins = 0
        self._now = 0.0
        self._numbers: dict[object, int] = {}
        self._owners: list[int] = []
        """The tasks, by number, that the callbacks that are ready belong to."""
        self.unhandled: list[str] = []
        """What was reported to the loop because nobody was there to handle it."""
        self.set_exception_handler(self._note_unhandled)
        # A timer of the same moment is of the same moment: time is exact here.
        self._clock_resolution = 0.0

    def time(self) -> float:
        """Return the virtual time, in seconds since the loop was made."""
        return self._now

    def create_task(self, *args: Any, **kwargs: Any) -> asyncio.Task[Any]:
        """Make a task as any loop does; its number is its place in the order of making."""
        task = super().create_task(*args, **kwargs)
        self._numbers[task] = len(self._numbers) + 1
        return task

    def _note_unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(f"{context['message']}: {error!r}")

    def _owner(self, handle: asyncio.Handle) -> int:
        # The number of the task that a callback belongs to, 0 for none.
        callback: Callable[..., Any] | None = handle._callback  # type: ignore[attr-defined]
        return self._numbers.get(getattr(callback, "__self__", None), 0)

    def _run_once(self) -> None:
        ready = self._ready
        if not ready or self._spins >= IDLE_SPINS:
            self._jump()
            if not ready:
                return
        self._left -= 1
        if self._left < 0:
            self._left = self._max_steps
            self._stuck(f"no end after {self._max_steps} steps")
        owners = self._owners
        if len(owners) < len(ready):
            self._line_up()
        # With a task among them, one that only spins loses its turn some time.
        self._spins = 0 if any(owners) else self._spins + 1
        place = self._picker.pick(owners) if len(ready) > 1 else 0
        handle = ready.pop(place)
        del owners[place]
        if not handle.cancelled():
            handle._run()

    def _host(self, handle: asyncio.Handle) -> int:
        # The number of the task that a scope is of, which anyio tries again and again to cancel.
        callback: Callable[..., Any] | None = handle._callback  # type: ignore[attr-defined]
        scope = getattr(callback, "__self__", None)
        return self._numbers.get(getattr(scope, "_host_task", None), 0)

    def _line_up(self) -> None:
        # What the last step made ready.
        first = len(self._owners)
        added = [(self._owner(each), each) for each in self._ready[first:]]
        if len(added) > 1:
            added.sort(key=lambda one: (one[0], one[0] or self._host(one[1])))
            self._ready[first:] = [handle for _, handle in added]
        self._owners.extend(owner for owner, _ in added)

    def _jump(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False  # type: ignore[attr-defined]
        self._spins = 0
        if not self._scheduled or self._scheduled[0].when() > self._until:
            self._until = self._now + self._stuck_after
            self._stuck("nobody can go on")
            return
        self._now = max(self._now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            self._ready.append(handle)
