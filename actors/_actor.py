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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, ClassVar, Final

from anyio import TASK_STATUS_IGNORED, create_task_group, get_cancelled_exc_class, sleep
from anyio import Event as Signal
from anyio.abc import TaskGroup, TaskStatus

from ioasid.actors._annotations import check_message
from ioasid.actors._client import Client
from ioasid.actors._errors import (
    ActorCrashed,
    ActorStopped,
    AsksItself,
    RequestFailed,
    alone,
)
from ioasid.actors._mailbox import SHARE, Mailbox, MailboxClosed
from ioasid.actors._owed import Item, Owed
from ioasid.actors._reply import Reply, current_task, is_cancelled, reply_factory
from ioasid.actors._session import Session, ending_of
from ioasid.actors._steps import Fault, HostTap, PlantedFault
from ioasid.actors._subscription import Subscription
from ioasid.actors._supervision import (
    NOTE,
    ActorStatistics,
    Crash,
    Forsaken,
    Restarts,
    Stop,
    Unclean,
)
from ioasid.actors._taps import Step, Taps, step_taps_everywhere
from ioasid.actors._thread import Door
from ioasid.core import (
    AllocatorClosed,
    Event,
    Evict,
    InvalidArgument,
    IoasidError,
    MalformedMessage,
    Message,
    NotCommitted,
    Resync,
    SessionEnded,
    UnknownHolder,
)
from ioasid.core._errors import shown
from ioasid.core._plurals import counted

__all__ = ["LATER", "Actor"]

logger = logging.getLogger("ioasid")


class _Later:
    """The answer of a handler that answers later."""


LATER: Final = _Later()
"""What `Actor.on_request` returns when the request in hand is answered later."""


SHOWN: Final = 1000
"""So many characters of what a request failed with are shown to its asker."""
GONE: Final = frozenset(("stopped", "suspended", "down"))
"""The states that an actor does not come back from."""
EVICTED: Final = (
    "was evicted while it served, or lost its name while its connection was broken: "
    "what it had may be given out by now"
)
"""What happened to an actor whose session ended, and that did not end it itself."""


