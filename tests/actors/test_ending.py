"""The end of an allocator, and who is told of it."""

import pytest

from ioasid.actors._ending import Ending
from ioasid.core import AllocatorClosed


def test_an_end() -> None:
    """Whoever watches is called once, and everybody who asks is told why."""
    ending, called = Ending(), list[str]()
    ending.watch(lambda: called.append("one"))
    forget = ending.watch(lambda: called.append("two"))
    ending.check()
    forget()
    forget()
    ending.begin("was shut down")
    ending.begin("crashed")
    assert ["one"] == called
    with pytest.raises(AllocatorClosed, match="was shut down"):
        ending.check()


def test_whoever_comes_too_late() -> None:
    """It is called at once, for it would wait for ever."""
    ending, called = Ending(), list[str]()
    ending.begin("was shut down")
    ending.watch(lambda: called.append("late"))()
    assert ["late"] == called
