"""Who only looks: what there is, over a connection on which nothing is held.

No session is opened for it, so it changes nothing, leaves nothing in a journal, and is answered
while the disk of one fails.
"""

from typing import Any, Final, TypeVar

from ioasid.actors._port import answered
from ioasid.core import (
    Explain,
    Explanation,
    Find,
    FindSet,
    GroupPage,
    HolderPage,
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
from ioasid.service._link import Link

__all__: list[str] = []

R = TypeVar("R")


class Looker:
    """The methods of a `Session` that the commands look with, without a session."""

    def __init__(self, link: Link) -> None:
        self._link: Final = link

    async def _ask(self, request: Request, expected: type[R]) -> R:
        reply: Any = self._link.new_reply()
        self._link.ask(None, request, reply)
        return answered(await reply, expected)

    async def statistics(self) -> Statistics:
        """Return the figures of the allocator."""
        return await self._ask(TakeStatistics(), Statistics)

    async def find(self, ioasid: int) -> IoasidRecord:
        """Return the record of an ID."""
        return await self._ask(Find(ioasid), IoasidRecord)

    async def find_set(self, token: str | None = None, *, sid: int | None = None) -> SetRecord:
        """Return the record of a set, by its token or number."""
        return await self._ask(FindSet(token, sid), SetRecord)

    async def explain(self, ioasid: int, *, generation: int | None = None) -> Explanation:
        """Say why an ID is not back in the pool."""
        return await self._ask(Explain(ioasid, generation), Explanation)

    async def list_set(self, sid: int) -> Listing:
        """Return the IDs of a set."""
        return await self._ask(ListSet(sid), Listing)

    async def list_sets(self, *, after: int | None = None, limit: int = 100) -> SetPage:
        """Return a page of the sets."""
        return await self._ask(ListSets(after, limit), SetPage)

    async def list_groups(self, *, after: str | None = None, limit: int = 100) -> GroupPage:
        """Return a page of the groups."""
        return await self._ask(ListGroups(after, limit), GroupPage)

    async def list_holders(self, *, after: str | None = None, limit: int = 100) -> HolderPage:
        """Return a page of the holders."""
        return await self._ask(ListHolders(after, limit), HolderPage)
