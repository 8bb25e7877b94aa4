"""Whether a state that came from outside is one that an allocator can be in.

`ioasid.core._snapshot` builds the tables from a snapshot and checks each part by itself. Here the
parts are compared with each other, where a contradiction would later be a binding dropped while
it is in use, an event told twice or of another ID, or an ID that never comes back.
"""

from itertools import pairwise
from typing import Final, TypeAlias

from attrs import define, field

from ioasid.core._lifecycle import LifeCycle
from ioasid.core._notifier import Notifier
from ioasid.core._records import (
    BIND,
    LAST_TIER,
    SET_FREE_PENDING,
    UNBIND,
    Lapse,
    Record,
    Stage,
    Subscription,
    Tables,
)

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
    for owner in tuple(tables.sets.values()):
        tables.unsettled.update(owner.records)
        life.destroy_if_empty(owner)
    life.settle()
    for subscription in tables.subscriptions.values():
        notifier.resync_if_back(subscription)


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
        require(tables.seq < MAX_NUMBER, "a counter beyond all use")
        for numbers, following in (
            (tables.sessions, tables.next_session),
            (tables.subscriptions, tables.next_subscription),
        ):
            require(0 < following < MAX_NUMBER, "a counter beyond all use")
            require(all(0 < number < following for number in numbers), "a number of the future")
        require(tables.in_use or not (tables.sets or tables.reserved), "capacity spent and unused")
        for each in tables.subscriptions.values():
            self._held[each.number] = _held_by(each)
        for owner in tables.sets.values():
            for record in owner.records.values():
                self._compare_record(record)
            freed = sum(record.free_pending for record in owner.records.values())
            require(
                owner.state is not SET_FREE_PENDING or freed == owner.allocated,
                "an ID that outlives its set",
            )
        for each in tables.subscriptions.values():
            self._compare_queue(each)
            for seq, stage in self._held[each.number].items():
                self._compare_held(each, seq, stage)
            self._compare_grants(each)

    def _name_binding(self, binding: int | None, ioasid: int) -> None:
        # A grant is known by its binding alone: what ends one of two IDs would end the other's.
        if binding is not None:
            require_past(binding, self._tables, "a binding of the future")
            require(self._ioasids.setdefault(binding, ioasid) == ioasid, "a binding of two IDs")

    # -- IDs ----------------------------------------------------------------------------------

    def _compare_record(self, record: Record) -> None:
        require((record.spid is None) == (record.binding is None), "a spid without a binding")
        self._name_binding(record.binding, record.ioasid)
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
            now = (record.binding, record.spid)
            # An unbind after the FREE leaves no trace in the chain.
            unbound = own[-1].ends_life and now == UNBOUND
            require(unbound or now == _after(own[-1]), "an event that leads elsewhere")

    def _compare_stage(self, stage: Stage, record: Record) -> None:
        event, owner = stage.event, record.owner
        require(
            (event.ioasid, event.sid, event.token) == (record.ioasid, owner.sid, owner.token),
            "an event of another ID",
        )
        self._name_binding(stage.binding, record.ioasid)
        require(-1 <= stage.reach <= LAST_TIER, "a tier that there is not")
        require(len({each.tier for each in stage.waiting.values()}) <= 1, "an event in two tiers")
        told = self._notifier.route(owner, event.kind).tiers
        for number, each in stage.waiting.items():
            require(number in told[each.tier], "an event to who is not told of its kind")
            require(self._held[number].get(event.seq) is stage, "an event that was lost")
            require(each.tier <= stage.reach, "an event ahead of its tier")
        self._chained[event.seq] = stage

    # -- subscriptions ------------------------------------------------------------------------

    def _compare_queue(self, each: Subscription) -> None:
        if each.attached:
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
            require(self._chained.get(seq, entry) is entry, "two messages of one number")
            for binding in entry.stale if isinstance(entry, Lapse) else ():
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
        notifier = self._notifier
        shown: set[int | None] = set()
        for binding, record in each.grants.items():
            self._name_binding(binding, record.ioasid)
            told = notifier.route(record.owner, UNBIND).tiers[each.tier]
            require(each.number in told, "a grant to who is not told of its end")
            shown.add(notifier.visible(record, each.tier)[2])
        # What a Resync would end, nothing else does.
        require(each.resync_due or not notifier.stale_grants(each, shown), "a grant without end")

    def _require_ended(self, each: Subscription, binding: int | None) -> None:
        record = None if binding is None else each.grants.get(binding)
        require(
            record is None or record.free_pending or record.binding != binding,
            "the end of a binding that goes on",
        )


def _held_by(each: Subscription) -> dict[int, Stage]:
    held = dict(each.folded)
    for seq, (_, entry) in each.outstanding.items():
        if isinstance(entry, Lapse):
            held.update(entry.folded)
        elif entry is not None:
            held[seq] = entry
    return held


def _before(stage: Stage) -> Bound:
    return UNBOUND if stage.event.kind is BIND else (stage.binding, stage.event.spid)


def _after(stage: Stage) -> Bound:
    return UNBOUND if stage.event.kind is UNBIND else (stage.binding, stage.event.spid)
