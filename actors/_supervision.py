"""Supervision: what an actor is made with, its state, its restarts, and what it posts to itself."""

from collections.abc import Collection
from typing import Any, Final, TypedDict

from attrs import frozen

from ioasid.actors._steps import Fault, HostTap
from ioasid.core import InvalidArgument, Message

__all__ = ["ActorOptions", "ActorStatistics"]

FACTOR: Final = 4
"""How much longer each wait before a restart is than the one before."""
LONGEST: Final = 60.0
"""Seconds; no wait grows beyond."""
MOST_SECONDS: Final = 1e9
"""The longest first wait there may be."""


class ActorOptions(TypedDict, total=False):
    """What every actor may be made with, besides what it is about."""

    taps: Collection[HostTap]
    """Each sees every step of the actor."""
    fault: Fault | None
    """May crash it at any step."""
    max_restarts: int
    """After so many restarts in a row (0 or more; 5 unless told), without a request or event
    handled in between, it gives up."""
    restart_wait: float
    """Seconds before the first restart (0 or more; 0.01 unless told); each next one waits four
    times as long, but no longer than a minute."""
    mailbox_size: int
    """The most it takes from its mailbox at once, 1 or more; 1,024 unless told."""


@frozen
class ActorStatistics:
    """The state of an actor at one moment."""

    actor: str
    """Its holder name."""
    state: str
    """"new", "starting", "serving", "restarting" (it waits before it starts again), "stopping" (its
    hardware is being drained), "down" (it gave up), "stopped", or "suspended": stopped, and its
    holder waits for somebody to declare its hardware clean, if it still holds anything."""
    restarts: int
    """Restarts in a row, without anything handled in between."""
    waiting: int
    """Messages in its mailbox."""
    error: Exception | None
    """What it crashed with last."""


class Crash(Message, frozen=True):
    """Make the actor crash when this message's turn comes; a fault to plant."""

    reason: str


class Stop(Message, frozen=True):
    """Stop the actor when this message's turn comes."""

    drain: bool


class Forsaken(Message, frozen=True):
    """Undo what an asker who is gone never learned of."""

    message: Message
    answer: Any


class Unclean(Exception):
    """Ends the session of an actor that leaves with its hardware perhaps programmed."""


class Note(Message, frozen=True):
    """There is something to take."""


NOTE: Final = Note()


class Restarts:
    """Restarts in a row: how many there were, and how long the next one has to wait.

    Raises `InvalidArgument` for a number or seconds that are none.
    """

    __slots__ = ("_grown", "_wait", "in_a_row", "most")

    def __init__(self, most: int, wait: float) -> None:
        if type(most) is not int or most < 0:
            raise InvalidArgument.of("max_restarts", most, "a whole number of 0 or more")
        if type(wait) not in (int, float) or not 0 <= wait <= MOST_SECONDS:
            raise InvalidArgument.of("restart_wait", wait, "seconds, 0 to 10^9")
        self.most = most
        self.in_a_row = 0
        self._wait = self._grown = float(wait)

    def spent(self) -> bool:
        """Tell whether there were as many as there may be."""
        return self.in_a_row >= self.most

    def next(self) -> float:
        """Count one more, and return the seconds that it waits."""
        if self.in_a_row == 0:
            self._grown = self._wait
        wait = self._grown
        self._grown = max(self._wait, min(wait * FACTOR, LONGEST))
        self.in_a_row += 1
        return wait


def check_name(name: object) -> str:
    """Return the name of a device or VM, if it can be part of a holder's name."""
    if type(name) is not str or not 0 < len(name) <= 200:
        raise InvalidArgument.of("name", name, "text of 1 to 200 characters")
    return name


def check_bits(pasid_bits: object) -> int:
    """Return the width of a device's PASIDs, if there can be one: 1 to 20 bits."""
    if type(pasid_bits) is not int or not 0 < pasid_bits <= 20:
        raise InvalidArgument.of("pasid_bits", pasid_bits, "a whole number in 1..20")
    return pasid_bits
