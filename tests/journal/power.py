"""A disk that loses its power: what it may hold then, from notes of all that was done to it.

What was written before a file was last synced is there. Of what was written since, a disk may have
kept all, nothing, or any of it, a write half done included; and so with cutting a file short.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field

from tests.journal.disk import Done

SECTOR: Final = 512
"""Bytes that a disk writes whole or not at all."""
KEPT: Final = ("nothing", "everything", "some", "torn")
"""What is left of what was not synced."""


def acknowledged(index: int) -> Done:
    """A note that somebody was answered by then."""
    return Done("", "acknowledged", index)


def folder_synced() -> Done:
    """A note that the names of files are on the disk: which there are, and which are gone."""
    return Done("", "sync")


@define
class _File:
    synced: bytearray = field(factory=bytearray)
    unsynced: list[Done] = field(factory=list)
    before: bytes | None = None
    """What the file held that had this name before, while its name may yet come back."""

    def take(self, done: Done) -> None:
        if done.action == "sync":
            self.before = None
            for each in self.unsynced:
                _carry_out(self.synced, each)
            self.unsynced.clear()
        else:
            self.unsynced.append(done)

    @property
    def is_synced(self) -> bool:
        return not self.unsynced and self.before is None

    def content(self, kept: str, choose: random.Random) -> bytes:
        if self.before is not None and (kept == "nothing" or choose.random() < 0.2):
            return self.before
        data = bytearray(self.synced)
        unsynced = self.unsynced if kept != "nothing" else []
        for number, done in enumerate(unsynced):
            if kept == "some" and choose.random() < 0.5:
                continue
            is_torn = kept == "torn" and (number == len(unsynced) - 1 or choose.random() < 0.3)
            _carry_out(data, _torn(done, choose) if is_torn else done)
        return bytes(data)


def _carry_out(data: bytearray, done: Done) -> None:
    if done.action == "truncate":
        del data[done.place :]
        data.extend(bytes(done.place - len(data)))
        return
    data.extend(bytes(max(0, done.place - len(data))))
    data[done.place : done.place + len(done.data)] = done.data


def _torn(done: Done, choose: random.Random) -> Done:
    if done.action != "write":
        return done
    # Up to the border of a sector, wherever in the file the write began.
    size = choose.randrange(len(done.data) + 1)
    border = (done.place + size) // SECTOR * SECTOR - done.place
    return Done(done.name, done.action, done.place, done.data[: max(0, border)])


def _take(files: dict[str, _File], gone: dict[str, _File], done: Done) -> None:
    if done == folder_synced():
        gone.clear()
        for each in files.values():
            each.before = None
    elif done.action != "delete":
        if done.name not in files:
            old = gone.pop(done.name, None)
            files[done.name] = _File(before=None if old is None else bytes(old.synced))
        files[done.name].take(done)
    elif (old := files.pop(done.name, None)) is not None and not done.place:
        gone[done.name] = old


@define
class Loss:
    """What the power left, at one place of the notes."""

    place: int
    kept: str
    acknowledged: int
    """The index that was acknowledged last."""
    files: dict[str, bytes]

    def put(self, folder: Path) -> None:
        """Write the files, in place of others."""
        for old in folder.iterdir():
            old.unlink()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def losses(notes: Sequence[Done], choose: random.Random, share: float = 1.0) -> Iterator[Loss]:
    """Cut the power after each thing that was done, or a share of them, in every way."""
    files: dict[str, _File] = {}
    gone: dict[str, _File] = {}
    index = 0
    for place, done in enumerate(notes):
        if done.action == "acknowledged":
            index = done.place
        else:
            _take(files, gone, done)
        if choose.random() >= share:
            continue
        is_synced = not gone and all(each.is_synced for each in files.values())
        for kept in KEPT[:1] if is_synced else KEPT:
            there = {**gone, **files} if kept in ("nothing", "torn") else files
            found = {name: each.content(kept, choose) for name, each in there.items()}
            yield Loss(place, kept, index, found)
