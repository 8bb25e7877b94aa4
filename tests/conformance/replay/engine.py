"""A trace, replayed and judged: agreement, decided with its rule, or disagreement.

A step is carried out three times: by this allocator, by the model with all rules and by the model
without any. What was recorded and what came out here are compared fact by fact. A fact that is
the same is agreed on. One that differs is decided if either side is as its model says: then the
rules in which the two models part explain it. Anything else nobody decided.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from itertools import zip_longest
from typing import NamedTuple

from attrs import define, evolve, field, frozen

from tests.conformance.replay import rules, words
from tests.conformance.replay.chains import Chains
from tests.conformance.replay.driver import CAPACITY, Driver
from tests.conformance.replay.model import Model
from tests.conformance.replay.notifier import Notifier
from tests.conformance.replay.rules import Rule
from tests.conformance.replay.state import System
from tests.conformance.replay.tiers import Tiers
from tests.conformance.replay.trace import KernelState, Step, Trace
from tests.conformance.replay.words import NO_ANSWER, Outcome, Told


class Verdict(StrEnum):
    """How what came out here stands to what the kernel did."""

    AGREEMENT = "agreement"
    DECIDED = "decided"
    DISAGREEMENT = "disagreement"


class Difference(NamedTuple):
    """One thing that differs; if it has no rule, nobody decided so."""

    aspect: str
    kernel: str
    ours: str
    rules: tuple[Rule, ...]


@frozen
class StepReport:
    """What came out of one step; `unnamed` is a refusal that the kernel gave no reason for."""

    step: Step
    kernel: str
    ours: str
    told: str
    unnamed: bool
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its differences."""
        if any(not difference.rules for difference in self.differences):
            return Verdict.DISAGREEMENT
        return Verdict.DECIDED if self.differences else Verdict.AGREEMENT

    @property
    def rules(self) -> dict[Rule, None]:
        """The rules that its differences have, in order."""
        return dict.fromkeys(rule for each in self.differences for rule in each.rules)


@frozen
class TraceReport:
    """What came out of one trace: its steps, and what nobody decided of how its end differs."""

    trace: Trace
    steps: tuple[StepReport, ...]
    end: tuple[Difference, ...]

    def count(self, verdict: Verdict) -> int:
        """Count the steps with a verdict."""
        return sum(step.verdict is verdict for step in self.steps)

    @property
    def rules(self) -> Counter[Rule]:
        """The steps by each rule that occurs in them."""
        found: Counter[Rule] = Counter()
        for step in self.steps:
            found.update(step.rules.keys())
        return found

    @property
    def passed(self) -> bool:
        """Whether there is no disagreement."""
        return not (self.count(Verdict.DISAGREEMENT) or self.end)


def replay(trace: Trace, decided: Iterable[Rule] = rules.RULES) -> TraceReport:
    """Play every step of a trace on a fresh allocator, and judge it by what is decided."""
    engine = _Engine(trace.ranks, frozenset(decided))
    steps = tuple([engine.step(step) for step in trace.steps])
    end: list[Difference] = []
    if trace.final is not None:
        end = [each for each in engine.compare_end(trace.final) if not each.rules]
    return TraceReport(trace, steps, tuple(end))


def _model(decided: frozenset[Rule], notifier: Notifier) -> Model:
    model = Model(decided, System(CAPACITY), notifier)
    notifier.model = model
    return model


class _Fact(NamedTuple):
    """One thing, in the words of what was recorded, of both models and of what came out here."""

    aspect: str
    recorded: str
    kernel: str
    actual: str
    ours: str

    @property
    def predicted(self) -> bool:
        """Whether both sides are as their models say."""
        return self.recorded == self.kernel and self.actual == self.ours


