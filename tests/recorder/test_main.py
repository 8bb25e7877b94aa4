"""The package is a program."""

import subprocess
import sys


def test_it_runs() -> None:
    """`python -m ioasid.recorder` says what it can do."""
    ended = subprocess.run(
        [sys.executable, "-m", "ioasid.recorder", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (0, "") == (ended.returncode, ended.stderr)
    assert "draw" in ended.stdout
