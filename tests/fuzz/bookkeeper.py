"""A client that keeps books: it knows which references it has to have, whatever it gave up."""

import random
from collections import Counter
from typing import Any, Final

from anyio import sleep
from anyio.lowlevel import checkpoint

from ioasid.core import (
    Alloc,
    Allocated,
    CloseSession,
    Deliver,
    Done,
    FindBySpid,
    Get,
    OpenSession,
    Put,
    Released,
    Request,
    SessionOpened,
    Subscribe,
    Subscribed,
)
from ioasid.service import Answered, Ask, GiveUp
from tests.service.services import Raw, Service, a_raw_client

NAME: Final = "bookkeeper"
SOON: Final = 0.001
"""Seconds after which it asks again while its old connection is seen, or nothing can be kept."""


class Bookkeeper:
    """One under a name that nobody else has.

    It takes references and drops some, and gives up some of what it asked, once or twice. What it
    was answered and did not give up is in its books; a session under its name has to tell the same.
    It subscribes, too, and gives that up at once: it is told nothing then.
    """

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self._books: Counter[int] = Counter()
        self._ioasids = [*range(1, 9)]
        """What it asks for: some that there may be, and what it allocated."""
        self._told: set[int] = set()
        """The subscriptions that it was told of."""
        self._last = 0

    async def live(self, service: Service) -> None:
        """Connect three times, and look into the books each time; drop all in the end."""
        for _ in range(3):
            async with a_raw_client(service.path) as raw:
                await self._open(raw)
                for _ in range(self._choose.randint(1, 4)):
                    await self._take(raw)
                    await self._drop(raw)
        async with a_raw_client(service.path) as raw:
            await self._open(raw)
            await raw.ask(Ask(CloseSession(), self._next(), None, True))

    async def _open(self, raw: Raw) -> None:
        await raw.hello()
        while True:
            opened = await raw.ask(Ask(OpenSession(NAME), self._next()))
            if isinstance(opened, SessionOpened):
                break
            await sleep(SOON)
        found = Counter(dict(opened.references))
        assert +self._books == found, f"in the books {+self._books}, and there {found}"
        allocated = await raw.ask(Ask(Alloc(0), self._next()))
        if isinstance(allocated, Allocated):
            self._ioasids += [allocated.ioasid] * 8

    async def _take(self, raw: Raw) -> None:
        # What it gives up it does not have, whether it was told of it or not.
        choose = self._choose
        asked: list[Ask | GiveUp] = []
        for _ in range(choose.randint(1, 8)):
            number = self._next()
            request: Request = Get(choose.choice(self._ioasids))
            if choose.random() < 0.2:
                request = FindBySpid(0, 100 + choose.randint(1, 8), True)
            subscribes = choose.random() < 0.2
            if subscribes:
                # There is something to tell at once.
                request = Subscribe(replay=True, awaited=False)
            asked.append(Ask(request, number))
            if subscribes or choose.random() < 0.3:
                asked += [GiveUp(self._next(), number) for _ in range(choose.randint(1, 2))]
        given_up = {each.of for each in asked if isinstance(each, GiveUp)}
        answers = await self._exchange(raw, asked, given_up)
        for each in asked:
            if isinstance(each, GiveUp) or each.id in given_up:
                continue
            match each.request, answers[each.id]:
                case Get(ioasid), Done():
                    self._books[ioasid] += 1
                case FindBySpid(), Allocated(ioasid):
                    self._books[ioasid] += 1
                case _:
                    pass

    async def _drop(self, raw: Raw) -> None:
        choose = self._choose
        chosen = [choose.choice(self._ioasids) for _ in range(choose.randint(0, 3))]
        asked = [Ask(Put(each), self._next(), None, choose.random() < 0.3) for each in chosen]
        answers = await self._exchange(raw, asked, set())
        for ioasid, each in zip(chosen, asked, strict=True):
            self._books[ioasid] -= isinstance(answers[each.id], Released)

    async def _exchange(
        self, raw: Raw, frames: "list[Ask] | list[Ask | GiveUp]", given_up: set[int]
    ) -> dict[int | None, Any]:
        await in_parts(self._choose, raw, frames)
        missing = {each.id for each in frames} - given_up
        answers: dict[int | None, Any] = {}
        while missing:
            frame: Any = await raw.receive()
            assert frame is not None, "the connection ended"
            match frame:
                case Answered(number, answer):
                    answers[number] = answer
                    missing.discard(number)
                    if isinstance(answer, Subscribed):
                        self._told.add(answer.subscription)
                case Deliver(numbers):
                    assert self._told.issuperset(numbers), "told of what it does not know"
                case _:
                    pass
        return answers

    def _next(self) -> int:
        self._last += 1
        return self._last


async def in_parts(choose: random.Random, raw: Raw, frames: Any) -> None:
    """Send frames in pieces, some turns apart: in the middle of a commit, perhaps."""
    while frames:
        size = choose.choice((1, 4, 40))
        await raw.send(*frames[:size])
        frames = frames[size:]
        for _ in range(choose.randint(0, 6)):
            await checkpoint()
