"""Explanations: why an IOASID is not back in the pool, as figures and in words."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, assert_never

from msgspec import Struct

from ioasid.core._plurals import counted
from ioasid.core._terms import EventKind, IoasidState, Message, Priority

__all__ = ["Awaited", "Coming", "EventInFlight", "Explanation", "HeldReferences", "Place"]


class Place(StrEnum):
    """Where a subscriber has what it is waited for to acknowledge."""

    QUEUED = "QUEUED"
    """In its queue, behind other messages."""
    IN_HANDS = "IN_HANDS"
    """In its hands, or it is about to take it."""
    DEFERRED = "DEFERRED"
    """It came back for more and set this aside."""
    FOLDED = "FOLDED"
    """It lags: this is part of the `Resync` that it gets when it has dealt with its queue."""
    SUSPENDED = "SUSPENDED"
    """Its consumer is down: this is part of the `Resync` that it comes back to."""
    DEALT_WITH = "DEALT_WITH"
    """It acknowledged this, or has ended, with so much else that it is let go of in parts."""


class Awaited(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A subscriber that is waited for: what it has to acknowledge, and where that is.

    `seq` is the message, the event or a `Resync` that stands for it; it is `None` as long as that
    `Resync` is still to come. It is there for `age` seconds: since it was deferred, if it is
    DEFERRED, or else since it was offered.
    """

    holder: str
    subscription: int
    priority: Priority
    place: Place
    seq: int | None
    age: float


