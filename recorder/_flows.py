"""Flows: what every subscriber was told, up to where it was done with it."""

from collections.abc import Collection, Iterable, Iterator

from attrs import define, field

from ioasid.core import Event, Resync
from ioasid.recorder._rows import Flow, Timeline
from ioasid.recorder._words import told

__all__: list[str] = []


@define(eq=False)
class Flows:
    """The flows of one allocator's subscriptions."""

    timeline: Timeline
    texts: dict[tuple[int, int], str] = field(factory=dict)
    """What every subscription was told, by seq."""
    _open: dict[int, dict[int, Flow]] = field(factory=dict)
    """By subscription and seq: what it has yet to acknowledge."""
    _deferred: dict[int, set[int]] = field(factory=dict)
    _folded: dict[int, list[Flow]] = field(factory=dict)
    """By subscription: what the next Resync stands for."""
    _stands_for: dict[tuple[int, int], list[Flow]] = field(factory=dict)
    """By subscription and seq of a Resync."""

    @property
    def subscriptions(self) -> set[int]:
        """Those that were told something, or missed something."""
        return {*self._open, *self._folded}

    def begin(
        self, subscription: int, holder: str, message: Event | Resync, row: int, time: float
    ) -> None:
        """Note that a subscription is told something."""
        ioasid = message.ioasid if isinstance(message, Event) else None
        flow = Flow(holder, told(message), ioasid, row, time)
        self.timeline.flows.append(flow)
        self._open.setdefault(subscription, {})[message.seq] = flow
        self.texts[subscription, message.seq] = flow.text
        if isinstance(message, Resync):
            self._stands_for[subscription, message.seq] = self._folded.pop(subscription, [])

    def defer(self, subscription: int, seq: int) -> Flow | None:
        """Note that something is set aside; returns its flow, if it is open."""
        self._deferred.setdefault(subscription, set()).add(seq)
        return self._open.get(subscription, {}).get(seq)

    def fold(self, subscription: int, keep: int | None) -> int:
        """Note that a queue is dropped, and becomes a Resync; returns how many were in it.

        What was set aside is not in it any more, and neither is the message to `keep`.
        """
        return self._fold(subscription, {keep, *self._deferred.get(subscription, ())})

    def fold_all(self, subscription: int) -> None:
        """Note that whoever was told crashed: it comes back to a Resync that stands for all."""
        self._fold(subscription, ())

    def _fold(self, subscription: int, kept: Collection[int | None]) -> int:
        flows = self._open.get(subscription, {})
        dropped = [seq for seq in flows if seq not in kept]
        folded = self._folded.setdefault(subscription, [])
        for seq in dropped:
            folded.append(flows.pop(seq))
            folded += self._stands_for.pop((subscription, seq), [])
        return len(dropped)

    def acknowledge(
        self, messages: Iterable[tuple[int, int]], row: int, time: float
    ) -> Iterator[Flow]:
        """Note that messages are done with, and what they stand for; yields their own flows."""
        for subscription, seq in messages:
            flow = self._open.get(subscription, {}).pop(seq, None)
            self._deferred.get(subscription, set()).discard(seq)
            if flow is None:
                continue
            _end([flow, *self._stands_for.pop((subscription, seq), [])], row, time)
            yield flow

    def end(self, subscription: int, row: int, time: float) -> None:
        """Note that a subscription ended: everything it was told is done with."""
        flows = [*self._open.pop(subscription, {}).values(), *self._folded.pop(subscription, [])]
        for key in [key for key in self._stands_for if key[0] == subscription]:
            flows += self._stands_for.pop(key)
        _end(flows, row, time)


def _end(flows: Iterable[Flow], row: int, time: float) -> None:
    for flow in flows:
        flow.end, flow.ended = row, time
