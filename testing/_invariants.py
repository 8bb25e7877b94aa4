"""The invariants of the allocator, in one place, for every tool and test that drives one.

`check` runs what has to be true after every single message: of the state, and, with the `Record`
of a history, of what was asked, answered and delivered. Each check is a function of its own and
names its invariant (`INVARIANTS`) when it does not hold:

1. `quotas_and_capacity_add_up`
2. `every_id_is_in_one_set_or_the_pool`
3. `nothing_in_use_is_in_the_pool`, and of a history `nobody_loses_an_id_in_use`
4. `spids_are_unique_and_found`
5. `Observer.take`: the messages of one subscriber follow from those before
6. `no_tier_is_ahead_of_a_higher_one`, and of a history `Observers`: nobody is told ahead of a tier
7. `refusals_change_nothing`
8. `every_request_is_answered_once`
9. `suspended_holders_keep_their_ids`, and of a history `nobody_suspended_loses_an_id`

The functions that take `Tables` are the only code outside the core that looks into them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ioasid.core import Allocator, SetState, Snapshot
from ioasid.core._records import Lapse, Record, Stage, Subscription, Tables
from ioasid.testing._violated import invariant

__all__ = ["check_state", "nothing_leaks", "unchanged"]


def check_state(allocator: Allocator) -> None:
    """Assert every invariant of the state."""
    tables = allocator._tables
    quotas_and_capacity_add_up(tables)
    every_id_is_in_one_set_or_the_pool(tables)
    nothing_in_use_is_in_the_pool(tables)
    spids_are_unique_and_found(tables)
    no_tier_is_ahead_of_a_higher_one(tables)
    suspended_holders_keep_their_ids(tables)
    references_add_up(tables)
    queues_are_bounded(tables)
    nothing_is_left_undecided(tables)
    figures_add_up(tables)


@invariant(1)
def quotas_and_capacity_add_up(tables: Tables) -> None:
    """Invariant 1: no set has more than its quota, no two quotas share an ID."""
    for owner in tables.sets.values():
        assert 0 <= owner.allocated <= owner.quota
    quotas = sum(owner.quota for owner in tables.sets.values())
    assert tables.capacity == tables.available + tables.reserved + quotas
    assert tables.available >= 0
    assert tables.reserved >= 0


@invariant(2)
def every_id_is_in_one_set_or_the_pool(tables: Tables) -> None:
    """Invariant 2: the sets' IDs are disjoint, and with the pool they are all there are."""
    seen: dict[int, int] = {}
    for sid, owner in tables.sets.items():
        assert sid == owner.sid
        assert owner.allocated == sum(word.bit_count() for word in owner.members.values())
        for ioasid in members(owner.members):
            assert ioasid not in seen
            assert ioasid < tables.capacity
            assert sid == tables.space.owner(ioasid)
            seen[ioasid] = sid
        assert owner.records.keys() <= seen.keys()
    assert tables.live == len(seen)
    assert len(seen) == sum(word.used.bit_count() for word in tables.space._words.values())


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
            continue
        for each in holder.subscriptions.values():
            assert not each.attached
            assert not each.outstanding
            assert each.resync_due
    assert len(tables.sessions) == sum(
        holder.session is not None for holder in tables.holders.values()
    )


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
            for holder, count in Counter(record.granted).items():
                assert granted.pop((holder.name, record.ioasid), 0) == count
    assert not held
    assert not granted


@invariant(0)
def queues_are_bounded(tables: Tables) -> None:
    """A queue has at most its bound, what is set aside included, besides one in hand."""
    for number, each in tables.subscriptions.items():
        assert number == each.number
        assert each.deferred <= each.outstanding.keys()
        assert len(each.outstanding) <= each.queue_size + 1
        lags = bool(each.outstanding) or each.folded_since is not None
        assert lags == (number in tables.lagging)
        assert each.folded_since is not None or not each.folded
        assert each.resync_due or each.folded_since is None
        # Who has nothing in its hands is back, and gets its Resync as soon as there is room.
        assert not (each.resync_due and each.attached) or (
            len(each.outstanding) > min(len(each.deferred), each.queue_size)
        )


@invariant(0)
def nothing_is_left_undecided(tables: Tables) -> None:
    """Whatever became possible has happened: nothing waits for a message that is not needed."""
    assert not tables.unsettled
    for owner in tables.sets.values():
        assert owner.allocated or owner.state is SetState.ACTIVE
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
        assert waiter.pending
        for record in waiter.pending.values():
            assert (record.waiters or {})[waiter.ticket] is waiter


@invariant(0)
def figures_add_up(tables: Tables) -> None:
    """Every number that is kept is what counting would give."""
    owners = tables.sets.values()
    pending = sum(record.free_pending for owner in owners for record in owner.records.values())
    assert pending == tables.free_pending
    assert tables.sets_free_pending == sum(owner.state is SetState.FREE_PENDING for owner in owners)
    assert tables.tokens == {owner.token: owner.sid for owner in owners if owner.token is not None}
    assert [tables.system_sid] == [owner.sid for owner in owners if owner.system] or (
        tables.system_sid is None and not any(owner.system for owner in owners)
    )
    assert set(tables.sets) == {sid for sid in tables.sets if tables.sids.owner(sid) is not None}
    assert len(tables.sets) == sum(word.used.bit_count() for word in tables.sids._words.values())
    subscriptions = tables.subscriptions.values()
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
        "tokens": tables.tokens,
        "chained": tables.chained,
        "unsettled": tables.unsettled,
        "waiters": tables.waiters,
        "lagging": tables.lagging,
        "subscriptions": tables.subscriptions,
        "system_subscriptions": tables.system_subscriptions,
        "token_subscriptions": tables.token_subscriptions,
        "holders": tables.holders,
        "sessions": tables.sessions,
        "outbox": tables.outbox,
        "space": tables.space._words,
        "sids": tables.sids._words,
        "sid_words": tables.sid_words,
    }
    assert {name: table for name, table in left.items() if table} == {}
    assert (tables.live, tables.free_pending, tables.sets_free_pending) == (0, 0, 0)
    assert tables.capacity == tables.available + tables.reserved
    assert tables.system_sid is None


@invariant(7)
def unchanged(before: Snapshot, allocator: Allocator) -> None:
    """Invariant 7: a refused request leaves the state exactly as it was, and does nothing."""
    assert before == allocator.snapshot()
    assert allocator.drain() == []


def members(words: Mapping[int, int]) -> Iterable[int]:
    """The IDs of a set, from its words of 1,024 bits."""
    for word, bits in words.items():
        rest = bits
        while rest:
            yield word * 1024 + (rest & -rest).bit_length() - 1
            rest &= rest - 1


def is_live(tables: Tables, record: Record) -> bool:
    """Whether a record is that of an ID in its present life."""
    owner = tables.sets.get(record.owner.sid)
    return owner is record.owner and owner.records.get(record.ioasid) is record


def pending_stages(subscription: Subscription) -> list[Stage]:
    """The staged events that a subscriber has yet to acknowledge, wherever they are."""
    found = list(subscription.folded.values())
    for _, entry in subscription.outstanding.values():
        if isinstance(entry, Lapse):
            found += entry.folded.values()
        elif entry is not None:
            found.append(entry)
    return [stage for stage in found if subscription.number in stage.waiting]
