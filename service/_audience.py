"""The subscriptions of a client: their numbers here and for the server, and where messages go."""

from collections.abc import Iterator

from attrs import define
from msgspec.structs import replace

from ioasid.actors._port import Outlet
from ioasid.core import Defer, Detach, Event, Request, Resync, Subscribe, Unsubscribe
from ioasid.service._asking import Holder

__all__: list[str] = []


@define(eq=False)
class Told:
    """A subscription of this client: its number here and for the server."""

    holder: Holder
    request: Subscribe
    outlet: Outlet
    number: int
    current: int


class Audience:
    """The subscriptions of a client; a number is that of the first connection, and stays."""

    def __init__(self) -> None:
        self._by_number: dict[int, Told] = {}
        self._by_current: dict[int, Told] = {}
        """By the server's number, as far as it knows of them."""
        self._renumbered: dict[int, int] = {}
        """The server's numbers, where they are others than here."""

    def __iter__(self) -> Iterator[Told]:
        """All of them, as they are now."""
        return iter(tuple(self._by_number.values()))

    def __contains__(self, each: Told) -> bool:
        """Tell whether one is still there."""
        return each.number in self._by_number

    def add(self, told: Told) -> None:
        """Add one."""
        self._by_number[told.number] = self._by_current[told.current] = told

    def drop(self, number: int) -> None:
        """Forget one."""
        told = self._by_number.pop(number, None)
        if told is not None and self._by_current.get(told.current) is told:
            del self._by_current[told.current]

    def clear(self) -> None:
        """Forget all."""
        self._by_number.clear()
        self._by_current.clear()

    def disconnect(self) -> None:
        """Let the server know of none, for it is another connection."""
        self._by_current.clear()
        for each in self:
            each.outlet.withdraw(None)

    def come_back(self, told: Told, current: int) -> bool:
        """Give one the number that it has from now on; tells whether it is still there."""
        told.current = current
        self._by_current[current] = told
        if current != told.number:
            self._renumbered[told.number] = current
        return told in self

    def outgoing(self, request: Request) -> Request:
        """Return a request as the server knows the numbers."""
        if self._renumbered and isinstance(request, Unsubscribe | Detach | Defer):
            return replace(request, subscription=self._current(request.subscription))
        return request

    def acknowledged(self, messages: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
        """Return acknowledgements as the server knows the numbers."""
        if self._renumbered:
            return tuple((self._current(number), seq) for number, seq in messages)
        return tuple(messages)

    def _current(self, number: int) -> int:
        return self._renumbered.get(number, number)

    # -- what comes from the server -----------------------------------------------------------

    def deliver(self, numbers: tuple[int, ...], message: Event | Resync) -> None:
        """Pass on a message."""
        for number in numbers:
            told = self._by_current.get(number)
            if told is not None:
                told.outlet.deliver(message)

    def withdraw(self, number: int, keep: int | None) -> None:
        """Pass on that what was told is void."""
        told = self._by_current.get(number)
        if told is not None:
            told.outlet.withdraw(keep)

    def end(self, number: int, *, drained: bool) -> None:
        """Pass on that this was all."""
        told = self._by_current.get(number)
        if told is not None:
            self.drop(told.number)
            told.outlet.end(drained=drained)
