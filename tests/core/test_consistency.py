"""Snapshots whose parts contradict each other, each in one way, are refused for that reason."""

import re
from typing import Any, Final

import msgspec
import pytest

from ioasid.core import (
    Acknowledge,
    Allocator,
    AllocMany,
    AllocSet,
    AttachData,
    AttachSpid,
    Deliver,
    DetachSpid,
    EventKind,
    Free,
    MalformedMessage,
    Notify,
    OpenSession,
    Priority,
    Request,
    Snapshot,
    Subscribe,
    SuspendSession,
    TokenType,
)
from tests.core.invariants import check_state


def busy_allocator() -> Allocator:
    """An allocator with events under way in every tier: IDs 1 to 5, of which 3 is at rest."""
    core = Allocator(100)

    def ask(request: Request, session: int = core.session) -> Any:
        return core.handle(session, request)

    def acknowledge() -> None:
        for effect in core.drain():
            if isinstance(effect, Deliver):
                for number in effect.subscriptions:
                    ask(Acknowledge(((number, effect.message.seq),)), number + 1)

    ask(AllocSet("vm", 10))
    ask(AllocSet(None, 10, TokenType.NULL))
    for number, (name, priority) in enumerate(
        (("kvm", Priority.CPU), ("vdcm", Priority.DEVICE), ("vtd", Priority.IOMMU)), 2
    ):
        assert number == ask(OpenSession(name)).session
        ask(Subscribe(token="vm", priority=priority, hold=True, queue_size=4), number)
    ask(AllocMany(0, 5))
    for ioasid in (1, 2, 3):
        ask(AttachSpid(ioasid, ioasid))
    while core.lagging():
        acknowledge()
    ask(SuspendSession(), 3)
    ask(AttachData(5, "five"))
    ask(Notify(5, EventKind.BIND))
    acknowledge()
    ask(DetachSpid(1))
    ask(AttachSpid(1, 7))
    ask(Free(2))
    ask(AttachSpid(4, 4))
    core.drain()
    return core


GOOD: Final = busy_allocator().snapshot()


def edited(changes: dict[str, Any]) -> Snapshot:
    """The good snapshot with other values at some places; "sets.0.quota" is such a place."""
    tree = msgspec.msgpack.decode(msgspec.msgpack.encode(GOOD))
    for place, value in changes.items():
        *parents, last = [int(key) if key.isdigit() else key for key in place.split(".")]
        part = tree
        for key in parents:
            part = part[key]
        part[last] = value
        if last == "freed":
            part["freed_at"] = (0.0,) * len(value)
    return msgspec.msgpack.decode(msgspec.msgpack.encode(tree), type=Snapshot)


def offer(seq: int, *, stale: tuple[int, ...] | None = None) -> dict[str, Any]:
    """A message that a subscriber has: an event that needs no order, or a Resync."""
    resync = stale is not None
    return {
        "seq": seq,
        "deferred": False,
        "staged": False,
        "resync": resync,
        "folded": (),
        "stale": stale or (),
    }


def in_hand(seq: int, kind: str, ioasid: int, binding: int) -> dict[str, Any]:
    """The changes after which the last subscriber has an event that nothing waits for any more."""
    event = {"type": "Event", "seq": seq, "kind": kind, "ioasid": ioasid, "sid": 0, "spid": 1}
    stage = {
        "event": event | {"token": "vm", "data": None, "publisher": None, "generation": 1},
        "binding": binding,
        "reach": 3,
        "waiting": (),
        "chained": False,
    }
    return {
        LAST + "outstanding": (offer(seq) | {"staged": True},),
        "stages": (stage, *GOOD.stages),
    }


def grants(place: str, *pairs: tuple[int, int]) -> dict[str, Any]:
    """The changes after which a subscriber was granted these bindings, each with its ID."""
    return {
        place + "grants": tuple(binding for binding, _ in pairs),
        place + "granted": tuple(ioasid for _, ioasid in pairs),
    }


