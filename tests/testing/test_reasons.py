"""Why a schedule failed, in words."""

from typing import Never

import anyio
import pytest

from ioasid.actors import Actor, RequestFailed, open_allocator
from ioasid.core import Message
from ioasid.testing import ScheduleFailed, explore, replay
from ioasid.testing._reasons import kind_of, leaves_of, reason_of


class Work(Message, frozen=True):
    """Something to do."""


class Careless(Actor):
    """It fails on whatever it is asked."""

    async def on_request(self, message: Message) -> Never:
        """Find nothing to do it with."""
        raise KeyError("a name long enough that sixty characters are too few to show it whole")


async def two_that_fail() -> None:
    """Two tasks, each of which fails in its own way, one of them in a group of its own."""

    async def first() -> None:
        assert not "the first"

    async def second() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            raise OSError("the second")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        tasks.start_soon(second)


def test_everything_in_a_group_is_reported() -> None:
    """A report names every error of a task group, and where in the scenario it was raised."""
    with pytest.raises(ScheduleFailed) as caught:
        explore(two_that_fail, range(1))
    report = str(caught.value)
    assert "errors at once" in report
    assert "- AssertionError: " in report
    assert "- OSError: the second" in report
    assert "at testing/test_reasons.py:" in report
    assert ", second" in report
    assert "sub-exception" not in report


def test_what_an_error_came_of_is_reported() -> None:
    """A bug in a handler is shown whole, with its place, and not only what the asker is told."""

    async def asking() -> None:
        async with open_allocator(capacity=4) as allocator, anyio.create_task_group() as tasks:
            driver = Careless("careless")
            await tasks.start(driver.run, allocator)
            await driver.ask(Work())

    run = replay(asking)
    assert isinstance(run.error, RequestFailed)
    first, at, cause, in_handler = run.failure.splitlines()
    assert first.startswith("RequestFailed: EIO: careless failed")
    assert ", asking" in at
    assert cause.endswith(
        "from KeyError: 'a name long enough that sixty characters are too few to show it whole'"
    )
    assert ", on_request" in in_handler


def test_groups_of_one_kind() -> None:
    """Two failures are of one kind if the same was raised, in whatever groups and however often."""
    one = ExceptionGroup("", [ValueError(1), ExceptionGroup("", [OSError(2), ValueError(3)])])
    assert "OSError and ValueError" == kind_of(one)
    assert kind_of(ValueError(1)) == kind_of(ExceptionGroup("", [ValueError(2), ValueError(3)]))
    assert ["1", "2", "3"] == [str(each) for each in leaves_of(one)]


def test_an_error_that_nobody_raised() -> None:
    """One without a place, or without words, says what there is."""
    assert "ValueError: 1" == reason_of(ValueError(1))
    assert "ValueError" == reason_of(ExceptionGroup("", [ValueError()]))
