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
                number = effect.subscription
                ask(Acknowledge(number, effect.message.seq), number + 1)

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
    return msgspec.msgpack.decode(msgspec.msgpack.encode(tree), type=Snapshot)


def record(ioasid: int) -> dict[str, Any]:
    """The record of an ID of which there is nothing to say."""
    return {
        "ioasid": ioasid,
        "free_pending": False,
        "spid": None,
        "binding": None,
        "data": None,
        "references": {},
        "chain": (),
    }


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
        "event": event | {"token": "vm", "data": None, "publisher": None},
        "binding": binding,
        "reach": 3,
        "waiting": (),
    }
    return {
        LAST + "outstanding": (offer(seq) | {"staged": True},),
        "stages": (stage, *GOOD.stages),
    }


def granted(*grants: tuple[int, int]) -> dict[str, Any]:
    """The changes after which every subscriber was granted this."""
    return {f"subscriptions.{index}.grants": grants for index in range(3)}


SUBSCRIBER: Final = "subscriptions.0."
SUSPENDED: Final = "subscriptions.1."
LAST: Final = "subscriptions.2."
GRANTS: Final = GOOD.subscriptions[0].grants

BEHIND: Final[dict[str, Any]] = {
    "sets.0.records.0.spid": None,
    "sets.0.records.0.binding": None,
    "stages.1.event.publisher": "host",
    "stages.1.binding": None,
    "stages.2.event.kind": "UNBIND",
    "stages.2.binding": 6,
    **granted((6, 1), (7, 2), (8, 3), (14, 4)),
}
"""The changes after which ID 1 was unbound, which nobody is told before a publisher's event."""

ALONE: Final[list[tuple[str, dict[str, Any]]]] = [
    ("it is of version 2, not 1", {"version": 2}),
    ("more sets than IDs", {"sets.1.sid": 100}),
    ("more sets than IDs", {"sets.1.sid": -1}),
    ("a token that its type does not have", {"sets.1.token": "vm-2"}),
    ("a token that its type does not have", {"sets.1.token_type": "MM"}),
    ("a token that its type does not have", {"sets.0.system": True}),
    ("two scopes", {SUBSCRIBER + "sid": 0}),
    ("token is ''", {LAST + "token": ""}),
    ("the end of", {SUBSCRIBER + "kinds": ("ALLOC", "BIND", "FREE")}),
    ("a grant to who holds nothing", {SUBSCRIBER + "hold": False}),
    ("an event of the future", {"seq": 13}),
    ("an event of the future", {"stages.0.event.seq": 0, "sets.0.records.4.chain": (0,)}),
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
    ("an ID beyond the capacity", {"sets.0.ioasids": ((1, 5), (100, 100))}),
    ("an ID twice in a set", {"sets.0.ioasids": ((1, 5), (5, 5))}),
    ("an ID in two sets", {"sets.1.ioasids": ((5, 5),)}),
    ("a record without an ID", {"sets.0.records.4.ioasid": 6}),
    ("a spid twice", {"sets.0.records.2.spid": 4}),
    ("a scope twice", {SUSPENDED + "holder": "kvm"}),
    ("a grant without an ID", {SUBSCRIBER + "grants.4": (14, 6)}),
    ("a counter beyond all use", {"seq": 2**63}),
    ("a counter beyond all use", {"next_session": 2**63}),
    ("a counter beyond all use", {"next_subscription": 2**63}),
    ("a number of the future", {"holders.0.session": 5}),
    ("a number of the future", {"holders.0.session": 0}),
    ("a number of the future", {"next_subscription": 3}),
    (
        "a counter beyond all use",
        {"next_subscription": 0, "subscriptions": (), "sets.0.records": (), "stages": ()},
    ),
    ("capacity spent and unused", {"in_use": False}),
    ("a spid without a binding", {"sets.0.records.2.binding": None}),
    ("a spid without a binding", {"sets.0.records.2.spid": None}),
    ("a binding of the future", {"sets.0.records.2.binding": 15}),
    ("a binding of the future", {SUBSCRIBER + "grants.0": (15, 1)}),
    ("a binding of the future", BEHIND | {"stages.2.binding": 0}),
    ("a binding of two IDs", {"sets.0.records.2.binding": 7}),
    ("a binding of two IDs", {SUBSCRIBER + "grants.2": (8, 4)}),
    ("a binding of two IDs", BEHIND | {"stages.2.binding": 7}),
    ("a binding of two IDs", in_hand(9, "UNBIND", 3, 7)),
    ("events out of order", {"sets.0.records.0.chain": (12, 11)}),
    ("events out of order", {"sets.0.records.4.chain": (10, 10)}),
    ("events out of order", {"stages.2.reach": 1}),
    ("a quarantine without a FREE", {"sets.0.records.3.free_pending": True}),
    ("a quarantine without a FREE", {"sets.0.records.1.free_pending": False}),
    ("an event that does not follow", {"stages.1.event.kind": "BIND", "stages.1.binding": 11}),
    ("an event that leads elsewhere", {"sets.0.records.0.spid": 8}),
    ("an event that leads elsewhere", {"sets.0.records.1.binding": 9}),
    ("an event of another ID", {"stages.1.event.ioasid": 3}),
    ("an event of another ID", {"stages.1.event.sid": 1}),
    ("an event of another ID", {"stages.1.event.token": None}),
    ("a tier that there is not", {"stages.2.reach": -2}),
    ("a tier that there is not", {"stages.4.reach": 4}),
    ("an event in two tiers", {"stages.4.reach": 2, "stages.4.waiting": (1, 3)}),
    ("an event that was lost", {"stages.4.waiting": (3,)}),
    ("an event that was lost", {SUBSCRIBER + "outstanding.1.staged": False}),
    ("an event ahead of its tier", {"stages.4.reach": -1}),
    (
        "an event to who is not told of its kind",
        {SUBSCRIBER + "kinds": ("ALLOC",), SUBSCRIBER + "hold": False, SUBSCRIBER + "grants": ()},
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
    ("an event that is not under way", {"sets.0.records.3.chain": ()}),
    ("the end of a binding that goes on", {LAST + "outstanding": (offer(9, stale=(8,)),)}),
    ("the end of a binding that goes on", in_hand(9, "UNBIND", 3, 8)),
    ("the end of a binding that goes on", in_hand(8, "BIND", 3, 8)),
    ("the end of what was not granted", {LAST + "outstanding": (offer(9, stale=(15,)),)}),
    ("a grant without end", {LAST + "grants": ((5, 3), *GRANTS)}),
    (
        "a grant to who is not told of its end",
        {
            "sets.1.ioasids": ((9, 9),),
            "sets.1.records": (record(9) | {"spid": 9, "binding": 9},),
            LAST + "grants": (*GRANTS[:3], (9, 9), *GRANTS[3:]),
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
        "sets.0.records.4": record(5) | {"free_pending": True},
        "stages.0.waiting": (),
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
