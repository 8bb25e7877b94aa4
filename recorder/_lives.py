"""The lives of IDs: when each began, was freed and ended, who had it, and what it waited for."""

from collections.abc import Iterable
from typing import Final

from attrs import define, field

from ioasid.core import (
    AllocMany,
    Explanation,
    ImportSet,
    IoasidRange,
    IoasidRecord,
    IoasidState,
    Snapshot,
)
from ioasid.recorder._lines import Decided
from ioasid.recorder._replica import Replica
from ioasid.recorder._rows import Kind, Life, Row, Span, Timeline, Waits

__all__: list[str] = []

MANY: Final = 64
"""So many IDs that are allocated at once have one bar for all of them."""


@define(eq=False)
class Lives:
    """The lives of one allocator's IDs."""

    timeline: Timeline
    replica: Replica
    present: dict[int, Life] = field(factory=dict)
    """By ID."""
    many: list[Life] = field(factory=list)
    """Those of many IDs."""
    quarantine: dict[int, Life] = field(factory=dict)
    allocated: int = 0

    def begin(self, snapshot: Snapshot, row: int, time: float) -> None:
        """Begin with the IDs that a snapshot has."""
        for sid in (owner.sid for owner in snapshot.sets):
            for each in self.replica.live(sid):
                self._begin(each.first, each.last, sid, 0, row, time, at_once=True)
                self.allocated += _size(each)
            for record in self.replica.records(sid):
                self._changed(record, row, time)
        self._explain(self.quarantine.values(), row, time)
        self._count(row)

    def _count(self, row: int) -> None:
        quarantined = len(self.quarantine)
        counts = self.timeline.counts
        now = (self.allocated - quarantined, quarantined)
        if not counts or counts[-1][1:] != now:
            counts.append((row, *now))

    def _begin(
        self,
        first: int,
        last: int,
        sid: int,
        generation: int,
        row: int,
        time: float,
        *,
        at_once: bool,
    ) -> None:
        if at_once and last - first >= MANY:
            life = self._new(first, last, sid, generation, row, time)
            life.left = last - first + 1
            self.many.append(life)
            return
        for ioasid in range(first, last + 1):
            self.present[ioasid] = self._new(ioasid, ioasid, sid, generation, row, time)
            self.present[ioasid].counts.append((row, 1))

    def _new(self, first: int, last: int, sid: int, generation: int, row: int, time: float) -> Life:
        if not generation:
            record = self.replica.record(first)
            generation = 0 if record is None else record.generation
        lives = self.timeline.lives
        life = Life(len(lives), first, last, generation, sid, row, time)
        lives.append(life)
        return life

    def life(self, ioasid: int) -> Life | None:
        """Return the life that an ID has now: its own, or that of many it is one of."""
        found = self.present.get(ioasid)
        if found is None:
            found = next((each for each in self.many if each.ioasid <= ioasid <= each.last), None)
        return found

    # -- a decision ---------------------------------------------------------------------------

    def change(self, line: Decided, row: int) -> None:
        """Note what a decision changed; `row` is its first one."""
        changes, time = line.changes, line.time
        for span in changes.allocated:
            sid = getattr(line.request, "sid", None)
            if sid is None:
                sid = changes.sets[0].sid
            many = isinstance(line.request, AllocMany | ImportSet)
            generation = changes.generation
            self._begin(span.first, span.last, sid, generation, row, time, at_once=many)
        for record in changes.ioasids:
            self._changed(record, row, time)

    def _changed(self, record: IoasidRecord, row: int, time: float) -> None:
        life = self.present.get(record.ioasid)
        if life is None:
            # One of many, of which there is more to say now.
            among = self.life(record.ioasid)
            first, begun = (row, time) if among is None else (among.first, among.begun)
            life = self._new(
                record.ioasid, record.ioasid, record.sid, record.generation, first, begun
            )
            self.present[record.ioasid] = life
            life.counts.append((first, 1))
        if not life.counts or life.counts[-1][1] != record.reference_count:
            life.counts.append((row, record.reference_count))
        if record.state is IoasidState.FREE_PENDING and life.freed is None:
            life.freed, life.freed_at = row, time
            self.quarantine[record.ioasid] = life

    def look(self, line: Decided, row: int, asked_by: Iterable[str]) -> None:
        """See what the IDs in quarantine wait for, as far as who asked may have changed that."""
        if not self.quarantine:
            return
        gone = {each for span in line.changes.reclaimed for each in _among(span, self.quarantine)}
        touched = {record.ioasid for record in line.changes.ioasids}
        # One of several subscribers of a tier is done with it, or gone, and no record says so.
        names = {*asked_by, getattr(line.request, "name", "")}
        touched |= {
            ioasid
            for ioasid, life in self.quarantine.items()
            if life.spans and not names.isdisjoint(life.spans[-1].who)
        }
        looked = touched & self.quarantine.keys() - gone
        self._explain([self.quarantine[each] for each in sorted(looked)], row, line.time)

    def _explain(self, lives: Iterable[Life], row: int, time: float) -> None:
        for life in lives:
            waits, who = waits_for(self.replica.explain(life.ioasid))
            span = life.spans[-1] if life.spans else None
            if span is not None and (span.waits, span.who) == (waits, who):
                continue
            if span is not None:
                span.end, span.ended = row, time
            life.spans.append(Span(waits, who, row, time))

    def mark(self, row: Row) -> None:
        """Say of a row which lives it is about, and whose they are."""
        lives = [life for each in row.ioasids if (life := self.life(each)) is not None]
        row.lives = tuple(sorted({each.number for each in lives}))
        row.sids = tuple(sorted({*row.sids, *(each.sid for each in lives)}))

    def bury(self, line: Decided, row: int) -> None:
        """End the lives of what went back to the pool, in the row that said so."""
        rows = self.timeline.rows
        changes = line.changes
        self.allocated += sum(map(_size, changes.allocated))
        self._count(row)
        if not changes.reclaimed:
            return
        self.allocated -= sum(map(_size, changes.reclaimed))
        row = next(at for at in range(len(rows) - 1, row, -1) if rows[at].kind is Kind.RECLAIM)
        for span in line.changes.reclaimed:
            for ioasid in _among(span, self.present):
                self.quarantine.pop(ioasid, None)
                self._end(self.present.pop(ioasid), row, line.time)
            for life in tuple(self.many):
                common = min(span.last, life.last) - max(span.first, life.ioasid) + 1
                life.left -= max(common, 0)
                if not life.left:
                    self.many.remove(life)
                    self._end(life, row, line.time)
        self._count(row)

    def _end(self, life: Life, row: int, time: float) -> None:
        if life.freed is None:
            life.freed, life.freed_at = row, time
        life.end, life.ended = row, time
        life.counts.append((row, 0))
        if life.spans and life.spans[-1].end is None:
            life.spans[-1].end, life.spans[-1].ended = row, time

    def close(self, row: int) -> None:
        """The allocator is told of no more: what still lives ends before `row`, undone."""
        for life in (*self.present.values(), *self.many):
            life.until = row - 1


def _size(span: IoasidRange) -> int:
    return span.last - span.first + 1


def _among(span: IoasidRange, lives: dict[int, Life]) -> list[int]:
    # Whichever are fewer: those of the span, or those that there are.
    if span.last - span.first < len(lives):
        return [each for each in range(span.first, span.last + 1) if each in lives]
    return [each for each in lives if span.first <= each <= span.last]


def waits_for(explanation: Explanation) -> tuple[Waits, tuple[str, ...]]:
    """Return what an ID in quarantine waits for first, and who that is."""
    for event in explanation.events:
        if event.waits_for:
            names = {each.holder for each in event.waits_for}
            return Waits(event.waits_for[0].priority), tuple(sorted(names))
    taken = tuple(each.holder for each in explanation.references if each.taken)
    if taken:
        return Waits.REFERENCE, taken
    ends = [each for held in explanation.references for each in held.ends]
    if ends:
        return Waits(ends[0].priority), tuple(sorted({each.holder for each in ends}))
    return Waits.REFERENCE, tuple(each.holder for each in explanation.references)
