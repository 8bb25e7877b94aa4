"""How the tests of the core drive an allocator: by plain calls, with every refusal examined."""

from collections.abc import Iterable
from typing import Any, Final, TypeVar

import pytest
from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocated,
    Allocator,
    AllocSet,
    Answer,
    AskAgain,
    AttachSpid,
    Complete,
    Continue,
    Deliver,
    DetachSpid,
    Done,
    Effect,
    End,
    Event,
    EventKind,
    Find,
    Free,
    IoasidError,
    IoasidRecord,
    OpenSession,
    Priority,
    Released,
    Request,
    Resync,
    ReuseOrder,
    SessionEnded,
    SessionOpened,
    SetRecord,
    Snapshot,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    TokenType,
    Waiting,
    Withdraw,
)
from tests.core.invariants import check_state, unchanged

CPU, DEVICE, IOMMU, LAST = Priority
ALLOC, BIND, UNBIND, FREE, RECLAIM = EventKind
BINDING: Final = frozenset((BIND, UNBIND, FREE))
"""The kinds that are about a binding."""

Shown = tuple[str, int]
"""A message in short: the kind (or Resync) and the IOASID (or how many it lists)."""

T = TypeVar("T")


def expect(kind: type[T], value: object) -> T:
    """Return a value that has to be of this type."""
    assert isinstance(value, kind), value
    return value