class Actor:
    """A device actor; see the module's docstring. Subclasses say what it handles.

    `holder` is its holder name; the rest is described by `ActorOptions`. Raises
    `InvalidArgument`.
    """

    restart_on: ClassVar[tuple[type[Exception], ...]] = ()
    """What leaves the state of the actor broken when a request's handler raises it.

    Anything else that a handler raises, and is no `IoasidError`, is the failure of that request
    alone: a guest that can make a handler raise must not take a device away from everybody.
    """

    def __init__(
        self,
        holder: str,
        *,
        taps: Collection[HostTap] = (),
        fault: Fault | None = None,
        max_restarts: int = 5,
        restart_wait: float = 0.01,
        mailbox_size: int = 1024,
    ) -> None:
        if fault is not None and not callable(fault):
            raise InvalidArgument.of("fault", fault, "a callable")
        self.holder = holder
        self.new_reply = reply_factory()
        self._door = Door(holder)
        self._current_task = current_task()
        self._taps: Taps[Step] = Taps(taps)
        self._taps.add(step_taps_everywhere())
        self._fault = fault
        self._restarts = Restarts(max_restarts, restart_wait)
        self._mailbox: Mailbox[Any] = Mailbox(mailbox_size, _is_given_up, lone_share=SHARE)
        self._lane = self._mailbox.lane()
        self._client = Client(self, self._lane)
        self._notes = self._mailbox.lane()
        self._backlog: deque[Any] = deque()
        self._in_hand: Item | None = None
        self._owed = Owed()
        self._noted = False
        self._fatal: Final[tuple[type[Exception], ...]] = (
            AllocatorClosed,
            SessionEnded,
            PlantedFault,
            *self.restart_on,
        )
        self._stop_asked: Stop | None = None
        self._error: Exception | None = None
        self._state = "new"
        self._task: object = object()
        self._stop_reason = "does not run; await tasks.start(actor.run, session)"
        self.ended = Signal()
        """Is set when the actor is gone for good: it left the allocator, or is suspended there."""

    # -- what others do with it ---------------------------------------------------------------

    def client(self) -> Client:
        """Return one more way to ask, with its own place in line; an actor may have any number."""
        return Client(self, self._mailbox.lane())

    async def ask(self, message: Message) -> Any:
        """Send a message and wait for its answer; as `Client.ask`, in a line that all share."""
        return await self._client.ask(message)

    def tell(self, message: Message) -> None:
        """Send a message and wait for nothing; as `Client.tell`, in a line that all share."""
        self._client.tell(message)

    def tell_from_thread(self, message: Message) -> None:
        """Send a message from any thread, an interrupt's for instance; it is handled at once.

        Raises what `tell` does but `WrongThread`. An event loop that has ended is an actor that
        is gone.
        """
        check_message(message)
        if self._state == "new":
            raise self.closed()
        self._door.run_soon(lambda: self._post(message))

    def crash(self, reason: str = "told to") -> None:
        """Make the actor crash when its turn comes: a fault to plant, for demos and tests."""
        self._post(Crash(reason))

    def stop(self, *, drain: bool = True) -> None:
        """Let the actor leave in order, when it has handled what it was sent before.

        With `drain` it takes no more work, waits until its hardware is clean, and leaves; without,
        or if its class cannot tell, its holder is suspended if it still holds anything: what it
        holds stays in quarantine until it comes back, or somebody evicts it. A second call with
        `drain=False` ends the waiting. `ended` says when it is over.
        """
        self._post(Stop(drain))

    def statistics(self) -> ActorStatistics:
        """Return the state of this moment; an actor that is gone has one, too."""
        waiting = len(self._backlog) + self._mailbox.statistics().waiting
        restarts = self._restarts.in_a_row
        return ActorStatistics(self.holder, self._state, restarts, waiting, self._error)

    def check(self, message: Message, *, waits: bool) -> None:
        """Raise what a message, or whoever asks (and waits), is refused with at the door."""
        self._door.check()
        check_message(message)
        if self._state == "new":
            raise self.closed()
        if waits and self._current_task() is self._task and not self.ended.is_set():
            raise AsksItself(self.holder)

    def closed(self) -> ActorStopped:
        """Return the error of whoever asks an actor that is gone."""
        return ActorStopped(self.holder, self._stop_reason)

    def forsaken(self, message: Message, answer: Any) -> Message:
        """Return what lets the actor undo what an asker who is gone never learned of."""
        return Forsaken(message, answer)

    def _post(self, message: Message) -> None:
        self._door.check()
        try:
            self._lane.tell((message, None))
        except MailboxClosed:
            pass

    # -- what a subclass says -----------------------------------------------------------------

    async def on_start(self, *, restarted: bool) -> None:
        """Prepare; `session` is open, what it held before is in `session.opened`.

        It `restarted` after a crash of its own, or of the process that its holder was in.
        """

    def subscribe(self, *, restarted: bool) -> Subscription | None:
        """Return the subscription to be entered, `None` for an actor that is told nothing.

        After a restart it has to begin with a `Resync`.
        """
        return None

    async def on_request(self, message: Message) -> Any:
        """Handle a request and return its answer, or `LATER` (see `reply_later`).

        An `IoasidError` refuses it; what is in `restart_on` crashes the actor; any other exception
        fails this request and nothing else.
        """
        raise MalformedMessage("request", f"{self.holder} does not know {type(message).__name__}")

    async def on_event(self, message: Event | Resync) -> None:
        """Handle what the subscription delivers; it is acknowledged on return, unless deferred.

        Any exception crashes the actor: what it missed is in the `Resync` it restarts with.
        """

    async def on_forsaken(self, message: Message, answer: Any) -> None:
        """Undo a request whose asker is gone and never got this answer; or let it stand.

        Undo what only the answer names, an ID that was allocated for instance.
        """

    async def on_stop(self) -> None:
        """Begin to make the hardware clean: start no more work, tear down what can be."""

    def is_clean(self) -> bool | None:
        """Tell whether nothing is programmed any more, so that the actor may leave.

        While it is `False` an actor that was stopped goes on handling what comes. `None`, as
        here, is for who cannot tell: then it does not wait, and is suspended if it holds anything.
        """
        return None

    async def on_give_up(self, allocator: Session) -> None:
        """Do what has to be done when the actor will not restart any more.

        Its holder is suspended, and what it holds stays in quarantine. A subclass that resets its
        hardware here may evict it (`allocator` can, and `evict_self` does); one without which
        nothing is safe may raise, which ends the scope.
        """

    # -- what a subclass uses -----------------------------------------------------------------

    session: Session
    events: Subscription | None
    tasks: TaskGroup

    @property
    def stopping(self) -> bool:
        """Whether it was stopped and drains: no more work is taken."""
        return self._state == "stopping"

    def refuse_if_stopping(self) -> None:
        """Raise `ActorStopped` if it was stopped: for requests that begin something."""
        if self.stopping:
            raise ActorStopped(self.holder, "is being stopped")

    async def evict_self(self, allocator: Session) -> None:
        """Declare the hardware clean after a crash: for `on_give_up`, when it was reset."""
        try:
            await allocator.insist(Evict(self.holder))
        except UnknownHolder:
            pass

    def report(self, message: Message) -> None:
        """Let the taps see something done."""
        if self._taps or self._fault is not None:
            step = Step(self.holder, message)
            self._taps.see(step)
            if self._fault is not None:
                try:
                    self._fault(step)
                except Exception as error:
                    raise PlantedFault(f"at {type(message).__name__}") from error

    def reply_later(self) -> Reply[Any]:
        """Take the reply of the request in hand; answer it, or the actor's end fails it.

        Raises RuntimeError where there is no request in hand, from `on_event` for instance.
        """
        if self._in_hand is None:
            raise RuntimeError("there is no request in hand: only a request is answered")
        message, reply = self._in_hand
        # Nobody waits for what was told, but a handler need not know.
        return self._owed.take(message, self.new_reply() if reply is None else reply)

    def answer(self, reply: Reply[Any], answer: Any, *, undo: bool = True) -> None:
        """Answer a reply taken with `reply_later`; `on_forsaken` is for what nobody waits for.

        Without `undo` it is not: the caller has seen to that.
        """
        self._door.check()
        forsaken = self._owed.answer(reply, answer)
        if forsaken is not None and undo:
            self._post(Forsaken(forsaken, answer))

    def in_background(self, work: Callable[[], Awaitable[Any]]) -> _Later:
        """Answer the request in hand with what `work` returns; other messages go on meanwhile.

        Raises RuntimeError as `reply_later` does. What `work` raises is the failure of the request.
        """
        reply = self.reply_later()

        async def answer() -> None:
            try:
                self.answer(reply, await work())
            except self._fatal:
                raise
            except IoasidError as error:
                self.answer(reply, error)
            except Exception as error:  # noqa: BLE001 - it is the request's failure
                self.answer(reply, self._failed(error))
            except get_cancelled_exc_class() as error:
                self.answer(reply, self._failed(self._astray(error)))

        self.tasks.start_soon(answer)
        return LATER

    # -- the task -----------------------------------------------------------------------------

    async def run(
        self, allocator: Session, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop`, restarting after crashes; `started` when it serves the first time.

        Every restart waits longer than the one before: `restart_wait` seconds, then four times
        that, and so on, until `max_restarts` in a row; then it gives up, unless what fails is a
        journal (`NotCommitted`), which is waited for. A first start that fails raises. Whatever
        ends it, every pending ask is answered. Raises `ActorStopped` for an actor that runs already
        or is gone: make another one.
        """
        self._door.check()
        if self._state != "new":
            reason = self._stop_reason if self.ended.is_set() else "runs already"
            raise ActorStopped(self.holder, reason)
        self._state = "starting"
        self._stop_reason = "was cancelled"
        try:
            while await self._serve_once(allocator, task_status):
                pass
        finally:
            self._close()

    async def _serve_once(self, allocator: Session, task_status: TaskStatus[None]) -> bool:
        # Returns whether to restart.
        try:
            await self._serve(allocator, task_status)
        except Exception as raised:
            error = alone(raised)
            if isinstance(error, AllocatorClosed) and self._state != "starting":
                self._gone("stopped", f"ended with the allocator, which {error.reason}")
                logger.warning("%s ended with the allocator, which %s", self.holder, error.reason)
                return False
            if isinstance(error, Unclean):
                self._gone("suspended", "was stopped")
                return False
            self._error = error
            if self._state == "starting":
                self._gone("stopped", f"did not start ({error})")
                raise error from error.__cause__
            self._fail_owed(error)
            restarts = self._restarts
            # While a disk fails, giving up helps nobody: it goes on when the disk does.
            if restarts.spent() and not isinstance(error, NotCommitted):
                times = counted(restarts.in_a_row, "restart")
                self._gone("down", f"gave up after {times}")
                logger.error(
                    "%s gave up after %s; what it holds stays in quarantine until its "
                    "holder comes back or is evicted",
                    self.holder,
                    times,
                    exc_info=error,
                )
                await self.on_give_up(allocator)
                return False
            self._state = "restarting"
            wait = restarts.next()
            ended = isinstance(error, SessionEnded) and error.session == self.session.number
            logger.warning(
                "%s %s; restart %d of %d in %.2f s",
                self.holder,
                EVICTED if ended else "crashed",
                restarts.in_a_row,
                restarts.most,
                wait,
                # Somebody did it: no line of the actor's has a part in it.
                exc_info=None if ended else error,
            )
            await sleep(wait)
            return True
        self._gone("stopped", "was stopped")
        return False

    async def _serve(self, allocator: Session, task_status: TaskStatus[None]) -> None:
        restarted = self._state != "starting"
        over = False
        async with allocator.session(self.holder) as self.session, self._told_of_its_end():
            async with create_task_group() as tasks:
                self.tasks = tasks
                self._task = self._current_task()
                self._noted = False
                # In a process before this one, perhaps.
                restarted |= self.session.opened.resumed
                try:
                    await self._serve_in(restarted, task_status)
                except get_cancelled_exc_class() as error:
                    raise self._astray(error) from error
                over = True
                tasks.cancel_scope.cancel()
            if not over:
                # A task group ends in silence with a task in it that ends by a cancellation.
                raise RuntimeError(f"a task of {self.holder} was cancelled")

    @asynccontextmanager
    async def _told_of_its_end(self) -> AsyncIterator[None]:
        # Evicted, or with its allocator: its subscription may have ended before, or it has none.
        self._end_of_session = ending_of(self.session)
        forget = self._end_of_session.watch(self.note_event)
        try:
            yield
        finally:
            forget()

    async def _serve_in(self, restarted: bool, task_status: TaskStatus[None]) -> None:
        self.events = self.subscribe(restarted=restarted)
        await self.on_start(restarted=restarted)
        if self.events is None:
            await self._loop(task_status)
        else:
            async with self.events:
                await self._loop(task_status)

    async def _loop(self, task_status: TaskStatus[None]) -> None:
        started = self._state == "starting"
        self._state = "serving"
        if started:
            task_status.started()
        if isinstance(self._error, NotCommitted):
            # What a disk made it crash by is over.
            self._restarts.in_a_row = 0
        if self._stop_asked is not None:
            await self._begin_to_stop(self._stop_asked)
        while True:
            while self._backlog:
                self._noted = False
                if self.events is not None:
                    await self._take(self.events)
                self._end_of_session.check()
                message, reply = self._backlog.popleft()
                if message is not NOTE:
                    await self._handle(message, reply)
                    self._restarts.in_a_row = 0
                if self.stopping and self.is_clean():
                    return
            # Clean from the beginning, perhaps, after a crash while it stopped.
            if self.stopping and self.is_clean():
                return
            await self._mailbox.ready()
            self._backlog.extend(self._mailbox.take())

    async def _begin_to_stop(self, stop: Stop) -> None:
        self._stop_asked = stop
        self._state = "stopping"
        if stop.drain:
            await self.on_stop()
        clean = self.is_clean()
        if clean is None or not (clean or stop.drain):
            raise Unclean

    async def _handle(self, message: Message, reply: Reply[Any] | None) -> None:
        if reply is not None and reply.cancelled():
            return
        match message:
            case Crash(reason):
                raise PlantedFault(reason)
            case Stop():
                await self._begin_to_stop(message)
            case Forsaken(asked, answer):
                await self._undo(asked, answer)
            case _:
                await self._handle_request(message, reply)

    async def _handle_request(self, message: Message, reply: Reply[Any] | None) -> None:
        self._in_hand = (message, reply)
        self.report(message)
        answer: Any
        try:
            answer = await self.on_request(message)
        except self._fatal:
            raise
        except IoasidError as error:
            answer = error
        except Exception as error:  # noqa: BLE001 - it is the request's failure
            answer = self._failed(error)
        except get_cancelled_exc_class() as error:
            answer = self._failed(self._astray(error))
        self._in_hand = None
        if answer is LATER or reply is None:
            return
        if not reply.done():
            reply.set_result(answer)
        else:
            await self._undo(message, answer)

    def _failed(self, error: Exception) -> RequestFailed:
        logger.error("%s failed on a request, and goes on", self.holder, exc_info=error)
        failed = RequestFailed(self.holder, shown(error, SHOWN))
        failed.__cause__ = error
        return failed

    def _astray(self, error: BaseException) -> RuntimeError:
        # What a handler waited for was cancelled, and not the handler: its failure, not our end.
        if is_cancelled():
            raise error
        astray = RuntimeError(f"{self.holder} waited for what was cancelled")
        astray.__cause__ = error
        return astray

    async def _undo(self, message: Message, answer: Any) -> None:
        if isinstance(answer, Exception):
            return
        try:
            await self.on_forsaken(message, answer)
        except self._fatal:
            raise
        except IoasidError:
            # Somebody else ended it meanwhile.
            pass
        except Exception as error:  # noqa: BLE001 - it is the request's failure
            self._failed(error)
        except get_cancelled_exc_class() as error:
            self._failed(self._astray(error))

    async def _take(self, events: Subscription) -> None:
        # To come back for the next one acknowledges the last one, unless it was deferred.
        while (message := events.take()) is not None:
            self.report(message)
            await self.on_event(message)
            if isinstance(message, Event):
                self._restarts.in_a_row = 0

    def note_event(self) -> None:
        """Post a note that the subscription has something to take; for its `wake`."""
        if not self._noted:
            self._noted = True
            try:
                self._notes.tell((NOTE, None))
            except MailboxClosed:
                pass

    # -- the end ------------------------------------------------------------------------------

    def _fail_owed(self, error: Exception) -> None:
        crashed = partial(ActorCrashed, self.holder)
        self._owed.fail(self._take_in_hand(), crashed, cause=error)

    def _take_in_hand(self) -> list[Item]:
        in_hand, self._in_hand = self._in_hand, None
        return [] if in_hand is None else [in_hand]

    def _gone(self, state: str, reason: str) -> None:
        self._state = state
        self._stop_reason = reason

    def _close(self) -> None:
        if self._state not in GONE:
            # Cancelled, or ended by something that is no crash: to its holder, it is one.
            self._state = "suspended"
        pending = [*self._backlog, *self._mailbox.close(), *self._take_in_hand()]
        self._backlog.clear()
        self._owed.fail(pending, self.closed)
        self.ended.set()


def _is_given_up(item: Item) -> bool:
    reply = item[1]
    return reply is not None and reply.cancelled()
