"""What one subscriber may be told, after what it was told before."""

from ioasid.core import Event, EventKind, IoasidState, LiveIoasid, Resync
from ioasid.testing._storm_streams import Streams

EVERYTHING = frozenset(EventKind)


def watched(*messages: Event | Resync, joined: int = 0, life: int = 1) -> list[str]:
    """What is wrong with a stream of messages."""
    violated: list[str] = []
    streams = Streams(violated.append)
    streams.begin("sub", EVERYTHING, joined)
    for message in messages:
        if isinstance(message, Resync):
            streams.resynced("sub", message)
        else:
            streams.told("sub", message, life)
    return violated


def event(seq: int, kind: EventKind, publisher: str | None = None) -> Event:
    """An event of one ID."""
    return Event(seq, kind, ioasid=1, sid=0, publisher=publisher)


def resync(seq: int, state: IoasidState, spid: int | None) -> Resync:
    """A Resync that shows one ID."""
    return Resync(seq, (LiveIoasid(1, 0, None, state, spid, None),))


def test_a_life_in_order_is_right() -> None:
    """From ALLOC to RECLAIM, twice, what a publisher says aside."""
    kinds = [EventKind.ALLOC, EventKind.BIND, EventKind.UNBIND, EventKind.FREE, EventKind.RECLAIM]
    events = [event(seq, kind) for seq, kind in enumerate(kinds * 2, 1)]
    assert [] == watched(*events)
    assert [] == watched(event(1, EventKind.FREE, "somebody"), event(2, EventKind.ALLOC))


def test_what_does_not_follow_is_wrong() -> None:
    """No UNBIND of what is not bound, no event again, and none for a life that did not begin."""
    assert 1 == len(watched(event(1, EventKind.ALLOC), event(2, EventKind.UNBIND)))
    assert 1 == len(watched(event(2, EventKind.ALLOC), event(2, EventKind.BIND)))
    assert 1 == len(watched(event(1, EventKind.BIND)))
    assert [] == watched(event(1, EventKind.BIND), joined=1)


def test_a_resync_says_what_there_is() -> None:
    """After a Resync only that follows which it shows."""
    bound = resync(5, IoasidState.ACTIVE, 7)
    pending = resync(5, IoasidState.FREE_PENDING, 7)
    assert [] == watched(bound, event(6, EventKind.UNBIND))
    assert 1 == len(watched(bound, event(6, EventKind.BIND)))
    assert [] == watched(pending, event(6, EventKind.RECLAIM))
    assert 1 == len(watched(pending, event(6, EventKind.FREE)))


def test_nobody_is_told_what_it_did_not_ask_for() -> None:
    """Kinds that were not subscribed, and streams that ended or never began, are wrong."""
    violated: list[str] = []
    streams = Streams(violated.append)
    streams.begin("sub", frozenset((EventKind.FREE,)), 0)
    streams.told("sub", event(1, EventKind.ALLOC), 1)
    streams.told("other", event(1, EventKind.FREE), 1)
    streams.end("sub")
    streams.told("sub", event(2, EventKind.FREE), 1)
    streams.resynced("sub", Resync(3, ()))
    assert 4 == len(violated)
    streams.end("sub")
