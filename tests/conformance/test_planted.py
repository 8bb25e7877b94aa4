"""Disagreements planted into traces: one recorded fact is changed, and has to be found."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.replay.engine import TraceReport, Verdict, replay
from tests.conformance.replay.trace import TraceError, load

DATA = Path(__file__).parent / "data"
SCENARIOS = sorted(DATA.glob("scenario-*.json"))

Step = Any
"""A step as it stands in a file."""


def judged(trace: object, into: Path) -> TraceReport:
    """Replay a trace that is in no file."""
    path = into / "planted.json"
    path.write_text(json.dumps(trace))
    return replay(load(path))


def put(*way: str | int, to: object) -> Callable[[Step], None]:
    """Change the fact at the end of a way into a step."""

    def plant(step: Step) -> None:
        *outer, last = way
        for key in outer:
            step = step[key]
        step[last] = to

    return plant


def swap(first: int, second: int) -> Callable[[Step], None]:
    """Exchange two callbacks."""

    def plant(step: Step) -> None:
        events = step["events"]
        events[first], events[second] = events[second], events[first]

    return plant


@pytest.mark.parametrize(
    ("name", "step", "plant"),
    [
        pytest.param("random-1", 5, put(-1, "ret", to=2), id="another ID"),
        pytest.param("random-1", 5, put(-1, "ret", to="INVALID"), id="no ID"),
        pytest.param("random-1", 13, put(-1, "ret", to=9), id="an ID where there was none"),
        pytest.param("random-1", 3, put(-1, "err", to="EACCES"), id="another errno"),
        pytest.param("random-1", 3, put(-1, "ret", to=-13), id="another number of an errno"),
        pytest.param("random-1", 3, put(-1, to={"ret": 0}), id="success for a refusal"),
        pytest.param("random-1", 8, put(-1, to={"ret": -16, "err": "EBUSY"}), id="a refusal"),
        pytest.param("random-1", 9, put(-1, "ret", to=True), id="reclaimed"),
        pytest.param("scenario-07_quota_exhaustion", 8, put("ret", to=False), id="not reclaimed"),
        pytest.param("random-1", 10, put(-1, "data", to=26), id="other data"),
        pytest.param("random-1", 7, put(-1, "set", to="s1"), id="another set"),
        pytest.param("random-1", 2, put(-1, "set_id", to=5), id="another number of a set"),
        pytest.param("random-1", 2, put(-1, "quota", to=51), id="another quota"),
        pytest.param("random-1", 46, put(-1, "ret", to=3), id="another ID by its spid"),
        pytest.param("random-1", 46, put(-1, "ret", to="INVALID"), id="no ID by its spid"),
        pytest.param("random-1", 4, put(-1, "ret", to=1), id="an ID by a spid nobody has"),
        pytest.param("scenario-24_reserve_cancel", 2, put("ret", to=31), id="reserved more"),
        pytest.param("scenario-24_reserve_cancel", 6, put("ret", to=41), id="available more"),
        pytest.param("scenario-11_pending_mm_notifier", 4, put("events", to=[]), id="not told"),
        pytest.param(
            "scenario-11_pending_mm_notifier", 5, put("events", 0, "sub", to="x"), id="another told"
        ),
        pytest.param(
            "scenario-11_pending_mm_notifier", 5, put("events", 0, "event", to="FREE"), id="of FREE"
        ),
        pytest.param(
            "scenario-11_pending_mm_notifier", 5, put("events", 0, "spid", to=10), id="of a spid"
        ),
        pytest.param(
            "scenario-11_pending_mm_notifier", 5, put("events", 0, "pdata", to=9), id="of data"
        ),
        pytest.param(
            "scenario-26b_priority_order_set_chain_docprio", 8, swap(1, 3), id="tiers out of order"
        ),
        pytest.param(
            "scenario-26b_priority_order_set_chain_docprio", 8, swap(1, 2), id="peers out of order"
        ),
        pytest.param("scenario-02_free_before_unbind", 7, swap(1, 2), id="acts out of order"),
        pytest.param(
            "scenario-02_free_before_unbind", 13, put("events", 5, "ret", to=False), id="the last"
        ),
        pytest.param(
            "scenario-13_mm_notifier_survives_set", 3, put("state", "avail", to=1), id="n"
        ),
    ],
)
def test_a_planted_disagreement_is_found(
    tmp_path: Path, name: str, step: int, plant: Callable[[Step], None]
) -> None:
    """One changed fact is a disagreement at its step, and the steps before it are as they were."""
    trace = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    plant(trace["steps"][step - 1])
    report = judged(trace, tmp_path)
    wrong = [each.step.number for each in report.steps if each.verdict is Verdict.DISAGREEMENT]

    assert step == wrong[0]
    assert not report.passed


@pytest.mark.parametrize(("part", "fact"), [("ids", "refs"), ("sets", "nr"), ("sets", "quota")])
def test_a_planted_end_is_found(tmp_path: Path, part: str, fact: str) -> None:
    """The end state of a random trace is compared, with every reference and every count."""
    trace = json.loads((DATA / "random-1.json").read_text(encoding="utf-8"))
    trace["final"][part][0][fact] += 1
    report = judged(trace, tmp_path)

    assert 1 == len(report.end)
    assert 0 == report.count(Verdict.DISAGREEMENT)
    assert not report.passed


def test_an_id_that_is_there_at_the_end_for_the_kernel_only_is_found(tmp_path: Path) -> None:
    """An ID that is missing at the end, on either side, is found."""
    trace = json.loads((DATA / "random-1.json").read_text(encoding="utf-8"))
    gone = trace["final"]["ids"].pop()
    report = judged(trace, tmp_path)

    assert [f"ID {gone['id']}"] == [each.aspect for each in report.end]


def test_what_the_kernel_answers_as_we_do_is_agreed_on(tmp_path: Path) -> None:
    """A rule is asked only where something differs."""
    trace = json.loads((DATA / "scenario-24_reserve_cancel.json").read_text(encoding="utf-8"))
    trace["steps"][4] |= {"ret": -28, "err": "ENOSPC"}
    report = judged(trace, tmp_path)

    assert Verdict.AGREEMENT is report.steps[4].verdict
    assert report.passed


def test_a_set_that_only_the_kernel_made_is_a_disagreement(tmp_path: Path) -> None:
    """A trace goes on after a request that should have been refused."""
    made = {"ret": 0, "set": "s", "set_id": 0, "quota": 1}
    steps = [["set_alloc", "s", "mm", "-", "1", made], ["alloc", "s", "1", "1", {"ret": 1}]]
    report = judged({"name": "made", "steps": steps}, tmp_path)

    assert [Verdict.DISAGREEMENT] * 2 == [step.verdict for step in report.steps]


# -- every fact ---------------------------------------------------------------------------------

OTHER = {"IDLE": "FREE_PENDING", "FREE_PENDING": "IDLE", "INVALID": 3, "deadlock": False}
OTHER |= {"ALLOC": "FREE", "FREE": "BIND", "BIND": "UNBIND", "UNBIND": "BIND"}


def leaves(fact: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The ways to every fact in a step."""
    inner = fact.items() if isinstance(fact, dict) else enumerate(fact)
    for key, value in inner:
        if isinstance(value, dict | list):
            yield from leaves(value, (*way, key))
        elif key not in {"ev", "do"}:
            yield (*way, key)


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case None:
            return 7
        case bool():
            return not value
        case int():
            # Not what this side has instead, whose sets have other numbers.
            return value + 7
        case _:
            return OTHER.get(value, "EIO" if value.startswith("E") else "somebody")


def plants() -> Iterator[tuple[Path, int, tuple[str | int, ...]]]:
    """Every fact of every scenario: the file, the step, the way to it."""
    for path in SCENARIOS:
        trace = json.loads(path.read_text(encoding="utf-8"))
        for number, step in enumerate(trace["steps"], 1):
            for way in leaves({key: value for key, value in step.items() if key != "op"}):
                yield path, number, way


@pytest.mark.parametrize("part", range(4))
def test_any_fact_is_looked_at(tmp_path: Path, part: int) -> None:
    """Whichever recorded fact of a scenario is changed, its step is in disagreement."""
    missed = []
    for path, number, way in [*plants()][part::16]:
        trace = json.loads(path.read_text(encoding="utf-8"))
        before = deepcopy(trace["steps"][number - 1])
        for key in way[:-1]:
            before = before[key]
        put(*way, to=other(before[way[-1]]))(trace["steps"][number - 1])
        try:
            report = judged(trace, tmp_path).steps[number - 1]
        except TraceError:
            continue
        if report.verdict is not Verdict.DISAGREEMENT:
            missed.append((path.stem, number, way))

    assert [] == missed
