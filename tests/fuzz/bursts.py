"""Bursts over a socket: much that is sensible by itself, at once, by clients that guess numbers.

A batch of the allocator may hold all of a burst, so that one ends what another one of the same
batch began, under a number that nobody was told yet.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import anyio
from anyio import Event, create_task_group, fail_after, move_on_after, sleep
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors._durable import kept_by
from ioasid.actors._local_port import LocalPort
from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocator,
    AllocatorClosed,
    AllocGroup,
    AllocMany,
    AllocSet,
    AttachSpid,
    CapacityExhausted,
    CloseSession,
    Defer,
    Deliver,
    Detach,
    DetachSpid,
    DiskFull,
    End,
    EventKind,
    Evict,
    FindBySpid,
    Free,
    FreeGroup,
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
from ioasid.service import Answered, Ask, Gate, GiveUp, Narrow, Role
from ioasid.testing import check_state
from ioasid.testing._disk import MemoryDisk
from tests.fuzz.bookkeeper import Bookkeeper, in_parts
from tests.service.services import Raw, Service, a_raw_client, a_service, everybody

logging.getLogger("ioasid").addHandler(logging.NullHandler())  # much of it is as it should be

Choose: TypeAlias = random.Random
LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
NAMES: Final = ("kvm", "vtd", "vdcm")
GROUP: Final = "guests"
WITHIN: Final = (None, 0.001, 10.0)
BRIEF: Final = 0.005
"""Seconds for which answers are read between two bursts."""
IN_MEMORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the journals are, if there is such a place: what a disk takes is not looked at."""
PAUSE: Final = 0.002
"""Seconds between two looks at what is under way."""
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
    lambda of: AllocSet(of.choice(("vm-1", "vm-2")), 4, TokenType.MM, GROUP),
    lambda of: AdjustSet(_set(of), of.randint(1, 6)),
    lambda of: FreeSet(_set(of), wait=_maybe(of)),
    lambda of: of.choice((AllocGroup(GROUP, 8), AdjustGroup(GROUP, of.randint(1, 8)))),
    lambda _: FreeGroup(GROUP),
    lambda of: Get(_number(of)),
    lambda of: Put(_number(of)),
    lambda of: Notify(_number(of), of.choice(tuple(EventKind))),
    lambda of: Subscribe(
        sid=of.choice((None, 0)), hold=_maybe(of), acknowledge_within=of.choice(WITHIN)
    ),
    lambda of: Subscribe(hold=True, replay=_maybe(of)),
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

    def __init__(
        self,
        choose: Choose,
        name: str | None,
        token: str | None,
        menu: Sequence[int],
        firsts: int,
    ) -> None:
        self._choose = choose
        self._name = name
        self._token = token
        """Whose tenant it is."""
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
                if self._token is None and self._choose.random() < 0.15:
                    await raw.send(Narrow("vm-1", NAMES))
                    await raw.receive()
                welcome = await raw.hello(self._name, self._token)
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
        await in_parts(self._choose, raw, frames)

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
            some = choose.randint(max(1, number - 12), number + 2)
            return GiveUp(number, choose.choice((some, number - 1)), session)
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


class Disk(MemoryDisk):
    """A journal in memory that takes some turns, and fails now and then until `fails` is unset."""

    def __init__(self, core: Allocator, choose: Choose) -> None:
        super().__init__(core, fails=True)
        self._choose = choose

    async def _take_time(self) -> None:
        for _ in range(self._choose.choice((0, 1, 3, 7))):
            await checkpoint()
        if self.fails and self._choose.random() < 0.15:
            raise DiskFull("a disk in memory", "is so now and then")


class Turnstile:
    """A gate that takes some turns, before and behind, and refuses now and then."""

    kinds: frozenset[type] = frozenset((AdjustSet, Alloc, AllocSet, Get))

    def __init__(self, choose: Choose) -> None:
        self._choose = choose

    async def decide(self, request: Request, carry: Callable[[Request], Awaitable[Any]]) -> Any:
        """Let it through, or refuse it."""
        await self._turn()
        if self._choose.random() < 0.1:
            raise CapacityExhausted(1, 0)
        answer = await carry(request)
        await self._turn()
        return answer

    async def _turn(self) -> None:
        for _ in range(self._choose.choice((0, 0, 1, 5))):
            await checkpoint()


@contextmanager
def keeping(kept: str, choose: Choose) -> Iterator[tuple[dict[str, Any], list[Disk]]]:
    """Give the options of an allocator whose state is kept so, and the disk that it is kept on."""
    disks: list[Disk] = []

    def make(core: Allocator) -> Disk:
        disks.append(Disk(core, random.Random(choose.random())))
        return disks[-1]

    ways: dict[str, dict[str, Any]] = {"slow commits": {"commit": commit_slowly}}
    with (
        TemporaryDirectory(dir=IN_MEMORY) if kept == "a journal" else nullcontext() as folder,
        kept_by(make) if kept == "a journal that fails" else nullcontext(),
    ):
        if folder is not None:
            ways[kept] = {"journal": Path(folder, "journal")}
        yield ways.get(kept, {}), disks


