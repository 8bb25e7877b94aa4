"""Power that is lost after every write: nothing is lost that was acknowledged, or made up.

The disk notes what is done (`tests.journal.disk`), and `tests.journal.power` says what it may hold.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ioasid.core import Allocator, encode
from ioasid.journal import JournalDamaged, _store
from ioasid.journal._journal import Journal
from ioasid.journal._replay import digest_of
from ioasid.journal._store import Store
from tests.journal.disk import Done, failing_disk
from tests.journal.histories import History, do, opened
from tests.journal.power import acknowledged, folder_synced, losses
from tests.journal.test_journal import folded


class Normal(Store):
    """A store that is told to sync now and then only."""

    def _open(self) -> None:
        super()._open()
        self._file.execute("PRAGMA synchronous = NORMAL")


SHARE = float(os.environ.get("IOASID_LOSSES", "0.1"))
"""Of all that was done to the disk, after how much its power is lost; `make crash` says 1."""

Digests = dict[int, bytes]


def digest(core: Allocator) -> bytes:
    """What tells a state from every other."""
    return digest_of([encode(core.snapshot())])


def history_on_disk(
    path: Path, store: Callable[[Path], Store], *, processes: bool
) -> tuple[list[Done], Digests]:
    """Keep a history, with checkpoints by processes and at the end; what the disk was told."""
    digests: Digests = {}
    history = History()
    notes: list[Done] = []
    sync_folder = _store._sync_folder

    def note_sync(path: Path) -> None:
        sync_folder(path)
        notes.append(folder_synced())

    with failing_disk() as disk, pytest.MonkeyPatch.context() as patched:
        disk.notes = notes
        patched.setattr("ioasid.journal._store._sync_folder", note_sync)

        def live(count: int, at_once: int, *, orderly: bool) -> None:
            every = 12 if processes else 10_000
            with opened(path, history.core, every=every, orderly=orderly, store=store) as (
                journal,
                _,
            ):
                digests.setdefault(history.core.index, digest(history.core))
                for _ in range(count):
                    applied = history.some(at_once)
                    digests[history.core.index] = digest(history.core)
                    do(journal, lambda applied=applied: journal.append(applied))  # type: ignore[misc]
                    notes.append(acknowledged(history.core.index))
                    if processes and history.core.index % 3 == 0:
                        let_fold(journal)

        live(14, 1, orderly=False)
        live(8, 3, orderly=True)
        live(6, 50, orderly=True)
    return notes, digests


def let_fold(journal: Journal) -> None:
    """Let a checkpoint come between the commits, and not after them all."""
    if journal._folding is not None:
        folded(journal)


def lost(notes: list[Done], digests: Digests, folder: Path, seed: int, share: float) -> list[str]:
    """Recover after each loss; what was forgotten, and anything else that is wrong."""
    wrong = []
    for loss in losses(notes, random.Random(seed), share):
        loss.put(folder)
        where = f"{loss.kept} kept at {loss.place}"
        try:
            with opened(folder / "journal") as (_, core):
                index, found = core.index, digest(core)
        except JournalDamaged as damaged:
            wrong.append(f"{where}: damaged: {damaged}")
            continue
        if index < loss.acknowledged:
            wrong.append(f"{where}: lost {loss.acknowledged - index}")
        elif digests[index] != found:
            wrong.append(f"{where}: another state at {index}")
    return wrong


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a disk is looked at after its power came back."""
    made = tmp_path / "after"
    made.mkdir()
    return made


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("log_size", [1 << 14, 2 << 20])
@pytest.mark.slow
def test_nothing_is_lost(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, log_size: int, seed: int
) -> None:
    """Whatever the disk kept of what was not synced, all that was acknowledged is there."""
    monkeypatch.setattr("ioasid.journal._store.LOG_SIZE", log_size)
    notes, digests = history_on_disk(tmp_path / "journal", Store, processes=True)
    actions = {"write", "sync", "truncate", "delete", "acknowledged"}
    assert actions == {each.action for each in notes}
    assert [] == lost(notes, digests, folder, seed, SHARE)


def test_a_loss_is_seen(tmp_path: Path, folder: Path) -> None:
    """With a disk that is synced now and then, the same looks find what is lost."""
    notes, digests = history_on_disk(tmp_path / "journal", Normal, processes=False)
    wrong = lost(notes, digests, folder, 0, 0.2)
    assert [] != [each for each in wrong if ": lost " in each]
    assert [] == [each for each in wrong if "another state" in each]
