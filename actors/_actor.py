"""The base of the device actors: one mailbox, one message at a time, supervised.

An actor is a holder of its own name. Requests, and notes that its subscription has something to
take, come through one mailbox, so it stays single-threaded. What happened comes before what is
asked: it takes all that its subscription has before every request. When it crashes, its holder is
suspended: its references and IDs are kept. It restarts under the same name, learns what it holds,
and starts from a `Resync`. What models hardware (tables, contexts, transfers) is kept outside the
actor's memory of events and outlives the crash, as hardware does.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache
from types import UnionType
from typing import Any, Final, TypeAlias, get_args, get_origin, get_type_hints

from anyio import TASK_STATUS_IGNORED, create_task_group
from anyio import Event as Signal
from anyio.abc import TaskGroup, TaskStatus
from attrs import frozen

from ioasid.actors._allocator import Decision
from ioasid.actors._errors import ActorCrashed, ActorStopped
from ioasid.actors._mailbox import Mailbox, MailboxClosed
from ioasid.actors._reply import Reply, reply_factory
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.core import (
    AllocatorClosed,
    Event,
    InvalidArgument,
    IoasidError,
    MalformedMessage,
    Message,
    Resync,
    SessionEnded,
    UnknownHolder,
)

__all__ = ["LATER", "Actor", "HostObserver", "Step"]

logger = logging.getLogger("ioasid")


@frozen
class Step:
    """Something an actor took up or did, for an observer: a request, an event, or a report."""

    actor: str
    """The actor's holder name."""
    message: Message


HostObserver: TypeAlias = Callable[[Decision | Step], None]
"""Is called with every step of the actors and every decision of the allocator, in order."""


class Crash(Message, frozen=True):
    """Make the actor crash when this message's turn comes; a fault to plant."""

    reason: str


class PlantedFault(Exception):
    """What an actor crashes with when it is told to."""


class _Later:
    """The answer of a handler that answers later."""


LATER: Final = _Later()
"""What `Actor.on_message` returns when the request in hand is answered later."""
NOTE: Final = "there is something to take"


