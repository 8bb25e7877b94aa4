"""Drawing into a file."""

from pathlib import Path

import pytest

from ioasid.recorder import BadRecording, UnknownDrawing, draw
from tests.recorder.recordings import of_a_hang


def test_the_ending_says_what_is_drawn(tmp_path: Path) -> None:
    """A page for .html, a trace for .json, and nothing for anything else."""
    path = of_a_hang(tmp_path / "hang.jsonl")
    draw(path, tmp_path / "page.HTML")
    assert (tmp_path / "page.HTML").read_text(encoding="utf-8").startswith("<!doctype html>")
    draw(str(path), str(tmp_path / "trace.json"))
    assert (tmp_path / "trace.json").read_text(encoding="utf-8").startswith('{"traceEvents":[')
    for name in ("page.png", "page", ".html", ""):
        with pytest.raises(
            UnknownDrawing, match=r"\.html for a page, \.json for a trace"
        ) as caught:
            draw(path, tmp_path / "out" / name if name else "")
        assert "EINVAL" == caught.value.code


def test_what_cannot_be_drawn_leaves_the_output_alone(tmp_path: Path) -> None:
    """A page that is there stays as it is if the recording is none."""
    page, path = tmp_path / "page.html", tmp_path / "none.jsonl"
    page.write_text("before", encoding="utf-8")
    path.write_text("none\n", encoding="utf-8")
    with pytest.raises(BadRecording):
        draw(path, page)
    assert "before" == page.read_text(encoding="utf-8")
