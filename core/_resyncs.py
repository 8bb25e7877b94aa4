"""Resyncs: what a subscriber that lagged, or begins with what is there, is given to go on from.

One may list more IDs than can be looked at while everybody else waits, so it is made in parts. What
is listed already follows whatever becomes of it until the last part, and everything that the
subscriber would be told is folded: it is given a Resync of one moment, that of its delivery.
"""

from bisect import bisect_left, bisect_right

from ioasid.core._effects import Deliver
from ioasid.core._events import LiveIoasid, LiveRange, Resync
from ioasid.core._grants import grant, stale_grants
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._listings import Look, list_word
from ioasid.core._space import MASK, SHIFT, WORD_COST, bits, words
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import BIND, IoasidState
from ioasid.core._work import Relisting

__all__: list[str] = []


def resync_if_back(tables: Tables, subscription: Subscription) -> None:
    """Begin the Resync of a subscriber that lagged, if its queue is empty and has room for it."""
    unacknowledged = len(subscription.outstanding)
    if (
        not subscription.resync_due
        or not subscription.attached
        or subscription.number in tables.relistings
        or unacknowledged > len(subscription.deferred)
        # Who sets everything aside gets no more before it acknowledged some of it.
        or unacknowledged > subscription.queue_size
    ):
        return
    item = tables.relistings[subscription.number] = Relisting(subscription)
    tables.begun.append(item)


def call_off(tables: Tables, subscription: Subscription) -> None:
    """End a Resync that is being made, if one is: nobody is there to take it."""
    item = tables.relistings.pop(subscription.number, None)
    if item is not None:
        item.finished = True
        if item in tables.work:
            tables.work.remove(item)
        subscription.unlist()


def list_some(tables: Tables, item: Relisting, left: int) -> int:
    """List as many IDs as are left for this request, and deliver the Resync behind the last.

    Returns what is left for others.
    """
    look = _look(tables, item.subscription)
    while not item.finished:
        owner = tables.next_in_scope(item.subscription, item.sid)
        if owner is None:
            _deliver(tables, item)
        elif left <= 0:
            break
        else:
            if owner.sid > item.sid:
                item.sid, item.ioasid = owner.sid, 0
            left = _list_set(tables, owner, item, look, left)
    return left


def _list_set(tables: Tables, owner: IoasidSet, item: Relisting, look: Look, left: int) -> int:
    records = owner.records
    few = sorted(records) if len(records) <= left else None
    cost = 1 if few is not None else WORD_COST
    left -= not owner.members
    for base, members in owner.words():
        low, high = max(item.ioasid, base), base | MASK
        if low > high:
            continue
        if left <= 0:
            return left
        if few is None:
            known = recorded(owner, low, high)
        else:
            known = few[bisect_left(few, low) : bisect_right(few, high)]
        if len(known) > left:
            # The first of those that are too many is where it goes on.
            high = known[left] - 1
            del known[left:]
        ranges = item.ranges
        found = len(ranges)
        chosen = members & bits(low - base, high - base)
        list_word(tables.space, owner, base, chosen, known, look, item.ioasids, ranges)
        item.ioasid = high + 1
        left -= cost + len(known) + len(ranges) - found
        if high < base | MASK:
            return left
    item.sid, item.ioasid = owner.sid + 1, 0
    return left


def relist(tables: Tables, owner: IoasidSet, first: int, last: int) -> None:
    """Let what is listed in the Resyncs that are being made follow a change of some IDs of a set.

    They are those from `first` to `last`.
    """
    for item in tables.relistings.values():
        subscription = item.subscription
        if not subscription.everywhere and subscription.number not in owner.subscriptions:
            continue
        end = last
        if owner.sid >= item.sid:
            end = min(last, item.ioasid - 1) if owner.sid == item.sid else -1
        if first <= end:
            _list_again(tables, owner, item, first, end)


