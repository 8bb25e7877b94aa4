"""The allocator: the door for every request.

A synchronous state machine in the sans-I/O manner: `handle` takes a request of a session and
returns the reply or raises the error it is refused with; whatever else is to be done, `drain`
returns. A refused request has changed nothing. Every public method says what to call next. What
each request does stands in `ioasid.core._sets`, `_ioasids`, `_subscriptions` and `_holders`.
"""

from collections.abc import Callable
from typing import Any, Self

from ioasid.core import _check
from ioasid.core._effects import Effect
from ioasid.core._errors import MalformedMessage, SessionEnded
from ioasid.core._holders import Holders
from ioasid.core._ioasids import Ioasids
from ioasid.core._lifecycle import LifeCycle
from ioasid.core._messages import (
    Acknowledge,
    AdjustSet,
    Alloc,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CloseSession,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    IoasidRecord,
    LaggingSubscriber,
    ListSet,
    Notify,
    OpenSession,
    Put,
    Reply,
    Request,
    ReserveCapacity,
    SessionOpened,
    Statistics,
    Subscribe,
    SuspendSession,
    TakeStatistics,
    Unsubscribe,
)
from ioasid.core._notifier import Notifier
from ioasid.core._records import Holder, Tables
from ioasid.core._sets import Sets
from ioasid.core._snapshot import Snapshot, restore, take
from ioasid.core._subscriptions import Subscriptions

__all__ = ["Allocator"]


