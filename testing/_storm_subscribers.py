"""Plain subscribers in a storm: eager and slow ones, those that hang, and those that crash."""

from collections.abc import Sequence
from typing import Any, Final

import anyio
from attrs import define, field

from ioasid.actors import Session, Subscription
from ioasid.core import (
    Event,
    EventKind,
    IoasidFreePending,
    Priority,
    Resync,
    SessionEnded,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.testing._storm_operations import Choice, Operation, Worker
from ioasid.testing._storm_scene import Scene, passes
from ioasid.testing._storm_vms import Guests

__all__: list[str] = []

PREFIX: Final = "sub:"
"""What the holder name of a subscriber begins with."""
DEADLINE: Final = 0.05
"""Seconds that a subscriber has to acknowledge a message before it may be evicted."""
FOREVER: Final = 3600.0
HABITS: Final = ("eager", "eager", "slow", "deferring", "references", "hung", "crashing")
KINDS: Final = (
    frozenset(EventKind),
    frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE)),
    frozenset((EventKind.FREE,)),
    frozenset((EventKind.ALLOC, EventKind.RECLAIM)),
    frozenset((EventKind.UNBIND, EventKind.FREE, EventKind.RECLAIM)),
)
HOLDING: Final = KINDS[:2]
ENOUGH: Final = 200
"""Messages after which a subscriber leaves."""


class SubscriberCrashed(Exception):
    """What a subscriber crashes with when it was drawn to."""


@define(eq=False)
class Subscriber:
    """A plain subscriber: what it subscribes to, and how it behaves."""

    name: str
    terms: dict[str, Any]
    habit: str
    turn: int
    """The message at which it does what its habit is, or after which it has had enough."""
    hang: float
    returns: int
    """How often it comes back from a crash; then it is written off."""
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    evicted: anyio.Event = field(factory=anyio.Event)


