"""Credentials: who is at the other end, as the kernel says."""

import os
import socket
import subprocess
import sys

import pytest

from ioasid.service._credentials import credentials_of


def test_who_is_at_the_other_end() -> None:
    """The user, all groups and the process of who made a pair are its own; nothing is consumed."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, two:
        found = credentials_of(one.fileno())
        assert (os.getuid(), os.getpid()) == (found.uid, found.pid)
        assert {os.getgid(), *os.getgroups()} == found.gids
        one.send(b"x")
        assert b"x" == two.recv(1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root chooses the groups of a process")
@pytest.mark.parametrize("count", [0, 3, 300])
def test_all_groups_of_a_user(count: int) -> None:
    """However many there are besides the main one, a rule may name any of them."""
    script = (
        "import socket; from ioasid.service._credentials import credentials_of\n"
        "one, two = socket.socketpair(); print(*credentials_of(one.fileno()).gids)"
    )
    groups = list(range(1000, 1000 + count))
    command = [sys.executable, "-c", script]
    found = subprocess.check_output(command, extra_groups=groups, text=True)
    assert {os.getgid(), *groups} == {int(each) for each in found.split()}


def test_what_is_no_socket() -> None:
    """It is the system's error."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError):  # noqa: PT011 - which one is the system's matter
            credentials_of(reading)
    finally:
        os.close(reading)
        os.close(writing)
