"""Lags: what a subscriber has yet to acknowledge, in figures."""

from itertools import islice

from ioasid.core._answers import LaggingSubscriber
from ioasid.core._subscriptions import Subscription

__all__: list[str] = []


def lag_of(subscription: Subscription, now: float) -> LaggingSubscriber:
    """Return the figures of a subscriber that has something to acknowledge."""
    oldest = [(offered, seq) for seq, (offered, _) in islice(subscription.outstanding.items(), 1)]
    if subscription.folded_since is not None:
        seq, offered = subscription.folded_since
        oldest.append((offered, seq))
    offered, seq = min(oldest, key=lambda each: each[0])
    age = now - offered
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
