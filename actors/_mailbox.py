"""The mailbox: many senders, one consumer, batches; fair between senders.

Nothing here waits: `ready` returns what the consumer awaits. So "is it open" and "put" are one
step, and so are "close" and "what is left": an item is either handed to the consumer or returned
by `close`, never lost between the two.

Every sender has a lane, in which its items keep their order. A batch is one round over the lanes
that hold something: all of a short one and a share of a long one, short ones first. So a sender
with ten thousand items waiting delays another's only one by a few, and since every lane has its
turn in every round, nobody starves. While only one sender asks, its share grows.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from anyio import BusyResourceError
from attrs import frozen

from ioasid.actors._reply import Reply, pause, reply_factory

__all__ = ["CALM", "LONE_SHARE", "SHARE", "Lane", "Mailbox", "MailboxClosed", "MailboxStatistics"]

T = TypeVar("T")

SHARE: Final = 2
"""The most items of one lane in a batch, while more than one sender asks.

A larger share costs less per item, and keeps others waiting for longer: `isolation_p99` and
`isolation_throughput` of `make bench` show both.
"""

LONE_SHARE: Final = 64
"""The same when only one sender has asked for long: what an item costs more than in batches without
end is little, and so is what the first ask of another sender has to wait.
"""

CALM: Final = 32
"""After so many batches in which only one sender asked, its share is larger by one.

