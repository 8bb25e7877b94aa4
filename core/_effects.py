"""What the allocator wants done: its outbox, drained by whoever drives it.

The core decides and never acts. After every batch of requests its driver drains the effects and
carries them out in order; none of them can fail or has to wait.
"""

from typing import TypeAlias

from msgspec import Struct

from ioasid.core._messages import Event, Reply, Resync

__all__ = ["Complete", "Deliver", "Effect", "End", "Withdraw"]


class Deliver(Struct, frozen=True, gc=False):
    """Append `message` to the queue of a subscription."""

    subscription: int
    message: Event | Resync


class Withdraw(Struct, frozen=True, gc=False):
    """Drop all that a subscription's queue holds, except the message whose seq is `keep`.

    The subscriber lags: what is dropped will be part of its next `Resync`. `keep` is the message
    that the subscriber may be about to take, and is perhaps no longer in the queue; `None` keeps
    nothing.
    """

    subscription: int
    keep: int | None


class End(Struct, frozen=True, gc=False):
    """The subscription gets no more messages; `drained` says that what is queued still counts.

    It counts when the set of the subscription went, and not when the subscription was ended by a
    request or its holder is gone or suspended.
    """

    subscription: int
    drained: bool


class Complete(Struct, frozen=True, gc=False):
    """Answer the request that was handled with this `ticket`: what it waited for has happened."""

    ticket: int
    reply: Reply


Effect: TypeAlias = Deliver | Withdraw | End | Complete
"""Everything the outbox may hold."""
