"""The shipped scenarios, under a few schedules each; `make explore` runs thousands."""

from collections.abc import Sequence

import pytest

from ioasid.core import Applied
from ioasid.testing import SCENARIOS, Backend, explore
from ioasid.testing._disk import MemoryDisk


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "count"), [("asyncio", 30), ("trio", 6)])
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_hold(name: str, backend: Backend, count: int) -> None:
    """Every shipped scenario holds under every schedule, and its schedules differ."""
    scenario, leaks = SCENARIOS[name]
    explored = explore(scenario, range(count), backend=backend, leaks=leaks)
    assert count == explored.schedules
    assert explored.distinct >= count // 2


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_have_a_journal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every shipped scenario has one in some of its schedules."""
    kept: list[object] = []
    commit = MemoryDisk.commit

    async def note(self: MemoryDisk, applied: Sequence[Applied]) -> None:
        kept.append(applied)
        await commit(self, applied)

    monkeypatch.setattr(MemoryDisk, "commit", note)
    scenario, leaks = SCENARIOS[name]
    seeds = iter(range(10))
    while not kept:
        explore(scenario, [next(seeds)], leaks=leaks)
