"""What the parts of a storm share."""

from collections.abc import AsyncIterator

import anyio
import pytest

from ioasid.actors import VmClosed, open_host
from ioasid.core import UnknownSet
from ioasid.testing import StormReport, StormSettings
from ioasid.testing._storm_scene import Scene, cancel_later, passes
from ioasid.testing._storm_tap import tap
from ioasid.testing._storm_witness import Witness

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A host and what belongs to it."""
    settings = StormSettings(vms=1)
    report = StormReport(settings)

    def violated(text: str) -> None:
        report.violations[text] += 1

    witness = Witness(report, violated)
    async with open_host(capacity=64, system_quota=8) as host, anyio.create_task_group() as tasks:
        yield Scene(settings, report, violated, witness, tap(witness), host, tasks)


async def test_refusals_are_expected_or_violations(scene: Scene) -> None:
    """A refusal that was announced is counted; another one is a violation besides."""
    scene.refused("free", VmClosed("vm-1"), (VmClosed,))
    assert {} == scene.report.violations
    scene.refused("free", UnknownSet(1), (VmClosed,))
    assert 1 == scene.report.violations.total()
    assert {("free", "VmClosed"): 1, ("free", "UnknownSet"): 1} == scene.report.refused


async def test_who_is_written_off_is_evicted_if_it_is_there(scene: Scene) -> None:
    """Evicting somebody who is not there is none, and not counted."""
    await scene.write_off("nobody")
    assert {} == scene.report.happened
    async with scene.allocator.session("somebody"):
        await scene.write_off("somebody")
        assert {"holders evicted": 1} == scene.report.happened
        assert 0 == (await scene.allocator.statistics()).suspended


async def test_numbers_select_devices(scene: Scene) -> None:
    """Any number is that of a device that serves."""
    scene.devices += ["dsa0", "dsa1"]
    assert ["dsa0", "dsa1", "dsa0"] == [scene.device(number) for number in (0, 1, 2)]


async def test_what_is_cancelled_later_goes_on_until_then() -> None:
    """A scope is cancelled after some passes of the event loop, and not before."""
    gone = 0
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:
            tasks.start_soon(cancel_later, scope, 5)
            while True:
                await passes(1)
                gone += 1
    assert scope.cancelled_caught
    assert 4 <= gone <= 8
