"""What an ID may be, as far as its events tell: the four states of a life, and who may know.

A subscriber that is told only some kinds of events can't tell which of several states an ID is
in; `after` gives all that are possible, and none if the event can't be.
"""

from functools import cache
from typing import Final

from ioasid.core import EventKind, IoasidState, LiveIoasid

__all__: list[str] = []

ABSENT: Final = "absent"
UNBOUND: Final = "unbound"
BOUND: Final = "bound"
PENDING: Final = "free pending"

ANY_STATE: Final = frozenset((ABSENT, UNBOUND, BOUND, PENDING))

MOVES: Final[dict[EventKind, dict[str, str]]] = {
    EventKind.ALLOC: {ABSENT: UNBOUND},
    EventKind.BIND: {UNBOUND: BOUND},
    EventKind.UNBIND: {BOUND: UNBOUND},
    EventKind.FREE: {UNBOUND: PENDING, BOUND: PENDING},
    EventKind.RECLAIM: {PENDING: ABSENT},
}
"""Invariant 5: what an event makes of an ID, by what it was."""


@cache
def after(states: frozenset[str], kind: EventKind, told: frozenset[EventKind]) -> frozenset[str]:
    """Return what an ID may be after an event, for one who is told these kinds and no others."""
    hidden = [moves for each, moves in MOVES.items() if each not in told]
    possible, reached = states, states
    while reached:
        reached = frozenset(moves[each] for moves in hidden for each in reached if each in moves)
        reached -= possible
        possible |= reached
    return frozenset(MOVES[kind][each] for each in possible if each in MOVES[kind])


def state_of(live: LiveIoasid) -> str:
    """Return the state of an ID in a listing."""
    if live.state is IoasidState.FREE_PENDING:
        return PENDING
    return UNBOUND if live.spid is None else BOUND
