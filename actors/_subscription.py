"""A subscription as its consumer sees it: a queue that the allocator fills and never waits for.

The same queue serves two kinds of consumer. A task iterates over it; an actor is called when
there is something to take, posts itself a note and takes it when the note's turn comes, so that
it stays single-threaded.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Final, NoReturn, Self

from anyio import BusyResourceError

from ioasid.actors._port import Port, answered
from ioasid.actors._queue import Queue
from ioasid.core import (
    Defer,
    Detach,
    Event,
    InvalidArgument,
    Resync,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

__all__ = ["Subscription"]

MAX_SEQ: Final = 2**64 - 1


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
        self, port: Port, request: Subscribe, session: int, wake: Callable[[], None] | None
    ) -> None:
        self._port = port
        self._request = request
        self._queue = Queue(session, wake)
        self._in_hand: Event | Resync | None = None
        self._answer: Subscribed | None = None
        self._number = 0
        self._acknowledge = port.acknowledge
        self._tell = port.tell
        self._check = port.check
        self._new_reply = port.new_reply

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
        reply = self._port.attach(self._request, self._queue)
        try:
            answer = answered(await reply, Subscribed)
        except BaseException:
            self._port.give_up(self._request, reply)
            raise
        self._answer = answer
        self._number = answer.subscription
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unsubscribe, or leave it for the next session if an exception ends it."""
        number = self._entered().subscription
        self._tell(Unsubscribe(number) if error is None else Detach(number))
        self._in_hand = None
        self._queue.leave()

    def __aiter__(self) -> Self:
        """Return itself: there is one queue and one consumer."""
        return self

    async def __anext__(self) -> Event | Resync:
        """Acknowledge the last message, unless put off, and wait for the next one.

        Raises anyio.BusyResourceError while another task waits, which is not disturbed.
        """
        queue = self._queue
        if queue.sleeper is not None:
            raise BusyResourceError("iterating over")
        # The same as `take`, which an event need not pay a call for.
        messages = queue.messages
        in_hand = self._in_hand
        if in_hand is not None:
            behind = queue.behind or len(messages) > 0
            self._acknowledge(self._number, in_hand, behind=behind)
            self._in_hand = None
        else:
            self._check()
        while not messages or queue.error is not None:
            if queue.ended or self._answer is None:
                self._raise_end()
            queue.sleeper = sleeper = self._new_reply()
            try:
                await sleeper
            finally:
                queue.sleeper = None
        self._in_hand = message = messages.popleft()
        return message

    def _raise_end(self) -> NoReturn:
        self._entered()
        if self._queue.error is not None:
            raise self._queue.error.with_traceback(None)
        raise StopAsyncIteration

    def take(self) -> Event | Resync | None:
        """Acknowledge the last message, unless put off; return the next one, `None` if none waits.

        Raises `SessionEnded` if the holder was evicted and `AllocatorClosed` if there is no
        allocator any more, in order or not: there will be no more messages then. Raises
        RuntimeError before it is entered.
        """
        queue = self._queue
        messages = queue.messages
        in_hand = self._in_hand
        if in_hand is not None:
            behind = queue.behind or len(messages) > 0
            self._acknowledge(self._number, in_hand, behind=behind)
        else:
            self._check()
        if queue.error is not None:
            self._in_hand = None
            raise queue.error.with_traceback(None)
        self._in_hand = message = messages.popleft() if messages else None
        if message is None:
            self._entered()
            # Whoever is woken would wait for ever, where an iteration ends.
            self._port.ending.check()
        return message

    def acknowledge(self, message: Event | Resync) -> None:
        """Acknowledge a message, early or after `defer`; a second time does nothing.

        What waited for it goes on: lower tiers are told, grants are dropped, an ID in quarantine
        may be reclaimed. Raises `InvalidArgument` for what is no message.
        """
        if type(message) is not Event and type(message) is not Resync:
            raise InvalidArgument.of("message", message, "an Event or Resync")
        number, seq, queue = self.number, message.seq, self._queue
        is_in_hand = self._in_hand is message
        # What can't have been told is left out: a request of all must not be refused for it.
        if queue.ended or type(seq) is not int or not 0 <= seq <= MAX_SEQ:
            self._check()
        else:
            behind = queue.behind or len(queue.messages) > 0 or not is_in_hand
            self._acknowledge(number, message, behind=behind)
        if is_in_hand:
            self._in_hand = None

    def defer(self, message: Event | Resync) -> None:
        """Come back for the next message without acknowledging this one, the last that came.

        `acknowledge` it when what it asks for is done, a device is drained for instance. Raises
        RuntimeError for any other message.
        """
        if self._in_hand is None or self._in_hand is not message:
            raise RuntimeError("only the message that came last, unacknowledged, can be deferred")
        self._tell(Defer(self.number, message.seq))
        self._in_hand = None
