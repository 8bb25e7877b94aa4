"""The state again from a snapshot."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, assert_never

from msgspec import MsgspecError
from msgspec.msgpack import Decoder, Encoder

from ioasid.core import _check
from ioasid.core._budget import charge
from ioasid.core._capture import capture
from ioasid.core._consistency import refuse_contradictions, require, require_past, settle
from ioasid.core._errors import IoasidError, MalformedMessage
from ioasid.core._events import Event
from ioasid.core._exports import check_export
from ioasid.core._freezes import find_running
from ioasid.core._generations import unpack
from ioasid.core._groups import Group
from ioasid.core._holders import Crowd, Holder, joined
from ioasid.core._imports import go_on_from
from ioasid.core._ioasid_records import Record
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._notifier import Notifier
from ioasid.core._resyncs import missed_ends, relist
from ioasid.core._reuse import CyclicSpace
from ioasid.core._routes import TIERS
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
    SnapshotRelisting,
    SnapshotSet,
    SnapshotSubscription,
    SnapshotTurning,
    SnapshotWork,
)
from ioasid.core._space import MASK, SHIFT, IdSpace, words
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import (
    BIND,
    FREE,
    MAX_GROUP_DEPTH,
    MAX_IN_FLIGHT,
    RECLAIM,
    UNBIND,
    IoasidRange,
    ReuseOrder,
    SetState,
    TokenType,
)
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

_ENCODER: Final = Encoder()
_DECODER: Final = Decoder(Snapshot)
_BEYOND: Final = "an ID beyond the capacity"
_NO_ID: Final = "something of an ID that there is not"
_CONTRADICTIONS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MsgspecError,
    RecursionError,
    TypeError,
    ValueError,
)


def restore(snapshot: Snapshot) -> Tables:
    """Return tables in the state that a snapshot was taken of.

    Raises `MalformedMessage` for a snapshot of another version or one that contradicts itself.
    """
    if type(snapshot) is not Snapshot:
        raise MalformedMessage("snapshot", f"{type(snapshot).__name__} is no snapshot")
    try:
        # Made in process, it may hold anything; encoded and decoded, what its types say.
        given = _DECODER.decode(_ENCODER.encode(snapshot))
        require(given.version == VERSION, f"it is of version {given.version}, not {VERSION}")
        tables = _Restorer(given).tables
        refuse_contradictions(tables)
        settle(tables)
        same = not tables.outbox and capture(tables) == given
        require(same, "something is undecided, out of order, twice, or of no use to anybody")
        return tables
    except _CONTRADICTIONS as error:
        reason = f"{error!s:.80} ({type(error).__name__})"
        raise MalformedMessage("snapshot", reason) from None
    except IoasidError as error:
        raise MalformedMessage("snapshot", error.message) from None


def _space(order: ReuseOrder, position: int) -> IdSpace[IoasidSet]:
    return CyclicSpace(position=position) if order is ReuseOrder.CYCLIC else IdSpace()


def _rows(*columns: tuple[float | None, ...]) -> Iterator[tuple[Any, ...]]:
    require(len(set(map(len, columns))) == 1, "columns that do not fit together")
    return zip(*columns, strict=True)


class _Restorer:
    """Builds the tables, holders first: what a part refers to is there before it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._stages = {each.event.seq: each for each in snapshot.stages}
        self._made: dict[int, Stage] = {}
        self._records: dict[int, Record] = {}
        self._crowds: dict[tuple[Holder, ...], tuple[Holder, ...]] = {}
        tables = self.tables = Tables(
            _check.count(snapshot.capacity, "capacity"),
            space=_space(snapshot.order, _check.number(snapshot.position, "position")),
            reserved=_check.number(snapshot.reserved, "reserved"),
            index=_check.number(snapshot.index, "index"),
            next_sid=_check.number(snapshot.next_sid, "next_sid"),
            generation=_check.number(snapshot.generation, "generation"),
            seq=_check.number(snapshot.seq, "seq"),
            now=_check.time(snapshot.now, "now"),
            next_session=_check.number(snapshot.next_session, "next_session"),
            next_subscription=_check.number(snapshot.next_subscription, "next_subscription"),
            part=_check.count(snapshot.part, "part"),
        )
        tables.available = tables.capacity - tables.reserved
        self._notifier = Notifier(tables)
        for numbers in snapshot.reserved_numbers:
            self._reserve(numbers)
        require(tables.available >= 0, "more is reserved than there is")
        for holder in snapshot.holders:
            self._add_holder(holder)
        self._add_groups(snapshot.groups)
        for owner in snapshot.sets:
            self._add_set(owner)
        freed = sorted(tables.quarantine.items(), key=lambda item: item[1].freed_at)
        tables.quarantine = dict(freed)
        for holder in snapshot.holders:
            self._add_references(tables.holders[holder.name], holder)
        for stage in snapshot.stages:
            if stage.chained:
                self._chain(stage.event)
        tables.in_use = _check.flag(snapshot.in_use, "in_use")
        for subscription in snapshot.subscriptions:
            self._add_subscription(subscription)
        for stage in self._stages.values():
            self._made[stage.event.seq].waiting.update(
                (number, tables.subscriptions[number]) for number in stage.waiting
            )
        for each in tables.subscriptions.values():
            if each.resync_due:
                each.missed = missed_ends(each)
        find_running(tables, self._notifier)
        # Whoever joined here was there before.
        tables.unsettled.clear()
        tables.begun.clear()
        for item in snapshot.work:
            self._add_work(item)

    def _add_work(self, given: SnapshotWork) -> None:
        tables = self.tables
        item: Work
        match given:
            case SnapshotFreeing(sid, ranges, until):
                chosen = list(words((each.first, each.last) for each in ranges))
                require(0 <= until <= tables.generation, "a life of the future")
                require(bool(chosen), "nothing to free")
                item = Freeing(
                    tables.sets[sid],
                    [(number << SHIFT, word) for number, word in reversed(chosen)],
                    until,
                    fresh=False,
                )
            case SnapshotLettingGo(number):
                item = LettingGo(tables.subscriptions[number])
            case SnapshotLeaving(name):
                item = Leaving(tables.holders[name])
            case SnapshotLookingAgain(word):
                item = LookingAgain(_check.number(word, "word"))
            case SnapshotRelisting(number, sid, ioasid):
                item = self._relist(tables.subscriptions[number], sid, ioasid)
            case SnapshotTurning(sid, begins, ioasid):
                require(sid not in tables.turnings, "a set that turns twice")
                owner = tables.sets[sid]
                item = Turning(owner, begins, _check.number(ioasid, "ioasid"), fresh=False)
                tables.turnings[sid] = item
            case SnapshotImporting():
                item = self._import(given)
            case _:
                assert_never(given)
        tables.work.append(item)

    def _import(self, given: SnapshotImporting) -> Importing:
        tables = self.tables
        owner = tables.sets[given.sid]
        require(given.sid not in tables.imports, "a set that is made twice")
        require(owner.state in (SetState.INCOMING, SetState.FROZEN), "a set that was made")
        count = check_export(given.export)
        require(0 <= given.done < count, "as many IDs as nothing is made of")
        require(0 < given.generation <= tables.generation, "a life of the future")
        ranges = _check.ranges(given.ranges)
        require(count == sum(last - first + 1 for first, last in ranges), "IDs made of nothing")
        require(ranges[-1][1] < tables.capacity, _BEYOND)
        item = Importing(owner, given.export, [*words(ranges)][::-1], given.generation, count)
        go_on_from(item, given.done)
        require(owner.allocated + count - item.done <= owner.quota, "more IDs than quota")
        for number, gained in item.left:
            require(not tables.space.used(number) & gained, "an ID twice")
            tables.space.withhold_word(number, gained)
        spids = {each.spid for each in given.export.ioasids[item.named :]}
        require(not spids & owner.spids.keys(), "a spid twice")
        tables.imports[given.sid] = item
        return item

    def _relist(self, subscription: Subscription, sid: int, ioasid: int) -> Relisting:
        tables, number = self.tables, subscription.number
        require(number not in tables.relistings, "two Resyncs at once")
        item = Relisting(subscription, _check.number(sid, "sid"), _check.number(ioasid, "ioasid"))
        tables.relistings[number] = item
        for owner in tables.in_scope(subscription):
            for first, _ in owner.words():
                relist(tables, owner, first, first | MASK)
        return item

    def _add_holder(self, given: SnapshotHolder) -> None:
        tables = self.tables
        name = _check.name(given.name, "name")
        require(name not in tables.holders, "a holder twice")
        owner = _check.optional_number(given.owner, "owner")
        since = _check.time(given.since, "since")
        holder = Holder(name, given.session, since, owner=owner, leaving=given.leaving)
        tables.add_holder(holder)
        if given.session is not None:
            require(given.session not in tables.sessions, "two sessions of one number")
            tables.sessions[given.session] = holder

    def _reserve(self, given: IoasidRange) -> None:
        tables = self.tables
        require(0 <= given.first <= given.last < tables.capacity, _BEYOND)
        taken = tables.space.lowest_taken(given.first, given.last)
        require(taken is None, "a number reserved twice")
        tables.reserve(given.first, given.last)

    def _add_groups(self, given: tuple[SnapshotGroup, ...]) -> None:
        # From the top down, level by level: whatever is not reached hangs on nothing or itself.
        tables = self.tables
        below: dict[str | None, list[SnapshotGroup]] = {}
        for each in given:
            below.setdefault(each.parent, []).append(each)
        parents: list[Group | None] = [None]
        for _ in range(MAX_GROUP_DEPTH):
            level: list[Group | None] = []
            for parent in parents:
                for each in below.get(None if parent is None else parent.name, ()):
                    name = _check.name(each.name, "name")
                    require(name not in tables.groups, "two groups of one name")
                    limit = charge(tables, parent, _check.count(each.limit, "limit"))
                    tables.groups[name] = Group(name, parent, limit)
                    level.append(tables.groups[name])
            parents = level
        require(len(tables.groups) == len(given), "a group in none that there is, or too deep")
        tables.group_names = sorted(tables.groups)

    def _add_set(self, given: SnapshotSet) -> None:
        tables = self.tables
        require(0 <= given.sid < tables.next_sid, "a set of the future")
        require(
            (given.token is None) == (given.token_type is TokenType.NULL)
            and not (given.system and given.token is not None),
            "a token that its type does not have",
        )
        owner = IoasidSet(
            given.sid,
            given.token,
            given.token_type,
            _check.count(given.quota, "quota"),
            given.system,
            state=given.state,
            group=None if given.group is None else tables.groups[given.group],
        )
        require(owner.group is None or not owner.system, "the system's set in a group")
        require(owner.sid not in tables.sets, "a set twice")
        tables.add_set(owner)
        tables.space.join(owner)
        charge(tables, owner.group, owner.quota)
        if owner.token is not None:
            require(_check.name(owner.token, "token") not in tables.tokens, "a token twice")
            tables.tokens[owner.token] = owner.sid
        if owner.system:
            require(tables.system_sid is None, "two system sets")
            tables.system_sid = owner.sid
        tables.sets_free_pending += owner.state is SetState.FREE_PENDING
        self._add_ioasids(owner, given)
        self._add_spids(owner, given)
        for ioasid, freed_at in _rows(given.freed, given.freed_at):
            record = self._record(ioasid)
            require(record.owner is owner and not record.free_pending, "an ID freed twice")
            record.free_pending = True
            record.freed_at = _check.time(freed_at, "freed_at")
            require(record.freed_at <= tables.now, "an ID freed in the future")
            tables.quarantine[ioasid] = record
        for ioasid, data in given.data:
            record = self._record(ioasid)
            require(record.owner is owner, "data of another set's ID")
            require(record.data is None, "the data of an ID twice")
            record.data = _check.data(data)
            owner.with_data += 1

    def _add_ioasids(self, owner: IoasidSet, given: SnapshotSet) -> None:
        for each in given.ranges:
            require(0 <= each.first <= each.last < self.tables.capacity, _BEYOND)
            require(each.step in (0, 1), "generations that go neither on nor up")
            count = each.last - each.first + 1
            require(owner.allocated + count <= owner.quota, "more IDs than quota")
            generation = each.generation
            for number, used in words([(each.first, each.last)]):
                part = used.bit_count() * each.step
                self._take(number, used, owner, generation, range(part), max(part - 1, 0))
                generation += part
        for word in given.words:
            number, used, offsets = unpack(word)
            require(number >= 0, _BEYOND)
            require((number << SHIFT) + used.bit_length() <= self.tables.capacity, _BEYOND)
            require(owner.allocated + used.bit_count() <= owner.quota, "more IDs than quota")
            self._take(number, used, owner, word.generation, offsets, max(offsets, default=0))

    def _take(
        self,
        number: int,
        used: int,
        owner: IoasidSet,
        lowest: int,
        offsets: Sequence[int],
        highest: int,
    ) -> None:
        tables = self.tables
        require(not tables.space.used(number) & used, "an ID twice")
        require(0 < lowest <= tables.generation - highest, "a life of the future")
        tables.space.take_word(number, used, owner, lowest)
        if offsets:
            tables.space.set_lives(number, used, lowest, offsets, highest)

    def _add_spids(self, owner: IoasidSet, given: SnapshotSet) -> None:
        records, members = owner.records, owner.members
        for spid, ioasid, binding in _rows(given.spids, given.bound, given.bindings):
            records[ioasid] = Record(ioasid, owner, spid=spid, binding=binding)
        owner.spids.update(_rows(given.spids, given.bound))
        require(all(members.get(each >> SHIFT, 0) >> (each & MASK) & 1 for each in records), _NO_ID)
        require(len(records) == len(given.bound), "an ID with two spids")
        require(len(owner.spids) == len(given.spids), "a spid twice")
        for spid in (min(given.spids, default=0), max(given.spids, default=0)):
            _check.ioasid(spid, "spid")
        self._records.update(records)

    def _record(self, ioasid: int) -> Record:
        record = self._records.get(ioasid)
        if record is None:
            owner = self.tables.space.owner(_check.ioasid(ioasid))
            if owner is None:
                raise ValueError(_NO_ID)
            record = self._records[ioasid] = owner.record(ioasid)
        return record

    def _add_references(self, holder: Holder, given: SnapshotHolder) -> None:
        add, references = self._adder(holder), holder.references
        for ioasid, count in _rows(given.referenced, given.counts):
            record = self._record(ioasid)
            require(ioasid not in references, "the references of an ID twice")
            references[ioasid] = _check.count(count, "references")
            record.holders = add(record.holders)

    def _adder(self, holder: Holder) -> Callable[[Crowd], Crowd]:
        """Return what lets a holder join crowds; small ones that are equal become one."""
        crowds = self._crowds
        last: Crowd | None = None
        grown: Crowd = ()

        def add(crowd: Crowd) -> Crowd:
            nonlocal last, grown
            if crowd is not last or type(grown) is dict:
                last, grown = crowd, joined(crowd, holder)
                if type(grown) is tuple:
                    grown = crowds.setdefault(grown, grown)
            return grown

        return add

    def _chain(self, event: Event) -> None:
        record = self._record(event.ioasid)
        if not record.chain:
            record.chain = []
            self.tables.chained[event.ioasid] = record
        assert type(record.chain) is list
        record.chain.append(self._stage(event.seq, record))
        if len(record.chain) >= MAX_IN_FLIGHT:
            self.tables.crowded[event.ioasid] = record

    def _stage(self, seq: int, record: Record | None = None) -> Stage:
        stage = self._made.get(seq)
        if stage is None:
            given = self._stages[seq]
            event = given.event
            self._check_event(event, given.binding)
            if record is None:
                # Somebody holds an event that nothing waits for: all it needs is its binding.
                owner = IoasidSet(event.sid, event.token, TokenType.NULL, quota=1)
                record = Record(event.ioasid, owner)
            offered = _check.time(given.offered, "offered")
            stage = self._made[seq] = Stage(event, record, given.binding, given.reach, offered)
        return stage

    def _check_event(self, event: Event, binding: int | None) -> None:
        require_past(event.seq, self.tables, "an event of the future")
        require(0 < event.generation <= self.tables.generation, "a life of the future")
        if event.spid is not None:
            _check.ioasid(event.spid, "spid")
        if event.data is not None:
            _check.data(event.data)
        if event.publisher is not None:
            fits = binding is None and event.kind is not RECLAIM
        elif event.kind is BIND:
            fits = binding == event.seq and event.spid is not None
        elif binding is None:
            fits = event.kind is FREE and event.spid is None
        else:
            ends = event.kind is FREE or event.kind is UNBIND
            fits = ends and event.spid is not None and binding < event.seq
        require(fits, "an event without its binding")

    def _add_subscription(self, given: SnapshotSubscription) -> None:
        tables = self.tables
        holder = tables.holders[given.holder]
        scope = (given.sid, given.token)
        require(given.leaving or scope not in holder.subscriptions, "a scope twice")
        require(given.sid is None or given.token is None, "two scopes")
        if given.token is not None:
            _check.name(given.token, "token")
        require(
            not given.hold or {BIND, UNBIND, FREE}.issubset(given.kinds),
            "a subscription that holds what it will not be told the end of",
        )
        require(given.hold or not given.grants, "a grant to who holds nothing")
        require(given.awaited or not given.hold, "one that holds and is not waited for")
        each = Subscription(
            given.number,
            holder,
            given.sid,
            given.token,
            _check.kinds(set(given.kinds)),
            given.priority,
            given.hold,
            _check.queue_size(given.queue_size),
            _check.seconds(given.acknowledge_within, "acknowledge_within"),
            TIERS[given.priority],
            _check.flag(given.awaited, "awaited"),
            given.attached,
            resync_due=given.resync_due,
        )
        require(each.number not in tables.subscriptions, "two subscriptions of one number")
        tables.subscriptions[each.number] = each
        each.leaving = given.leaving
        if not each.leaving:
            holder.subscriptions[scope] = each
            self._notifier.join(each)
        each.dealt = {seq: self._stage(seq) for seq in given.dealt}
        each.spent = list(given.spent)
        for offer in given.outstanding:
            entry: Stage | Fold | None = None
            if offer.resync:
                entry = Fold({seq: self._stage(seq) for seq in offer.folded}, offer.stale)
            elif offer.staged:
                entry = self._stage(offer.seq)
            each.outstanding[offer.seq] = (_check.time(offer.offered, "offered"), entry)
            if offer.deferred:
                each.deferred[offer.seq] = _check.time(offer.deferred_at, "deferred_at")
        each.folded.update((seq, self._stage(seq)) for seq in given.folded)
        if given.folded_since is not None:
            each.folded_since = (given.folded_since, _check.time(given.folded_at, "folded_at"))
        if each.outstanding or each.folded_since is not None:
            tables.lagging[each.number] = each
        add, grants, records = self._adder(holder), each.grants, self._records
        for binding, ioasid in _rows(given.grants, given.granted):
            record = grants[binding] = records.get(ioasid) or self._record(ioasid)
            record.granted = add(record.granted)
        each.unseen.update(given.unseen)
