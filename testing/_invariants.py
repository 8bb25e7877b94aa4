"""The invariants of the allocator, in one place, for every tool and test that drives one.

`check` runs what has to be true after every single message: of the state, and, with the `Record`
of a history, of what was asked, answered and delivered. Each check is a function of its own and
names its invariant (`INVARIANTS`) when it does not hold:

1. `quotas_and_capacity_add_up`
2. `every_id_is_in_one_set_or_the_pool`
3. `nothing_in_use_is_in_the_pool`, and of a history `nobody_loses_an_id_in_use`
4. `spids_are_unique_and_found`, `only_what_runs_is_bound`
5. `Observer.take`: the messages of one subscriber follow from those before
6. `no_tier_is_ahead_of_a_higher_one`, `a_resync_shows_what_there_is`, and of a history
   `Observers`: nobody is told ahead of a tier
7. `unchanged`: refusals change nothing
8. `every_request_is_answered_once`
9. `suspended_holders_keep_their_ids`, and of a history `nobody_suspended_loses_an_id`
10. `numbers_are_of_the_past`, and of a history `numbers_are_never_used_again`

The functions that take `Tables` are the only code outside the core that looks into them.
"""

from collections import Counter
from itertools import pairwise

from ioasid.core import MAX_GROUP_DEPTH, MAX_IN_FLIGHT, Allocator, LiveIoasid, SetState, Snapshot
from ioasid.core._events import every
from ioasid.core._holders import how_often
from ioasid.core._ioasid_records import Record
from ioasid.core._resyncs import missed_ends, visible
from ioasid.core._space import FULL, SHIFT, WITHHELD, ones
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Subscription
from ioasid.core._tables import Tables
from ioasid.core._work import Leaving, LettingGo, Turning
from ioasid.testing._violated import invariant

__all__ = ["check_state", "nothing_leaks", "unchanged"]


def check_state(allocator: Allocator) -> None:
    """Assert every invariant of the state."""
    tables = allocator._tables
    quotas_and_capacity_add_up(tables)
    every_id_is_in_one_set_or_the_pool(tables)
    nothing_in_use_is_in_the_pool(tables)
    spids_are_unique_and_found(tables)
    only_what_runs_is_bound(tables)
    no_tier_is_ahead_of_a_higher_one(tables)
    suspended_holders_keep_their_ids(tables)
    numbers_are_of_the_past(tables)
    references_add_up(tables)
    queues_are_bounded(tables)
    a_resync_shows_what_there_is(tables)
    nothing_is_left_undecided(tables)
    figures_add_up(tables)


@invariant(1)
def quotas_and_capacity_add_up(tables: Tables) -> None:
    """Invariant 1: no set has more than its quota, and nobody gives more than it has.

    Neither a group to the sets and groups directly below it, nor the system to those at the top;
    and what the system promised them can be had, for as many IDs are live or free.
    """
    below: Counter[str | None] = Counter()
    for owner in tables.sets.values():
        assert 0 <= owner.allocated <= owner.quota
        below[None if owner.group is None else owner.group.name] += owner.quota
    for name, group in tables.groups.items():
        assert name == group.name
        assert group.depth <= MAX_GROUP_DEPTH
        assert group.parent is None or tables.groups[group.parent.name] is group.parent
        below[None if group.parent is None else group.parent.name] += group.limit
    for owner in tables.sets.values():
        assert owner.group is None or tables.groups[owner.group.name] is owner.group
    for name, group in tables.groups.items():
        assert below[name] == group.used <= group.limit
    assert sorted(tables.groups) == tables.group_names
    numbers = sum(last - first + 1 for first, last in tables.reserved_numbers)
    assert numbers == tables.reserved_numbers.count
    assert tables.capacity == tables.available + tables.reserved + numbers + below[None]
    assert tables.available >= 0
    assert tables.reserved >= 0
    # What is withheld for sets that are being made is a part of their quotas.
    withheld_for_all = withheld(tables) - coming(tables)
    assert below[None] + tables.reserved <= tables.capacity - withheld_for_all


