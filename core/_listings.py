"""Listings: the IDs of a set with what there is to say of each, and the rest of them as ranges."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ioasid.core._events import LiveIoasid, LiveRange
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._space import MASK, SHIFT, IdSpace
from ioasid.core._terms import IoasidState

__all__: list[str] = []

Look: TypeAlias = Callable[[Record], tuple[IoasidState, int | None]]
"""Returns the state and spid that an ID is listed with."""

Stretch: TypeAlias = tuple[int, int, int, int]
"""IDs as (first, last, generation of the first, by how much that grows with each)."""


def list_ioasids(
    space: IdSpace[IoasidSet],
    owner: IoasidSet,
    look: Look,
    ioasids: list[LiveIoasid],
    ranges: list[LiveRange],
) -> None:
    """Append the IDs of a set to lists, ascending: those with more to say, and the plain ones.

    What is plain is decided by what is shown, so that nobody learns here that an ID is referenced
    or that an event of it is under way.
    """
    recorded: dict[int, list[int]] = {}
    for ioasid in sorted(owner.records):
        recorded.setdefault(ioasid >> SHIFT, []).append(ioasid)
    for first, members in owner.words():
        known = recorded.get(first >> SHIFT, ())
        list_word(space, owner, first, members, known, look, ioasids, ranges)


def list_word(
    space: IdSpace[IoasidSet],
    owner: IoasidSet,
    first: int,
    members: int,
    recorded: Iterable[int],
    look: Look,
    ioasids: list[LiveIoasid],
    ranges: list[LiveRange],
) -> None:
    """Append IDs of a set that are in one word: `members` has a bit for each, from `first` on.

    `recorded` are those of them that have a record, ascending. What was listed before is lower.
    """
    sid, token = owner.sid, owner.token
    for ioasid in recorded:
        record = owner.records[ioasid]
        state, spid = look(record)
        data = record.data
        if spid is None and data is None and state is IoasidState.ACTIVE:
            continue
        ioasids.append(LiveIoasid(ioasid, sid, token, state, spid, data, space.generation(ioasid)))
        members ^= 1 << (ioasid & MASK)
    for stretch in space.live_ranges(first >> SHIFT, members) if members else ():
        joined = _joined(ranges[-1], stretch) if ranges and ranges[-1].sid == sid else None
        if joined is None:
            ranges.append(LiveRange(*stretch[:2], sid, token, *stretch[2:]))
        else:
            ranges[-1] = joined


def _joined(one: LiveRange, other: Stretch) -> LiveRange | None:
    # Both as one, if the other goes on where the one ends.
    first, end, generation, step = one.first, one.last, one.generation, one.step
    start, last, goes_on, other_step = other
    if start != end + 1:
        return None
    if first == end:
        # A single one may count up by anything, and so may two.
        step = goes_on - generation
    if (
        step not in (0, 1)
        or goes_on != generation + step * (start - first)
        or (start < last and step != other_step)
    ):
        return None
    return LiveRange(first, last, one.sid, one.token, generation, step)
