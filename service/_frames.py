"""The frames of the protocol: what passes between a client and a server, in either direction.

A frame is one struct with its type in the field `type`, the same as msgpack and as JSON; requests,
answers, events and effects in it are those of `ioasid.core`. docs/reference/protocol.md describes
them for who writes a client. Fields that are not known are ignored, so that both sides can grow.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from ioasid.core import Answer, Deliver, End, Expel, Refused, Request, Withdraw

__all__ = [
    "MAX_FRAME",
    "VERSION",
    "Answered",
    "Ask",
    "ClientFrame",
    "Frame",
    "GiveUp",
    "Goodbye",
    "Hello",
    "Narrow",
    "Narrowed",
    "Part",
    "ServerFrame",
    "Welcome",
]

VERSION: Final = 1
"""The version of the protocol that this package speaks."""
MAX_FRAME: Final = 1 << 20
"""The most bytes in one frame, without the four of its length."""

Number: TypeAlias = Annotated[int, Meta(ge=1, le=2**63 - 1)]
"""What numbers a client's requests, 1..2^64-1: a decoder takes half of them by itself, and
`ServerConnection` the rest."""
SessionNumber: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""The same for sessions, of which 0 is nobody's."""


class Frame(Struct, frozen=True, gc=False, tag=True):
    """The base of all frames; on a wire its type stands in the field `type`."""


# -- from a client ------------------------------------------------------------------------------


class Hello(Frame, frozen=True):
    """The first frame, or the first after a `Narrow`: who comes, and what it understands.

    `versions` are those of the protocol that it speaks. `client` is a name of the client's own
    making, 1 to 64 bytes that nobody else guesses; who comes back with it after a broken connection
    may send again what was not answered. `token` makes a tenant's connection one of this token,
    where its policy leaves a choice. `takes` names the frames that came to the protocol later and
    that it understands: `Expel`.
    """

    versions: tuple[int, ...]
    client: str | None = None
    token: str | None = None
    takes: tuple[str, ...] = ()


class Narrow(Frame, frozen=True):
    """Make this connection a tenant's of one token, for good; only before `Hello`.

    `holders` are the prefixes of the holder names that are left to it, within those that the sender
    may use. Then the descriptor can be handed on. Answered by `Narrowed`, or `Refused`.
    """

    token: str
    holders: tuple[str, ...] = ()


class Ask(Frame, frozen=True, omit_defaults=True):
    """A request of a session. With an `id` it is answered, by an `Answered` with the same.

    IDs are the client's: numbers in 1..2^64-1, each used once, also over connections that one
    `client` makes; what is sent again under its ID is decided once, and answered each time. Without
    one nobody waits, and it is not sent again: for `Acknowledge` and `Defer`. `session` is the
    number in a `SessionOpened`; without it, it is the first session that this connection opened
    and, for an `OpenSession`, nobody's. One that `insists` on letting go is not refused while a
    journal can't be written, but decided when it can be: a `Free`, `FreeMany`, `FreeSet` or `Put`.
    """

    request: Request
    id: Number | None = None
    session: SessionNumber | None = None
    insists: bool = False


class GiveUp(Frame, frozen=True):
    """Say that nobody takes the answer to request `of` any more; answered under its own `id`.

    It is not decided if it was not yet, and what only its answer would have named is undone, by
    way of `session`. What can be found again stands.
    """

    id: Number
    of: Number
    session: SessionNumber | None = None


ClientFrame: TypeAlias = Hello | Narrow | Ask | GiveUp
"""Every frame from a client."""


# -- from a server ------------------------------------------------------------------------------


class Welcome(Frame, frozen=True):
    """The answer to `Hello`: the `version` that is spoken, and the bounds that the server sets.

    `epoch` names the process of the server: with another one it has forgotten what was asked
    before. `resumed` says that it remembers the `client`: what was not answered can be sent again
    and is decided once. `requests` is how many may be under way at once, `waits` how many besides
    may wait for a reclaim. `role` is what the policy makes of the client.
    """

    version: int
    epoch: str
    resumed: bool
    requests: int
    waits: int
    role: str


class Narrowed(Frame, frozen=True):
    """The connection is narrowed; the next frame is a `Hello`, from whoever has it then."""


class Answered(Frame, frozen=True):
    """The one answer to the request `id`, or its refusal. Answers come in any order."""

    id: int
    answer: Answer | Refused


class Goodbye(Frame, frozen=True):
    """The server ends in order; nothing comes after it. `reason` says why."""

    reason: str


class Part(Frame, frozen=True):
    """A part of a frame that is larger than one may be; msgpack only.

    The `data` of all parts, up to the one without `more`, are one frame without a length.
    """

    data: bytes
    more: bool


ServerFrame: TypeAlias = (
    Welcome | Narrowed | Answered | Deliver | Withdraw | End | Expel | Goodbye | Part | Refused
)
"""Every frame from a server. A `Refused` by itself refuses the connection, and ends it."""
