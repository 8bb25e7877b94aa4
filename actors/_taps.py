"""Taps: who sees every decision of an allocator, and every step of a host's actors.

A tap is called with plain data, after the commit and before anything of the decision leaves. It
must not wait. One that raises is logged with its traceback and removed; the allocator goes on.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeAlias, TypeVar

from anyio import get_cancelled_exc_class
from attrs import frozen

from ioasid.core import (
    Allocator,
    Answer,
    Changes,
    Effect,
    InvalidArgument,
    Message,
    Refused,
    Request,
    Snapshot,
)

__all__ = ["Decision", "Step", "Tap", "tapped"]

logger = logging.getLogger("ioasid")

T = TypeVar("T")


class Decision(Message, frozen=True):
    """One request that the allocator decided, and what came of it."""

    index: int
    """How many requests were carried out so far that may have changed something, this one
    included; it stays where it is for one that was refused or only asked."""
    time: float
    """When it was decided, in seconds by the event loop's clock."""
    session: int
    """Who asked; 0 is the allocator's own actor."""
    holder: str
    """The name of who asked; empty for a session that there is not."""
    request: Request
    answer: Answer | Refused
    effects: tuple[Effect, ...]
    """What it set off, in order."""
    changes: Changes
    """What became of the IDs and sets that it changed."""


@frozen
class Step:
    """Something an actor took up or did, for a tap: a request, an event, or a report."""

    actor: str
    """The actor's holder name."""
    message: Message


Tap: TypeAlias = Callable[[Decision], object]
"""Is called with every decision, in order. It must not wait, and changes nothing."""


class Taps(Generic[T]):
    """The taps of one allocator or host: each sees everything, until it raises."""

    def __init__(self, taps: object) -> None:
        # Raises InvalidArgument.
        if not isinstance(taps, Collection) or not all(map(callable, taps)):
            raise InvalidArgument.of("taps", taps, "a list of callables")
        self._taps: list[Callable[[T], Any]] = list(taps)

    def add(self, taps: Iterable[Callable[[T], Any]]) -> None:
        """Let more look."""
        self._taps += taps

    def __bool__(self) -> bool:
        """Whether anybody is left that looks."""
        return bool(self._taps)

    def see(self, seen: T) -> None:
        """Show something to every tap."""
        for tap in tuple(self._taps):
            try:
                tap(seen)
            except (Exception, get_cancelled_exc_class()):
                logger.exception("tap %r raised, and sees nothing any more", tap)
                self._taps.remove(tap)


_everywhere: Final[list[Callable[[Snapshot], Tap]]] = []
_steps_everywhere: Final[list[Callable[[Step], object]]] = []


@contextmanager
def tapped(
    make: Callable[[Snapshot], Tap], steps: Callable[[Step], object] | None = None
) -> Iterator[None]:
    """Tap every allocator that is opened, and every actor that is made, in this block.

    For tools that watch a program they did not write. `make` is called with the state that an
    allocator begins with and returns its tap; `steps` is called with every step of the actors.
    """
    _everywhere.append(make)
    if steps is not None:
        _steps_everywhere.append(steps)
    try:
        yield
    finally:
        _everywhere.remove(make)
        if steps is not None:
            _steps_everywhere.remove(steps)


def taps_everywhere(core: Allocator) -> list[Tap]:
    """Return the taps of who taps every allocator, for one that begins."""
    return [make(core.snapshot()) for make in _everywhere]


def step_taps_everywhere() -> tuple[Callable[[Step], object], ...]:
    """Return the taps of who sees every actor's steps, for one that is made."""
    return tuple(_steps_everywhere)
