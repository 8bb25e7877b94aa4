"""The requests: complete, with what answers them, and with the defaults that are meant most."""

from typing import Any, get_args

import pytest

from ioasid.core import (
    Alloc,
    AllocSet,
    EventKind,
    Free,
    FreeSet,
    Priority,
    Request,
    Subscribe,
    TokenType,
)
from tests.core.examples import REQUESTS


def test_the_examples_leave_none_out() -> None:
    """There is an example of every request."""
    assert set(get_args(Request)) == {type(example) for example in REQUESTS}


@pytest.mark.parametrize("kind", get_args(Request))
def test_a_request_says_what_answers_it(kind: Any) -> None:
    """The answer stands with the request."""
    assert "Answer: `" in " ".join(kind.__doc__.split())


def test_defaults() -> None:
    """What is left out is what is most often meant."""
    assert Alloc(0, 1, None, None) == Alloc(0)
    assert Free(1, None, False) == Free(1)
    assert FreeSet(0, True, False) == FreeSet(0)
    assert AllocSet("vm-1", None, TokenType.MM) == AllocSet("vm-1")
    expected = Subscribe(None, None, frozenset(EventKind), Priority.LAST, False, False, 1024, 10.0)
    assert expected == Subscribe()
