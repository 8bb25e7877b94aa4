"""What waits to be sent over one connection: answers, messages and frames, in one order.

They wait as what they are and not as bytes, so that what the allocator withdraws is gone, and
whatever leaves at once is made into one piece.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from ioasid.core import Deliver, IoasidError, refusal_of
from ioasid.service._frames import Answered
from ioasid.service._memory import LARGE, Asked
from ioasid.service._outlet import Told
from ioasid.service._transport import CHUNK

__all__: list[str] = []

FEW: Final = 1 << 10
"""So few are not looked through for what is stale; they are when they leave."""

Item: TypeAlias = "Asked | Told | Struct"


class Outbox:
    """What waits to be sent."""

    __slots__ = ("_items", "answered", "large")

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self.answered = 0
        """How many answers have left."""
        self.large = 0
        """How many of them may have been large."""

    def __len__(self) -> int:
        """How much waits."""
        return len(self._items)

    def put(self, item: Item) -> int:
        """Add something, and return how much waits."""
        self._items.append(item)
        return len(self._items)

    def drop_stale(self) -> None:
        """Drop the messages that were withdrawn, if it is worth looking for them."""
        if len(self._items) > FEW:
            self._items = deque(each for each in self._items if not _is_stale(each))

    def clear(self) -> None:
        """Drop everything."""
        self._items.clear()

    def take(self, pack: Callable[[Struct], bytes]) -> bytes:
        """Take from it, in order, about as much as is sent at once; returns it as bytes."""
        items = self._items
        parts: list[bytes] = []
        size = 0
        while items and size < CHUNK:
            item = items.popleft()
            frame: Struct
            if type(item) is Asked:
                self.answered += 1
                self.large += type(item.request) in LARGE
                answer = item.result()
                refused = isinstance(answer, IoasidError)
                frame = Answered(item.id, refusal_of(answer) if refused else answer)
            elif type(item) is tuple:
                outlet, turn, message = item
                if outlet.is_stale(turn, message.seq):
                    continue
                frame = Deliver((outlet.number,), message)
            else:
                assert isinstance(item, Struct), item
                self.answered += type(item) is Answered
                frame = item
            data = pack(frame)
            if not items and not parts:
                return data
            parts.append(data)
            size += len(data)
        return b"".join(parts)


def _is_stale(item: Item) -> bool:
    return type(item) is tuple and item[0].is_stale(item[1], item[2].seq)
