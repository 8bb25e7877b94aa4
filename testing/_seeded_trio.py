"""trio's own seeded scheduling. Imports trio, so it is itself imported only for trio.

trio shuffles the tasks of every round; with `_ALLOW_DETERMINISTIC_SCHEDULING`, which exists for
Hypothesis, it puts them in the order of their making before. Here the shuffling is a `Picker`'s.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trio._core import _run
from trio.testing import MockClock

from ioasid.testing._loop import Stuck
from ioasid.testing._picker import Picker

__all__: list[str] = []


class Shuffler(random.Random):
    """What trio shuffles with: the first in line runs first, unless the picker says otherwise."""

    def __init__(self, picker: Picker) -> None:
        super().__init__(0)
        self._picker = picker

    def shuffle(self, x: Any) -> None:
        """Put a round of tasks in the order that the picker picks; trio takes from the end."""
        left = list(x)
        for place in range(len(left) - 1, -1, -1):
            numbers = [each._counter for each in left]
            picked = self._picker.pick(numbers) if len(left) > 1 else 0
            x[place] = left.pop(picked)


@contextmanager
def seeded(picker: Picker, stuck: Callable[[str], None], stuck_after: float) -> Iterator[MockClock]:
    """Let trio schedule as a picker picks, while the scope lasts; gives the clock to run with.

    `stuck` is called as by a `SeededLoop`.
    """
    clock = MockClock(autojump_threshold=0)
    until = stuck_after

    def jump() -> None:
        nonlocal until
        wait = _run.current_statistics().seconds_to_next_deadline
        if clock.current_time() + wait > until:
            until = clock.current_time() + stuck_after
            try:
                stuck("nobody can go on")
            except Stuck:
                if not _unshield():
                    raise  # pragma: no cover - with anyio, nothing else withstands a cancellation
        else:
            clock.jump(wait)

    module: Any = _run
    saved = module._ALLOW_DETERMINISTIC_SCHEDULING, module._r
    module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = True, Shuffler(picker)
    try:
        clock._autojump = jump  # type: ignore[method-assign]
        yield clock
    finally:
        module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = saved


def _unshield() -> bool:
    # Whoever ignored that all was cancelled no longer can; tells whether there was anybody.
    found = False
    tasks: list[Any] = [_run.GLOBAL_RUN_CONTEXT.runner.main_task]
    while tasks:
        task = tasks.pop()
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        status = task._cancel_status
        while status is not None:
            if status._scope.shield:
                status._scope.shield = False
                found = True
            status = status._parent
    return found
