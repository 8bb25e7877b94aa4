"""What each subscriber is told during a storm, message by message: does it fit together?"""

from collections.abc import Callable
from typing import Final

from attrs import define, field

from ioasid.core import Event, EventKind, Resync
from ioasid.testing._states import ABSENT, ANY_STATE, after, state_of

__all__: list[str] = []

NEW: Final = frozenset((ABSENT,))


@define(eq=False)
class Stream:
    """What one subscriber was told, as far as the next message has to fit to it."""

    kinds: frozenset[EventKind]
    joined: int
    """The lives begun by then: IDs of these may be in any state. 0 after a Resync."""
    states: dict[int, frozenset[str]] = field(factory=dict)
    last: dict[int, int] = field(factory=dict)
    """The seq of the last event of every ID."""


@define(eq=False)
class Streams:
    """Every subscriber's stream, by holder; each has one subscription at most."""

    violated: Callable[[str], None]
    _present: dict[str, Stream] = field(factory=dict)

    def begin(self, holder: str, kinds: frozenset[EventKind], lives: int) -> None:
        """Begin a stream; `lives` is how many lives of IDs began so far."""
        self._present[holder] = Stream(kinds, lives)

    def end(self, holder: str) -> None:
        """End a stream, if there is one: its holder has left or was evicted."""
        self._present.pop(holder, None)

    def told(self, holder: str, event: Event, life: int) -> None:
        """Check an event; `life` is the number of the ID's life, 0 if it never had one."""
        stream = self._present.get(holder)
        if stream is None or event.kind not in stream.kinds:
            self.violated(f"{holder} was told {event}, for which it did not subscribe")
            return
        ioasid = event.ioasid
        if event.seq <= stream.last.get(ioasid, 0):
            self.violated(f"{holder} was told {event} after {stream.last[ioasid]}")
        stream.last[ioasid] = event.seq
        if event.publisher is not None:
            return
        before = stream.states.get(ioasid)
        if before is None:
            before = NEW if not life or life > stream.joined else ANY_STATE
        states = after(before, event.kind, stream.kinds)
        if not states:
            self.violated(f"{holder} was told {event}, for which it is {sorted(before)}")
            states = ANY_STATE
        if states == NEW:
            stream.states.pop(ioasid, None)
            stream.last.pop(ioasid, None)
        else:
            stream.states[ioasid] = states

    def resynced(self, holder: str, resync: Resync) -> None:
        """Begin again from a Resync."""
        stream = self._present.get(holder)
        if stream is None:
            self.violated(f"{holder} was given a Resync and has no subscription")
            return
        stream.joined = 0
        stream.states = {each.ioasid: frozenset((state_of(each),)) for each in resync}
