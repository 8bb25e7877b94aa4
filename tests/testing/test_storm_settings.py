"""What a storm may be asked for."""

from typing import Any

import pytest

from ioasid.core import InvalidArgument
from ioasid.testing import StormSettings


@pytest.mark.parametrize(
    "given",
    [
        {"vms": 0},
        {"vms": True},
        {"vms": 100_001},
        {"devices": -1},
        {"devices": 10_001},
        {"ops": 0},
        {"ops": 1.5},
        {"crash_rate": 1.5},
        {"crash_rate": float("nan")},
        {"crash_rate": "often"},
        {"seed": "x"},
        {"seed": None},
        {"stall": 0},
        {"stall": float("inf")},
        {"stall": None},
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    """A setting of another type, or out of its range, is refused by its name."""
    with pytest.raises(InvalidArgument) as refused:
        StormSettings(**given)
    assert [refused.value.argument] == list(given)


def test_the_operations_are_shared_out() -> None:
    """Every operation is some task's, and no task has two more than another."""
    settings = StormSettings(vms=3, ops=100)
    shares = [settings.share(worker) for worker in range(settings.workers)]
    assert [17, 17, 17, 17, 16, 16] == shares


def test_capacity_is_not_always_enough() -> None:
    """There are fewer IDs than the VMs' quotas, of up to 24, and the processes want together."""
    settings = StormSettings(vms=100)
    assert 1 + settings.system_quota + 100 * 24 > settings.capacity > settings.system_quota
