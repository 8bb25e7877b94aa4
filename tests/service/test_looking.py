"""The commands that look: see test_command.py for a day of an operator."""

import json
from pathlib import Path

import pytest

from tests.service.programs import a_program, call


@pytest.mark.slow
def test_json_on_either_side(tmp_path: Path) -> None:
    """`-o json` before the name of a command and after it are the same."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        before = program.call("-o", "json", "sets")
        assert (
            before == program.call("sets", "-o", "json") == program.call("sets", "--output", "json")
        )
        assert "vm-1" == json.loads(before[1])[0]["token"]


@pytest.mark.slow
def test_names_that_look_like_markup(tmp_path: Path) -> None:
    """A name is shown as it is, and no terminal obeys it."""
    with a_program(tmp_path) as program:
        for name in ("[/b]", "a\x1b[31mb"):
            assert 0 == program.call("alloc-set", name, "8")[0]
        status, out, _ = program.call("sets")
        assert (0, True) == (status, "[/b]" in out and r"a\x1b[31mb" in out)
        program.call("alloc-group", "[/b]", "8")
        status, out, _ = program.call("groups")
        assert (0, True) == (status, "[/b]" in out)
        program.call("alloc", "a\x1b[31mb")
        assert (0, "1 (a\\x1b[31mb) is in use: it was not freed.\n", "") == program.call("why", "1")


@pytest.mark.slow
def test_numbers_as_a_kernel_logs_them(tmp_path: Path) -> None:
    """An ID may be hexadecimal; what is no number is called so."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1", "--min", "0x1f")
        assert program.call("why", "31") == program.call("why", "0x1F")
    status, _, error = call("why", "0xno")
    assert (2, True) == (status, "'0xno' is no number, such as 17 or 0x11" in error)
