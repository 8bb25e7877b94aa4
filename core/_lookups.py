"""Look-ups in parts: what takes long to find out, and changes nothing.

They are made beside all else, and are in no snapshot. What the next host of a frozen set is told
of it is found out word by word of the ID space. Nothing stands still for that: what is freed or
unbound meanwhile spoils its word, which is looked at again, so an export is as of its answer.
"""

from itertools import chain
from typing import Any, Final

from ioasid.core._effects import AskAgain, Complete
from ioasid.core._errors import IoasidError
from ioasid.core._exports import ExportedIoasid, SetExport, check_export, checking
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._resyncs import recorded
from ioasid.core._space import MASK, SHIFT, WORD_COST, runs
from ioasid.core._tables import Tables
from ioasid.core._terms import IoasidRange
from ioasid.core._work import Checking, Exporting, Freeing

__all__: list[str] = []

EVERYTHING: Final = 2**63
"""A part that leaves nothing."""

KNOWN: Final = 8
"""So many exports are known to be checked: whoever waited for that asks again at once."""


def export(tables: Tables, owner: IoasidSet) -> SetExport | Exporting:
    """Return what there is to know of a set, or what finds it out if that takes long."""
    item = tables.exports.get(owner.sid)
    if item is None:
        item = Exporting(owner)
        cost = len(owner.records) + len(owner.members) * WORD_COST
        if cost <= tables.part and not _is_freed(tables, owner):
            _look(item, EVERYTHING)
            return _made(item)
        tables.exports[owner.sid] = item
    return item


def spoil(tables: Tables, owner: IoasidSet, ioasid: int) -> None:
    """Note that an ID of a set was freed or unbound."""
    item = tables.exports.get(owner.sid)
    if item is not None:
        item.spoilt.add(ioasid & ~MASK)


def end_export(tables: Tables, owner: IoasidSet) -> None:
    """Let whoever waits for the export of a set ask again: it does not stay frozen."""
    item = tables.exports.pop(owner.sid, None)
    if item is not None:
        tables.outbox += map(AskAgain, item.tickets)


def export_some(tables: Tables) -> None:
    """Do a part of the oldest export, and answer who waits for it if that was the last."""
    for item in tuple(tables.exports.values()):
        if not item.tickets:
            # Everybody has given up.
            del tables.exports[item.owner.sid]
        elif not _is_freed(tables, item.owner):
            _look(item, tables.part)
            if not item.left and not item.spoilt:
                del tables.exports[item.owner.sid]
                found = _made(item)
                tables.outbox += (Complete(each, found) for each in item.tickets)
            return


def check(tables: Tables, given: Any) -> Checking | int:
    """Return how many IDs an export has, or what checks it if that takes long.

    Raises `InvalidArgument`. Whoever waits for that asks again afterwards, and there is nothing
    left to check.
    """
    if not _is_long(tables, given):
        return check_export(given)
    for place, (known, found) in enumerate(tables.checked):
        if known is given or known == given:
            del tables.checked[place]
            if isinstance(found, IoasidError):
                raise found
            return found
    for item in tables.checks:
        if item.export is given:
            return item
    item = Checking(given, checking(given))
    tables.checks.append(item)
    return item


def check_at_once(tables: Tables, given: Any) -> None:
    """Check what is to be imported next, however long that takes. Raises `InvalidArgument`."""
    if _is_long(tables, given):
        _note_checked(tables, given, check_export(given))


def _is_long(tables: Tables, given: Any) -> bool:
    return (
        type(given) is SetExport
        and type(given.ranges) is tuple
        and type(given.ioasids) is tuple
        and len(given.ranges) + len(given.ioasids) > tables.part
    )


def _note_checked(tables: Tables, given: SetExport, found: int | IoasidError) -> None:
    tables.checked = [(given, found), *tables.checked[: KNOWN - 1]]


def check_some(tables: Tables) -> None:
    """Do a part of the oldest check, and let who waits for it ask again if that was the last."""
    item = tables.checks[0]
    error: IoasidError | None = None
    more = bool(item.tickets)
    try:
        for _ in range(tables.part if more else 0):
            count = next(item.steps, None)
            if count is None:
                more = False
                break
            item.count = count
    except IoasidError as raised:
        more, error = False, raised.with_traceback(None)
    if not more:
        del tables.checks[0]
        if item.tickets:
            _note_checked(tables, item.export, item.count if error is None else error)
            tables.outbox += map(AskAgain, item.tickets)


def _is_freed(tables: Tables, owner: IoasidSet) -> bool:
    # What a part of a free that is to come takes does not go along.
    return any(type(each) is Freeing and each.owner is owner for each in tables.work)


def _look(item: Exporting, left: int) -> None:
    owner = item.owner
    if item.left is None:
        item.left = [base for base, _ in owner.words()][::-1]
        item.spoilt.clear()
    while left > 0 and (item.left or item.spoilt):
        base = item.left.pop() if item.left else item.spoilt.pop()
        item.spoilt.discard(base)
        members = owner.members.get(base >> SHIFT, 0)
        ioasids = []
        known = recorded(owner, base, base | MASK)
        for ioasid in known:
            record = owner.records[ioasid]
            if record.free_pending:
                members &= ~(1 << (ioasid & MASK))
            elif (record.spid, record.data) != (None, None):
                ioasids.append(ExportedIoasid(ioasid, record.spid, record.data))
        ranges = [IoasidRange(*each) for each in runs(members, base)] if members else []
        item.found[base] = ranges, ioasids
        left -= WORD_COST + len(known) + len(ranges)


def _made(item: Exporting) -> SetExport:
    owner = item.owner
    ranges: list[IoasidRange] = []
    words = [item.found[base] for base in sorted(item.found)]
    for found, _ in words:
        end = len(ranges)
        ranges += found
        if end and found and ranges[end - 1].last == found[0].first - 1:
            ranges[end - 1 : end + 1] = [IoasidRange(ranges[end - 1].first, found[0].last)]
    ioasids = tuple(chain.from_iterable(each for _, each in words))
    return SetExport(owner.token, owner.token_type, owner.quota, tuple(ranges), ioasids)
