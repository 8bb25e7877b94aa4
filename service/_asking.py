"""What a client asks for: a request on its way, and whose it is."""

from typing import Any, Protocol

from attrs import define

from ioasid.actors._port import Outlet
from ioasid.core import Allocated, Done, FindBySpid, Get, Put, Released, Request

__all__: list[str] = []


class Holder(Protocol):
    """Who asks, as the link sees it."""

    references: int
    """How many it has, as far as this client was told."""

    @property
    def session(self) -> int:
        """Its number here, and for the server until a connection broke."""

    @property
    def current(self) -> int | None:
        """Its number for the server; `None` while there is none."""


class Session(Holder, Protocol):
    """A session of this client, as the link sees it: a remote port."""

    name: str

    def set_current(self, number: int | None, /) -> None:
        """Take the number that it has for the server from now on."""

    def end(self) -> None:
        """Learn that it is over, without having left."""


@define(eq=False)
class Unnamed:
    """A session that was opened for nobody, and is only closed."""

    session: int
    name: str = ""
    references: int = 0

    @property
    def current(self) -> int:
        """Its number; on another connection there is none such."""
        return self.session


@define(eq=False)
class Asking:
    """A request on its way, or what gives one up."""

    id: int
    holder: Holder | None
    request: Request | None
    reply: Any
    """Where the answer goes: a reply, a `Then`, or nowhere."""
    outlet: Outlet | None = None
    of: int = 0
    """What is given up, if it is no request."""
    insists: bool = False
    """Whether it waits until a journal can be written, and is not refused."""
    sent: bool = False
    """Whether the server may know of it."""
    written: bool = False
    """Whether it was written to this connection."""
    again: bool = False
    """Whether it is part of coming back, and means nothing on another connection."""

    def taken(self, answer: Any) -> int:
        """Return how many references its holder has more by this answer, or less.

        What somebody gave up is no reference, for the server puts it back.
        """
        match self.request, answer:
            case (Get(), Done()) | (FindBySpid(get=True), Allocated()):
                return int(self.reply is not None)
            case Put(), Released():
                return -1
            case _:
                return 0
