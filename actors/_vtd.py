"""VT-d, one per host: the IOMMU driver, and the PASID tables that it programs.

It takes one reference for every ID that has an entry, binds with the first device and unbinds
with the last, and subscribes to the whole system at IOMMU priority: entries are torn down when
the CPUs and devices are done with an ID, never before.
"""

from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from ioasid.actors._actor import LATER, Actor, HostObserver
from ioasid.actors._errors import (
    ActorStopped,
    AlreadyProgrammed,
    NotBound,
    UnbindPending,
    UnknownDevice,
    UnknownProcess,
)
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.core import (
    AlreadyBound,
    Data,
    Event,
    EventKind,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    IoasidState,
    Message,
    NotFound,
    Priority,
    Resync,
)

__all__ = [
    "BindGuestPasid",
    "BindProcess",
    "Entry",
    "Iommu",
    "ProcessExited",
    "Programmed",
    "TornDown",
    "UnbindGuestPasid",
    "UnbindProcess",
    "Vtd",
    "VtdRequest",
]


class BindGuestPasid(Message, frozen=True):
    """Program an ID of a VM's set into a device's PASID table, and bind it the first time.

    Answered (`None`) when the CPUs and devices have taken up the binding. Errors:
    `UnknownDevice`, `AlreadyProgrammed`, `AlreadyBound` to another guest PASID, `UnbindPending`,
    and those of `Get` and `AttachSpid`.
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

    Answers the ID. Errors: `UnknownDevice`, `AlreadyProgrammed`, those of `Alloc`.
    """

    device: str
    process: int


class UnbindProcess(Message, frozen=True):
    """Unbind a process from a device; with the last one, its ID is freed.

    The last one is answered (`None`) when the devices have let go and the entry is torn down.
    Errors: `UnknownDevice`, `UnknownProcess`, `NotBound`.
    """

    device: str
    process: int


class ProcessExited(Message, frozen=True):
    """Free the ID of a process that exits, whether or not its devices stopped; answers `None`."""

    process: int


class Programmed(Message, frozen=True):
    """Report: the device's PASID table has an entry for the ID."""

    device: str
    ioasid: int


class TornDown(Message, frozen=True):
    """Report: these devices' entries for the ID are gone and their caches flushed."""

    ioasid: int
    devices: tuple[str, ...]


VtdRequest: TypeAlias = (
    BindGuestPasid | UnbindGuestPasid | BindProcess | UnbindProcess | ProcessExited
)
"""Every request to VT-d."""


PROCESS: Final = "process "
"""What the owner of an entry begins with that is a process of the host."""


@frozen
class Entry:
    """An entry of a PASID table: the address space that DMA with this PASID reaches."""

    owner: str
    """Whose memory it is: "vm-1", "process 4711"."""
    gpasid: int | None
    """The guest's PASID; `None` for a process of the host."""


@define(eq=False)
class Iommu:
    """The IOMMU itself: a PASID table per device. It outlives a crash of its driver."""

    tables: dict[str, dict[int, Entry]] = field(factory=dict)
    flushes: int = 0
    """How often caches were flushed so far."""

    def translate(self, device: str, ioasid: int) -> Entry | None:
        """Return the entry that a DMA request of a device hits, `None` for a fault."""
        return self.tables[device].get(ioasid)

    def devices_of(self, ioasid: int) -> tuple[str, ...]:
        """Return the devices that have an entry for an ID."""
        return tuple(device for device, table in self.tables.items() if ioasid in table)

    def tear_down(self, ioasid: int) -> tuple[str, ...]:
        """Remove an ID's entries from every device and flush; returns the devices."""
        devices = self.devices_of(ioasid)
        for device in devices:
            del self.tables[device][ioasid]
        self.flushes += len(devices)
        return devices

    def programmed(self) -> dict[int, Entry]:
        """Return one entry of every ID that has any."""
        return {ioasid: entry for table in self.tables.values() for ioasid, entry in table.items()}


