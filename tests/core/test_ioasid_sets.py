"""The IDs of a set, in order, whatever word of the space they lie in."""

from ioasid.core import (
    Alloc,
    FreeSet,
    Listing,
    ListSet,
)
from tests.core.helpers import Driver, expect


def test_ids_are_told_in_ascending_order() -> None:
    """By set and within a set, whatever was made or allocated first."""
    driver = Driver(4096)
    sids = [driver.set(None), driver.set(None)]
    driver.ask(FreeSet(0))
    assert [1, 2] == [sids[1], driver.set(None)]
    for sid, low in ((2, 2048), (1, 1024), (2, 1), (1, 5)):
        driver.ask(Alloc(sid, low))
    everything = driver.subscribe("vtd", replay=True)
    expected = [(1, 5), (1, 1024), (2, 1), (2, 2048)]
    assert expected == [(each.sid, each.ioasid) for each in driver.resync(everything)]
    listing = expect(Listing, driver.ask(ListSet(1)))
    assert [5, 1024] == [each.ioasid for each in listing]
