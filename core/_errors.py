"""Every error of the project, one tree under `IoasidError`.

    IoasidError
    ├── InvalidRequest            EINVAL
    │   ├── InvalidArgument, NotReferenced, NoSpid, QuotaBelowUse, NotReserved
    ├── MalformedMessage          EBADMSG  bytes that are no message of this protocol
    ├── NotFound                  ENOENT
    │   ├── UnknownIoasid, UnknownSet, UnknownSpid, UnknownHolder, UnknownSubscription,
    │   │   UnknownToken
    ├── AlreadyExists             EEXIST
    │   ├── TokenInUse, SystemSetExists, SpidInUse, AlreadyBound, HolderLive, AlreadySubscribed
    ├── NotOfThisSet              EACCES   the ID belongs to another set
    ├── Busy                      EBUSY
    │   ├── SetFreePending, IoasidFreePending, CapacityInUse, DataTaken
    ├── NoSpace                   ENOSPC
    │   ├── CapacityExhausted, RangeFull
    ├── QuotaExceeded             EDQUOT
    ├── TooManyEvents             EAGAIN   16 events of this ID are under way
    ├── WouldDeadlock             EDEADLK  waiting for oneself
    ├── SessionEnded              ESTALE   the caller's session left, crashed or was evicted
    └── AllocatorClosed           ESHUTDOWN

The facts are attributes, the message is derived from them: what was asked, what was found,
what to do. A request that is refused with one of these has changed nothing, and the allocator,
the session and the subscription stay usable, except after `SessionEnded` (open a new session)
and `AllocatorClosed` (open a new allocator).
"""

import errno as _errno
from typing import ClassVar, Self

from attrs import define

__all__ = [
    "AllocatorClosed",
    "AlreadyBound",
    "AlreadyExists",
    "AlreadySubscribed",
    "Busy",
    "CapacityExhausted",
    "CapacityInUse",
    "DataTaken",
    "HolderLive",
    "InvalidArgument",
    "InvalidRequest",
    "IoasidError",
    "IoasidFreePending",
    "MalformedMessage",
    "NoSpace",
    "NoSpid",
    "NotFound",
    "NotOfThisSet",
    "NotReferenced",
    "NotReserved",
    "QuotaBelowUse",
    "QuotaExceeded",
    "RangeFull",
    "SessionEnded",
    "SetFreePending",
    "SpidInUse",
    "SystemSetExists",
    "TokenInUse",
    "TooManyEvents",
    "UnknownHolder",
    "UnknownIoasid",
    "UnknownSet",
    "UnknownSpid",
    "UnknownSubscription",
    "UnknownToken",
    "WouldDeadlock",
]


def shown(value: object) -> str:
    """Return at most 60 characters of what a value says of itself, whatever it is."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything
        return "a value without a repr"
    return text if len(text) <= 60 else text[:57] + "..."


# Some numbers have a second name, which the field does not use.
_NAMES = {**_errno.errorcode, _errno.EAGAIN: "EAGAIN", _errno.EDEADLK: "EDEADLK"}


@define
class IoasidError(Exception):
    """The root of every error that this project raises on purpose.

    `errno` is the number of the errno that the field uses for the case, `code` its name.
    """

    errno: ClassVar[int] = _errno.EIO

    @property
    def code(self) -> str:
        """The errno's name, "ENOENT" for instance."""
        return _NAMES[self.errno]

    @property
    def message(self) -> str:
        """What was asked, what was found and what to do, in a sentence or two."""
        return "the request failed"

    def __str__(self) -> str:
        """The message with the errno's name in front."""
        return f"{self.code}: {self.message}"


@define
class InvalidRequest(IoasidError):
    """EINVAL: the request makes no sense as it stands; the caller's mistake."""

    errno: ClassVar[int] = _errno.EINVAL


@define
class InvalidArgument(InvalidRequest):
    """EINVAL: an argument is of the wrong type or outside its range.

    `argument` names it, `found` shows what came (shortened), `expected` says what is accepted.
    """

    argument: str
    found: str
    expected: str

    @classmethod
    def of(cls, argument: str, value: object, expected: str) -> Self:
        """Make the error for a value, whatever it is; `found` shows it and its type."""
        return cls(argument, f"{shown(value)} ({type(value).__name__})", expected)

    @property
    def message(self) -> str:
        """The argument, what came and what is accepted."""
        return f"{self.argument} is {self.found}; pass {self.expected}"


@define
class NotReferenced(InvalidRequest):
    """EINVAL: `put` by a holder that has no reference from `get` on this ID.

    References are counted per holder; the set's own, and those granted with an event, are not
    a holder's to put.
    """

    holder: str
    ioasid: int

    @property
    def message(self) -> str:
        """The holder and the ID it has nothing to put of."""
        return (
            f"{self.holder} has no reference to put on IOASID {self.ioasid}; a put matches a get "
            f"of the same holder (free drops the set's own, acknowledging drops a granted one)"
        )


