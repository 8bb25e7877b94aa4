"""Every error of the project, one tree under `IoasidError`.

    IoasidError
    ├── InvalidRequest            EINVAL
    │   ├── InvalidArgument, NotReferenced, NoSpid, QuotaBelowUse, LimitBelowUse, NotReserved
    ├── MalformedMessage          EBADMSG  bytes that are no message of this protocol
    ├── NotFound                  ENOENT
    │   ├── UnknownIoasid, UnknownSet, UnknownSpid, UnknownHolder, UnknownSubscription,
    │   │   UnknownToken, UnknownGroup, RangeNotReserved
    ├── AlreadyExists             EEXIST
    │   ├── TokenInUse, SystemSetExists, SpidInUse, AlreadyBound, HolderLive, AlreadySubscribed,
    │   │   GroupExists
    ├── NotOfThisSet              EACCES   the ID belongs to another set
    ├── HolderOfAnother           EACCES   the suspended holder belongs to another
    ├── Busy                      EBUSY
    │   ├── SetFreePending, SetFrozen, SetNotFrozen, IoasidFreePending, CapacityInUse,
    │   │   DataTaken, RangeTaken, GroupNotEmpty
    ├── NoSpace                   ENOSPC
    │   ├── CapacityExhausted, GroupExhausted, RangeFull
    ├── QuotaExceeded             EDQUOT
    ├── TooManyEvents             EAGAIN   16 events of this ID are under way
    ├── WouldDeadlock             EDEADLK  waiting for oneself
    ├── StaleIoasid               ESTALE   the number is of another life
    ├── SessionEnded              ESTALE   the caller's session left, crashed or was evicted
    ├── NotCommitted              EIO      the journal could not keep the request
    │   ├── DiskFailed            EIO
    │   ├── DiskFull              ENOSPC
    │   ├── DiskReadOnly          EROFS
    └── AllocatorClosed           ESHUTDOWN

The facts are attributes, and the message is made of them and the one template of the class:
what was asked and what was found, then what to do, or why it may be so. A request that is
refused with one of these has changed nothing, and the allocator, the session and the
subscription stay usable, except after `SessionEnded` (open a new session) and
`AllocatorClosed` (open a new allocator).
"""

import errno as _errno
from reprlib import Repr
from typing import ClassVar, Self

from attrs import asdict, define, field

__all__ = [
    "AllocatorClosed",
    "AlreadyBound",
    "AlreadyExists",
    "AlreadySubscribed",
    "Busy",
    "CapacityExhausted",
    "CapacityInUse",
    "DataTaken",
    "DiskFailed",
    "DiskFull",
    "DiskReadOnly",
    "GroupExhausted",
    "GroupExists",
    "GroupNotEmpty",
    "HolderLive",
    "HolderOfAnother",
    "InvalidArgument",
    "InvalidRequest",
    "IoasidError",
    "IoasidFreePending",
    "LimitBelowUse",
    "MalformedMessage",
    "NoSpace",
    "NoSpid",
    "NotCommitted",
    "NotFound",
    "NotOfThisSet",
    "NotReferenced",
    "NotReserved",
    "QuotaBelowUse",
    "QuotaExceeded",
    "RangeFull",
    "RangeNotReserved",
    "RangeTaken",
    "SessionEnded",
    "SetFreePending",
    "SetFrozen",
    "SetNotFrozen",
    "SpidInUse",
    "StaleIoasid",
    "SystemSetExists",
    "TokenInUse",
    "TooManyEvents",
    "UnknownGroup",
    "UnknownHolder",
    "UnknownIoasid",
    "UnknownSet",
    "UnknownSpid",
    "UnknownSubscription",
    "UnknownToken",
    "WouldDeadlock",
]


_SHORT = Repr()
_SHORT.maxlevel = 3
_CONTAINERS = (dict, frozenset, list, set, tuple)
_EVIDENT = (bool, bytes, int, str, type(None), *_CONTAINERS)
"""The types that one sees from how a value is written, unlike that of 8.0."""
UNSPEAKABLE = "a value without a repr"


