"""What a drawing is made of."""

from ioasid.core import Priority
from ioasid.recorder._rows import Waits


def test_what_an_id_waits_for() -> None:
    """It is any of the tiers, in their order, or a reference."""
    assert [*map(str, Priority), "REFERENCE"] == [*map(str, Waits)]
