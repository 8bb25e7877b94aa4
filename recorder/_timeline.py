"""From the lines of a recording to what is drawn.

Every request is decided again, by the same core in the same state, so that for every ID in
quarantine `explain` says whom it waited for and when, as it would have said then.
"""

from collections.abc import Iterable, Iterator
from typing import Final, assert_never

from attrs import define, field
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Allocated,
    AllocatedMany,
    Answer,
    AskAgain,
    CloseSession,
    Complete,
    Defer,
    Deliver,
    Detach,
    End,
    Event,
    EventKind,
    Evict,
    Explain,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Imported,
    IoasidError,
    IoasidRange,
    IoasidState,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    OpenSession,
    Priority,
    Refused,
    SessionOpened,
    Snapshot,
    Subscribe,
    Subscribed,
    SuspendAll,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
    Tick,
    Unsubscribe,
    Waiting,
    Withdraw,
    refusal_of,
)
from ioasid.core._plurals import counted
from ioasid.recorder._errors import BadRecording
from ioasid.recorder._flows import Flows
from ioasid.recorder._lines import Decided, Noted, Opened, RecordedLine, Stepped
from ioasid.recorder._lives import Lives
from ioasid.recorder._reader import Recording
from ioasid.recorder._replica import Replica
from ioasid.recorder._rows import ALLOCATOR, ActorFacts, Kind, Row, Timeline
from ioasid.recorder._words import answered, asked, done, facts_of, fields_of, said_of_ranges, told

__all__: list[str] = []

LOOKUPS: Final = (
    Explain,
    Find,
    FindSet,
    FindSid,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    TakeSnapshot,
    TakeStatistics,
)
ENDS: Final = (CloseSession, Detach, Evict, SuspendAll, SuspendSession, Unsubscribe)
"""These may end subscriptions that a crash had left behind, of which nothing else is told."""
MANY: Final = 64
"""How many IDs a row names, at most."""


def timeline_of(recording: Recording) -> Timeline:
    """Return what is drawn of a recording; allocators that ran beside each other come in turn.

    Raises `BadRecording` for one that contradicts itself.
    """
    timeline = Timeline(recording.path)
    timeline.actors[ALLOCATOR] = ActorFacts(ALLOCATOR, states=[(0, "live")])
    for opened, lines in _by_allocator(recording.lines):
        _Part(timeline, opened, lines).tell()
    return timeline


_Numbered = tuple[int, RecordedLine]


def _by_allocator(lines: Iterable[RecordedLine]) -> Iterator[tuple[int, list[_Numbered]]]:
    # A step belongs to the allocator that decided last.
    parts: list[tuple[int, list[_Numbered]]] = []
    current = 0
    early: list[_Numbered] = []
    for number, line in enumerate(lines, 1):
        if isinstance(line, Opened):
            parts.append((number, early))
            early = []
        if isinstance(line, Opened | Decided):
            current = line.allocator
        (parts[current][1] if parts else early).append((number, line))
    yield from parts


