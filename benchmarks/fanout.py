"""What an event costs that 100 subscribers are told of, and one that goes through four tiers."""

import asyncio
from asyncio import TaskGroup
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from time import perf_counter
from typing import Final, TypeAlias

from attrs import define

from benchmarks.audience import Audience
from benchmarks.measure import Figure, Lost, Pass, Plan, compare, require, take_turns
from ioasid.actors import Session, open_allocator
from ioasid.core import AllocatorClosed, EventKind, Priority, Resync

ALLOC: Final = frozenset({EventKind.ALLOC})
BIND: Final = frozenset({EventKind.BIND, EventKind.UNBIND})

Told: TypeAlias = tuple[EventKind, int]
"""What a receiver notes down of an event: its kind, and its IOASID."""


async def fanout(backend: str, plan: Plan) -> list[Figure]:
    """Compare events for 100 subscribers with appending to 100 deques and waking 100 tasks.

    Two kinds of events: an ALLOC has no order to keep; a BIND or UNBIND is staged, for the next
    event of its ID may have to wait for its acknowledgements. Both are measured twice: until
    everybody's acknowledgement is decided, and until the last subscriber has the event. What the
    floor has of that is no ask, no decision and no acknowledgement.
    """
    subscribers, events = 100, plan.scaled(1000, 20)
    tiers = [Priority.LAST] * subscribers
    async with AsyncExitStack() as stack:
        floor = await stack.enter_async_context(open_floor(subscribers))
        allocs = await stack.enter_async_context(open_audience(ALLOC, tiers))
        binds = await stack.enter_async_context(open_audience(BIND, tiers))
        passes = {
            "ALLOC": allocs.until_acknowledged(events),
            "BIND": binds.until_acknowledged(events),
            "floor": floor.until_acknowledged(events),
            "ALLOC until told": allocs.until_told(events),
            "BIND until told": binds.until_told(events),
            "floor until told": floor.until_told(events),
        }
        times = await take_turns(passes, plan)
    return [
        compare(times, ours, other, name=name, backend=backend, unit="x floor", target=target)
        for name, ours, other, target in (
            ("fanout", "ALLOC", "floor", {"asyncio": 1.6, "uvloop": 1.85}[backend]),
            ("fanout_told", "ALLOC until told", "floor until told", None),
            ("fanout_staged", "BIND", "floor", {"asyncio": 1.75, "uvloop": 2.0}[backend]),
            ("fanout_staged_told", "BIND until told", "floor until told", None),
        )
    ]


async def tiers(backend: str, plan: Plan) -> list[Figure]:
    """Compare a BIND that one tier after the other is told of with a single delivery.

    Each of the four tiers has one subscriber. The chain ends when the last acknowledgement is
    decided; the delivery, a BIND for one subscriber, when it has the event.
    """
    events = plan.scaled(1000, 20)
    async with (
        open_audience(BIND, list(Priority)) as chain,
        open_audience(BIND, [Priority.LAST]) as single,
    ):
        passes = {
            "four tiers": chain.until_acknowledged(events),
            "one tier": single.until_acknowledged(events),
            "one delivery": single.until_told(events),
        }
        times = await take_turns(passes, plan)
    return [
        compare(
            times,
            "four tiers",
            "one delivery",
            name="tiers",
            backend=backend,
            unit="x one delivery",
            target=6.0,
        )
    ]


@define
class Show:
    """A publisher, and receivers that keep what they are told until it was checked."""

    audience: Audience
    publish: Callable[[int], Awaitable[object]]
    """Publishes the event of this number in a pass."""
    settle: Callable[[], Awaitable[object]]
    """Returns when everything sent before is decided."""
    told: list[list[Told]]
    """What each receiver was told in this pass."""
    expected: Callable[[int], list[list[Told]]]
    """Returns what each is to be told, of so many events."""
    clear: Callable[[], Awaitable[object]]
    """Makes everything as it was before the pass."""
    deliveries: int
    """How many deliveries there are of what is published together."""
    at_once: int = 1
    """How many events are published together, none waiting for what comes of another."""

    def until_acknowledged(self, events: int) -> Pass:
        """Return the pass in which an event ends when all that comes of it is decided."""

        async def run() -> float:
            began = perf_counter()
            for number in range(events):
                self.audience.expect(self.deliveries)
                await self.publish(number)
                await self.audience.all_idle()
            # Acknowledgements are decided before the next ask, and the last ones before this.
            await self.settle()
            seconds = perf_counter() - began
            await self._check(events)
            return seconds / events / self.at_once

        return run

    def until_told(self, events: int) -> Pass:
        """Return the pass in which an event ends when the last receiver has it.

        What is left to decide is decided while the clock stands still.
        """

        async def run() -> float:
            seconds = 0.0
            for number in range(events):
                self.audience.expect(self.deliveries)
                began = perf_counter()
                await self.publish(number)
                await self.audience.all_idle()
                seconds += self.audience.delivered_at - began
                await self.settle()
            await self._check(events)
            return seconds / events

        return run

    async def _check(self, events: int) -> None:
        require(self.audience.expected, self.audience.deliveries, "deliveries")
        require(self.expected(events), self.told, "events told")
        for told in self.told:
            told.clear()
        await self.clear()