def all_granted(*pairs: tuple[int, int]) -> dict[str, Any]:
    """The changes after which every subscriber was granted this."""
    bindings = {binding for binding, _ in pairs}
    changes: dict[str, Any] = {}
    for index, each in enumerate(GOOD.subscriptions):
        changes |= grants(f"subscriptions.{index}.", *pairs)
        changes[f"subscriptions.{index}.unseen"] = tuple(
            binding for binding in each.unseen if binding in bindings
        )
    return changes


def bound(sid: int, *rows: tuple[int, int, int]) -> dict[str, Any]:
    """The changes after which these are the spids, IDs and bindings of a set."""
    return {
        f"sets.{sid}.{name}": tuple(row[column] for row in rows)
        for column, name in enumerate(("spids", "bound", "bindings"))
    }


def in_words(*parts: tuple[int, bytes, int, bytes]) -> dict[str, Any]:
    """The changes after which these are the IDs of the first set."""
    return {"sets.0.ranges": (), "sets.0.words": parts}


SUBSCRIBER: Final = "subscriptions.0."
SUSPENDED: Final = "subscriptions.1."
LAST: Final = "subscriptions.2."
GRANTS: Final = tuple(zip(GOOD.subscriptions[0].grants, GOOD.subscriptions[0].granted, strict=True))
BOUND: Final = ((2, 2, 7), (3, 3, 8), (4, 4, 14), (7, 1, 12))
STAGES: Final = msgspec.to_builtins(GOOD.stages)

BEHIND: Final[dict[str, Any]] = {
    **bound(0, *BOUND[:3]),
    "stages.1.event.publisher": "host",
    "stages.1.binding": None,
    "stages.2.event.kind": "UNBIND",
    "stages.2.binding": 6,
    **all_granted((6, 1), (7, 2), (8, 3), (14, 4)),
}
"""The changes after which ID 1 was unbound, which nobody is told before a publisher's event."""