@invariant(2)
def every_id_is_in_one_set_or_the_pool(tables: Tables) -> None:
    """Invariant 2: the sets' IDs are disjoint, and with the pool they are all there are."""
    seen: dict[int, int] = {}
    for sid, owner in tables.sets.items():
        assert sid == owner.sid
        assert owner.allocated == sum(word.bit_count() for word in owner.members.values())
        for ioasid in owner.ioasids():
            assert ioasid not in seen
            assert ioasid < tables.capacity
            assert owner is tables.space.owner(ioasid)
            seen[ioasid] = sid
        assert owner.records.keys() <= seen.keys()
    assert tables.space.live == len(seen)
    for first, last in tables.reserved_numbers:
        assert 0 <= first <= last < tables.capacity
        assert tables.space.owner(first) is None
        assert tables.space.owner(last) is None
        assert tables.space.lowest_free(first, last) is None
    assert withheld(tables) == tables.reserved_numbers.count + coming(tables)
    for sid, item in tables.imports.items():
        owner = tables.sets[sid]
        assert item in tables.work
        assert owner is item.owner
        assert owner.state in (SetState.INCOMING, SetState.FROZEN)
        assert owner.allocated + item.count - item.done <= owner.quota
        assert item.done == sum(each.last - each.first + 1 for each in item.ranges)
        assert item.count - item.done == sum(left.bit_count() for _, left in item.left)
        end = item.ranges[-1].last if item.ranges else -1
        for number, left in reversed(item.left):
            for bit in ones(left):
                assert end < (end := (number << SHIFT) + bit)
                assert tables.space.owner(end) is None


@invariant(3)
def nothing_in_use_is_in_the_pool(tables: Tables) -> None:
    """Invariant 3: what somebody references or has a FREE to acknowledge of is allocated."""
    for holder in tables.holders.values():
        for ioasid in holder.references:
            assert tables.space.owner(ioasid) is not None
    for subscription in tables.subscriptions.values():
        for stage in pending_stages(subscription):
            if stage.ends_life:
                assert is_live(tables, stage.record)
                assert stage.record.free_pending
        for record in subscription.grants.values():
            assert is_live(tables, record)


@invariant(4)
def spids_are_unique_and_found(tables: Tables) -> None:
    """Invariant 4: a set's spids and the spids of its IDs are each other's inverse."""
    for owner in tables.sets.values():
        bound = {
            record.spid: ioasid
            for ioasid, record in owner.records.items()
            if record.spid is not None
        }
        assert bound == owner.spids
        assert len(bound) == sum(record.spid is not None for record in owner.records.values())


@invariant(4)
def only_what_runs_is_bound(tables: Tables) -> None:
    """Invariant 4: whoever has a spid is bound to it, unless its set is frozen or incoming.

    While the bindings of a set begin or end, those whose turn was have, and others may have.
    """
    for owner in tables.sets.values():
        item = tables.turnings.get(owner.sid)
        ends = owner.state is SetState.FREE_PENDING
        runs = owner.state is SetState.ACTIVE
        assert runs or ends or not owner.system
        seen = set()
        for record in owner.records.values():
            assert record.binding is None or record.spid is not None
            if not record.free_pending and record.spid is not None:
                if item is None:
                    seen.add(record.binding is not None)
                elif record.ioasid < item.ioasid:
                    assert item.begins == (record.binding is not None)
        # What is left of one that is freed in parts is as it was before.
        assert len(seen) < 2 if ends else seen <= {runs}


@invariant(6)
def no_tier_is_ahead_of_a_higher_one(tables: Tables) -> None:
    """Invariants 5 and 6: a chain is in seq order, and an event waits for one tier at a time."""
    waited_for: set[tuple[int, int]] = set()
    for ioasid, record in tables.chained.items():
        assert record.chain
        assert ioasid == record.ioasid
        assert is_live(tables, record)
        for earlier, later in pairwise(record.chain):
            assert earlier.event.seq < later.event.seq
            assert earlier.reach >= later.reach
            assert not earlier.ends_life
        for stage in record.chain:
            assert record.free_pending or not stage.ends_life
            if stage.waiting:
                tiers = {each.tier for each in stage.waiting.values()}
                assert len(tiers) == 1
                assert tiers.pop() <= stage.reach
            waited_for.update((number, stage.event.seq) for number in stage.waiting)
    assert waited_for == {
        (number, stage.event.seq)
        for number, subscription in tables.subscriptions.items()
        for stage in pending_stages(subscription)
    }
    for owner in tables.sets.values():
        for record in owner.records.values():
            assert bool(record.chain) == (record.ioasid in tables.chained)


@invariant(9)
def suspended_holders_keep_their_ids(tables: Tables) -> None:
    """Invariant 9: a suspended holder has no session, and everything it had is still there."""
    for name, holder in tables.holders.items():
        assert name == holder.name
        if holder.session is not None:
            assert tables.sessions[holder.session] is holder
            assert not holder.leaving
            continue
        for each in holder.subscriptions.values():
            assert not each.attached
            assert not each.outstanding
            assert each.resync_due
    assert len(tables.sessions) == sum(
        holder.session is not None for holder in tables.holders.values()
    )


@invariant(10)
def numbers_are_of_the_past(tables: Tables) -> None:
    """Invariant 10: the counters are past every sid and generation that there is."""
    assert all(0 <= sid < tables.next_sid for sid in tables.sets)
    for owner in tables.sets.values():
        for ioasid in owner.ioasids():
            assert 0 < tables.space.generation(ioasid) <= tables.generation
        for record in owner.records.values():
            for stage in record.chain:
                assert stage.event.generation == tables.space.generation(record.ioasid)


