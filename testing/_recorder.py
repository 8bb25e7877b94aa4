"""A recorded history: what was asked, answered and delivered, and the invariants that speak of it.

A `Record` follows one allocator, request by request, and says nothing that only its tables say.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from attrs import define, field

from ioasid.core import (
    Abandon,
    Acknowledge,
    ActivateSet,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocSet,
    AllocSystemSet,
    Answer,
    AskAgain,
    AttachSpid,
    CloseSession,
    Complete,
    Continue,
    Defer,
    Deliver,
    Effect,
    Event,
    EventKind,
    Evict,
    Expel,
    Explain,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeMany,
    FreeSet,
    FreezeSet,
    Frozen,
    Get,
    Imported,
    ImportSet,
    IoasidError,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    OpenSession,
    Put,
    Released,
    Request,
    Resync,
    SessionOpened,
    SetRecord,
    Subscribe,
    Subscribed,
    SuspendAll,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
    ThawSet,
    Waiting,
)
from ioasid.core._routes import DEVICE_TIER
from ioasid.core._space import ones
from ioasid.core._work import Freeing
from ioasid.testing._lines import Line, said_of
from ioasid.testing._lives import Life, ends_acknowledged, generations_in, named_in
from ioasid.testing._observer import Observer, Observers, covers, live_ids
from ioasid.testing._violated import invariant

__all__: list[str] = []

QUERIES: Final = (
    Explain,
    ExportSet,
    Find,
    FindSid,
    FindSet,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    TakeSnapshot,
    TakeStatistics,
)
"""Requests that change nothing, whatever the answer; a snapshot tells whether they did."""


@define(eq=False)
class Record:
    """What a history says of one allocator, and nothing that only its tables say."""

    allocator: Allocator
    lines: list[Line] = field(factory=list)
    observers: Observers = field(init=False)
    lives: dict[int, Life] = field(factory=dict)
    references: Counter[tuple[str, int]] = field(factory=Counter)
    """What holders took and did not put, by holder name and ID."""
    suspended: set[str] = field(factory=set)
    waiting: dict[int, set[int]] = field(factory=dict)
    """The IDs that each ticket waits for."""
    abandoned: set[int] = field(factory=set)
    freezing: dict[int, int] = field(factory=dict)
    """The sets that tickets wait to be stopped."""
    frozen_sids: list[int] = field(factory=list)
    """Sets that were said to be stopped just now."""
    names: dict[int, str] = field(factory=dict)
    """The holder of every subscription there was."""
    sids: int = 0
    """The first number that no set has had."""
    generation: int = 0
    """That of the life that began last."""

    coming: set[tuple[int, int]] = field(factory=set)
    """IDs, with their generations, that a request frees in parts and that are not freed yet."""
    in_parts: set[int] = field(factory=set)
    """Tickets of requests that are answered when they are done, and not by a reclaim."""

    def __attrs_post_init__(self) -> None:
        """Begin with what is there: nothing, or what a snapshot brought."""
        self.observers = Observers(self.allocator)
        tables = self.allocator._tables
        self.sids, self.generation = tables.next_sid, tables.generation
        for ioasid, (sid, generation, freed) in live_ids(self.allocator).items():
            self.lives[ioasid] = Life(sid, generation, freed)
        for name, holder in tables.holders.items():
            if holder.leaving:
                continue
            self.references.update({(name, each): n for each, n in holder.references.items()})
            if holder.session is None:
                self.suspended.add(name)
        for item in tables.work:
            if isinstance(item, Freeing):
                chosen = {first + bit for first, word in item.chosen for bit in ones(word)}
                self.coming |= {
                    (ioasid, life.generation)
                    for ioasid, life in self.lives.items()
                    if ioasid in chosen and life.generation <= item.until
                }
        for number, each in tables.subscriptions.items():
            if each.leaving:
                continue
            terms = Subscribe(
                each.sid,
                each.token,
                each.kinds,
                each.priority,
                each.hold,
                True,
                each.queue_size,
                each.acknowledge_within,
                each.awaited,
            )
            self.names[number] = each.holder.name
            observer = Observer(number, each.holder.name, terms, joined=tables.seq)
            observer.folded = {*each.folded, *each.outstanding}
            observer.attached = False
            observer.lags = True
            self.observers.present[number] = observer
        for owner in tables.sets.values():
            for record in owner.records.values():
                bound = {record.binding: record.spid}
                bound |= {stage.binding: stage.event.spid for stage in record.chain}
                for seq, spid in bound.items():
                    if seq is not None:
                        event = Event(seq, EventKind.BIND, record.ioasid, owner.sid, spid=spid)
                        self.observers.bound(event)

    # -- one request --------------------------------------------------------------------------

    def note(
        self,
        holder: str,
        request: Request,
        answer: Answer | IoasidError,
        effects: Iterable[Effect],
        *,
        seq: int,
    ) -> None:
        """Note a request that was decided; `seq` is the number of the last message before it.

        Raises `InvariantViolated`.
        """
        effects = tuple(effects)
        if isinstance(answer, Subscribed):
            self.names[answer.subscription] = holder
        names = tuple(self._named(each) for each in effects)
        self.lines.append(Line(holder, request, answer, effects, names))
        if isinstance(answer, IoasidError):
            return
        if isinstance(request, QUERIES):
            if isinstance(answer, Waiting):
                self.in_parts.add(answer.ticket)
            lives_are_told_apart(self, answer)
            return
        self._note_coming()
        self._carried_out(holder, request, answer, seq)
        lives_are_told_apart(self, answer)
        self.follow(effects)

    def _note_coming(self) -> None:
        # What a request frees in parts is freed when its turn has come.
        live = live_ids(self.allocator) if self.coming else {}
        for ioasid, generation in tuple(self.coming):
            life = self.lives.get(ioasid)
            ends = life is None or life.generation != generation or life.freed
            if not ends and live.get(ioasid, (0, 0, True))[2]:
                assert life is not None
                life.free(self._told_of_free(life))
                ends = True
            if ends:
                self.coming.discard((ioasid, generation))

    def _told_of_free(self, life: Life) -> set[int]:
        owner = self.allocator._tables.sets.get(life.sid)
        return set() if owner is None else self.observers.told_of_free(life.sid, owner.token)

    def _named(self, effect: Effect) -> str:
        match effect:
            case Complete() | AskAgain() | Expel():
                return ""
            case Deliver(subscriptions):
                return ", ".join(self.names.get(each, "") for each in subscriptions)
            case _:
                return self.names.get(effect.subscription, "")

    def follow(self, effects: Iterable[Effect]) -> None:
        """Note what was set off, and which IDs are gone by it. Raises `InvariantViolated`."""
        effects = tuple(effects)
        for effect in effects:
            if isinstance(effect, Deliver):
                lives_are_told_apart(self, effect.message)
        self.observers.carry_out(effects)
        for observer in self.observers.present.values():
            self._take(observer)
        live = live_ids(self.allocator)
        gone = [ioasid for ioasid in self.lives if ioasid not in live]
        nobody_loses_an_id_in_use(self, gone, live)
        nobody_suspended_loses_an_id(self, gone)
        for ioasid in gone:
            del self.lives[ioasid]
            self.observers.forget(ioasid)
            for pending in self.waiting.values():
                pending.discard(ioasid)
        every_request_is_answered_once(self, effects)
        while self.frozen_sids:
            nothing_frozen_runs(self, self.frozen_sids.pop())

    def _take(self, observer: Observer) -> None:
        # The first message is, or is about to be, in the subscriber's hands.
        if observer.attached and observer.hand is None and observer.queue:
            observer.take()

    def _carried_out(self, holder: str, request: Request, answer: Answer, seq: int) -> None:
        asked_to_wait = isinstance(request, FreezeSet) or getattr(request, "wait", False)
        if isinstance(answer, Waiting) and not asked_to_wait:
            self.in_parts.add(answer.ticket)
        match request, answer:
            case Subscribe(), Subscribed(number, resumed):
                self._subscribed(number, holder, request, seq, resumed=resumed)
            case Acknowledge(messages), _:
                for number, acknowledged in messages:
                    if number in self.observers.present:
                        self._acknowledged(number, acknowledged)
                        self._take(self.observers.present[number])
            case Abandon(ticket), _:
                # One that nothing waits with may still be given to somebody.
                waits = self.waiting.pop(ticket, None) is not None
                waits = self.freezing.pop(ticket, None) is not None or waits
                if ticket in self.in_parts or waits:
                    self.in_parts.discard(ticket)
                    self.abandoned.add(ticket)
            case Defer(number, deferred), _:
                self._deferred(number, deferred)
            case AttachSpid(ioasid, spid), _:
                sid = self.lives[ioasid].sid
                self.observers.bound(Event(seq + 1, EventKind.BIND, ioasid, sid, spid=spid))
            case (FindBySpid(), Allocated(ioasid)):
                if request.get:
                    self.references[holder, ioasid] += 1
            case (AllocSet() | AllocSystemSet(), SetRecord(sid)):
                numbers_are_never_used_again(self, sid, None)
            case (_, Allocated(generation=generation) | AllocatedMany(generation=generation)):
                numbers_are_never_used_again(self, None, generation)
                self._allocated(request, generation, named_in(answer))
            case (Get(ioasid), _):
                self.references[holder, ioasid] += 1
            case (Put(ioasid), _):
                self.references[holder, ioasid] -= 1
                self.references += Counter()
            case (Free(ioasid), _):
                self._freed([ioasid], answer)
            case (ImportSet(), Imported(sid, ranges, generation)):
                numbers_are_never_used_again(self, sid, generation if ranges else None)
                self._began(sid, generation, named_in(answer))
            case (ImportSet(), Waiting()):
                for each in self.allocator._tables.imports.values():
                    if each.owner.sid >= self.sids:
                        numbers_are_never_used_again(self, each.owner.sid, each.generation)
                self._made()
            case (ThawSet() | ActivateSet() | Continue(), _):
                self._begun(seq)
                self._made()
            case (FreezeSet(sid), Waiting(ticket)):
                self.freezing[ticket] = sid
            case (FreezeSet(), Frozen(sid, stopped)):
                if stopped:
                    self.frozen_sids.append(sid)
            case (FreeMany(), _):
                self._freed(self._named_by(request), answer)
            case (FreeSet(sid), _):
                mine = [ioasid for ioasid, life in self.lives.items() if life.sid == sid]
                self._freed(mine, answer)
            case (OpenSession(name), SessionOpened()):
                self.suspended.discard(name)
            case (CloseSession(), _):
                self._left(holder)
            case (Evict(name), _):
                self._left(name)
            case (SuspendSession(), _):
                found = self.allocator._tables.holders.get(holder)
                if found is not None and not found.leaving:
                    self.suspended.add(holder)
                else:
                    self._left(holder)
            case (SuspendAll(), _):
                holders = self.allocator._tables.holders
                left = {name for name, each in holders.items() if not each.leaving}
                self.suspended.update(left)
                for name in {name for name, _ in self.references} - left:
                    self._left(name)
            case _:
                pass

    def _left(self, name: str) -> None:
        self.suspended.discard(name)
        for held in [held for held in self.references if held[0] == name]:
            del self.references[held]

    def _made(self) -> None:
        # The IDs of sets that are imported, as their turn comes.
        for ioasid, (sid, generation, _) in live_ids(self.allocator).items():
            if ioasid not in self.lives:
                self._began(sid, generation, [ioasid])

    def _begun(self, seq: int) -> None:
        # The bindings of sets that are thawed or activated.
        for sid, owner in self.allocator._tables.sets.items():
            for ioasid, begun in owner.records.items():
                if begun.binding is not None and begun.binding > seq:
                    bind = Event(begun.binding, EventKind.BIND, ioasid, sid, spid=begun.spid)
                    self.observers.bound(bind)

    def _allocated(self, request: Request, generation: int, ioasids: Iterable[int]) -> None:
        sid: int = getattr(request, "sid")  # noqa: B009 - every allocation has one
        self._began(sid, generation, ioasids)

    @invariant(3)
    def _began(self, sid: int, generation: int, ioasids: Iterable[int]) -> None:
        for ioasid in ioasids:
            assert ioasid not in self.lives, f"IOASID {ioasid} allocated twice without a RECLAIM"
            self.lives[ioasid] = Life(sid, generation)

    def _named_by(self, request: FreeMany) -> list[int]:
        # Whoever does not mind that some are missing means those that the set has in this life.
        found = []
        for each in request.ranges:
            for ioasid in range(each.first, each.last + 1):
                life = self.lives.get(ioasid)
                if request.missing_ok and (
                    life is None
                    or life.sid != request.sid
                    or request.generation not in (None, life.generation)
                ):
                    continue
                found.append(ioasid)
        return found

    def _freed(self, ioasids: list[int], answer: Answer) -> None:
        live = live_ids(self.allocator) if self.allocator.has_work else {}
        for ioasid in ioasids:
            life = self.lives[ioasid]
            if live.get(ioasid, (0, 0, True))[2]:
                life.free(self._told_of_free(life))
            else:
                self.coming.add((ioasid, life.generation))
        if isinstance(answer, Waiting) and answer.ticket not in self.in_parts:
            self.waiting[answer.ticket] = set(ioasids)

    def _subscribed(
        self, number: int, holder: str, terms: Subscribe, seq: int, *, resumed: bool
    ) -> None:
        if resumed:
            observer = self.observers.present[number]
            observer.attached = True
            observer.terms = Subscribe(
                *(getattr(terms, each) for each in Subscribe.__struct_fields__)
            )
            return
        observer = Observer(number, holder, terms, joined=seq)
        if not terms.replay:
            tokens = {sid: owner.token for sid, owner in self.allocator._tables.sets.items()}
            observer.begin(
                ioasid
                for ioasid, life in self.lives.items()
                if covers(terms, life.sid, tokens[life.sid])
            )
        self.observers.present[number] = observer

    def _acknowledged(self, number: int, seq: int) -> None:
        observer = self.observers.present[number]
        if observer.hand is not None and observer.hand.seq == seq:
            message = observer.hand
            observer.hand = None
        elif seq in observer.deferred:
            message = observer.deferred[seq]
        else:
            queued = next((each for each in observer.queue if each.seq == seq), None)
            if queued is None:
                return
            # Acknowledged out of turn: nothing between was skipped, it is just not done.
            message = queued
            observer.take_out_of_turn(queued)
        observer.acknowledge(seq)
        ended = ends_acknowledged(message, observer.deferred.values())
        for ioasid in ended & self.lives.keys():
            self.lives[ioasid].to_acknowledge.discard(number)

    def _deferred(self, number: int, seq: int) -> None:
        observer = self.observers.present[number]
        if observer.hand is not None and observer.hand.seq == seq:
            observer.deferred[seq] = observer.hand
            observer.hand = None


# -- the invariants that speak about histories ------------------------------------------------


@invariant(3)
def nobody_loses_an_id_in_use(
    record: Record, gone: Iterable[int], live: dict[int, tuple[int, int, bool]]
) -> None:
    """Invariant 3: an ID goes when it was freed, unreferenced and everybody acknowledged that."""
    present = record.observers.present
    for ioasid in gone:
        life = record.lives[ioasid]
        assert life.freed, f"IOASID {ioasid} reclaimed without a free"
        life.to_acknowledge &= present.keys()
        assert not life.to_acknowledge, (
            f"IOASID {ioasid} reclaimed before "
            f"{sorted(record.names[each] for each in life.to_acknowledge)} acknowledged its FREE"
        )
        holders = sorted(name for name, each in record.references if each == ioasid)
        assert not holders, f"IOASID {ioasid} reclaimed while {holders} referenced it"
    for ioasid, held in live.items():
        life = record.lives[ioasid]
        told = life.sid, life.generation, life.freed
        assert told == held, f"IOASID {ioasid} is not as it was answered"
    for each in present.values():
        for ioasid in each.programmed():
            found = record.allocator.record(ioasid)
            assert found is not None, f"IOASID {ioasid} reclaimed while {each.holder} used it"
            assert each.holder in found.references, (
                f"{each.holder} uses IOASID {ioasid} and holds no reference"
            )


@invariant(13)
def nothing_frozen_runs(record: Record, sid: int) -> None:
    """Invariant 13: no CPU or device has an end of a binding of the set to acknowledge."""
    ends = (EventKind.UNBIND, EventKind.FREE)
    for each in record.observers.present.values():
        if each.tier > DEVICE_TIER or not each.terms.awaited:
            continue
        for message in (each.hand, *each.deferred.values(), *each.queue):
            if not isinstance(message, Event) or message.publisher is not None:
                continue
            # Of an ID that is unbound, nothing runs that its FREE would end.
            if message.sid != sid or message.kind not in ends or message.spid is None:
                continue
            later = (
                event.seq
                for event in record.observers.told.get(message.ioasid, ())
                if event.seq > message.seq
                and event.kind in ends
                and event.spid is not None
                and event.publisher is None
            )
            # One that was bound again since ended again since, or it would not be frozen.
            assert any(seq in each.acknowledged for seq in later), (
                f"set {sid} counts as stopped, and {each.holder} has {message}"
            )


@invariant(9)
def nobody_suspended_loses_an_id(record: Record, gone: Iterable[int]) -> None:
    """Invariant 9: no ID goes that a suspended holder has a reference or a FREE of."""
    lost = set(gone)
    for name, ioasid in record.references:
        assert name not in record.suspended or ioasid not in lost, (
            f"IOASID {ioasid} reclaimed while {name}, which has it, is suspended"
        )


@invariant(10)
def numbers_are_never_used_again(record: Record, sid: int | None, generation: int | None) -> None:
    """Invariant 10: a set or a life has a number that is above all there were."""
    if sid is not None:
        assert sid >= record.sids, f"set number {sid} given out twice"
        record.sids = sid + 1
    if generation is not None:
        assert generation > record.generation, f"generation {generation} given out twice"
        record.generation = generation


@invariant(10)
def lives_are_told_apart(record: Record, said: Answer | Event | Resync) -> None:
    """Invariant 10: whatever names an ID says which life of it is meant, the one it has now."""
    for ioasid, generation in generations_in(said):
        life = record.lives[ioasid]
        assert generation == life.generation, (
            f"{said_of(said)} is of generation {generation}: IOASID {ioasid} lives as "
            f"{life.generation}"
        )


@invariant(8)
def every_request_is_answered_once(record: Record, effects: Iterable[Effect]) -> None:
    """Invariant 8: a request that waits is answered once, when what it waits for is reclaimed."""
    for effect in effects:
        if isinstance(effect, AskAgain):
            # It is another request then.
            assert effect.ticket in record.in_parts, f"ticket {effect.ticket} waits for nothing"
            record.in_parts.remove(effect.ticket)
        elif isinstance(effect, Complete):
            ticket = effect.ticket
            assert ticket not in record.abandoned, f"ticket {ticket} answered after it was given up"
            if ticket in record.in_parts:
                record.in_parts.remove(ticket)
                continue
            if ticket in record.freezing:
                sid = record.freezing.pop(ticket)
                stopped = effect.answer == Frozen(sid, True)
                assert stopped or effect.answer == Frozen(sid, False)
                if stopped:
                    record.frozen_sids.append(sid)
                continue
            assert ticket in record.waiting, f"ticket {ticket} answered twice or never asked"
            assert effect.answer == Released(True), f"ticket {ticket} answered {effect.answer}"
            pending = record.waiting.pop(ticket)
            assert not pending, f"ticket {ticket} answered before {sorted(pending)} were reclaimed"
    for ticket, pending in record.waiting.items():
        # Of what is done in parts, the answer comes with the last.
        assert pending or record.allocator.has_work, (
            f"ticket {ticket} not answered when all it waited for was reclaimed"
        )
