"""VT-d, one per host: the IOMMU driver, and the PASID tables that it programs.

It takes one reference for every ID that has an entry, binds with the first device and unbinds
with the last, and subscribes to the whole system at IOMMU priority: entries are torn down when
the CPUs and devices are done with an ID, never before.
"""

from typing import Any, Final, TypeAlias, Unpack

from attrs import define, evolve

from ioasid.actors._actor import LATER, Actor
from ioasid.actors._errors import (
    ActorStopped,
    AlreadyProgrammed,
    NotBound,
    PasidTooWide,
    UnbindPending,
    UnknownDevice,
    UnknownProcess,
)
from ioasid.actors._iommu import Entry, Iommu
from ioasid.actors._moves import AwaitBind, ResumeGuestPasid
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.actors._supervision import ActorOptions, check_bits
from ioasid.core import (
    AlreadyBound,
    Data,
    Event,
    EventKind,
    Free,
    InvalidArgument,
    Ioasid,
    IoasidError,
    IoasidFreePending,
    IoasidRecord,
    IoasidState,
    Message,
    NoSpid,
    NotFound,
    Priority,
    Put,
    Resync,
    SetState,
    StaleIoasid,
    SubscriberTable,
    ended_by,
)

__all__ = [
    "Adopted",
    "BindGuestPasid",
    "BindProcess",
    "CloseDevice",
    "ProcessExited",
    "Programmed",
    "RemoveDevice",
    "TornDown",
    "UnbindGuestPasid",
    "UnbindProcess",
    "Vtd",
    "VtdRequest",
]


class BindGuestPasid(Message, frozen=True):
    """Program an ID of a VM's set into a device's PASID table, and bind it the first time.

    Answered (`None`) when the CPUs and devices have taken up the binding. Errors:
    `UnknownDevice`, `PasidTooWide`, `AlreadyProgrammed`, `AlreadyBound` to another guest PASID,
    `UnbindPending`, and those of `Get` and `AttachSpid`.
    """

    device: str
    ioasid: int
    sid: int
    gpasid: int
    vm: str


class UnbindGuestPasid(Message, frozen=True):
    """Remove an ID from a device's PASID table; with the last one, unbind it.

    The last one is answered (`None`) when the CPUs and devices have let go and the entry is torn
    down. Errors: `UnknownDevice`, `NotBound`, also once the ID was freed, `UnbindPending`; those
    of `Find`.
    """

    device: str
    ioasid: int
    sid: int


class BindProcess(Message, frozen=True):
    """Bind a process of the host (0..2^32-1) to a device: an ID of the system set, one for each.

    It has the ID from its first bind on until it exits. Binds of one device count. Answers the ID.
    Errors: `UnknownDevice`, `PasidTooWide`, those of `Alloc`.
    """

    device: str
    process: int


class UnbindProcess(Message, frozen=True):
    """Undo one bind of a process and a device; with the last one, the entry is torn down.

    The process keeps its ID, unless this undoes its first bind (`failed`), as if that had never
    been: then nobody knows the ID, and it is freed. What the device does with it has to be stopped
    before, or it faults from then on. Answers `None`. Errors: `UnknownDevice`, `UnknownProcess`,
    `NotBound`.
    """

    device: str
    process: int
    failed: bool = False


class ProcessExited(Message, frozen=True):
    """Free the ID of a process that exits, whether or not its devices stopped; answers `None`.

    Whoever has the process's number next is another process.
    """

    process: int


class CloseDevice(Message, frozen=True):
    """Bind a device no more, which is about to be removed; answers `None`.

    Errors: `UnknownDevice`.
    """

    device: str


class RemoveDevice(Message, frozen=True):
    """Unbind a device from everybody and take its table away; answers `None` when it is gone.

    What runs on it has to be drained before. Other devices are not touched. Errors:
    `UnknownDevice`.
    """

    device: str


class Programmed(Message, frozen=True):
    """Report: the device's PASID table has an entry for the ID."""

    device: str
    ioasid: int


