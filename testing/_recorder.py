"""A recorded history, and an allocator that records its own and checks itself.

`CheckedAllocator` is the core with every invariant checked after every request. It goes where an
`Allocator` goes; `explore` puts it into every allocator that a scenario opens.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

from attrs import define, field, frozen
from msgspec import Struct

from ioasid.core import (
    Acknowledge,
    Allocated,
    AllocatedMany,
    Allocator,
    AttachSpid,
    CloseSession,
    Complete,
    Defer,
    Deliver,
    Effect,
    Event,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeSet,
    Get,
    IoasidError,
    IoasidState,
    ListSet,
    LiveIoasid,
    OpenSession,
    Put,
    Released,
    Reply,
    Request,
    Resync,
    SessionOpened,
    Snapshot,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
)
from ioasid.testing._invariants import check_state, unchanged
from ioasid.testing._observer import Observer, Observers, covers, live_ids
from ioasid.testing._violated import InvariantViolated, invariant

__all__ = ["CheckedAllocator", "Line"]

QUERIES: Final = (Find, FindSid, FindSet, ListSet, TakeStatistics)
"""Requests that change nothing, whatever the answer; a snapshot tells whether they did."""


@frozen
class Line:
    """One request in a history: who asked what, the answer, and what it set off."""

    holder: str
    """Who asked, by holder name."""
    request: Request
    answer: Reply | IoasidError | None
    """`None` for a request that is answered later."""
    effects: tuple[Effect, ...]
    names: tuple[str, ...]
    """The holder that each effect is for, or "" for none."""

    def __str__(self) -> str:
        """The line as a report shows it."""
        answer = "later" if self.answer is None else _said(self.answer)
        told = "".join(
            f"\n{'':>16}   {_effect(effect, name)}"
            for effect, name in zip(self.effects, self.names, strict=True)
        )
        return f"{self.holder:>16}   {_said(self.request)} -> {answer}{told}"


@define(eq=False)
class Life:
    """One life of an ID, as requests and replies tell it."""

    sid: int
    freed: bool = False
    to_acknowledge: set[int] = field(factory=set)
    """The subscriptions that its FREE was for and that have not acknowledged it."""


@define(eq=False)
class Record:
    """What a history says of one allocator, and nothing that only its tables say."""

    allocator: Allocator
    lines: list[Line] = field(factory=list)
    observers: Observers = field(init=False)
    lives: dict[int, Life] = field(factory=dict)
    references: Counter[tuple[str, int]] = field(factory=Counter)
    """What holders took and did not put, by holder name and ID."""
    suspended: set[str] = field(factory=set)
    waiting: dict[int, set[int]] = field(factory=dict)
    """The IDs that each ticket waits for."""
    abandoned: set[int] = field(factory=set)
    names: dict[int, str] = field(factory=dict)
    """The holder of every subscription there was."""

    def __attrs_post_init__(self) -> None:
        """Begin with what is there: nothing, or what a snapshot brought."""
        self.observers = Observers(self.allocator)
        tables = self.allocator._tables
        for ioasid, (sid, freed) in live_ids(self.allocator).items():
            self.lives[ioasid] = Life(sid, freed)
        for name, holder in tables.holders.items():
            self.references.update({(name, each): n for each, n in holder.references.items()})
            if holder.session is None:
                self.suspended.add(name)
        for number, each in tables.subscriptions.items():
            terms = Subscribe(
                each.sid,
                each.token,
                each.kinds,
                each.priority,
                each.hold,
                True,
                each.queue_size,
                each.acknowledge_within,
            )
            self.names[number] = each.holder.name
            observer = Observer(number, each.holder.name, terms, joined=tables.seq)
            observer.folded = {*each.folded, *each.outstanding}
            observer.attached = False
            observer.lags = True
            self.observers.present[number] = observer
        for owner in tables.sets.values():
            for record in owner.records.values():
                bound = {record.binding: record.spid}
                bound |= {stage.binding: stage.event.spid for stage in record.chain}
                for seq, spid in bound.items():
                    if seq is not None:
                        event = Event(seq, EventKind.BIND, record.ioasid, owner.sid, spid=spid)
                        self.observers.bound(event)

    # -- one request --------------------------------------------------------------------------

    def note(
        self,
        holder: str,
        request: Request,
        answer: Reply | IoasidError | None,
        effects: Iterable[Effect],
        *,
        ticket: int,
        seq: int,
    ) -> None:
        """Note a request that was decided; `seq` is the number of the last message before it.

        Raises `InvariantViolated`.
        """
        effects = tuple(effects)
        if isinstance(answer, Subscribed):
            self.names[answer.subscription] = holder
        names = tuple(
            "" if isinstance(each, Complete) else self.names.get(each.subscription, "")
            for each in effects
        )
        self.lines.append(Line(holder, request, answer, effects, names))
        if isinstance(answer, IoasidError) or isinstance(request, QUERIES):
            return
        self._carried_out(holder, request, answer, ticket, seq)
        self.follow(effects)

    def follow(self, effects: Iterable[Effect]) -> None:
        """Note what was set off, and which IDs are gone by it. Raises `InvariantViolated`."""
        effects = tuple(effects)
        self.observers.carry_out(effects)
        for observer in self.observers.present.values():
            self._take(observer)
        live = live_ids(self.allocator)
        gone = [ioasid for ioasid in self.lives if ioasid not in live]
        nobody_loses_an_id_in_use(self, gone, live)
        nobody_suspended_loses_an_id(self, gone)
        for ioasid in gone:
            del self.lives[ioasid]
            self.observers.forget(ioasid)
            for pending in self.waiting.values():
                pending.discard(ioasid)
        every_request_is_answered_once(self, effects)

    def _take(self, observer: Observer) -> None:
        # The first message is, or is about to be, in the subscriber's hands.
        if observer.attached and observer.hand is None and observer.queue:
            observer.take()

    def _carried_out(
        self, holder: str, request: Request, answer: Reply | None, ticket: int, seq: int
    ) -> None:
        match request, answer:
            case Subscribe(), Subscribed(number, resumed):
                self._subscribed(number, holder, request, seq, resumed=resumed)
            case Acknowledge(number, acknowledged), _:
                self._acknowledged(number, acknowledged)
            case Defer(number, deferred), _:
                self._deferred(number, deferred)
            case AttachSpid(ioasid, spid), _:
                sid = self.lives[ioasid].sid
                self.observers.bound(Event(seq + 1, EventKind.BIND, ioasid, sid, spid=spid))
            case (FindBySpid(), Allocated(ioasid)):
                if request.get:
                    self.references[holder, ioasid] += 1
            case (_, Allocated(ioasid)):
                self._allocated(request, (ioasid,))
            case (_, AllocatedMany(ranges)):
                for span in ranges:
                    self._allocated(request, range(span.first, span.last + 1))
            case (Get(ioasid), _):
                self.references[holder, ioasid] += 1
            case (Put(ioasid), _):
                self.references[holder, ioasid] -= 1
                self.references += Counter()
            case (Free(ioasid), _):
                self._freed(ticket, [ioasid], answer)
            case (FreeSet(sid), _):
                mine = [ioasid for ioasid, life in self.lives.items() if life.sid == sid]
                self._freed(ticket, mine, answer)
            case (OpenSession(name), SessionOpened()):
                self.suspended.discard(name)
            case (CloseSession(), _):
                self._left(holder)
            case (Evict(name), _):
                self._left(name)
            case (SuspendSession(), _):
                if holder in self.allocator._tables.holders:
                    self.suspended.add(holder)
                else:
                    self._left(holder)
            case _:
                pass

    def _left(self, name: str) -> None:
        self.suspended.discard(name)
        for held in [held for held in self.references if held[0] == name]:
            del self.references[held]

    @invariant(3)
    def _allocated(self, request: Request, ioasids: Iterable[int]) -> None:
        sid: int = getattr(request, "sid")  # noqa: B009 - every allocation has one
        for ioasid in ioasids:
            assert ioasid not in self.lives, f"IOASID {ioasid} allocated twice without a RECLAIM"
            self.lives[ioasid] = Life(sid)

    def _freed(self, ticket: int, ioasids: list[int], answer: Reply | None) -> None:
        sets = self.allocator._tables.sets
        for ioasid in ioasids:
            life = self.lives[ioasid]
            if life.freed:
                continue
            life.freed = True
            owner = sets.get(life.sid)
            token = None if owner is None else owner.token
            life.to_acknowledge = {
                each.number
                for each in self.observers.present.values()
                if owner is not None
                and EventKind.FREE in each.terms.kinds
                and covers(each.terms, life.sid, token)
            }
        if answer is None:
            self.waiting[ticket] = set(ioasids)

    def _subscribed(
        self, number: int, holder: str, terms: Subscribe, seq: int, *, resumed: bool
    ) -> None:
        if resumed:
            observer = self.observers.present[number]
            observer.attached = True
            observer.terms = Subscribe(
                *(getattr(terms, each) for each in Subscribe.__struct_fields__)
            )
            return
        observer = Observer(number, holder, terms, joined=seq)
        if not terms.replay:
            tokens = {sid: owner.token for sid, owner in self.allocator._tables.sets.items()}
            observer.begin(
                ioasid
                for ioasid, life in self.lives.items()
                if covers(terms, life.sid, tokens[life.sid])
            )
        self.observers.present[number] = observer

    def _acknowledged(self, number: int, seq: int) -> None:
        observer = self.observers.present[number]
        if observer.hand is not None and observer.hand.seq == seq:
            message = observer.hand
            observer.hand = None
        elif seq in observer.deferred:
            message = observer.deferred[seq]
        else:
            queued = next((each for each in observer.queue if each.seq == seq), None)
            if queued is None:
                return
            # Acknowledged out of turn: nothing between was skipped, it is just not done.
            message = queued
            observer.queue.remove(queued)
        observer.acknowledge(seq)
        freed = _freed_by(message)
        if isinstance(message, Resync):
            for each in observer.deferred.values():
                freed -= _freed_by(each) if isinstance(each, Event) else set()
        for ioasid in freed & self.lives.keys():
            self.lives[ioasid].to_acknowledge.discard(number)

    def _deferred(self, number: int, seq: int) -> None:
        observer = self.observers.present[number]
        if observer.hand is not None and observer.hand.seq == seq:
            observer.deferred[seq] = observer.hand
            observer.hand = None


def _freed_by(message: Event | Resync) -> set[int]:
    # The IDs whose end of life a message tells of.
    if isinstance(message, Resync):
        return {each.ioasid for each in message.ioasids if each.state is IoasidState.FREE_PENDING}
    ends = message.kind is EventKind.FREE and message.publisher is None
    return {message.ioasid} if ends else set()


# -- the invariants that speak about histories ------------------------------------------------


@invariant(3)
def nobody_loses_an_id_in_use(
    record: Record, gone: Iterable[int], live: dict[int, tuple[int, bool]]
) -> None:
    """Invariant 3: an ID goes when it was freed, unreferenced and everybody acknowledged that."""
    present = record.observers.present
    for ioasid in gone:
        life = record.lives[ioasid]
        assert life.freed, f"IOASID {ioasid} reclaimed without a free"
        life.to_acknowledge &= present.keys()
        assert not life.to_acknowledge, (
            f"IOASID {ioasid} reclaimed before "
            f"{sorted(record.names[each] for each in life.to_acknowledge)} acknowledged its FREE"
        )
        holders = sorted(name for name, each in record.references if each == ioasid)
        assert not holders, f"IOASID {ioasid} reclaimed while {holders} referenced it"
    for ioasid, (sid, freed) in live.items():
        life = record.lives[ioasid]
        assert (life.sid, life.freed) == (sid, freed), f"IOASID {ioasid} is not as it was answered"
    for each in present.values():
        for ioasid in each.programmed():
            found = record.allocator.record(ioasid)
            assert found is not None, f"IOASID {ioasid} reclaimed while {each.holder} used it"
            assert each.holder in found.references, (
                f"{each.holder} uses IOASID {ioasid} and holds no reference"
            )


@invariant(9)
def nobody_suspended_loses_an_id(record: Record, gone: Iterable[int]) -> None:
    """Invariant 9: no ID goes that a suspended holder has a reference or a FREE of."""
    lost = set(gone)
    for name, ioasid in record.references:
        assert name not in record.suspended or ioasid not in lost, (
            f"IOASID {ioasid} reclaimed while {name}, which has it, is suspended"
        )


@invariant(8)
def every_request_is_answered_once(record: Record, effects: Iterable[Effect]) -> None:
    """Invariant 8: a request that waits is answered once, when what it waits for is reclaimed."""
    for effect in effects:
        if isinstance(effect, Complete):
            ticket = effect.ticket
            assert ticket not in record.abandoned, f"ticket {ticket} answered after it was given up"
            assert ticket in record.waiting, f"ticket {ticket} answered twice or never asked"
            assert effect.reply == Released(True), f"ticket {ticket} answered {effect.reply}"
            pending = record.waiting.pop(ticket)
            assert not pending, f"ticket {ticket} answered before {sorted(pending)} were reclaimed"
    for ticket, pending in record.waiting.items():
        assert pending, f"ticket {ticket} not answered when all it waited for was reclaimed"


refusals_change_nothing: Final[Callable[[Snapshot, Allocator], None]] = unchanged
"""Invariant 7: a refused request leaves the state exactly as it was."""


# -- an allocator that checks itself ----------------------------------------------------------


class CheckedAllocator(Allocator):
    """The core, with the invariants checked after every request that may have changed something.

    `thorough` compares snapshots around every request besides, to see that a refusal changed
    nothing; that makes it several times slower. The first violation is raised from the call that
    brought it, and kept in `violation`.
    """

    thorough: bool = False
    violation: InvariantViolated | None = None
    _recorded: Record

    def _set_up(self, tables: Any) -> None:
        super()._set_up(tables)
        self._recorded = Record(self)

    @property
    def history(self) -> list[Line]:
        """Every request so far, in order."""
        return self._recorded.lines

    def handle(self, session: int, request: Request, ticket: int = 0) -> Reply | None:
        """Decide a request as `Allocator.handle` does, then check. Raises `InvariantViolated`."""
        tables = self._tables
        asker = tables.sessions.get(session)
        name = f"session {session}" if asker is None else asker.name
        seq = tables.seq
        done = len(tables.outbox)
        before = self.snapshot() if self.thorough else None
        try:
            answer = super().handle(session, request, ticket)
        except IoasidError as error:
            self._note(name, request, error, done, ticket, seq)
            if before is not None:
                self._checked(lambda: _same(before, self.snapshot()))
            raise
        self._note(name, request, answer, done, ticket, seq)
        if not isinstance(request, QUERIES):
            self._checked(lambda: check_state(self))
        return answer

    def _note(
        self,
        name: str,
        request: Request,
        answer: Reply | IoasidError | None,
        done: int,
        ticket: int,
        seq: int,
    ) -> None:
        effects = self._tables.outbox[done:]
        note = self._recorded.note
        self._checked(lambda: note(name, request, answer, effects, ticket=ticket, seq=seq))

    def abandon(self, ticket: int) -> None:
        """Forget a request as `Allocator.abandon` does, then check. Raises `InvariantViolated`."""
        super().abandon(ticket)
        self._recorded.abandoned.add(ticket)
        self._recorded.waiting.pop(ticket, None)
        self._checked(lambda: check_state(self))

    def suspend_all(self) -> None:
        """Let every session crash as `Allocator.suspend_all` does; the history begins after it."""
        for session in tuple(self._tables.sessions):
            super().handle(session, SuspendSession())
        self._recorded = Record(self)
        self._checked(lambda: check_state(self))

    def open_session(self, name: str) -> SessionOpened:
        """Open a session as `Allocator.open_session` does."""
        opened = super().open_session(name)
        self._recorded.suspended.discard(name)
        return opened

    def _checked(self, check: Callable[[], None]) -> None:
        try:
            check()
        except InvariantViolated as violation:
            if self.violation is None:
                self.violation = violation
            raise

    def leaks(self) -> list[str]:
        """Return what is left of anybody but the first session, in words; empty if nothing is."""
        tables = self._tables
        left = [
            f"holder {name!r} is {'suspended' if holder.session is None else 'still there'}"
            for name, holder in tables.holders.items()
            if holder.session != self.session
        ]
        for owner in tables.sets.values():
            for ioasid in sorted(owner.records):
                record = self.record(ioasid)
                assert record is not None
                left += [
                    f"{name!r} holds {count} reference{'s' * (count > 1)} of IOASID {ioasid}"
                    for name, count in sorted(record.references.items())
                ]
                if record.state is IoasidState.FREE_PENDING:
                    left.append(f"IOASID {ioasid} is in quarantine")
        left += [
            f"subscription {number} of {each.holder.name!r} to {each.scope} is still there"
            for number, each in tables.subscriptions.items()
        ]
        left += [f"the request with ticket {ticket} still waits" for ticket in tables.waiters]
        return left


@invariant(7)
def _same(before: Snapshot, after: Snapshot) -> None:
    assert before == after, "the state differs"


# -- how it is written ------------------------------------------------------------------------


def _said(message: object) -> str:
    if isinstance(message, IoasidError):
        return f"{type(message).__name__} ({message.code}: {message.message})"
    if isinstance(message, Statistics):
        return "Statistics(...)"
    if isinstance(message, LiveIoasid):
        spid = "" if message.spid is None else f" with spid {message.spid}"
        return f"{message.ioasid} {message.state.name}{spid}"
    if isinstance(message, Resync):
        return f"Resync of {_value(message.ioasids)} (seq={message.seq})"
    if isinstance(message, Event):
        rest = "".join(
            f", {name}={getattr(message, name)!r}"
            for name in ("spid", "publisher")
            if getattr(message, name) is not None
        )
        return f"{message.kind.name} of {message.ioasid} (seq={message.seq}{rest})"
    if isinstance(message, Struct):
        defaults = message.__struct_defaults__
        fields = message.__struct_fields__
        known = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=True))
        given = (
            f"{name}={_value(getattr(message, name))}"
            for name in fields
            if name not in known or known[name] != getattr(message, name)
        )
        return f"{type(message).__name__}({', '.join(given)})"
    return _value(message)


def _value(value: object) -> str:
    # The same text in every process: sets have no order of their own.
    match value:
        case Enum():
            return value.name
        case frozenset():
            return "{" + ", ".join(sorted(_value(each) for each in value)) + "}"
        case tuple():
            return "[" + ", ".join(_said(each) for each in value) + "]"
        case _:
            return repr(value)


def _effect(effect: Effect, name: str) -> str:
    match effect:
        case Deliver(subscription, message):
            return f"tells {name} ({subscription}): {_said(message)}"
        case Complete(ticket, reply):
            return f"answers ticket {ticket}: {_said(reply)}"
        case _:
            return f"{type(effect).__name__.lower()}s the queue of {name} ({effect.subscription})"
