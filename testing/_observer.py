"""Subscribers as the invariants see them, and what one tells of another.

What has to be true of the messages that one subscriber is given: an `Observer` takes them the way
a subscriber does, builds a table from them alone, and objects to any message that does not follow
from those before it. `Observers` keeps the observers of one allocator and compares them: no lower
tier sees anything that a higher one has not acknowledged.
"""

from collections.abc import Iterable
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
    Priority,
    Resync,
    Subscribe,
    Withdraw,
)
from ioasid.testing._states import ABSENT, BOUND, PENDING, UNBOUND, after, state_of
from ioasid.testing._violated import invariant

__all__: list[str] = []

TIERS: Final = tuple(Priority)
"""From the first that is offered an event to the last."""

STAGED: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


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
    folds: dict[int, set[int]] = field(factory=dict)
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
    ahead: set[int] = field(factory=set)
    """What it has learned from and not taken, by seq."""

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
        return found.union(*self.folds.values())

    @invariant(0)
    def deliver(self, message: Event | Resync) -> None:
        """Put a message into the queue; what may be in it is bounded."""
        assert self.attached
        assert not self.lags or isinstance(message, Resync)
        if isinstance(message, Resync):
            self.folds[message.seq] = self.folded
            self.folded = set()
            self.lags = False
        self.queue.append(message)
        assert len(self.queue) <= self.terms.queue_size + 1

    @invariant(0)
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
                self.folded |= self.folds.pop(message.seq)

    @invariant(5)
    def take(self) -> None:
        """Take the next message into its hands, and learn from it."""
        self.hand = self.queue.pop(0)
        self._learn_from(self.hand)

    @invariant(5)
    def take_out_of_turn(self, message: Event | Resync) -> None:
        """Take a message that others are before: it is no news without those."""
        place = self.queue.index(message)
        for each in self.queue[: place + 1]:
            self._learn_from(each)
            self.ahead.add(each.seq)
        del self.queue[place]

    def _learn_from(self, message: Event | Resync) -> None:
        if message.seq in self.ahead:
            return
        if isinstance(message, Resync):
            self._learn_all(message)
        else:
            self._learn(message)

    def acknowledge(self, seq: int) -> None:
        """Note that a message in its hands or set aside is dealt with."""
        self.deferred.pop(seq, None)
        self.acknowledged.add(seq)
        done = {seq}
        if seq in self.folds:
            done |= self.folds.pop(seq)
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
        before = self.known.get(ioasid, frozenset((ABSENT,)))
        states = after(before, event.kind, self.terms.kinds)
        assert states, f"{event} to {self.number}, for which {ioasid} is {sorted(before)}"
        self.known[ioasid] = states
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
        self.known = {each.ioasid: frozenset((state_of(each),)) for each in resync}
        assert len(list(resync)) == len(self.known)
        self.spids = {
            each.ioasid: each.spid
            for each in resync
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
            if not self._is_there(number):
                del self.present[number]
        for effect in effects:
            match effect:
                case Deliver(subscriptions, message):
                    self._note_free(message)
                    for number in subscriptions:
                        self._deliver(self.present[number], message)
                case Withdraw(subscription, keep):
                    self.present[subscription].withdraw(keep)
                case End(subscription, drained):
                    # None for one that crashed before, with the process that it was in.
                    observer = self.present.get(subscription)
                    if observer is not None:
                        self._end(observer, drained=drained)
                case _:
                    pass

    def _note_free(self, message: Event | Resync) -> None:
        if isinstance(message, Resync) or message.publisher is not None:
            return
        if message.kind is EventKind.FREE:
            self.told.setdefault(message.ioasid, []).append(message)

    def _deliver(self, observer: Observer, message: Event | Resync) -> None:
        if isinstance(message, Event):
            self.event_was_finished_above(observer, message)
        else:
            self.resync_was_finished_above(observer, message)
        observer.deliver(message)

    def bound(self, event: Event) -> None:
        """Note a BIND before what it sets off is carried out."""
        self.told.setdefault(event.ioasid, []).append(event)

    def forget(self, ioasid: int) -> None:
        """Note that the life of an ID is over."""
        self.told.pop(ioasid, None)

    def _is_there(self, number: int) -> bool:
        found = self.allocator._tables.subscriptions.get(number)
        return found is not None and not found.leaving

    def told_of_free(self, sid: int, token: str | None) -> set[int]:
        """Return the subscriptions that have to acknowledge a FREE of a set."""
        return {
            each.number
            for each in self.present.values()
            if EventKind.FREE in each.terms.kinds
            and each.terms.awaited
            and covers(each.terms, sid, token)
        }

    def above(self, lower: Observer, sid: int, token: str | None) -> list[Observer]:
        """Who subscribes to a set in a tier above that of another one, and is waited for."""
        return [
            each
            for each in self.present.values()
            if each.tier < lower.tier and each.terms.awaited and covers(each.terms, sid, token)
        ]

    @invariant(6)
    def event_was_finished_above(self, lower: Observer, event: Event) -> None:
        """Invariant 6: everybody above whom the event was for has acknowledged it."""
        if event.publisher is None and event.kind not in STAGED:
            return
        for higher in self.above(lower, event.sid, event.token):
            if event.kind in higher.terms.kinds and higher.joined < event.seq:
                assert self.has_finished(higher, event), (
                    f"{event} to {lower.number} before {higher.number} acknowledged it"
                )

    @invariant(6)
    def resync_was_finished_above(self, lower: Observer, resync: Resync) -> None:
        """Invariant 6: a Resync shows no effect of an event that a tier above still has."""
        for live in resync:
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
        if self._is_there(observer.number):
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


def live_ids(allocator: Allocator) -> dict[int, tuple[int, int, bool]]:
    """Every live ID, with its set, its generation and whether it is FREE_PENDING."""
    tables = allocator._tables
    found = {}
    for sid, owner in tables.sets.items():
        for ioasid in owner.ioasids():
            record = owner.records.get(ioasid)
            freed = record is not None and record.free_pending
            found[ioasid] = sid, tables.space.generation(ioasid), freed
    return found
