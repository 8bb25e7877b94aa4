"""What it costs to find the ID behind a guest's ID, by how many there are."""

import random
from time import perf_counter

from benchmarks.measure import Figure, Pass, Plan, compare, require, take_turns
from ioasid.core import Alloc, Allocated, Allocator, AllocSet, AttachSpid, FindBySpid, SetRecord


async def find_by_spid(backend: str, plan: Plan) -> list[Figure]:
    """Compare look-ups among 100,000 IDs of a set with look-ups among 1,000, by plain calls.

    The figure looks up the same number of different IDs on both sides, a random 100, again and
    again: what the search costs, and not how far away a processor's memory is. Random look-ups
    of all IDs are measured beside it and shown: they cost more among 100,000, because so many do
    not fit into a cache, whatever the search.
    """
    few, many, asked = 1000, plan.scaled(100_000, 10_000), 100
    lookups = plan.scaled(20_000, 5000)
    of_many, of_few = Guest(many), Guest(few)
    passes = {
        f"{many:,} IDs": of_many.looking_up(asked, lookups),
        f"{few:,} IDs": of_few.looking_up(asked, lookups),
        f"any of {many:,}": of_many.looking_up(many, lookups),
        f"any of {few:,}": of_few.looking_up(few, lookups),
    }
    times = await take_turns(passes, plan)
    return [
        compare(
            times,
            f"{many:,} IDs",
            f"{few:,} IDs",
            name="find_by_spid",
            backend=backend,
            unit=f"x of {few:,} IDs",
            target=1.2,
        )
    ]


class Guest:
    """A set with IDs under random guest's IDs, and an allocator of its own."""

    def __init__(self, ids: int) -> None:
        self._core = Allocator()
        handle, session = self._core.handle, self._core.session
        vm = handle(session, AllocSet("vm"))
        assert isinstance(vm, SetRecord)
        self._sid = vm.sid
        self._dice = random.Random(ids)
        self._found = {}
        for spid in self._dice.sample(range(1 << 20), ids):
            allocated = handle(session, Alloc(vm.sid))
            assert isinstance(allocated, Allocated)
            handle(session, AttachSpid(allocated.ioasid, spid))
            self._found[spid] = allocated
        self._core.drain()

    def looking_up(self, asked: int, lookups: int) -> Pass:
        """Return the pass that looks up some of the IDs in a random order."""
        spids = self._dice.choices(self._dice.sample(list(self._found), asked), k=lookups)
        expected = [self._found[spid] for spid in spids]

        async def run() -> float:
            handle, session, sid = self._core.handle, self._core.session, self._sid
            began = perf_counter()
            replies = [handle(session, FindBySpid(sid, spid)) for spid in spids]
            seconds = perf_counter() - began
            require(expected, replies, "IDs found")
            return seconds / lookups

        return run
