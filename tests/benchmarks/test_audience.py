"""Receivers that count themselves in and out."""

import pytest
from anyio import create_task_group
from anyio.lowlevel import checkpoint

from benchmarks.audience import Audience
from benchmarks.measure import Lost


def test_an_event_comes_only_when_all_are_idle() -> None:
    """To publish while a receiver is still busy is an error: its figure would flatter."""
    audience = Audience(2)
    audience.rest()
    with pytest.raises(Lost, match="not idle"):
        audience.expect(2)
    audience.rest()
    audience.expect(2)
    assert 2 == audience.expected


@pytest.mark.anyio
async def test_all_are_idle_when_each_got_it_and_waits_again() -> None:
    """Whoever waits for that goes on with the last receiver that rests, and not before."""
    audience = Audience(2)
    audience.rest()
    audience.rest()
    audience.expect(2)
    went_on = []

    async def wait() -> None:
        await audience.all_idle()
        went_on.append(audience.deliveries)

    async with create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(2):
            await checkpoint()
            assert [] == went_on
            audience.take()
            audience.rest()
    assert [2] == went_on
