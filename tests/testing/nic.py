"""A driver of somebody's own: a device with a queue per ID, which has to be drained."""

from itertools import cycle
from typing import Any

from ioasid.actors import Actor, AlreadyProgrammed, HostTap, NotProgrammed, Subscription
from ioasid.core import (
    Event,
    EventKind,
    IoasidFreePending,
    IoasidState,
    Message,
    NotOfThisSet,
    Priority,
    Resync,
    StaleIoasid,
    UnknownIoasid,
    UnknownSet,
)
from ioasid.testing import StormAsk, StormDriver, StormGuest


class OpenQueue(Message, frozen=True):
    """Give an ID of a set a queue."""

    ioasid: int
    sid: int


class Send(Message, frozen=True):
    """Send something through an ID's queue."""

    ioasid: int


class Quiet(Message, frozen=True):
    """The hardware has sent everything."""


class Nic(Actor):
    """The driver, and the device that it drives: that outlives a crash."""

    def __init__(self, tap: HostTap, *, max_restarts: int = 3) -> None:
        super().__init__("nic", taps=[tap], max_restarts=max_restarts, restart_wait=0)
        self.queues: dict[int, int] = {}
        """The set of every ID that has a queue."""
        self.busy: set[int] = set()
        """The IDs whose queues have something to send."""
        self.deferred: dict[int, list[Event | Resync]] = {}
        self.guesses = cycle((False, False, False, True))

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to every FREE, before the IOMMU."""
        return self.session.subscribe(
            kinds={EventKind.FREE},
            priority=Priority.DEVICE,
            replay=restarted,
            wake=self.note_event,
        )

    async def on_start(self, *, restarted: bool) -> None:
        """Forget what the last one was about to do."""
        self.deferred.clear()
        for ioasid, count in self.session.opened.references:
            for _ in range(count - (ioasid in self.queues)):
                await self.session.put(ioasid)

    async def on_give_up(self, allocator: Any) -> None:
        """Reset the device: nothing is programmed any more."""
        self.queues.clear()
        self.busy.clear()
        await self.evict_self(allocator)

    async def on_stop(self) -> None:
        """Close the queues that are drained; the others are closed when they are."""
        for ioasid in self.queues:
            self.deferred.setdefault(ioasid, [])
        await self.close_drained()

    def is_clean(self) -> bool:
        """Tell whether no queue is left."""
        return not self.queues

    async def on_request(self, message: Message) -> None:
        """Handle a request."""
        match message:
            case OpenQueue(ioasid, sid):
                self.refuse_if_stopping()
                await self.session.get(ioasid, sid=sid)
                if ioasid in self.queues:
                    await self.session.put(ioasid)
                    raise AlreadyProgrammed("nic", ioasid)
                self.queues[ioasid] = sid
            case Send(ioasid):
                if ioasid not in self.queues:
                    raise NotProgrammed("nic", ioasid)
                self.busy.add(ioasid)
            case Quiet():
                self.busy.clear()
                await self.close_drained()
            case _:
                await super().on_request(message)

    async def close_drained(self) -> None:
        """Close the queues that are to be closed and have nothing to send any more."""
        for ioasid in tuple(self.deferred):
            if ioasid not in self.busy:
                await self.close(ioasid)

    async def close(self, ioasid: int) -> None:
        """Close a queue that has nothing to send any more."""
        del self.queues[ioasid]
        await self.session.put(ioasid)
        assert self.events is not None
        for message in self.deferred.pop(ioasid):
            if not any(message in others for others in self.deferred.values()):
                self.events.acknowledge(message)

    async def on_event(self, message: Event | Resync) -> None:
        """Close the queues of what was freed, when they are drained."""
        assert self.events is not None
        ended = [each for each in freed(message) if each in self.queues]
        for ioasid in ended:
            self.deferred.setdefault(ioasid, []).append(message)
        if ended:
            self.events.defer(message)
        for ioasid in ended:
            if ioasid not in self.busy:
                await self.close(ioasid)


def freed(message: Event | Resync) -> list[int]:
    """The IDs that are freed."""
    if isinstance(message, Event):
        return [message.ioasid] if message.publisher is None else []
    return [each.ioasid for each in message.ioasids if each.state is IoasidState.FREE_PENDING]


async def open_queue(nic: Nic, guest: StormGuest) -> None:
    """Let a guest ask for a queue, every fourth time for a number that it was not given."""
    pasid = guest.pasid + 1 if next(nic.guesses) else guest.pasid
    await nic.ask(OpenQueue(pasid, guest.vm.sid))


async def send(nic: Nic, guest: StormGuest) -> None:
    """Let a guest send something."""
    await nic.ask(Send(guest.pasid))


async def work(nic: Nic) -> None:
    """Let the hardware send everything."""
    await nic.ask(Quiet())


def nic_driver(kind: type[Nic] = Nic) -> StormDriver[Nic]:
    """A storm's idea of such a driver."""
    return StormDriver(
        "nic",
        make=lambda _, tap: kind(tap),
        asks={
            "open": StormAsk(
                open_queue,
                weight=20,
                refusals=(
                    UnknownIoasid,
                    StaleIoasid,
                    NotOfThisSet,
                    UnknownSet,
                    IoasidFreePending,
                    AlreadyProgrammed,
                ),
            ),
            "send": StormAsk(send, weight=20, refusals=(NotProgrammed,)),
        },
        programmed=lambda nic: nic.queues,
        work=work,
    )
