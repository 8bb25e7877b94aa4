"""The half of the model that is about events: who is told what, and when an ID is free again.

Whatever is asked for twice is looked for twice, in plain dicts and lists. After every change
`settle` asks of every live ID the same questions again:

- `tiers_left`: who has yet to be offered an event? Those who match in a lower tier than it reached.
- `next_tier`: may it go on? Not before everybody whom it was offered to acknowledged it, nor past
  an earlier event of its ID.
- `forget`: is there any reason left to remember it?
- `is_done`: is a freed ID done with, by those who hold it and by those who were told?
"""

from collections import Counter
from typing import Final

from attrs import define, field
from msgspec.structs import replace

from ioasid import core
from ioasid.core import Event, EventKind, IoasidState, TokenType

TIERS: Final = tuple(core.Priority)
PLAIN: Final = (IoasidState.ACTIVE, None, None)


@define(eq=False)
class Set:
    token: str | None
    token_type: TokenType
    quota: int
    system: bool
    group: str | None = None
    destroyed: bool = False
    moving: core.SetState | None = None  # FROZEN or INCOMING, if it is


@define(eq=False)
class News:
    """A staged event on its way."""

    event: Event
    binding: int | None  # that it begins or ends, by the seq of its BIND
    tier: int = -1  # that it reached, or that a later event of the ID took it past
    at: float = 0.0  # when it reached that tier
    owed: set[int] = field(factory=set)  # who was offered it and has not acknowledged it

    @property
    def ends_life(self) -> bool:
        return self.event.kind is EventKind.FREE and self.event.publisher is None

    @property
    def ends_binding(self) -> bool:
        return self.event.kind is not EventKind.BIND and self.binding is not None


@define(eq=False)
class Life:
    """A live ID."""

    sid: int
    generation: int
    data: core.Data | None = None
    spid: int | None = None
    binding: int | None = None  # by the seq of its BIND
    freed: bool = False
    freed_at: float = 0.0
    references: Counter[str] = field(factory=Counter)  # that holders took
    news: list[News] = field(factory=list)

    @property
    def bound(self) -> int | None:
        """Its spid, unless that is only kept for a binding to come."""
        return None if self.binding is None else self.spid

    @property
    def state(self) -> IoasidState:
        return IoasidState.FREE_PENDING if self.freed else IoasidState.ACTIVE


@define(eq=False)
class Told:
    """A message for a subscriber: acknowledging it acknowledges `news` and ends `stale` grants."""

    seq: int
    at: float
    news: list[News]
    stale: set[int] = field(factory=set)


@define(eq=False)
class Subscriber:
    number: int
    holder: str
    terms: core.Subscribe
    attached: bool = True
    inbox: list[Told] = field(factory=list)  # not acknowledged, in the order of delivery
    aside: dict[int, float] = field(factory=dict)  # what it deferred of that, and when
    behind: bool = False  # a Resync is due, and until then everything is missed
    missed: list[Told] = field(factory=list)
    grants: dict[int, int] = field(factory=dict)  # the ID of each binding that it holds
    unseen: set[int] = field(factory=set)  # those of them that no message has shown it

    @property
    def tier(self) -> int:
        return TIERS.index(self.terms.priority)

    @property
    def in_hand(self) -> int | None:
        """The message that it has taken, or takes next."""
        return next((told.seq for told in self.inbox if told.seq not in self.aside), None)


