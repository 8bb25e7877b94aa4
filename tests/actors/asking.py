"""What the tests of the allocator's actor ask, and what it comes to."""

import anyio
import pytest
from anyio.abc import TaskStatus

from ioasid.actors import Session
from ioasid.core import (
    AllocatorClosed,
)


class Answers:
    """Collects what calls come to: an answer or an error, by the caller's number."""

    def __init__(self) -> None:
        self.of: dict[int, object] = {}
        self.asked: list[int] = []

    async def alloc(self, number: int, session: Session, sid: int) -> None:
        """Allocate one ID and note what came of it, once."""
        self.asked.append(number)
        assert number not in self.of
        try:
            self.of[number] = await session.alloc(sid)
        except AllocatorClosed as error:
            assert number not in self.of
            self.of[number] = error

    @property
    def closed(self) -> int:
        """How many calls were told that the allocator is closed."""
        return sum(isinstance(each, AllocatorClosed) for each in self.of.values())

    @property
    def ids(self) -> list[int]:
        """The IDs that were allocated, in ascending order."""
        return sorted(each for each in self.of.values() if isinstance(each, int))


def reasons(answers: list[object]) -> list[object]:
    """What those who were told that the allocator is closed were told of it."""
    return [each.reason if isinstance(each, AllocatorClosed) else each for each in answers]


async def free_and_wait(
    session: Session,
    ioasid: int,
    answers: list[object],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Free an ID and note what the wait for its reclaim came to."""
    task_status.started()
    try:
        answers.append(await session.free(ioasid, wait=True))
    except AllocatorClosed as error:
        answers.append(error)


async def quarantined(host: Session) -> int:
    """Allocate an ID that a crashed holder, "dsa", keeps from being reclaimed."""
    owner = await host.alloc_set("vm-1", 1000)
    ioasid = await host.alloc(owner.sid)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with host.session("dsa") as dsa:
            await dsa.get(ioasid)
            raise ZeroDivisionError
    return ioasid
