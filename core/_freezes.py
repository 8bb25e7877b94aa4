"""Freezes: requests that are answered when nothing of a set runs any more."""

from ioasid.core._answers import Answer, Frozen, Waiting
from ioasid.core._effects import Complete
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._notifier import Notifier
from ioasid.core._tables import Tables
from ioasid.core._terms import SET_FREE_PENDING, SetState

__all__: list[str] = []


def running(notifier: Notifier, owner: IoasidSet) -> dict[int, Record]:
    """Return the IDs of a frozen set that a CPU or device may have yet to stop."""
    return {
        ioasid: record
        for ioasid, record in owner.records.items()
        if record.chain and notifier.is_running(record)
    }


def answer_when_stopped(tables: Tables, owner: IoasidSet, pending: dict[int, Record]) -> Answer:
    """Return the answer of a request that waits until these IDs are stopped."""
    if not pending:
        return Frozen(owner.sid, True)
    ticket = tables.new_ticket()
    tables.waiters[ticket] = owner.freezes[ticket] = Waiter(ticket, pending, frozen=owner)
    return Waiting(ticket)


def answer_as(tables: Tables, notifier: Notifier, ticket: int, sid: int) -> None:
    """Answer the freeze with this ticket when the set is stopped, or goes on running."""
    owner = tables.sets.get(sid)
    pending = {} if owner is None else running(notifier, owner)
    if owner is not None and owner.state in (SetState.FROZEN, SET_FREE_PENDING) and pending:
        tables.waiters[ticket] = owner.freezes[ticket] = Waiter(ticket, pending, frozen=owner)
        return
    # Of a set that is gone nothing runs.
    runs = owner is not None and owner.state is SetState.ACTIVE
    tables.outbox.append(Complete(ticket, Frozen(sid, not runs)))


def stop(tables: Tables, notifier: Notifier, record: Record) -> None:
    """Answer the freezes of a set for which an ID was the last that ran, if it does not now."""
    if not record.reclaimed and notifier.is_running(record):
        return
    for waiter in tuple(record.owner.freezes.values()):
        if waiter.pending.pop(record.ioasid, None) is not None and not waiter.pending:
            _answer(tables, record.owner, waiter, stopped=True)


def call_off(tables: Tables, owner: IoasidSet) -> None:
    """Answer the freezes of a set that goes on running."""
    for waiter in tuple(owner.freezes.values()):
        _answer(tables, owner, waiter, stopped=False)


def _answer(tables: Tables, owner: IoasidSet, waiter: Waiter, *, stopped: bool) -> None:
    del owner.freezes[waiter.ticket], tables.waiters[waiter.ticket]
    tables.outbox.append(Complete(waiter.ticket, Frozen(owner.sid, stopped)))
