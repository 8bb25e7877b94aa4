"""`draw`: a page or a trace of a recording."""

import os
from pathlib import Path

from ioasid.recorder._errors import UnknownDrawing
from ioasid.recorder._page import page_of
from ioasid.recorder._reader import read
from ioasid.recorder._timeline import timeline_of
from ioasid.recorder._trace import trace_of

__all__ = ["draw"]


def draw(file: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Draw a recording: as a page if `output` ends in .html, as a trace if in .json.

    The page is for a browser and needs no network. The trace is for Perfetto and chrome://tracing.
    `output` is written anew, when all of it is made. Raises `UnknownDrawing` for another ending,
    `BadRecording` for a file that is none, and `OSError`.
    """
    made = {".html": page_of, ".json": trace_of}.get(Path(output).suffix.lower())
    if made is None:
        raise UnknownDrawing(os.fspath(output))
    text = made(timeline_of(read(file)))
    Path(output).write_text(text, encoding="utf-8")
