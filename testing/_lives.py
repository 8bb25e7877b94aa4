"""Lives of IDs as requests, answers and messages tell of them, and nothing that only tables say."""

from collections.abc import Iterable

from attrs import define, field

from ioasid.core import (
    Allocated,
    AllocatedMany,
    Answer,
    Event,
    EventKind,
    Imported,
    IoasidError,
    IoasidRecord,
    Listing,
    Refused,
    Resync,
)
from ioasid.testing._states import PENDING, state_of

__all__: list[str] = []


@define(eq=False)
class Life:
    """One life of an ID."""

    sid: int
    generation: int
    freed: bool = False
    to_acknowledge: set[int] = field(factory=set)
    """The subscriptions that its FREE was for and that have not acknowledged it."""

    def free(self, to_acknowledge: set[int]) -> None:
        """Note a free; only the first one tells anybody."""
        if not self.freed:
            self.freed = True
            self.to_acknowledge = to_acknowledge


def named_in(answer: Answer | Refused | IoasidError) -> list[int]:
    """Return the IDs that an answer names, one by one."""
    match answer:
        case Allocated(ioasid):
            return [ioasid]
        case AllocatedMany(ranges) | Imported(_, ranges):
            return [each for span in ranges for each in range(span.first, span.last + 1)]
        case _:
            return []


def ended_by(message: Event | Resync) -> set[int]:
    """Return the IDs whose end of life a message tells of."""
    if isinstance(message, Resync):
        return {each.ioasid for each in message if state_of(each) == PENDING}
    ends = message.kind is EventKind.FREE and message.publisher is None
    return {message.ioasid} if ends else set()


def ends_acknowledged(message: Event | Resync, deferred: Iterable[Event | Resync]) -> set[int]:
    """Return the IDs whose end a subscriber acknowledges with a message.

    A Resync does not stand for an event that the subscriber has set aside (`deferred`).
    """
    ended = ended_by(message)
    if isinstance(message, Resync):
        for each in deferred:
            ended -= ended_by(each) if isinstance(each, Event) else set()
    return ended


def generations_in(found: object) -> list[tuple[int, int]]:
    """Return the IDs of an answer or message that says which lives they are of, with those."""
    match found:
        case Allocated() | IoasidRecord() | Event():
            return [(found.ioasid, found.generation)]
        case AllocatedMany():
            return [(ioasid, found.generation) for ioasid in named_in(found)]
        case Listing() | Resync():
            return [(each.ioasid, each.generation) for each in found]
        case _:
            return []