ALONE: Final[list[tuple[str, dict[str, Any]]]] = [
    ("it is of version 3, not 2", {"version": 3}),
    ("a set of the future", {"sets.1.sid": 2}),
    ("a set of the future", {"sets.1.sid": -1}),
    ("a set of the future", {"next_sid": 1}),
    ("a life of the future", {"generation": 0}),
    ("a life of the future", {"stages.0.event.generation": 0}),
    ("a life of the future", {"stages.0.event.generation": 2}),
    ("a life of the future", {"sets.0.ranges": ((1, 5, 0, 0),)}),
    ("a life of the future", {"sets.0.ranges": ((1, 5, 1, 1),)}),
    ("a life of the future", {"sets.0.ranges": ((1, 5, 2, 0),)}),
    ("a life of the future", in_words((1, b"\x1f", 0, b""))),
    ("a life of the future", in_words((1, b"\x1f", 1, bytes(16) + b"\1\0\0\0"))),
    ("a life of the future", in_words((1, b"\x1f", 1, b"\xff" * 40))),
    ("generations that go neither on nor up", {"sets.0.ranges": ((1, 5, 1, -1),)}),
    ("generations that go neither on nor up", {"sets.0.ranges": ((1, 5, 1, 2),)}),
    ("not one generation for each ID", in_words((1, b"\x1f", 1, b"\1"))),
    ("not one generation for each ID", in_words((1, b"\x1f", 1, bytes(16)))),
    ("not one generation for each ID", in_words((1, b"\x1f", 1, bytes(24)))),
    ("IDs that are in no word", in_words((1, b"", 1, b""))),
    ("IDs that are in no word", in_words((0, b"\x3e", 1, b""))),
    ("IDs that are in no word", in_words((1020, b"\x1f", 1, b""))),
    ("an ID beyond the capacity", in_words((-1024, b"\x1f", 1, b""))),
    ("more IDs than quota", in_words((1, b"\xff\xff", 1, b""))),
    ("more IDs than quota", {"sets.0.ranges": ((1, 50, 1, 0),)}),
    ("columns that do not fit together", {"sets.0.spids": (2, 3, 4)}),
    ("columns that do not fit together", {"sets.0.bound": (2, 3, 4)}),
    ("columns that do not fit together", {"sets.0.bindings": (7, 8, 14, 12, 1)}),
    ("columns that do not fit together", {"subscriptions.0.granted": ()}),
    ("columns that do not fit together", {"holders.0.referenced": (1,)}),
    ("an ID with two spids", {"sets.0.bound.1": 2}),
    ("an ID freed twice", {"sets.0.freed": (2, 2)}),
    ("columns that do not fit together", {"sets.0.freed_at": (0.0, 0.0)}),
    ("an ID freed twice", {"sets.1.freed": (2,)}),
    ("data of another set's ID", {"sets.1.data": ((3, "three"),)}),
    (
        "the references of an ID twice",
        {"holders.0.referenced": (3, 3), "holders.0.counts": (1, 1)},
    ),
    ("references is 0", {"holders.0.referenced": (3,), "holders.0.counts": (0,)}),
    ("spid is -1", bound(0, (-1, 2, 7), *BOUND[1:])),
    ("spid is 4294967295", bound(0, *BOUND[:3], (2**32 - 1, 1, 12))),
    ("a token that its type does not have", {"sets.1.token": "vm-2"}),
    ("a token that its type does not have", {"sets.1.token_type": "MM"}),
    ("a token that its type does not have", {"sets.0.system": True}),
    ("two scopes", {SUBSCRIBER + "sid": 0}),
    ("token is ''", {LAST + "token": ""}),
    ("the end of", {SUBSCRIBER + "kinds": ("ALLOC", "BIND", "FREE")}),
    ("a grant to who holds nothing", {SUBSCRIBER + "hold": False}),
    ("freed in the future", {"sets.0.freed_at": (1.0,)}),
    ("an event of the future", {"seq": 13}),
    ("an event of the future", {"stages.0.event.seq": 0}),
    ("spid is -1", {"stages.4.event.spid": -1}),
    ("data is", {"stages.0.event.data": "x" * 4097}),
    ("an event without its binding", {"stages.0.binding": 9}),
    ("an event without its binding", {"stages.0.event.kind": "RECLAIM"}),
    ("an event without its binding", {"stages.1.event.kind": "ALLOC"}),
    ("an event without its binding", {"stages.1.binding": None, "stages.1.event.spid": None}),
    ("an event without its binding", {"stages.1.binding": 11}),
    ("an event without its binding", {"stages.3.binding": None}),
    ("an event without its binding", {"stages.3.event.spid": None}),
    ("an event without its binding", {"stages.4.binding": 13}),
    ("an event without its binding", {"stages.4.event.spid": None}),
]
"""Parts that cannot be, whatever the others are."""

