"""What is raised when an invariant does not hold, and how a check says which one it is."""

import linecache
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

__all__ = ["INVARIANTS", "InvariantViolated"]

P = ParamSpec("P")
R = TypeVar("R")

if not __debug__:  # pragma: no cover
    raise RuntimeError("ioasid.testing checks with assertions: run Python without -O")

INVARIANTS: Final[dict[int, str]] = {
    0: "the books are in order",
    1: "every quota holds, and capacity is spent once",
    2: "an ID is in exactly one set or in the pool",
    3: "nothing that is in use is handed out again",
    4: "spids are unique within a set and lead back to their IDs",
    5: "the events of a life come in order, none twice",
    6: "no lower tier knows before every higher one acknowledged",
    7: "a refused request changes nothing",
    8: "every request gets exactly one reply",
    9: "what a suspended holder has is kept until it is back or evicted",
    10: "no set number or generation is given out twice",
    11: "no hardware has an ID that is in the pool or in another life",
    12: "what was answered or told is kept",
    13: "nothing of a set that is frozen runs",
}
"""The invariants by number; 0 stands for what the allocator keeps for itself."""


class InvariantViolated(AssertionError):
    """An invariant does not hold: a defect of the allocator, whose state is of no more use."""

    def __init__(self, number: int, check: str, detail: str) -> None:
        super().__init__(number, check, detail)
        self.number = number
        """The invariant, a key of `INVARIANTS`."""
        self.check = check
        """The function that found it."""
        self.detail = detail
        """What it found."""

    def __str__(self) -> str:
        """The invariant in words, and what was found."""
        return f"invariant {self.number}, {INVARIANTS[self.number]} ({self.check}): {self.detail}"


def invariant(number: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function that asserts something a check of one invariant, by its number."""

    def decorate(check: Callable[P, R]) -> Callable[P, R]:
        @wraps(check)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return check(*args, **kwargs)
            except InvariantViolated:
                raise
            except AssertionError as error:
                raise InvariantViolated(number, check.__name__, _detail(error)) from error

        return checked

    return decorate


def _detail(error: AssertionError) -> str:
    # An assertion without a message is shown by its line.
    traceback = error.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    if str(error):
        return str(error)
    code = traceback.tb_frame.f_code
    return linecache.getline(code.co_filename, traceback.tb_lineno).strip() or "it does not"