@frozen
class _Sides:
    """The outcomes of a step: recorded, of both models and of this allocator."""

    recorded: Outcome
    kernel: Outcome
    actual: Outcome
    ours: Outcome

    def each(self, words_of: Callable[[Outcome], str]) -> tuple[str, str, str, str]:
        """Return something of all four, in the order of a fact."""
        return (
            words_of(self.recorded),
            words_of(self.kernel),
            words_of(self.actual),
            words_of(self.ours),
        )

    def facts(self) -> Iterator[_Fact]:
        """Compare the state; what was not recorded of it is left out."""
        recorded = self.recorded.facts
        for aspect in dict.fromkeys([*recorded, *self.actual.facts]):
            if aspect in recorded or aspect != "available":
                yield _Fact(aspect, *self.each(partial(_fact, aspect)))

    def events(self) -> Iterator[_Fact]:
        """Compare who was told what, what the events said, and what subscribers did."""
        yield _Fact("told", *self.each(lambda each: _told_words(each.told)))
        says = [
            {(told.subscriber, *told.event): told.carried for told in outcome.told}
            for outcome in (self.recorded, self.kernel, self.actual, self.ours)
        ]
        for key in says[0].keys() & says[2].keys():
            recorded, kernel, actual, ours = (each.get(key, "nothing") for each in says)
            yield _Fact(f"event for {key[0]}", recorded, kernel, actual, ours)
        yield from self._orders()
        yield _Fact("did", *self.each(lambda each: "; ".join(each.did) or "nothing"))

    def calls(self) -> Iterator[Difference]:
        """Compare what the kernel's callbacks did, one by one, with what they would have done.

        Nothing here has such an order, so there is nothing to decide: a record that the kernel's
        model does not foretell is one that nobody can judge.
        """
        both = zip_longest(self.recorded.calls, self.kernel.calls, fillvalue="nothing more")
        for recorded, foretold in both:
            if recorded != foretold:
                yield Difference("calls", recorded, f"foretold: {foretold}", ())
                return

    def _orders(self) -> Iterator[_Fact]:
        # One event's way through its subscribers: the kernel's calls came one after the other,
        # and fit if no tier was called before one above it.
        for event in dict.fromkeys(told.event for told in self.recorded.told):
            recorded, kernel, actual, ours = self.each(partial(_way, event, self.actual, self.ours))
            if recorded == kernel and _fits(event, self.recorded, self.actual):
                continue
            yield _Fact("order", recorded, kernel, actual, ours)


