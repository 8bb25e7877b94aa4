"""This allocator's way of telling subscribers: tier by tier, each one acknowledged.

Everybody acknowledges at once, so when a step is over nothing is under way any more. Of one event
the tiers come in turn; among those whose turn it is there is no order, so that of their
subscriptions will do.
"""

from collections.abc import Iterable
from typing import Final

from attrs import define, field

from ioasid.core import EventKind
from tests.conformance.replay import rules
from tests.conformance.replay.notifier import Notifier, carried
from tests.conformance.replay.operation import Does, Operation
from tests.conformance.replay.state import Ioasid, IoasidSet
from tests.conformance.replay.words import NO_ANSWER, Told, token_fact, token_key

TIERS: Final = ("CPU", "DEVICE", "IOMMU", "LAST")


@define(eq=False)
class Subscription:
    """A subscription; to a set, a token or everything."""

    number: int
    terms: Operation
    owner: IoasidSet | None = None

    @property
    def token(self) -> str | None:
        """The token, if it is by token."""
        kind, _, name = self.terms.scope.partition(":")
        return name if kind == "mm" else None

    def matches(self, kind: EventKind, owner: IoasidSet) -> bool:
        """Whether an event of a set is for it. To everything: only FREE, as in the kernel."""
        if self.token is not None:
            return self.token == owner.token
        return self.owner is owner or (self.owner is None and kind is EventKind.FREE)


@define(eq=False)
class Staged:
    """An event on its way through the tiers; ALLOC goes to all of them at once."""

    kind: EventKind
    one: Ioasid
    carried: str
    binding: bool
    tiers: list[tuple[str, ...]]


