"""Credentials: who is at the other end, as the kernel says."""

import os
import socket

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


def test_what_is_no_socket() -> None:
    """It is the system's error."""
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError):  # noqa: PT011 - which one is the system's matter
            credentials_of(reading)
    finally:
        os.close(reading)
        os.close(writing)
