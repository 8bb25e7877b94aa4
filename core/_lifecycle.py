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

from attrs import define, field

from ioasid.core import _check
from ioasid.core._effects import Complete
from ioasid.core._errors import WouldDeadlock
from ioasid.core._messages import IoasidState, Released
from ioasid.core._notifier import Notifier
from ioasid.core._records import (
    FREE,
    NOBODY,
    RECLAIM,
    SET_FREE_PENDING,
    Holder,
    IoasidSet,
    Record,
    Tables,
    Waiter,
    ioasids_of,
    member_words,
    without,
)
from ioasid.core._space import MASK, SHIFT, lowest_one

__all__: list[str] = []


@define(eq=False)
class LifeCycle:
    """What leads an ID from one state to the next."""

    _tables: Tables
    _notifier: Notifier
    ticket: int = field(init=False)
    """What the request that is being decided will wait with, if it has to."""

    def free(self, owner: IoasidSet, ioasid: int) -> None:
        """Drop the owner's reference of an ID; a second time is a no-op."""
        tables = self._tables
        record = owner.records.get(ioasid)
        if record is None:
            if not tables.subscriptions or self._notifier.route(owner, FREE) is NOBODY:
                tables.seq += 1
                self._release(owner, ioasid)
                return
            record = tables.record(owner, ioasid)
        if record.free_pending:
            return
        record.free_pending = True
        tables.free_pending += 1
        self._notifier.stage(record, FREE, record.spid, None)
        tables.unsettled[ioasid] = record

    def free_all(self, owner: IoasidSet) -> None:
        """Free every ID of a set, lowest first."""
        told = any(self._notifier.route(owner, kind) is not NOBODY for kind in (FREE, RECLAIM))
        if not told:
            self._release_plain(owner)
        for ioasid in ioasids_of(owner):
            self.free(owner, ioasid)

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
        tables.available += owner.quota
        tables.sets_free_pending -= 1
        del tables.sets[owner.sid]
        tables.sids.release(owner.sid, 1 << (owner.sid & MASK), tables.sid_words)
        if owner.token is not None:
            del tables.tokens[owner.token]
        if owner.system:
            tables.system_sid = None

    def drop_references(self, holder: Holder) -> None:
        """Drop every reference that a holder took; its subscriptions drop what was granted."""
        tables = self._tables
        for ioasid in holder.references:
            record = tables.sets[self._sid_of(ioasid)].records[ioasid]
            record.holders = without(record.holders, holder)
            tables.unsettled[ioasid] = record
        holder.references.clear()

    def settle(self) -> None:
        """Let everything happen that became possible: offers, reclaims, records that can go."""
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

    def settle_one(self, record: Record) -> None:
        """Let everything happen that a change of one record made possible."""
        if record.is_plain():
            # Nothing can follow from it, and most changes end so.
            record.owner.records.pop(record.ioasid, None)
        else:
            self._tables.unsettled[record.ioasid] = record
            self.settle()

    def check_wait(self, holder: Holder, owner: IoasidSet, ioasids: Iterable[int]) -> None:
        """Refuse a request that waits for IDs which wait for whoever asks, or a ticket in use.

        Raises `WouldDeadlock` and `InvalidArgument`.
        """
        for ioasid in ioasids:
            reason = self._own_part(holder, owner, ioasid)
            if reason is not None:
                raise WouldDeadlock(holder.name, ioasid, reason)
        if _check.number(self.ticket, "ticket") in self._tables.waiters:
            _check.refuse("ticket", self.ticket, "a ticket that no other request waits with")

    def wait(self, owner: IoasidSet, ioasids: list[int]) -> bool:
        """Answer the request when these IDs are reclaimed; `False` if there is nothing to await.

        Call `check_wait` before anything is changed.
        """
        ticket = self.ticket
        pending = {
            ioasid: owner.records[ioasid]
            for ioasid in ioasids
            if ioasid in owner.records and owner.records[ioasid].free_pending
        }
        if not pending:
            return False
        waiter = self._tables.waiters[ticket] = Waiter(ticket, pending)
        for record in pending.values():
            if record.waiters is None:
                record.waiters = {}
            record.waiters[ticket] = waiter
        return True

    def abandon(self, ticket: int) -> None:
        """Forget a request that waits for reclaims; what it asked for stands."""
        waiter = self._tables.waiters.pop(ticket, None)
        if waiter is not None:
            for record in waiter.pending.values():
                assert record.waiters is not None, "the waiter is one of them"
                del record.waiters[ticket]

    def _own_part(self, holder: Holder, owner: IoasidSet, ioasid: int) -> str | None:
        # What a holder itself has yet to do before an ID can be reclaimed, or `None`.
        record = owner.records.get(ioasid)
        subscribed = any(
            subscription.holder is holder
            for tier in self._notifier.route(owner, FREE).tiers
            for subscription in tier.values()
        )
        if record is None or not record.free_pending:
            if subscribed:
                return "it has to acknowledge the FREE itself"
        else:
            for stage in record.chain:
                if stage.ends_life and (
                    any(each.holder is holder for each in stage.waiting.values())
                    or self._is_ahead(holder, owner, stage.reach)
                ):
                    return "it has to acknowledge the FREE itself"
        if record is not None and (holder in record.holders or holder in record.granted):
            return "it holds a reference itself"
        return None

    def _sid_of(self, ioasid: int) -> int:
        sid = self._tables.space.owner(ioasid)
        assert sid is not None, "a referenced ID is allocated"
        return sid

    def _is_ahead(self, holder: Holder, owner: IoasidSet, reach: int) -> bool:
        ahead = self._notifier.route(owner, FREE).tiers[reach + 1 :]
        return any(each.holder is holder for tier in ahead for each in tier.values())

    def _reclaim_if_done(self, record: Record) -> None:
        if record.holders or record.granted:
            return
        if record.chain:
            notifier = self._notifier
            if notifier.under_way(record) or any(
                stage.ends_life and not notifier.is_over(stage) for stage in record.chain
            ):
                return
            # Whoever has yet to acknowledge an earlier event of this life holds nothing up.
            notifier.forget(record.chain)
            record.chain = ()
            del self._tables.chained[record.ioasid]
        self._tables.free_pending -= 1
        owner = record.owner
        record.reclaimed = True
        del owner.records[record.ioasid]
        if record.spid is not None:
            del owner.spids[record.spid]
        self._release(owner, record.ioasid, record)
        for waiter in (record.waiters or {}).values():
            del waiter.pending[record.ioasid]
            if not waiter.pending:
                del self._tables.waiters[waiter.ticket]
                self._tables.outbox.append(Complete(waiter.ticket, Released(True)))

    def _release(self, owner: IoasidSet, ioasid: int, record: Record | None = None) -> None:
        tables = self._tables
        tables.space.release(ioasid, 1 << (ioasid & MASK), owner.members)
        owner.allocated -= 1
        tables.live -= 1
        if tables.subscriptions:
            spid, data = (None, None) if record is None else (record.spid, record.data)
            self._notifier.tell_all(owner, RECLAIM, ioasid, spid, data)
        else:
            tables.seq += 1
        if owner.state is SET_FREE_PENDING:
            self.destroy_if_empty(owner)

    def _release_plain(self, owner: IoasidSet) -> None:
        # All plain IDs of a set at once, where nobody is told of it.
        tables = self._tables
        recorded: dict[int, int] = {}
        for ioasid in owner.records:
            word = ioasid >> SHIFT
            recorded[word] = recorded.get(word, 0) | 1 << (ioasid & MASK)
        released = 0
        for first, members in member_words(owner):
            plain = members & ~recorded.get(first >> SHIFT, 0)
            if plain:
                lowest = first + lowest_one(plain)
                tables.space.release(lowest, plain, owner.members)
                released += plain.bit_count()
        owner.allocated -= released
        tables.live -= released
        tables.seq += 2 * released


def state_of(record: Record | None) -> IoasidState:
    """Return the state of a live ID."""
    pending = record is not None and record.free_pending
    return IoasidState.FREE_PENDING if pending else IoasidState.ACTIVE
