"""The command that runs the service."""

from pathlib import Path

from tests.service.programs import call


def test_bad_configurations(tmp_path: Path) -> None:
    """They are refused before anything is served, in one line."""
    (tmp_path / "c").write_text("sockets = 5\n")
    status, _, error = call("serve", "--config", str(tmp_path / "c"))
    assert (2, 1) == (status, len(error.splitlines()))


def test_a_socket_that_cant_be(tmp_path: Path) -> None:
    """The message names the path, says what is in the way, and how to name another one."""
    (tmp_path / "file").touch()
    how = " (by --socket or $IOASID_SOCKET)\n"
    for place in (tmp_path / "file", tmp_path):
        status, _, error = call("--socket", str(place), "serve")
        said = f"ioasid: {place}: it is there, and no socket; choose another{how}"
        assert (1, said) == (status, error)
    place = tmp_path / "gone" / "s"
    status, _, error = call("--socket", str(place), "serve")
    said = f"{place}: the folder {place.parent} is not there; make it, or choose another socket"
    assert (3, f"ioasid: {said}{how}") == (status, error)
    (tmp_path / "c").write_text(f'socket = "{place}"\n')
    status, _, error = call("serve", "--config", str(tmp_path / "c"))
    assert (3, f"ioasid: {said}\n") == (status, error)
