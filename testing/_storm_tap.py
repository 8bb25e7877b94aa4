"""Where a storm looks at a host: decisions and steps in, what the witness has to know out.

The only module of the storm that knows what a tap is given.
"""

from typing import Final

from attrs import define, field

from ioasid.actors import Decision, HostTap, Step
from ioasid.core import Changes, Deliver, Event, IoasidRecord, IoasidState, Resync, Subscribed
from ioasid.testing._storm_witness import WITNESS, Witness

__all__: list[str] = []

LOOK_EVERY: Final = 5000
"""Decisions between two comparisons of the hardware with the references that protect it."""


@define(eq=False)
class _Records:
    """The records of all live IDs, as the changes of every decision say."""

    by_ioasid: dict[int, IoasidRecord] = field(factory=dict)

    def follow(self, changes: Changes, sid: int) -> None:
        for span in changes.allocated:
            for ioasid in range(span.first, span.last + 1):
                self.by_ioasid[ioasid] = IoasidRecord(
                    ioasid, sid, None, IoasidState.ACTIVE, None, {}, 1, changes.generation
                )
        for record in changes.ioasids:
            self.by_ioasid[record.ioasid] = record
        for span in changes.reclaimed:
            for ioasid in range(span.first, span.last + 1):
                del self.by_ioasid[ioasid]


def tap(witness: Witness) -> HostTap:
    """Return a tap that tells the witness of every decision and step."""
    decisions = 0
    records = _Records()
    subscribers: dict[int, str] = {}

    def see(seen: Decision | Step) -> None:
        nonlocal decisions
        if isinstance(seen, Step):
            witness.stepped(seen.actor, seen.message)
            return
        decisions += 1
        witness.decided(seen.holder, seen.request, seen.answer)
        if isinstance(seen.answer, Subscribed):
            subscribers[seen.answer.subscription] = seen.holder
        records.follow(seen.changes, getattr(seen.request, "sid", -1))
        told: list[tuple[str, Event | Resync]] = [
            (subscribers[number], effect.message)
            for effect in seen.effects
            if isinstance(effect, Deliver)
            for number in effect.subscriptions
        ]
        for holder, message in told:
            if holder == WITNESS and isinstance(message, Event) and message.publisher is None:
                witness.lives_on(message, records.by_ioasid.get(message.ioasid))
        for holder, message in told:
            witness.told(holder, message)
        witness.answered(seen.request, seen.answer)
        if not decisions % LOOK_EVERY:
            witness.look(records.by_ioasid.get)

    return see
