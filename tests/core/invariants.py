"""The invariants of the allocator, as `ioasid.testing` checks them, for the tests of the core."""

from ioasid.testing._invariants import check_state, nothing_leaks, unchanged
from ioasid.testing._observer import (
    PENDING,
    Observer,
    Observers,
    covers,
    live_ids,
    state_of,
)

__all__ = [
    "PENDING",
    "Observer",
    "Observers",
    "check_state",
    "covers",
    "live_ids",
    "nothing_leaks",
    "state_of",
    "unchanged",
]
