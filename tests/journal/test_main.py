"""Looking into a journal as a program."""

import subprocess
import sys
from pathlib import Path

from tests.journal.histories import History, keep, opened


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    """`python -m ioasid.journal` looks into a journal that an allocator has, and leaves it be."""
    history = History()
    with opened(tmp_path / "journal") as (journal, _):
        keep(journal, history.some(9))
        arguments = [sys.executable, "-m", "ioasid.journal", str(tmp_path / "journal")]
        shown = subprocess.run(arguments, capture_output=True, text=True, check=True)
        assert "last index:  10\n" in shown.stdout
        assert "damage:      none\n" in shown.stdout
        keep(journal, history.some(9))
    with opened(tmp_path / "journal") as (_, core):
        assert history.core.snapshot() == core.snapshot()
