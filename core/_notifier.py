"""The notifier: who is told what, in which order, and what their acknowledgements set free.

The staged events of one ID (BIND, UNBIND, FREE and a publisher's own) form its chain. An event
goes through the tiers from CPU to LAST; a tier is reached when everybody who was offered the
event before has acknowledged it, and who matches is decided then. The rules of the chain:

- A stage starts when the one before it has been offered to its last tier.
- A stage enters a tier only if no earlier one still has somebody to reach up to that tier, so
  everybody sees the events of an ID in seq order. What an event overtakes counts as past the tier.
- A stage stays in the chain until everybody acknowledged it and every earlier one: the tiers
  below must not learn of it from a Resync before, and who joins one of them until then is
  offered all that the Resync did not show. A bind and its unbind that both wait for nothing but
  their last acknowledgements cancel out and leave, as does a publisher's own event: they change
  nothing that a Resync shows, and the chain stays short however long a subscriber hangs. The
  unbind that an ID ended with stays until the CPUs and devices acknowledged it: a freeze has to
  see that.

Nothing here waits or fails. A subscriber that lags is folded into a Resync that is made when it
comes back, so an event costs the same however far behind anybody is. (docs/explanation.md, Tiers)
"""

from collections.abc import Iterable, Sequence

from attrs import define

from ioasid.core._effects import Begin, Deliver, End, Withdraw
from ioasid.core._events import Event
from ioasid.core._grants import drop_grant, end_unseen, grant_all
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._resyncs import call_off, relist
from ioasid.core._routes import DEVICE_TIER, LAST_TIER, NO_TIER, NOBODY, Route
from ioasid.core._space import SHIFT, lowest_one
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import ALLOC, BIND, MAX_IN_FLIGHT, UNBIND, Data, EventKind
from ioasid.core._work import LettingGo, LookingAgain

__all__: list[str] = []


