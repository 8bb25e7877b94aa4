"""The invariants of the allocator, in one place, for every test that drives one.

Two kinds, and a function or method for each promise:

- What has to be true of the state after every single message: `check_state` runs them all. They
  are the only code outside the core that looks into its tables.
- What has to be true of the messages that one subscriber is given: an `Observer` per subscription
  takes them the way a subscriber does, builds a table from them alone, and objects to any message
  that does not follow from those before it.

`Observers` keeps the observers of one allocator and compares them: no lower tier sees anything
that a higher one has not acknowledged.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Final

from attrs import define, field

from ioasid.core import (
    Allocator,
    Deliver,
    Effect,
    End,
    Event,
    EventKind,
    IoasidState,
    LiveIoasid,
    Priority,
    Resync,
    SetState,
    Snapshot,
    Subscribe,
    Withdraw,
)
from ioasid.core._records import Lapse, Record, Stage, Subscription, Tables

TIERS: Final = tuple(Priority)
"""From the first that is offered an event to the last."""

STAGED: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))

# -- the state, after every single message ----------------------------------------------------


def check_state(allocator: Allocator) -> None:
    """Assert every invariant of the state."""
    tables = allocator._tables
    quotas_and_capacity_add_up(tables)
    every_id_is_in_one_set_or_the_pool(tables)
    nothing_in_use_is_in_the_pool(tables)
    spids_are_unique_and_found(tables)
    no_tier_is_ahead_of_a_higher_one(tables)
    suspended_holders_keep_their_ids(tables)
    references_add_up(tables)
    queues_are_bounded(tables)
    nothing_is_left_undecided(tables)
    figures_add_up(tables)


def quotas_and_capacity_add_up(tables: Tables) -> None:
    """Invariant 1: no set has more than its quota, no two quotas share an ID."""
    for owner in tables.sets.values():
        assert 0 <= owner.allocated <= owner.quota
    quotas = sum(owner.quota for owner in tables.sets.values())
    assert tables.capacity == tables.available + tables.reserved + quotas
    assert tables.available >= 0
    assert tables.reserved >= 0


def every_id_is_in_one_set_or_the_pool(tables: Tables) -> None:
    """Invariant 2: the sets' IDs are disjoint, and with the pool they are all there are."""
    seen: dict[int, int] = {}
    for sid, owner in tables.sets.items():
        assert sid == owner.sid
        assert owner.allocated == sum(word.bit_count() for word in owner.members.values())
        for ioasid in members(owner.members):
            assert ioasid not in seen
            assert ioasid < tables.capacity
            assert sid == tables.space.owner(ioasid)
            seen[ioasid] = sid
        assert owner.records.keys() <= seen.keys()
    assert tables.live == len(seen)
    assert len(seen) == sum(word.bit_count() for word in tables.space._used.values())


def nothing_in_use_is_in_the_pool(tables: Tables) -> None:
    """Invariant 3: what somebody references or has a FREE to acknowledge of is allocated."""
    for holder in tables.holders.values():
        for ioasid in holder.references:
            assert tables.space.owner(ioasid) is not None
    for subscription in tables.subscriptions.values():
        for stage in pending_stages(subscription):
            if stage.ends_life:
                assert is_live(tables, stage.record)
                assert stage.record.free_pending
        for record in subscription.grants.values():
            assert is_live(tables, record)


def spids_are_unique_and_found(tables: Tables) -> None:
    """Invariant 4: a set's spids and the spids of its IDs are each other's inverse."""
    for owner in tables.sets.values():
        bound = {
            record.spid: ioasid
            for ioasid, record in owner.records.items()
            if record.spid is not None
        }
        assert bound == owner.spids
        assert len(bound) == sum(record.spid is not None for record in owner.records.values())


def no_tier_is_ahead_of_a_higher_one(tables: Tables) -> None:
    """Invariants 5 and 6: a chain is in seq order, and an event waits for one tier at a time."""
    waited_for: set[tuple[int, int]] = set()
    for ioasid, record in tables.chained.items():
        assert record.chain
        assert ioasid == record.ioasid
        assert is_live(tables, record)
        for earlier, later in pairwise(record.chain):
            assert earlier.event.seq < later.event.seq
            assert earlier.reach >= later.reach
            assert not earlier.ends_life
        for stage in record.chain:
            assert record.free_pending or not stage.ends_life
            if stage.waiting:
                tiers = {each.tier for each in stage.waiting.values()}
                assert len(tiers) == 1
                assert tiers.pop() <= stage.reach
            waited_for.update((number, stage.event.seq) for number in stage.waiting)
    assert waited_for == {
        (number, stage.event.seq)
        for number, subscription in tables.subscriptions.items()
        for stage in pending_stages(subscription)
    }
    for owner in tables.sets.values():
        for record in owner.records.values():
            assert bool(record.chain) == (record.ioasid in tables.chained)


