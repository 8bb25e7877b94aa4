"""Work on the workers of an executor: in order, not too far ahead, and called off."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count, islice
from typing import Any

import pytest

from ioasid.core import InvalidArgument
from ioasid.testing._spread import AHEAD, parts_of, spread


class Backwards(Executor):
    """An executor that does what it was given last first, when somebody asks for any of it."""

    def __init__(self) -> None:
        self.todo: list[tuple[Future[Any], Any]] = []

    def submit(self, call: Any, /, *given: Any, **_: Any) -> Future[Any]:
        """Note what is to be done."""
        executor = self

        class Asked(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                for each, part in reversed(executor.todo):
                    if not each.done():
                        each.set_result(call(part))
                return super().result(timeout)

        made = Asked()
        self.todo.append((made, given[0]))
        return made


def test_parts_are_of_one_size_but_the_last() -> None:
    """Nothing is left out, and nothing is asked for before it is needed."""
    assert [(0, 1, 2), (3, 4, 5), (6,)] == list(parts_of(range(7), 3))
    assert [(0, 1), (2, 3)] == list(islice(parts_of(count(), 2), 2))
    assert [] == list(parts_of((), 2))


def test_what_comes_of_it_is_in_the_order_of_the_parts() -> None:
    """Whichever is done first."""
    assert [0, 1, 4, 9] == list(spread(Backwards(), lambda each: each * each, range(4)))


def test_only_so_much_is_with_the_executor_at_a_time() -> None:
    """A row without an end can be worked at, too."""
    executor = Backwards()
    assert [0, 1] == list(islice(spread(executor, lambda each: each, count()), 2))
    assert AHEAD + 1 == len(executor.todo)


def test_what_has_not_begun_is_called_off() -> None:
    """Closed early, it leaves the executor nothing to do."""
    going_on: Future[None] = Future()
    begun: list[int] = []

    def wait(number: int) -> int:
        begun.append(number)
        if number:
            going_on.result()
        return number

    with ThreadPoolExecutor(1) as threads:
        with closing(spread(threads, wait, range(9))) as found:
            assert 0 == next(found)
        going_on.set_result(None)
    assert len(begun) <= 2


def test_what_cannot_be_sent_is_an_argument_error() -> None:
    """It says what the workers need."""
    failed: Future[Any] = Future()
    failed.set_exception(AttributeError("Can't pickle local object"))

    class Refusing(Executor):
        def submit(self, call: Any, /, *given: Any, **_: Any) -> Future[Any]:
            return failed

    with pytest.raises(InvalidArgument, match="top level"):
        list(spread(Refusing(), abs, [1]))
