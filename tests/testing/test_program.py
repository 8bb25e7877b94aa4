"""The program: what it prints and how it exits."""

import re
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from ioasid.recorder import Decided, read
from ioasid.testing import SCENARIOS, _program
from ioasid.testing._program import main
from tests.testing.broken import guest_with_a_mirror


@pytest.mark.slow
def test_all_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """A run without a failure counts its schedules on both backends and exits with 0."""
    chosen = ["quota_adjusted_under_load", "--schedules", "120", "--trio", "5", "--jobs", "2"]
    assert 0 == main(chosen)
    printed = capsys.readouterr().out
    assert "125 schedules of 1 scenarios" in printed
    assert "none failed" in printed


@pytest.mark.slow
def test_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is printed with the seed that shows it, and the exit code is 1."""
    holds = "quota_adjusted_under_load"
    broken = {holds: SCENARIOS[holds], "broken": (guest_with_a_mirror, True)}
    monkeypatch.setattr(_program, "SCENARIOS", broken)
    monkeypatch.setattr(_program, "ProcessPoolExecutor", InProcess)
    assert 1 == main(["--schedules", "60", "--trio", "0", "--jobs", "1"])
    printed = capsys.readouterr().out
    assert "'mirror' holds 1 reference of IOASID 1" in printed
    assert "python -m ioasid.testing broken --backend asyncio --seed 6" in printed
    assert "of 2 scenarios" in printed
    assert "1 failed" in printed
    path = Path(re.findall(r"Recorded; draw it: .* draw (\S+)", printed)[0])
    assert any(isinstance(each, Decided) for each in read(path).lines)
    path.unlink()
    given = tmp_path / "failed.jsonl"
    chosen = ["broken", "--schedules", "60", "--trio", "0", "--jobs", "1"]
    assert 1 == main([*chosen, "--record", str(given)])
    assert str(given) in capsys.readouterr().out
    assert len(read(given).lines) > 3
    assert 1 == main(["broken", "--seed", "6"])
    assert "'mirror' holds 1 reference of IOASID 1" in capsys.readouterr().out


def test_one_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One schedule is shown with its history, and recorded if told where."""
    assert 0 == main(["quota_adjusted_under_load", "--seed", "3", "--backend", "trio"])
    printed = capsys.readouterr().out
    assert "quota_adjusted_under_load, seed 3 on trio: holds" in printed
    assert "AdjustSet(" in printed
    path = tmp_path / "one.jsonl"
    assert 0 == main(["quota_adjusted_under_load", "--seed", "3", "--record", str(path)])
    assert any(isinstance(each, Decided) for each in read(path).lines)
    with pytest.raises(SystemExit):
        main(["quota_adjusted_under_load", "--record", str(tmp_path / "no" / "where.jsonl")])


class InProcess(Executor):
    """A pool of no processes: a patched table of scenarios reaches no other one everywhere."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def submit(self, call: Any, /, *given: Any, **_: Any) -> Future[Any]:
        """Run it at once."""
        done: Future[Any] = Future()
        done.set_result(call(*given))
        return done
