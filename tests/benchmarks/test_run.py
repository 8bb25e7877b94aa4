"""The benchmarks as a program: that they run, not what they measure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.measure import Figure, Lost, Plan

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program as `make bench` does."""
    return subprocess.run(
        [sys.executable, "benchmarks/run.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_figures_are_written(tmp_path: Path) -> None:
    """A quick run of one figure prints it and writes it where it is told to, well-formed."""
    path = tmp_path / "new" / "bench.json"
    result = bench("--quick", "--only", "find_by_spid", "--repeats", "3", "--output", str(path))
    assert 0 == result.returncode, result.stderr
    assert "find_by_spid" in result.stdout
    written = json.loads(path.read_text(encoding="utf-8"))
    assert {"about", "results"} == set(written)
    (figure,) = written["results"]
    value = figure.pop("value")
    low, high = figure.pop("spread")
    lower, upper = figure.pop("quartiles")
    assert 0 < low <= value <= high
    assert lower <= value <= upper
    assert all(each > 0 for each in figure.pop("beside").values())
    assert {
        "name": "find_by_spid",
        "backend": "core",
        "unit": "x of 1,000 IDs",
        "target": 1.2,
        "at_least": False,
        "repeats": 3,
        "beside_unit": "µs",
        "note": "",
    } == figure


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", run.BENCHMARKS, ids=lambda each: str(each.names[0]))
def test_every_benchmark_gives_its_figures(benchmark: run.Benchmark) -> None:
    """Run once and small, a benchmark loses nothing and gives every figure it promises."""
    figures = run.run(benchmark, benchmark.backends[0], Plan(1, quick=True, collecting=False))
    assert list(benchmark.names) == [each.name for each in figures]
    assert all(each.value > 0 for each in figures)


def test_an_unknown_figure_is_refused(tmp_path: Path) -> None:
    """A name that is no figure's is a mistake of the caller, and nothing is written."""
    path = tmp_path / "bench.json"
    result = bench("--only", "speed", "--output", str(path))
    assert 2 == result.returncode
    assert "invalid choice: 'speed'" in result.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    "error", [Lost("a reply"), ExceptionGroup("two", [Lost("a reply"), Lost("a delivery")])]
)
def test_a_lost_reply_fails_the_run(
    error: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A benchmark that loses something ends with status 1 and says so; nothing is written."""

    async def lose(_backend: str, _plan: Plan) -> list[Figure]:
        raise error

    losing = run.Benchmark(("find_by_spid",), ("asyncio",), lose)
    monkeypatch.setattr(run, "BENCHMARKS", (losing,))
    path = tmp_path / "bench.json"
    assert 1 == run.main(["--output", str(path)])
    assert "a reply" in capsys.readouterr().err
    assert not path.exists()
