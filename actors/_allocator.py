"""The allocator actor: the single writer, and `open_allocator`, which runs one.

It takes a batch from its mailbox, lets the core decide each request in order, then releases all
replies and deliveries: decide, commit, release. Nothing leaves before the whole batch is decided,
and nothing is awaited in between.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, assert_never

from anyio import CancelScope, create_task_group, move_on_after
from attrs import frozen

from ioasid.actors._mailbox import Mailbox, MailboxClosed
from ioasid.actors._reply import Reply, clock, reply_factory
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.core import (
    Allocator,
    AllocatorClosed,
    Complete,
    Deliver,
    Effect,
    End,
    Event,
    InvalidArgument,
    IoasidError,
    IoasidRecord,
    Request,
    Resync,
    SessionOpened,
    Snapshot,
    Subscribe,
    Subscribed,
    TakeStatistics,
    Withdraw,
)
from ioasid.core import Reply as Answer

__all__ = ["Decision", "Observer", "open_allocator"]

Item: TypeAlias = tuple[int | None, Any, Reply[Any] | None]
"""What the mailbox holds: session, request, reply; without a session, a call in its turn."""

logger = logging.getLogger("ioasid")

core_type: ContextVar[type[Allocator]] = ContextVar("core_type", default=Allocator)
"""What `open_allocator` makes its core of; `ioasid.testing` puts one there that checks itself."""


@frozen
class Decision:
    """What the allocator decided, for an observer: one request, and what it told whom of it."""

    holder: str
    """Who asked."""
    request: Request
    answer: Answer | IoasidError | None
    """`None` if the answer comes when what the request waits for has happened."""
    told: tuple[tuple[str, Event | Resync], ...]
    """What was put into the queues of subscribers, by holder name, in order."""
    find: Callable[[int], IoasidRecord | None]
    """Returns the record of an ID as it is during the call; `None` if it is not allocated."""


Observer: TypeAlias = Callable[[Decision], None]
"""Is called with every decision, in order. It must not wait or raise, and changes nothing."""


@frozen
class _Connect:
    """An effect of the actor's own: from here on the subscription's deliveries go there."""

    number: int
    subscription: Subscription


class AllocatorActor:
    """The task that owns the core; sessions talk to it through its mailbox."""

    def __init__(self, core: Allocator, mailbox_size: int, observer: Observer | None) -> None:
        self.core = core
        self.mailbox: Mailbox[Item] = Mailbox(mailbox_size, _is_given_up)
        self.new_reply = reply_factory()
        self.reason = "was shut down"
        self.crash: Exception | None = None
        self.ended: Reply[None] = self.new_reply()
        self._now = clock()
        self._observer = observer
        self._holders: dict[int, str] = {}
        self._subscribers: dict[int, str] = {}
        self._subscriptions: dict[int, Subscription] = {}
        self._effects: list[Effect | _Connect] = []
        self._waiting: dict[int, Reply[Any]] = {}
        self._tickets: dict[Reply[Any], int] = {}
        self._ticket = 0
        self._stopping = False
        self._scope = CancelScope(shield=True)
        self._shortest_deadline = float("inf")
        self._watcher: Reply[None] | None = None
        self._watcher_idle = False
        self._reported: set[tuple[int, int]] = set()

    # -- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop` or `kill`; whatever ends it, every pending reply is failed."""
        batch: list[Item] = []
        mailbox = self.mailbox
        try:
            # Shielded, so that whoever is cancelled along with it learns of that and not of its
            # end: `open_allocator` kills it when its body has ended.
            with self._scope:
                while not self._stopping:
                    await mailbox.ready()
                    batch = mailbox.take()
                    self._decide(batch)
                    batch = []
        except Exception as error:
            self._note_crash(error)
            raise
        finally:
            self._close(batch)
            if not self.ended.done():
                self.ended.set_result(None)

    def _note_crash(self, error: Exception) -> None:
        # No refusal: the state can no longer be trusted. Everybody is told, the rest of the batch
        # too, and the error takes down the scope that the allocator was opened in.
        self.reason = f"crashed ({type(error).__name__}: {error})"
        self.crash = error

    def _decide(self, batch: list[Item]) -> None:
        core = self.core
        handle = core.handle
        observed = self._observer is not None
        decided: list[tuple[Reply[Any], Any]] = []
        core.tick(self._now())
        for session, request, reply in batch:
            if reply is not None and reply.cancelled():
                continue
            answer: Any
            try:
                answer = request() if session is None else handle(session, request, self._ticket)
            except IoasidError as error:
                answer = error
            if observed and session is not None:
                self._observe(session, request, answer)
            if reply is not None:
                if answer is not None:
                    decided.append((reply, answer))
                else:
                    self._waiting[self._ticket] = reply
                    self._tickets[reply] = self._ticket
                    self._ticket += 1
        # Commit: what was decided would be written to a journal here, once for the batch.
        for reply, answer in decided:
            # Nothing was awaited since, but an observer may have cancelled somebody.
            if not (observed and reply.done()):
                reply.set_result(answer)
        if effects := core.drain():
            self._effects += effects
        if self._effects:
            self._release()

    def _release(self) -> None:
        for effect in self._effects:
            match effect:
                case Deliver():
                    self._subscriptions[effect.subscription]._deliver(effect.message)
                case Withdraw():
                    self._subscriptions[effect.subscription]._withdraw(effect.keep)
                case End():
                    self._subscribers.pop(effect.subscription, None)
                    self._subscriptions.pop(effect.subscription)._leave(drained=effect.drained)
                case Complete():
                    # Gone, if its caller gave up in the batch that brought the reclaim.
                    reply = self._waiting.pop(effect.ticket, None)
                    if reply is not None:
                        del self._tickets[reply]
                        if not reply.done():
                            reply.set_result(effect.reply)
                case _Connect():
                    self._subscriptions[effect.number] = effect.subscription
                case _:
                    assert_never(effect)
        self._effects.clear()
        if self._watcher_idle:
            self._wake_watcher()

    def _observe(self, session: int, request: Request, answer: Any) -> None:
        assert self._observer is not None
        if isinstance(answer, SessionOpened):
            self._holders[answer.session] = getattr(request, "name", "")
        effects = self.core.drain()
        self._effects += effects
        told = tuple(
            (self._subscribers.get(effect.subscription, ""), effect.message)
            for effect in effects
            if isinstance(effect, Deliver)
        )
        holder = self._holders.get(session, "")
        self._observer(Decision(holder, request, answer, told, self.core.record))

    # -- what sessions need done --------------------------------------------------------------

    def name_session(self, session: int, name: str) -> None:
        """Note a holder's name, for observers."""
        if self._observer is not None:
            self._holders[session] = name

    def subscribe(self, session: int, request: Subscribe, subscription: Subscription) -> Answer:
        """Decide a `Subscribe`, connected before anything is delivered."""
        self._effects += self.core.drain()
        try:
            answer = self.core.handle(session, request)
        except IoasidError as error:
            if self._observer is not None:
                self._observe(session, request, error)
            raise
        assert isinstance(answer, Subscribed), answer
        subscription._enter(answer)
        self._effects.append(_Connect(answer.subscription, subscription))
        if self._observer is not None:
            self._subscribers[answer.subscription] = self._holders[session]
            self._observe(session, request, answer)
        deadline = request.acknowledge_within
        if deadline is not None and deadline < self._shortest_deadline:
            self._shortest_deadline = deadline
            self._wake_watcher()
        return answer

    def snapshot(self, session: int) -> Snapshot:
        """Take a snapshot for a session, which has to be live as for any request."""
        self.core.handle(session, TakeStatistics())
        return self.core.snapshot()

    def is_waiting(self, reply: Reply[Any]) -> bool:
        """Tell whether a request was decided and its answer has yet to come."""
        return reply in self._tickets

    def abandon(self, reply: Reply[Any]) -> None:
        """Forget, in its turn, what a caller that gave up may be waiting for."""
        ticket = self._tickets.pop(reply, None)
        if ticket is not None:
            del self._waiting[ticket]
            self.core.abandon(ticket)

    # -- deadlines ----------------------------------------------------------------------------

    async def watch(self) -> None:
        """Log every subscriber that passes its acknowledgement deadline, once per message."""
        while True:
            self._watcher = self.new_reply()
            try:
                wait = self._report_overdue()
            except Exception as error:
                self._note_crash(error)
                raise
            self._watcher_idle = wait is None
            with move_on_after(wait):
                await self._watcher

    def _wake_watcher(self) -> None:
        self._watcher_idle = False
        if self._watcher is not None and not self._watcher.done():
            self._watcher.set_result(None)

    def _report_overdue(self) -> float | None:
        # Returns the seconds until somebody may be overdue, None if nobody lags.
        self.core.tick(self._now())
        due = [each for each in self.core.lagging() if each.acknowledge_within is not None]
        reported = set()
        wait = self._shortest_deadline if due else None
        for each in due:
            if not each.overdue:
                assert each.acknowledge_within is not None
                assert wait is not None
                # Never so short that a rounded clock does not move.
                wait = max(min(wait, each.acknowledge_within - each.oldest_age), 0.001)
                continue
            key = (each.subscription, each.oldest_seq)
            reported.add(key)
            if key not in self._reported:
                logger.warning(
                    "subscriber %s (subscription %d to %s) has not acknowledged message %d "
                    "for %.1f s; what it holds stays in quarantine until it does or is evicted",
                    each.holder,
                    each.subscription,
                    each.scope,
                    each.oldest_seq,
                    each.oldest_age,
                )
        self._reported = reported
        return wait

    # -- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """End in order: what is in the mailbox by now is decided."""

        def stop() -> None:
            self._stopping = True

        try:
            self.mailbox.put_last((None, stop, None))
        except MailboxClosed:
            pass

    def kill(self) -> None:
        """End at once, whatever is in the mailbox."""
        self._scope.cancel()

    def _close(self, batch: list[Item]) -> None:
        # Closing the mailbox and failing who is in it is one step: nobody can slip in between.
        left = [reply for _, _, reply in batch + self.mailbox.close()]
        for reply in [*left, *self._waiting.values()]:
            if reply is not None and not reply.done():
                reply.set_result(AllocatorClosed(self.reason))
        self._waiting.clear()
        self._tickets.clear()
        for subscription in self._subscriptions.values():
            subscription._close(None if self._stopping else AllocatorClosed(self.reason))
        self._subscriptions.clear()


