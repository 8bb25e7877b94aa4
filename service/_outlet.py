"""Where the allocator leaves the messages of one subscription for its client."""

from typing import Protocol, TypeAlias

from ioasid.core import AllocatorClosed, Event, Resync
from ioasid.service._tenancy import Tenancy

__all__: list[str] = []


class Queueing(Protocol):
    """The connection of a subscriber, as its outlet sees it."""

    tenancy: Tenancy | None

    def queue(self, item: "Told", /) -> None:
        """Queue a message."""

    def withdraw(self, outlet: "Outlet", /) -> None:
        """Drop what is stale, and let the client do so."""

    def end(self, outlet: "Outlet", /, *, drained: bool) -> None:
        """Let the client know that this was all."""

    def goodbye(self, reason: str, /) -> None:
        """Let the client know that the allocator is gone."""


class Outlet:
    """Where the allocator leaves the messages of one subscription for its client."""

    __slots__ = ("_peer", "is_known", "keep", "number", "turn")

    def __init__(self, peer: Queueing) -> None:
        self._peer = peer
        self.number = 0
        self.turn = 0
        """Grows with every withdrawal: what was delivered before it is stale."""
        self.keep: int | None = None
        self.is_known = False
        """Whether the client was told its number, and not since that it is that of another one."""

    def deliver(self, message: Event | Resync) -> None:
        """Queue one message."""
        if not self.is_known:
            return
        tenancy = self._peer.tenancy
        if tenancy is not None:
            message = tenancy.message(message)
        self._peer.queue((self, self.turn, message))

    def withdraw(self, keep: int | None) -> None:
        """Drop what is queued, and let the client drop what it was sent."""
        self.turn += 1
        self.keep = keep
        if self.is_known:
            self._peer.withdraw(self)

    def end(self, *, drained: bool) -> None:
        """Let the client know that this was all."""
        if self.is_known:
            self._peer.end(self, drained=drained)

    def close(self, error: AllocatorClosed | None) -> None:
        """Let the client know that the allocator is gone."""
        self._peer.goodbye("was shut down" if error is None else error.reason)

    def is_stale(self, turn: int, seq: int) -> bool:
        """Tell whether a message was withdrawn since it was queued."""
        return turn != self.turn and not (turn == self.turn - 1 and seq == self.keep)


Told: TypeAlias = tuple[Outlet, int, Event | Resync]
"""A message that waits to be sent, and of which turn of its outlet it is."""
