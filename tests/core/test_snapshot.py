"""The form of a snapshot: frozen, and without room for what is not in it."""

from collections.abc import Callable, Iterator

import pytest
from msgspec import Struct
from msgspec.msgpack import decode as unpack
from msgspec.msgpack import encode as pack
from msgspec.structs import replace

from ioasid.core import (
    Allocator,
    MalformedMessage,
    Tick,
    decode_snapshot,
)
from tests.core.allocators import ALLOCATORS, full_allocator


def parts(value: object) -> Iterator[Struct]:
    """A snapshot and everything that it consists of."""
    if isinstance(value, Struct):
        yield value
        value = tuple(getattr(value, name) for name in value.__struct_fields__)
    if isinstance(value, tuple):
        for each in value:
            yield from parts(each)


@pytest.mark.parametrize("made", ALLOCATORS)
def test_snapshots_are_frozen(made: Callable[[], Allocator]) -> None:
    """Nobody changes a snapshot, or a part of one, that others have."""
    for part in parts(made().snapshot()):
        for name in part.__struct_fields__:
            with pytest.raises(AttributeError):
                setattr(part, name, getattr(part, name))


def test_an_unknown_field_is_refused() -> None:
    """What a part of a snapshot does not have may be meant, and is not passed over."""
    tree = unpack(pack(full_allocator().snapshot()))
    owner, subscription = tree["sets"][1], tree["subscriptions"][0]
    lists = (tree["stages"], tree["holders"], subscription["outstanding"])
    for part in (tree, owner, subscription, *(each[0] for each in lists)):
        part["color"] = None
        with pytest.raises(MalformedMessage, match="color"):
            decode_snapshot(pack(tree))
        del part["color"]


def test_snapshots_are_equal_whatever_the_time_is() -> None:
    """Equal states have equal snapshots; everything but the time is compared."""
    core = Allocator(8)
    before = core.snapshot()
    core.handle(0, Tick(5.0))
    assert (0.0, 5.0) == (before.now, core.snapshot().now)
    assert before == core.snapshot()
    assert before != replace(before, next_session=7)
    assert before != "a snapshot"
