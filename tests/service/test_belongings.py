"""What one connection has: sessions and subscriptions, within bounds."""

from typing import Any

import pytest

from ioasid.actors import Decision
from ioasid.actors._open import open_driver
from ioasid.core import (
    CloseSession,
    InvalidArgument,
    ListSets,
    OpenSession,
    Request,
    SessionEnded,
    Subscribe,
    SuspendSession,
)
from ioasid.service import Limits, PermissionDenied, Role, TooMany
from ioasid.service._account import Account
from ioasid.service._belongings import Belongings
from ioasid.service._memory import Asked, Memories, Memory
from ioasid.service._shared import Shared
from tests.actors.hosts import settle
from tests.service.services import UID, a_permit
from tests.service.test_memory import Connection
from tests.service.test_outlet import Queueing

pytestmark = pytest.mark.anyio
OPERATOR = a_permit(Role.OPERATOR)


class Telling(Connection):
    """Passes on what it is told, as a connection does."""

    def __init__(self, has: Belongings) -> None:
        super().__init__()
        self.has = has

    def told(self, asked: Asked) -> None:
        """Let them change."""
        self.has.told(asked)


def nobody(session: int) -> None:
    """Nobody is told."""


async def test_sessions_come_and_go() -> None:
    """One is there when it is answered, and no more as soon as it is to be closed."""
    async with open_driver() as driver:
        shared = Shared(driver, Limits(sessions=2), "epoch", Memories(1, 1, 1), Account())
        has = Belongings(shared, nobody)

        def send(request: Request, port: Any = driver) -> None:
            request = has.admitted(request, OPERATOR)
            asked = Asked(Memory(None, 9), Telling(has), 1, port, request, None)
            has.send(asked, Queueing())

        with pytest.raises(SessionEnded):
            has.port(None)
        send(OpenSession("a"))
        send(OpenSession("b"))
        assert ({}, 2) == (has.sessions, has.opening)
        with pytest.raises(TooMany):
            send(OpenSession("c"))
        await settle()
        first, second = has.sessions
        assert has.port(None) is has.port(first) is not has.port(second)
        with pytest.raises(TooMany):
            send(OpenSession("c"))
        send(CloseSession(), has.port(first))
        assert ([second], False) == (list(has.sessions), has.left_in_order)
        has.take_back(second, CloseSession())
        has.take_back(second, SuspendSession())
        with pytest.raises(SessionEnded):
            has.port(second)
        send(OpenSession("c"))
        await settle()
        (third,) = has.sessions
        send(Subscribe(), has.port(third))
        await settle()
        assert 1 == len(has.outlets)
        send(CloseSession(), has.port(third))
        assert has.left_in_order


async def test_what_is_admitted() -> None:
    """Names by the permit, with the owner that the kernel names, and queues of a bounded size."""
    async with open_driver() as driver:
        limits = Limits(subscriptions=1, queue_size=10)
        has = Belongings(Shared(driver, limits, "epoch", Memories(1, 1, 1), Account()), nobody)
        assert OpenSession("a", UID) == has.admitted(OpenSession("a", 5), OPERATOR)
        with pytest.raises(PermissionDenied):
            has.admitted(OpenSession("a"), a_permit(Role.DRIVER, holders=("b",)))
        assert Subscribe(queue_size=10) == has.admitted(Subscribe(queue_size=10), OPERATOR)
        with pytest.raises(InvalidArgument):
            has.admitted(Subscribe(queue_size=11), OPERATOR)
        asked = Asked(Memory(None, 9), Telling(has), 1, driver, Subscribe(), None)
        has.send(asked, Queueing())
        with pytest.raises(TooMany):
            has.admitted(Subscribe(queue_size=10), OPERATOR)
        has.cancelled(asked)
        has.admitted(Subscribe(queue_size=10), OPERATOR)


async def test_who_left_gets_nothing() -> None:
    """Its sessions are suspended, and nothing of them is left."""
    async with open_driver() as driver:
        has = Belongings(Shared(driver, Limits(), "epoch", Memories(1, 1, 1), Account()), nobody)
        request = OpenSession("a", UID)
        has.send(Asked(Memory(None, 9), Telling(has), 1, driver, request, None), Queueing())
        await settle()
        assert 1 == len(has.sessions)
        has.suspend()
        assert ({}, {}) == (has.sessions, has.outlets)


async def test_nobody_waits_behind_who_looks() -> None:
    """Many looks of a connection without sessions keep those of another one waiting little."""
    seen: list[Decision] = []
    async with open_driver(taps=[seen.append]) as driver:
        shared = Shared(driver, Limits(), "epoch", Memories(1, 1, 1), Account())
        flood, modest = Belongings(shared, nobody), Belongings(shared, nobody)
        for _ in range(1000):
            flood.without_session.tell(ListSets())
        await modest.without_session.send(ListSets())
        await driver.send(OpenSession("vm"))
        before = len(seen)
    assert before < 500
