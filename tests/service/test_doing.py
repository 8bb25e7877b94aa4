"""The commands that do something."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from ioasid.core import TokenType
from ioasid.service import connect_allocator
from tests.service.programs import ENVIRONMENT, PATIENCE, a_program


@contextmanager
def hold(folder: Path, *options: str, holds: str) -> Iterator[subprocess.Popen[str]]:
    """Hold an ID in a process of its own that says what it `holds`, and is killed in the end."""
    command = [sys.executable, "-m", "ioasid", "-s", str(folder / "s"), *options]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holding:
        try:
            assert holding.stdout is not None
            assert holds == holding.stdout.readline()
            yield holding
        finally:
            holding.kill()


HOLDS = "me holds 1; Ctrl-C lets go\n"


@pytest.mark.slow
def test_holding(tmp_path: Path) -> None:
    """Who is told to let go does so; who is killed is suspended, and named by why until evicted."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        for end in (signal.SIGINT, signal.SIGKILL):
            with hold(tmp_path, "--holder", "me", "hold", "1", holds=HOLDS) as holding:
                holding.send_signal(end)
                holding.communicate(timeout=PATIENCE)
            assert (0 if end == signal.SIGINT else -end) == holding.returncode
            suspended = 0 if end == signal.SIGINT else 1
            expected = {"suspended": suspended, "sessions": 0}.items()
            program.until(lambda figures, expected=expected: expected <= figures.items())  # type: ignore[misc]
        (line,) = (each for each in program.call("status")[1].splitlines() if "me " in each)
        assert ["me", "suspended", "1", "0", "0"] == [*line.split()[:2], *line.split()[3:]]
        assert "in quarantine" in program.call("free", "1")[1]
        for command in (("status",), ("find", "1")):
            table = program.call(*command)[1]
            assert "in quarantine" in table
            assert all(each == each.rstrip() for each in table.splitlines())
        assert "FREE_PENDING" in program.call("-o", "json", "find", "1")[1]
        assert "me" in program.call("why", "1")[1]
        assert (
            "It stays until me is back and done with it, or evicted" in program.call("why", "1")[1]
        )
        status, out, error = program.call("evict", "you")
        assert (3, "", True) == (status, out, "no holder named 'you'" in error)
        status, _, error = program.call("evict", "me", text="n\n")
        asked = error.startswith("What me has may be given to others at once: ")
        assert (1, True, True) == (status, asked, "their memory. Evict it? [y/N]:" in error)
        status, out, _ = program.call("evict", "me", "--yes")
        assert (0, "me is evicted. Back in the pool: 1.\n") == (status, out)
        assert 3 == program.call("why", "1")[0]


def test_who_was_killed_comes_back_and_lets_go(tmp_path: Path) -> None:
    """To hold the ID again by the same name is to hold what is held, freed meanwhile or not."""

    def hold_until(end: signal.Signals) -> int:
        with hold(tmp_path, "--holder", "me", "hold", "1", holds=HOLDS) as holding:
            holding.send_signal(end)
            return holding.wait(PATIENCE)

    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        assert -signal.SIGKILL == hold_until(signal.SIGKILL)
        program.until(lambda figures: figures["suspended"] == 1)
        assert "in quarantine" in program.call("free", "1")[1]
        assert 0 == hold_until(signal.SIGINT)
        program.until(lambda figures: figures["free_pending"] == 0)
        assert (3, 0) == (program.call("why", "1")[0], program.call("alloc", "vm-1")[0])


@pytest.mark.slow
def test_holding_what_is_served_no_more(tmp_path: Path) -> None:
    """Who holds an ID is told when the service ends."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        command = [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "hold", "1"]
        with subprocess.Popen(
            command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as holding:
            try:
                assert holding.stdout is not None
                assert "holds 1" in holding.stdout.readline()
                program.end()
                _, error = holding.communicate(timeout=PATIENCE)
            finally:
                holding.kill()
        assert (5, True) == (holding.returncode, error.startswith("ioasid: ESHUTDOWN"))


@pytest.mark.slow
def test_holding_until_evicted(tmp_path: Path) -> None:
    """Whose holder is evicted is told at once, and ends with what it was told."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        options = ("--holder", "me", "hold", "1", "-o", "json")
        with hold(tmp_path, *options, holds='{"holder":"me","ioasid":1}\n') as holding:
            assert 0 == program.call("evict", "me", "--yes")[0]
            _, error = holding.communicate(timeout=PATIENCE)
        said = "ioasid: me was evicted, and no longer holds 1\n"
        assert (1, said) == (holding.returncode, error)