class Actor:
    """A device actor; see the module's docstring. Subclasses say what it handles.

    `holder` is its holder name, `observer` is told of its steps, and after `max_restarts`
    (0 or more) restarts in a row, without a request or event handled in between, it gives up.
    """

    def __init__(
        self,
        holder: str,
        *,
        observer: HostObserver | None = None,
        max_restarts: int = 3,
        mailbox_size: int = 1024,
    ) -> None:
        if type(max_restarts) is not int or max_restarts < 0:
            raise InvalidArgument.of("max_restarts", max_restarts, "an int of 0 or more")
        self.holder = holder
        self._observer = observer
        self._max_restarts = max_restarts
        self._mailbox: Mailbox[Any] = Mailbox(mailbox_size, _is_given_up)
        self._lane = self._mailbox.lane()
        self._new_reply = reply_factory()
        self._backlog: deque[Any] = deque()
        self._in_hand: Reply[Any] | None = None
        self._owed: set[Reply[Any]] = set()
        self._noted = False
        self._restarts = 0
        self._stop_reason = "was stopped"
        self._first = True
        self.ended = Signal()
        """Is set when the actor is gone for good and has left the allocator."""

    # -- what others do with it ---------------------------------------------------------------

    async def ask(self, message: Message) -> Any:
        """Send a message and wait for its answer.

        Raises the error the actor refuses it with, `ActorCrashed` if the actor crashed on it,
        `ActorStopped` if it is gone, `MalformedMessage` for what is no message, and
        `InvalidArgument` for a field of the wrong type.
        """
        _check(message)
        reply = self._new_reply()
        try:
            self._lane.put((message, reply))
        except MailboxClosed:
            raise ActorStopped(self.holder, self._stop_reason) from None
        answer = await reply
        if isinstance(answer, Exception):
            raise answer.with_traceback(None)
        return answer

    def tell(self, message: Message) -> None:
        """Send a message and wait for nothing, neither an answer nor an error of the actor's.

        Raises as `ask` does what is refused at the door; an actor that is gone is none.
        """
        _check(message)
        try:
            self._lane.tell((message, self._new_reply()))
        except MailboxClosed:
            pass

    def crash(self, reason: str = "told to") -> None:
        """Make the actor crash when its turn comes: a fault to plant, for demos and tests."""
        try:
            self._lane.tell((Crash(reason), None))
        except MailboxClosed:
            pass

    def stop(self) -> None:
        """Let the actor leave in order, when it has handled what it was sent before."""
        try:
            self._lane.tell(None)
        except MailboxClosed:
            pass

    # -- what a subclass says -----------------------------------------------------------------

    async def on_start(self, *, restarted: bool) -> None:
        """Prepare; `session` is open, what it held before is in `session.opened`."""

    def subscribe(self, *, restarted: bool) -> Subscription | None:
        """Return the subscription to be entered, `None` for an actor that is told nothing.

        After a restart it has to begin with a `Resync`.
        """
        return None

    async def on_message(self, message: Message) -> Any:
        """Handle a request and return its answer, or `LATER` (see `reply_later`).

        An `IoasidError` refuses it; any other exception crashes the actor.
        """
        raise MalformedMessage("request", f"{self.holder} does not know {type(message).__name__}")

    async def on_event(self, message: Event | Resync) -> None:
        """Handle what the subscription delivers; it is acknowledged on return, unless deferred."""

    async def on_give_up(self, allocator: Session) -> None:
        """Make the hardware safe, so that the holder can be evicted; or raise, and end the scope.

        `allocator` is a session that can evict.
        """
        try:
            await allocator.evict(self.holder)
        except UnknownHolder:
            pass

    # -- what a subclass uses -----------------------------------------------------------------

    session: Session
    events: Subscription | None
    _tasks: TaskGroup

    def report(self, message: Message) -> None:
        """Tell the observer of something done."""
        if self._observer is not None:
            self._observer(Step(self.holder, message))

    def reply_later(self) -> Reply[Any]:
        """Take the reply of the request in hand; answer it, or the actor's end fails it."""
        assert self._in_hand is not None, "only a request has a reply"
        self._owed.add(self._in_hand)
        return self._in_hand

    def answer(self, reply: Reply[Any], answer: Any) -> None:
        """Answer a reply taken with `reply_later`, unless its asker gave up."""
        self._owed.discard(reply)
        if not reply.done():
            reply.set_result(answer)

    def in_background(self, work: Callable[[], Awaitable[Any]]) -> _Later:
        """Answer the request in hand with what `work` returns; other messages go on meanwhile."""
        reply = self.reply_later()

        async def answer() -> None:
            try:
                self.answer(reply, await work())
            except (AllocatorClosed, SessionEnded):
                raise
            except IoasidError as error:
                self.answer(reply, error)

        self._tasks.start_soon(answer)
        return LATER

    # -- the task -----------------------------------------------------------------------------

    async def run(
        self, allocator: Session, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop`, restarting after crashes; `started` when it serves the first time.

        A first start that fails raises; later the actor gives up after too many crashes. Whatever
        ends it, every pending ask is answered.
        """
        try:
            while True:
                try:
                    await self._serve(allocator, task_status)
                    return
                except Exception as raised:  # noqa: BLE001 - a crash may be anything
                    error = _alone(raised)
                    if isinstance(error, AllocatorClosed):
                        self._stop_reason = "ended with the allocator"
                        return
                    if self._first:
                        self._stop_reason = f"did not start ({error})"
                        raise error from error.__cause__
                    self._fail_owed()
                    if self._restarts >= self._max_restarts:
                        self._stop_reason = f"gave up after {self._restarts} restarts"
                        logger.error("%s %s: %r", self.holder, self._stop_reason, error)
                        await self.on_give_up(allocator)
                        return
                    self._restarts += 1
                    logger.warning(
                        "%s crashed (%r); restart %d of %d",
                        self.holder,
                        error,
                        self._restarts,
                        self._max_restarts,
                    )
        finally:
            self._close()

    async def _serve(self, allocator: Session, task_status: TaskStatus[None]) -> None:
        async with allocator.session(self.holder) as self.session, create_task_group() as tasks:
            self._tasks = tasks
            self._noted = False
            self.events = self.subscribe(restarted=not self._first)
            await self.on_start(restarted=not self._first)
            if self.events is None:
                await self._loop(task_status)
            else:
                async with self.events:
                    await self._loop(task_status)
            tasks.cancel_scope.cancel()

    async def _loop(self, task_status: TaskStatus[None]) -> None:
        if self._first:
            self._first = False
            task_status.started()
        while True:
            while self._backlog:
                if self.events is not None:
                    await self._take(self.events)
                item = self._backlog.popleft()
                if item is None:
                    return
                if item is not NOTE:
                    await self._handle(*item)
                    self._restarts = 0
            await self._mailbox.ready()
            self._backlog.extend(self._mailbox.take())

    async def _handle(self, message: Message, reply: Reply[Any] | None) -> None:
        if reply is not None and reply.cancelled():
            return
        if isinstance(message, Crash):
            raise PlantedFault(message.reason)
        self._in_hand = reply
        self.report(message)
        answer: Any
        try:
            answer = await self.on_message(message)
        except (AllocatorClosed, SessionEnded):
            raise
        except IoasidError as error:
            answer = error
        if answer is not LATER and reply is not None and not reply.done():
            reply.set_result(answer)
        self._in_hand = None

    async def _take(self, events: Subscription) -> None:
        self._noted = False
        # To come back for the next one acknowledges the last one, unless it was deferred.
        while (message := events.take()) is not None:
            self.report(message)
            await self.on_event(message)
            if isinstance(message, Event):
                self._restarts = 0

    def note_event(self) -> None:
        """Post a note that the subscription has something to take; for `on_message` of it."""
        if not self._noted:
            self._noted = True
            try:
                self._lane.tell(NOTE)
            except MailboxClosed:
                pass

    # -- the end ------------------------------------------------------------------------------

    def _fail_owed(self) -> None:
        owed = [*self._owed]
        if self._in_hand is not None:
            owed.append(self._in_hand)
        for reply in owed:
            if not reply.done():
                reply.set_result(ActorCrashed(self.holder))
        self._owed.clear()
        self._in_hand = None

    def _close(self) -> None:
        stopped = ActorStopped(self.holder, self._stop_reason)
        pending = [*self._backlog, *self._mailbox.close()]
        replies = [item[1] for item in pending if isinstance(item, tuple)]
        for reply in [*replies, *self._owed, self._in_hand]:
            if reply is not None and not reply.done():
                reply.set_result(stopped)
        self._backlog.clear()
        self.ended.set()


def _is_given_up(item: Any) -> bool:
    return isinstance(item, tuple) and item[1] is not None and bool(item[1].cancelled())


def check_name(name: object) -> str:
    """Return the name of a device or VM, if it can be part of a holder's name."""
    if type(name) is not str or not 0 < len(name) <= 200:
        raise InvalidArgument.of("name", name, "a str of 1 to 200 characters")
    return name


def _check(message: object) -> None:
    # At the door: whatever an actor looks up with these, it finds or does not find.
    if not isinstance(message, Message):
        raise MalformedMessage("request", f"a {type(message).__name__} is no message")
    for name, types in _field_types(type(message)).items():
        found = getattr(message, name)
        if type(found) not in types:
            expected = " or ".join(
                "None" if each is type(None) else each.__name__ for each in types
            )
            raise InvalidArgument.of(name, found, expected)
        if type(found) is int and not -(2**63) <= found < 2**64:
            raise InvalidArgument.of(name, found, "an int of 64 bits")


@cache
def _field_types(kind: type[Message]) -> dict[str, tuple[type, ...]]:
    return {
        name: tuple(
            get_origin(each) or each
            for each in (get_args(hint) if isinstance(hint, UnionType) else (hint,))
        )
        for name, hint in get_type_hints(kind).items()
        if name in kind.__struct_fields__
    }


def _alone(error: Exception) -> Exception:
    # What a task group wrapped; of several, the one that means the end of the allocator.
    while isinstance(error, ExceptionGroup):
        closed = error.subgroup(AllocatorClosed)
        if closed is None and len(error.exceptions) > 1:
            break
        error = (closed or error).exceptions[0]
    return error
