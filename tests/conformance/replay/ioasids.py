"""Operations on IDs, on either side."""

from collections.abc import Iterable

from attrs import define

from ioasid.core import INVALID_IOASID, EventKind
from tests.conformance.replay import rules, words
from tests.conformance.replay.operation import Operation
from tests.conformance.replay.side import Side
from tests.conformance.replay.state import Ioasid
from tests.conformance.replay.words import NO_ANSWER


@define(eq=False, slots=False)
class Ioasids(Side):
    """What an operation on an ID answers, and what it changes."""

    def _alloc(self, op: Operation) -> str:
        if op.low > op.high:
            self.refuse("no ID", "EINVAL InvalidArgument")
        if op.high >= self.system.capacity:
            self.forbid(rules.BOUNDED_IDS, "EINVAL InvalidArgument")
        owner = self.find_set(op, "no ID")
        if owner.free_pending:
            self.forbid(rules.NO_NEW_IDS, "EBUSY SetFreePending")
        if owner.allocated >= owner.quota:
            self.refuse("no ID", "EDQUOT QuotaExceeded")
        ioasid = op.low
        while ioasid in self.system.ids:
            ioasid += 1
        if ioasid > op.high or ioasid == INVALID_IOASID:
            self.refuse("no ID", "ENOSPC RangeFull")
        one = Ioasid(ioasid, owner, data=op.number or None)
        self.system.ids[ioasid] = owner.members[ioasid] = one
        owner.allocated += 1
        self.notifier.notify(EventKind.ALLOC, one)
        return f"ID {ioasid}"

    def _free(self, op: Operation) -> str:
        one = self.system.ids.get(op.ioasid)
        if one is None:
            self.refuse(NO_ANSWER, "ENOENT UnknownIoasid")
        if op.set is None:
            if not self.decided(rules.ANY_SET):
                return NO_ANSWER
        elif not self.in_set(op, one):
            self.refuse(NO_ANSWER, self.not_of(op))
        self.release(one)
        if not self.holding:
            return NO_ANSWER
        return words.reclaimed_words(self.system.ids.get(op.ioasid) is not one, "in quarantine")

    def _get(self, op: Operation) -> str:
        one = self.system.ids.get(op.ioasid)
        if one is None:
            self.refuse("EINVAL", "ENOENT UnknownIoasid")
        if one.free_pending:
            self.refuse("EBUSY", "EBUSY IoasidFreePending")
        if not self.in_set(op, one):
            self.refuse("EACCES", self.not_of(op))
        self.take(one)
        return "done"

    def _get_if_owned(self, op: Operation) -> str:
        one = self.find(op)
        busy = one.free_pending
        caller = self.system.named(op.token)
        token = op.token if caller is None else caller.token
        if one.owner.token is None or one.owner.token != token:
            ours = "EBUSY IoasidFreePending" if busy else "EACCES NotOfThisSet"
            if not busy and (token is None or self.system.by_token(token) is None):
                ours = "ENOENT UnknownSet"
            self.refuse("EINVAL" if one.owner.token is None else "EPERM", ours)
        if busy:
            self.refuse("EBUSY", "EBUSY IoasidFreePending")
        self.take(one)
        return "done"

    def _find(self, op: Operation) -> str:
        return f"data {words.or_dash(self.find(op).data)}"

    def _attach_data(self, op: Operation) -> str:
        one = self.find(op)
        if one.free_pending:
            self.forbid(rules.QUARANTINE, "EBUSY IoasidFreePending")
        if one.data is not None:
            self.refuse("EBUSY", "EBUSY DataTaken")
        one.data = op.number or None
        return "done"

    def _detach_data(self, op: Operation) -> str:
        one = self.find(op, NO_ANSWER)
        if one.free_pending:
            self.forbid(rules.QUARANTINE, "EBUSY IoasidFreePending")
        one.data = None
        return "done" if self.holding else NO_ANSWER

    def _attach_spid(self, op: Operation) -> str:
        if op.number == INVALID_IOASID:
            self.refuse("EINVAL", "EINVAL InvalidArgument")
        one = self.find(op)
        if one.free_pending:
            self.forbid(rules.QUARANTINE, "EBUSY IoasidFreePending")
        taken = bool(_bound(one.owner.members.values(), op.number))
        if one.spid is not None:
            if taken:
                self.refuse("EINVAL", "EEXIST AlreadyBound")
            self.forbid(rules.BOUND_ONCE, "EEXIST AlreadyBound")
        if taken:
            self.refuse("EINVAL", "EEXIST SpidInUse")
        one.spid = op.number
        self.notifier.notify(EventKind.BIND, one)
        return "done"

    def _detach_spid(self, op: Operation) -> str:
        one = self.find(op, NO_ANSWER)
        if one.spid is None:
            self.refuse(NO_ANSWER, "EINVAL NoSpid")
        if not (one.free_pending and self.decided(rules.FREE_ENDS_BINDING)):
            self.notifier.notify(EventKind.UNBIND, one)
        one.spid = None
        return "done" if self.holding else NO_ANSWER

    def _find_by_spid(self, op: Operation) -> str:
        if op.number == INVALID_IOASID:
            self.forbid(rules.NO_INVALID_SPID, "EINVAL InvalidArgument")
        found = _bound(self.find_set(op, "no ID").members.values(), op.number)
        if not found:
            self.refuse("no ID", "ENOENT UnknownSpid")
        for one in found if op.get else []:
            if one.free_pending:
                self.forbid(rules.QUARANTINE, "EBUSY IoasidFreePending")
            self.take(one)
        return f"ID {found[-1].ioasid}"

    def _find_set(self, op: Operation) -> str:
        return f"set {self.find(op).owner.name}"


def _bound(members: Iterable[Ioasid], spid: int) -> list[Ioasid]:
    wanted = None if spid == INVALID_IOASID else spid
    found = [one for one in members if one.spid == wanted]
    return sorted(found, key=lambda one: one.ioasid)
