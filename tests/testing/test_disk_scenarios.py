"""The scenario of a disk that fails: it sees an allocator that changes in spite of a refusal."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ioasid.actors._allocator import AllocatorActor
from ioasid.testing import ScheduleFailed, explore
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
