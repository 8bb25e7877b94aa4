"""Errors: each carries its errno and its facts, and says what to do."""

import errno
import inspect
from typing import Any, get_type_hints

import pytest
from attrs import fields

import ioasid.core
from ioasid.core import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    InvalidRequest,
    IoasidError,
    NoSpace,
    NotFound,
)

ABSTRACT = {AlreadyExists, Busy, InvalidRequest, IoasidError, NoSpace, NotFound}
CONCRETE = sorted(
    (
        value
        for value in vars(ioasid.core).values()
        if inspect.isclass(value) and issubclass(value, IoasidError) and value not in ABSTRACT
    ),
    key=lambda kind: kind.__name__,
)
ERRNOS = {
    "AllocatorClosed": "ESHUTDOWN",
    "AlreadyBound": "EEXIST",
    "AlreadySubscribed": "EEXIST",
    "CapacityExhausted": "ENOSPC",
    "CapacityInUse": "EBUSY",
    "DataTaken": "EBUSY",
    "HolderLive": "EEXIST",
    "InvalidArgument": "EINVAL",
    "IoasidFreePending": "EBUSY",
    "MalformedMessage": "EBADMSG",
    "NoSpid": "EINVAL",
    "NotOfThisSet": "EACCES",
    "NotReferenced": "EINVAL",
    "NotReserved": "EINVAL",
    "QuotaBelowUse": "EINVAL",
    "QuotaExceeded": "EDQUOT",
    "RangeFull": "ENOSPC",
    "SessionEnded": "ESTALE",
    "SetFreePending": "EBUSY",
    "SpidInUse": "EEXIST",
    "SystemSetExists": "EEXIST",
    "TokenInUse": "EEXIST",
    "TooManyEvents": "EAGAIN",
    "UnknownHolder": "ENOENT",
    "UnknownIoasid": "ENOENT",
    "UnknownSet": "ENOENT",
    "UnknownSpid": "ENOENT",
    "UnknownSubscription": "ENOENT",
    "UnknownToken": "ENOENT",
    "WouldDeadlock": "EDEADLK",
}


def facts(kind: type[IoasidError]) -> dict[str, Any]:
    """A value that can be recognised for every fact of an error."""
    hints = get_type_hints(kind)
    return {
        each.name: f"<{each.name}>" if hints[each.name] is str else 1000 + index
        for index, each in enumerate(fields(kind))
    }


def test_every_error_is_listed() -> None:
    """The table of errnos here names every concrete error and no other."""
    assert sorted(ERRNOS) == [kind.__name__ for kind in CONCRETE]


@pytest.mark.parametrize("kind", CONCRETE)
def test_errno(kind: type[IoasidError]) -> None:
    """An error carries the number and the name of the errno that the field uses."""
    error = kind(**facts(kind))
    assert ERRNOS[kind.__name__] == error.code
    assert getattr(errno, error.code) == error.errno


@pytest.mark.parametrize("kind", CONCRETE)
def test_message_is_derived_from_the_facts(kind: type[IoasidError]) -> None:
    """The message names the facts, and the text of the exception starts with the errno."""
    given = facts(kind)
    error = kind(**given)
    for name, fact in given.items():
        assert getattr(error, name) == fact
        assert str(fact) in error.message
    assert f"{error.code}: {error.message}" == str(error)


@pytest.mark.parametrize("kind", CONCRETE)
def test_errors_can_be_raised(kind: type[IoasidError]) -> None:
    """Every error is caught as an IoasidError."""
    with pytest.raises(IoasidError) as caught:
        raise kind(**facts(kind))
    assert facts(kind).keys() == {each.name for each in fields(type(caught.value))}


def test_the_root_has_a_message_of_its_own() -> None:
    """The root error, which nothing raises, can be shown as well."""
    assert "EIO: the request failed" == str(IoasidError())


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "None (NoneType)"),
        ("x" * 58, f"'{'x' * 58}' (str)"),
        ("x" * 59, f"'{'x' * 56}... (str)"),
        (10**5000, "a value without a repr (int)"),
    ],
    ids=("short", "longest", "too-long", "unspeakable"),
)
def test_any_value_is_shown(value: object, found: str) -> None:
    """An argument is shown as far as it can be: in short, and by its type at least."""
    error = InvalidArgument.of("quota", value, "an int")
    assert ("quota", found, "an int") == (error.argument, error.found, error.expected)


def test_an_error_can_carry_a_traceback_and_notes() -> None:
    """An error is an exception like any other: it takes notes and a cause."""
    error = InvalidArgument("quota", "0", "more")
    error.add_note("from a test")
    assert ["from a test"] == error.__notes__
