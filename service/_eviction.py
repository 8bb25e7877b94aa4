"""An eviction, and what it set free: for who has to answer for it."""

from collections.abc import Iterator
from typing import Final

from attrs import frozen

from ioasid.actors import Session
from ioasid.core import HolderRecord, NotFound, StaleIoasid, UnknownHolder
from ioasid.core._plurals import counted
from ioasid.service._plain import plain
from ioasid.service._survey import Kept, Source, Surveyor, pages, ranges

__all__: list[str] = []

LOOKED_AT: Final = 10_000
"""So many IDs in quarantine are followed; an eviction is not to wait for a million."""
SHOWN: Final = 10


@frozen
class StillWaiting:
    """An ID that is in quarantine yet, and who keeps it there."""

    ioasid: int
    blockers: tuple[str, ...]


@frozen
class Eviction:
    """What became of the IDs in quarantine that waited for a holder when it was evicted."""

    holder: str
    reclaimed: list[int]
    waiting: list[StillWaiting]
    unknown: int
    """IDs in quarantine besides, too many to be followed."""


async def evicted(session: Session, name: str) -> Eviction:
    """Evict a holder, and look what came of it. Raises what `Session.evict` does."""
    before = await Surveyor(session, listed=1 << 62, explained=LOOKED_AT).look()
    await session.evict(name)
    reclaimed: list[int] = []
    waiting: list[StillWaiting] = []
    for each in before.kept:
        if each.concerns(name):
            blockers = await _blockers(session, each)
            if blockers is None:
                reclaimed.append(each.why.ioasid)
            else:
                waiting.append(StillWaiting(each.why.ioasid, blockers))
    return Eviction(name, reclaimed, waiting, max(before.figures.free_pending - LOOKED_AT, 0))


async def _blockers(session: Session, kept: Kept) -> tuple[str, ...] | None:
    try:
        why = await session.explain(kept.why.ioasid, generation=kept.generation)
    except (NotFound, StaleIoasid):
        return None
    return why.blockers


async def warning_of_eviction(source: Source, name: str) -> str:
    """Look at a holder, and return what to know before it is evicted; of one that is live it warns.

    Raises `UnknownHolder`.
    """
    for each in await pages(source.list_holders, "holders"):
        if each.holder == name:
            return _warning(each)
    raise UnknownHolder(name)


def _warning(holder: HolderRecord) -> str:
    name, session = plain(holder.holder), holder.session
    consequence = (
        f"What {name} has may be given to others at once: a device or a CPU that still uses it "
        "then reaches their memory."
    )
    if session is None:
        return consequence
    return f"{name} is live (session {session}), so stop it first if you can. {consequence}"


def said_of_eviction(found: Eviction) -> Iterator[str]:
    """Say it in words, a line each."""
    yield f"{found.holder} is evicted. Back in the pool: {ranges(found.reclaimed) or 'nothing'}."
    for each in found.waiting[:SHOWN]:
        yield f"{each.ioasid} still waits for {', '.join(each.blockers)}."
    more = len(found.waiting) - SHOWN
    if more > 0:
        yield f"{more} more of what it had still wait{'s' * (more == 1)} for others."
    if found.unknown:
        yield f"Not looked at: {counted(found.unknown, 'more ID')} in quarantine."
