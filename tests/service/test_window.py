"""The window: what is under way on one connection, counted by answers or not."""

from itertools import chain

import pytest

from ioasid.actors._local_port import LocalPort
from ioasid.actors._open import open_driver
from ioasid.core import Acknowledge, Request, TakeStatistics
from ioasid.service._window import PART, Window
from tests.actors.hosts import settle

pytestmark = pytest.mark.anyio


async def test_what_is_answered_is_counted_by_its_answers() -> None:
    """As long as so many have not left, nothing more is taken."""
    window = Window(2, lambda: None)
    full = []
    for change in (0, 1, 1, -1):
        window.in_flight += change
        full.append(window.is_full())
    assert [False, False, True, False] == full


async def test_what_is_told_is_taken_as_it_is_decided() -> None:
    """Behind so many, whichever way they went, nothing is taken until all are decided."""
    opened: list[bool] = []
    async with open_driver() as driver:
        ports: list[LocalPort] = [driver, *(_port_of(driver) for _ in range(2))]
        window = Window(5, lambda: opened.append(window.is_full()))
        for count in range(1, 13):
            window.tell(ports[count % 3], Acknowledge(()))
            assert (count % 5 == 0) is window.is_full()
            if window.is_full():
                assert count // 5 - 1 == len(opened)
                await settle()
                assert [False] * (count // 5) == opened


async def test_acknowledgements_count_by_message() -> None:
    """One frame that says as much as many is as many, and what says nothing is one."""
    opened: list[bool] = []
    async with open_driver() as driver:
        window = Window(5, lambda: opened.append(window.is_full()))
        full = []
        for count in (4, 0, 7, 3):
            window.tell(driver, Acknowledge(tuple((1, each) for each in range(count))))
            full.append(window.is_full())
            if window.is_full():
                await settle()
        assert ([False, True, True, False], [False, False]) == (full, opened)


async def test_a_frame_that_acknowledges_much_is_decided_in_parts() -> None:
    """Others have their turn in between, and each message is acknowledged once, in order."""
    messages = tuple((1, each) for each in range(100 * PART + 1))
    decided: list[Request] = []
    async with open_driver(taps=[lambda each: decided.append(each.request)]) as driver:
        Window(10, bool).tell(driver, Acknowledge(messages))
        await driver.beside().send(TakeStatistics())
        before = len(decided)
        await settle()
    told = [each.messages for each in decided if isinstance(each, Acknowledge)]
    assert {1, PART} == {len(each) for each in told}
    assert messages == tuple(chain.from_iterable(told))
    assert before < 100


def _port_of(driver: LocalPort) -> LocalPort:
    return LocalPort(driver._actor, 0)


async def test_an_allocator_that_is_gone_lets_everything_pass() -> None:
    """Nobody decides any more, so there is nothing to wait for."""
    opened: list[bool] = []
    async with open_driver() as driver:
        pass
    window = Window(2, lambda: opened.append(True))
    for _ in range(4):
        window.tell(driver, Acknowledge(()))
    assert ([True, True], False) == (opened, window.is_full())
