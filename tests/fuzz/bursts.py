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

from anyio import Event, create_task_group, fail_after, move_on_after
from anyio.lowlevel import checkpoint

from ioasid.actors._local_port import LocalPort
from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    Alloc,
    AllocatorClosed,
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
    Resync,
    SessionOpened,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    ThawSet,
    TokenType,
    Unsubscribe,
    Withdraw,
)
from ioasid.core import Event as Message
from ioasid.service import Answered, Ask, GiveUp, Narrow, Role
from ioasid.testing import check_state
from tests.service.services import Raw, Service, a_raw_client, a_service, everybody

Choose: TypeAlias = random.Random
NAMES: Final = ("kvm", "vtd", "vdcm")
WITHIN: Final = (None, 0.001, 10.0)
BRIEF: Final = 0.005
"""Seconds for which answers are read between two bursts."""
IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the journals are, if there is such a place: what a disk takes is not looked at."""
LONG: Final = 20.0
"""Seconds after which an answer is taken to be lost."""


def _set(choose: Choose) -> int:
    return choose.choice((0, 0, 0, 1, 2))


def _number(choose: Choose) -> int:
    # Small ones mostly, and some that come late in a life.
    return 1 + int(choose.expovariate(0.15))


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


class Rendezvous:
    """Where the clients of a life wait for each other, before all that holds is evicted."""

    def __init__(self, clients: int) -> None:
        self._missing = clients
        self.all_came = Event()
        self.evicted = Event()
        self.left = Event()

    async def wait(self) -> None:
        """Wait for all the others, and for the eviction."""
        self.come()
        await self.evicted.wait()

    def come(self) -> None:
        """Be one less that is waited for."""
        self._missing -= 1
        if not self._missing:
            self.all_came.set()


class Client:
    """One that guesses; it comes back under its name, if it has one."""

    def __init__(self, choose: Choose, name: str | None, menu: Sequence[int], firsts: int) -> None:
        self._choose = choose
        self._name = name
        self._menu = menu
        """Some kinds alone, another mixture in each life: what goes together meets oftener."""
        self._sessions = (*(None,) * firsts, *range(1, 16))
        self._last = 0
        self._told: set[int] = set()
        """The subscriptions that it may be told of."""
        self._due: dict[int, Ask | GiveUp] = {}
        """What was asked on this connection and not answered."""
        self._given_up: set[int] = set()

    async def live(self, service: Service, rendezvous: Rendezvous) -> None:
        """Connect three times, and send some bursts each time; the last one ends it in order."""
        for life in range(3):
            self._told.clear()
            before, self._due = self._due, {}
            async with a_raw_client(service.path) as raw:
                if self._choose.random() < 0.15:
                    await raw.send(Narrow("vm-1", NAMES))
                    await raw.receive()
                welcome = await raw.hello(self._name)
                if welcome.resumed:
                    again = [each for each in before.values() if each.id not in self._given_up]
                    await self._send(raw, [Ask(OpenSession("kvm"), self._next()), *again])
                for _ in range(self._choose.randint(1, 6)):
                    await self._send(raw, self._burst())
                    if self._choose.random() < 0.7:
                        with move_on_after(BRIEF):
                            while await self._look(raw):
                                pass
                if life == 2 or self._choose.random() < 0.3:
                    await self._settle(raw, waits=False)
                if life == 2:
                    await rendezvous.wait()
                    await self._settle(raw, waits=True)
                    rendezvous.come()
                    await rendezvous.left.wait()

    async def _send(self, raw: Raw, frames: list[Ask | GiveUp]) -> None:
        for frame in frames:
            if frame.id is not None:
                self._due[frame.id] = frame
            if isinstance(frame, GiveUp):
                self._given_up.add(frame.of)
        await raw.send(*frames)

    async def _settle(self, raw: Raw, *, waits: bool) -> None:
        # Until all is answered, but what is given up and, perhaps, what waits for others.
        def missing() -> list[Ask | GiveUp]:
            return [
                each
                for each in self._due.values()
                if each.id not in self._given_up
                and (waits or isinstance(each, GiveUp) or not getattr(each.request, "wait", False))
            ]

        with move_on_after(LONG) as scope:
            while missing():
                assert await self._look(raw), f"ended without {missing()}"
        assert not scope.cancelled_caught, f"not answered: {missing()}"

    def _burst(self) -> list[Ask | GiveUp]:
        frames: list[Ask | GiveUp] = []
        if self._choose.random() < 0.8:
            frames.append(Ask(OpenSession(self._choose.choice(NAMES)), self._next()))
        frames += [self._frame() for _ in range(self._choose.randint(1, 40))]
        if self._choose.random() < 0.2:
            # All of its lane goes into one batch then.
            last = self._choose.choice((SuspendSession(), CloseSession()))
            frames.append(Ask(last, self._next(), self._choose.choice(self._sessions)))
        return frames

    def _frame(self) -> Ask | GiveUp:
        choose = self._choose
        session = choose.choice(self._sessions)
        if self._last and choose.random() < 0.08:
            number = self._next()
            return GiveUp(number, choose.randint(max(1, number - 12), number + 2), session)
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
            case Answered(number, answer):
                assert number in self._due, "answered twice, or what was not asked"
                del self._due[number]
                if isinstance(answer, Subscribed):
                    self._told.add(answer.subscription)
            case Deliver(numbers):
                assert self._told.issuperset(numbers), "told of what it does not know"
            case Withdraw(number):
                assert number in self._told, "to drop what it does not know"
            case End(number):
                assert number in self._told, "the end of what it does not know"
                self._told.remove(number)
            case _:
                pass
        return frame is not None


class Box:
    """The outlet of a subscriber in the same process."""

    def __init__(self) -> None:
        self.messages: list[Message | Resync] = []
        self.is_over = False

    def deliver(self, message: Message | Resync) -> None:
        """Keep it."""
        assert not self.is_over, "told after its end"
        self.messages.append(message)

    def withdraw(self, _: int | None) -> None:
        """Drop all."""
        assert not self.is_over, "told after its end"
        self.messages.clear()

    def end(self, *, drained: bool) -> None:
        """Be over."""
        assert not self.is_over, f"ended twice, drained {drained}"
        self.is_over = True

    def close(self, _: AllocatorClosed | None) -> None:
        """Be over."""
        assert not self.is_over, "closed after its end"
        self.is_over = True


class Neighbour:
    """One in the same process, which posts much in one turn."""

    def __init__(self, choose: Choose, menu: Sequence[int]) -> None:
        self._choose = choose
        self._menu = menu
        self._asked: list[tuple[Request, Reply[Any]]] = []
        self._boxes: list[tuple[Reply[Any], Box]] = []

    async def live(self, service: Service, rendezvous: Rendezvous) -> None:
        """Open three sessions, one after the other, and leave the last one in order."""
        choose, driver = self._choose, service.driver
        port: LocalPort | None = None
        for _ in range(3):
            opened = await driver.send(OpenSession(choose.choice(NAMES)))
            if not isinstance(opened, SessionOpened):
                continue
            port = driver.join(opened)
            for _ in range(choose.randint(1, 4)):
                self._burst(port)
                if choose.random() < 0.5:
                    await checkpoint()
            if choose.random() < 0.8:
                port.leave(choose.choice((SuspendSession(), CloseSession())))
                port = None
            await self._settle(waits=False)
        await rendezvous.wait()
        await self._settle(waits=True)
        if port is not None:
            port.leave(CloseSession())
        rendezvous.come()
        await rendezvous.left.wait()

    def _burst(self, port: LocalPort) -> None:
        choose = self._choose
        for _ in range(choose.randint(1, 40)):
            if self._asked and choose.random() < 0.08:
                port.give_up(*choose.choice(self._asked[-12:]))
                continue
            request = MENU[choose.choice(self._menu)](choose)
            reply = port.new_reply()
            if isinstance(request, OpenSession | CloseSession | SuspendSession):
                continue
            if isinstance(request, Subscribe):
                box = Box()
                self._boxes.append((reply, box))
                port.post(request, reply, box)
            else:
                port.post(request, reply, insists=choose.random() < 0.2)
            self._asked.append((request, reply))
        for reply, box in self._boxes:
            if reply.done() and not reply.cancelled() and isinstance(reply.result(), Subscribed):
                for message in box.messages:
                    port.acknowledge(reply.result().subscription, message, behind=False)
                box.messages.clear()

    async def _settle(self, *, waits: bool) -> None:
        with fail_after(LONG):
            for request, reply in self._asked:
                while not reply.done() and (waits or not getattr(request, "wait", False)):
                    await checkpoint()


async def commit_slowly(_: object) -> None:
    """Keep nothing, and take some turns for it."""
    for _ in range(7):
        await checkpoint()


async def a_life(choose: Choose, kept: str, clients: int) -> None:
    """Serve some clients until they are gone, and look at what is left of them."""
    menu = [choose.randrange(len(MENU)) for _ in range(choose.randint(2, 9))]
    firsts = choose.choice((0, 2, 20))
    with TemporaryDirectory(dir=IN_MEMORY) as folder:
        ways: dict[str, dict[str, Any]] = {
            "nothing": {},
            "a journal": {"journal": Path(folder, "journal")},
            "slow commits": {"commit": commit_slowly},
        }
        async with a_service(everybody(Role.OPERATOR), capacity=16, **ways[kept]) as service:
            actor, server = service.driver._actor, service.server
            async with create_task_group() as tasks:
                # Each waits twice, once before the eviction and once behind it.
                rendezvous = Rendezvous(clients)
                for number in range(clients):
                    # Each chooses for itself, whoever is faster.
                    own = random.Random(choose.random())
                    if number == 3:
                        tasks.start_soon(Neighbour(own, menu).live, service, rendezvous)
                        continue
                    name = f"client {number}" if number % 2 else None
                    tasks.start_soon(Client(own, name, menu, firsts).live, service, rendezvous)
                await rendezvous.all_came.wait()
                check_state(actor._core)
                rendezvous.all_came, rendezvous._missing = Event(), clients
                for name in NAMES:
                    await _evict(service, name)
                rendezvous.evicted.set()
                await rendezvous.all_came.wait()
                await service.driver.send(TakeStatistics())
                for peer in server._peers:
                    _check_peer(peer, actor)
                rendezvous.left.set()
            with fail_after(LONG):
                while server.statistics().connections:
                    await checkpoint()
            await service.driver.send(TakeStatistics())
            check_state(actor._core)
            deadlines = actor._deadlines
            assert not actor._joining, "an outlet that nobody has"
            assert not actor._outlets, "an outlet of nobody"
            assert not deadlines._within, "a deadline of nobody"
            assert not deadlines._users, "a deadline of nobody"
            assert not actor._waiting, "one that waits for ever"
            assert not actor._tickets, "a ticket of nobody"
            assert not server._shared.memories.here, "a client that is gone"
            assert not server._users, "a user who is gone"
            assert not actor._sessions, f"sessions of nobody: {actor._sessions}"


async def _evict(service: Service, name: str) -> None:
    async with a_raw_client(service.path) as raw:
        await raw.hello()
        await raw.send(Ask(OpenSession(f"operator of {name}"), 1), Ask(Evict(name), 2))
        answered = 0
        while answered < 2:
            frame = await raw.receive()
            assert frame is not None
            answered += isinstance(frame, Answered)
        await raw.ask(Ask(CloseSession(), 3))


def _check_peer(peer: Any, actor: Any) -> None:
    # One that has been answered everything.
    has, window, memory = peer._has, peer._window, peer._memory
    if memory is None:
        return
    assert not peer._held, "a frame that is held back"
    assert 0 == has.opening == has._subscribing, "what is not under way any more"
    assert 0 == window.in_flight == window._fences, (window.in_flight, window._fences)
    assert [] == memory.pending, "what nobody waits for"
    assert 0 == memory.waits, "what nobody waits for"
    for number, outlet in has.outlets.items():
        assert actor._outlets.get(number) is outlet, f"an outlet of nobody: {number}"


def run(choose: Choose) -> str:
    """Run one life; what it was."""
    kept = choose.choice(("nothing", "nothing", "a journal", "slow commits"))
    clients = choose.randint(1, 5)
    asyncio.run(asyncio.wait_for(a_life(choose, kept, clients), 60))
    return f"{clients} clients and {kept}"
