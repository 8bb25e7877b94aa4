"""The checks of the state: each finds what it is there to find.

A core that is right passes them all, after every step of every history in tests/core. Here each
is shown a state that is wrong in one place.
"""

from collections.abc import Callable

import pytest

from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    AttachSpid,
    EventKind,
    Free,
    FreeSet,
    Get,
    OpenSession,
    Priority,
    Subscribe,
    SuspendSession,
    TokenType,
)
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._tables import Tables
from ioasid.testing import InvariantViolated, check_state, nothing_leaks, unchanged

BINDINGS = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


def busy() -> Allocator:
    """An allocator with something in every table: IDs 1 to 4, the last one in quarantine.

    1 and 2 are bound and on their way to "kvm", 3 is referenced by the host and by "vtd", which
    crashed.
    """
    core = Allocator(8)
    host = core.session
    for name in ("kvm", "vtd"):
        core.handle(host, OpenSession(name))
    kvm, vtd = 2, 3
    core.handle(host, AllocSet("vm-1", 5))
    for _ in range(4):
        core.handle(host, Alloc(0))
    core.handle(kvm, Subscribe(kinds=BINDINGS, priority=Priority.CPU, hold=True))
    core.handle(vtd, Subscribe(kinds=BINDINGS, priority=Priority.IOMMU, hold=True))
    for ioasid, spid in ((1, 11), (2, 12)):
        core.handle(host, AttachSpid(ioasid, spid))
    core.handle(host, Get(3))
    core.handle(vtd, Get(3))
    core.handle(host, Free(4))
    core.handle(vtd, SuspendSession())
    core.drain()
    return core


def overspend(tables: Tables) -> None:
    """Give more than there is."""
    tables.available += 1


def exceed(tables: Tables) -> None:
    """Allow a set less than it has."""
    tables.sets[0].quota -= 2
    tables.available += 2


def own_twice(tables: Tables) -> None:
    """Count an ID of the set as free."""
    other = IoasidSet(0, None, TokenType.NULL, 1, allocated=1, members={0: 1 << 3})
    tables.space.release(other, 3, 1 << 3)


def recycle(tables: Tables) -> None:
    """Take an ID from its set that a holder references."""
    tables.holders["host"].references[7] = 1


def lose_a_spid(tables: Tables) -> None:
    """Forget what a spid leads to."""
    del tables.sets[0].spids[11]


def run_ahead(tables: Tables) -> None:
    """Wait for a lower tier that has not been offered the event."""
    next(iter(tables.chained[1].chain)).waiting[2] = tables.subscriptions[2]


def wake_a_suspended_one(tables: Tables) -> None:
    """Count a subscription of a suspended holder as attached."""
    next(iter(tables.holders["vtd"].subscriptions.values())).attached = True


def forget_a_reference(tables: Tables) -> None:
    """Let an ID forget who holds it."""
    tables.sets[0].records[3].holders = ()


def forget_a_grant(tables: Tables) -> None:
    """Let an ID forget who was granted a reference."""
    tables.sets[0].records[2].granted = ()


def overfill(tables: Tables) -> None:
    """Allow a queue less than is in it."""
    tables.subscriptions[1].queue_size = 1


def leave_undecided(tables: Tables) -> None:
    """Leave a record to be settled."""
    tables.unsettled[1] = tables.sets[0].records[1]


def miscount(tables: Tables) -> None:
    """Count one ID in quarantine too many."""
    tables.quarantine[99] = tables.sets[0].records[1]


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (1, overspend),
        (1, exceed),
        (2, own_twice),
        (3, recycle),
        (4, lose_a_spid),
        (6, run_ahead),
        (9, wake_a_suspended_one),
        (0, forget_a_reference),
        (0, forget_a_grant),
        (0, overfill),
        (0, leave_undecided),
        (0, miscount),
    ],
)
def test_a_wrong_state_is_found(number: int, fault: Callable[[Tables], None]) -> None:
    """The check of the invariant that a fault breaks finds it and names it."""
    core = busy()
    check_state(core)
    fault(core._tables)
    with pytest.raises(InvariantViolated) as caught:
        check_state(core)
    assert number == caught.value.number


def test_nothing_leaks() -> None:
    """An allocator that still knows somebody is not as at the start."""
    with pytest.raises(InvariantViolated, match="the books"):
        nothing_leaks(busy())


def test_unchanged() -> None:
    """A state that differs from before, or something that is to be done, is a change."""
    core = busy()
    before = core.snapshot()
    unchanged(before, core)
    core.handle(core.session, FreeSet(0))
    with pytest.raises(InvariantViolated, match="refused"):
        unchanged(before, core)
