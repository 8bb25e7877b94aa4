"""A disk in memory: what is kept comes later, and what was told of too early is found."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from ioasid.actors import Session, open_allocator
from ioasid.actors._commit import CommitStage
from ioasid.core import Applied, DiskFull
from ioasid.journal._rows import row_of
from ioasid.testing import InvariantViolated, ScheduleFailed, explore, replay
from ioasid.testing._disk import MemoryDisk, on_a_disk

rows: set[int] = set()
"""How many rows there were after a scenario."""


async def three_at_once() -> None:
    """Three ask for IDs at the same time."""

    async def ask(session: Session) -> None:
        for _ in range(2):
            await session.alloc(0)

    with on_a_disk() as disks:
        async with open_allocator(capacity=9) as allocator, anyio.create_task_group() as tasks:
            await allocator.alloc_set("vm-1", 6)
            for _ in range(3):
                tasks.start_soon(ask, allocator)
    rows.add(len(disks[0].rows))


def test_a_commit_takes_any_time() -> None:
    """All that is asked is kept, in more or fewer rows, as the schedule has it."""
    rows.clear()
    explore(three_at_once, range(20))
    assert {2, 3, 4, 5, 6, 7} >= rows
    assert len(rows) > 1


async def refused_until_it_works() -> None:
    """Asks again and again while a disk fails."""
    with on_a_disk() as disks:
        async with open_allocator(capacity=9) as allocator:
            vm = await allocator.alloc_set("vm-1", 4)
            disks[0].fails = True
            refusals = 0
            for number in range(40):
                try:
                    await allocator.adjust_set(vm.sid, 1 + number % 4)
                except DiskFull:
                    refusals += 1
            disks[0].fails = False
            assert refusals
            await allocator.reserve_capacity(1)
            recovered = disks[0].recovered().snapshot()
            assert recovered == await allocator.snapshot()


def test_a_disk_that_fails() -> None:
    """Some are refused, and what was not is what the disk leads to."""
    explore(refused_until_it_works, range(5), leaks=False)


def test_an_answer_before_its_commit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told of and not kept breaks invariant 12."""

    async def hastily(self: CommitStage) -> None:
        for batch in self.decided:
            self._release(batch)
        await self._commit([each for batch in self.take_back() for each in batch.applied])

    monkeypatch.setattr(CommitStage, "_commit_decided", hastily)
    with pytest.raises(InvariantViolated, match="invariant 12, what was answered or told is kept"):
        raise replay(three_at_once, 1).error or AssertionError("not found")


def test_a_disk_that_forgets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that leads elsewhere than what was told breaks invariant 12."""

    async def commit(self: MemoryDisk, applied: Sequence[Applied]) -> None:
        seal: Any = self.rows[-1].seal if self.rows else bytes(16)
        self.rows.append(row_of(seal, applied[:1]))
        self.index = applied[-1].index

    monkeypatch.setattr(MemoryDisk, "commit", commit)
    with pytest.raises(ScheduleFailed, match="invariant 12"):
        explore(three_at_once, range(20), shrink=0)


def test_only_in_its_block() -> None:
    """An allocator that is opened behind the block has no disk."""

    async def scenario() -> None:
        with on_a_disk() as disks:
            pass
        async with open_allocator(capacity=9) as allocator:
            await allocator.reserve_capacity(1)
        assert [] == disks

    assert "" == replay(scenario, 1).failure
