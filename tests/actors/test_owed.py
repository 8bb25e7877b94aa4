"""Answers that are owed: each is given once."""

import pytest

from ioasid.actors._owed import Owed
from ioasid.actors._reply import reply_factory
from ioasid.core import Message

pytestmark = pytest.mark.anyio


class Ask(Message, frozen=True):
    """Something asked."""

    number: int


async def test_what_is_owed_is_answered_once() -> None:
    """Whoever waits gets the answer; an answer that nobody waits for names its message, once."""
    new_reply, owed = reply_factory(), Owed()
    waits, gone = owed.take(Ask(1), new_reply()), owed.take(Ask(2), new_reply())
    gone.cancel()
    assert [None, Ask(2)] == [owed.answer(waits, "one"), owed.answer(gone, "two")]
    assert "one" == await waits
    assert [None, None] == [owed.answer(waits, "again"), owed.answer(gone, "again")]


async def test_a_failure_is_for_everybody_who_waits() -> None:
    """What is owed, and what was not taken up, fails with an error each, and their cause."""
    new_reply, owed = reply_factory(), Owed()
    replies = [new_reply() for _ in range(3)]
    for number in (1, 2):
        assert owed.take(Ask(number), replies[number - 1]) is replies[number - 1]
    replies[1].set_result("before")
    cause = KeyError(1)
    items = [(Ask(3), replies[2]), (Ask(4), None)]
    owed.fail(items, lambda: OSError("down"), cause=cause)
    first, before, last = [await each for each in replies]
    assert isinstance(first, OSError)
    assert isinstance(last, OSError)
    assert ("before", cause, cause) == (before, first.__cause__, last.__cause__)
    assert first is not last
    assert None is owed.answer(replies[0], "late")
