"""What the allocator wants done: its outbox, drained by whoever drives it.

The core decides and never acts. After every batch of requests its driver drains the effects and
carries them out in order; none of them can fail or has to wait. They are messages like the rest,
so they can be carried out at the far end of a socket.
"""

from typing import TypeAlias

from ioasid.core._answers import Answer, Refused
from ioasid.core._events import Event, Resync
from ioasid.core._terms import Message

__all__ = [
    "AskAgain",
    "Begin",
    "Complete",
    "Deliver",
    "Effect",
    "End",
    "Expel",
    "Output",
    "Withdraw",
]


class Begin(Message, frozen=True):
    """The subscription gets messages from here on, in the queue that came with its `Subscribe`."""

    subscription: int


class Deliver(Message, frozen=True):
    """Append `message` to the queue of each of these subscriptions: a tier, or a part of one."""

    subscriptions: tuple[int, ...]
    message: Event | Resync


class Withdraw(Message, frozen=True):
    """Drop all that a subscription's queue holds, except the message whose seq is `keep`.

    The subscriber lags: what is dropped will be part of its next `Resync`. `keep` is the message
    that the subscriber may be about to take, and is perhaps no longer in the queue; `None` keeps
    nothing.
    """

    subscription: int
    keep: int | None


class End(Message, frozen=True):
    """The subscription gets no more messages; `drained` says that what is queued still counts.

    It counts when the set of the subscription went, and not when the subscription was ended by a
    request or its holder is gone or suspended.
    """

    subscription: int
    drained: bool


class Expel(Message, frozen=True):
    """The session is over, for its holder was evicted: it is told at once, whatever it does.

    Its subscriptions end before. A holder that comes back has another session.
    """

    session: int


class Complete(Message, frozen=True):
    """Answer the request that waits with this `ticket`: what it waited for has happened."""

    ticket: int
    answer: Answer


class AskAgain(Message, frozen=True):
    """Ask the request that waits with this `ticket` once more: it changed nothing so far.

    What it had to look through first is done, or something else came between.
    """

    ticket: int


Effect: TypeAlias = Begin | Deliver | Withdraw | End | Expel | Complete | AskAgain
"""Everything the outbox may hold."""

Output: TypeAlias = Answer | Refused | Event | Resync | Effect
"""Every message from the allocator."""
