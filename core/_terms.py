"""The terms of the protocol: what its messages are made of.

Requests are in the imperative and form one union, `Request` (`ioasid.core._requests`). What comes
back forms the other, `Output`: the answers and `Refused` (`_answers`), what subscribers are told,
`Event` and `Resync` (`_events`), and how that reaches them (`_effects`). The messages are the same
in process and on a wire; `ioasid.core.encode` and its decoders turn them into msgpack or JSON and
back.

Who sends a request is not part of it: the allocator knows the session that a message came
through, so nobody can speak for another.

Ranges, for every message: an IOASID and a spid are in 0..2^32-2 (2^32-1 is the kernel's
INVALID_IOASID, which is `None` in Python), an IOASID is below the capacity as well; counts, quotas
and limits are in 1..2^32-1; a token, holder or group name has 1 to 255 bytes as UTF-8; data is an
integer in -2^63..2^64-1 or a string of at most 4,096 bytes as UTF-8. `sid=None` where a set may be
named means "any set", for trusted callers. `generation=None` where one may be named means "whoever
has the ID now"; a generation (1..2^63-1) means that life of it and no other.
"""

from enum import StrEnum
from typing import Final, TypeAlias

from msgspec import Struct

__all__ = [
    "INVALID_IOASID",
    "MAX_GROUP_DEPTH",
    "MAX_IN_FLIGHT",
    "Data",
    "EventKind",
    "Ioasid",
    "IoasidRange",
    "IoasidState",
    "Message",
    "Priority",
    "ReuseOrder",
    "SetState",
    "TokenType",
]

INVALID_IOASID: Final = 2**32 - 1
"""The kernel's "no IOASID"; never a valid ID here, where `None` says it."""
MAX_IN_FLIGHT: Final = 16
"""Events of one IOASID under way, from which on a bind or notify is refused."""
MAX_GROUP_DEPTH: Final = 16
"""Groups in one another, the innermost included, beyond which another one is refused."""
Data: TypeAlias = int | str
"""What a caller may attach to an ID: opaque to the allocator, small, and the same on a wire."""


class Ioasid(int):
    """An ID that remembers which life of it is meant; an `int` for all other purposes.

    What allocates or finds an ID returns one, and what takes an ID refuses it with `StaleIoasid`
    once that life is over and another one has begun. `generation` is 1..2^63-1. `int(ioasid)` is
    the bare number, which means "whoever has it now".
    """

    generation: int

    def __new__(cls, ioasid: int, generation: int) -> "Ioasid":
        """Make one of a number and a generation."""
        # By its own name, for `super` costs as much as the rest.
        made = int.__new__(cls, ioasid)
        made.generation = generation
        return made

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]
        """Return what a copy is made of."""
        return int(self), self.generation


class EventKind(StrEnum):
    """What happened to an IOASID."""

    ALLOC = "ALLOC"
    """It was allocated."""
    BIND = "BIND"
    """It was given a set-private ID: a guest's PASID maps to it."""
    UNBIND = "UNBIND"
    """It lost its set-private ID."""
    FREE = "FREE"
    """Its owner freed it; it is in quarantine until everybody is done with it."""
    RECLAIM = "RECLAIM"
    """It is back in the pool and may be handed out again."""


class Priority(StrEnum):
    """The tier of a subscriber, highest first: the order in which hardware is safely drained."""

    CPU = "CPU"
    """Stops work being submitted (KVM's translation table, ENQCMD)."""
    DEVICE = "DEVICE"
    """Drains a device."""
    IOMMU = "IOMMU"
    """Tears down IOMMU context."""
    LAST = "LAST"
    """Comes when all the others are done."""


class ReuseOrder(StrEnum):
    """Which of the free IDs in a range is given out next."""

    LOWEST = "LOWEST"
    """The lowest one, as the kernel did: an ID that was just reclaimed may be the next."""
    CYCLIC = "CYCLIC"
    """The next one after the last given out, round and round: all others come before it again."""


class TokenType(StrEnum):
    """What a set's token is."""

    MM = "MM"
    """A process; the token is required, and unique among the live sets of this type."""
    NULL = "NULL"
    """Anonymous; no token."""


class SetState(StrEnum):
    """The state of an IOASID set."""

    ACTIVE = "ACTIVE"
    FREE_PENDING = "FREE_PENDING"
    """Being destroyed: it takes no more allocations and goes with its last ID."""
    FROZEN = "FROZEN"
    """About to move to another host: its bindings have ended, its spids are kept. Thaw it, or
    free it when it runs elsewhere."""
    INCOMING = "INCOMING"
    """Come from another host: it has spids and no bindings yet. Activate it, or free it."""


class IoasidState(StrEnum):
    """The state of an IOASID; a reclaimed one is simply absent."""

    ACTIVE = "ACTIVE"
    FREE_PENDING = "FREE_PENDING"
    """In quarantine: freed, and still referenced or not acknowledged by everybody."""


class Message(Struct, frozen=True, gc=False, tag=True, forbid_unknown_fields=True):
    """The base of every message; on a wire its type stands in the field `type`."""


class IoasidRange(Struct, frozen=True, gc=False, array_like=True, forbid_unknown_fields=True):
    """The IDs from `first` to `last`, both included."""

    first: int
    last: int


# The hot paths use these: to CPython 3.11, a member looked up in its enum costs ten globals.
ALLOC: Final = EventKind.ALLOC
BIND: Final = EventKind.BIND
UNBIND: Final = EventKind.UNBIND
FREE: Final = EventKind.FREE
RECLAIM: Final = EventKind.RECLAIM
SET_ACTIVE: Final = SetState.ACTIVE
SET_FREE_PENDING: Final = SetState.FREE_PENDING
