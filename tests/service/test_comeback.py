"""Coming back: sessions first, then their subscriptions, and not what was left meanwhile."""

from collections.abc import Callable
from typing import Any

from ioasid.actors._queue import Queue
from ioasid.core import (
    HolderLive,
    OpenSession,
    Request,
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

    def set_current(self, number: int | None) -> None:
        """Take another number."""
        self.current = number


def test_coming_back() -> None:
    """Each step is asked for at once, and the next one when all of it is answered."""
    asked: list[tuple[int | None, Request, Callable[[Any], None]]] = []
    ended: list[list[int]] = []
    holders = [Session(number) for number in (1, 2, 3)]
    audience = Audience()
    queues = {}
    for number, holder in enumerate((holders[0], holders[0], holders[1], holders[2], holders[0])):
        queues[number] = Queue(1, None)
        audience.add(Told(holder, Subscribe(sid=number), queues[number], number, number))
    comeback = Comeback(
        holders,
        lambda holder: holder is not holders[2],
        audience,
        lambda *each: asked.append(each),
        lambda unwanted: ended.append([each.number for each in unwanted]),
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


def test_there_is_nothing_to_come_back_to() -> None:
    """Without sessions it is over at once."""
    ended: list[int] = []
    comeback = Comeback(
        [], lambda _: True, Audience(), lambda *_: None, lambda u: ended.append(len(u))
    )
    comeback.begin()
    assert [0] == ended
