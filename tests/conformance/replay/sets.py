"""Operations on capacity and sets, on either side."""

from itertools import count

from attrs import define

from ioasid.core import INVALID_IOASID
from tests.conformance.replay import rules, words
from tests.conformance.replay.operation import Operation
from tests.conformance.replay.side import Refused, Side
from tests.conformance.replay.state import IoasidSet
from tests.conformance.replay.words import NO_ANSWER

INSTALLABLE = frozenset({0, 1 << 20})
"""The capacities that the kernel took for "not set yet"."""


@define(eq=False, slots=False)
class Sets(Side):
    """What an operation on capacity or a set answers, and what it changes."""

    def _install(self, op: Operation) -> str:
        system = self.system
        if not op.number:
            self.forbid(rules.CAPACITY_STANDS, "EINVAL InvalidArgument")
        if system.in_use:
            self.forbid(rules.CAPACITY_STANDS, "EBUSY CapacityInUse")
        if system.capacity in INSTALLABLE or self.decided(rules.CAPACITY_STANDS):
            system.capacity = system.available = op.number
        return f"{system.available} available" if self.holding else NO_ANSWER

    def _reserve(self, op: Operation) -> str:
        system, amount = self.system, op.number or self.system.available
        if amount > system.available:
            self.refuse("ENOSPC", "ENOSPC CapacityExhausted")
        if not amount:
            self.forbid(rules.ALL_OF_NOTHING, "ENOSPC CapacityExhausted")
        system.available -= amount
        system.reserved += amount
        system.in_use = True
        return f"{self._amount(amount)} reserved"

    def _cancel(self, op: Operation) -> str:
        system, amount = self.system, op.number
        wraps = amount + system.available > INVALID_IOASID
        if wraps and amount > system.reserved:
            self.forbid(rules.EXACT_AMOUNTS, "EINVAL NotReserved")
        after = (amount + system.available) % 2**32
        if after > system.capacity:
            self.refuse("EINVAL", "EINVAL NotReserved")
        if not amount:
            self.forbid(rules.ONLY_RESERVED, "EINVAL InvalidArgument")
        if amount > system.reserved:
            self.forbid(rules.ONLY_RESERVED, "EINVAL NotReserved")
        system.available = after
        system.reserved = max(0, system.reserved - amount)
        return f"{self._amount(after)} available"

    def _amount(self, amount: int) -> int:
        if amount < 2**31 or self.decided(rules.EXACT_AMOUNTS):
            return amount
        return amount - 2**32

    def _set_alloc(self, op: Operation) -> str:
        system, quota = self.system, op.number or self.system.available
        known = op.kind in {"mm", "null"}
        over = quota > system.available
        if not known or (op.kind == "mm") is not (op.token is not None):
            # The kernel looked at the capacity before it looked at a token.
            late = over and (known or op.kind == "0")
            self.refuse("ENOSPC" if late else "EINVAL", "EINVAL InvalidArgument", rules.SENSE_FIRST)
        if op.token is not None and system.by_token(op.token) is not None:
            self.refuse("ENOSPC" if over else "EEXIST", "EEXIST TokenInUse", rules.SENSE_FIRST)
        if over:
            self.refuse("ENOSPC", "ENOSPC CapacityExhausted")
        if not quota:
            self.forbid(rules.ALL_OF_NOTHING, "ENOSPC CapacityExhausted")
        taken = {owner.number for owner in system.sets}
        number = next(number for number in count() if number not in taken)
        if number > system.available and not self.decided(rules.SET_NUMBERS):
            raise Refused("ENOSPC")
        if number != system.next_number and self.decided(rules.NEW_NUMBERS):
            number = system.next_number
        system.next_number = max(system.next_number, number) + 1
        assert op.set is not None
        owner = IoasidSet(op.set, number, op.token, quota)
        system.sets.append(owner)
        system.names[op.set] = owner
        system.available -= quota
        system.in_use = True
        self.notifier.made(owner)
        return words.set_words(owner.name, number, quota)

    def _set_free(self, op: Operation) -> str:
        owner = self.find_set(op, "EINVAL")
        if not owner.allocated:
            self.end(owner)
            return "done"
        owner.free_pending = True
        if not self.decided(rules.DESTROY_FREES):
            raise Refused("EBUSY")
        self.release_all(owner)
        return "done"

    def _free_all(self, op: Operation) -> str:
        owner = self.find_set(op, NO_ANSWER)
        self.release_all(owner)
        if owner.members and not self.decided(rules.FREED_ARE_FOUND):
            owner.members.clear()
        return "done" if self.holding else NO_ANSWER

    def _for_each(self, op: Operation) -> str:
        return words.ids_words(sorted(self.find_set(op, "IDs none").members))

    def _find_mm_set(self, op: Operation) -> str:
        owner = None if op.token is None else self.system.by_token(op.token)
        if owner is None:
            self.refuse("no set", "ENOENT UnknownToken")
        return f"set {owner.name}"
