"""The bounds of a server."""

from attrs import fields

from ioasid.service import Limits


def test_every_bound_is_documented_and_positive() -> None:
    """Each has a default above 0 and is explained where it is declared."""
    for each in fields(Limits):
        assert getattr(Limits(), each.name) > 0
    assert Limits(requests=5) != Limits()