def suspended_holders_keep_their_ids(tables: Tables) -> None:
    """Invariant 9: a suspended holder has no session, and everything it had is still there."""
    for name, holder in tables.holders.items():
        assert name == holder.name
        if holder.session is not None:
            assert tables.sessions[holder.session] is holder
            continue
        for each in holder.subscriptions.values():
            assert not each.attached
            assert not each.outstanding
            assert each.resync_due
    assert len(tables.sessions) == sum(
        holder.session is not None for holder in tables.holders.values()
    )


def references_add_up(tables: Tables) -> None:
    """What the holders have and what the IDs count is the same; each grant is of one binding."""
    held: Counter[tuple[str, int]] = Counter()
    granted: Counter[tuple[str, int]] = Counter()
    for name, holder in tables.holders.items():
        for ioasid, count in holder.references.items():
            held[name, ioasid] = count
    for each in tables.subscriptions.values():
        assert each.hold or not each.grants
        for record in each.grants.values():
            granted[each.holder.name, record.ioasid] += 1
    records = [record for owner in tables.sets.values() for record in owner.records.values()]
    assert held == Counter(
        {
            (name, record.ioasid): count
            for record in records
            for name, count in record.references.items()
        }
    )
    assert granted == Counter(
        {
            (name, record.ioasid): count
            for record in records
            for name, count in record.granted.items()
        }
    )
    assert all(count > 0 for count in held.values())
    assert all(count > 0 for count in granted.values())


def queues_are_bounded(tables: Tables) -> None:
    """A queue has at most its bound, besides what is in the subscriber's hands or set aside."""
    for number, each in tables.subscriptions.items():
        assert number == each.number
        assert each.deferred <= each.outstanding.keys()
        assert len(each.outstanding) - len(each.deferred) <= each.queue_size + 1
        lags = bool(each.outstanding) or each.folded_since is not None
        assert lags == (number in tables.lagging)
        assert each.folded_since is not None or not each.folded
        assert each.resync_due or each.folded_since is None
        # Who has nothing in its hands is back, and gets its Resync at once.
        assert not (each.resync_due and each.attached) or (
            len(each.outstanding) > len(each.deferred)
        )


def nothing_is_left_undecided(tables: Tables) -> None:
    """Whatever became possible has happened: nothing waits for a message that is not needed."""
    assert not tables.unsettled
    for owner in tables.sets.values():
        assert owner.allocated or owner.state is SetState.ACTIVE
        for ioasid, record in owner.records.items():
            assert ioasid == record.ioasid
            assert record.owner is owner
            assert not record.reclaimed
            assert not record.is_plain()
            if record.free_pending:
                assert record.references or record.granted or record.chain
            else:
                assert not record.waiters
    for waiter in tables.waiters.values():
        assert waiter.pending
        for record in waiter.pending.values():
            assert record.waiters[waiter.ticket] is waiter


def figures_add_up(tables: Tables) -> None:
    """Every number that is kept is what counting would give."""
    owners = tables.sets.values()
    pending = sum(record.free_pending for owner in owners for record in owner.records.values())
    assert pending == tables.free_pending
    assert tables.sets_free_pending == sum(owner.state is SetState.FREE_PENDING for owner in owners)
    assert tables.tokens == {owner.token: owner.sid for owner in owners if owner.token is not None}
    assert [tables.system_sid] == [owner.sid for owner in owners if owner.system] or (
        tables.system_sid is None and not any(owner.system for owner in owners)
    )
    assert set(tables.sets) == {sid for sid in tables.sets if tables.sids.owner(sid) is not None}
    assert len(tables.sets) == sum(word.bit_count() for word in tables.sids._used.values())
    subscriptions = tables.subscriptions.values()
    system = {each.number for each in subscriptions if each.sid is None and each.token is None}
    assert system == set(tables.system_subscriptions)
    for owner in owners:
        mine = {
            each.number
            for each in subscriptions
            if each.sid == owner.sid or (each.token is not None and each.token == owner.token)
        }
        assert mine == set(owner.subscriptions)


