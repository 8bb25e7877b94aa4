"""The queue between the allocator and one subscriber, filled and emptied by hand."""

import pytest

from ioasid.actors._port import Outlet
from ioasid.actors._queue import Queue
from ioasid.actors._reply import reply_factory
from ioasid.core import AllocatorClosed, Event, EventKind, SessionEnded

pytestmark = pytest.mark.anyio


def event(seq: int) -> Event:
    """A message with this number."""
    return Event(seq, EventKind.ALLOC, 1, 0)


def filled(*seqs: int) -> tuple[Queue, list[str]]:
    """A queue with messages of these numbers, and what its waker has noted since."""
    notes: list[str] = []
    queue = Queue(7, lambda: notes.append("woken"))
    for seq in seqs:
        queue.deliver(event(seq))
    notes.clear()
    return queue, notes


def seqs(queue: Queue) -> list[int]:
    """The numbers of the messages in a queue."""
    return [each.seq for each in queue.messages]


def test_a_queue_is_an_outlet() -> None:
    """It is what an allocator delivers to."""
    outlet: Outlet = Queue(7, None)
    outlet.deliver(event(1))
    assert isinstance(outlet, Queue)
    assert [1] == seqs(outlet)


def test_messages_keep_their_order() -> None:
    """Each message goes behind those before it, and its consumer is woken for each."""
    queue, notes = filled()
    for seq in (1, 2, 3):
        queue.deliver(event(seq))
    assert ([1, 2, 3], ["woken"] * 3) == (seqs(queue), notes)


@pytest.mark.parametrize(
    ("keep", "left"), [(None, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (9, [])]
)
def test_withdrawing(keep: int | None, left: list[int]) -> None:
    """All behind the message to be kept is dropped; all of it, if that one was taken before."""
    queue, notes = filled(1, 2, 3)
    queue.withdraw(keep)
    assert (left, []) == (seqs(queue), notes)


def test_an_end_that_drains() -> None:
    """What is there can be taken, nothing comes any more, and there is no error."""
    queue, notes = filled(1)
    queue.end(drained=True)
    queue.deliver(event(2))
    assert (True, None, [1], ["woken"]) == (queue.ended, queue.error, seqs(queue), notes)


def test_an_end_that_does_not() -> None:
    """The consumer is told that its session ended."""
    queue, notes = filled(1)
    queue.end(drained=False)
    assert isinstance(queue.error, SessionEnded)
    assert (7, True, ["woken"]) == (queue.error.session, queue.ended, notes)


@pytest.mark.parametrize("error", [None, AllocatorClosed("crashed")])
def test_a_close(error: AllocatorClosed | None) -> None:
    """The consumer is told what the allocator closed by, if not in order."""
    queue, notes = filled(1)
    queue.close(error)
    assert (True, error, [1], ["woken"]) == (queue.ended, queue.error, seqs(queue), notes)


def test_the_first_end_counts() -> None:
    """What comes after an end changes nothing and wakes nobody."""
    queue, notes = filled()
    queue.end(drained=True)
    queue.end(drained=False)
    queue.close(AllocatorClosed("crashed"))
    assert (None, ["woken"]) == (queue.error, notes)


def test_leaving() -> None:
    """From the consumer's side: all is dropped, nobody is woken, now or later."""
    queue, notes = filled(1, 2)
    queue.leave()
    queue.deliver(event(3))
    queue.close(AllocatorClosed("crashed"))
    assert (True, None, [], []) == (queue.ended, queue.error, seqs(queue), notes)


async def test_a_sleeper_is_woken_once() -> None:
    """Who waits is woken by the first message or the end; more of it is no mistake."""
    queue = Queue(7, None)
    queue.sleeper = reply_factory()()
    assert not queue.sleeper.done()
    queue.deliver(event(1))
    assert queue.sleeper.done()
    queue.deliver(event(2))
    queue.end(drained=True)
    await queue.sleeper
    assert [1, 2] == seqs(queue)


async def test_a_sleeper_is_woken_by_the_end() -> None:
    """Who waits while nothing is there learns of the end."""
    queue = Queue(7, None)
    queue.sleeper = reply_factory()()
    queue.close(None)
    assert queue.sleeper.done()


async def test_a_sleeper_that_gave_up() -> None:
    """Who was cancelled while it slept is no obstacle to a message."""
    queue = Queue(7, None)
    queue.sleeper = reply_factory()()
    queue.sleeper.cancel()
    queue.deliver(event(1))
    assert [1] == seqs(queue)
