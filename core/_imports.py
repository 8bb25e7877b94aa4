"""Imports: sets that are made of what another host exported, in parts.

A set has its number, its quota and the numbers of its IDs from the beginning; those whose turn has
not come are withheld for it. Until the last of them is there it is INCOMING, so nothing begins.
"""

from bisect import bisect_left

from ioasid.core._answers import Answer, Imported, Waiting
from ioasid.core._effects import Complete
from ioasid.core._exports import SetExport
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._notifier import Notifier
from ioasid.core._space import words
from ioasid.core._tables import Tables
from ioasid.core._terms import ALLOC, IoasidRange
from ioasid.core._work import Importing

__all__: list[str] = []


def begin(
    tables: Tables,
    owner: IoasidSet,
    export: SetExport,
    ranges: tuple[IoasidRange, ...],
    generation: int,
) -> Importing:
    """Begin to make a set of an export, of numbers that are free."""
    count = sum(each.last - each.first + 1 for each in ranges)
    item = Importing(owner, export, ranges, generation, count)
    for each in ranges:
        tables.space.withhold(each.first, each.last)
    tables.imports[owner.sid] = item
    return item


def go_on_from(item: Importing, done: int) -> None:
    """Let the first IDs of a set be there, as they were in another process."""
    item.done, item.fresh = done, False
    item.target = _place(item.ranges, done)
    item.source = _place(item.export.ranges, done)
    if item.finished:
        item.named = len(item.export.ioasids)
    else:
        which, past = item.source
        following = item.export.ranges[which].first + past
        item.named = bisect_left(item.export.ioasids, following, key=lambda each: each.ioasid)


def still_withheld(item: Importing) -> list[tuple[int, int]]:
    """Return the numbers of the IDs of a set that are to come, as ranges."""
    which, past = item.target
    left = [(each.first, each.last) for each in item.ranges[which:]]
    if past:
        left[0] = (left[0][0] + past, left[0][1])
    return left


def import_some(tables: Tables, notifier: Notifier, item: Importing, left: int) -> int:
    """Make as many IDs of a set as are left for this request, lowest first.

    Returns what is left for others.
    """
    owner = item.owner
    # Whoever is told costs as much as the ID itself.
    cost = 1 + sum(map(len, notifier.route(owner, ALLOC).tiers))
    count = min(item.count - item.done, max(1, left // cost))
    if item.fresh and item.count <= left:
        count = item.count
    item.fresh = False
    while count and not item.finished:
        which, past = item.target
        first = item.ranges[which].first + past
        last = min(item.ranges[which].last, first + count - 1)
        _make(tables, notifier, item, first, last)
        made = last - first + 1
        item.done += made
        item.target = (which + 1, 0) if last == item.ranges[which].last else (which, past + made)
        count -= made
        left -= made * cost
    if item.finished:
        del tables.imports[owner.sid]
    return left


def _make(tables: Tables, notifier: Notifier, item: Importing, first: int, last: int) -> None:
    owner, generation = item.owner, item.generation
    tables.space.readmit(first, last)
    for number, gained in words([(first, last)]):
        tables.space.take_word(number, gained, owner, generation)
    if tables.changes is not None:
        tables.changes.take(owner.sid, first, last)
    sources, named = item.export.ranges, item.export.ioasids
    which, past = item.source
    for ioasid in range(first, last + 1):
        data = None
        source = sources[which].first + past
        if item.named < len(named) and named[item.named].ioasid == source:
            about = named[item.named]
            item.named += 1
            record = owner.record(ioasid)
            record.spid, record.data = about.spid, about.data
            data = about.data
            owner.with_data += data is not None
            if about.spid is not None:
                owner.spids[about.spid] = ioasid
            if tables.changes is not None:
                tables.changes.ioasids.add(ioasid)
        which, past = (which + 1, 0) if source == sources[which].last else (which, past + 1)
        notifier.tell_all(owner, ALLOC, ioasid, generation, None, data)
    item.source = (which, past)


def imported(tables: Tables, item: Importing) -> Answer:
    """Return the answer of a request that makes a set."""
    if item.finished:
        return _answer_of(item)
    item.tickets.append(tables.new_ticket())
    return Waiting(item.tickets[-1])


def end_import(tables: Tables, item: Importing) -> None:
    """Answer who waited until a set was made: it is."""
    answer = _answer_of(item)
    tables.outbox += (Complete(each, answer) for each in item.tickets)


def cut_short(tables: Tables, owner: IoasidSet) -> None:
    """Let a set that is to be freed get no more IDs than it has: those would be freed at once."""
    item = tables.imports.pop(owner.sid, None)
    if item is None:
        return
    for first, last in still_withheld(item):
        tables.space.readmit(first, last)
    which, past = item.target
    some = (IoasidRange(item.ranges[which].first, item.ranges[which].first + past - 1),)
    item.ranges = item.ranges[:which] + (some if past else ())
    item.count = item.done
    if item in tables.work:
        tables.work.remove(item)
    end_import(tables, item)


def _answer_of(item: Importing) -> Imported:
    return Imported(item.owner.sid, item.ranges, item.generation)


def _place(ranges: tuple[IoasidRange, ...], done: int) -> tuple[int, int]:
    for which, each in enumerate(ranges):
        length = each.last - each.first + 1
        if done < length:
            return which, done
        done -= length
    return len(ranges), 0
