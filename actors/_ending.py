"""The end of an allocator, or of one session, as whoever lives by it learns of it."""

from collections.abc import Callable

from attrs import evolve

from ioasid.core import AllocatorClosed, SessionEnded

__all__ = ["Ending"]


class Ending:
    """Whether something is there yet, and who wants to know when it is not any more.

    What is `within` another, a session in its allocator, ends with that at the latest.
    """

    __slots__ = ("_calls", "_error", "_within")

    def __init__(self, within: "Ending | None" = None) -> None:
        self._within = within
        self._error: AllocatorClosed | SessionEnded | None = None
        self._calls: dict[object, Callable[[], None]] = {}

    @property
    def error(self) -> AllocatorClosed | SessionEnded | None:
        """What whoever lives by it is told; `None` as long as it is there."""
        if self._error is None and self._within is not None:
            return self._within.error
        return self._error

    def check(self) -> None:
        """Raise how it ended, if it did."""
        error = self.error
        if error is not None:
            raise evolve(error)

    def watch(self, call: Callable[[], None]) -> Callable[[], None]:
        """Call when it ends, in order or not, or now if it has; returns what takes that back.

        `call` must not wait or raise.
        """
        if self.error is not None:
            call()
            return _nothing
        key = object()
        self._calls[key] = call
        outer = _nothing if self._within is None else self._within.watch(lambda: self._tell(key))

        def forget() -> None:
            self._calls.pop(key, None)
            outer()

        return forget

    def _tell(self, key: object) -> None:
        call = self._calls.pop(key, None)
        if call is not None:
            call()

    def begin(self, error: AllocatorClosed | SessionEnded) -> None:
        """End it; a second time does nothing."""
        if self.error is None:
            self._error = error
            for key in tuple(self._calls):
                self._tell(key)


def _nothing() -> None:
    pass