def shown(value: object, most: int = 60) -> str:
    """Return at most so many characters of what a value says of itself, whatever it is."""
    try:
        # One list may be in another many times over, and its repr without end.
        short = type(value) in _CONTAINERS
        text = str.__str__(_SHORT.repr(value) if short else repr(value))
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything
        return UNSPEAKABLE
    return text if len(text) <= most else text[: most - 3] + "..."


def type_name(kind: type) -> str:
    """Return the name of a type, past its metaclass, which may be foreign."""
    return str(type.__dict__["__name__"].__get__(kind))


def _or_nothing(token: str | None) -> str:
    return token or ""


# Some numbers have a second name, which the field does not use.
_NAMES = {
    **_errno.errorcode,
    _errno.EAGAIN: "EAGAIN",
    _errno.EDEADLK: "EDEADLK",
    _errno.EOPNOTSUPP: "EOPNOTSUPP",
}


@define
class IoasidError(Exception):
    """The root of every error that this project raises on purpose.

    `errno` is the number of the errno that the field uses for the case, `code` its name.
    `template` is the message with the names of the facts in it.
    """

    errno: ClassVar[int] = _errno.EIO
    template: ClassVar[str] = "the request failed"

    @property
    def code(self) -> str:
        """The errno's name, "ENOENT" for instance."""
        return _NAMES[self.errno]

    @property
    def message(self) -> str:
        """The template with the facts in it, put together whenever somebody asks."""
        return self.told(self.template)

    def told(self, template: str) -> str:
        """Return the message that another template makes of the facts."""
        facts = asdict(self)
        if "{sid}{token}" in template:
            # A set is called by its number, and as people call it.
            token = facts["token"]
            facts["token"] = token and f" ({shown(token)})"
        if "{others}" in template:
            others = facts["others"]
            facts["others"] = f", nor does the set have {others:,} more of these" if others else ""
        return template.format_map(facts)

    def __str__(self) -> str:
        """The message with the errno's name in front."""
        return f"{self.code}: {self.message}"


@define
class InvalidRequest(IoasidError):
    """EINVAL: the request makes no sense as it stands; the caller's mistake."""

    errno = _errno.EINVAL


@define
class InvalidArgument(InvalidRequest):
    """EINVAL: an argument is of the wrong type or outside its range.

    `argument` names it, `found` shows what came (shortened), `expected` says in plain words what is
    accepted: people read it at a shell, too.
    """

    template = "{argument} is {found}; pass {expected}"
    argument: str
    found: str
    expected: str

    @classmethod
    def of(cls, argument: str, value: object, expected: str) -> Self:
        """Make the error for a value, whatever it is; its type is shown where it can't be seen."""
        found = shown(value)
        if found == UNSPEAKABLE or not any(type(value) is each for each in _EVIDENT):
            found += f" ({type_name(type(value))})"
        return cls(argument, found, expected)


@define
class NotReferenced(InvalidRequest):
    """EINVAL: `put` by a holder that has no reference from `get` on this ID.

    References are counted per holder; the set's own, and those granted with an event, are not
    a holder's to put.
    """

    template = (
        "{holder} has no reference to put on IOASID {ioasid}; "
        "a put matches a get of the same holder "
        "(free drops the set's own, acknowledging drops a granted one)"
    )
    holder: str
    ioasid: int


@define
class NoSpid(InvalidRequest):
    """EINVAL: `detach_spid` on an ID that has no set-private ID."""

    template = "IOASID {ioasid} has no spid to detach; attach_spid binds it"
    ioasid: int


@define
class QuotaBelowUse(InvalidRequest):
    """EINVAL: `adjust_set` to a quota below what the set has allocated."""

    template = (
        "quota {quota} for set {sid}{token} is below what it has allocated, {allocated}; "
        "free some and wait for RECLAIM first"
    )
    sid: int
    quota: int
    allocated: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class LimitBelowUse(InvalidRequest):
    """EINVAL: `adjust_group` to a limit below what its sets and groups were given of it."""

    template = (
        "limit {limit} for group {group!r} is below the {used} that its sets and groups have; "
        "shrink or free some first"
    )
    group: str
    limit: int
    used: int


