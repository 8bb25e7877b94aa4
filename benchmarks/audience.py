"""Receivers that count themselves in and out, so that all of them are known to sleep."""

from time import perf_counter

from anyio import Event
from attrs import define, field

from benchmarks.measure import Lost


@define
class Audience:
    """The receivers of one contender.

    One that is `idle` has asked for the next message, and nothing ran in between: seen from
    another task it sleeps. So nobody has to look at 100,000 tasks to know that they do.
    """

    receivers: int
    idle: int = 0
    deliveries: int = 0
    expected: int = 0
    delivered_at: float = 0.0
    """When the last delivery came that was expected."""
    change: Event = field(factory=Event)

    def rest(self) -> None:
        """Count a receiver in: it waits for the next message at once."""
        self.idle += 1
        if self.idle == self.receivers and self.deliveries == self.expected:
            self.change.set()

    def take(self) -> None:
        """Count a receiver out: it got a message."""
        self.idle -= 1
        self.deliveries += 1
        if self.deliveries == self.expected:
            self.delivered_at = perf_counter()

    def expect(self, deliveries: int) -> None:
        """Expect so many from an event that comes now, while everybody sleeps."""
        if self.idle != self.receivers:
            raise Lost("a receiver that is not idle when an event comes")
        self.expected += deliveries
        self.change = Event()

    async def all_idle(self) -> None:
        """Wait until everybody got what is expected, and sleeps again."""
        await self.change.wait()
