"""The hardware that works on during a storm."""

import pytest

from tests.testing.storms import BAD, right


@pytest.mark.anyio
async def test_devices_work_on_and_are_replaced() -> None:
    """What is drained is completed by somebody, and a device that is given up has a successor."""
    report = await right(BAD)
    assert report.happened["vdcm given up"] == report.happened["devices given up"] > 0
    assert report.landed > report.outcomes["complete"]["done"]