@define(eq=False)
class Events:
    """What there is, and what becomes of it without being asked for."""

    capacity: int
    sets: dict[int, Set] = field(factory=dict)
    lives: dict[int, Life] = field(factory=dict)
    subscribers: dict[int, Subscriber] = field(factory=dict)
    holders: dict[str, int | None] = field(factory=dict)  # their sessions; None: suspended
    waiting: dict[int, set[int]] = field(factory=dict)  # the IDs that a ticket waits for
    # The set that a ticket waits for until nothing of it runs.
    freezes: dict[int, int] = field(factory=dict)
    seq: int = 0
    now: float = 0.0
    effects: list[core.Effect] = field(factory=list)

    def ids(self, sid: int) -> list[int]:
        return sorted(ioasid for ioasid, life in self.lives.items() if life.sid == sid)

    def references(self, ioasid: int) -> dict[str, int]:
        """What every holder took of an ID and was granted."""
        present = self.subscribers.values()
        granted = Counter(s.holder for s in present for each in s.grants.values() if each == ioasid)
        return dict(granted + self.lives[ioasid].references)

    def covers(self, each: Subscriber, sid: int) -> bool:
        """Whether a set is in a subscriber's scope."""
        if each.terms.token is not None:
            return each.terms.token == self.sets[sid].token
        return each.terms.sid in (None, sid)

    def matching(self, sid: int, kind: EventKind) -> list[Subscriber]:
        """Who is told of an event, in order of subscription."""
        present = [each for _, each in sorted(self.subscribers.items())]
        return [each for each in present if kind in each.terms.kinds and self.covers(each, sid)]

    def awaited(self, sid: int, kind: EventKind) -> list[Subscriber]:
        """Whose acknowledgement of an event is waited for."""
        return [each for each in self.matching(sid, kind) if each.terms.awaited]

    # -- the journey of an event --------------------------------------------------------------

    def event(self, ioasid: int, life: Life, kind: EventKind, publisher: str | None) -> Event:
        self.seq += 1
        token = self.sets[life.sid].token
        about = token, life.bound, life.data, publisher, life.generation
        return Event(self.seq, kind, ioasid, life.sid, *about)

    def tell_all(self, ioasid: int, life: Life, kind: EventKind) -> None:
        """Tell everybody at once: of an ALLOC or a RECLAIM."""
        event = self.event(ioasid, life, kind, None)
        for each in sorted(self.matching(life.sid, kind), key=lambda each: each.tier):
            if not each.missed:  # else it is in the Resync, for there is nothing to acknowledge
                self.offer(each, event, [])

    def stage(self, ioasid: int, kind: EventKind, publisher: str | None = None) -> None:
        """Send an event through the tiers, if it is for anybody; a BIND grants at once."""
        life = self.lives[ioasid]
        event = self.event(ioasid, life, kind, publisher)
        news = News(event, life.binding if publisher is None else None)
        if life.news or self.matching(life.sid, kind):
            life.news.append(news)
        if kind is EventKind.BIND:
            for each in self.matching(life.sid, kind):
                grant(each, ioasid, news.binding)

    def settle(self) -> None:
        """Let everything happen that may."""
        for ioasid, life in sorted(self.lives.items()):
            for count in range(1, len(life.news) + 1):
                while (tier := self.next_tier(life.news[:count])) is not None:
                    self.reach(ioasid, life.news[:count], tier)
            self.forget(life)
            if self.is_done(ioasid):
                self.reclaim(ioasid)
            for ticket, sid in list(self.freezes.items()):
                if not any(map(self.runs, self.ids(sid))):
                    self.freezes.pop(ticket)
                    self.effects.append(core.Complete(ticket, core.Frozen(sid, True)))

    def runs(self, ioasid: int) -> bool:
        """Whether a CPU or device has not acknowledged the end of a binding."""
        for news in self.lives[ioasid].news if ioasid in self.lives else ():
            told = self.awaited(news.event.sid, news.event.kind)
            tiers = [each.tier for each in told if each.tier > news.tier]
            tiers += [self.subscribers[each].tier for each in news.owed]
            if news.ends_binding and min(tiers, default=9) < 2:
                return True
        return False

    def tiers_left(self, news: News) -> list[int]:
        matching = self.matching(news.event.sid, news.event.kind)
        return sorted({each.tier for each in matching if each.tier > news.tier})

    def next_tier(self, news: list[News]) -> int | None:
        """The tier that the last of an ID's events may be offered to now, if there is one."""
        *earlier, last = news
        ahead = [tier for each in earlier for tier in self.tiers_left(each)]
        tiers = self.tiers_left(last)
        if last.owed or not tiers or (last.tier < 0 and ahead):
            return None
        return tiers[0] if all(tier > tiers[0] for tier in ahead) else None

    def reach(self, ioasid: int, news: list[News], tier: int) -> None:
        """Offer the last of an ID's events to a tier; those before it do not go back there."""
        for each in news:
            each.tier = max(each.tier, tier)
        news[-1].at = self.now
        event = news[-1].event
        found = [each for each in self.matching(event.sid, event.kind) if each.tier == tier]
        news[-1].owed = {each.number for each in found if each.terms.awaited}
        for subscriber in found:
            if event.kind is EventKind.BIND:
                grant(subscriber, ioasid, news[-1].binding)
            if subscriber.terms.awaited:
                self.offer(subscriber, event, [news[-1]])
            elif not subscriber.missed:  # as of what is told all: nothing is to acknowledge
                self.offer(subscriber, event, [])

    def forget(self, life: Life) -> None:
        """Forget what changes nothing in the end, and what everybody acknowledged, in order.

        Once offered to all, a publisher's own event changes nothing, nor do a bind and its unbind.
        """
        kept: list[News] = []
        for index, news in enumerate(life.news):
            if self.tiers_left(news):
                kept += life.news[index:]
                break
            # A freeze looks at the last unbind.
            owing = any(self.subscribers[each].tier < 2 for each in news.owed)
            last = all(each.binding is None for each in life.news[index + 1 :])
            undoes = news.event.kind is EventKind.UNBIND and kept and not (owing and last)
            if news.event.publisher is not None:
                news.owed.clear()
            elif undoes and kept[-1].event.kind is EventKind.BIND:
                kept.pop().owed.clear()
                news.owed.clear()
            else:
                kept.append(news)
        while kept and not kept[0].owed and not self.tiers_left(kept[0]):
            del kept[0]
        life.news = kept

    def seen_from(self, tier: int, life: Life) -> tuple[IoasidState, int | None, int | None]:
        """State, spid and binding of an ID as of the last event that a tier was offered."""
        for news in life.news:
            if news.tier < tier and news.event.publisher is None:
                if news.event.kind is EventKind.BIND:
                    return IoasidState.ACTIVE, None, None
                return IoasidState.ACTIVE, news.event.spid, news.binding
        return life.state, life.bound, None if life.freed else life.binding

    # -- the way back to the pool -------------------------------------------------------------

    def is_done(self, ioasid: int) -> bool:
        """Whether a freed ID is nobody's, everybody acknowledged its FREE, and all were told."""
        life = self.lives[ioasid]
        return (
            life.freed
            and not self.references(ioasid)
            and not any(news.owed for news in life.news if news.ends_life)
            and not any(self.tiers_left(news) for news in life.news)
        )

    def reclaim(self, ioasid: int) -> None:
        life = self.lives.pop(ioasid)
        for news in life.news:
            news.owed.clear()
        self.tell_all(ioasid, life, EventKind.RECLAIM)
        self.destroy_if_empty(life.sid)
        for ticket, pending in list(self.waiting.items()):
            pending.discard(ioasid)
            if not pending:
                del self.waiting[ticket]
                self.effects.append(core.Complete(ticket, core.Released(True)))

    def destroy_if_empty(self, sid: int) -> None:
        """Let a set that is being destroyed go, and the subscriptions to it by its number."""
        if sid in self.sets and self.sets[sid].destroyed and not self.ids(sid):
            for each in list(self.subscribers.values()):
                if each.terms.sid == sid:
                    self.leave(each, drained=True)
            del self.sets[sid]

    # -- subscribers --------------------------------------------------------------------------

    def offer(self, each: Subscriber, event: Event, news: list[News]) -> None:
        """Deliver an event, or have it missed: one in hand and a full queue are the bound."""
        told = Told(event.seq, self.now, news)
        begun = {one.binding for one in news if one.event.kind is EventKind.BIND}
        if not each.behind and len(each.inbox) <= each.terms.queue_size:
            each.unseen -= begun
            each.inbox.append(told)
            self.effects.append(core.Deliver((each.number,), event))
            return
        if not each.behind:
            each.behind = True
            self.effects.append(core.Withdraw(each.number, each.in_hand))
            kept = {each.in_hand, *each.aside}
            each.missed = [told for told in each.inbox if told.seq not in kept]
            each.inbox = [told for told in each.inbox if told.seq in kept]
        for one in news:
            if one.ends_binding and one.binding in each.unseen:
                each.unseen.discard(one.binding)
                del each.grants[one.binding]
        each.missed.append(told)

    def resync_if_back(self, each: Subscriber) -> None:
        """Deliver the Resync that is due, if nothing is in hand and there is room for it."""
        full = len(each.inbox) > each.terms.queue_size
        if not each.behind or not each.attached or each.in_hand is not None or full:
            return
        self.seq += 1
        listed = []
        lasting: set[int | None] = set()  # the bindings whose grants outlast it
        shown: set[int | None] = set()
        for sid in sorted(self.sets):
            for ioasid in self.ids(sid) if self.covers(each, sid) else ():
                life, token = self.lives[ioasid], self.sets[sid].token
                state, spid, binding = self.seen_from(each.tier, life)
                about = token, state, spid, life.data, life.generation
                listed.append(core.LiveIoasid(ioasid, sid, *about))
                grant(each, ioasid, binding)
                lasting.add(binding)
                shown.add(binding)
                coming = [news for news in life.news if news.tier < each.tier]
                lasting |= {news.binding for news in coming if news.event.kind is EventKind.BIND}
        for told in each.inbox:
            lasting |= told.stale | {news.binding for news in told.news if news.ends_binding}
        since = min((told.at for told in each.missed), default=self.now)
        news = [news for told in each.missed for news in told.news]
        each.unseen -= shown
        each.inbox.append(Told(self.seq, since, news, each.grants.keys() - lasting))
        each.missed = []
        each.behind = False
        self.effects.append(core.Deliver((each.number,), core.Resync(self.seq, *in_short(listed))))

    def acknowledge(self, each: Subscriber, seq: int) -> None:
        for told in [told for told in each.inbox if told.seq == seq]:
            each.inbox.remove(told)
            each.aside.pop(seq, None)
            for news in told.news:
                news.owed.discard(each.number)
            ended = told.stale | {news.binding for news in told.news if news.ends_binding}
            each.grants = {key: each.grants[key] for key in each.grants.keys() - ended}
            each.unseen &= each.grants.keys()

    def suspend(self, each: Subscriber) -> None:
        """Let a subscriber have missed everything that it did not acknowledge."""
        if each.attached:
            each.missed = sorted(each.missed + each.inbox, key=lambda told: told.at)
            each.inbox = []
            each.aside = {}
            each.behind = True
            each.attached = False
            self.effects.append(core.End(each.number, drained=False))

    def leave(self, each: Subscriber, *, drained: bool) -> None:
        """End a subscription: nobody waits for it any more, and its grants are gone."""
        del self.subscribers[each.number]
        for life in self.lives.values():
            for news in life.news:
                news.owed.discard(each.number)
        if each.attached:
            self.effects.append(core.End(each.number, drained))
            each.attached = False


def grant(each: Subscriber, ioasid: int, binding: int | None) -> None:
    """Grant a reference for a binding, if the subscriber holds; a second time changes nothing."""
    if each.terms.hold and binding is not None and binding not in each.grants:
        each.grants[binding] = ioasid
        each.unseen.add(binding)


def in_short(
    listed: list[core.LiveIoasid],
) -> tuple[tuple[core.LiveIoasid, ...], tuple[core.LiveRange, ...]]:
    """What is listed of IDs, with those of which there is nothing to say as ranges."""
    told, ranges = [], list[core.LiveRange]()
    for each in listed:
        if (each.state, each.spid, each.data) != PLAIN:
            told.append(each)
            continue
        last = ranges[-1] if ranges else None
        if last is not None and (last.sid, last.last + 1) == (each.sid, each.ioasid):
            count = last.last - last.first
            step = last.step if count else each.generation - last.generation
            if step in (0, 1) and each.generation == last.generation + step * (count + 1):
                ranges[-1] = replace(last, last=each.ioasid, step=step)
                continue
        ranges.append(
            core.LiveRange(each.ioasid, each.ioasid, each.sid, each.token, each.generation)
        )
    return tuple(told), tuple(ranges)
