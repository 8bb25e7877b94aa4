"""An allocator in a state that random requests have led to, and whoever asks it."""

import random
from collections.abc import Callable
from typing import Any, Final, get_args

import msgspec

from ioasid.core import (
    Acknowledge,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AttachSpid,
    CancelCapacity,
    CloseSession,
    Complete,
    Defer,
    Deliver,
    DetachSpid,
    End,
    EventKind,
    Evict,
    Find,
    Free,
    FreeSet,
    Get,
    IoasidError,
    Notify,
    OpenSession,
    Priority,
    Put,
    Refused,
    Reply,
    Request,
    Subscribe,
    SuspendSession,
    TokenType,
    WireFormat,
    Withdraw,
    decode_answer,
    encode,
    error_of,
    refusal_of,
)
from ioasid.testing import check_state, nothing_leaks, unchanged
from tests.fuzz.values import same

REQUESTS: Final[tuple[type[Any], ...]] = get_args(Request)
REPLIES: Final[tuple[type[Any], ...]] = get_args(Reply)
EFFECTS: Final[tuple[type[Any], ...]] = (Deliver, Withdraw, End, Complete)
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
}
"""How often a request is chosen; the others have 1."""
_DISRUPTIVE: Final = (CloseSession, SuspendSession, Evict, FreeSet)
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
            core = Allocator(capacity)
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
        return self.core.open_session(f"back-{self.tables.next_session}").session

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
            given["sid"] = self.tables.space.owner(given["ioasid"]) or 0
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
        return each.holder.session or self.session(), kind(each.number, seq)

    def ask(self, session: Any, request: Any) -> str:
        """Send a request, and examine all that comes of it; returns what it came to."""
        core = self.core
        self.asked += 1
        before = core.snapshot()
        try:
            reply = core.handle(session, request, self.asked)
        except IoasidError as error:
            unchanged(before, core)
            travels(error)
            return type(error).__name__
        waits = type(request) in (Free, FreeSet) and request.wait is True
        assert type(reply) in REPLIES or (reply is None and waits), "an answer that is none"
        effects = core.drain()
        assert all(type(each) in EFFECTS for each in effects), "an effect that is none"
        messages = [each.message for each in effects if isinstance(each, Deliver)]
        for message in messages if reply is None else (reply, *messages):
            assert same(message, decode_answer(encode(message))), "a message that does not travel"
        check_state(core)
        return type(reply).__name__

    def finish(self) -> None:
        """Let everybody be evicted and everything be freed: nothing may be left over."""
        tables = self.tables
        last = self.core.open_session("the last").session
        for name in sorted(tables.holders):
            if name != "the last":
                self.ask(last, Evict(name))
        for sid in sorted(tables.sets):
            self.ask(last, FreeSet(sid))
        if tables.reserved:
            self.ask(last, CancelCapacity(tables.reserved))
        self.ask(last, CloseSession())
        nothing_leaks(self.core)


def travels(error: IoasidError) -> None:
    """Assert that an error says what it is, here and at the other end of a wire."""
    assert str(error).startswith(error.code), "an error without its code"
    refusal = refusal_of(error)
    for wire_format in WireFormat:
        again = decode_answer(encode(refusal, wire_format), wire_format)
        assert isinstance(again, Refused), "a refusal that does not travel"
        found = error_of(again)
        assert (type(error), str(error)) == (type(found), str(found))


def _sid(world: World) -> int:
    return world.choose.choice((0, 0, 0, 1, 1, 2, 3, *world.tables.sets))


def _ioasid(world: World) -> int:
    any_id = world.choose.randrange(world.tables.capacity)
    return world.choose.choice((1, 2, 3, 4, 5, 6, 7, any_id))


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
    "destroy": lambda world: world.choose.random() < 0.5,
    "wait": lambda world: world.choose.random() < 0.5,
    "ioasid": _ioasid,
    "min": lambda world: world.choose.choice((0, 1, 1, 1, 5)),
    "max": lambda world: world.choose.choice((5, world.tables.capacity - 1)),
    "data": lambda world: world.choose.choice((7, "mine", 2**64 - 1)),
    "spid": lambda world: world.choose.randrange(8),
    "get": lambda world: world.choose.random() < 0.5,
    "kinds": lambda world: world.choose.choice(KINDS),
    "priority": lambda world: world.choose.choice(tuple(Priority)),
    "hold": lambda world: world.choose.random() < 0.7,
    "replay": lambda world: world.choose.random() < 0.5,
    "queue_size": lambda world: world.choose.choice((1, 2, 3, 8)),
    "acknowledge_within": lambda world: world.choose.choice((0.5, 10.0, None)),
    "subscription": _subscription,
    "seq": _seq,
    "name": lambda world: world.choose.choice(HOLDERS),
    "kind": lambda world: world.choose.choice(tuple(EventKind)),
}
"""For every field of a request, what makes sense there."""
