"""The scenarios of a disk that fails: they see who changes in spite of a refusal, or hangs on."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ioasid.actors import Session
from ioasid.actors._allocator import AllocatorActor
from ioasid.testing import SCENARIOS, ScheduleFailed, explore
from ioasid.testing._disk_scenarios import disk_fails_while_all_ask


def test_what_was_refused_has_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on with the state that could not be kept fails the scenario."""
    go_back: Callable[..., Awaitable[None]] = AllocatorActor._go_back

    async def stay(self: Any, error: Any) -> None:
        core = self._core
        await go_back(self, error)
        self._core = self._deadlines.core = core

    explore(disk_fails_while_all_ask, range(4))
    monkeypatch.setattr(AllocatorActor, "_go_back", stay)
    with pytest.raises(ScheduleFailed):
        explore(disk_fails_while_all_ask, range(4), shrink=0)


@pytest.mark.parametrize("tables", ["", "_on_linux"])
@pytest.mark.parametrize("name", ["disk_fails_under_a_host", "drivers_crash_while_a_disk_fails"])
def test_what_is_let_go_of_while_the_disk_fails(
    name: str, tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver whose references can't be dropped meanwhile, and who does not insist, is found."""

    async def ask_once(self: Session, request: Any) -> bool:
        await self.ask(request)
        return True

    scenario, _ = SCENARIOS[name + tables]
    explore(scenario, range(6))
    monkeypatch.setattr(Session, "insist", ask_once)
    with pytest.raises(ScheduleFailed):
        explore(scenario, range(20), shrink=0)
