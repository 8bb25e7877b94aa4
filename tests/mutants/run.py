"""Plant every fault and see which tool catches it: `make mutants`.

Prints a table, and writes what was found to `build/mutants.json` and to the table in
`docs/mutants.md`, where what was not run keeps its field. Exits with 1 if a fault was caught by
none of the tools, or if a tool fails without any fault.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Final

from attrs import asdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.faults import BY_NAME, FAULTS
from tests.mutants.planting import Fault
from tests.mutants.trial import ROOT, TOOLS, Verdict, sees, try_tool

RESULTS: Final = ROOT / "build" / "mutants.json"
PAGE: Final = ROOT / "docs" / "mutants.md"
BEGIN: Final = "<!-- table: begin -->\n"
END: Final = "<!-- table: end -->\n"
UNITS: Final = {"histories": "step", "properties": "example", "schedules": "schedule"}
"""What a tool counts; how many unit tests come before the one that fails says nothing."""

Results = dict[str, dict[str, Verdict]]
"""By fault and tool; the empty fault is the sound product."""


def run_all(trials: Sequence[tuple[str, Fault]], jobs: int) -> Results:
    """Run tools on faults, and each of them on the sound product."""
    every: list[tuple[str, Fault | None]] = [(tool, None) for tool in {tool for tool, _ in trials}]
    every += trials
    results: Results = {name: {} for name in ("", *(each.name for _, each in trials))}
    columns = (
        TextColumn("{task.description:<48}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("", total=len(every))
        pending = {pool.submit(try_tool, *trial): trial for trial in every}
        for done in as_completed(pending):
            tool, fault = pending[done]
            name = "" if fault is None else fault.name
            results[name][tool] = done.result()
            progress.update(task, advance=1, description=f"{tool} {name}")
    return results


def cells(tools: Sequence[str], found: dict[str, Verdict]) -> list[str]:
    """A fault's fields of the table, one per tool, empty for one that was not run."""
    fields = []
    for tool in tools:
        verdict = found.get(tool)
        if verdict is None:
            fields.append("")
        elif not verdict.caught:
            fields.append("—")
        elif tool not in UNITS:
            fields.append("yes")
        else:
            fields.append(f"{verdict.count} {UNITS[tool]}{'' if verdict.count == 1 else 's'}")
    return fields


def is_caught(found: dict[str, Verdict]) -> bool:
    """Whether some tool caught a fault."""
    return any(each.caught for each in found.values())


def measured(table: str) -> dict[str, list[str]]:
    """The fields of each fault that a table shows."""
    rows = [[each.strip() for each in row.split("|")[1:-1]] for row in table.splitlines()[2:-1]]
    return {row[0].strip("`"): row[2:] for row in rows}


def missing(faults: Sequence[Fault], table: str) -> set[tuple[str, str]]:
    """The tools and faults that a table does not have."""
    shown = measured(table)
    return {
        (tool, each.name)
        for each in faults
        for tool, known in zip(TOOLS, shown.get(each.name, [""] * len(TOOLS)), strict=True)
        if not known and sees(tool, each)
    }


def markdown(
    faults: Sequence[Fault], tools: Sequence[str], results: Results, before: str = ""
) -> str:
    """The table as the page shows it; what was not run is as in the one before, or not there."""
    shown = measured(before)
    found: dict[str, list[str]] = {}
    for each in faults:
        now = cells(tools, results.get(each.name, {}))
        then = shown.get(each.name, now)
        found[each.name] = [new or old for old, new in zip(then, now, strict=True)]
    rows = [["fault", "rule", *tools], ["---"] * (2 + len(tools))]
    rows += [
        [f"`{each.name}`", each.rule, *found[each.name]] for each in faults if any(found[each.name])
    ]
    known = [[row[place] for row in found.values() if row[place]] for place in range(len(tools))]
    rows.append(
        ["caught", "", *(f"{len(each) - each.count('—')} of {len(each)}" for each in known)]
    )
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def shown_table(page: Path = PAGE) -> str:
    """The table that a page shows."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]


def write_page(table: str, page: Path = PAGE) -> None:
    """Put the table between its markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}{table}{END}{after}", encoding="utf-8")


def show(faults: Sequence[Fault], tools: Sequence[str], results: Results) -> None:
    """Print the table and, of a single fault, what each tool found."""
    table = Table("fault", *tools)
    for each in faults:
        style = "" if is_caught(results[each.name]) else "red"
        table.add_row(each.name, *cells(tools, results[each.name]), style=style)
    Console().print(table)
    if len(faults) == 1:
        for tool, verdict in results[faults[0].name].items():
            print(f"{tool}: {verdict.what or 'nothing found'}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME), metavar="FAULT")
    parser.add_argument("--tool", action="append", choices=tuple(TOOLS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--missing", action="store_true", help="what has no field yet")
    options = parser.parse_args(arguments)
    tools = [each for each in TOOLS if options.tool is None or each in options.tool]
    wanted = missing(FAULTS, shown_table()) if options.missing else None
    trials = [
        (tool, each)
        for each in FAULTS
        for tool in tools
        if (options.only is None or each.name in options.only)
        and sees(tool, each)
        and (wanted is None or (tool, each.name) in wanted)
    ]
    faults = list(dict.fromkeys(each for _, each in trials))
    results = run_all(trials, options.jobs)
    RESULTS.parent.mkdir(exist_ok=True)
    found = {
        name: {tool: asdict(each) for tool, each in verdicts.items()}
        for name, verdicts in results.items()
    }
    RESULTS.write_text(json.dumps(found, indent=1), encoding="utf-8")
    show(faults, tools, results)
    write_page(markdown(FAULTS, tuple(TOOLS), results, shown_table()))
    unsound = [f"{tool}: {each.what}" for tool, each in results[""].items() if each.caught]
    # By a tool that was run before, perhaps.
    shown = measured(shown_table())
    missed = [each.name for each in faults if {*shown[each.name]} <= {"", "—"}]
    print(f"{len(faults) - len(missed)} of {len(faults)} faults caught")
    print("".join(f"not caught: {each}\n" for each in missed), end="")
    print("".join(f"fails without any fault: {each}\n" for each in unsound), end="")
    return 1 if missed or unsound else 0


if __name__ == "__main__":
    sys.exit(main())