@define(eq=False)
class Subscribers:
    """The subscribers of a storm, and the operator that evicts those that are overdue."""

    scene: Scene
    guests: Guests
    present: dict[str, Subscriber] = field(factory=dict)
    _made: int = 0

    def operations(self) -> Sequence[Operation]:
        """Return what the tasks have to do with subscribers."""
        return (
            Operation("subscribe", self.subscribe, 0.7),
            Operation("crash subscriber", self.crash, 20, crash=True),
        )

    async def subscribe(self, worker: Worker, choice: Choice) -> None:
        """Add a subscriber, unless there are many."""
        if len(self.present) > self.scene.settings.vms // 2 + 4:
            return
        a, b, c = choice.numbers
        habit = HABITS[a % len(HABITS)]
        hold = c % 3 == 0 or habit == "references"
        kinds = HOLDING[(c >> 4) % 2] if hold else KINDS[(c >> 4) % len(KINDS)]
        terms: dict[str, Any] = {
            "kinds": kinds,
            "priority": tuple(Priority)[(b >> 4) % 4],
            "hold": hold,
            "replay": bool((c >> 8) % 2),
            "queue_size": (1, 4, 64)[(c >> 12) % 3],
            "acknowledge_within": DEADLINE,
        }
        match b % 16:
            case 0:
                pass
            case 1 | 2 | 3 | 4:
                terms["sid"] = (await self.guests.vm(worker, choice)).sid
            case _:
                terms["token"] = worker.slot.name
        self._made += 1
        subscriber = Subscriber(
            f"{PREFIX}{self._made}",
            terms,
            habit,
            turn=1 + (a >> 8) % (8 if habit in {"hung", "crashing"} else ENOUGH),
            hang=DEADLINE / 3 if (a >> 4) % 2 else FOREVER,
            returns=(b >> 8) % 3,
        )
        self.present[subscriber.name] = subscriber
        self.scene.tasks.start_soon(self._live, subscriber)
        self.scene.happened("subscribers")

    async def crash(self, worker: Worker, choice: Choice) -> None:
        """Crash one of the subscribers."""
        names = list(self.present)
        if names:
            self.present[names[choice.numbers[0] % len(names)]].scope.cancel()

    async def operate(self) -> None:
        """Evict subscribers that are overdue, as the operator of a host has to."""
        while True:
            await anyio.sleep(DEADLINE / 2)
            figures = await self.scene.allocator.statistics()
            for each in figures.lagging:
                if each.overdue and each.holder.startswith(PREFIX):
                    await self._evict(each.holder)

    async def clear_away(self) -> None:
        """End every subscriber, half of them by a crash."""
        while self.present:
            # Again, for one that was just coming back.
            for number, subscriber in enumerate(tuple(self.present.values())):
                if number % 2:
                    subscriber.scope.cancel()
                else:
                    await self._evict(subscriber.name)
            await anyio.sleep(0.01)

    async def _evict(self, name: str) -> None:
        await self.scene.write_off(name)
        if name in self.present:
            self.present[name].evicted.set()

    async def _live(self, subscriber: Subscriber) -> None:
        try:
            while await self._comes_back(subscriber) and not self.scene.over:
                await passes(subscriber.turn)
        finally:
            self.present.pop(subscriber.name, None)

    async def _comes_back(self, subscriber: Subscriber) -> bool:
        subscriber.evicted = anyio.Event()
        with anyio.CancelScope() as subscriber.scope:
            try:
                async with (
                    self.scene.allocator.session(subscriber.name) as session,
                    session.subscribe(**subscriber.terms) as events,
                ):
                    await self._consume(subscriber, session, events)
                self.scene.happened("subscribers left")
                return False
            except SubscriberCrashed:
                pass
            except SessionEnded:
                self.scene.happened("subscribers evicted")
                return False
            except UnknownSet:
                return False
        self.scene.happened("subscribers crashed")
        await passes(subscriber.turn)
        if subscriber.returns and not self.scene.over:
            subscriber.returns -= 1
            self.scene.happened("subscribers came back")
            return True
        await self.scene.write_off(subscriber.name)
        return False

    async def _consume(
        self, subscriber: Subscriber, session: Session, events: Subscription
    ) -> None:
        held = dict(session.opened.references)
        await _put_all(session, held, list(held))
        kept: list[Event | Resync] = []
        taken = 0
        async for message in events:
            taken += 1
            match subscriber.habit:
                case "slow":
                    await anyio.sleep(0.002)
                case "deferring":
                    events.defer(message)
                    kept.append(message)
                    if len(kept) == 4:
                        for each in reversed(kept):
                            events.acknowledge(each)
                        kept.clear()
                case "references":
                    await _refer(session, held, message)
                case "hung" if taken == subscriber.turn:
                    self.scene.happened("subscribers hung")
                    with anyio.move_on_after(subscriber.hang):
                        await subscriber.evicted.wait()
                case "crashing" if taken == subscriber.turn:
                    raise SubscriberCrashed
                case _:
                    pass
            if taken >= ENOUGH:
                return


async def _refer(session: Session, held: dict[int, int], message: Event | Resync) -> None:
    # What a subscriber that does not hold has to do by itself, as in the kernel.
    if isinstance(message, Resync):
        await _put_all(session, held, list(held))
    elif message.publisher is not None:
        return
    elif message.kind is EventKind.BIND:
        try:
            await session.get(message.ioasid)
        except (UnknownIoasid, IoasidFreePending):
            return
        held[message.ioasid] = held.get(message.ioasid, 0) + 1
    elif message.kind in (EventKind.UNBIND, EventKind.FREE):
        await _put_all(session, held, [message.ioasid])


async def _put_all(session: Session, held: dict[int, int], ioasids: list[int]) -> None:
    for ioasid in ioasids:
        for _ in range(held.pop(ioasid, 0)):
            await session.put(ioasid)
