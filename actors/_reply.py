"""The one-shot reply: how an actor hands one answer back to the task that asked.

On asyncio, with or without uvloop, a reply is the running loop's own future and nothing
else: waking tasks is what an ask costs, and any wrapper would be paid by every ask. On trio
it is a small class with the same few methods.

A reply has three states, and leaves the first one only once::

    pending ──set_result──▶ resolved
       └──asker cancelled, or cancel()──▶ cancelled

Errors travel as values: the actor sets an exception as the result and the asker raises it.
An error that nobody collects, because its asker is gone, is then no event loop's business.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from math import inf
from time import monotonic
from typing import Any, Protocol, TypeVar

from anyio import current_effective_deadline, get_cancelled_exc_class

__all__ = ["Reply", "clock", "current_task", "is_cancelled", "pause", "reply_factory"]

T = TypeVar("T")


class Reply(Protocol[T]):
    """One answer on its way from an actor to one asker.

    It belongs to the event loop it was made on: no method may be called from another thread.
    One task awaits it, and may do so before or after it is resolved. Awaiting a resolved
    reply returns at once and is not a checkpoint.

    An asker that is cancelled while it waits leaves the reply cancelled. An actor looks at
    `cancelled` before it decides a request, to drop one that nobody waits for any more, and
    again before `set_result` if it awaited anything in between.
    """

    def set_result(self, value: T, /) -> None:
        """Resolve the reply with `value`, an exception included, and wake its asker.

        The asker runs later, never inside this call. An asker cancelled between this call
        and its next step gets the value or its cancellation, as the event loop has it; the
        reply is resolved either way.

        Raises asyncio.InvalidStateError, on trio too, if the reply is resolved or cancelled
        already. That is the caller's mistake; the reply is as it was.
        """

    def result(self) -> T:
        """Return the value of a resolved reply; for any other it is a mistake and raises."""

    def done(self) -> bool:
        """Tell whether the reply is resolved or cancelled."""

    def cancelled(self) -> bool:
        """Tell whether the asker gave up before the reply was resolved."""

    def cancel(self) -> bool:
        """Give up a pending reply, and tell whether it was pending.

        For an asker that won't wait after all; one that is cancelled while it waits needs no
        call. To await a cancelled reply is a mistake and raises: asyncio.CancelledError on
        asyncio, asyncio.InvalidStateError on trio, where only a cancel scope can cancel.
        """

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result."""


def reply_factory() -> Callable[[], Reply[Any]]:
    """Return the callable that makes new, pending replies for the running event loop.

    Which event loop runs is looked up here, once, so that making a reply costs no look-up.
    Keep the callable for as long as the event loop runs, and no longer.

    Raises RuntimeError outside of an event loop.
    """
    # Asking for a running asyncio loop would not do: there is one, too, under a trio that
    # runs as its guest. How a task is cancelled is what the two differ in anyway.
    if get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.get_running_loop().create_future

    # Not at the top of the module: trio is optional.
    from ioasid.actors._reply_trio import TrioReply

    return TrioReply


class _Pause:
    """What `asyncio.sleep(0)` does, but nothing is made for it each time."""

    def __await__(self) -> Generator[Any, None, None]:
        yield


def pause() -> Callable[[], Awaitable[None]]:
    """Return the running event loop's own checkpoint, looked up once as well.

    Raises RuntimeError outside of an event loop.
    """
    if get_cancelled_exc_class() is asyncio.CancelledError:
        pause = _Pause()
        return lambda: pause
    from trio.lowlevel import checkpoint

    return checkpoint


def clock() -> Callable[[], float]:
    """Return the running event loop's own clock, in seconds, looked up once as well.

    Raises RuntimeError outside of an event loop.
    """
    if get_cancelled_exc_class() is asyncio.CancelledError:
        loop = asyncio.get_running_loop()
        # What asyncio's own loops show, without a call in between.
        own = getattr(type(loop), "time", None) is asyncio.BaseEventLoop.time
        return monotonic if own else loop.time
    from trio import current_time

    return current_time


def current_task() -> Callable[[], object]:
    """Return the running event loop's own way to tell which task runs, looked up once as well.

    Raises RuntimeError outside of an event loop.
    """
    if get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.current_task
    from trio.lowlevel import current_task

    return current_task


def is_cancelled() -> bool:
    """Tell, where a cancellation was raised, whether it is the running task that is cancelled.

    Who waits on asyncio for something that is cancelled, a task of its own for instance, is raised
    a cancellation, too, and goes on. Raises RuntimeError outside of an event loop.
    """
    if get_cancelled_exc_class() is not asyncio.CancelledError:
        return True
    task = asyncio.current_task()
    native = task is not None and task.cancelling() > 0
    return native or current_effective_deadline() == -inf
