"""What an ID may be after an event, for one who is told some kinds only."""

import pytest

from ioasid.core import EventKind, IoasidState, LiveIoasid
from ioasid.testing._states import ABSENT, ANY_STATE, BOUND, PENDING, UNBOUND, after, state_of

EVERYTHING = frozenset(EventKind)


@pytest.mark.parametrize(
    ("before", "kind", "states"),
    [
        ({ABSENT}, EventKind.ALLOC, {UNBOUND}),
        ({UNBOUND}, EventKind.BIND, {BOUND}),
        ({BOUND}, EventKind.UNBIND, {UNBOUND}),
        ({UNBOUND, BOUND}, EventKind.FREE, {PENDING}),
        ({PENDING}, EventKind.RECLAIM, {ABSENT}),
        (ANY_STATE, EventKind.UNBIND, {UNBOUND}),
        ({UNBOUND}, EventKind.UNBIND, set()),
        ({ABSENT}, EventKind.RECLAIM, set()),
        ({BOUND}, EventKind.ALLOC, set()),
    ],
)
def test_who_is_told_everything_knows(before: set[str], kind: EventKind, states: set[str]) -> None:
    """With every kind told, an event leads from one state to one, or can't be."""
    assert states == after(frozenset(before), kind, EVERYTHING)


def test_hidden_events_may_lie_between() -> None:
    """What may follow depends on what a subscriber is told: the rest may have happened."""
    absent = frozenset((ABSENT,))
    assert {ABSENT} == after(absent, EventKind.RECLAIM, frozenset((EventKind.RECLAIM,)))
    assert {UNBOUND} == after(absent, EventKind.UNBIND, frozenset((EventKind.UNBIND,)))
    no_bind = EVERYTHING - {EventKind.BIND}
    assert {PENDING} == after(frozenset((UNBOUND,)), EventKind.FREE, no_bind)


@pytest.mark.parametrize(
    ("state", "spid", "expected"),
    [
        (IoasidState.ACTIVE, None, UNBOUND),
        (IoasidState.ACTIVE, 7, BOUND),
        (IoasidState.FREE_PENDING, 7, PENDING),
        (IoasidState.FREE_PENDING, None, PENDING),
    ],
)
def test_a_listing_tells_the_state(state: IoasidState, spid: int | None, expected: str) -> None:
    """What is being freed is pending, bound or not; else the spid makes the difference."""
    live = LiveIoasid(ioasid=1, sid=0, token=None, state=state, spid=spid, data=None)
    assert expected == state_of(live)
