"""In place of a reply: what is answered is dealt with at once, before what comes after it."""

from collections.abc import Callable, Generator
from typing import Any, Final

__all__: list[str] = []


class Then:
    """A `Reply` that calls something with the answer, and is never given up."""

    __slots__ = ("_done", "_then")

    def __init__(self, then: Callable[[Any], object]) -> None:
        self._then: Final = then
        self._done = False

    def set_result(self, value: Any) -> None:
        """Deal with it."""
        self._done = True
        self._then(value)

    def result(self) -> Any:
        """Nobody asks for it here."""
        raise NotImplementedError

    def done(self) -> bool:
        """Tell whether it was answered."""
        return self._done

    def cancelled(self) -> bool:
        """Tell that it wants an answer."""
        return False

    def cancel(self) -> bool:
        """Tell that it can't be given up."""
        return False

    def __await__(self) -> Generator[Any, None, Any]:
        """Nobody waits for it here."""
        raise NotImplementedError
