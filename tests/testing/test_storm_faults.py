"""What crashes in a storm."""

import pytest

from tests.testing.storms import BAD, CALM, done, right

KINDS = (
    "crash VM",
    "crash VM in a flood",
    "crash VFIO",
    "crash KVM",
    "crash VDCM",
    "crash VT-d",
    "VFIO gives up",
    "KVM gives up",
    "device gives up",
)

pytestmark = pytest.mark.anyio


async def test_everything_crashes() -> None:
    """VMs and every driver crash, restart, and are given up, and every rule holds."""
    report = await right(BAD)
    assert dict.fromkeys(KINDS, True) == done(report, KINDS)
    assert report.happened["VMs crashed"] > 0
    for actor in ("vfio", "kvm", "vdcm"):
        assert report.happened[f"{actor} restarted"] > 0
        assert report.happened[f"{actor} given up"] > 0
    assert report.happened["vtd restarted"] > 0
    assert 0 == report.happened["vtd given up"]


async def test_nothing_crashes_unless_asked_for() -> None:
    """Without a crash rate no actor ever restarts."""
    report = await right(CALM)
    assert [] == [what for what in report.happened if "restarted" in what or "given up" in what]
