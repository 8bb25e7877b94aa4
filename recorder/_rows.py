"""What a drawing is made of: actors, rows in the order in which they happened, and lives of IDs."""

from enum import StrEnum
from typing import Final

from attrs import define, field

from ioasid.core import Priority

__all__: list[str] = []

ALLOCATOR: Final = "allocator"
"""The column of the allocator; no holder is drawn in it."""


class Kind(StrEnum):
    """What a row is, which is what a drawing can be filtered by."""

    REQUEST = "request"
    """Something was asked and carried out."""
    REFUSAL = "refusal"
    """Something was asked and refused."""
    LOOKUP = "look-up"
    """Something was asked that changes nothing."""
    EVENT = "event"
    """Subscribers were told: an event, or a Resync."""
    ACKNOWLEDGEMENT = "acknowledgement"
    """A subscriber is done with something it was told."""
    DEFERRAL = "deferral"
    """A subscriber sets something aside, to acknowledge it later."""
    RECLAIM = "reclaim"
    """An ID is back in the pool."""
    CRASH = "crash"
    """A holder crashed, or was declared dead."""
    RETURN = "return"
    """A holder that had crashed came back."""
    SESSION = "session"
    """A holder joined or left, or began or ended to be told."""
    STEP = "step"
    """An actor took up or did something."""
    NOTE = "note"
    """A heading that whoever recorded it wrote."""
    OPENING = "opening"
    """An allocator began, or went on from a snapshot."""


@define(eq=False)
class Row:
    """One thing that happened: a message from `source` to `targets`, or a note at `source`."""

    kind: Kind
    time: float
    source: str
    targets: tuple[str, ...]
    text: str
    line: int
    """Where in the file it comes from, 1 or more."""
    facts: str = ""
    """The messages themselves."""
    ioasids: tuple[int, ...] = ()
    sids: tuple[int, ...] = ()
    lives: tuple[int, ...] = ()
    """The numbers of the lives that it is about."""


class Waits(StrEnum):
    """What an ID in quarantine waits for: a tier, or a reference that somebody took."""

    CPU = "CPU"
    DEVICE = "DEVICE"
    IOMMU = "IOMMU"
    LAST = "LAST"
    REFERENCE = "REFERENCE"


@define(eq=False)
class Span:
    """A part of a quarantine: what it waited for, and who that was, from one row to another."""

    waits: Waits
    who: tuple[str, ...]
    first: int
    begun: float
    end: int | None = None
    ended: float | None = None


@define(eq=False)
class Life:
    """One life of an ID, or of many that were allocated at once."""

    number: int
    ioasid: int
    last: int
    """The last of many; `ioasid` itself for one."""
    generation: int
    sid: int
    first: int
    """The row it begins in."""
    begun: float
    freed: int | None = None
    freed_at: float | None = None
    end: int | None = None
    ended: float | None = None
    until: int | None = None
    """The row in which its allocator ended, if it was still there."""
    spans: list[Span] = field(factory=list)
    counts: list[tuple[int, int]] = field(factory=list)
    """How many had it, and from which row on."""
    left: int = 1
    """How many of many are still allocated."""


@define(eq=False)
class Flow:
    """What one subscriber was told, from the row of the message to that where it was done with."""

    holder: str
    text: str
    ioasid: int | None
    first: int
    begun: float
    end: int | None = None
    """`None`: it is open at the end."""
    ended: float | None = None


@define(eq=False)
class ActorFacts:
    """A column: a holder, or the allocator."""

    name: str
    tier: Priority | None = None
    """Where it is told things; `None` if it never is."""
    states: list[tuple[int, str]] = field(factory=list)
    """From which row on it is "live", "down" or "gone"."""


@define(eq=False)
class Timeline:
    """Everything that is drawn."""

    path: str
    rows: list[Row] = field(factory=list)
    actors: dict[str, ActorFacts] = field(factory=dict)
    lives: list[Life] = field(factory=list)
    flows: list[Flow] = field(factory=list)
    tokens: dict[int, str] = field(factory=dict)
    """What every set is called."""
    counts: list[tuple[int, int, int]] = field(factory=list)
    """How many IDs were in use and in quarantine, and from which row on."""
    decisions: int = 0
