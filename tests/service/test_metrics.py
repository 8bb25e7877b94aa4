"""Metrics: every series, in the text format, on the page, in the alerts and on the dashboard."""

import importlib.resources
import json
import re
from pathlib import Path

import pytest

from ioasid.core import (
    DiskFailed,
    DiskFull,
    DiskReadOnly,
    GroupRecord,
    LaggingSubscriber,
    Priority,
    Statistics,
)
from ioasid.service import METRICS, Asks, ServerStatistics
from ioasid.service._metrics import SHARES, Exposition, Figures, take_figures
from tests.service.services import a_client, a_service

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "service.md"
UNITS = importlib.resources.files("ioasid.service") / "units"
SERIES = re.compile(r"\b((?:ioasid|process)_[a-z_]+)\b(?=[\s{\[)/]|$)")


def figures() -> Figures:
    """Figures, each another."""
    lag = LaggingSubscriber(
        'v"t\\d\n', 1, "the system", Priority.CPU, True, 2, 0, 3, 5, 1.5, 1.0, True
    )
    allocator = Statistics(
        *(100, 1, 90, 3, 1, 4, 5, 6, 7, 8, 9, 10),
        (lag, lag),
        11,
        1,
        12,
        quarantine=(5, 4, 3, 2, 1),
    )
    asks = Asks({"Alloc": 21, "Free": 22}, ((0.1, 20), (1.0, 3), (float("inf"), 20)), 33.5)
    server = ServerStatistics(1, 2, 3, 4, 5, {"TooMany": 6}, asks)
    groups = (GroupRecord("a", None, 50, 40), GroupRecord("b", "a", 20, 10))
    return Figures(allocator, (4, 3, 2, 1), groups, server, 77, 66)


def test_the_text() -> None:
    """Each series is explained, typed and has its values; labels are escaped."""
    lines = Exposition().text(figures()).decode().splitlines()
    for name, (kind, words) in METRICS.items():
        assert f"# TYPE {name} {kind}" in lines
        assert any(each.startswith(f"# HELP {name} ") for each in lines)
        assert name.endswith("_total") is (kind == "counter")
        if name.startswith("ioasid_"):
            assert f"# HELP {name} {words}" in lines
    found = {re.split("[{ ]", each)[0] for each in lines if not each.startswith("#")}
    of_histograms = {f"ioasid_ask_seconds_{each}" for each in ("bucket", "count", "sum")}
    assert {each for each in METRICS if each != "ioasid_ask_seconds"} | of_histograms == found
    for expected in (
        "ioasid_capacity 100.0",
        'ioasid_sets{state="ACTIVE"} 2.0',
        'ioasid_sets{state="FREE_PENDING"} 1.0',
        'ioasid_sets_used{share="0.8"} 3.0',
        'ioasid_ids{state="FREE_PENDING"} 5.0',
        'ioasid_quarantine{seconds="600"} 2.0',
        'ioasid_group_limit{group="a"} 50.0',
        'ioasid_group_used{group="b"} 10.0',
        'ioasid_holders{state="suspended"} 7.0',
        'ioasid_lag_seconds{holder="v\\"t\\\\d\\n"} 1.5',
        'ioasid_lag_messages{holder="v\\"t\\\\d\\n"} 10.0',
        'ioasid_overdue{holder="v\\"t\\\\d\\n"} 1.0',
        'ioasid_refusals_total{error="TooMany"} 6.0',
        'ioasid_refusals_total{error="DiskFull"} 0.0',
        'ioasid_asks_total{request="Alloc"} 21.0',
        'ioasid_ask_seconds_bucket{le="1.0"} 23.0',
        'ioasid_ask_seconds_bucket{le="+Inf"} 43.0',
        "ioasid_ask_seconds_count 43.0",
        "ioasid_ask_seconds_sum 33.5",
        "ioasid_connections_total 5.0",
        "ioasid_batches_total 77.0",
        "ioasid_commits_total 66.0",
    ):
        assert expected in lines, expected


@pytest.mark.anyio
async def test_the_figures_of_a_service(tmp_path: Path) -> None:
    """Sets by the share of their quota, groups by name, in as many pages as it takes."""
    async with a_service(journal=tmp_path / "j") as service, a_client(service) as host:
        for number in range(1001):
            await host.alloc_group(f"g{number}", 1)
        for used in (0, 1, 2, 3, 4):
            vm = await host.alloc_set(f"vm-{used}", 4)
            if used:
                await host.alloc_many(vm.sid, used)
        found = await take_figures(service.driver, service.server)
        assert 1001 == len({each.name for each in found.groups})
        assert (3, 1, 1, 1) == found.sets_used
        assert (0.5, 0.8, 0.95, 1.0) == SHARES
        assert 1001 == found.server.asks.by_request["AllocGroup"]
        assert 0 < found.commits <= found.batches


def test_every_series_is_on_the_page() -> None:
    """With its type, and no other; its labels are those of the text."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| (?:`(\w+)`)? *\|", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert {name: kind for name, (kind, _) in METRICS.items()} == {
        name: kind for name, kind, _ in rows
    }
    text = Exposition().text(figures()).decode()
    for name, _, label in rows:
        found = re.findall(rf"^{name}(?:_bucket)?(?:{{(\w+)=| )", text, re.MULTILINE)
        assert {label} == set(found), name


@pytest.mark.parametrize("file", ["ioasid-alerts.yml", "ioasid-dashboard.json"])
def test_what_is_watched_exists(file: str) -> None:
    """Every series that an alert or a panel names there is."""
    text = (UNITS / file).read_text("utf-8")
    if file.endswith(".json"):
        panels = json.loads(text)["panels"]
        expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    else:
        expressions = re.findall(r"expr: (.*)", text)
        assert len(re.findall(r"alert: ", text)) == len(expressions)
    assert expressions
    for expression in expressions:
        found = SERIES.findall(expression)
        assert found or expression.startswith("up{"), expression
        for name in found:
            assert re.sub("_(bucket|sum|count)$", "", name) in METRICS, name


def test_the_alert_of_a_journal_that_fails() -> None:
    """It is about each error that a journal refuses with; all are series from the start."""
    alerts = (UNITS / "ioasid-alerts.yml").read_text("utf-8")
    (pattern,) = re.findall(r'ioasid_refusals_total\{error=~"(.+?)"\}', alerts)
    text = Exposition().text(figures()).decode()
    for error in (DiskFailed, DiskFull, DiskReadOnly):
        assert re.fullmatch(pattern, error.__name__)
        assert f'ioasid_refusals_total{{error="{error.__name__}"}} 0.0' in text


def test_every_alert_is_in_the_recipe() -> None:
    """An operator finds each by its name."""
    names = re.findall(r"alert: (\w+)", (UNITS / "ioasid-alerts.yml").read_text("utf-8"))
    recipe = (ROOT / "docs" / "howto-service.md").read_text("utf-8")
    for name in names:
        assert name in recipe


def test_the_dashboard_shows_everything() -> None:
    """Whatever is counted is on some panel."""
    text = (UNITS / "ioasid-dashboard.json").read_text("utf-8")
    left = {"ioasid_reserved", "process_virtual_memory_bytes"}
    for name in METRICS.keys() - left:
        assert name in text, name
