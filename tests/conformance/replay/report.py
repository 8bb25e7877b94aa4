"""What came out of a replay, told to people or to programs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import Final, Protocol, Self

import msgspec
from attrs import frozen
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tests.conformance.replay.engine import Difference, StepReport, TraceReport, Verdict
from tests.conformance.replay.rules import Rule


@frozen
class Totals:
    """What came out of several traces."""

    steps: int
    verdicts: dict[Verdict, int]
    rules: Counter[Rule]
    end_states_that_differ: int
    passed: bool

    @classmethod
    def of(cls, reports: Sequence[TraceReport]) -> Self:
        """Add up."""
        return cls(
            sum(len(report.steps) for report in reports),
            {verdict: sum(report.count(verdict) for report in reports) for verdict in Verdict},
            sum((report.rules for report in reports), Counter[Rule]()),
            sum(bool(report.end) for report in reports),
            all(report.passed for report in reports),
        )


class Reporter(Protocol):
    """Whoever shows what came out."""

    def begin(self) -> None:
        """Introduce it, before the first trace."""

    def trace(self, report: TraceReport) -> None:
        """Show a trace."""

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Conclude, after the last trace."""


class JsonReporter:
    """One event a line: every step, every trace, and the verdict on all of them."""

    def begin(self) -> None:
        """Print nothing: there is nothing to introduce."""

    def trace(self, report: TraceReport) -> None:
        """Print the steps of a trace, then the trace."""
        for each in report.steps:
            self._print(
                event="step",
                trace=report.trace.name,
                step=each.step.number,
                operation=each.step.op,
                words=each.step.operation.words,
                kernel=each.kernel,
                ours=each.ours,
                told=each.told,
                unnamed=each.unnamed,
                verdict=each.verdict,
                differences=_plain(each.differences),
            )
        self._print(
            event="trace",
            trace=report.trace.name,
            end=_plain(report.end),
            **self._totals([report]),
        )

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Print the verdict."""
        self._print(event="verdict", traces=len(reports), **self._totals(reports))

    def _totals(self, reports: Sequence[TraceReport]) -> dict[str, object]:
        totals = Totals.of(reports)
        return {
            "steps": totals.steps,
            **{verdict.value: count for verdict, count in totals.verdicts.items()},
            "rules": {rule.label: count for rule, count in totals.rules.items()},
            "end_states_that_differ": totals.end_states_that_differ,
            "passed": totals.passed,
        }

    def _print(self, **event: object) -> None:
        print(msgspec.json.encode(event).decode(), flush=True)


class RichReporter:
    """For people: an introduction, every scenario step by step, a summary and a conclusion."""

    COLOURS: Final = {
        Verdict.AGREEMENT: "green",
        Verdict.DECIDED: "yellow",
        Verdict.DISAGREEMENT: "bold red",
    }

    def __init__(self) -> None:
        self._console = Console(highlight=False, width=80)

    def begin(self) -> None:
        """Say what is about to be compared with what."""
        self._say(
            "A Linux kernel series once had an allocator for IOASIDs (PASIDs), the numbers by "
            "which an IOMMU knows the address space that a DMA request means. What it answered "
            "was recorded. Here the same operations go to this allocator, and every answer, "
            "every event and every state is compared: agreement, decided (different on purpose, by "
            "a rule that foretells it) or disagreement (nobody decided so)."
        )
        self._say()

    def trace(self, report: TraceReport) -> None:
        """Show a random trace in a line, any other step by step; then what is wrong with it."""
        if report.trace.final is None:
            self._say()
            self._say((report.trace.name, "bold"), f": {report.trace.about}")
            self._say((self._columns("", "operation", "the kernel", "verdict"), "dim"))
            before: tuple[Difference, ...] = ()
            for step in report.steps:
                self._step(step, before)
                before = step.differences
        else:
            agreed, decided, bad = (report.count(verdict) for verdict in Verdict)
            why = ", ".join(f"{rule.label} {n}" for rule, n in report.rules.most_common())
            self._say(
                (report.trace.name, "bold"),
                f": {len(report.steps)} steps, {agreed} agreements, {decided} decided",
                f" ({why}), " if why else ", ",
                f"{bad} disagreements, end state {'differs' if report.end else 'equal'}",
            )
        wrong = list(_wrong(report))
        for line in wrong[:20]:
            self._say((line, "bold red"), indent=2)
        if len(wrong) > 20:
            self._say((f"and {len(wrong) - 20} more", "bold red"), indent=2)

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Show the counts and the reasons, and conclude."""
        totals = Totals.of(reports)
        self._say()
        self._console.print(self._counts(reports))
        if totals.rules:
            self._console.print(self._rules(totals.rules))
        if totals.passed:
            self._say(
                f"No disagreement: {totals.verdicts[Verdict.AGREEMENT]} steps as the kernel took "
                f"them, {totals.verdicts[Verdict.DECIDED]} different on purpose, each by "
                "a rule above."
            )
        else:
            self._say(
                f"Not as it should be: {totals.verdicts[Verdict.DISAGREEMENT]} steps in "
                f"disagreement, {totals.end_states_that_differ} end states that differ."
            )

    def _say(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        text = Text.assemble(*parts)
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)

    def _columns(self, number: object, words: str, kernel: str, verdict: str) -> str:
        return f"{number:>4}  {words:<42} {kernel:<19} {verdict}"

    def _step(self, report: StepReport, before: tuple[Difference, ...]) -> None:
        words, colour = report.step.operation.words, self.COLOURS[report.verdict]
        first, *more = wrap(words, 42)
        columns = self._columns(report.step.number, first, report.kernel, "")
        self._say(columns, (report.verdict, colour))
        for line in more:
            self._say(line, indent=6)
        if report.ours != report.kernel:
            self._say(f"here: {report.ours}", indent=6)
        if report.told:
            self._say((f"told here: {report.told}", "dim"), indent=6)
        for each in report.differences:
            if each.aspect != "answer":
                self._say(f"{each.aspect}: the kernel {each.kernel}; here {each.ours}", indent=6)
        new = {rule for each in report.differences if each not in before for rule in each.rules}
        for rule in report.rules:
            why = f": {rule.text}" if rule in new else ", as before"
            self._say((f"{rule.label}{why}", colour), indent=6)

    def _counts(self, reports: Sequence[TraceReport]) -> Table:
        table = Table(title="Steps", title_justify="left")
        table.add_column("traces")
        for name in ("steps", *Verdict):
            table.add_column(name, justify="right")
        table.add_column("state")
        random = [report for report in reports if report.trace.final is not None]
        scenarios = [report for report in reports if report.trace.final is None]
        for name, group, equal in (
            ("random", random, "equal at the end"),
            ("scenario", scenarios, "equal after every step, but for what was decided"),
        ):
            totals = Totals.of(group)
            if group:
                table.add_row(
                    f"{len(group)} {name}",
                    f"{totals.steps}",
                    *(f"{count}" for count in totals.verdicts.values()),
                    equal if totals.passed else "see above",
                )
        return table

    def _rules(self, rules: Counter[Rule]) -> Table:
        table = Table(title="Different on purpose", title_justify="left")
        table.add_column("steps", justify="right")
        table.add_column("rule")
        table.add_column("explained in docs/")
        for rule, count in rules.most_common():
            words = Text.assemble((rule.label, "bold"), f": {rule.text}")
            table.add_row(f"{count}", words, rule.section)
        return table


def _wrong(report: TraceReport) -> Iterator[str]:
    for step in report.steps:
        for each in step.differences:
            if not each.rules:
                where = f"step {step.step.number}, {' '.join(step.step.op)}, {each.aspect}"
                yield f"{where}: the kernel {each.kernel}; here {each.ours}"
    for each in report.end:
        yield f"end state, {each.aspect}: the kernel {each.kernel}; here {each.ours}"


def _plain(differences: Iterable[Difference]) -> list[dict[str, object]]:
    return [
        {
            "aspect": each.aspect,
            "kernel": each.kernel,
            "ours": each.ours,
            "rules": [
                {"label": rule.label, "text": rule.text, "section": rule.section}
                for rule in each.rules
            ],
        }
        for each in differences
    ]
