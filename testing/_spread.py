"""Work in parts, on the workers of an executor, with what comes of it in the order of the parts."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import islice
from pickle import PicklingError
from typing import Final, TypeVar

from ioasid.core import InvalidArgument

__all__: list[str] = []

T = TypeVar("T")
R = TypeVar("R")

AHEAD: Final = 256
"""How many parts are with the executor at a time: enough for many workers, and few to call off."""


def parts_of(items: Iterable[T], size: int) -> Iterator[tuple[T, ...]]:
    """Cut items into parts of a size; the last one may be smaller."""
    left = iter(items)
    while part := tuple(islice(left, size)):
        yield part


def spread(
    executor: Executor, call: Callable[[T], R], parts: Iterable[T]
) -> Generator[R, None, None]:
    """Call something with each part on an executor; gives what it returned, in order.

    Closed early, it calls off what has not begun. Raises `InvalidArgument` if what is called, or a
    part, can't be sent to the workers.
    """
    left = iter(parts)
    under_way: deque[Future[R]] = deque()
    try:
        while True:
            for part in islice(left, AHEAD - len(under_way)):
                under_way.append(executor.submit(call, part))
            if not under_way:
                return
            done = under_way.popleft()
            try:
                found = done.result()
            except (PicklingError, AttributeError, TypeError) as error:
                # What a part raises is told in what it returns: this is how it is sent.
                expected = "one that the executor can send to its workers, of a module's top level"
                raise InvalidArgument("scenario", str(error), expected) from error
            yield found
    finally:
        for each in under_way:
            each.cancel()
