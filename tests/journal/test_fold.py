"""Making a checkpoint in a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from ioasid.core import Allocator, AllocMany, AllocSet, AttachData
from ioasid.journal._fold import Folding, NotFolded, fold
from ioasid.journal._replay import PART, Checkpoint, Damage, checkpoint_of, parts_of
from ioasid.journal._rows import FIRST_SEAL, Row
from tests.journal.histories import History
from tests.journal.test_replay import written


def in_process(checkpoint: Checkpoint, data: bytes, rows: list[Row]) -> tuple[Checkpoint, bytes]:
    """Fold in a process."""
    parts: list[bytes] = []

    def keep(place: int, part: bytes) -> None:
        assert len(parts) == place
        parts.append(part)

    made = Folding().run(checkpoint, parts_of(data), rows, keep)
    return made, b"".join(parts)


def test_both_ways_lead_to_the_state() -> None:
    """In a process or here, what comes of it is a checkpoint of the state behind the rows."""
    history = History()
    checkpoint, data, rows = written(history)
    expected = checkpoint_of(history.core, rows[-1].seal)
    assert expected == fold(checkpoint, data, rows)
    assert expected == in_process(checkpoint, data, rows)


def test_a_checkpoint_of_many_parts() -> None:
    """However big the state, it comes in parts."""
    core = Allocator(1 << 20)
    history = History(core)
    history.some(2)
    history.ask(AllocSet("big", 1000))
    history.ask(AllocMany(1, 200))
    for ioasid in range(10, 150):
        history.ask(AttachData(ioasid, "x" * 4000))
    checkpoint, data = checkpoint_of(core, FIRST_SEAL)
    assert len(data) > 2 * PART
    assert (checkpoint, data) == in_process(checkpoint, data, [])


def test_damage_is_told() -> None:
    """What is wrong with the rows comes back from the process; nothing is made of them."""
    checkpoint, data, rows = written(History())
    bad = [rows[0], replace(rows[1], data=rows[0].data)]
    with pytest.raises(Damage, match="its seal"):
        fold(checkpoint, data, bad)
    with pytest.raises(NotFolded, match=r"the row up to index 3: its seal"):
        in_process(checkpoint, data, bad)


def test_a_process_that_is_ended() -> None:
    """One that is killed in the middle makes no checkpoint, and nobody waits for it."""
    checkpoint, data, rows = written(History())
    folding = Folding()

    def killed() -> Iterator[Row]:
        folding.kill()
        yield from rows

    with pytest.raises(NotFolded, match="ended"):
        folding.run(checkpoint, parts_of(data), killed(), lambda *_: None)


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has none to start, or names one that is not there, is told at once."""
    monkeypatch.setattr("sys.executable", "")
    with pytest.raises(ValueError, match="no interpreter"):
        Folding()
    monkeypatch.setattr("sys.executable", str(Path(__file__) / "none"))
    with pytest.raises(OSError, match="none"):
        Folding()