CONTRADICTIONS: Final[list[tuple[str, dict[str, Any]]]] = [
    ("two sessions of one number", {"holders.0.session": 2}),
    ("a token twice", {"sets.1.token": "vm", "sets.1.token_type": "MM"}),
    (
        "two system sets",
        {
            "sets.1.system": True,
            "sets.0.system": True,
            "sets.0.token": None,
            "sets.0.token_type": "NULL",
        },
    ),
    ("an ID beyond the capacity", {"sets.0.ranges": ((1, 5, 1, 0), (100, 100, 1, 0))}),
    ("an ID beyond the capacity", {"sets.0.words": ((99, b"\3", 1, b""),)}),
    ("an ID twice", {"sets.0.ranges": ((1, 5, 1, 0), (5, 5, 1, 0))}),
    ("an ID twice", {"sets.0.words": ((5, b"\1", 1, b""),)}),
    ("an ID twice", {"sets.1.ranges": ((5, 5, 1, 0),)}),
    ("something of an ID that there is not", {"sets.0.bound.1": 6}),
    ("something of an ID that there is not", {"sets.0.bound.1": -1}),
    ("something of an ID that there is not", {"sets.0.data.0": (6, "six")}),
    ("something of an ID that there is not", {"sets.0.freed": (2, 6)}),
    (
        "something of an ID that there is not",
        {"holders.0.referenced": (6,), "holders.0.counts": (1,)},
    ),
    ("something of an ID that there is not", {"stages.0.event.ioasid": 6}),
    ("a spid twice", {"sets.0.spids.1": 4}),
    ("a scope twice", {SUSPENDED + "holder": "kvm"}),
    ("something of an ID that there is not", {SUBSCRIBER + "granted.4": 6}),
    ("a counter beyond all use", {"seq": 2**63}),
    ("a counter beyond all use", {"next_sid": 2**63}),
    ("a counter beyond all use", {"generation": 2**63}),
    ("a counter beyond all use", {"next_session": 2**63}),
    ("a counter beyond all use", {"next_subscription": 2**63}),
    ("a number of the future", {"holders.0.session": 5}),
    ("a number of the future", {"holders.0.session": 0}),
    ("a number of the future", {"next_subscription": 3}),
    (
        "a counter beyond all use",
        {"next_subscription": 0, "subscriptions": (), "sets.0.freed": (), "stages": ()},
    ),
    ("capacity spent and unused", {"in_use": False}),
    ("a spid without a binding", {"sets.0.bindings.1": None}),
    ("a binding in a set that runs nothing", {"sets.0.state": "FROZEN"}),
    ("a binding in a set that runs nothing", {"sets.0.state": "INCOMING"}),
    (
        "a binding in a set that runs nothing",
        {"sets.0.state": "FREE_PENDING", "sets.0.bindings.1": None},
    ),
    ("a binding of the future", {"sets.0.bindings.1": 15}),
    ("a binding of the future", {"sets.0.bindings.1": 0}),
    ("a binding of the future", {SUBSCRIBER + "grants.0": 15}),
    ("a binding of the future", BEHIND | {"stages.2.binding": 0}),
    ("a binding of two IDs", {"sets.0.bindings.1": 7}),
    ("a binding of two IDs", {SUBSCRIBER + "granted.2": 4}),
    ("a binding of two IDs", BEHIND | {"stages.2.binding": 7}),
    ("a binding of two IDs", in_hand(9, "UNBIND", 3, 7)),
    ("events out of order", {"stages.1": STAGES[2], "stages.2": STAGES[1]}),
    ("events out of order", {"stages": (STAGES[0], *STAGES)}),
    ("events out of order", {"stages.2.reach": 1}),
    ("a quarantine without a FREE", {"sets.0.freed": (2, 4)}),
    ("a quarantine without a FREE", {"sets.0.freed": ()}),
    ("an event that does not follow", {"stages.1.event.kind": "BIND", "stages.1.binding": 11}),
    ("an event that leads elsewhere", {"sets.0.spids.3": 8}),
    ("an event that leads elsewhere", {"sets.0.bindings.0": 9}),
    ("an event that leads elsewhere", {"stages.1.event.ioasid": 3}),
    ("an event of another ID", {"stages.1.event.sid": 1}),
    ("an event of another ID", {"stages.1.event.token": None}),
    ("an event of another ID", {"stages.1.event.generation": 2, "generation": 2}),
    ("a tier that there is not", {"stages.2.reach": -2}),
    ("a tier that there is not", {"stages.4.reach": 4}),
    ("an event in two tiers", {"stages.4.reach": 2, "stages.4.waiting": (1, 3)}),
    ("an event that was lost", {"stages.4.waiting": (3,)}),
    ("an event that was lost", {SUBSCRIBER + "outstanding.1.staged": False}),
    ("an event ahead of its tier", {"stages.4.reach": -1}),
    (
        "an event to who is not told of its kind",
        {SUBSCRIBER + "kinds": ("ALLOC",), SUBSCRIBER + "hold": False} | grants(SUBSCRIBER),
    ),
    ("an ID that outlives its set", {"sets.0.state": "FREE_PENDING"}),
    ("a subscriber without a session", {"holders.1.session": None}),
    ("a queue that nobody empties", {SUSPENDED + "resync_due": False}),
    ("a queue that nobody empties", {SUSPENDED + "outstanding": (offer(9),)}),
    ("a queue beyond its bound", {SUBSCRIBER + "queue_size": 1}),
    ("events folded for nothing", {SUBSCRIBER + "folded_since": 9}),
    ("events folded at no time", {SUSPENDED + "folded_since": None}),
    ("an event folded in the future", {SUSPENDED + "folded_since": 15}),
    ("a message of the future", {LAST + "outstanding": (offer(15),)}),
    ("a message of the future", {LAST + "outstanding": (offer(0),)}),
    ("two messages of one number", {LAST + "outstanding": (offer(14),)}),
    ("an event that nobody waits for", {"stages.4.waiting": ()}),
    ("an event that is not under way", {"stages.4.chained": False}),
    ("the end of a binding that goes on", {LAST + "outstanding": (offer(9, stale=(8,)),)}),
    ("the end of a binding that goes on", in_hand(9, "UNBIND", 3, 8)),
    ("the end of a binding that goes on", in_hand(8, "BIND", 3, 8)),
    ("the end of what was not granted", {LAST + "outstanding": (offer(9, stale=(15,)),)}),
    ("a grant without end", grants(LAST, (5, 3), *GRANTS)),
    ("a binding that is unseen and not granted", {LAST + "unseen": (5, 12, 14)}),
    (
        "the end of what nobody has seen",
        grants(SUSPENDED, (5, 3), *GRANTS) | {SUSPENDED + "unseen": (5,)},
    ),
    (
        "a grant to who is not told of its end",
        {
            "sets.1.ranges": ((9, 9, 1, 0),),
            **bound(1, (9, 9, 9)),
            **grants(LAST, *GRANTS[:3], (9, 9), *GRANTS[3:]),
        },
    ),
]
"""Parts that can be, and not together."""


