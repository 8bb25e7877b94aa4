"""trio's seeded scheduling: order, time, and that trio is as before afterwards."""

import trio
from trio._core import _run

from ioasid.testing._picker import Picker
from ioasid.testing._seeded_trio import seeded


def order(picker: Picker) -> list[str]:
    """The order in which three tasks of two steps run."""
    seen: list[str] = []

    async def work(name: str) -> None:
        for step in "12":
            seen.append(name + step)
            await trio.lowlevel.checkpoint()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(work, name)

    with seeded(picker, lambda _: None, 100) as clock:
        trio.run(main, clock=clock)
    return seen


def test_order() -> None:
    """Without a seed tasks run in the order of their making; seeds give others, each its own."""
    assert ["a1", "b1", "c1", "a2", "b2", "c2"] == order(Picker(None))
    assert 30 < len({tuple(order(Picker(seed))) for seed in range(150)})
    assert order(Picker(5)) == order(Picker(5))


def test_time_is_virtual() -> None:
    """The clock jumps to the next deadline, and no further than it is told to."""
    stuck: list[str] = []

    async def main() -> None:
        await trio.sleep(60)
        with trio.CancelScope() as scope:
            scopes.append(scope)
            await trio.sleep(1000)

    def give_up(reason: str) -> None:
        stuck.append(reason)
        scopes[0].cancel()

    scopes: list[trio.CancelScope] = []
    with seeded(Picker(1), give_up, 100) as clock:
        trio.run(main, clock=clock)
    assert ["nobody can go on"] == stuck
    assert 60 == clock.current_time()


def test_trio_is_as_before() -> None:
    """Outside of the scope trio schedules as it did."""
    before = (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r)
    order(Picker(3))
    assert before == (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r)
