"""Pages: every key is shown once, whatever the size of a page, and whoever comes or goes."""

import pytest

from ioasid.core._pages import page

NAMES = ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 1000])
def test_one_after_the_other(limit: int) -> None:
    """The pages together are everything, and only the last one has no next."""
    shown: list[str] = []
    after: str | None = None
    while True:
        found, after = page(NAMES, after, limit)
        shown += found
        if after is None:
            break
        assert (limit, found[-1]) == (len(found), after)
    assert NAMES == shown


def test_nothing_to_show() -> None:
    """Of nothing there is one page, and it is empty; so is what comes after the last key."""
    assert ([], None) == page([], None, 10)
    assert ([], None) == page([], 5, 10)
    assert ([], None) == page([1, 2], 2, 10)


def test_a_key_that_is_gone() -> None:
    """The next page begins behind it all the same."""
    assert (["c", "d"], "d") == page(["a", "c", "d", "e"], "b", 2)
