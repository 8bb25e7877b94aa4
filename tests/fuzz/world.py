"""An allocator in a state that random requests have led to, and whoever asks it."""

import random
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from ioasid.core import (
    Abandon,
    Acknowledge,
    ActivateSet,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    Answer,
    AttachSpid,
    CancelCapacity,
    CloseSession,
    Continue,
    Defer,
    DetachSpid,
    Effect,
    EventKind,
    Evict,
    ExportedIoasid,
    ExportSet,
    Find,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    ImportSet,
    IoasidError,
    IoasidRange,
    Notify,
    OpenSession,
    Priority,
    Put,
    Refused,
    Request,
    ReuseOrder,
    SessionOpened,
    SetExport,
    Subscribe,
    SuspendAll,
    SuspendSession,
    ThawSet,
    Tick,
    TokenType,
    Waiting,
    WireFormat,
    decode_output,
    encode,
    error_of,
    refusal_of,
)
from ioasid.testing import check_state, nothing_leaks, unchanged
from tests.fuzz.values import same

REQUESTS: Final[tuple[type[Any], ...]] = get_args(Request)
REPLIES: Final[tuple[type[Any], ...]] = get_args(Answer)
EFFECTS: Final[tuple[type[Any], ...]] = get_args(Effect)
HOLDERS: Final = ("host", "kvm", "vdcm", "vtd")
TOKENS: Final = ("vm-1", "vm-2", "vm-3")
WEIGHTS: Final[dict[type[Any], int]] = {
    Acknowledge: 40,
    AttachSpid: 24,
    DetachSpid: 12,
    Alloc: 20,
    AllocMany: 3,
    Free: 8,
    Get: 8,
    Put: 4,
    Notify: 10,
    Defer: 5,
    Subscribe: 8,
    AllocSet: 5,
    OpenSession: 5,
    Continue: 8,
    ThawSet: 4,
    ActivateSet: 3,
}
"""How often a request is chosen; the others have 1."""
PARTS: Final = 10_000
"""As many come to an end in any world."""
_DISRUPTIVE: Final = (CloseSession, SuspendSession, SuspendAll, Evict, FreeSet)
IN_PARTS: Final = (
    *(
        ActivateSet,
        CloseSession,
        Evict,
        ExportSet,
        FreeMany,
        FreeSet,
        FreezeSet,
        ImportSet,
        ThawSet,
    ),
)
"""What is answered when all parts are done, if there are more than one."""
DRIVEN: Final = (Abandon, Continue, SuspendAll, Tick)
"""What only the driver may ask for."""
KINDS: Final = (
    frozenset(EventKind),
    frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE)),
    frozenset((EventKind.FREE,)),
    frozenset((EventKind.ALLOC, EventKind.RECLAIM)),
)
FIELDS: Final = {
    each: [(field.name, field.required) for field in msgspec.structs.fields(each)]
    for each in REQUESTS
}
_WEIGHTS: Final = tuple(WEIGHTS.get(each, 1) for each in REQUESTS)


