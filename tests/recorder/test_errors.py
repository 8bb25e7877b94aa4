"""The errors of recordings are of the one tree."""

import pytest

from ioasid.core import IoasidError
from ioasid.recorder import BadRecording, TornRecording, UnknownDrawing


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BadRecording("a.jsonl", 3, "this is wrong"), "EBADMSG", "a.jsonl, line 3: this is wrong"),
        (UnknownDrawing("a.png"), "EINVAL", "'a.png' names no kind of drawing"),
    ],
)
def test_errors(error: IoasidError, code: str, says: str) -> None:
    """Each has its errno, its facts, and a message of them."""
    assert code == error.code
    assert says in str(error)


def test_a_torn_recording_is_a_warning() -> None:
    """It can be turned into an error, or ignored, by its category."""
    assert issubclass(TornRecording, UserWarning)
