"""What the allocator's mailbox holds: a request, who asks, and where the answer goes."""

from typing import Any

from msgspec import Struct

from ioasid.actors._port import Outlet
from ioasid.actors._reply import Reply
from ioasid.core import Request

__all__ = ["Envelope", "Fate"]


class Fate:
    """What becomes of what was decided at once."""

    __slots__ = ("is_undone",)

    def __init__(self) -> None:
        self.is_undone = False
        """Whether it could not be committed, so that it never was."""


class Envelope(Struct, frozen=True):
    """A request on its way to the allocator."""

    session: int
    """Who asks; 0 is the actor itself, which drives the core."""
    request: Request
    reply: Reply[Any] | None
    """Where the answer goes, or the error; `None` if nobody waits for it."""
    outlet: Outlet | None = None
    """What a `Subscribe` is to be given its messages through."""
    fate: Fate | None = None
    """That of what it undoes, if that was not committed yet: it is void if that never was."""
    insists: bool = False
    """Whether it waits until a journal can be written, and is not refused."""
