"""A reboot: what the host's boot is known by, and what is left of a state when it is forgotten."""

from ioasid.core import (
    Alloc,
    Allocator,
    AllocGroup,
    AllocMany,
    AllocSet,
    FreeSet,
    OpenSession,
    ReserveCapacity,
    ReserveRange,
    ReuseOrder,
    Subscribe,
    TakeStatistics,
)
from ioasid.journal._reboot import boot_id, forgotten
from tests.journal.histories import History


def test_a_boot_has_one_id() -> None:
    """The same boot is known by the same ID."""
    assert boot_id() == boot_id()


def test_what_is_forgotten_and_what_stays() -> None:
    """IDs, sets, holders and subscriptions go; groups, limits, reservations and counters stay."""
    history = History(Allocator(1024, order=ReuseOrder.CYCLIC))
    for request in (
        ReserveCapacity(5),
        ReserveRange(100, 109),
        AllocGroup("tenant", 50),
        AllocSet("vm-1", 20, group="tenant"),
        AllocSet("vm-2", 20),
        Alloc(0),
        Alloc(1),
        Subscribe(hold=True),
    ):
        history.ask(request)
    before = history.core.snapshot()
    core = forgotten(history.core)
    after = core.snapshot()
    assert ((), (), (), ()) == (after.sets, after.holders, after.subscriptions, after.stages)
    for name in (
        "capacity",
        "reserved",
        "reserved_numbers",
        "groups",
        "order",
        "position",
        "next_sid",
        "generation",
        "next_session",
        "next_subscription",
        "seq",
        "index",
        "now",
    ):
        assert getattr(before, name) == getattr(after, name), name
    opened = core.handle(0, OpenSession("host"))
    session: int = opened.session  # type: ignore[union-attr]
    assert core.handle(session, AllocSet("vm-1", 20, group="tenant")).sid == 2  # type: ignore[union-attr]
    assert core.handle(session, Alloc(2)).generation == 3  # type: ignore[union-attr]
    assert core.handle(session, TakeStatistics()).active == 1  # type: ignore[union-attr]


def test_what_was_done_in_parts_is_forgotten() -> None:
    """What is left of a request goes with the set that it is about."""
    history = History(Allocator(64, part=1))
    for request in (AllocSet("vm-1", 20), AllocMany(0, 9), Subscribe(hold=True), FreeSet(0)):
        history.ask(request)
    assert history.core.has_work
    core = forgotten(history.core)
    assert not core.has_work
    assert ((), ()) == (core.snapshot().sets, core.snapshot().work)
