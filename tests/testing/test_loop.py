"""The seeded event loop: order, time, and when it is stuck."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ioasid.testing._loop import SeededLoop, Stuck
from ioasid.testing._picker import Picker


def give_up(reason: str) -> None:
    """Be stuck."""
    raise Stuck(reason)


def run(
    main: Callable[[], Awaitable[None]], seed: int | None = None, max_steps: int = 10_000
) -> SeededLoop:
    """Run a coroutine on a loop of its own."""

    def new_loop() -> SeededLoop:
        loops.append(SeededLoop(Picker(seed), give_up, stuck_after=100, max_steps=max_steps))
        return loops[-1]

    async def call() -> None:
        await main()

    loops: list[SeededLoop] = []
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(call())
    return loops[0]


def order(seed: int | None) -> list[str]:
    """The order in which three tasks of two steps run."""
    seen: list[str] = []

    async def work(name: str) -> None:
        for step in "12":
            seen.append(name + step)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(work(name) for name in "abc"))

    run(main, seed)
    return seen


def test_without_a_seed_it_is_first_come_first_served() -> None:
    """Without a seed the order is the one of any asyncio loop."""
    assert ["a1", "b1", "c1", "a2", "b2", "c2"] == order(None)


@pytest.mark.slow
def test_every_order_comes_up() -> None:
    """Seeds give every order of the tasks, and each task's steps stay in order."""
    orders = {tuple(order(seed)) for seed in range(1500)}
    assert 90 == len(orders)
    for each in orders:
        assert all(each.index(name + "1") < each.index(name + "2") for name in "abc")


def test_time_is_virtual() -> None:
    """Time jumps to the next timer when nothing is ready; timers fire in order of their time."""
    seen: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, asyncio.get_running_loop().time()))

    async def main() -> None:
        await asyncio.gather(sleep("b", 60), sleep("a", 30), asyncio.wait_for(sleep("c", 90), 99))

    assert 90 == run(main, 3).time()
    assert [("a", 30), ("b", 60), ("c", 90)] == seen


def test_stuck_without_a_timer() -> None:
    """With nothing ready and no timer, it is stuck."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="nobody can go on"):
        run(main)


def test_stuck_before_a_far_timer() -> None:
    """A timer further away than it waits changes nothing."""
    with pytest.raises(Stuck, match="nobody can go on"):
        run(lambda: asyncio.sleep(101))


def test_who_is_stuck_may_be_helped_later() -> None:
    """Whoever is told that nobody can go on may set a timer as well; time goes on then."""
    helped = []

    def help_later(reason: str) -> None:
        helped.append(reason)
        waited.get_loop().call_later(50, waited.set_result, None)

    loop = SeededLoop(Picker(None), help_later, stuck_after=100)
    waited = loop.create_future()
    try:
        loop.run_until_complete(waited)
    finally:
        loop.close()
    assert (["nobody can go on"], 50) == (helped, loop.time())


def test_stuck_without_an_end() -> None:
    """A task that never stops taking steps is stuck, too."""

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="no end after 500 steps"):
        run(main, max_steps=500)


def test_callbacks_that_spin_let_time_go_on() -> None:
    """A callback that schedules itself again and again does not stop the clock."""

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def spin() -> None:
            if not slept.done():
                loop.call_soon(spin)

        slept = asyncio.ensure_future(asyncio.sleep(10))
        spin()
        await slept

    assert 10 == run(main).time()


def test_cancelled_timers_and_callbacks_do_not_run() -> None:
    """What was cancelled is passed over."""
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(1, seen.append, "timer").cancel()
        loop.call_soon(seen.append, "callback").cancel()
        await asyncio.sleep(2)

    assert 2 == run(main).time()
    assert [] == seen
