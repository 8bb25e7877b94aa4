"""Coming back: sessions first, then their subscriptions, and not what was left meanwhile."""

from collections.abc import Callable
from typing import Any

import pytest

from ioasid.actors._queue import Queue
from ioasid.core import (
    AllocatorClosed,
    CloseSession,
    DiskFull,
    HolderLive,
    IoasidError,
    OpenSession,
    Request,
    SessionEnded,
    SessionOpened,
    Subscribe,
    Subscribed,
    UnknownSet,
)
from ioasid.service._audience import Audience, Told
from ioasid.service._comeback import Comeback


class Session:
    """A session, as a link sees it."""

    def __init__(self, session: int) -> None:
        self.session = session
        self.current: int | None = session
        self.name = f"holder-{session}"
        self.references = 0

    def set_current(self, number: int | None) -> None:
        """Take another number."""
        self.current = number

    def end(self) -> None:
        """Nobody lives by it."""


def test_coming_back() -> None:
    """Each step is asked for at once, and the next one when all of it is answered."""
    asked: list[tuple[int | None, Request, Callable[[Any], None]]] = []
    ended: list[list[int]] = []
    lost: list[int] = []
    holders = [Session(number) for number in (1, 2, 3)]
    audience = Audience()
    queues = {}
    for number, holder in enumerate((holders[0], holders[0], holders[1], holders[2], holders[0])):
        queues[number] = Queue(1, None)
        audience.add(Told(holder, Subscribe(sid=number), queues[number], number, number))
    comeback = Comeback(
        holders,
        lambda holder: holder is not holders[2],
        holders[:1],
        lambda holder: lost.append(holder.session),
        audience,
        lambda *each: asked.append(each),
        lambda unwanted: ended.append([each.number for each in unwanted]),
        lambda _: ended.append([]),
    )
    comeback.begin()
    names = [(None, OpenSession(f"holder-{number}")) for number in (1, 2, 3)]
    assert names == [each[:2] for each in asked]
    assert [None] * 3 == [each.current for each in holders]
    answers = (
        SessionOpened(11, resumed=True),
        HolderLive("holder-2"),
        SessionOpened(13, resumed=True),
    )
    (first, second, third), asked[:] = asked, []
    second[2](answers[1])
    third[2](answers[2])
    assert [None, None, 13] == [each.current for each in holders]
    first[2](answers[0])
    assert [11, None, 13] == [each.current for each in holders]
    assert [2] == lost
    # Those of who could not be opened again, or leaves, have ended.
    assert [False, False, True, True, False] == [each.ended for each in queues.values()]
    requests = [(11, Subscribe(sid=number, replay=True)) for number in (0, 1, 4)]
    assert requests == [each[:2] for each in asked]
    audience.drop(0)
    asked[0][2](Subscribed(20, resumed=False))
    asked[1][2](UnknownSet(1))
    assert [] == ended
    asked[2][2](Subscribed(21, resumed=False))
    assert [[0]] == ended
    assert [(4, 21)] == [(each.number, each.current) for each in audience]
    assert queues[1].ended


def test_who_was_evicted_meanwhile() -> None:
    """A session that had something, and begins with nothing, is closed, and told that it ended."""
    asked: list[tuple[int | None, Request, Callable[[Any], None]]] = []
    lost: list[int] = []
    holders = [Session(1), Session(2)]
    holders[1].references = 1
    audience = Audience()
    queue = Queue(1, None)
    audience.add(Told(holders[0], Subscribe(), queue, 5, 5))
    comeback = Comeback(
        holders,
        lambda _: True,
        holders[:1],
        lambda holder: lost.append(holder.session),
        audience,
        lambda *each: asked.append(each),
        lambda _: None,
        lambda _: None,
    )
    comeback.begin()
    (first, second), asked[:] = asked, []
    first[2](SessionOpened(11, resumed=False))
    assert [(11, CloseSession())] == [each[:2] for each in asked]
    # It put what it had before the connection broke, so that it is as good as new.
    second[2](SessionOpened(12, resumed=False))
    assert [1] == lost
    assert [(None, 0), (12, 0)] == [(each.current, each.references) for each in holders]
    assert queue.ended
    assert isinstance(queue.error, SessionEnded)


def test_there_is_nothing_to_come_back_to() -> None:
    """Without sessions it is over at once."""
    ended: list[int] = []
    comeback = Comeback(
        [],
        lambda _: True,
        (),
        lambda _: None,
        Audience(),
        lambda *_: None,
        lambda unwanted: ended.append(len(unwanted)),
        lambda _: ended.append(-1),
    )
    comeback.begin()
    assert [0] == ended


@pytest.mark.parametrize("at", ["the sessions", "the subscriptions"])
def test_nobody_can_come_back(at: str) -> None:
    """A step that can't be kept is the last one, and nobody has ended for it."""
    asked: list[Callable[[Any], None]] = []
    failed: list[IoasidError] = []
    holders = [Session(number) for number in (1, 2)]
    audience = Audience()
    queues = [Queue(1, None) for _ in holders]
    for number, holder in enumerate(holders):
        audience.add(Told(holder, Subscribe(sid=number), queues[number], number, number))
    comeback = Comeback(
        holders,
        lambda _: True,
        holders,
        lambda _: None,
        audience,
        lambda *each: asked.append(each[2]),
        lambda _: failed.append(AllocatorClosed("not reached")),
        failed.append,
    )
    refusal = DiskFull("a journal", "there is no room")
    comeback.begin()
    asked.pop(0)(SessionOpened(11, resumed=True))
    if at == "the sessions":
        asked.pop(0)(refusal)
    else:
        asked.pop(0)(SessionOpened(12, resumed=True))
        asked.pop(0)(refusal)
        asked.pop(0)(Subscribed(20, resumed=True))
    assert ([], [refusal]) == (asked, failed)
    assert [False, False] == [each.ended for each in queues]
    assert [0, 1] == [each.number for each in audience]
