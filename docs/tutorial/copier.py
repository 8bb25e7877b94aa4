"""A driver for an imaginary device that copies memory for the processes of a guest."""

from typing import Any

from ioasid.actors import Actor, PasidFault, Subscription
from ioasid.core import (
    Began,
    Binding,
    Ended,
    Event,
    EventKind,
    Message,
    Priority,
    Resync,
    SubscriberTable,
)


class Copy(Message, frozen=True):
    """Copy something for a process of the guest; answers the PASID that the device used."""

    spid: int


class Copier(Actor):
    """The driver of one device, for one VM."""

    def __init__(self, device: str) -> None:
        super().__init__(f"copier:{device}")
        self.hardware: dict[int, int] = {}  # the device's own table: spid to PASID

    def subscribe(self, *, restarted: bool) -> Subscription:
        self.table = SubscriberTable()  # a crash loses what was in memory
        return self.session.subscribe(
            token="vm-1",
            kinds={EventKind.BIND, EventKind.UNBIND, EventKind.FREE},
            priority=Priority.DEVICE,
            hold=True,
            replay=restarted,
            wake=self.note_event,
        )

    async def on_event(self, message: Event | Resync) -> None:
        for change in self.table.update(message):
            match change:
                case Began(Binding(ioasid, spid)):
                    self.hardware[spid] = ioasid
                case Ended(Binding(ioasid, spid)) if self.hardware.get(spid) == ioasid:
                    del self.hardware[spid]
                case _:
                    pass

    async def on_request(self, message: Message) -> Any:
        match message:
            case Copy(spid) if spid in self.hardware:
                self.refuse_if_stopping()
                return self.hardware[spid]
            case Copy(spid):
                raise PasidFault("vm-1", spid)
            case _:
                return await super().on_request(message)

    async def on_stop(self) -> None:
        self.hardware.clear()

    def is_clean(self) -> bool:
        return not self.hardware
