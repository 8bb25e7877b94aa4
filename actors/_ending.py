"""The end of an allocator, as whoever lives by it learns of it."""

from collections.abc import Callable

from ioasid.core import AllocatorClosed

__all__ = ["Ending"]


class Ending:
    """Whether there is an allocator yet, and who wants to know when there is none any more."""

    __slots__ = ("_calls", "reason")

    def __init__(self) -> None:
        self.reason: str | None = None
        """Why there is none any more, as `AllocatorClosed` has it; `None` as long as there is."""
        self._calls: dict[object, Callable[[], None]] = {}

    def check(self) -> None:
        """Raise `AllocatorClosed` if there is no allocator any more."""
        if self.reason is not None:
            raise AllocatorClosed(self.reason)

    def watch(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call when it ends, in order or not, or now if it has; returns what takes that back.

        `call` must not wait or raise.
        """
        if self.reason is not None:
            call()
            return _nothing
        key = object()
        self._calls[key] = call
        return lambda: self._forget(key)

    def _forget(self, key: object) -> None:
        self._calls.pop(key, None)

    def begin(self, reason: str) -> None:
        """End it; a second time does nothing."""
        if self.reason is None:
            self.reason = reason
            calls, self._calls = self._calls, {}
            for call in calls.values():
                call()


def _nothing() -> None:
    pass