class Allocator:
    """The IOASID allocator: sets, quotas, IDs, references, subscribers; pure and synchronous.

    `capacity` is the number of IDs there are, 1..2^32-1 (a PASID has 20 bits, so 2^20 is the
    default); `holder` names the first session, whose number is `session`. Raises
    `InvalidArgument`.

    After every call of `handle`, or a batch of them, carry out what `drain` returns.
    """

    def __init__(self, capacity: int = 1 << 20, *, holder: str = "host") -> None:
        _check.count(capacity, "capacity")
        self._set_up(Tables(capacity))
        self.session: int = self.open_session(holder).session

    def _set_up(self, tables: Tables) -> None:
        self._tables = tables
        self._sessions = tables.sessions
        notifier = Notifier(tables)
        life = self._life = LifeCycle(tables, notifier)
        sets = Sets(tables, notifier, life)
        ioasids = self._ioasids = Ioasids(tables, notifier, life)
        subscriptions = self._subscriptions = Subscriptions(tables, notifier, life)
        holders = self._holders = Holders(tables, notifier, life)
        handlers: dict[type, Callable[[Holder, Any], Reply | None]] = {
            InstallCapacity: sets.install_capacity,
            ReserveCapacity: sets.reserve_capacity,
            CancelCapacity: sets.cancel_capacity,
            AllocSystemSet: sets.alloc_system_set,
            AllocSet: sets.alloc_set,
            AdjustSet: sets.adjust_set,
            FreeSet: sets.free_set,
            FindSid: ioasids.find_sid,
            FindSet: sets.find_set,
            Alloc: ioasids.alloc,
            AllocMany: ioasids.alloc_many,
            Free: ioasids.free,
            Get: ioasids.get,
            Put: ioasids.put,
            Find: ioasids.find,
            AttachData: ioasids.attach_data,
            DetachData: ioasids.detach_data,
            AttachSpid: ioasids.attach_spid,
            DetachSpid: ioasids.detach_spid,
            FindBySpid: ioasids.find_by_spid,
            ListSet: sets.list_set,
            Subscribe: subscriptions.subscribe,
            Unsubscribe: subscriptions.unsubscribe,
            Detach: subscriptions.detach,
            Acknowledge: subscriptions.acknowledge,
            Defer: subscriptions.defer,
            OpenSession: holders.open_session,
            CloseSession: holders.close_session,
            SuspendSession: holders.suspend_session,
            Evict: holders.evict,
            Notify: ioasids.notify,
            TakeStatistics: self._take_statistics,
        }
        self._handlers = handlers

    # -- driving it ---------------------------------------------------------------------------

    def handle(self, session: int, request: Request, ticket: int = 0) -> Reply | None:
        """Decide a request that came through a session; returns the reply.

        Returns `None` if the request waits (`wait=True` on `Free` and `FreeSet`): a `Complete`
        with the same `ticket`, a number that no other request waits with, comes out of `drain`
        when what it waits for has happened. Raises
        the `IoasidError` that the request is refused with; nothing has changed then. Call
        `drain` next.
        """
        holder = self._sessions.get(session) if type(session) is int else None
        if holder is None:
            raise SessionEnded(_check.number(session, "session"))
        handler = self._handlers.get(type(request))
        if handler is None:
            raise MalformedMessage("request", f"{type(request).__name__} is no request")
        self._life.ticket = ticket
        return handler(holder, request)

    def open_session(self, name: str) -> SessionOpened:
        """Let the holder `name` join or come back; as `OpenSession`, but nobody has to ask.

        Raises `HolderLive` and `InvalidArgument`. Needs nothing drained.
        """
        return self._holders.join(name)

    def drain(self) -> list[Effect]:
        """Return what is to be done since the last call, in order. Carry it out, then go on."""
        effects, self._tables.outbox = self._tables.outbox, []
        return effects

    def tick(self, now: float) -> None:
        """Tell the time, in seconds of any clock that never goes back; offers are dated by it.

        Needs nothing drained. Raises `InvalidArgument` for a time that is no number, or so
        large that no wire could carry it.
        """
        if (type(now) is not float and type(now) is not int) or not -(2**63) < now < 2**63:
            _check.refuse("now", now, "a number of seconds")
        self._tables.now = now

    def abandon(self, ticket: int) -> None:
        """Forget a waiting request whose caller gave up; what it asked for stands."""
        self._life.abandon(_check.number(ticket, "ticket"))

    def snapshot(self) -> Snapshot:
        """Return the whole state as a message; equal snapshots are equal states."""
        return take(self._tables)

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Self:
        """Return an allocator in the state a snapshot was taken of; it goes on as the first would.

        Its sessions are those of the snapshot, and so is `session`, the oldest of them, if any is
        live. Who comes back in a new process suspends the sessions (`SuspendSession`) and opens
        them again, so that every subscriber starts with a Resync. Raises `MalformedMessage` for
        a snapshot of another version or one that contradicts itself.
        """
        restored = cls.__new__(cls)
        restored._set_up(restore(snapshot))
        restored.session = min(restored._tables.sessions, default=0)
        return restored

    def record(self, ioasid: int) -> IoasidRecord | None:
        """Return an ID's record, `None` if it is not allocated. Raises `InvalidArgument`."""
        sid = self._tables.space.owner(_check.ioasid(ioasid))
        return None if sid is None else self._ioasids.record(self._tables.sets[sid], ioasid)

    def suspend_all(self) -> None:
        """Let every live session crash, as their callers did when a process ends. Call `drain`."""
        for session in tuple(self._tables.sessions):
            self.handle(session, SuspendSession())

    def lagging(self) -> tuple[LaggingSubscriber, ...]:
        """Return the subscribers with unacknowledged messages, in order of subscription."""
        return self._subscriptions.lagging()

    # -- figures ------------------------------------------------------------------------------

    def _take_statistics(self, _: Holder, __: TakeStatistics) -> Reply:
        tables = self._tables
        return Statistics(
            capacity=tables.capacity,
            reserved=tables.reserved,
            available=tables.available,
            sets=len(tables.sets),
            sets_free_pending=tables.sets_free_pending,
            active=tables.live - tables.free_pending,
            free_pending=tables.free_pending,
            sessions=len(tables.sessions),
            suspended=len(tables.holders) - len(tables.sessions),
            subscriptions=len(tables.subscriptions),
            seq=tables.seq,
            under_way=sum(len(record.chain) for record in tables.chained.values()),
            lagging=self.lagging(),
        )
