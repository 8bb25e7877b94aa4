"""What a run has to say: a table to read, and the same as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from attrs import asdict
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Figure, Plan

CAVEATS: Final = """\
- Read the ratios, not the times: machines are noisy, and what disturbs a turn disturbs all that
  are compared in it. One process, one thread, no network.
- A plain method call beats every actor on one event loop, where it is atomic already, and so does
  an uncontended lock. What an actor is for is order, isolation, backpressure and events.
- All contenders of an ask pay for the same core. The floor has no bound, no cancellation, no
  errors, no deliveries and no shutdown.
- The floor of a fan-out neither asks, nor decides, nor acknowledges anything. `fanout` is the
  whole of an event, its acknowledgements included; `..._told` ends when the last subscriber has it.
- find_by_spid looks up as many different IDs on both sides. Random look-ups of all IDs ("any of")
  cost more among more, for they don't fit into the processor's caches.
- What has a unit of time and no partner (the core's calls, snapshots) is this machine's."""


PACKAGES: Final = ("anyio", "uvloop", "trio", "msgspec", "attrs")


def about(plan: Plan, seconds: float, peers: Sequence[str]) -> dict[str, object]:
    """Return the machine, the versions and the thoroughness, by name."""
    facts: dict[str, object] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: version_of(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": f"{os.cpu_count()} x {processor()}",
        "gc": "on" if plan.collecting else "off during a pass, collected before each",
        "repeats": plan.repeats,
        "quick": plan.quick,
        "seconds": round(seconds),
    }
    if peers:
        facts["peers"] = ", ".join(f"{name} {version_of(name)}" for name in peers)
    return facts


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def rounded(value: float) -> str:
    """Return a number with as many digits as are worth reading."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def target_of(figure: Figure) -> str:
    if figure.target is None:
        return "shown"
    return f"{'≥' if figure.at_least else '≤'} {figure.target:g}"


def show(console: Console, figures: Sequence[Figure], facts: Mapping[str, object]) -> None:
    """Print the table, what was compared, and the caveats."""
    table = Table(title="medians, with quartiles", title_justify="left")
    table.add_column("figure")
    table.add_column("on")
    table.add_column("median", justify="right")
    table.add_column("quartiles", justify="right")
    table.add_column("target", justify="right")
    table.add_column("unit")
    for figure in figures:
        lower, upper = figure.quartiles
        table.add_row(
            figure.name,
            figure.backend,
            f"{rounded(figure.value)}{' !' if figure.is_missed else '  '}",
            f"{rounded(lower)}..{rounded(upper)}",
            target_of(figure),
            figure.unit,
            style="bold red" if figure.is_missed else None,
        )
    console.print(table)
    console.print("what was compared, medians of one operation:")
    # Figures that share their contenders share their times as well.
    shared = {(each.backend, *each.beside): each for each in reversed(figures) if each.beside}
    for figure in reversed(shared.values()):
        parts = ", ".join(f"{name} {rounded(each)}" for name, each in figure.beside.items())
        console.print(f"  {figure.name} on {figure.backend}, {figure.beside_unit}: {parts}")
    for note in dict.fromkeys(each.note for each in figures if each.note):
        console.print(f"  {note}")
    console.print("; ".join(f"{name}: {each}" for name, each in facts.items()))
    console.print(CAVEATS)
    missed = [f"{figure.name} ({figure.backend})" for figure in figures if figure.is_missed]
    with_target = sum(figure.target is not None for figure in figures)
    if missed:
        console.print(
            f"TARGET MISSED (!): {len(missed)} of {with_target}: {', '.join(missed)}. The exit "
            "status says only that everything was measured and nothing lost."
        )
    else:
        console.print(f"target met: all {with_target} figures that have one")


def write(
    path: Path, figures: Sequence[Figure], facts: Mapping[str, object], *, keeping: bool = False
) -> None:
    """Write the figures as JSON, instead of what the file has or, keeping that, beside it."""
    results = [_as_json(asdict(figure)) for figure in figures]
    if keeping and path.exists():
        present = json.loads(path.read_text(encoding="utf-8"))
        measured = {(each["name"], each["backend"]) for each in results}
        kept = [r for r in present["results"] if (r["name"], r["backend"]) not in measured]
        results = kept + results
        facts = {**facts, **present["about"], "peers": facts["peers"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"results": results, "about": facts}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _as_json(value: Any) -> Any:
    # Four digits after the point say all that was measured.
    match value:
        case float():
            return round(value, 4)
        case dict():
            return {name: _as_json(each) for name, each in value.items()}
        case tuple():
            return [_as_json(each) for each in value]
        case _:
            return value
