"""What a journal keeps: the requests that were carried out."""

from ioasid.core._requests import Request
from ioasid.core._terms import Message

__all__ = ["Applied"]


class Applied(Message, frozen=True):
    """A request that was carried out and may have changed something: what a journal keeps.

    An allocator in the same state that is to `repeat` it at the same time decides it the same way.
    """

    index: int
    """Counts them: one more than the last one's."""
    time: float
    """When it was decided, in seconds by the event loop's clock, which begins where that of the
    snapshot was in an allocator that goes on from one."""
    session: int
    """Who asked; 0 is the allocator's own actor."""
    request: Request
