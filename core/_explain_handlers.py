"""The request that asks why an IOASID is not back in the pool.

It looks at the ID's record and at those whom the record names; its cost grows with them and with
the queues of those who were granted something, and not with how many IDs there are.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from ioasid.core._answers import Answer
from ioasid.core._explanations import (
    Awaited,
    Coming,
    EventInFlight,
    Explanation,
    HeldReferences,
    Place,
)
from ioasid.core._grants import ended_by
from ioasid.core._handlers import Handlers
from ioasid.core._holders import Holder
from ioasid.core._ioasid_records import Record
from ioasid.core._lifecycle import state_of
from ioasid.core._requests import Explain
from ioasid.core._routes import LAST_TIER, NO_TIER, TIERS
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._terms import BIND, Priority

__all__: list[str] = []

_PRIORITIES: Final[dict[int, Priority]] = {tier: priority for priority, tier in TIERS.items()}


class ExplainHandlers(Handlers):
    """The handler that explains IDs."""

    def explain(self, _: Holder, request: Explain) -> Answer:
        """Look up all that keeps an ID from the pool."""
        owner = self._owner(request.ioasid, None, request.generation)
        record = owner.records.get(request.ioasid) or Record(request.ioasid, owner)
        quarantine = record.free_pending
        return Explanation(
            record.ioasid,
            owner.sid,
            owner.token,
            record.spid,
            state_of(record),
            self._tables.now - record.freed_at if quarantine else None,
            tuple(self._references(record)),
            tuple(self._events(record)),
            len(record.waiters or ()),
        )

    # -- events -------------------------------------------------------------------------------

    def _events(self, record: Record) -> Iterator[EventInFlight]:
        for stage in record.chain:
            route = self._notifier.route(record.owner, stage.event.kind)
            then = tuple(
                Coming(
                    _PRIORITIES[tier],
                    tuple((each.holder.name, each.number) for each in route.awaited[tier].values()),
                )
                for tier in range(stage.reach + 1, LAST_TIER + 1)
                if route.awaited[tier]
            )
            # Offered to all, those included that nothing waits for, an earlier event than the FREE
            # holds nothing up.
            left = route.following[stage.reach + 1] != NO_TIER
            waited = not record.free_pending or stage.ends_life or left
            awaited = [self._awaited(each, stage) for each in stage.waiting.values() if waited]
            if awaited or then:
                event = stage.event
                yield EventInFlight(
                    event.seq,
                    event.kind,
                    event.publisher,
                    _PRIORITIES[stage.reach] if stage.reach >= 0 else None,
                    tuple(awaited),
                    then,
                )

    def _awaited(self, subscription: Subscription, stage: Stage) -> Awaited:
        seq = stage.event.seq
        if seq in subscription.dealt:
            return self._found(subscription, Place.DEALT_WITH, None, stage.offered_at)
        if seq in subscription.folded:
            return self._due(subscription, stage.offered_at)
        if seq not in subscription.outstanding:
            seq = _resync_for(subscription, seq)
        return self._queued(subscription, seq, stage.offered_at)

    def _queued(self, subscription: Subscription, seq: int, since: float) -> Awaited:
        if seq in subscription.deferred:
            return self._found(subscription, Place.DEFERRED, seq, subscription.deferred[seq])
        place = Place.IN_HANDS if seq == subscription.in_hands else Place.QUEUED
        return self._found(subscription, place, seq, since)

    def _due(self, subscription: Subscription, since: float) -> Awaited:
        place = Place.FOLDED if subscription.attached else Place.SUSPENDED
        return self._found(subscription, place, None, since)

    def _found(
        self, subscription: Subscription, place: Place, seq: int | None, since: float
    ) -> Awaited:
        return Awaited(
            subscription.holder.name,
            subscription.number,
            subscription.priority,
            place,
            seq,
            self._tables.now - since,
        )

    # -- references ---------------------------------------------------------------------------

    def _references(self, record: Record) -> Iterator[HeldReferences]:
        granted = Counter(record.granted)
        holders = {each.name: each for each in (*record.holders, *granted)}
        for name in sorted(holders):
            holder = holders[name]
            yield HeldReferences(
                name,
                holder.session is None,
                holder.references.get(record.ioasid, 0),
                granted[holder],
                tuple(self._ends(record, holder, granted[holder])),
            )

    def _ends(self, record: Record, holder: Holder, granted: int) -> tuple[Awaited, ...]:
        # What of the ends of its grants was offered to a holder.
        owner = record.owner
        scopes = ((None, None), (owner.sid, None), (None, owner.token))
        present = [holder.subscriptions.get(scope) for scope in scopes if granted]
        holding = [each for each in present if each is not None and each.grants]
        known: dict[int, set[int]] = {each.number: set() for each in holding}
        found = [end for each in holding for end in self._in_chain(record, each, known)]
        if granted > sum(map(len, known.values())):
            # The others' bindings are over for everybody else: their ends have left the chain.
            found += [end for each in holding for end in self._behind(record, each, known)]
        due = [each for each in holding if each.resync_due]
        if granted > sum(map(len, known.values())):
            for each in due:
                if len(due) == 1 or _keeps_more(each, record, known):
                    since = each.folded_since
                    found.append(self._due(each, self._tables.now if since is None else since[1]))
        # A Resync may end several.
        ends = {(end.subscription, end.seq): end for end in sorted(found, key=_by_age)}
        return tuple(ends[key] for key in sorted(ends, key=lambda key: (key[0], key[1] or 2**64)))

    def _in_chain(
        self, record: Record, each: Subscription, known: dict[int, set[int]]
    ) -> Iterator[Awaited]:
        if not record.free_pending and record.binding in each.grants:
            known[each.number].add(record.binding)
        for stage in record.chain:
            binding = stage.binding
            if binding not in each.grants or stage.event.kind is BIND:
                continue
            if each.number in stage.waiting:
                known[each.number].add(binding)
                yield self._awaited(each, stage)
            elif stage.reach < each.tier:
                known[each.number].add(binding)

    def _behind(
        self, record: Record, each: Subscription, known: dict[int, set[int]]
    ) -> Iterator[Awaited]:
        for seq, (offered, entry) in each.outstanding.items():
            ended = {b for b in ended_by(entry) if each.grants.get(b) is record}
            if not ended <= known[each.number]:
                known[each.number] |= ended
                yield self._queued(each, seq, offered)


def _keeps_more(each: Subscription, record: Record, known: dict[int, set[int]]) -> bool:
    kept = {binding for binding, found in each.grants.items() if found is record}
    return not kept <= known[each.number]


def _by_age(awaited: Awaited) -> float:
    return awaited.age


def _resync_for(subscription: Subscription, seq: int) -> int:
    # The Resync that stands for an event, given to the subscriber and not acknowledged.
    return next(
        number
        for number, (_, entry) in subscription.outstanding.items()
        if isinstance(entry, Fold) and seq in entry.folded
    )
