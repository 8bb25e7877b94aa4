"""The whole state as one message, and the state again from it.

What is not state is left out: callers that wait for a reclaim, and the times at which messages
were offered (the clock of another process means nothing; a restored allocator counts from now).
IDs in their plain state are ranges, so a million of them take a few bytes.
"""

from collections.abc import Iterable
from itertools import starmap
from typing import Final

from msgspec import MsgspecError, Struct
from msgspec.msgpack import Decoder, Encoder

from ioasid.core import _check
from ioasid.core._consistency import refuse_contradictions, require, require_past, settle
from ioasid.core._errors import IoasidError, MalformedMessage
from ioasid.core._messages import (
    Data,
    Event,
    EventKind,
    IoasidRange,
    Message,
    Priority,
    SetState,
    TokenType,
)
from ioasid.core._records import (
    BIND,
    FREE,
    RECLAIM,
    TIERS,
    UNBIND,
    Holder,
    IoasidSet,
    Lapse,
    Record,
    Stage,
    Subscription,
    Tables,
    member_words,
)
from ioasid.core._space import MASK, SHIFT, runs, words

__all__ = [
    "Snapshot",
    "SnapshotHolder",
    "SnapshotOffer",
    "SnapshotRecord",
    "SnapshotSet",
    "SnapshotStage",
    "SnapshotSubscription",
]

