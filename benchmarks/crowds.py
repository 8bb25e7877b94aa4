"""What an event costs, by how many others subscribe to something else."""

from asyncio import TaskGroup
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import perf_counter
from typing import Final

from attrs import define, field

from benchmarks.audience import Audience
from benchmarks.measure import Figure, Lost, Pass, Plan, compare, require, take_turns
from ioasid.actors import Session, open_allocator
from ioasid.core import AllocatorClosed, EventKind, Resync

SUBSCRIBERS: Final = 10
TARGETS: Final = 10


async def fanout_filtered(backend: str, plan: Plan) -> list[Figure]:
    """Compare an event of a set among 10,000 sets with one among 10; each has 10 subscribers.

    Every subscriber is a task of its own that iterates. The events go to 10 sets in turn, spread
    evenly among the others. An event is a BIND or an UNBIND: its cost is the ask, 10 tasks woken
    and 10 acknowledgements decided.
    """
    few, many, events = TARGETS, plan.scaled(10_000, 1000), plan.scaled(400, 40)
    async with AsyncExitStack() as stack:
        passes = {
            f"{many:,} sets": (await stack.enter_async_context(open_crowd(many))).passing(events),
            f"{few} sets": (await stack.enter_async_context(open_crowd(few))).passing(events),
        }
        times = await take_turns(passes, plan)
    return [
        compare(
            times,
            f"{many:,} sets",
            f"{few} sets",
            name="fanout_filtered",
            backend=backend,
            unit=f"x of {few} sets",
            target=1.2,
        )
    ]


@define
class _Target:
    """A set whose ID is bound and unbound, and what its subscribers were told."""

    ioasid: int
    sid: int
    bound: bool = False
    told: list[tuple[EventKind, int]] = field(factory=list)


@define
class _Crowd:
    """An allocator with subscribers to all of its sets."""

    session: Session
    audience: Audience
    targets: list[_Target] = field(factory=list)

    async def listen(self, holder: Session, sid: int, told: list[tuple[EventKind, int]]) -> None:
        audience = self.audience
        async with holder.subscribe(sid=sid) as messages:
            audience.rest()
            # Closed at once, the allocator was left with an error, which says more than this one.
            with suppress(AllocatorClosed):
                async for message in messages:
                    if isinstance(message, Resync):
                        raise Lost(f"a Resync instead of an event: set {sid} lags")
                    audience.take()
                    told.append((message.kind, message.ioasid))
                    audience.rest()

    def passing(self, events: int) -> Pass:
        async def run() -> float:
            for target in self.targets:
                target.told.clear()
            began = perf_counter()
            for number in range(events):
                target = self.targets[number % TARGETS]
                self.audience.expect(SUBSCRIBERS)
                if target.bound:
                    await self.session.detach_spid(target.ioasid)
                else:
                    await self.session.attach_spid(target.ioasid, number)
                target.bound = not target.bound
                await self.audience.all_idle()
            # One more ask, for the last acknowledgements are decided before it.
            statistics = await self.session.statistics()
            seconds = perf_counter() - began
            require((), statistics.lagging, "subscribers that have yet to acknowledge")
            self._check(events)
            return seconds / events

        return run

    def _check(self, events: int) -> None:
        require(self.audience.expected, self.audience.deliveries, "deliveries")
        for target in self.targets:
            # An even number of events per pass leaves every ID unbound, as it began.
            pair = [EventKind.BIND] * SUBSCRIBERS + [EventKind.UNBIND] * SUBSCRIBERS
            kinds = pair * (events // TARGETS // 2)
            require([(kind, target.ioasid) for kind in kinds], target.told, "events told")


@asynccontextmanager
async def open_crowd(sets: int) -> AsyncIterator[_Crowd]:
    # asyncio's own task group starts 100,000 tasks in a fraction of the time that anyio's takes.
    # The allocator shuts down before it ends, which ends every iteration in order.
    async with TaskGroup() as tasks, AsyncExitStack() as stack, open_allocator() as session:
        crowd = _Crowd(session, Audience(sets * SUBSCRIBERS))
        holders = [
            await stack.enter_async_context(session.session(f"driver-{number}"))
            for number in range(SUBSCRIBERS)
        ]
        for number in range(sets):
            vm = await session.alloc_set(token=f"vm-{number}", quota=1)
            told: list[tuple[EventKind, int]] = []
            if number % (sets // TARGETS) == 0:
                target = _Target(await session.alloc(vm.sid), vm.sid, told=told)
                crowd.targets.append(target)
            for holder in holders:
                tasks.create_task(crowd.listen(holder, vm.sid, told))
        await crowd.audience.all_idle()
        yield crowd
