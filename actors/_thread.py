"""Threads: what belongs to one event loop is not called from another."""

import asyncio
from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from anyio import get_cancelled_exc_class

from ioasid.actors._errors import WrongThread

__all__: list[str] = []


class Door:
    """The thread that something belongs to, and the way in from others; made on that thread."""

    __slots__ = ("_run_soon", "_what", "thread")

    def __init__(self, what: str) -> None:
        self._what: Final = what
        self.thread: Final = get_ident()
        """The number of the thread."""
        self._run_soon = _thread_safe_door()

    def check(self) -> None:
        """Raise `WrongThread` in any other thread."""
        if get_ident() != self.thread:
            raise WrongThread(self._what)

    def run_soon(self, call: Callable[[], object]) -> None:
        """Call something on the thread, soon; not if its event loop has ended."""
        try:
            self._run_soon(call)
        except RuntimeError:
            # The event loop has ended: asyncio's is closed, and trio's run is finished.
            pass


def _thread_safe_door() -> Callable[[Callable[[], object]], Any]:
    if get_cancelled_exc_class() is asyncio.CancelledError:
        return asyncio.get_running_loop().call_soon_threadsafe
    from trio.lowlevel import current_trio_token

    return current_trio_token().run_sync_soon
