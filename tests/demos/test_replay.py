"""The replay as a newcomer meets it: its output, its exit code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demos import replay

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "conformance" / "data"
FILES = [DATA / "random-1.json", *sorted(DATA.glob("scenario-0[12]*.json"))]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user would."""
    return subprocess.run(
        [sys.executable, replay.__file__, *map(str, arguments)],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        timeout=100,
    )


def doctored(into: Path, step: int, **changes: object) -> Path:
    """Write a random trace with other facts in the answer of one step."""
    trace = json.loads(FILES[0].read_text(encoding="utf-8"))
    trace["steps"][step - 1][-1].update(changes)
    path = into / "doctored.json"
    path.write_text(json.dumps(trace))
    return path


def test_the_command_explains() -> None:
    """The command introduces itself, explains every step, concludes, and exits with 0."""
    done = command(*FILES)

    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout.startswith("A Linux kernel series once had an allocator")
    assert "random-1: 1000 steps, 992 agreements, 8 decided (errno named exactly 8)" in done.stdout
    assert "  13  free ID 1 in s1 " in done.stdout
    assert "told here: kvm FREE 1, vdcm FREE 1, vtd FREE 1" in done.stdout
    assert "FREE reaches everybody: " in done.stdout
    assert done.stdout.splitlines()[-2].startswith("No disagreement: ")


def test_the_command_writes_json() -> None:
    """With --json every step, trace and the verdict is an event on a line of its own."""
    done = command("--json", *FILES[1:])
    events = [json.loads(line) for line in done.stdout.splitlines()]

    assert (0, "") == (done.returncode, done.stderr)
    assert 15 + 1 + 15 + 1 + 1 == len(events)
    assert {"step", "trace", "verdict"} == {event["event"] for event in events}
    assert "decided" == events[12]["verdict"]
    assert "explanation.md#quarantine" == events[12]["differences"][0]["rules"][0]["section"]
    assert (30, 0, True) == (
        events[-1]["steps"],
        events[-1]["disagreement"],
        events[-1]["passed"],
    )


def test_the_command_fails_for_a_disagreement(tmp_path: Path) -> None:
    """A doctored trace is reported, with the step, and the exit status is 1."""
    done = command(doctored(tmp_path, 5, ret=2))

    assert (1, "") == (done.returncode, done.stderr)
    assert "step 5, alloc s2 1 40 25, answer: the kernel ID 2; here ID 1" in done.stdout
    assert "Not as it should be: 1 steps in disagreement" in done.stdout


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
    """Without a file, or with an unknown option, the usage is shown; exit status 2."""
    for arguments in ([], ["--unknown", FILES[0]]):
        done = command(*arguments)
        assert (2, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith("usage: replay.py")
