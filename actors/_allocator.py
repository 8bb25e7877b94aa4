"""The allocator actor: the single writer.

Everything that changes state, or is worth replaying, comes through its mailbox as an `Envelope`
and passes one line, in one order: decide, commit, release. It takes a batch from its mailbox and
lets the core decide each request; then the batch is committed, taps see it, and only then do its
answers and deliveries leave. While one batch is being committed the next can be decided.

If a journal can't keep a batch, nobody has heard of it yet, nor of what was decided since. The
state goes back to what was committed last, and all of it is as if it had never been asked; what
becomes of it is said in `Outage`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final, assert_never

from anyio import CancelScope, create_task_group, move_on_after
from msgspec.structs import replace

from ioasid.actors._commit import Answers, Batch, Commit, CommitStage
from ioasid.actors._deadlines import Deadlines
from ioasid.actors._durable import Keeper
from ioasid.actors._ending import Ending
from ioasid.actors._envelope import Envelope, Fate
from ioasid.actors._errors import alone
from ioasid.actors._mailbox import Mailbox, MailboxClosed
from ioasid.actors._outage import Outage
from ioasid.actors._port import Outlet
from ioasid.actors._reply import Reply, clock, reply_factory
from ioasid.actors._taps import Decision, Taps
from ioasid.actors._thread import Door
from ioasid.core import (
    Abandon,
    Acknowledge,
    Allocator,
    AllocatorClosed,
    Answer,
    Applied,
    AskAgain,
    Begin,
    Complete,
    Continue,
    Deliver,
    Effect,
    End,
    Expel,
    ImportSet,
    IoasidError,
    NotCommitted,
    Refused,
    Request,
    SessionEnded,
    SessionOpened,
    Statistics,
    Subscribe,
    Subscribed,
    Tick,
    Waiting,
    Withdraw,
    refusal_of,
    undo_of,
)

__all__: list[str] = []

DRIVER: Final = 0
"""The session that the actor itself asks by."""

RETRY: Final = 1.0
"""Seconds after which a journal that failed is tried again, if something waits that nobody asks."""

SPECIAL: Final = frozenset((SessionOpened, Statistics, Subscribed, Waiting))
"""Answers that the actor has a part in."""


class AllocatorActor:
    """The task that owns the core; ports talk to it through its mailbox."""

    def __init__(
        self,
        core: Allocator,
        mailbox_size: int,
        taps: Taps[Decision],
        commit: Commit | None,
        keeper: Keeper | None,
        *,
        goes_on: bool,
    ) -> None:
        self.mailbox: Mailbox[Envelope] = Mailbox(mailbox_size, _is_given_up)
        self.dealt_with: list[tuple[int, int]] = []
        """What subscribers came back from, as an `Acknowledge` has it, since the last batch."""
        self.new_reply = reply_factory()
        self.door = Door("the allocator")
        self.reason = "was shut down"
        self.crash: Exception | None = None
        self.ended: Reply[None] = self.new_reply()
        self.ending: Final = Ending()
        self._sessions: dict[int, Ending] = {}
        """The ends of the sessions that are there, by number."""
        if core.session:
            self._sessions[core.session] = Ending(self.ending)
        self._core = core
        self._lane = self.mailbox.lane()
        self._going_on = False
        """Whether it asked itself to go on with what is done in parts."""
        self._now = _moved(core, clock()) if goes_on else clock()
        self._taps = taps
        self._keeper = keeper
        self._outage = Outage(keeper)
        self._stage: CommitStage | None = None
        """None if there is nothing to be awaited between decide and release."""
        if keeper is not None:
            self._stage = CommitStage(keeper.commit, self._release, self._go_back)
        elif commit is not None:
            self._stage = CommitStage(commit, self._release, None)
        if taps:
            core.watch()
        self._noting = self._stage is not None or bool(taps)
        self._handle = self._handle_noted if self._noting else core.handle
        self._time = 0.0
        self._effects: list[Effect] = []
        self._applied: list[Applied] = []
        self._decisions: list[Decision] = []
        """What the batch that is being decided came to so far."""
        self._outlets: dict[int, Outlet] = {}
        self._telling = False
        """Whether answers and messages of a batch are being given out."""
        self._afterwards: list[Callable[[], object]] = []
        """What to call when they are."""
        self._joining: deque[tuple[int, Outlet]] = deque()
        """Subscriptions whose `Begin` was not released yet, twice if one came back meanwhile."""
        self._waiting: dict[int, Envelope] = {}
        """By ticket, who waits for a reclaim."""
        self._tickets: dict[Reply[Any], int] = {}
        self.batches = 0
        """How many were decided."""
        self._taken: list[Envelope] = []
        """What was taken from the mailbox and is not decided."""
        self._stopping = False
        self._killed = False
        self._scope = CancelScope(shield=True)
        # Of the subscribers that it goes on with nothing is known here until one lags.
        self._deadlines = Deadlines(core, suspended=None if goes_on else set())
        self._ringing_at = inf
        """What the alarm is set to."""
        self._looked_after = 0
        """The index of the core when it was last thought of whom to look at."""
        self._rung = False
        self._alarm_set: Reply[None] = self.new_reply()

    # -- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until `stop` or `kill`; whatever ends it, every pending reply is failed."""
        try:
            # Shielded, so that whoever is cancelled along with it learns of that and not of its
            # end: `open_allocator` kills it when its body has ended.
            with self._scope:
                await self._serve()
        except Exception as raised:  # noqa: BLE001 - a crash may be anything
            # No refusal: the state can no longer be trusted. Everybody is told, the rest of the
            # batch too, and the error takes down the scope that the allocator was opened in.
            error = alone(raised)
            self.reason = f"crashed ({type(error).__name__}: {error})"
            self.crash = error
            raise error from error.__cause__
        finally:
            self._close()
            if not self.ended.done():
                self.ended.set_result(None)

    async def _serve(self) -> None:
        mailbox, stage, outage = self.mailbox, self._stage, self._outage
        # What a state has left to do goes on behind the first batch: there whoever had sessions
        # is suspended, so that nothing is delivered to them.
        async with create_task_group() as tasks:
            if stage is not None:
                tasks.start_soon(stage.run, name="ioasid commit")
            while True:
                if outage.kept:
                    with move_on_after(RETRY):
                        await mailbox.ready()
                else:
                    await mailbox.ready()
                if self._stopping:
                    break
                self._taken = mailbox.take()
                if self.dealt_with:
                    self._acknowledge()
                if outage.failure is not None:
                    self._taken = await outage.go_on(self._taken, self._core.may_change)
                batch = self._decide()
                if batch is not None:
                    self._pass_on(batch)
            if stage is not None:
                stage.end()
        # All that was committed is released. What is left was in the mailbox at the end, or undoes
        # what nobody learned of.
        self._acknowledge()
        if outage.failure is not None:
            self._taken = await outage.go_on(self._taken, self._core.may_change)
        while self._taken:
            batch = self._decide()
            if batch is not None:
                self._pass_on(batch)
            if stage is not None:
                await stage.run()
            self._acknowledge()
        outage.end()

    def _pass_on(self, batch: Batch) -> None:
        if self._stage is None:
            self._release(batch)
        else:
            self._stage.add(batch)

    async def _go_back(self, error: NotCommitted) -> None:
        # To the state of the last commit.
        assert self._keeper is not None
        assert self._stage is not None
        self._outage.begin(error)
        core = await self._keeper.committed()
        failed = self._stage.take_back()
        again = [envelope for batch in failed for envelope in batch.envelopes]
        for batch in failed:
            batch.fate.is_undone = True
            for _, answer, _ in batch.answers:
                if isinstance(answer, Subscribed):
                    self._deadlines.end(answer.subscription)
        self._joining.clear()
        for envelope in again:
            ticket = None if envelope.reply is None else self._tickets.pop(envelope.reply, None)
            if ticket is not None:
                del self._waiting[ticket]
        waits = {ticket: envelope.request for ticket, envelope in self._waiting.items()}
        core.take_place_of(self._core, waits)
        self._effects = core.drain()
        if self._taps:
            core.watch()
        self._core = self._deadlines.core = core
        taken, self._taken = self._taken, again
        decided = self._decide()
        assert decided is not None, "what is kept is noted"
        self._release(decided)
        # What that undoes comes first, if the mailbox is closed already.
        self._taken += taken
        self._outage.is_back()
        if self._outage.kept:
            # It waits for its mailbox, perhaps, and not for the time to try again.
            self.mailbox.rouse()

    # -- decide -------------------------------------------------------------------------------

    @property
    def commits(self) -> int:
        """How many were made."""
        return 0 if self._stage is None else self._stage.commits

    def _decide(self) -> Batch | None:
        # `None` if nothing has to be kept and nobody looks: all of it has left then.
        self.batches += 1
        handle, core, noting = self._handle, self._core, self._noting
        self._telling = not noting
        answers: Answers = []
        now = self._time = self._now()
        tick = Tick(now)
        core.handle(DRIVER, tick)
        if self._rung:
            # The time that was posted is over, and time does not go back.
            self._rung = False
            self._taken = [
                replace(each, request=tick) if type(each.request) is Tick else each
                for each in self._taken
            ]
        envelopes = self._taken
        if self._outage.failure is not None:
            self._taken = self._outage.admit(self._taken, core, answers)
        answer: Answer | IoasidError | None
        for envelope in self._taken:
            reply = envelope.reply
            if reply is None:
                if envelope.fate is not None and envelope.fate.is_undone:
                    continue
                if type(envelope.request) is Continue:
                    self._going_on = False
            elif reply.cancelled():
                continue
            try:
                answer = handle(envelope.session, envelope.request)
            except IoasidError as error:
                answer = error
            if type(answer) in SPECIAL:
                answer = self._take_part(envelope, answer)
            if reply is None or answer is None:
                continue
            if noting:
                answers.append((reply, answer, envelope))
            else:
                reply.set_result(answer)
        self._taken = []
        if core.has_work and not self._going_on:
            # A part with each batch: whoever asked meanwhile is served between two of them.
            self._going_on = True
            self._post(DRIVER, Continue())
        deadlines = self._deadlines
        if deadlines.pace != inf or deadlines.alarm != inf:
            self._see_to_deadlines(now)
        if noting:
            batch = Batch(answers, self._effects, self._applied, self._decisions, envelopes, Fate())
            self._effects, self._applied, self._decisions = [], [], []
            return batch
        effects = core.drain()
        if effects:
            self._carry_out(effects)
        self._told()
        return None

    def _see_to_deadlines(self, now: float) -> None:
        deadlines, index = self._deadlines, self._core.index
        if now >= deadlines.alarm:
            deadlines.look(now)
        if index != self._looked_after and now + deadlines.pace < deadlines.alarm:
            # Whoever begins to lag by what happened is looked at when it may be overdue.
            deadlines.alarm = now + deadlines.pace
        self._looked_after = index
        if deadlines.alarm != self._ringing_at and not self._alarm_set.done():
            self._alarm_set.set_result(None)

    def _acknowledge(self) -> None:
        # One request for all: to decide and to settle each by itself costs several times as much.
        if self.dealt_with:
            acknowledge = Acknowledge(tuple(self.dealt_with))
            self.dealt_with.clear()
            self._taken = [Envelope(DRIVER, acknowledge, None), *self._taken]

    def _take_part(
        self, envelope: Envelope, answer: Answer | IoasidError
    ) -> Answer | IoasidError | None:
        match answer:
            case Waiting(ticket):
                if envelope.reply is not None:
                    self._waiting[ticket] = envelope
                    self._tickets[envelope.reply] = ticket
                return None
            case Subscribed(number):
                assert isinstance(envelope.request, Subscribe), envelope
                assert envelope.outlet is not None, envelope
                self._joining.append((number, envelope.outlet))
                request = envelope.request
                within = request.acknowledge_within if request.awaited else None
                self._deadlines.begin(number, within)
            case SessionOpened(session):
                self._sessions[session] = Ending(self.ending)
            case Statistics():
                return replace(answer, mailbox=self.mailbox.statistics().waiting)
            case _:
                raise AssertionError(answer)
        return answer

    def _handle_noted(self, session: int, request: Request) -> Answer:
        core = self._core
        holder = core.holder(session)
        before = core.index
        try:
            answer = core.handle(session, request)
        except IoasidError as error:
            self._note(session, holder, request, refusal_of(error))
            raise
        if core.index != before:
            self._applied.append(Applied(core.index, self._time, session, request))
        self._note(session, holder, request, answer)
        return answer

    def _note(self, session: int, holder: str, request: Request, answer: Answer | Refused) -> None:
        core = self._core
        effects = core.drain()
        self._effects += effects
        if self._taps:
            told = tuple(effects)
            decision = Decision(
                core.index, self._time, session, holder, request, answer, told, core.changes()
            )
            self._decisions.append(decision)

    # -- release ------------------------------------------------------------------------------

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call something when all of the batch that is being told is; in a turn soon if none is.

        On asyncio only. So what a batch came to leaves in one go, without a turn in between.
        """
        if self._telling:
            self._afterwards.append(call)
        else:
            asyncio.get_running_loop().call_soon(call)

    def _told(self) -> None:
        self._telling = False
        if self._afterwards:
            calls, self._afterwards = self._afterwards, []
            for call in calls:
                call()

    def _release(self, batch: Batch) -> None:
        self._telling = True
        for decision in batch.decisions:
            self._taps.see(decision)
        for reply, answer, envelope in batch.answers:
            if not reply.done():
                reply.set_result(answer)
            elif not isinstance(answer, IoasidError):
                # Whoever asked gave up since it was decided.
                self._undo(envelope.session, envelope.request, answer)
        self._carry_out(batch.effects)
        self._told()

    def _carry_out(self, effects: list[Effect]) -> None:
        outlets = self._outlets
        for effect in effects:
            match effect:
                case Deliver():
                    message = effect.message
                    for number in effect.subscriptions:
                        outlets[number].deliver(message)
                case Withdraw():
                    outlets[effect.subscription].withdraw(effect.keep)
                case Begin():
                    number, outlets[effect.subscription] = self._joining.popleft()
                    assert number == effect.subscription
                case End():
                    # Not if its subscriber is back already, and is looked after since.
                    if all(number != effect.subscription for number, _ in self._joining):
                        self._deadlines.end(effect.subscription)
                    # None for who subscribed in the process that a snapshot was taken in.
                    outlet = outlets.pop(effect.subscription, None)
                    if outlet is not None:
                        outlet.end(drained=effect.drained)
                case Expel():
                    ending = self._sessions.pop(effect.session, None)
                    if ending is not None:
                        ending.begin(SessionEnded(effect.session))
                case Complete():
                    self._complete(effect)
                case AskAgain():
                    self._ask_again(effect.ticket)
                case _:
                    assert_never(effect)

    def _complete(self, effect: Complete) -> None:
        # Gone, if its caller gave up in the batch that brought the reclaim.
        envelope = self._waiting.pop(effect.ticket, None)
        if envelope is not None:
            reply = envelope.reply
            assert reply is not None, "somebody waits"
            del self._tickets[reply]
            if not reply.done():
                reply.set_result(effect.answer)
            else:
                self._undo(envelope.session, envelope.request, effect.answer)

    def _ask_again(self, ticket: int) -> None:
        envelope = self._waiting.pop(ticket, None)
        if envelope is not None:
            assert envelope.reply is not None, "somebody waits"
            del self._tickets[envelope.reply]
            if not envelope.reply.cancelled():
                self._put_in(envelope)

    # -- sessions ------------------------------------------------------------------------------

    def ending_of(self, session: int) -> Ending:
        """Return the end of a session; whoever was evicted before it asked learns of it."""
        if session == DRIVER:
            return self.ending
        ending = self._sessions.get(session)
        if ending is None:
            ending = Ending(self.ending)
            ending.begin(SessionEnded(session))
        return ending

    def forget(self, session: int) -> None:
        """Forget a session whose holder leaves: it is told nothing any more."""
        self._sessions.pop(session, None)

    # -- who gave up --------------------------------------------------------------------------

    def give_up(self, session: int, request: Request, reply: Reply[Any]) -> None:
        """Undo, or do not decide, what was asked for with a reply that nobody takes any more."""
        if reply.done() and not reply.cancelled():
            answer = reply.result()
            if not isinstance(answer, Exception):
                self._undo(session, request, answer)
            return
        reply.cancel()
        if type(request) is ImportSet and reply in self._tickets:
            # What it makes is made, and undone then if only the answer would say what it is.
            return
        ticket = self._tickets.pop(reply, None)
        if ticket is not None:
            del self._waiting[ticket]
            self._post(DRIVER, Abandon(ticket))
            return
        for batch in self._stage.decided if self._stage is not None else ():
            for place, (each, answer, _) in enumerate(batch.answers):
                if each is reply:
                    # At once, so that a retry need not wait for the commit.
                    del batch.answers[place]
                    if not isinstance(answer, IoasidError):
                        self._undo(session, request, answer, batch.fate)
                    return

    def _undo(
        self, session: int, request: Request, answer: Answer, fate: Fate | None = None
    ) -> None:
        undo = undo_of(session, request, answer)
        if undo is not None:
            if isinstance(answer, SessionOpened):
                self.forget(answer.session)
            self._post(*undo, fate)

    def _post(self, session: int, request: Request, fate: Fate | None = None) -> None:
        self._put_in(Envelope(session, request, None, None, fate))

    def _put_in(self, envelope: Envelope) -> None:
        # Ahead of everybody: whoever hears that somebody gave up comes after it.
        try:
            self._lane.leave(envelope)
        except MailboxClosed:
            if self._stopping:
                self._taken.append(envelope)

    # -- deadlines ----------------------------------------------------------------------------

    async def ring(self) -> None:
        """Post the time whenever a deadline may have passed; the deadline is looked at in turn."""
        while not self._stopping:
            alarm = self._ringing_at = inf if self._rung else self._deadlines.alarm
            self._alarm_set = self.new_reply()
            with move_on_after(None if alarm == inf else alarm - self._now()) as waited:
                await self._alarm_set
            if waited.cancelled_caught:
                self._rung = True
                self._post(DRIVER, Tick(self._now()))

    # -- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """End in order: what is in the mailbox by now is decided, and what is decided released."""
        self._stopping = True
        self._taken += self.mailbox.close()

    def kill(self) -> None:
        """End at once, whatever is in the mailbox."""
        self._killed = True
        self._scope.cancel()

    def _close(self) -> None:
        # Closing the mailbox and failing who is in it is one step: nobody can slip in between.
        self._telling = True
        left = [each.reply for each in (*self._outage.kept, *self._taken, *self.mailbox.close())]
        if self._stage is not None:
            left += [each for batch in self._stage.take_back() for each, _, _ in batch.answers]
        left += [each.reply for each in self._waiting.values()]
        for reply in left:
            if reply is not None and not reply.done():
                reply.set_result(AllocatorClosed(self.reason))
        self._taken.clear()
        self._waiting.clear()
        self._tickets.clear()
        self.ending.begin(AllocatorClosed(self.reason))
        orderly = self._stopping and not self._killed and self.crash is None
        error = None if orderly else AllocatorClosed(self.reason)
        for outlet in (*self._outlets.values(), *(outlet for _, outlet in self._joining)):
            outlet.close(error)
        self._outlets.clear()
        self._joining.clear()
        self._told()


def _moved(core: Allocator, now: Callable[[], float]) -> Callable[[], float]:
    # The clock, moved for a core that was restored: ages go on from where they were.
    begun = core.now
    moved = begun - now()
    # What is rounded must not go back either: no journal goes on from there.
    return lambda: max(begun, now() + moved)


def _is_given_up(envelope: Envelope) -> bool:
    reply = envelope.reply
    return reply is not None and reply.cancelled()
