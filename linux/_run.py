"""Where blocking calls run: in a worker thread, one at a time, and always to their end."""

from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

from anyio import CapacityLimiter, to_thread

__all__ = ["Run"]

T = TypeVar("T")


class Run(Protocol):
    """Runs blocking calls, one at a time, so that the event loop does not wait for them.

    What has begun is finished, whoever is cancelled: an ioctl that is under way can't be taken
    back, and what it did has to be known.
    """

    async def __call__(self, call: Callable[[], T]) -> T:
        """Run a call to its end; returns what it returns, and raises what it raises."""
        ...


def in_a_thread() -> Run:
    """Return what runs calls in a worker thread; it belongs to the event loop that runs now."""
    alone = CapacityLimiter(1)
    # What asyncio itself cancels leaves its call behind, under way.
    lock = Lock()

    async def run(call: Callable[[], T]) -> T:
        def in_turn() -> T:
            with lock:
                return call()

        return await to_thread.run_sync(in_turn, limiter=alone)

    return run
