"""The service as a process of its own, for tests of its program and its commands."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from attrs import define
from click.testing import CliRunner

from ioasid.service._command import ioasid

PATIENCE: Final = 60.0
"""Seconds after which something that another process is to do never comes."""
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

    def until(self, condition: Callable[[dict[str, Any]], object]) -> None:
        """Wait until its figures are as they are to be."""
        end = time.monotonic() + PATIENCE
        while not condition(figures := json.loads(self.call("-o", "json", "status")[1])):
            assert time.monotonic() < end, figures

    def until_watched(self) -> None:
        """Wait until somebody watches."""
        self.until(lambda figures: figures["subscriptions"])

    def end(self) -> str:
        """Tell it to end, and return its log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=PATIENCE)
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
        states.settimeout(PATIENCE)
        known = ENVIRONMENT | {"NOTIFY_SOCKET": str(folder / "notify")} | dict(environment or {})
        process = subprocess.Popen(command, env=known, stderr=subprocess.PIPE, text=True)
        program = Program(folder, process, states)
        try:
            assert "READY=1" == program.state()
            yield program
        finally:
            process.kill()
            process.communicate()
