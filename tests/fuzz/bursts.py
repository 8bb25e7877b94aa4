"""Bursts over a socket: much that is sensible by itself, at once, by clients that guess numbers.

A batch of the allocator may hold all of a burst, so that one ends what another one of the same
batch began, under a number that nobody was told yet.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

from anyio import create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from ioasid.core import (
    Acknowledge,
    Alloc,
    AllocMany,
    AllocSet,
    AttachSpid,
    CloseSession,
    Defer,
    Deliver,
    Detach,
    DetachSpid,
    End,
    EventKind,
    Evict,
    FindBySpid,
    Free,
    FreeSet,
    FreezeSet,
    Get,
    Notify,
    OpenSession,
    Put,
    Request,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    ThawSet,
    TokenType,
    Unsubscribe,
)
from ioasid.service import Answered, Ask, GiveUp, Role
from ioasid.testing import check_state
from tests.service.services import Raw, Service, a_raw_client, a_service, everybody

Choose: TypeAlias = random.Random
NAMES: Final = ("kvm", "vtd", "vdcm")
WITHIN: Final = (None, 0.001, 10.0)
BRIEF: Final = 0.005
"""Seconds for which answers are read between two bursts."""


def _set(choose: Choose) -> int:
    return choose.choice((0, 0, 0, 1, 2))


def _number(choose: Choose) -> int:
    return choose.randint(1, 8)


def _maybe(choose: Choose) -> bool:
    return choose.random() < 0.5


MENU: Final[Sequence[Callable[[Choose], Request]]] = (
    lambda of: Alloc(_set(of)),
    lambda of: AllocMany(_set(of), 2),
    lambda of: Free(_number(of), wait=_maybe(of)),
    lambda of: AllocSet(of.choice(("vm-1", "vm-2")), 4, TokenType.MM),
    lambda of: FreeSet(_set(of), wait=_maybe(of)),
    lambda of: Get(_number(of)),
    lambda of: Put(_number(of)),
    lambda of: Notify(_number(of), of.choice(tuple(EventKind))),
    lambda of: Subscribe(
        sid=of.choice((None, 0)), hold=_maybe(of), acknowledge_within=of.choice(WITHIN)
    ),
    lambda _: Subscribe(hold=True),
    lambda of: Unsubscribe(_number(of)),
    lambda of: Detach(_number(of)),
    lambda of: Acknowledge(tuple((_number(of), _number(of)) for _ in range(of.randint(0, 4)))),
    lambda of: Defer(_number(of), _number(of)),
    lambda of: OpenSession(of.choice(NAMES)),
    lambda _: CloseSession(),
    lambda _: SuspendSession(),
    lambda of: Evict(of.choice(NAMES)),
    lambda of: AttachSpid(_number(of), 100 + _number(of)),
    lambda of: DetachSpid(_number(of)),
    lambda of: FindBySpid(_set(of), 100 + _number(of), _maybe(of)),
    lambda of: FreezeSet(_set(of), wait=_maybe(of)),
    lambda of: ThawSet(_set(of)),
    lambda _: TakeStatistics(),
)


class Client:
    """One that guesses; it comes back under its name, if it has one."""

    def __init__(self, choose: Choose, name: str | None, menu: Sequence[int], firsts: int) -> None:
        self._choose = choose
        self._name = name
        self._menu = menu
        """Some kinds alone, another mixture in each life: what goes together meets oftener."""
        self._sessions = (*(None,) * firsts, *range(1, 8))
        self._last = 0
        self._told: set[int] = set()
        """The subscriptions that it may be told of."""

    async def live(self, service: Service) -> None:
        """Connect three times, and send some bursts each time."""
        for _ in range(3):
            self._told.clear()
            async with a_raw_client(service.path) as raw:
                await raw.hello(self._name)
                for _ in range(self._choose.randint(1, 6)):
                    await raw.send(*self._burst())
                    if self._choose.random() < 0.7:
                        with move_on_after(BRIEF):
                            while await self._look(raw):
                                pass

    def _burst(self) -> list[Ask | GiveUp]:
        frames: list[Ask | GiveUp] = []
        if self._choose.random() < 0.8:
            frames.append(Ask(OpenSession(self._choose.choice(NAMES)), self._next()))
        frames += [self._frame() for _ in range(self._choose.randint(1, 40))]
        return frames

    def _frame(self) -> Ask | GiveUp:
        choose = self._choose
        session = choose.choice(self._sessions)
        if self._last and choose.random() < 0.08:
            return GiveUp(self._next(), choose.randint(1, self._last), session)
        request = MENU[choose.choice(self._menu)](choose)
        if isinstance(request, Acknowledge | Defer):
            return Ask(request, None, session)
        return Ask(request, self._next(), session, choose.random() < 0.2)

    def _next(self) -> int:
        self._last += 1
        return self._last

    async def _look(self, raw: Raw) -> bool:
        frame: Any = await raw.receive()
        match frame:
            case Answered(_, Subscribed(number)):
                self._told.add(number)
            case Deliver(numbers):
                assert self._told.issuperset(numbers), "told of what it does not know"
            case End(number):
                assert number in self._told, "the end of what it does not know"
                self._told.remove(number)
            case _:
                pass
        return frame is not None


async def a_life(choose: Choose, *, journal: bool, clients: int) -> None:
    """Serve some clients until they are gone, and look at what is left of them."""
    menu = [choose.randrange(len(MENU)) for _ in range(choose.randint(2, 9))]
    firsts = choose.choice((0, 2, 20))
    with TemporaryDirectory() as folder:
        kept: dict[str, Any] = {"journal": Path(folder, "journal")} if journal else {}
        async with a_service(everybody(Role.OPERATOR), capacity=16, **kept) as service:
            async with create_task_group() as tasks:
                for number in range(clients):
                    name = f"client {number}" if number % 2 else None
                    # Each chooses for itself, whoever is faster.
                    own = random.Random(choose.random())
                    tasks.start_soon(Client(own, name, menu, firsts).live, service)
            while service.server.statistics().connections:
                await checkpoint()
            await service.driver.send(TakeStatistics())
            actor = service.driver._actor
            check_state(actor._core)
            deadlines, outlets = actor._deadlines, actor._outlets
            assert not actor._joining, "an outlet that nobody has"
            assert deadlines._within.keys() <= outlets.keys(), "a deadline of nobody"
            assert len(deadlines._within) == deadlines._users.total(), "a deadline of nobody"
            assert len(actor._tickets) == len(actor._waiting), "a ticket of nobody"


def run(choose: Choose) -> str:
    """Run one life; what it was."""
    journal, clients = choose.random() < 0.3, choose.randint(1, 5)
    asyncio.run(asyncio.wait_for(a_life(choose, journal=journal, clients=clients), 60))
    return f"{clients} clients{' and a journal' if journal else ''}"
