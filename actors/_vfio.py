"""VFIO, one per VM: the publisher, and the only door for a guest.

It owns the VM's set and names it in every request, so that a guest reaches no ID but its own.
"""

from typing import Any, TypeAlias

from anyio import CancelScope

from ioasid.actors._actor import LATER, Actor, HostObserver, check_name
from ioasid.actors._errors import VmClosed
from ioasid.actors._reply import Reply
from ioasid.actors._session import Session
from ioasid.actors._vtd import BindGuestPasid, UnbindGuestPasid, Vtd
from ioasid.core import EventKind, Message, SetState, UnknownToken

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
    """Allocate an ID for the guest, in [min, max]; answers it. Errors: those of `Alloc`."""

    min: int = 1
    max: int | None = None


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


VfioRequest: TypeAlias = AllocPasid | FreePasid | BindPasid | UnbindPasid | CloseVm
"""Every request to VFIO."""


class Vfio(Actor):
    """The VFIO of one VM, whose set takes `quota` IDs (1..2^32-1)."""

    def __init__(
        self,
        vm: str,
        quota: int,
        vtd: Vtd,
        *,
        observer: HostObserver | None = None,
        max_restarts: int = 3,
    ) -> None:
        super().__init__(f"vfio:{check_name(vm)}", observer=observer, max_restarts=max_restarts)
        self._vm = vm
        self._quota = quota
        self._vtd = vtd
        self._closed = False
        self._closers: list[Reply[Any]] = []
        """Who waits for the set to be gone."""
        self._asking: set[CancelScope] = set()
        """What it asks the IOMMU driver at the moment."""
        self.sid = -1
        """The VM's set; it outlives a crash, since sets belong to no session."""

    async def on_start(self, *, restarted: bool) -> None:
        """Allocate the VM's set, the first time."""
        self._closers.clear()
        if not restarted:
            self.sid = (await self.session.alloc_set(self._vm, self._quota)).sid

    async def on_message(self, message: Message) -> Any:
        """Handle a `VfioRequest`; what has to wait for others does so in the background."""
        if isinstance(message, CloseVm):
            self._closed = True
            for scope in self._asking:
                scope.cancel()
            self._closers.append(self.reply_later())
            if len(self._closers) == 1:
                self._tasks.start_soon(self._close_set)
            return LATER
        if self._closed:
            raise VmClosed(self._vm)
        match message:
            case AllocPasid(low, high):
                return await self.session.alloc(self.sid, min=low, max=high)
            case FreePasid(ioasid):
                return await self.session.free(ioasid, sid=self.sid)
            case BindPasid(device, ioasid, gpasid):
                bind = BindGuestPasid(device, ioasid, self.sid, gpasid, self._vm)
                return self.in_background(lambda: self._ask(bind))
            case UnbindPasid(device, ioasid):
                unbind = UnbindGuestPasid(device, ioasid, self.sid)
                return self.in_background(lambda: self._ask(unbind))
            case _:
                return await super().on_message(message)

    async def _ask(self, message: BindGuestPasid | UnbindGuestPasid) -> None:
        # Given up when the VM ends, and dropped where it waits: the set's number is used again.
        with CancelScope() as scope:
            self._asking.add(scope)
            try:
                await self._vtd.ask(message)
                return
            finally:
                self._asking.remove(scope)
        raise VmClosed(self._vm)

    async def _close_set(self) -> None:
        await close_set(self.session, self._vm)
        for reply in self._closers:
            self.answer(reply, None)
        self._closers.clear()


async def close_set(session: Session, token: str) -> None:
    """Free the set with this token, unless that was done, and return when it is gone.

    Set numbers are used again, so a set that may be gone is only ever named by its token.
    """
    watch = session.subscribe(token=token, kinds={EventKind.RECLAIM})
    async with watch:
        try:
            record = await session.find_set(token)
            if record.state is SetState.ACTIVE:
                await session.free_set(record.sid, destroy=True)
            while True:
                await session.find_set(token)
                await anext(watch)
        except UnknownToken:
            return
