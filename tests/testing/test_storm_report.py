"""What is told of a storm."""

import json
from collections import Counter

import pytest

from ioasid.testing import StormReport, StormSettings, storm
from ioasid.testing._storm_report import Violations


def test_violations_are_told_once() -> None:
    """Each is told when it is found first, the first 20 of them, and all are counted."""
    told: list[str] = []
    violations = Violations(Counter(), told.append)
    for number in range(25):
        violations(f"rule {number}")
        violations(f"rule {number}")
    assert [f"rule {number}" for number in range(20)] == told
    assert 50 == violations.found.total()


def test_a_report_says_what_was_violated() -> None:
    """A report with violations does not hold, and names each of them."""
    report = StormReport(StormSettings())
    assert "Every rule held" in str(report)
    report.violations.update({"a rule": 3, "another": 1})
    assert not report.holds
    assert "violated: a rule\nviolated: another\n4 violations of 2 kinds." in str(report)
    assert {"a rule": 3, "another": 1} == report.as_dict()["violations"]
    report.violations.clear()
    report.violations["a rule"] = 1
    assert str(report).endswith("1 violation of 1 kind.")


@pytest.mark.anyio
async def test_a_report_is_for_people_and_programs() -> None:
    """It shows the figures in rows, and is JSON with every count."""
    report = await storm(StormSettings(vms=2, ops=200))
    rows = dict(report.figures())
    assert ["operations", "outcomes", "happened", "events", "DMA", "IDs", "errors"] == list(rows)
    assert f"VMs started {report.happened['VMs started']}" in rows["happened"]
    facts = json.loads(json.dumps(report.as_dict()))
    assert facts["holds"] is True
    assert report.choices == facts["choices"]
    assert 200 == sum(sum(each.values()) for each in facts["operations"].values())
    assert round(200 / report.seconds) == facts["ops_per_second"]
    refused = sum(sum(each.values()) for each in facts["refused"].values())
    assert report.refused.total() == refused
