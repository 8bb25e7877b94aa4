"""A subscription as its consumer sees it: a queue that the allocator fills and never waits for.

The same queue serves two kinds of consumer. A task iterates over it; an actor is called when
there is something to take, posts itself a note and takes it when the note's turn comes, so that
it stays single-threaded.
"""

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from anyio import BusyResourceError

from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    AllocatorClosed,
    Defer,
    Detach,
    Event,
    InvalidArgument,
    Resync,
    SessionEnded,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

if TYPE_CHECKING:
    from ioasid.actors._session import Session

__all__ = ["Subscription"]


class Subscription:
    """What a holder is told, in order; made by `Session.subscribe`, for `async with`.

    Entering it subscribes, leaving it unsubscribes; what was told counts as acknowledged then.
    If an exception or a cancellation ends it while it holds, or while its holder has references,
    it is kept for whoever subscribes to the same scope under the same holder name next: what it
    programmed may still be there.

    `async for message in subscription` acknowledges each message when it comes back for the
    next one, unless `acknowledge` did so before or `defer` put it off. The iteration ends when
    the set of the subscription is gone or the allocator shut down in order; it raises
    `SessionEnded` when the holder was evicted and `AllocatorClosed` when the allocator crashed.
    """

    def __init__(
        self, session: "Session", request: Subscribe, on_message: Callable[[], None] | None = None
    ) -> None:
        self._session = session
        self._request = request
        self._on_message = on_message
        self._queue: deque[Event | Resync] = deque()
        self._in_hand: Event | Resync | None = None
        self._sleeper: Reply[None] | None = None
        self._ended = False
        self._error: SessionEnded | AllocatorClosed | None = None
        self._answer: Subscribed | None = None
        self._number = 0
        self._tell = session._tell
        self._new_reply = session._new_reply

    @property
    def number(self) -> int:
        """The subscription's number. Raises RuntimeError before it is entered."""
        return self._entered().subscription

    @property
    def resumed(self) -> bool:
        """Whether it takes up one that a crash left behind. Raises RuntimeError before entry."""
        return self._entered().resumed

    def _entered(self) -> Subscribed:
        if self._answer is None:
            raise RuntimeError("the subscription is not entered: use `async with`")
        return self._answer

    async def __aenter__(self) -> Self:
        """Subscribe. Raises what `Subscribe` is refused with; the object may be entered again."""
        if self._answer is not None:
            raise RuntimeError("the subscription was entered already")
        await self._session._attach(self, self._request)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe, or leave it for the next session if an exception ends it."""
        number = self._entered().subscription
        self._queue.clear()
        self._on_message = None
        self._end(None)
        request = Unsubscribe(number) if error is None else Detach(number)
        self._tell(request)

    def __aiter__(self) -> Self:
        """Return itself: there is one queue and one consumer."""
        return self

    async def __anext__(self) -> Event | Resync:
        """Acknowledge the last message, unless put off, and wait for the next one.

        Raises anyio.BusyResourceError while another task waits, which is not disturbed.
        """
        if self._sleeper is not None:
            raise BusyResourceError("iterating over")
        while (message := self.take()) is None:
            if self._ended:
                raise StopAsyncIteration
            self._sleeper = sleeper = self._new_reply()
            try:
                await sleeper
            finally:
                self._sleeper = None
        return message

    def take(self) -> Event | Resync | None:
        """Acknowledge the last message, unless put off; return the next one, `None` if none waits.

        Raises `SessionEnded` if the holder was evicted and `AllocatorClosed` if the allocator
        crashed; there will be no more messages then. Raises RuntimeError before it is entered.
        """
        in_hand = self._in_hand
        if in_hand is not None:
            self._tell(Acknowledge(self._number, in_hand.seq))
        if self._error is not None:
            self._in_hand = None
            raise self._error.with_traceback(None)
        self._in_hand = message = self._queue.popleft() if self._queue else None
        if message is None:
            self._entered()
        return message

    def acknowledge(self, message: Event | Resync) -> None:
        """Acknowledge a message, early or after `defer`; a second time does nothing.

        What waited for it goes on: lower tiers are told, grants are dropped, an ID in quarantine
        may be reclaimed. Raises `InvalidArgument` for what is no message.
        """
        if type(message) is not Event and type(message) is not Resync:
            raise InvalidArgument.of("message", message, "an Event or Resync")
        if self._in_hand is message:
            self._in_hand = None
        self._tell(Acknowledge(self.number, message.seq))

    def defer(self, message: Event | Resync) -> None:
        """Come back for the next message without acknowledging this one, the last that came.

        `acknowledge` it when what it asks for is done, a device is drained for instance. Raises
        RuntimeError for any other message.
        """
        if self._in_hand is None or self._in_hand is not message:
            raise RuntimeError("only the message that came last, unacknowledged, can be deferred")
        self._in_hand = None
        self._tell(Defer(self.number, message.seq))

    # -- what the allocator actor calls -------------------------------------------------------

    def _enter(self, answer: Subscribed) -> None:
        self._answer = answer
        self._number = answer.subscription

    def _deliver(self, message: Event | Resync) -> None:
        if not self._ended:
            self._queue.append(message)
            # As `_wake`, which a delivery need not pay a call for.
            if self._on_message is not None:
                self._on_message()
            sleeper = self._sleeper
            if sleeper is not None and not sleeper.done():
                sleeper.set_result(None)

    def _withdraw(self, keep: int | None) -> None:
        while self._queue and self._queue[-1].seq != keep:
            self._queue.pop()

    def _leave(self, *, drained: bool) -> None:
        self._end(None if drained else SessionEnded(self._session.number))

    def _close(self, error: AllocatorClosed | None) -> None:
        self._end(error)

    def _end(self, error: SessionEnded | AllocatorClosed | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        if self._on_message is not None:
            self._on_message()
        sleeper = self._sleeper
        if sleeper is not None and not sleeper.done():
            sleeper.set_result(None)
