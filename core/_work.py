"""Work: what is left to do of requests that would keep everybody else waiting.

A request that concerns many IDs does a part at once, as many as `Tables.part` says. What is left of
it is a piece of work, which the requests after it (`Continue`, of whoever drives the allocator) do
part by part, the oldest piece first. Between two parts the state is one that smaller requests might
have left, so everything else goes on as ever. (docs/explanation.md, Parts)
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from attrs import define, field

from ioasid.core._answers import Answer
from ioasid.core._events import LiveIoasid, LiveRange
from ioasid.core._exports import ExportedIoasid, SetExport
from ioasid.core._holders import Holder
from ioasid.core._ioasid_records import Waiter
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._subscriptions import Subscription
from ioasid.core._terms import IoasidRange

__all__: list[str] = []


@define(eq=False)
class Freeing:
    """IDs of a set to free: those that were there when it was asked, and no later lives."""

    owner: IoasidSet
    chosen: list[tuple[int, int]]
    """Descending, as (the ID of a word's first bit, the word)."""
    until: int
    """The last generation that is meant."""
    answer: Callable[[], Answer] | None = None
    """Makes the answer, when all of them are freed; there is none after a restore."""
    wait: bool = False
    """Whether that comes when they are reclaimed."""
    waiter: Waiter | None = None
    """Who waits for the reclaim, if not all was freed at once."""
    ticket: int | None = None
    """Who waits for the answer."""
    fresh: bool = True
    """Whether no part of it is done."""
    finished: bool = False


@define(eq=False)
class LettingGo:
    """What a subscriber has dealt with: events to acknowledge, grants to drop."""

    subscription: Subscription
    order: list[int] | None = None
    """The events by seq, descending; `None` if more of them came."""


@define(eq=False)
class Leaving:
    """A holder that is gone: its references to drop, and what its subscriptions let go of."""

    holder: Holder
    order: list[int] | None = None
    """The IDs, descending."""
    tickets: list[int] = field(factory=list)
    """Who waits until it is gone."""
    finished: bool = False


@define(eq=False)
class LookingAgain:
    """The events under way, when who is told of them has changed."""

    word: int | None = 0
    """The number of the word of the ID space that comes next; `None` when it is done."""


@define(eq=False)
class Relisting:
    """A Resync that is being made: what its subscriber is shown of the IDs before a place.

    That is always what there is now. Sets are listed by number, and the IDs of each ascending.
    """

    subscription: Subscription
    sid: int = 0
    """The set that is being listed: all before it are."""
    ioasid: int = 0
    """Its ID that comes next."""
    ioasids: list[LiveIoasid] = field(factory=list)
    ranges: list[LiveRange] = field(factory=list)
    finished: bool = False
    """Whether it was delivered, or nobody wants it any more."""


@define(eq=False)
class Turning:
    """A set whose bindings end, for it is frozen, or begin, for it is to run."""

    owner: IoasidSet
    begins: bool
    ioasid: int = 0
    """Its ID that comes next."""
    tickets: list[int] = field(factory=list)
    """Who waits until all of them have begun or ended."""
    waits: list[int] = field(factory=list)
    """Who waits beyond that until nothing runs any more."""
    fresh: bool = True
    """Whether no part of it is done."""
    finished: bool = False


@define(eq=False)
class Importing:
    """A set that is made of an export: its IDs, which are withheld for it until their turn comes.

    Both the IDs of the source and those of this host ascend, and each is made of the one that is at
    the same place.
    """

    owner: IoasidSet
    export: SetExport
    left: list[tuple[int, int]]
    """Its IDs that are to come, descending, as (number of a word, its bits)."""
    generation: int
    count: int
    """How many it gets."""
    done: int = 0
    """How many of them there were."""
    ranges: list[IoasidRange] = field(factory=list)
    """Those that there were."""
    source: tuple[int, int] = (0, 0)
    """Where it goes on in the ranges of the export: which one, and what was done of that."""
    named: int = 0
    """How many of the IDs that the export says something of are done."""
    tickets: list[int] = field(factory=list)
    """Who waits for it."""
    fresh: bool = True
    """Whether no part of it is done."""

    @property
    def finished(self) -> bool:
        """Whether all its IDs are there."""
        return self.done == self.count


@define(eq=False)
class Checking:
    """An export that somebody wants to import, which is checked before anything else happens.

    It changes nothing, so it is in no snapshot.
    """

    export: SetExport
    steps: Iterator[int]
    count: int = 0
    """How many IDs of it were found."""
    tickets: list[int] = field(factory=list)
    """Who waits for it."""


@define(eq=False)
class Exporting:
    """What the next host of a frozen set has to know of it, found out word by word.

    It changes nothing, so it is in no snapshot. When it is answered it is as of then.
    """

    owner: IoasidSet
    tickets: list[int] = field(factory=list)
    """Who waits for it."""
    left: list[int] | None = None
    """The words of the set, as IDs of their first bits, that are still to be looked at,
    descending."""
    spoilt: set[int] = field(factory=set)
    """Those that have changed since they were."""
    found: dict[int, tuple[list[IoasidRange], list[ExportedIoasid]]] = field(factory=dict)
    """By word."""


Work: TypeAlias = Freeing | LettingGo | Leaving | LookingAgain | Relisting | Turning | Importing
