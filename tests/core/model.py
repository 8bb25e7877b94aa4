"""A model of the allocator: what the specification says of every request, as plainly as possible.

`Model.ask` decides a request: it returns the reply, or raises the error that the request is
refused with. What subscribers and waiting callers are told is in `effects`; how that comes about
is the other half, `tests.core.model_events`. Nothing is kept that can be found by looking at all
there is, and nothing here looks at the core.

Where there are two reasons to refuse a request, they rank as they stand here: what it says,
whether what it names is there, whose it is, in which state it is. Of an `InvalidArgument` the
model knows the argument and not the words.
"""

from collections.abc import Iterable
from typing import Final, TypeVar, assert_never

from attrs import define, field

from ioasid import core
from ioasid.core import EventKind, TokenType
from tests.core.model_events import Events, Life, Set, Subscriber, in_short
from tests.core.model_explain import explain

K = TypeVar("K", int, str)
HOLDING: Final = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


@define(eq=False)
class Model(Events):
    """All there is to know; `ask` changes it."""

    sids: int = 0  # how many sets there were
    generation: int = 0  # of the life that began last
    reserved: int = 0
    numbers: set[int] = field(factory=lambda: {0})  # reserved as such
    groups: dict[str, tuple[str | None, int]] = field(factory=dict)  # their parents and limits
    cyclic: bool = False
    position: int = 0  # of CYCLIC: the ID after the last one given out
    used: bool = False  # whether there ever was a set, group or reservation
    holders: dict[str, int | None] = field(factory=dict)  # their sessions; None: suspended
    since: dict[str, float] = field(factory=dict)  # when that was so
    sessions: int = 0
    subscriptions: int = 0
    tickets: int = 0

    def ask(self, name: str, request: core.Request) -> core.Answer:
        """Decide a request of a holder."""
        match request:
            case core.InstallCapacity(total):
                refuse(not 1 <= total < 2**32, wrong("total"))
                refuse(self.used, core.CapacityInUse(self.capacity))
                self.capacity = total
                return self.capacity_record()
            case core.ReserveCapacity(count):
                refuse(count is not None and count < 1, wrong("count"))
                self.reserved += self.take(None, count)
                return self.capacity_record()
            case core.CancelCapacity(count):
                refuse(count < 1, wrong("count"))
                refuse(count > self.reserved, core.NotReserved(count, self.reserved))
                self.reserved -= count
                return self.capacity_record()
            case core.ReserveRange(low, high):
                self.refuse_wrong_range(low, high)
                wanted = range(low, high + 1)
                for number in wanted:
                    taken = number in self.lives or number in self.numbers
                    refuse(taken, core.RangeTaken(low, high, number))
                self.take(None, len(wanted))
                self.numbers.update(wanted)
                return self.capacity_record()
            case core.CancelRange(low, high):
                self.refuse_wrong_range(low, high)
                for number in range(low, high + 1):
                    missing = number not in self.numbers
                    refuse(missing, core.RangeNotReserved(low, high, number))
                self.numbers.difference_update(range(low, high + 1))
                return self.capacity_record()
            case core.AllocGroup(name, limit, parent):
                refuse(limit < 1, wrong("limit"))
                self.refuse_unknown_group(parent)
                refuse(name in self.groups, core.GroupExists(name))
                refuse(len(self.above(parent)) >= core.MAX_GROUP_DEPTH, wrong("parent"))
                self.groups[name] = parent, self.take(parent, limit)
                return self.group_record(name)
            case core.AdjustGroup(name, limit):
                refuse(limit < 1, wrong("limit"))
                self.refuse_unknown_group(name)
                parent, old = self.groups[name]
                used = self.below(name)
                refuse(limit < used, core.LimitBelowUse(name, limit, used))
                self.take(parent, max(limit - old, 0))
                self.groups[name] = parent, limit
                return self.group_record(name)
            case core.FreeGroup(name):
                self.refuse_unknown_group(name)
                used = self.below(name)
                refuse(used > 0, core.GroupNotEmpty(name, used))
                del self.groups[name]
                return core.Done()
            case core.ListGroups(after, limit):
                refuse(not 1 <= limit <= 1000, wrong("limit"))
                later = sorted(name for name in self.groups if name > (after or ""))
                records = tuple(map(self.group_record, later[:limit]))
                return core.GroupPage(records, later[limit - 1] if later[limit:] else None)
            case core.AllocSystemSet(quota):
                refuse(quota is not None and quota < 1, wrong("quota"))
                for sid, each in self.sets.items():
                    refuse(each.system, core.SystemSetExists(sid))
                return self.add_set(Set(None, TokenType.NULL, 0, True), quota)
            case core.AllocSet(token, quota, token_type, group):
                refuse(quota is not None and quota < 1, wrong("quota"))
                refuse((token is None) == (token_type is TokenType.MM), wrong("token"))
                self.refuse_unknown_group(group)
                for sid, each in self.sets.items():
                    if token is not None:
                        refuse(token == each.token, core.TokenInUse(token, sid))
                return self.add_set(Set(token, token_type, 0, False, group), quota)
            case core.AdjustSet(sid, quota):
                refuse(quota < 1, wrong("quota"))
                more = quota - self.usable_set(sid).quota
                used = len(self.ids(sid))
                refuse(quota < used, core.QuotaBelowUse(sid, quota, used, token=self.token(sid)))
                self.take(self.sets[sid].group, max(more, 0))
                self.sets[sid].quota = quota
                return self.set_record(sid)
            case core.FreeSet(sid, destroy, wait):
                self.set(sid)
                for ioasid in self.ids(sid) if wait else ():
                    self.refuse_deadlock(name, ioasid)
                self.sets[sid].destroyed |= destroy
                return self.free_all(sid, self.ids(sid), wait=wait)
            case core.FreezeSet(sid, wait):
                self.refuse_immovable(sid, core.SetState.INCOMING)
                bound = [each for each in self.ids(sid) if self.is_bound(each)]
                if wait:
                    self.refuse_freeze_deadlock(name, sid, bound)
                self.sets[sid].moving = core.SetState.FROZEN
                for ioasid in bound:
                    self.stage(ioasid, EventKind.UNBIND)
                    self.lives[ioasid].binding = None
                self.settle()
                pending = any(map(self.runs, self.ids(sid)))
                if not wait or not pending:
                    return core.Frozen(sid, not pending)
                self.tickets += 1
                self.freezes[self.tickets] = sid
                return core.Waiting(self.tickets)
            case core.ThawSet(sid):
                self.refuse_immovable(sid, core.SetState.INCOMING)
                self.bind_all(sid)
                for ticket, which in list(self.freezes.items()):
                    if which == sid:
                        self.freezes.pop(ticket)
                        self.effects.append(core.Complete(ticket, core.Frozen(sid, False)))
                self.settle()
                return core.Done()
            case core.ExportSet(sid):
                self.set(sid)
                state = self.set_record(sid).state
                frozen = state is core.SetState.FROZEN
                running = sum(map(self.runs, self.ids(sid))) if frozen else 0
                thawed = core.SetNotFrozen(sid, state, running, token=self.token(sid))
                refuse(not frozen or running > 0, thawed)
                return self.export(sid)
            case core.ImportSet(export, group, low, high):
                ids = self.exported(export)
                highest = self.capacity - 1 if high is None else high
                self.refuse_wrong_range(low, highest)
                self.refuse_unknown_group(group)
                for sid, each in self.sets.items():
                    if export.token is not None:
                        refuse(each.token == export.token, core.TokenInUse(export.token, sid))
                used = self.used
                self.take(group, export.quota)
                self.used = used
                turn = self.turn(len(ids), low, highest) if ids else []
                moving = core.SetState.INCOMING
                made = Set(export.token, export.token_type, 0, False, group, moving=moving)
                sid = self.add_set(made, export.quota).sid
                self.generation += bool(ids)
                named = {each.ioasid: each for each in export.ioasids}
                for ioasid, old in zip(turn, ids, strict=True):
                    about = named.get(old, core.ExportedIoasid(old, None, None))
                    life = Life(sid, self.generation, about.data, about.spid)
                    self.lives[ioasid] = life
                for ioasid in turn:
                    self.tell_all(ioasid, self.lives[ioasid], EventKind.ALLOC)
                return core.Imported(sid, ranges_of(turn), self.generation)
            case core.ActivateSet(sid):
                self.refuse_immovable(sid, core.SetState.FROZEN)
                self.bind_all(sid)
                self.settle()
                return core.Done()
            case core.FindSid(ioasid, generation):
                return core.FoundSid(self.life(ioasid, None, generation).sid)
            case core.FindSet(token, named):
                refuse((token is None) == (named is None), wrong("token"))
                for sid, each in self.sets.items():
                    if sid == named or (named is None and token == each.token):
                        return self.set_record(sid)
                raise core.UnknownToken(token or "") if named is None else core.UnknownSet(named)
            case core.ListSet(sid):
                token = self.set(sid).token
                listed = [
                    core.LiveIoasid(
                        ioasid, sid, token, life.state, life.bound, life.data, life.generation
                    )
                    for ioasid, life in sorted(self.lives.items())
                    if life.sid == sid
                ]
                return core.Listing(sid, *in_short(listed))
            case core.ListSets(after, limit):
                refuse(not 1 <= limit <= 1000, wrong("limit"))
                sids, following = page(self.sets, after, limit)
                return core.SetPage(tuple(map(self.set_record, sids)), following)
            case core.ListHolders(after, limit):
                refuse(not 1 <= limit <= 1000, wrong("limit"))
                names, last = page(self.holders, after, limit)
                return core.HolderPage(tuple(map(self.holder_record, names)), last)
            case core.Explain(ioasid, generation):
                self.life(ioasid, None, generation)
                return explain(self, ioasid)
            case core.Alloc(sid, low, high, data):
                return core.Allocated(self.alloc(sid, 1, low, high, data)[0], self.generation)
            case core.AllocMany(sid, count, low, high):
                refuse(count < 1, wrong("count"))
                ids = self.alloc(sid, count, low, high, None)
                return core.AllocatedMany(ranges_of(ids), self.generation)
            case core.Free(ioasid, sid, wait, generation):
                self.life(ioasid, sid, generation)
                if wait:
                    self.refuse_deadlock(name, ioasid)
                self.free(ioasid)
                self.settle()
                return self.released([ioasid], wait=wait)
            case core.FreeMany(sid, ranges, generation, missing_ok):
                refuse(any(each.last < each.first for each in ranges), wrong("ranges"))
                ids = [ioasid for each in ranges for ioasid in range(each.first, each.last + 1)]
                refuse(ids != sorted(set(ids)), wrong("ranges"))
                self.set(sid)
                if missing_ok:
                    ids = [each for each in ids if self.has(sid, each, generation)]
                for ioasid in ids:
                    self.life(ioasid, sid)
                for ioasid in ids:
                    self.life(ioasid, sid, generation)
                return self.free_all(sid, ids, wait=False)
            case core.Get(ioasid, sid, generation):
                self.active(ioasid, None, generation)
                self.life(ioasid, sid).references[name] += 1
                return core.Done()
            case core.Put(ioasid, sid, generation):
                references = self.life(ioasid, sid, generation).references
                refuse(not references[name], core.NotReferenced(name, ioasid))
                references[name] -= 1
                self.settle()
                return core.Released(ioasid not in self.lives)
            case core.Find(ioasid, sid, generation):
                self.life(ioasid, sid, generation)
                return self.record(ioasid)
            case core.AttachData(ioasid, data, sid, generation):
                life = self.active(ioasid, sid, generation)
                self.refuse_moving(life.sid)
                refuse(life.data is not None, core.DataTaken(ioasid))
                life.data = data
                return core.Done()
            case core.DetachData(ioasid, sid, generation):
                life = self.active(ioasid, sid, generation)
                self.refuse_moving(life.sid)
                life.data = None
                return core.Done()
            case core.AttachSpid(ioasid, spid, sid, generation):
                life = self.active(ioasid, sid, generation)
                self.refuse_moving(life.sid)
                if life.spid is not None:
                    raise core.AlreadyBound(ioasid, life.spid)
                for other in self.ids(life.sid):
                    taken = self.lives[other].spid == spid
                    in_use = core.SpidInUse(life.sid, spid, other, token=self.token(life.sid))
                    refuse(taken, in_use)
                self.refuse_too_many(ioasid)
                life.spid, life.binding = spid, self.seq + 1
                self.stage(ioasid, EventKind.BIND)
                self.settle()
                return core.Done()
            case core.DetachSpid(ioasid, sid, generation):
                life = self.life(ioasid, sid, generation)
                refuse(life.spid is None, core.NoSpid(ioasid))
                if self.is_bound(ioasid):
                    self.stage(ioasid, EventKind.UNBIND)
                life.spid = life.binding = None
                self.settle()
                return core.Done()
            case core.FindBySpid(sid, spid, get):
                self.set(sid)
                for ioasid in self.ids(sid):
                    if self.lives[ioasid].spid == spid:
                        if get:
                            life = self.active(ioasid)
                            self.refuse_moving(sid)
                            life.references[name] += 1
                        return core.Allocated(ioasid, self.lives[ioasid].generation)
                raise core.UnknownSpid(sid, spid, token=self.token(sid))
            case core.Notify(ioasid, kind, sid, generation):
                refuse(kind is EventKind.RECLAIM, wrong("kind"))
                self.active(ioasid, sid, generation)
                self.refuse_too_many(ioasid)
                self.stage(ioasid, kind, name)
                self.settle()
                return core.Done()
            case core.Subscribe():
                return self.subscribe(name, request)
            case core.Unsubscribe(number):
                self.leave(self.subscriber(name, number), drained=False)
                self.settle()
                return core.Done()
            case core.Detach(number):
                subscriber = self.subscriber(name, number)
                if subscriber.terms.hold or self.referenced(name):
                    self.suspend(subscriber)
                else:
                    self.leave(subscriber, drained=False)
                    self.settle()
                return core.Done()
            case core.Acknowledge(messages):
                found = [(self.told_by(name, number), seq) for number, seq in messages]
                present = [(told, seq) for told, seq in found if told is not None]
                for told, seq in present:
                    self.acknowledge(told, seq)
                self.settle()
                for told, _ in present:
                    self.resync_if_back(told)
                return core.Done()
            case core.Defer(number, seq):
                subscriber = self.subscriber(name, number)
                if seq in {told.seq for told in subscriber.inbox}:
                    subscriber.aside[seq] = self.now
                self.resync_if_back(subscriber)
                return core.Done()
            case core.OpenSession(who):
                return self.open(who)
            case core.CloseSession():
                return self.remove(name)
            case core.SuspendSession():
                self.crash(name)
                self.settle()
                return core.Done()
            case core.Evict(who):
                refuse(who not in self.holders, core.UnknownHolder(who))
                expelled = self.holders[who]
                left = self.remove(who)
                if expelled:
                    self.effects.append(core.Expel(expelled))
                return left
            case core.SuspendAll():
                live = {session: who for who, session in self.holders.items() if session}
                for session in sorted(live):
                    self.crash(live[session])
                self.settle()
                return core.Done()
            case core.Abandon() | core.Continue() | core.Tick() | core.TakeSnapshot():
                raise AssertionError("for whoever drives the allocator")
            case core.TakeStatistics():
                return self.statistics()
            case _:
                assert_never(request)

    # -- capacity and sets --------------------------------------------------------------------

    @property
    def available(self) -> int:
        return self.capacity - self.reserved - len(self.numbers) - self.below(None)

    def capacity_record(self) -> core.CapacityRecord:
        numbers = len(self.numbers)
        return core.CapacityRecord(self.capacity, self.reserved + numbers, self.available, numbers)

    def below(self, group: str | None) -> int:
        """What the sets and groups directly below a group have, or those at the top."""
        quotas = sum(each.quota for each in self.sets.values() if each.group == group)
        return quotas + sum(limit for parent, limit in self.groups.values() if parent == group)

    def above(self, group: str | None) -> list[str]:
        """A group and those that it is in."""
        return [] if group is None else [group, *self.above(self.groups[group][0])]

    def take(self, group: str | None, count: int | None) -> int:
        """How much of what is left a request takes; `None` is all, if there is any."""
        least = 1 if count is None else count
        if group is None:
            left = self.available
            refuse(least > left, core.CapacityExhausted(least, left))
        else:
            left = self.groups[group][1] - self.below(group)
            refuse(least > left, core.GroupExhausted(group, least, left))
        self.used = True
        return left if count is None else count

    def refuse_unknown_group(self, name: str | None) -> None:
        if name is not None:
            refuse(name not in self.groups, core.UnknownGroup(name))

    def group_record(self, name: str) -> core.GroupRecord:
        return core.GroupRecord(name, *self.groups[name], self.below(name))

    def refuse_wrong_range(self, low: int, high: int) -> None:
        refuse(not 0 <= high < self.capacity, wrong("max"))
        refuse(low >= self.capacity, wrong("min"))
        refuse(low > high, wrong("max"))

    def add_set(self, each: Set, quota: int | None) -> core.SetRecord:
        each.quota = self.take(each.group, quota)
        sid = self.sids
        self.sids += 1
        self.sets[sid] = each
        return self.set_record(sid)

    def set(self, sid: int) -> Set:
        refuse(sid not in self.sets, core.UnknownSet(sid))
        return self.sets[sid]

    def token(self, sid: int) -> str:
        """What an error about a set names it by, nothing if that is its number alone."""
        return self.sets[sid].token or "" if sid in self.sets else ""

    def usable_set(self, sid: int) -> Set:
        destroyed = self.set(sid).destroyed
        refuse(destroyed, core.SetFreePending(sid, token=self.token(sid)))
        self.refuse_moving(sid)
        return self.sets[sid]

    def refuse_moving(self, sid: int) -> None:
        """Change nothing in a set that is frozen or incoming."""
        state = self.sets[sid].moving
        if state is not None and not self.sets[sid].destroyed:
            raise core.SetFrozen(sid, state, token=self.token(sid))

    def refuse_immovable(self, sid: int, wrong_way: core.SetState) -> None:
        refuse(self.set(sid).system, wrong("sid"))
        destroyed = self.sets[sid].destroyed
        refuse(destroyed, core.SetFreePending(sid, token=self.token(sid)))
        if self.sets[sid].moving is wrong_way:
            raise core.SetFrozen(sid, wrong_way, token=self.token(sid))

    def is_bound(self, ioasid: int) -> bool:
        return self.lives[ioasid].bound is not None and not self.lives[ioasid].freed

    def bind_all(self, sid: int) -> None:
        """Begin the bindings that a set keeps spids for."""
        lives = {ioasid: self.lives[ioasid] for ioasid in self.ids(sid)}
        kept = [
            ioasid
            for ioasid, life in lives.items()
            if life.spid is not None and not life.freed and life.binding is None
        ]
        for ioasid in kept:
            self.refuse_too_many(ioasid)
        self.sets[sid].moving = None
        for ioasid in kept:
            lives[ioasid].binding = self.seq + 1
            self.stage(ioasid, EventKind.BIND)

    def refuse_freeze_deadlock(self, name: str, sid: int, bound: list[int]) -> None:
        """Let nobody wait for what it has to stop itself."""

        def mine(kind: EventKind, beyond: int) -> set[int]:
            matching = self.awaited(sid, kind)
            own = (each for each in matching if each.holder == name)
            return {each.number for each in own if beyond < each.tier < 2}

        owing = f"it has to acknowledge the {EventKind.UNBIND} itself"
        if bound and mine(EventKind.UNBIND, -1):
            raise core.WouldDeadlock(name, bound[0], owing)
        for ioasid in self.ids(sid):
            for news in self.lives[ioasid].news:
                told = {n for n in news.owed if self.subscribers[n].holder == name}
                owes = any(self.subscribers[number].tier < 2 for number in told)
                reason = f"it has to acknowledge the {news.event.kind} itself"
                if news.ends_binding:
                    owes = owes or bool(mine(news.event.kind, news.tier))
                    refuse(owes, core.WouldDeadlock(name, ioasid, reason))

    def export(self, sid: int) -> core.SetExport:
        each = self.sets[sid]
        left = [ioasid for ioasid in self.ids(sid) if not self.lives[ioasid].freed]
        lives = ((ioasid, self.lives[ioasid]) for ioasid in left)
        named = (core.ExportedIoasid(ioasid, life.spid, life.data) for ioasid, life in lives)
        said = tuple(each for each in named if (each.spid, each.data) != (None, None))
        return core.SetExport(each.token, each.token_type, each.quota, ranges_of(left), said)

    def exported(self, export: core.SetExport) -> list[int]:
        """The IDs of an export, if it makes sense."""
        ids = [each for span in export.ranges for each in range(span.first, span.last + 1)]
        spids = [each.spid for each in export.ioasids if each.spid is not None]
        named = [each.ioasid for each in export.ioasids]
        refuse(not 0 < export.quota < 2**32, wrong("export"))
        refuse((export.token is None) == (export.token_type is TokenType.MM), wrong("export"))
        refuse(any(each.first > each.last for each in export.ranges), wrong("export"))
        refuse(ids != sorted(set(ids)) or len(ids) > export.quota, wrong("export"))
        refuse(named != sorted(set(named)) or not set(named) <= set(ids), wrong("export"))
        refuse(len(spids) != len(set(spids)), wrong("export"))
        idle = any((each.spid, each.data) == (None, None) for each in export.ioasids)
        refuse(idle, wrong("export"))
        return ids

    def set_record(self, sid: int) -> core.SetRecord:
        each = self.sets[sid]
        state = each.moving or core.SetState.ACTIVE
        if each.destroyed:
            state = core.SetState.FREE_PENDING
        used = len(self.ids(sid))
        return core.SetRecord(
            sid, each.token, each.token_type, each.quota, used, state, each.system, each.group
        )

    # -- IDs ----------------------------------------------------------------------------------

    def alloc(
        self, sid: int, count: int, low: int, high: int | None, data: core.Data | None
    ) -> list[int]:
        """Allocate the lowest free IDs of a range, or the next ones in turn; ascending."""
        last = self.capacity - 1 if high is None else high
        self.refuse_wrong_range(low, last)
        quota, used = self.usable_set(sid).quota, len(self.ids(sid))
        exceeded = core.QuotaExceeded(sid, quota, used, count, token=self.token(sid))
        refuse(used + count > quota, exceeded)
        taken = self.turn(count, low, last)
        self.generation += 1
        self.lives.update((ioasid, Life(sid, self.generation, data)) for ioasid in taken)
        for ioasid in taken:
            self.tell_all(ioasid, self.lives[ioasid], EventKind.ALLOC)
        return taken

    def turn(self, count: int, low: int, last: int) -> list[int]:
        """The free IDs whose turn it is, ascending."""
        turn = list(range(low, last + 1))
        if self.cyclic and self.position in turn:
            turn = [*range(self.position, last + 1), *range(low, self.position)]
        taken = [each for each in turn if each not in {*self.lives, *self.numbers}][:count]
        refuse(len(taken) < count, core.RangeFull(low, last, count))
        self.position = taken[-1] + 1
        return sorted(taken)

    def life(self, ioasid: int, sid: int | None = None, generation: int | None = None) -> Life:
        """A live ID, in the life and of the set that the request names."""
        refuse(ioasid not in self.lives, core.UnknownIoasid(ioasid))
        life = self.lives[ioasid]
        if generation is not None:
            stale = core.StaleIoasid(ioasid, generation, life.generation)
            refuse(generation != life.generation, stale)
        if sid is not None:
            self.set(sid)
            refuse(sid != life.sid, core.NotOfThisSet(ioasid, sid, token=self.token(sid)))
        return life

    def has(self, sid: int, ioasid: int, generation: int | None) -> bool:
        """Whether a set has an ID, in the life that the request names."""
        life = self.lives.get(ioasid)
        if life is None or life.sid != sid:
            return False
        return generation in (None, life.generation)

    def active(self, ioasid: int, sid: int | None = None, generation: int | None = None) -> Life:
        """A live ID that is not in quarantine."""
        refuse(self.life(ioasid, sid, generation).freed, core.IoasidFreePending(ioasid))
        return self.lives[ioasid]

    def record(self, ioasid: int) -> core.IoasidRecord:
        life = self.lives[ioasid]
        held = self.references(ioasid)
        count = sum(held.values()) + (not life.freed)
        return core.IoasidRecord(
            ioasid, life.sid, life.bound, life.state, life.data, held, count, life.generation
        )

    def refuse_deadlock(self, name: str, ioasid: int) -> None:
        """Let nobody wait for a reclaim that waits for itself, or will once the ID is freed."""
        life = self.lives[ioasid]
        told = [each for each in self.awaited(life.sid, EventKind.FREE) if each.holder == name]
        mine = {each.number for each in self.subscribers.values() if each.holder == name}
        owes = any(
            news.owed & mine or any(each.tier > news.tier for each in told)
            for news in life.news
            if news.ends_life
        )
        acknowledges = "it has to acknowledge the FREE itself"
        refuse(owes if life.freed else bool(told), core.WouldDeadlock(name, ioasid, acknowledges))
        holds = "it holds a reference itself"
        refuse(name in self.references(ioasid), core.WouldDeadlock(name, ioasid, holds))

    def refuse_too_many(self, ioasid: int) -> None:
        """Take no more events of an ID than may be under way."""
        in_flight = sum(bool(self.tiers_left(news)) for news in self.lives[ioasid].news)
        refuse(in_flight >= core.MAX_IN_FLIGHT, core.TooManyEvents(ioasid, in_flight))

    def free(self, ioasid: int) -> None:
        """Drop the set's own reference, once."""
        if not self.lives[ioasid].freed:
            self.lives[ioasid].freed = True
            self.lives[ioasid].freed_at = self.now
            self.stage(ioasid, EventKind.FREE)

    def free_all(self, sid: int, ids: list[int], *, wait: bool) -> core.Answer:
        """Free these IDs of a set; to be destroyed, it goes with the last one.

        The specification leaves their order open. The IDs of which there is nothing to say go at
        once, and before all others if nobody is told.
        """
        plain = {each for each in ids if self.is_plain(each)}
        told = {kind for kind in EventKind if self.matching(sid, kind)}
        if not told & {EventKind.FREE, EventKind.RECLAIM}:
            ids.sort(key=lambda each: each not in plain)
        for ioasid in ids:
            self.free(ioasid)
            if ioasid in plain and EventKind.FREE not in told:
                self.reclaim(ioasid)
        self.settle()
        self.destroy_if_empty(sid)
        return self.released(ids, wait=wait)

    def is_plain(self, ioasid: int) -> bool:
        """Whether there is nothing to say of an ID but that it is allocated."""
        life = self.lives[ioasid]
        said = life.freed, life.spid is not None, life.data is not None, life.news
        return not any(said) and not self.references(ioasid)

    def released(self, ids: Iterable[int], *, wait: bool) -> core.Answer:
        """The answer to a free: now, or when the last of these IDs is reclaimed."""
        pending = self.lives.keys() & set(ids)
        if pending and wait:
            self.tickets += 1
            self.waiting[self.tickets] = pending
            return core.Waiting(self.tickets)
        return core.Released(not pending)

    # -- holders and subscribers --------------------------------------------------------------

    def open(self, name: str) -> core.SessionOpened:
        """Let a holder join or come back, with a session that there never was before."""
        refuse(self.holders.get(name) is not None, core.HolderLive(name))
        self.sessions += 1
        resumed = name in self.holders
        self.holders[name] = self.sessions
        self.since[name] = self.now
        return core.SessionOpened(self.sessions, resumed, tuple(self.referenced(name)))

    def referenced(self, name: str) -> list[tuple[int, int]]:
        """The IDs that a holder took references of, and how many."""
        lives = sorted(self.lives.items())
        return [(each, life.references[name]) for each, life in lives if life.references[name]]

    def crash(self, name: str) -> None:
        """Suspend a holder, or let it go if nothing of it can be in use."""
        mine = [each for each in self.subscribers.values() if each.holder == name]
        if not self.referenced(name) and not any(each.terms.hold for each in mine):
            self.let_go(name)
            return
        self.holders[name] = None
        self.since[name] = self.now
        for each in mine:
            self.suspend(each)

    def remove(self, name: str) -> core.Done:
        """Let a holder go, and everything that it had."""
        self.let_go(name)
        self.settle()
        return core.Done()

    def let_go(self, name: str) -> None:
        """Forget a holder, its subscriptions and references."""
        for each in list(self.subscribers.values()):
            if each.holder == name:
                self.leave(each, drained=False)
        for life in self.lives.values():
            del life.references[name]
        del self.holders[name]

    def subscriber(self, name: str, number: int) -> Subscriber:
        each = self.subscribers.get(number)
        if each is None or each.holder != name:
            raise core.UnknownSubscription(number)
        return each

    def told_by(self, name: str, number: int) -> Subscriber | None:
        """The subscription that a message is acknowledged of; none if it has ended."""
        ended = 0 < number <= self.subscriptions and number not in self.subscribers
        return None if ended else self.subscriber(name, number)

    def subscribe(self, name: str, terms: core.Subscribe) -> core.Answer:
        """Subscribe, or come back to the subscription that a crash left behind."""
        refuse(terms.sid is not None and terms.token is not None, wrong("token"))
        refuse(not terms.kinds or (terms.hold and not terms.kinds >= HOLDING), wrong("kinds"))
        refuse(terms.hold and not terms.awaited, wrong("awaited"))
        for each in self.subscribers.values():
            old = each.terms
            if (each.holder, old.sid, old.token) == (name, terms.sid, terms.token):
                refuse(each.attached, core.AlreadySubscribed(scope(old), each.number))
                for term in ("kinds", "priority", "hold", "awaited"):
                    refuse(getattr(old, term) != getattr(terms, term), wrong(term))
                each.terms = terms
                each.attached = True
                self.effects.append(core.Begin(each.number))
                self.resync_if_back(each)
                return core.Subscribed(each.number, True)
        if terms.sid is not None:
            self.set(terms.sid)
        self.subscriptions += 1
        each = Subscriber(self.subscriptions, name, terms, behind=terms.replay)
        self.subscribers[each.number] = each
        self.effects.append(core.Begin(each.number))
        self.settle()
        self.resync_if_back(each)
        return core.Subscribed(each.number, False)

    def restored(self) -> None:
        """Go on from a snapshot: nobody listens or waits any more."""
        self.effects.clear()
        self.waiting.clear()
        self.freezes.clear()
        self.tickets = 0

    # -- figures ------------------------------------------------------------------------------

    def statistics(self) -> core.Statistics:
        freed = sum(life.freed for life in self.lives.values())
        suspended = list(self.holders.values()).count(None)
        subscribers = sorted(self.subscribers.items())
        return core.Statistics(
            capacity=self.capacity,
            reserved=self.reserved + len(self.numbers),
            available=self.available,
            sets=len(self.sets),
            sets_free_pending=sum(each.destroyed for each in self.sets.values()),
            active=len(self.lives) - freed,
            free_pending=freed,
            sessions=len(self.holders) - suspended,
            suspended=suspended,
            subscriptions=len(self.subscribers),
            seq=self.seq,
            in_flight=sum(len(life.news) for life in self.lives.values()),
            reserved_numbers=len(self.numbers),
            groups=len(self.groups),
            quarantine=tuple(
                sum(life.freed and self.now - life.freed_at >= age for life in self.lives.values())
                for age in core.QUARANTINE_AGES
            ),
            lagging=tuple(self.lag(each) for _, each in subscribers if each.inbox or each.missed),
        )

    def holder_record(self, name: str) -> core.HolderRecord:
        mine = [each for _, each in sorted(self.subscribers.items()) if each.holder == name]
        return core.HolderRecord(
            name,
            self.holders[name],
            self.now - self.since[name],
            len(self.referenced(name)),
            sum(len(each.grants) for each in mine),
            len(mine),
            tuple(map(self.subscription_record, mine)),
        )

    def subscription_record(self, each: Subscriber) -> core.SubscriptionRecord:
        terms = each.terms
        return core.SubscriptionRecord(
            each.number,
            terms.sid,
            terms.token,
            tuple(sorted(terms.kinds)),
            terms.priority,
            terms.hold,
            each.attached,
            len(each.grants),
            self.lag(each) if each.inbox or each.missed else None,
            terms.awaited,
        )

    def lag(self, each: Subscriber) -> core.LaggingSubscriber:
        """What a subscriber has yet to acknowledge, and since when."""
        oldest = min(each.inbox + each.missed, key=lambda told: told.at)
        within = each.terms.acknowledge_within if each.terms.awaited else None
        missed = [news for told in each.missed for news in told.news]
        return core.LaggingSubscriber(
            holder=each.holder,
            subscription=each.number,
            scope=scope(each.terms),
            priority=each.terms.priority,
            attached=each.attached,
            queued=len(each.inbox),
            deferred=len(each.aside),
            folded=sum(each.number in news.owed for news in missed),
            oldest_seq=oldest.seq,
            oldest_age=self.now - oldest.at,
            acknowledge_within=within,
            overdue=within is not None and self.now - oldest.at >= within,
        )


def refuse(when: bool, error: core.IoasidError) -> None:
    if when:
        raise error


def wrong(argument: str) -> core.InvalidArgument:
    return core.InvalidArgument(argument, "", "")


def page(keys: Iterable[K], after: K | None, limit: int) -> tuple[list[K], K | None]:
    """A page of keys, and where the next one begins if there is one."""
    found = sorted(each for each in keys if after is None or each > after)
    return found[:limit], found[limit - 1] if len(found) > limit else None


def scope(terms: core.Subscribe) -> str:
    """A subscription's scope in words."""
    if terms.token is not None:
        return f"token {terms.token!r}"
    return "the system" if terms.sid is None else f"set {terms.sid}"


def ranges_of(ids: list[int]) -> tuple[core.IoasidRange, ...]:
    """Ascending IDs as ranges."""
    firsts = (each for each in ids if each - 1 not in ids)
    lasts = (each for each in ids if each + 1 not in ids)
    return tuple(map(core.IoasidRange, firsts, lasts))
