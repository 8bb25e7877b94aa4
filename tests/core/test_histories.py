"""Random histories: everything that may happen, in any order, and every invariant at every step.

A history is a seed. It drives one allocator with random requests of several holders, some of
which crash, and with subscribers of every tier and scope that take, defer and acknowledge what
they are given whenever they like. What has to be true is in `invariants`; the ledger here knows,
of each ID, only what requests and replies say.

`IOASID_HISTORIES=5000` in the environment runs that many.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import pytest

from ioasid.core import (
    Abandon,
    Acknowledge,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    Answer,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CloseSession,
    Complete,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Effect,
    Event,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    Get,
    IoasidError,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Listing,
    ListSet,
    LiveIoasid,
    Notify,
    OpenSession,
    Priority,
    Put,
    Released,
    Request,
    ReserveCapacity,
    ReserveRange,
    Resync,
    ReuseOrder,
    SessionOpened,
    SetRecord,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    TokenType,
    Unsubscribe,
    Waiting,
    decode_snapshot,
    encode,
)
from tests.core.helpers import state
from tests.core.invariants import (
    ABSENT,
    Life,
    Observer,
    Observers,
    check_state,
    covers,
    ends_acknowledged,
    live_ids,
    named_in,
    nothing_leaks,
    state_of,
    unchanged,
)

HISTORIES: Final = int(os.environ.get("IOASID_HISTORIES", "200"))
BATCH: Final = 25
STEPS: Final = 300
HOLDERS: Final = ("host", "kvm", "vdcm", "vtd", "vfio")
TOKENS: Final = ("vm-1", "vm-2", "vm-3")
GROUPS: Final = ("department", "tenant", "desk")
KINDS: Final = (
    frozenset(EventKind),
    frozenset(EventKind),
    frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE)),
    frozenset((EventKind.FREE,)),
    frozenset((EventKind.ALLOC, EventKind.RECLAIM)),
    frozenset((EventKind.BIND, EventKind.FREE, EventKind.RECLAIM)),
)
HOLDING: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


class History:
    """One allocator, its holders and subscribers, and a ledger of what it did."""

    observer: type[Observer] = Observer
    allocator: type[Allocator] = Allocator
    part = 1000
    """How many IDs it deals with at once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.capacity = self.random.choice((6, 20, 40))
        self.order = self.random.choice(tuple(ReuseOrder))
        self.core = self.allocator(self.capacity, order=self.order, part=self.part)
        self.reserved = {0}
        """The numbers that are out of circulation."""
        self.last = -1
        """The ID that was given out last."""
        self.generation = 0
        """That of the life that began last."""
        self.sids = 0
        """The first number that no set has had."""
        self.observers = Observers(self.core)
        self.sessions = {"host": self.core.session}
        self.ledger: dict[int, Life] = {}
        self.references: Counter[tuple[str, int]] = Counter()
        self.tokens: dict[int, str | None] = {}
        self.active: set[int] = set()
        self.waiting: dict[int, set[int]] = {}
        self.abandoned: set[int] = set()
        self.deferring = self.random.choice((0.05, 0.2, 0.5))
        self.suspicious = seed % 10 == 0
        self.twin: Allocator | None = None
        actions: tuple[tuple[int, Callable[[], object]], ...] = (
            (2, self.alloc_set),
            (1, self.change_capacity),
            (1, self.change_reserved),
            (1, self.change_groups),
            (1, self.free_set),
            (14, self.alloc),
            (3, self.alloc_many),
            (6, self.free),
            (1, self.free_many),
            (18, self.attach_spid),
            (12, self.detach_spid),
            (6, self.take_reference),
            (6, self.put),
            (4, self.notify),
            (2, self.change_data),
            (6, self.subscribe),
            (2, self.unsubscribe),
            (1, self.detach),
            (5, self.come_back),
            (2, self.crash),
            (1, self.leave),
            (1, self.abandon),
            (2, self.restore),
            (self.random.choice((10, 30, 60, 90)), self.consume),
        )
        self.weights, self.choices = zip(*actions, strict=True)
        for quota in (self.capacity // 3, self.capacity // 4):
            self.ask("host", AllocSet(TOKENS[quota % 3], quota))
        for name in HOLDERS[1:]:
            self.open(name)

    # -- one request --------------------------------------------------------------------------

    def ask(self, name: str, request: Request, *, freeing: Iterable[int] = ()) -> Answer | None:
        """Send a request as a holder; a refusal is `None` and has changed nothing."""
        before = self.core.snapshot() if self.suspicious else None
        seq = self.seq() if isinstance(request, AttachSpid) else 0
        told = {ioasid: self.told_of_free(self.ledger[ioasid].sid) for ioasid in freeing}
        try:
            reply = self.core.handle(self.sessions[name], request)
        except IoasidError as error:
            if before is not None:
                unchanged(before, self.core)
            if self.twin is not None:
                with pytest.raises(type(error), match=re.escape(str(error))):
                    self.twin.handle(self.sessions[name], request)
            return None
        effects = self.core.drain()
        if self.twin is not None:
            again = self.twin.handle(self.sessions[name], request)
            assert reply == again or (isinstance(reply, Waiting) and isinstance(again, Waiting))
            mine, others = (
                [each for each in those if not isinstance(each, Complete)]
                for those in (effects, self.twin.drain())
            )
            assert mine == others
        for ioasid, to_acknowledge in told.items():
            self.ledger[ioasid].free(to_acknowledge)
        if isinstance(reply, Waiting):
            assert reply.ticket not in self.abandoned
            self.waiting[reply.ticket] = set(freeing)
        elif isinstance(request, Alloc | AllocMany):
            assert isinstance(reply, Allocated | AllocatedMany)
            generation = reply.generation
            assert self.generation < generation
            self.generation = generation
            for ioasid in named_in(reply):
                assert ioasid not in self.ledger
                self.ledger[ioasid] = Life(request.sid, generation)
        elif isinstance(request, AttachSpid):
            sid = self.ledger[request.ioasid].sid
            bind = Event(seq + 1, EventKind.BIND, request.ioasid, sid, spid=request.spid)
            self.observers.bound(bind)
        elif isinstance(request, AllocSet | AllocSystemSet) and isinstance(reply, SetRecord):
            assert self.sids <= reply.sid
            self.sids = reply.sid + 1
            self.tokens[reply.sid] = reply.token
            self.active.add(reply.sid)
        if isinstance(request, FreeSet) and request.destroy:
            self.active.discard(request.sid)
        self.look(effects)
        return reply

    def told_of_free(self, sid: int) -> set[int]:
        """Everybody who has to acknowledge a FREE of this set."""
        return self.observers.told_of_free(sid, self.tokens[sid])

    def seq(self) -> int:
        """The number of the last message to subscribers."""
        figures = self.core.handle(self.core.session, TakeStatistics())
        assert isinstance(figures, Statistics)
        return figures.seq

    def look(self, effects: Iterable[Effect]) -> None:
        """Carry out what the core wants done, then check everything."""
        effects = list(effects)
        self.observers.carry_out(effects)
        check_state(self.core)
        live = live_ids(self.core)
        present = self.observers.present
        for ioasid, life in list(self.ledger.items()):
            life.to_acknowledge &= present.keys()
            if ioasid not in live:
                assert life.freed
                assert not life.to_acknowledge
                assert not any(held for held in self.references if held[1] == ioasid)
                del self.ledger[ioasid]
                self.observers.forget(ioasid)
                for pending in self.waiting.values():
                    pending.discard(ioasid)
                continue
            assert (life.sid, life.generation, life.freed) == live[ioasid]
        used: dict[int, set[str]] = {}
        for each in present.values():
            for ioasid in each.programmed():
                used.setdefault(ioasid, set()).add(each.holder)
        for ioasid, holders in used.items():
            assert holders <= self.found(ioasid).references.keys()
        for effect in effects:
            if isinstance(effect, Complete):
                assert effect.ticket not in self.abandoned
                assert Released(True) == effect.answer
                assert set() == self.waiting.pop(effect.ticket)
        assert all(self.waiting.values())

    def found(self, ioasid: int) -> IoasidRecord:
        """The record of an ID."""
        record = self.core.handle(self.core.session, Find(ioasid))
        assert isinstance(record, IoasidRecord)
        return record

    # -- what may be chosen -------------------------------------------------------------------

    def step(self) -> None:
        """Do something."""
        self.random.choices(self.choices, self.weights)[0]()

    def holder(self) -> str:
        """A holder with a session."""
        return self.random.choice(sorted(self.sessions))

    def sid(self) -> int:
        """A set's number, most often of one that is not being freed."""
        if self.active and self.random.random() < 0.9:
            return self.random.choice(sorted(self.active))
        return self.random.randrange(4)

    def ioasid(self, suits: Callable[[IoasidRecord], bool] | None = None) -> int:
        """An ID, most often a live one, and one that suits if there is any."""
        if not self.ledger or self.random.random() < 0.05:
            return self.random.randrange(self.capacity)
        live = sorted(self.ledger)
        if suits is not None and self.random.random() < 0.9:
            live = [each for each in live if suits(self.found(each))] or live
        return self.random.choice(live)

    def named_sid(self, ioasid: int) -> int | None:
        """The set a caller names for an ID: none, its own, or at times a wrong one."""
        life = self.ledger.get(ioasid)
        own = life.sid if life else 0
        return self.random.choice((None, None, None, own, own, self.random.randrange(5)))

    # -- requests -----------------------------------------------------------------------------

    def alloc_set(self) -> None:
        """Make a set, with a token or without, or the system's."""
        quota = self.random.choice((None, 1, 3, 6, 12))
        token = self.random.choice((*TOKENS, None))
        group = self.random.choice((None, None, *GROUPS))
        kind = TokenType.NULL if token is None else TokenType.MM
        if self.random.random() < 0.1:
            self.ask(self.holder(), AllocSystemSet(quota))
        else:
            self.ask(self.holder(), AllocSet(token, quota, kind, group))

    def change_groups(self) -> None:
        """Make, change or free a group."""
        name, limit = self.random.choice(GROUPS), self.random.randrange(1, 12)
        self.ask(
            self.holder(),
            self.random.choice(
                (
                    AllocGroup(name, limit, self.random.choice((None, *GROUPS))),
                    AllocGroup(name, limit),
                    AdjustGroup(name, limit),
                    FreeGroup(name),
                )
            ),
        )

    def change_reserved(self) -> None:
        """Take numbers out of circulation or give them back."""
        low = self.random.randrange(self.capacity)
        high = min(low + self.random.choice((0, 0, 1, 3)), self.capacity - 1)
        numbers = {*range(low, high + 1)}
        if self.random.random() < 0.5:
            if self.ask(self.holder(), ReserveRange(low, high)) is not None:
                assert not numbers & (self.reserved | self.ledger.keys())
                self.reserved |= numbers
        else:
            reply = self.ask(self.holder(), CancelRange(low, high))
            assert (numbers <= self.reserved) == (reply is not None)
            if reply is not None:
                self.reserved -= numbers

    def change_capacity(self) -> None:
        """Reserve, cancel, or move quota."""
        amount = self.random.randrange(1, 6)
        self.ask(
            self.holder(),
            self.random.choice(
                (
                    ReserveCapacity(amount),
                    CancelCapacity(amount),
                    CancelCapacity(amount),
                    AdjustSet(self.sid(), amount * 2),
                )
            ),
        )

    def free_set(self) -> None:
        """Free a set, to stay or to go."""
        sid = self.sid()
        ioasids = [ioasid for ioasid, life in self.ledger.items() if life.sid == sid]
        destroy = self.random.random() < 0.7
        wait = self.random.random() < 0.3
        self.ask(self.holder(), FreeSet(sid, destroy, wait), freeing=ioasids)

    def alloc(self) -> None:
        """Allocate: the lowest free ID of the range or the next in turn, and none in use."""
        low = self.random.choice((0, 1, 1, 1, self.random.randrange(self.capacity)))
        high = self.random.choice((None, None, self.random.randrange(low, self.capacity)))
        following = self.following(low, self.capacity - 1 if high is None else high)
        data = self.random.choice((None, 7, "x"))
        reply = self.ask(self.holder(), Alloc(self.sid(), low, high, data))
        assert reply in (None, Allocated(following[0] if following else -1, self.generation))
        if isinstance(reply, Allocated):
            self.last = reply.ioasid

    def alloc_many(self) -> None:
        """Allocate several: the IDs that as many allocations would give."""
        wanted = self.random.randrange(1, 5)
        following = self.following(1, self.capacity - 1)[:wanted]
        reply = self.ask(self.holder(), AllocMany(self.sid(), wanted))
        if reply is not None:
            assert sorted(following) == named_in(reply)
            self.last = following[-1]

    def following(self, low: int, high: int) -> list[int]:
        """The free IDs of a range in the order in which they are given out."""
        turn = [*range(low, high + 1)]
        if self.order is ReuseOrder.CYCLIC and low <= self.last < high:
            turn = [*range(self.last + 1, high + 1), *range(low, self.last + 1)]
        return [each for each in turn if each not in self.ledger and each not in self.reserved]

    def free_many(self) -> None:
        """Free several IDs of a set at once, at times one that is not its own: none is, then."""
        sid = self.sid()
        mine = sorted(ioasid for ioasid, life in self.ledger.items() if life.sid == sid)
        chosen = [each for each in mine if self.random.random() < 0.3]
        if self.random.random() < 0.2:
            chosen = sorted({*chosen, self.ioasid()})
        known = [each for each in chosen if each in mine]
        ranges = tuple(IoasidRange(each, each) for each in chosen)
        reply = self.ask(self.holder(), FreeMany(sid, ranges), freeing=known)
        if chosen:
            assert (reply is not None) == (known == chosen)

    def free(self) -> None:
        """Free an ID, early or late, once or again, and perhaps wait for the reclaim."""
        ioasid = self.ioasid()
        wait = self.random.random() < 0.3
        freeing = [ioasid] if ioasid in self.ledger else []
        self.ask(self.holder(), Free(ioasid, self.named_sid(ioasid), wait), freeing=freeing)

    def attach_spid(self) -> None:
        """Bind: every holding subscriber has its reference in the same step."""
        ioasid = self.ioasid(can_be_bound)
        spid = self.random.randrange(6)
        request = AttachSpid(ioasid, spid, self.named_sid(ioasid))
        if self.ask(self.holder(), request) is None:
            return
        sid = self.ledger[ioasid].sid
        found = Allocated(ioasid, self.ledger[ioasid].generation)
        assert found == self.core.handle(self.core.session, FindBySpid(sid, spid))
        references = self.found(ioasid).references
        for each in self.observers.present.values():
            if each.terms.hold and covers(each.terms, sid, self.tokens[sid]):
                assert each.holder in references

    def detach_spid(self) -> None:
        """Unbind."""
        ioasid = self.ioasid(is_bound)
        self.ask(self.holder(), DetachSpid(ioasid, self.named_sid(ioasid)))

    def take_reference(self) -> None:
        """Get a reference, by ID or by spid."""
        name = self.holder()
        ioasid = self.ioasid(is_active)
        reply: Answer | None
        if self.random.random() < 0.5:
            reply = self.ask(name, FindBySpid(self.sid(), self.random.randrange(6), True))
            if isinstance(reply, Allocated):
                self.references[name, reply.ioasid] += 1
        elif self.ask(name, Get(ioasid, self.named_sid(ioasid))):
            self.references[name, ioasid] += 1

    def put(self) -> None:
        """Put a reference, at times one that is not there."""
        name, ioasid = self.holder(), self.ioasid()
        mine = [held for held in sorted(self.references) if held[0] in self.sessions]
        if mine and self.random.random() < 0.8:
            name, ioasid = self.random.choice(mine)
        self.put_one(name, ioasid)

    def put_one(self, name: str, ioasid: int) -> None:
        """Put a reference; it is refused if and only if the holder has none."""
        held = self.references[name, ioasid]
        self.references[name, ioasid] = max(held - 1, 0)
        self.references += Counter()
        assert bool(held) == (self.ask(name, Put(ioasid)) is not None)

    def notify(self) -> None:
        """Publish an event of one's own."""
        kind = self.random.choice((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))
        self.ask(self.holder(), Notify(self.ioasid(is_active), kind))

    def change_data(self) -> None:
        """Attach or detach data."""
        ioasid = self.ioasid()
        self.ask(
            self.holder(),
            self.random.choice((AttachData(ioasid, "data"), DetachData(ioasid))),
        )

    # -- holders and subscribers --------------------------------------------------------------

    def subscribe(self) -> None:
        """Subscribe to anything, in any tier; half of them hold."""
        name = self.holder()
        if len(self.observers.present) >= 12:
            return
        hold = self.random.random() < 0.5
        sid, token = self.random.choice(
            ((None, None), (self.sid(), None), (None, self.random.choice(TOKENS)))
        )
        terms = Subscribe(
            sid=sid,
            token=token,
            kinds=self.kinds(hold=hold),
            priority=self.random.choice(tuple(Priority)),
            hold=hold,
            replay=self.random.random() < 0.5,
            queue_size=self.random.choice((1, 2, 3, 5, 8, 20)),
        )
        if any(
            (each.holder, each.terms.sid, each.terms.token) == (name, sid, token)
            for each in self.observers.present.values()
        ):
            self.refused_again(name, terms)
            return
        self.begin(name, terms)

    def kinds(self, *, hold: bool) -> frozenset[EventKind]:
        """Any kinds that there may be, all of them and those of a binding most often."""
        if self.random.random() < 0.6:
            return self.random.choice((frozenset(EventKind), HOLDING))
        kinds = self.random.sample(list(EventKind), self.random.randrange(1, 6))
        return HOLDING.union(kinds) if hold else frozenset(kinds)

    def begin(self, name: str, terms: Subscribe) -> None:
        """Make a subscription and its observer; the first message may come at once."""
        number = self.core.snapshot().next_subscription
        seq = self.seq()
        observer = self.observer(number, name, terms, joined=seq)
        if not terms.replay:
            observer.begin(
                ioasid
                for ioasid, life in self.ledger.items()
                if covers(terms, life.sid, self.tokens[life.sid])
            )
        self.observers.present[number] = observer
        if self.ask(name, terms) is None:
            del self.observers.present[number]

    def refused_again(self, name: str, terms: Subscribe) -> None:
        """Subscribe to a scope again: refused while the first one is attached."""
        for each in list(self.observers.present.values()):
            same = (each.holder, each.terms.sid, each.terms.token) == (name, terms.sid, terms.token)
            if same and each.attached:
                assert self.ask(name, terms) is None
            elif same:
                self.resume(each)

    def resume(self, observer: Observer) -> None:
        """Take a subscription up again that a crash left behind: a Resync comes first."""
        terms = observer.terms
        number = observer.number
        if self.random.random() < 0.1:
            self.ask(observer.holder, Unsubscribe(number))
            assert number not in self.observers.present
            return
        observer.attached = True
        assert Subscribed(number, True) == self.ask(observer.holder, terms)
        self.expect_resync(observer)

    def expect_resync(self, observer: Observer) -> None:
        """A Resync is there for who has just come back."""
        assert isinstance(observer.queue[0], Resync)

    def unsubscribe(self) -> None:
        """End a subscription."""
        observer = self.pick()
        if observer is not None and observer.holder in self.sessions:
            self.ask(observer.holder, Unsubscribe(observer.number))
            assert observer.number not in self.observers.present

    def detach(self) -> None:
        """Let the consumer of one subscription crash."""
        observer = self.pick()
        if observer is None or observer.holder not in self.sessions:
            return
        kept = observer.terms.hold or any(held[0] == observer.holder for held in self.references)
        self.ask(observer.holder, Detach(observer.number))
        assert kept == (observer.number in self.observers.present)

    def pick(self) -> Observer | None:
        """One of the subscribers."""
        present = self.observers.present
        return present[self.random.choice(sorted(present))] if present else None

    def come_back(self) -> None:
        """Open a session: a new holder, one that comes back, or one that is live and refused."""
        name = self.random.choice(HOLDERS)
        if name in self.sessions:
            assert self.ask("host", OpenSession(name)) is None
            return
        self.open(name)
        if self.random.random() < 0.7:
            for observer in self.left_behind(name):
                self.resume(observer)

    def open(self, name: str) -> None:
        """Open a session of a name that has none."""
        reply = self.ask("host", OpenSession(name))
        assert isinstance(reply, SessionOpened)
        mine = {held[1]: count for held, count in self.references.items() if held[0] == name}
        assert tuple(sorted(mine.items())) == reply.references
        self.sessions[name] = reply.session

    def left_behind(self, name: str) -> list[Observer]:
        """The subscriptions of a holder that nobody consumes."""
        return [
            each
            for each in list(self.observers.present.values())
            if each.holder == name and not each.attached
        ]

    def crash(self) -> None:
        """Crash a session: it is suspended if anything of it may be left in a device."""
        name = self.holder()
        if name == "host":
            return
        suspended = any(held[0] == name for held in self.references) or any(
            each.holder == name and each.terms.hold for each in self.observers.present.values()
        )
        assert self.ask(name, SuspendSession()) is not None
        del self.sessions[name]
        assert suspended == any(holder.name == name for holder in self.core.snapshot().holders)
        mine = [each for each in self.observers.present.values() if each.holder == name]
        assert suspended or not mine
        assert not any(each.attached for each in mine)

    def leave(self) -> None:
        """Close a session, or evict a holder: all it had is gone."""
        name = self.random.choice(HOLDERS[1:])
        self.references = Counter(
            {held: count for held, count in self.references.items() if held[0] != name}
        )
        if name in self.sessions and self.random.random() < 0.5:
            self.ask(name, CloseSession())
        else:
            self.ask("host", Evict(name))
        self.sessions.pop(name, None)
        assert not any(each.holder == name for each in self.observers.present.values())

    def abandon(self) -> None:
        """Give up waiting."""
        if self.waiting:
            ticket = self.random.choice(sorted(self.waiting))
            del self.waiting[ticket]
            self.abandoned.add(ticket)
            self.core.handle(0, Abandon(ticket))
            self.look(self.core.drain())

    def restore(self) -> None:
        """Go on with another allocator, restored from the bytes of a snapshot."""
        snapshot = self.core.snapshot()
        self.core = self.allocator.restore(decode_snapshot(encode(snapshot)))
        self.observers.allocator = self.core
        unchanged(snapshot, self.core)
        # Who waited is gone with the process that it was in.
        self.waiting.clear()
        self.abandoned.clear()

    def consume(self) -> None:
        """Let a subscriber take its next message, or acknowledge or defer the one it has."""
        ready = [
            number
            for number, each in self.observers.present.items()
            if each.queue or each.hand or each.deferred
        ]
        if ready and self.random.random() < 0.8:
            observer: Observer | None = self.observers.present[self.random.choice(ready)]
        else:
            observer = self.pick()
        if observer is None or not observer.attached:
            return
        if observer.hand is None and observer.queue:
            observer.take()
        elif observer.hand is not None and self.random.random() < self.deferring:
            seq = observer.hand.seq
            observer.deferred[seq] = observer.hand
            observer.hand = None
            assert self.ask(observer.holder, Defer(observer.number, seq)) is not None
        elif observer.hand is not None:
            self.acknowledge(observer, observer.hand)
        elif observer.deferred:
            seq = self.random.choice(sorted(observer.deferred))
            self.acknowledge(observer, observer.deferred[seq])
        else:
            # One that is not outstanding is ignored.
            if self.random.random() < 0.8:
                return
            seq = self.random.choice((0, 10**6, *sorted(observer.acknowledged)[-2:]))
            assert self.ask(observer.holder, Acknowledge(((observer.number, seq),))) is not None

    def acknowledge(self, observer: Observer, message: Event | Resync) -> None:
        """Acknowledge a message; what the subscriber was told of a FREE counts with it."""
        observer.acknowledge(message.seq)
        if observer.hand is message:
            observer.hand = None
        ended = ends_acknowledged(message, observer.deferred.values())
        for ioasid in ended & self.ledger.keys():
            self.ledger[ioasid].to_acknowledge.discard(observer.number)
        assert self.ask(observer.holder, Acknowledge(((observer.number, message.seq),))) is not None

    # -- rest and the end ---------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Let everybody come back and finish everything, then compare what they know."""
        for name in HOLDERS:
            if name not in self.sessions:
                self.open(name)
            for observer in self.left_behind(name):
                self.resume(observer)
        while busy := [
            each
            for each in self.observers.present.values()
            if each.queue or each.hand or each.deferred
        ]:
            observer = self.random.choice(busy)
            if observer.hand is None and observer.queue:
                observer.take()
            else:
                self.acknowledge(observer, observer.hand or next(iter(observer.deferred.values())))
        figures = self.core.handle(self.core.session, TakeStatistics())
        assert isinstance(figures, Statistics)
        assert (0, ()) == (figures.in_flight, figures.lagging)
        self.everybody_knows_the_truth()
        self.every_grant_is_accounted_for()

    def everybody_knows_the_truth(self) -> None:
        """Compare the tables that the subscribers built with what there is."""
        truth: dict[int, LiveIoasid] = {}
        for sid in {life.sid for life in self.ledger.values()}:
            listing = self.core.handle(self.core.session, ListSet(sid))
            assert isinstance(listing, Listing)
            truth |= {each.ioasid: each for each in listing}
        assert self.ledger.keys() == truth.keys()
        for observer in self.observers.present.values():
            covered = {
                ioasid: live
                for ioasid, live in truth.items()
                if covers(observer.terms, live.sid, live.token)
            }
            if observer.knows_everything:
                known = {
                    ioasid for ioasid, states in observer.known.items() if ABSENT not in states
                }
                assert covered.keys() == known
            for ioasid, live in covered.items():
                if observer.knows_everything:
                    assert state_of(live) in observer.known[ioasid]
                if observer.follows_bindings and ioasid in observer.spids:
                    assert (live.spid, live.state) == (
                        observer.spids[ioasid],
                        IoasidState.ACTIVE,
                    )

    def every_grant_is_accounted_for(self) -> None:
        """Count what each holder took and what each holding subscriber was granted."""
        expected = Counter(self.references)
        for observer in self.observers.present.values():
            if observer.terms.hold:
                expected.update((observer.holder, ioasid) for ioasid in observer.spids)
        actual = Counter(
            {
                (name, ioasid): count
                for ioasid in self.ledger
                for name, count in self.found(ioasid).references.items()
            }
        )
        assert +expected == actual

    def end(self) -> None:
        """Free everything and let everybody leave: nothing is left over."""
        self.come_to_rest()
        for sid in sorted(self.tokens):
            ioasids = [ioasid for ioasid, life in self.ledger.items() if life.sid == sid]
            self.ask("host", FreeSet(sid), freeing=ioasids)
        for (name, ioasid), held in sorted(self.references.items()):
            for _ in range(held):
                self.put_one(name, ioasid)
        self.come_to_rest()
        figures = self.core.handle(self.core.session, TakeStatistics())
        assert isinstance(figures, Statistics)
        assert (0, 0, 0) == (figures.sets, figures.active, figures.free_pending)
        assert {} == self.ledger
        assert {} == self.waiting
        for name in GROUPS * len(GROUPS):
            self.ask("host", FreeGroup(name))
        for name in reversed(HOLDERS):
            self.core.handle(self.sessions[name], CloseSession())
        self.core.drain()
        nothing_leaks(self.core)

    def go_on_as_another(self) -> None:
        """Restore a second allocator from the bytes of a snapshot: it answers the same."""
        snapshot = self.core.snapshot()
        self.twin = self.allocator.restore(decode_snapshot(encode(snapshot)))
        assert snapshot == self.twin.snapshot()

    def compare_with_the_other(self) -> None:
        """The restored allocator has come to the same state."""
        if self.twin is not None:
            assert state(self.core) == state(self.twin)


def is_active(record: IoasidRecord) -> bool:
    """Whether an ID is not in quarantine."""
    return record.state is IoasidState.ACTIVE


def can_be_bound(record: IoasidRecord) -> bool:
    """Whether an ID has no spid and may be given one."""
    return is_active(record) and record.spid is None


def is_bound(record: IoasidRecord) -> bool:
    """Whether an ID has a spid."""
    return record.spid is not None


def run(seed: int, steps: int = STEPS) -> None:
    """Run one history to its end."""
    history = History(seed)
    for step in range(steps):
        history.step()
        if step % 100 == 60 and seed % 3 == 0:
            history.come_to_rest()
        if step == 150 and seed % 5 == 1:
            history.go_on_as_another()
    history.compare_with_the_other()
    history.end()


@pytest.mark.parametrize("first", range(0, HISTORIES, BATCH))
def test_histories(first: int) -> None:
    """Whatever happens in whatever order, every invariant holds at every step."""
    for seed in range(first, min(first + BATCH, HISTORIES)):
        try:
            run(seed)
        except BaseException as error:
            error.add_note(f"in history {seed}")
            raise