So it loses little by a single ask of another one; and another one that asks time and again waits
for less the oftener it does.
"""


class MailboxClosed(Exception):
    """The mailbox was closed, and stays so: it takes nothing."""

    def __init__(self) -> None:
        super().__init__("the mailbox is closed")


@frozen
class MailboxStatistics:
    """What a mailbox holds."""

    bound: int
    """The most items in one batch."""
    waiting: int
    """Items for the next batches, of all lanes."""


class Mailbox(Generic[T]):
    """A mailbox for one consumer task and any number of senders, each with a `lane`.

    It belongs to the event loop it was made on: no method may be called from another thread.

    `bound`, at least 1, is the most items the consumer gets in one batch, and so the longest
    it works before the event loop and the askers get their turn. `given_up` tells whether nobody
    waits for an item any more: one that waits long enough is dropped then, and its lane's share
    goes to the next. `lone_share` is the most items in a batch while only one sender asks.

    Raises TypeError if `bound` is not an int (a bool is none), ValueError if it is below 1,
    and RuntimeError outside of an event loop.
    """

    __slots__ = (
        "_active",
        "_asker",
        "_bound",
        "_calm",
        "_closed",
        "_given_up",
        "_leaving",
        "_lone_share",
        "_new_wakeup",
        "_pause",
        "_roused",
        "_share",
        "_wakeup",
    )

    def __init__(
        self, bound: int, given_up: Callable[[T], bool], *, lone_share: int = LONE_SHARE
    ) -> None:
        if isinstance(bound, bool) or not isinstance(bound, int):
            raise TypeError(f"bound must be an int, not {type(bound).__name__}")
        if bound < 1:
            raise ValueError(f"bound must be at least 1, not {bound}")
        self._bound = bound
        self._lone_share = self._share = min(lone_share, bound)
        self._given_up = given_up
        self._asker: Lane[T] | None = None
        self._calm = 0
        self._active: deque[Lane[T]] = deque()
        self._leaving: deque[T] = deque()
        self._closed = False
        self._roused = False
        self._new_wakeup = reply_factory()
        self._pause = pause()
        self._wakeup: Reply[None] | None = None

    def lane(self) -> "Lane[T]":
        """Return the way in for one more sender; a closed mailbox has them, but takes nothing."""
        return Lane(self)

    def ready(self) -> Awaitable[None]:
        """Return what to await before `take`: a sleep if the mailbox is empty, else a checkpoint.

        It lets the event loop run once in any case, so a consumer may loop over it and await
        nothing else. It ends when there is something, or when the mailbox is closed or roused;
        cancelled, it leaves everything in the mailbox.

        Raises anyio.BusyResourceError if another task sleeps already, which is not disturbed.
        """
        if self._active or self._leaving or self._roused or self._closed:
            return self._pause()
        if self._wakeup is not None and not self._wakeup.done():
            raise BusyResourceError("receiving from")
        self._wakeup = self._new_wakeup()
        return self._wakeup

    def take(self) -> list[T]:
        """Return one round of what is in the mailbox, up to `bound` items; call `ready` before.

        The list is the caller's own. Items of one lane come in the order in which they were put.
        Raises MailboxClosed if it is closed.
        """
        if self._closed:
            raise MailboxClosed
        self._roused = False
        share = self._share
        if share < self._lone_share:
            self._calm += 1
            if self._calm == CALM:
                self._calm = 0
                self._share += 1
        active = self._active
        if len(active) == 1 and not self._leaving and len(active[0]._items) <= share:
            # The most frequent round: one asks.
            items = active.pop()._items
            batch = list(items)
            items.clear()
            return batch
        return self._take_round(share)

    def rouse(self) -> None:
        """Let the consumer take a batch, be there anything in it or not."""
        if not self._roused:
            self._roused = True
            if self._wakeup is not None:
                self._wake()

    def close(self) -> list[T]:
        """Close the mailbox for good and return what is left in it, lane by lane.

        The items left are now the caller's: nobody else will see them, so whoever asked has to
        be answered from here. A sleeping consumer is woken, and its `take` raises
        MailboxClosed. To close again is fine and returns an empty list.
        """
        left = [*self._leaving, *(item for lane in self._active for item in lane._items)]
        for lane in self._active:
            lane._items.clear()
        self._active.clear()
        self._leaving.clear()
        self._closed = True
        self._wake()
        return left

    def statistics(self) -> MailboxStatistics:
        """Return the figures of this moment; a closed mailbox has them too."""
        waiting = len(self._leaving) + sum(len(lane._items) for lane in self._active)
        return MailboxStatistics(self._bound, waiting)

    def _take_round(self, share: int) -> list[T]:
        active = self._active
        batch: list[T] = self._pop(self._leaving, self._bound) if self._leaving else []
        shares: list[T] = []
        room = self._bound - len(batch)
        for lane in tuple(active):
            items = lane._items
            count = len(items)
            if count <= share and count <= room:
                active.popleft()
                batch += items
                items.clear()
            elif room:
                active.rotate(-1)
                some = self._pop(items, min(room, share))
                count = len(some)
                shares += some
                if not items:
                    active.pop()
            else:
                break
            room -= count
        batch += shares
        return batch

    def _pop(self, items: deque[T], most: int) -> list[T]:
        popped: list[T] = []
        while items and len(popped) < most:
            item = items.popleft()
            # Not counted, so that who asks and gives up again and again has no longer a lane.
            if not self._given_up(item):
                popped.append(item)
        return popped

    def _wake(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        # Done without us: the consumer was cancelled while it slept.
        if wakeup is not None and not wakeup.done():
            wakeup.set_result(None)


class Lane(Generic[T]):
    """One sender's way into a mailbox; made by `Mailbox.lane`."""

    __slots__ = ("_items", "_mailbox")

    def __init__(self, mailbox: Mailbox[T]) -> None:
        self._mailbox = mailbox
        self._items: deque[T] = deque()

    def put(self, item: T) -> None:
        """Add the item of an asker, one that goes on to wait for its reply.

        There is always room, behind the others of this lane. An item whose asker gives up keeps
        its place until its turn comes.

        Raises MailboxClosed if the mailbox is closed; the item is then not in it.
        """
        mailbox = self._mailbox
        if mailbox._asker is not self:
            if mailbox._asker is not None:
                mailbox._share = SHARE
                mailbox._calm = 0
            mailbox._asker = self
        # As `tell` and `_wake`, which an ask need not pay calls for.
        if mailbox._closed:
            raise MailboxClosed
        items = self._items
        if not items:
            mailbox._active.append(self)
            wakeup = mailbox._wakeup
            if wakeup is not None:
                mailbox._wakeup = None
                if not wakeup.done():
                    wakeup.set_result(None)
        items.append(item)

    def tell(self, item: T) -> None:
        """Add a one-way message, one that nobody waits for, such as an acknowledgement.

        What limits the number of these must come from elsewhere. Raises as `put` does.
        """
        mailbox = self._mailbox
        if mailbox._closed:
            raise MailboxClosed
        if not self._items:
            mailbox._active.append(self)
            if mailbox._wakeup is not None:
                mailbox._wake()
        self._items.append(item)

    def leave(self, item: T) -> None:
        """Add the last item. All of this lane is handed out before anything of another one.

        So who hears that this sender left, and puts something itself, comes after it. Raises as
        `put` does.
        """
        mailbox = self._mailbox
        self.tell(item)
        mailbox._active.remove(self)
        mailbox._leaving += self._items
        self._items.clear()
