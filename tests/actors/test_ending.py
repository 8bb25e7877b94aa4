"""The end of an allocator, and who is told of it."""

import pytest

from ioasid.actors._ending import Ending
from ioasid.core import AllocatorClosed, SessionEnded


def test_an_end() -> None:
    """Whoever watches is called once, and everybody who asks is told why."""
    ending, called = Ending(), list[str]()
    ending.watch(lambda: called.append("one"))
    forget = ending.watch(lambda: called.append("two"))
    ending.check()
    forget()
    forget()
    ending.begin(AllocatorClosed("was shut down"))
    ending.begin(AllocatorClosed("crashed"))
    assert ["one"] == called
    with pytest.raises(AllocatorClosed, match="was shut down"):
        ending.check()


def test_whoever_comes_too_late() -> None:
    """It is called at once, for it would wait for ever."""
    ending, called = Ending(), list[str]()
    ending.begin(AllocatorClosed("was shut down"))
    ending.watch(lambda: called.append("late"))()
    assert ["late"] == called


def test_a_session_within_an_allocator() -> None:
    """It ends by itself or with its allocator, and whoever watches is told once."""
    allocator, called = Ending(), list[str]()
    one, two = Ending(allocator), Ending(allocator)
    one.watch(lambda: called.append("one"))
    two.watch(lambda: called.append("two"))
    two.watch(lambda: called.append("gone"))()
    gone = SessionEnded(1)
    one.begin(gone)
    assert ["one"] == called
    assert (True, None, None) == (one.error is gone, two.error, allocator.error)
    allocator.begin(AllocatorClosed("was shut down"))
    two.begin(SessionEnded(2))
    assert ["one", "two"] == called
    with pytest.raises(SessionEnded):
        one.check()
    with pytest.raises(AllocatorClosed):
        two.check()
