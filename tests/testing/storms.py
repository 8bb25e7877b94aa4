"""Small storms of one kind, for the tests of their parts."""

from collections.abc import Iterable

from ioasid.testing import StormReport, StormSettings, storm

CALM = StormSettings(vms=4, devices=2, ops=2500, crash_rate=0.0, seed=3)
BAD = StormSettings(vms=4, devices=2, ops=1800, crash_rate=0.4, seed=3)


async def right(settings: StormSettings) -> StormReport:
    """Let it storm, and see that every rule held."""
    report = await storm(settings)
    assert {} == report.violations
    return report


def done(report: StormReport, kinds: Iterable[str]) -> dict[str, bool]:
    """Whether each kind of operation was carried out at all."""
    return {kind: report.outcomes[kind]["done"] > 0 for kind in kinds}
