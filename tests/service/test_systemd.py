"""What a service manager says and is told."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ioasid.service._systemd import notify, passed_socket, state_directory

PASSED = """
import os, socket, sys
from ioasid.core import InvalidArgument
from ioasid.service._systemd import passed_socket
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])
try:
    sock = passed_socket()
    assert sock is not None
    print(sock.getsockname(), os.get_inheritable(3), "LISTEN_FDS" in os.environ)
except InvalidArgument as error:
    print(error.found)
"""


def run(descriptor: int, count: str) -> str:
    """What a program finds that is passed a descriptor."""
    return subprocess.run(
        [sys.executable, "-c", PASSED, str(descriptor), count],
        pass_fds=[descriptor],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_socket_that_is_passed(tmp_path: Path) -> None:
    """It is taken, no child inherits it, and nobody is told of it again."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        assert f"{path} False False" == run(listener.fileno(), "1")
        assert "2" == run(listener.fileno(), "2")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        assert "another socket" == run(other.fileno(), "1")
    with (tmp_path / "file").open("w") as file:
        assert "Socket operation on non-socket" == run(file.fileno(), "1")


def test_nothing_is_passed() -> None:
    """Without the variables, or with those of another process, there is none."""
    assert None is passed_socket({})
    assert None is passed_socket({"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert None is passed_socket({"LISTEN_PID": str(os.getpid())})


def test_where_state_is_kept() -> None:
    """In the first folder that is given, if any is."""
    assert Path("/var/lib/a") == state_directory({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"})
    assert [None, None] == [state_directory({}), state_directory({"STATE_DIRECTORY": ""})]


@pytest.mark.parametrize("abstract", [False, True])
def test_telling_a_state(tmp_path: Path, abstract: bool) -> None:
    """It arrives, by a path or in the abstract name space."""
    address = f"@ioasid-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address.replace("@", "\0") if abstract else address)
        assert notify("READY=1", {"NOTIFY_SOCKET": address})
        assert b"READY=1" == manager.recv(100)
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "gone")})