@define(eq=False)
class _Part:
    """What one allocator did."""

    timeline: Timeline
    opened: int
    lines: list[_Numbered]
    replica: Replica = field(init=False)
    lives: Lives = field(init=False)
    flows: Flows = field(init=False)
    subscribers: dict[int, str] = field(factory=dict)
    """Holders, by subscription."""
    tickets: dict[int, tuple[str, str]] = field(factory=dict)

    def tell(self) -> None:
        begun = next((each.time for _, each in self.lines if isinstance(each, Decided)), 0.0)
        rows = self.timeline.rows
        # The clock of one that goes on from a snapshot may be behind what came before it here.
        behind = max(rows[-1].time - begun, 0.0) if rows else 0.0
        for number, line in self.lines:
            match line:
                case Opened():
                    self._begin(line.snapshot, begun + behind)
                case Noted():
                    time = max(line.time, begun) + behind
                    self._row(Kind.NOTE, time, ALLOCATOR, (), line.text, number)
                case Decided():
                    self._decide_again(number, line)
                    self._decided(number, replace(line, time=line.time + behind))
                case Stepped():
                    self._stepped(number, replace(line, time=line.time + behind))
                case _:
                    assert_never(line)
        self.lives.close(len(self.timeline.rows))

    def _bad(self, number: int, problem: str) -> BadRecording:
        return BadRecording(self.timeline.path, number, problem)

    # -- the beginning ------------------------------------------------------------------------

    def _begin(self, snapshot: Snapshot, time: float) -> None:
        try:
            self.replica = Replica.restore(snapshot)
            self.replica.watch()
        except IoasidError as error:
            raise self._bad(self.opened, f"there is no such state ({error})") from None
        timeline = self.timeline
        self.lives = Lives(timeline, self.replica)
        self.flows = Flows(timeline)
        here = len(timeline.rows)
        if snapshot.index == 1:
            text = f"an allocator of {counted(snapshot.capacity, 'ID')} begins"
        else:
            text = "an allocator goes on from a snapshot"
        for owner in snapshot.sets:
            timeline.tokens[owner.sid] = _name_of_set(owner.sid, owner.token, system=owner.system)
        self._row(Kind.OPENING, time, ALLOCATOR, (), text, self.opened)
        for each in timeline.actors.values():
            if each.name != ALLOCATOR and each.states and each.states[-1][1] == "live":
                each.states.append((here, "gone"))
        for holder in snapshot.holders:
            self._state(holder.name, "down" if holder.session is None else "live", here)
        for subscription in snapshot.subscriptions:
            self.subscribers[subscription.number] = subscription.holder
            self._actor(subscription.holder).tier = subscription.priority
        events = {each.event.seq: each.event for each in snapshot.stages}
        for subscription in snapshot.subscriptions:
            for offer in subscription.outstanding:
                event = events.get(offer.seq)
                if event is not None:
                    name = subscription.holder
                    self.flows.begin(subscription.number, name, event, here, time)
        self.lives.begin(snapshot, here, time)

    def _actor(self, name: str) -> ActorFacts:
        return self.timeline.actors.setdefault(name, ActorFacts(name))

    def _state(self, name: str, state: str, row: int) -> None:
        states = self._actor(name).states
        if not states or states[-1][1] != state:
            states.append((row, state))

    def _row(
        self,
        kind: Kind,
        time: float,
        source: str,
        targets: Iterable[str],
        text: str,
        line: int,
        facts: str = "",
        ioasids: Iterable[int] = (),
        sids: Iterable[int] = (),
    ) -> Row:
        ids = tuple(sorted(set(ioasids)))[:MANY]
        row = Row(kind, time, source, tuple(dict.fromkeys(targets)), text, line, facts, ids)
        row.sids = tuple(sorted(set(sids)))
        self.timeline.rows.append(row)
        for name in (source, *row.targets):
            self._actor(name)
        return row

    # -- a decision ---------------------------------------------------------------------------

    def _decided(self, number: int, line: Decided) -> None:
        if isinstance(line.request, Tick):
            return
        timeline = self.timeline
        timeline.decisions += 1
        here = len(timeline.rows)
        for owner in line.changes.sets:
            name = _name_of_set(owner.sid, owner.token, system=owner.system)
            timeline.tokens[owner.sid] = name
        if isinstance(line.answer, Subscribed):
            self._subscribed(line.answer.subscription, line)
        asked_by = {line.holder}
        if isinstance(line.request, Acknowledge) and not isinstance(line.answer, Refused):
            asked_by = self._acknowledged(number, line, line.request)
        else:
            self._asked(number, line)
        if isinstance(line.answer, Waiting):
            self.tickets[line.answer.ticket] = (line.holder, asked(line.request))
        reclaimed = line.changes.reclaimed
        self.lives.change(line, here)
        for effect in line.effects:
            match effect:
                case Deliver(_, Event(kind=EventKind.RECLAIM)) | Complete() if reclaimed:
                    self._reclaimed(number, line, reclaimed)
                    reclaimed = ()
                case _:
                    pass
            self._carried_out(number, line, effect)
        if reclaimed:
            self._reclaimed(number, line, reclaimed)
        if isinstance(line.request, ENDS):
            for each in self.flows.subscriptions:
                if not self.replica.has_subscription(each):
                    self.flows.end(each, here, line.time)
        self.lives.look(line, here, asked_by)
        for row in timeline.rows[here:]:
            self.lives.mark(row)
        self.lives.bury(line, here)

    def _decide_again(self, number: int, line: Decided) -> None:
        replica = self.replica
        answer: Answer | Refused
        try:
            replica.handle(0, Tick(line.time))
            answer = replica.handle(line.session, line.request)
        except IoasidError as error:
            answer = refusal_of(error)
        effects = tuple(replica.drain())
        recorded = (line.index, line.effects, line.changes, _error(line.answer))
        if recorded != (replica.index, effects, replica.changes(), _error(answer)):
            raise self._bad(number, "this does not follow from the lines before it")

    def _subscribed(self, subscription: int, line: Decided) -> None:
        assert isinstance(line.request, Subscribe), "its answer says so"
        self.subscribers[subscription] = line.holder
        actor = self._actor(line.holder)
        # The first tier is where its column is.
        if actor.tier is None or _HEIGHT[line.request.priority] < _HEIGHT[actor.tier]:
            actor.tier = line.request.priority

    def _asked(self, number: int, line: Decided) -> None:
        request, answer, name = line.request, line.answer, line.holder or ALLOCATOR
        here, time = len(self.timeline.rows), line.time
        facts = f"{facts_of(request)} → {facts_of(answer)}"
        text, said = asked(request), answered(answer)
        targets: tuple[str, ...] = (ALLOCATOR,) if name != ALLOCATOR else ()
        ioasids = [*_ids_of(line)]
        sids = {each.sid for each in line.changes.sets}
        sid = getattr(request, "sid", None)
        if isinstance(sid, int):
            sids.add(sid)
        kind = Kind.LOOKUP if isinstance(request, LOOKUPS) else Kind.REQUEST
        if isinstance(request, FindBySpid) and not request.get:
            kind = Kind.LOOKUP
        if isinstance(answer, Refused):
            kind = Kind.REFUSAL
        else:
            match request:
                case Defer(subscription, seq):
                    kind = Kind.DEFERRAL
                    flow = self.flows.defer(subscription, seq)
                    if flow is not None:
                        text = f"needs more time for {flow.text}"
                        ioasids += [] if flow.ioasid is None else [flow.ioasid]
                case SuspendSession():
                    kind, targets, text = Kind.CRASH, (), self._crashed(name, here)
                case Detach():
                    kind, targets, text = Kind.CRASH, (), "its subscriber crashed"
                case SuspendAll():
                    kind, targets, text = Kind.CRASH, (), "the process ended: all crashed"
                    for each in [*self.timeline.actors.values()]:
                        if each.states and each.states[-1][1] == "live" and each.name != ALLOCATOR:
                            self._crashed(each.name, here)
                case Evict(gone):
                    kind, text = Kind.CRASH, f"evict {gone}: it is dead"
                    self._state(gone, "gone", here)
                case OpenSession(joins):
                    assert isinstance(answer, SessionOpened), "it says so"
                    name, targets, said = joins, (), ""
                    kind = Kind.RETURN if answer.resumed else Kind.SESSION
                    text = "is back" if answer.resumed else "joins"
                    self._state(joins, "live", here)
                case CloseSession():
                    kind, targets, text = Kind.SESSION, (), "leaves"
                    self._state(name, "gone", here)
                case Subscribe() | Unsubscribe():
                    kind = Kind.SESSION
                case _:
                    pass
        if isinstance(answer, Waiting):
            text += ", and wait for it"
        text = f"{text} → {said}" if said else text
        self._row(kind, time, name, targets, text, number, facts, ioasids, sids)

    def _acknowledged(self, number: int, line: Decided, request: Acknowledge) -> set[str]:
        # A row for each subscriber; returns whose they are.
        by_holder: dict[str, list[tuple[int, int]]] = {}
        for each in request.messages:
            name = self.subscribers.get(each[0], line.holder or ALLOCATOR)
            by_holder.setdefault(name, []).append(each)
        texts = self.flows.texts
        for name, messages in (by_holder or {line.holder or ALLOCATOR: []}).items():
            here = len(self.timeline.rows)
            flows = [*self.flows.acknowledge(messages, here, line.time)]
            said_done = [texts[each] for each in messages if each in texts]
            text = f"done with {_few(said_done)}" if said_done else "acknowledge"
            ioasids = [*_ids_of(line)]
            ioasids += [each.ioasid for each in flows if each.ioasid is not None]
            said = answered(line.answer)
            text = f"{text} → {said}" if said else text
            facts = f"{facts_of(Acknowledge(tuple(messages)))} → {facts_of(line.answer)}"
            targets = (ALLOCATOR,) if name != ALLOCATOR else ()
            sids = {each.sid for each in line.changes.sets}
            kind = Kind.ACKNOWLEDGEMENT
            self._row(kind, line.time, name, targets, text, number, facts, ioasids, sids)
        return {line.holder, *by_holder}

    def _crashed(self, name: str, row: int) -> str:
        kept = self.replica.has(name)
        self._state(name, "down" if kept else "gone", row)
        return "crashes: what it has is kept" if kept else "crashes: it had nothing"

    # -- what it set off ----------------------------------------------------------------------

    def _carried_out(self, number: int, line: Decided, effect: object) -> None:
        here, time = len(self.timeline.rows), line.time
        match effect:
            case Deliver(subscriptions, message):
                names = [self.subscribers.get(each, ALLOCATOR) for each in subscriptions]
                if isinstance(message, Event):
                    ids, sids = [message.ioasid], {message.sid}
                else:
                    ids = [each.ioasid for each in message.ioasids[:MANY]]
                    sids = {each.sid for each in message.ioasids[:MANY]}
                facts = facts_of(message)
                self._row(
                    Kind.EVENT, time, ALLOCATOR, names, told(message), number, facts, ids, sids
                )
                for subscription, name in zip(subscriptions, names, strict=True):
                    self.flows.begin(subscription, name, message, here, time)
            case Withdraw(subscription, keep):
                dropped = self.flows.fold(subscription, keep)
                name = self.subscribers.get(subscription, ALLOCATOR)
                what = "message becomes" if dropped == 1 else "messages become"
                text = f"lags: {dropped} queued {what} a Resync"
                self._row(Kind.EVENT, time, name, (), text, number, facts_of(effect))
            case End(subscription):
                if self.replica.has_subscription(subscription):
                    # A crash left it behind; it comes back to a Resync.
                    self.flows.fold_all(subscription)
                else:
                    self.flows.end(subscription, here - 1, time)
            case Complete(ticket, answer):
                holder, text = self.tickets.pop(ticket, (ALLOCATOR, "it"))
                said = answered(answer)
                text = f"{text} → {said}" if said else text
                ids = _ids_in(line.changes.reclaimed)
                facts = facts_of(effect)
                self._row(Kind.REQUEST, time, ALLOCATOR, (holder,), text, number, facts, ids)
            case AskAgain(ticket):
                self.tickets.pop(ticket, None)
            case _:
                pass

    def _reclaimed(self, number: int, line: Decided, ranges: tuple[IoasidRange, ...]) -> None:
        text = f"{said_of_ranges(ranges)} back in the pool"
        ids = _ids_in(ranges)
        self._row(Kind.RECLAIM, line.time, ALLOCATOR, (), text, number, "", ids)

    # -- a step -------------------------------------------------------------------------------

    def _stepped(self, number: int, line: Stepped) -> None:
        message = line.message
        if message.get("type") in ("Event", "Resync"):
            # That it was told is drawn where the allocator did so.
            return
        ioasid = message.get("ioasid")
        ids = [ioasid] if type(ioasid) is int else []
        facts = fields_of(message)
        row = self._row(Kind.STEP, line.time, line.actor, (), done(message), number, facts, ids)
        self.lives.mark(row)


_HEIGHT: Final = {priority: place for place, priority in enumerate(Priority)}


def _name_of_set(sid: int, token: str | None, *, system: bool) -> str:
    return "the host" if system else token or f"set {sid}"


def _ids_of(line: Decided) -> Iterator[int]:
    ioasid = getattr(line.request, "ioasid", None)
    if isinstance(ioasid, int):
        yield ioasid
    match line.answer:
        case Allocated(ioasid):
            yield ioasid
        case AllocatedMany(ranges) | Imported(_, ranges):
            yield from _ids_in(ranges)
        case _:
            pass
    yield from (each.ioasid for each in line.changes.ioasids[:MANY] if _is_freed(each.state))


def _error(answer: Answer | Refused) -> str:
    return answer.error if isinstance(answer, Refused) else ""


def _is_freed(state: IoasidState) -> bool:
    return state is IoasidState.FREE_PENDING


def _ids_in(ranges: Iterable[IoasidRange]) -> list[int]:
    ids: list[int] = []
    for each in ranges:
        ids += range(each.first, min(each.last, each.first + MANY) + 1)
        if len(ids) > MANY:
            break
    return ids[:MANY]


def _few(words: list[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
