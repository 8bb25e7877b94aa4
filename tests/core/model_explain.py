"""The part of the model that explains: what an ID waits for, looked for in all there is."""

from ioasid import core
from ioasid.core import Awaited, EventKind, IoasidState, Place
from tests.core.model_events import TIERS, Events, Life, News, Subscriber


def explain(model: Events, ioasid: int) -> core.Explanation:
    """Why a live ID is not back in the pool."""
    life = model.lives[ioasid]
    return core.Explanation(
        ioasid,
        life.sid,
        model.sets[life.sid].token,
        life.spid,
        life.state,
        model.now - life.freed_at if life.freed else None,
        tuple(
            core.HeldReferences(
                name,
                model.holders[name] is None,
                life.references[name],
                count - life.references[name],
                ends(model, ioasid, name),
            )
            for name, count in sorted(model.references(ioasid).items())
        ),
        tuple(each for news in life.news for each in event(model, life, news)),
        sum(ioasid in pending for pending in model.waiting.values()),
    )


def event(model: Events, life: Life, news: News) -> list[core.EventInFlight]:
    """An event that is not over; in quarantine, unless all were told and it is not the FREE."""
    left = model.tiers_left(news)
    matching = model.awaited(news.event.sid, news.event.kind)
    owed = sorted(news.owed) if life.state is IoasidState.ACTIVE or news.ends_life or left else []
    tiers = [tier for tier in left if any(each.tier == tier for each in matching)]
    if not owed and not tiers:
        return []
    return [
        core.EventInFlight(
            news.event.seq,
            news.event.kind,
            news.event.publisher,
            TIERS[news.tier] if news.tier >= 0 else None,
            tuple(awaited(model, model.subscribers[number], news) for number in owed),
            tuple(
                core.Coming(
                    TIERS[tier],
                    tuple((each.holder, each.number) for each in matching if each.tier == tier),
                )
                for tier in tiers
            ),
        )
    ]


def awaited(model: Events, each: Subscriber, news: News) -> Awaited:
    """Where a subscriber has an event, or the Resync for it, that it has to acknowledge."""
    for told in each.inbox:
        if news in told.news:
            return in_inbox(model, each, told.seq, news.at)
    return missed(model, each, news.at)


def in_inbox(model: Events, each: Subscriber, seq: int, at: float) -> Awaited:
    place = Place.IN_HANDS if seq == each.in_hand else Place.QUEUED
    if seq in each.aside:
        place, at = Place.DEFERRED, each.aside[seq]
    age = model.now - at
    return Awaited(each.holder, each.number, each.terms.priority, place, seq, age)


def missed(model: Events, each: Subscriber, at: float) -> Awaited:
    place = Place.FOLDED if each.attached else Place.SUSPENDED
    age = model.now - at
    return Awaited(each.holder, each.number, each.terms.priority, place, None, age)


def ends(model: Events, ioasid: int, name: str) -> tuple[Awaited, ...]:
    """What a holder has to acknowledge so that its grants end: of those for one message, once."""
    found: dict[tuple[int, float], Awaited] = {}
    for number, each in sorted(model.subscribers.items()):
        for binding, granted in each.grants.items() if each.holder == name else ():
            end = end_of(model, each, binding) if granted == ioasid else None
            if end is not None:
                key = number, float("inf") if end.seq is None else end.seq
                found[key] = max(end, found.get(key, end), key=lambda one: one.age)
    return tuple(found[key] for key in sorted(found))


def end_of(model: Events, each: Subscriber, binding: int) -> Awaited | None:
    """What ends a grant, if that was offered already."""
    life = model.lives[each.grants[binding]]
    if life.binding == binding and not life.freed:
        return None
    for news in life.news:
        if news.binding == binding and news.event.kind is not EventKind.BIND:
            if each.number in news.owed:
                return awaited(model, each, news)
            if news.tier < each.tier:
                return None
    for told in each.inbox:
        if binding in told.stale | {news.binding for news in told.news if news.ends_binding}:
            return in_inbox(model, each, told.seq, told.at)
    return missed(model, each, min((told.at for told in each.missed), default=model.now))
