"""Holders: who has sessions, and what is suspended when they crash; and who of them has an ID."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from attrs import define, field

if TYPE_CHECKING:
    from ioasid.core._subscriptions import Subscription

__all__: list[str] = []


@define(eq=False)
class Holder:
    """A named session of a caller, or the suspended rest of one."""

    name: str
    session: int | None
    since: float = 0.0
    """When its session was opened, or when it was suspended."""
    references: dict[int, int] = field(factory=dict)
    """Taken by `get`, per IOASID."""
    owner: int | None = None
    """Whom it belongs to, if anybody said so when it was created."""
    leaving: bool = False
    """It is gone, and is here until all that it had has been let go of."""
    subscriptions: "dict[tuple[int | None, str | None], Subscription]" = field(factory=dict)
    """By scope: (sid, token)."""


FEW: Final = 8
"""As many in a tuple cost less than in a dict, to keep and to look through."""

Crowd: TypeAlias = tuple[Holder, ...] | dict[Holder, int]
"""Who has an ID, and how often: some of them twice in a tuple, or many, each with a number.

Most IDs have a few holders, of which a tuple is the smallest form. To join or leave a crowd costs
the same however large it is.
"""


def joined(crowd: Crowd, one: Holder) -> Crowd:
    """Return a crowd with one more; the one that was given is not used any more."""
    if type(crowd) is tuple:
        if len(crowd) < FEW:
            return (*crowd, one)
        crowd = dict(how_often(crowd))
    assert type(crowd) is dict
    crowd[one] = crowd.get(one, 0) + 1
    return crowd


def without(crowd: Crowd, one: Holder) -> Crowd:
    """Return a crowd with one less, once if it is there more often; as `joined`."""
    if type(crowd) is tuple:
        index = crowd.index(one)
        return crowd[:index] + crowd[index + 1 :]
    assert type(crowd) is dict
    if crowd[one] > 1:
        crowd[one] -= 1
    else:
        del crowd[one]
    return crowd or ()


def how_often(crowd: Crowd) -> Iterable[tuple[Holder, int]]:
    """Return who is in a crowd and how often, each once."""
    if type(crowd) is dict:
        return crowd.items()
    counts: dict[Holder, int] = {}
    for each in crowd:
        counts[each] = counts.get(each, 0) + 1
    return counts.items()
