"""The subscriptions of a client, by their number here and for the server."""

from typing import Any

from ioasid.core import (
    Acknowledge,
    AllocatorClosed,
    Defer,
    Detach,
    Event,
    EventKind,
    Resync,
    Subscribe,
    Unsubscribe,
)
from ioasid.service._asking import Unnamed
from ioasid.service._audience import Audience, Told


class Noting:
    """An outlet that notes everything."""

    def __init__(self) -> None:
        self.messages: list[Event | Resync] = []
        self.kept: list[int | None] = []
        self.ended = False

    def deliver(self, message: Event | Resync) -> None:
        """Note a message."""
        self.messages.append(message)

    def withdraw(self, keep: int | None) -> None:
        """Note what is kept."""
        self.kept.append(keep)

    def end(self, *, drained: bool) -> None:
        """Note the end."""
        self.ended = drained

    def close(self, error: AllocatorClosed | None) -> None:
        """Nothing to note."""


def told(number: int) -> tuple[Told, Noting]:
    """A subscription, and where its messages go."""
    queue = Noting()
    return Told(Unnamed(1), Subscribe(), queue, number, number), queue


def event(seq: int) -> Event:
    """An event."""
    return Event(seq, EventKind.ALLOC, 1, 0)


def test_messages_go_where_they_belong() -> None:
    """To each that is named and known; an unknown one is nobody's."""
    audience = Audience()
    (one, first), (two, second) = told(1), told(2)
    audience.add(one)
    audience.add(two)
    audience.deliver((1, 2, 9), event(1))
    audience.deliver((2,), event(2))
    assert [1] == [each.seq for each in first.messages]
    assert [1, 2] == [each.seq for each in second.messages]
    audience.withdraw(2, 2)
    audience.withdraw(9, None)
    assert ([], [2]) == (first.kept, second.kept)
    audience.end(1, drained=True)
    audience.end(9, drained=True)
    assert (True, False) == (first.ended, second.ended)
    assert [two] == list(audience)
    assert one not in audience


def test_numbers_after_a_broken_connection() -> None:
    """Here each keeps its own; what leaves has the server's, and what comes is understood."""
    audience = Audience()
    (one, first), (two, second) = told(1), told(2)
    audience.add(one)
    audience.add(two)
    requests: list[Any] = [Unsubscribe(1), Detach(2), Defer(2, 6), Acknowledge(())]
    assert requests == [audience.outgoing(each) for each in requests]
    audience.deliver((1,), event(1))
    audience.disconnect()
    assert [None] == first.kept == second.kept
    audience.deliver((1, 2), event(2))
    # The new number of one is the old one of the other.
    assert audience.come_back(one, 2)
    audience.deliver((2,), event(3))
    audience.drop(2)
    audience.deliver((2,), event(4))
    assert [1, 3, 4] == [each.seq for each in first.messages]
    assert not audience.come_back(two, 7)
    assert [Unsubscribe(2), Detach(7), Defer(7, 6), Acknowledge(())] == [
        audience.outgoing(each) for each in requests
    ]
    assert ((2, 5), (7, 6), (3, 7)) == audience.acknowledged([(1, 5), (2, 6), (3, 7)])
    audience.clear()
    assert ([], []) == (list(audience), second.messages)
