"""The errors of the device actors: each carries its errno and its facts."""

import pytest

import ioasid.actors
from ioasid.core import IoasidError
from tests.core.test_errors import check_errno, check_message, check_template, concrete, facts

CONCRETE = concrete(ioasid.actors)
ERRNOS = {
    "ActorCrashed": "EIO",
    "ActorStopped": "ESHUTDOWN",
    "AlreadyProgrammed": "EEXIST",
    "AsksItself": "EDEADLK",
    "ContextStopping": "EBUSY",
    "DeviceExists": "EEXIST",
    "DmaFault": "EFAULT",
    "NotBound": "ENOENT",
    "NotProgrammed": "ENOENT",
    "PasidFault": "EFAULT",
    "PasidTooWide": "EOVERFLOW",
    "PasidZero": "EINVAL",
    "RequestFailed": "EIO",
    "UnbindPending": "EBUSY",
    "UnknownDevice": "ENOENT",
    "UnknownProcess": "ENOENT",
    "UnknownTransfer": "ENOENT",
    "VmClosed": "ENOENT",
    "VmExists": "EEXIST",
    "WrongThread": "EPERM",
}


def test_every_error_is_listed() -> None:
    """The table of errnos here names every error of the device actors and no other."""
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


@pytest.mark.parametrize("kind", CONCRETE)
def test_errors_can_be_raised(kind: type[IoasidError]) -> None:
    """Every error is an IoasidError of its errno's family, and can be raised and caught."""
    with pytest.raises(IoasidError) as caught:
        raise kind(**facts(kind))
    assert kind is type(caught.value)
    family = {"ENOENT": "NotFound", "EEXIST": "AlreadyExists", "EBUSY": "Busy"}
    expected = family.get(ERRNOS[kind.__name__], "IoasidError")
    assert expected in [each.__name__ for each in kind.__mro__]