class Vtd(Actor):
    """The IOMMU driver of one host; `system_sid` is the set that processes get their IDs from."""

    def __init__(
        self, system_sid: int, *, observer: HostObserver | None = None, max_restarts: int = 3
    ) -> None:
        super().__init__("vtd", observer=observer, max_restarts=max_restarts)
        self.iommu = Iommu()
        self._system_sid = system_sid
        self._processes: dict[int, int] = {}
        self._beginning: dict[int, list[Reply[Any]]] = {}
        """Who waits for the higher tiers to take up the binding of an ID."""
        self._ending: dict[int, Reply[Any]] = {}
        """Who waits for the last entry of an ID to be torn down."""

    def add_device(self, device: str) -> None:
        """Give a device a PASID table, unless it has one."""
        self.iommu.tables.setdefault(device, {})

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to every BIND, UNBIND and FREE of the system, at IOMMU priority."""
        return self.session.subscribe(
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.IOMMU,
            replay=restarted,
            on_message=self.note_event,
        )

    async def on_start(self, *, restarted: bool) -> None:
        """Finish what a crash left half done, and protect what an eviction left unprotected."""
        if not restarted:
            return
        self._beginning.clear()
        self._ending.clear()
        held = dict(self.session.opened.references)
        for ioasid, entry in self.iommu.programmed().items():
            if ioasid not in held and not await self._hold_again(ioasid, entry):
                self.report(TornDown(ioasid, self.iommu.tear_down(ioasid)))
        programmed = self.iommu.programmed()
        for ioasid, references in held.items():
            for _ in range(references - (ioasid in programmed)):
                await self.session.put(ioasid)
        self._processes.clear()
        for each in await self.session.list_set(self._system_sid):
            process = _process_of(each.data)
            if each.state is IoasidState.ACTIVE and process is not None:
                if each.ioasid in programmed:
                    self._processes[process] = each.ioasid
                else:
                    await self.session.free(each.ioasid)

    async def _hold_again(self, ioasid: int, entry: Entry) -> bool:
        # Only this driver binds, so an ID that went to somebody else meanwhile is not bound so.
        try:
            record = await self.session.find(ioasid)
            if entry.gpasid is None:
                same = (record.sid, record.data) == (self._system_sid, entry.owner)
            else:
                same = record.spid == entry.gpasid
            if same:
                await self.session.get(ioasid)
        except (NotFound, IoasidFreePending):
            return False
        return same

    async def on_give_up(self, allocator: Session) -> None:
        """End the host: nothing may be reused while nobody can tear entries down."""
        raise ActorStopped(self.holder, "gave up, and no host runs without its IOMMU driver")

    async def on_message(self, message: Message) -> Any:
        """Handle a `VtdRequest`."""
        match message:
            case BindGuestPasid():
                return await self._bind_guest(message)
            case UnbindGuestPasid():
                return await self._unbind_guest(message)
            case BindProcess(device, process):
                return await self._bind_process(device, process)
            case UnbindProcess(device, process):
                return await self._unbind_process(device, process)
            case ProcessExited(process):
                ioasid = self._processes.pop(process, None)
                if ioasid is not None:
                    await self.session.free(ioasid)
                return None
            case _:
                return await super().on_message(message)

    def _table(self, device: str) -> dict[int, Entry]:
        table = self.iommu.tables.get(device)
        if table is None:
            raise UnknownDevice(device)
        return table

    def _program(self, device: str, ioasid: int, entry: Entry) -> None:
        self.iommu.tables[device][ioasid] = entry
        self.report(Programmed(device, ioasid))

    async def _let_go(self, ioasid: int) -> None:
        # Everything above this tier is done with the ID: no entry may outlive this.
        devices = self.iommu.devices_of(ioasid)
        if not devices:
            return
        if self.iommu.tables[devices[0]][ioasid].gpasid is None:
            # Whoever freed it, it is not the process's any more.
            self._processes = {p: each for p, each in self._processes.items() if each != ioasid}
        self.report(TornDown(ioasid, self.iommu.tear_down(ioasid)))
        await self.session.put(ioasid)

    async def _bind_guest(self, asked: BindGuestPasid) -> Any:
        table = self._table(asked.device)
        ioasid = asked.ioasid
        record = await self.session.find(ioasid, sid=asked.sid)
        bound_before = bool(self.iommu.devices_of(ioasid))
        if ioasid in self._ending or (bound_before and record.spid is None):
            raise UnbindPending(ioasid)
        if ioasid in table:
            raise AlreadyProgrammed(asked.device, ioasid)
        if record.spid is not None and record.spid != asked.gpasid:
            raise AlreadyBound(ioasid, record.spid)
        entry = Entry(asked.vm, asked.gpasid)
        if bound_before:
            # A device that comes later shares the reference and the mapping of the first.
            if record.state is IoasidState.FREE_PENDING:
                raise IoasidFreePending(ioasid)
            self._program(asked.device, ioasid, entry)
            return self._when_bound(ioasid) if ioasid in self._beginning else None
        await self.session.get(ioasid, sid=asked.sid)
        self._program(asked.device, ioasid, entry)
        try:
            await self.session.attach_spid(ioasid, asked.gpasid, sid=asked.sid)
        except IoasidError:
            await self._let_go(ioasid)
            raise
        return self._when_bound(ioasid)

    def _when_bound(self, ioasid: int) -> Any:
        self._beginning.setdefault(ioasid, []).append(self.reply_later())
        return LATER

    async def _unbind_guest(self, asked: UnbindGuestPasid) -> Any:
        table = self._table(asked.device)
        ioasid = asked.ioasid
        record = await self.session.find(ioasid, sid=asked.sid)
        if ioasid not in table or record.state is IoasidState.FREE_PENDING:
            raise NotBound(asked.device, ioasid)
        if ioasid in self._ending or record.spid is None:
            raise UnbindPending(ioasid)
        if len(self.iommu.devices_of(ioasid)) > 1:
            self._remove(asked.device, ioasid)
            return None
        await self.session.detach_spid(ioasid, sid=asked.sid)
        self._ending[ioasid] = self.reply_later()
        return LATER

    def _remove(self, device: str, ioasid: int) -> None:
        del self.iommu.tables[device][ioasid]
        self.iommu.flushes += 1
        self.report(TornDown(ioasid, (device,)))

    async def _bind_process(self, device: str, process: int) -> int:
        table = self._table(device)
        if not 0 <= process < 2**32:
            raise InvalidArgument("process", "out of range", "an int in 0..2^32-1")
        ioasid = self._processes.get(process)
        if ioasid in table:
            raise AlreadyProgrammed(device, ioasid)
        if ioasid is None:
            # The data tells a driver that crashed and came back whose ID it is.
            ioasid = await self.session.alloc(self._system_sid, data=f"{PROCESS}{process}")
            await self.session.get(ioasid)
            self._processes[process] = ioasid
        self._program(device, ioasid, Entry(f"{PROCESS}{process}", None))
        return ioasid

    async def _unbind_process(self, device: str, process: int) -> Any:
        table = self._table(device)
        ioasid = self._processes.get(process)
        if ioasid is None:
            raise UnknownProcess(process)
        if ioasid not in table:
            raise NotBound(device, ioasid)
        if len(self.iommu.devices_of(ioasid)) > 1:
            self._remove(device, ioasid)
            return None
        # Torn down when the devices have drained: FREE reaches this tier after theirs.
        del self._processes[process]
        self._ending[ioasid] = self.reply_later()
        await self.session.free(ioasid)
        return LATER

    async def on_event(self, message: Event | Resync) -> None:
        """Tear down what ended: every higher tier is done with it by now."""
        if isinstance(message, Event):
            if message.publisher is None:
                await self._follow(message.ioasid, ended=message.kind is not EventKind.BIND)
            return
        live = {each.ioasid: each for each in message.ioasids}
        for ioasid, entry in self.iommu.programmed().items():
            shown = live.get(ioasid)
            if shown is None:
                # Allocated since, for it is referenced and can't be gone.
                continue
            if shown.state is IoasidState.ACTIVE:
                if shown.spid == entry.gpasid:
                    await self._follow(ioasid, ended=False)
                    continue
                # Unbound as of this tier, but a BIND may be on its way through the higher ones.
                if (await self.session.find(ioasid)).spid == entry.gpasid:
                    continue
            await self._follow(ioasid, ended=True)

    async def _follow(self, ioasid: int, *, ended: bool) -> None:
        for reply in self._beginning.pop(ioasid, ()):
            self.answer(reply, None)
        if ended:
            await self._let_go(ioasid)
            unbound = self._ending.pop(ioasid, None)
            if unbound is not None:
                self.answer(unbound, None)


def _process_of(data: Data | None) -> int | None:
    # The process that this driver allocated an ID for; others may have IDs of the set as well.
    if not isinstance(data, str) or not data.startswith(PROCESS):
        return None
    number = data.removeprefix(PROCESS)
    return int(number) if number.isdecimal() else None