@define
class NotReserved(InvalidRequest):
    """EINVAL: `cancel_capacity` of more than `reserve_capacity` took.

    Numbers that are reserved as such are not among `reserved`; `cancel_range` gives them back.
    """

    template = (
        "asked to give back {asked} of the {reserved} that reserve_capacity took; "
        "cancel that many at most"
    )
    asked: int
    reserved: int


@define
class MalformedMessage(IoasidError):
    """EBADMSG: bytes or an object that are no message of this protocol; the sender's mistake.

    `direction` is "request", "output", "answer", "snapshot" or "message", `reason` what was met.
    """

    errno = _errno.EBADMSG
    template = "not a valid {direction}: {reason}"
    direction: str
    reason: str


@define
class NotFound(IoasidError):
    """ENOENT: what the request names does not exist (any more)."""

    errno = _errno.ENOENT


@define
class UnknownIoasid(NotFound):
    """ENOENT: the ID is not allocated: never was, or has been reclaimed.

    `others` is how many more of those that `free_many` was to free the set does not have.
    """

    template = "IOASID {ioasid} is not allocated{others}; it was never handed out or was reclaimed"
    ioasid: int
    others: int = field(default=0, eq=False)


@define
class UnknownSet(NotFound):
    """ENOENT: there is no set of this number: never was, or it was destroyed."""

    template = "there is no set {sid}; allocate one with alloc_set"
    sid: int


@define
class UnknownToken(NotFound):
    """ENOENT: no live set has this MM token."""

    template = "no live set has the token {token!r}; allocate one with alloc_set"
    token: str


@define
class UnknownGroup(NotFound):
    """ENOENT: there is no group of this name: never was, or it was freed."""

    template = "there is no group {group!r}; allocate it with alloc_group"
    group: str


@define
class RangeNotReserved(NotFound):
    """ENOENT: `cancel_range` of numbers that are not all reserved; `ioasid` is the first such."""

    template = (
        "IOASID {ioasid} of [{low}, {high}] is not reserved; "
        "cancel what reserve_range took, or a part of it"
    )
    low: int
    high: int
    ioasid: int


@define
class UnknownSpid(NotFound):
    """ENOENT: no ID of the set has this set-private ID."""

    template = "spid {spid} maps to no IOASID of set {sid}{token}; bind it with attach_spid"
    sid: int
    spid: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class UnknownHolder(NotFound):
    """ENOENT: no holder of this name is live or suspended."""

    template = "there is no holder named {name!r}, live or suspended; it left or never came"
    name: str


@define
class UnknownSubscription(NotFound):
    """ENOENT: the calling holder has no subscription of this number."""

    template = "this holder has no subscription {subscription}; it ended or was never made"
    subscription: int


@define
class AlreadyExists(IoasidError):
    """EEXIST: what the request would create is there already."""

    errno = _errno.EEXIST


@define
class TokenInUse(AlreadyExists):
    """EEXIST: another live set has this MM token."""

    template = "token {token!r} belongs to set {sid}; free that, and wait until all of it is back"
    token: str
    sid: int


@define
class SystemSetExists(AlreadyExists):
    """EEXIST: the system set was allocated already; there is one per allocator."""

    template = "the system set exists, as set {sid}; use it or adjust its quota"
    sid: int


@define
class SpidInUse(AlreadyExists):
    """EEXIST: another ID of the set has this spid, perhaps one still in quarantine."""

    template = "spid {spid} of set {sid}{token} maps to IOASID {ioasid}; detach it first"
    sid: int
    spid: int
    ioasid: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class AlreadyBound(AlreadyExists):
    """EEXIST: the ID has a spid; it is unbound before it is bound again."""

    template = "IOASID {ioasid} is bound to spid {spid}; detach_spid it first"
    ioasid: int
    spid: int


@define
class HolderLive(AlreadyExists):
    """EEXIST: a live session has this holder name."""

    template = "holder {name!r} has a live session; close or evict it first"
    name: str


