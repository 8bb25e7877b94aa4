"""Routes: who is told of an event, tier by tier."""

from typing import TYPE_CHECKING, Final

from attrs import define

from ioasid.core._terms import Priority

if TYPE_CHECKING:
    from ioasid.core._subscriptions import Subscription

__all__: list[str] = []

TIERS: Final[dict[Priority, int]] = {
    Priority.CPU: 0,
    Priority.DEVICE: 1,
    Priority.IOMMU: 2,
    Priority.LAST: 3,
}
"""The number of each priority's tier: 0 is offered an event first."""


@define(eq=False)
class Route:
    """Who matches an event of one kind and one set."""

    tiers: "tuple[dict[int, Subscription], ...]"
    """By tier, in order of subscription."""
    following: tuple[int, ...]
    """By tier: the first one from there on in which somebody matches, or `NO_TIER`."""
    holds: bool
    """Whether any of them holds what is bound."""
    awaited: "tuple[dict[int, Subscription], ...]"
    """Those whose acknowledgement is waited for, by tier; the same as `tiers` if all are."""
    others: "tuple[dict[int, Subscription], ...]"
    """Those who are only told, by tier."""


DEVICE_TIER: Final = TIERS[Priority.DEVICE]
LAST_TIER: Final = 3
NO_TIER: Final = LAST_TIER + 1
_EMPTY: "Final[tuple[dict[int, Subscription], ...]]" = ({},) * NO_TIER
NOBODY: Final = Route(_EMPTY, (NO_TIER,) * (NO_TIER + 1), False, _EMPTY, _EMPTY)
