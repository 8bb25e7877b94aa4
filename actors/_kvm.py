"""KVM, one per VM: the translation from guest PASIDs to host PASIDs that ENQCMD consults.

It subscribes to its VM's token, before the VM's set exists, at CPU priority and holding: work
stops being submitted before any device is drained.
"""

from typing import Any, TypeAlias

from ioasid.actors._actor import Actor, HostObserver, check_name
from ioasid.actors._errors import PasidFault
from ioasid.actors._subscription import Subscription
from ioasid.core import Event, EventKind, IoasidState, Message, Priority, Resync

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
        self, vm: str, *, observer: HostObserver | None = None, max_restarts: int = 3
    ) -> None:
        super().__init__(f"kvm:{check_name(vm)}", observer=observer, max_restarts=max_restarts)
        self._vm = vm
        self.table: dict[int, int] = {}
        """Guest PASID to host PASID."""

    def subscribe(self, *, restarted: bool) -> Subscription:
        """Subscribe to the VM's token, at CPU priority, holding."""
        return self.session.subscribe(
            token=self._vm,
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.CPU,
            hold=True,
            replay=restarted,
            on_message=self.note_event,
        )

    async def on_message(self, message: Message) -> Any:
        """Handle a `KvmRequest`."""
        match message:
            case Enqcmd(gpasid):
                ioasid = self.table.get(gpasid)
                if ioasid is None:
                    raise PasidFault(self._vm, gpasid)
                return ioasid
            case _:
                return await super().on_message(message)

    async def on_event(self, message: Event | Resync) -> None:
        """Keep the table as the events say."""
        if isinstance(message, Resync):
            self.table = {
                each.spid: each.ioasid
                for each in message.ioasids
                if each.spid is not None and each.state is IoasidState.ACTIVE
            }
        elif message.spid is None or message.publisher is not None:
            return
        elif message.kind is EventKind.BIND:
            self.table[message.spid] = message.ioasid
            self.report(Mapped(message.spid, message.ioasid))
        elif self.table.get(message.spid) == message.ioasid:
            # Another ID may have been given the spid meanwhile.
            del self.table[message.spid]
            self.report(Unmapped(message.spid, message.ioasid))
