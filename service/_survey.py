"""What an operator looks for: which IDs are in quarantine, and who keeps them there."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from attrs import define, field, frozen

from ioasid.core import (
    Explanation,
    GroupPage,
    GroupRecord,
    HolderPage,
    HolderRecord,
    IoasidState,
    Listing,
    NotFound,
    SetPage,
    SetRecord,
    StaleIoasid,
    Statistics,
)

__all__: list[str] = []

EXPLAINED: Final = 500
"""So many IDs are asked about; the others are counted."""
LISTED: Final = 20_000
"""Sets with about so many IDs are listed in one look, the others in the next ones."""


class Source(Protocol):
    """An allocator that answers: what a session of one that runs does, and a recording."""

    async def statistics(self) -> Statistics: ...
    async def list_sets(self, *, after: int | None = None, limit: int = 100) -> SetPage: ...
    async def list_groups(self, *, after: str | None = None, limit: int = 100) -> GroupPage: ...
    async def list_holders(self, *, after: str | None = None, limit: int = 100) -> HolderPage: ...
    async def list_set(self, sid: int) -> Listing: ...
    async def explain(self, ioasid: int, *, generation: int | None = None) -> Explanation: ...


@frozen
class Kept:
    """A life of an ID in quarantine, and why it is not over."""

    generation: int
    why: Explanation

    def concerns(self, holder: str) -> bool:
        """Whether it waits for a holder, now or when others are done."""
        why = self.why
        coming = (
            name for event in why.events for tier in event.then for name, _ in tier.subscribers
        )
        return holder in (*why.blockers, *(each.holder for each in why.references), *coming)


@frozen
class Survey:
    """What one look found."""

    figures: Statistics
    sets: tuple[SetRecord, ...]
    groups: tuple[GroupRecord, ...]
    holders: tuple[HolderRecord, ...]
    kept: tuple[Kept, ...]
    """IDs in quarantine, the oldest first."""
    unlisted: int
    """How many sets were not looked into this time."""


@define
class Surveyor:
    """Looks again and again, into every set in turn where there are too many for one look."""

    source: Source
    listed: int = LISTED
    explained: int = EXPLAINED
    _kept: dict[int, dict[int, int]] = field(factory=dict)
    """By set, the IDs in quarantine that the last look into it found, and their generations.

    Those that are back meanwhile are noticed at once, for each of them is asked about.
    """
    _last: int = -1
    """The set that was looked into last."""

    async def look(self) -> Survey:
        """Look once. Raises what the requests are refused with, but for what has gone meanwhile."""
        source = self.source
        figures = await source.statistics()
        sets = await pages(source.list_sets, "sets")
        groups = await pages(source.list_groups, "groups")
        holders = await pages(source.list_holders, "holders")
        unlisted = await self._list(sets) if figures.free_pending else 0
        if not figures.free_pending:
            self._kept.clear()
        kept = await self._explain()
        return Survey(figures, tuple(sets), tuple(groups), tuple(holders), kept, unlisted)

    async def _list(self, sets: list[SetRecord]) -> int:
        alive = {each.sid: each for each in sets if each.allocated}
        self._kept = {sid: found for sid, found in self._kept.items() if sid in alive}
        ahead = [sid for sid in alive if sid > self._last]
        turn = [*ahead, *(sid for sid in alive if sid <= self._last)]
        room = self.listed
        seen = 0
        for sid in turn:
            if room <= 0:
                break
            room -= alive[sid].allocated
            seen += 1
            self._last = sid
            await self._list_one(sid)
        return len(turn) - seen

    async def _list_one(self, sid: int) -> None:
        try:
            found = await self.source.list_set(sid)
        except NotFound:
            found = Listing(sid, ())
        pending = {
            each.ioasid: each.generation
            for each in found.ioasids
            if each.state is IoasidState.FREE_PENDING
        }
        if pending:
            self._kept[sid] = pending
        else:
            self._kept.pop(sid, None)

    async def _explain(self) -> tuple[Kept, ...]:
        # The lives that began first come first, of so many as are asked about.
        lives = sorted(
            (life, ioasid) for ids in self._kept.values() for ioasid, life in ids.items()
        )
        found = []
        for generation, ioasid in lives[: self.explained]:
            try:
                why = await self.source.explain(ioasid, generation=generation)
            except (NotFound, StaleIoasid):
                continue
            if why.age is not None:
                found.append(Kept(generation, why))
        return tuple(sorted(found, key=lambda each: -(each.why.age or 0)))


async def pages(ask: Callable[..., Awaitable[Any]], field: str) -> list[Any]:
    """Return what is on all pages of a list."""
    found: list[Any] = []
    after = None
    while True:
        page = await ask(after=after, limit=1000)
        found += getattr(page, field)
        after = page.next
        if after is None:
            return found


def ranges(ioasids: Iterable[int]) -> str:
    """Return IDs in words, neighbours as ranges, the first few of them."""
    spans: list[list[int]] = []
    for each in sorted(ioasids):
        if spans and spans[-1][1] + 1 == each:
            spans[-1][1] = each
        else:
            spans.append([each, each])
    words = [str(a) if a == b else f"{a}{',' if b == a + 1 else ' to'} {b}" for a, b in spans]
    return ", ".join(words[:8]) + (f" and {len(words) - 8} more" if len(words) > 8 else "")
