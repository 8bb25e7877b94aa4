"""What the live view shows: bars, times, curves, and how rows are put in order."""

import pytest

from ioasid.service._top_rows import Line, arranged, bar, curve, time


@pytest.mark.parametrize(
    ("used", "limit", "text"),
    [
        (0, 8, "░░░░░   0%"),
        (1, 1000, "█░░░░   0%"),
        (7, 8, "████░  88%"),
        (8, 8, "█████ 100%"),
        (0, 0, "░░░░░   0%"),
    ],
)
def test_bars(used: int, limit: int, text: str) -> None:
    """What is used at all shows, and only what is full looks so."""
    assert text == bar(used, limit)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0712, "71 ms"),
        (7.25, "7.2 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7200, "2 h"),
        (172_800, "2 d"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    """A time has few letters."""
    assert text == time(seconds)


def test_curves() -> None:
    """A curve begins at 0, is as wide as there is room for, and its greatest is said."""
    assert "▁▁ peak 0" == curve([0, 0], 60)
    assert "▁▅█ peak 2" == curve([0, 1, 2], 60)
    assert "█ peak 9" == curve([3, 9], 17)


def test_order() -> None:
    """Rows are sorted by a column and then by the first, either way, and found by any of them."""
    lines = [Line(key, (key, 1), (), ()) for key in "bca"]
    assert ["a", "b", "c"] == [each.key for each in arranged(lines, "", 1, reverse=False)]
    assert ["c", "b", "a"] == [each.key for each in arranged(lines, "", 1, reverse=True)]
    assert [] == arranged(lines, "vm", 0, reverse=False)


def test_a_name_is_no_control() -> None:
    """A row shows what is not printable as escapes, and its key is the name itself."""
    line = Line("a\x1b", (), ("a\x1b", "[/b]"), ("", ""))
    assert [r"a\x1b", "[/b]"] == [str(cell) for cell in line.cells]
