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


SEEN = {
    "answer-before-commit": "which asked",
    "row-dropped-with-checkpoint": "JournalDamaged",
    "holders-stay-live": "is live, and its process is gone",
    "boot-forgets": "is gone",
    "row-not-kept": "JournalDamaged",
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_is_seen(plant: str) -> None:
    """An agent that forgets, or answers too early, is found out."""
    ended = crash("--kills", "200", "--plant", plant)
    assert (1, "") == (ended.returncode, ended.stderr), ended.stdout
    assert SEEN[plant] in ended.stdout
