"""The errors of the service: facts, errno, and from a refusal back."""

import errno

import pytest
from attrs import fields

from ioasid.core import IoasidError, Refused, UnknownSet, refusal_of
from ioasid.service import RefusedByServer
from ioasid.service._errors import _OWN, error_from

FACTS = {int: 5, str: "text"}


@pytest.mark.parametrize("kind", _OWN.values(), ids=_OWN.keys())
def test_every_error_crosses(kind: type[IoasidError]) -> None:
    """Its facts are in its message, its errno has a name, and it comes back as it was."""
    facts = {each.name: FACTS[each.type] for each in fields(kind)}
    error = kind(**facts)
    assert error.errno in errno.errorcode
    assert ";" in error.template or kind is RefusedByServer
    again = error_from(refusal_of(error))
    assert (kind, str(error)) == (type(again), str(again))
    for fact in facts.values():
        assert str(fact) in str(error)


def test_errors_of_the_core_come_back() -> None:
    """With their facts."""
    error = error_from(refusal_of(UnknownSet(7)))
    assert isinstance(error, UnknownSet)
    assert 7 == error.sid


def test_an_error_that_is_not_known_here() -> None:
    """It is still an error of this tree, and says what the server said."""
    for refused in (
        Refused("Tired", "EAGAIN", "sleep first", {}),
        Refused("UnknownSet", "ENOENT", "there is none", {"new": 5}),
        Refused("TooMany", "EAGAIN", "too many", {"what": "x"}),
    ):
        error = error_from(refused)
        assert isinstance(error, RefusedByServer)
        assert refused.message in str(error)
        assert (refused.error, refused.code) == (error.error, error.name)
