"""Rows: requests to bytes and back, and the seals that vouch for them."""

import pytest

from ioasid.core import Alloc, Applied, Free, FreeSet, FreezeSet, Ioasid
from ioasid.journal._rows import FIRST_SEAL, Row, applied_of, row_of, seal_of
from tests.journal.histories import History


def test_a_row_holds_what_was_carried_out() -> None:
    """A row gives its requests back, with their indices, times and sessions."""
    applied = History().some(9)
    row = row_of(FIRST_SEAL, applied)
    assert applied == applied_of(row)
    assert applied[-1].index == row.last


def test_a_row_has_no_waiting_and_no_generation() -> None:
    """Nobody waits after a restart, and what was carried out was meant for that life."""
    asked = [Applied(7, 1.0, 1, Free(Ioasid(3, 9), wait=True)), Applied(8, 1.0, 1, FreeSet(2))]
    asked.append(Applied(9, 2.0, 1, FreeSet(2, wait=True)))
    asked.append(Applied(10, 2.0, 1, FreezeSet(3, wait=True)))
    requests = [each.request for each in applied_of(row_of(FIRST_SEAL, asked))]
    assert [Free(3), FreeSet(2), FreeSet(2), FreezeSet(3)] == requests


def test_a_seal_vouches_for_the_rows_before() -> None:
    """The seal of a row is another one if its bytes are, or those of any row before it."""
    first = row_of(FIRST_SEAL, [Applied(2, 1.0, 1, Alloc(0))])
    second = row_of(first.seal, [Applied(3, 1.0, 1, Free(1))])
    assert seal_of(first.seal, second.data) == second.seal
    assert 4 == len(
        {first.seal, second.seal, seal_of(FIRST_SEAL, second.data), seal_of(first.seal, b"")}
    )


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x91\xc0", b"\x91\x93\x01\x01\xc0"])
def test_what_is_no_row(data: bytes) -> None:
    """Bytes that hold no requests are refused with a ValueError."""
    with pytest.raises(ValueError, match="no requests"):
        applied_of(Row(3, FIRST_SEAL, data))