@invariant(0)
def references_add_up(tables: Tables) -> None:
    """What the holders have and what the IDs count is the same; each grant is of one binding."""
    held: dict[tuple[str, int], int] = {}
    granted: dict[tuple[str, int], int] = {}
    for name, holder in tables.holders.items():
        for ioasid, count in holder.references.items():
            held[name, ioasid] = count
    for each in tables.subscriptions.values():
        assert each.hold or not each.grants
        for record in each.grants.values():
            key = each.holder.name, record.ioasid
            granted[key] = granted.get(key, 0) + 1
    for owner in tables.sets.values():
        for record in owner.records.values():
            for holder in record.holders:
                assert held.pop((holder.name, record.ioasid), 0) > 0
            for holder, count in how_often(record.granted):
                assert granted.pop((holder.name, record.ioasid), 0) == count
    assert not held
    assert not granted


@invariant(0)
def queues_are_bounded(tables: Tables) -> None:
    """A queue has at most its bound, what is set aside included, besides one in hand."""
    for number, each in tables.subscriptions.items():
        assert number == each.number
        assert each.deferred.keys() <= each.outstanding.keys()
        assert len(each.outstanding) <= each.queue_size + 1
        lags = bool(each.outstanding) or each.folded_since is not None
        assert lags == (number in tables.lagging)
        assert each.folded_since is not None or not each.folded
        assert each.resync_due or each.folded_since is None
        # Who has nothing in its hands is back, and gets its Resync as soon as there is room.
        back = len(each.outstanding) <= min(len(each.deferred), each.queue_size)
        assert (number in tables.relistings) == (each.resync_due and each.attached and back)
        assert each.unseen <= each.grants.keys()
        assert each.listed <= each.grants.keys()
        assert not each.unseen & each.listed
        assert not each.listed or number in tables.relistings
        assert each.missed == (missed_ends(each) if each.resync_due else set())


@invariant(6)
def a_resync_shows_what_there_is(tables: Tables) -> None:
    """Invariants 5 and 6: what is listed already of a Resync is as its tier may know it now."""
    for number, item in tables.relistings.items():
        each = item.subscription
        assert number == each.number
        assert item in tables.work
        assert not item.finished
        listed = []
        bindings = set()
        for owner in tables.in_scope(each):
            for ioasid in owner.ioasids():
                if (owner.sid, ioasid) >= (item.sid, item.ioasid):
                    break
                record = owner.records.get(ioasid) or Record(ioasid, owner)
                state, spid, binding = visible(record, each.tier)
                generation = tables.space.generation(ioasid)
                about = owner.token, state, spid, record.data, generation
                listed.append(LiveIoasid(ioasid, owner.sid, *about))
                bindings.add(binding)
        assert listed == [*every(item.ioasids, item.ranges)]
        assert each.listed <= bindings
        assert not each.hold or bindings - {None} <= each.grants.keys() - each.unseen


@invariant(0)
def nothing_is_left_undecided(tables: Tables) -> None:
    """Whatever became possible has happened: nothing waits for a message that is not needed."""
    assert not tables.unsettled
    assert not tables.begun
    letting_go = [each.subscription for each in tables.work if isinstance(each, LettingGo)]
    for each in tables.subscriptions.values():
        assert each in letting_go or not (each.dealt or each.spent or each.leaving)
    leaving = [each.holder for each in tables.work if isinstance(each, Leaving)]
    assert leaving == [each for each in leaving if tables.holders[each.name] is each]
    assert {each.name for each in leaving} == {
        name for name, holder in tables.holders.items() if holder.leaving
    }
    turning = [each for each in tables.work if isinstance(each, Turning)]
    assert turning == list(tables.turnings.values())
    for item in turning:
        assert not item.finished
        assert item.owner is tables.sets[item.owner.sid]
        ends = SetState.INCOMING if item.begins else SetState.FREE_PENDING
        assert item.owner.state in (SetState.FROZEN, ends)
    for owner in tables.sets.values():
        assert owner.allocated or owner.state is not SetState.FREE_PENDING
        for ticket, freeze in owner.freezes.items():
            assert freeze is tables.waiters[ticket]
            assert freeze.frozen is owner
            assert owner.running
            assert owner.sid not in tables.turnings
            assert not freeze.pending
        assert owner.running is not None or owner.state is not SetState.FROZEN
        assert owner.records.keys() >= (owner.running or set())
        for ioasid, record in owner.records.items():
            assert ioasid == record.ioasid
            assert record.owner is owner
            assert not record.reclaimed
            assert not record.is_plain()
            if record.free_pending:
                assert record.holders or record.granted or record.chain
            else:
                assert not record.waiters
    for waiter in tables.waiters.values():
        if waiter.frozen is not None:
            assert waiter.frozen.freezes[waiter.ticket] is waiter
            continue
        assert waiter.pending or waiter.more
        for record in waiter.pending.values():
            assert (record.waiters or {})[waiter.ticket] is waiter


