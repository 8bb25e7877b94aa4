"""What the commands share: a service that answers, or does not."""

import socket
from pathlib import Path

import pytest

from tests.service.programs import call


def test_without_a_service(tmp_path: Path) -> None:
    """The status and the message say that nobody answers, and where."""
    status, out, error = call("--socket", str(tmp_path / "s"), "status")
    assert (5, "") == (status, out)
    assert "no allocator answers" in error
    assert str(tmp_path / "s") in error


def test_what_is_no_socket(tmp_path: Path) -> None:
    """A folder or a file in its place is no service that refuses."""
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        status, out, error = call("--socket", str(place), "status")
        assert (5, "", True) == (status, out, f"{place}: it is no socket; start" in error)


def test_a_service_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still is given up, and not waited for without end."""
    monkeypatch.setattr("ioasid.service._caller.ANSWERS_WITHIN", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        status, out, error = call("--socket", str(tmp_path / "s"), "status")
    assert (5, "") == (status, out)
    assert "it is there, and said nothing" in error