@pytest.mark.slow
def test_waiting_in_vain(tmp_path: Path) -> None:
    """Who gives up waiting for an ID with Ctrl-C has not been told that it is back."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        command = [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s")]
        with subprocess.Popen(
            [*command, "hold", "1"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        ) as holding:
            assert holding.stdout is not None
            assert "holds 1" in holding.stdout.readline()
            waiting = subprocess.Popen([*command, "free", "1", "--wait"], env=ENVIRONMENT)
            try:
                while "1 request waits for it" not in program.call("why", "1")[1]:
                    assert waiting.poll() is None
                waiting.send_signal(signal.SIGINT)
                assert 130 == waiting.wait(timeout=PATIENCE)
            finally:
                waiting.kill()
                waiting.wait()
                holding.kill()


@pytest.mark.slow
def test_groups(tmp_path: Path) -> None:
    """Groups are made, one in another, changed and freed; a set takes its quota from one."""
    with a_program(tmp_path) as program:
        assert 0 == program.call("alloc-group", "a", "64")[0]
        status, out, _ = program.call("alloc-group", "b", "16", "--parent", "a", "-o", "json")
        assert (0, {"name": "b", "limit": 16, "parent": "a", "used": 0}) == (
            status,
            {name: each for name, each in json.loads(out).items() if name != "type"},
        )
        assert 0 == program.call("alloc-set", "vm-1", "8", "--group", "b")[0]
        assert "limit" in program.call("adjust-group", "b", "32")[1]
        status, _, error = program.call("adjust-group", "b", "4")
        assert (1, True) == (status, "EINVAL" in error)
        status, _, error = program.call("free-group", "b")
        assert (1, True) == (status, "EBUSY" in error)
        program.call("free-set", "vm-1", "--yes")
        assert (0, "b is freed\n") == program.call("free-group", "b")[:2]
        assert {"freed": "a"} == json.loads(program.call("-o", "json", "free-group", "a")[1])
        assert [] == json.loads(program.call("-o", "json", "groups")[1])
        status, _, error = program.call("alloc-group", "c", "1", "--parent", "a")
        assert (3, True) == (status, "; `ioasid alloc-group` makes it" in error)


@pytest.mark.slow
def test_groups_are_for_operators(tmp_path: Path) -> None:
    """Neither a driver nor a tenant makes, changes or frees one."""
    (tmp_path / "policy").write_text(
        f'[[rule]]\nrole = "driver"\nusers = [{os.getuid()}]\nholders = ["x:"]\n'
    )
    config = f'socket = "{tmp_path}/s"\npolicy = "{tmp_path}/policy"\n'
    with a_program(tmp_path, config) as program:
        for command in (("alloc-group", "a", "8"), ("adjust-group", "a", "8"), ("free-group", "a")):
            status, _, error = program.call("--holder", "x:1", *command)
            assert (4, True) == (status, "EPERM" in error)


@pytest.mark.slow
def test_adjusting_a_set(tmp_path: Path) -> None:
    """Its quota changes, and what is refused for it says so in commands."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "1")
        program.call("alloc", "vm-1")
        status, _, error = program.call("alloc", "vm-1")
        assert (1, True) == (status, "`ioasid adjust-set` it" in error)
        assert "EDQUOT: set vm-1 (#0) has allocated 1 of 1," in error
        assert (
            "token 'vm-1' belongs to set #0; `ioasid free-set`"
            in program.call(*("alloc-set", "vm-1", "1"))[2]
        )
        assert 2 == json.loads(program.call("adjust-set", "vm-1", "2", "-o", "json")[1])["quota"]
        assert "2\n" == program.call("alloc", "vm-1")[1]
        assert 1 == program.call("adjust-set", "#0", "1")[0]
        assert 2 == program.call("adjust-set", "#0", "0")[0]
        status, _, error = program.call("alloc", "vm-1", "--max", "0")
        assert (2, True) == (status, "max is 0; pass at least min" in error)


