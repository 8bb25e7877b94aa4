"""The end of sqlite's write-ahead log: where it is, and what is behind it, a torn end or damage.

sqlite keeps what was written since in a file beside the database, in frames of a page each, and
reads it up to the first frame that is not as it was written. That is right for a torn end: the
last write, of which nobody was told. But were a frame in the middle to rot, it would drop all that
was committed after it, and say nothing. So before sqlite opens the file it is looked at here. Its
form is documented (https://www.sqlite.org/fileformat2.html, The Write-Ahead Log).

A log that was moved into the database is written over from its beginning, with a new salt in its
head: its file keeps its size, which a disk has to note otherwise with every commit. What is behind
the end is left from before, and nobody's.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from struct import Struct as Layout
from typing import Final

from attrs import frozen

__all__: list[str] = []

HEADER: Final = Layout(">8I")
FRAME: Final = Layout(">6I")
MAGIC: Final = 0x377F0682
"""Its lowest bit tells the order of the bytes that are summed."""
MASK: Final = 0xFFFFFFFF
LOGS: Final = 1 << 24
"""More than a file sees between two times that it is opened."""
NO_COMMIT: Final = bytes(4)
"""What stands in the head of a frame that is not its commit's last one."""


@frozen
class WalEnd:
    """How far a log can be read."""

    frames: int
    """Up to and with the last commit that is whole."""
    left: int
    """Bytes behind it that are this log's."""
    damaged: bool
    """Whether more than one commit is behind it: those before the last were told of."""


def wal_end(data: bytes) -> WalEnd:
    """Look through the bytes of a log whose database has all that was in it before."""
    if len(data) < HEADER.size:
        return WalEnd(0, len(data), damaged=False)
    magic, _, page, _, *salt, first, second = HEADER.unpack_from(data)
    order = ">" if magic & 1 else "<"
    header_sum = _summed(data[:24], order, 0, 0)
    if magic & ~1 != MAGIC or page < 512 or header_sum != (first, second):
        # Written first and never again: with frames behind it, it was whole once.
        return WalEnd(0, len(data), damaged=len(data) >= HEADER.size + FRAME.size + 512)
    size = FRAME.size + page
    places = range(HEADER.size, len(data) - size + 1, size)
    heads = [FRAME.unpack_from(data, place) for place in places]
    # What a longer log left behind this one has another salt.
    ours = [number for number, head in enumerate(heads) if [*head[2:4]] == salt]
    whole = good = 0
    sums = (first, second)
    for place, (_, commit, *its_salt, one, two) in zip(places, heads, strict=True):
        sums = _summed(data[place : place + 8], order, *sums)
        sums = _summed(data[place + FRAME.size : place + size], order, *sums)
        if its_salt != salt or sums != (one, two):
            break
        good += 1
        if commit:
            whole = good
    behind = heads[good : ours[-1] + 1 if ours else 0]
    commits = [head for head in behind if head[1] and not _is_older(head[2:4], salt)]
    told_of = HEADER.size + (ours[-1] + 1 if ours else 0) * size
    if len(ours) == len(heads):
        # Nothing of a log before, so that half a frame at the end is this one's.
        told_of = len(data)
    left = told_of - (HEADER.size + whole * size if whole else 0)
    return WalEnd(whole, left, damaged=len(commits) > 1)


class LogEnd:
    """Where the next commit begins in a log that is being written, and only there."""

    def __init__(self, path: Path) -> None:
        """Open the log at `path`, which sqlite began with one commit; raises OSError."""
        self._file: Final = os.open(path, os.O_RDWR)
        self._salt = b""
        self._frame = 0
        self._place = 0
        """Behind the last frame of the last commit that was followed."""
        self._behind = 0
        """Commits that have yet to be followed."""
        self._is_cut = True
        """Whether nothing is left of a commit that failed."""
        self._zeroed = 0
        """Up to where it was written over, and perhaps not synced."""
        try:
            self.follow()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Bytes up to the end."""
        return self._place

    def follow(self) -> None:
        """Go on behind the commit that was written, if there is one; raises OSError."""
        self._behind += 1
        self.settle()

    def cut_off(self) -> None:
        """Let nothing of a commit that failed be read, ever; raises OSError."""
        self._is_cut = False
        self.settle()

    def settle(self) -> None:
        """Do what `follow` and `cut_off` could not; raises OSError.

        Before that is done nothing may be committed: where it begins would not be known.
        """
        while self._behind:
            self._follow()
            self._behind -= 1
        if not self._is_cut:
            self._cut_off()
            self._is_cut = True

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)

    def _follow(self) -> None:
        if (head := self._head_at(self._place)) is None:
            self._begin_if_anew()
            head = self._head_at(self._place)
        while head is not None:
            self._place += self._frame
            if head[4:8] != NO_COMMIT:
                return
            head = self._head_at(self._place)

    def _cut_off(self) -> None:
        self._begin_if_anew()
        place = self._place
        # What was written over and not synced is written again: a disk may have dropped it.
        while place < self._zeroed or self._head_at(place) is not None:
            os.pwrite(self._file, bytes(FRAME.size), place)
            place += self._frame
            self._zeroed = max(self._zeroed, place)
        if place > self._place:
            os.fsync(self._file)
        self._zeroed = 0

    def _head_at(self, place: int) -> bytes | None:
        head = os.pread(self._file, FRAME.size, place)
        return head if self._salt and head[8:16] == self._salt else None

    def _begin_if_anew(self) -> None:
        head = os.pread(self._file, HEADER.size, 0)
        if len(head) == HEADER.size and head[16:24] != self._salt:
            self._salt = head[16:24]
            self._frame = FRAME.size + HEADER.unpack(head)[2]
            self._place = HEADER.size


def _is_older(its: Sequence[int], salt: Sequence[int]) -> bool:
    # Each time that a log begins anew, the first half of the salt grows by one and the other half
    # is another. So where a write was not done shows what was there before, and rot shows as such.
    return its[1] != salt[1] and 0 < (salt[0] - its[0]) & MASK < LOGS


def _summed(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    words = iter(Layout(f"{order}{len(data) // 4}I").unpack(data))
    for one, two in zip(words, words, strict=True):
        first = (first + one + second) & MASK
        second = (second + two + first) & MASK
    return first, second
