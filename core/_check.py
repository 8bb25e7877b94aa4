"""What every argument is checked against at the door, before anything is decided.

`bool` is no `int` here, nor is any other subclass: a value that merely behaves like a number is
a mistake in the caller, and the checks are exact so that nothing inside has to doubt a type.
"""

from collections.abc import Iterator
from typing import Any, Final, NoReturn

from ioasid.core._errors import InvalidArgument
from ioasid.core._terms import INVALID_IOASID, Data, EventKind, IoasidRange, Priority, ReuseOrder

__all__: list[str] = []

MAX_COUNT: Final = 2**32 - 1
MAX_NUMBER: Final = 2**64 - 1
"""What an error that names the number can still carry over any wire."""
MAX_NAME: Final = 255
MAX_DATA: Final = 4096
MAX_QUEUE: Final = 2**20
MAX_PAGE: Final = 1000
MAX_TIME: Final = 2.0**63
"""Seconds that no wire could carry."""


def refuse(argument: str, found: object, expected: str) -> NoReturn:
    """Raise `InvalidArgument`, showing what was found."""
    raise InvalidArgument.of(argument, found, expected)


def ioasid(value: Any, argument: str = "ioasid") -> int:
    """Check an IOASID or spid: an int in 0..2^32-2."""
    if type(value) is int and 0 <= value < INVALID_IOASID:
        return value
    refuse(argument, value, "a whole number in 0..2^32-2 (2^32-1 is INVALID_IOASID)")


def number(value: Any, argument: str) -> int:
    """Check a set, session or subscription number or a seq: an int in 0..2^64-1."""
    if type(value) is int and 0 <= value <= MAX_NUMBER:
        return value
    refuse(argument, value, "a whole number in 0..2^64-1")


def optional_number(value: Any, argument: str) -> int | None:
    """Check a number where `None` stands for "any"."""
    return None if value is None else number(value, argument)


def count(value: Any, argument: str) -> int:
    """Check a count or quota: an int in 1..2^32-1."""
    if type(value) is int and 0 < value <= MAX_COUNT:
        return value
    refuse(argument, value, "a whole number in 1..2^32-1")


def optional_count(value: Any, argument: str) -> int | None:
    """Check a count where `None` stands for "all there is"."""
    return None if value is None else count(value, argument)


def flag(value: Any, argument: str) -> bool:
    """Check a bool."""
    if type(value) is bool:
        return value
    refuse(argument, value, "true or false")


def name(value: Any, argument: str) -> str:
    """Check a token or holder name: a str of 1 to 255 bytes as UTF-8."""
    if type(value) is str and value and _utf8_length(value) <= MAX_NAME:
        return value
    refuse(argument, value, f"text of 1 to {MAX_NAME} bytes as UTF-8")


def data(value: Any, argument: str = "data") -> Data:
    """Check private data: an int in -2^63..2^64-1 or a str of at most 4,096 bytes as UTF-8."""
    if type(value) is int and -(2**63) <= value < 2**64:
        return value
    if type(value) is str and _utf8_length(value) <= MAX_DATA:
        return value
    expected = f"a whole number in -2^63..2^64-1 or text of at most {MAX_DATA} bytes as UTF-8"
    refuse(argument, value, expected)


def kinds(value: Any) -> frozenset[EventKind]:
    """Check event kinds: a set of `EventKind`, not empty."""
    if type(value) in (frozenset, set) and value and all(type(kind) is EventKind for kind in value):
        return frozenset(value)
    refuse("kinds", value, "one or more members of EventKind, which in Python no strings are")


def kind(value: Any) -> EventKind:
    """Check an event kind that a publisher may send: any but RECLAIM, which only happens."""
    if type(value) is EventKind and value is not EventKind.RECLAIM:
        return value
    refuse("kind", value, "a member of EventKind: ALLOC, BIND, UNBIND or FREE")


def priority(value: Any) -> Priority:
    """Check a priority."""
    if type(value) is Priority:
        return value
    refuse("priority", value, "a Priority")


def order(value: Any) -> ReuseOrder:
    """Check an order of reuse."""
    if type(value) is ReuseOrder:
        return value
    refuse("order", value, "ReuseOrder.LOWEST or ReuseOrder.CYCLIC")


def ranges(value: Any, argument: str = "ranges") -> list[tuple[int, int]]:
    """Check ranges of IDs, a tuple of `IoasidRange`, ascending and without overlap."""
    return [*each_range(value, argument)]


def each_range(value: Any, argument: str) -> Iterator[tuple[int, int]]:
    """Check the same, and yield each when it is found to be right."""
    if type(value) is not tuple:
        refuse(argument, value, "a tuple of IoasidRange")
    end = -1
    for each in value:
        if type(each) is not IoasidRange:
            refuse(argument, each, "a tuple of IoasidRange")
        first: object = each.first
        last: object = each.last
        if type(first) is not int or type(last) is not int or not end < first <= last:
            refuse(
                argument, each, f"ascending ranges without overlap; the next begins at {end + 1}"
            )
        if last >= INVALID_IOASID:
            refuse(argument, each, "IDs in 0..2^32-2 (2^32-1 is INVALID_IOASID)")
        yield first, last
        end = last


def queue_size(value: Any) -> int:
    """Check a queue's bound: an int in 1..2^20."""
    if type(value) is int and 0 < value <= MAX_QUEUE:
        return value
    refuse("queue_size", value, "a whole number in 1..2^20")


def page_size(value: Any) -> int:
    """Check how much a page may hold: an int in 1..1,000."""
    if type(value) is int and 0 < value <= MAX_PAGE:
        return value
    refuse("limit", value, f"a whole number in 1..{MAX_PAGE}")


def seconds(value: Any, argument: str) -> float | None:
    """Check a deadline: a number of seconds above 0, or `None` for never."""
    if value is None:
        return None
    if type(value) is float and 0 < value < float("inf"):
        return value
    # One that no message can carry could not be kept.
    if type(value) is int and 0 < value <= MAX_NUMBER:
        return float(value)
    refuse(argument, value, "a number of seconds above 0, or none for never")


def time(value: Any, argument: str) -> float:
    """Check what a clock shows: a number of seconds in -2^63..2^63 without the ends."""
    if type(value) in (float, int) and -MAX_TIME < value < MAX_TIME:
        return float(value)
    refuse(argument, value, "a number of seconds")


def _utf8_length(value: str) -> int:
    # Short ASCII is the rule; a lone surrogate has no UTF-8 form and so no length that would do.
    if value.isascii():
        return len(value)
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return MAX_DATA + 1