def _is_given_up(item: Item) -> bool:
    reply = item[2]
    return reply is not None and reply.cancelled()


@asynccontextmanager
async def open_allocator(
    *,
    capacity: int | None = None,
    holder: str = "host",
    snapshot: Snapshot | None = None,
    mailbox_size: int = 1024,
    observer: Observer | None = None,
) -> AsyncIterator[Session]:
    """Run an allocator for the length of an `async with`; gives its first session.

    `capacity` is the number of IDs, 1..2^32-1, 2^20 unless told (`install_capacity` changes it
    before use). `holder` names the first session. `snapshot` goes on from a state taken before:
    its holders crashed, so those with references or holding subscriptions are suspended until
    sessions of their names come back and the rest left; the first session comes back as `holder`.
    `mailbox_size` bounds the requests decided in one batch, 1 or more; who asks beyond that waits
    its turn, and every holder has its share of a batch. `observer` is called with every decision.

    Leaving the scope ends the allocator: in order, everything asked before is answered; with an
    exception or a cancellation, at once. Whoever is still waiting gets `AllocatorClosed`. An
    error inside the allocator, a defect of ours, ends the scope and is raised from it; in a group
    only if the body failed for another reason besides.

    Raises `InvalidArgument` for arguments out of range, `MalformedMessage` for a bad snapshot.
    """
    if type(mailbox_size) is not int or mailbox_size < 1:
        raise InvalidArgument.of("mailbox_size", mailbox_size, "an int of 1 or more")
    if snapshot is None:
        core = core_type.get()(1 << 20 if capacity is None else capacity, holder=holder)
        opened = SessionOpened(core.session, False)
    elif capacity is None:
        core = core_type.get().restore(snapshot)
        core.suspend_all()
        core.drain()
        opened = core.open_session(holder)
    else:
        raise InvalidArgument.of("capacity", capacity, "None with a snapshot, which has it")
    if observer is not None and not callable(observer):
        raise InvalidArgument.of("observer", observer, "a callable")
    actor = AllocatorActor(core, mailbox_size, observer)
    session = Session(actor, holder, opened)
    raised: BaseException | None = None
    failure: BaseException | None = None
    try:
        async with create_task_group() as tasks:
            tasks.start_soon(actor.run, name="ioasid allocator")
            tasks.start_soon(actor.watch, name="ioasid deadlines")
            try:
                yield session
                actor.stop()
                await actor.ended
            except BaseException as error:
                raised = error
                actor.kill()
                raise
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The task group is ours, not the caller's: an exception leaves as it was raised.
        failure = _what_failed(group, actor.crash, raised)
    finally:
        del raised
    if failure is not None:
        try:
            raise failure
        finally:
            del failure


def _what_failed(
    group: BaseExceptionGroup[Any], crash: Exception | None, raised: BaseException | None
) -> BaseException:
    def follows(error: BaseException) -> bool:
        return error is crash or isinstance(error, AllocatorClosed)

    if crash is None:
        return raised if raised is not None and len(group.exceptions) == 1 else group
    # That everybody was told of a crash is no failure of its own.
    return crash if group.split(follows)[1] is None else group
