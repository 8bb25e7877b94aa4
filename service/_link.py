"""The client's end: what was asked and not answered, who is told, and how it comes back.

A link outlives its connections. When one breaks, the server suspends whoever had a session on it;
on the next one the link opens the same sessions under their names, subscribes again, each time
beginning with a Resync, and sends again, under the same IDs, what was not answered. A session that
comes back without what it had was evicted meanwhile, and has ended. What the server decided already
it answers from memory. Where it does not remember, for too many others came since, what was sent
and may have been decided is `OutcomeUnknown`. A server that is another process by now is another
allocator: everything ends.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import count
from secrets import token_hex
from typing import Any, Final

from anyio import Event as Signal
from msgspec import Struct

from ioasid.actors._ending import Ending
from ioasid.actors._reply import Reply, reply_factory
from ioasid.actors._thread import Door
from ioasid.core import (
    Acknowledge,
    AllocatorClosed,
    CloseSession,
    Deliver,
    Detach,
    End,
    Expel,
    IoasidError,
    MalformedMessage,
    OpenSession,
    Put,
    Refused,
    Request,
    SessionEnded,
    SessionOpened,
    Subscribe,
    Subscribed,
    SuspendSession,
    Unsubscribe,
    WireFormat,
    Withdraw,
    undo_of,
)
from ioasid.service._asking import Asking, Holder, Session, Unnamed
from ioasid.service._audience import Audience, Told
from ioasid.service._comeback import Comeback
from ioasid.service._connection import ClientConnection
from ioasid.service._crossing import without_form
from ioasid.service._errors import OutcomeUnknown, TooLarge, error_from
from ioasid.service._frames import (
    VERSION,
    Answered,
    Ask,
    GiveUp,
    Goodbye,
    Hello,
    ServerFrame,
    Welcome,
)
from ioasid.service._memory import is_repeatable, is_waiting
from ioasid.service._then import Then
from ioasid.service._transport import CHUNK, Transport

__all__: list[str] = []


class Link:
    """Everything that one client has with a server; a `Receiver` of each of its connections."""

    def __init__(
        self, token: str | None, wire_format: WireFormat, *, comes_back: bool = True
    ) -> None:
        self.new_reply = reply_factory()
        self.door = Door("the connection to the allocator")
        self.client: Final = token_hex(16) if comes_back else None
        self._token = token
        self._wire_format = wire_format
        self._connection = ClientConnection(wire_format)
        self._transport: Transport | None = None
        self.welcome: Welcome | None = None
        """What the server said last; the bounds are its."""
        self._ready = False
        """Whether sessions and subscriptions are as they were, so that requests may be sent."""
        self._ids = count(1)
        self._pending: dict[int, Asking] = {}
        self._unsent: deque[Asking] = deque()
        self._in_flight = 0
        self._holders: dict[Session, None] = {}
        self._by_reply: dict[Reply[Any], Asking] = {}
        self._audience = Audience()
        self._leaving: dict[Session, None] = {}
        """Sessions whose last request has no answer yet."""
        self._names: dict[int, str] = {}
        """Of sessions that were opened and have no port yet."""
        self._out: deque[Struct] = deque()
        self._acks: tuple[Holder, list[tuple[int, int]]] | None = None
        self.ending: Final = Ending()
        self.greeted: Reply[Welcome | IoasidError | None] = self.new_reply()
        """Is told how the connection that is being made begins, with all that there was before."""
        self.broken = Signal()
        """Is set when the connection is gone."""

    # -- what ports ask -----------------------------------------------------------------------

    def ask(
        self,
        holder: Holder | None,
        request: Request,
        reply: Reply[Any] | None,
        outlet: Any = None,
        *,
        insists: bool = False,
    ) -> None:
        """Send a request, or keep it until there is a connection; a reply takes the answer."""
        self.ending.check()
        asking = Asking(next(self._ids), holder, request, reply, outlet, insists=insists)
        self._pending[asking.id] = asking
        if reply is not None:
            self._by_reply[reply] = asking
        self._go(asking)

    def tell(self, holder: Holder, request: Request, *, insists: bool = False) -> None:
        """Send what nobody waits for; what must not be lost is sent again like any request."""
        if self.is_over:
            return
        kind = type(request)
        if kind is Acknowledge:
            self._acknowledge(holder, request)  # type: ignore[arg-type]
            return
        if kind is Unsubscribe or kind is Detach:
            self._audience.drop(request.subscription)  # type: ignore[union-attr]
        self.ask(holder, request, None, insists=insists)

    def leave(self, holder: Session, request: Request, reply: Any = None) -> None:
        """Send a session's last request; it is not opened again."""
        if not self.is_over:
            self.ask(holder, request, reply)
            if holder in self._holders:
                del self._holders[holder]
                self._leaving[holder] = None

    def give_up(self, holder: Holder, reply: Reply[Any]) -> bool:
        """Give up what has no answer, and tell whether there was such."""
        asking = self._by_reply.pop(reply, None)
        if asking is None:
            return False
        asking.reply = None
        if not asking.sent:
            del self._pending[asking.id]
            if asking in self._unsent:
                self._unsent.remove(asking)
            return True
        if asking.outlet is not None:
            asking.outlet = None
        giving_up = Asking(next(self._ids), holder, None, None, of=asking.id)
        self._pending[giving_up.id] = giving_up
        self._go(giving_up)
        return True

    def undo(self, holder: Holder, request: Request, answer: Any) -> None:
        """Take back what a request gave, for nobody learned of its answer."""
        undo = None if isinstance(answer, Exception) else undo_of(0, request, answer)
        if undo is not None:
            session, taking_back = undo
            self.tell(Unnamed(session) if session else holder, taking_back, insists=True)

    def join(self, holder: Session, session: int) -> None:
        """Take up a session that was opened; it is opened again after a broken connection.

        One that was evicted since, or whose connection broke, is over.
        """
        name = self._names.pop(session, None)
        if name is None:
            holder.end()
        else:
            holder.name = name
            self._holders[holder] = None

    def close(self, reason: str, error: AllocatorClosed | None) -> None:
        """End everything: what waits is refused, subscribers are told (`None`: in order)."""
        if self.is_over:
            return
        self.ending.begin(AllocatorClosed(reason))
        pending, self._pending = self._pending, {}
        audience, self._audience = self._audience, Audience()
        self._by_reply.clear()
        self._unsent.clear()
        for asking in pending.values():
            # What was coming back is over with the connection, whatever it came to.
            if not asking.again:
                _answer(asking.reply, AllocatorClosed(reason))
        for each in audience:
            each.outlet.close(error)
        if self._transport is not None:
            self._transport.close()

    # -- what its transport calls -------------------------------------------------------------

    def connected(self, transport: Transport) -> None:
        """Begin with a Hello."""
        self._transport = transport
        self._connection = ClientConnection(self._wire_format)
        self._out.clear()
        self._acks = None
        self._send(Hello((VERSION,), self.client, self._token, (Expel.__name__,)))

    def data_received(self, data: bytes) -> None:
        """Deal with what came."""
        for frame in self._connection.receive(data):
            self._take(frame)
        error = self._connection.error
        if error is not None:
            self._break(error)

    def data_to_send(self) -> bytes:
        """Make bytes of what is to be sent."""
        self._flush_acks()
        parts: list[bytes] = []
        size = 0
        out = self._out
        while out and size < CHUNK:
            frame = out.popleft()
            try:
                data = self._connection.pack(frame)
            except (MalformedMessage, TooLarge) as error:
                self._refuse(frame, error)
                continue
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    def disconnected(self) -> None:
        """Learn that the connection is gone."""
        self._transport = None
        self._ready = False
        if not self.greeted.done():
            self.greeted.set_result(None)
        self.broken.set()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing any more."""
        return self.ending.error is not None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, ending perhaps."""
        return self._transport is not None

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def restart(self) -> None:
        """Get ready for one more connection."""
        self.greeted = self.new_reply()
        self.broken = Signal()

    def _break(self, error: IoasidError) -> None:
        if not self.greeted.done():
            self.greeted.set_result(error)
        if self._transport is not None:
            self._transport.abort()

    # -- sending ------------------------------------------------------------------------------

    def _send(self, frame: Struct) -> None:
        if self._acks is not None:
            self._flush_acks()
        self._out.append(frame)
        assert self._transport is not None
        self._transport.wake()

    def _go(self, asking: Asking) -> None:
        if not self._ready:
            return
        assert self.welcome is not None
        if self._unsent or self._in_flight >= self.welcome.requests:
            self._unsent.append(asking)
        else:
            self._write(asking)

    def _write(self, asking: Asking) -> None:
        holder = asking.holder
        session = None if holder is None else holder.current
        if holder is not None and session is None:
            # It could not be opened again: whoever speaks for it finds that it ended.
            del self._pending[asking.id]
            if asking.reply is not None:
                self._by_reply.pop(asking.reply, None)
            _answer(asking.reply, SessionEnded(holder.session))
            return
        asking.sent = asking.written = True
        request = asking.request
        if request is None:
            self._in_flight += 1
            self._send(GiveUp(asking.id, asking.of, session))
            return
        if not is_waiting(request):
            self._in_flight += 1
        request = self._audience.outgoing(request)
        self._send(Ask(request, asking.id, session, asking.insists))

    def _write_unsent(self) -> None:
        assert self.welcome is not None
        while self._unsent and self._in_flight < self.welcome.requests:
            self._write(self._unsent.popleft())

    def _acknowledge(self, holder: Holder, request: Acknowledge) -> None:
        # One that gets lost with the connection is no loss: the Resync stands for it.
        if not self._ready:
            return
        if self._acks is not None and self._acks[0] is holder and len(self._acks[1]) < 1024:
            self._acks[1].extend(request.messages)
            return
        if self._acks is not None:
            self._flush_acks()
        self._acks = (holder, list(request.messages))
        assert self._transport is not None
        self._transport.wake()

    def _flush_acks(self) -> None:
        if self._acks is None:
            return
        (holder, messages), self._acks = self._acks, None
        if holder.current is None:
            return
        acknowledgement = Acknowledge(self._audience.acknowledged(messages))
        self._out.append(Ask(acknowledgement, None, holder.current))

    def _refuse(self, frame: Struct, error: IoasidError) -> None:
        # What has no form on a wire was found out late; nothing of it was sent.
        if type(frame) is Ask and frame.id is not None:
            refusal = without_form(frame.request, error)
            self._answered(frame.id, refusal)

    # -- frames -------------------------------------------------------------------------------

    def _take(self, frame: ServerFrame) -> None:
        match frame:
            case Answered(number, answer):
                self._answered(number, error_from(answer) if type(answer) is Refused else answer)
            case Deliver(numbers, message):
                self._audience.deliver(numbers, message)
            case Withdraw(number, keep):
                self._audience.withdraw(number, keep)
            case End(number, drained):
                self._audience.end(number, drained=drained)
            case Expel(session):
                self._expelled(session)
            case Welcome():
                self._welcomed(frame)
            case Goodbye(reason):
                self.close(reason, None)
            case Refused():
                self._break(error_from(frame))
            case _:
                pass

    def _answered(self, number: int, answer: Any) -> None:
        asking = self._settle(number)
        if asking is None:
            return
        holder = asking.holder
        if holder is not None and (taken := asking.taken(answer)):
            holder.references = max(holder.references + taken, 0)
        if type(asking.request) in (CloseSession, SuspendSession):
            self._leaving = {each: None for each in self._leaving if each is not asking.holder}
        if asking.request is None:
            # What it gave up is not answered any more, if it was not before.
            self._settle(asking.of)
        reply = asking.reply
        if reply is not None and not asking.again:
            if self._by_reply.pop(reply, None) is not None and reply.done():
                # Its asker was cancelled, and has had no turn yet to give it up.
                if asking.request is not None and asking.holder is not None:
                    self.undo(asking.holder, asking.request, answer)
                return
            match asking.request, answer:
                case OpenSession(name), SessionOpened(session):
                    self._names[session] = name
                case Subscribe() as request, Subscribed(number) if asking.outlet is not None:
                    assert asking.holder is not None
                    self._audience.add(Told(asking.holder, request, asking.outlet, number, number))
                case _, SessionEnded() if asking.holder is not None:
                    answer = SessionEnded(asking.holder.session)
                case _:
                    pass
        _answer(reply, answer)
        if self._unsent:
            self._write_unsent()

    def _settle(self, number: int) -> Asking | None:
        asking = self._pending.pop(number, None)
        if asking is not None and asking.written:
            request = asking.request
            self._in_flight -= request is None or not is_waiting(request)
        return asking

    # -- coming back --------------------------------------------------------------------------

    def _welcomed(self, welcome: Welcome) -> None:
        before = self.welcome
        self.welcome = welcome
        if before is not None and before.epoch != welcome.epoch:
            self.close(
                "was restarted: connect again, under the same name",
                AllocatorClosed("was restarted"),
            )
            return
        self._in_flight = 0
        self._unsent.clear()
        for asking in tuple(self._pending.values()):
            asking.written = False
            if asking.again:
                # It was coming back when the connection broke again.
                del self._pending[asking.id]
        if before is not None and not welcome.resumed:
            self._forget_sent()
        if before is None:
            self._begin()
        else:
            self._reopen()

    def _forget_sent(self) -> None:
        for asking in tuple(self._pending.values()):
            request = asking.request
            if not asking.sent:
                continue
            if request is None:
                # Nor does it know what that gave up; to ask for it again nobody would take it.
                del self._pending[asking.id]
                self._pending.pop(asking.of, None)
            elif not is_repeatable(request):
                del self._pending[asking.id]
                if asking.reply is not None:
                    self._by_reply.pop(asking.reply, None)
                    _answer(asking.reply, OutcomeUnknown(type(request).__name__))

    def _begin(self) -> None:
        self._ready = True
        if not self.greeted.done():
            self.greeted.set_result(self.welcome)
        # In the order of their IDs, which is that in which they were asked.
        for asking in tuple(self._pending.values()):
            self._go(asking)

    def _reopen(self) -> None:
        self._names.clear()
        self._audience.disconnect()
        holders = (*self._holders, *self._leaving)
        stays = self._holders.__contains__
        holding = {each.holder for each in self._audience if each.request.hold}
        # What a session put and was not told of, it may have put before it was suspended.
        put = Counter(
            each.holder
            for each in self._pending.values()
            if each.sent and type(each.request) is Put
        )
        had = {each for each in self._holders if each in holding or each.references > put[each]}
        Comeback(
            holders,
            stays,
            had,
            self._lost,
            self._audience,
            self._again,
            self._reopened,
            self._break,
        ).begin()

    def _expelled(self, session: int) -> None:
        # By the number that the server knows: what was evicted before it came back is another.
        self._names.pop(session, None)
        for holder in (*self._holders, *self._leaving):
            if holder.current == session:
                self._lost(holder)

    def _lost(self, holder: Session) -> None:
        # It is opened no more, and what it asks is refused.
        self._holders.pop(holder, None)
        self._leaving.pop(holder, None)
        holder.end()

    def _reopened(self, unwanted: Sequence[Told]) -> None:
        for each in unwanted:
            # It was left while it came back.
            self.tell(each.holder, Unsubscribe(each.number))
        self._begin()

    def _again(self, session: int | None, request: Request, then: Callable[[Any], None]) -> None:
        asking = Asking(next(self._ids), None, request, Then(then), again=True)
        asking.sent = asking.written = True
        self._pending[asking.id] = asking
        self._in_flight += 1
        self._send(Ask(request, asking.id, session))


def _answer(reply: Any, answer: Any) -> None:
    if reply is not None and not reply.done():
        reply.set_result(answer)
