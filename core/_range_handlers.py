"""The requests about ranges of numbers: reserving them, and freeing many IDs at once."""

from collections.abc import Iterator
from functools import partial
from typing import NoReturn

from ioasid.core import _check
from ioasid.core._answers import Answer, Released
from ioasid.core._errors import (
    CapacityExhausted,
    NotOfThisSet,
    RangeNotReserved,
    RangeTaken,
    StaleIoasid,
    UnknownIoasid,
)
from ioasid.core._handlers import Handlers, Outcome, capacity_record
from ioasid.core._holders import Holder
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._requests import CancelRange, FreeMany, ReserveRange
from ioasid.core._space import MASK, SHIFT, bits, lowest_one, runs, words
from ioasid.core._work import Freeing

__all__: list[str] = []


class RangeHandlers(Handlers):
    """The handlers of ranges."""

    def reserve_range(self, _: Holder, request: ReserveRange) -> Answer:
        """Take free numbers out of circulation."""
        tables = self._tables
        low, high = self._range(request.min, request.max)
        taken = tables.space.lowest_taken(low, high)
        if taken is not None:
            raise RangeTaken(low, high, taken)
        count = high - low + 1
        if count > tables.available:
            raise CapacityExhausted(count, tables.available)
        tables.reserve(low, high)
        tables.in_use = True
        return capacity_record(tables)

    def cancel_range(self, _: Holder, request: CancelRange) -> Answer:
        """Give back reserved numbers."""
        tables = self._tables
        low, high = self._range(request.min, request.max)
        missing = tables.reserved_numbers.lowest_missing(low, high)
        if missing is not None:
            raise RangeNotReserved(low, high, missing)
        tables.cancel(low, high)
        return capacity_record(tables)

    def free_many(self, _: Holder, request: FreeMany) -> Outcome:
        """Drop the references that a set has of many of its IDs."""
        ranges = _check.ranges(request.ranges)
        generation = _check.optional_number(request.generation, "generation")
        missing_ok = _check.flag(request.missing_ok, "missing_ok")
        owner = self._set(request.sid)
        freed = []
        for number, wanted in _present(owner, ranges) if missing_ok else words(ranges):
            first = number << SHIFT
            missing = wanted & ~owner.members.get(number, 0)
            if missing:
                self._refuse(owner, first + lowest_one(missing), ranges)
            stale = 0
            if generation is not None:
                stale = self._stale(number, wanted, generation)
                if stale and not missing_ok:
                    ioasid = first + lowest_one(stale)
                    raise StaleIoasid(ioasid, generation, self._tables.space.generation(ioasid))
            freed.append((first, wanted ^ stale))
        until = self._tables.generation
        item = Freeing(owner, freed[::-1], until, partial(_freed, owner, freed))
        self._tables.begun.append(item)
        return partial(self._parts.freed, item)

    def _stale(self, number: int, wanted: int, generation: int) -> int:
        # Which of these IDs of a word are in another life.
        stale = 0
        for first, last in runs(wanted, number << SHIFT):
            lives = self._tables.space.generations(first, last)
            if lives.count(generation) == len(lives):
                continue
            for ioasid, current in enumerate(lives, first):
                if current != generation:
                    stale |= 1 << (ioasid & MASK)
        return stale

    def _refuse(self, owner: IoasidSet, ioasid: int, ranges: list[tuple[int, int]]) -> NoReturn:
        # Those that are not there are counted in no longer than it takes to free the others.
        others = sum(last - first + 1 for first, last in ranges) - 1
        others -= sum(there.bit_count() for _, there in _present(owner, ranges))
        if self._tables.space.owner(ioasid) is None:
            raise UnknownIoasid(ioasid, others)
        raise NotOfThisSet(ioasid, owner.sid, token=owner.token, others=others)


def _present(owner: IoasidSet, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    # Those IDs in ranges that a set has, as `words` has them: no longer than the set, if the ranges
    # are. Words without any may be among them.
    place = 0
    for base, members in owner.words():
        wanted = 0
        while place < len(ranges) and ranges[place][0] <= base | MASK:
            first, last = ranges[place]
            if last >= base:
                wanted |= bits(max(first - base, 0), min(last - base, MASK))
            if last > base | MASK:
                break
            place += 1
        yield base >> SHIFT, wanted & members


def _freed(owner: IoasidSet, freed: list[tuple[int, int]]) -> Answer:
    return Released(not any(owner.members.get(first >> SHIFT, 0) & ids for first, ids in freed))