def nothing_leaks(allocator: Allocator) -> None:
    """After the last set, session and subscription are gone, the tables are as at the start."""
    tables = allocator._tables
    left = {
        "sets": tables.sets,
        "tokens": tables.tokens,
        "chained": tables.chained,
        "unsettled": tables.unsettled,
        "waiters": tables.waiters,
        "lagging": tables.lagging,
        "subscriptions": tables.subscriptions,
        "system_subscriptions": tables.system_subscriptions,
        "token_subscriptions": tables.token_subscriptions,
        "holders": tables.holders,
        "sessions": tables.sessions,
        "outbox": tables.outbox,
        "used": tables.space._used,
        "owners": tables.space._owners,
        "sids": tables.sids._used,
    }
    assert {} == {name: table for name, table in left.items() if table}
    assert (0, 0, 0) == (tables.live, tables.free_pending, tables.sets_free_pending)
    assert tables.capacity == tables.available + tables.reserved
    assert tables.system_sid is None


def unchanged(before: Snapshot, allocator: Allocator) -> None:
    """Invariant 7: a refused request leaves the state exactly as it was, and does nothing."""
    assert before == allocator.snapshot()
    assert [] == allocator.drain()


def members(words: Mapping[int, int]) -> Iterable[int]:
    """The IDs of a set, from its words of 1,024 bits."""
    for word, bits in words.items():
        rest = bits
        while rest:
            yield word * 1024 + (rest & -rest).bit_length() - 1
            rest &= rest - 1


def is_live(tables: Tables, record: Record) -> bool:
    """Whether a record is that of an ID in its present life."""
    owner = tables.sets.get(record.owner.sid)
    return owner is record.owner and owner.records.get(record.ioasid) is record


def pending_stages(subscription: Subscription) -> list[Stage]:
    """The staged events that a subscriber has yet to acknowledge, wherever they are."""
    found = list(subscription.folded.values())
    for _, entry in subscription.outstanding.values():
        if isinstance(entry, Lapse):
            found += entry.folded.values()
        elif entry is not None:
            found.append(entry)
    return [stage for stage in found if subscription.number in stage.waiting]


# -- the messages, one subscriber at a time ---------------------------------------------------

ABSENT: Final = "absent"
UNBOUND: Final = "unbound"
BOUND: Final = "bound"
PENDING: Final = "free pending"

MOVES: Final[dict[EventKind, dict[str, str]]] = {
    EventKind.ALLOC: {ABSENT: UNBOUND},
    EventKind.BIND: {UNBOUND: BOUND},
    EventKind.UNBIND: {BOUND: UNBOUND},
    EventKind.FREE: {UNBOUND: PENDING, BOUND: PENDING},
    EventKind.RECLAIM: {PENDING: ABSENT},
}
"""Invariant 5: what an event makes of an ID, by what it was."""


def state_of(live: LiveIoasid) -> str:
    """The state of an ID in a listing, as one of the four."""
    if live.state is IoasidState.FREE_PENDING:
        return PENDING
    return UNBOUND if live.spid is None else BOUND


