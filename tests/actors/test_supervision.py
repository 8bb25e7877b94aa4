"""Restarts in a row, and the waits before them; how actors use them is in `test_actor`."""

from typing import Any

import pytest

from ioasid.actors._supervision import Restarts, check_bits, check_name
from ioasid.core import InvalidArgument


def test_waits_grow_until_the_restarts_are_spent() -> None:
    """Each wait is four times the one before, and there are so many and no more."""
    restarts = Restarts(3, 0.01)
    waits = []
    while not restarts.spent():
        waits.append(restarts.next())
    assert [0.01, 0.04, 0.16] == [round(each, 9) for each in waits]
    assert 3 == restarts.in_a_row
    restarts.in_a_row = 0
    assert not restarts.spent()
    assert 0.01 == restarts.next()


def test_waits_have_an_end() -> None:
    """However often it restarts, it waits a minute at most, or as long as it is told to."""
    for wait, expected in ((0.01, 60.0), (0.0, 0.0), (0, 0.0), (90, 90.0)):
        restarts = Restarts(1000, wait)
        waits = [restarts.next() for _ in range(1000)]
        assert (float(wait), expected) == (waits[0], waits[-1])
        assert sorted(waits) == waits


def test_there_may_be_none() -> None:
    """With no restarts the first crash is the last."""
    assert Restarts(0, 1).spent()


@pytest.mark.parametrize(
    ("most", "wait"), [(-1, 0), (True, 0), (1.0, 0), (1, -1), (1, None), (1, 10**400)]
)
def test_what_is_no_number_is_refused(most: Any, wait: Any) -> None:
    """A number of restarts, or seconds, that are none are refused."""
    with pytest.raises(InvalidArgument):
        Restarts(most, wait)


def test_names_and_widths_are_checked() -> None:
    """A name has 1 to 200 characters, a device 1 to 20 PASID bits."""
    assert ("dsa0", 20) == (check_name("dsa0"), check_bits(20))
    for name in ("", "x" * 201, None):
        with pytest.raises(InvalidArgument):
            check_name(name)
    for bits in (0, 21, True, None):
        with pytest.raises(InvalidArgument):
            check_bits(bits)
