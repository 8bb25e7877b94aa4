"""The state that a model follows, and the facts of it that are compared."""

from attrs import define, field

from tests.conformance.replay import words
from tests.conformance.replay.trace import KernelState


@define(eq=False)
class IoasidSet:
    """A set; `members` are the IDs that are found in it, `allocated` is what the quota counts."""

    name: str
    number: int
    token: str | None
    quota: int
    allocated: int = 0
    free_pending: bool = False
    alive: bool = True
    members: dict[int, "Ioasid"] = field(factory=dict)


@define(eq=False)
class Ioasid:
    """An ID; of its references the first is the set's own and some were taken by a request."""

    ioasid: int
    owner: IoasidSet
    refs: int = 1
    taken: int = 0
    spid: int | None = None
    data: int | None = None
    free_pending: bool = False
    granted: list[str] = field(factory=list)
    """Who was granted a reference with a BIND and has it still, on this side."""


@define(eq=False)
class System:
    """The sets, the IDs and the capacity; `names` are the sets that operations mean."""

    capacity: int
    available: int = field(init=False)
    reserved: int = 0
    in_use: bool = False
    next_number: int = 0
    """Above those of all sets there were."""
    sets: list[IoasidSet] = field(factory=list)
    names: dict[str, IoasidSet] = field(factory=dict)
    ids: dict[int, Ioasid] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.available = self.capacity

    def named(self, name: str | None) -> IoasidSet | None:
        """Return the set that a name means, if it is still there."""
        owner = None if name is None else self.names.get(name)
        return owner if owner is not None and owner.alive else None

    def by_token(self, token: str) -> IoasidSet | None:
        """Return the set with a token, if there is one."""
        return next((owner for owner in self.sets if owner.token == token), None)

    def adopt(self, state: KernelState) -> None:
        """Take over a recorded state, so that what was wrong in one step is not so in the next."""
        self.capacity = self.capacity if state.capacity is None else state.capacity
        self.available = self.available if state.avail is None else state.avail
        for owner in self.sets:
            owner.members = {}
        for recorded in state.sets:
            found = self.named(recorded.set)
            if found is None:
                found = IoasidSet(recorded.set, recorded.id, None, recorded.quota)
                self.sets.append(found)
                self.names[recorded.set] = found
            found.number, found.quota, found.allocated = recorded.id, recorded.quota, recorded.nr
            self.next_number = max(self.next_number, recorded.id + 1)
            found.free_pending = recorded.free_pending
        names = {recorded.set for recorded in state.sets}
        for owner in [owner for owner in self.sets if owner.name not in names]:
            owner.alive = False
            self.sets.remove(owner)
        known, self.ids = self.ids, {}
        for each in state.ids:
            home = self.names.get(each.set)
            if home is None:
                continue
            one = known.get(each.id)
            if one is None or one.owner is not home:
                one = Ioasid(each.id, home, taken=max(0, each.refs - 1))
            one.spid = each.spid if isinstance(each.spid, int) else None
            one.refs, one.data = each.refs, each.data or None
            one.free_pending = each.state == "FREE_PENDING"
            self.ids[each.id] = one
            if each.in_set:
                home.members[each.id] = one

    def facts(self) -> dict[str, str]:
        """Return what can be compared."""
        facts = {"available": f"{self.available} of {self.capacity}"}
        for owner in self.sets:
            named = self.names[owner.name] is owner
            facts[words.set_key(owner.name, owner.number, named=named)] = words.set_fact(
                owner.number, owner.quota, owner.allocated, pending=owner.free_pending
            )
        for one in self.ids.values():
            inside = one.owner.members.get(one.ioasid) is one
            facts[f"ID {one.ioasid}"] = words.id_fact(
                one.owner.name if inside else f"no longer in {one.owner.name}",
                "FREE_PENDING" if one.free_pending else "ACTIVE",
                one.refs,
                one.spid,
                one.data,
            )
        return facts
