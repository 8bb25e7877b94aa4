"""The state as a snapshot."""

from collections.abc import Iterable
from itertools import starmap
from typing import assert_never

from ioasid.core._generations import pack
from ioasid.core._groups import Group
from ioasid.core._holders import Holder
from ioasid.core._imports import all_ranges
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._snapshot import (
    VERSION,
    Snapshot,
    SnapshotFreeing,
    SnapshotGroup,
    SnapshotHolder,
    SnapshotImporting,
    SnapshotLeaving,
    SnapshotLettingGo,
    SnapshotLookingAgain,
    SnapshotOffer,
    SnapshotRelisting,
    SnapshotSet,
    SnapshotStage,
    SnapshotSubscription,
    SnapshotTurning,
    SnapshotWork,
)
from ioasid.core._space import runs
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import Data, IoasidRange, ReuseOrder
from ioasid.core._work import (
    Freeing,
    Importing,
    Leaving,
    LettingGo,
    LookingAgain,
    Relisting,
    Turning,
    Work,
)

__all__: list[str] = []


def capture(tables: Tables) -> Snapshot:
    """Return the state as a message."""
    chained = {
        stage.event.seq: stage for record in tables.chained.values() for stage in record.chain
    }
    stages = dict(chained)
    subscriptions = tuple(
        _take_subscription(tables.subscriptions[number], stages)
        for number in sorted(tables.subscriptions)
    )
    return Snapshot(
        version=VERSION,
        capacity=tables.capacity,
        reserved=tables.reserved,
        in_use=tables.in_use,
        seq=tables.seq,
        next_session=tables.next_session,
        next_subscription=tables.next_subscription,
        next_sid=tables.next_sid,
        generation=tables.generation,
        sets=tuple(_take_set(tables, tables.sets[sid]) for sid in tables.set_numbers),
        holders=tuple(_take_holder(tables.holders[name]) for name in tables.holder_names),
        subscriptions=subscriptions,
        stages=tuple(
            SnapshotStage(
                each.event,
                each.binding,
                each.reach,
                tuple(sorted(each.waiting)),
                seq in chained,
                each.offered_at,
            )
            for seq, each in sorted(stages.items())
        ),
        index=tables.index,
        reserved_numbers=tuple(starmap(IoasidRange, tables.reserved_numbers)),
        order=ReuseOrder.LOWEST if tables.position is None else ReuseOrder.CYCLIC,
        position=tables.position or 0,
        groups=tuple(_take_group(tables.groups[name]) for name in tables.group_names),
        now=tables.now,
        part=tables.part,
        work=tuple(map(_take_work, tables.work)),
    )


def _take_work(item: Work) -> SnapshotWork:
    match item:
        case Freeing(owner, chosen):
            ranges = (each for first, word in chosen[::-1] for each in runs(word, first))
            return SnapshotFreeing(owner.sid, tuple(starmap(IoasidRange, ranges)), item.until)
        case LettingGo(subscription):
            return SnapshotLettingGo(subscription.number)
        case Leaving(holder):
            return SnapshotLeaving(holder.name)
        case LookingAgain(word):
            assert word is not None, "what is done is no longer among them"
            return SnapshotLookingAgain(word)
        case Relisting(subscription, sid, ioasid):
            return SnapshotRelisting(subscription.number, sid, ioasid)
        case Turning(owner, begins, ioasid):
            return SnapshotTurning(owner.sid, begins, ioasid)
        case Importing(owner, export):
            return SnapshotImporting(
                owner.sid, export, all_ranges(item), item.generation, item.done
            )
        case _:
            assert_never(item)


def _take_group(group: Group) -> SnapshotGroup:
    parent = None if group.parent is None else group.parent.name
    return SnapshotGroup(group.name, parent, group.limit)


def _take_holder(holder: Holder) -> SnapshotHolder:
    referenced = sorted(holder.references)
    return SnapshotHolder(
        holder.name,
        holder.session,
        tuple(referenced),
        tuple(map(holder.references.__getitem__, referenced)),
        holder.leaving,
        holder.owner,
        holder.since,
    )


def _take_set(tables: Tables, owner: IoasidSet) -> SnapshotSet:
    records = owner.records
    unsorted = [*owner.spids]
    spids = sorted(unsorted)
    if spids == unsorted:
        # As they are where they were bound in this order.
        bound = tuple(owner.spids.values())
    else:
        bound = tuple(map(owner.spids.__getitem__, spids))
    # To look at each record takes longer than all else.
    freed: list[int] = []
    if tables.quarantine:
        freed = sorted([ioasid for ioasid, each in records.items() if each.free_pending])
    data: list[tuple[int, Data]] = []
    if owner.with_data:
        data = [(each.ioasid, each.data) for each in records.values() if each.data is not None]
        data.sort()
    ranges, words = pack(
        (number, owner.members[number], *tables.space.lives(number, owner.members[number]))
        for number in sorted(owner.members)
    )
    return SnapshotSet(
        owner.sid,
        owner.token,
        owner.token_type,
        owner.quota,
        owner.system,
        owner.state,
        None if owner.group is None else owner.group.name,
        ranges,
        words,
        tuple(spids),
        bound,
        tuple([records[ioasid].binding for ioasid in bound]),
        tuple(freed),
        tuple([records[ioasid].freed_at for ioasid in freed]),
        tuple(data),
    )


def _seqs(found: Iterable[Stage], stages: dict[int, Stage]) -> tuple[int, ...]:
    named = {stage.event.seq: stage for stage in found}
    stages.update(named)
    return tuple(named)


def _take_subscription(each: Subscription, stages: dict[int, Stage]) -> SnapshotSubscription:
    grants = sorted(each.grants)
    outstanding = []
    for seq, (offered, entry) in each.outstanding.items():
        fold = entry if isinstance(entry, Fold) else Fold({}, ())
        if isinstance(entry, Stage):
            stages[seq] = entry
        outstanding.append(
            SnapshotOffer(
                seq,
                seq in each.deferred,
                isinstance(entry, Stage),
                isinstance(entry, Fold),
                _seqs((fold.folded[folded] for folded in sorted(fold.folded)), stages),
                fold.stale,
                offered,
                each.deferred.get(seq, 0.0),
            )
        )
    return SnapshotSubscription(
        each.number,
        each.holder.name,
        each.sid,
        each.token,
        tuple(sorted(each.kinds)),
        each.priority,
        each.hold,
        each.queue_size,
        each.acknowledge_within,
        each.attached,
        tuple(outstanding),
        each.resync_due,
        _seqs((each.folded[seq] for seq in sorted(each.folded)), stages),
        None if each.folded_since is None else each.folded_since[0],
        tuple(grants),
        tuple([each.grants[binding].ioasid for binding in grants]),
        0.0 if each.folded_since is None else each.folded_since[1],
        tuple(sorted(each.unseen | each.listed)),
        _seqs((each.dealt[seq] for seq in sorted(each.dealt)), stages),
        tuple(each.spent),
        each.leaving,
        each.awaited,
    )
