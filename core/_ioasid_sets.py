"""IOASID sets: their IDs, quota and token."""

from collections.abc import Iterator

from attrs import define, field

from ioasid.core._groups import Group
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._routes import Route
from ioasid.core._space import SHIFT, Owner, ones
from ioasid.core._subscriptions import Subscription
from ioasid.core._terms import EventKind, SetState, TokenType

__all__: list[str] = []


@define(eq=False)
class IoasidSet(Owner):
    """An IOASID set: the unit of ownership."""

    token: str | None
    token_type: TokenType
    quota: int
    system: bool = False
    state: SetState = SetState.ACTIVE
    records: dict[int, Record] = field(factory=dict)
    spids: dict[int, int] = field(factory=dict)
    with_data: int = 0
    """How many of its IDs have data."""
    subscriptions: dict[int, Subscription] = field(factory=dict)
    """Those of this set by sid or token; the system's match as well."""
    routes: dict[EventKind, Route] = field(factory=dict)
    routes_version: int = -1
    freezes: dict[int, Waiter] = field(factory=dict)
    """The requests, by ticket, that are answered when nothing of it runs."""
    running: set[int] | None = None
    """Once it was frozen: its IDs that a CPU or device may have yet to stop."""
    group: Group | None = None
    """Whose limit the quota is taken from; without one, it is from what is available."""

    def words(self) -> list[tuple[int, int]]:
        """Return its IDs, ascending, as (the ID of a word's first bit, the word)."""
        return [(word << SHIFT, self.members[word]) for word in sorted(self.members)]

    def ioasids(self) -> Iterator[int]:
        """Yield its IDs as they are now, ascending; it may change on the way."""
        for first, word in self.words():
            for bit in ones(word):
                yield first + bit

    def record(self, ioasid: int) -> Record:
        """Return the record of one of its IDs, made if there is none."""
        record = self.records.get(ioasid)
        if record is None:
            record = self.records[ioasid] = Record(ioasid, self)
        return record