@pytest.mark.parametrize("changes", [{}, BEHIND])
def test_what_they_are_made_of_is_restored(changes: dict[str, Any]) -> None:
    """What the contradictions are made of is sound."""
    snapshot = edited(changes)
    core = Allocator.restore(snapshot)
    check_state(core)
    assert snapshot == core.snapshot()


@pytest.mark.parametrize(
    ("reason", "changes"),
    ALONE + CONTRADICTIONS,
    ids=lambda each: each if type(each) is str else "",
)
def test_a_contradiction_is_refused(reason: str, changes: dict[str, Any]) -> None:
    """A snapshot with one contradiction is refused, and the error names it."""
    with pytest.raises(MalformedMessage, match=re.escape(reason)):
        Allocator.restore(edited(changes))


UNDECIDED: Final[dict[str, dict[str, Any]]] = {
    "a quarantine that nobody needs": {
        "sets.0.freed": (2, 5),
        "sets.0.data": (),
        "stages.0.waiting": (),
        "stages.0.chained": False,
    },
    "an event that could be offered": {"stages.0.waiting": (), SUSPENDED + "folded": ()},
    "a Resync that could be given": {LAST + "resync_due": True},
    "an empty set that could go": {"sets.1.state": "FREE_PENDING"},
}


@pytest.mark.parametrize("which", UNDECIDED)
def test_an_undecided_state_is_refused(which: str) -> None:
    """A snapshot in which something could happen at once was taken of no allocator."""
    with pytest.raises(MalformedMessage, match="undecided"):
        Allocator.restore(edited(UNDECIDED[which]))