class World:
    """An allocator, and callers that ask it what makes sense, often enough."""

    def __init__(self, choose: random.Random, core: Allocator | None = None) -> None:
        self.choose = choose
        if core is None:
            capacity = choose.choice((8, 40, 2000))
            order, part = choose.choice(tuple(ReuseOrder)), choose.choice((1, 3, 1000))
            core = Allocator(capacity, order=order, part=part)
            core.handle(core.session, AllocSet("vm-1", capacity // 2))
            core.handle(core.session, AllocSet("vm-2", capacity // 4))
        self.core = core
        self.tables = core._tables
        self.asked = 0

    def run(self, steps: int) -> "World":
        """Ask so many requests that make sense."""
        for _ in range(steps):
            self.ask(*self.request())
        return self

    def session(self) -> int:
        """A session that is live; one is opened if there is none."""
        live = sorted(self.tables.sessions)
        if live:
            return self.choose.choice(live)
        return opened(self.core, f"back-{self.tables.next_session}")

    def request(self) -> tuple[int, Any]:
        """A request that makes sense, often enough, and the session it comes through."""
        choose = self.choose
        kind = choose.choices(REQUESTS, _WEIGHTS)[0]
        if kind in (Acknowledge, Defer):
            asked = self.back(kind)
            if asked is not None:
                return asked
        if kind in _DISRUPTIVE and choose.random() < 0.5:
            kind = Find
        given = {
            name: _POOLS[name](self)
            for name, required in FIELDS[kind]
            if required or choose.random() < 0.5
        }
        if kind is Subscribe and "sid" in given:
            given.pop("token", None)
        if "ioasid" in given and "sid" in given and choose.random() < 0.8:
            owner = self.tables.space.owner(given["ioasid"])
            given["sid"] = 0 if owner is None else owner.sid
        if kind in DRIVEN and choose.random() < 0.9:
            return 0, kind(**given)
        subscription = self.tables.subscriptions.get(given.get("subscription", 0))
        session = None if subscription is None else subscription.holder.session
        return session or self.session(), kind(**given)

    def back(self, kind: type[Any]) -> tuple[int, Any] | None:
        """A subscriber comes back: with the message in its hands, or one that it set aside."""
        choose = self.choose
        busy = [each for each in self.tables.lagging.values() if each.outstanding]
        if not busy:
            return None
        each = choose.choice(busy)
        in_hand = [seq for seq in each.outstanding if seq not in each.deferred][:1]
        aside = sorted(each.deferred)
        keeps = kind is Defer or choose.random() < 0.7
        seq = choose.choice(in_hand or aside if keeps else aside or in_hand)
        session = each.holder.session or self.session()
        if kind is Defer:
            return session, Defer(each.number, seq)
        more = choose.random() < 0.2
        messages = ((each.number, seq), *((self.pair() for _ in range(2)) if more else ()))
        return session, Acknowledge(messages)

    def pair(self) -> tuple[int, int]:
        """A message that may be there to be acknowledged."""
        return _subscription(self), _seq(self)

    def ask(self, session: Any, request: Any) -> str:
        """Send a request, and examine all that comes of it; returns what it came to."""
        core = self.core
        self.asked += 1
        before = core.snapshot()
        try:
            reply = core.handle(session, request)
        except IoasidError as error:
            unchanged(before, core)
            travels(error)
            return type(error).__name__
        assert type(reply) in REPLIES, "an answer that is none"
        waits = type(request) in (Free, FreeSet, FreezeSet) and request.wait is True
        in_parts = core.has_work and type(request) in IN_PARTS
        assert waits or in_parts or type(reply) is not Waiting, "a wait that nobody asked for"
        effects = core.drain()
        assert all(type(each) in EFFECTS for each in effects), "an effect that is none"
        for message in (reply, *effects):
            assert same(message, decode_output(encode(message))), "a message that does not travel"
        check_state(core)
        return type(reply).__name__

    def finish(self) -> None:
        """Let everybody be evicted and everything be freed: nothing may be left over."""
        tables = self.tables
        last = opened(self.core, "the last")
        for name in sorted(tables.holders):
            if name != "the last":
                self.ask(last, Evict(name))
        for sid in sorted(tables.sets):
            self.ask(last, FreeSet(sid))
        self.go_on()
        for group in sorted(tables.groups.values(), key=lambda each: -each.depth):
            self.ask(last, FreeGroup(group.name))
        if tables.reserved:
            self.ask(last, CancelCapacity(tables.reserved))
        self.ask(last, CloseSession())
        self.go_on()
        nothing_leaks(self.core)

    def go_on(self) -> None:
        """Do all that is left in parts."""
        for _ in range(PARTS):
            if self.core.has_work:
                self.ask(0, Continue())
        assert not self.core.has_work, "work that has no end"


def opened(core: Allocator, name: str) -> int:
    """A session that is opened for whoever drives the allocator."""
    answer = core.handle(0, OpenSession(name))
    assert isinstance(answer, SessionOpened)
    return answer.session


def travels(error: IoasidError) -> None:
    """Assert that an error says what it is, here and at the other end of a wire."""
    assert str(error).startswith(error.code), "an error without its code"
    refusal = refusal_of(error)
    for wire_format in WireFormat:
        again = decode_output(encode(refusal, wire_format), wire_format)
        assert isinstance(again, Refused), "a refusal that does not travel"
        found = error_of(again)
        assert (type(error), str(error)) == (type(found), str(found))


def _sid(world: World) -> int:
    return world.choose.choice((0, 0, 0, 1, 1, 2, 3, *world.tables.sets))


def _ioasid(world: World) -> int:
    any_id = world.choose.randrange(world.tables.capacity)
    return world.choose.choice((1, 2, 3, 4, 5, 6, 7, any_id))


def _generation(world: World) -> int:
    return max(world.tables.generation - world.choose.randrange(10), 0)


def _ranges(world: World) -> tuple[IoasidRange, ...]:
    found = []
    end = 0
    for _ in range(world.choose.randrange(4)):
        first = end + world.choose.choice((1, 1, 2, 5))
        end = first + world.choose.choice((0, 0, 1, 3))
        found.append(IoasidRange(first, end))
    return tuple(found)


def _export(world: World) -> SetExport:
    choose = world.choose
    ranges = _ranges(world)
    ioasids = [each.first for each in ranges if choose.random() < 0.7]
    named = (ExportedIoasid(each, each if choose.random() < 0.8 else 3, 7) for each in ioasids)
    token = choose.choice((None, *TOKENS, "vm-3"))
    kind = TokenType.NULL if token is None else TokenType.MM
    return SetExport(token, kind, choose.choice((1, 6, 12)), ranges, tuple(named))


def _group(world: World) -> str | None:
    return world.choose.choice((None, *HOLDERS))


def _seq(world: World) -> int:
    return max(world.tables.seq - world.choose.randrange(10), 0)


def _subscription(world: World) -> int:
    present = sorted(world.tables.subscriptions)
    if present and world.choose.random() < 0.9:
        return world.choose.choice(present)
    return world.choose.randrange(1, world.tables.next_subscription + 1)


_POOLS: Final[dict[str, Callable[[World], Any]]] = {
    "total": lambda world: world.choose.randrange(1, 100),
    "count": lambda world: world.choose.randrange(1, 6),
    "quota": lambda world: world.choose.choice((1, 3, 6, 12, 24)),
    "token": lambda world: world.choose.choice(TOKENS),
    "token_type": lambda world: world.choose.choice(tuple(TokenType)),
    "sid": _sid,
    "group": _group,
    "parent": _group,
    "after": lambda world: world.choose.choice((_group(world), *HOLDERS, 0, 1)),
    "limit": lambda world: world.choose.choice((1, 2, 5, 100, 1000)),
    "ranges": _ranges,
    "export": _export,
    "destroy": lambda world: world.choose.random() < 0.5,
    "wait": lambda world: world.choose.random() < 0.5,
    "missing_ok": lambda world: world.choose.random() < 0.5,
    "ioasid": _ioasid,
    "min": lambda world: world.choose.choice((0, 1, 1, 1, 5)),
    "max": lambda world: world.choose.choice((5, world.tables.capacity - 1)),
    "data": lambda world: world.choose.choice((7, "mine", 2**64 - 1)),
    "spid": lambda world: world.choose.randrange(8),
    "generation": _generation,
    "get": lambda world: world.choose.random() < 0.5,
    "kinds": lambda world: world.choose.choice(KINDS),
    "priority": lambda world: world.choose.choice(tuple(Priority)),
    "hold": lambda world: world.choose.random() < 0.7,
    "replay": lambda world: world.choose.random() < 0.5,
    "queue_size": lambda world: world.choose.choice((1, 2, 3, 8)),
    "awaited": lambda world: world.choose.random() < 0.8,
    "acknowledge_within": lambda world: world.choose.choice((0.5, 10.0, None)),
    "subscription": _subscription,
    "seq": _seq,
    "messages": lambda world: tuple(world.pair() for _ in range(world.choose.randrange(3))),
    "ticket": lambda world: world.choose.randrange(world.tables.next_ticket + 1),
    "now": lambda world: world.tables.now + world.choose.random(),
    "name": lambda world: world.choose.choice(HOLDERS),
    "owner": lambda world: world.choose.choice((None, 1, 2)),
    "kind": lambda world: world.choose.choice(tuple(EventKind)),
}
"""For every field of a request, what makes sense there."""
