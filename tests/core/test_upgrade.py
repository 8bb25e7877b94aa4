"""A snapshot of version 1, which knew no lives, restores as one of the present version."""

import json
from typing import Any, Final

import pytest
from msgspec import msgpack

from ioasid.core import (
    Alloc,
    Allocated,
    Allocator,
    AllocSet,
    Event,
    MalformedMessage,
    SetRecord,
    WireFormat,
    decode_snapshot,
)
from tests.core.helpers import expect
from tests.core.invariants import check_state

OFFERED: Final = {"deferred": False, "resync": False, "folded": [], "stale": []}
EVENT: Final = {"type": "Event", "sid": 0, "token": "vm-1", "data": None, "publisher": None}
PLAIN: Final[dict[str, Any]] = {
    "free_pending": False,
    "spid": None,
    "binding": None,
    "data": None,
    "references": {},
    "chain": [],
}

FIRST: Final[dict[str, Any]] = {
    "type": "Snapshot",
    "version": 1,
    "capacity": 64,
    "reserved": 0,
    "in_use": True,
    "seq": 7,
    "next_session": 3,
    "next_subscription": 2,
    "sets": [
        {
            "sid": 0,
            "token": "vm-1",
            "token_type": "MM",
            "quota": 8,
            "system": False,
            "state": "ACTIVE",
            "ioasids": [[1, 4]],
            "records": [
                PLAIN | {"ioasid": 1, "references": {"kvm": 1}},
                PLAIN | {"ioasid": 2, "spid": 101, "binding": 6, "chain": [6]},
                PLAIN | {"ioasid": 3, "free_pending": True, "chain": [7]},
            ],
        },
        {
            "sid": 2,
            "token": "vm-3",
            "token_type": "MM",
            "quota": 8,
            "system": False,
            "state": "ACTIVE",
            "ioasids": [[5, 5]],
            "records": [PLAIN | {"ioasid": 5, "data": "mine"}],
        },
    ],
    "holders": [{"name": "host", "session": 1}, {"name": "kvm", "session": 2}],
    "subscriptions": [
        {
            "number": 1,
            "holder": "kvm",
            "sid": None,
            "token": "vm-1",
            "kinds": ["ALLOC", "BIND", "FREE", "RECLAIM", "UNBIND"],
            "priority": "LAST",
            "hold": True,
            "queue_size": 1024,
            "acknowledge_within": 10.0,
            "attached": True,
            "outstanding": [
                *(OFFERED | {"seq": seq, "staged": False} for seq in (1, 2, 3, 4)),
                *(OFFERED | {"seq": seq, "staged": True} for seq in (6, 7)),
            ],
            "resync_due": False,
            "folded": [],
            "folded_since": None,
            "grants": [[6, 2]],
        }
    ],
    "stages": [
        {
            "event": EVENT | {"seq": 6, "kind": "BIND", "ioasid": 2, "spid": 101},
            "binding": 6,
            "reach": 3,
            "waiting": [1],
        },
        {
            "event": EVENT | {"seq": 7, "kind": "FREE", "ioasid": 3, "spid": None},
            "binding": None,
            "reach": 3,
            "waiting": [1],
        },
    ],
    "index": 12,
}
"""As a release of version 1 wrote it: two sets are left of three, with events under way."""


def with_record(index: int, changes: dict[str, Any]) -> dict[str, Any]:
    """The changes after which one record of the first set says something else."""
    owner, other = FIRST["sets"]
    records = list(owner["records"])
    records[index] = records[index] | changes
    return {"sets": [owner | {"records": records}, other]}


def restored(tree: dict[str, Any]) -> Allocator:
    """An allocator that goes on from what was written."""
    return Allocator.restore(decode_snapshot(json.dumps(tree).encode(), WireFormat.JSON))


def test_version_1_restores() -> None:
    """All IDs of it are in their first life, and so are the events; all else is as it was."""
    core = restored(FIRST)
    check_state(core)
    snapshot = core.snapshot()
    assert (2, 12, 7, 3, 1) == (
        snapshot.version,
        snapshot.index,
        snapshot.seq,
        snapshot.next_sid,
        snapshot.generation,
    )
    for ioasid in (1, 2, 3, 4, 5):
        record = core.record(ioasid)
        assert record is not None
        assert 1 == record.generation
    about = [stage.event for stage in snapshot.stages]
    assert [1, 1] == [expect(Event, event).generation for event in about]
    assert (((1, 4),), ((5, 5),)) == tuple(
        tuple((each.first, each.last) for each in owner.ranges) for owner in snapshot.sets
    )
    assert snapshot == Allocator.restore(snapshot).snapshot()


def test_numbers_go_on() -> None:
    """The next set and the next life have numbers above all that are known of."""
    core = restored(FIRST)
    made = expect(SetRecord, core.handle(core.session, AllocSet("vm-4", 8)))
    assert 3 == made.sid
    assert Allocated(6, 2) == core.handle(core.session, Alloc(3))


def test_ids_with_gaps_restore() -> None:
    """Several ranges in one word are one part of the present version, whichever format it is in."""
    tree = FIRST | {"sets": [FIRST["sets"][0] | {"ioasids": [[1, 3], [7, 7]]}, FIRST["sets"][1]]}
    for core in (restored(tree), Allocator.restore(decode_snapshot(msgpack.encode(tree)))):
        check_state(core)
        found = [each for each in range(64) if core.record(each) is not None]
        assert [1, 2, 3, 5, 7] == found


def test_nothing_restores() -> None:
    """An allocator that nobody had asked for anything begins with the first set."""
    core = restored(
        FIRST
        | {"in_use": False, "seq": 0, "sets": [], "subscriptions": [], "stages": [], "index": 0}
    )
    assert 0 == expect(SetRecord, core.handle(core.session, AllocSet("vm-1", 8))).sid
    assert Allocated(1, 2) == core.handle(core.session, Alloc(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": 3},
        {"capacity": 4},
        {"seq": 6},
        {"sets": [FIRST["sets"][0], FIRST["sets"][0]]},
        {"sets": [FIRST["sets"][0] | {"ioasids": [[4, 1]]}, FIRST["sets"][1]]},
        {"sets": [FIRST["sets"][0] | {"ioasids": [[1, 2**63 - 1]]}, FIRST["sets"][1]]},
        {"sets": [FIRST["sets"][0] | {"sid": 2**63}, FIRST["sets"][1]]},
        {"sets": None},
        {"holders": FIRST["holders"][:1]},
        {"stages": FIRST["stages"][:1]},
        {"sets": [FIRST["sets"][0] | {"color": None}, FIRST["sets"][1]]},
        {"sets": [FIRST["sets"][0] | {"ioasids": [[1, 3], [3, 4]]}, FIRST["sets"][1]]},
        with_record(1, {"color": None}),
        with_record(1, {"binding": None}),
        with_record(1, {"spid": None}),
        with_record(1, {"chain": [7]}),
        with_record(1, {"chain": [6, 6]}),
        with_record(1, {"chain": [7, 6]}),
        with_record(2, {"chain": []}),
        with_record(2, {"free_pending": False}),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any]) -> None:
    """What could not be in version 1 is refused as anything else that cannot be."""
    with pytest.raises(MalformedMessage):
        restored(FIRST | changes)
