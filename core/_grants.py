"""Grants: the reference that a holding subscriber has of an IOASID while it may use a binding.

A grant begins with the BIND, or with the Resync that shows the binding, and ends when the
subscriber acknowledges what ended the binding. It belongs to the binding, known by its BIND's seq,
and not to the ID: the next binding of the ID is another one.

A grant is there before the subscriber learns of its binding: until a message that shows it has been
delivered, the binding is unseen. One that ends unseen takes its grant with it, for nobody can have
used it; so a subscriber has no grants but of what is bound and of what it was shown, whatever it
misses. What was delivered counts as seen though it is withdrawn later: by then its subscriber may
have taken it, with an acknowledgement of what came before still on the way.
"""

from collections.abc import Collection

from ioasid.core._holders import joined, without
from ioasid.core._ioasid_records import Record
from ioasid.core._stages import Stage
from ioasid.core._subscriptions import Fold, Subscription
from ioasid.core._tables import Tables
from ioasid.core._terms import BIND

__all__: list[str] = []


def grant_all(tables: Tables, tier: dict[int, Subscription], record: Record, binding: int) -> None:
    """Grant a binding to everybody in a tier who holds."""
    for subscription in tier.values():
        if subscription.hold:
            grant(tables, subscription, record, binding)


def grant(tables: Tables, subscription: Subscription, record: Record, binding: int) -> None:
    """Grant a binding of an ID to a subscriber; a second time is a no-op."""
    if binding not in subscription.grants:
        subscription.grants[binding] = record
        subscription.unseen.add(binding)
        record.granted = joined(record.granted, subscription.holder)
        if tables.changes is not None:
            tables.changes.ioasids.add(record.ioasid)


def drop_grant(tables: Tables, subscription: Subscription, binding: int) -> None:
    """End what was granted to a subscriber for a binding, if anything was."""
    record = subscription.grants.pop(binding, None)
    if record is not None:
        subscription.unseen.discard(binding)
        subscription.listed.discard(binding)
        subscription.missed.discard(binding)
        record.granted = without(record.granted, subscription.holder)
        tables.unsettled[record.ioasid] = record


def end_unseen(tables: Tables, subscription: Subscription, stage: Stage) -> None:
    """End what was granted for a binding whose end, this event, its subscriber will not see."""
    binding = stage.binding
    if stage.event.kind is not BIND and (
        binding in subscription.unseen or binding in subscription.listed
    ):
        assert binding is not None, "what is unseen has a number"
        drop_grant(tables, subscription, binding)


def ended_by(entry: Stage | Fold | None) -> set[int]:
    """Return the bindings that end for a subscriber when it acknowledges a message."""
    ended = set(entry.stale) if isinstance(entry, Fold) else set()
    for stage in entry.folded.values() if isinstance(entry, Fold) else (entry,):
        if stage is not None and stage.binding is not None and stage.event.kind is not BIND:
            ended.add(stage.binding)
    return ended


def stale_grants(subscription: Subscription, shown: Collection[int | None]) -> tuple[int, ...]:
    """Return the bindings that were granted to a subscriber and that nothing ends any more.

    A grant outlives a Resync if its binding is among what that has `shown`, or if the
    binding's BIND has yet to be offered, or if its end is in the subscriber's hands and will be
    acknowledged, or is.
    """
    in_hand = set(subscription.spent)
    for stage in subscription.dealt.values():
        if stage.binding is not None and stage.event.kind is not BIND:
            in_hand.add(stage.binding)
    for _, entry in subscription.outstanding.values():
        in_hand |= ended_by(entry)
    return tuple(
        binding
        for binding in sorted(subscription.grants)
        if binding not in shown and binding not in in_hand and not is_coming(subscription, binding)
    )


def is_coming(subscription: Subscription, binding: int) -> bool:
    """Tell whether the BIND of what was granted to a subscriber has yet to be offered to it."""
    return any(
        stage.event.seq == binding and stage.reach < subscription.tier
        for stage in subscription.grants[binding].chain
    )
