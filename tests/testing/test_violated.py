"""What says which invariant does not hold."""

import pytest

from ioasid.testing import INVARIANTS, InvariantViolated
from ioasid.testing._violated import invariant


@invariant(4)
def plain(count: int) -> int:
    """Assert without a message."""
    assert count == 1
    return count


@invariant(2)
def outer() -> None:
    """Run a check inside of a check."""
    assert plain(2), "never said"


@invariant(7)
def telling() -> None:
    """Assert with a message."""
    raise AssertionError("it says why")


def test_a_check_that_holds_is_a_call() -> None:
    """A check returns what it returns."""
    assert 1 == plain(1)


def test_what_does_not_hold_is_named() -> None:
    """The violation has the invariant's number, the check and what was found."""
    with pytest.raises(InvariantViolated, match=INVARIANTS[7]) as caught:
        telling()
    error = caught.value
    assert (7, "telling", "it says why") == (error.number, error.check, error.detail)


def test_an_assertion_without_a_message_is_shown() -> None:
    """Without a message the detail is the assertion, with its values or as its line."""
    with pytest.raises(InvariantViolated) as caught:
        plain(2)
    assert "== 1" in caught.value.detail


def test_the_inner_check_is_named() -> None:
    """Of checks inside each other the one that found it is named."""
    with pytest.raises(InvariantViolated) as caught:
        outer()
    assert (4, "plain") == (caught.value.number, caught.value.check)
