"""The queue between the allocator and one subscriber: neither knows the other.

The allocator fills it, as an `Outlet`, and never waits; the consumer empties it.
"""

from collections import deque
from collections.abc import Callable

from ioasid.actors._reply import Reply
from ioasid.core import AllocatorClosed, Event, Resync, SessionEnded

__all__ = ["Queue"]


class Queue:
    """What a subscriber has yet to take; `wake` is called when there is something new."""

    __slots__ = ("behind", "ended", "error", "messages", "session", "sleeper", "wake")

    def __init__(self, session: int, wake: Callable[[], None] | None) -> None:
        self.session = session
        """The session whose subscription it is."""
        self.wake = wake
        self.behind = False
        """Whether it lost messages that a Resync will stand for."""
        self.messages: deque[Event | Resync] = deque()
        self.sleeper: Reply[None] | None = None
        """What the consumer waits with."""
        self.ended = False
        """Whether there will be no more than what is in it."""
        self.error: SessionEnded | AllocatorClosed | None = None
        """What the consumer is told when it ended, if not in order."""

    def deliver(self, message: Event | Resync) -> None:
        """Take one message, behind those before it."""
        if self.ended:
            return
        self.messages.append(message)
        if self.behind and type(message) is Resync:
            self.behind = False
        # As `_wake_up`, which a delivery need not pay a call for.
        if self.wake is not None:
            self.wake()
        sleeper = self.sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)

    def withdraw(self, keep: int | None) -> None:
        """Drop all that the consumer has not taken, except the message whose seq is `keep`."""
        self.behind = True
        messages = self.messages
        while messages and messages[-1].seq != keep:
            messages.pop()

    def end(self, *, drained: bool) -> None:
        """Take no more; what is there still counts if it is `drained`."""
        self._end(None if drained else SessionEnded(self.session))

    def close(self, error: AllocatorClosed | None) -> None:
        """Take no more, for the allocator is gone: in order (`None`), or by this error."""
        self._end(error)

    def leave(self) -> None:
        """End it from the consumer's side: nothing of it is wanted any more."""
        self.messages.clear()
        self.wake = None
        self._end(None)

    def _end(self, error: SessionEnded | AllocatorClosed | None) -> None:
        if not self.ended:
            self.ended = True
            self.error = error
            self._wake_up()

    def _wake_up(self) -> None:
        if self.wake is not None:
            self.wake()
        sleeper = self.sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)
