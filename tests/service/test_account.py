"""What a server counts since it began."""

from typing import Any

from ioasid.core import Alloc, Free, Request, UnknownIoasid, UnknownSet
from ioasid.service._account import BOUNDS, Account
from ioasid.service._memory import Asked, Memory, is_waiting
from tests.service.test_memory import Connection


def asked(request: Request, began: float) -> Asked:
    """Something that was asked."""
    port: Any = None
    return Asked(
        Memory(None, 1), Connection(), 1, port, request, None, began, waits=is_waiting(request)
    )


def test_refusals_are_counted_by_name() -> None:
    """Each under the name of its error."""
    account = Account()
    for error in (UnknownSet(1), UnknownIoasid(1), UnknownSet(2)):
        account.refuse(error)
    assert {"UnknownSet": 2, "UnknownIoasid": 1} == account.refusals


def test_asks_are_counted_and_timed() -> None:
    """By their kind, and in the bucket of their time; what waits is counted only."""
    account = Account()
    # A time in the future came at once, one at the beginning of the clock long ago.
    for request, began in (
        (Alloc(0), float("inf")),
        (Alloc(0), -1e9),
        (Free(1, wait=True), -1e9),
        (Free(1), float("inf")),
    ):
        account.answer(asked(request, began))
    asks = account.asks
    assert {"Alloc": 2, "Free": 2} == asks.by_request
    assert [2, *[0] * (len(BOUNDS) - 1), 1] == [count for _, count in asks.took]
    assert [*BOUNDS, float("inf")] == [bound for bound, _ in asks.took]
