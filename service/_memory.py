"""What a server remembers of a client over its connections, so that a request is decided once.

A client whose connection broke does not know which of its requests were decided. It comes back and
sends again what was not answered, under the same IDs; what was decided is answered from here. The
memory is bounded, and the bound is enough: a client has at most `requests` and `waits` under way,
and answers leave in order, so one that did not arrive is among the last of so many. What can be
decided again without harm is not kept: whatever only looks something up, and what ends with the
connection anyway, its sessions and subscriptions.

An answer that gave a holder a reference is worth nothing once the holder was evicted: it is
forgotten when the holder comes back without the reference, so that the request is decided again.

It is the memory of one process. After a restart nobody knows; a client tells by the epoch.
"""

from collections import Counter, deque
from collections.abc import Callable, Container, Generator
from typing import Any, Final, Protocol, TypeAlias, get_args

from msgspec import Struct

from ioasid.actors._local_port import LocalPort
from ioasid.core import (
    Allocated,
    CloseSession,
    Done,
    Explain,
    ExportSet,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    ListGroups,
    ListHolders,
    ListSet,
    ListSets,
    OpenSession,
    Put,
    Request,
    Subscribe,
    SuspendSession,
    TakeSnapshot,
    TakeStatistics,
)

__all__: list[str] = []

LOOKS: Final = frozenset(
    (
        *(Explain, Find, FindSet, FindSid, ListGroups, ListHolders, ListSet, ListSets),
        TakeStatistics,
    )
)
"""Requests that need no holder who asks, for they only look."""
READS: Final = LOOKS | {ExportSet, TakeSnapshot}
"""Requests that change nothing: they may be decided twice."""
LARGE: Final = frozenset((ExportSet, ListSet, TakeSnapshot))
"""Requests whose answers may be as large as a set, or all there is."""
LETTING_GO: Final = frozenset((Free, FreeMany, FreeSet, Put))
"""Requests that may be insisted on: whoever leaves something behind has nothing else to say."""
TAKING: Final = frozenset((FindBySpid, Get))
"""Requests that may give the holder who asks a reference."""
OF_A_CONNECTION: Final = frozenset((OpenSession, CloseSession, SuspendSession, Subscribe))
"""Requests whose answers are worth nothing after the connection."""


def is_look(request: Request) -> bool:
    """Tell whether a request only looks, so that it may be asked without a session."""
    return not request.get if type(request) is FindBySpid else type(request) in LOOKS


def is_repeatable(request: Request) -> bool:
    """Tell whether a request may be decided again without harm, when its answer was lost."""
    kind = type(request)
    if kind is FindBySpid:
        return not getattr(request, "get", True)
    return kind in READS or kind in OF_A_CONNECTION


WAITING: Final = frozenset(each for each in get_args(Request) if "wait" in each.__struct_fields__)
"""Requests that may be answered much later, if they are told to wait."""


def is_waiting(request: Request) -> bool:
    """Tell whether a request may be answered much later."""
    return type(request) in WAITING and request.wait is True  # type: ignore[union-attr]


Client: TypeAlias = tuple[int, str | None, str]
"""Who comes back: the user, the token if it is a tenant, and the name of its own making."""


class Connected(Protocol):
    """The connection that a client has now."""

    def told(self, asked: "Asked", /) -> None:
        """Pass on an answer."""

    def cancelled(self, asked: "Asked", /) -> None:
        """Learn that a request is not answered."""

    def supersede(self) -> None:
        """Make room for another connection of the client."""


class Asked(Struct, eq=False):
    """A request that a client sent, and its reply: to the allocator, it is a `Reply`."""

    memory: "Memory"
    connection: Connected
    """Where it came from, the last time."""
    id: int
    port: LocalPort
    """The way that it went."""
    request: Request
    """What the allocator was asked, perhaps in other words than the client's."""
    show: Callable[[Any], Any] | None
    """In what words the client is answered, if not in the allocator's."""
    began: float = 0.0
    """When it came."""
    waits: bool = False
    """Whether it may be answered much later."""
    insists: bool = False
    """Whether it is decided when a journal can be written, whatever becomes of the client."""
    repeats: int = 0
    """How often its connection sent it again while it was under way: each is answered."""
    holder: str = ""
    """The name of the holder whom it may give a reference."""
    outlet: Any = None
    """Where the messages of a `Subscribe` go."""
    answer: Any = None
    is_done: bool = False
    """Whether it is answered, or given up."""
    is_cancelled: bool = False

    def set_result(self, value: Any) -> None:
        """Answer it."""
        self.is_done = True
        self.answer = value if self.show is None else self.show(value)
        self.memory.answered(self)
        self.connection.told(self)

    def result(self) -> Any:
        """Return what it was answered with."""
        return self.answer

    @property
    def given(self) -> int | None:
        """The ID that its holder was given a reference to; `None` if it was given none."""
        match self.request, self.answer:
            case Get(ioasid), Done():
                return ioasid
            case FindBySpid(get=True), Allocated(ioasid):
                return ioasid
            case _:
                return None

    def done(self) -> bool:
        """Tell whether it is answered, or given up."""
        return self.is_done

    def cancelled(self) -> bool:
        """Tell whether it was given up before it was answered."""
        return self.is_cancelled

    def cancel(self) -> bool:
        """Give it up, and tell whether it was not answered."""
        if self.is_done:
            return False
        self.is_done = self.is_cancelled = True
        self.memory.drop(self)
        self.connection.cancelled(self)
        return True

    def __await__(self) -> Generator[Any, None, Any]:
        """Nobody waits for it here."""
        raise NotImplementedError


