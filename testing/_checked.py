"""An allocator that records its own history and checks itself.

It goes where an `Allocator` goes, or beside one: as its tap it decides again what that decided, and
compares. `explore` taps every allocator that a scenario opens with one.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from ioasid.actors import Decision
from ioasid.core import (
    Allocator,
    Answer,
    IoasidError,
    IoasidState,
    MalformedMessage,
    Refused,
    Request,
    SessionOpened,
    Snapshot,
    Statistics,
    Tick,
    Waiting,
    refusal_of,
)
from ioasid.core._capture import capture
from ioasid.core._ioasid_records import Record as IoasidRecord
from ioasid.core._ioasid_records import Waiter
from ioasid.core._restore import restore
from ioasid.core._tables import Tables
from ioasid.testing._invariants import check_state
from ioasid.testing._lines import Line
from ioasid.testing._recorder import QUERIES, Record
from ioasid.testing._violated import InvariantViolated, invariant

__all__ = ["CheckedAllocator"]

OWN: Final = "the allocator"
"""Who asks as session 0."""


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
        self.watch()
        self._recorded = Record(self)

    @property
    def history(self) -> list[Line]:
        """Every request so far, in order."""
        return self._recorded.lines

    def handle(self, session: int, request: Request) -> Answer:
        """Decide a request as `Allocator.handle` does, then check. Raises `InvariantViolated`."""
        if isinstance(request, Tick):
            return super().handle(session, request)
        tables = self._tables
        name = self.holder(session) or (f"session {session}" if session else OWN)
        seq = tables.seq
        done = len(tables.outbox)
        before = self.snapshot() if self.thorough else None
        answer: Answer | IoasidError
        try:
            answer = super().handle(session, request)
        except IoasidError as error:
            self._note(name, request, error, done, seq)
            if before is not None:
                self._checked(lambda: _same(before, self.snapshot()))
            raise
        if session == 0 and isinstance(answer, SessionOpened):
            self.session = answer.session
        self._note(name, request, answer, done, seq)
        if not isinstance(request, QUERIES):
            self._checked(lambda: check_state(self))
        return answer

    def _note(
        self, name: str, request: Request, answer: Answer | IoasidError, done: int, seq: int
    ) -> None:
        effects = self._tables.outbox[done:]
        note = self._recorded.note
        self._checked(lambda: note(name, request, answer, effects, seq=seq))

    def see(self, decision: Decision) -> None:
        """Decide what another allocator in the same state decided: nothing may differ.

        A tap. Raises `InvariantViolated`.
        """
        self.handle(0, Tick(decision.time))
        told = decision.answer
        if isinstance(told, Waiting):
            # Those of what could not be committed were passed over.
            self._tables.next_ticket = max(self._tables.next_ticket, told.ticket)
        answer: Answer | Refused
        try:
            answer = self.handle(decision.session, decision.request)
        except IoasidError as error:
            answer = refusal_of(error)
        if isinstance(told, Statistics):
            told = replace(told, mailbox=0)
        effects = tuple(self.drain())
        changes = self.changes()
        self._checked(
            lambda: _decided_the_same(
                (told, decision.effects, decision.changes, decision.index),
                (answer, effects, changes, self.index),
            )
        )

    def go_on_restored(self) -> None:
        """Go on from a snapshot of itself, from which nothing may be decided differently.

        Who waits for a reclaim or a freeze, which no snapshot has, waits on. Call it with nothing
        to drain. Raises `InvariantViolated`.
        """
        before, recorded = self._tables, self._recorded
        snapshot = self.snapshot()

        def restored() -> None:
            tables = _restored(snapshot)
            for ticket, waiter in before.waiters.items():
                pending = {each: _record(tables, each) for each in waiter.pending}
                again = tables.waiters[ticket] = Waiter(ticket, pending)
                if waiter.frozen is not None:
                    again.frozen = tables.sets[waiter.frozen.sid]
                    again.frozen.freezes[ticket] = again
                    continue
                for record in pending.values():
                    record.waiters = (record.waiters or {}) | {ticket: again}
            tables.next_ticket = before.next_ticket
            super(CheckedAllocator, self)._set_up(tables)
            self.watch()

        self._checked(restored)
        self._recorded = recorded

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


@invariant(0)
def _restored(snapshot: Snapshot) -> Tables:
    try:
        tables = restore(snapshot)
    except MalformedMessage as error:
        raise AssertionError(f"a state that was reached is not restored: {error}") from error
    assert snapshot == capture(tables), "a snapshot is restored to another state"
    return tables


def _record(tables: Tables, ioasid: int) -> IoasidRecord:
    owner = tables.space.owner(ioasid)
    assert owner is not None, "who waits for a reclaim waits for a live ID"
    return owner.records[ioasid]


@invariant(0)
def _decided_the_same(told: object, again: object) -> None:
    assert told == again, "the same request in the same state was decided differently"


@invariant(7)
def _same(before: Snapshot, after: Snapshot) -> None:
    assert before == after, "the state differs"
