"""A model of the allocator: what the specification says of every request, as plainly as possible.

`Model.ask` decides a request: it returns the reply, or raises the error that the request is
refused with. What subscribers and waiting callers are told is in `effects`; how that comes about
is the other half, `tests.core.model_events`. Nothing is kept that can be found by looking at all
there is, and nothing here looks at the core.

Where there are two reasons to refuse a request, they rank as they stand here: what it says,
whether what it names is there, whose it is, in which state it is. Of an `InvalidArgument` the
model knows the argument and not the words.
"""

from collections.abc import Iterable
from typing import Final, assert_never

from attrs import define, field

from ioasid import core
from ioasid.core import EventKind, TokenType
from tests.core.model_events import Events, Life, Set, Subscriber

HOLDING: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


@define(eq=False)
class Model(Events):
    """All there is to know; `ask` changes it."""

    reserved: int = 0
    used: bool = False  # whether there ever was a set or a reservation
    holders: dict[str, int | None] = field(factory=dict)  # their sessions; None: suspended
    sessions: int = 0
    subscriptions: int = 0

    def ask(self, name: str, request: core.Request, ticket: int = 0) -> core.Reply | None:
        """Decide a request of a holder; `None` means that the answer comes later."""
        match request:
            case core.InstallCapacity(total):
                refuse(not 1 <= total < 2**32, wrong("total"))
                refuse(self.used, core.CapacityInUse(self.capacity))
                self.capacity = total
                return self.capacity_record()
            case core.ReserveCapacity(count):
                refuse(count is not None and count < 1, wrong("count"))
                self.reserved += self.take_available(count)
                return self.capacity_record()
            case core.CancelCapacity(count):
                refuse(count < 1, wrong("count"))
                refuse(count > self.reserved, core.NotReserved(count, self.reserved))
                self.reserved -= count
                return self.capacity_record()
            case core.AllocSystemSet(quota):
                refuse(quota is not None and quota < 1, wrong("quota"))
                for sid, each in self.sets.items():
                    refuse(each.system, core.SystemSetExists(sid))
                return self.add_set(None, TokenType.NULL, quota, system=True)
            case core.AllocSet(token, quota, token_type):
                refuse(quota is not None and quota < 1, wrong("quota"))
                refuse((token is None) == (token_type is TokenType.MM), wrong("token"))
                for sid, each in self.sets.items():
                    if token is not None:
                        refuse(token == each.token, core.TokenInUse(token, sid))
                return self.add_set(token, token_type, quota, system=False)
            case core.AdjustSet(sid, quota):
                refuse(quota < 1, wrong("quota"))
                more = quota - self.usable_set(sid).quota
                used = len(self.ids(sid))
                refuse(quota < used, core.QuotaBelowUse(sid, quota, used))
                refuse(more > self.available, core.CapacityExhausted(more, self.available))
                self.sets[sid].quota = quota
                return self.set_record(sid)
            case core.FreeSet(sid, destroy, wait):
                self.set(sid)
                for ioasid in self.ids(sid) if wait else ():
                    self.refuse_deadlock(name, ioasid)
                self.sets[sid].destroyed |= destroy
                return self.free_set(sid, ticket if wait else None)
            case core.FindSid(ioasid):
                return core.FoundSid(self.life(ioasid).sid)
            case core.FindSet(token, number):
                refuse((token is None) == (number is None), wrong("token"))
                for sid, each in self.sets.items():
                    if sid == number or (number is None and token == each.token):
                        return self.set_record(sid)
                raise core.UnknownToken(token or "") if number is None else core.UnknownSet(number)
            case core.ListSet(sid):
                token = self.set(sid).token
                listed = (
                    core.LiveIoasid(ioasid, sid, token, life.state, life.spid, life.data)
                    for ioasid, life in sorted(self.lives.items())
                    if life.sid == sid
                )
                return core.Listing(sid, tuple(listed))
            case core.Alloc(sid, low, high, data):
                return core.Allocated(self.alloc(sid, 1, low, high, data)[0])
            case core.AllocMany(sid, count, low, high):
                refuse(count < 1, wrong("count"))
                ids = self.alloc(sid, count, low, high, None)
                firsts = (each for each in ids if each - 1 not in ids)
                lasts = (each for each in ids if each + 1 not in ids)
                return core.AllocatedMany(tuple(map(core.IoasidRange, firsts, lasts)))
            case core.Free(ioasid, sid, wait):
                self.life(ioasid, sid)
                if wait:
                    self.refuse_deadlock(name, ioasid)
                self.free(ioasid)
                self.settle()
                return self.released([ioasid], ticket if wait else None)
            case core.Get(ioasid, sid):
                self.active(ioasid)
                self.life(ioasid, sid).references[name] += 1
                return core.Done()
            case core.Put(ioasid, sid):
                references = self.life(ioasid, sid).references
                refuse(not references[name], core.NotReferenced(name, ioasid))
                references[name] -= 1
                self.settle()
                return core.Released(ioasid not in self.lives)
            case core.Find(ioasid, sid):
                self.life(ioasid, sid)
                return self.record(ioasid)
            case core.AttachData(ioasid, data, sid):
                life = self.active(ioasid, sid)
                refuse(life.data is not None, core.DataTaken(ioasid))
                life.data = data
                return core.Done()
            case core.DetachData(ioasid, sid):
                self.active(ioasid, sid).data = None
                return core.Done()
            case core.AttachSpid(ioasid, spid, sid):
                life = self.active(ioasid, sid)
                if life.spid is not None:
                    raise core.AlreadyBound(ioasid, life.spid)
                for other in self.ids(life.sid):
                    taken = self.lives[other].spid == spid
                    refuse(taken, core.SpidInUse(life.sid, spid, other))
                self.refuse_too_many(ioasid)
                life.spid, life.binding = spid, self.seq + 1
                self.stage(ioasid, EventKind.BIND)
                self.settle()
                return core.Done()
            case core.DetachSpid(ioasid, sid):
                life = self.life(ioasid, sid)
                refuse(life.spid is None, core.NoSpid(ioasid))
                if not life.freed:
                    self.stage(ioasid, EventKind.UNBIND)
                life.spid = life.binding = None
                self.settle()
                return core.Done()
            case core.FindBySpid(sid, spid, get):
                self.set(sid)
                for ioasid in self.ids(sid):
                    if self.lives[ioasid].spid == spid:
                        if get:
                            self.active(ioasid).references[name] += 1
                        return core.Allocated(ioasid)
                raise core.UnknownSpid(sid, spid)
            case core.Notify(ioasid, kind, sid):
                refuse(kind is EventKind.RECLAIM, wrong("kind"))
                self.active(ioasid, sid)
                self.refuse_too_many(ioasid)
                self.stage(ioasid, kind, name)
                self.settle()
                return core.Done()
            case core.Subscribe():
                return self.subscribe(name, request)
            case core.Unsubscribe(number):
                self.leave(self.subscriber(name, number), drained=False)
                self.settle()
                return core.Done()
            case core.Detach(number):
                subscriber = self.subscriber(name, number)
                if subscriber.terms.hold or self.referenced(name):
                    self.suspend(subscriber)
                else:
                    self.leave(subscriber, drained=False)
                    self.settle()
                return core.Done()
            case core.Acknowledge(number, seq):
                subscriber = self.subscriber(name, number)
                self.acknowledge(subscriber, seq)
                self.settle()
                self.resync_if_back(subscriber)
                return core.Done()
            case core.Defer(number, seq):
                subscriber = self.subscriber(name, number)
                subscriber.aside |= {seq} & {told.seq for told in subscriber.inbox}
                self.resync_if_back(subscriber)
                return core.Done()
            case core.OpenSession(who):
                return self.open(who)
            case core.CloseSession():
                return self.remove(name)
            case core.SuspendSession():
                mine = [each for each in self.subscribers.values() if each.holder == name]
                if not self.referenced(name) and not any(each.terms.hold for each in mine):
                    return self.remove(name)
                self.holders[name] = None
                for subscriber in mine:
                    self.suspend(subscriber)
                return core.Done()
            case core.Evict(who):
                refuse(who not in self.holders, core.UnknownHolder(who))
                return self.remove(who)
            case core.TakeStatistics():
                return self.statistics()
            case _:
                assert_never(request)

    # -- capacity and sets --------------------------------------------------------------------

    @property
    def available(self) -> int:
        return self.capacity - self.reserved - sum(each.quota for each in self.sets.values())

    def capacity_record(self) -> core.CapacityRecord:
        return core.CapacityRecord(self.capacity, self.reserved, self.available)

    def take_available(self, count: int | None) -> int:
        """How much of the available capacity a request takes; `None` is all, if there is any."""
        least = count or 1
        refuse(least > self.available, core.CapacityExhausted(least, self.available))
        self.used = True
        return count or self.available

    def add_set(
        self, token: str | None, token_type: TokenType, quota: int | None, *, system: bool
    ) -> core.SetRecord:
        taken = self.take_available(quota)
        sid = min(set(range(len(self.sets) + 1)) - self.sets.keys())
        self.sets[sid] = Set(token, token_type, taken, system)
        return self.set_record(sid)

    def set(self, sid: int) -> Set:
        refuse(sid not in self.sets, core.UnknownSet(sid))
        return self.sets[sid]

    def usable_set(self, sid: int) -> Set:
        refuse(self.set(sid).destroyed, core.SetFreePending(sid))
        return self.sets[sid]

    def set_record(self, sid: int) -> core.SetRecord:
        each = self.sets[sid]
        state = core.SetState.FREE_PENDING if each.destroyed else core.SetState.ACTIVE
        used = len(self.ids(sid))
        return core.SetRecord(
            sid, each.token, each.token_type, each.quota, used, state, each.system
        )

    # -- IDs ----------------------------------------------------------------------------------

    def alloc(
        self, sid: int, count: int, low: int, high: int | None, data: core.Data | None
    ) -> list[int]:
        """Allocate the lowest free IDs of a range."""
        last = self.capacity - 1 if high is None else high
        refuse(last >= self.capacity, wrong("max"))
        refuse(low > last, wrong("min"))
        quota, used = self.usable_set(sid).quota, len(self.ids(sid))
        refuse(used + count > quota, core.QuotaExceeded(sid, quota, used, count))
        taken = [each for each in range(low, last + 1) if each not in self.lives][:count]
        refuse(len(taken) < count, core.RangeFull(low, last, count))
        self.lives.update((ioasid, Life(sid, data)) for ioasid in taken)
        for ioasid in taken:
            self.tell_all(ioasid, self.lives[ioasid], EventKind.ALLOC)
        return taken

    def life(self, ioasid: int, sid: int | None = None) -> Life:
        """A live ID, of the set that the request names."""
        refuse(ioasid not in self.lives, core.UnknownIoasid(ioasid))
        if sid is not None:
            refuse(sid != self.lives[ioasid].sid, core.NotOfThisSet(ioasid, sid))
        return self.lives[ioasid]

    def active(self, ioasid: int, sid: int | None = None) -> Life:
        """A live ID that is not in quarantine."""
        refuse(self.life(ioasid, sid).freed, core.IoasidFreePending(ioasid))
        return self.lives[ioasid]

    def record(self, ioasid: int) -> core.IoasidRecord:
        life = self.lives[ioasid]
        held = self.references(ioasid)
        count = sum(held.values()) + (not life.freed)
        return core.IoasidRecord(ioasid, life.sid, life.spid, life.state, life.data, held, count)

    def refuse_deadlock(self, name: str, ioasid: int) -> None:
        """Let nobody wait for a reclaim that waits for itself, or will once the ID is freed."""
        life = self.lives[ioasid]
        told = [each for each in self.matching(life.sid, EventKind.FREE) if each.holder == name]
        mine = {each.number for each in self.subscribers.values() if each.holder == name}
        owes = any(
            news.owed & mine or any(each.tier > news.tier for each in told)
            for news in life.news
            if news.ends_life
        )
        acknowledges = "it has to acknowledge the FREE itself"
        refuse(owes if life.freed else bool(told), core.WouldDeadlock(name, ioasid, acknowledges))
        holds = "it holds a reference itself"
        refuse(name in self.references(ioasid), core.WouldDeadlock(name, ioasid, holds))

    def refuse_too_many(self, ioasid: int) -> None:
        """Take no more events of an ID than may be under way."""
        under_way = sum(bool(self.tiers_left(news)) for news in self.lives[ioasid].news)
        refuse(under_way >= core.MAX_UNDER_WAY, core.TooManyEvents(ioasid, under_way))

    def free(self, ioasid: int) -> None:
        """Drop the set's own reference, once."""
        if not self.lives[ioasid].freed:
            self.lives[ioasid].freed = True
            self.stage(ioasid, EventKind.FREE)

    def free_set(self, sid: int, ticket: int | None) -> core.Reply | None:
        """Free every ID of a set; to be destroyed, it goes with the last one.

        The specification leaves their order open. The IDs of which there is nothing to say go at
        once, and before all others if nobody is told.
        """
        ids = self.ids(sid)
        plain = {each for each in ids if self.is_plain(each)}
        told = {kind for kind in EventKind if self.matching(sid, kind)}
        if not told & {EventKind.FREE, EventKind.RECLAIM}:
            ids.sort(key=lambda each: each not in plain)
        for ioasid in ids:
            self.free(ioasid)
            if ioasid in plain and EventKind.FREE not in told:
                self.reclaim(ioasid)
        self.settle()
        self.destroy_if_empty(sid)
        return self.released(ids, ticket)

    def is_plain(self, ioasid: int) -> bool:
        """Whether there is nothing to say of an ID but that it is allocated."""
        life = self.lives[ioasid]
        said = life.freed, life.spid is not None, life.data is not None, life.news
        return not any(said) and not self.references(ioasid)

    def released(self, ids: Iterable[int], ticket: int | None) -> core.Reply | None:
        """The answer to a free: now, or when the last of these IDs is reclaimed."""
        pending = self.lives.keys() & set(ids)
        if pending and ticket is not None:
            self.waiting[ticket] = pending
            return None
        return core.Released(not pending)

    # -- holders and subscribers --------------------------------------------------------------

    def open(self, name: str) -> core.SessionOpened:
        """Let a holder join or come back, with a session that there never was before."""
        refuse(self.holders.get(name) is not None, core.HolderLive(name))
        self.sessions += 1
        resumed = name in self.holders
        self.holders[name] = self.sessions
        return core.SessionOpened(self.sessions, resumed, tuple(self.referenced(name)))

    def referenced(self, name: str) -> list[tuple[int, int]]:
        """The IDs that a holder took references of, and how many."""
        lives = sorted(self.lives.items())
        return [(each, life.references[name]) for each, life in lives if life.references[name]]

    def remove(self, name: str) -> core.Done:
        """Let a holder go, and everything that it had."""
        for each in list(self.subscribers.values()):
            if each.holder == name:
                self.leave(each, drained=False)
        for life in self.lives.values():
            del life.references[name]
        del self.holders[name]
        self.settle()
        return core.Done()

    def subscriber(self, name: str, number: int) -> Subscriber:
        each = self.subscribers.get(number)
        if each is None or each.holder != name:
            raise core.UnknownSubscription(number)
        return each

    def subscribe(self, name: str, terms: core.Subscribe) -> core.Reply:
        """Subscribe, or come back to the subscription that a crash left behind."""
        refuse(terms.sid is not None and terms.token is not None, wrong("token"))
        refuse(not terms.kinds or (terms.hold and not terms.kinds >= HOLDING), wrong("kinds"))
        for each in self.subscribers.values():
            old = each.terms
            if (each.holder, old.sid, old.token) == (name, terms.sid, terms.token):
                refuse(each.attached, core.AlreadySubscribed(scope(old), each.number))
                for term in ("kinds", "priority", "hold"):
                    refuse(getattr(old, term) != getattr(terms, term), wrong(term))
                each.terms = terms
                each.attached = True
                self.resync_if_back(each)
                return core.Subscribed(each.number, True)
        if terms.sid is not None:
            self.set(terms.sid)
        self.subscriptions += 1
        each = Subscriber(self.subscriptions, name, terms, behind=terms.replay)
        self.subscribers[each.number] = each
        self.settle()
        self.resync_if_back(each)
        return core.Subscribed(each.number, False)

    def restored(self) -> None:
        """Go on from a snapshot: nobody listens or waits any more, and the clock begins again."""
        self.effects.clear()
        self.waiting.clear()
        self.now = 0.0
        for each in self.subscribers.values():
            for told in each.inbox + each.missed:
                told.at = 0.0

    # -- figures ------------------------------------------------------------------------------

    def statistics(self) -> core.Statistics:
        freed = sum(life.freed for life in self.lives.values())
        suspended = list(self.holders.values()).count(None)
        subscribers = sorted(self.subscribers.items())
        return core.Statistics(
            capacity=self.capacity,
            reserved=self.reserved,
            available=self.available,
            sets=len(self.sets),
            sets_free_pending=sum(each.destroyed for each in self.sets.values()),
            active=len(self.lives) - freed,
            free_pending=freed,
            sessions=len(self.holders) - suspended,
            suspended=suspended,
            subscriptions=len(self.subscribers),
            seq=self.seq,
            under_way=sum(len(life.news) for life in self.lives.values()),
            lagging=tuple(self.lag(each) for _, each in subscribers if each.inbox or each.missed),
        )

    def lag(self, each: Subscriber) -> core.LaggingSubscriber:
        """What a subscriber has yet to acknowledge, and since when."""
        oldest = min(each.inbox + each.missed, key=lambda told: told.at)
        within = each.terms.acknowledge_within
        missed = [news for told in each.missed for news in told.news]
        return core.LaggingSubscriber(
            holder=each.holder,
            subscription=each.number,
            scope=scope(each.terms),
            priority=each.terms.priority,
            attached=each.attached,
            queued=len(each.inbox),
            deferred=len(each.aside),
            folded=sum(each.number in news.owed for news in missed),
            oldest_seq=oldest.seq,
            oldest_age=self.now - oldest.at,
            acknowledge_within=within,
            overdue=within is not None and self.now - oldest.at >= within,
        )


def refuse(when: bool, error: core.IoasidError) -> None:
    if when:
        raise error


def wrong(argument: str) -> core.InvalidArgument:
    return core.InvalidArgument(argument, "", "")


def scope(terms: core.Subscribe) -> str:
    """A subscription's scope in words."""
    if terms.token is not None:
        return f"token {terms.token!r}"
    return "the system" if terms.sid is None else f"set {terms.sid}"
