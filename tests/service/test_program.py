"""The service as a program: its socket, signals, policy, metrics, and its end."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from ioasid.core import AllocatorClosed, InvalidArgument, Resync
from ioasid.journal import JournalInUse
from ioasid.service import Config, OutcomeUnknown, connect_allocator, serve
from ioasid.service._program import bound, own_socket
from tests.service.programs import ENVIRONMENT, PATIENCE, Program, a_program

PASSING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "ioasid", "serve"])
"""


def scrape(path: Path) -> str:
    """What a metrics socket says."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(str(path))
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        found = b""
        while data := sock.recv(65536):
            found += data
    return found.decode()


@pytest.mark.slow
def test_a_service_from_its_configuration(tmp_path: Path) -> None:
    """It serves with the mode, order, policy and metrics it was told, and ends in order."""
    policy = tmp_path / "policy"
    policy.write_text(f'[[rule]]\nrole = "operator"\nusers = [{os.getuid()}]\n')
    config = (
        f'socket = "{tmp_path}/s"\nmode = 0o600\npolicy = "{policy}"\nmetrics = "{tmp_path}/m"\n'
        "capacity = 100\n"
    )
    with a_program(tmp_path, config) as program:
        assert 0o600 == stat.S_IMODE((tmp_path / "s").stat().st_mode)
        status, out, _ = program.call("-o", "json", "status")
        assert (0, 100) == (status, json.loads(out)["capacity"])
        assert 0 == program.call("alloc-set", "vm-1", "8")[0]
        given = []
        for _ in range(3):
            given.append(program.call("alloc", "vm-1")[1].strip())
            program.call("free", given[-1])
        # Cyclic: what was freed last comes last.
        assert ["1", "2", "3"] == given
        text = scrape(tmp_path / "m")
        assert text.startswith("HTTP/1.1 200 OK\r\n")
        assert "\nioasid_capacity 100.0\n" in text
        assert 'ioasid_sets{state="ACTIVE"} 1.0\n' in text

        # A policy that is no good is logged, and the old one stays; a good one holds.
        policy.write_text("[[rule]]\n")
        program.process.send_signal(signal.SIGHUP)
        assert 0 == program.call("status")[0]
        policy.write_text(f'[[rule]]\nrole = "driver"\nusers = [{os.getuid()}]\nholders = ["x:"]\n')
        program.process.send_signal(signal.SIGHUP)
        for _ in range(20):
            if program.call("evict", "nobody", "-y")[0] == 4:
                break
        assert 4 == program.call("evict", "nobody", "-y")[0]
        assert 0 == program.call("status")[0]
        assert 0 == program.call("--holder", "x:1", "status")[0]

        log = program.end()
        assert 0 == program.process.returncode
        assert "STOPPING=1" == program.state()
        assert "the policy file is no good" in log
        assert "Traceback" not in log
        assert "stopped" in log.splitlines()[-1]
        assert not (tmp_path / "s").exists()
        assert not (tmp_path / "m").exists()
    assert 5 == program.call("status")[0]


def test_a_socket_that_a_process_left_behind(tmp_path: Path) -> None:
    """It is replaced; one that somebody listens on is not, and no other file is."""
    path = str(tmp_path / "s")
    bound(path, 0o600, None).close()
    assert (tmp_path / "s").is_socket()
    by = f"in use by a service with the process ID {os.getpid()}; end that first"
    with bound(path, 0o660, None), pytest.raises(OSError, match=by):
        bound(path, 0o660, None)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OSError, match="no socket"):
        bound(str(tmp_path / "file"), 0o660, None)
    assert "precious" == (tmp_path / "file").read_text()
    with pytest.raises(InvalidArgument):
        bound(str(tmp_path / "t"), 0o660, "no such group")


def test_the_file_of_a_socket_goes_with_it(tmp_path: Path) -> None:
    """Until it is gone nobody takes it for left behind, and a successor's file is left alone."""
    path = tmp_path / "s"
    with own_socket(str(path), 0o600, None) as sock:
        # As a server does that ends.
        sock.close()
        with pytest.raises(OSError, match="in use by a service"):
            bound(str(path), 0o600, None)
    assert not path.exists()
    with own_socket(str(path), 0o600, None):
        path.unlink()
        successor = bound(str(path), 0o600, None)
    with successor, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    with own_socket(str(path), 0o600, None):
        path.unlink()