async def a_life(
    choose: Choose, kept: str, clients: int, gate: Gate | None, token: str | None
) -> None:
    """Serve some clients until they are gone, and look at what is left of them."""
    menu = [choose.randrange(len(MENU)) for _ in range(choose.randint(2, 9))]
    firsts = choose.choice((0, 2, 20))
    operators = everybody(Role.OPERATOR)
    with keeping(kept, choose) as (options, disks):
        async with a_service(operators, gate=gate, capacity=16, **options) as service:
            actor, server = service.driver._actor, service.server
            if token is not None:
                await _operate(service, AllocGroup(GROUP, 8))
                server.policy = everybody(
                    Role.TENANT, holders=NAMES, tokens=("vm-*",), group=choose.choice((None, GROUP))
                )
            async with create_task_group() as looking, create_task_group() as tasks:
                looking.start_soon(_look_on, service)
                # Each waits twice, once before the eviction and once behind it.
                rendezvous = Rendezvous(clients)
                for number in range(clients):
                    # Each chooses for itself, whoever is faster.
                    own = random.Random(choose.random())
                    if number == 3:
                        tasks.start_soon(Neighbour(own, menu).live, service, rendezvous)
                        continue
                    name = f"client {number}" if number % 2 else None
                    client = Client(own, name, token, menu, firsts)
                    tasks.start_soon(client.live, service, rendezvous)
                if token is None:
                    await Bookkeeper(random.Random(choose.random())).live(service)
                await rendezvous.all_came.wait()
                check_state(actor._core)
                rendezvous.all_came, rendezvous._missing = Event(), clients
                for disk in disks:
                    disk.fails = False
                server.policy = operators
                for name in NAMES:
                    await _operate(service, Evict(name))
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
                looking.cancel_scope.cancel()
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
        for disk in disks:
            there = disk.recovered().snapshot()
            told = actor._core.snapshot()
            assert told == replace(there, now=told.now), "another state is kept"


async def _look_on(service: Service) -> None:
    # A journal that failed is tried again when somebody asks for a change, here at once.
    actor = service.driver._actor
    while True:
        await sleep(PAUSE)
        if actor._outage.failure is not None:
            service.driver.post(Put(1), service.driver.new_reply())
        elif actor._stage is None or not actor._stage.decided:
            found = {
                number: each.acknowledge_within
                for number, each in actor._core._tables.subscriptions.items()
                if each.attached and not each.leaving and each.acknowledge_within is not None
            }
            assert found == actor._deadlines._within, "a deadline that is not looked after"


async def _operate(service: Service, request: Request) -> None:
    async with a_raw_client(service.path) as raw:
        await raw.hello()
        await raw.send(Ask(OpenSession("operator"), 1), Ask(request, 2))
        answered = 0
        while answered < 2:
            frame = await raw.receive()
            assert frame is not None
            answered += isinstance(frame, Answered)
        await raw.ask(Ask(CloseSession(), 3, None, True))


def _check_peer(peer: Any, actor: Any) -> None:
    # One that has been answered everything.
    has, window, memory = peer._has, peer._window, peer._memory
    if memory is None:
        return
    assert not peer._held, "a frame that is held back"
    assert not peer._looking_up, "a request that is at the gate"
    assert 0 == has.opening == has._subscribing, "what is not under way any more"
    assert 0 == window.in_flight == window._fences, (window.in_flight, window._fences)
    assert [] == memory.pending, "what nobody waits for"
    assert 0 == memory.waits, "what nobody waits for"
    for number, outlet in has.outlets.items():
        assert actor._outlets.get(number) is outlet, f"an outlet of nobody: {number}"


def run(choose: Choose) -> str:
    """Run one life; what it was."""
    kept = choose.choice(("nothing", "a journal", "a journal that fails", "slow commits"))
    clients = choose.randint(1, 5)
    gate = Turnstile(random.Random(choose.random())) if choose.random() < 0.25 else None
    token = "vm-1" if choose.random() < 0.25 else None
    loop = choose.choice(tuple(LOOPS))

    async def life() -> None:
        unseen: list[Any] = []

        def note(_: object, what: dict[str, Any]) -> None:
            # anyio's own is what comes in the very turn in which it is waited for no more.
            if not isinstance(what.get("exception"), asyncio.InvalidStateError):
                unseen.append(what)

        if loop != "trio":
            # What a callback raises is only logged there.
            asyncio.get_running_loop().set_exception_handler(note)
        with fail_after(60):
            await a_life(choose, kept, clients, gate, token)
        assert not unseen, unseen

    backend, options = LOOPS[loop]
    try:
        anyio.run(life, backend=backend, backend_options=options)
    except Exception as error:
        error.add_note(f"with {clients} clients, {kept}, {loop}, {token=}, {gate=}")
        raise
    return f"{kept}, on {loop}"
