"""The errors of the fleet: their errnos, and what they say."""

import pytest

from ioasid.core import IoasidError
from ioasid.fleet import (
    HostUnreachable,
    MoveAborted,
    MoveUnderWay,
    RecordTooLarge,
    StaleCommand,
    StoreForbidden,
    StoreFull,
    StoreUnavailable,
    UnknownHost,
    UnknownTenant,
    UnknownVm,
    UnreadableRecord,
)

ERRORS = [
    (StaleCommand("vm", 7, 8), "ESTALE", "revision 7"),
    (HostUnreachable("a"), "EHOSTUNREACH", "agent of 'a'"),
    (StoreUnavailable("why"), "EAGAIN", "the store does not answer: why; ask again"),
    (StoreUnavailable("why", "it", "do"), "EAGAIN", "it does not answer: why; do"),
    (StoreForbidden("why", "it", "do"), "EACCES", "it does not let a fleet in: why; do"),
    (StoreFull("why", "it", "do"), "ENOSPC", "it is full: why; do"),
    (RecordTooLarge("why", "it", "do"), "EMSGSIZE", "it does not take so much at once: why; do"),
    (UnreadableRecord("vm/x", "why"), "EBADMSG", "under 'vm/x' is no record of a fleet: why; run"),
    (UnknownHost("a", "b, c"), "ENOENT", "no host 'a' in the fleet; those that are alive: b, c"),
    (UnknownTenant("t"), "ENOENT", "no tenant 't' in the fleet"),
    (UnknownVm("vm", "at a"), "ENOENT", "'vm' at a"),
    (MoveUnderWay("vm", "FROZEN", "a"), "EBUSY", "FROZEN at a"),
    (MoveAborted("vm", "a", "why"), "ECANCELED", "at a as before: why"),
]


@pytest.mark.parametrize(("error", "code", "words"), ERRORS, ids=lambda each: str(each)[:12])
def test_errors_say_what_and_of_which_kind(error: IoasidError, code: str, words: str) -> None:
    """Each has the field's errno, and its facts are in its message."""
    assert code == error.code
    assert words in str(error)
