"""Stages: the events of an IOASID on their way through the tiers."""

from typing import TYPE_CHECKING

from attrs import define, field

from ioasid.core._events import Event
from ioasid.core._terms import BIND, FREE

if TYPE_CHECKING:
    from ioasid.core._ioasid_records import Record
    from ioasid.core._subscriptions import Subscription

__all__: list[str] = []


@define(eq=False)
class Stage:
    """One event of one ID on its way through the tiers."""

    event: Event
    record: "Record"
    binding: int | None
    """The binding that the event begins (BIND) or ends (UNBIND, FREE); a publisher's own: None."""
    reach: int = -1
    """The last tier that was offered the event, or that a later event of the ID has overtaken."""
    offered_at: float = 0.0
    """When it reached the tier that it is in."""
    waiting: "dict[int, Subscription]" = field(factory=dict)
    """Who was offered the event and has not acknowledged it."""

    @property
    def ends_life(self) -> bool:
        """Tell whether this is the FREE that the quarantine waits for."""
        return self.event.kind is FREE and self.event.publisher is None

    @property
    def ends_binding(self) -> bool:
        """Tell whether something that may run ends with this event."""
        return self.binding is not None and self.event.kind is not BIND
