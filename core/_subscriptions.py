"""The requests of subscribers, and the figures on those that lag."""

from typing import Any, Final

from ioasid.core import _check
from ioasid.core._errors import AlreadySubscribed, InvalidArgument, UnknownSubscription
from ioasid.core._handlers import DONE, Handlers
from ioasid.core._messages import (
    Acknowledge,
    Defer,
    Detach,
    LaggingSubscriber,
    Reply,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from ioasid.core._records import BIND, FREE, TIERS, UNBIND, Holder, Subscription

__all__: list[str] = []

_HOLDING_KINDS: Final = frozenset((BIND, UNBIND, FREE))


class Subscriptions(Handlers):
    """The handlers of subscriptions."""

    def subscribe(self, holder: Holder, request: Subscribe) -> Reply:
        """Subscribe the holder, or let it come back to what a crash left behind."""
        tables = self._tables
        asked = self._check_subscribe(holder, request)
        scope = (asked.sid, asked.token)
        present = holder.subscriptions.get(scope)
        if present is not None:
            if present.attached:
                raise AlreadySubscribed(present.scope, present.number)
            self._refuse_other_terms(present, asked)
            present.queue_size = asked.queue_size
            present.acknowledge_within = asked.acknowledge_within
            self._notifier.attach(present, resync=True)
            return Subscribed(present.number, True)
        if asked.sid is not None:
            self._set(asked.sid)
        tables.next_subscription += 1
        holder.subscriptions[scope] = tables.subscriptions[asked.number] = asked
        self._notifier.join(asked)
        self._notifier.attach(asked, resync=request.replay)
        return Subscribed(asked.number, False)

    def unsubscribe(self, holder: Holder, request: Unsubscribe) -> Reply:
        """End a subscription."""
        subscription = self._subscription(holder, request.subscription)
        self._notifier.leave(subscription, drained=False)
        self._life.settle()
        return DONE

    def detach(self, holder: Holder, request: Detach) -> Reply:
        """Suspend a subscription whose consumer crashed, or end it if it keeps nothing."""
        subscription = self._subscription(holder, request.subscription)
        if subscription.hold or holder.references:
            self._notifier.suspend(subscription)
        else:
            self._notifier.leave(subscription, drained=False)
            self._life.settle()
        return DONE

    def acknowledge(self, holder: Holder, request: Acknowledge) -> Reply:
        """Take it that the subscriber dealt with a message."""
        tables = self._tables
        seq = _check.number(request.seq, "seq")
        number = request.subscription
        subscription = tables.subscriptions.get(number) if type(number) is int else None
        if subscription is None or subscription.holder is not holder:
            subscription = self._subscription(holder, number)
        self._notifier.acknowledge(subscription, seq)
        if tables.unsettled:
            self._life.settle()
        if subscription.resync_due:
            self._notifier.resync_if_back(subscription)
        return DONE

    def defer(self, holder: Holder, request: Defer) -> Reply:
        """Take it that the subscriber came back and keeps a message for later."""
        seq = _check.number(request.seq, "seq")
        subscription = self._subscription(holder, request.subscription)
        self._notifier.defer(subscription, seq)
        self._notifier.resync_if_back(subscription)
        return DONE

    def _subscription(self, holder: Holder, number: Any) -> Subscription:
        subscription = self._tables.subscriptions.get(_check.number(number, "subscription"))
        if subscription is None or subscription.holder is not holder:
            raise UnknownSubscription(number)
        return subscription

    def _check_subscribe(self, holder: Holder, request: Subscribe) -> Subscription:
        sid = _check.optional_number(request.sid, "sid")
        token = None if request.token is None else _check.name(request.token, "token")
        if sid is not None and token is not None:
            _check.refuse("token", token, "either sid or token, not both")
        kinds = _check.kinds(request.kinds)
        priority = _check.priority(request.priority)
        hold = _check.flag(request.hold, "hold")
        _check.flag(request.replay, "replay")
        if hold and not kinds >= _HOLDING_KINDS:
            found = ", ".join(sorted(kinds))
            raise InvalidArgument("kinds", found, "BIND, UNBIND and FREE among them, to hold")
        return Subscription(
            self._tables.next_subscription,
            holder,
            sid,
            token,
            kinds,
            priority,
            hold,
            _check.queue_size(request.queue_size),
            _check.seconds(request.acknowledge_within, "acknowledge_within"),
            TIERS[priority],
        )

    def _refuse_other_terms(self, present: Subscription, asked: Subscription) -> None:
        # What was folded while it was suspended was chosen and ordered by the old terms.
        for term in ("kinds", "priority", "hold"):
            if getattr(present, term) != getattr(asked, term):
                _check.refuse(
                    term,
                    getattr(asked, term),
                    f"what the suspended subscription has, {getattr(present, term)!r}, "
                    f"or unsubscribe {present.number} first",
                )

    def lagging(self) -> tuple[LaggingSubscriber, ...]:
        """Return the subscribers with unacknowledged messages, in order of subscription."""
        lagging = self._tables.lagging
        return tuple(self._lag(lagging[number]) for number in sorted(lagging))

    def _lag(self, subscription: Subscription) -> LaggingSubscriber:
        oldest = [
            (offered, seq) for seq, (offered, _) in list(subscription.outstanding.items())[:1]
        ]
        if subscription.folded_since is not None:
            seq, offered = subscription.folded_since
            oldest.append((offered, seq))
        offered, seq = min(oldest, key=lambda each: each[0])
        age = self._tables.now - offered
        deadline = subscription.acknowledge_within
        return LaggingSubscriber(
            holder=subscription.holder.name,
            subscription=subscription.number,
            scope=subscription.scope,
            priority=subscription.priority,
            attached=subscription.attached,
            queued=len(subscription.outstanding),
            deferred=len(subscription.deferred),
            folded=len(subscription.folded),
            oldest_seq=seq,
            oldest_age=age,
            acknowledge_within=deadline,
            overdue=deadline is not None and age >= deadline,
        )