@define(eq=False)
class Tiers(Notifier):
    """Subscriptions in the order in which they were made, and the events under way."""

    _subscriptions: list[Subscription] = field(init=False, factory=list)
    _last: int = field(init=False, default=0)
    _staged: list[Staged] = field(init=False, factory=list)
    _turn: int = field(init=False, default=0)

    def begin(self) -> None:
        """Begin with a step."""
        super().begin()
        self._turn = 0

    # -- subscribing --------------------------------------------------------------------------

    def register(self, op: Operation) -> str:
        """Make a subscription."""
        kind, _, name = op.scope.partition(":")
        owner = self.model.system.named(name) if kind == "set" else None
        if self._find(op) is not None:
            if kind == "mm":
                self.model.refuse("EBUSY", "EEXIST AlreadySubscribed")
            self.model.forbid(rules.ONCE_PER_SCOPE, "EEXIST AlreadySubscribed")
            return "done"
        if kind == "set" and owner is None:
            self.model.forbid(rules.GONE_IS_GONE, "ENOENT UnknownSet")
            return "done"
        self._last += 1
        self._subscriptions.append(Subscription(self._last, op, owner))
        return "done"

    def unregister(self, op: Operation) -> str:
        """End a subscription; what it was granted goes with it."""
        found = self._find(op)
        kind, _, name = op.scope.partition(":")
        owner = self.model.system.named(name) if kind == "set" else None
        if owner is not None and not owner.allocated and not self.model.decided(rules.SET_STAYS):
            self.model.end(owner)
            return "done"
        if found is None:
            self.model.refuse(NO_ANSWER, "ENOENT UnknownSubscription")
        self._subscriptions.remove(found)
        if found.terms.holds and self.model.decided(rules.GRANT_ENDS):
            self._let_go(found, self._members(found))
        return "done"

    def _find(self, op: Operation) -> Subscription | None:
        for each in self._subscriptions:
            if each.terms.subscriber == op.subscriber and each.terms.scope == op.scope:
                return each
        return None

    def _members(self, subscription: Subscription) -> list[Ioasid]:
        return [
            one
            for one in self.model.system.ids.values()
            if subscription.matches(EventKind.BIND, one.owner)
        ]

    def _let_go(self, subscription: Subscription, ids: Iterable[Ioasid]) -> None:
        for one in ids:
            if self._grant(subscription) in one.granted:
                one.granted.remove(self._grant(subscription))
                self.model.drop(one)

    def _grant(self, subscription: Subscription) -> str:
        return f"{subscription.number}"

    # -- telling ------------------------------------------------------------------------------

    def hears(self, kind: EventKind, owner: IoasidSet) -> bool:
        """Whether there is a subscription that the event is for."""
        return any(each.matches(kind, owner) for each in self._subscriptions)

    def notify(self, kind: EventKind, one: Ioasid) -> None:
        """Send an event on its way, and grant what a BIND grants."""
        if not self.hears(kind, one.owner):
            return
        tiers: list[tuple[str, ...]]
        tiers = [TIERS] if kind is EventKind.ALLOC else [(tier,) for tier in TIERS]
        binding = one.spid is not None
        self._staged.append(Staged(kind, one, carried(kind, one), binding, tiers))
        for each in self._subscriptions if kind is EventKind.BIND else []:
            if each.terms.holds and each.matches(kind, one.owner):
                one.granted.append(self._grant(each))
                one.refs += 1

    def keeps(self, one: Ioasid) -> bool:
        """A staged FREE keeps its ID."""
        return any(each.one is one for each in self._staged)

    def settle(self) -> None:
        """Let everybody deal with what they were told, turn by turn."""
        while self._staged:
            offers = sorted(
                [(each.number, each, event) for event in self._staged for each in self._due(event)],
                key=lambda offer: offer[0],
            )
            self._turn += bool(offers)
            for _, each, event in offers:
                self._tell(each, event)
            for _, each, event in offers:
                if each.terms.holds and event.kind in {EventKind.UNBIND, EventKind.FREE}:
                    if event.kind is EventKind.FREE and self._grant(each) in event.one.granted:
                        self.model.decided(rules.FREE_ENDS_BINDING)
                    self._let_go(each, [event.one])
            done = [event for event in self._staged if not event.tiers]
            self._staged = [event for event in self._staged if event.tiers]
            for event in done:
                self.model.reclaim_if_done(event.one)

    def _due(self, event: Staged) -> list[Subscription]:
        # The next tier with somebody in it.
        while event.tiers:
            tier = event.tiers.pop(0)
            due = [
                each
                for each in self._subscriptions
                if each.terms.priority in tier and each.matches(event.kind, event.one.owner)
            ]
            if due:
                return due
        return []

    def _tell(self, subscription: Subscription, event: Staged) -> None:
        name, ioasid = subscription.terms.subscriber, event.one.ioasid
        self.told.append(Told(name, event.kind, ioasid, event.carried, self._turn))
        for does in reactions(subscription.terms, event.kind, binding=event.binding):
            if does.deferred:
                self.note(f"{name} defers {ioasid}")
                self.model.deferred.append((name, ioasid, does.verbs))
            elif "put" in does.verbs:
                if does not in subscription.terms.does.get(event.kind, ()):
                    self.model.decided(rules.FREE_ENDS_BINDING)
                self.model.put_for(name, ioasid)
            elif "get" in does.verbs and not event.one.free_pending:
                self.model.take(event.one)

    # -- sets ---------------------------------------------------------------------------------

    def made(self, owner: IoasidSet) -> None:
        """A subscription by token matches by itself."""

    def gone(self, owner: IoasidSet) -> None:
        """End the subscriptions to a set."""
        self._subscriptions = [each for each in self._subscriptions if each.owner is not owner]

    def facts(self) -> dict[str, str]:
        """Return who subscribes to a token."""
        return {
            token_key(each.terms.subscriber, each.token): token_fact(
                joined=self.model.system.by_token(each.token) is not None
            )
            for each in self._subscriptions
            if each.token is not None
        }


def reactions(terms: Operation, kind: EventKind, *, binding: bool) -> list[Does]:
    """Return what a subscriber does at an event, besides acknowledging it.

    A FREE ends a binding as an UNBIND does, so what is put at UNBIND is put then. To get at BIND
    and put at UNBIND is what holding is for: nothing is left to do.
    """
    found = list(terms.does.get(kind, ()))
    if terms.holds:
        return [] if kind in {EventKind.BIND, EventKind.UNBIND} else found
    if kind is EventKind.FREE and binding:
        found += [each for each in terms.does.get(EventKind.UNBIND, ()) if "put" in each.verbs]
    return found
