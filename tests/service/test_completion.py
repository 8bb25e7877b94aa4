"""Completion: what shells are told to do, and what they are given."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from ioasid.core import TokenType
from ioasid.service import connect_allocator
from tests.service.programs import ENVIRONMENT, a_program, call

COMPLETE = {
    "bash": """
source <(ioasid completion bash)
COMP_WORDS=(ioasid {words}); COMP_CWORD={at}
_ioasid_completion ioasid
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    # What its script runs; completing for real needs somebody who types.
    "zsh": "COMP_WORDS='ioasid {words}' COMP_CWORD={at} _IOASID_COMPLETE=zsh_complete ioasid",
    "fish": "ioasid completion fish | source; complete -C 'ioasid {words}'",
}


def complete(shell: str, folder: Path, *words: str) -> list[str]:
    """What a shell offers for the last of some words."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here: apt install {shell}")
    command = folder / "ioasid"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m ioasid "$@"\n')
    command.chmod(0o755)
    text = COMPLETE[shell].format(words=" ".join(words), at=len(words))
    done = subprocess.run(
        [shell, "-c", text],
        env=ENVIRONMENT
        | {"PATH": f"{folder}:{os.environ['PATH']}", "IOASID_SOCKET": str(folder / "s")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stderr
    lines = [line.split("\t")[0] for line in done.stdout.splitlines()]
    # In zsh's form a kind is before each word, and a description behind it.
    return lines[1::3] if shell == "zsh" else lines


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_in_a_shell(tmp_path: Path, shell: str) -> None:
    """A shell completes commands, and the names of sets and holders that there are."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc-set", "vm-2", "8")
        program.call("alloc-set", "host", "8")
        program.call("alloc-set", "vm-\n\x1b[31m", "8")
        assert ["status"] == complete(shell, tmp_path, "stat")
        assert ["vm-1", "vm-2"] == complete(shell, tmp_path, "set", "vm")
        program.call("alloc-group", "tenant", "8")
        assert ["tenant"] == complete(shell, tmp_path, "free-group", "t")
    # Nobody answers: nothing to offer, and no complaint.
    assert [] == [each for each in complete(shell, tmp_path, "set", "vm") if each.startswith("vm")]


def test_what_a_shell_is_told() -> None:
    """Bash, zsh and fish are known, and no other."""
    for shell in ("bash", "zsh", "fish"):
        status, out, _ = call("completion", shell)
        assert (0, True) == (status, "_IOASID_COMPLETE" in out)
    assert 2 == call("completion", "csh")[0]


@pytest.mark.slow
def test_a_set_that_a_token_does_not_name(tmp_path: Path) -> None:
    """One without a token, or whose token looks like a number, is offered by its number."""

    async def make() -> None:
        async with connect_allocator(tmp_path / "s", holder="program") as session:
            await session.alloc_set("#0", 8)
            await session.alloc_set(None, 8, TokenType.NULL)

    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        anyio.run(make)
        words = {
            "COMP_WORDS": "ioasid set ",
            "COMP_CWORD": "2",
            "_IOASID_COMPLETE": "bash_complete",
        }
        done = subprocess.run(
            [sys.executable, "-m", "ioasid"],
            env=ENVIRONMENT | words | {"IOASID_SOCKET": str(tmp_path / "s")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ["plain,vm-1", "plain,#1", "plain,#2"] == done.stdout.splitlines()