class Driver:
    """An allocator, who calls it, and what came out of it."""

    def __init__(
        self,
        capacity: int = 64,
        *,
        order: ReuseOrder = ReuseOrder.LOWEST,
        reserve_zero: bool = True,
    ) -> None:
        self.core = Allocator(capacity, order=order, reserve_zero=reserve_zero)
        self.sessions: dict[str, int] = {"host": self.core.session}
        self.effects: list[Effect] = []

    # -- requests -----------------------------------------------------------------------------

    def ask(self, request: Request, by: str = "host") -> Answer:
        """Send a request as a holder, which joins if it has to; every invariant holds after it."""
        answer = self.core.handle(self.session(by), request)
        self.collect()
        return answer

    def late(self, request: Request, by: str = "host") -> Answer:
        """Send a request and let all parts be done; returns its answer, whenever it comes."""
        answer = self.ask(request, by)
        while self.core.has_work:
            assert Done() == self.core.handle(0, Continue())
            self.collect()
        if isinstance(answer, Waiting):
            if AskAgain(answer.ticket) in self.effects:
                return self.late(request, by)
            (answer,) = (each for ticket, each in self.completed() if ticket == answer.ticket)
        return answer

    def refused(
        self, error: type[IoasidError], request: Request, by: str = "host", /, **facts: object
    ) -> IoasidError:
        """Send a request that is refused with this error and these facts, and changes nothing."""
        return refused(self.core, error, request, self.session(by), **facts)

    def collect(self) -> None:
        """Take what the allocator wants done, and check its state."""
        self.effects += self.core.drain()
        check_state(self.core)

    def session(self, name: str) -> int:
        """The session of a holder, opened if there is none."""
        if name not in self.sessions:
            opened = self.core.handle(self.core.session, OpenSession(name))
            self.sessions[name] = expect(SessionOpened, opened).session
        return self.sessions[name]

    def opened(self, name: str) -> SessionOpened:
        """The answer to whoever drives the allocator when it opens a session."""
        return expect(SessionOpened, self.core.handle(0, OpenSession(name)))

    def set(self, token: str | None = "vm-1", quota: int | None = 16) -> int:
        """Make a set; returns its number."""
        kind = TokenType.NULL if token is None else TokenType.MM
        return expect(SetRecord, self.ask(AllocSet(token, quota, kind))).sid

    def alloc(self, sid: int = 0) -> int:
        """Allocate an ID; returns it."""
        return expect(Allocated, self.ask(Alloc(sid))).ioasid

    def bound(self, sid: int = 0, spid: int = 100) -> int:
        """Allocate an ID and bind it; returns it."""
        ioasid = self.alloc(sid)
        self.bind(ioasid, spid)
        return ioasid

    def bind(self, ioasid: int, spid: int = 100) -> None:
        """Attach a spid."""
        assert Done() == self.ask(AttachSpid(ioasid, spid))

    def unbind(self, ioasid: int) -> None:
        """Detach the spid."""
        assert Done() == self.ask(DetachSpid(ioasid))

    def free(self, ioasid: int) -> bool:
        """Free an ID; returns whether it is reclaimed already."""
        return expect(Released, self.ask(Free(ioasid))).reclaimed

    def find(self, ioasid: int) -> IoasidRecord:
        """The record of an ID."""
        return expect(IoasidRecord, self.ask(Find(ioasid)))

    def figures(self) -> Statistics:
        """The allocator's figures."""
        return expect(Statistics, self.ask(TakeStatistics()))

    def subscribe(self, by: str, **terms: Any) -> int:
        """Subscribe as a holder; returns the number of the subscription."""
        return expect(Subscribed, self.ask(Subscribe(**terms), by)).subscription

    def acknowledge(self, subscription: int, seq: int, by: str) -> None:
        """Acknowledge one message."""
        assert Done() == self.ask(Acknowledge(((subscription, seq),)), by)

    def crash(self, name: str) -> None:
        """Crash a holder's session."""
        assert Done() == self.ask(SuspendSession(), name)
        self.refused(SessionEnded, SuspendSession(), name)
        del self.sessions[name]

    def come_back(self, name: str) -> SessionOpened:
        """Open a holder's session again."""
        opened = expect(SessionOpened, self.ask(OpenSession(name)))
        self.sessions[name] = opened.session
        return opened

    # -- what came out ------------------------------------------------------------------------

    def messages(self, subscription: int) -> list[Event | Resync]:
        """Everything that a subscription was ever given, less what was withdrawn."""
        return messages(self.effects, subscription)

    def shown(self, subscription: int) -> list[Shown]:
        """The same in short."""
        return [
            (message.kind.value, message.ioasid)
            if isinstance(message, Event)
            else ("Resync", len(list(message)))
            for message in self.messages(subscription)
        ]

    def last(self, subscription: int) -> Event:
        """The last event that a subscription was given."""
        return expect(Event, self.messages(subscription)[-1])

    def resync(self, subscription: int) -> Resync:
        """The last Resync that a subscription was given."""
        return expect(Resync, self.messages(subscription)[-1])

    def seqs(self, subscription: int) -> dict[EventKind, int]:
        """The number of the last event of each kind that a subscription was given."""
        return {
            message.kind: message.seq
            for message in self.messages(subscription)
            if isinstance(message, Event)
        }

    def finish(self, subscription: int, by: str) -> None:
        """Acknowledge everything that a subscription was given."""
        done = 0
        while done < len(given := self.messages(subscription)):
            for message in given[done:]:
                self.acknowledge(subscription, message.seq, by)
            done = len(given)

    def completed(self) -> list[tuple[int, Answer]]:
        """The answers that came late, with their tickets."""
        return [(each.ticket, each.answer) for each in self.effects if isinstance(each, Complete)]

    def ended(self) -> list[tuple[int, bool]]:
        """The subscriptions that ended or were suspended, and whether what is queued counts."""
        return [(each.subscription, each.drained) for each in self.effects if isinstance(each, End)]


def messages(effects: Iterable[Effect], subscription: int) -> list[Event | Resync]:
    """What a subscription was given, less what was withdrawn from its queue unseen."""
    given: list[Event | Resync] = []
    for effect in effects:
        match effect:
            case Deliver(numbers, message) if subscription in numbers:
                given.append(message)
            case Withdraw(number, keep) if number == subscription:
                kept = [index for index, each in enumerate(given) if each.seq == keep]
                del given[kept[0] + 1 if kept else len(given) :]
            case _:
                pass
    return given


def state(core: Allocator) -> Snapshot:
    """All there is, however many requests led to it."""
    return replace(core.snapshot(), index=0)


def refused(
    core: Allocator,
    error: type[IoasidError],
    request: Any,
    session: int | None = None,
    /,
    **facts: object,
) -> IoasidError:
    """Send a request that is refused with exactly this error, and changes nothing at all."""
    before = core.snapshot()
    assert [] == core.drain()
    with pytest.raises(error) as caught:
        core.handle(core.session if session is None else session, request)
    assert error is type(caught.value)
    assert facts == {name: getattr(caught.value, name) for name in facts}
    unchanged(before, core)
    return caught.value
