"""Whether a state that came from outside is one that an allocator can be in.

`ioasid.core._restore` builds the tables from a snapshot and checks each part by itself. Here the
parts are compared with each other, where a contradiction would later be a binding dropped while
it is in use, an event told twice or of another ID, or an ID that never comes back.
"""

from itertools import pairwise
from typing import Final, TypeAlias

from attrs import define, field

from ioasid.core._grants import is_coming, stale_grants
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._notifier import Notifier
from ioasid.core._parts import Parts
from ioasid.core._reserved import ZERO
from ioasid.core._resyncs import visible
from ioasid.core._routes import LAST_TIER
from ioasid.core._space import SHIFT
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import BIND, SET_ACTIVE, SET_FREE_PENDING, UNBIND, SetState
from ioasid.core._work import Freeing, Leaving, LettingGo, LookingAgain, Relisting, Turning

__all__: list[str] = []

MAX_NUMBER: Final = 2**63
"""What no counter reaches in any life, so that as many are left that a wire can carry."""

Bound: TypeAlias = tuple[int | None, int | None]
UNBOUND: Final[Bound] = (None, None)
"""A binding and its spid, or neither."""


def require(holds: bool, otherwise: str) -> None:
    """Raise ValueError, which names the contradiction, unless something holds."""
    if not holds:
        raise ValueError(otherwise)


def require_past(seq: int, tables: Tables, otherwise: str) -> None:
    """Raise ValueError, which names the contradiction, unless a seq was given to something."""
    require(0 < seq <= tables.seq, otherwise)


def refuse_contradictions(tables: Tables) -> None:
    """Raise ValueError if the parts of a state do not agree with each other."""
    _Comparison(tables, Notifier(tables)).run()


def settle(tables: Tables) -> None:
    """Let everything happen that is possible; to a state that an allocator was in, nothing is."""
    notifier = Notifier(tables)
    life = LifeCycle(tables, notifier)
    # Of any other ID nothing is under way.
    tables.unsettled.update(tables.chained)
    for owner in tuple(tables.sets.values()):
        if tables.quarantine:
            tables.unsettled.update(
                (ioasid, each) for ioasid, each in owner.records.items() if each.free_pending
            )
        life.destroy_if_empty(owner)
    for item in tables.work:
        if isinstance(item, LookingAgain):
            # Their turn is still to come.
            for ioasid in tables.chained:
                if ioasid >> SHIFT >= (item.word or 0):
                    tables.unsettled.pop(ioasid, None)
    tables.returning += tables.subscriptions.values()
    Parts(tables, notifier, life).settle()


