"""The shipped scenarios, under a few schedules each; `make explore` runs thousands."""

import pytest

from ioasid.testing import SCENARIOS, Backend, explore


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "count"), [("asyncio", 30), ("trio", 6)])
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios_hold(name: str, backend: Backend, count: int) -> None:
    """Every shipped scenario holds under every schedule, and its schedules differ."""
    scenario, leaks = SCENARIOS[name]
    explored = explore(scenario, range(count), backend=backend, leaks=leaks)
    assert count == explored.schedules
    assert explored.distinct >= count // 2
