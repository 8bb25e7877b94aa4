"""The recorded kernel traces, replayed and judged by rule."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.conformance.replay import rules
from tests.conformance.replay.engine import TraceReport, Verdict, replay
from tests.conformance.replay.rules import RULES, Rule
from tests.conformance.replay.trace import TraceError, load

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
RANDOM = sorted((HERE / "data").glob("random-*.json"))
SCENARIOS = sorted((HERE / "data").glob("scenario-*.json"))
HANDWRITTEN = sorted((HERE / "handwritten").glob("*.json"))
FILES = [*RANDOM, *SCENARIOS, *HANDWRITTEN]

each_trace = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.label)


@cache
def _replayed(path: Path) -> TraceReport:
    return replay(load(path))


def replayed(path: Path) -> TraceReport:
    """Replay a file, the ones that stay as they are only once."""
    return _replayed(path) if path in FILES else replay(load(path))


def written(into: Path, *steps: object) -> TraceReport:
    """Replay a trace of these steps, with no state in them."""
    path = into / "written.json"
    path.write_text(json.dumps({"name": "written", "steps": steps}))
    return replayed(path)


def test_every_trace_is_here() -> None:
    """Six random traces of 1,000 operations and fifteen scenarios were recorded."""
    assert [1000] * 6 == [len(load(path).steps) for path in RANDOM]
    assert 15 == len(SCENARIOS)


def test_what_nobody_recorded_says_so() -> None:
    """A trace that was written by hand is marked, and no recorded one is."""
    oracles = {path.parent.name: set[str]() for path in FILES}
    for path in [*SCENARIOS, *HANDWRITTEN]:
        oracles[path.parent.name].add(json.loads(path.read_text(encoding="utf-8"))["oracle"])

    assert {"written by hand, not recorded"} == oracles["handwritten"]
    assert all(oracle.startswith("the last version of") for oracle in oracles["data"])


@each_trace
def test_no_disagreement(path: Path) -> None:
    """Every difference from a trace is decided, and the end is equal."""
    report = replayed(path)

    assert () == report.end
    assert [] == [step for step in report.steps if step.verdict is Verdict.DISAGREEMENT]
    assert report.passed


@pytest.mark.parametrize("path", RANDOM, ids=lambda path: path.stem)
def test_random_traces_agree_in_full(path: Path) -> None:
    """In a random trace nothing differs but the errno of what both refuse, not even its counts."""
    report = replayed(path)
    differences = [each for step in report.steps for each in step.differences]

    assert {("answer", (rules.EXACT_ERRNO,))} == {(each.aspect, each.rules) for each in differences}
    assert {"EINVAL", "EBUSY"} >= {each.kernel for each in differences}
    assert {"ENOENT", "EEXIST", "EACCES"} >= {each.ours.split()[0] for each in differences}


def test_what_was_decided_is_as_it_was() -> None:
    """The steps of the recorded traces by rule: a rule that explains more than it did is seen."""
    found = sum((replayed(path).rules for path in [*RANDOM, *SCENARIOS]), Counter[Rule]())
    expected = {
        rules.EXACT_ERRNO: 82,
        rules.FREE_ENDS_BINDING: 6,
        rules.QUOTA_RETURNS: 2,
        rules.QUARANTINE: 4,
        rules.FREE_TO_ALL: 2,
        rules.ONE_ORDER: 2,
        rules.NEW_NUMBERS: 2,
        rules.ANY_SET: 2,
        rules.SENSE_FIRST: 1,
        rules.ALL_OF_NOTHING: 1,
    }

    assert expected == found


# -- rules --------------------------------------------------------------------------------------


@each_rule
def test_every_rule_is_needed(rule: Rule) -> None:
    """Without a rule some trace is in disagreement: none is there for nothing."""
    others = [each for each in RULES if each is not rule]
    users = [path for path in FILES if rule in replayed(path).rules]

    assert users
    assert not all(replay(load(path), others).passed for path in users[-4:])


@each_rule
def test_every_rule_explains_itself(rule: Rule) -> None:
    """A rule has a label of its own, a text, and a place in docs/ that exists."""
    page, _, anchor = rule.section.partition("#")
    text = (DOCS / page).read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)

    assert [rule] == [each for each in RULES if each.label == rule.label]
    assert rule.text
    assert anchor in {"", *(re.sub(r"\W+", "-", each.lower()).strip("-") for each in headings)}


def test_no_rule_knows_a_trace() -> None:
    """Nothing that judges a trace has the name of one in it."""
    sources = [path.read_text(encoding="utf-8") for path in (HERE / "replay").glob("*.py")]
    names = {load(path).name for path in [*RANDOM, *SCENARIOS]}

    assert 10 < len(sources)
    assert set() == {name for name in names for source in sources if name in source}


def test_a_rule_carries_on(tmp_path: Path) -> None:
    """What follows from a decided difference is decided by the same rule, in any later step."""
    report = written(
        tmp_path,
        ["set_alloc", "s", "mm", "mm1", "9", {"ret": 0, "set": "s", "set_id": 0, "quota": 9}],
        ["alloc", "s", "1", "9", {"ret": 1}],
        ["free", "-", "1", {"ret": None}],
        ["find", "s", "1", {"ret": 0, "data": 0}],
        ["alloc", "s", "1", "9", {"ret": 2}],
        ["free", "s", "1", {"ret": None}],
        ["alloc", "s", "1", "9", {"ret": 1}],
    )

    assert ["agreement"] * 2 + ["decided"] * 5 == [step.verdict for step in report.steps]
    assert {rules.ANY_SET} == report.rules.keys()
    assert ("answer", "ID 2", "ID 1", (rules.ANY_SET,)) in report.steps[4].differences


# -- operations ---------------------------------------------------------------------------------


def answer(ret: object = 0, **more: object) -> dict[str, object]:
    """What the kernel answered."""
    return {"ret": ret, **more}


def test_every_operation_can_be_replayed(tmp_path: Path) -> None:
    """The operations that no recorded trace has are replayed as well, in whatever form."""
    report = written(
        tmp_path,
        ["set_alloc", "s", "mm", "mm1", "9", answer(set="s", set_id=0, quota=9)],
        ["register", "kvm", "set:s", "CPU", "on=FREE:ret_stop", "on=FREE:put", answer()],
        ["alloc", "s", "1", "9", "7", answer(1)],
        ["for_each", "s", answer(None, ids=[1])],
        ["for_each", "s", answer([1])],
        ["get_if_owned", "mm1", "1", answer()],
        ["get_if_owned", "1", "mm1", answer()],
        ["get_if_owned", "s", "1", answer()],
        ["put", "s", "1", answer(ret=False)],
        ["put", "s", "1", answer(ret=False)],
        ["put", "s", "1", answer(ret=False)],
        ["find_mm_set", "mm1", answer(set="s")],
        ["find_mm_set", "mm2", answer(None)],
        ["get_if_owned", "1", answer(-1, err="EPERM")],
        ["free_all", "s", answer(None)],
        ["find", "s", "1", answer(-2, err="ENOENT")],
        ["unregister", "kvm", "set:s", answer()],
        ["alloc", "s", "1", "9", answer("INVALID")],
        ["set_free", "s", answer(-22, err="EINVAL")],
        ["find", "never made", "1", answer(-13, err="EACCES")],
    )

    verdicts = [step.verdict.value for step in report.steps]
    assert ["agreement"] * 13 == verdicts[:13]
    assert "decided" == verdicts[13]
    assert "disagreement" not in verdicts
    assert rules.SET_STAYS in report.rules


def test_a_set_that_is_gone_is_whatever_the_kernel_says(tmp_path: Path) -> None:
    """Behind a stale pointer any refusal is decided, and a success is not."""
    gone = [
        ["set_alloc", "s", "mm", "mm1", "9", answer(set="s", set_id=0, quota=9)],
        ["set_free", "s", answer()],
    ]
    refused = written(tmp_path, *gone, ["alloc", "s", "1", "9", answer(-14, err="EFAULT")])
    granted = written(tmp_path, *gone, ["alloc", "s", "1", "9", answer(1)])

    assert rules.GONE_IS_GONE in refused.steps[2].rules
    assert Verdict.DECIDED is refused.steps[2].verdict
    assert Verdict.DISAGREEMENT is granted.steps[2].verdict


def test_a_callback_that_hangs_is_no_answer(tmp_path: Path) -> None:
    """A put inside a callback is decided, however the recorder says that it hung."""
    trace = json.loads((HERE / "handwritten" / "put_inside_a_callback.json").read_text())
    for ret in ("DEADLOCK", None):
        trace["steps"][4]["events"][1]["ret"] = ret
        path = tmp_path / "hung.json"
        path.write_text(json.dumps(trace))
        assert {rules.PUT_ANYWHERE} == replayed(path).rules.keys()
        assert replayed(path).passed


# -- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a recorded trace"),
        (b"\xff\xfe", "not a recorded trace"),
        (b"[]", "not a recorded trace"),
        (b'{"name": "x"}', "not a recorded trace"),
        (b'{"name": "x", "steps": []}', "a trace without steps"),
        pytest.param(
            b'{"x": ' + b"[" * 9999 + b"]" * 9999 + b"}", "not a recorded trace", id="too deep"
        ),
        (b'{"name": "x", "steps": [7]}', "not a recorded trace"),
        (b'{"name": "x", "steps": [[]]}', "step 1: not [operation"),
        (b'{"name": "x", "steps": [[{"ret": 0}]]}', "step 1: not [operation"),
        (b'{"name": "x", "steps": [["get", "-", "1"]]}', "step 1: not [operation"),
        (b'{"name": "x", "steps": [["get", {"ret": 0}, {"ret": 0}]]}', "step 1: not [operation"),
        (b'{"name": "x", "steps": [["fly", {"ret": 0}]]}', "step 1: no such operation"),
        (b'{"name": "x", "steps": [["get", "-", {"ret": 0}]]}', "step 1: no such operation"),
        (b'{"name": "x", "steps": [["get", "-", "one", {"ret": 0}]]}', "step 1: invalid literal"),
        (b'{"name": "x", "steps": [["get", "-", "-1", {"ret": 0}]]}', "no number of 32 bits"),
        (b'{"name": "x", "steps": [["get_if_owned", "a", {"ret": 0}]]}', "step 1: "),
        (b'{"name": "x", "steps": [["register", "a", "no", "CPU", {"ret": 0}]]}', "no such scope"),
        (b'{"name": "x", "steps": [["register", "a", "all", "?", {"ret": 0}]]}', "no such oper"),
        (
            b'{"name": "x", "steps": [["register", "a", "all", "CPU", "on", {"ret": 0}]]}',
            "no such action",
        ),
        (
            b'{"name": "x", "steps": [["register", "a", "all", "CPU", "on=FREE:", {"ret": 0}]]}',
            "no such action",
        ),
        (b'{"name": "x", "prio": {"CPU": 1}, "steps": [["run_work", {"ret": 0}]]}', "prio"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    """What is no trace is refused with the file, the step and what is wrong."""
    path = tmp_path / "file.json"
    path.write_bytes(content)

    with pytest.raises(TraceError) as caught:
        load(path)

    assert path == caught.value.path
    assert reason in caught.value.reason
