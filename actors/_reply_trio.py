"""The one-shot reply on trio. Imports trio, so it is itself imported only under trio."""

from asyncio import InvalidStateError
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, Final, Generic, Literal, NoReturn, TypeVar

from anyio import BusyResourceError
from outcome import Error, Value
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled

__all__ = ["TrioReply"]

T = TypeVar("T")


class _Mark(Enum):
    """What stands in the place of the value while there is none."""

    PENDING = 0
    CANCELLED = 1


# A look-up of an enum's member costs as much as the rest of a method here.
_PENDING: Final = _Mark.PENDING
_CANCELLED: Final = _Mark.CANCELLED


class TrioReply(Generic[T]):
    """A reply for one asker on trio; see `ioasid.actors._reply.Reply` for the contract.

    A second task that awaits it while the first one waits gets anyio.BusyResourceError; the
    first one is not disturbed.
    """

    __slots__ = ("_asker", "_value")

    def __init__(self) -> None:
        self._value: T | Literal[_Mark.PENDING, _Mark.CANCELLED] = _PENDING
        self._asker: Task | None = None

    def set_result(self, value: T, /) -> None:
        """Resolve the reply with `value` and wake its asker.

        Raises asyncio.InvalidStateError, and changes nothing, if the reply is done already.
        """
        if self._value is not _PENDING:
            raise InvalidStateError("the reply is resolved or cancelled already")
        self._value = value
        if self._asker is not None:
            reschedule(self._asker, Value(value))

    def result(self) -> T:
        """Return the value. Raises asyncio.InvalidStateError if the reply is not resolved."""
        if isinstance(self._value, _Mark):
            raise InvalidStateError("the reply is not resolved")
        return self._value

    def done(self) -> bool:
        """Tell whether the reply is resolved or cancelled."""
        return self._value is not _PENDING

    def cancelled(self) -> bool:
        """Tell whether the asker gave up before the reply was resolved."""
        return self._value is _CANCELLED

    def cancel(self) -> bool:
        """Give up a pending reply, and tell whether it was pending."""
        if self._value is not _PENDING:
            return False
        self._value = _CANCELLED
        if self._asker is not None:
            # It must not sleep for ever: it wakes and raises.
            reschedule(self._asker, Error(_given_up()))
        return True

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result."""
        if self._value is not _PENDING:
            return self._collect()
        if self._asker is not None:
            raise BusyResourceError("awaiting")
        self._asker = current_task()
        # What trio makes to wait with is handed on as it is: a frame around it would be paid by
        # every ask.
        return wait_task_rescheduled(self._abort).__await__()  # noqa: ASYNC105

    def _collect(self) -> Generator[Any, None, T]:
        yield from ()
        if isinstance(self._value, _Mark):
            raise _given_up()
        return self._value

    def _abort(self, _raise_cancel: Callable[[], NoReturn]) -> Abort:
        self._value = _CANCELLED
        return Abort.SUCCEEDED


def _given_up() -> InvalidStateError:
    return InvalidStateError("the reply was cancelled")
