"""What a host does in a storm beside its VMs."""

import pytest

from tests.testing.storms import BAD, CALM, done, right

KINDS = (
    "adjust quota",
    "free set",
    "reserve",
    "use process",
    "use set",
    "reference",
    "attach data",
    "notify",
    "bad request",
)

pytestmark = pytest.mark.anyio


async def test_a_host_does_everything() -> None:
    """Each thing succeeds at times; bad requests are refused, each as it has to be."""
    report = await right(CALM)
    assert dict.fromkeys(KINDS, True) == done(report, KINDS)
    bad = {error for kind, error in report.refused if kind == "bad request"}
    assert bad >= {
        "InvalidArgument",
        "UnknownDevice",
        "UnknownIoasid",
        "PasidFault",
        "UnknownTransfer",
        "UnknownProcess",
        "UnknownSet",
        "NotReserved",
        "UnknownHolder",
    }
    assert {"BindProcess", "UnbindProcess", "ProcessExited"} <= report.steps.keys()


async def test_agents_crash_and_come_back() -> None:
    """Agents crash with a reference; some come back to it, the others are written off."""
    report = await right(BAD)
    assert report.happened["agents crashed"] > report.happened["agents came back"] > 0
    assert report.happened["holders evicted"] > 0
