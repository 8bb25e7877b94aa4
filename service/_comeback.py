"""How a client comes back on another connection: its sessions first, then its subscriptions.

Everything of a step is asked for at once, and when all of it is answered the next one begins.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from ioasid.core import (
    CloseSession,
    IoasidError,
    NotCommitted,
    OpenSession,
    Request,
    SessionOpened,
    Subscribed,
    UnknownSet,
)
from ioasid.service._asking import Holder, Session
from ioasid.service._audience import Audience, Told

__all__: list[str] = []

Again: TypeAlias = Callable[[int | None, Request, Callable[[Any], None]], None]
"""Asks for something by a session, if any, and calls with the answer."""


class Comeback:
    """Opens sessions again under their names, then subscribes again, each with a Resync.

    Of who does not `stay` no subscription comes back. One that `had` something and has nothing any
    more was evicted: what it had may be given out by now, so that its session is over, as is one
    that can't be opened again; `lost` is told. `then` is called last, with the subscriptions that
    were left meanwhile. While a journal can't be written nobody can come back: `failed` is called
    instead, with the refusal, and everything is as it was before.
    """

    def __init__(
        self,
        holders: Sequence[Session],
        stays: Callable[[Holder], bool],
        had: Container[Session],
        lost: Callable[[Session], object],
        audience: Audience,
        again: Again,
        then: Callable[[Sequence[Told]], None],
        failed: Callable[[IoasidError], None],
    ) -> None:
        self._holders: Final = holders
        self._stays: Final = stays
        self._had: Final = had
        self._lost: Final = lost
        self._audience: Final = audience
        self._again: Final = again
        self._then: Final = then
        self._failed: Final = failed
        self._left = 0
        self._next: Callable[[], None] = self._subscribe
        self._unwanted: list[Told] = []

    def begin(self) -> None:
        """Ask for the sessions."""
        self._left = 1
        for holder in self._holders:
            self._left += 1
            holder.set_current(None)
            self._again(None, OpenSession(holder.name), self._opened(holder))
        self._done()

    def _subscribe(self) -> None:
        self._left = 1
        self._next = lambda: self._then(self._unwanted)
        for each in self._audience:
            if not self._stays(each.holder) or each.holder.current is None:
                self._audience.drop(each.number)
                each.outlet.end(drained=False)
                continue
            self._left += 1
            request = replace(each.request, replay=True)
            self._again(each.holder.current, request, self._told(each))
        self._done()

    def _done(self) -> None:
        self._left -= 1
        if not self._left:
            self._next()

    def _opened(self, holder: Session) -> Callable[[Any], None]:
        def then(answer: Any) -> None:
            if isinstance(answer, NotCommitted):
                self._failed(answer)
                return
            if type(answer) is not SessionOpened:
                self._lost(holder)
            elif answer.resumed:
                holder.set_current(answer.session)
            elif holder not in self._had:
                holder.references = 0
                holder.set_current(answer.session)
            else:
                self._again(answer.session, CloseSession(), lambda _: None)
                self._lost(holder)
            self._done()

        return then

    def _told(self, each: Told) -> Callable[[Any], None]:
        def then(answer: Any) -> None:
            if isinstance(answer, NotCommitted):
                self._failed(answer)
                return
            if type(answer) is Subscribed:
                if not self._audience.come_back(each, answer.subscription):
                    self._unwanted.append(each)
            else:
                # Its set went meanwhile; or it is not allowed to come back.
                self._audience.drop(each.number)
                each.outlet.end(drained=type(answer) is UnknownSet)
            self._done()

        return then
