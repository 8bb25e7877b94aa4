"""The life cycle of an IOASID: from free through the quarantine back to the pool.

                alloc                       free
     (absent) ─────────▶ ACTIVE ─────────────────────▶ FREE_PENDING
         ▲                                                  │ no reference left, and every
         └──────────────────────────────────────────────────┘ subscriber acknowledged FREE
                                RECLAIM

An ID that nobody references and nobody is told of goes straight back. (docs/explanation.md,
Quarantine)
"""

from collections.abc import Iterable
from itertools import filterfalse
from typing import Final

from attrs import define

from ioasid.core._answers import Answer, Released, Waiting
from ioasid.core._budget import refund
from ioasid.core._effects import Complete
from ioasid.core._errors import WouldDeadlock
from ioasid.core._freezes import follow, give_up
from ioasid.core._holders import Holder, without
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lookups import spoil
from ioasid.core._notifier import Notifier
from ioasid.core._resyncs import relist, resync_if_back
from ioasid.core._routes import LAST_TIER, NOBODY
from ioasid.core._space import MASK, SHIFT, lowest_one, ones, runs
from ioasid.core._tables import Tables
from ioasid.core._terms import FREE, INVALID_IOASID, RECLAIM, SET_FREE_PENDING, IoasidState
from ioasid.core._work import Freeing

__all__: list[str] = []

RECLAIMED: Final = Released(True)
REMAINS: Final = Released(False)
NO_TIER_YET: Final = -1
"""The reach of an event that nobody was offered."""


