"""How a session reaches an allocator, and how an allocator reaches a subscriber.

Neither knows the other: a session has a `Port`, and the allocator an `Outlet` for each
subscription. In process the port puts envelopes into a mailbox; over a socket it writes frames.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ioasid.actors._ending import Ending
from ioasid.actors._reply import Reply
from ioasid.core import (
    AllocatorClosed,
    CloseSession,
    Event,
    Request,
    Resync,
    SessionOpened,
    Subscribe,
    SuspendSession,
)

__all__ = ["Outlet", "Port"]

R = TypeVar("R")


class Outlet(Protocol):
    """Where the messages of one subscription go. Nothing here waits or raises."""

    def deliver(self, message: Event | Resync, /) -> None:
        """Take one message, behind those before it."""

    def withdraw(self, keep: int | None, /) -> None:
        """Drop all that the consumer has not taken, except the message whose seq is `keep`."""

    def end(self, *, drained: bool) -> None:
        """Take no more; what is there still counts if it is `drained`."""

    def close(self, error: AllocatorClosed | None, /) -> None:
        """Take no more, for the allocator is gone: in order (`None`), or by this error."""


class Port(Protocol):
    """One session's way to an allocator: requests in order, and none of it waits.

    It belongs to the event loop it was made on: in another thread every method raises
    `WrongThread`, and nothing has happened.
    """

    new_reply: Callable[[], Reply[Any]]
    """Makes a reply for the running event loop; for whoever waits beside."""

    @property
    def ending(self) -> Ending:
        """The end of the session, if it is evicted, or of its allocator."""

    @property
    def keeps(self) -> bool:
        """Whether what is told waits while a journal can't be written, and is not lost then."""

    def check(self) -> None:
        """Do nothing else, for what is about to change something without the port."""

    def send(self, request: Request, /) -> Reply[Any]:
        """Send a request; the reply brings the answer, or the error as a value.

        A `Subscribe` needs somebody to deliver to: it is refused with `InvalidArgument` here, and
        `attach` takes it. Raises `AllocatorClosed` if there is no allocator any more.
        """

    def attach(self, request: Subscribe, outlet: Outlet, /) -> Reply[Any]:
        """Send a `Subscribe` with the outlet for its messages. Raises `AllocatorClosed`."""

    def tell(self, request: Request, /) -> None:
        """Send what nobody waits for; a `Subscribe` goes nowhere, nor does what comes too late."""

    def acknowledge(self, subscription: int, message: Event | Resync, *, behind: bool) -> None:
        """Say that a subscriber dealt with a message, and whether it is `behind`.

        It is if it has not dealt with others, or is to be given a Resync. It may be decided before
        what was sent earlier, together with what others say.
        """

    def leave(self, request: CloseSession | SuspendSession, /) -> None:
        """Send the last request; it is decided before what anybody sends later."""

    def give_up(self, request: Request, reply: Reply[Any], /) -> None:
        """Say that the asker of a request takes no answer any more, whether or not it is there.

        What only that answer would have named is undone.
        """

    def join(self, opened: SessionOpened, /) -> "Port":
        """Return the port of a session that was opened through this one."""


def answered(answer: Any, expected: type[R]) -> R:
    """Return what a reply brought, the answer to a request; raise the error that refused it."""
    if isinstance(answer, expected):
        return answer
    raise answer.with_traceback(None)
