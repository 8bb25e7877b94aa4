"""Imports: sets that are made of what another host exported, in parts.

A set has its number, its quota and the numbers of its IDs from the beginning; those whose turn has
not come are withheld for it. Until the last of them is there it is INCOMING, so nothing begins.
"""

from bisect import bisect_left
from itertools import starmap

from ioasid.core._answers import Answer, Imported, Waiting
from ioasid.core._effects import Complete
from ioasid.core._exports import SetExport
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._notifier import Notifier
from ioasid.core._space import SHIFT, lowest_ones, ones, ranges_of, runs
from ioasid.core._tables import Tables
from ioasid.core._terms import ALLOC, IoasidRange
from ioasid.core._work import Importing

__all__: list[str] = []


def begin(
    tables: Tables,
    owner: IoasidSet,
    export: SetExport,
    chosen: list[tuple[int, int]],
    generation: int,
) -> Importing:
    """Begin to make a set of an export, of numbers that are free, as `words` has them."""
    count = sum(gained.bit_count() for _, gained in chosen)
    item = Importing(owner, export, chosen[::-1], generation, count)
    for number, gained in chosen:
        tables.space.withhold_word(number, gained)
    tables.imports[owner.sid] = item
    return item


def go_on_from(item: Importing, done: int) -> None:
    """Let the first IDs of a set be there, as they were in another process."""
    item.fresh = False
    while item.done < done:
        number, gained = _next(item, done - item.done)
        item.done += gained.bit_count()
        _append(item.ranges, runs(gained, number << SHIFT))
    item.source = _place(item.export.ranges, done)
    if item.finished:
        item.named = len(item.export.ioasids)
    else:
        which, past = item.source
        following = item.export.ranges[which].first + past
        item.named = bisect_left(item.export.ioasids, following, key=lambda each: each.ioasid)


def all_ranges(item: Importing) -> tuple[IoasidRange, ...]:
    """Return all IDs of a set, those that are to come as well."""
    ranges = [*item.ranges]
    _append(ranges, ranges_of((number << SHIFT, left) for number, left in item.left[::-1]))
    return tuple(ranges)


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
    while count:
        number, gained = _next(item, count)
        _make(tables, notifier, item, number, gained)
        made = gained.bit_count()
        item.done += made
        count -= made
        left -= made * cost
    if item.finished:
        del tables.imports[owner.sid]
    return left


def _next(item: Importing, count: int) -> tuple[int, int]:
    # At most so many of the IDs to come, of one word, which are not to come any more.
    number, left = item.left.pop()
    gained = lowest_ones(left, count)
    if gained != left:
        item.left.append((number, left ^ gained))
    return number, gained


def _append(ranges: list[IoasidRange], found: list[tuple[int, int]]) -> None:
    # The first of those found may go on where the last one that is there ends.
    if ranges and found and ranges[-1].last == found[0][0] - 1:
        found[0] = (ranges.pop().first, found[0][1])
    ranges += starmap(IoasidRange, found)


def _make(tables: Tables, notifier: Notifier, item: Importing, number: int, gained: int) -> None:
    owner, generation = item.owner, item.generation
    tables.space.readmit_word(number, gained)
    tables.space.take_word(number, gained, owner, generation)
    base = number << SHIFT
    found = runs(gained, base)
    if tables.changes is not None:
        for first, last in found:
            tables.changes.take(owner.sid, first, last)
    _append(item.ranges, found)
    sources, named = item.export.ranges, item.export.ioasids
    which, past = item.source
    for position in ones(gained):
        ioasid = base + position
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
    for number, lost in item.left:
        tables.space.readmit_word(number, lost)
    item.left.clear()
    item.count = item.done
    if item in tables.work:
        tables.work.remove(item)
    end_import(tables, item)


def _answer_of(item: Importing) -> Imported:
    return Imported(item.owner.sid, tuple(item.ranges), item.generation)


def _place(ranges: tuple[IoasidRange, ...], done: int) -> tuple[int, int]:
    for which, each in enumerate(ranges):
        length = each.last - each.first + 1
        if done < length:
            return which, done
        done -= length
    return len(ranges), 0
