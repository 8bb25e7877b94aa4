"""What either allocator makes of an operation: the kernel's without a rule, this one with all.

A `Model` follows one side through a trace. Where both sides mean the same, the code says so once.
Where they part, it asks `decided` for the rule, or refuses in two ways. Who is told, and what
they do then, is in `chains.py` for the kernel and in `tiers.py` for this allocator.
"""

from attrs import define

from tests.conformance.replay import words
from tests.conformance.replay.ioasids import Ioasids
from tests.conformance.replay.operation import Operation
from tests.conformance.replay.sets import Sets
from tests.conformance.replay.side import Refused
from tests.conformance.replay.words import NO_ANSWER, Outcome


@define(eq=False, slots=False)
class Model(Sets, Ioasids):
    """One side's allocator: what it answers and how it is afterwards."""

    def step(self, operation: Operation) -> Outcome:
        """Carry out an operation."""
        self.fired.clear()
        self.notifier.begin()
        try:
            answer, refused = self._carry_out(operation), False
        except Refused as refusal:
            answer, refused = refusal.answer, True
        self.notifier.settle()
        return Outcome(
            words.HUNG if self.notifier.stuck else answer,
            self.notifier.told,
            self.notifier.did,
            self.facts(),
            refused,
            self.notifier.calls,
        )

    def facts(self) -> dict[str, str]:
        """Return what can be compared of the state."""
        return self.system.facts() | self.notifier.facts()

    def _carry_out(self, op: Operation) -> str:
        match op.name:
            case "register":
                return self.notifier.register(op)
            case "unregister":
                return self.notifier.unregister(op)
            case "run_work":
                return self._run_work()
            case "put":
                one = self.find(op, "not reclaimed", "not reclaimed")
                return words.reclaimed_words(self.put(one), "not reclaimed")
            case name:
                answer: str = getattr(self, f"_{name}")(op)
                return answer

    def _run_work(self) -> str:
        deferred, self.deferred = self.deferred, []
        for name, ioasid, verbs in deferred:
            for verb in verbs:
                if verb == "detach":
                    self.notifier.note(f"{name} unbinds {ioasid}")
                    try:
                        self._detach_spid(Operation("detach_spid", "", ioasid=ioasid))
                    except Refused:
                        pass
                else:
                    self.put_for(name, ioasid)
                self.notifier.settle()
        return "done" if self.holding else NO_ANSWER
