"""The port to an allocator in another process: what a session talks to, over a link."""

from threading import get_ident
from typing import Any, Final

from ioasid.actors._ending import Ending
from ioasid.actors._port import Outlet
from ioasid.actors._reply import Reply
from ioasid.core import (
    Acknowledge,
    CloseSession,
    Event,
    Request,
    Resync,
    SessionEnded,
    SessionOpened,
    Subscribe,
    SuspendSession,
)
from ioasid.service._crossing import refused
from ioasid.service._link import Link

__all__: list[str] = []


class RemotePort:
    """One session's way over a link; see `Port`."""

    __slots__ = (
        "_link",
        "_thread",
        "check",
        "current",
        "ending",
        "name",
        "new_reply",
        "references",
        "session",
    )

    def __init__(self, link: Link, session: int, name: str = "") -> None:
        self._link = link
        self.session: Final = session
        self.current: int | None = session
        self.name = name
        self.references = 0
        self._thread: Final = link.door.thread
        self.check = link.door.check
        self.ending: Final = Ending(link.ending)
        self.new_reply = link.new_reply

    def send(self, request: Request) -> Reply[Any]:
        """Send a request; what can't cross is refused at once."""
        return self._ask(request, None)

    def attach(self, request: Subscribe, outlet: Outlet) -> Reply[Any]:
        """Send a `Subscribe`; its messages come to the outlet."""
        return self._ask(request, outlet)

    def _ask(self, request: Request, outlet: Outlet | None) -> Reply[Any]:
        if get_ident() != self._thread:
            self.check()
        link = self._link
        link.ending.check()
        reply = self.new_reply()
        error = refused(request, attached=outlet is not None)
        if error is not None:
            reply.set_result(error)
        else:
            link.ask(self, request, reply, outlet)
        return reply

    @property
    def keeps(self) -> bool:
        """That it is lost: a service answers it as it does what is asked."""
        return False

    def tell(self, request: Request) -> None:
        """Send what nobody waits for; what can't cross goes nowhere."""
        if get_ident() != self._thread:
            self.check()
        if refused(request, attached=False) is None:
            self._link.tell(self, request)

    def acknowledge(self, subscription: int, message: Event | Resync, *, behind: bool) -> None:
        """Send it, with what else the session is done with by then; `behind` changes nothing."""
        self.tell(Acknowledge(((subscription, message.seq),)))

    def leave(self, request: CloseSession | SuspendSession) -> None:
        """Send the last request of the session."""
        self.check()
        self._link.leave(self, request)

    def give_up(self, request: Request, reply: Reply[Any]) -> None:
        """Take back what nobody learns of: here if the answer came, else the server does."""
        self.check()
        if not reply.done() or reply.cancelled():
            reply.cancel()
            self._link.give_up(self, reply)
            return
        self._link.undo(self, request, reply.result())

    def set_current(self, number: int | None) -> None:
        """Take another number: the session was opened again, or could not be (`None`)."""
        self.current = number

    def end(self) -> None:
        """Learn that the session is over: it was evicted, or could not be opened again."""
        self.ending.begin(SessionEnded(self.session))

    def join(self, opened: SessionOpened) -> "RemotePort":
        """Return the port of a session that was opened through this one."""
        port = RemotePort(self._link, opened.session)
        port.references = sum(count for _, count in opened.references)
        self._link.join(port, opened.session)
        return port
