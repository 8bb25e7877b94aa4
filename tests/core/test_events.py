"""What subscribers are told: what is left out of an event is what it does not have."""

from ioasid.core import Event, EventKind, Resync
from tests.core.helpers import Driver


def test_defaults() -> None:
    """An event of an ID without token, spid and data, by the allocator itself, says none."""
    plain = Event(1, EventKind.ALLOC, 5, 0)
    assert Event(1, EventKind.ALLOC, 5, 0, None, None, None, None, 0) == plain


def test_an_event_says_all_there_is_of_its_id(driver: Driver) -> None:
    """Set, token, spid and data come with it, as they were when it came about."""
    driver.set("vm-1")
    kvm = driver.subscribe("kvm")
    ioasid = driver.bound(spid=7)
    driver.unbind(ioasid)
    assert Event(3, EventKind.UNBIND, ioasid, 0, "vm-1", 7, generation=1) == driver.last(kvm)


def test_events_and_resyncs_are_numbered_together(driver: Driver) -> None:
    """A Resync takes the next number, as an event does."""
    driver.set("vm-1")
    ioasid = driver.alloc()
    first = driver.subscribe("kvm", replay=True)
    driver.alloc()
    resync, alloc = driver.messages(first)
    assert isinstance(resync, Resync)
    assert [ioasid] == [each.ioasid for each in resync]
    assert (2, 3) == (resync.seq, alloc.seq)
