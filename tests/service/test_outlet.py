"""Outlets: what waits for a client, and what of it is stale."""

from typing import Any

from ioasid.core import AllocatorClosed, Event, EventKind
from ioasid.service._outlet import Outlet
from ioasid.service._tenancy import Tenancy


class Queueing:
    """A connection that notes everything."""

    tenancy: Tenancy | None = None

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def queue(self, item: Any) -> None:
        """Note a message."""
        self.noted.append(item)

    def withdraw(self, outlet: Outlet) -> None:
        """Note a withdrawal."""
        self.noted.append("withdraw")

    def end(self, outlet: Outlet, *, drained: bool) -> None:
        """Note an end."""
        self.noted.append(drained)

    def goodbye(self, reason: str) -> None:
        """Note the end of the allocator."""
        self.noted.append(reason)


def test_what_was_withdrawn_is_stale() -> None:
    """All that was delivered before, but for the message that is kept, that one time."""
    connection = Queueing()
    outlet = Outlet(connection)
    outlet.is_known = True
    events = [Event(seq, EventKind.ALLOC, 1, 0) for seq in (1, 2, 3)]
    for each in events[:2]:
        outlet.deliver(each)
    outlet.withdraw(1)
    outlet.deliver(events[2])

    def stale() -> list[bool]:
        items = [each for each in connection.noted if isinstance(each, tuple)]
        return [outlet.is_stale(turn, message.seq) for _, turn, message in items]

    assert [False, True, False] == stale()
    outlet.withdraw(None)
    assert [True, True, True] == stale()
    outlet.end(drained=True)
    outlet.close(None)
    outlet.close(AllocatorClosed("crashed"))
    assert ["withdraw", "withdraw", True, "was shut down", "crashed"] == [
        each for each in connection.noted if not isinstance(each, tuple)
    ]
