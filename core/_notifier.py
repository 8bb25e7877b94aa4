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
  nothing that a Resync shows, and the chain stays short however long a subscriber hangs.

Nothing here waits or fails. A subscriber that lags is folded into a Resync that is made when it
comes back, so an event costs the same however far behind anybody is. (docs/
explanation.md, Tiers)
"""

from collections.abc import Collection, Iterable, Sequence

from attrs import define

from ioasid.core._effects import Deliver, End, Withdraw
from ioasid.core._messages import (
    Data,
    Event,
    EventKind,
    IoasidState,
    LiveIoasid,
    Resync,
)
from ioasid.core._records import (
    BIND,
    LAST_TIER,
    NO_TIER,
    NOBODY,
    UNBIND,
    IoasidSet,
    Lapse,
    Record,
    Route,
    Stage,
    Subscription,
    Tables,
    ioasids_of,
    without,
)

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
        for number in sorted(matching):
            tiers[matching[number].tier][number] = matching[number]
        following = [NO_TIER]
        for tier in range(LAST_TIER, -1, -1):
            following.append(tier if tiers[tier] else following[-1])
        holds = any(each.hold for each in matching.values())
        return Route(tiers, tuple(reversed(following)), holds)

    def join(self, subscription: Subscription) -> None:
        """Let a subscription match from now on."""
        tables = self._tables
        number = subscription.number
        if subscription.token is not None:
            tables.token_subscriptions.setdefault(subscription.token, {})[number] = subscription
        if subscription.token is None and subscription.sid is None:
            tables.system_subscriptions[number] = subscription
            tables.routes_version += 1
        else:
            for owner in tables.in_scope(subscription):
                owner.subscriptions[number] = subscription
                owner.routes.clear()

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
        scope = tables.in_scope(subscription)
        for owner in scope:
            owner.subscriptions.pop(number, None)
            owner.routes.clear()
        del tables.subscriptions[number]
        del subscription.holder.subscriptions[subscription.sid, subscription.token]
        tables.lagging.pop(number, None)
        self._acknowledge_stages(subscription, self._pending_stages(subscription))
        for binding in tuple(subscription.grants):
            self._drop_grant(subscription, binding)
        # Where it was the last of its tier, the events behind one need not wait any longer.
        for owner in scope:
            for ioasid in owner.records.keys() & tables.chained.keys():
                tables.unsettled[ioasid] = tables.chained[ioasid]
        if subscription.attached:
            subscription.attached = False
            tables.outbox.append(End(number, drained))

    # -- emitting -----------------------------------------------------------------------------

    def tell_all(
        self, owner: IoasidSet, kind: EventKind, ioasid: int, spid: int | None, data: Data | None
    ) -> None:
        """Emit an event that needs no order among its subscribers: ALLOC or RECLAIM."""
        tables = self._tables
        tables.seq += 1
        route = self.route(owner, kind)
        if route is NOBODY:
            return
        event = Event(tables.seq, kind, ioasid, owner.sid, owner.token, spid, data)
        for tier in route.tiers:
            if tier:
                self._offer(tier, event, None)

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
        event = Event(
            seq, kind, record.ioasid, owner.sid, owner.token, spid, record.data, publisher
        )
        binding = None if publisher is not None else seq if begins else record.binding
        if not record.chain:
            record.chain = []
        record.chain.append(Stage(event, record, binding))
        tables.chained[record.ioasid] = record
        tables.unsettled[record.ioasid] = record
        if begins and route.holds:
            for tier in route.tiers:
                self._grant_all(tier, record, seq)
        return seq

    def under_way(self, record: Record) -> int:
        """Return how many events of an ID have yet to be offered to their last tier."""
        return self._under_way(record.chain)

    def _under_way(self, chain: Sequence[Stage]) -> int:
        return sum(self._has_left(stage, LAST_TIER) for stage in chain)

    def advance(self, record: Record) -> None:
        """Offer an ID's events, of which there are some, to every tier that they reached by now."""
        chain = record.chain
        assert chain, "an ID without events has nothing to offer"
        for index, stage in enumerate(chain):
            if index and stage.reach < 0 and self._under_way(chain[:index]):
                break
            self._advance_stage(chain, index)
        if len(chain) > 1 or chain[0].event.publisher is not None:
            self._cancel_out(chain)
        while chain and self.is_over(chain[0]):
            del chain[0]
        if not chain:
            record.chain = ()
            self._tables.chained.pop(record.ioasid, None)

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
            stage.waiting = route.tiers[tier].copy()
            if route.holds and stage.event.kind is BIND and stage.binding is not None:
                self._grant_all(stage.waiting, stage.record, stage.binding)
            self._offer(route.tiers[tier], stage.event, stage)

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
            elif index and stage.event.kind is UNBIND and chain[index - 1].event.kind is BIND:
                self.forget(chain[index - 1 : index + 1])
                del chain[index - 1 : index + 1]
                index -= 1
            else:
                index += 1

    def forget(self, stages: Iterable[Stage]) -> None:
        """Let nothing wait for these stages any more."""
        for stage in stages:
            for subscription in stage.waiting.values():
                subscription.folded.pop(stage.event.seq, None)
            stage.waiting = {}

    # -- grants -------------------------------------------------------------------------------

    def _grant_all(self, tier: dict[int, Subscription], record: Record, binding: int) -> None:
        for subscription in tier.values():
            if subscription.hold:
                self._grant(subscription, record, binding)

    def _grant(self, subscription: Subscription, record: Record, binding: int) -> None:
        if binding not in subscription.grants:
            subscription.grants[binding] = record
            record.granted += (subscription.holder,)

    def _drop_grant(self, subscription: Subscription, binding: int) -> None:
        record = subscription.grants.pop(binding, None)
        if record is not None:
            record.granted = without(record.granted, subscription.holder)
            self._tables.unsettled[record.ioasid] = record

    # -- queues -------------------------------------------------------------------------------

    def _offer(self, tier: dict[int, Subscription], event: Event, stage: Stage | None) -> None:
        tables = self._tables
        seq = event.seq
        offer = (tables.now, stage)
        for subscription in tier.values():
            outstanding = subscription.outstanding
            # One is in the subscriber's hands, and as many in its queue as may be.
            if subscription.resync_due or len(outstanding) > subscription.queue_size:
                self._offer_to_lagging(subscription, seq, stage)
                continue
            if not outstanding:
                tables.lagging[subscription.number] = subscription
            outstanding[seq] = offer
            tables.outbox.append(Deliver(subscription.number, event))

    def _offer_to_lagging(self, subscription: Subscription, seq: int, stage: Stage | None) -> None:
        if stage is None and subscription.folded_since is not None:
            return  # Nothing of this event has to be acknowledged.
        tables = self._tables
        tables.lagging[subscription.number] = subscription
        if not subscription.resync_due:
            self._fold_queue(subscription)
        self._fold(subscription, seq, tables.now, stage)

    def _fold(
        self, subscription: Subscription, seq: int, offered: float, entry: Stage | Lapse | None
    ) -> None:
        since = subscription.folded_since
        # What a subscriber that crashes had in its hands is older than what it missed before.
        if since is None or offered < since[1]:
            subscription.folded_since = (seq, offered)
        if isinstance(entry, Lapse):
            subscription.folded.update(
                (number, stage) for number, stage in entry.folded.items() if stage.waiting
            )
        elif entry is not None and subscription.number in entry.waiting:
            subscription.folded[seq] = entry

    def _fold_queue(self, subscription: Subscription) -> None:
        # The first that was not set aside is, or is about to be, in the subscriber's hands.
        keep = next((s for s in subscription.outstanding if s not in subscription.deferred), None)
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
        subscription.resync_due = True
        subscription.attached = False
        self._tables.outbox.append(End(subscription.number, drained=False))

    def attach(self, subscription: Subscription, *, resync: bool) -> None:
        """Let a subscriber begin, or come back; with `resync` a Resync is its first message."""
        subscription.attached = True
        if resync:
            subscription.resync_due = True
            self.resync_if_back(subscription)

    def defer(self, subscription: Subscription, seq: int) -> None:
        """Note that the subscriber came back and keeps this message. Call `resync_if_back` next."""
        if seq in subscription.outstanding:
            subscription.deferred.add(seq)

    def acknowledge(self, subscription: Subscription, seq: int) -> None:
        """Note that the subscriber dealt with a message; one not outstanding is ignored.

        Settle what it set free, then call `resync_if_back`.
        """
        outstanding = subscription.outstanding
        offer = outstanding.pop(seq, None)
        if offer is None:
            return
        if subscription.deferred:
            subscription.deferred.discard(seq)
        entry = offer[1]
        if isinstance(entry, Stage):
            self._acknowledge_stage(subscription, entry)
        elif entry is not None:
            self._acknowledge_stages(subscription, entry.folded.values())
            for binding in entry.stale:
                self._drop_grant(subscription, binding)
        if not outstanding:
            self._tables.lagging.pop(subscription.number, None)

    def _acknowledge_stages(self, subscription: Subscription, stages: Iterable[Stage]) -> None:
        for stage in stages:
            self._acknowledge_stage(subscription, stage)

    def _acknowledge_stage(self, subscription: Subscription, stage: Stage) -> None:
        if subscription.grants and stage.binding is not None and stage.event.kind is not BIND:
            self._drop_grant(subscription, stage.binding)
        waiting = stage.waiting
        if waiting.pop(subscription.number, None) is not None and not waiting:
            self._tables.unsettled[stage.record.ioasid] = stage.record

    def _pending_stages(self, subscription: Subscription) -> Iterable[Stage]:
        pending = dict(subscription.folded)
        for seq, (_, entry) in subscription.outstanding.items():
            if isinstance(entry, Lapse):
                pending.update(entry.folded)
            elif entry is not None:
                pending[seq] = entry
        return pending.values()

    # -- Resync -------------------------------------------------------------------------------

    def resync_if_back(self, subscription: Subscription) -> None:
        """Give a subscriber that lagged its Resync, if its queue is empty and has room for it."""
        unacknowledged = len(subscription.outstanding)
        if (
            not subscription.resync_due
            or not subscription.attached
            or unacknowledged > len(subscription.deferred)
            # Who sets everything aside gets no more before it acknowledged some of it.
            or unacknowledged > subscription.queue_size
        ):
            return
        tables = self._tables
        tables.seq += 1
        shown: set[int] = set()
        ioasids = tuple(
            self._live_ioasid(subscription, owner, ioasid, shown)
            for owner in tables.in_scope(subscription)
            for ioasid in ioasids_of(owner)
        )
        lapse = Lapse(subscription.folded, self.stale_grants(subscription, shown))
        since = subscription.folded_since
        subscription.outstanding[tables.seq] = (since[1] if since else tables.now, lapse)
        subscription.folded = {}
        subscription.folded_since = None
        subscription.resync_due = False
        tables.lagging[subscription.number] = subscription
        tables.outbox.append(Deliver(subscription.number, Resync(tables.seq, ioasids)))

    def _live_ioasid(
        self, subscription: Subscription, owner: IoasidSet, ioasid: int, shown: set[int]
    ) -> LiveIoasid:
        record = owner.records.get(ioasid)
        if record is None:
            return LiveIoasid(ioasid, owner.sid, owner.token, IoasidState.ACTIVE, None, None)
        state, spid, binding = self.visible(record, subscription.tier)
        if binding is not None and subscription.hold:
            shown.add(binding)
            self._grant(subscription, record, binding)
        return LiveIoasid(ioasid, owner.sid, owner.token, state, spid, record.data)

    def visible(self, record: Record, tier: int) -> tuple[IoasidState, int | None, int | None]:
        """Return an ID's state, spid and binding as of the last event offered to a tier."""
        for stage in record.chain:
            if stage.reach < tier and stage.event.publisher is None:
                # The state before an event can be read off it.
                if stage.event.kind is BIND:
                    return IoasidState.ACTIVE, None, None
                return IoasidState.ACTIVE, stage.event.spid, stage.binding
        if record.free_pending:
            return IoasidState.FREE_PENDING, record.spid, None
        return IoasidState.ACTIVE, record.spid, record.binding

    def stale_grants(
        self, subscription: Subscription, shown: Collection[int | None]
    ) -> tuple[int, ...]:
        """Return the bindings that were granted to a subscriber and that nothing ends any more.

        A grant outlives a Resync if its binding is among what that has `shown`, or if the
        binding's BIND has yet to be offered, or if its end is in the subscriber's hands and will be
        acknowledged.
        """
        in_hand: set[int | None] = set()
        for _, entry in subscription.outstanding.values():
            if isinstance(entry, Lapse):
                in_hand.update(entry.stale)
            stages = entry.folded.values() if isinstance(entry, Lapse) else (entry,)
            in_hand.update(
                stage.binding
                for stage in stages
                if stage is not None and stage.event.kind is not BIND
            )
        return tuple(
            binding
            for binding, record in sorted(subscription.grants.items())
            if binding not in shown
            and binding not in in_hand
            and not any(
                stage.event.seq == binding and stage.reach < subscription.tier
                for stage in record.chain
            )
        )
