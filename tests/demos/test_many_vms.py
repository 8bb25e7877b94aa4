"""The storm as whoever runs it meets it: every backend, repeatable choices, both outputs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demos import many_vms
from ioasid.actors import Iommu
from ioasid.testing import FakeKernel

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


@pytest.mark.slow
@pytest.mark.parametrize("as_json", [False, True])
def test_a_violation_fails_the_storm(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that is broken is named when it is found, counted, and the exit code is 1."""

    async def keep(self: Iommu, ioasid: int) -> tuple[str, ...]:
        return self.devices_of(ioasid)

    monkeypatch.setattr(Iommu, "tear_down", keep)
    assert 1 == many_vms.main([*SMALL, "--json"] if as_json else SMALL)
    out = capsys.readouterr().out
    if as_json:
        named = [line["text"] for line in events(out) if line["event"] == "violation"]
        assert any("while the IOMMU had an entry" in text for text in named)
        assert set(named) <= events(out)[-1]["violations"].keys()
        assert events(out)[-1]["holds"] is False
    else:
        assert "✗ IOASID" in out
        assert re.search(r"violations? of \d+ kinds?", out)
        assert "Every rule held" not in out


@pytest.mark.slow
def test_a_kernel_is_programmed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --kernel a fake Linux kernel has what is attached, and the storm watches it."""
    assert 0 == many_vms.main([*SMALL, "--kernel"])
    assert "Every rule held" in capsys.readouterr().out

    def keep(self: FakeKernel, device: object, given: memoryview) -> None:
        """Succeed, and leave it attached."""

    monkeypatch.setattr(FakeKernel, "_detach", keep)
    assert 0 == many_vms.main(SMALL)
    assert 1 == many_vms.main([*SMALL, "--kernel"])
    assert "while the kernel had it attached" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vms", "0"], "argument --vms: '0' is no count"),
        (["--devices", "-1"], "argument --devices: '-1' is no count"),
        (["--vms", "200000"], "vms is 200000; pass a whole number of 1 to 100000"),
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