@define(eq=False)
class Observer:
    """One subscriber: it takes, acknowledges and defers, and knows only what it was given."""

    number: int
    holder: str
    terms: Subscribe
    known: dict[int, frozenset[str]] = field(factory=dict)
    """What each ID may be, as far as the messages say; an ID that is not here is absent."""
    spids: dict[int, int] = field(factory=dict)
    """The spids of the IDs that are bound, as far as the messages say."""
    queue: list[Event | Resync] = field(factory=list)
    hand: Event | Resync | None = None
    deferred: dict[int, Event | Resync] = field(factory=dict)
    attached: bool = True
    lags: bool = False
    """Its queue was withdrawn or it crashed: a Resync has to be its next message."""
    folded: set[int] = field(factory=set)
    """Events that it had been given, and that its next Resync stands for."""
    lapses: dict[int, set[int]] = field(factory=dict)
    """What each Resync that it has not acknowledged stands for."""
    acknowledged: set[int] = field(factory=set)
    resynced: int = 0
    """The last Resync that it acknowledged."""
    joined: int = 0
    """The seq at which it subscribed."""
    last: dict[int, int] = field(factory=dict)
    """The last event of each ID that it was given."""
    closing: dict[int, int] = field(factory=dict)
    """The IDs whose UNBIND or FREE it has taken and not acknowledged, by seq."""

    @property
    def tier(self) -> int:
        """0 is offered an event first."""
        return TIERS.index(self.terms.priority)

    @property
    def follows_bindings(self) -> bool:
        """Whether its kinds tell it which IDs are bound."""
        return self.terms.kinds >= STAGED

    @property
    def knows_everything(self) -> bool:
        """Whether its kinds leave nothing out."""
        return self.terms.kinds == frozenset(EventKind)

    def begin(self, live: Iterable[int]) -> None:
        """Begin without a Resync: IDs that are live now may be in any state."""
        for ioasid in live:
            self.known[ioasid] = frozenset((UNBOUND, BOUND, PENDING))

    def unacknowledged(self) -> set[int]:
        """The seqs of all that it was given and has not acknowledged."""
        found = {message.seq for message in self.queue} | set(self.deferred) | self.folded
        if self.hand is not None and self.hand.seq not in self.acknowledged:
            found.add(self.hand.seq)
        return found.union(*self.lapses.values())

    def deliver(self, message: Event | Resync) -> None:
        """Put a message into the queue; what may be in it is bounded."""
        assert self.attached
        assert not self.lags or isinstance(message, Resync)
        if isinstance(message, Resync):
            self.lapses[message.seq] = self.folded
            self.folded = set()
            self.lags = False
        self.queue.append(message)
        assert len(self.queue) <= self.terms.queue_size + 1

    def withdraw(self, keep: int | None) -> None:
        """Drop the queue except the message that it may be about to take."""
        kept = self.hand or (self.queue[0] if self.queue else None)
        assert keep == (None if kept is None else kept.seq)
        self._fold(message for message in self.queue if message.seq != keep)
        self.queue = [message for message in self.queue if message.seq == keep]
        self.lags = True

    def crash(self) -> None:
        """Lose everything but what is programmed: the next message is a Resync."""
        in_hand = [self.hand] if self.hand and self.hand.seq not in self.acknowledged else []
        self._fold([*self.queue, *self.deferred.values(), *in_hand])
        self.queue = []
        self.deferred = {}
        self.hand = None
        self.attached = False
        self.lags = True

    def _fold(self, messages: Iterable[Event | Resync]) -> None:
        for message in messages:
            self.folded.add(message.seq)
            if isinstance(message, Resync):
                self.folded |= self.lapses.pop(message.seq)

    def take(self) -> None:
        """Take the next message into its hands, and learn from it."""
        self.hand = self.queue.pop(0)
        if isinstance(self.hand, Resync):
            self._learn_all(self.hand)
        else:
            self._learn(self.hand)

    def acknowledge(self, seq: int) -> None:
        """Note that a message in its hands or set aside is dealt with."""
        self.deferred.pop(seq, None)
        self.acknowledged.add(seq)
        done = {seq}
        if seq in self.lapses:
            done |= self.lapses.pop(seq)
            self.resynced = max(self.resynced, seq)
        self.acknowledged |= done
        for each in done & self.closing.keys():
            del self.closing[each]

    def programmed(self) -> set[int]:
        """The IDs that a holding subscriber may still use: each needs its reference."""
        return set(self.spids) | set(self.closing.values()) if self.terms.hold else set()

    def _learn(self, event: Event) -> None:
        # Invariant 5: in order, none twice, and only what may follow.
        assert event.kind in self.terms.kinds
        ioasid = event.ioasid
        assert self.last.get(ioasid, 0) < event.seq
        self.last[ioasid] = event.seq
        if event.publisher is not None:
            return
        states = set(self.known.get(ioasid, {ABSENT}))
        hidden = [moves for kind, moves in MOVES.items() if kind not in self.terms.kinds]
        reached = set(states)
        while reached:
            reached = {moves[each] for moves in hidden for each in reached if each in moves}
            reached -= states
            states |= reached
        after = frozenset(MOVES[event.kind][each] for each in states if each in MOVES[event.kind])
        assert after, f"{event} to {self.number}, for which {ioasid} is {sorted(states)}"
        self.known[ioasid] = after
        if not self.follows_bindings:
            return
        spid = self.spids.pop(ioasid, None)
        if event.kind is EventKind.BIND:
            assert event.spid is not None
            self.spids[ioasid] = event.spid
        elif event.kind in STAGED:
            assert spid in (event.spid, None)
            if spid is not None:
                self.closing[event.seq] = ioasid

    def _learn_all(self, resync: Resync) -> None:
        self.known = {each.ioasid: frozenset((state_of(each),)) for each in resync.ioasids}
        assert len(resync.ioasids) == len(self.known)
        self.spids = {
            each.ioasid: each.spid
            for each in resync.ioasids
            if each.spid is not None and each.state is IoasidState.ACTIVE
        }


