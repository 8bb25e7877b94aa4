"""The terms: frozen messages, tagged by their names, complete, and the field's words."""

from typing import Any, get_args

import pytest

import ioasid.core
from ioasid.core import (
    INVALID_IOASID,
    MAX_IN_FLIGHT,
    Applied,
    Changes,
    EventKind,
    IoasidRange,
    IoasidState,
    LiveIoasid,
    Message,
    Output,
    Priority,
    Request,
    SetState,
    Statistics,
    TokenType,
)
from tests.core.examples import OUTPUTS, REQUESTS

EVERY = (*REQUESTS, *OUTPUTS, Changes())
FIGURES = next(each for each in OUTPUTS if isinstance(each, Statistics))
PARTS = (
    IoasidRange(1, 2),
    LiveIoasid(1, 0, None, IoasidState.ACTIVE, None, None),
    FIGURES.lagging[0],
)


def test_constants() -> None:
    """The kernel's invalid ID, and the events of one ID that may be in flight."""
    assert 2**32 - 1 == INVALID_IOASID
    assert 16 == MAX_IN_FLIGHT


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (EventKind, "ALLOC BIND UNBIND FREE RECLAIM"),
        (Priority, "CPU DEVICE IOMMU LAST"),
        (TokenType, "MM NULL"),
        (SetState, "ACTIVE FREE_PENDING FROZEN INCOMING"),
        (IoasidState, "ACTIVE FREE_PENDING"),
    ],
)
def test_names(names: Any, expected: str) -> None:
    """Kinds, priorities and states are called what the field calls them, in order."""
    assert expected.split() == [each.value for each in names]
    assert expected.split() == [each.name for each in names]


def test_every_message_is_in_one_union() -> None:
    """Each message goes to the allocator or comes from it; the rest is for its driver."""
    requests = set(get_args(Request))
    outputs = set(get_args(Output))
    assert set() == requests & outputs
    exported = {
        value
        for value in vars(ioasid.core).values()
        if isinstance(value, type) and issubclass(value, Message)
    }
    assert exported - {Message, Changes, Applied} == requests | outputs


@pytest.mark.parametrize("message", [*EVERY, *PARTS], ids=lambda each: type(each).__name__)
def test_messages_are_frozen(message: Any) -> None:
    """Nobody changes a message, or a part of one, that others have."""
    assert message.__struct_config__.frozen
    for name in message.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(message, name, getattr(message, name))
    assert message == type(message)(*(getattr(message, each) for each in message.__struct_fields__))


@pytest.mark.parametrize("kind", [*get_args(Request), *get_args(Output), Changes])
def test_messages_are_tagged_by_their_name(kind: Any) -> None:
    """A message is known on a wire by the name of its type, and says what it is."""
    assert kind.__name__ == kind.__struct_config__.tag
    assert kind.__doc__