@define
class AlreadySubscribed(AlreadyExists):
    """EEXIST: the holder has a live subscription of this scope."""

    template = (
        "this holder subscribes to {scope} already, as subscription {subscription}; "
        "use another session for a second one"
    )
    scope: str
    subscription: int


@define
class GroupExists(AlreadyExists):
    """EEXIST: there is a group of this name, in whatever group it is."""

    template = "there is a group {group!r}; adjust or free it, or choose another name"
    group: str


@define
class HolderOfAnother(IoasidError):
    """EACCES: a suspended holder of this name belongs to somebody else, with its references."""

    errno = _errno.EACCES
    template = (
        "the suspended holder {name!r} belongs to another; take another name, or let whom it "
        "belongs to come back"
    )
    name: str


@define
class NotOfThisSet(IoasidError):
    """EACCES: the request names a set, and the ID belongs to another one.

    `others` is how many more of those that `free_many` was to free the set does not have.
    """

    errno = _errno.EACCES
    template = "IOASID {ioasid} does not belong to set {sid}{token}{others}; another set has it"
    ioasid: int
    sid: int
    token: str = field(default="", converter=_or_nothing, eq=False)
    others: int = field(default=0, eq=False)


@define
class Busy(IoasidError):
    """EBUSY: the state does not allow it now."""

    errno = _errno.EBUSY


@define
class SetFreePending(Busy):
    """EBUSY: the set is being destroyed; it allocates nothing and its quota stands."""

    template = "set {sid}{token} is being freed; allocate a new set"
    sid: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class SetFrozen(Busy):
    """EBUSY: the set is FROZEN or INCOMING: its spids are kept, and nothing of it runs or changes.

    `state` says which of the two.
    """

    template = (
        "set {sid}{token} is {state}, on its way from host to host; "
        "thaw_set a frozen one or activate_set an incoming one first, or free it"
    )
    sid: int
    state: str
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class SetNotFrozen(Busy):
    """EBUSY: `export_set` of a set that is not frozen or, once it is, of which IDs may still run.

    Those are `running`.
    """

    template = (
        "set {sid}{token} is {state} and a CPU or device may still run {running} of its IDs; "
        "freeze_set it, and wait, before it is exported"
    )
    sid: int
    state: str
    running: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class IoasidFreePending(Busy):
    """EBUSY: the ID was freed and is in quarantine; put, find and a silent detach_spid are left."""

    template = (
        "IOASID {ioasid} is in quarantine (FREE_PENDING); only put and find are left until RECLAIM"
    )
    ioasid: int


@define
class CapacityInUse(Busy):
    """EBUSY: `install_capacity` after the first set, group or reservation."""

    template = (
        "the capacity of {capacity} is in use; "
        "install another before the first set, group or reservation"
    )
    capacity: int


@define
class DataTaken(Busy):
    """EBUSY: the ID has private data; there is one value per ID."""

    template = "IOASID {ioasid} has data; detach_data it first"
    ioasid: int


@define
class RangeTaken(Busy):
    """EBUSY: `reserve_range` of numbers one of which, `ioasid`, is allocated or reserved."""

    template = (
        "IOASID {ioasid} of [{low}, {high}] is allocated or reserved; "
        "leave it out, or wait for its RECLAIM"
    )
    low: int
    high: int
    ioasid: int


@define
class GroupNotEmpty(Busy):
    """EBUSY: `free_group` of a group whose sets and groups have `used` IDs of its limit."""

    template = (
        "the sets and groups in group {group!r} have {used} of its limit; "
        "free them, and wait until the sets are gone"
    )
    group: str
    used: int


@define
class NoSpace(IoasidError):
    """ENOSPC: the system cannot give what was asked for."""

    errno = _errno.ENOSPC


@define
class CapacityExhausted(NoSpace):
    """ENOSPC: more was asked for than is available for sets, groups and reservations."""

    template = (
        "asked for {asked} of the {available} that no quota, limit or reservation sets aside; "
        "free or shrink a set or group, or cancel a reservation"
    )
    asked: int
    available: int


