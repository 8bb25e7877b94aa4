"""The move as whoever runs it meets it: wherever its coordinator dies."""

import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from demos import migrate, migrate_fleet
from ioasid.fleet import Act
from ioasid.recorder import draw

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "dies_after", [Act.FREEZE, Act.IMPORT, Act.EXPORT, Act.ACTIVATE, Act.LEAVE]
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_guests_numbers_stay(dies_after: Act, backend: str) -> None:
    """Another coordinator finishes it, and DMA ran on one host at a time."""
    rows = anyio.run(migrate.tell, dies_after, backend=backend)
    assert ("OWNED at left, epoch 0", "—") == (rows[0][1], rows[0][3])
    last = rows[-1]
    assert ("OWNED at right, epoch 1", "—", "ACTIVE, 101..108 → 21..28") == last[1:]


@pytest.mark.slow
@pytest.mark.skipif(migrate_fleet.missing() is not None, reason=str(migrate_fleet.missing()))
@pytest.mark.parametrize("dies_after", [Act.FREEZE, Act.ACTIVATE])
def test_two_agents_as_processes(dies_after: Act, tmp_path: Path) -> None:
    """The coordinator is killed, another one finishes, and both hosts are on one page."""
    page = tmp_path / "both.html"
    rows = anyio.run(migrate_fleet.tell, dies_after, page)
    assert "left: 101..108 → 1..8" == rows[0][1]
    assert ("another one finishes the move", "the record says OWNED at right, epoch 1") == rows[2]
    assert "right: 101..108 → 21..28" == rows[3][1]
    assert ["no DMA ran on two hosts", "all of it landed in the VM's memory"] == [
        what for what, _ in rows[4:]
    ]
    drawn = page.read_text(encoding="utf-8")
    assert 2 == drawn.count("<iframe")
    assert "<rect" in drawn


def test_dma_on_two_hosts_is_seen() -> None:
    """Whatever overlaps, or lands elsewhere, ends the story."""
    first, second = (migrate_fleet.Dma(101, 1, "vm-1", begin, begin + 2) for begin in (1.0, 2.0))
    with pytest.raises(AssertionError, match="two hosts"):
        list(migrate_fleet.found_in([first], [second]))
    second = migrate_fleet.Dma(101, 1, "vm-2", 4.0, 5.0)
    with pytest.raises(AssertionError, match="memory of another"):
        list(migrate_fleet.found_in([first], [second]))


def test_as_a_program(tmp_path: Path) -> None:
    """It tells the story and ends with 0, and its recording can be drawn."""
    ran = subprocess.run(
        [sys.executable, "demos/migrate.py", "--record", str(tmp_path / "move.jsonl")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (ran.returncode, ran.stderr)
    assert "another coordinator finished the move" in ran.stdout
    draw(tmp_path / "move.jsonl", tmp_path / "move.html")
