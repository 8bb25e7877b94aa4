"""The storm as whoever runs it meets it: every backend, repeatable choices, planted faults."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demos import many_vms
from ioasid.actors import Iommu, Kvm, Vdcm, Vtd
from ioasid.core import Event, EventKind, Resync

ROOT = Path(__file__).parents[2]
BACKENDS = ("asyncio", "uvloop", "trio")
SMALL = ("--vms", "6", "--devices", "2", "--ops", "900", "--crash-rate", "0.03", "--seed", "5")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the storm as a program."""
    return subprocess.run(
        [sys.executable, "demos/many_vms.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def events(output: str) -> list[dict[str, Any]]:
    """The events of a run with --json."""
    return [json.loads(line) for line in output.splitlines()]


def storm(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a storm in this process; its exit code and its last event."""
    status = many_vms.main([*SMALL, "--json", *arguments])
    return status, events(capsys.readouterr().out)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_rule_holds(backend: str) -> None:
    """On every backend a small storm ends with its conclusion, figures and exit code 0."""
    finished = run(*SMALL, "--backend", backend)
    assert (0, "") == (finished.returncode, finished.stderr), finished.stdout
    assert "Every rule held" in finished.stdout
    assert "900 operations in" in finished.stdout
    assert "Peak memory" in finished.stdout


@pytest.mark.slow
def test_the_seed_repeats_the_choices_on_every_backend() -> None:
    """What is done is the same with every backend, and another with another seed."""
    ends = [events(run(*SMALL, "--json", "--backend", each).stdout)[-1] for each in BACKENDS]
    assert 1 == len({end["choices"] for end in ends})
    counts = [{kind: sum(n.values()) for kind, n in e["operations"].items()} for e in ends]
    assert [counts[0]] * 3 == counts
    assert 900 == sum(counts[0].values())
    other = events(run(*SMALL, "--json", "--seed", "6").stdout)[-1]
    assert ends[0]["choices"] != other["choices"]


def test_choices_depend_on_nothing_but_seed_and_task() -> None:
    """Two tasks draw different choices, the same task the same ones, whatever else is drawn."""
    options = many_vms.Options(6, 2, 900, 0.03, 5, "asyncio")
    one, again, other = (many_vms.Choices(options, number) for number in (0, 0, 1))
    drawn = [(one.draw(), other.draw())[0] for _ in range(100)]
    assert drawn == [again.draw() for _ in range(100)]
    assert one.digest == again.digest
    assert one.digest != other.digest


@pytest.mark.slow
def test_json_is_an_event_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json there is a beginning, a sample every so often, and an end with every count."""
    assert 0 == many_vms.main([*SMALL, "--json"])
    lines = events(capsys.readouterr().out)
    assert ["begin", "end"] == [lines[0]["event"], lines[-1]["event"]]
    assert {"sample"} == {line["event"] for line in lines[1:-1]}
    assert lines[-1]["holds"] is True
    assert {} == lines[-1]["violations"]
    assert lines[-1]["samples"] == len(lines) - 2
    assert {"ALLOC", "BIND", "UNBIND", "FREE", "RECLAIM"} <= lines[-1]["events"].keys()


async def _forget_the_drain(self: Vdcm, ioasid: int) -> None:
    self.device.contexts[ioasid].stopping = True
    del self.device.contexts[ioasid]
    await self.session.put(ioasid)


def _leave_entries(self: Iommu, ioasid: int) -> tuple[str, ...]:
    return self.devices_of(ioasid)


async def _keep_translating(self: Kvm, message: Event | Resync) -> None:
    if isinstance(message, Event) and message.kind is EventKind.BIND and message.spid is not None:
        self.table[message.spid] = message.ioasid


def _refuse_strangely(self: Vtd, device: str) -> dict[int, Any]:
    raise ValueError(device)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name", "fault", "found"),
    [
        (Iommu, "tear_down", _leave_entries, "while the IOMMU had an entry"),
        (Vdcm, "_stop", _forget_the_drain, "had a transfer in flight"),
        (Kvm, "on_event", _keep_translating, "translated"),
        (Vtd, "_table", _refuse_strangely, "a crash that nobody planted"),
    ],
)
def test_a_planted_fault_is_found(
    target: type,
    name: str,
    fault: Callable[..., Any],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An actor that lets go too early, or crashes by itself, is found out: exit code 1."""
    monkeypatch.setattr(target, name, fault)
    monkeypatch.setattr(many_vms, "STALL", 3.0)
    status, end = storm(capsys)
    assert 1 == status
    assert any(found in violation for violation in end["violations"]), end["violations"]


@pytest.mark.slow
def test_a_check_that_objects_fails_the_storm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a look at the whole state finds wrong is named once, counted, and the exit code is 1."""
    monkeypatch.setattr(many_vms, "wrong_with", lambda _: ["planted"])
    assert 1 == many_vms.main([*SMALL])
    out = capsys.readouterr().out
    assert 1 == out.count("✗ planted")
    assert "violations of 1 kinds" in out
    assert "Every rule held" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vms", "0"], "argument --vms: '0' is no count"),
        (["--devices", "-1"], "argument --devices: '-1' is no count"),
        (["--ops", "many"], "argument --ops: 'many' is no count"),
        (["--crash-rate", "1.5"], "argument --crash-rate: '1.5' is no rate"),
        (["--crash-rate", "nan"], "argument --crash-rate: 'nan' is no rate"),
        (["--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["--backend", "twisted"], "argument --backend: invalid choice: 'twisted'"),
        (["--what"], "unrecognized arguments: --what"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An argument that makes no sense is named, and the exit code is 2."""
    with pytest.raises(SystemExit) as ended:
        many_vms.main(arguments)
    assert 2 == ended.value.code
    assert message in capsys.readouterr().err


def test_a_backend_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backend that is not installed is named, and the exit code is 2."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(SystemExit) as ended:
        many_vms.main(["--backend", "uvloop"])
    assert 2 == ended.value.code
    assert "uvloop is not installed" in capsys.readouterr().err


def test_events_out_of_order_are_noticed() -> None:
    """What may follow depends on what a subscriber is told: hidden events may lie between."""
    kinds = frozenset(EventKind)
    absent = frozenset((many_vms.ABSENT,))
    unbound = many_vms.after(absent, EventKind.ALLOC, kinds)
    assert not many_vms.after(unbound, EventKind.UNBIND, kinds)
    assert not many_vms.after(absent, EventKind.RECLAIM, kinds)
    assert many_vms.after(absent, EventKind.RECLAIM, frozenset((EventKind.RECLAIM,)))
