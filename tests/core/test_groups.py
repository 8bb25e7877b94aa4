"""A group knows how deep it is."""

from ioasid.core._groups import Group


def test_depth() -> None:
    """One at the top is 1 deep, and each below it one deeper."""
    top = Group("a", None, 8)
    middle = Group("b", top, 8)
    assert [1, 2, 3] == [each.depth for each in (top, middle, Group("c", middle, 8))]
