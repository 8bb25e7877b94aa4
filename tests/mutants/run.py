"""Plant every fault and see which tool catches it: `make mutants`.

Prints a table, writes what was found to `build/mutants.json` and, if everything was run, the table
to `docs/mutants.md`. Exits with 1 if a fault was caught by none of the tools, or if a tool fails
without any fault.
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
UNITS: Final = {
    "histories": "step",
    "properties": "example",
    "schedules": "schedule",
    "core": "test",
    "actors": "test",
}

Results = dict[str, dict[str, Verdict]]
"""By fault and tool; the empty fault is the sound product."""


def run_all(faults: Sequence[Fault], tools: Sequence[str], jobs: int) -> Results:
    """Run every tool on the sound product and on every fault that it can see."""
    trials: list[tuple[str, Fault | None]] = [(tool, None) for tool in tools]
    trials += [(tool, each) for each in faults for tool in tools if sees(tool, each)]
    results: Results = {name: {} for name in ("", *(each.name for each in faults))}
    columns = (
        TextColumn("{task.description:<48}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("", total=len(trials))
        pending = {pool.submit(try_tool, *trial): trial for trial in trials}
        for done in as_completed(pending):
            tool, fault = pending[done]
            name = "" if fault is None else fault.name
            results[name][tool] = done.result()
            progress.update(task, advance=1, description=f"{tool} {name}")
    return results


def cells(fault: Fault, tools: Sequence[str], found: dict[str, Verdict]) -> list[str]:
    """The fault's fields of the table, one per tool."""
    fields = []
    for tool in tools:
        verdict = found.get(tool)
        if verdict is None:
            fields.append("")
        elif not verdict.caught:
            fields.append("—")
        else:
            fields.append(f"{verdict.count} {UNITS[tool]}{'' if verdict.count == 1 else 's'}")
    return fields


def is_caught(found: dict[str, Verdict]) -> bool:
    """Whether some tool caught a fault."""
    return any(each.caught for each in found.values())


def markdown(faults: Sequence[Fault], tools: Sequence[str], results: Results) -> str:
    """The table as the page shows it."""
    rows = [["fault", "rule", *tools], ["---"] * (2 + len(tools))]
    rows += [
        [f"`{each.name}`", each.rule, *cells(each, tools, results[each.name])] for each in faults
    ]
    caught = {
        tool: [found[tool].caught for name, found in results.items() if name and tool in found]
        for tool in tools
    }
    rows.append(["caught", "", *(f"{sum(each)} of {len(each)}" for each in caught.values())])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


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
        table.add_row(each.name, *cells(each, tools, results[each.name]), style=style)
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
    options = parser.parse_args(arguments)
    tools = [each for each in TOOLS if options.tool is None or each in options.tool]
    faults = [
        each
        for each in FAULTS
        if (options.only is None or each.name in options.only)
        and any(sees(tool, each) for tool in tools)
    ]
    results = run_all(faults, tools, options.jobs)
    RESULTS.parent.mkdir(exist_ok=True)
    found = {
        name: {tool: asdict(each) for tool, each in verdicts.items()}
        for name, verdicts in results.items()
    }
    RESULTS.write_text(json.dumps(found, indent=1), encoding="utf-8")
    show(faults, tools, results)
    if options.only is options.tool is None:
        write_page(markdown(faults, tools, results))
    unsound = [f"{tool}: {each.what}" for tool, each in results[""].items() if each.caught]
    missed = [each.name for each in faults if not is_caught(results[each.name])]
    print(f"{len(faults) - len(missed)} of {len(faults)} faults caught")
    print("".join(f"not caught: {each}\n" for each in missed), end="")
    print("".join(f"fails without any fault: {each}\n" for each in unsound), end="")
    return 1 if missed or unsound else 0


if __name__ == "__main__":
    sys.exit(main())
