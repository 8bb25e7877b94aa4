"""A recording as an allocator that can be asked, at any moment of what it tells."""

from collections.abc import Iterable
from typing import Final

from ioasid.core import (
    Explain,
    Explanation,
    GroupPage,
    HolderPage,
    IoasidError,
    ListGroups,
    ListHolders,
    Listing,
    ListSet,
    ListSets,
    SetPage,
    Statistics,
    TakeStatistics,
    Tick,
)
from ioasid.recorder import BadRecording, Decided, Opened, Recording
from ioasid.recorder._replica import Replica

__all__: list[str] = []


class Recorded:
    """Decides again what was recorded, as far as one wants, and answers what a session would."""

    def __init__(self, recording: Recording) -> None:
        self._lines: Final = [
            each for each in recording.lines if isinstance(each, Opened | Decided)
        ]
        self._path: Final = recording.path
        self._replicas: list[Replica] = []
        self._replica: Replica
        self.position = 0
        """So many lines are decided again."""
        self.time = 0.0
        """Of the last one, by the clock of its allocator."""
        self.go(len(self._lines))

    def __len__(self) -> int:
        """Return how many lines there are to decide again."""
        return len(self._lines)

    def go(self, position: int) -> None:
        """Go to a position, forwards or backwards; the nearest one that there is.

        Raises `BadRecording` for what contradicts itself.
        """
        position = max(1, min(position, len(self._lines)))
        if position < self.position:
            self._replicas.clear()
            self.position = 0
        for line in self._lines[self.position : position]:
            self.position += 1
            self._take(line)

    def next_times(self) -> Iterable[float]:
        """Return when the lines to come were decided."""
        lines = self._lines[self.position :]
        return (line.time if isinstance(line, Decided) else self.time for line in lines)

    def _take(self, line: Opened | Decided) -> None:
        if isinstance(line, Opened):
            try:
                self._replica = Replica.restore(line.snapshot)
            except IoasidError as error:
                raise BadRecording(self._path, self.position, f"no such state: {error}") from None
            self._replicas.append(self._replica)
            return
        self._replica = replica = self._replicas[line.allocator]
        self.time = line.time
        try:
            replica.handle(0, Tick(line.time))
            replica.handle(line.session, line.request)
        except IoasidError:
            # It was refused then, too, and changed nothing.
            pass
        replica.drain()

    # -- what a session answers ---------------------------------------------------------------

    async def statistics(self) -> Statistics:
        """See `Session.statistics`."""
        found: Statistics = self._replica.look(TakeStatistics())
        return found

    async def list_sets(self, *, after: int | None = None, limit: int = 100) -> SetPage:
        """See `Session.list_sets`."""
        found: SetPage = self._replica.look(ListSets(after, limit))
        return found

    async def list_groups(self, *, after: str | None = None, limit: int = 100) -> GroupPage:
        """See `Session.list_groups`."""
        found: GroupPage = self._replica.look(ListGroups(after, limit))
        return found

    async def list_holders(self, *, after: str | None = None, limit: int = 100) -> HolderPage:
        """See `Session.list_holders`."""
        found: HolderPage = self._replica.look(ListHolders(after, limit))
        return found

    async def list_set(self, sid: int) -> Listing:
        """See `Session.list_set`."""
        found: Listing = self._replica.look(ListSet(sid))
        return found

    async def explain(self, ioasid: int, *, generation: int | None = None) -> Explanation:
        """See `Session.explain`."""
        found: Explanation = self._replica.look(Explain(ioasid, generation))
        return found