def _list_again(tables: Tables, owner: IoasidSet, item: Relisting, first: int, last: int) -> None:
    ioasids: list[LiveIoasid] = []
    ranges: list[LiveRange] = []
    look = _look(tables, item.subscription)
    for number, wanted in words([(first, last)]):
        members = owner.members.get(number, 0) & wanted
        if members:
            base = number << SHIFT
            known = recorded(owner, max(first, base), min(last, base | MASK))
            list_word(tables.space, owner, base, members, known, look, ioasids, ranges)
    low, high = (owner.sid, first), (owner.sid, last)
    place = bisect_left(item.ioasids, low, key=_ioasid)
    item.ioasids[place : bisect_right(item.ioasids, high, lo=place, key=_ioasid)] = ioasids
    place = bisect_left(item.ranges, low, key=_last)
    end = bisect_right(item.ranges, high, lo=place, key=_first)
    if place < end:
        # What is left of ranges that these IDs were a part of.
        before, after = item.ranges[place], item.ranges[end - 1]
        if before.first < first:
            ranges.insert(0, _part(before, before.first, first - 1))
        if after.last > last:
            ranges.append(_part(after, last + 1, after.last))
    item.ranges[place:end] = ranges


def _part(one: LiveRange, first: int, last: int) -> LiveRange:
    generation = one.generation + one.step * (first - one.first)
    return LiveRange(first, last, one.sid, one.token, generation, one.step)


def _ioasid(each: LiveIoasid) -> tuple[int, int]:
    return each.sid, each.ioasid


def _first(each: LiveRange) -> tuple[int, int]:
    return each.sid, each.first


def _last(each: LiveRange) -> tuple[int, int]:
    return each.sid, each.last


def recorded(owner: IoasidSet, first: int, last: int) -> list[int]:
    """Return the IDs in a range that have a record, ascending."""
    # Whichever are fewer are looked at.
    records = owner.records
    if len(records) <= last - first:
        return sorted([each for each in records if first <= each <= last])
    return [*filter(records.__contains__, range(first, last + 1))]


def _look(tables: Tables, subscription: Subscription) -> Look:
    tier, holds = subscription.tier, subscription.hold

    def look(record: Record) -> tuple[IoasidState, int | None]:
        state, spid, binding = visible(record, tier)
        if binding is not None and holds:
            grant(tables, subscription, record, binding)
            if binding in subscription.unseen:
                subscription.unseen.remove(binding)
                subscription.listed.add(binding)
        return state, spid

    return look


def _deliver(tables: Tables, item: Relisting) -> None:
    subscription = item.subscription
    tables.seq += 1
    fold = Fold(subscription.folded, tuple(sorted(subscription.missed)))
    since = subscription.folded_since
    subscription.outstanding[tables.seq] = (since[1] if since else tables.now, fold)
    subscription.folded = {}
    subscription.folded_since = None
    subscription.missed = set()
    subscription.listed = set()
    subscription.resync_due = False
    tables.lagging[subscription.number] = subscription
    resync = Resync(tables.seq, tuple(item.ioasids), tuple(item.ranges))
    tables.outbox.append(Deliver((subscription.number,), resync))
    del tables.relistings[subscription.number]
    item.finished = True


def visible(record: Record, tier: int) -> tuple[IoasidState, int | None, int | None]:
    """Return an ID's state, spid and binding as of the last event offered to a tier."""
    for stage in record.chain:
        if stage.reach < tier and stage.event.publisher is None:
            # The state before an event can be read off it.
            if stage.event.kind is BIND:
                return IoasidState.ACTIVE, None, None
            return IoasidState.ACTIVE, stage.event.spid, stage.binding
    if record.free_pending:
        return IoasidState.FREE_PENDING, record.bound_spid, None
    return IoasidState.ACTIVE, record.bound_spid, record.binding


def missed_ends(subscription: Subscription) -> set[int]:
    """Return what a subscriber has `missed`, as the rest of the state says."""
    shown = {
        binding
        for binding, record in subscription.grants.items()
        if visible(record, subscription.tier)[2] == binding
    }
    return set(stale_grants(subscription, shown))