@asynccontextmanager
async def open_audience(
    kinds: Collection[EventKind], priorities: Sequence[Priority], at_once: int = 1
) -> AsyncIterator[Show]:
    """Give an allocator with a set and a subscriber of each of these priorities to it.

    Its event of a number is an ALLOC, if that is what they subscribe to, or in turn a BIND and
    an UNBIND of the same ID; or of so many IDs at once.
    """
    audience = Audience(len(priorities))
    all_told: list[list[Told]] = [[] for _ in priorities]
    async with TaskGroup() as tasks, AsyncExitStack() as stack, open_allocator() as session:
        vm = await session.alloc_set(token="vm")
        bound: list[int] = (
            [] if kinds is ALLOC else [await session.alloc(vm.sid) for _ in range(at_once)]
        )

        async def listen(holder: Session, priority: Priority, told: list[Told]) -> None:
            subscription = holder.subscribe(sid=vm.sid, kinds=kinds, priority=priority)
            async with subscription as messages:
                audience.rest()
                with suppress(AllocatorClosed):
                    async for message in messages:
                        if isinstance(message, Resync):
                            raise Lost("a Resync instead of an event: a subscriber lags")
                        audience.take()
                        told.append((message.kind, message.ioasid))
                        audience.rest()

        async def publish(number: int) -> None:
            if not bound:
                await session.alloc(vm.sid)
            for ioasid in bound:
                if number % 2:
                    await session.detach_spid(ioasid)
                else:
                    await session.attach_spid(ioasid, ioasid)

        def expected(events: int) -> list[list[Told]]:
            each: list[Told] = [(EventKind.ALLOC, 1 + number) for number in range(events)]
            if bound:
                pair = (EventKind.BIND, EventKind.UNBIND)
                each = [(kind, ioasid) for kind in pair for ioasid in bound] * (events // 2)
            return [each] * len(priorities)

        async def clear() -> None:
            require((), (await session.statistics()).lagging, "subscribers that lag")
            if not bound:
                require(True, await session.free_set(vm.sid, destroy=False), "reclaimed")

        for number, (priority, told) in enumerate(zip(priorities, all_told, strict=True)):
            holder = await stack.enter_async_context(session.session(f"driver-{number}"))
            tasks.create_task(listen(holder, priority, told))
        await audience.all_idle()
        deliveries = len(priorities) * at_once
        yield Show(
            audience, publish, session.statistics, all_told, expected, clear, deliveries, at_once
        )


async def nothing() -> None:
    """Settle, where nothing is left to decide."""


class _Receiver:
    """What a subscriber comes down to: a deque, and a future while its task sleeps."""

    def __init__(self) -> None:
        self.queue: deque[int] = deque()
        self.sleeper: asyncio.Future[None] | None = None


@asynccontextmanager
async def open_floor(subscribers: int) -> AsyncIterator[Show]:
    """Give the floor: an event is appended to deques whose tasks are then woken."""
    audience = Audience(subscribers)
    receivers = [_Receiver() for _ in range(subscribers)]
    all_told: list[list[Told]] = [[] for _ in receivers]
    new_future = asyncio.get_running_loop().create_future

    async def listen(receiver: _Receiver, told: list[Told]) -> None:
        queue = receiver.queue
        audience.rest()
        while True:
            receiver.sleeper = new_future()
            await receiver.sleeper
            while queue:
                message = queue.popleft()
                audience.take()
                told.append((EventKind.ALLOC, message))
                audience.rest()

    async def publish(number: int) -> None:
        for receiver in receivers:
            receiver.queue.append(number)
            if receiver.sleeper is not None:
                receiver.sleeper.set_result(None)
                receiver.sleeper = None

    def expected(events: int) -> list[list[Told]]:
        return [[(EventKind.ALLOC, number) for number in range(events)]] * subscribers

    async with TaskGroup() as tasks:
        listeners = [
            tasks.create_task(listen(receiver, told))
            for receiver, told in zip(receivers, all_told, strict=True)
        ]
        await audience.all_idle()
        yield Show(audience, publish, nothing, all_told, expected, nothing, subscribers)
        for listener in listeners:
            listener.cancel()
