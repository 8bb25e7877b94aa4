"""An agent that is killed: a small part of `make crash`, and whether it sees what it looks for."""

import subprocess
import sys

import pytest

from tests.journal.agent import PLANTS
from tests.journal.disk import failing_disk

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def crash(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program, which forks, in a process that has no threads."""
    with failing_disk():
        # Skips where none can be made, for the agent needs one.
        pass
    command = [sys.executable, "-m", "tests.journal.crash", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_nothing_is_forgotten() -> None:
    """Killed ten times, the agent has all that it was answered and its hardware was told."""
    ended = crash("--kills", "10", "--seed", "1")
    assert (0, "") == (ended.returncode, ended.stderr), ended.stdout
    assert "       10  killed\n" in ended.stdout


FORGOTTEN = (
    "which asked",
    "is gone",
    "JournalDamaged",
    "which nobody knows of",
    "is told of again after its end",
    "is handed out again while hardware has it",
    "hardware was told of the end",
)
"""What a lost row leads to: which of them comes first depends on the moment of the kills."""
SEEN = {
    "answer-before-commit": FORGOTTEN,
    "row-dropped-with-checkpoint": FORGOTTEN,
    "holders-stay-live": ("is live, and its process is gone",),
    "boot-forgets": FORGOTTEN,
    "row-not-kept": FORGOTTEN,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_is_seen(plant: str) -> None:
    """An agent that forgets, or answers too early, is found out."""
    ended = crash("--kills", "200", "--plant", plant)
    assert (1, "") == (ended.returncode, ended.stderr), ended.stdout
    assert any(each in ended.stdout for each in SEEN[plant]), ended.stdout
