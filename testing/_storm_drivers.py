"""A user's own drivers in a storm: what is asked of them, and what their hardware has programmed.

They run beside the host's own drivers, crash and restart as these do, are given up and replaced,
and are held to the same rule: nothing that is programmed has an ID that is in the pool, or that
has become another set's.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Final, Generic, TypeVar

import anyio
from attrs import define, field, frozen

from ioasid.actors import Actor, Host, HostTap, Vm
from ioasid.core import InvalidArgument, IoasidError
from ioasid.testing._storm_devices import PACE
from ioasid.testing._storm_faults import crash_for_good
from ioasid.testing._storm_operations import GONE, Choice, Operation, Worker
from ioasid.testing._storm_scene import Scene
from ioasid.testing._storm_vms import ALLOC, Guests
from ioasid.testing._storm_witness import Hardware

__all__ = ["StormAsk", "StormDriver", "StormGuest"]

CRASHES: Final = "crashes"
GIVES_UP: Final = "gives up"

A = TypeVar("A", bound=Actor)


@frozen
class StormGuest:
    """The VM for which a driver is asked something, and what was drawn to ask it with.

    Some of it is stale: the VM may have freed its PASID a moment ago, or be gone.
    """

    vm: Vm
    """A VM of the host."""
    device: str
    """One of the host's devices, by name."""
    pasid: int
    """Most often a host PASID of the VM, perhaps bound."""
    gpasid: int
    """The guest's number for that PASID, if it is bound."""
    number: int
    """Anything from 0 to 2^32 - 1."""


@frozen
class StormAsk(Generic[A]):
    """One thing that guests ask of a driver."""

    ask: Callable[[A, StormGuest], Awaitable[object]]
    """Asks it, and may assert what has to be true of the answer. It is cancelled at times."""
    weight: float = 5.0
    """How often, relative to the other operations, which add up to about 90."""
    refusals: tuple[type[IoasidError], ...] = ()
    """What it may be refused with when others interfere, besides `ActorCrashed`, `ActorStopped`
    and `VmClosed`. Every other error is a violation."""


@frozen
class StormDriver(Generic[A]):
    """An actor of one's own that takes part in a storm."""

    name: str
    """What it is called in reports; no two have the same."""
    make: Callable[[Host, HostTap], A]
    """Makes the actor, which has to pass the tap on to `Actor`. It is called once, and again
    whenever the last one was given up."""
    asks: Mapping[str, StormAsk[A]]
    """What guests ask of it, by name."""
    programmed: Callable[[A], Mapping[int, int]]
    """Returns the IDs that its hardware has programmed in any way, each with the set that it is
    programmed for. It is called in the middle of everything: it only looks, and does not wait."""
    work: Callable[[A], Awaitable[object]] | None = None
    """Lets the hardware work on a little, such as complete a transfer; called again and again
    until the end, and may be refused as anything asked of an actor may be."""


@define(eq=False)
class Drivers:
    """The users' drivers of one storm."""

    scene: Scene
    guests: Guests
    drivers: Sequence[StormDriver[Any]]
    actors: dict[str, Actor] = field(factory=dict)
    """Those that serve now, by the names of the drivers."""
    _made: list[tuple[StormDriver[Any], Actor]] = field(factory=list)

    def operations(self) -> Sequence[Operation]:
        """Return what is asked of the drivers, and how they crash."""
        found = []
        for driver in self.drivers:
            for name, ask in driver.asks.items():
                carry_out = partial(self._ask, driver.name, ask)
                kind = f"{driver.name}: {name}"
                found.append(Operation(kind, carry_out, ask.weight, (*ALLOC, *ask.refusals)))
            crash, give_up = partial(self._crash, driver.name), partial(self._end, driver.name)
            found.append(Operation(f"{driver.name}: {CRASHES}", crash, 12, crash=True))
            found.append(Operation(f"{driver.name}: {GIVES_UP}", give_up, 0.5, crash=True))
        return found

    def hardware(self) -> list[Hardware]:
        """Return what is programmed, also by those that were given up and replaced."""
        return [(actor.holder, driver.programmed(actor)) for driver, actor in self._made]

    async def start(self) -> None:
        """Start every driver; returns when they serve."""
        for driver in self.drivers:
            await self._start(driver)

    async def stop(self) -> None:
        """Let every driver leave in order; returns when they have left."""
        for actor in self.actors.values():
            actor.stop()
            await actor.ended.wait()

    async def _start(self, driver: StormDriver[Any]) -> None:
        actor = driver.make(self.scene.host, self.scene.tap)
        await self.scene.tasks.start(actor.run, self.scene.allocator, name=actor.holder)
        self.actors[driver.name] = actor
        self._made.append((driver, actor))
        self.scene.tasks.start_soon(self._replace, driver, actor)
        if driver.work is not None:
            self.scene.tasks.start_soon(self._work, driver.work, actor)

    async def _replace(self, driver: StormDriver[Any], actor: Actor) -> None:
        await actor.ended.wait()
        if not self.scene.leaving:
            self.scene.happened(f"{driver.name} replaced")
            await self._start(driver)

    async def _work(self, work: Callable[[Actor], Awaitable[object]], actor: Actor) -> None:
        while not actor.ended.is_set():
            try:
                await work(actor)
            except GONE:
                pass
            await anyio.sleep(PACE)

    async def _ask(self, name: str, ask: StormAsk[Any], worker: Worker, choice: Choice) -> None:
        vm = await self.guests.vm(worker, choice)
        slot, (a, b, c) = worker.slot, choice.numbers
        if not slot.pasids and c % 8:
            await self.guests.alloc(worker, choice)
        device, pasid, gpasid = self.guests.among(slot.bound, worker, choice)
        if a % 2:
            pasid = slot.pasid(b)
        await ask.ask(self.actors[name], StormGuest(vm, device, pasid, gpasid, a ^ b))

    async def _crash(self, name: str, worker: Worker, choice: Choice) -> None:
        self.actors[name].crash()

    async def _end(self, name: str, worker: Worker, choice: Choice) -> None:
        await crash_for_good(self.actors[name])


def check_drivers(drivers: Sequence[StormDriver[Any]]) -> None:
    """Raise `InvalidArgument` for drivers whose names or weights are of no use."""
    names: set[str] = set()
    for driver in drivers:
        if driver.name in names:
            raise InvalidArgument.of("name", driver.name, "one that no other driver has")
        names.add(driver.name)
        for name, ask in driver.asks.items():
            if name in (CRASHES, GIVES_UP):
                raise InvalidArgument.of("asks", name, "another name: this happens anyway")
            if not 0 < ask.weight < inf:
                raise InvalidArgument.of("weight", ask.weight, "a number above 0")
