"""The subscribers of a storm."""

import pytest

from ioasid.testing import StormSettings
from tests.testing.storms import right


@pytest.mark.anyio
async def test_subscribers_live_and_die() -> None:
    """Some hang and are evicted, some crash, and of these some come back."""
    settings = StormSettings(vms=4, devices=2, ops=6000, crash_rate=0.02, seed=3)
    happened = (await right(settings)).happened
    assert happened["subscribers"] > 0
    assert happened["subscribers crashed"] > happened["subscribers came back"] > 0
    assert happened["subscribers evicted"] > 0
    assert happened["subscribers hung"] > 0
