"""How figures come out of what was measured."""

import pytest
from anyio import sleep_forever

from benchmarks import measure
from benchmarks.measure import Figure, Lost, Plan, compare, figure, require, take_turns


def of(values: list[float], *, target: float | None, at_least: bool = False) -> Figure:
    """Return a figure of these values."""
    return figure(
        values, name="ask", backend="asyncio", unit="x floor", target=target, at_least=at_least
    )


def test_what_counts_is_the_ratio_within_a_turn() -> None:
    """The value is the median of the paired ratios, not the ratio of the medians."""
    times = {"ours": [2.0, 30.0, 2.0], "floor": [1.0, 10.0, 2.0]}
    ratio = compare(
        times, "ours", "floor", name="ask", backend="asyncio", unit="x floor", target=1.5
    )
    assert (2.0, (1.0, 3.0), 3, True) == (
        ratio.value,
        ratio.spread,
        ratio.repeats,
        ratio.is_missed,
    )
    assert {"ours": 2e6, "floor": 2e6} == ratio.beside


@pytest.mark.parametrize(
    ("target", "at_least", "missed"),
    [(2.0, False, False), (1.9, False, True), (2.1, True, True), (2.0, True, False)],
)
def test_a_target_is_a_maximum_unless_it_says_otherwise(
    target: float, at_least: bool, missed: bool
) -> None:
    """A figure at its target has met it; above it or, of a minimum, below it, it has not."""
    assert missed == of([2.0], target=target, at_least=at_least).is_missed


def test_a_figure_without_a_target_misses_none() -> None:
    """What is only shown cannot be missed, and one value is its own spread."""
    shown = of([2.0], target=None)
    assert (False, (2.0, 2.0), (2.0, 2.0)) == (shown.is_missed, shown.quartiles, shown.spread)


@pytest.mark.anyio
async def test_contenders_take_turns_back_and_forth() -> None:
    """The order turns round every round, and the first round is not counted."""
    ran = []

    async def first() -> float:
        ran.append("first")
        return float(len(ran))

    async def second() -> float:
        ran.append("second")
        return float(len(ran))

    times = await take_turns({"first": first, "second": second}, Plan(2, True, False))
    assert ["first", "second", "second", "first", "first", "second"] == ran
    assert {"first": [4.0, 5.0], "second": [3.0, 6.0]} == times


@pytest.mark.anyio
async def test_what_never_comes_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that waits longer than anybody has patience for ends the measurement."""
    monkeypatch.setattr(measure, "PATIENCE", 0)

    async def forever() -> float:
        await sleep_forever()
        return 0.0

    with pytest.raises(Lost, match="forever: something did not come"):
        await take_turns({"forever": forever}, Plan(1, True, False))


def test_what_is_not_as_required_is_lost() -> None:
    """Two things that should be equal and are not end the measurement, with both named."""
    require(1, 1, "replies")
    with pytest.raises(Lost, match="replies: expected 2, got 1"):
        require(2, 1, "replies")
