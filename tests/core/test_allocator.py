"""The door: sessions that are over, what is no request, and what whoever drives it can look up."""

import math

import pytest

from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    AttachSpid,
    Done,
    Evict,
    Free,
    Get,
    InvalidArgument,
    IoasidState,
    MalformedMessage,
    Put,
    Released,
    ReserveCapacity,
    SessionEnded,
    Statistics,
    Subscribe,
    TakeStatistics,
)
from tests.core.helpers import Driver, expect, refused

ACTIVE = IoasidState.ACTIVE


@pytest.mark.parametrize("capacity", [0, -1, 2**32, True, 1.0, "1", None])
def test_capacity_is_checked(capacity: object) -> None:
    """EINVAL: a capacity outside 1..2^32-1."""
    with pytest.raises(InvalidArgument, match="capacity"):
        Allocator(capacity)  # type: ignore[arg-type]


def test_a_pasid_has_20_bits() -> None:
    """That is how many there are, unless it is said otherwise."""
    figures = expect(Statistics, (core := Allocator()).handle(core.session, TakeStatistics()))
    assert 2**20 == figures.capacity


def test_who_gives_no_ticket_waits_with_number_0(driver: Driver) -> None:
    """Where one request at a time waits, it needs no number."""
    driver.set()
    ioasid = driver.alloc()
    driver.ask(Get(ioasid), "kvm")
    assert driver.core.handle(driver.core.session, Free(ioasid, wait=True)) is None
    driver.ask(Put(ioasid), "kvm")
    assert [(0, Released(True))] == driver.completed()


def test_a_restored_allocator_speaks_for_the_oldest_session(driver: Driver) -> None:
    """Its session is the oldest that is live, and 0, which is nobody's, if none is."""
    for name in ("kvm", "vtd"):
        driver.session(name)
    assert driver.sessions["host"] == Allocator.restore(driver.core.snapshot()).session
    driver.ask(Evict("host"))
    assert driver.sessions["kvm"] == Allocator.restore(driver.core.snapshot()).session
    driver.core.suspend_all()
    assert 0 == Allocator.restore(driver.core.snapshot()).session


@pytest.mark.parametrize("session", [0, 99, 2**64 - 1])
def test_ended_sessions(driver: Driver, session: int) -> None:
    """ESTALE: a session that is not live asks for nothing, whatever it asks for."""
    for request in (TakeStatistics(), AllocSet("vm-1", 1), "nonsense"):
        error = refused(driver.core, SessionEnded, request, session)
        assert session == getattr(error, "session", None)


def test_the_last_session_may_leave(driver: Driver) -> None:
    """An allocator without sessions goes on; whoever drives it opens one."""
    driver.set()
    driver.ask(Evict("host"))
    assert 0 == driver.core.open_session("kvm").session - 2


def test_suspend_all(driver: Driver) -> None:
    """Every session crashes at once: who has something is suspended, the others are gone."""
    driver.set()
    driver.ask(Get(driver.alloc()), "kvm")
    driver.session("vtd")
    driver.core.suspend_all()
    assert [("kvm", None)] == [(each.name, each.session) for each in driver.core.snapshot().holders]
    refused(driver.core, SessionEnded, TakeStatistics(), driver.core.session)
    assert driver.core.open_session("kvm").resumed
    assert not driver.core.open_session("host").resumed


def test_record(driver: Driver) -> None:
    """Whoever drives the allocator reads an ID's record without a session."""
    assert driver.core.record(1) is None
    driver.set()
    assert driver.find(driver.bound()) == driver.core.record(1)
    with pytest.raises(InvalidArgument, match="ioasid"):
        driver.core.record(-1)


@pytest.mark.parametrize("stranger", [None, 7, "Alloc", Done(), {"type": "Alloc"}, Alloc, object()])
def test_what_is_no_request(driver: Driver, stranger: object) -> None:
    """EBADMSG: an object that is none of the requests."""
    error = refused(driver.core, MalformedMessage, stranger, driver.core.session)
    assert type(stranger).__name__ in str(error)


def test_statistics(driver: Driver) -> None:
    """All the figures, taken at once."""
    driver.ask(ReserveCapacity(4))
    driver.set(quota=10)
    driver.set("vm-2", 20)
    for _ in range(3):
        driver.alloc()
    driver.ask(Get(1), "kvm")
    driver.free(1)
    driver.subscribe("vtd")
    driver.ask(AttachSpid(2, 7))
    figures = driver.figures()
    assert (64, 4, 30) == (figures.capacity, figures.reserved, figures.available)
    assert (2, 0, 2, 1) == (
        figures.sets,
        figures.sets_free_pending,
        figures.active,
        figures.free_pending,
    )
    assert (3, 0, 1) == (figures.sessions, figures.suspended, figures.subscriptions)
    assert (5, 1, 0) == (figures.seq, figures.under_way, figures.mailbox)
    assert ["vtd"] == [each.holder for each in figures.lagging]


@pytest.mark.parametrize("now", [0, 1.5, -3, 2**63 - 1, 1 - 2**63])
def test_tick(driver: Driver, now: float) -> None:
    """Any clock will do."""
    driver.core.tick(now)


@pytest.mark.parametrize("now", ["1", None, True, 1j, math.nan, math.inf, 2**63, -(2**63)])
def test_tick_is_checked(driver: Driver, now: object) -> None:
    """EINVAL: a time that is no number, or that no figure could tell."""
    with pytest.raises(InvalidArgument, match="now"):
        driver.core.tick(now)  # type: ignore[arg-type]


def test_two_allocators_share_nothing() -> None:
    """Nothing is global: what one does, the other does not see."""
    one, other = Driver(), Driver()
    before = other.core.snapshot()
    one.set()
    one.bound()
    one.subscribe("kvm")
    assert before == other.core.snapshot()


def test_a_subscriber_costs_others_nothing(driver: Driver) -> None:
    """An event for one set comes out for that set's subscribers only, however many there are."""
    for number in range(10):
        driver.set(f"vm-{number}", 2)
        driver.ask(Subscribe(sid=number), f"kvm-{number}")
    before = len(driver.effects)
    driver.alloc(7)
    assert 1 == len(driver.effects) - before
