"""KVM, one per VM: the translation from guest PASIDs to host PASIDs that ENQCMD consults.

It subscribes to its VM's token, before the VM's set exists, at CPU priority and holding: work
stops being submitted before any device is drained.
"""

from typing import Any, TypeAlias, Unpack

from ioasid.actors._actor import Actor
from ioasid.actors._errors import PasidFault
from ioasid.actors._session import Session
from ioasid.actors._subscription import Subscription
from ioasid.actors._supervision import ActorOptions, check_name
from ioasid.core import (
    Began,
    Binding,
    Ended,
    Event,
    EventKind,
    Ioasid,
    Message,
    Priority,
    Resync,
    SubscriberTable,
)

__all__ = ["Enqcmd", "Kvm", "KvmRequest", "Mapped", "Unmapped"]


class Enqcmd(Message, frozen=True):
    """Translate a guest PASID, as the ENQCMD instruction does; answers the host PASID.

    Errors: `PasidFault` for a guest PASID that is not mapped.
    """

    gpasid: int


class Mapped(Message, frozen=True):
    """Report: the guest PASID now translates to the host PASID."""

    gpasid: int
    ioasid: int


class Unmapped(Message, frozen=True):
    """Report: the guest PASID translates to nothing any more."""

    gpasid: int
    ioasid: int


KvmRequest: TypeAlias = Enqcmd
"""Every request to KVM."""


class Kvm(Actor):
    """The KVM of one VM."""

    def __init__(
        self,
        vm: str,
        **options: Unpack[ActorOptions],
    ) -> None:
        super().__init__(f"kvm:{check_name(vm)}", **options)
        self._vm = vm
        self._bindings = SubscriberTable()

    @property
    def table(self) -> dict[int, int]:
        """Guest PASID to host PASID, as a copy."""
        find = self._bindings.find_by_spid
        each_once = {binding.spid: None for binding in self._bindings.bindings.values()}
        return {gpasid: found.ioasid for gpasid in each_once if (found := find(gpasid))}

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to the VM's token, at CPU priority, holding."""
        return self.session.subscribe(
            token=self._vm,
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.CPU,
            hold=True,
            replay=restarted,
            wake=self.note_event,
        )

    async def on_stop(self) -> None:
        """Translate nothing any more: what a guest submits from now on faults."""
        self._bindings = SubscriberTable()

    def is_clean(self) -> bool:
        """Tell that it may leave: the table is all there is to program, and it is gone."""
        return not self._bindings.bindings

    async def on_give_up(self, allocator: Session) -> None:
        """Clear the table: then nothing of what its holder was granted is programmed any more."""
        await self.on_stop()
        await self.evict_self(allocator)

    async def on_request(self, message: Message) -> Any:
        """Handle a `KvmRequest`."""
        match message:
            case Enqcmd(gpasid):
                binding = self._bindings.find_by_spid(gpasid)
                if binding is None:
                    raise PasidFault(self._vm, gpasid)
                return Ioasid(binding.ioasid, binding.generation)
            case _:
                return await super().on_request(message)

    async def on_event(self, message: Event | Resync) -> None:
        """Keep the table as the events say."""
        if isinstance(message, Resync):
            self._bindings.update(message)
            return
        mapped = None if message.spid is None else self._bindings.find_by_spid(message.spid)
        for change in self._bindings.update(message):
            match change:
                case Began(Binding(ioasid, gpasid)):
                    self.report(Mapped(gpasid, ioasid))
                case Ended(Binding(ioasid, gpasid) as ended) if ended == mapped:
                    # Another ID may have been given the guest PASID meanwhile.
                    self.report(Unmapped(gpasid, ioasid))
                case _:
                    pass
