"""The errors of the fleet: their errnos, and what they say."""

import pytest

from ioasid.core import IoasidError
from ioasid.fleet import (
    HostUnreachable,
    MoveAborted,
    MoveUnderWay,
    StaleCommand,
    StoreUnavailable,
    UnknownVm,
)

ERRORS = [
    (StaleCommand("vm", 7, 8), "ESTALE", "revision 7"),
    (HostUnreachable("a"), "EHOSTUNREACH", "agent of 'a'"),
    (StoreUnavailable("why"), "EAGAIN", "why"),
    (UnknownVm("vm", "at a"), "ENOENT", "'vm' at a"),
    (MoveUnderWay("vm", "FROZEN", "a"), "EBUSY", "FROZEN at a"),
    (MoveAborted("vm", "a", "why"), "ECANCELED", "at a as before: why"),
]


@pytest.mark.parametrize(("error", "code", "words"), ERRORS, ids=lambda each: str(each)[:12])
def test_errors_say_what_and_of_which_kind(error: IoasidError, code: str, words: str) -> None:
    """Each has the field's errno, and its facts are in its message."""
    assert code == error.code
    assert words in str(error)
