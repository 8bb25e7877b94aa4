"""VFIO, one per VM: the publisher, and the only door for a guest.

It owns the VM's set and names it in every request, so that a guest reaches no ID but its own.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, Unpack

from anyio import CancelScope, Lock
from anyio import Event as Signal
from attrs import define

from ioasid.actors._actor import LATER, Actor
from ioasid.actors._again import until_kept
from ioasid.actors._errors import VmClosed
from ioasid.actors._iommu import Entry
from ioasid.actors._moves import (
    AwaitBind,
    ExportVm,
    FreezeVm,
    ResumeGuestPasid,
    RunVm,
    VmExport,
)
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._supervision import ActorOptions, check_name
from ioasid.actors._vtd import BindGuestPasid, UnbindGuestPasid, Vtd, VtdRequest
from ioasid.core import (
    EventKind,
    Free,
    Ioasid,
    IoasidError,
    IoasidFreePending,
    IoasidRange,
    Message,
    NotCommitted,
    SetFrozen,
    SetNotFrozen,
    SetState,
    StaleIoasid,
    UnknownIoasid,
    UnknownSpid,
    UnknownToken,
)

__all__ = [
    "AllocPasid",
    "BindPasid",
    "CloseVm",
    "FreePasid",
    "UnbindPasid",
    "Vfio",
    "VfioRequest",
]


class AllocPasid(Message, frozen=True):
    """Allocate an ID for the guest, in [min, max]; answers it.

    With a `device` it fits into the PASIDs of that device. Errors: `UnknownDevice`, those of
    `Alloc`.
    """

    min: int = 1
    max: int | None = None
    device: str | None = None


class FreePasid(Message, frozen=True):
    """Free one of the guest's IDs, bound or not; answers whether it is reclaimed already.

    Errors: those of `Free`.
    """

    ioasid: int


class BindPasid(Message, frozen=True):
    """Bind the guest's PASID to one of its IDs, for a device; answers `None`.

    Errors: those of `BindGuestPasid`.
    """

    device: str
    ioasid: int
    gpasid: int


class UnbindPasid(Message, frozen=True):
    """Undo a bind; answers `None` when everybody let go. Errors: those of `UnbindGuestPasid`."""

    device: str
    ioasid: int


class CloseVm(Message, frozen=True):
    """The VM ends, in order or by a crash: free its set; answers `None` when it is gone."""


VfioRequest: TypeAlias = (
    AllocPasid | FreePasid | BindPasid | UnbindPasid | CloseVm | FreezeVm | ExportVm | RunVm
)
"""Every request to VFIO."""


@define(eq=False)
class _Binding:
    """A bind of the guest's."""

    life: int
    """The generation of the ID: another life has a bind of its own."""
    waits: Reply[Any] | None
    """Who waits for it, or is gone; `None` when it is done and nobody knows."""


