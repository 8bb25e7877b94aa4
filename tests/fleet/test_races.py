"""Two coordinators, a guest that does DMA, and faults everywhere; see `tests.fleet.races`."""

import os

import pytest

from ioasid.testing import ScheduleFailed, explore
from tests.fleet.races import WITHOUT, Racing

RUNS = int(os.environ.get("IOASID_RACES", "40"))
"""`python -m tests.fleet.races --runs 1000` is for many."""


@pytest.mark.slow
def test_one_copy_runs_whole_whatever_breaks() -> None:
    """A VM runs on one host in the end, with all it had, and its DMA never ran on two."""
    assert RUNS == explore(Racing(), range(RUNS)).schedules


@pytest.mark.slow
@pytest.mark.parametrize("what", WITHOUT)
def test_what_the_protocol_rests_on_is_needed(what: str) -> None:
    """Without it a race fails soon."""
    with pytest.raises(ScheduleFailed):
        explore(WITHOUT[what], range(1000), shrink=0)
