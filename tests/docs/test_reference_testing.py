"""The reference of `ioasid.testing` has every name, and how each is called, as the code has it."""

import inspect
from typing import Any, Final

import pytest

import ioasid.testing
from tests.docs.test_reference import OF_TESTING, Section, code, members, sections, signature

NAMES: Final[dict[str, Any]] = {
    name: getattr(ioasid.testing, name) for name in ioasid.testing.__all__
}
BY_NAME: Final[dict[str, Section]] = {
    each.name: each for each in sections(OF_TESTING) if each.name is not None
}


def test_every_name_has_its_place() -> None:
    """Each public name has a heading, and no name is a stranger's."""
    assert {*NAMES} == {*BY_NAME}


@pytest.mark.parametrize("name", [name for name, each in NAMES.items() if inspect.isclass(each)])
def test_members(name: str) -> None:
    """A class's table has its public methods, with their signatures, and attributes."""
    rows = [code(row["member"]) for row in BY_NAME[name].rows("member")]
    assert sorted(members(NAMES[name])) == sorted(rows)


@pytest.mark.parametrize("name", [name for name, each in NAMES.items() if inspect.isfunction(each)])
def test_signatures(name: str) -> None:
    """A function is called as the page shows it."""
    assert f"`{name}{signature(NAMES[name])}`" == BY_NAME[name].item("Signature")


@pytest.mark.parametrize("name", ["CheckedAllocator", "FakeKernel"])
def test_constructors(name: str) -> None:
    """So is a class that is made by whoever uses it, and is no record."""
    assert f"`{name}{signature(NAMES[name])}`" == BY_NAME[name].item("Constructor")
