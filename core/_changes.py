"""Which IDs and sets a request changed, and what became of them."""

from attrs import define, field

from ioasid.core._answers import GroupRecord, IoasidRecord, SetRecord
from ioasid.core._terms import IoasidRange, Message

__all__ = ["Changes"]


class Changes(Message, frozen=True):
    """What one request changed: everything named here is as it is after the request.

    `allocated` left the pool, for the set that `sets` names and in the life that `generation`
    numbers (0 if there are none), and `reclaimed` went back to it, as ranges in the order in which
    it happened. `ioasids` are the records of the live IDs of which
    there is more to say, or was before, ascending; `sets` are those of the sets that changed, and
    `sets_gone` the numbers of those that went; `groups` and `groups_gone` say the same of groups,
    by name. Numbers that are reserved or given back are not named.
    """

    allocated: tuple[IoasidRange, ...] = ()
    reclaimed: tuple[IoasidRange, ...] = ()
    ioasids: tuple[IoasidRecord, ...] = ()
    sets: tuple[SetRecord, ...] = ()
    sets_gone: tuple[int, ...] = ()
    groups: tuple[GroupRecord, ...] = ()
    groups_gone: tuple[str, ...] = ()
    generation: int = 0


@define(eq=False)
class ChangeLog:
    """What was touched since the last look."""

    allocated: list[IoasidRange] = field(factory=list)
    reclaimed: list[IoasidRange] = field(factory=list)
    ioasids: set[int] = field(factory=set)
    sids: set[int] = field(factory=set)
    groups: set[str] = field(factory=set)

    def take(self, sid: int, first: int, last: int) -> None:
        """Note that the IDs from `first` to `last` left the pool for a set."""
        self.sids.add(sid)
        self.allocated.append(IoasidRange(first, last))

    def release(self, sid: int, first: int, last: int) -> None:
        """Note that the IDs from `first` to `last` of a set are back in the pool."""
        self.sids.add(sid)
        self.reclaimed.append(IoasidRange(first, last))
