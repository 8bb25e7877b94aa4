"""A survey: what is in quarantine, the oldest first, however many sets there are."""

import pytest

from ioasid.actors import Session, open_allocator
from ioasid.service._survey import Surveyor, ranges

pytestmark = pytest.mark.anyio


async def freed(allocator: Session, token: str) -> int:
    """A set of which one ID is in quarantine."""
    vm = await allocator.alloc_set(token, 4)
    await allocator.alloc(vm.sid)
    pasid = await allocator.alloc(vm.sid)
    await allocator.get(pasid)
    await allocator.free(pasid)
    return int(pasid)


async def test_what_is_in_quarantine() -> None:
    """Those that are freed and not back, with whom they wait for; the rest is counted."""
    async with open_allocator(holder="host") as allocator:
        surveyor = Surveyor(allocator)
        assert () == (await surveyor.look()).kept
        first = await freed(allocator, "vm-1")
        second = await freed(allocator, "vm-2")
        found = await surveyor.look()
        assert {first, second} == {each.why.ioasid for each in found.kept}
        assert [True, False] == [found.kept[0].concerns(name) for name in ("host", "vtd")]
        assert (2, 2, 0) == (len(found.sets), found.figures.free_pending, found.unlisted)
        await allocator.put(first)
        assert [second] == [each.why.ioasid for each in (await surveyor.look()).kept]
        await allocator.put(second)
        assert () == (await surveyor.look()).kept


async def test_more_sets_than_one_look_lists() -> None:
    """Every set has its turn, and what was found stays until it is back in the pool."""
    async with open_allocator(holder="host") as allocator:
        expected = [await freed(allocator, f"vm-{number}") for number in range(6)]
        surveyor = Surveyor(allocator, listed=1)
        seen = []
        for _ in range(20):
            found = await surveyor.look()
            assert 5 == found.unlisted
            seen = [each.why.ioasid for each in found.kept]
        assert expected == sorted(seen)


def test_ranges_in_words() -> None:
    """Neighbours are ranges, and of many only the first are named."""
    assert "" == ranges([])
    assert "1 to 3, 7" == ranges([7, 2, 1, 3])
    assert "0, 2, 4, 6, 8, 10, 12, 14 and 2 more" == ranges(range(0, 20, 2))