@define
class NoSpid(InvalidRequest):
    """EINVAL: `detach_spid` on an ID that has no set-private ID."""

    ioasid: int

    @property
    def message(self) -> str:
        """The ID without a spid."""
        return f"IOASID {self.ioasid} has no spid to detach; attach_spid binds it"


@define
class QuotaBelowUse(InvalidRequest):
    """EINVAL: `adjust_set` to a quota below what the set has allocated."""

    sid: int
    quota: int
    allocated: int

    @property
    def message(self) -> str:
        """The quota asked for and the IDs that are allocated."""
        return (
            f"quota {self.quota} for set {self.sid} is below its {self.allocated} allocated IDs; "
            f"free some and wait for RECLAIM first"
        )


@define
class NotReserved(InvalidRequest):
    """EINVAL: `cancel_capacity` of more than is reserved."""

    asked: int
    reserved: int

    @property
    def message(self) -> str:
        """What was to be given back and what is reserved."""
        return f"{self.asked} IDs to give back, {self.reserved} reserved; cancel that many at most"


@define
class MalformedMessage(IoasidError):
    """EBADMSG: bytes or an object that are no message of this protocol; the sender's mistake.

    `direction` is "request", "answer", "snapshot" or "message", `reason` what was met.
    """

    errno: ClassVar[int] = _errno.EBADMSG
    direction: str
    reason: str

    @property
    def message(self) -> str:
        """The direction and what the decoder met."""
        return f"not a valid {self.direction}: {self.reason}"


@define
class NotFound(IoasidError):
    """ENOENT: what the request names does not exist (any more)."""

    errno: ClassVar[int] = _errno.ENOENT


@define
class UnknownIoasid(NotFound):
    """ENOENT: the ID is not allocated: never was, or has been reclaimed."""

    ioasid: int

    @property
    def message(self) -> str:
        """The ID that is not allocated."""
        return f"IOASID {self.ioasid} is not allocated; it was never handed out or was reclaimed"


@define
class UnknownSet(NotFound):
    """ENOENT: there is no set of this number: never was, or it was destroyed."""

    sid: int

    @property
    def message(self) -> str:
        """The set that does not exist."""
        return f"there is no IOASID set {self.sid}; allocate one with alloc_set"


@define
class UnknownToken(NotFound):
    """ENOENT: no live set has this MM token."""

    token: str

    @property
    def message(self) -> str:
        """The token nobody has."""
        return f"no live set has the token {self.token!r}; allocate one with alloc_set"


@define
class UnknownSpid(NotFound):
    """ENOENT: no ID of the set has this set-private ID."""

    sid: int
    spid: int

    @property
    def message(self) -> str:
        """The set and the spid that maps to nothing."""
        return f"spid {self.spid} maps to no IOASID of set {self.sid}; bind it with attach_spid"


@define
class UnknownHolder(NotFound):
    """ENOENT: no holder of this name is live or suspended."""

    name: str

    @property
    def message(self) -> str:
        """The name nobody bears."""
        return f"there is no holder named {self.name!r}, live or suspended"


@define
class UnknownSubscription(NotFound):
    """ENOENT: the calling holder has no subscription of this number."""

    subscription: int

    @property
    def message(self) -> str:
        """The subscription that does not exist."""
        return f"this holder has no subscription {self.subscription}; it ended or was never made"


@define
class AlreadyExists(IoasidError):
    """EEXIST: what the request would create is there already."""

    errno: ClassVar[int] = _errno.EEXIST


@define
class TokenInUse(AlreadyExists):
    """EEXIST: another live set has this MM token."""

    token: str
    sid: int

    @property
    def message(self) -> str:
        """The token and the set that has it."""
        return f"token {self.token!r} belongs to set {self.sid}; free that set first"


@define
class SystemSetExists(AlreadyExists):
    """EEXIST: the system set was allocated already; there is one per allocator."""

    sid: int

    @property
    def message(self) -> str:
        """The system set's number."""
        return f"the system set exists, as set {self.sid}; use it or adjust its quota"


@define
class SpidInUse(AlreadyExists):
    """EEXIST: another ID of the set has this spid, perhaps one still in quarantine."""

    sid: int
    spid: int
    ioasid: int

    @property
    def message(self) -> str:
        """The spid, its set and the ID that has it."""
        return f"spid {self.spid} of set {self.sid} maps to IOASID {self.ioasid}; detach it first"


@define
class AlreadyBound(AlreadyExists):
    """EEXIST: the ID has a spid; it is unbound before it is bound again."""

    ioasid: int
    spid: int

    @property
    def message(self) -> str:
        """The ID and the spid it has."""
        return f"IOASID {self.ioasid} is bound to spid {self.spid}; detach_spid it first"


@define
class HolderLive(AlreadyExists):
    """EEXIST: a live session has this holder name."""

    name: str

    @property
    def message(self) -> str:
        """The name that is taken."""
        return f"holder {self.name!r} has a live session; close or evict it first"


