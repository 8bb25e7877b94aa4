"""Freezes: sets whose bindings end or begin, and who is answered when they have.

Both are done in parts. Until the last of them a set counts as FROZEN or INCOMING, so nothing of it
changes between two parts but what is freed or unbound.
"""

from ioasid.core._answers import Answer, Done, Frozen, Waiting
from ioasid.core._effects import Complete
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._notifier import Notifier
from ioasid.core._resyncs import recorded, relist
from ioasid.core._space import MASK, WORD_COST
from ioasid.core._tables import Tables
from ioasid.core._terms import BIND, SET_FREE_PENDING, UNBIND, SetState
from ioasid.core._work import Turning

__all__: list[str] = []


# -- bindings that end or begin ---------------------------------------------------------------


def turn(tables: Tables, owner: IoasidSet, *, begins: bool) -> Turning:
    """Let the bindings of a set begin or end: all of them, unless that is under way already."""
    item = tables.turnings.get(owner.sid)
    if item is not None and item.begins == begins:
        return item
    give_up(tables, owner)
    item = tables.turnings[owner.sid] = Turning(owner, begins)
    if owner.sid in tables.imports:
        # What is still being made is made before anything of it begins. It is done as it would be
        # by who is restored from here, or a journal would not come to the same.
        item.fresh = False
        tables.work.append(item)
    else:
        tables.begun.append(item)
    return item


def give_up(tables: Tables, owner: IoasidSet) -> None:
    """Let no more bindings of a set begin or end, and answer who waits for that.

    What is asked of it next comes after them.
    """
    item = tables.turnings.pop(owner.sid, None)
    if item is None:
        return
    item.finished = True
    if item in tables.work:
        tables.work.remove(item)
    for ticket in (*item.tickets, *item.waits):
        # A set that is gone runs nothing; otherwise this one is to run again.
        answer = Done() if item.begins else Frozen(owner.sid, owner.state is SET_FREE_PENDING)
        tables.outbox.append(Complete(ticket, answer))


def turn_some(tables: Tables, notifier: Notifier, item: Turning, left: int) -> int:
    """Let as many bindings begin or end as are left for this request, lowest IDs first.

    Returns what is left for others.
    """
    owner = item.owner
    told = notifier.route(owner, BIND if item.begins else UNBIND)
    # Whoever is told costs as much as the ID itself.
    cost = 1 + sum(map(len, told.tiers))
    if item.fresh and len(owner.records) <= left:
        left -= len(owner.records)
        for _, record in sorted(owner.records.items()):
            _turn_one(tables, notifier, record, item)
    else:
        item.fresh = False
        for base, _ in owner.words():
            low, high = max(item.ioasid, base), base | MASK
            if low > high:
                continue
            if left <= 0:
                item.ioasid = low
                return left
            for ioasid in recorded(owner, low, high):
                if left <= 0:
                    item.ioasid = ioasid
                    return left
                left -= cost if _turn_one(tables, notifier, owner.records[ioasid], item) else 1
            left -= WORD_COST
    item.finished = True
    del tables.turnings[owner.sid]
    if item.begins:
        owner.state = SetState.ACTIVE
        owner.running = None
        if tables.changes is not None:
            tables.changes.sids.add(owner.sid)
    return left


def _turn_one(tables: Tables, notifier: Notifier, record: Record, item: Turning) -> bool:
    # Returns whether its binding began or ended.
    turned = not record.free_pending and record.spid is not None
    if item.begins:
        turned = turned and record.binding is None
        if turned:
            record.binding = notifier.stage(record, BIND, record.spid, None)
    else:
        turned = turned and record.binding is not None
        if turned:
            notifier.stage(record, UNBIND, record.spid, None)
            record.binding = None
        if record.chain:
            # Where an end from before the freeze is under way, that counts as well.
            tables.unsettled[record.ioasid] = record
    if turned:
        if tables.relistings:
            relist(tables, record.owner, record.ioasid, record.ioasid)
        if tables.changes is not None:
            tables.changes.ioasids.add(record.ioasid)
    return turned


def turned(tables: Tables, item: Turning, *, wait: bool = False) -> Answer:
    """Return the answer of a request that lets bindings begin or end.

    With `wait` that of a freeze comes when nothing runs any more.
    """
    if item.finished and not wait:
        return _answer_of(item)
    if item.finished and not item.owner.running:
        return Frozen(item.owner.sid, True)
    ticket = tables.new_ticket()
    if item.finished:
        wait_as(tables, item.owner, ticket)
    else:
        (item.waits if wait else item.tickets).append(ticket)
    return Waiting(ticket)


def end_turning(tables: Tables, item: Turning) -> None:
    """Answer who waited until bindings began or ended: all of them have."""
    answer = _answer_of(item)
    for ticket in item.tickets:
        tables.outbox.append(Complete(ticket, answer))
    for ticket in item.waits:
        if item.owner.running:
            wait_as(tables, item.owner, ticket)
        else:
            tables.outbox.append(Complete(ticket, answer))


def _answer_of(item: Turning) -> Answer:
    return Done() if item.begins else Frozen(item.owner.sid, not item.owner.running)


# -- who waits until nothing runs -------------------------------------------------------------


def find_running(tables: Tables, notifier: Notifier) -> None:
    """Find out of every set that was frozen, or may have been, what may run of it."""
    for owner in tables.sets.values():
        if owner.state in (SetState.FROZEN, SET_FREE_PENDING):
            owner.running = set()
    for ioasid, record in tables.chained.items():
        running = record.owner.running
        if running is not None and notifier.is_running(record):
            running.add(ioasid)


def running(tables: Tables, notifier: Notifier, owner: IoasidSet) -> set[int]:
    """Return the IDs of a set that a CPU or device may have yet to stop."""
    if owner.running is not None and owner.sid not in tables.turnings:
        return owner.running
    return {
        ioasid
        for ioasid, record in owner.records.items()
        if record.chain and notifier.is_running(record)
    }


def wait_as(tables: Tables, owner: IoasidSet, ticket: int) -> None:
    """Answer the request with this ticket when nothing of a frozen set runs any more."""
    tables.waiters[ticket] = owner.freezes[ticket] = Waiter(ticket, frozen=owner)


def answer_as(tables: Tables, ticket: int, sid: int) -> None:
    """Answer the freeze with this ticket when the set is stopped, or goes on running."""
    owner = tables.sets.get(sid)
    if owner is not None and owner.running:
        wait_as(tables, owner, ticket)
        return
    # Of a set that is gone nothing runs.
    runs = owner is not None and owner.state is SetState.ACTIVE
    tables.outbox.append(Complete(ticket, Frozen(sid, not runs)))


def follow(tables: Tables, notifier: Notifier, record: Record) -> None:
    """Note whether an ID of a set that was frozen may run; the last one that did answers."""
    owner, ioasid = record.owner, record.ioasid
    assert owner.running is not None, "it was frozen"
    if not record.reclaimed and notifier.is_running(record):
        owner.running.add(ioasid)
    elif ioasid in owner.running:
        owner.running.remove(ioasid)
        if not owner.running:
            _answer(tables, owner, stopped=True)


def call_off(tables: Tables, owner: IoasidSet) -> None:
    """Answer the freezes of a set that goes on running."""
    _answer(tables, owner, stopped=False)


def _answer(tables: Tables, owner: IoasidSet, *, stopped: bool) -> None:
    freezes, owner.freezes = owner.freezes, {}
    for ticket in freezes:
        del tables.waiters[ticket]
        tables.outbox.append(Complete(ticket, Frozen(owner.sid, stopped)))