@pytest.mark.slow
def test_a_tenant_at_a_shell(tmp_path: Path) -> None:
    """It makes, sizes, uses and asks about its set; what it is denied names the command."""
    (tmp_path / "policy").write_text(
        f'[[rule]]\nrole = "tenant"\nusers = [{os.getuid()}]\nholders = ["x:"]\n'
        'tokens = ["vm-*"]\ngroup = "tenant-a"\n'
    )
    config = f'socket = "{tmp_path}/s"\njournal = "{tmp_path}/j"\n'
    with a_program(tmp_path, config) as program:
        program.call("alloc-group", "tenant-a", "16")
        program.end()
    with a_program(tmp_path, f'{config}policy = "{tmp_path}/policy"\n') as program:

        def call(*arguments: str) -> "tuple[int, str, str]":
            return program.call("--holder", "x:1", "--token", "vm-1", *arguments)

        status, _, error = call("alloc", "vm-1")
        assert (3, True) == (status, "`ioasid alloc-set` with --group" in error)
        status, _, error = call("alloc-set", "vm-1", "8")
        assert (4, True) == (status, "its token 'vm-1' in its group 'tenant-a'" in error)
        status, _, error = call("alloc-set", "vm-1", "17", "--group", "tenant-a")
        assert (1, True) == (status, "ask an operator for more" in error)
        assert 0 == call("alloc-set", "vm-1", "8", "--group", "tenant-a")[0]
        assert 9 == json.loads(call("adjust-set", "vm-1", "9", "-o", "json")[1])["quota"]
        assert "1\n" == call("alloc", "vm-1")[1]
        assert "1 (vm-1) is in use" in call("why", "1")[1]
        assert "reclaimed\n" == call("free", "1")[1]
        evicting = (("evict", "x"), ("evict", "x", "-y"))
        for command in (("status",), ("groups",), ("holders",), *evicting):
            status, _, error = call(*command)
            assert (4, True) == (status, f"tenant may not run `ioasid {command[0]}`; run" in error)
        assert 4 == call("alloc-group", "b", "4")[0]
        assert (
            "the token 'db-1', which is not"
            in program.call("--holder", "x:1", "--token", "db-1", "sets")[2]
        )
        assert "EPERM: give `ioasid --token` " in program.call("--holder", "x:1", "sets")[2]
        assert 0 == program.call("--token", "vm-1", "sets")[0]
        error = program.call("--token", "vm-1", "alloc", "vm-1")[2]
        assert "EPERM: give `ioasid --holder` one that begins with " in error


@pytest.mark.slow
def test_freeing_a_set(tmp_path: Path) -> None:
    """It asks first, and says whether all of it is back."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "vm-1", "8")
        program.call("alloc", "vm-1")
        status, _, error = program.call("free-set", "vm-1", text="n\n")
        assert (1, True) == (status, error.startswith("Free 1 ID of vm-1 (#0), and the set?"))
        assert error.endswith("ioasid: the answer was no, and nothing was done\n")
        status, _, error = program.call("free-set", "vm-1")
        assert (2, True) == (status, "nothing was done; --yes does it without asking" in error)
        assert 0 == program.call("find", "1")[0]
        status, out, _ = program.call("free-set", "vm-1", "--keep", "--yes")
        assert (0, "vm-1 (#0): reclaimed\n") == (status, out)
        assert 0 == program.call("set", "vm-1")[0]
        status, out, _ = program.call("free-set", "#0", "--yes", "--wait", "-o", "json")
        assert (0, {"sid": 0, "token": "vm-1", "reclaimed": True}) == (status, json.loads(out))
        assert 3 == program.call("free-set", "vm-1", "--yes")[0]


NAMING = (
    *(("set", "{}"), ("alloc", "{}"), ("adjust-set", "{}", "5")),
    *(("watch", "--token", "{}", "--count", "1"), ("free-set", "{}", "--yes")),
)
"""The commands that name a set."""


@pytest.mark.slow
def test_one_name_is_one_set(tmp_path: Path) -> None:
    """`#0` is a number for every command: no set is given it as a token, and none is guessed."""

    async def from_a_program() -> None:
        async with connect_allocator(tmp_path / "s", holder="program") as session:
            for token in ("#0", "#2"):
                await session.alloc_set(token, 8)
            await session.alloc_set(None, 8, TokenType.NULL)

    with a_program(tmp_path) as program:
        program.call("alloc-set", "victim", "8")
        before = program.call("sets", "-o", "json")[1]
        for token in ("#0", "#1", "#007"):
            status, _, error = program.call("alloc-set", token, "3")
            assert (2, True) == (status, f"'{token}' names a set by its number" in error)
        assert before == program.call("sets", "-o", "json")[1]
        assert 0 == program.call("alloc-set", "#a1", "3")[0]
        assert "#a1 (#1): reclaimed\n" == program.call("free-set", "#a1", "--yes")[1]

        anyio.run(from_a_program)
        before = program.call("sets", "-o", "json")[1]
        for command in NAMING:
            status, _, error = program.call(*(each.format("#0") for each in command))
            assert (2, True) == (status, "pass #02 or #00" in error), command
        assert before == program.call("sets", "-o", "json")[1]
        assert 2 == program.call("free-set", "#2", "--yes")[0]
        assert "#0 (#2): reclaimed\n" == program.call("free-set", "#02", "--yes")[1]
        assert 0 == program.call("set", "victim")[0]
        assert "1\n" == program.call("alloc", "#4")[1]
        assert 4 == json.loads(program.call("find", "1", "-o", "json")[1])["sid"]
        assert 5 == json.loads(program.call("adjust-set", "#4", "5", "-o", "json")[1])["quota"]
        status, _, error = program.call("free-set", "#4", text="n\n")
        assert (1, True) == (status, error.startswith("Free 1 ID of #4, and the set?"))
        assert "#4: reclaimed\n" == program.call("free-set", "#4", "--yes")[1]
        assert 2 == program.call("alloc", "#99999999999999999999999")[0]