@define
class GroupExhausted(NoSpace):
    """ENOSPC: more was asked for than is left of a group's limit."""

    template = (
        "asked for {asked}, and group {group!r} has {left} left; "
        "free or shrink what is in it, or adjust_group"
    )
    group: str
    asked: int
    left: int


@define
class RangeFull(NoSpace):
    """ENOSPC: the range has fewer free IDs than asked for."""

    template = "the range [{low}, {high}] has no room for {count}; widen it, or free some IDs of it"
    low: int
    high: int
    count: int


@define
class QuotaExceeded(IoasidError):
    """EDQUOT: the set's quota is spent; IDs in quarantine count against it."""

    errno = _errno.EDQUOT
    template = (
        "set {sid}{token} has allocated {allocated} of {quota}, and asked for {asked} more; "
        "free some and wait for RECLAIM, or adjust_set"
    )
    sid: int
    quota: int
    allocated: int
    asked: int
    token: str = field(default="", converter=_or_nothing, eq=False)


@define
class TooManyEvents(IoasidError):
    """EAGAIN: too many events of this ID are still on their way through the tiers."""

    errno = _errno.EAGAIN
    template = (
        "{in_flight} events of IOASID {ioasid} are in flight; "
        "try again when its subscribers have acknowledged some"
    )
    ioasid: int
    in_flight: int


@define
class WouldDeadlock(IoasidError):
    """EDEADLK: the caller would wait for a reclaim or freeze that waits for the caller.

    `reason` says what the holder still has to do.
    """

    errno = _errno.EDEADLK
    template = (
        "{holder} would wait for IOASID {ioasid}, but {reason}; "
        "ask without wait, or wait from another session"
    )
    holder: str
    ioasid: int
    reason: str


@define
class StaleIoasid(IoasidError):
    """ESTALE: the generation is that of another life of the ID; the caller has an old number.

    The life that was meant is over: forget the number. Nobody was touched.
    """

    errno = _errno.ESTALE
    template = (
        "IOASID {ioasid} of generation {generation} is over, it lives as generation {current} now; "
        "forget the old number"
    )
    ioasid: int
    generation: int
    current: int


@define
class SessionEnded(IoasidError):
    """ESTALE: the caller's session is over: it left, crashed or was evicted. Open a new one."""

    errno = _errno.ESTALE
    template = (
        "there is no session {session}, or it has ended; open one, under the same name to go on"
    )
    session: int


@define
class NotCommitted(IoasidError):
    """EIO: what was decided could not be kept, so it was not carried out; nobody's fault here.

    Nothing has changed, whoever only looks is answered, and what changes something is tried again
    when the next one asks.
    """

    errno = _errno.EIO


@define
class DiskFailed(NotCommitted):
    """EIO: writing to the journal failed.

    `path` is the journal's file and `reason` what the file system said. Nothing has changed, and
    requests that only look go on.
    """

    errno = _errno.EIO
    template = (
        "the journal {path} could not keep the request ({reason}), so it was not carried out; "
        "look after the disk, then ask again"
    )
    path: str
    reason: str


@define
class DiskFull(NotCommitted):
    """ENOSPC: the disk of the journal is full.

    `path` is the journal's file and `reason` what the file system said. Nothing has changed, and
    requests that only look go on.
    """

    errno = _errno.ENOSPC
    template = (
        "there is no room for the request in the journal {path} ({reason}), so it was not carried "
        "out; make room on the disk, then ask again"
    )
    path: str
    reason: str


@define
class DiskReadOnly(NotCommitted):
    """EROFS: the journal can't be written.

    `path` is the journal's file and `reason` what the file system said. Nothing has changed, and
    requests that only look go on.
    """

    errno = _errno.EROFS
    template = (
        "the journal {path} can't be written ({reason}), so the request was not carried out; "
        "make it writable, then ask again"
    )
    path: str
    reason: str


@define
class AllocatorClosed(IoasidError):
    """ESHUTDOWN: the allocator was shut down or crashed, before or while it had the request.

    `reason` says which. A request that was under way may or may not have been decided.
    """

    errno = _errno.ESHUTDOWN
    template = "the allocator {reason}; open another, or connect again when it is back"
    reason: str
