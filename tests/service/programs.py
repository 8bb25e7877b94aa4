"""The service as a process of its own, for tests of its program and its commands."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define
from click.testing import CliRunner

from ioasid.service._command import ioasid

ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"JOURNAL_STREAM", "IOASID_SOCKET", "STATE_DIRECTORY"}
}


@define
class Program:
    """A service that runs, and how to call commands."""

    folder: Path
    process: subprocess.Popen[str]
    states: socket.socket

    def call(self, *arguments: str, text: str = "") -> "tuple[int, str, str]":
        """Run a command; its status, and what it printed."""
        return call("--socket", str(self.folder / "s"), *arguments, text=text)

    def state(self) -> str:
        """What the service manager is told next."""
        return self.states.recv(100).decode()

    def end(self) -> str:
        """Tell it to end, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=30)
        return log


def call(*arguments: str, text: str = "") -> "tuple[int, str, str]":
    """Call the command line in this process; its status, and what it printed."""
    done = CliRunner().invoke(ioasid, arguments, input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@contextmanager
def a_program(
    folder: Path,
    config: str | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[Program]:
    """Run `ioasid serve`, and wait until it says that it is ready."""
    command = [sys.executable, "-W", "error", "-m", "ioasid", "--socket", str(folder / "s")]
    command.append("serve")
    if config is not None:
        (folder / "config").write_text(config)
        command += ["--config", str(folder / "config")]
    command += arguments
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as states:
        (folder / "notify").unlink(missing_ok=True)
        states.bind(str(folder / "notify"))
        states.settimeout(30)
        known = ENVIRONMENT | {"NOTIFY_SOCKET": str(folder / "notify")} | dict(environment or {})
        process = subprocess.Popen(command, env=known, stderr=subprocess.PIPE, text=True)
        program = Program(folder, process, states)
        try:
            assert "READY=1" == program.state()
            yield program
        finally:
            process.kill()
            process.communicate()
