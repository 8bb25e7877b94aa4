"""The port to an allocator in the same process: the only thing that knows its actor."""

from collections.abc import Callable
from threading import get_ident
from typing import Any, Final

from ioasid.actors._allocator import AllocatorActor
from ioasid.actors._envelope import Envelope
from ioasid.actors._mailbox import MailboxClosed
from ioasid.actors._port import Outlet
from ioasid.actors._reply import Reply
from ioasid.core import (
    AllocatorClosed,
    CloseSession,
    Event,
    EventKind,
    InvalidArgument,
    Request,
    Resync,
    SessionOpened,
    Subscribe,
    SuspendSession,
)

__all__ = ["LocalPort"]

ALLOC: Final = EventKind.ALLOC
RECLAIM: Final = EventKind.RECLAIM


class LocalPort:
    """A session's lane in the mailbox of an allocator actor; see `Port`."""

    __slots__ = (
        "_actor",
        "_dealt_with",
        "_has_left",
        "_lane",
        "_rouse",
        "_session",
        "_thread",
        "check",
        "ending",
        "new_reply",
    )

    def __init__(self, actor: AllocatorActor, session: int) -> None:
        self._actor = actor
        self._session: Final = session
        self._lane = actor.mailbox.lane()
        self._dealt_with = actor.dealt_with
        self._rouse = actor.mailbox.rouse
        self._has_left = False
        self._thread: Final = actor.door.thread
        self.check = actor.door.check
        self.ending: Final = actor.ending_of(session)
        self.new_reply = actor.new_reply

    @property
    def batches(self) -> int:
        """How many batches of requests the allocator has decided."""
        return self._actor.batches

    @property
    def commits(self) -> int:
        """How many commits to its journal it has made, each of one batch or several."""
        return self._actor.commits

    @property
    def keeps(self) -> bool:
        """That it waits."""
        return True

    def send(self, request: Request) -> Reply[Any]:
        """Put a request into the lane."""
        # As `Door.check`, which an ask need not pay a call for.
        if get_ident() != self._thread:
            self.check()
        reply = self.new_reply()
        if type(request) is Subscribe:
            expected = "any other, or call subscribe"
            reply.set_result(InvalidArgument("request", "a Subscribe", expected))
            return reply
        try:
            self._lane.put(Envelope(self._session, request, reply, None))
        except MailboxClosed:
            raise AllocatorClosed(self._actor.reason) from None
        return reply

    def attach(self, request: Subscribe, outlet: Outlet) -> Reply[Any]:
        """Put a `Subscribe` into the lane, with its outlet."""
        reply = self.new_reply()
        self.post(request, reply, outlet)
        return reply

    def post(
        self,
        request: Request,
        reply: Reply[Any],
        outlet: Outlet | None = None,
        *,
        insists: bool = False,
    ) -> None:
        """Put a request into the lane that is answered by a reply of the caller's own making.

        A `Subscribe` needs an outlet. While a journal can't be written, what `insists` is answered
        when it can be. Raises `AllocatorClosed` if there is no allocator any more.
        """
        self.check()
        try:
            self._lane.put(Envelope(self._session, request, reply, outlet, None, insists))
        except MailboxClosed:
            raise AllocatorClosed(self._actor.reason) from None

    def tell(self, request: Request) -> None:
        """Put a request without a reply into the lane."""
        if get_ident() != self._thread:
            self.check()
        if type(request) is Subscribe:
            # There is nobody to deliver to.
            return
        try:
            self._lane.tell(Envelope(self._session, request, None, None))
        except MailboxClosed:
            pass

    def acknowledge(self, subscription: int, message: Event | Resync, *, behind: bool) -> None:
        """Note it for the next batch, which is made at once if anybody may wait for it.

        Nobody waits for that of an ALLOC or a RECLAIM, for these have no order, unless a publisher
        sent it or its subscriber is behind: a Resync may come next, or its next deadline.
        """
        if get_ident() != self._thread:
            self.check()
        if self._has_left:
            return
        self._dealt_with.append((subscription, message.seq))
        if (
            behind
            or type(message) is not Event
            or (message.kind is not ALLOC and message.kind is not RECLAIM)
            or message.publisher is not None
        ):
            self._rouse()

    def leave(
        self, request: CloseSession | SuspendSession, reply: Reply[Any] | None = None
    ) -> None:
        """Put the last request into the lane; all of the lane goes first.

        A `reply`, if there is an allocator to give it, tells that it was decided.
        """
        self.check()
        self._has_left = True
        self._actor.forget(self._session)
        try:
            self._lane.leave(Envelope(self._session, request, reply, None))
        except MailboxClosed:
            pass

    def give_up(self, request: Request, reply: Reply[Any]) -> None:
        """Let the actor undo what nobody learns of."""
        self.check()
        self._actor.give_up(self._session, request, reply)

    def join(self, opened: SessionOpened) -> "LocalPort":
        """Return a port with a lane of its own."""
        return LocalPort(self._actor, opened.session)

    def afterwards(self, call: Callable[[], object]) -> None:
        """Call something when all that a batch came to is told; see `AllocatorActor`."""
        self._actor.afterwards(call)

    def beside(self) -> "LocalPort":
        """Return another port of the same session, with a lane of its own."""
        return LocalPort(self._actor, self._session)
