"""The frames: each is one struct, the same in both forms."""

from typing import Any, get_args

import msgspec
import pytest

from ioasid.core import Message
from ioasid.service import MAX_FRAME, VERSION, ClientFrame, Frame, ServerFrame


@pytest.mark.parametrize("union", [ClientFrame, ServerFrame])
def test_frames_are_told_apart_by_their_type(union: Any) -> None:
    """No two have the same, and all are frames, or messages of the allocator's."""
    kinds = get_args(union)
    tags = [each.__struct_config__.tag for each in kinds]
    assert [each.__name__ for each in kinds] == tags
    assert len(set(tags)) == len(tags)
    assert all(issubclass(each, Frame | Message) for each in kinds)
    msgspec.msgpack.Decoder(union)


def test_the_bound_leaves_the_first_byte_zero() -> None:
    """So that the first byte tells a frame from a line."""
    assert 0 == MAX_FRAME.to_bytes(4, "big")[0]
    assert 1 == VERSION
