"""The lines of a recording: JSON, one a line, in the order in which things happened.

The first line but for notes is an `Opened`, and so is every line where another allocator begins.
`Decision` and `Step` in a file have the fields of those that a tap is given, and where they belong.
"""

from typing import Any, Final, TypeAlias

from ioasid.core import Answer, Changes, Effect, Message, Refused, Request, Snapshot

__all__ = ["Decided", "Noted", "Opened", "RecordedLine", "Stepped"]

FORMAT: Final = 1
"""What is written; what has a higher number was written by a later version."""


class Opened(Message, frozen=True, gc=True):
    """An allocator began, with this state; `allocator` numbers them from 0."""

    format: int
    allocator: int
    snapshot: Snapshot


class Decided(Message, frozen=True, gc=True, tag="Decision"):
    """A request that an allocator decided, as `ioasid.actors.Decision` has it.

    The answer to a `TakeSnapshot` is left out: it is `Done` here.
    """

    index: int
    time: float
    session: int
    holder: str
    request: Request
    answer: Answer | Refused
    effects: tuple[Effect, ...]
    changes: Changes
    allocator: int = 0


class Stepped(Message, frozen=True, gc=True, tag="Step"):
    """Something an actor took up or did; its `message` may be of a type that only it knows.

    `time` is by the same clock as that of decisions.
    """

    time: float
    actor: str
    message: dict[str, Any]


class Noted(Message, frozen=True):
    """Something that whoever records has to say: a heading from here on."""

    time: float
    text: str


RecordedLine: TypeAlias = Opened | Decided | Stepped | Noted
"""One line of a recording."""