class Memory:
    """What one client asked and has perhaps not been told of."""

    def __init__(self, client: Client | None, size: int) -> None:
        self.client: Final = client
        """Who comes back, `None` for who does not."""
        self.connection: Connected | None = None
        self._size = size
        self._asked: dict[int, Asked] = {}
        self._order: deque[int] = deque()
        """The IDs of what was answered and is remembered, the oldest first."""
        self.waits = 0
        """How many of what is pending may be answered much later."""

    @property
    def pending(self) -> list[Asked]:
        """What is not answered."""
        return [each for each in self._asked.values() if not each.done()]

    def ask(self, asked: Asked) -> None:
        """Enter a request."""
        self._asked[asked.id] = asked
        if asked.waits:
            self.waits += 1

    def find(self, number: int) -> Asked | None:
        """Return what was asked under an ID, if it is remembered."""
        return self._asked.get(number)

    def repeat(self, asked: Asked) -> None:
        """Note that what is under way was sent again."""
        asked.repeats += 1
        if asked.waits:
            self.waits += 1

    def drop(self, asked: Asked) -> None:
        """Forget what is not answered any more."""
        self.forget(asked)
        if asked.waits:
            self.waits -= 1 + asked.repeats

    def answered(self, asked: Asked) -> None:
        """Keep an answer, if it is worth it."""
        # As long as there is a connection, all that gives something may still be given up.
        if type(asked.request) in READS or (
            asked.connection is not self.connection and is_repeatable(asked.request)
        ):
            self.drop(asked)
            return
        if asked.waits:
            self.waits -= 1 + asked.repeats
        order = self._order
        order.append(asked.id)
        if len(order) > self._size:
            self._asked.pop(order.popleft(), None)

    def forget(self, asked: Asked) -> None:
        """Forget it, unless something else was asked under its ID since."""
        if self._asked.get(asked.id) is asked:
            del self._asked[asked.id]

    def came_back(self, holder: str, has: Container[int]) -> None:
        """Forget that a holder was given references that it does not have any more."""
        for asked in tuple(self._asked.values()):
            if asked.holder == holder and asked.given is not None and asked.given not in has:
                self.forget(asked)
                self._order.remove(asked.id)

    def disconnect(self) -> None:
        """Keep what is worth something to a client that comes back."""
        self.connection = None
        for asked in tuple(self._asked.values()):
            if is_repeatable(asked.request):
                del self._asked[asked.id]
            elif not asked.done():
                # The repeats were this connection's.
                if asked.waits:
                    self.waits -= asked.repeats
                asked.repeats = 0


class Memories:
    """The memories of all clients that may come back; of those without a connection, a few."""

    def __init__(self, requests: int, waits: int, remembered: int) -> None:
        self._size = requests + waits
        self._remembered = remembered
        self.here: dict[Client, Memory] = {}
        """Those of clients with a connection."""
        self._away: dict[Client, Memory] = {}
        """Whoever left last is at the end."""

    def recall(self, client: Client | None, connection: Connected) -> tuple[Memory, bool]:
        """Return the memory of a client that is not here, and whether there was one."""
        memory = None if client is None else self._away.pop(client, None)
        resumed = memory is not None
        if memory is None:
            memory = Memory(client, self._size)
        memory.connection = connection
        if client is not None:
            self.here[client] = memory
        return memory, resumed

    def leave(self, memory: Memory, *, comes_back: bool) -> list[Memory]:
        """Note that a client has no connection; returns the memories that are forgotten for it."""
        memory.disconnect()
        if memory.client is None:
            return [memory]
        del self.here[memory.client]
        if not comes_back:
            return [memory]
        self._away[memory.client] = memory
        if len(self._away) > self._remembered:
            # Of who has most of them: whoever comes and goes costs nobody else a memory.
            counts = Counter(each[:2] for each in self._away)
            most = max(counts.values())
            oldest = next(each for each in self._away if counts[each[:2]] == most)
            return [self._away.pop(oldest)]
        return []
