"""VDCM, virtual device composition, one per device: contexts that guests program, and their DMA.

It looks up the guest's PASID with a reference in the same step, and subscribes to the whole
system at DEVICE priority: before an ID's binding or life ends for the IOMMU, its DMA is stopped
and drained, its context cleared and its reference dropped.
"""

from typing import Any, TypeAlias

from attrs import define, field

from ioasid.actors._actor import LATER, Actor, HostObserver, check_name
from ioasid.actors._errors import (
    AlreadyProgrammed,
    ContextStopping,
    DmaFault,
    NotProgrammed,
    UnknownTransfer,
)
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.actors._vtd import Iommu
from ioasid.core import (
    Event,
    EventKind,
    IoasidState,
    Message,
    NotOfThisSet,
    Priority,
    Resync,
)

__all__ = [
    "Cleared",
    "CompleteDma",
    "Context",
    "Device",
    "DmaLanded",
    "Draining",
    "ProgramGuestPasid",
    "ProgramPasid",
    "StartDma",
    "StopDma",
    "Vdcm",
    "VdcmRequest",
]


class ProgramGuestPasid(Message, frozen=True):
    """Program a guest's PASID: look it up, with a reference, and make a context. Answers the ID.

    Errors: `AlreadyProgrammed`, those of `FindBySpid`.
    """

    sid: int
    gpasid: int


class ProgramPasid(Message, frozen=True):
    """Program an ID of the host itself, of a process; answers the ID.

    Errors: `AlreadyProgrammed`, those of `Get`.
    """

    ioasid: int
    sid: int | None = None


class StartDma(Message, frozen=True):
    """Start a transfer with a PASID; answers its number.

    Errors: `NotProgrammed`, `ContextStopping`, `DmaFault` if the IOMMU has no entry; with a
    `sid`, `NotOfThisSet` if it was programmed for another set since the PASID was translated.
    """

    ioasid: int
    sid: int | None = None


class CompleteDma(Message, frozen=True):
    """The hardware completes a transfer: it writes, where the IOMMU lets it. Answers `DmaLanded`.

    Errors: `UnknownTransfer`, `DmaFault` if the IOMMU has no entry any more (nothing is written).
    """

    transfer: int


class StopDma(Message, frozen=True):
    """Take no more work for an ID, drain it, clear its context; answers `None` when it is done.

    Errors: `NotProgrammed`; with a `sid`, those of `Find`.
    """

    ioasid: int
    sid: int | None = None


class Draining(Message, frozen=True):
    """Report: no new transfers with the ID; `in_flight` are still under way."""

    ioasid: int
    in_flight: int


class Cleared(Message, frozen=True):
    """Report: no transfer with the ID is in flight, its context is gone."""

    ioasid: int


class DmaLanded(Message, frozen=True):
    """A transfer wrote into the memory of `owner`."""

    transfer: int
    ioasid: int
    owner: str


VdcmRequest: TypeAlias = ProgramGuestPasid | ProgramPasid | StartDma | CompleteDma | StopDma
"""Every request to VDCM."""


@define(eq=False)
class Context:
    """What the device has programmed for one ID."""

    sid: int | None
    """The set that it was programmed for, if that was named."""
    gpasid: int | None
    stopping: bool = False
    in_flight: set[int] = field(factory=set)


@define(eq=False)
class Device:
    """The device itself: contexts and transfers. It outlives a crash of its driver."""

    name: str
    contexts: dict[int, Context] = field(factory=dict)
    transfers: dict[int, int] = field(factory=dict)
    """The ID of every transfer in flight."""
    started: int = 0
    """How many transfers were started so far."""

    def abort(self, ioasid: int) -> None:
        """Abort the transfers of an ID and forget its context."""
        for transfer in self.contexts.pop(ioasid).in_flight:
            del self.transfers[transfer]

    def reset(self) -> None:
        """Abort every transfer and forget every context, as a reset of the hardware does."""
        self.transfers.clear()
        self.contexts.clear()


@define(eq=False)
class _Drain:
    """An event or Resync that is acknowledged when these IDs are cleared."""

    message: Event | Resync
    pending: set[int]


