"""Lives of IDs, as answers and messages tell of them."""

from ioasid.core import (
    Allocated,
    AllocatedMany,
    Done,
    Event,
    EventKind,
    IoasidRange,
    IoasidState,
    LiveIoasid,
    Resync,
    UnknownSet,
    refusal_of,
)
from ioasid.testing._lives import Life, ended_by, ends_acknowledged, named_in

RESYNC = Resync(
    9,
    (
        LiveIoasid(1, 0, None, IoasidState.ACTIVE, None, None),
        LiveIoasid(2, 0, None, IoasidState.FREE_PENDING, None, None),
        LiveIoasid(3, 0, None, IoasidState.FREE_PENDING, 7, None),
    ),
)


REFUSED = refusal_of(UnknownSet(1))


def test_the_first_free_counts() -> None:
    """Who has to acknowledge a FREE is known when it is sent: another free changes nothing."""
    life = Life(0, 1)
    life.free({1, 2})
    life.free({3})
    assert (True, {1, 2}) == (life.freed, life.to_acknowledge)


def test_answers_name_ids() -> None:
    """One ID, several in ranges, or none."""
    assert [5] == named_in(Allocated(5))
    assert [1, 2, 3, 7] == named_in(AllocatedMany((IoasidRange(1, 3), IoasidRange(7, 7))))
    assert [[], [], []] == [named_in(each) for each in (Done(), UnknownSet(1), REFUSED)]


def test_messages_end_lives() -> None:
    """A FREE ends one life, a Resync shows those that end, and a publisher ends none."""
    assert {1} == ended_by(Event(1, EventKind.FREE, 1, 0))
    assert set() == ended_by(Event(1, EventKind.UNBIND, 1, 0))
    assert set() == ended_by(Event(1, EventKind.FREE, 1, 0, publisher="somebody"))
    assert {2, 3} == ended_by(RESYNC)


def test_a_resync_does_not_stand_for_what_was_set_aside() -> None:
    """A FREE that is set aside is acknowledged by itself and not with a Resync."""
    free = Event(4, EventKind.FREE, 3, 0)
    assert {2} == ends_acknowledged(RESYNC, [free])
    assert {2, 3} == ends_acknowledged(RESYNC, [RESYNC])
    assert {3} == ends_acknowledged(free, [free])