@define
class _Engine:
    ranks: Mapping[str, int]
    decided: frozenset[Rule]
    driver: Driver = field(init=False, factory=Driver)
    chains: Chains = field(init=False)
    kernel: Model = field(init=False)
    ours: Model = field(init=False)
    # Of the step before: which facts differed, and the kernel's; of all before: which rules fired.
    carried: dict[str, Difference] = field(init=False, factory=dict)
    before: Mapping[str, str] = field(init=False)
    history: dict[Rule, None] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self.chains = Chains(dict(self.ranks))
        self.kernel = _model(frozenset(), self.chains)
        self.ours = _model(self.decided, Tiers())
        self.before = self.kernel.system.facts()

    def step(self, step: Step) -> StepReport:
        """Carry out a step on every side, and compare."""
        operation = step.operation
        self.chains.hangs = words.hung(step)
        named = operation.names if operation.name != "set_alloc" else None
        stale = named is not None and self.kernel.system.named(named) is None
        kernel = self.kernel.step(operation)
        sides = _Sides(
            self._recorded(step, kernel),
            kernel,
            self.driver.step(operation),
            self.ours.step(operation),
        )
        recorded, actual = sides.recorded, sides.actual
        unnamed = (
            actual.refused
            and recorded.answer in words.SILENT
            and kernel.answer in words.SILENT
            and recorded.facts == self.before
        )
        done = recorded.answer == kernel.answer == NO_ANSWER and not actual.refused
        same = actual.refused and recorded.answer == actual.answer.split()[0]
        answer = (
            []
            if unnamed or done or same
            else [_Fact("answer", *sides.each(lambda each: each.answer))]
        )
        if stale and actual.refused and words.refused(step):
            # A stale pointer: there is no telling what the kernel says, but that it does not do it.
            self.kernel.decided(rules.GONE_IS_GONE)
            answer = [fact._replace(kernel=fact.recorded) for fact in answer]
        facts = list(sides.facts())
        fired = dict.fromkeys((*self.ours.fired, *self.kernel.fired))
        fired = {rule: None for rule in fired if rule in self.decided}
        differences = [*self._judge([*answer, *sides.events(), *facts], fired), *sides.calls()]
        self.history |= fired
        self.before = recorded.facts
        state = {fact.aspect for fact in facts}
        self.carried = {each.aspect: each for each in differences if each.aspect in state}
        if recorded.facts != kernel.facts and step.state is not None:
            self.kernel.system.adopt(step.state)
        told = ", ".join(f"{each.subscriber} {each.kind} {each.ioasid}" for each in actual.told)
        return StepReport(step, recorded.answer, actual.answer, told, unnamed, tuple(differences))

    def compare_end(self, final: KernelState) -> list[Difference]:
        """Compare the state at the end of a trace."""
        recorded = Outcome("", facts=words.recorded_facts(final))
        states = [
            Outcome("", facts=self.kernel.facts()),
            Outcome("", facts=self.driver.facts()),
            Outcome("", facts=self.ours.facts()),
        ]
        return [*self._judge(_Sides(recorded, *states).facts(), {})]

    def _recorded(self, step: Step, kernel: Outcome) -> Outcome:
        # Of a random trace only answers were recorded; for the rest the model stands in.
        if step.state is None:
            return evolve(kernel, answer=words.recorded_answer(step))
        return words.recorded_outcome(step, words.recorded_facts(step.state), self.chains.holding)

    def _judge(self, facts: Iterable[_Fact], fired: dict[Rule, None]) -> Iterator[Difference]:
        for fact in facts:
            if fact.recorded != fact.actual:
                found = self._rules(fact, fired) if fact.predicted else ()
                yield Difference(fact.aspect, fact.recorded, fact.actual, found)

    def _rules(self, fact: _Fact, fired: dict[Rule, None]) -> tuple[Rule, ...]:
        before = self.carried.get(fact.aspect)
        if before is not None and before[1:3] == (fact.recorded, fact.actual):
            return before.rules
        found = tuple(rule for rule in fired if rule.only in {None, fact.aspect})
        if found:
            return found
        if before is not None:
            return before.rules
        # What followed from a difference before it, in an operation that is the same on both sides.
        follows = dict.fromkeys(rule for each in self.carried.values() for rule in each.rules)
        return tuple(rule for rule in follows or self.history if rule.only in {None, fact.aspect})


def _fact(aspect: str, outcome: Outcome) -> str:
    return outcome.facts.get(aspect, "absent")


def _told_words(told: Iterable[Told]) -> str:
    calls = sorted(f"{each.subscriber} {each.kind} {each.ioasid}" for each in told)
    return ", ".join(calls) or "nobody"


def _way(event: tuple[str, int], actual: Outcome, ours: Outcome, outcome: Outcome) -> str:
    # Only who was told on every side has a place to be compared.
    both = {told.subscriber for told in actual.told if told.event == event}
    both &= {told.subscriber for told in ours.told if told.event == event}
    calls = [told for told in outcome.told if told.event == event and told.subscriber in both]
    way = sorted(calls, key=lambda told: told.turn)
    return f"{event[0]} {', '.join(told.subscriber for told in way)}"


def _fits(event: tuple[str, int], recorded: Outcome, actual: Outcome) -> bool:
    turns = {told.subscriber: told.turn for told in actual.told if told.event == event}
    way = [
        turns[told.subscriber]
        for told in recorded.told
        if told.event == event and told.subscriber in turns
    ]
    return way == sorted(way)
