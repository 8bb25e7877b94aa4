"""The errors of recordings, part of the one tree under `ioasid.core.IoasidError`."""

import errno as _errno

from attrs import define

from ioasid.core import IoasidError

__all__ = ["BadRecording", "TornRecording", "UnknownDrawing"]


@define
class BadRecording(IoasidError):
    """EBADMSG: a file is no recording, or one that contradicts itself; nothing is drawn of it.

    `line` is where, 1 or more; 0 is the file as a whole.
    """

    errno = _errno.EBADMSG
    template = "{path}, line {line}: {problem}; record it again, with this version"
    path: str
    line: int
    problem: str


@define
class UnknownDrawing(IoasidError):
    """EINVAL: nothing can be drawn into a file of this name; the caller's mistake."""

    errno = _errno.EINVAL
    template = "{output!r} names no kind of drawing; end it in .html for a page, .json for a trace"
    output: str


class TornRecording(UserWarning):
    """The last line of a recording is not whole: whoever wrote it was killed. It is left out."""
