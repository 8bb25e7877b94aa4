"""How the tests of the histories drive an allocator that checks itself."""

import pytest

from ioasid.core import (
    AllocSet,
    Answer,
    EventKind,
    OpenSession,
    Request,
    SessionOpened,
)
from ioasid.testing import CheckedAllocator, InvariantViolated
from tests.core.helpers import expect

BINDINGS = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


def core_with(*requests: Request) -> CheckedAllocator:
    """A core of 8 IDs with a set of 4, after some requests of the first session."""
    core = CheckedAllocator(8)
    ask(core, AllocSet("vm-1", 4), *requests)
    return core


def ask(core: CheckedAllocator, *requests: Request, session: int = 1) -> Answer | None:
    """Ask some things; returns the last answer."""
    answer = None
    for request in requests:
        answer = core.handle(session, request)
        core.drain()
    return answer


def opened(core: CheckedAllocator, name: str) -> int:
    """The session of a holder that whoever drives the allocator opens."""
    return expect(SessionOpened, ask(core, OpenSession(name), session=0)).session


def violation(core: CheckedAllocator, *requests: Request) -> InvariantViolated:
    """What the last of some requests violates; the core keeps it."""
    with pytest.raises(InvariantViolated) as caught:
        ask(core, *requests)
    assert caught.value is core.violation
    return caught.value
