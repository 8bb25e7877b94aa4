"""The recorded kernel traces, replayed: on the bare core, through the actors, as a command."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from demos import replay
from demos.replay import CALLERS, DECIDED, NAMED, TraceError, TraceReport, Verdict, load, open_port
from ioasid.core import Allocator, Deliver, Event, Reply, Request, Snapshot

DATA = Path(__file__).parent / "data"
DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted(DATA.glob("*.json"))
DEMO = Path(replay.__file__)
T = TypeVar("T")

each_trace = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


class CorePort:
    """A port to a bare core: a plain call for every request."""

    def __init__(self) -> None:
        self._core = Allocator(replay.CAPACITY, holder=replay.DRIVER)
        self._sessions = {replay.DRIVER: self._core.session}
        self._told: list[tuple[int, Event]] = []

    async def ask(self, holder: str, request: Request) -> Reply:
        """Decide a request, and keep what it delivers."""
        if holder not in self._sessions:
            self._sessions[holder] = self._core.open_session(holder).session
        reply = self._core.handle(self._sessions[holder], request)
        assert reply is not None
        for effect in self._core.drain():
            if isinstance(effect, Deliver):
                assert isinstance(effect.message, Event)
                self._told.append((effect.subscription, effect.message))
        return reply

    async def told(self) -> Sequence[tuple[int, Event]]:
        """Return what was kept."""
        told, self._told = self._told, []
        return told

    async def snapshot(self) -> Snapshot:
        """Return the whole state."""
        return self._core.snapshot()


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run what never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a bare core has nothing to wait for")


def replayed(path: Path) -> TraceReport:
    """Replay a file on the bare core."""
    return at_once(replay.replay(load(path), CorePort()))


def doctored(path: Path, into: Path, step: int, **changes: object) -> Path:
    """Write a trace with other facts in the answer of one step."""
    trace = json.loads(path.read_text())
    answer = trace["steps"][step - 1]
    (answer if isinstance(answer, dict) else answer[-1]).update(changes)
    doctored = into / "doctored.json"
    doctored.write_text(json.dumps(trace))
    return doctored


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user would."""
    return subprocess.run(
        [sys.executable, DEMO, *map(str, arguments)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        timeout=100,
    )


def test_every_trace_is_here() -> None:
    """Six random traces of 1,000 operations and fifteen scenarios are replayed."""
    random = [path for path in FILES if path.stem.startswith("random-")]
    scenarios = [path for path in FILES if path.stem.startswith("scenario-")]

    assert [1000] * 6 == [len(load(path).steps) for path in random]
    assert (15, 21) == (len(scenarios), len(FILES))


@each_trace
def test_no_disagreement(path: Path) -> None:
    """Every difference from a trace is decided, the end is equal, and no listing is in vain."""
    report = replayed(path)

    assert ((), ()) == (report.end, report.stale)
    assert [] == [step for step in report.steps if step.verdict is Verdict.DISAGREEMENT]
    assert report.passed


@pytest.mark.parametrize("path", FILES[:6], ids=lambda path: path.stem)
def test_random_traces_agree_in_full(path: Path) -> None:
    """In a random trace nothing differs but the errno of what both refuse."""
    report = replayed(path)
    differences = [each for step in report.steps for each in step.differences]

    assert {"answer"} == {each.aspect for each in differences}
    assert {"EINVAL", "EBUSY"} >= {each.kernel for each in differences}
    assert {"ENOENT", "EEXIST", "EACCES"} >= {each.ours.split()[0] for each in differences}


def test_the_table_is_exact() -> None:
    """What is listed occurs where it is listed, as often, and nothing occurs unlisted."""
    listed = {
        (entry.trace, step, entry.aspect, entry.kernel, entry.ours, entry.reason)
        for entry in DECIDED
        for step in entry.steps
    }
    named = {(rule[:3], trace): count for rule in NAMED for trace, count in rule.occurs.items()}
    found = set()
    counted: dict[tuple[tuple[str, ...], str], int] = {}
    rules = {rule[:3] for rule in NAMED}
    for report in map(replayed, FILES):
        for step in report.steps:
            for each in step.differences:
                rule = (step.step.op[0], each.kernel, each.ours)
                if each.aspect == "answer" and rule in rules:
                    key = (rule, report.trace.name)
                    counted[key] = counted.get(key, 0) + 1
                else:
                    found.add((report.trace.name, step.step.number, *each))

    assert listed == found
    assert named == counted


def test_every_listing_names_a_trace_and_a_reason() -> None:
    """The tables name traces and steps that exist; every reason has a text and a page of docs/."""
    lengths = {trace.name: len(trace.steps) for trace in map(load, FILES)}

    for entry in DECIDED:
        assert all(0 < step <= lengths[entry.trace] for step in entry.steps)
    for rule in NAMED:
        assert lengths.keys() >= rule.occurs.keys()
    for trace, callers in CALLERS.items():
        assert all(0 < step <= lengths[trace] for step in callers)
    for reason in {entry.reason for entry in (*DECIDED, *NAMED)}:
        assert reason.label
        assert reason.text
        page, _, anchor = reason.section.partition("#")
        headings = re.findall(r"^#+ (.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {"", *(re.sub(r"\W+", "-", each.lower()).strip("-") for each in headings)}


@pytest.mark.anyio
@each_trace
async def test_the_actors_answer_as_the_core(path: Path) -> None:
    """Through the actors, on every backend, a trace comes out as on the bare core."""
    async with open_port() as port:
        report = await replay.replay(load(path), port)

    assert replayed(path) == report


@pytest.mark.parametrize(
    ("file", "step", "changes", "aspect"),
    [
        ("random-1", 5, {"ret": 2}, "answer"),
        ("random-1", 5, {"ret": "INVALID"}, "answer"),
        ("random-1", 3, {"err": "EACCES"}, "answer"),
        ("random-1", 10, {"data": 26}, "answer"),
        ("random-1", 9, {"ret": True}, "answer"),
        ("scenario-07_quota_exhaustion", 4, {"ret": 3}, "answer"),
        ("scenario-07_quota_exhaustion", 8, {"ret": False}, "answer"),
        ("scenario-24_reserve_cancel", 2, {"ret": 31}, "answer"),
        ("scenario-24_reserve_cancel", 6, {"ret": 41}, "answer"),
        ("scenario-11_pending_mm_notifier", 4, {"events": []}, "told"),
    ],
)
def test_a_doctored_answer_is_a_disagreement(
    tmp_path: Path, file: str, step: int, changes: dict[str, object], aspect: str
) -> None:
    """One changed fact is found, at its step."""
    report = replayed(doctored(DATA / f"{file}.json", tmp_path, step, **changes))
    wrong = [each for each in report.steps if each.verdict is Verdict.DISAGREEMENT]

    assert step == wrong[0].step.number
    assert aspect == wrong[0].differences[0].aspect
    assert not report.passed


@pytest.mark.parametrize(
    ("fact", "value", "aspect"),
    [
        (("ids", 0, "refs"), 7, "ID 1"),
        (("ids", 0, "spid"), 8, "ID 1"),
        (("ids", 0, "in_set"), False, "ID 1"),
        (("sets", 0, "nr"), 2, "set s1"),
        (("sets", 0, "free_pending"), True, "set s1"),
        (("avail",), 5, "available"),
        (("pending", 0, "active"), True, "subscriber other"),
    ],
)
def test_a_doctored_state_is_a_disagreement(
    tmp_path: Path, fact: tuple[Any, ...], value: object, aspect: str
) -> None:
    """The whole state is compared after a step: one changed fact in it is found."""
    path = DATA / "scenario-11_pending_mm_notifier.json"
    state = json.loads(path.read_text())["steps"][4]["state"]
    *way, last = fact
    inner = state
    for key in way:
        inner = inner[key]
    inner[last] = value
    report = replayed(doctored(path, tmp_path, 5, state=state))

    assert [aspect] == [each.aspect for each in report.steps[4].differences]
    assert Verdict.DISAGREEMENT is report.steps[4].verdict


@pytest.mark.parametrize(
    ("fact", "value", "aspect"),
    [("spid", 10, "event for kvm"), ("pdata", 9, "event for kvm"), ("sub", "x", "told")],
)
def test_a_doctored_event_is_a_disagreement(
    tmp_path: Path, fact: str, value: object, aspect: str
) -> None:
    """Who was told, and all that an event carries, is compared."""
    path = DATA / "scenario-11_pending_mm_notifier.json"
    events = json.loads(path.read_text())["steps"][4]["events"]
    events[0][fact] = value
    report = replayed(doctored(path, tmp_path, 5, events=events))

    assert [aspect] == [each.aspect for each in report.steps[4].differences]
    assert Verdict.DISAGREEMENT is report.steps[4].verdict


def test_a_doctored_order_is_a_disagreement(tmp_path: Path) -> None:
    """One event's way through its subscribers has to fit the tiers, within one it is free."""
    path = DATA / "scenario-26b_priority_order_set_chain_docprio.json"
    cpu, dev1, dev2, iommu, last = json.loads(path.read_text())["steps"][7]["events"]
    wrong = replayed(doctored(path, tmp_path, 8, events=[cpu, iommu, dev1, dev2, last]))
    right = replayed(doctored(path, tmp_path, 8, events=[cpu, dev2, dev1, iommu, last]))

    assert ["order"] == [each.aspect for each in wrong.steps[7].differences]
    assert right.passed


def test_a_doctored_end_is_found(tmp_path: Path) -> None:
    """The end state of a random trace is compared."""
    trace = json.loads(FILES[0].read_text())
    trace["final"]["ids"][0]["refs"] += 1
    path = tmp_path / "end.json"
    path.write_text(json.dumps(trace))
    report = replayed(path)

    assert ["ID 0"] == [each.aspect for each in report.end]
    assert not report.passed


def test_a_listed_difference_that_is_gone_is_found(tmp_path: Path) -> None:
    """If the kernel had answered as we do, the table would be wrong, and the replay says so."""
    path = DATA / "scenario-24_reserve_cancel.json"
    report = replayed(doctored(path, tmp_path, 5, ret=-28, err="ENOSPC"))

    assert Verdict.AGREEMENT is report.steps[4].verdict
    assert ("step 5, answer: 0 reserved / ENOSPC CapacityExhausted",) == report.stale
    assert not report.passed


def test_a_named_difference_that_is_gone_is_found(tmp_path: Path) -> None:
    """A refusal that is listed by its errno is counted, too."""
    report = replayed(doctored(DATA / "random-1.json", tmp_path, 3, ret=-2, err="ENOENT"))

    assert ("get: EINVAL / ENOENT UnknownIoasid: 0 and not 1",) == report.stale
    assert not report.passed


def step_list(*op: str, **answer: object) -> list[object]:
    """One step of a random trace."""
    return [*op, {"ret": 0} | answer]


def test_what_only_the_kernel_granted_is_a_disagreement(tmp_path: Path) -> None:
    """A trace goes on after a set that only the kernel made."""
    path = tmp_path / "granted.json"
    steps = [
        step_list("set_alloc", "s", "mm", "-", "1", set="s", set_id=0, quota=1),
        step_list("alloc", "s", "1", "1"),
    ]
    path.write_text(json.dumps({"name": "granted", "steps": steps}))

    assert [Verdict.DISAGREEMENT] * 2 == [step.verdict for step in replayed(path).steps]


def test_every_operation_can_be_replayed(tmp_path: Path) -> None:
    """The operations that no recorded trace has are replayed as well."""
    steps = [
        step_list("set_alloc", "s", "mm", "mm1", "9", set="s", set_id=0, quota=9),
        step_list("register", "kvm", "set:s", "CPU"),
        step_list("alloc", "s", "1", "9", "7", ret=1),
        step_list("find_mm_set", "mm1", set="s"),
        step_list("free_all", "s", ret=None),
        step_list("find", "s", "1", ret=-2, err="ENOENT"),
        step_list("unregister", "kvm", "set:s"),
        step_list("register", "kvm", "set:s", "LAST"),
        step_list("set_free", "s"),
    ]
    path = tmp_path / "operations.json"
    path.write_text(json.dumps({"name": "operations", "steps": steps}))

    assert [Verdict.AGREEMENT] * 9 == [step.verdict for step in replayed(path).steps]


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
        (b'{"name": "x", "steps": [["get", "-", "1"]]}', "step 1: not [operation"),
        (b'{"name": "x", "steps": [["fly", {"ret": 0}]]}', "step 1: no such operation"),
        (b'{"name": "x", "steps": [["get", "-", {"ret": 0}]]}', "step 1: no such operation"),
        (b'{"name": "x", "steps": [["get", "-", "one", {"ret": 0}]]}', "step 1: invalid literal"),
        (b'{"name": "x", "steps": [["get", "s", "1", {"ret": 0}]]}', "no step before made a set"),
        (b'{"name": "x", "steps": [["register", "a", "no", "CPU", {"ret": 0}]]}', "no such scope"),
        (b'{"name": "x", "steps": [["register", "a", "all", "?", {"ret": 0}]]}', "Priority"),
        (
            b'{"name": "x", "steps": [["register", "a", "all", "CPU", "on", {"ret": 0}]]}',
            "no such actions",
        ),
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


@pytest.mark.parametrize("backend", ["asyncio", "uvloop", "trio"])
def test_the_command_explains(backend: str) -> None:
    """The command introduces itself, explains every step, concludes, and exits with 0."""
    if backend == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop runs on CPython and not on Windows")
    done = command(DATA / "random-1.json", *FILES[6:8], "--backend", backend)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("A Linux kernel series once had an allocator")
    assert "random-1: 1000 steps, 992 agreements, 8 decided (errno named exactly 8)" in done.stdout
    assert "  13  free ID 1 in s1 " in done.stdout
    assert "told here: kvm FREE 1, vdcm FREE 1, vtd FREE 1" in done.stdout
    assert "FREE reaches everybody: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("No disagreement: ")


def test_the_command_writes_json() -> None:
    """With --json every step, trace and the verdict is an event on a line of its own."""
    done = command("--json", *FILES[6:8])
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert (0, "") == (done.returncode, done.stderr)
    assert 15 + 1 + 15 + 1 + 1 == len(events)
    assert {"step", "trace", "verdict"} == {event["event"] for event in events}
    assert "decided" == events[12]["verdict"]
    assert "explanation.md#quarantine" == events[12]["differences"][0]["section"]
    assert (30, 0, True) == (
        events[-1]["steps"],
        events[-1]["disagreement"],
        events[-1]["passed"],
    )


def test_the_command_fails_for_a_disagreement(tmp_path: Path) -> None:
    """A doctored trace is reported, with the step, and the exit status is 1."""
    done = command(doctored(DATA / "random-1.json", tmp_path, 5, ret=2))

    assert (1, "") == (done.returncode, done.stderr)
    assert "step 5, alloc s2 1 40 25, answer: the kernel ID 2; here ID 1" in done.stdout
    assert "Not as it should be: 1 steps in disagreement" in done.stdout


def test_the_command_fails_for_a_stale_listing(tmp_path: Path) -> None:
    """A listed difference that does not occur is reported, and the exit status is 1."""
    path = DATA / "scenario-24_reserve_cancel.json"
    done = command(doctored(path, tmp_path, 5, ret=-28, err="ENOSPC"))

    assert (1, "") == (done.returncode, done.stderr)
    assert "listed, and not so: step 5, answer" in done.stdout


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.json", None, "No such file or directory"),
        ("broken.json", "{", "not a recorded trace"),
        (
            "other.json",
            '{"name": "x", "steps": [["fly", {"ret": 0}]]}',
            "step 1: no such operation",
        ),
    ],
)
def test_the_command_refuses_a_bad_file(
    tmp_path: Path, name: str, content: str | None, reason: str
) -> None:
    """A file that is missing or no trace is named on stderr with the reason; exit status 2."""
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    done = command(FILES[0], path)

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith(f"replay.py: {path}: {reason}")
    assert 1 == len(done.stderr.splitlines())


def test_the_command_needs_a_file() -> None:
    """Without a file, or with an unknown backend, the usage is shown; exit status 2."""
    for arguments in ([], ["--backend", "x", FILES[0]]):
        done = command(*arguments)
        assert (2, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith("usage: replay.py")
