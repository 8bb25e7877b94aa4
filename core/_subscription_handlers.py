"""The requests of subscribers, and the figures on those that lag."""

from typing import Any, Final

from ioasid.core import _check
from ioasid.core._answers import Answer, LaggingSubscriber, Subscribed
from ioasid.core._errors import AlreadySubscribed, InvalidArgument, UnknownSubscription
from ioasid.core._handlers import DONE, Handlers
from ioasid.core._holders import Holder
from ioasid.core._lags import lag_of
from ioasid.core._requests import Acknowledge, Defer, Detach, Subscribe, Unsubscribe
from ioasid.core._routes import TIERS
from ioasid.core._subscriptions import Subscription
from ioasid.core._terms import BIND, FREE, UNBIND

__all__: list[str] = []

_HOLDING_KINDS: Final = frozenset((BIND, UNBIND, FREE))


class SubscriptionHandlers(Handlers):
    """The handlers of subscriptions."""

    def subscribe(self, holder: Holder, request: Subscribe) -> Answer:
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

    def unsubscribe(self, holder: Holder, request: Unsubscribe) -> Answer:
        """End a subscription."""
        subscription = self._subscription(holder, request.subscription)
        self._notifier.leave(subscription, drained=False)
        return DONE

    def detach(self, holder: Holder, request: Detach) -> Answer:
        """Suspend a subscription whose consumer crashed, or end it if it keeps nothing."""
        subscription = self._subscription(holder, request.subscription)
        if subscription.hold or holder.references:
            self._notifier.suspend(subscription)
        else:
            self._notifier.leave(subscription, drained=False)
        return DONE

    def acknowledge(self, holder: Holder, request: Acknowledge) -> Answer:
        """Take it that the holder dealt with messages."""
        return self._acknowledge(holder, request.messages)

    def acknowledge_of_all(self, _: Holder, request: Acknowledge) -> Answer:
        """Take it that each of the subscribers dealt with its messages, whoever it is."""
        return self._acknowledge(None, request.messages)

    def concerned(
        self, holder: Holder | None, request: Acknowledge | Defer
    ) -> set[tuple[int, int]]:
        """Return what a request of a holder, or of the driver, has an effect on if decided now.

        Those are pairs of a subscription and the seq of what it has yet to acknowledge, or 0 where
        the request can only bring its Resync. Raises what it would be refused with.
        """
        if isinstance(request, Defer):
            assert holder is not None, "the driver defers nothing"
            seq = _check.number(request.seq, "seq")
            dealt = [(self._subscription(holder, request.subscription), seq)]
        else:
            dealt = self._dealt_with(holder, request.messages)
        return {
            (each.number, seq if seq in each.outstanding else 0)
            for each, seq in dealt
            if seq in each.outstanding or each.resync_due
        }

    def _acknowledge(self, holder: Holder | None, messages: object) -> Answer:
        self._notifier.acknowledge(self._dealt_with(holder, messages))
        return DONE

    def _dealt_with(
        self, holder: Holder | None, messages: object
    ) -> list[tuple[Subscription, int]]:
        if type(messages) is not tuple:
            _check.refuse("messages", messages, "a tuple of pairs of a subscription and a seq")
        subscriptions = self._tables.subscriptions
        dealt = []
        for each in messages:
            if type(each) is not tuple or len(each) != 2:
                _check.refuse("messages", each, "pairs of a subscription and a seq")
            number, seq = each
            if type(seq) is not int or not 0 <= seq <= _check.MAX_NUMBER:
                _check.number(seq, "seq")
            subscription = subscriptions.get(number) if type(number) is int else None
            if subscription is None:
                if not self._has_ended(number):
                    raise UnknownSubscription(number)
            elif subscription.leaving:
                continue
            elif holder is None or subscription.holder is holder:
                dealt.append((subscription, seq))
            else:
                raise UnknownSubscription(number)
        return dealt

    def _has_ended(self, number: Any) -> bool:
        return 0 < _check.number(number, "subscription") < self._tables.next_subscription

    def defer(self, holder: Holder, request: Defer) -> Answer:
        """Take it that the subscriber came back and keeps a message for later."""
        seq = _check.number(request.seq, "seq")
        self._notifier.defer(self._subscription(holder, request.subscription), seq)
        return DONE

    def _subscription(self, holder: Holder, number: Any) -> Subscription:
        subscription = self._tables.subscriptions.get(_check.number(number, "subscription"))
        if subscription is None or subscription.holder is not holder or subscription.leaving:
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
        awaited = _check.flag(request.awaited, "awaited")
        if hold and not kinds >= _HOLDING_KINDS:
            found = ", ".join(sorted(kinds))
            raise InvalidArgument("kinds", found, "BIND, UNBIND and FREE among them, to hold")
        if hold and not awaited:
            raise InvalidArgument("awaited", "False", "True, to hold")
        within = _check.seconds(request.acknowledge_within, "acknowledge_within")
        return Subscription(
            self._tables.next_subscription,
            holder,
            sid,
            token,
            kinds,
            priority,
            hold,
            _check.queue_size(request.queue_size),
            within if awaited else None,
            TIERS[priority],
            awaited,
        )

    def _refuse_other_terms(self, present: Subscription, asked: Subscription) -> None:
        # What was folded while it was suspended was chosen and ordered by the old terms.
        for term in ("kinds", "priority", "hold", "awaited"):
            if getattr(present, term) != getattr(asked, term):
                _check.refuse(
                    term,
                    getattr(asked, term),
                    f"what the suspended subscription has, {getattr(present, term)!r}, "
                    f"or unsubscribe {present.number} first",
                )

    def lagging(self) -> tuple[LaggingSubscriber, ...]:
        """Return the subscribers with unacknowledged messages, in order of subscription."""
        tables = self._tables
        return tuple(lag_of(tables.lagging[each], tables.now) for each in sorted(tables.lagging))
