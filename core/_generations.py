"""The IDs of a set and the generations of their lives, as a snapshot has them.

IDs that were allocated at once share a generation, and IDs allocated one after the other count up.
Where all IDs that a set has in a word are one run and do either, they are a range, which goes on
from word to word. Any other word is written as it is kept, as bits and numbers: to look for what is
regular in it would take longer than all the rest.
"""

from array import array
from collections.abc import Iterable, Sequence
from struct import pack as to_bytes
from struct import unpack as from_bytes

from ioasid.core._snapshot import SnapshotRange, SnapshotWord
from ioasid.core._space import MASK, SHIFT, WORD_BITS, is_one_run, lowest_one

__all__: list[str] = []


def pack(
    parts: "Iterable[tuple[int, int, int, array[int]]]",
) -> tuple[tuple[SnapshotRange, ...], tuple[SnapshotWord, ...]]:
    """Return IDs as ranges and words.

    They come word by word, ascending: its number, a bit for each ID, a generation, and how far that
    of each ID is above it; no such numbers if it is the one of them all.
    """
    ranges: list[tuple[int, int, int, int]] = []
    words: list[SnapshotWord] = []
    for number, used, base, lives in parts:
        low = lowest_one(used)
        first, digits = (number << SHIFT) + low, used >> low
        step = _step(lives) if lives else 0
        if step is None or not is_one_run(digits):
            words.append(_word(first, digits, base, lives))
            continue
        last = first + digits.bit_length() - 1
        generation = base + lives[0] if lives else base
        joined = _joined(*ranges[-1], first, last, generation, step) if ranges else None
        if joined is None:
            ranges.append((first, last, generation, step))
        else:
            ranges[-1] = joined
    return tuple([SnapshotRange(*each) for each in ranges]), tuple(words)


def _step(lives: "array[int]") -> int | None:
    """Return by how much generations count up, 0 or 1, or `None` if they do not."""
    start, count = lives[0], len(lives)
    span = lives[-1] - start
    if span == 0 and lives.tobytes() == lives[:1].tobytes() * count:
        return 0
    if span == count - 1 and lives == array(lives.typecode, range(start, start + count)):
        return 1
    return None


def _joined(
    first: int,
    end: int,
    generation: int,
    step: int,
    next_first: int,
    last: int,
    next_generation: int,
    next_step: int,
) -> tuple[int, int, int, int] | None:
    """Return two ranges as one, if the second goes on where the first ends."""
    if next_first != end + 1:
        return None
    # The generations of a single ID count up by anything.
    if first == end:
        step = next_step if next_first < last else next_generation - generation
    elif next_first < last and next_step != step:
        return None
    if step in (0, 1) and next_generation == generation + step * (next_first - first):
        return first, last, generation, step
    return None


def _word(first: int, digits: int, base: int, lives: Sequence[int]) -> SnapshotWord:
    offsets = b""
    if lives:
        lowest, highest = min(lives), max(lives)
        base += lowest
        if lowest < highest:
            relative = [each - lowest for each in lives] if lowest else lives
            width = "Q" if highest - lowest >> 32 else "I"
            offsets = to_bytes(f"<{len(lives)}{width}", *relative)
    bits = digits.to_bytes((digits.bit_length() + 7) // 8, "little")
    return SnapshotWord(first, bits, base, offsets)


def unpack(word: SnapshotWord) -> tuple[int, int, tuple[int, ...]]:
    """Return the IDs of a word again: its number, a bit for each, and their offsets.

    Raises ValueError if they are not all in one word or do not have one generation each.
    """
    number, low = word.first >> SHIFT, word.first & MASK
    digits = int.from_bytes(word.bits, "little")
    count = digits.bit_count()
    if not digits & 1 or low + digits.bit_length() > WORD_BITS:
        raise ValueError("IDs that are in no word")
    width = {0: "", 4 * count: "I", 8 * count: "Q"}.get(len(word.offsets))
    if width is None:
        raise ValueError("not one generation for each ID")
    return number, digits << low, from_bytes(f"<{count}{width}", word.offsets) if width else ()
