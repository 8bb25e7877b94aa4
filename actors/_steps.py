"""What tests and tools are given of a host's actors, and where they crash one."""

from collections.abc import Callable
from typing import TypeAlias

from ioasid.actors._taps import Decision, Step

__all__ = ["Fault", "HostTap", "PlantedFault"]


HostTap: TypeAlias = Callable[[Decision | Step], object]
"""Is called with every step of the actors and every decision of the allocator, in order.

It must not wait, and changes nothing. One that raises is logged and removed.
"""

Fault: TypeAlias = Callable[[Step], object]
"""Is called at every step of an actor, after the taps: what it raises crashes the actor there.

The place to plant faults, for tests.
"""


class PlantedFault(Exception):
    """What an actor crashes with when it is told to, or where a fault is planted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
