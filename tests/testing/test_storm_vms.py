"""What guests do in a storm."""

import pytest

from tests.testing.storms import CALM, done, right

KINDS = (
    "alloc",
    "bind",
    "program",
    "submit",
    "complete",
    "stop",
    "unbind",
    "free",
    "relearn",
    "close VM",
)


@pytest.mark.anyio
async def test_guests_do_everything() -> None:
    """Each thing that a guest may do succeeds at times, and is refused when others interfere."""
    report = await right(CALM)
    assert dict.fromkeys(KINDS, True) == done(report, KINDS)
    assert report.happened["VMs started"] > report.happened["VMs closed"] > 0
    refused = {error for kind, error in report.refused if kind in KINDS}
    assert {"NotBound", "AlreadyProgrammed", "UnknownTransfer", "IoasidFreePending"} <= refused
    assert report.landed > 0
    assert {"BIND", "UNBIND"} <= report.events.keys()