@define(eq=False)
class Notifier:
    """The fan-out over the subscriptions in the tables."""

    _tables: Tables

    # -- who matches --------------------------------------------------------------------------

    def route(self, owner: IoasidSet, kind: EventKind) -> Route:
        """Return who matches an event of this kind and set, by tier; `NOBODY` if nobody does."""
        if owner.routes_version != self._tables.routes_version:
            owner.routes.clear()
            owner.routes_version = self._tables.routes_version
        route = owner.routes.get(kind)
        if route is None:
            route = owner.routes[kind] = self._find_route(owner, kind)
        return route

    def _find_route(self, owner: IoasidSet, kind: EventKind) -> Route:
        matching = {
            number: each
            for index in (self._tables.system_subscriptions, owner.subscriptions)
            for number, each in index.items()
            if kind in each.kinds
        }
        if not matching:
            return NOBODY
        tiers: tuple[dict[int, Subscription], ...] = ({}, {}, {}, {})
        others: tuple[dict[int, Subscription], ...] = ({}, {}, {}, {})
        for number in sorted(matching):
            each = matching[number]
            tiers[each.tier][number] = each
            if not each.awaited:
                others[each.tier][number] = each
        awaited = tuple(
            {number: each for number, each in tier.items() if each.awaited} if other else tier
            for tier, other in zip(tiers, others, strict=True)
        )
        following = [NO_TIER]
        for tier in range(LAST_TIER, -1, -1):
            following.append(tier if tiers[tier] else following[-1])
        holds = any(each.hold for each in matching.values())
        return Route(tiers, tuple(reversed(following)), holds, awaited, others)

    def join(self, subscription: Subscription) -> None:
        """Let a subscription match from now on."""
        tables = self._tables
        number = subscription.number
        if subscription.token is not None:
            tables.token_subscriptions.setdefault(subscription.token, {})[number] = subscription
        if subscription.everywhere:
            tables.system_subscriptions[number] = subscription
            tables.routes_version += 1
        else:
            for owner in tables.in_scope(subscription):
                owner.subscriptions[number] = subscription
                owner.routes.clear()
        # What nobody had yet to reach may have somebody to reach again.
        self._reconsider(subscription)

    def leave(self, subscription: Subscription, *, drained: bool) -> None:
        """End a subscription: it acknowledges everything and drops what it was granted."""
        tables = self._tables
        number = subscription.number
        if subscription.token is not None:
            waiting = tables.token_subscriptions[subscription.token]
            del waiting[number]
            if not waiting:
                del tables.token_subscriptions[subscription.token]
        if tables.system_subscriptions.pop(number, None) is not None:
            tables.routes_version += 1
        else:
            for owner in tables.in_scope(subscription):
                owner.subscriptions.pop(number, None)
                owner.routes.clear()
        del subscription.holder.subscriptions[subscription.sid, subscription.token]
        call_off(tables, subscription)
        tables.lagging.pop(number, None)
        subscription.leaving = True
        if subscription.folded or subscription.outstanding or subscription.grants:
            subscription.deal(subscription.take_stages(), subscription.grants)
        subscription.deferred.clear()
        subscription.unseen.clear()
        subscription.missed.clear()
        subscription.folded_since = None
        subscription.resync_due = False
        self._let_go(subscription)
        # Where it was the last of its tier, the events behind one need not wait any longer.
        self._reconsider(subscription)
        if subscription.attached:
            subscription.attached = False
            tables.outbox.append(End(number, drained))

    def _reconsider(self, subscription: Subscription) -> None:
        # Who is told of the events under way in a scope has changed.
        tables = self._tables
        chained = tables.chained
        everywhere = subscription.everywhere
        scope = () if everywhere else tables.in_scope(subscription)
        if everywhere or scope:
            looked_at = len(chained)
            if scope:
                looked_at = min(looked_at, len(scope[0].records))
            if looked_at > tables.part:
                self._look_again()
                return
        if everywhere:
            tables.unsettled.update(chained)
        for owner in scope:
            for ioasid in owner.records.keys() & chained.keys():
                tables.unsettled[ioasid] = chained[ioasid]

    def _look_again(self) -> None:
        tables = self._tables
        for item in (*tables.begun, *tables.work):
            if type(item) is LookingAgain:
                item.word = 0
                return
        tables.begun.append(LookingAgain())

    def _let_go(self, subscription: Subscription) -> None:
        tables = self._tables
        for item in (*tables.begun, *tables.work):
            if type(item) is LettingGo and item.subscription is subscription:
                item.order = None
                return
        tables.begun.append(LettingGo(subscription))

    # -- emitting -----------------------------------------------------------------------------

    def tell_all(
        self,
        owner: IoasidSet,
        kind: EventKind,
        ioasid: int,
        generation: int,
        spid: int | None,
        data: Data | None,
    ) -> None:
        """Emit an event that needs no order among its subscribers: ALLOC or RECLAIM."""
        tables = self._tables
        tables.seq += 1
        if tables.relistings:
            relist(tables, owner, ioasid, ioasid)
        route = self.route(owner, kind)
        if route is NOBODY or _changes_nothing(route):
            return
        event = Event(
            tables.seq, kind, ioasid, owner.sid, owner.token, spid, data, None, generation
        )
        for tier in route.tiers:
            if tier:
                self._offer(tier, event, None)

    def tell_all_of(
        self, owner: IoasidSet, chosen: Iterable[tuple[int, int]], generation: int
    ) -> None:
        """Emit the ALLOC of many plain IDs, which come as `words` has them, lowest first."""
        tables = self._tables
        route = self.route(owner, ALLOC)
        told = [each for tier in route.tiers for each in tier.values()]
        for number, gained in chosen:
            base = number << SHIFT
            if tables.relistings:
                relist(tables, owner, base + lowest_one(gained), base + gained.bit_length() - 1)
            left = gained
            while left and any(each.folded_since is None for each in told):
                position = lowest_one(left)
                self.tell_all(owner, ALLOC, base + position, generation, None, None)
                left ^= 1 << position
            # For whoever lags there is nothing to note of one more.
            tables.seq += left.bit_count()

    def stage(
        self, record: Record, kind: EventKind, spid: int | None, publisher: str | None
    ) -> int:
        """Emit a staged event: append it to the ID's chain. Returns its seq.

        `spid` and, for UNBIND and FREE, the record's binding are those that the event is about.
        Nothing is offered before `advance`, when the record shows the state after the event.
        """
        tables = self._tables
        tables.seq += 1
        seq = tables.seq
        begins = kind is BIND and publisher is None
        route = self.route(record.owner, kind)
        if route is NOBODY and not record.chain:
            return seq
        owner = record.owner
        generation = tables.space.generation(record.ioasid)
        event = Event(
            seq,
            kind,
            record.ioasid,
            owner.sid,
            owner.token,
            spid,
            record.data,
            publisher,
            generation,
        )
        binding = None if publisher is not None else seq if begins else record.binding
        if not record.chain:
            record.chain = []
        record.chain.append(Stage(event, record, binding))
        tables.chained[record.ioasid] = record
        tables.unsettled[record.ioasid] = record
        if len(record.chain) >= MAX_IN_FLIGHT:
            tables.crowded[record.ioasid] = record
        if begins and route.holds:
            for tier in route.tiers:
                grant_all(tables, tier, record, seq)
        return seq

    def in_flight(self, record: Record) -> int:
        """Return how many events of an ID have yet to be offered to their last tier."""
        return self._in_flight(record.chain)

    def _in_flight(self, chain: Sequence[Stage]) -> int:
        return sum(self._has_left(stage, LAST_TIER) for stage in chain)

    def advance(self, record: Record) -> None:
        """Offer an ID's events, of which there are some, to every tier that they reached by now."""
        chain = record.chain
        assert chain, "an ID without events has nothing to offer"
        for index, stage in enumerate(chain):
            if index and stage.reach < 0 and self._in_flight(chain[:index]):
                break
            self._advance_stage(chain, index)
        if len(chain) > 1 or chain[0].event.publisher is not None:
            self._cancel_out(chain)
        while chain and self.is_over(chain[0]):
            del chain[0]
        if not chain:
            record.chain = ()
            self._tables.chained.pop(record.ioasid, None)
        if self._tables.crowded and len(chain) < MAX_IN_FLIGHT:
            self._tables.crowded.pop(record.ioasid, None)

    def _advance_stage(self, chain: list[Stage], index: int) -> None:
        stage = chain[index]
        while not stage.waiting:
            route = self.route(stage.record.owner, stage.event.kind)
            tier = route.following[stage.reach + 1]
            if tier == NO_TIER:
                return
            if index:
                if any(self._has_left(each, tier) for each in chain[:index]):
                    return
                for each in chain[:index]:
                    each.reach = max(each.reach, tier)
            stage.reach = tier
            stage.offered_at = self._tables.now
            stage.waiting = route.awaited[tier].copy()
            if route.holds and stage.event.kind is BIND and stage.binding is not None:
                grant_all(self._tables, stage.waiting, stage.record, stage.binding)
            self._offer(route.awaited[tier], stage.event, stage)
            if route.others[tier]:
                self._offer(route.others[tier], stage.event, None)

    def _has_left(self, stage: Stage, tier: int) -> bool:
        # Whether somebody matches the stage in a tier that it has yet to reach, up to `tier`.
        route = self.route(stage.record.owner, stage.event.kind)
        return route.following[stage.reach + 1] <= tier

    def is_over(self, stage: Stage) -> bool:
        """Tell whether everybody who matches an event has been offered and acknowledged it."""
        return not stage.waiting and not self._has_left(stage, LAST_TIER)

    def _cancel_out(self, chain: list[Stage]) -> None:
        index = 0
        while index < len(chain) and not self._has_left(chain[index], LAST_TIER):
            stage = chain[index]
            if stage.event.publisher is not None:
                self.forget(chain[index : index + 1])
                del chain[index]
            elif (
                index
                and stage.event.kind is UNBIND
                and chain[index - 1].event.kind is BIND
                and not self._is_watched(chain, index)
            ):
                self.forget(chain[index - 1 : index + 1])
                del chain[index - 1 : index + 1]
                index -= 1
            else:
                index += 1

    def _is_watched(self, chain: list[Stage], index: int) -> bool:
        # Who freezes the set has to see when the CPUs and devices are done with its last unbind.
        waited = any(each.tier <= DEVICE_TIER for each in chain[index].waiting.values())
        return waited and all(each.binding is None for each in chain[index + 1 :])

    def is_running(self, record: Record) -> bool:
        """Tell whether a CPU or device may have yet to stop what an ID that is unbound does."""
        for stage in record.chain:
            if stage.ends_binding:
                for each in stage.waiting.values():
                    if each.tier <= DEVICE_TIER:
                        return True
                if stage.reach >= DEVICE_TIER:
                    continue
                # Who only looks on stops nothing, wherever it stands.
                told = self.route(record.owner, stage.event.kind).awaited
                if any(told[stage.reach + 1 : DEVICE_TIER + 1]):
                    return True
        return False

    def forget(self, stages: Iterable[Stage]) -> None:
        """Let nothing wait for these stages any more."""
        for stage in stages:
            for subscription in stage.waiting.values():
                subscription.folded.pop(stage.event.seq, None)
            stage.waiting = {}

    # -- queues -------------------------------------------------------------------------------

    def _offer(self, tier: dict[int, Subscription], event: Event, stage: Stage | None) -> None:
        tables = self._tables
        seq = event.seq
        offer = (tables.now, stage)
        told = []
        for subscription in tier.values():
            outstanding = subscription.outstanding
            # One is in the subscriber's hands, and as many in its queue as may be.
            if subscription.resync_due or len(outstanding) > subscription.queue_size:
                self._offer_to_lagging(subscription, seq, stage)
                continue
            if not outstanding:
                tables.lagging[subscription.number] = subscription
            outstanding[seq] = offer
            told.append(subscription.number)
        if told:
            tables.outbox.append(Deliver(tuple(told), event))
            if stage is not None and stage.binding == seq:
                for number in told:
                    tier[number].unseen.discard(seq)

    def _offer_to_lagging(self, subscription: Subscription, seq: int, stage: Stage | None) -> None:
        if stage is None and subscription.folded_since is not None:
            return  # Nothing of this event has to be acknowledged.
        tables = self._tables
        tables.lagging[subscription.number] = subscription
        if not subscription.resync_due:
            self._fold_queue(subscription)
        if stage is not None and (subscription.unseen or subscription.listed):
            end_unseen(tables, subscription, stage)
        self._fold(subscription, seq, tables.now, stage)

    def _fold(
        self, subscription: Subscription, seq: int, offered: float, entry: Stage | Fold | None
    ) -> None:
        since = subscription.folded_since
        # What a subscriber that crashes had in its hands is older than what it missed before.
        if since is None or offered < since[1]:
            subscription.folded_since = (seq, offered)
        if isinstance(entry, Fold):
            # There may be many, and often there are no others.
            folded = {number: stage for number, stage in entry.folded.items() if stage.waiting}
            folded.update(subscription.folded)
            subscription.folded = folded
            subscription.missed.update(entry.stale)
        elif entry is not None:
            if subscription.number in entry.waiting:
                subscription.folded[seq] = entry
            binding = None if entry.event.kind is BIND else entry.binding
            if binding is not None and binding in subscription.grants:
                subscription.missed.add(binding)

    def _fold_queue(self, subscription: Subscription) -> None:
        keep = subscription.in_hands
        for seq, (offered, entry) in tuple(subscription.outstanding.items()):
            if seq != keep and seq not in subscription.deferred:
                del subscription.outstanding[seq]
                self._fold(subscription, seq, offered, entry)
        subscription.resync_due = True
        self._tables.outbox.append(Withdraw(subscription.number, keep))

    def suspend(self, subscription: Subscription) -> None:
        """Fold everything that a crashed subscriber has not acknowledged; it goes on matching."""
        if not subscription.attached:
            return
        for seq, (offered, entry) in subscription.outstanding.items():
            self._fold(subscription, seq, offered, entry)
        subscription.outstanding.clear()
        subscription.deferred.clear()
        call_off(self._tables, subscription)
        subscription.resync_due = True
        subscription.attached = False
        self._tables.outbox.append(End(subscription.number, drained=False))

    def attach(self, subscription: Subscription, *, resync: bool) -> None:
        """Let a subscriber begin, or come back; with `resync` a Resync is its first message."""
        subscription.attached = True
        self._tables.outbox.append(Begin(subscription.number))
        if resync:
            subscription.resync_due = True
            self._tables.returning.append(subscription)

    def defer(self, subscription: Subscription, seq: int) -> None:
        """Note that the subscriber came back and keeps this message."""
        if seq in subscription.outstanding:
            subscription.deferred[seq] = self._tables.now
        self._tables.returning.append(subscription)

    def acknowledge(self, messages: Iterable[tuple[Subscription, int]]) -> None:
        """Note who dealt with which message, by seq; one not outstanding is ignored."""
        tables = self._tables
        for subscription, seq in messages:
            if subscription.resync_due:
                tables.returning.append(subscription)
            outstanding = subscription.outstanding
            offer = outstanding.pop(seq, None)
            if offer is None:
                continue
            if subscription.deferred:
                subscription.deferred.pop(seq, None)
            if not outstanding and subscription.folded_since is None:
                tables.lagging.pop(subscription.number, None)
            entry = offer[1]
            if entry is None:
                continue
            if isinstance(entry, Stage):
                self.let_go_of(subscription, entry)
            elif entry.folded or entry.stale:
                subscription.deal(entry.folded, entry.stale)
                self._let_go(subscription)

    def let_go_of(self, subscription: Subscription, stage: Stage) -> None:
        """Let an event no longer wait for a subscriber, and end the grant that ends with it."""
        if subscription.grants and stage.binding is not None and stage.event.kind is not BIND:
            drop_grant(self._tables, subscription, stage.binding)
        waiting = stage.waiting
        if waiting.pop(subscription.number, None) is not None and not waiting:
            self._tables.unsettled[stage.record.ioasid] = stage.record


def _changes_nothing(route: Route) -> bool:
    # Whether everybody lags already: one event more that nobody acknowledges is not even made.
    for tier in route.tiers:
        for each in tier.values():
            if each.folded_since is None or not each.resync_due:
                return False
    return True
