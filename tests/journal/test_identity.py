"""Which file a path names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ioasid.journal._identity import STATX, Identity, asked_by_stat, asked_for

Asked = Callable[[Path], Callable[[], Identity]]


@pytest.mark.parametrize("asked", [asked_for, asked_by_stat])
def test_another_file_shows(tmp_path: Path, asked: Asked) -> None:
    """A file is the same under any name and whatever is in it, and no other is."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    now = asked(path)
    before = now()
    path.write_bytes(b"two, and more")
    assert before == now()
    path.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="No such file"):
        now()
    path.write_bytes(b"one")
    assert before != now()
    (tmp_path / "link").symlink_to("away")
    assert before == asked(tmp_path / "link")()


def test_the_system_is_asked_in_the_quick_way() -> None:
    """Where the system has a call for it, that is taken."""
    if STATX is None:
        pytest.skip("this system has no statx")
    assert asked_for(Path("/"))() == asked_for(Path("/.."))()