@define(eq=False)
class LifeCycle:
    """What leads an ID from one state to the next."""

    _tables: Tables
    _notifier: Notifier

    def free(self, owner: IoasidSet, ioasid: int) -> None:
        """Drop the owner's reference of an ID; a second time is a no-op."""
        tables = self._tables
        record = owner.records.get(ioasid)
        if record is None:
            if not tables.subscriptions or self._notifier.route(owner, FREE) is NOBODY:
                tables.seq += 1
                self._release(owner, ioasid)
                return
            record = owner.record(ioasid)
        if record.free_pending:
            return
        record.free_pending = True
        tables.quarantine[ioasid] = record
        record.freed_at = tables.now
        self._notifier.stage(record, FREE, record.bound_spid, None)
        tables.unsettled[ioasid] = record

    def free_all(self, owner: IoasidSet, chosen: list[tuple[int, int]]) -> None:
        """Free IDs of a set, lowest first.

        Each word that has any is named once, in ascending order, as `words` has it.
        """
        told = any(self._notifier.route(owner, kind) is not NOBODY for kind in (FREE, RECLAIM))
        if not told:
            self.release_plain(owner, chosen)
        for first, word in chosen:
            for bit in ones(word & owner.members.get(first >> SHIFT, 0)):
                self.free(owner, first + bit)

    def destroy_if_empty(self, owner: IoasidSet) -> None:
        """Let a set that is being freed go, its quota and token with it, if it has no ID left."""
        tables = self._tables
        if (
            owner.state is not SET_FREE_PENDING
            or owner.allocated
            or tables.sets.get(owner.sid) is not owner
        ):
            return
        for subscription in tuple(owner.subscriptions.values()):
            if subscription.sid == owner.sid:
                self._notifier.leave(subscription, drained=True)
        for item in tuple(tables.work):
            if type(item) is Freeing and item.owner is owner:
                # Others freed what was left.
                tables.work.remove(item)
                item.chosen.clear()
                self.end_freeing(item)
        give_up(tables, owner)
        refund(tables, owner.group, owner.quota)
        tables.sets_free_pending -= 1
        tables.remove_set(owner)
        tables.space.part(owner)
        if owner.token is not None:
            del tables.tokens[owner.token]
        if owner.system:
            tables.system_sid = None

    def end_freeing(self, item: Freeing) -> None:
        """Answer who waited until IDs are freed: all of them are."""
        waiter = item.waiter
        if waiter is not None:
            waiter.more = False
            if not waiter.pending:
                del self._tables.waiters[waiter.ticket]
                self._tables.outbox.append(Complete(waiter.ticket, RECLAIMED))
        elif item.ticket is not None:
            assert item.answer is not None, "somebody asked"
            self._tables.outbox.append(Complete(item.ticket, item.answer()))

    def drop_reference(self, holder: Holder, ioasid: int) -> None:
        """Drop all that a holder took of an ID."""
        tables = self._tables
        owner = tables.space.owner(ioasid)
        assert owner is not None, "a referenced ID is allocated"
        record = owner.records[ioasid]
        record.holders = without(record.holders, holder)
        del holder.references[ioasid]
        tables.unsettled[ioasid] = record

    def settle(self) -> None:
        """Let everything happen that became possible: offers, reclaims, records that go, Resyncs.

        It is called when a request has been decided, by `Parts.settle`, and nowhere else.
        """
        tables = self._tables
        while tables.unsettled:
            unsettled, tables.unsettled = tables.unsettled, {}
            # By ID, so that what happens depends on the state alone and not on its history.
            for ioasid in sorted(unsettled):
                record = unsettled[ioasid]
                assert not record.reclaimed, "nothing waits for an ID that is back in the pool"
                if record.chain:
                    self._notifier.advance(record)
                if record.free_pending:
                    self._reclaim_if_done(record)
                elif record.is_plain():
                    record.owner.records.pop(ioasid, None)
                if record.owner.running is not None:
                    follow(tables, self._notifier, record)
                if tables.exports:
                    spoil(tables, record.owner, ioasid)
                if tables.relistings:
                    relist(tables, record.owner, ioasid, ioasid)
            if tables.changes is not None:
                tables.changes.ioasids.update(unsettled)
        returning, tables.returning = tables.returning, []
        for subscription in returning:
            resync_if_back(tables, subscription)

    def touch(self, record: Record) -> None:
        """Note that a record changed: what that makes possible happens when it is settled."""
        tables, ioasid = self._tables, record.ioasid
        if record.is_plain():
            # Nothing can follow from it, and most changes end so.
            record.owner.records.pop(ioasid, None)
            if tables.relistings:
                relist(tables, record.owner, ioasid, ioasid)
            if tables.exports:
                spoil(tables, record.owner, ioasid)
            if tables.changes is not None:
                tables.changes.ioasids.add(ioasid)
        else:
            tables.unsettled[ioasid] = record

    def check_wait(self, holder: Holder, owner: IoasidSet, ioasids: Iterable[int]) -> None:
        """Refuse a request that waits for IDs which wait for whoever asks: `WouldDeadlock`."""
        # Whether it is told of the FREE of an ID that has come to each tier, beginning with none.
        ahead = [self._is_ahead(holder, owner, tier) for tier in range(NO_TIER_YET, LAST_TIER + 1)]
        for ioasid in ioasids:
            reason = _own_part(holder, owner.records.get(ioasid), ahead)
            if reason is not None:
                raise WouldDeadlock(holder.name, ioasid, reason)

    def check_wait_all(self, holder: Holder, owner: IoasidSet) -> None:
        """Refuse a request that waits for all IDs of a set, if one waits for whoever asks."""
        # Only those that can wait for it are looked at, of which there are mostly few or none.
        records, chained = owner.records, self._tables.chained
        mine = holder.references.keys() & records.keys()
        for each in holder.subscriptions.values():
            mine.update(has.ioasid for has in each.grants.values() if has.owner is owner)
        told = [
            each
            for tier in self._notifier.route(owner, FREE).tiers
            for each in tier.values()
            if each.holder is holder
        ]
        if told:
            last = max(each.tier for each in told)
            numbers = {each.number for each in told}
            stays = self._first_that_stays(owner)
            mine.add(stays)
            for ioasid in records.keys() & chained.keys():
                chain = chained[ioasid].chain
                if (
                    ioasid < stays
                    and chain
                    and (chain[-1].reach < last or not numbers.isdisjoint(chain[-1].waiting))
                ):
                    mine.add(ioasid)
            mine.discard(INVALID_IOASID)
        self.check_wait(holder, owner, sorted(mine))

    def _first_that_stays(self, owner: IoasidSet) -> int:
        # The lowest ID of a set that is not in quarantine; if there is none, what no ID is.
        freed = self._tables.quarantine.__contains__
        for base, word in owner.words():
            for first, last in runs(word, base):
                found = next(filterfalse(freed, range(first, last + 1)), None)
                if found is not None:
                    return found
        return INVALID_IOASID

    def wait(self, owner: IoasidSet, ioasids: Iterable[int]) -> Answer:
        """Return the answer of a request that waits until these IDs are reclaimed.

        Call `check_wait` before anything is changed.
        """
        pending = [
            owner.records[ioasid]
            for ioasid in ioasids
            if ioasid in owner.records and owner.records[ioasid].free_pending
        ]
        if not pending:
            return RECLAIMED
        ticket = self._tables.new_ticket()
        self.wait_as(ticket, pending)
        return Waiting(ticket)

    def wait_as(self, ticket: int, pending: list[Record]) -> None:
        """Answer the request with this ticket when these IDs are reclaimed."""
        if not pending:
            self._tables.outbox.append(Complete(ticket, RECLAIMED))
            return
        waiter = self._tables.waiters[ticket] = Waiter(ticket)
        for record in pending:
            self.note_waiter(waiter, record)

    def note_waiter(self, waiter: Waiter, record: Record) -> None:
        """Let a request wait for the reclaim of an ID that is freed."""
        waiter.pending[record.ioasid] = record
        if record.waiters is None:
            record.waiters = {}
        record.waiters[waiter.ticket] = waiter

    def abandon(self, ticket: int) -> None:
        """Forget a request that waits for reclaims; what it asked for stands."""
        waiter = self._tables.waiters.pop(ticket, None)
        if waiter is not None and waiter.frozen is not None:
            del waiter.frozen.freezes[ticket]
        elif waiter is not None:
            for record in waiter.pending.values():
                assert record.waiters is not None, "the waiter is one of them"
                del record.waiters[ticket]

    def _is_ahead(self, holder: Holder, owner: IoasidSet, reach: int) -> bool:
        ahead = self._notifier.route(owner, FREE).awaited[reach + 1 :]
        return any(each.holder is holder for tier in ahead for each in tier.values())

    def _reclaim_if_done(self, record: Record) -> None:
        if record.holders or record.granted:
            return
        if record.chain:
            notifier = self._notifier
            if notifier.in_flight(record) or any(
                stage.ends_life and not notifier.is_over(stage) for stage in record.chain
            ):
                return
            # Whoever has yet to acknowledge an earlier event of this life holds nothing up.
            notifier.forget(record.chain)
            record.chain = ()
            del self._tables.chained[record.ioasid]
            self._tables.crowded.pop(record.ioasid, None)
        del self._tables.quarantine[record.ioasid]
        owner = record.owner
        record.reclaimed = True
        del owner.records[record.ioasid]
        if record.spid is not None:
            del owner.spids[record.spid]
        owner.with_data -= record.data is not None
        self._release(owner, record.ioasid, record)
        for waiter in (record.waiters or {}).values():
            del waiter.pending[record.ioasid]
            if not waiter.pending and not waiter.more:
                del self._tables.waiters[waiter.ticket]
                self._tables.outbox.append(Complete(waiter.ticket, RECLAIMED))

    def _release(self, owner: IoasidSet, ioasid: int, record: Record | None = None) -> None:
        tables = self._tables
        told = bool(tables.subscriptions)
        generation = tables.space.generation(ioasid) if told else 0
        tables.space.release(owner, ioasid, 1 << (ioasid & MASK))
        if tables.exports:
            spoil(tables, owner, ioasid)
        if tables.changes is not None:
            tables.changes.release(owner.sid, ioasid, ioasid)
        if told:
            spid, data = (None, None) if record is None else (record.bound_spid, record.data)
            self._notifier.tell_all(owner, RECLAIM, ioasid, generation, spid, data)
        else:
            tables.seq += 1
        if owner.state is SET_FREE_PENDING:
            self.destroy_if_empty(owner)

    def release_plain(self, owner: IoasidSet, chosen: list[tuple[int, int]]) -> None:
        """Take back all plain IDs among those chosen, by word, at once: nobody is told of it."""
        tables = self._tables
        recorded: dict[int, int] = {}
        for ioasid in _recorded(owner, chosen):
            word = ioasid >> SHIFT
            recorded[word] = recorded.get(word, 0) | 1 << (ioasid & MASK)
        for first, members in chosen:
            plain = members & ~recorded.get(first >> SHIFT, 0)
            if plain:
                lowest = first + lowest_one(plain)
                count = plain.bit_count()
                tables.space.release(owner, lowest, plain, count)
                tables.seq += 2 * count
                if tables.exports:
                    spoil(tables, owner, first)
                if tables.relistings:
                    relist(tables, owner, lowest, first + plain.bit_length() - 1)
                if tables.changes is not None:
                    for low, high in runs(plain, first):
                        tables.changes.release(owner.sid, low, high)


