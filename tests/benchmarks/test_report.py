"""What is written down of a run."""

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.measure import Figure, Plan, figure


def of(name: str, value: float) -> Figure:
    """Return a figure of one value."""
    return figure([value], name=name, backend="asyncio", unit="x floor", target=None)


def test_peers_are_added_to_what_was_measured_before(tmp_path: Path) -> None:
    """A run that keeps what the file has replaces the figures it measured, and only those."""
    path = tmp_path / "bench.json"
    report.write(path, [of("ask", 1.0), of("peer_ask", 2.0)], {"repeats": 7})
    report.write(path, [of("peer_ask", 3.0)], {"repeats": 1, "peers": "one 1.0"}, keeping=True)
    written = json.loads(path.read_text(encoding="utf-8"))
    assert [("ask", 1.0), ("peer_ask", 3.0)] == [
        (each["name"], each["value"]) for each in written["results"]
    ]
    assert {"repeats": 7, "peers": "one 1.0"} == written["about"]


def test_a_report_names_the_machine_and_the_versions() -> None:
    """Python, the packages, the processors and the peers are told beside the figures."""
    facts = report.about(Plan(3, quick=True, collecting=False), 1.0, ["anyio"])
    assert {*report.PACKAGES, "python", "system", "processors", "repeats", "peers"} <= set(facts)
    assert f"anyio {facts['anyio']}" == facts["peers"]


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (12.345, "12.35"), (0.01234, "0.0123"), (1.0, "1.00")]
)
def test_numbers_have_the_digits_worth_reading(value: float, text: str) -> None:
    """A number is rounded by its size."""
    assert text == report.rounded(value)
