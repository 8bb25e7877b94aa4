"""The mailbox: many senders, one consumer, batches.

Everything but `receive` is synchronous. So "is it open" and "put" are one step, and so are
"close" and "what is left": an item is either handed to the consumer or returned by `close`,
never lost between the two.

Two places hold the items: the admitted ones, which the consumer takes as a batch, and behind
them those that wait to be admitted. A waiting item needs no wake-up of its own, since whoever
sent it waits for a reply anyway. Which of the waiting comes next is decided in one method,
`Mailbox._admit`: first come, first served.
"""

from collections import deque
from typing import Generic, TypeVar

from anyio import BusyResourceError
from anyio.lowlevel import checkpoint
from attrs import frozen

from ioasid.actors._reply import Reply, reply_factory

__all__ = ["Mailbox", "MailboxClosed", "MailboxStatistics"]

T = TypeVar("T")


class MailboxClosed(Exception):
    """The mailbox was closed, and stays so: it takes nothing and hands out nothing."""

    def __init__(self) -> None:
        super().__init__("the mailbox is closed")


@frozen
class MailboxStatistics:
    """What a mailbox holds, and what went through it so far."""

    bound: int
    """The most items admitted by `Mailbox.put`, and the most in one batch."""
    admitted: int
    """Items for the next batches; more than `bound` only by `Mailbox.tell`."""
    waiting: int
    """Items behind them, not admitted yet."""
    received: int
    """Items handed to the consumer since the mailbox was made."""
    largest_depth: int
    """The most items, admitted and waiting together, there ever were at once."""


class Mailbox(Generic[T]):
    """A first-in, first-out mailbox for one consumer task and any number of senders.

    It belongs to the event loop it was made on: no method may be called from another thread.

    `bound`, at least 1, is the most items the consumer gets in one batch, and so the longest
    it works before the event loop and the askers get their turn.

    Raises TypeError if `bound` is not an int (a bool is none), ValueError if it is below 1,
    and RuntimeError outside of an event loop.
    """

    __slots__ = (
        "_admitted",
        "_bound",
        "_closed",
        "_largest_depth",
        "_new_wakeup",
        "_received",
        "_receiving",
        "_waiting",
        "_wakeup",
    )

    def __init__(self, bound: int) -> None:
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise TypeError(f"bound must be an int, not {type(bound).__name__}")
        if bound < 1:
            raise ValueError(f"bound must be at least 1, not {bound}")
        self._bound = bound
        self._admitted: list[T] = []
        self._waiting: deque[T] = deque()
        self._closed = False
        self._receiving = False
        self._new_wakeup = reply_factory()
        self._wakeup: Reply[None] | None = None
        self._received = 0
        self._largest_depth = 0

    def put(self, item: T) -> None:
        """Add the item of an asker, one that goes on to wait for its reply.

        It is admitted if fewer than `bound` items are and nobody waits; else it waits its
        turn. An item whose asker gives up keeps its place: the consumer finds out by the
        reply.

        Raises MailboxClosed if the mailbox is closed; the item is then not in it.
        """
        if self._closed:
            raise MailboxClosed
        # Room means that nobody waits: `_admit` leaves no room while somebody does.
        if len(self._admitted) < self._bound:
            self._admitted.append(item)
            if self._wakeup is not None:
                self._wake(self._wakeup)
        else:
            # No wake-up: with the mailbox full, the consumer has been woken already.
            self._waiting.append(item)

    def tell(self, item: T) -> None:
        """Add a one-way message, one that nobody waits for, such as an acknowledgement.

        It is never held back by `bound`: it is admitted at once, unless items wait already.
        Then it queues behind them, for it must not overtake what the same sender put before
        it. So items come out in the order in which they went in, by whichever method. What
        limits the number of these messages must come from elsewhere.

        Raises MailboxClosed if the mailbox is closed; the item is then not in it.
        """
        if self._closed:
            raise MailboxClosed
        if self._waiting:
            self._waiting.append(item)
        else:
            self._admitted.append(item)
            if self._wakeup is not None:
                self._wake(self._wakeup)

    async def receive(self) -> list[T]:
        """Wait until there is something, and return it: 1 to `bound` items, oldest first.

        The list is the caller's own. The places that it leaves go to those that wait.

        Every call that returns has let the event loop run once: by sleeping if the mailbox
        was empty, by a checkpoint if not. A consumer may thus loop over `receive` and await
        nothing else. Items are taken after that and without another await: a cancelled
        `receive` leaves all of them, in order, for the next one.

        Raises MailboxClosed if the mailbox is closed or gets closed meanwhile, and
        anyio.BusyResourceError if another task is in `receive`, which is not disturbed.
        """
        if self._receiving:
            raise BusyResourceError("receiving from")
        self._receiving = True
        try:
            if self._admitted:
                await checkpoint()
            elif not self._closed:
                self._wakeup = wakeup = self._new_wakeup()
                await wakeup
        finally:
            self._receiving = False
        if self._closed:
            raise MailboxClosed
        return self._take()

    def close(self) -> list[T]:
        """Close the mailbox for good and return what is left in it, oldest first.

        The items left, waiting ones included, are now the caller's: nobody else will see
        them, so whoever asked has to be answered from here. A sleeping consumer is woken, and
        its `receive` raises MailboxClosed. To close again is fine and returns an empty list.
        """
        left = [*self._admitted, *self._waiting]
        self._largest_depth = max(self._largest_depth, len(left))
        self._closed = True
        self._admitted.clear()
        self._waiting.clear()
        if self._wakeup is not None:
            self._wake(self._wakeup)
        return left

    def statistics(self) -> MailboxStatistics:
        """Return the figures of this moment; a closed mailbox has them too."""
        admitted, waiting = len(self._admitted), len(self._waiting)
        return MailboxStatistics(
            bound=self._bound,
            admitted=admitted,
            waiting=waiting,
            received=self._received,
            largest_depth=max(self._largest_depth, admitted + waiting),
        )

    def _take(self) -> list[T]:
        batch = self._admitted
        depth = len(batch) + len(self._waiting)
        # Only here and in `close` does it shrink, so `put` and `tell` need not look.
        if depth > self._largest_depth:
            self._largest_depth = depth
        if depth <= self._bound:
            self._admitted = []
        else:
            self._admitted = batch[self._bound :]
            del batch[self._bound :]
            self._admit()
        self._received += len(batch)
        return batch

    def _admit(self) -> None:
        while self._waiting and len(self._admitted) < self._bound:
            self._admitted.append(self._waiting.popleft())

    def _wake(self, wakeup: Reply[None]) -> None:
        self._wakeup = None
        # Done without us: the consumer was cancelled while it slept.
        if not wakeup.done():
            wakeup.set_result(None)
