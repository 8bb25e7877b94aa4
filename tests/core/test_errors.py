"""Errors: each carries its errno and its facts, and says what to do."""

import errno
import inspect
from string import Formatter
from types import ModuleType
from typing import Any, get_type_hints

import pytest
from attrs import fields

import ioasid.core
from ioasid.core import (
    AlreadyExists,
    Busy,
    InvalidArgument,
    InvalidRequest,
    Ioasid,
    IoasidError,
    MalformedMessage,
    NoSpace,
    NotCommitted,
    NotFound,
    UnknownSet,
    UnknownToken,
)


class Unnamed(type):
    """The type of a type that does not tell its name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("never name")


class Nameless(metaclass=Unnamed):
    """Has neither a name nor a repr."""

    def __repr__(self) -> str:
        raise RuntimeError("never show")


def bush(levels: int) -> list[Any]:
    """A list that holds another one twice, and so on: its repr would have no end."""
    grown: list[Any] = []
    for _ in range(levels):
        grown = [grown, grown]
    return grown


ABSTRACT = (AlreadyExists, Busy, InvalidRequest, IoasidError, NoSpace, NotCommitted, NotFound)


def concrete(package: ModuleType) -> list[type[IoasidError]]:
    """The errors of a package that are raised, sorted by name."""
    kinds = [value for value in vars(package).values() if inspect.isclass(value)]
    raised = [each for each in kinds if issubclass(each, IoasidError) and each not in ABSTRACT]
    return sorted(raised, key=lambda kind: kind.__name__)


CONCRETE = concrete(ioasid.core)
ERRNOS = {
    "AllocatorClosed": "ESHUTDOWN",
    "AlreadyBound": "EEXIST",
    "AlreadySubscribed": "EEXIST",
    "CapacityExhausted": "ENOSPC",
    "CapacityInUse": "EBUSY",
    "DataTaken": "EBUSY",
    "DiskFailed": "EIO",
    "DiskFull": "ENOSPC",
    "DiskReadOnly": "EROFS",
    "GroupExhausted": "ENOSPC",
    "GroupExists": "EEXIST",
    "GroupNotEmpty": "EBUSY",
    "HolderLive": "EEXIST",
    "HolderOfAnother": "EACCES",
    "InvalidArgument": "EINVAL",
    "IoasidFreePending": "EBUSY",
    "LimitBelowUse": "EINVAL",
    "MalformedMessage": "EBADMSG",
    "NoSpid": "EINVAL",
    "NotOfThisSet": "EACCES",
    "NotReferenced": "EINVAL",
    "NotReserved": "EINVAL",
    "QuotaBelowUse": "EINVAL",
    "QuotaExceeded": "EDQUOT",
    "RangeFull": "ENOSPC",
    "RangeNotReserved": "ENOENT",
    "RangeTaken": "EBUSY",
    "SessionEnded": "ESTALE",
    "SetFreePending": "EBUSY",
    "SetFrozen": "EBUSY",
    "SetNotFrozen": "EBUSY",
    "SpidInUse": "EEXIST",
    "SystemSetExists": "EEXIST",
    "TokenInUse": "EEXIST",
    "TooManyEvents": "EAGAIN",
    "UnknownGroup": "ENOENT",
    "UnknownHolder": "ENOENT",
    "UnknownIoasid": "ENOENT",
    "UnknownSet": "ENOENT",
    "UnknownSpid": "ENOENT",
    "UnknownSubscription": "ENOENT",
    "UnknownToken": "ENOENT",
    "WouldDeadlock": "EDEADLK",
    "StaleIoasid": "ESTALE",
}


def facts(kind: type[IoasidError]) -> dict[str, Any]:
    """A value that can be recognised for every fact of an error."""
    hints = get_type_hints(kind)
    return {
        each.name: 1000 + index if hints[each.name] is int else f"<{each.name}>"
        for index, each in enumerate(fields(kind))
    }


WITHOUT_ADVICE = {MalformedMessage}
"""Its reason is all that is known, and may be the whole message of another error."""


def check_errno(kind: type[IoasidError], code: str) -> None:
    """An error has the number and the name of this errno, and its docstring starts with it."""
    error = kind(**facts(kind))
    assert code == error.code
    assert getattr(errno, code) == error.errno
    assert code == (inspect.getdoc(kind) or "").partition(": ")[0]


def check_template(kind: type[IoasidError]) -> None:
    """An error has one template, which names each of its facts once, and then what to do."""
    assert "template" in vars(kind)
    parts = list(Formatter().parse(kind.template))
    assert sorted(facts(kind)) == sorted(name for _, name, _, _ in parts if name is not None)
    assert {("", "r"), ("", None), (None, None)} >= {(form, how) for _, _, form, how in parts}
    text = kind.template
    assert " ".join(text.split()) == text
    assert not text.endswith((".", "!", ";"))
    found, _, advice = text.partition("; ")
    assert found
    assert bool(advice) == (kind not in WITHOUT_ADVICE)


def check_message(kind: type[IoasidError]) -> None:
    """An error has its facts, its message is the template with them, and its text has both."""
    given = facts(kind)
    error = kind(**given)
    assert given == {name: getattr(error, name) for name in given}
    # The token of a set is there if the set has one, and others if there are some.
    told: dict[str, str] = {}
    if "{sid}{token}" in kind.template:
        told["token"] = f" ({given['token']!r})"
    if "{others}" in kind.template:
        told["others"] = f", nor does the set have {given['others']:,} more of these"
    assert kind.template.format(**given | told) == error.message
    without = kind(**given | {each: type(given[each])() for each in told})
    assert kind.template.format(**given | dict.fromkeys(told, "")) == without.message
    assert f"{error.code}: {error.message}" == str(error)
    assert "message" not in vars(kind)


def test_every_error_is_listed() -> None:
    """The table of errnos here names every concrete error and no other."""
    assert sorted(ERRNOS) == [kind.__name__ for kind in CONCRETE]


@pytest.mark.parametrize("kind", CONCRETE)
def test_errno(kind: type[IoasidError]) -> None:
    """An error carries the number and the name of the errno that the field uses."""
    check_errno(kind, ERRNOS[kind.__name__])


@pytest.mark.parametrize("kind", CONCRETE)
def test_template(kind: type[IoasidError]) -> None:
    """Every error has one template, with all of its facts and what to do."""
    check_template(kind)


@pytest.mark.parametrize("kind", CONCRETE)
def test_message_is_derived_from_the_facts(kind: type[IoasidError]) -> None:
    """The message is the template with the facts, and the text starts with the errno."""
    check_message(kind)


@pytest.mark.parametrize("kind", ABSTRACT)
def test_inner_classes_have_no_template(kind: type[IoasidError]) -> None:
    """What is only there to be caught has an errno that has a name, and the root's template."""
    assert kind.template == IoasidError.template
    assert f"{errno.errorcode[kind.errno]}: the request failed" == str(kind())