def test_a_socket_that_was_passed_stays(tmp_path: Path) -> None:
    """A service manager's socket outlives the service, for the next one that it starts."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as passed:
        passed.bind(str(path))
        passed.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", PASSING, str(passed.fileno())],
            env=ENVIRONMENT,
            pass_fds=[passed.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stderr is not None
                while f"serving {path}" not in process.stderr.readline():
                    assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                assert "stopped" in process.stderr.read().splitlines()[-1]
                assert 0 == process.wait(PATIENCE)
            finally:
                process.kill()
    assert path.is_socket()


@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed(tmp_path: Path, ignored: bool) -> None:
    """It ends a service without a policy file in order, unless that is under nohup."""
    command = [sys.executable, "-m", "ioasid", "--socket", str(tmp_path / "s"), "serve"]
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGHUP, handler)
    with process:
        try:
            assert process.stderr is not None
            while "serving" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGHUP)
            if ignored:
                assert "policy reloaded; it applies to new connections" in process.stderr.readline()
                process.send_signal(signal.SIGTERM)
            assert ["stopping", "stopped"] == [
                line.split()[-1] for line in process.stderr.read().splitlines()
            ]
            assert 0 == process.wait(PATIENCE)
        finally:
            process.kill()


@pytest.mark.slow
def test_a_manager_that_reloads(tmp_path: Path) -> None:
    """A service under a manager goes on at SIGHUP, also without a policy file to read again."""
    with a_program(tmp_path) as program:
        program.process.send_signal(signal.SIGHUP)
        assert 0 == program.call("status")[0]
        assert "policy reloaded; it applies to new connections" in program.end()


@pytest.mark.slow
def test_a_journal_outlives_the_process(tmp_path: Path) -> None:
    """Killed and started again, it has the IDs and the holder; clients are told, and come back."""
    path = tmp_path / "s"
    config = f'socket = "{path}"\njournal = "{tmp_path}/j"\n'

    async def bind_and_be_killed(first: Program, stack: ExitStack) -> None:
        with anyio.fail_after(PATIENCE):
            async with (
                connect_allocator(path, holder="kvm:vm-1") as session,
                session.subscribe(token="vm-1", hold=True),
            ):
                vm = await session.alloc_set("vm-1", 8)
                await session.attach_spid(await session.alloc(vm.sid), spid=101)
                first.process.kill()
                first.process.wait()
                stack.enter_context(a_program(tmp_path, config))
                # Another epoch, and nothing says that a request is decided once over it.
                while True:
                    try:
                        await session.alloc(vm.sid)
                    except OutcomeUnknown:
                        pass

    async def come_back() -> list[tuple[int, int]]:
        with anyio.fail_after(PATIENCE):
            async with (
                connect_allocator(path, holder="kvm:vm-1") as session,
                session.subscribe(token="vm-1", hold=True) as events,
            ):
                async for message in events:
                    assert isinstance(message, Resync)
                    return [(each.ioasid, each.spid or 0) for each in message]
        return []

    with ExitStack() as stack:
        first = stack.enter_context(a_program(tmp_path, config + "capacity = 100\n"))
        with pytest.raises(AllocatorClosed):
            anyio.run(bind_and_be_killed, first, stack)
        call = first.call
        figures = json.loads(call("-o", "json", "status")[1])
        assert (100, 1, 1) == (figures["capacity"], figures["active"], figures["suspended"])
        assert "in quarantine" in call("free", "1")[1]
        assert "kvm:vm-1" in call("why", "1")[1]
        assert [(1, 101)] == anyio.run(come_back)
        assert 3 == call("find", "1")[0]
        assert "state:       1 set, 0 IDs in use" in call("journal", "check", f"{tmp_path}/j")[1]
        assert "2\n" == call("alloc", "vm-1")[1]


def test_the_state_directory_of_a_service_manager(tmp_path: Path) -> None:
    """The journal is kept there unless told otherwise, and a second service is kept out."""
    (tmp_path / "state").mkdir()
    with a_program(tmp_path, environment={"STATE_DIRECTORY": str(tmp_path / "state")}) as program:
        journal = tmp_path / "state" / "ioasid.journal"
        assert journal.is_file()
        config = Config(socket=str(tmp_path / "t"), journal=str(journal))
        with pytest.raises(BaseExceptionGroup) as caught:
            anyio.run(serve, config)
        assert caught.group_contains(JournalInUse)
        assert f"the journal is {journal}" in program.end()
