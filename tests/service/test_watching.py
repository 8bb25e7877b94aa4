"""Watching from a shell: what is seen, and that nobody is kept waiting."""

import codecs
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import anyio
import pytest

from ioasid.service import connect_allocator
from tests.service.programs import ENVIRONMENT, PATIENCE, a_program


@pytest.mark.slow
def test_watching(tmp_path: Path) -> None:
    """Whoever watches sees what happens, and keeps no ID from being reclaimed."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "[/vm-1]", "8")
        command = [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "-o", "json"]
        watching = subprocess.Popen(
            [*command, "watch", "--token", "[/vm-1]", "--count", "3"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            program.until_watched()
            assert "1\n" == program.call("alloc", "[/vm-1]")[1]
            program.call("free", "1", "--wait")
            out, _ = watching.communicate(timeout=PATIENCE)
        finally:
            watching.kill()
            watching.communicate()
        assert 0 == watching.returncode
        events = [json.loads(each) for each in out.splitlines()]
        assert ["ALLOC", "FREE", "RECLAIM"] == [each["kind"] for each in events]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_watching_until_the_service_ends(tmp_path: Path, end: signal.Signals) -> None:
    """Whoever watches is told that nothing comes any more, however the service ends."""
    with a_program(tmp_path) as program:
        watching = subprocess.Popen(
            [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "watch"],
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            program.until_watched()
            program.process.send_signal(end)
            (line,) = watching.communicate(timeout=PATIENCE)[1].splitlines()
            assert line.startswith("ioasid: ")
        finally:
            watching.kill()
            watching.communicate()
        assert 5 == watching.returncode


@pytest.mark.slow
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_pipe_that_nobody_reads(tmp_path: Path, output: str) -> None:
    """Whoever does not read on keeps no ID from the pool."""

    async def use() -> None:
        async with connect_allocator(tmp_path / "s", holder="host") as session:
            vm = await session.alloc_set("vm-1", 10_000)
            for _ in range(4):
                # Much more than a pipe has room for.
                ranges = await session.alloc_many(vm.sid, 1000)
                await session.free_many(vm.sid, ranges)
            pasid = await session.alloc(vm.sid)
            with anyio.fail_after(PATIENCE):
                assert await session.free(pasid, wait=True)

    with a_program(tmp_path) as program:
        watching = subprocess.Popen(
            [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "-o", output, "watch"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
        )
        try:
            program.until_watched()
            anyio.run(use)
            assert watching.stdout is not None
            watching.stdout.close()
            # The next line that it writes has nobody to go to, if none did before.
            program.call("alloc", "vm-1")
            assert 0 == watching.wait(timeout=PATIENCE)
        finally:
            watching.kill()
            watching.wait()


@pytest.mark.slow
def test_who_is_stopped(tmp_path: Path) -> None:
    """Stopped where it can do nothing about it, it keeps no ID from the pool, and then goes on."""

    async def use() -> None:
        async with connect_allocator(tmp_path / "s", holder="host") as session:
            vm = await session.alloc_set("vm-1", 10_000)
            with anyio.fail_after(PATIENCE):
                # Less than its queue has room for, and more.
                for count in (1, 3000):
                    ranges = await session.alloc_many(vm.sid, count)
                    await session.free_many(vm.sid, ranges)
                    assert 0 == (await session.statistics()).free_pending

    with a_program(tmp_path) as program:
        watching = subprocess.Popen(
            [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "watch"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            program.until_watched()
            watching.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(watching.pid, os.WUNTRACED)[1])
            anyio.run(use)
            watching.send_signal(signal.SIGCONT)
            assert watching.stdout is not None
            while "RESYNC" not in watching.stdout.readline():
                pass
            assert "1\n" != program.call("alloc", "vm-1")[1]
            assert "ALLOC" in watching.stdout.readline()
        finally:
            watching.kill()
            watching.communicate()


@pytest.mark.slow
def test_on_a_terminal(tmp_path: Path) -> None:
    """A table with what happened last; stopped with Ctrl-Z it has unsubscribed, then it goes on."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "[/vm-1]", "8")
        inner, outer = pty.openpty()
        fcntl.ioctl(outer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        watching = subprocess.Popen(
            [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "watch"],
            env=ENVIRONMENT | {"TERM": "xterm"},
            stdin=outer,
            stdout=outer,
            process_group=0,
        )
        # A read may end in the middle of a character.
        decoder = codecs.getincrementaldecoder("utf-8")()
        seen = ""

        def read_until(text: str) -> str:
            nonlocal seen
            while text not in seen:
                seen += decoder.decode(os.read(inner, 65536))
            read, seen = seen, ""
            return read

        try:
            header = read_until("nothing has happened yet")
            # As `ioasid find` names them.
            assert "generation" in header
            assert "spid" in header
            program.call("alloc", "[/vm-1]")
            read_until("1 ALLOC")
            watching.send_signal(signal.SIGTSTP)
            assert os.WIFSTOPPED(os.waitpid(watching.pid, os.WUNTRACED)[1])
            assert "reclaimed\n" == program.call("free", "1")[1]
            watching.send_signal(signal.SIGCONT)
            read_until("nothing has happened yet")
            program.call("alloc", "[/vm-1]")
            read_until("[/vm-1]")
            watching.send_signal(signal.SIGINT)
            read_until("\x1b[?25h")  # the cursor is shown again
            assert 0 == watching.wait(timeout=PATIENCE)
        finally:
            watching.kill()
            watching.wait()
            os.close(inner)
            os.close(outer)


@pytest.mark.slow
def test_a_line_for_each(tmp_path: Path) -> None:
    """In a pipe an event is one line, whatever the name of its set."""
    with a_program(tmp_path) as program:
        program.call("alloc-set", "a\n\x1b[31mb", "8")
        watching = subprocess.Popen(
            [sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"), "watch", "--count", "1"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            program.until_watched()
            program.call("alloc", "a\n\x1b[31mb")
            out, _ = watching.communicate(timeout=PATIENCE)
        finally:
            watching.kill()
            watching.communicate()
        assert ["1", "ALLOC", "1", r"(a\n\x1b[31mb)"] == out.split()


@pytest.mark.slow
def test_a_tenant_that_watches(tmp_path: Path) -> None:
    """It watches the set of its token, which it gives once; without one it is told to give it."""
    (tmp_path / "policy").write_text(
        f'[[rule]]\nrole = "tenant"\nusers = [{os.getuid()}]\nholders = ["x:"]\n'
        'tokens = ["vm-1"]\ngroup = "a"\n'
    )
    config = f'socket = "{tmp_path}/s"\njournal = "{tmp_path}/j"\n'
    with a_program(tmp_path, config) as program:
        program.call("alloc-group", "a", "8")
        program.call("alloc-set", "vm-1", "8", "--group", "a")
        program.end()
    with a_program(tmp_path, f'{config}policy = "{tmp_path}/policy"\n') as program:
        command = (sys.executable, "-m", "ioasid", "-s", str(tmp_path / "s"))
        status, _, error = program.call("--holder", "x:1", "watch")
        assert (4, True) == (status, "`ioasid watch --token vm-1`" in error)
        watching = subprocess.Popen(
            [*command, "--holder", "x:2", "--token", "vm-1", "watch", "--count", "1"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert watching.stdout is not None
            # It has subscribed when it is told of one.
            number = ""
            while watching.poll() is None:
                number = program.call("--holder", "x:1", "alloc", "vm-1")[1].strip()
                program.call("--holder", "x:1", "free", number)
            assert number
            out, _ = watching.communicate(timeout=PATIENCE)
        finally:
            watching.kill()
            watching.communicate()
        assert 0 == watching.returncode
        assert "(vm-1)" in out