def test_the_message_is_made_when_asked_for() -> None:
    """A refusal that nobody reads costs no text: the message follows the facts as they are."""
    error = UnknownSet(1)
    error.sid = 2
    assert "there is no set 2; allocate one with alloc_set" == error.message


def test_a_fact_is_no_template() -> None:
    """Braces in a fact are shown as they came."""
    assert "'{token} {0} }{'" in UnknownToken("{token} {0} }{").message


@pytest.mark.parametrize("kind", CONCRETE)
def test_errors_can_be_raised(kind: type[IoasidError]) -> None:
    """Every error is caught as an IoasidError."""
    with pytest.raises(IoasidError) as caught:
        raise kind(**facts(kind))
    assert facts(kind).keys() == {each.name for each in fields(type(caught.value))}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "None"),
        ("x" * 58, f"'{'x' * 58}'"),
        ("x" * 59, f"'{'x' * 56}..."),
        (10**5000, "a value without a repr (int)"),
        (8.0, "8.0 (float)"),
        (Ioasid(8, 1), "8 (Ioasid)"),
        (bush(100), "[[[[...], [...]], [[...], [...]]], [[[...], [...]], [[......"),
        (Nameless(), "a value without a repr (Nameless)"),
    ],
    ids=("short", "longest", "too-long", "unspeakable", "float", "subclass", "bush", "nameless"),
)
def test_any_value_is_shown(value: object, found: str) -> None:
    """An argument is shown as far as it can be: in short, with its type unless that is seen."""
    error = InvalidArgument.of("quota", value, "more")
    assert ("quota", found, "more") == (error.argument, error.found, error.expected)


def test_an_error_can_carry_a_traceback_and_notes() -> None:
    """An error is an exception like any other: it takes notes and a cause."""
    error = InvalidArgument("quota", "0", "more")
    error.add_note("from a test")
    assert ["from a test"] == error.__notes__
