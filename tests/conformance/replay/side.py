"""One side's allocator: what all of its operations have in common."""

from typing import NoReturn

from attrs import define, field

from ioasid.core import EventKind
from tests.conformance.replay import rules, words
from tests.conformance.replay.notifier import Notifier
from tests.conformance.replay.operation import Operation
from tests.conformance.replay.rules import Rule
from tests.conformance.replay.state import Ioasid, IoasidSet, System


class Refused(Exception):
    """A refusal, in the words of the side that it is on."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


@define(eq=False, slots=False)
class Side:
    """One side: its state, who is told, and the rules that hold on it.

    `fired` are the rules that were asked for in the step under way.
    """

    holding: frozenset[Rule]
    system: System
    notifier: Notifier
    fired: dict[Rule, None] = field(factory=dict)
    deferred: list[tuple[str, int, tuple[str, ...]]] = field(factory=list)

    # -- rules and refusals -------------------------------------------------------------------

    def decided(self, rule: Rule) -> bool:
        """Whether a rule holds on this side; notes that it made a difference here."""
        self.fired[rule] = None
        return rule in self.holding

    def refuse(self, kernel: str, ours: str, rule: Rule = rules.EXACT_ERRNO) -> NoReturn:
        """Refuse an operation: what the kernel said, and what is said here."""
        if kernel not in words.SILENT and kernel != ours.split(maxsplit=1)[0]:
            self.decided(rule)
        raise Refused(ours if self.holding else kernel)

    def forbid(self, rule: Rule, ours: str) -> None:
        """Refuse on this side what the kernel does."""
        if self.decided(rule):
            raise Refused(ours)

    # -- references ---------------------------------------------------------------------------

    def take(self, one: Ioasid) -> None:
        """Take a reference that belongs to whoever took it."""
        one.refs += 1
        one.taken += 1

    def put(self, one: Ioasid) -> bool:
        """Put a reference; answers whether the ID is back in the pool."""
        if not one.taken:
            self.forbid(rules.OWN_REFERENCES, "EINVAL NotReferenced")
        one.taken -= one.taken > 0
        return self.drop(one)

    def drop(self, one: Ioasid) -> bool:
        """Drop a reference, whoever's it is; answers whether the ID is back in the pool."""
        one.refs -= 1
        return self.reclaim_if_done(one)

    def reclaim_if_done(self, one: Ioasid) -> bool:
        """Let an ID go if nothing keeps it."""
        if one.refs or self.system.ids.get(one.ioasid) is not one:
            return False
        if self.notifier.keeps(one):
            return False
        owner = one.owner
        del self.system.ids[one.ioasid]
        owner.members.pop(one.ioasid, None)
        owner.allocated -= 1
        if owner.free_pending and not owner.allocated:
            self.end(owner)
        return True

    def end(self, owner: IoasidSet) -> None:
        """Let a set go."""
        owner.alive = False
        self.system.sets.remove(owner)
        if self.decided(rules.QUOTA_RETURNS):
            self.system.available += owner.quota
        self.notifier.gone(owner)

    def put_for(self, name: str, ioasid: int) -> None:
        """Put a reference for a subscriber, who does not mind a refusal."""
        one = self.system.ids.get(ioasid)
        try:
            reclaimed = one is not None and self.put(one)
        except Refused:
            reclaimed = False
        self.notifier.note(words.put_words(name, ioasid, reclaimed=reclaimed))

    # -- the end of a life --------------------------------------------------------------------

    def release(self, one: Ioasid) -> None:
        """Drop the set's own reference of an ID; a second time is a no-op."""
        if one.free_pending:
            return
        one.free_pending = True
        one.refs -= 1
        quiet = not one.refs
        if not quiet or (
            self.notifier.hears(EventKind.FREE, one.owner) and self.decided(rules.FREE_TO_ALL)
        ):
            self.notifier.notify(EventKind.FREE, one)
        self.reclaim_if_done(one)

    def release_all(self, owner: IoasidSet) -> None:
        """Free every ID of a set, lowest first."""
        for one in sorted(owner.members.values(), key=lambda one: one.ioasid):
            self.release(one)

    # -- what an operation names --------------------------------------------------------------

    def find(self, op: Operation, unknown: str = "ENOENT", foreign: str = "EACCES") -> Ioasid:
        """Return the ID that an operation names, if it is in the set that it names."""
        one = self.system.ids.get(op.ioasid)
        if one is None:
            self.refuse(unknown, "ENOENT UnknownIoasid")
        if not self.in_set(op, one):
            self.refuse(foreign, self.not_of(op))
        return one

    def not_of(self, op: Operation) -> str:
        """What is said here of an ID that is not in the set that an operation names."""
        gone = self.system.named(op.set) is None
        return "ENOENT UnknownSet" if gone else "EACCES NotOfThisSet"

    def find_set(self, op: Operation, kernel: str) -> IoasidSet:
        """Return the set that an operation names."""
        owner = self.system.named(op.set)
        if owner is None:
            self.refuse(kernel, "ENOENT UnknownSet")
        return owner

    def in_set(self, op: Operation, one: Ioasid) -> bool:
        """Whether an ID is in the set that an operation names, if it names one."""
        return op.set is None or self.system.named(op.set) is one.owner
