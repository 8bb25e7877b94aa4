"""The choices of a schedule."""

import anyio.lowlevel
import pytest

from ioasid.testing import ScheduleFailed, choose, explore, replay
from ioasid.testing._picker import Picker


def test_a_seed_repeats_its_choices() -> None:
    """The same seed chooses the same; its picks alone choose the same as well."""
    lines = [[*range(1 + number % 5), 9] for number in range(200)]
    first, again = Picker(7), Picker(7)
    chosen = [first.pick(each) for each in lines]
    assert chosen == [again.pick(each) for each in lines]
    given = Picker(None, first.picks)
    assert chosen == [given.pick(each) for each in lines]
    assert (200, first.picks) == (given.choices, given.picks)


def test_seeds_favour_differently() -> None:
    """Some seeds pick everybody alike, others favour some."""
    skews = {Picker(seed)._skew for seed in range(50)}
    assert {1, 4, 32} == skews


def test_what_happens_beside_is_part_of_the_schedule() -> None:
    """A seed repeats what happens beside its choices, and its picks do; without either, nothing."""
    first, again = Picker(7), Picker(7)
    happened = [first.happens(4) for _ in range(400)]
    assert 50 < sum(happened) < 150
    assert happened == [again.happens(4) for _ in range(400)]
    given = Picker(None, first.picks)
    assert happened == [given.happens(4) for _ in range(400)]
    assert (0, first.picks) == (given.choices, given.picks)
    assert {-1 - number: 1 for number, each in enumerate(happened) if each} == first.picks
    assert not any(map(Picker(None).happens, range(1, 400)))


def test_picks_beyond_the_line_take_the_last() -> None:
    """A pick that is too large for its line takes the last one, as a schedule changes."""
    assert 1 == Picker(None, {0: 5}).pick("ab")
    assert 0 == Picker(None).pick("ab")


def test_choose() -> None:
    """A scenario's own choices belong to the schedule; the first option is the plain one."""
    seen: list[str] = []

    async def scenario() -> None:
        assert 3 == choose((3,))
        seen.append(choose("ab"))

    for seed in range(20):
        replay(scenario, seed)
    assert {"a", "b"} == set(seen)
    seen.clear()
    replay(scenario)
    assert ["a"] == seen


def test_a_report_says_what_was_chosen() -> None:
    """What a scenario chose under the shortest schedule is in the report, and in the run."""

    async def scenario() -> None:
        chosen = choose((1, 2)), choose(("a",)), choose((False, True))
        assert chosen[0] == 1

    with pytest.raises(ScheduleFailed) as caught:
        explore(scenario, range(50))
    assert ("2", "'a'", "False") == caught.value.shortest.chosen
    assert "  choose took 2, 'a', False\n" in str(caught.value)
    assert () == replay(anyio.lowlevel.checkpoint).chosen


def test_choose_needs_a_schedule() -> None:
    """Outside of an explored scenario nobody chooses, and whoever tries is told what to do."""
    with pytest.raises(LookupError, match=r"replay\(scenario\)"):
        choose("ab")
