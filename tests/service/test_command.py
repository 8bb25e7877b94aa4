"""The command line: what an operator sees and does, and the statuses that scripts use."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ioasid.service._command import ioasid
from tests.service.programs import a_program, call


@pytest.mark.parametrize("what", ["--help", "completion bash", "probe"])
def test_output_that_nobody_takes(what: str) -> None:
    """It is one line, and a status of its own: what was asked for may have been done."""
    with open("/dev/full", "w") as full:  # noqa: PTH123 - it is a device
        command = [sys.executable, "-m", "ioasid", *what.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    lost = "ioasid: what there was to say could not be written: No space left on device\n"
    assert (6, lost) == (done.returncode, done.stderr)


@pytest.mark.slow
def test_a_day_of_an_operator(tmp_path: Path) -> None:
    """Everything that there is to see and to do, as tables and as JSON."""
    with a_program(tmp_path) as program:
        status, out, _ = program.call("alloc-set", "vm-1", "8")
        assert (0, True) == (status, "vm-1" in out)
        assert (0, "1\n", "") == program.call("alloc", "vm-1", "--min", "1")
        assert 2 == json.loads(program.call("alloc", "vm-1", "-o", "json")[1])["ioasid"]
        for command in (
            ("sets",),
            ("set", "vm-1"),
            ("set", "#0"),
            ("holders",),
            ("groups",),
            ("find", "1"),
        ):
            status, out, error = program.call(*command)
            assert (0, "") == (status, error)
            assert len(out.splitlines()) > (command not in {("groups",), ("holders",)})
            status, out, _ = program.call("-o", "json", *command)
            assert 0 == status
            json.loads(out)
        listed = json.loads(program.call("-o", "json", "set", "vm-1")[1])
        assert [(1, "ACTIVE"), (2, "ACTIVE")] == [
            (each["ioasid"], each["state"]) for each in listed
        ]
        assert "1 (vm-1) is in use" in program.call("why", "1")[1]
        assert json.loads(program.call("-o", "json", "why", "1")[1])["ioasid"] == 1
        assert "capacity" in program.call("status")[1]
        assert (0, "reclaimed\n") == program.call("free", "1", "--generation", "1")[:2]
        assert {"reclaimed": True} == json.loads(
            program.call("-o", "json", "free", "2", "--wait")[1]
        )

        # Statuses.
        assert 3 == program.call("why", "1")[0]
        assert 3 == program.call("find", "77")[0]
        status, _, error = program.call("set", "vm-7")
        assert (3, True) == (status, "'vm-7'; `ioasid alloc-set` makes one" in error)
        assert "alloc_set" not in error
        assert 3 == program.call("set", "#x")[0]
        assert 3 == program.call("set", "#7")[0]
        assert 2 == program.call("why", "x")[0]
        assert 2 == program.call("nap")[0]
        assert 3 == program.call("evict", "nobody", "--yes")[0]
        assert 3 == program.call("evict", "nobody")[0]
        assert 1 == program.call("alloc", "vm-1", "--min", "9", "--max", "9999999")[0] - 1
        assert 1 == program.call("alloc-set", "vm-1", "8")[0]
        status, _, error = program.call("serve")
        assert (1, True) == (status, "in use" in error)


def own() -> dict[str, click.Command]:
    """The commands of the service; packages above it may have added theirs."""
    found = ioasid.commands.items()
    names = {name for name, each in found if "service" in (each.callback or call).__module__}
    return {name: each for name, each in found if name in names}


def test_help_shows_examples() -> None:
    """Every command explains itself, and those that show something take -o on either side."""
    status, out, _ = call("--help")
    assert (0, True) == (status, "ioasid why 17" in out)
    for name, command in own().items():
        status, out, _ = call(name, "--help")
        assert (0, True) == (status, bool(command.get_short_help_str()))
        assert "Example" in out, name
        # In a terminal of 80 columns it is not cut in the list of commands.
        assert not command.get_short_help_str(60).endswith("..."), name


@pytest.mark.parametrize("option", ["--holder", "--token", "--socket", "-s"])
def test_an_option_behind_its_place(option: str) -> None:
    """Who puts what is for all commands behind one is told where it goes."""
    for command in (("alloc", "vm-1"), ("top",), ("free-set", "vm-1", "--yes")):
        status, _, error = call(*command, option, "me")
        place = f"it goes before the command: ioasid {option} ... {command[0]}\n"
        assert (2, True) == (status, f"ioasid: no such option '{option}'; {place}" in error)
    assert "before" not in call("top", "-o", "json")[2]


MISUSED = {
    "nap": ("ioasid", "no such command 'nap'"),
    "--nap": ("ioasid", "no such option '--nap'"),
    "status --nap": ("ioasid status", "no such option '--nap'"),
    "find": ("ioasid find", "missing argument 'ID'"),
    "find x": ("ioasid find", "invalid value for 'ID': 'x' is no number, such as 17 or 0x11"),
    "status x": ("ioasid status", "got unexpected extra argument (x)"),
    "journal nap": ("ioasid journal", "no such command 'nap'"),
}


@pytest.mark.parametrize("words", MISUSED)
def test_a_wrong_call(words: str) -> None:
    """Its message begins as all others, after how the command is called and where its help is."""
    command, reason = MISUSED[words]
    status, out, error = call(*words.split())
    usage, hint, empty, said = error.splitlines()
    assert (2, "", "") == (status, out, empty)
    assert (True, f"Try '{command} --help' for help.") == (
        usage.startswith(f"Usage: {command} "),
        hint,
    )
    assert f"ioasid: {reason}" == said


def test_a_number_below_0() -> None:
    """It is none that is accepted, and not an unknown option alone."""
    status, _, error = call("alloc-set", "vm-3", "-1")
    assert (2, True) == (status, "'-1'; no number is below 0 here" in error)


def test_numbers() -> None:
    """They are decimal or with 0x, in a range, and nothing else that Python would take for one."""
    for given in ("0x11", "17"):
        assert 5 == call("--socket", "/nowhere/s", "free", given)[0]
    for given in ("1_7", " 17", "17.0", "x11", "4294967295"):
        assert 2 == call("--socket", "/nowhere/s", "free", given)[0]
    status, _, error = call("alloc-set", "vm-1", "0")
    assert (2, True) == (status, "invalid value for 'QUOTA': 0 is not in 1..4294967295" in error)


def test_every_option_is_explained() -> None:
    """Nobody has to guess what an option does, but for those whose values say it."""
    silent = [
        f"{name} {option.opts[0]}"
        for name, command in own().items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert [] == silent
