"""The guest SVA demo as a newcomer meets it: its output, its exit code, every backend."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demos import guest_sva

ROOT = Path(__file__).parents[2]
BACKENDS = ("asyncio", "uvloop", "trio")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a program."""
    return subprocess.run(
        [sys.executable, "demos/guest_sva.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_claim_holds(backend: str) -> None:
    """On every backend the story ends with its conclusion and exit code 0."""
    finished = run("--backend", backend)
    assert (0, "") == (finished.returncode, finished.stderr)
    assert "No PASID was handed out while" in finished.stdout
    assert "NOT SO" not in finished.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_json_is_an_event_a_line(backend: str) -> None:
    """With --json every line is one JSON object, and the last one says that it holds."""
    finished = run("--backend", backend, "--json")
    events = [json.loads(line) for line in finished.stdout.splitlines()]
    assert events[-1]["holds"] is True
    assert set(guest_sva.COLUMNS) - {"refs"} == {e["actor"] for e in events if "actor" in e}


def test_quarantine_is_shown_by_the_messages() -> None:
    """In the crash, RECLAIM of the PASID comes after its DMA completed and its entry was gone."""
    rows = [json.loads(line) for line in run("--json").stdout.splitlines()]
    crash = rows.index(next(row for row in rows if row.get("part", "").startswith("vm-1 crashes")))
    texts = [row["text"] for row in rows[crash:] if "text" in row]
    order = ["vm-1: free 1", "unmaps 101", "drains, 1 left", "vm-2: alloc", "ALLOC 2"]
    order += ["DMA completes", "entry flushed", "RECLAIM 1", "vm-1: ENOENT"]
    order += ["vm-2: alloc", "ALLOC 1"]
    begin = texts.index("vm-1: free 1")
    assert order == [text for text in texts[begin:] if text in order]


def test_a_claim_that_does_not_hold_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A claim that does not hold is named, and the exit code is 1."""
    monkeypatch.setattr(guest_sva, "RISE_AND_FALL", [1, 2, 3])
    monkeypatch.setattr(sys, "argv", ["guest_sva.py"])
    assert 1 == guest_sva.main()
    assert "NOT SO" in capsys.readouterr().out


def test_the_docs_show_what_it_prints() -> None:
    """The output in its page is the output of the demo, to the letter."""
    page = (ROOT / "docs" / "stories" / "guest.md").read_text(encoding="utf-8")
    printed = [line.rstrip() for line in run().stdout.splitlines()]
    assert "\n".join(printed).strip() in page