VERSION: Final = 1


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a snapshot."""


class SnapshotRecord(_Part, frozen=True):
    """An ID with more to say than that it is allocated; `chain` names stages by seq."""

    ioasid: int
    free_pending: bool
    spid: int | None
    binding: int | None
    data: Data | None
    references: dict[str, int]
    chain: tuple[int, ...]


class SnapshotSet(_Part, frozen=True):
    """An IOASID set with its IDs."""

    sid: int
    token: str | None
    token_type: TokenType
    quota: int
    system: bool
    state: SetState
    ioasids: tuple[IoasidRange, ...]
    records: tuple[SnapshotRecord, ...]


class SnapshotStage(_Part, frozen=True):
    """An event under way, or one that somebody holds without being waited for any more."""

    event: Event
    binding: int | None
    reach: int
    waiting: tuple[int, ...]


class SnapshotOffer(_Part, frozen=True):
    """An unacknowledged message: an event with or without a stage, or a Resync for `folded`."""

    seq: int
    deferred: bool
    staged: bool
    resync: bool
    folded: tuple[int, ...]
    stale: tuple[int, ...]


class SnapshotSubscription(_Part, frozen=True):
    """A subscription; `grants` are pairs of a binding and its IOASID."""

    number: int
    holder: str
    sid: int | None
    token: str | None
    kinds: tuple[EventKind, ...]
    priority: Priority
    hold: bool
    queue_size: int
    acknowledge_within: float | None
    attached: bool
    outstanding: tuple[SnapshotOffer, ...]
    resync_due: bool
    folded: tuple[int, ...]
    folded_since: int | None
    grants: tuple[tuple[int, int], ...]


class SnapshotHolder(_Part, frozen=True):
    """A holder; `session` is `None` while it is suspended."""

    name: str
    session: int | None


class Snapshot(Message, frozen=True, gc=True):
    """The whole state of an allocator; equal snapshots are equal states."""

    version: int
    capacity: int
    reserved: int
    in_use: bool
    seq: int
    next_session: int
    next_subscription: int
    sets: tuple[SnapshotSet, ...]
    holders: tuple[SnapshotHolder, ...]
    subscriptions: tuple[SnapshotSubscription, ...]
    stages: tuple[SnapshotStage, ...]


_ENCODER: Final = Encoder()
_DECODER: Final = Decoder(Snapshot)
_CONTRADICTIONS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MsgspecError,
    RecursionError,
    TypeError,
    ValueError,
)


def take(tables: Tables) -> Snapshot:
    """Return the state as a message."""
    stages: dict[int, Stage] = {}
    return Snapshot(
        version=VERSION,
        capacity=tables.capacity,
        reserved=tables.reserved,
        in_use=tables.in_use,
        seq=tables.seq,
        next_session=tables.next_session,
        next_subscription=tables.next_subscription,
        sets=tuple(_take_set(tables.sets[sid], stages) for sid in sorted(tables.sets)),
        holders=tuple(
            SnapshotHolder(name, tables.holders[name].session) for name in sorted(tables.holders)
        ),
        subscriptions=tuple(
            _take_subscription(tables.subscriptions[number], stages)
            for number in sorted(tables.subscriptions)
        ),
        stages=tuple(
            SnapshotStage(each.event, each.binding, each.reach, tuple(sorted(each.waiting)))
            for each in (stages[seq] for seq in sorted(stages))
        ),
    )


def _take_set(owner: IoasidSet, stages: dict[int, Stage]) -> SnapshotSet:
    return SnapshotSet(
        owner.sid,
        owner.token,
        owner.token_type,
        owner.quota,
        owner.system,
        owner.state,
        _ranges(owner),
        tuple(_take_record(owner.records[ioasid], stages) for ioasid in sorted(owner.records)),
    )


def _ranges(owner: IoasidSet) -> tuple[IoasidRange, ...]:
    ranges: list[tuple[int, int]] = []
    for base, word in member_words(owner):
        found = runs(word, base)
        if ranges and ranges[-1][1] == found[0][0] - 1:
            found[0] = (ranges.pop()[0], found[0][1])
        ranges += found
    return tuple(starmap(IoasidRange, ranges))


def _seqs(found: Iterable[Stage], stages: dict[int, Stage]) -> tuple[int, ...]:
    named = {stage.event.seq: stage for stage in found}
    stages.update(named)
    return tuple(named)


def _take_record(record: Record, stages: dict[int, Stage]) -> SnapshotRecord:
    return SnapshotRecord(
        record.ioasid,
        record.free_pending,
        record.spid,
        record.binding,
        record.data,
        dict(sorted((each.name, each.references[record.ioasid]) for each in record.holders)),
        _seqs(record.chain, stages),
    )


def _take_subscription(each: Subscription, stages: dict[int, Stage]) -> SnapshotSubscription:
    outstanding = []
    for seq, (_, entry) in each.outstanding.items():
        lapse = entry if isinstance(entry, Lapse) else Lapse({}, ())
        if isinstance(entry, Stage):
            stages[seq] = entry
        outstanding.append(
            SnapshotOffer(
                seq,
                seq in each.deferred,
                isinstance(entry, Stage),
                isinstance(entry, Lapse),
                _seqs((lapse.folded[folded] for folded in sorted(lapse.folded)), stages),
                lapse.stale,
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
        tuple((binding, record.ioasid) for binding, record in sorted(each.grants.items())),
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
        same = not tables.outbox and take(tables) == given
        require(same, "something is undecided, out of order, twice, or of no use to anybody")
        return tables
    except _CONTRADICTIONS as error:
        reason = f"{error!s:.80} ({type(error).__name__})"
        raise MalformedMessage("snapshot", reason) from None
    except IoasidError as error:
        raise MalformedMessage("snapshot", error.message) from None


class _Restorer:
    """Builds the tables, holders first: what a part refers to is there before it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._stages = {each.event.seq: each for each in snapshot.stages}
        self._made: dict[int, Stage] = {}
        tables = self.tables = Tables(
            _check.count(snapshot.capacity, "capacity"),
            reserved=_check.number(snapshot.reserved, "reserved"),
            in_use=_check.flag(snapshot.in_use, "in_use"),
            seq=_check.number(snapshot.seq, "seq"),
            next_session=_check.number(snapshot.next_session, "next_session"),
            next_subscription=_check.number(snapshot.next_subscription, "next_subscription"),
        )
        tables.available = tables.capacity - tables.reserved
        for holder in snapshot.holders:
            self._add_holder(holder)
        for owner in snapshot.sets:
            self._add_set(owner)
        if tables.available < 0:
            raise ValueError("the quotas exceed the capacity")
        for subscription in snapshot.subscriptions:
            self._add_subscription(subscription)
        for stage in self._stages.values():
            self._made[stage.event.seq].waiting.update(
                (number, tables.subscriptions[number]) for number in stage.waiting
            )

    def _add_holder(self, given: SnapshotHolder) -> None:
        tables = self.tables
        name = _check.name(given.name, "name")
        holder = tables.holders[name] = Holder(name, given.session)
        if given.session is not None:
            require(given.session not in tables.sessions, "two sessions of one number")
            tables.sessions[given.session] = holder

    def _add_set(self, given: SnapshotSet) -> None:
        tables = self.tables
        require(0 <= given.sid < tables.capacity, "more sets than IDs")
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
        )
        tables.sets[owner.sid] = owner
        tables.sids.take_lowest(owner.sid, owner.sid, owner.sid, tables.sid_words)
        tables.available -= owner.quota
        if owner.token is not None:
            require(_check.name(owner.token, "token") not in tables.tokens, "a token twice")
            tables.tokens[owner.token] = owner.sid
        if owner.system:
            require(tables.system_sid is None, "two system sets")
            tables.system_sid = owner.sid
        tables.sets_free_pending += owner.state is SetState.FREE_PENDING
        for each in given.ioasids:
            require(0 <= each.first <= each.last < tables.capacity, "an ID beyond the capacity")
            owner.allocated += each.last - each.first + 1
            require(owner.allocated <= owner.quota, "more IDs than quota")
        taken = 0
        for number, gained in words((each.first, each.last) for each in given.ioasids):
            require(not tables.space.used(number) & gained, "an ID in two sets")
            tables.space.take_word(number, gained, owner.sid, owner.members)
            taken += gained.bit_count()
        require(taken == owner.allocated, "an ID twice in a set")
        tables.live += owner.allocated
        for record in given.records:
            self._add_record(owner, record)

    def _add_record(self, owner: IoasidSet, given: SnapshotRecord) -> None:
        tables = self.tables
        ioasid = _check.ioasid(given.ioasid)
        member = owner.members[ioasid >> SHIFT] >> (ioasid & MASK) & 1
        require(bool(member) and ioasid not in owner.records, "a record without an ID")
        record = owner.records[ioasid] = Record(
            ioasid,
            owner,
            given.free_pending,
            given.spid,
            given.binding,
            None if given.data is None else _check.data(given.data),
        )
        tables.free_pending += record.free_pending
        if record.spid is not None:
            require(_check.ioasid(record.spid, "spid") not in owner.spids, "a spid twice")
            owner.spids[record.spid] = ioasid
        for name, held in given.references.items():
            holder = tables.holders[name]
            holder.references[ioasid] = _check.count(held, "references")
            record.holders += (holder,)
        if given.chain:
            record.chain = [self._stage(seq, record) for seq in given.chain]
            tables.chained[ioasid] = record

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
            stage = self._made[seq] = Stage(event, record, given.binding, given.reach)
        return stage

    def _check_event(self, event: Event, binding: int | None) -> None:
        require_past(event.seq, self.tables, "an event of the future")
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
        require(scope not in holder.subscriptions, "a scope twice")
        require(given.sid is None or given.token is None, "two scopes")
        if given.token is not None:
            _check.name(given.token, "token")
        require(
            not given.hold or {BIND, UNBIND, FREE}.issubset(given.kinds),
            "a subscription that holds what it will not be told the end of",
        )
        require(given.hold or not given.grants, "a grant to who holds nothing")
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
            given.attached,
            resync_due=given.resync_due,
        )
        tables.subscriptions[each.number] = holder.subscriptions[scope] = each
        if given.sid is not None:
            tables.sets[given.sid].subscriptions[each.number] = each
        elif given.token is not None:
            tables.token_subscriptions.setdefault(given.token, {})[each.number] = each
            if given.token in tables.tokens:
                tables.sets[tables.tokens[given.token]].subscriptions[each.number] = each
        else:
            tables.system_subscriptions[each.number] = each
        for offer in given.outstanding:
            entry: Stage | Lapse | None = None
            if offer.resync:
                entry = Lapse({seq: self._stage(seq) for seq in offer.folded}, offer.stale)
            elif offer.staged:
                entry = self._stage(offer.seq)
            each.outstanding[offer.seq] = (tables.now, entry)
            if offer.deferred:
                each.deferred.add(offer.seq)
        each.folded.update((seq, self._stage(seq)) for seq in given.folded)
        if given.folded_since is not None:
            each.folded_since = (given.folded_since, tables.now)
        if each.outstanding or each.folded_since is not None:
            tables.lagging[each.number] = each
        for binding, ioasid in given.grants:
            sid = tables.space.owner(ioasid)
            if sid is None:
                raise ValueError("a grant without an ID")
            record = each.grants[binding] = tables.sets[sid].records[ioasid]
            record.granted += (holder,)
