"""VDCM, virtual device composition, one per device: contexts that guests program, and their DMA.

It looks up the guest's PASID with a reference in the same step, and subscribes to the whole
system at DEVICE priority: before an ID's binding or life ends for the IOMMU, its DMA is stopped
and drained, its context cleared and its reference dropped.
"""

from typing import Any, TypeAlias, Unpack

from attrs import define, field

from ioasid.actors._actor import LATER, Actor
from ioasid.actors._errors import (
    AlreadyProgrammed,
    ContextStopping,
    DmaFault,
    NotProgrammed,
    PasidTooWide,
    UnknownTransfer,
)
from ioasid.actors._iommu import Iommu
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.actors._supervision import ActorOptions, check_bits, check_name
from ioasid.core import (
    Event,
    EventKind,
    Ioasid,
    IoasidError,
    Message,
    NotOfThisSet,
    Priority,
    Put,
    Resync,
    StaleIoasid,
    SubscriberTable,
    ended_by,
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

    Errors: `AlreadyProgrammed`, `PasidTooWide`, those of `FindBySpid`.
    """

    sid: int
    gpasid: int


class ProgramPasid(Message, frozen=True):
    """Program the ID of a process of the host; answers the ID.

    A second time for the same process changes nothing. Errors: `AlreadyProgrammed` for somebody
    else, `StaleIoasid` with the number of a life that is over, `ContextStopping`, `PasidTooWide`,
    those of `Get`.
    """

    ioasid: int
    process: int


class StartDma(Message, frozen=True):
    """Start a transfer with a PASID, for a set or for a process; answers its number.

    Errors: `NotProgrammed`, also if it is programmed for another process; `StaleIoasid` if the
    life that the PASID was translated to is over; `ContextStopping`, `DmaFault` if the IOMMU has no
    entry; `NotOfThisSet` or `UnknownSet` if it is programmed for another set.
    """

    ioasid: int
    sid: int | None = None
    process: int | None = None


class CompleteDma(Message, frozen=True):
    """The hardware completes a transfer: it writes, where the IOMMU lets it. Answers `DmaLanded`.

    Errors: `UnknownTransfer`, `DmaFault` if the IOMMU has no entry any more (nothing is written).
    """

    transfer: int


class StopDma(Message, frozen=True):
    """Take no more work for an ID, drain it, clear its context; answers `None` when it is done.

    Errors: `NotProgrammed`, also if it is programmed for another process; `StaleIoasid`; with a
    `sid`, those of `Find`.
    """

    ioasid: int
    sid: int | None = None
    process: int | None = None


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
    """The guest's PASID; `None` for a process of the host."""
    generation: int
    """The life of the ID that it is for; another life has nothing to do with it."""
    process: int | None = None
    """The process of the host."""
    stopping: bool = False
    in_flight: set[int] = field(factory=set)


@define(eq=False)
class Device:
    """The device itself: contexts and transfers. It outlives a crash of its driver."""

    name: str
    pasid_bits: int = 20
    contexts: dict[int, Context] = field(factory=dict)
    transfers: dict[int, int] = field(factory=dict)
    """The ID of every transfer in flight."""
    started: int = 0
    """How many transfers were started so far."""

    def fits(self, ioasid: int) -> None:
        """Raise `PasidTooWide` for an ID that has more bits than the device's PASIDs."""
        if ioasid >> self.pasid_bits:
            raise PasidTooWide(self.name, ioasid, self.pasid_bits)

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
    """The driver of one device, whose DMA goes through `iommu` with PASIDs of `pasid_bits`.

    `hardware` is the device as it is, if a driver was there before; its `pasid_bits` count then.
    """

    def __init__(
        self,
        device: str,
        iommu: Iommu,
        pasid_bits: int = 20,
        hardware: Device | None = None,
        **options: Unpack[ActorOptions],
    ) -> None:
        super().__init__(f"vdcm:{check_name(device)}", **options)
        check_bits(pasid_bits)
        self.device = Device(device, pasid_bits) if hardware is None else hardware
        self._iommu = iommu
        self._told = SubscriberTable()
        self._drains: list[_Drain] = []
        self._stops: dict[int, list[Reply[Any]]] = {}

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to every UNBIND and FREE of the system, at DEVICE priority."""
        return self.session.subscribe(
            kinds={EventKind.UNBIND, EventKind.FREE},
            priority=Priority.DEVICE,
            replay=restarted,
            wake=self.note_event,
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
                await self.session.insist(Put(ioasid))
        for ioasid in tuple(contexts):
            await self._clear_if_drained(ioasid)

    async def on_give_up(self, allocator: Session) -> None:
        """Reset the device: then nothing of what its holder references is programmed any more."""
        self.device.reset()
        await self.evict_self(allocator)

    async def on_stop(self) -> None:
        """Take no more work, and drain every context."""
        for ioasid in tuple(self.device.contexts):
            await self._drain(ioasid)

    def is_clean(self) -> bool:
        """Tell whether no context is left."""
        return not self.device.contexts

    async def on_forsaken(self, message: Message, answer: Any) -> None:
        """Clear the context, or abort the transfer, that nobody knows of."""
        match message:
            case ProgramGuestPasid():
                context = self.device.contexts.get(answer)
                # One of a later life is somebody else's.
                if context is not None and context.generation == answer.generation:
                    await self._drain(answer)
            case StartDma() if answer in self.device.transfers:
                ioasid = self.device.transfers.pop(answer)
                self.device.contexts[ioasid].in_flight.discard(answer)
                await self._clear_if_drained(ioasid)
            case _:
                pass

    async def on_request(self, message: Message) -> Any:
        """Handle a `VdcmRequest`."""
        match message:
            case ProgramGuestPasid(sid, gpasid):
                self.refuse_if_stopping()
                ioasid = await self.session.find_by_spid(sid, gpasid, get=True)
                return await self._program(ioasid, Context(sid, gpasid, ioasid.generation))
            case ProgramPasid(ioasid, process):
                self.refuse_if_stopping()
                return await self._program_process(ioasid, process)
            case StartDma():
                self.refuse_if_stopping()
                return await self._start(message)
            case CompleteDma(transfer):
                return await self._complete(transfer)
            case StopDma(ioasid, sid, process):
                if sid is not None:
                    await self.session.find(ioasid, sid=sid)
                self._context(ioasid, process)
                self._stops.setdefault(ioasid, []).append(self.reply_later())
                await self._drain(ioasid)
                return LATER
            case _:
                return await super().on_request(message)

    def _context(self, ioasid: int, process: int | None) -> Context:
        # One that is programmed for another process is none of the asker's.
        context = self.device.contexts.get(ioasid)
        if context is None or context.process != process:
            raise NotProgrammed(self.device.name, ioasid)
        if isinstance(ioasid, Ioasid) and ioasid.generation != context.generation:
            raise StaleIoasid(ioasid, ioasid.generation, context.generation)
        return context

    async def _program(self, ioasid: int, context: Context) -> int:
        # With a reference, which is the context's from here on.
        try:
            self.device.fits(ioasid)
            if ioasid in self.device.contexts:
                raise AlreadyProgrammed(self.device.name, ioasid)
        except IoasidError:
            await self.session.insist(Put(ioasid))
            raise
        self.device.contexts[ioasid] = context
        return ioasid

    async def _program_process(self, ioasid: int, process: int) -> int:
        context = self.device.contexts.get(ioasid)
        if context is not None and context.process == process:
            self._context(ioasid, process)
            if context.stopping:
                raise ContextStopping(self.device.name, ioasid)
            return ioasid
        generation = (await self.session.find(ioasid)).generation
        await self.session.get(ioasid, generation=generation)
        return await self._program(ioasid, Context(None, None, generation, process))

    async def _start(self, asked: StartDma) -> int:
        device = self.device
        ioasid, sid = asked.ioasid, asked.sid
        context = self._context(ioasid, asked.process)
        if sid is not None and sid != context.sid:
            # A set that is gone is unknown for ever, whoever has the ID now.
            await self.session.find_set(sid=sid)
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

    async def _drain(self, ioasid: int) -> None:
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
        await self.session.insist(Put(ioasid))
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
            await self._drain(ioasid)
        pending = {ioasid for ioasid in ended if ioasid in self.device.contexts}
        if pending:
            self.events.defer(message)
            self._drains.append(_Drain(message, pending))

    async def _ended(self, message: Event | Resync) -> list[int]:
        contexts = self.device.contexts
        self._told.update(message)
        # A context of a later life was programmed after what this message tells of.
        ended: list[int] = [
            each
            for each in ended_by(message)
            if each in contexts and contexts[each].generation == each.generation
        ]
        if isinstance(message, Event):
            return ended
        for ioasid, context in contexts.items():
            binding = self._told.bindings.get(ioasid)
            bound = binding is not None and binding.spid == context.gpasid
            life = self._told.lives.get(ioasid)
            told = life is not None and life.generation == context.generation
            if not told or context.gpasid is None or bound:
                continue
            # Unbound as of this tier, but a BIND may be on its way through the higher one.
            if (await self.session.find(ioasid)).spid != context.gpasid:
                ended.append(ioasid)
        return ended
