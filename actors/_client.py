"""One asker's way to an actor.

Every client has a lane of its own in the actor's mailbox, so that whoever asks ten thousand times
delays another's only request by a few.
"""

from collections.abc import Callable
from typing import Any, Protocol

from ioasid.actors._mailbox import Lane, MailboxClosed
from ioasid.actors._reply import Reply
from ioasid.core import Message

__all__ = ["Client"]


class Asked(Protocol):
    """The actor at the other end, as its clients see it."""

    new_reply: Callable[[], Reply[Any]]

    def check(self, message: Message, *, waits: bool) -> None:
        """Raise what a message, or whoever asks (and waits), is refused with at the door."""

    def closed(self) -> Exception:
        """Return the error of whoever asks an actor that is gone."""

    def forsaken(self, message: Message, answer: Any) -> Message:
        """Return what to tell the actor of an answer that nobody learned of."""


class Client:
    """A way to an actor, with its own place in line; made by `Actor.client`."""

    __slots__ = ("_actor", "_lane")

    def __init__(self, actor: Asked, lane: Lane[Any]) -> None:
        self._actor = actor
        self._lane = lane

    async def ask(self, message: Message) -> Any:
        """Send a message and wait for its answer.

        Raises the error the actor refuses it with; `RequestFailed` if handling it raised something
        else, `ActorCrashed` if the actor crashed meanwhile, both with what was raised as their
        `__cause__`; `ActorStopped` if the actor is gone or never ran, `AsksItself` from one of its
        own handlers; `MalformedMessage` for what is no message, `InvalidArgument` for a field of
        the wrong type, and `WrongThread` outside of the actor's thread. A caller that is cancelled
        leaves nothing behind that only the answer names.
        """
        actor = self._actor
        actor.check(message, waits=True)
        reply = actor.new_reply()
        try:
            self._lane.put((message, reply))
        except MailboxClosed:
            raise actor.closed() from None
        try:
            answer = await reply
        except BaseException:
            if reply.done() and not reply.cancelled():
                # In this lane: it is undone before who gave up asks again.
                self._tell(actor.forsaken(message, reply.result()))
            raise
        if isinstance(answer, Exception):
            raise answer.with_traceback(None)
        return answer

    def tell(self, message: Message) -> None:
        """Send a message and wait for nothing, neither an answer nor an error of the actor's.

        Raises as `ask` does what is refused at the door; an actor that is gone is none. For
        another thread there is `Actor.tell_from_thread`.
        """
        self._actor.check(message, waits=False)
        self._tell(message)

    def _tell(self, message: Message) -> None:
        try:
            self._lane.tell((message, None))
        except MailboxClosed:
            pass