class Coming(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A tier that an event has yet to reach, and who matches there now.

    `subscribers` are pairs of a holder and its subscription, in order of subscription.
    """

    priority: Priority
    subscribers: tuple[tuple[str, int], ...]


class EventInFlight(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An event of an ID on its way: the last tier it `reached`, whom it waits for, what follows.

    `reached` is `None` as long as an earlier event of the ID is in its way.
    """

    seq: int
    kind: EventKind
    publisher: str | None
    reached: Priority | None
    waits_for: tuple[Awaited, ...]
    then: tuple[Coming, ...]


class HeldReferences(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The references of one holder: `taken` by `get`, and `granted` with events.

    `ends` are the messages whose acknowledgement drops what was granted; what is not among them
    ends with an event that has yet to reach the holder. A `suspended` holder has no session.
    """

    holder: str
    suspended: bool
    taken: int
    granted: int
    ends: tuple[Awaited, ...]


class Explanation(Message, frozen=True):
    """Why an ID is not back in the pool.

    An ACTIVE one was not freed: it is its owner's, the set `sid`. One in quarantine was freed `age`
    seconds ago (`None` while it is ACTIVE) and goes back when nobody has a reference and every
    event is done with. `references` are by holder, in order of name, and `events` in order of seq,
    those that are not over; in quarantine only whom they hold it up for is waited for. `waiting`
    counts the requests that are answered when it is back.
    """

    ioasid: int
    sid: int
    token: str | None
    spid: int | None
    state: IoasidState
    age: float | None
    references: tuple[HeldReferences, ...]
    events: tuple[EventInFlight, ...]
    waiting: int

    @property
    def blockers(self) -> tuple[str, ...]:
        """The holders, by name, that have something to do now before the ID can go back.

        Nobody can do it for them, but to evict them. There always is one while the ID is in
        quarantine; an ACTIVE ID has none, it waits for being freed.
        """
        if self.state is IoasidState.ACTIVE:
            return ()
        names = {each.holder for event in self.events for each in event.waits_for}
        names.update(each.holder for each in self.references if each.taken or each.ends)
        return tuple(sorted(names))

    @property
    def text(self) -> str:
        """The explanation in plain English, as one paragraph of short sentences."""
        return " ".join(_sentences(self))


_SHOWN: Final = 5
"""How many of the subscribers of a tier are named in words."""
_UNITS: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "s"))


def _sentences(explanation: Explanation) -> Iterator[str]:
    quarantine = explanation.age is not None
    owner = f"set {explanation.sid}" if explanation.token is None else explanation.token
    if explanation.spid is not None:
        owner += f", spid {explanation.spid}"
    name = f"{explanation.ioasid} ({owner})"
    if explanation.age is None:
        yield f"{name} is in use: it was not freed."
    else:
        yield f"{name} was freed {_time(explanation.age)} ago."
    events = explanation.events
    for event in events:
        yield from _progress(event, f" with {event.kind}" if len(events) > 1 else "")
        if event.then and (event is not events[-1] or not quarantine):
            yield f"Then {_coming(event)}."
    yield from _held(explanation)
    if explanation.waiting:
        verb = "waits" if explanation.waiting == 1 else "wait"
        yield f"{counted(explanation.waiting, 'request')} {verb} for it."
    if quarantine:
        last = f"{_coming(events[-1])}; then " if events and events[-1].then else ""
        back = f"{last}it goes back to the pool."
        down = _down(explanation)
        if down:
            verb = "is" if len(down) == 1 else "are"
            until = f"{_listed(down)} {verb} back and done with it, or evicted"
            others = [each for each in explanation.blockers if each not in down]
            if others:
                until += f", and {_listed(others)} {'is' if len(others) == 1 else 'are'} done"
            yield f"It stays until {until}; then {back}"
        else:
            yield f"Then {back}" if last else f"When that is done, {back}"


def _down(explanation: Explanation) -> list[str]:
    # Who is waited for and has nobody behind it that could do anything. Whether it crashed, or the
    # allocator was started again under it, is not kept.
    waits = [each for event in explanation.events for each in event.waits_for]
    names = {each.holder for each in waits if each.place is Place.SUSPENDED}
    names.update(each.holder for each in explanation.references if each.suspended)
    return sorted(names)


def _progress(event: EventInFlight, of_which: str) -> Iterator[str]:
    if event.reached is None:
        yield f"{event.kind} comes after that."
        return
    # A tier in which nobody matches is done like one that has acknowledged.
    done = len(Priority) - len(event.then) - bool(event.waits_for)
    yield f"{done} of {len(Priority)} tiers {'is' if done == 1 else 'are'} done{of_which}."
    if event.waits_for:
        told = [_awaited(each, event.kind, event.seq) for each in event.waits_for]
        yield f"At {event.waits_for[0].priority}, {_listed(told)}."


def _held(explanation: Explanation) -> Iterator[str]:
    told = {
        (each.subscription, each.seq) for event in explanation.events for each in event.waits_for
    }
    for held in explanation.references:
        if held.taken:
            down = " and is down" if held.suspended else ""
            yield f"{held.holder} has {counted(held.taken, 'reference')}{down}."
        for end in held.ends:
            if (end.subscription, end.seq) not in told:
                yield f"{_awaited(end, 'the end of its grant', end.seq)}."


def _awaited(each: Awaited, what: str, seq: int | None) -> str:
    age = _time(each.age)
    if each.seq is not None and each.seq != seq:
        what = f"a Resync for {what}"
    match each.place:
        case Place.QUEUED:
            return f"{each.holder} has had {what} in its queue for {age}"
        case Place.IN_HANDS:
            return f"{each.holder} has had {what} in its hands for {age}"
        case Place.DEFERRED:
            return f"{each.holder} deferred {what} {age} ago"
        case Place.FOLDED:
            return f"{each.holder} lags and has not been given {what} for {age}"
        case Place.SUSPENDED:
            return f"{each.holder} is down and has owed {what} for {age}"
        case Place.DEALT_WITH:
            return f"{each.holder} is done with {what}, whose turn to be let go of has yet to come"
        case _:
            assert_never(each.place)


def _coming(event: EventInFlight) -> str:
    tiers = [
        f"{each.priority} ({_listed([holder for holder, _ in each.subscribers])})"
        for each in event.then
    ]
    *others, last = tiers
    return f"come {', '.join(others)} and {last}" if others else f"comes {last}"


def _listed(found: list[str]) -> str:
    more = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    # Up to twice a unit, the one below says it better.
    size, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{int(seconds / size):,} {unit}"
