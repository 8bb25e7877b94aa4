"""The errors of the device actors: each carries its errno and its facts."""

import errno
import inspect
from typing import Any, get_type_hints

import pytest
from attrs import fields

import ioasid.actors
from ioasid.core import IoasidError

CONCRETE = sorted(
    (
        value
        for value in vars(ioasid.actors).values()
        if inspect.isclass(value) and issubclass(value, IoasidError)
    ),
    key=lambda kind: kind.__name__,
)
ERRNOS = {
    "ActorCrashed": "EIO",
    "ActorStopped": "ESHUTDOWN",
    "AlreadyProgrammed": "EEXIST",
    "ContextStopping": "EBUSY",
    "DeviceExists": "EEXIST",
    "DmaFault": "EFAULT",
    "NotBound": "ENOENT",
    "NotProgrammed": "ENOENT",
    "PasidFault": "EFAULT",
    "UnbindPending": "EBUSY",
    "UnknownDevice": "ENOENT",
    "UnknownProcess": "ENOENT",
    "UnknownTransfer": "ENOENT",
    "VmClosed": "ENOENT",
    "VmExists": "EEXIST",
}


def facts(kind: type[IoasidError]) -> dict[str, Any]:
    """A value that can be recognised for every fact of an error."""
    hints = get_type_hints(kind)
    return {
        each.name: f"<{each.name}>" if hints[each.name] is str else 1000 + index
        for index, each in enumerate(fields(kind))
    }


def test_every_error_is_listed() -> None:
    """The table of errnos here names every error of the device actors and no other."""
    assert sorted(ERRNOS) == [kind.__name__ for kind in CONCRETE]


@pytest.mark.parametrize("kind", CONCRETE)
def test_errno(kind: type[IoasidError]) -> None:
    """An error carries the number and the name of the errno that the field uses."""
    error = kind(**facts(kind))
    assert ERRNOS[kind.__name__] == error.code
    assert getattr(errno, error.code) == error.errno


@pytest.mark.parametrize("kind", CONCRETE)
def test_message_is_derived_from_the_facts(kind: type[IoasidError]) -> None:
    """The message names every fact, and the text of the exception starts with the errno."""
    given = facts(kind)
    error = kind(**given)
    for name, fact in given.items():
        assert fact == getattr(error, name)
        assert str(fact) in error.message
    assert f"{error.code}: {error.message}" == str(error)


@pytest.mark.parametrize("kind", CONCRETE)
def test_errors_can_be_raised(kind: type[IoasidError]) -> None:
    """Every error is an IoasidError of its errno's family, and can be raised and caught."""
    with pytest.raises(IoasidError) as caught:
        raise kind(**facts(kind))
    assert kind is type(caught.value)
    family = {"ENOENT": "NotFound", "EEXIST": "AlreadyExists", "EBUSY": "Busy"}
    expected = family.get(ERRNOS[kind.__name__], "IoasidError")
    assert expected in [each.__name__ for each in kind.__mro__]
