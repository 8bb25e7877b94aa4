"""Cost against size: that every sweep measures and is drawn."""

from pathlib import Path

import pytest

from benchmarks import plots, sweeps


@pytest.mark.slow
def test_sweeps_are_drawn(tmp_path: Path) -> None:
    """A quick sweep of the asks leaves an SVG file with a line for each contender."""
    sweeps.main(["--quick", "--only", "asks", "--output", str(tmp_path)])
    (drawn,) = tmp_path.iterdir()
    text = drawn.read_text(encoding="utf-8")
    assert "asks.svg" == drawn.name
    assert [] == [
        name for name in ("session", "floor", "anyio.Lock", "plain call") if name not in text
    ]


def test_a_plot_is_the_same_every_time(tmp_path: Path) -> None:
    """The same figures make the same bytes, so a plot changes only with what it shows."""
    lines = {"session": {1: 3.0, 10: 2.0}, "floor": {1: 2.5, 10: 1.5}}
    paths = [tmp_path / "one" / "asks.svg", tmp_path / "two" / "asks.svg"]
    for path in paths:
        path.parent.mkdir()
        plots.draw(path, "An ask", "clients", "µs", lines)
    first, second = (path.read_bytes() for path in paths)
    assert first == second


def test_the_plots_of_every_sweep_are_in_the_docs() -> None:
    """docs/performance/ holds one plot for each sweep, and the page shows it."""
    page = (sweeps.FOLDER.parent / "performance.md").read_text(encoding="utf-8")
    names = sorted(f"{each.name}.svg" for each in sweeps.SWEEPS)
    assert names == sorted(path.name for path in sweeps.FOLDER.iterdir())
    assert [] == [name for name in names if f"(performance/{name})" not in page]
