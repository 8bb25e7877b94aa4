"""What a storm came to, and how it is told."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field

from ioasid.testing._storm_settings import StormSettings

__all__ = ["StormReport"]


@define(eq=False)
class StormReport:
    """What a storm came to; `str` of it is a page for people, `as_dict` is for programs."""

    settings: StormSettings
    violations: Counter[str] = field(factory=Counter)
    """The rules that were broken, in words, and how often each."""
    outcomes: dict[str, Counter[str]] = field(factory=dict)
    """By operation: how often it was done, refused, cancelled, or without its VM."""
    refused: Counter[tuple[str, str]] = field(factory=Counter)
    """How often, by operation and name of the error."""
    happened: Counter[str] = field(factory=Counter)
    """What became of VMs, devices, drivers and subscribers."""
    events: Counter[str] = field(factory=Counter)
    """What subscribers were told, by kind."""
    steps: Counter[str] = field(factory=Counter)
    """What actors took up or did, by message."""
    refusals: Counter[str] = field(factory=Counter)
    """What the allocator refused with, by name of the error."""
    done: int = 0
    """How many operations were carried out, whatever came of them."""
    decisions: int = 0
    """How many requests the allocator decided."""
    landed: int = 0
    """How many DMA transfers wrote into memory."""
    faulted: int = 0
    """How many DMA transfers were stopped by the IOMMU."""
    most_live: int = 0
    """How many IDs were allocated at once, at most."""
    samples: int = 0
    """How often the whole state was looked at."""
    seconds: float = 0.0
    """How long it took."""
    choices: str | None = None
    """A digest of what every task drew: the same for the same settings and drivers; `None` if
    one of them did not get to its end."""

    @property
    def holds(self) -> bool:
        """Whether every rule held."""
        return not self.violations

    def __str__(self) -> str:
        """The figures, and what was violated."""
        rows = "\n".join(f"{name:<12}{text}" for name, text in self.figures())
        return "\n".join([rows, *(f"violated: {each}" for each in self.violations), self.summary()])

    def figures(self) -> list[tuple[str, str]]:
        """Return what happened in rows, each with its name."""
        outcomes: Counter[str] = Counter()
        for each in self.outcomes.values():
            outcomes.update(each)
        errors: Counter[str] = Counter()
        for (_, error), count in self.refused.items():
            errors[error] += count
        return [
            ("operations", _listed({kind: n.total() for kind, n in self.outcomes.items()})),
            ("outcomes", _listed(outcomes)),
            ("happened", _listed(self.happened)),
            ("events", _listed(self.events)),
            ("DMA", f"landed {self.landed:,}, faulted {self.faulted:,}"),
            ("IDs", f"at most {self.most_live:,} live at once"),
            ("errors", _listed(errors)),
        ]

    def summary(self) -> str:
        """Return the conclusion, in a sentence."""
        if self.violations:
            total, kinds = self.violations.total(), len(self.violations)
            return f"{total:,} violation{'s' * (total > 1)} of {kinds} kind{'s' * (kinds > 1)}."
        return (
            f"Every rule held: {self.decisions:,} decisions and {self.landed:,} DMA transfers "
            f"watched, {self.samples} looks at the whole state, nothing left at the end."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return every count, of strings and numbers only."""
        seconds = self.seconds or 1.0
        return {
            "holds": self.holds,
            "violations": dict(self.violations),
            "choices": self.choices,
            "operations": {kind: dict(each) for kind, each in self.outcomes.items()},
            "refused": _nested(self.refused),
            "happened": dict(self.happened),
            "events": dict(self.events),
            "steps": dict(self.steps),
            "refusals": dict(self.refusals),
            "decisions": self.decisions,
            "landed": self.landed,
            "faulted": self.faulted,
            "most_live": self.most_live,
            "samples": self.samples,
            "seconds": round(self.seconds, 3),
            "ops_per_second": round(self.done / seconds),
            "decisions_per_second": round(self.decisions / seconds),
        }


@define(eq=False)
class Violations:
    """Notes the rules that were broken, and tells of each the first time."""

    found: Counter[str]
    tell: Callable[[str], None] | None = None

    def __call__(self, text: str) -> None:
        """Note one."""
        self.found[text] += 1
        if self.tell is not None and self.found[text] == 1 and len(self.found) <= 20:
            self.tell(text)


def _listed(counts: dict[str, int] | Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def _nested(refused: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (kind, error), count in sorted(refused.items()):
        found.setdefault(kind, {})[error] = count
    return found
