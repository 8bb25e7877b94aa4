"""Answers that an actor owes: replies that it took, to be answered later."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from ioasid.actors._reply import Reply
from ioasid.core import Message

__all__: list[str] = []

Item: TypeAlias = tuple[Message, Reply[Any] | None]
"""A message as it stands in a mailbox, with the reply that its asker waits for."""


class Owed:
    """The replies that are owed, each with the message that it answers."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: dict[Reply[Any], Message] = {}

    def take(self, message: Message, reply: Reply[Any]) -> Reply[Any]:
        """Owe a reply, and return it."""
        self._messages[reply] = message
        return reply

    def answer(self, reply: Reply[Any], answer: Any) -> Message | None:
        """Answer a reply; returns the message if it was owed and nobody waits for it any more."""
        message = self._messages.pop(reply, None)
        if reply.done():
            return message
        reply.set_result(answer)
        return None

    def fail(
        self,
        items: Iterable[Item],
        new_error: Callable[[], Exception],
        *,
        cause: Exception | None = None,
    ) -> None:
        """Answer all that is owed, and some items that were not taken up, with errors."""
        for reply in (*self._messages, *(reply for _, reply in items)):
            if reply is not None and not reply.done():
                error = new_error()
                error.__cause__ = cause
                reply.set_result(error)
        self._messages.clear()
