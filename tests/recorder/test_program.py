"""The program: what it writes, says, and exits with."""

from pathlib import Path

import pytest

from ioasid.recorder._program import main
from tests.recorder.recordings import of_a_hang


def test_draw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It draws a page and says nothing; a torn recording is drawn, and that it is torn is said."""
    path, page = of_a_hang(tmp_path / "hang.jsonl"), tmp_path / "page.html"
    assert 0 == main(["draw", str(path), "-o", str(page)])
    assert ("", "") == capsys.readouterr()
    whole = page.stat().st_size
    path.write_bytes(path.read_bytes()[:-30])
    assert 0 == main(["draw", str(path), "-o", str(page)])
    assert "is torn" in capsys.readouterr().err
    assert 0 < page.stat().st_size < whole


def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file, a bad one, an unknown ending, nowhere to write: one line, and a status."""
    path, bad = of_a_hang(tmp_path / "hang.jsonl"), tmp_path / "bad"
    bad.write_text("bad\n", encoding="utf-8")
    for file, output, status, says in (
        (tmp_path / "missing", "page.html", 3, "No such file"),
        (bad, "page.html", 1, "EBADMSG"),
        (path, "page.txt", 2, "EINVAL"),
        (path, "no/where/page.html", 3, "No such file"),
        (path, "no/where/page.html", 3, str(tmp_path / "no" / "where" / "page.html")),
    ):
        assert status == main(["draw", str(file), "-o", str(tmp_path / output)])
        out, err = capsys.readouterr()
        assert "" == out
        assert 1 == err.count("\n")
        assert says in err
    with pytest.raises(SystemExit):
        main(["draw", str(path)])
