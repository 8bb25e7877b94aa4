"""A session: the allocator as one of its holders sees it, a method for every request."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from msgspec.structs import replace

from ioasid.actors._mailbox import MailboxClosed
from ioasid.actors._reply import Reply as Answer
from ioasid.actors._subscription import Subscription
from ioasid.core import (
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocatorClosed,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityRecord,
    CloseSession,
    Data,
    Detach,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    InvalidArgument,
    IoasidRange,
    IoasidRecord,
    Listing,
    ListSet,
    LiveIoasid,
    Message,
    Notify,
    OpenSession,
    Priority,
    Put,
    Released,
    Reply,
    Request,
    ReserveCapacity,
    SessionOpened,
    SetRecord,
    Snapshot,
    Statistics,
    Subscribe,
    Subscribed,
    SuspendSession,
    TakeStatistics,
    TokenType,
    Unsubscribe,
)

if TYPE_CHECKING:
    from ioasid.actors._allocator import AllocatorActor

__all__ = ["Session"]

R = TypeVar("R")

ALL_KINDS: Final = frozenset(EventKind)


def answered(answer: Any, expected: type[R]) -> R:
    """Return what a request was answered with; raise what it was refused with."""
    if isinstance(answer, expected):
        return answer
    raise answer.with_traceback(None)


class Session:
    """A named caller of the allocator, a *holder*: it owns references and subscriptions.

    `open_allocator` gives the first one, `session(name)` others. Every method sends one request
    to the allocator actor and waits for its answer; requests of one task are decided in order.
    Each raises the error that its request is refused with (`ioasid.core` lists them by request),
    and nothing has changed then. Besides, every method raises `SessionEnded` after the session
    left, crashed or was evicted, `AllocatorClosed` when there is no allocator any more, and
    `InvalidArgument` for an argument of the wrong type or range.

    A call that is cancelled before the allocator decided it is not decided at all; one cancelled
    after was decided.
    """

    def __init__(self, actor: "AllocatorActor", name: str, opened: SessionOpened) -> None:
        self._actor = actor
        self._number = opened.session
        self._opened = opened
        self._name = name
        self._new_reply = actor.new_reply
        self._lane = actor.mailbox.lane()
        actor.name_session(opened.session, name)

    @property
    def name(self) -> str:
        """The holder's name, unique among live sessions and stable across restarts."""
        return self._name

    @property
    def number(self) -> int:
        """The session's number; a holder that comes back gets another one."""
        return self._number

    @property
    def opened(self) -> SessionOpened:
        """What the session began with: whether it was resumed, and the references it has."""
        return self._opened

    def __repr__(self) -> str:
        """The name and number."""
        return f"<Session {self._number} of holder {self._name!r}>"

    # -- the way to the allocator -------------------------------------------------------------

    async def ask(self, request: Request) -> Reply:
        """Send a request and wait for its reply; the methods below do it for you.

        Raises the error it is refused with, `MalformedMessage` if it is no request at all, and
        `InvalidArgument` for a `Subscribe`, which needs somebody to deliver to: use `subscribe`.
        """
        if type(request) is Subscribe:
            raise InvalidArgument("request", "a Subscribe", "any other, or call subscribe")
        return cast(Reply, answered(await self._patiently(self._send(request)), Message))

    def _send(self, request: Request) -> Answer[Any]:
        reply = self._new_reply()
        try:
            self._lane.put((self._number, request, reply))
        except MailboxClosed:
            raise AllocatorClosed(self._actor.reason) from None
        return reply

    def _send_call(self, call: Callable[[], Any]) -> Answer[Any]:
        reply = self._new_reply()
        try:
            self._lane.put((None, call, reply))
        except MailboxClosed:
            raise AllocatorClosed(self._actor.reason) from None
        return reply

    async def _patiently(self, reply: Answer[Any]) -> Any:
        # For what may be answered long after it was decided; otherwise the reply itself tells the
        # allocator that its asker gave up.
        try:
            return await reply
        except BaseException:
            if self._actor.is_waiting(reply):
                # So the allocator is there: when it goes, nobody waits any more.
                self._lane.put((None, partial(self._actor.abandon, reply), None))
            raise

    async def _carefully(self, reply: Answer[Any], lost: Callable[[Any], None]) -> Any:
        # For what must not be left behind by a caller that is cancelled: `lost` undoes what was
        # decided for a caller who never learned of it.
        try:
            answer = await reply
        except BaseException:
            if not reply.cancelled():
                answer = await reply  # resolved, so this does not wait
                if not isinstance(answer, Exception):
                    lost(answer)
            raise
        return answered(answer, Message)

    async def _attach(self, subscription: Subscription, request: Subscribe) -> None:
        def lost(answer: Subscribed) -> None:
            number = answer.subscription
            self._tell(Detach(number) if answer.resumed else Unsubscribe(number))

        decide = partial(self._actor.subscribe, self._number, request, subscription)
        await self._carefully(self._send_call(decide), lost)

    def _tell(self, request: Request) -> None:
        # For what nobody waits for: it does not matter to an allocator that is gone.
        try:
            self._lane.tell((self._number, request, None))
        except MailboxClosed:
            pass

    def _end(self, request: CloseSession | SuspendSession) -> None:
        try:
            self._lane.leave((self._number, request, None))
        except MailboxClosed:
            pass

    # -- capacity -----------------------------------------------------------------------------

    async def install_capacity(self, total: int) -> CapacityRecord:
        """Set the system capacity (1..2^32-1), before the first set or reservation."""
        return answered(await self._send(InstallCapacity(total)), CapacityRecord)

    async def reserve_capacity(self, count: int | None) -> CapacityRecord:
        """Take `count` IDs (1..2^32-1) from what is available, without a set; `None`: all."""
        return answered(await self._send(ReserveCapacity(count)), CapacityRecord)

    async def cancel_capacity(self, count: int) -> CapacityRecord:
        """Give back `count` reserved IDs (1..2^32-1)."""
        return answered(await self._send(CancelCapacity(count)), CapacityRecord)

    # -- sets ---------------------------------------------------------------------------------

    async def alloc_system_set(self, quota: int | None = None) -> SetRecord:
        """Create the host's own set, for bare-metal SVA; `quota=None` takes all available."""
        return answered(await self._send(AllocSystemSet(quota)), SetRecord)

    async def alloc_set(
        self,
        token: str | None = None,
        quota: int | None = None,
        token_type: TokenType = TokenType.MM,
    ) -> SetRecord:
        """Create a set and take its quota from what is available; `quota=None` takes all of it.

        `token`, 1 to 255 bytes as UTF-8, is required with `TokenType.MM` and excluded with NULL.
        """
        return answered(await self._send(AllocSet(token, quota, token_type)), SetRecord)

    async def adjust_set(self, sid: int, quota: int) -> SetRecord:
        """Change a set's quota to `quota` (1..2^32-1), not below what it has allocated."""
        return answered(await self._send(AdjustSet(sid, quota)), SetRecord)

    async def free_set(self, sid: int, *, destroy: bool = True, wait: bool = False) -> bool:
        """Free every ID of a set; with `destroy` the set goes with its last one.

        Answers whether all of it is reclaimed: at once, or, with `wait`, when it is. A caller
        that gives up waiting cancels nothing.
        """
        reply = self._send(FreeSet(sid, destroy, wait))
        return answered(await self._patiently(reply), Released).reclaimed

    async def find_sid(self, ioasid: int) -> int:
        """Return the set of an ID."""
        return answered(await self._send(FindSid(ioasid)), FoundSid).sid

    async def find_set(self, token: str | None = None, *, sid: int | None = None) -> SetRecord:
        """Return the live set that has an MM token, or this number: one of the two."""
        return answered(await self._send(FindSet(token, sid)), SetRecord)

    async def list_set(self, sid: int) -> tuple[LiveIoasid, ...]:
        """Return the IDs of a set, ascending, with their states and spids."""
        return answered(await self._send(ListSet(sid)), Listing).ioasids

    # -- IOASIDs ------------------------------------------------------------------------------

    async def alloc(
        self, sid: int, *, min: int = 1, max: int | None = None, data: Data | None = None
    ) -> int:
        """Allocate the lowest free ID in [min, max]; `max=None` is the last one there is."""
        return answered(await self._send(Alloc(sid, min, max, data)), Allocated).ioasid

    async def alloc_many(
        self, sid: int, count: int, *, min: int = 1, max: int | None = None
    ) -> tuple[IoasidRange, ...]:
        """Allocate `count` IDs at once, lowest first, all or none; answered as ranges."""
        return answered(await self._send(AllocMany(sid, count, min, max)), AllocatedMany).ranges

    async def free(self, ioasid: int, *, sid: int | None = None, wait: bool = False) -> bool:
        """Drop the owner's reference: the ID is reclaimed when everybody is done with it.

        Answers whether it is: at once, or, with `wait`, when it is. A second call is a no-op. A
        caller that gives up waiting cancels nothing. `WouldDeadlock` refuses to wait for oneself.
        """
        reply = self._send(Free(ioasid, sid, wait))
        return answered(await self._patiently(reply), Released).reclaimed

    async def get(self, ioasid: int, *, sid: int | None = None) -> None:
        """Take one reference for this holder."""
        answered(await self._send(Get(ioasid, sid)), Done)

    async def put(self, ioasid: int, *, sid: int | None = None) -> bool:
        """Drop one reference of this holder; answers whether the ID was reclaimed by it."""
        return answered(await self._send(Put(ioasid, sid)), Released).reclaimed

    async def find(self, ioasid: int, *, sid: int | None = None) -> IoasidRecord:
        """Return an ID's record: set, spid, state, data, references by holder."""
        return answered(await self._send(Find(ioasid, sid)), IoasidRecord)

    async def attach_data(self, ioasid: int, data: Data, *, sid: int | None = None) -> None:
        """Attach one opaque value, a 64-bit integer or a short string, to an ID."""
        answered(await self._send(AttachData(ioasid, data, sid)), Done)

    async def detach_data(self, ioasid: int, *, sid: int | None = None) -> None:
        """Remove an ID's value, if it has one."""
        answered(await self._send(DetachData(ioasid, sid)), Done)

    async def attach_spid(self, ioasid: int, spid: int, *, sid: int | None = None) -> None:
        """Bind: map the guest's ID `spid` (0..2^32-2), unique within the set, to this one."""
        answered(await self._send(AttachSpid(ioasid, spid, sid)), Done)

    async def detach_spid(self, ioasid: int, *, sid: int | None = None) -> None:
        """Unbind; subscribers are told, unless the ID was freed before."""
        answered(await self._send(DetachSpid(ioasid, sid)), Done)

    async def find_by_spid(self, sid: int, spid: int, *, get: bool = False) -> int:
        """Return the ID behind a guest's ID, with a reference taken in the same step if `get`."""
        return answered(await self._send(FindBySpid(sid, spid, get)), Allocated).ioasid

    async def notify(self, ioasid: int, kind: EventKind, *, sid: int | None = None) -> None:
        """Tell an ID's subscribers of `kind` (any but RECLAIM), as a publisher of one's own."""
        answered(await self._send(Notify(ioasid, kind, sid)), Done)

    # -- holders ------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator["Session"]:
        """Join as the holder `name` (1 to 255 bytes as UTF-8), or come back as it after a crash.

        Leaving the scope leaves: what was told counts as acknowledged, references are dropped.
        When an exception or a cancellation ends the scope while the holder has references or
        holding subscriptions, it is suspended instead: its IDs stay in quarantine until a session
        of the same name comes back or somebody evicts it.
        """

        def lost(opened: SessionOpened) -> None:
            session = Session(self._actor, name, opened)
            session._end(SuspendSession() if opened.resumed else CloseSession())

        opened = await self._carefully(self._send(OpenSession(name)), lost)
        session = Session(self._actor, name, opened)
        try:
            yield session
        except BaseException:
            session._end(SuspendSession())
            raise
        session._end(CloseSession())

    async def evict(self, name: str) -> None:
        """Declare the holder `name` dead: its events acknowledged, its references dropped."""
        answered(await self._send(Evict(name)), Done)

    # -- subscribing --------------------------------------------------------------------------

    def subscribe(
        self,
        *,
        sid: int | None = None,
        token: str | None = None,
        kinds: Collection[EventKind] = ALL_KINDS,
        priority: Priority = Priority.LAST,
        hold: bool = False,
        replay: bool = False,
        queue_size: int = 1024,
        acknowledge_within: float | None = 10.0,
        on_message: Callable[[], None] | None = None,
    ) -> Subscription:
        """Return a subscription to a set, by `sid` or `token`, or to the system; `async with` it.

        `kinds` filters; `priority` orders; `hold` grants a reference with every BIND, until the
        UNBIND or FREE that ends the binding is acknowledged; `replay` begins with a `Resync`;
        `queue_size` (1..2^20) bounds what may wait before it is replaced by a `Resync`; past
        `acknowledge_within` seconds (above 0; `None`: never) the subscriber is logged as overdue
        and shows in `statistics`, and what it holds stays in quarantine. `on_message`, which
        must not wait or raise, is called whenever something is there for `Subscription.take`;
        without it, iterate. Entering it raises what `Subscribe` is refused with.
        """
        unchecked: object = kinds
        try:
            given = frozenset(unchecked) if isinstance(unchecked, Collection) else None
        except Exception:  # noqa: BLE001 - what is in a foreign collection may raise anything
            given = None
        if given is None:
            raise InvalidArgument.of("kinds", kinds, "a collection of EventKind")
        if on_message is not None and not callable(on_message):
            raise InvalidArgument.of("on_message", on_message, "a callable")
        request = Subscribe(
            sid, token, given, priority, hold, replay, queue_size, acknowledge_within
        )
        return Subscription(self, request, on_message)

    # -- figures ------------------------------------------------------------------------------

    async def statistics(self) -> Statistics:
        """Return the allocator's figures, all taken at once: what there is and who lags."""
        figures = answered(await self._send(TakeStatistics()), Statistics)
        return replace(figures, mailbox=self._actor.mailbox.statistics().waiting)

    async def snapshot(self) -> Snapshot:
        """Return the whole state as a message; `open_allocator(snapshot=...)` goes on from it."""
        decide = partial(self._actor.snapshot, self._number)
        snapshot: Snapshot = await self._carefully(self._send_call(decide), lambda _: None)
        return snapshot
