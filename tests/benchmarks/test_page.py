"""The page of results."""

from pathlib import Path

from benchmarks import page, run

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def test_results_take_the_place_of_the_old_ones() -> None:
    """What the page says around the results stays, and a missed target is bold."""
    measured = {
        "about": {"python": "CPython 3.11"},
        "results": [
            {
                "name": "ask",
                "backend": "asyncio",
                "value": 1.234,
                "unit": "x floor",
                "target": 1.2,
                "at_least": False,
                "quartiles": [1.2, 1.25],
                "spread": [1.1, 1.3],
                "repeats": 3,
                "beside": {"session": 12.3, "floor": 10.0},
                "beside_unit": "µs",
                "note": "Not here: a peer.",
            }
        ],
    }
    text = page.with_results(f"before\n{page.BEGIN}old\n{page.END}after\n", measured)
    assert text.startswith(f"before\n{page.BEGIN}")
    assert text.endswith(f"{page.END}after\n")
    assert "old" not in text
    assert "| `ask` | asyncio | **1.23** | 1.20, 1.25 | 1.10, 1.30 | ≤ 1.2 | x floor |" in text
    assert "| `ask` | asyncio | session 12.30 µs, floor 10.00 µs |" in text
    assert "\nNot here: a peer.\n" in text
    assert "python CPython 3.11" in text
    assert text == page.with_results(text, measured)


def test_the_page_shows_every_figure() -> None:
    """docs/performance.md says what every figure is, and has the results of a run of all."""
    text = PAGE.read_text(encoding="utf-8")
    explained, _, results = text.partition(page.BEGIN)
    assert [] == [name for name in run.NAMES if f"`{name}`" not in explained]
    assert [] == [name for name in run.NAMES if f"| `{name}` |" not in results]