@invariant(0)
def figures_add_up(tables: Tables) -> None:
    """Every number that is kept is what counting would give."""
    owners = tables.sets.values()
    pending = sum(record.free_pending for owner in owners for record in owner.records.values())
    assert pending == len(tables.quarantine)
    ages = [record.freed_at for record in tables.quarantine.values()]
    assert sorted(ages) == ages
    for owner in owners:
        records = owner.records.values()
        assert owner.with_data == sum(record.data is not None for record in records)
    assert tables.crowded == {
        ioasid: record
        for ioasid, record in tables.chained.items()
        if len(record.chain) >= MAX_IN_FLIGHT
    }
    assert tables.sets_free_pending == sum(owner.state is SetState.FREE_PENDING for owner in owners)
    assert tables.tokens == {owner.token: owner.sid for owner in owners if owner.token is not None}
    assert [tables.system_sid] == [owner.sid for owner in owners if owner.system] or (
        tables.system_sid is None and not any(owner.system for owner in owners)
    )
    assert all(tables.space._owners[owner.slot] is owner for owner in owners)
    assert tables.space._owners[WITHHELD] is None
    assert len(tables.sets) == len(tables.space._owners) - 1 - len(tables.space._free_slots)
    assert tables.set_numbers == sorted(tables.sets)
    assert tables.holder_names == sorted(tables.holders)
    subscriptions = [each for each in tables.subscriptions.values() if not each.leaving]
    system = {each.number for each in subscriptions if each.sid is None and each.token is None}
    assert system == set(tables.system_subscriptions)
    for owner in owners:
        mine = {
            each.number
            for each in subscriptions
            if each.sid == owner.sid or (each.token is not None and each.token == owner.token)
        }
        assert mine == set(owner.subscriptions)


@invariant(0)
def nothing_leaks(allocator: Allocator) -> None:
    """After the last set, session and subscription are gone, the tables are as at the start."""
    tables = allocator._tables
    left = {
        "sets": tables.sets,
        "set_numbers": tables.set_numbers,
        "tokens": tables.tokens,
        "chained": tables.chained,
        "crowded": tables.crowded,
        "turnings": tables.turnings,
        "imports": tables.imports,
        "unsettled": tables.unsettled,
        "waiters": tables.waiters,
        "lagging": tables.lagging,
        "subscriptions": tables.subscriptions,
        "system_subscriptions": tables.system_subscriptions,
        "token_subscriptions": tables.token_subscriptions,
        "holders": tables.holders,
        "holder_names": tables.holder_names,
        "sessions": tables.sessions,
        "groups": tables.groups,
        "group_names": tables.group_names,
        "outbox": tables.outbox,
        "work": tables.work,
        "owners": [owner for owner in tables.space._owners if owner is not None],
    }
    assert {name: table for name, table in left.items() if table} == {}
    assert (tables.space.live, tables.quarantine, tables.sets_free_pending) == (0, {}, 0)
    numbers = tables.reserved_numbers.count
    assert withheld(tables) == numbers
    assert tables.capacity == tables.available + tables.reserved + numbers
    assert tables.system_sid is None


@invariant(7)
def unchanged(before: Snapshot, allocator: Allocator) -> None:
    """Invariant 7: a refused request leaves the state exactly as it was, and does nothing."""
    assert before == allocator.snapshot()
    assert allocator.drain() == []


def withheld(tables: Tables) -> int:
    """How many IDs the space gives to nobody, by its own bits."""
    space = tables.space
    words = [word.used for word in space._words.values()]
    # Of a word that is withheld as a whole there is only the mark.
    full = sum(marks.bit_count() for marks in space._full_words.values()) - words.count(FULL)
    return sum(word.bit_count() for word in words) + 1024 * full - space.live


def coming(tables: Tables) -> int:
    """How many IDs are withheld for sets that are being made."""
    return sum(item.count - item.done for item in tables.imports.values())


def is_live(tables: Tables, record: Record) -> bool:
    """Whether a record is that of an ID in its present life."""
    owner = tables.sets.get(record.owner.sid)
    return owner is record.owner and owner.records.get(record.ioasid) is record


def pending_stages(subscription: Subscription) -> list[Stage]:
    """The staged events that wait for a subscriber."""
    held = subscription.held_stages().values()
    return [stage for stage in held if subscription.number in stage.waiting]
