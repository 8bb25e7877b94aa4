"""What no request shows: the inside of an allocator, in one place for the tests that look there."""

from ioasid.actors import Session
from ioasid.actors._allocator import AllocatorActor
from ioasid.actors._local_port import LocalPort
from ioasid.core import Allocator


def actor_of(session: Session) -> AllocatorActor:
    """The actor behind a session in the same process."""
    port = session._port
    assert isinstance(port, LocalPort)
    return port._actor


def core_of(session: Session) -> Allocator:
    """The state machine behind a session in the same process."""
    return actor_of(session)._core


def undivided(session: Session) -> None:
    """Let nothing be done in parts: whoever is told of more than its queue holds lags."""
    core_of(session)._tables.part = 1 << 20


def nobody_waits(session: Session) -> bool:
    """Whether neither the actor nor the core remembers a caller that waits."""
    actor = actor_of(session)
    tables = actor._core._tables
    return not (actor._waiting or actor._tickets or tables.waiters or tables.resumed)
