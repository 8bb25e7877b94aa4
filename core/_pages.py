"""Long lists in pages: what a page has, and where the next one begins."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

__all__: list[str] = []

K = TypeVar("K", int, str)


def page(keys: Sequence[K], after: K | None, limit: int) -> tuple[Sequence[K], K | None]:
    """Return at most `limit` of the ascending keys, those after `after`, and the next `after`.

    That is `None` when no key is left. A key that is no longer there does as well: what comes or
    goes between two pages is shown or not, everything else is shown once.
    """
    start = 0 if after is None else bisect_right(keys, after)
    found = keys[start : start + limit]
    return found, found[-1] if start + limit < len(keys) else None
