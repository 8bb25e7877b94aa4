"""What both sides' way of telling subscribers has in common."""

from typing import TYPE_CHECKING

from attrs import define, field

from ioasid.core import EventKind
from tests.conformance.replay import words
from tests.conformance.replay.operation import Operation
from tests.conformance.replay.state import Ioasid, IoasidSet
from tests.conformance.replay.words import Told

if TYPE_CHECKING:
    from tests.conformance.replay.side import Side


@define(eq=False)
class Notifier:
    """Who is told what, in a step; `stuck` if a callback never came back."""

    model: "Side" = field(init=False)
    told: list[Told] = field(init=False, factory=list)
    did: list[str] = field(init=False, factory=list)
    calls: list[str] = field(init=False, factory=list)
    """All that was told and done, in order; the kernel's callbacks are calls and have one."""
    stuck: bool = field(init=False, default=False)

    def begin(self) -> None:
        """Begin with a step."""
        self.told, self.did, self.calls, self.stuck = [], [], [], False

    def note(self, done: str) -> None:
        """Note what a subscriber did."""
        self.did.append(done)
        self.calls.append(done)

    def register(self, op: Operation) -> str:
        """Let somebody subscribe; returns the answer."""
        raise NotImplementedError

    def unregister(self, op: Operation) -> str:
        """Let somebody unsubscribe; returns the answer."""
        raise NotImplementedError

    def hears(self, kind: EventKind, owner: IoasidSet) -> bool:
        """Whether anybody would be told."""
        raise NotImplementedError

    def notify(self, kind: EventKind, one: Ioasid) -> None:
        """Tell of an event, now or when the step settles."""
        raise NotImplementedError

    def keeps(self, one: Ioasid) -> bool:
        """Whether an event under way keeps an ID that nobody references."""
        raise NotImplementedError

    def made(self, owner: IoasidSet) -> None:
        """Take note of a new set."""
        raise NotImplementedError

    def gone(self, owner: IoasidSet) -> None:
        """Take note that a set went."""
        raise NotImplementedError

    def settle(self) -> None:
        """Let everybody deal with what they were told."""
        raise NotImplementedError

    def facts(self) -> dict[str, str]:
        """Return what can be compared."""
        raise NotImplementedError


def carried(kind: EventKind, one: Ioasid) -> str:
    """Say what an event carries."""
    owner = one.owner
    return words.event_words(kind, one.ioasid, owner.name, owner.number, one.spid, one.data)
