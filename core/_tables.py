"""The tables: all that the allocator knows; nothing else remembers anything."""

from bisect import bisect_left, insort

from attrs import define, field

from ioasid.core._changes import ChangeLog
from ioasid.core._effects import Effect
from ioasid.core._errors import IoasidError
from ioasid.core._exports import SetExport
from ioasid.core._groups import Group
from ioasid.core._holders import Holder
from ioasid.core._ioasid_records import Record, Waiter
from ioasid.core._ioasid_sets import IoasidSet
from ioasid.core._reserved import Reserved
from ioasid.core._reuse import CyclicSpace
from ioasid.core._snapshot import PART
from ioasid.core._space import IdSpace
from ioasid.core._subscriptions import Subscription
from ioasid.core._terms import Message
from ioasid.core._work import Checking, Exporting, Importing, Relisting, Turning, Work

__all__: list[str] = []


@define(eq=False)
class Tables:
    """The whole state, shared by the parts of the allocator; nothing else remembers anything."""

    capacity: int
    reserved: int = 0
    """How many IDs are reserved by count."""
    available: int = field(init=False)
    in_use: bool = False
    """Whether a set, group or reservation ever existed: from then on the capacity stands."""
    space: IdSpace[IoasidSet] = field(factory=IdSpace)
    reserved_numbers: Reserved = field(factory=Reserved)
    """The numbers that the space withholds."""
    groups: dict[str, Group] = field(factory=dict)
    group_names: list[str] = field(factory=list)
    """Ascending."""
    next_sid: int = 0
    """The number of the next set: none is used again."""
    generation: int = 0
    """That of the life that began last; none is used again."""
    sets: dict[int, IoasidSet] = field(factory=dict)
    set_numbers: list[int] = field(factory=list)
    """Ascending."""
    tokens: dict[str, int] = field(factory=dict)
    system_sid: int | None = None
    quarantine: dict[int, Record] = field(factory=dict)
    """The IDs that were freed and are not back, by number; those freed first come first."""
    sets_free_pending: int = 0
    index: int = 0
    """Grows by one with every request that was carried out and may have changed something."""
    seq: int = 0
    now: float = 0.0
    sessions: dict[int, Holder] = field(factory=dict)
    holders: dict[str, Holder] = field(factory=dict)
    holder_names: list[str] = field(factory=list)
    """Ascending."""
    next_session: int = 1
    subscriptions: dict[int, Subscription] = field(factory=dict)
    next_subscription: int = 1
    system_subscriptions: dict[int, Subscription] = field(factory=dict)
    token_subscriptions: dict[str, dict[int, Subscription]] = field(factory=dict)
    routes_version: int = 0
    """Grows when who subscribes to the system changes: every set's routes are stale then."""
    chained: dict[int, Record] = field(factory=dict)
    """Records with a chain, by ID."""
    unsettled: dict[int, Record] = field(factory=dict)
    """Records whose chain may go on, or that may be reclaimed or dropped, since the last look."""
    returning: list[Subscription] = field(factory=list)
    """Subscriptions that may be due for a Resync since the last look."""
    relistings: dict[int, Relisting] = field(factory=dict)
    """The Resyncs that are being made, by subscription."""
    turnings: dict[int, Turning] = field(factory=dict)
    """The sets whose bindings begin or end, by number."""
    crowded: dict[int, Record] = field(factory=dict)
    """Records whose chain is as long as `MAX_IN_FLIGHT` or longer, by ID."""
    lagging: dict[int, Subscription] = field(factory=dict)
    """Subscriptions with something unacknowledged."""
    waiters: dict[int, Waiter] = field(factory=dict)
    next_ticket: int = 1
    part: int = PART
    """How many IDs one request deals with at most before others are served."""
    work: list[Work] = field(factory=list)
    """What is left of requests that are done in parts, the oldest first."""
    begun: list[Work] = field(factory=list)
    """What the present request began, of which no part is done yet."""
    exports: dict[int, Exporting] = field(factory=dict)
    """What is looked up in parts beside the work, by set; the oldest first."""
    checks: list[Checking] = field(factory=list)
    """Exports that are checked beside the work, before they are imported; the oldest first."""
    checked: list[tuple[SetExport, int | IoasidError]] = field(factory=list)
    """The last ones that were, each with how many IDs it has or what is wrong with it."""
    imports: dict[int, Importing] = field(factory=dict)
    """The sets that are being made, by number."""
    resumed: dict[int, Message] = field(factory=dict)
    """Requests of before that wait until no work is left, by ticket."""
    changes: ChangeLog | None = None
    """What a request changed, while somebody watches."""
    outbox: list[Effect] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        """Begin with everything available."""
        self.available = self.capacity

    @property
    def position(self) -> int | None:
        """Where the order CYCLIC goes on; `None` if the order is LOWEST."""
        return self.space.position if isinstance(self.space, CyclicSpace) else None

    def reserve(self, first: int, last: int) -> None:
        """Take free numbers out of circulation, as many as are available at most."""
        self.reserved_numbers.add(first, last)
        self.space.withhold(first, last)
        self.available -= last - first + 1

    def cancel(self, first: int, last: int) -> None:
        """Give back reserved numbers."""
        self.reserved_numbers.remove(first, last)
        self.space.readmit(first, last)
        self.available += last - first + 1

    def new_ticket(self) -> int:
        """Return the number of the next request that waits."""
        ticket = self.next_ticket
        self.next_ticket += 1
        return ticket

    def add_set(self, owner: IoasidSet) -> None:
        """Enter a set under its number."""
        self.sets[owner.sid] = owner
        insort(self.set_numbers, owner.sid)

    def remove_set(self, owner: IoasidSet) -> None:
        """Forget a set."""
        del self.sets[owner.sid]
        del self.set_numbers[bisect_left(self.set_numbers, owner.sid)]

    def add_holder(self, holder: Holder) -> None:
        """Enter a holder under its name."""
        self.holders[holder.name] = holder
        insort(self.holder_names, holder.name)

    def remove_holder(self, holder: Holder) -> None:
        """Forget a holder."""
        del self.holders[holder.name]
        del self.holder_names[bisect_left(self.holder_names, holder.name)]

    def in_scope(self, subscription: Subscription) -> list[IoasidSet]:
        """Return the sets that a subscription covers now, by number."""
        if subscription.everywhere:
            return [self.sets[each] for each in self.set_numbers]
        sid = self._scope(subscription)
        return [] if sid is None else [self.sets[sid]]

    def next_in_scope(self, subscription: Subscription, sid: int) -> IoasidSet | None:
        """Return the first set from a number on that a subscription covers, if there is one."""
        if not subscription.everywhere:
            found = self._scope(subscription)
            return self.sets[found] if found is not None and found >= sid else None
        place = bisect_left(self.set_numbers, sid)
        return self.sets[self.set_numbers[place]] if place < len(self.set_numbers) else None

    def _scope(self, subscription: Subscription) -> int | None:
        if subscription.token is not None:
            return self.tokens.get(subscription.token)
        return subscription.sid