@define(eq=False)
class _Comparison:
    """Part by part; what one part says of another is collected on the way."""

    _tables: Tables
    _notifier: Notifier
    _held: dict[int, dict[int, Stage]] = field(factory=dict)
    """The staged events that each subscription has yet to acknowledge, by seq."""
    _chained: dict[int, Stage] = field(factory=dict)
    """The staged events that are under way, by seq."""
    _ioasids: dict[int, int] = field(factory=dict)
    """The ID that each binding is of, whoever names it."""

    def run(self) -> None:
        """Compare everything; raises ValueError at the first contradiction."""
        tables = self._tables
        require(
            max(tables.seq, tables.index, tables.next_sid, tables.generation) < MAX_NUMBER,
            "a counter beyond all use",
        )
        for numbers, following in (
            (tables.sessions, tables.next_session),
            (tables.subscriptions, tables.next_subscription),
        ):
            require(0 < following < MAX_NUMBER, "a counter beyond all use")
            require(all(0 < number < following for number in numbers), "a number of the future")
        spent = tables.sets or tables.reserved or tables.groups
        unasked = not spent and tuple(tables.reserved_numbers) in ((), ZERO)
        require(tables.in_use or unasked, "capacity spent and unused")
        require((tables.position or 0) <= tables.capacity, "a position beyond the capacity")
        for each in tables.subscriptions.values():
            self._held[each.number] = each.held_stages()
        freeing = [each.owner for each in tables.work if isinstance(each, Freeing)]
        for owner in tables.sets.values():
            self._compare_bindings(owner)
            freed = (record.free_pending for record in owner.records.values())
            require(
                owner.state is not SET_FREE_PENDING
                or sum(freed) == owner.allocated
                or owner in freeing,
                "an ID that outlives its set",
            )
            movable = not owner.system or owner.state in (SET_ACTIVE, SET_FREE_PENDING)
            require(movable, "the system's set on the move")
        for record in tables.chained.values():
            self._compare_chain(record)
        for each in tables.subscriptions.values():
            self._compare_queue(each)
            for seq, stage in self._held[each.number].items():
                self._compare_held(each, seq, stage)
            self._compare_grants(each)
        self._compare_work()

    def _compare_work(self) -> None:
        tables = self._tables
        going = [each.subscription for each in tables.work if isinstance(each, LettingGo)]
        for each in tables.subscriptions.values():
            busy = bool(each.dealt or each.spent)
            require(each in going or not (busy or each.leaving), "what nobody lets go of")
            require(each.spent == sorted(set(each.spent), reverse=True), "grants out of order")
            require(not each.folded.keys() & each.dealt.keys(), "an event in two places")
        require(len(set(map(id, going))) == len(going), "what is let go of twice")
        leaving = [each.holder for each in tables.work if isinstance(each, Leaving)]
        for holder in tables.holders.values():
            require(holder.leaving == (holder in leaving), "a holder that does not leave")
            require(not holder.leaving or holder.session is None, "a session of who has left")
            require(not holder.leaving or not holder.subscriptions, "a holder half gone")
        require(len(set(map(id, leaving))) == len(leaving), "a holder that leaves twice")
        looking = [each for each in tables.work if isinstance(each, LookingAgain)]
        require(len(looking) <= 1, "events that are looked at twice")
        for item in tables.work:
            if isinstance(item, Relisting):
                each = item.subscription
                back = len(each.outstanding) <= min(len(each.deferred), each.queue_size)
                wanted = each.resync_due and each.attached and back
                require(wanted, "a Resync that nobody waits for")

    def _name_binding(self, binding: int | None, ioasid: int) -> None:
        # A grant is known by its binding alone: what ends one of two IDs would end the other's.
        if binding is not None:
            require_past(binding, self._tables, "a binding of the future")
            require(self._ioasids.setdefault(binding, ioasid) == ioasid, "a binding of two IDs")

    # -- IDs ----------------------------------------------------------------------------------

    def _compare_bindings(self, owner: IoasidSet) -> None:
        # All at once, for there may be many; how many they are then shows whether one is twice.
        ioasids, bindings = [], []
        # Of those in quarantine either may be so, whatever has become of the set since.
        bound = kept = False
        turning = self._tables.turnings.get(owner.sid)
        for ioasid in owner.spids.values():
            record = owner.records[ioasid]
            if record.binding is None:
                kept = kept or not record.free_pending
            else:
                bound = bound or not record.free_pending
                ioasids.append(ioasid)
                bindings.append(record.binding)
        require(not kept or owner.state is not SET_ACTIVE, "a spid without a binding")
        runs = owner.state is SET_ACTIVE or (owner.state is SET_FREE_PENDING and not kept)
        require(not bound or runs or turning is not None, "a binding in a set that runs nothing")
        if turning is not None:
            self._compare_turning(owner, turning)
        if bindings:
            require_past(min(bindings), self._tables, "a binding of the future")
            require_past(max(bindings), self._tables, "a binding of the future")
            named = len(self._ioasids) + len(bindings)
            self._ioasids.update(zip(bindings, ioasids, strict=True))
            require(len(self._ioasids) == named, "a binding of two IDs")

    def _compare_turning(self, owner: IoasidSet, item: Turning) -> None:
        ends = (SetState.FROZEN, SetState.INCOMING if item.begins else SET_FREE_PENDING)
        require(owner.state in ends, "a set that does not turn")
        for ioasid in owner.spids.values():
            record = owner.records[ioasid]
            turned = record.free_pending or (record.binding is not None) == item.begins
            require(turned or ioasid >= item.ioasid, "an ID whose turn was")

    def _compare_chain(self, record: Record) -> None:
        chain = record.chain
        for stage in chain:
            self._compare_stage(stage, record)
        for earlier, later in pairwise(chain):
            require(
                earlier.event.seq < later.event.seq
                and earlier.reach >= later.reach
                and not earlier.ends_life,
                "events out of order",
            )
        require(
            not chain or chain[-1].ends_life == record.free_pending, "a quarantine without a FREE"
        )
        own = [stage for stage in chain if stage.event.publisher is None]
        for earlier, later in pairwise(own):
            require(_after(earlier) == _before(later), "an event that does not follow")
        if own:
            now = (record.binding, record.bound_spid)
            # An unbind after the FREE leaves no trace in the chain.
            unbound = own[-1].ends_life and now == UNBOUND
            require(unbound or now == _after(own[-1]), "an event that leads elsewhere")

    def _compare_stage(self, stage: Stage, record: Record) -> None:
        event, owner = stage.event, record.owner
        require(
            (event.ioasid, event.sid, event.token) == (record.ioasid, owner.sid, owner.token)
            and event.generation == self._tables.space.generation(record.ioasid),
            "an event of another ID",
        )
        self._name_binding(stage.binding, record.ioasid)
        require(-1 <= stage.reach <= LAST_TIER, "a tier that there is not")
        require(len({each.tier for each in stage.waiting.values()}) <= 1, "an event in two tiers")
        told = self._notifier.route(owner, event.kind).awaited
        for number, each in stage.waiting.items():
            told_of = number in told[each.tier] or event.seq in each.dealt
            require(told_of, "an event to who is not told of its kind")
            require(self._held[number].get(event.seq) is stage, "an event that was lost")
            require(each.tier <= stage.reach, "an event ahead of its tier")
        self._chained[event.seq] = stage

    # -- subscriptions ------------------------------------------------------------------------

    def _compare_queue(self, each: Subscription) -> None:
        if each.leaving:
            empty = not (each.attached or each.outstanding or each.resync_due or each.unseen)
            require(empty and each.grants.keys() <= {*each.spent}, "a queue of who has left")
        elif each.attached:
            require(each.holder.session is not None, "a subscriber without a session")
        else:
            require(each.resync_due and not each.outstanding, "a queue that nobody empties")
        require(len(each.outstanding) <= each.queue_size + 1, "a queue beyond its bound")
        if each.folded_since is None:
            require(not each.folded, "events folded at no time")
        else:
            require(each.resync_due, "events folded for nothing")
            require_past(each.folded_since[0], self._tables, "an event folded in the future")
        for seq, (_, entry) in each.outstanding.items():
            require_past(seq, self._tables, "a message of the future")
            # Who is not awaited has events under way of which nothing is noted.
            unnoted = entry is None and not each.awaited
            same = unnoted or self._chained.get(seq, entry) is entry
            require(same, "two messages of one number")
            for binding in entry.stale if isinstance(entry, Fold) else ():
                require(binding in each.grants, "the end of what was not granted")
                self._require_ended(each, binding)

    def _compare_held(self, each: Subscription, seq: int, stage: Stage) -> None:
        if self._chained.get(seq) is stage:
            require(each.number in stage.waiting, "an event that nobody waits for")
            return
        # One that cancelled out or whose ID is gone; a FREE outlives neither.
        require(not stage.waiting and not stage.ends_life, "an event that is not under way")
        self._name_binding(stage.binding, stage.event.ioasid)
        self._require_ended(each, stage.binding)

    def _compare_grants(self, each: Subscription) -> None:
        owner: IoasidSet | None = None
        told = False
        hidden: set[int] = set()
        spent = set(each.spent)
        for binding, record in each.grants.items():
            if record.owner is not owner:
                owner = record.owner
                told = each.number in self._notifier.route(owner, UNBIND).tiers[each.tier]
            require(told or binding in spent, "a grant to who is not told of its end")
            if record.binding == binding and not record.chain and not record.free_pending:
                # Bound and at rest, as most are: its record named the binding.
                continue
            self._name_binding(binding, record.ioasid)
            if visible(record, each.tier)[2] != binding:
                hidden.add(binding)
        require(each.grants.keys() >= each.unseen, "a binding that is unseen and not granted")
        for binding in each.unseen & hidden:
            require(is_coming(each, binding), "the end of what nobody has seen")
        # What a Resync would end, nothing else does.
        if hidden and not each.resync_due:
            require(not stale_grants(each, each.grants.keys() - hidden), "a grant without end")

    def _require_ended(self, each: Subscription, binding: int | None) -> None:
        record = None if binding is None else each.grants.get(binding)
        require(
            record is None or record.free_pending or record.binding != binding,
            "the end of a binding that goes on",
        )


def _before(stage: Stage) -> Bound:
    return UNBOUND if stage.event.kind is BIND else (stage.binding, stage.event.spid)


def _after(stage: Stage) -> Bound:
    return UNBOUND if stage.event.kind is UNBIND else (stage.binding, stage.event.spid)
