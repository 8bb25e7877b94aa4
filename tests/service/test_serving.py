"""The command that runs the service."""

from pathlib import Path

from tests.service.programs import call


def test_bad_configurations(tmp_path: Path) -> None:
    """They are refused before anything is served, in one line."""
    (tmp_path / "c").write_text("sockets = 5\n")
    status, _, error = call("serve", "--config", str(tmp_path / "c"))
    assert (2, 1) == (status, len(error.splitlines()))
    status, _, error = call("serve", "--config", str(tmp_path / "gone"))
    assert (1, True) == (status, str(tmp_path / "gone") in error)


def test_a_socket_that_cant_be(tmp_path: Path) -> None:
    """The message names the path and says what is in the way."""
    (tmp_path / "file").touch()
    place = tmp_path / "file"
    status, _, error = call("--socket", str(place), "serve")
    assert (1, f"ioasid: {place}: it is in use by a file that is no socket; ") == (
        status,
        error.partition("choose")[0],
    )
    place = tmp_path / "gone" / "s"
    status, _, error = call("--socket", str(place), "serve")
    assert (1, f"ioasid: {place}: No such file or directory\n") == (status, error)