@define
class AlreadySubscribed(AlreadyExists):
    """EEXIST: the holder has a live subscription of this scope."""

    scope: str
    subscription: int

    @property
    def message(self) -> str:
        """The scope and the subscription that covers it."""
        return (
            f"this holder subscribes to {self.scope} already, as subscription "
            f"{self.subscription}; use another session for a second one"
        )


@define
class NotOfThisSet(IoasidError):
    """EACCES: the request names a set, and the ID belongs to another one."""

    errno: ClassVar[int] = _errno.EACCES
    ioasid: int
    sid: int

    @property
    def message(self) -> str:
        """The ID and the set that does not own it."""
        return f"IOASID {self.ioasid} does not belong to set {self.sid}"


@define
class Busy(IoasidError):
    """EBUSY: the state does not allow it now."""

    errno: ClassVar[int] = _errno.EBUSY


@define
class SetFreePending(Busy):
    """EBUSY: the set is being destroyed; it allocates nothing and its quota stands."""

    sid: int

    @property
    def message(self) -> str:
        """The set that is being destroyed."""
        return f"set {self.sid} is being freed; allocate a new set"


@define
class IoasidFreePending(Busy):
    """EBUSY: the ID was freed and is in quarantine; put, find and a silent detach_spid are left."""

    ioasid: int

    @property
    def message(self) -> str:
        """The ID that is in quarantine."""
        return f"IOASID {self.ioasid} is FREE_PENDING; only put and find are left until RECLAIM"


@define
class CapacityInUse(Busy):
    """EBUSY: `install_capacity` after the first set or reservation."""

    capacity: int

    @property
    def message(self) -> str:
        """The capacity that stands."""
        return (
            f"the capacity of {self.capacity} is in use; install another before the first set or "
            f"reservation"
        )


@define
class DataTaken(Busy):
    """EBUSY: the ID has private data; there is one value per ID."""

    ioasid: int

    @property
    def message(self) -> str:
        """The ID whose data is taken."""
        return f"IOASID {self.ioasid} has data; detach_data it first"


@define
class NoSpace(IoasidError):
    """ENOSPC: the system cannot give what was asked for."""

    errno: ClassVar[int] = _errno.ENOSPC


@define
class CapacityExhausted(NoSpace):
    """ENOSPC: more was asked for than the system has available for sets and reservations."""

    asked: int
    available: int

    @property
    def message(self) -> str:
        """What was asked for and what is available."""
        return (
            f"{self.asked} IDs asked for, {self.available} available; free or shrink a set, "
            f"or cancel a reservation"
        )


@define
class RangeFull(NoSpace):
    """ENOSPC: the range has fewer free IDs than asked for."""

    low: int
    high: int
    count: int

    @property
    def message(self) -> str:
        """The range and how many IDs were asked for."""
        return (
            f"no {self.count} free IDs in [{self.low}, {self.high}]; widen the range or free some"
        )


@define
class QuotaExceeded(IoasidError):
    """EDQUOT: the set's quota is spent; IDs in quarantine count against it."""

    errno: ClassVar[int] = _errno.EDQUOT
    sid: int
    quota: int
    allocated: int
    asked: int

    @property
    def message(self) -> str:
        """The set, its quota, what it has and what was asked for."""
        return (
            f"set {self.sid} has {self.allocated} of {self.quota} IDs and asked for {self.asked} "
            f"more; free some and wait for RECLAIM, or adjust_set"
        )


@define
class TooManyEvents(IoasidError):
    """EAGAIN: too many events of this ID are still on their way through the tiers."""

    errno: ClassVar[int] = _errno.EAGAIN
    ioasid: int
    under_way: int

    @property
    def message(self) -> str:
        """The ID and the number of events under way."""
        return (
            f"{self.under_way} events of IOASID {self.ioasid} are under way; "
            f"try again when its subscribers have acknowledged some"
        )


@define
class WouldDeadlock(IoasidError):
    """EDEADLK: the caller would wait for a reclaim that waits for the caller.

    `reason` says what the holder still has to do.
    """

    errno: ClassVar[int] = _errno.EDEADLK
    holder: str
    ioasid: int
    reason: str

    @property
    def message(self) -> str:
        """The holder, the ID and what the holder still has to do."""
        return (
            f"{self.holder} would wait for the reclaim of IOASID {self.ioasid}, but {self.reason}; "
            f"free without wait, or wait from another session"
        )


@define
class SessionEnded(IoasidError):
    """ESTALE: the caller's session is over: it left, crashed or was evicted. Open a new one."""

    errno: ClassVar[int] = _errno.ESTALE
    session: int

    @property
    def message(self) -> str:
        """The session that is over."""
        return f"session {self.session} has ended; open a new one with session(name)"


@define
class AllocatorClosed(IoasidError):
    """ESHUTDOWN: the allocator was shut down or crashed, before or while it had the request.

    `reason` says which. A request that was under way may or may not have been decided.
    """

    errno: ClassVar[int] = _errno.ESHUTDOWN
    reason: str

    @property
    def message(self) -> str:
        """Why there is no allocator any more."""
        return f"the allocator {self.reason}; open a new one"
