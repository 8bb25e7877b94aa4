"""What is left in the write-ahead log of sqlite: a torn end, or damage.

sqlite keeps what was written since in a file beside the database, in frames of a page each, and
reads it up to the first frame that is not as it was written. That is right for a torn end: the
last write, of which nobody was told. But were a frame in the middle to rot, it would drop all that
was committed after it, and say nothing. So before sqlite opens the file it is looked at here. Its
form is documented (https://www.sqlite.org/fileformat2.html, The Write-Ahead Log).
"""

from struct import Struct as Layout
from typing import Final

from attrs import frozen

__all__: list[str] = []

HEADER: Final = Layout(">8I")
FRAME: Final = Layout(">6I")
MAGIC: Final = 0x377F0682
"""Its lowest bit tells the order of the bytes that are summed."""
MASK: Final = 0xFFFFFFFF


@frozen
class WalEnd:
    """How far a log can be read."""

    frames: int
    """Up to and with the last commit that is whole."""
    left: int
    """Bytes behind it."""
    damaged: bool
    """Whether more than one commit is behind it: those before the last were told of."""


def wal_end(data: bytes) -> WalEnd:
    """Look through the bytes of a log that was begun anew since all before it was moved away."""
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
    commits = [head for head in heads[good : ours[-1] + 1 if ours else 0] if head[1]]
    left = len(data) - (HEADER.size + whole * size if whole else 0)
    return WalEnd(whole, left, damaged=len(commits) > 1)


def _summed(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    words = iter(Layout(f"{order}{len(data) // 4}I").unpack(data))
    for one, two in zip(words, words, strict=True):
        first = (first + one + second) & MASK
        second = (second + two + first) & MASK
    return first, second
