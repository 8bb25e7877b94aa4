"""The invariants of the allocator, as `ioasid.testing` checks them, for the tests of the core."""

from ioasid.testing._invariants import check_state, nothing_leaks, unchanged
from ioasid.testing._lives import Life, ends_acknowledged, named_in
from ioasid.testing._observer import Observer, Observers, covers, live_ids
from ioasid.testing._states import ABSENT, state_of

__all__ = [
    "ABSENT",
    "Life",
    "Observer",
    "Observers",
    "check_state",
    "covers",
    "ends_acknowledged",
    "live_ids",
    "named_in",
    "nothing_leaks",
    "state_of",
    "unchanged",
]
