"""The messages: frozen, complete, and the same whoever made them."""

from typing import Any, get_args

import pytest

import ioasid.core
from ioasid.core import (
    INVALID_IOASID,
    MAX_UNDER_WAY,
    Alloc,
    AllocSet,
    Answer,
    Event,
    EventKind,
    Free,
    FreeSet,
    IoasidRange,
    IoasidState,
    LiveIoasid,
    Message,
    Priority,
    Reply,
    Request,
    SetState,
    Statistics,
    Subscribe,
    TokenType,
)
from tests.core.examples import ANSWERS, REQUESTS

EVERY = (*REQUESTS, *ANSWERS)
FIGURES = next(each for each in ANSWERS if isinstance(each, Statistics))
PARTS = (
    IoasidRange(1, 2),
    LiveIoasid(1, 0, None, IoasidState.ACTIVE, None, None),
    FIGURES.lagging[0],
)


def test_constants() -> None:
    """The kernel's invalid ID, and the events of one ID that may be under way."""
    assert 2**32 - 1 == INVALID_IOASID
    assert 16 == MAX_UNDER_WAY


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (EventKind, "ALLOC BIND UNBIND FREE RECLAIM"),
        (Priority, "CPU DEVICE IOMMU LAST"),
        (TokenType, "MM NULL"),
        (SetState, "ACTIVE FREE_PENDING"),
        (IoasidState, "ACTIVE FREE_PENDING"),
    ],
)
def test_names(names: Any, expected: str) -> None:
    """Kinds, priorities and states are called what the field calls them, in order."""
    assert expected.split() == [each.value for each in names]
    assert expected.split() == [each.name for each in names]


def test_every_message_is_in_one_union() -> None:
    """Each message is a request or an answer, and the examples leave none out."""
    requests = set(get_args(Request))
    answers = set(get_args(Answer))
    assert set() == requests & answers
    assert set(get_args(Reply)) < answers
    assert requests == {type(example) for example in REQUESTS}
    assert answers == {type(example) for example in ANSWERS}
    exported = {
        value
        for value in vars(ioasid.core).values()
        if isinstance(value, type) and issubclass(value, Message)
    }
    assert exported - {Message, ioasid.core.Snapshot} == requests | answers


@pytest.mark.parametrize("message", [*EVERY, *PARTS], ids=lambda each: type(each).__name__)
def test_messages_are_frozen(message: Any) -> None:
    """Nobody changes a message, or a part of one, that others have."""
    assert message.__struct_config__.frozen
    for name in message.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(message, name, getattr(message, name))
    assert message == type(message)(*(getattr(message, each) for each in message.__struct_fields__))


@pytest.mark.parametrize("kind", get_args(Request) + get_args(Answer))
def test_messages_are_tagged_by_their_name(kind: Any) -> None:
    """A message is known on a wire by the name of its type, and says what answers it."""
    assert kind.__name__ == kind.__struct_config__.tag
    assert kind.__doc__
    assert kind not in get_args(Request) or "Answer: `" in " ".join(kind.__doc__.split())


def test_defaults() -> None:
    """What is left out is what is most often meant."""
    assert Alloc(0, 1, None, None) == Alloc(0)
    assert Free(1, None, False) == Free(1)
    assert FreeSet(0, True, False) == FreeSet(0)
    assert AllocSet("vm-1", None, TokenType.MM) == AllocSet("vm-1")
    expected = Subscribe(None, None, frozenset(EventKind), Priority.LAST, False, False, 1024, 10.0)
    assert expected == Subscribe()
    assert Event(1, EventKind.ALLOC, 5, 0, None, None, None, None) == Event(
        1, EventKind.ALLOC, 5, 0
    )
