"""The storm as a whole: every rule holds, and a fault planted in any actor is found."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import anyio
import pytest
from attrs import evolve

from ioasid.actors import Iommu, Kvm, Vdcm, Vfio, Vtd
from ioasid.core import Allocator, Event, EventKind, Message, Resync, Snapshot, Statistics
from ioasid.linux import LinuxTables
from ioasid.testing import FakeKernel, StormSettings, _storm, storm
from ioasid.testing._storm import wrong_with

SMALL = StormSettings(vms=6, devices=2, ops=900, crash_rate=0.03, seed=5)
PLANTED = evolve(SMALL, stall=5)
"""Some faults leave a storm stuck when they have shown."""

pytestmark = pytest.mark.anyio


async def test_every_rule_holds() -> None:
    """A small storm comes to its end, tells of samples, and nothing is wrong."""
    sampled: list[tuple[int, Statistics]] = []
    found: list[str] = []
    report = await storm(
        SMALL, on_violation=found.append, on_sample=lambda *each: sampled.append(each)
    )
    assert ({}, []) == (report.violations, found)
    assert report.holds
    assert 900 == report.done
    assert 900 == sum(each.total() for each in report.outcomes.values())
    assert 21 == report.samples == len(sampled)
    assert 900 == sampled[-1][0]
    assert 0 == sampled[-1][1].active
    assert report.landed > 0


@pytest.mark.parametrize(
    "anyio_backend",
    [
        ("asyncio", {}),
        pytest.param(
            ("asyncio", {"use_uvloop": True}),
            marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is missing"),
        ),
    ],
)
@pytest.mark.parametrize("crash_rate", [0.0, 0.03, 0.4])
async def test_every_rule_holds_in_real_time(crash_rate: float) -> None:
    """Where nobody orders the tasks, a small storm keeps the rules just as well."""
    report = await storm(evolve(SMALL, crash_rate=crash_rate))
    assert ({}, 900) == (report.violations, report.done)


async def test_the_seed_repeats_the_choices() -> None:
    """The same seed draws the same operations, another seed draws others."""
    one, again = await storm(SMALL), await storm(SMALL)
    other = await storm(StormSettings(vms=6, devices=2, ops=900, crash_rate=0.03, seed=6))
    assert one.choices == again.choices
    assert one.choices != other.choices
    assert {kind: n.total() for kind, n in one.outcomes.items()} == {
        kind: n.total() for kind, n in again.outcomes.items()
    }


async def _keep_entries(self: Iommu, ioasid: int) -> tuple[str, ...]:
    return self.devices_of(ioasid)


async def _forget_the_drain(self: Vdcm, ioasid: int) -> None:
    self.device.contexts[ioasid].stopping = True
    del self.device.contexts[ioasid]
    await self.session.put(ioasid)


async def _keep_translating(self: Kvm, message: Event | Resync) -> None:
    if isinstance(message, Event) and message.kind is EventKind.BIND:
        self._bindings.update(message)


def _refuse_strangely(self: Vtd, device: str) -> dict[int, Any]:
    raise ValueError(device)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "fault", "found"),
    [
        (Iommu, "tear_down", _keep_entries, "while the IOMMU had an entry"),
        (Vdcm, "_drain", _forget_the_drain, "had a transfer in flight"),
        (Kvm, "on_event", _keep_translating, "translated"),
        (Vtd, "_table", _refuse_strangely, "a bug in a handler"),
    ],
)
async def test_a_planted_fault_is_found(
    target: type,
    name: str,
    fault: Callable[..., Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An actor that lets go too early, or crashes by itself, is found out, and told of at once."""
    monkeypatch.setattr(target, name, fault)
    told: list[str] = []
    report = await storm(PLANTED, on_violation=told.append)
    assert not report.holds
    assert any(found in violation for violation in told), told
    assert set(told) <= report.violations.keys()


def _keep_attached(self: LinuxTables, device: str, ioasid: int) -> None:
    pass


def _keep_open(self: LinuxTables, device: str) -> None:
    pass


def _attach_nothing(self: LinuxTables, device: str, ioasid: int) -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", [("asyncio", {})])
@pytest.mark.parametrize(
    ("name", "fault", "found"),
    [
        ("_detach", _keep_attached, "while the kernel had it attached on"),
        ("_close", _keep_open, "the kernel has 2 descriptors open"),
        ("_attach", _attach_nothing, "and is said to be"),
    ],
)
async def test_a_fault_planted_below_the_driver_is_found(
    name: str, fault: Callable[..., Any], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fake kernel still has attached or open is found, whatever the driver believes."""
    # In real time: the virtual one does not know of the worker threads that make the calls.
    monkeypatch.setattr(LinuxTables, name, fault)
    report = await storm(PLANTED, kernel=FakeKernel())
    assert any(found in violation for violation in report.violations), report


async def _hang(self: Vfio, message: Message) -> None:
    await anyio.sleep_forever()


async def test_a_storm_that_is_stuck_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """When no operation is done for long, the storm ends and says what was being done."""
    monkeypatch.setattr(Vfio, "on_request", _hang)
    settings = StormSettings(vms=1, devices=1, ops=200, crash_rate=0, stall=0.3)
    report = await storm(settings)
    assert any(each.startswith("stuck for 0.3 s: ") for each in report.violations)


async def test_a_host_that_ends_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends the host under the storm is named, and so is what was not done."""

    def fail(self: Iommu, ioasid: int) -> tuple[str, ...]:
        raise ZeroDivisionError

    monkeypatch.setattr(Iommu, "devices_of", fail)
    report = await storm(SMALL)
    assert any(each.startswith("the host ended: ") for each in report.violations)
    assert f"only {report.done} of 900 operations were done" in report.violations
    assert report.choices is None


async def test_a_state_that_is_wrong_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a look at the whole state finds wrong is named once and counted."""
    monkeypatch.setattr(_storm, "wrong_with", lambda _: ["planted"])
    told: list[str] = []
    report = await storm(SMALL, on_violation=told.append)
    assert ["planted"] == told
    assert {"planted": report.samples} == report.violations


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_snapshot_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that contradicts itself, breaks an invariant or restores to another is wrong."""
    snapshot = Allocator(8).snapshot()
    assert [] == list(wrong_with(snapshot))
    with monkeypatch.context() as patch:
        patch.setattr(Allocator, "snapshot", lambda _: None)
        assert ["a snapshot restores to another state"] == list(wrong_with(snapshot))
    with monkeypatch.context() as patch:
        patch.setattr(_storm, "check_state", _object)
        assert ["an invariant is broken: planted"] == list(wrong_with(snapshot))
    contradiction = _with(snapshot, seq=-1)
    (found,) = wrong_with(contradiction)
    assert found.startswith("a snapshot contradicts itself: ")


def _object(core: Allocator) -> None:
    raise AssertionError("planted")


def _with(snapshot: Snapshot, **changes: object) -> Snapshot:
    fields = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
    return Snapshot(**{**fields, **changes})
