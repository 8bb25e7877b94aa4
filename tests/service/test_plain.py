"""What a terminal is given: it obeys nothing that a stranger named, and breaks no word."""

import os
import pty
import subprocess
import sys

import pytest

from ioasid.service._plain import fitted, plain
from tests.service.programs import ENVIRONMENT


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("vm-1", "vm-1"),
        ("gerät ✓", "gerät ✓"),
        ("a\nb", r"a\nb"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("left\u202eright", r"left\u202eright"),
        ("\udc80", r"\udc80"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    """What is printable stays; controls, also those of direction, are written out."""
    assert shown == plain(text)


def test_words_stay_whole() -> None:
    """A line is broken between words; one that is longer than a line has its own."""
    assert "one two\nthree-four-five\nsix" == fitted("one two three-four-five six", 9)


def test_a_terminal_gets_lines_that_fit() -> None:
    """An error is broken between words on a terminal, and is one line elsewhere."""
    command = [sys.executable, "-m", "ioasid", "-s", "/nowhere/ioasid.sock", "status"]
    environment = ENVIRONMENT | {"COLUMNS": "40"}
    near, far = pty.openpty()
    try:
        subprocess.run(command, env=environment, stderr=far, check=False)
        shown = os.read(near, 10_000).decode()
    finally:
        os.close(near)
        os.close(far)
    elsewhere = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stderr
    assert max(map(len, shown.splitlines())) <= 40
    assert shown.split() == elsewhere.split()
    assert 1 == len(elsewhere.splitlines())