class Adopted(Message, frozen=True):
    """Report: after a crash of the driver, its entries for these IDs stand; others are gone."""

    ioasids: tuple[int, ...]


class TornDown(Message, frozen=True):
    """Report: these devices' entries for the ID are gone and their caches flushed."""

    ioasid: int
    devices: tuple[str, ...]


VtdRequest: TypeAlias = (
    BindGuestPasid
    | UnbindGuestPasid
    | ResumeGuestPasid
    | AwaitBind
    | BindProcess
    | UnbindProcess
    | ProcessExited
    | CloseDevice
    | RemoveDevice
)
"""Every request to VT-d."""


PROCESS: Final = "process "
"""What the owner of an entry begins with that is a process of the host."""


@define(eq=False)
class _Process:
    """A process of the host that has an ID."""

    ioasid: Ioasid
    stood: int
    """Its binds so far, but those that failed; at 0 nobody knows its ID."""


class Vtd(Actor):
    """The IOMMU driver of one host; `system_sid` is the set that processes get their IDs from.

    `iommu` is what it programs; a model, unless told. If a driver was there before, it is the
    hardware as it is: its entries are adopted, if the allocator knows them, or torn down.
    """

    def __init__(
        self,
        system_sid: int,
        iommu: Iommu | None = None,
        **options: Unpack[ActorOptions],
    ) -> None:
        super().__init__("vtd", **options)
        if iommu is not None and not isinstance(iommu, Iommu):
            raise InvalidArgument.of("iommu", iommu, "an Iommu, or None for a model")
        self.iommu = Iommu() if iommu is None else iommu
        self._goes_on = iommu is not None
        # Who removed a device is gone, and whether it is there is said by who adds it.
        self.iommu.closed.clear()
        self._told = SubscriberTable()
        self._system_sid = system_sid
        self._last = 0
        """The last ID that there is."""
        self._processes: dict[int, _Process] = {}
        self._beginning: dict[int, list[Reply[Any]]] = {}
        """Who waits for the higher tiers to take up the binding of an ID."""
        self._ending: dict[int, Reply[Any]] = {}
        """Who waits for the last entry of an ID to be torn down."""
        self._resumed: set[int] = set()
        """IDs that are programmed for a binding that has yet to begin with its set."""
        self._resuming: dict[int, list[ResumeGuestPasid]] = {}
        """What is programmed for an ID anew when what is there is torn down."""
        self._spare: set[int] = set()
        """What is torn down and still referenced, for it may be programmed anew."""
        self._removing: dict[str, list[Reply[Any]]] = {}
        """Who waits for a device's table to be gone."""

    async def add_device(self, device: str, pasid_bits: int = 20) -> int:
        """Give a device a table, unless it has one; returns how many bits its PASIDs have.

        These are `pasid_bits` (1..20), or fewer if the device has no more.
        """
        return await self.iommu.open(device, check_bits(pasid_bits))

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to every BIND, UNBIND and FREE of the system, at IOMMU priority."""
        return self.session.subscribe(
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.IOMMU,
            replay=restarted or self._goes_on,
            wake=self.note_event,
        )

    async def on_start(self, *, restarted: bool) -> None:
        """Finish what a crash left half done, and protect what an eviction left unprotected."""
        self._last = (await self.session.statistics()).capacity - 1
        await self.iommu.sweep()
        if not (restarted or self._goes_on):
            return
        self._beginning.clear()
        self._ending.clear()
        self._resumed.clear()
        self._resuming.clear()
        self._spare.clear()
        self._removing.clear()
        held = dict(self.session.opened.references)
        for ioasid, entry in self.iommu.programmed().items():
            if ioasid not in held and not await self._hold_again(ioasid, entry):
                self.report(TornDown(ioasid, await self.iommu.tear_down(ioasid)))
        programmed = self.iommu.programmed()
        if restarted or programmed:
            self.report(Adopted(tuple(sorted(programmed))))
        for ioasid, references in held.items():
            for _ in range(references - (ioasid in programmed)):
                await self.session.insist(Put(ioasid))
        await self._find_processes()

    async def _find_processes(self) -> None:
        before, self._processes = self._processes, {}
        for each in (await self.session.list_set(self._system_sid)).ioasids:
            process = _process_of(each.data)
            if each.state is not IoasidState.ACTIVE or process is None:
                continue
            known = before.get(process)
            if known is None or known.ioasid.generation != each.generation:
                # Which of its binds stood was known to the process before this one. One more than
                # there are keeps its ID, which it may have had before them, until it exits.
                ioasid = Ioasid(each.ioasid, each.generation)
                known = _Process(ioasid, self.iommu.binds_of(ioasid) + 1)
            if known.stood:
                self._processes[process] = known
            else:
                # The crash took its first bind along: nobody knows its ID.
                await self.session.insist(Free(known.ioasid))

    async def _hold_again(self, ioasid: int, entry: Entry) -> bool:
        # Only this driver binds, so an ID that went to somebody else meanwhile is not bound so.
        try:
            record = await self.session.find(ioasid, generation=entry.generation)
            if entry.gpasid is None:
                same = (record.sid, record.data) == (self._system_sid, entry.owner)
            else:
                same = record.spid == entry.gpasid
            if same:
                await self.session.get(ioasid, generation=entry.generation)
        except (NotFound, IoasidFreePending, StaleIoasid):
            return False
        return same

    async def on_give_up(self, allocator: Session) -> None:
        """End the host: nothing may be reused while nobody can tear entries down."""
        raise ActorStopped(self.holder, "gave up, and no host runs without its IOMMU driver")

    async def on_stop(self) -> None:
        """Tear down every entry: what a device still does with one faults from now on."""
        for ioasid in self.iommu.programmed():
            await self._let_go(ioasid)

    def is_clean(self) -> bool:
        """Tell whether no entry is left."""
        return not self.iommu.programmed()

    async def on_forsaken(self, message: Message, answer: Any) -> None:
        """Undo a bind of a process that nobody knows of; a guest's stands, to be found again."""
        if isinstance(message, BindProcess):
            await self._unbind_process(message.device, message.process, failed=True)

    async def on_request(self, message: Message) -> Any:
        """Handle a `VtdRequest`."""
        match message:
            case BindGuestPasid():
                self.refuse_if_stopping()
                return await self._bind_guest(message)
            case UnbindGuestPasid():
                return await self._unbind_guest(message)
            case ResumeGuestPasid():
                self.refuse_if_stopping()
                return await self._resume_guest(message)
            case AwaitBind(ioasid):
                return self._when_bound(ioasid) if ioasid in self._resumed else None
            case BindProcess(device, process):
                self.refuse_if_stopping()
                return await self._bind_process(device, process)
            case UnbindProcess(device, process, failed):
                await self._unbind_process(device, process, failed=failed)
                return None
            case CloseDevice(device):
                self._table(device)
                self.iommu.closed.add(device)
                return None
            case RemoveDevice(device):
                return await self._remove_device(device)
            case ProcessExited(process):
                exited = self._processes.get(process)
                if exited is not None:
                    await self.session.free(exited.ioasid)
                    del self._processes[process]
                return None
            case _:
                return await super().on_request(message)

    def _table(self, device: str) -> dict[int, Entry]:
        table = self.iommu.tables.get(device)
        if table is None:
            raise UnknownDevice(device)
        return table

    def _open_table(self, device: str, ioasid: int | None) -> dict[int, Entry]:
        # For what begins something, with an ID that has to fit.
        table = self._table(device)
        if device in self.iommu.closed:
            raise UnknownDevice(device)
        if ioasid is not None and ioasid >> self.iommu.pasid_bits[device]:
            raise PasidTooWide(device, ioasid, self.iommu.pasid_bits[device])
        return table

    async def _program(self, device: str, ioasid: int, entry: Entry) -> None:
        await self.iommu.attach(device, ioasid, entry)
        try:
            self.report(Programmed(device, ioasid))
        except Exception:
            # Binds are counted: who asks again after a crash must not count twice.
            await self.iommu.detach(device, ioasid)
            raise

    async def _program_first(self, device: str, ioasid: int, entry: Entry) -> None:
        # The reference was taken before; without an entry it protects nothing.
        try:
            await self._program(device, ioasid, entry)
        except IoasidError:
            await self.session.insist(Put(ioasid))
            raise

    async def _let_go(self, ioasid: int) -> None:
        # Everything above this tier is done with the ID: no entry may outlive this.
        if await self._tear_down(ioasid):
            await self.session.insist(Put(ioasid))
            await self._end_removals()

    async def _tear_down(self, ioasid: int) -> bool:
        # Returns whether there was anything, and a reference to drop.
        devices = await self.iommu.tear_down(ioasid)
        if devices:
            self.report(TornDown(ioasid, devices))
        return bool(devices)

    async def _bind_guest(self, asked: BindGuestPasid) -> Any:
        ioasid = asked.ioasid
        self._open_table(asked.device, None)
        record = await self.session.find(ioasid, sid=asked.sid)
        table = self._open_table(asked.device, ioasid)
        bound_before = bool(self.iommu.devices_of(ioasid))
        # Of a driver that was evicted meanwhile the entry is gone, and the UNBIND still to come.
        ending = bound_before or ioasid in self._told.bindings
        if ioasid in self._ending or (ending and record.spid is None):
            raise UnbindPending(ioasid)
        if ioasid in table:
            raise AlreadyProgrammed(asked.device, ioasid)
        if record.spid is not None and record.spid != asked.gpasid:
            raise AlreadyBound(ioasid, record.spid)
        entry = Entry(asked.vm, asked.gpasid, record.generation)
        if bound_before:
            # A device that comes later shares the reference and the mapping of the first.
            if record.state is IoasidState.FREE_PENDING:
                raise IoasidFreePending(ioasid)
            await self._program(asked.device, ioasid, entry)
            return self._when_bound(ioasid) if ioasid in self._beginning else None
        await self.session.get(ioasid, sid=asked.sid)
        await self._program_first(asked.device, ioasid, entry)
        if record.spid is not None and await self._runs(record.sid):
            # Its binding outlived its entries, as it does when the hardware comes up clean.
            return None if ioasid in self._told.bindings else self._when_bound(ioasid)
        try:
            await self.session.attach_spid(ioasid, asked.gpasid, sid=asked.sid)
        except Exception:
            await self._let_go(ioasid)
            raise
        return self._when_bound(ioasid)

    def _when_bound(self, ioasid: int) -> Any:
        self._beginning.setdefault(ioasid, []).append(self.reply_later())
        return LATER

    async def _resume_guest(self, asked: ResumeGuestPasid) -> bool:
        ioasid = asked.ioasid
        table = self._open_table(asked.device, ioasid)
        record = await self.session.find(ioasid, sid=asked.sid)
        programmed = self.iommu.devices_of(ioasid)
        if record.spid is not None and programmed:
            return True
        if programmed and ioasid not in self._resumed:
            # The end of the binding before, by the freeze, has yet to come here.
            self._resuming.setdefault(ioasid, []).append(asked)
            return False
        entry = Entry(asked.vm, asked.gpasid, record.generation)
        if not programmed:
            await self._hold(record)
            await self._program_first(asked.device, ioasid, entry)
        elif ioasid not in table:
            await self._program(asked.device, ioasid, entry)
        self._resumed.add(ioasid)
        return True

    async def _program_again(self, ioasid: int, entries: dict[str, Entry]) -> None:
        # Frozen and thawed more than once while a device drained, it is bound once more, and who
        # let it go on found the entries of the binding before.
        for device, entry in entries.items():
            if entry.gpasid is None:
                return
            try:
                record = await self.session.find(ioasid, generation=entry.generation)
                if record.state is not IoasidState.ACTIVE or record.spid != entry.gpasid:
                    return
                self._open_table(device, ioasid)
                if self.iommu.devices_of(ioasid):
                    await self._program(device, ioasid, entry)
                else:
                    await self._hold(record)
                    await self._program_first(device, ioasid, entry)
            except IoasidError:
                # It was freed, or the device removed, meanwhile.
                continue
            self._resumed.add(ioasid)

    async def _hold(self, record: IoasidRecord) -> None:
        # To drop a reference and take it again could be refused in between.
        if record.state is IoasidState.FREE_PENDING:
            raise IoasidFreePending(record.ioasid)
        if record.ioasid in self._spare:
            self._spare.remove(record.ioasid)
        else:
            await self.session.get(record.ioasid, generation=record.generation)

    async def _resume_waiting(self, ioasid: int) -> None:
        for asked in self._resuming.pop(ioasid, ()):
            try:
                await self._resume_guest(asked)
            except IoasidError:
                # It was freed, or the device removed, meanwhile.
                pass

    async def _unbind_guest(self, asked: UnbindGuestPasid) -> Any:
        table = self._table(asked.device)
        ioasid = asked.ioasid
        record = await self.session.find(ioasid, sid=asked.sid)
        if ioasid not in table or record.state is IoasidState.FREE_PENDING:
            raise NotBound(asked.device, ioasid)
        if ioasid in self._ending or record.spid is None:
            raise UnbindPending(ioasid)
        if len(self.iommu.devices_of(ioasid)) > 1:
            await self._remove(asked.device, ioasid)
            return None
        await self.session.detach_spid(ioasid, sid=asked.sid)
        self._ending[ioasid] = self.reply_later()
        return LATER

    async def _remove(self, device: str, ioasid: int) -> None:
        # One device's entry; with the last one the reference goes.
        await self.iommu.detach(device, ioasid)
        self.report(TornDown(ioasid, (device,)))
        if not self.iommu.devices_of(ioasid):
            await self.session.insist(Put(ioasid))
        await self._end_removals()

    async def _bind_process(self, device: str, process: int) -> Ioasid:
        check_process(process)
        known = self._processes.get(process)
        table = self._open_table(device, None if known is None else known.ioasid)
        if known is None:
            # The data tells a driver that crashed and came back whose ID it is.
            last = min(self.iommu.last_of(device), self._last)
            data = f"{PROCESS}{process}"
            known = _Process(await self.session.alloc(self._system_sid, max=last, data=data), 0)
            self._processes[process] = known
        ioasid = known.ioasid
        entry = table.get(ioasid)
        if entry is None:
            await self._program_process(device, process, known)
        else:
            table[ioasid] = evolve(entry, binds=entry.binds + 1)
        known.stood += 1
        return ioasid

    async def _program_process(self, device: str, process: int, known: _Process) -> None:
        ioasid = known.ioasid
        entry = Entry(f"{PROCESS}{process}", None, ioasid.generation)
        if self.iommu.devices_of(ioasid):
            await self._program(device, ioasid, entry)
            return
        try:
            await self.session.get(ioasid)
            await self._program_first(device, ioasid, entry)
        except IoasidError:
            if known.stood == 0:
                # Nobody knows its ID.
                del self._processes[process]
                await self.session.insist(Free(ioasid))
            raise

    async def _unbind_process(self, device: str, process: int, *, failed: bool) -> None:
        table = self._table(device)
        known = self._processes.get(process)
        if known is None:
            raise UnknownProcess(process)
        entry = table.get(known.ioasid)
        if entry is None:
            raise NotBound(device, known.ioasid)
        if entry.binds > 1:
            table[known.ioasid] = evolve(entry, binds=entry.binds - 1)
        else:
            await self._remove(device, known.ioasid)
        known.stood -= failed
        if not known.stood:
            del self._processes[process]
            await self.session.insist(Free(known.ioasid))

    def binds_of(self, device: str, process: int) -> int:
        """Return how often a process is bound to a device; 0 also for what does not exist."""
        ioasid = self.ioasid_of(process)
        entry = None if ioasid is None else self.iommu.translate(device, ioasid)
        return 0 if entry is None else entry.binds

    def ioasid_of(self, process: int) -> Ioasid | None:
        """Return the ID of a process, `None` if it has none."""
        known = self._processes.get(process)
        return None if known is None else known.ioasid

    async def _remove_device(self, device: str) -> Any:
        table = self._table(device)
        self.iommu.closed.add(device)
        for ioasid, entry in tuple(table.items()):
            if entry.gpasid is None or len(self.iommu.devices_of(ioasid)) > 1:
                await self._remove(device, ioasid)
                continue
            try:
                await self.session.detach_spid(ioasid)
            except (NotFound, NoSpid):
                # It was freed or unbound before: that is on its way here.
                pass
        self._removing.setdefault(device, []).append(self.reply_later())
        await self._end_removals()
        return LATER

    async def _end_removals(self) -> None:
        for device in tuple(self._removing):
            if self.iommu.tables[device]:
                continue
            await self.iommu.close(device)
            for reply in self._removing.pop(device):
                self.answer(reply, None)

    async def on_event(self, message: Event | Resync) -> None:
        """Tear down what ended: every higher tier is done with it by now."""
        changes = self._told.update(message)
        self._forget_freed(message)
        programmed = self.iommu.programmed()
        for ended in ended_by(message):
            entry = programmed.get(ended)
            # One of a later life was programmed after what this message tells of.
            if entry is None or entry.generation == ended.generation:
                await self._follow(ended, ended=True)
        if isinstance(message, Event):
            if changes and message.kind is EventKind.BIND:
                await self._follow(message.ioasid, ended=False)
            return
        for ioasid, entry in self.iommu.programmed().items():
            life = self._told.lives.get(ioasid)
            if life is None or life.generation != entry.generation:
                # Allocated since, for it is referenced and can't be gone.
                continue
            binding = self._told.bindings.get(ioasid)
            if (binding and binding.spid) == entry.gpasid:
                await self._follow(ioasid, ended=False)
            # Unbound as of this tier, but a BIND may be on its way through the higher ones.
            elif (await self.session.find(ioasid)).spid != entry.gpasid and (
                ioasid not in self._resumed or await self._runs(life.sid)
            ):
                await self._follow(ioasid, ended=True)

    async def _runs(self, sid: int) -> bool:
        # What is programmed for a set that does not run yet has no binding to be told of.
        return (await self.session.find_set(sid=sid)).state is SetState.ACTIVE

    def _forget_freed(self, message: Event | Resync) -> None:
        # Whoever freed it, it is not the process's any more.
        if isinstance(message, Resync):
            ended = {(each, each.generation) for each in ended_by(message)}
            freed = [
                number
                for number, each in self._processes.items()
                if (each.ioasid, each.ioasid.generation) in ended
            ]
        else:
            number = _process_of(message.data) if message.kind is EventKind.FREE else None
            is_its = number is not None and self.ioasid_of(number) == message.ioasid
            freed = [number] if is_its and number is not None else []
        for number in freed:
            del self._processes[number]

    async def _follow(self, ioasid: int, *, ended: bool) -> None:
        for reply in self._beginning.pop(ioasid, ()):
            self.answer(reply, None)
        self._resumed.discard(ioasid)
        if ended:
            entries = {
                device: self.iommu.tables[device][ioasid]
                for device in self.iommu.devices_of(ioasid)
            }
            if await self._tear_down(ioasid):
                self._spare.add(ioasid)
            if ioasid not in self._ending:
                await self._program_again(ioasid, entries)
            await self._resume_waiting(ioasid)
            if ioasid in self._spare:
                self._spare.remove(ioasid)
                await self.session.insist(Put(ioasid))
            await self._end_removals()
            unbound = self._ending.pop(ioasid, None)
            if unbound is not None:
                self.answer(unbound, None)


def check_process(process: object) -> int:
    """Return the number of a process, if it can be one: 0..2^32-1."""
    if type(process) is not int or not 0 <= process < 2**32:
        raise InvalidArgument.of("process", process, "a whole number in 0..2^32-1")
    return process


def _process_of(data: Data | None) -> int | None:
    # The process that this driver allocated an ID for; others may have IDs of the set as well.
    if not isinstance(data, str) or not data.startswith(PROCESS):
        return None
    number = data.removeprefix(PROCESS)
    return int(number) if number.isdecimal() else None
