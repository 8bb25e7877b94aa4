"""The requests of holders: who joins, crashes, comes back and leaves."""

from functools import partial

from ioasid.core import _check
from ioasid.core._answers import Answer, SessionOpened
from ioasid.core._effects import Expel
from ioasid.core._errors import HolderLive, HolderOfAnother, UnknownHolder
from ioasid.core._handlers import DONE, Handlers, Outcome
from ioasid.core._holders import Holder
from ioasid.core._requests import CloseSession, Evict, OpenSession, SuspendAll, SuspendSession
from ioasid.core._work import Leaving

__all__: list[str] = []


class HolderHandlers(Handlers):
    """The handlers of sessions."""

    def open_session(self, _: Holder, request: OpenSession) -> SessionOpened:
        """Let a holder join or come back; whoever asks speaks for it."""
        tables = self._tables
        name = request.name
        holder = tables.holders.get(_check.name(name, "name"))
        owner = _check.optional_number(request.owner, "owner")
        if holder is not None and holder.session is not None:
            raise HolderLive(name)
        if holder is not None and holder.leaving:
            # Who comes so soon gets a session of its own, with nothing of the one that is gone.
            self._parts.hurry(holder)
            holder = None
        if holder is not None and owner is not None and holder.owner != owner:
            raise HolderOfAnother(name)
        session = tables.next_session
        tables.next_session += 1
        resumed = holder is not None
        if holder is None:
            holder = Holder(name, session, owner=owner)
            tables.add_holder(holder)
        holder.session = session
        holder.since = tables.now
        tables.sessions[session] = holder
        ioasids = sorted(holder.references)
        references = tuple(zip(ioasids, map(holder.references.__getitem__, ioasids), strict=True))
        return SessionOpened(session, resumed, references)

    def close_session(self, holder: Holder, _: CloseSession) -> Outcome:
        """Let the holder leave."""
        return self._remove_holder(holder)

    def suspend_session(self, holder: Holder, _: SuspendSession) -> Answer:
        """Suspend a holder that crashed, or let it leave if nothing of it can be in use."""
        self._suspend(holder)
        return DONE

    def suspend_all(self, _: Holder, __: SuspendAll) -> Answer:
        """Suspend every holder that has a session, as if each had crashed."""
        # By number: what was restored has them in another order than what decided them.
        for number in sorted(self._tables.sessions):
            self._suspend(self._tables.sessions[number])
        return DONE

    def _suspend(self, holder: Holder) -> None:
        subscriptions = holder.subscriptions.values()
        if not holder.references and not any(each.hold for each in subscriptions):
            self._remove_holder(holder)
            return
        for subscription in subscriptions:
            self._notifier.suspend(subscription)
        assert holder.session is not None, "it is the session that asks"
        del self._tables.sessions[holder.session]
        holder.session = None
        holder.since = self._tables.now

    def evict(self, _: Holder, request: Evict) -> Outcome:
        """Let another holder, or the one that asks, go for good."""
        holder = self._tables.holders.get(_check.name(request.name, "name"))
        if holder is None:
            raise UnknownHolder(request.name)
        session = holder.session
        outcome = self._remove_holder(holder)
        if session is not None:
            self._tables.outbox.append(Expel(session))
        return outcome

    def _remove_holder(self, holder: Holder) -> Outcome:
        tables = self._tables
        for item in tables.work:
            if type(item) is Leaving and item.holder is holder:
                return self._parts.left(item)
        for subscription in tuple(holder.subscriptions.values()):
            self._notifier.leave(subscription, drained=False)
        if holder.session is not None:
            del tables.sessions[holder.session]
        holder.session = None
        holder.since = tables.now
        holder.leaving = True
        item = Leaving(holder)
        tables.begun.append(item)
        return partial(self._parts.left, item)
