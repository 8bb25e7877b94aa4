"""An eviction, and what is said to have come of it."""

import pytest

from ioasid.actors import open_allocator
from ioasid.core import SuspendSession, UnknownHolder
from ioasid.service._eviction import (
    Eviction,
    StillWaiting,
    evicted,
    said_of_eviction,
    warning_of_eviction,
)

pytestmark = pytest.mark.anyio


async def test_the_warning() -> None:
    """It says what may come of it, and names the session of whoever is connected yet."""
    async with open_allocator(holder="host") as allocator:
        pasid = await allocator.alloc((await allocator.alloc_set("vm-1", 4)).sid)
        async with allocator.session("dsa") as dsa:
            await dsa.get(pasid)
            consequence = (
                "What dsa has may be given to others at once: a device or a CPU that still uses it "
                "then reaches their memory."
            )
            live = f"dsa is live (session {dsa.number}), so stop it first if you can. {consequence}"
            assert live == await warning_of_eviction(allocator, "dsa")
            await dsa.ask(SuspendSession())
            assert consequence == await warning_of_eviction(allocator, "dsa")
        with pytest.raises(UnknownHolder):
            await warning_of_eviction(allocator, "nobody")


async def test_what_came_back_and_what_waits_for_others() -> None:
    """IDs that waited for it alone are back; those that somebody else has are named with it."""
    async with open_allocator(holder="host") as allocator:
        vm = await allocator.alloc_set("vm-1", 4)
        pasids = [await allocator.alloc(vm.sid) for _ in range(3)]
        async with allocator.session("vtd") as vtd, allocator.session("dsa") as dsa:
            for pasid in pasids[:2]:
                await dsa.get(pasid)
            for pasid in pasids[1:]:
                await vtd.get(pasid)
            for pasid in pasids:
                await allocator.free(pasid)
            found = await evicted(allocator, "dsa")
            assert Eviction("dsa", [1], [StillWaiting(2, ("vtd",))], 0) == found
            assert [
                "dsa is evicted. Back in the pool: 1.",
                "2 still waits for vtd.",
            ] == list(said_of_eviction(found))
            with pytest.raises(UnknownHolder):
                await evicted(allocator, "dsa")
            for pasid in pasids[1:]:
                await vtd.put(pasid)


def test_many_are_counted() -> None:
    """What would not fit a screen is counted."""
    waiting = [StillWaiting(each, ("vtd",)) for each in range(12)]
    said = list(said_of_eviction(Eviction("dsa", [], waiting, 3)))
    assert "dsa is evicted. Back in the pool: nothing." == said[0]
    assert [
        "2 more of what it had still wait for others.",
        "Not looked at: 3 more IDs in quarantine.",
    ] == said[-2:]
