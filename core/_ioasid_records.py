"""Records: what there is to say of an IOASID.

An ID in its plain state (no reference beside the set's, no spid, no data, no event in flight)
has no record of its own: a bit in its set and its owner's number in the ID space are all there is
of it. A `Record` is made when there is more to say and dropped when there no longer is.
"""

from typing import TYPE_CHECKING

from attrs import define, field

from ioasid.core._holders import Crowd
from ioasid.core._stages import Stage
from ioasid.core._terms import Data

if TYPE_CHECKING:
    from ioasid.core._ioasid_sets import IoasidSet

__all__: list[str] = []


@define(eq=False)
class Record:
    """What there is to say of an ID beyond its being allocated."""

    ioasid: int
    owner: "IoasidSet"
    free_pending: bool = False
    spid: int | None = None
    binding: int | None = None
    """The seq of the BIND that the spid stems from; `None` while its set is frozen or incoming."""
    data: Data | None = None
    holders: Crowd = ()
    """Who took references by `get`; each knows how many."""
    granted: Crowd = ()
    """Who was granted a reference with a BIND or Resync, as often as it was; the subscriptions know
    for which binding."""
    chain: list[Stage] | tuple[()] = ()
    """Events that somebody has yet to be offered or to acknowledge, in seq order."""
    waiters: "dict[int, Waiter] | None" = None
    """By ticket; few records have any."""
    freed_at: float = 0.0
    """When it was freed, if it is pending."""
    reclaimed: bool = False

    @property
    def bound_spid(self) -> int | None:
        """The spid that it is bound to, as everybody may know it; `None` while it is only kept."""
        return None if self.binding is None else self.spid

    def is_plain(self) -> bool:
        """Tell whether nothing is left to say, so that the record can go."""
        return not (
            self.free_pending
            or self.spid is not None
            or self.data is not None
            or self.holders
            or self.granted
            or self.chain
            or self.waiters
        )


@define(eq=False)
class Waiter:
    """A request whose answer comes when these IDs are reclaimed or, of a freeze, nothing runs."""

    ticket: int
    pending: dict[int, Record] = field(factory=dict)
    more: bool = False
    """Whether others of its IDs are still to be freed."""
    frozen: "IoasidSet | None" = None
    """The set that it freezes, if it does."""
