"""The outbox: what leaves, in which order, and what has become stale meanwhile."""

from typing import Any

from msgspec import Struct

from ioasid.core import Alloc, Allocated, Deliver, Done, End, Event, EventKind, UnknownSet
from ioasid.service import Answered
from ioasid.service._memory import Asked, Memory
from ioasid.service._outbox import FEW, Outbox
from ioasid.service._outlet import Outlet
from ioasid.service._transport import CHUNK
from tests.service.test_memory import Connection
from tests.service.test_outlet import Queueing


def asked(number: int, answer: Any) -> Asked:
    """Something that was asked, and its answer."""
    port: Any = None
    made = Asked(Memory(None, 1), Connection(), number, port, Alloc(0), None)
    made.set_result(answer)
    return made


def event(seq: int) -> Event:
    """An event."""
    return Event(seq, EventKind.ALLOC, 1, 0)


def test_everything_leaves_in_order() -> None:
    """Answers, refusals, messages and frames, and the answers among them are counted."""
    left: list[Struct] = []

    def pack(frame: Struct) -> bytes:
        left.append(frame)
        return b"x"

    outbox, outlet = Outbox(), Outlet(Queueing())
    outlet.number = 7
    for item in (
        asked(1, Allocated(5)),
        (outlet, 0, event(1)),
        End(7, True),
        asked(2, UnknownSet(3)),
        Answered(3, Done()),
    ):
        outbox.put(item)
    assert (5, 0) == (len(outbox), outbox.answered)
    assert b"xxxxx" == outbox.take(pack)
    assert (0, 3, b"") == (len(outbox), outbox.answered, outbox.take(pack))
    answer, delivery, end, refusal, done = left
    assert (Answered(1, Allocated(5)), Deliver((7,), event(1))) == (answer, delivery)
    assert (End(7, True), Answered(3, Done())) == (end, done)
    assert isinstance(refusal, Answered)
    assert "UnknownSet" == getattr(refusal.answer, "error", None)


def test_a_piece_has_a_bound() -> None:
    """What is much leaves in several pieces, and nothing in the last."""
    outbox = Outbox()
    for number in range(4):
        outbox.put(Answered(number, Done()))
    sizes = []
    while data := outbox.take(lambda _: b"x" * (CHUNK // 2 + 1)):
        sizes.append(len(data))
    assert [CHUNK + 2, CHUNK + 2] == sizes


def test_what_is_stale_does_not_leave() -> None:
    """It is dropped at once if it is much, and else when its turn comes."""
    for count in (3, FEW + 3):
        outbox, outlet = Outbox(), Outlet(Queueing())
        for seq in range(count):
            outbox.put((outlet, outlet.turn, event(seq)))
        outlet.withdraw(1)
        outbox.drop_stale()
        assert (count if count <= FEW else 1) == len(outbox)
        outbox.put((outlet, outlet.turn, event(count)))
        left: list[Any] = []
        outbox.take(lambda frame, left=left: left.append(frame) or b"x")  # type: ignore[misc]
        assert [1, count] == [each.message.seq for each in left]


def test_what_is_cleared_does_not_leave() -> None:
    """Nothing of it is counted either."""
    outbox = Outbox()
    assert 1 == outbox.put(Answered(1, Done()))
    outbox.clear()
    assert (b"", 0) == (outbox.take(lambda _: b"x"), outbox.answered)
