"""`python -m ioasid.testing`."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_main() -> None:
    """The package runs as a program, in a process of its own."""
    arguments = ["quota_adjusted_under_load", "--seed", "1"]
    result = subprocess.run(
        [sys.executable, "-m", "ioasid.testing", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (result.returncode, result.stderr)
    assert "seed 1 on asyncio: holds" in result.stdout