@define(eq=False)
class Observers:
    """The observers of one allocator, by subscription, and what one tells of another."""

    allocator: Allocator
    present: dict[int, Observer] = field(factory=dict)
    told: dict[int, list[Event]] = field(factory=dict)
    """The BINDs of each live ID, and its FREE if anybody was given it."""

    def carry_out(self, effects: Iterable[Effect]) -> None:
        """Carry out what the allocator wants done for its subscribers."""
        for number in [each.number for each in self.present.values() if not each.attached]:
            if number not in self.allocator._tables.subscriptions:
                del self.present[number]
        for effect in effects:
            match effect:
                case Deliver(subscription, message):
                    observer = self.present[subscription]
                    if isinstance(message, Event):
                        self.event_was_finished_above(observer, message)
                        if message.kind is EventKind.FREE and message.publisher is None:
                            self.told.setdefault(message.ioasid, []).append(message)
                    else:
                        self.resync_was_finished_above(observer, message)
                    observer.deliver(message)
                case Withdraw(subscription, keep):
                    self.present[subscription].withdraw(keep)
                case End(subscription, drained):
                    self._end(self.present[subscription], drained=drained)
                case _:
                    pass

    def bound(self, event: Event) -> None:
        """Note a BIND before what it sets off is carried out."""
        self.told.setdefault(event.ioasid, []).append(event)

    def forget(self, ioasid: int) -> None:
        """Note that the life of an ID is over."""
        self.told.pop(ioasid, None)

    def above(self, lower: Observer, sid: int, token: str | None) -> list[Observer]:
        """Who subscribes to a set in a tier above that of another subscriber."""
        return [
            each
            for each in self.present.values()
            if each.tier < lower.tier and covers(each.terms, sid, token)
        ]

    def event_was_finished_above(self, lower: Observer, event: Event) -> None:
        """Invariant 6: everybody above whom the event was for has acknowledged it."""
        if event.publisher is None and event.kind not in STAGED:
            return
        for higher in self.above(lower, event.sid, event.token):
            if event.kind in higher.terms.kinds and higher.joined < event.seq:
                assert self.has_finished(higher, event), (
                    f"{event} to {lower.number} before {higher.number} acknowledged it"
                )

    def resync_was_finished_above(self, lower: Observer, resync: Resync) -> None:
        """Invariant 6: a Resync shows no effect of an event that a tier above still has."""
        for live in resync.ioasids:
            wanted = {PENDING: EventKind.FREE, BOUND: EventKind.BIND}.get(state_of(live))
            causes = [
                event
                for event in self.told.get(live.ioasid, ())
                if event.kind is wanted and (wanted is EventKind.FREE or event.spid == live.spid)
            ]
            above = self.above(lower, live.sid, live.token)
            assert not causes or any(
                all(
                    self.has_finished(higher, event)
                    for higher in above
                    if event.kind in higher.terms.kinds and higher.joined < event.seq
                )
                for event in causes
            ), f"{live} in the Resync of {lower.number}, ahead of a higher tier"

    def has_finished(self, higher: Observer, event: Event) -> bool:
        """Whether a subscriber acknowledged an event, or a Resync that can stand for it."""
        seen = event.seq in higher.acknowledged or higher.resynced > event.seq
        return seen and event.seq not in higher.unacknowledged()

    def _end(self, observer: Observer, *, drained: bool) -> None:
        if observer.number in self.allocator._tables.subscriptions:
            assert not drained
            observer.crash()
            return
        del self.present[observer.number]
        if not drained:
            return
        # What is queued still counts: the RECLAIM of the last ID, before all else.
        while observer.queue:
            observer.take()
        if not observer.lags and observer.knows_everything:
            assert all(states == {ABSENT} for states in observer.known.values())


def covers(terms: Subscribe, sid: int, token: str | None) -> bool:
    """Whether a subscription's scope includes a set."""
    if terms.token is not None:
        return terms.token == token
    return terms.sid is None or terms.sid == sid


def live_ids(allocator: Allocator) -> dict[int, tuple[int, bool]]:
    """Every live ID, with its set and whether it is FREE_PENDING."""
    found = {}
    for sid, owner in allocator._tables.sets.items():
        for ioasid in members(owner.members):
            record = owner.records.get(ioasid)
            found[ioasid] = sid, record is not None and record.free_pending
    return found
