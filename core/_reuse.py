"""In which order free IDs are given out again."""

from attrs import define

from ioasid.core._space import SHIFT, IdSpace, OwnerT

__all__: list[str] = []


@define
class CyclicSpace(IdSpace[OwnerT]):
    """The next free ID after the last one given out, round and round in the range asked for.

    Two searches, at most, find it: from the last one up, then from the bottom.
    """

    position: int = 0
    """The ID after the last one given out."""

    def take(self, low: int, high: int, owner: OwnerT, generation: int) -> int | None:
        """Give the next free ID in [low, high] to an owner and return it, if there is one."""
        start = self.position
        if not low <= start <= high:
            start = low
        ioasid = self.take_lowest(start, high, owner, generation)
        if ioasid is None:
            if start == low:
                return None
            ioasid = self.take_lowest(low, start - 1, owner, generation)
            if ioasid is None:
                return None
        self.position = ioasid + 1
        return ioasid

    def next_words(self, count: int, low: int, high: int) -> list[tuple[int, int]] | None:
        """Return the `count` next free IDs in [low, high], or `None` if there are too few.

        They come ascending, wherever it began. Whoever gets some takes them.
        """
        start = self.position
        if not low <= start <= high:
            start = low
        found, missing = self.some_words(count, start, high)
        below: list[tuple[int, int]] = []
        if missing and low < start:
            below, missing = self.some_words(missing, low, start - 1)
        if missing:
            return None
        number, last = (below or found)[-1]
        self.position = (number << SHIFT) + last.bit_length()
        if below and found and below[-1][0] == found[0][0]:
            # Where it began, in the middle of a word.
            found[0] = (number, last | found[0][1])
            below.pop()
        return below + found
