"""How much of one connection is under way, so that it is not read from beyond its bounds."""

from collections.abc import Callable
from typing import Final

from ioasid.actors._local_port import LocalPort
from ioasid.core import Acknowledge, AllocatorClosed, FindSid, Request
from ioasid.service._then import Then

__all__: list[str] = []

FENCE: Final = FindSid(0)
"""A request that changes nothing; it is answered when all that was told before it is decided."""

MOST_LARGE: Final = 4
"""Requests of one connection with large answers that are under way at once."""

PART: Final = 128
"""Messages that one request acknowledges: to decide all that a frame has room for at once would
hold up everybody. Each counts for itself, so how they are divided makes no difference.
"""


class Window:
    """What is under way: requests whose answers have not left, and what is told without an answer.

    What nobody is answered can't be counted by its answers. So behind as many as may be under way
    a question is asked on every way that they went, and no more is taken until all are answered. Of
    acknowledgements it is the messages that count, for one frame has room for a hundred thousand.
    """

    __slots__ = ("_fences", "_most", "_open", "_ports", "_told", "in_flight", "large")

    def __init__(self, most: int, opened: Callable[[], object]) -> None:
        self._most: Final = most
        self._open = opened
        """Is called when there is room again."""
        self.in_flight = 0
        """Requests that were taken and whose answers have not left; not those that wait."""
        self.large = 0
        """Those of them whose answers may be large."""
        self._told = 0
        self._ports: dict[LocalPort, None] = {}
        self._fences = 0

    def is_full(self) -> bool:
        """Tell whether nothing more is to be taken."""
        return self.in_flight >= self._most or self._fences > 0

    def tell(self, port: LocalPort, request: Request) -> None:
        """Pass on what nobody is answered."""
        messages = request.messages if type(request) is Acknowledge else ()
        # What are no messages is left to the allocator to refuse.
        count = len(messages) if type(messages) is tuple else 0
        if count > PART:
            for begin in range(0, count, PART):
                port.tell(Acknowledge(messages[begin : begin + PART]))
        else:
            port.tell(request)
        self._ports[port] = None
        self._told += max(1, count)
        if self._told < self._most:
            return
        ports, self._ports, self._told = tuple(self._ports), {}, 0
        self._fences = len(ports)
        for each in ports:
            try:
                each.post(FENCE, Then(self._passed))
            except AllocatorClosed:
                self._passed(None)

    def _passed(self, _: object) -> None:
        self._fences -= 1
        if not self._fences:
            self._open()
