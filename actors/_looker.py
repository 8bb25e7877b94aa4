"""Who looks at an allocator: a method for every request that changes nothing."""

from collections.abc import Callable
from typing import Any

from ioasid.actors._port import answered
from ioasid.actors._reply import Reply
from ioasid.core import (
    Explain,
    Explanation,
    Find,
    FindSet,
    FindSid,
    FoundSid,
    GroupPage,
    HolderPage,
    Ioasid,
    IoasidRecord,
    ListGroups,
    ListHolders,
    Listing,
    ListSet,
    ListSets,
    Request,
    SetPage,
    SetRecord,
    Statistics,
    TakeStatistics,
)

__all__: list[str] = []


def life_of(ioasid: int, generation: int | None) -> tuple[int, int | None]:
    """Return the number of an ID and its generation, the one named or the one it remembers."""
    # What is no ID is left to the allocator to refuse.
    if isinstance(ioasid, Ioasid):
        return int(ioasid), ioasid.generation if generation is None else generation
    return ioasid, generation


class Looker:
    """The methods of a `Session` that only look; they need none."""

    def __init__(self, send: Callable[[Request], Reply[Any]]) -> None:
        self._send = send

    async def statistics(self) -> Statistics:
        """Return the allocator's figures, all taken at once: what there is and who lags."""
        return answered(await self._send(TakeStatistics()), Statistics)

    async def find(
        self, ioasid: int, *, sid: int | None = None, generation: int | None = None
    ) -> IoasidRecord:
        """Return an ID's record: set, spid, state, data, references by holder."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        return answered(await self._send(Find(ioasid, sid, generation)), IoasidRecord)

    async def explain(self, ioasid: int, *, generation: int | None = None) -> Explanation:
        """Say why an ID is not back in the pool: who has what to do; `text` has it in words."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        return answered(await self._send(Explain(ioasid, generation)), Explanation)

    async def find_sid(self, ioasid: int, *, generation: int | None = None) -> int:
        """Return the set of an ID."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        return answered(await self._send(FindSid(ioasid, generation)), FoundSid).sid

    async def find_set(self, token: str | None = None, *, sid: int | None = None) -> SetRecord:
        """Return the live set that has an MM token, or this number: one of the two."""
        return answered(await self._send(FindSet(token, sid)), SetRecord)

    async def list_set(self, sid: int) -> Listing:
        """Return the IDs of a set, ascending, with their states and spids; plain ones as ranges.

        Iterate over it for every ID.
        """
        return answered(await self._send(ListSet(sid)), Listing)

    async def list_sets(self, *, after: int | None = None, limit: int = 100) -> SetPage:
        """Return the sets, by number, in pages of at most `limit` (1..1,000).

        Pass `next` of one page as `after` for the following one; it is `None` with the last.
        """
        return answered(await self._send(ListSets(after, limit)), SetPage)

    async def list_groups(self, *, after: str | None = None, limit: int = 100) -> GroupPage:
        """Return the groups, by name, in pages of at most `limit` (1..1,000).

        Pass `next` of one page as `after` for the following one; it is `None` with the last.
        """
        return answered(await self._send(ListGroups(after, limit)), GroupPage)

    async def list_holders(self, *, after: str | None = None, limit: int = 100) -> HolderPage:
        """Return the holders, live and suspended, by name, in pages of at most `limit` (1..1,000).

        Pass `next` of one page as `after` for the following one; it is `None` with the last.
        """
        return answered(await self._send(ListHolders(after, limit)), HolderPage)
