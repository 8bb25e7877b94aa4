"""What one connection has: its sessions and its subscriptions, and the bounds on both."""

from collections.abc import Callable
from typing import Any, Final

from ioasid.actors._local_port import LocalPort
from ioasid.core import (
    CloseSession,
    InvalidArgument,
    OpenSession,
    Request,
    SessionEnded,
    SessionOpened,
    Subscribe,
    Subscribed,
    SuspendSession,
)
from ioasid.service._errors import TooMany
from ioasid.service._memory import Asked
from ioasid.service._outlet import Outlet, Queueing
from ioasid.service._permits import Permit
from ioasid.service._shared import Shared

__all__: list[str] = []

CHANGING: Final[frozenset[type]] = frozenset((OpenSession, CloseSession, SuspendSession, Subscribe))
"""Requests whose answers change what a connection has."""


class Belongings:
    """The sessions and subscriptions of one connection."""

    __slots__ = (
        *("_expelled", "_looking", "_shared", "_subscribing", "_unwatched"),
        *("left_in_order", "names", "opening", "outlets", "sessions"),
    )

    def __init__(self, shared: Shared, expelled: Callable[[int], None]) -> None:
        self._shared = shared
        self._expelled = expelled
        self._unwatched: dict[LocalPort, Callable[[], None]] = {}
        """What ends the watch over a session, by its way."""
        self.sessions: dict[int, LocalPort] = {}
        """By number."""
        self.names: dict[LocalPort, str] = {}
        """Those of the holders, by the way of their session."""
        self.outlets: dict[int, Outlet] = {}
        """By the number of the subscription."""
        self.opening = 0
        """How many sessions were asked for and are not there."""
        self._subscribing = 0
        self._looking: LocalPort | None = None
        self.left_in_order = False
        """Whether every session that there was is closed."""

    def port(self, session: int | None) -> LocalPort:
        """Return the way of a session, the first unless one is named. Raises `SessionEnded`."""
        if session is None:
            session = next(iter(self.sessions), 0)
        port = self.sessions.get(session)
        if port is None:
            raise SessionEnded(session)
        return port

    @property
    def without_session(self) -> LocalPort:
        """The way of looks while there is no session, one for each connection: it is as fair."""
        if self._looking is None:
            self._looking = self._shared.driver.beside()
        return self._looking

    def admitted(self, request: Any, permit: Permit) -> Request:
        """Return what to ask instead of what changes them. Raises what it is refused with."""
        limits = self._shared.limits
        match request:
            case OpenSession(name=name):
                permit.check_name(name)
                if len(self.sessions) + self.opening >= limits.sessions:
                    raise TooMany("sessions of one connection", limits.sessions)
                # The allocator keeps whose it is with all the rest; what a client says is nothing.
                return OpenSession(name, permit.uid)
            case Subscribe(queue_size=size):
                if len(self.outlets) + self._subscribing >= limits.subscriptions:
                    raise TooMany("subscriptions of one connection", limits.subscriptions)
                if type(size) is int and size > limits.queue_size:
                    expected = f"at most {limits.queue_size}, the limit of this server"
                    raise InvalidArgument("queue_size", str(size), expected)
            case _:
                pass
        own: Request = request
        return own

    def send(self, asked: Asked, queueing: Queueing) -> None:
        """Pass on what changes them. Raises `AllocatorClosed`."""
        port, request = asked.port, asked.request
        match request:
            case Subscribe():
                self._subscribing += 1
                asked.outlet = Outlet(queueing)
                port.post(request, asked, asked.outlet)
            case CloseSession() | SuspendSession():
                # What comes after it finds no session.
                left = [n for n, each in self.sessions.items() if each is port]
                for number in left:
                    del self.sessions[number]
                self._let_go(port)
                self.left_in_order = not self.sessions
                port.leave(request, asked)
            case _:
                self.opening += 1
                port.post(request, asked)

    def told(self, asked: Asked) -> None:
        """Take what a request that changes them came to."""
        answer = asked.result()
        match asked.request:
            case OpenSession(name):
                self.opening -= 1
                if type(answer) is SessionOpened:
                    port = self.sessions[answer.session] = self._shared.driver.join(answer)
                    self.names[port] = name
                    self._watch(port, answer.session)
                    self.left_in_order = False
                    asked.memory.came_back(name, dict(answer.references))
            case Subscribe():
                self._subscribing -= 1
                if type(answer) is Subscribed:
                    # Answers come before what else a batch told, and its end may be in this one.
                    before = self.outlets.get(answer.subscription)
                    if before is not None:
                        before.is_known = False
                    asked.outlet.is_known = True
                    asked.outlet.number = answer.subscription
                    self.outlets[answer.subscription] = asked.outlet
            case _:
                pass

    def cancelled(self, asked: Asked) -> None:
        """Count no more what was given up."""
        self.opening -= type(asked.request) is OpenSession
        self._subscribing -= type(asked.request) is Subscribe

    def take_back(self, session: int, request: CloseSession | SuspendSession) -> None:
        """End a session of whose opening nobody learned."""
        port = self.sessions.pop(session, None)
        if port is not None:
            self._let_go(port)
            port.leave(request)

    def suspend(self) -> None:
        """Let go of everything, as after a crash."""
        for port in self.sessions.values():
            self._let_go(port)
            port.leave(SuspendSession())
        self.sessions.clear()
        self.outlets.clear()

    def _watch(self, port: LocalPort, session: int) -> None:
        def ended() -> None:
            # Its number still stands for it: what is asked by it is refused, and is not another's.
            if isinstance(port.ending.error, SessionEnded):
                self._expelled(session)

        self._unwatched[port] = port.ending.watch(ended)

    def _let_go(self, port: LocalPort) -> None:
        self.names.pop(port, None)
        unwatched = self._unwatched.pop(port, None)
        if unwatched is not None:
            unwatched()
