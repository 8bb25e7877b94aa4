"""What the tasks of a storm draw."""

from ioasid.testing import StormSettings
from ioasid.testing._storm_operations import (
    Choice,
    Choices,
    Menu,
    Operation,
    Slot,
    Worker,
    forget,
    remember,
)

SETTINGS = StormSettings(vms=6, crash_rate=0.25, seed=5)


async def nothing(worker: Worker, choice: Choice) -> None:
    """Do nothing."""


MENU = Menu(
    [
        Operation("often", nothing, 9),
        Operation("seldom", nothing, 1),
        Operation("crash", nothing, 5, crash=True),
    ]
)


def test_choices_depend_on_nothing_but_seed_and_task() -> None:
    """Two tasks draw different choices, the same task the same ones, whatever else is drawn."""
    one, again, other = (Choices(SETTINGS, MENU, number) for number in (0, 0, 1))
    drawn = [(one.draw(), other.draw())[0] for _ in range(100)]
    assert drawn == [again.draw() for _ in range(100)]
    assert one.digest == again.digest
    assert one.digest != other.digest


def test_kinds_are_drawn_by_weight() -> None:
    """A quarter crashes, as asked for; of the rest one kind comes nine times as often."""
    choices = Choices(SETTINGS, MENU, 0)
    kinds = [choices.draw().kind for _ in range(4000)]
    assert 900 < kinds.count("crash") < 1100
    assert 220 < kinds.count("seldom") < 380


def test_some_are_cancelled() -> None:
    """About three in a hundred are cancelled, after at most 15 passes of the event loop."""
    choices = Choices(SETTINGS, MENU, 0)
    drawn = [choices.draw().cancel_after for _ in range(4000)]
    cancelled = [each for each in drawn if each is not None]
    assert 80 < len(cancelled) < 160
    assert set(range(16)) == set(cancelled)


def test_a_menu_ends_with_its_last() -> None:
    """Every point from 0 to just below 1 is of a kind."""
    assert "often" == MENU.pick(0.0, crash=False)
    assert "seldom" == MENU.pick(0.999999, crash=False)
    assert "crash" == MENU.pick(0.999999, crash=True)


def test_guests_forget() -> None:
    """A guest remembers the last 32, forgets what it is told to, and a new VM knows nothing."""
    slot = Slot("vm-0")
    for number in range(40):
        remember(slot.bound, ("dsa0", number, 1))
    forget(slot.bound, ("dsa0", 39, 1))
    assert [("dsa0", number, 1) for number in range(8, 39)] == slot.bound
    slot.pasids.append(7)
    assert 7 == slot.pasid(12)
    slot.forget()
    assert [] == slot.bound
    assert 13 == slot.pasid(12)


def test_tasks_have_names_of_their_own() -> None:
    """No two tasks share an agent, a set, or a process."""
    one, other = Worker(0, Slot("vm-0")), Worker(1, Slot("vm-0"))
    assert ("agent:0", "job-0") == (one.agent, one.token)
    assert ("agent:1", "job-1") == (other.agent, other.token)
    mine, others = ({each.process(number) for number in range(8)} for each in (one, other))
    assert set() == mine & others
