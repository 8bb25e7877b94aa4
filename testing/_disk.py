"""A disk in memory for scenarios: what is kept there takes as long as the schedule chooses.

`on_a_disk` puts a journal on it behind every allocator that is opened in its block. A commit takes
some turns of the event loop, or seconds of virtual time in which everybody else gets as far as they
can; and it may fail. Whatever is shown of a decision has to be on the disk by then, and what is on
the disk has to lead to the state that was shown.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from anyio import sleep
from anyio.lowlevel import checkpoint
from msgspec.structs import replace

from ioasid.actors import Decision, Tap, tapped
from ioasid.actors._durable import kept_by
from ioasid.core import Allocator, Applied, DiskFull, Snapshot, Tick
from ioasid.journal._replay import Damage, Replay, checkpoint_of
from ioasid.journal._rows import FIRST_SEAL, Row, row_of
from ioasid.testing._picker import choose
from ioasid.testing._violated import InvariantViolated, invariant

__all__: list[str] = []

TURNS: Final = (0, 1, 2, 4, 8, 16)
"""How many turns of the event loop a commit may take."""
SECONDS: Final = 0.001
"""How long one takes that takes longer: nobody is ready any more by then."""
FAILS: Final = (False, False, False, False, False, True)
"""Whether something fails that may."""
MOST: Final = 50
"""How often one disk fails: a schedule that favours failures has to end, too."""


class MemoryDisk:
    """A journal of one allocator, in the state that it began with; a `Keeper`.

    With `fails`, commits fail now and then, and so do attempts to go on.
    """

    def __init__(self, core: Allocator, *, fails: bool) -> None:
        self._checkpoint, self._data = checkpoint_of(core, FIRST_SEAL)
        self.rows: list[Row] = []
        """One a commit."""
        self.fails = fails
        """Whether it fails now and then; it may be set at any time."""
        self._failed = 0
        self.index = core.index
        """That of the last request that is kept."""

    async def commit(self, applied: Sequence[Applied]) -> None:
        """Keep what was carried out, some time later, or raise `DiskFull`."""
        await self._take_time()
        seal = self.rows[-1].seal if self.rows else FIRST_SEAL
        self.rows.append(row_of(seal, applied))
        self.index = applied[-1].index

    async def committed(self) -> Allocator:
        """Return the state that was kept last."""
        await checkpoint()
        return self.recovered()

    async def retry(self) -> None:
        """Return when something could be kept, or raise `DiskFull`."""
        await self._take_time()

    async def _take_time(self) -> None:
        turns = choose((*TURNS, None))
        if turns is None:
            await sleep(SECONDS)
        for _ in range(turns or 0):
            await checkpoint()
        if self.fails and self._failed < MOST and choose(FAILS):
            self._failed += 1
            raise DiskFull("a disk in memory", "the schedule has it so")

    def recovered(self) -> Allocator:
        """Decide again what is kept."""
        replay = Replay.begin(self._checkpoint, self._data)
        for row in self.rows:
            replay.take(row)
        return replay.core


class DiskWatch:
    """A tap: what is told of is kept, and all that is kept leads to the state that is told of."""

    def __init__(self, begun: Snapshot, disk: MemoryDisk) -> None:
        self._beside = Allocator.restore(begun)
        self._disk = disk
        self._found: list[InvariantViolated] = []

    def __call__(self, decision: Decision) -> None:
        """Look at the disk when a decision is shown."""
        try:
            self._kept(decision)
        except InvariantViolated as violation:
            self._found.append(violation)
        if decision.index > self._beside.index:
            self._beside.handle(0, Tick(decision.time))
            self._beside.handle(decision.session, decision.request)
            self._beside.drain()

    @invariant(12)
    def _kept(self, decision: Decision) -> None:
        assert decision.index <= self._disk.index, (
            f"request {decision.index} is told of, and {self._disk.index} are kept"
        )

    def check(self) -> None:
        """Assert invariant 12 for all that was seen."""
        for each in self._found:
            raise each
        self._recovers()

    @invariant(12)
    def _recovers(self) -> None:
        try:
            there = self._disk.recovered().snapshot()
        except Damage as damage:
            raise AssertionError(f"{damage.place}: {damage.reason}") from None
        told = self._beside.snapshot()
        # An end in the middle of a commit leaves more on the disk than anybody was told.
        if there.index == told.index:
            assert told == replace(there, now=told.now), "another state is recovered"
        else:
            assert there.index > told.index


@contextmanager
def on_a_disk(*, fails: bool = False) -> Iterator[list[MemoryDisk]]:
    """Keep what the allocators decide that are opened in this block, and check that it was.

    Gives their disks.
    """
    disks: list[MemoryDisk] = []
    watches: list[DiskWatch] = []

    def keep(core: Allocator) -> MemoryDisk:
        disks.append(MemoryDisk(core, fails=fails))
        return disks[-1]

    def watch(begun: Snapshot) -> Tap:
        # In the step in which its disk was made.
        watches.append(DiskWatch(begun, disks[-1]))
        return watches[-1]

    with kept_by(keep), tapped(watch):
        yield disks
    for each in watches:
        each.check()