class Vfio(Actor):
    """The VFIO of one VM, whose set takes `quota` IDs (1..2^32-1).

    `sid` is its set, if it has one from before. With an `export` the VM comes from another host:
    its set is made of that, and nothing of it runs before `RunVm`.
    """

    def __init__(
        self,
        vm: str,
        quota: int,
        vtd: Vtd,
        sid: int = -1,
        export: VmExport | None = None,
        **options: Unpack[ActorOptions],
    ) -> None:
        super().__init__(f"vfio:{check_name(vm)}", **options)
        self._vm = vm
        self._quota = quota
        self._vtd = vtd
        self._line = vtd.client()
        self._last = 0
        """The last ID that there is."""
        self._closed = False
        self._closers: list[Reply[Any]] = []
        """Who waits for the set to be gone."""
        self._asking: set[CancelScope] = set()
        """What it asks the IOMMU driver at the moment."""
        self._binding: dict[BindPasid, _Binding] = {}
        """Binds that are under way, or stand although who asked is gone: for who asks again."""
        self._moving: SetState | None = None
        """How its set is on its way, if it is: FROZEN or INCOMING."""
        self._export = export
        self._bound: list[tuple[str, int, int]] = []
        """While it is, which IDs are bound for which device."""
        self._turn = Lock()
        """Freezing it and letting it go on, one at a time."""
        self._freezing: set[CancelScope] = set()
        """Freezes that wait."""
        self._idle = Signal()
        """Is set when the IOMMU driver is asked nothing; a new one comes after it."""
        self.sid = sid
        """The VM's set; it outlives a crash, since sets belong to no session."""

    async def on_start(self, *, restarted: bool) -> None:
        """Allocate the VM's set, unless it has one."""
        self._closers.clear()
        self._binding.clear()
        self._last = (await self.session.statistics()).capacity - 1
        if self.sid >= 0 and not restarted:
            record = await self.session.find_set(sid=self.sid)
            if record.state is not SetState.ACTIVE:
                self._moving = record.state
            elif record.quota != self._quota:
                await self.session.adjust_set(self.sid, self._quota)
        elif self.sid < 0 and self._export is not None:
            await self._receive(self._export)
        if self.sid < 0:
            self.sid = (await self.session.alloc_set(self._vm, self._quota)).sid

    async def on_request(self, message: Message) -> Any:
        """Handle a `VfioRequest`; what has to wait for others does so in the background."""
        if isinstance(message, CloseVm):
            self._closed = True
            for scope in self._asking:
                scope.cancel()
            self._closers.append(self.reply_later())
            if len(self._closers) == 1:
                self.tasks.start_soon(self._close_set)
            return LATER
        if self._closed:
            raise VmClosed(self._vm)
        if self._moving is not None and isinstance(message, AllocPasid | BindPasid | UnbindPasid):
            raise SetFrozen(self.sid, self._moving, token=self._vm)
        match message:
            case FreezeVm():
                return self.in_background(self._freeze)
            case ExportVm():
                export = await self.session.export_set(self.sid)
                # What was freed while it is frozen stays behind.
                there = {*_each(export.ranges)}
                bound = tuple(each for each in self._bound if each[1] in there)
                return VmExport(export, bound)
            case RunVm():
                # A freeze that waits for a device need not hold that up.
                for scope in self._freezing:
                    scope.cancel()
                return self.in_background(self._go_on)
            case AllocPasid(low, high, device):
                if device is not None:
                    fits = min(self._vtd.iommu.last_of(device), self._last)
                    high = fits if high is None else min(high, fits)
                return await self.session.alloc(self.sid, min=low, max=high)
            case FreePasid(ioasid):
                reclaimed = await self.session.free(ioasid, sid=self.sid)
                self._forget(ioasid)
                return reclaimed
            case BindPasid():
                return await self._bind(message)
            case UnbindPasid():
                return self._unbind(message)
            case _:
                return await super().on_request(message)

    async def on_forsaken(self, message: Message, answer: Any) -> None:
        """Free an ID that nobody knows of; keep a bind for who asks for it again."""
        match message:
            case AllocPasid():
                await self.session.insist(Free(answer, self.sid))
            case BindPasid():
                entry = self._standing(message)
                if entry is not None and _means(message.ioasid, entry.generation):
                    self._binding[message] = _Binding(entry.generation, None)
            case _:
                pass

    async def _bind(self, asked: BindPasid) -> Any:
        self._vtd.iommu.last_of(asked.device)
        # A bare number means whoever has it now, and not whoever has it when all this is over.
        life = (await self.session.find(asked.ioasid, sid=self.sid)).generation
        before = self._binding.get(asked)
        if before is not None and before.life != life:
            before = None
        if before is not None and before.waits is None:
            del self._binding[asked]
            entry = self._standing(asked)
            if entry is not None and entry.generation == life:
                return None
            # It ended elsewhere since.
            before = None
        if before is not None and before.waits is not None and before.waits.cancelled():
            # Who asked for it is gone: it goes on for who asks again.
            before.waits = self.reply_later()
            return LATER
        ioasid = Ioasid(asked.ioasid, life)
        bind = BindGuestPasid(asked.device, ioasid, self.sid, asked.gpasid, self._vm)
        if before is not None:
            return self.in_background(lambda: self._ask(bind))
        self._binding[asked] = binding = _Binding(life, self.reply_later())
        self.tasks.start_soon(self._finish_bind, asked, bind, binding)
        return LATER

    def _standing(self, asked: BindPasid) -> Entry | None:
        entry = self._vtd.iommu.translate(asked.device, asked.ioasid)
        bound = entry is not None and (entry.owner, entry.gpasid) == (self._vm, asked.gpasid)
        return entry if bound else None

    async def _finish_bind(
        self, asked: BindPasid, bind: BindGuestPasid, binding: "_Binding"
    ) -> None:
        answer: Exception | None = None
        try:
            await self._ask(bind)
        except IoasidError as error:
            answer = error
        waits, binding.waits = binding.waits, None
        assert waits is not None
        known = answer is not None or not waits.cancelled()
        if known and self._binding.get(asked) is binding:
            del self._binding[asked]
        self.answer(waits, answer, undo=False)

    def _unbind(self, asked: UnbindPasid) -> Any:
        forgotten = self._forget(asked.ioasid, asked.device)

        async def ask() -> Any:
            try:
                return await self._ask(UnbindGuestPasid(asked.device, asked.ioasid, self.sid))
            except NotCommitted:
                # It is still bound, and who bound it may not know.
                self._binding = forgotten | self._binding
                raise

        return self.in_background(ask)

    def _forget(self, ioasid: int, device: str | None = None) -> dict[BindPasid, _Binding]:
        forgotten = {}
        for each, binding in tuple(self._binding.items()):
            its = each.ioasid == ioasid and device in (None, each.device)
            if its and binding.waits is None and _means(ioasid, binding.life):
                forgotten[each] = self._binding.pop(each)
        return forgotten

    def is_clean(self) -> bool:
        """Tell that it may leave: it programs nothing itself."""
        return True

    async def on_give_up(self, allocator: Session) -> None:
        """Leave: it programs nothing itself."""
        await self.evict_self(allocator)

    async def _ask(self, message: VtdRequest) -> Any:
        # Given up when the VM ends, and dropped where it waits.
        with CancelScope() as scope:
            self._asking.add(scope)
            try:
                return await self._line.ask(message)
            finally:
                self._asking.remove(scope)
                if not self._asking:
                    self._idle.set()
                    self._idle = Signal()
        raise VmClosed(self._vm)

    # -- moving -------------------------------------------------------------------------------

    async def _freeze(self) -> None:
        with CancelScope() as scope:
            self._freezing.add(scope)
            try:
                async with self._turn:
                    await self._freeze_in_turn()
                return
            finally:
                self._freezing.remove(scope)
        raise SetNotFrozen(self.sid, SetState.ACTIVE, len(self._bound), token=self._vm)

    async def _freeze_in_turn(self) -> None:
        ran = self._moving is None
        if ran:
            self._moving = SetState.FROZEN
        while self._asking:
            await self._idle.wait()
        if (await self.session.find_set(sid=self.sid)).state is SetState.ACTIVE:
            self._bound = sorted(
                (device, int(ioasid), entry.gpasid)
                for device, table in self._vtd.iommu.tables.items()
                for ioasid, entry in table.items()
                if entry.owner == self._vm and entry.gpasid is not None
            )
        try:
            stopped = await self.session.freeze_set(self.sid)
        except NotCommitted:
            if ran:
                self._moving = None
                self._bound = []
            raise
        if not stopped:
            raise SetNotFrozen(self.sid, SetState.ACTIVE, len(self._bound), token=self._vm)

    async def _receive(self, export: VmExport) -> None:
        self._moving = SetState.INCOMING
        last = min((self._vtd.iommu.last_of(each[0]) for each in export.bound), default=self._last)
        made = await self.session.import_set(export.set, max=min(last, self._last))
        self.sid = made.sid
        here = dict(zip(_each(export.set.ranges), _each(made.ranges), strict=True))
        self._bound = [
            (device, here[ioasid], gpasid)
            for device, ioasid, gpasid in export.bound
            if ioasid in here
        ]

    async def _go_on(self) -> None:
        async with self._turn:
            begun = await self._go_on_in_turn()
        for ioasid in begun:
            await self._ask(AwaitBind(ioasid))

    async def _go_on_in_turn(self) -> list[int]:
        begun = []
        for device, ioasid, gpasid in self._bound:
            try:
                # What was freed or unbound meanwhile does not come back.
                if ioasid != await self.session.find_by_spid(self.sid, gpasid):
                    continue
                resume = ResumeGuestPasid(device, ioasid, self.sid, gpasid, self._vm)
                if await self._ask(resume):
                    begun.append(ioasid)
            except (UnknownSpid, UnknownIoasid, StaleIoasid, IoasidFreePending):
                continue
        if (await self.session.find_set(sid=self.sid)).state is SetState.INCOMING:
            await self.session.activate_set(self.sid)
        else:
            await self.session.thaw_set(self.sid)
        self._moving = None
        self._bound = []
        return begun

    async def _close_set(self) -> None:
        await until_kept(lambda: close_set(self.session, self._vm))
        for reply in self._closers:
            self.answer(reply, None)
        self._closers.clear()


def _each(ranges: Iterable[IoasidRange]) -> Iterator[int]:
    for span in ranges:
        yield from range(span.first, span.last + 1)


def _means(ioasid: int, life: int) -> bool:
    # A bare number means any life.
    return not isinstance(ioasid, Ioasid) or ioasid.generation == life


async def close_set(session: Session, token: str) -> None:
    """Free the set with this token, unless that was done, and return when it is gone."""
    watch = session.subscribe(token=token, kinds={EventKind.RECLAIM})
    async with watch:
        try:
            record = await session.find_set(token)
            if record.state is not SetState.FREE_PENDING:
                await session.free_set(record.sid, destroy=True)
            while True:
                await session.find_set(token)
                # Where it ended in order, the next look raises.
                await anext(watch, None)
        except UnknownToken:
            return
