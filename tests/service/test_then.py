"""What stands in place of a reply."""

from typing import Any

import pytest

from ioasid.actors._reply import Reply
from ioasid.service._then import Then


def test_an_answer_is_dealt_with_at_once() -> None:
    """It is given away as it comes, and nobody can give it up."""
    answers: list[Any] = []
    then = Then(answers.append)
    reply: Reply[Any] = then
    assert (False, False, False) == (reply.done(), reply.cancelled(), reply.cancel())
    reply.set_result(5)
    assert (True, False, False, [5]) == (then.done(), then.cancelled(), then.cancel(), answers)
    for use in (then.result, then.__await__):
        with pytest.raises(NotImplementedError):
            use()
