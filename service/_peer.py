"""One connection, as the server sees it: who it is, its sessions, and what it is sent.

Whatever a client sends is decided on in one turn of the event loop: refused here, or put into the
lane of the session that it belongs to. Answers and events wait in one queue for a reader that is
slow, as what they are and not as bytes, so that what the allocator withdraws is gone.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from msgspec import Struct

from ioasid.actors import RequestFailed
from ioasid.actors._local_port import LocalPort
from ioasid.actors._outage import LEAVING
from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    AllocatorClosed,
    CloseSession,
    Defer,
    Done,
    End,
    Expel,
    IoasidError,
    OpenSession,
    Request,
    SessionEnded,
    SuspendSession,
    UnknownToken,
    Withdraw,
    refusal_of,
    undo_of,
)
from ioasid.service._belongings import CHANGING, Belongings
from ioasid.service._connection import ServerConnection
from ioasid.service._errors import ProtocolViolated, TooMany
from ioasid.service._frames import (
    Answered,
    Ask,
    GiveUp,
    Goodbye,
    Hello,
    Narrow,
    Narrowed,
)
from ioasid.service._gate import Gate
from ioasid.service._greeting import greeted, welcome
from ioasid.service._memory import LARGE, LETTING_GO, TAKING, Asked, Memory, is_look, is_waiting
from ioasid.service._outbox import Item, Outbox
from ioasid.service._outlet import Outlet
from ioasid.service._permits import Permit
from ioasid.service._shared import Shared
from ioasid.service._tenancy import Tenancy
from ioasid.service._then import Then
from ioasid.service._transport import Transport
from ioasid.service._window import MOST_LARGE, Window

__all__: list[str] = []

DONE: Final = Done()
UNANSWERED: Final = frozenset((Acknowledge, Defer))
"""Requests that are sent without an ID."""
logger = logging.getLogger("ioasid.service")


class Peer:
    """One connection: a `Receiver`, and what becomes of what it receives."""

    def __init__(
        self, shared: Shared, identify: Callable[[int], Permit], gone: Callable[["Peer"], None]
    ) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._identify = identify
        self._gone = gone
        self._connection = ServerConnection()
        self._transport: Transport | None = None
        self.permit: Permit | None = None
        self._narrowed = False
        self.tenancy: Tenancy | None = None
        self.greeted = False
        self._memory: Memory | None = None
        self._denied: frozenset[type] = frozenset()
        """Kinds of requests that its role does not include."""
        self._has = Belongings(shared, self._expelled)
        self._takes: frozenset[str] = frozenset()
        """What it understands besides the first frames of the protocol."""
        self._window = Window(self._limits.requests, self._take_held)
        self._held: deque[Any] = deque()
        """Frames that wait for an answer to leave, or for a session to be opened."""
        self._looking_up = False
        self._looked_up: Ask | None = None
        self._outbox = Outbox()
        self._came_at = 0.0
        """When something came last."""
        self.ended = False
        """Nothing is taken any more, and nothing sent but what is queued."""
        self._left = False
        """The connection is gone, or another one has taken its place."""
        self._reading = True

    # -- what its transport calls -------------------------------------------------------------

    def connected(self, transport: Transport) -> None:
        """Find out who it is; who may not come in is told so."""
        self._transport = transport
        if self.ended:
            # While it was about to be connected.
            transport.close()
            return
        try:
            self.permit = self._identify(transport.fileno())
        except IoasidError as error:
            self.refuse(error)

    def data_received(self, data: bytes) -> None:
        """Deal with what came."""
        if self.ended:
            return
        self._came_at = perf_counter()
        connection = self._connection
        held = self._held
        for frame in connection.receive(data):
            if held or not self._may_go_on(frame):
                held.append(frame)
            else:
                self._take(frame)
        if held:
            self._take_held()
        if connection.error is not None and not self.ended:
            self.refuse(connection.error)

    def data_to_send(self) -> bytes:
        """Make bytes of what is queued, not too many at once."""
        outbox = self._outbox
        data = outbox.take(self._connection.pack)
        window = self._window
        window.in_flight -= outbox.answered
        window.large -= outbox.large
        outbox.answered = outbox.large = 0
        if self._held and not self.ended:
            self._take_held()
        return data

    def disconnected(self) -> None:
        """Suspend whoever had sessions here, as after a crash."""
        if self._left:
            return
        self._left = self.ended = True
        self._outbox.clear()
        self._held.clear()
        memory = self._memory
        if memory is not None:
            # Who left in order, and waits for nothing, has no reason to come back.
            pending = memory.pending
            done = self._has.left_in_order and not pending
            for asked in pending:
                if type(asked.request) is OpenSession:
                    # At once, so that who comes back finds its name free.
                    asked.port.give_up(asked.request, asked)
            for forgotten in self._shared.memories.leave(memory, comes_back=not done):
                for asked in forgotten.pending:
                    # What it left in order stays left, whenever that can be kept.
                    if not (asked.insists or type(asked.request) in LEAVING):
                        asked.port.give_up(asked.request, asked)
        self._has.suspend()
        self._gone(self)

    # -- what the server calls ----------------------------------------------------------------

    def refuse(self, error: IoasidError) -> None:
        """End the connection, and say why."""
        if not self.ended:
            self._shared.account.refuse(error)
            logger.info("a connection was refused: %s", error)
            self._last(refusal_of(error))

    def goodbye(self, reason: str) -> None:
        """End the connection, for the server ends."""
        if not self.ended:
            self._last(Goodbye(reason))

    def abort(self) -> None:
        """End the connection at once."""
        self.ended = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def sessions(self) -> int:
        """How many sessions it has."""
        return len(self._has.sessions)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions it has."""
        return len(self._has.outlets)

    @property
    def queued(self) -> int:
        """How much waits to be sent."""
        return len(self._outbox)

    def _last(self, frame: Struct) -> None:
        self.ended = True
        self._held.clear()
        self._outbox.put(frame)
        if self._transport is not None:
            self._transport.close()

    # -- what outlets call --------------------------------------------------------------------

    def queue(self, item: Item) -> None:
        """Queue something to be sent."""
        if self.ended:
            return
        assert self._transport is not None
        if self._outbox.put(item) > self._limits.backlog:
            logger.warning("a connection that does not read is cut off")
            self.abort()
            return
        self._transport.wake()

    def withdraw(self, outlet: Outlet) -> None:
        """Drop what is stale, and let the client do so."""
        self._outbox.drop_stale()
        self.queue(Withdraw(outlet.number, outlet.keep))

    def end(self, outlet: Outlet, *, drained: bool) -> None:
        """Forget an outlet, and let the client know."""
        if self._has.outlets.pop(outlet.number, None) is not None:
            self.queue(End(outlet.number, drained))

    # -- frames -------------------------------------------------------------------------------

    def _take_held(self) -> None:
        held = self._held
        while held and not self.ended and self._may_go_on(held[0]):
            self._take(held.popleft())
        assert self._transport is not None
        if bool(held) == self._reading and not self.ended:
            self._reading = not held
            if held:
                self._transport.pause()
            else:
                self._transport.resume()

    def _may_go_on(self, frame: Any) -> bool:
        if self._window.is_full() or self._looking_up:
            return False
        if type(frame) is not Ask:
            return True
        if self._window.large >= MOST_LARGE and type(frame.request) in LARGE:
            return False
        if not self._has.opening:
            return True
        # What is for the first session waits for it.
        return frame.session is not None or type(frame.request) is OpenSession

    def _take(self, frame: Any) -> None:
        if self.ended:
            return
        kind = type(frame)
        try:
            if kind is Ask and self.greeted:
                self._ask(frame)
            elif kind is Hello:
                self._greet(frame)
            elif kind is Narrow:
                self._narrow(frame)
            elif not self.greeted:
                raise ProtocolViolated("the first frame is not a Hello")
            elif kind is GiveUp:
                self._give_up(frame)
            else:
                self._shared.account.refuse(frame.error)
                if frame.id is not None:
                    self._answer(frame.id, frame.error)
        except IoasidError as error:
            self.refuse(error)
        except Exception:
            # It costs this connection, and not the allocator, which may be telling its answers.
            logger.exception("a frame could not be dealt with, and its connection is ended")
            self.abort()

    def _narrow(self, frame: Narrow) -> None:
        if self.greeted or self._narrowed:
            raise ProtocolViolated("a Narrow after a Hello or another Narrow")
        assert self.permit is not None
        self.permit = self.permit.narrowed(frame.token, frame.holders)
        self._narrowed = True
        self.queue(Narrowed())

    def _greet(self, frame: Hello) -> None:
        permit = self.permit
        assert permit is not None
        if self.greeted:
            raise ProtocolViolated("a second Hello")
        self.tenancy, client = greeted(permit, frame)
        self.greeted = True
        self._takes = frozenset(frame.takes)
        self._denied = permit.denied
        memories = self._shared.memories
        if client is not None and (present := memories.here.get(client)) is not None:
            # It came back before its old connection was seen to end.
            assert present.connection is not None
            present.connection.supersede()
        self._memory, resumed = memories.recall(client, self)
        self.queue(welcome(self._shared, permit, resumed=resumed))

    # -- requests -----------------------------------------------------------------------------

    def _ask(self, frame: Ask) -> None:
        memory = self._memory
        assert memory is not None
        number = frame.id
        if number is None:
            self._tell(frame)
            return
        known = memory.find(number)
        try:
            if known is not None:
                self._ask_again(memory, known)
                return
            request = frame.request
            kind = type(request)
            port = self._port(frame)
            if kind in self._denied:
                assert self.permit is not None
                self.permit.check(request)
            show = None
            tenancy = self.tenancy
            if tenancy is not None:
                if tenancy.is_uncertain(request) and self._looked_up is not frame:
                    self._look_up(frame, port, tenancy)
                    return
                request, show = tenancy.admit(request)
            if kind in CHANGING:
                assert self.permit is not None
                request = self._has.admitted(request, self.permit)
            waits = is_waiting(request)
            insists = frame.insists and kind in LETTING_GO
            asked = Asked(memory, self, number, port, request, show, self._came_at, waits, insists)
            if kind in TAKING:
                asked.holder = self._has.names.get(port, "")
            if waits:
                # Not under way, for what it waits for may be behind it.
                self._refuse_wait(memory)
            else:
                self._window.in_flight += 1
                self._window.large += kind in LARGE
        except IoasidError as error:
            self._shared.account.refuse(error)
            self._answer(number, error)
            return
        memory.ask(asked)
        gate = self._shared.gate
        if gate is not None and kind in gate.kinds:
            self._looking_up = True
            assert self._shared.tasks is not None
            self._shared.tasks.start_soon(self._pass, gate, asked)
            return
        try:
            if kind in CHANGING:
                self._has.send(asked, self)
            else:
                port.post(request, asked, insists=insists)
        except AllocatorClosed as error:
            asked.set_result(error)

    async def _pass(self, gate: Gate, asked: Asked) -> None:
        # What comes later waits, as it would in the allocator's own line.
        port = asked.port
        sent: list[Reply[Any]] = []

        async def carry(request: Request) -> Any:
            sent.append(port.send(request))
            return await sent[-1]

        try:
            answer = await gate.decide(asked.request, carry)
        except IoasidError as error:
            answer = error
        except Exception as error:
            # A mistake of the gate's: it costs this request, and not the server whose task it is.
            kind = type(asked.request).__name__
            logger.exception("the gate failed on the request %s, and goes on", kind)
            answer = RequestFailed("the gate of the service", type(error).__name__)
        self._looking_up = False
        if not asked.done():
            asked.set_result(answer)
        elif sent:
            # Given up meanwhile.
            port.give_up(asked.request, sent[-1])
        if self._held and not self.ended:
            self._take_held()

    def _tell(self, frame: Ask) -> None:
        request = frame.request
        if type(request) not in UNANSWERED:
            raise ProtocolViolated(f"a {type(request).__name__} without an id")
        try:
            self._window.tell(self._port(frame), request)
        except IoasidError as error:
            self._shared.account.refuse(error)

    def _refuse_wait(self, memory: Memory) -> None:
        if memory.waits >= self._limits.waits:
            raise TooMany("requests that wait", self._limits.waits)

    def _ask_again(self, memory: Memory, asked: Asked) -> None:
        # It is decided once, and answered as often as it is asked.
        window = self._window
        window.large += type(asked.request) in LARGE
        if asked.done():
            window.in_flight += 1
            self.queue(asked)
            return
        if asked.connection is not self:
            asked.connection = self
        else:
            if asked.waits:
                self._refuse_wait(memory)
            memory.repeat(asked)
        window.in_flight += not asked.waits

    def _port(self, frame: Ask | GiveUp) -> LocalPort:
        if frame.session is None and type(frame) is Ask and type(frame.request) is OpenSession:
            return self._shared.driver
        if (
            frame.session is None
            and not self._has.sessions
            and type(frame) is Ask
            and is_look(frame.request)
        ):
            return self._has.without_session
        return self._has.port(frame.session)

    def _look_up(self, frame: Ask, port: LocalPort, tenancy: Tenancy) -> None:
        # Holds everything until the tenant's set is known; then the frame is taken again.
        def learn(found: object) -> None:
            self._looking_up = False
            if self.ended:
                return
            if isinstance(found, IoasidError) and type(found) is not UnknownToken:
                # That its session is over, and nothing about what it asks for.
                self._held.popleft()
                assert frame.id is not None, "it is answered"
                self._shared.account.refuse(found)
                self._answer(frame.id, found)
            else:
                tenancy.learn(found)
                self._looked_up = frame
            self._take_held()

        port.post(tenancy.lookup, Then(learn))
        self._looking_up = True
        self._held.appendleft(frame)

    def _give_up(self, frame: GiveUp) -> None:
        assert self._memory is not None
        asked = self._memory.find(frame.of)
        if asked is not None:
            if asked.done():
                self._undo(frame, asked)
            else:
                asked.port.give_up(asked.request, asked)
                if isinstance(asked.request, CloseSession | SuspendSession):
                    # Nobody is told, but it has left: nothing here would end it later.
                    asked.port.leave(asked.request)
        self._answer(frame.id, DONE)

    def _undo(self, frame: GiveUp, asked: Asked) -> None:
        asked.memory.forget(asked)
        answer = asked.result()
        undo = None if isinstance(answer, Exception) else undo_of(0, asked.request, answer)
        if undo is None:
            return
        session, request = undo
        if isinstance(request, CloseSession | SuspendSession):
            self._has.take_back(session, request)
            return
        try:
            self._port(frame).tell(request)
        except SessionEnded:
            # Nobody is left to undo it for; it stands.
            pass

    def _answer(self, number: int, answer: IoasidError | Done) -> None:
        self._window.in_flight += 1
        shown = refusal_of(answer) if isinstance(answer, IoasidError) else answer
        self.queue(Answered(number, shown))

    # -- what its requests call ---------------------------------------------------------------

    def told(self, asked: Asked) -> None:
        """Pass on what the allocator answered."""
        answer = asked.result()
        if type(asked.request) in CHANGING:
            self._has.told(asked)
        if asked.waits:
            self._window.in_flight += 1 + asked.repeats
        self._shared.account.answer(asked)
        if isinstance(answer, IoasidError):
            self._shared.account.refuse(answer)
        self.queue(asked)
        if asked.repeats:
            for _ in range(asked.repeats):
                self.queue(asked)
        if self._held:
            self._take_held()

    def _expelled(self, session: int) -> None:
        # Who does not take it learns at its next call.
        if "Expel" in self._takes:
            self.queue(Expel(session))

    def cancelled(self, asked: Asked) -> None:
        """Count no more what was given up."""
        count = 1 + asked.repeats
        if not asked.waits:
            self._window.in_flight -= count
        if type(asked.request) in LARGE:
            self._window.large -= count
        self._has.cancelled(asked)

    def supersede(self) -> None:
        """Make room for the same client on another connection."""
        self.disconnected()
        self.abort()