class Vdcm(Actor):
    """The driver of one device, whose DMA goes through `iommu`."""

    def __init__(
        self,
        device: str,
        iommu: Iommu,
        *,
        observer: HostObserver | None = None,
        max_restarts: int = 3,
    ) -> None:
        super().__init__(f"vdcm:{check_name(device)}", observer=observer, max_restarts=max_restarts)
        self.device = Device(device)
        self._iommu = iommu
        self._drains: list[_Drain] = []
        self._stops: dict[int, list[Reply[Any]]] = {}

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to every UNBIND and FREE of the system, at DEVICE priority."""
        return self.session.subscribe(
            kinds={EventKind.UNBIND, EventKind.FREE},
            priority=Priority.DEVICE,
            replay=restarted,
            on_message=self.note_event,
        )

    async def on_start(self, *, restarted: bool) -> None:
        """Finish what a crash left half done, and abort what an eviction left unprotected."""
        self._drains.clear()
        self._stops.clear()
        held = dict(self.session.opened.references)
        contexts = self.device.contexts
        for ioasid in tuple(contexts):
            if ioasid not in held:
                # Evicted meanwhile: the ID may belong to somebody else by now.
                self.device.abort(ioasid)
                self.report(Cleared(ioasid))
        for ioasid, references in held.items():
            for _ in range(references - (ioasid in contexts)):
                await self.session.put(ioasid)
        for ioasid in tuple(contexts):
            await self._clear_if_drained(ioasid)

    async def on_give_up(self, allocator: Session) -> None:
        """Reset the device: then nothing of what its holder references is programmed any more."""
        self.device.reset()
        await super().on_give_up(allocator)

    async def on_message(self, message: Message) -> Any:
        """Handle a `VdcmRequest`."""
        match message:
            case ProgramGuestPasid(sid, gpasid):
                ioasid = await self.session.find_by_spid(sid, gpasid, get=True)
                return await self._program(ioasid, Context(sid, gpasid))
            case ProgramPasid(ioasid, sid):
                await self.session.get(ioasid, sid=sid)
                return await self._program(ioasid, Context(sid, None))
            case StartDma(ioasid, sid):
                return self._start(ioasid, sid)
            case CompleteDma(transfer):
                return await self._complete(transfer)
            case StopDma(ioasid, sid):
                if sid is not None:
                    await self.session.find(ioasid, sid=sid)
                self._context(ioasid)
                self._stops.setdefault(ioasid, []).append(self.reply_later())
                await self._stop(ioasid)
                return LATER
            case _:
                return await super().on_message(message)

    def _context(self, ioasid: int) -> Context:
        context = self.device.contexts.get(ioasid)
        if context is None:
            raise NotProgrammed(self.device.name, ioasid)
        return context

    async def _program(self, ioasid: int, context: Context) -> int:
        if ioasid in self.device.contexts:
            await self.session.put(ioasid)
            raise AlreadyProgrammed(self.device.name, ioasid)
        self.device.contexts[ioasid] = context
        return ioasid

    def _start(self, ioasid: int, sid: int | None) -> int:
        device = self.device
        context = self._context(ioasid)
        if sid is not None and sid != context.sid:
            raise NotOfThisSet(ioasid, sid)
        if context.stopping:
            raise ContextStopping(device.name, ioasid)
        if self._iommu.translate(device.name, ioasid) is None:
            raise DmaFault(device.name, ioasid)
        device.started += 1
        device.transfers[device.started] = ioasid
        context.in_flight.add(device.started)
        return device.started

    async def _complete(self, transfer: int) -> DmaLanded:
        ioasid = self.device.transfers.pop(transfer, None)
        if ioasid is None:
            raise UnknownTransfer(self.device.name, transfer)
        self.device.contexts[ioasid].in_flight.discard(transfer)
        entry = self._iommu.translate(self.device.name, ioasid)
        await self._clear_if_drained(ioasid)
        if entry is None:
            raise DmaFault(self.device.name, ioasid)
        return DmaLanded(transfer, ioasid, entry.owner)

    async def _stop(self, ioasid: int) -> None:
        context = self.device.contexts[ioasid]
        if not context.stopping:
            context.stopping = True
            self.report(Draining(ioasid, len(context.in_flight)))
        await self._clear_if_drained(ioasid)

    async def _clear_if_drained(self, ioasid: int) -> None:
        context = self.device.contexts[ioasid]
        if not context.stopping or context.in_flight:
            return
        del self.device.contexts[ioasid]
        self.report(Cleared(ioasid))
        await self.session.put(ioasid)
        for reply in self._stops.pop(ioasid, ()):
            self.answer(reply, None)
        for drain in tuple(self._drains):
            drain.pending.discard(ioasid)
            if not drain.pending:
                assert self.events is not None
                self._drains.remove(drain)
                self.events.acknowledge(drain.message)

    async def on_event(self, message: Event | Resync) -> None:
        """Stop and drain what ended; the event is acknowledged when that is done."""
        assert self.events is not None
        ended = await self._ended(message)
        for ioasid in ended:
            await self._stop(ioasid)
        pending = {ioasid for ioasid in ended if ioasid in self.device.contexts}
        if pending:
            self.events.defer(message)
            self._drains.append(_Drain(message, pending))

    async def _ended(self, message: Event | Resync) -> list[int]:
        contexts = self.device.contexts
        if isinstance(message, Event):
            concerned = message.publisher is None and message.ioasid in contexts
            return [message.ioasid] if concerned else []
        ended = []
        for each in message.ioasids:
            context = contexts.get(each.ioasid)
            if context is None:
                continue
            if each.state is IoasidState.ACTIVE:
                if context.gpasid is None or each.spid == context.gpasid:
                    continue
                # Unbound as of this tier, but a BIND may be on its way through the higher one.
                if (await self.session.find(each.ioasid)).spid == context.gpasid:
                    continue
            ended.append(each.ioasid)
        return ended
