"""What a terminal is given: it obeys nothing that a stranger named, and breaks no word."""

import errno
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


def everything(terminal: int) -> bytes:
    """All that a terminal was given which nobody writes to any more, in however many pieces."""
    found = b""
    try:
        while data := os.read(terminal, 10_000):
            found += data
    except OSError as error:
        # So says Linux at the end.
        assert errno.EIO == error.errno
    finally:
        os.close(terminal)
    return found


def test_a_terminal_gets_lines_that_fit() -> None:
    """An error is broken between words on a terminal, and is one line elsewhere."""
    command = [sys.executable, "-m", "ioasid", "-s", "/nowhere/ioasid.sock", "status"]
    environment = ENVIRONMENT | {"COLUMNS": "40"}
    near, far = pty.openpty()
    try:
        subprocess.run(command, env=environment, stderr=far, check=False)
    finally:
        os.close(far)
    shown = everything(near).decode()
    elsewhere = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stderr
    assert max(map(len, shown.splitlines())) <= 40
    assert shown.split() == elsewhere.split()
    assert 1 == len(elsewhere.splitlines())
