"""Puts the figures of the last run, build/bench.json, into docs/performance.md."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

if not __package__:
    # Run as a file: the folder above is where `benchmarks` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import rounded

ROOT: Final = Path(__file__).resolve().parents[1]
BEGIN: Final = "<!--- results: written by `make bench-docs` -->\n"
END: Final = "<!--- end of results -->\n"


def main() -> None:
    page = ROOT / "docs" / "performance.md"
    measured = json.loads((ROOT / "build" / "bench.json").read_text(encoding="utf-8"))
    text = page.read_text(encoding="utf-8")
    page.write_text(with_results(text, measured), encoding="utf-8")


def with_results(text: str, measured: Mapping[str, Any]) -> str:
    """Return a page whose marked part shows the results instead of what it showed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n".join(_lines(measured)) + "\n" + END + after


def _lines(measured: Mapping[str, Any]) -> list[str]:
    results = measured["results"]
    facts = "; ".join(f"{name} {fact}" for name, fact in measured["about"].items())
    lines = [
        "",
        f"Measured with {facts}.",
        "",
        "| figure | on | median | quartiles | lowest, highest | target | unit |",
        "|---|---|---:|---|---|---|---|",
    ]
    lines += [_row(each) for each in results]
    lines += ["", "What was compared, medians:", "", "| figure | on | |", "|---|---|---|"]
    lines += _compared(results)
    for note in dict.fromkeys(each["note"] for each in results if each["note"]):
        lines += ["", note]
    return [*lines, ""]


def _row(result: Mapping[str, Any]) -> str:
    value, target, unit = rounded(result["value"]), result["target"], result["unit"]
    bound = "shown" if target is None else f"{'≥' if result['at_least'] else '≤'} {target:g}"
    if target is not None and (
        result["value"] < target if result["at_least"] else result["value"] > target
    ):
        value = f"**{value}**"
    spans = [", ".join(rounded(each) for each in result[key]) for key in ("quartiles", "spread")]
    cells = (f"`{result['name']}`", result["backend"], value, *spans, bound, unit)
    return f"| {' | '.join(cells)} |"


def _compared(results: Sequence[Mapping[str, Any]]) -> list[str]:
    # Figures that share their contenders share their times as well: once, at the first of them.
    lines = {}
    for result in reversed(results):
        if result["beside"]:
            unit = result["beside_unit"]
            parts = (f"{name} {rounded(each)} {unit}" for name, each in result["beside"].items())
            line = f"| `{result['name']}` | {result['backend']} | {', '.join(parts)} |"
            lines[result["backend"], *result["beside"]] = line
    return list(reversed(lines.values()))


if __name__ == "__main__":
    main()