def _own_part(holder: Holder, record: Record | None, ahead: list[bool]) -> str | None:
    # What a holder itself has yet to do before an ID can be reclaimed, or `None`.
    if record is None or not record.free_pending:
        if ahead[0]:
            return "it has to acknowledge the FREE itself"
    elif record.chain:
        # The last event of its life.
        stage = record.chain[-1]
        if ahead[stage.reach - NO_TIER_YET]:
            return "it has to acknowledge the FREE itself"
        for each in stage.waiting.values():
            if each.holder is holder and stage.event.seq not in each.dealt:
                return "it has to acknowledge the FREE itself"
    if record is not None and (holder in record.holders or holder in record.granted):
        return "it holds a reference itself"
    return None


def _recorded(owner: IoasidSet, chosen: list[tuple[int, int]]) -> Iterable[int]:
    # Those among the chosen IDs that have a record, and maybe others. Whichever are fewer are
    # looked at: a few IDs of a set with many records cost no more than themselves.
    records = owner.records
    if len(records) <= sum(word.bit_count() for _, word in chosen):
        return records
    return (first + bit for first, word in chosen for bit in ones(word) if first + bit in records)


def state_of(record: Record | None) -> IoasidState:
    """Return the state of a live ID."""
    pending = record is not None and record.free_pending
    return IoasidState.FREE_PENDING if pending else IoasidState.ACTIVE
