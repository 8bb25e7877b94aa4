"""The lines: as a file has them, and what they have in common with what a tap is given."""

import msgspec

from ioasid.actors import Decision
from ioasid.core import Allocator, Changes, Done, Get, Snapshot
from ioasid.recorder import Decided, Noted, Opened, RecordedLine, Stepped


def test_a_decision_has_the_same_fields() -> None:
    """A `Decided` is what a `Decision` looks like in a file, and where it belongs."""
    assert (*Decision.__struct_fields__, "allocator") == Decided.__struct_fields__
    decision = Decision(3, 1.5, 1, "host", Get(4), Done(), (), Changes())
    assert Decided(3, 1.5, 1, "host", Get(4), Done(), (), Changes()) == msgspec.json.decode(
        msgspec.json.encode(decision), type=Decided
    )


def test_every_line_comes_back() -> None:
    """Each kind of line is told apart by its type."""
    snapshot: Snapshot = Allocator(8).snapshot()
    lines: list[RecordedLine] = [
        Opened(1, 0, snapshot),
        Decided(1, 0.5, 1, "host", Get(1), Done(), (), Changes()),
        Stepped(0.5, "kvm:vm-1", {"type": "Enqcmd", "gpasid": 1}),
        Noted(0.5, "a heading"),
    ]
    for line in lines:
        assert line == msgspec.json.decode(msgspec.json.encode(line), type=RecordedLine)
