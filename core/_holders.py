"""The requests of holders: who joins, crashes, comes back and leaves."""

from ioasid.core import _check
from ioasid.core._errors import HolderLive, UnknownHolder
from ioasid.core._handlers import DONE, Handlers
from ioasid.core._messages import (
    CloseSession,
    Evict,
    OpenSession,
    Reply,
    SessionOpened,
    SuspendSession,
)
from ioasid.core._records import Holder

__all__: list[str] = []


class Holders(Handlers):
    """The handlers of sessions."""

    def join(self, name: str) -> SessionOpened:
        """Let the holder `name` join or come back."""
        tables = self._tables
        holder = tables.holders.get(_check.name(name, "name"))
        if holder is not None and holder.session is not None:
            raise HolderLive(name)
        session = tables.next_session
        tables.next_session += 1
        resumed = holder is not None
        if holder is None:
            holder = tables.holders[name] = Holder(name, session)
        holder.session = session
        tables.sessions[session] = holder
        references = tuple(sorted(holder.references.items()))
        return SessionOpened(session, resumed, references)

    def open_session(self, _: Holder, request: OpenSession) -> Reply:
        """Let a holder join or come back; whoever asks speaks for it."""
        return self.join(request.name)

    def close_session(self, holder: Holder, _: CloseSession) -> Reply:
        """Let the holder leave."""
        self._remove_holder(holder)
        return DONE

    def suspend_session(self, holder: Holder, _: SuspendSession) -> Reply:
        """Suspend a holder that crashed, or let it leave if nothing of it can be in use."""
        subscriptions = holder.subscriptions.values()
        if not holder.references and not any(each.hold for each in subscriptions):
            self._remove_holder(holder)
            return DONE
        for subscription in subscriptions:
            self._notifier.suspend(subscription)
        assert holder.session is not None, "it is the session that asks"
        del self._tables.sessions[holder.session]
        holder.session = None
        return DONE

    def evict(self, _: Holder, request: Evict) -> Reply:
        """Let another holder, or the one that asks, go for good."""
        holder = self._tables.holders.get(_check.name(request.name, "name"))
        if holder is None:
            raise UnknownHolder(request.name)
        self._remove_holder(holder)
        return DONE

    def _remove_holder(self, holder: Holder) -> None:
        tables = self._tables
        for subscription in tuple(holder.subscriptions.values()):
            self._notifier.leave(subscription, drained=False)
        self._life.drop_references(holder)
        if holder.session is not None:
            del tables.sessions[holder.session]
        del tables.holders[holder.name]
        self._life.settle()
