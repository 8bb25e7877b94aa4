"""The demo of an agent that is killed: what it shows is what happens."""

from pathlib import Path

import pytest

from demos.restart import main, story
from ioasid.recorder import draw, read
from ioasid.recorder._timeline import timeline_of


@pytest.mark.slow
def test_the_journal_makes_the_difference(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the journal the transfer lands in its owner's memory, without in another VM's."""
    recording = tmp_path / "restart.jsonl"
    assert 0 == main(["--record", str(recording)])
    draw(recording, tmp_path / "restart.html")
    texts = [row.text for row in timeline_of(read(recording)).rows]
    assert "the process ended: all crashed" in texts
    shown = capsys.readouterr().out
    assert "vm-2 is given PASID 2" in shown.partition("Without one:")[0]
    assert "vm-2 is given PASID 1" in shown.partition("Without one:")[2]
    assert "without its hardware it does not start: EINVAL" in shown
    assert "the VMs are closed, 0 IDs left" in shown
    assert "landed in the memory of vm-1,\nwithout it in the memory of vm-2." in shown


@pytest.mark.slow
def test_without_a_journal_an_id_is_reused(capsys: pytest.CaptureFixture[str]) -> None:
    """An agent that forgets hands out what the device still writes with."""
    assert "vm-2" == story("")
    assert "knows of no VM" in capsys.readouterr().out
