"""A session: the allocator as one of its holders sees it, a method for every request."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, cast

from msgspec.structs import replace

from ioasid.actors._again import until_kept
from ioasid.actors._ending import Ending
from ioasid.actors._looker import Looker, life_of
from ioasid.actors._port import Port, answered
from ioasid.actors._subscription import Subscription
from ioasid.core import (
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    Answer,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CancelRange,
    CapacityRecord,
    CloseSession,
    Data,
    DetachData,
    DetachSpid,
    Done,
    EventKind,
    Evict,
    ExportSet,
    FindBySpid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Frozen,
    Get,
    GroupRecord,
    Imported,
    ImportSet,
    InstallCapacity,
    InvalidArgument,
    Ioasid,
    IoasidRange,
    Message,
    NotCommitted,
    Notify,
    OpenSession,
    Priority,
    Put,
    Released,
    Request,
    ReserveCapacity,
    ReserveRange,
    SessionOpened,
    SetExport,
    SetRecord,
    Snapshot,
    Subscribe,
    SuspendSession,
    TakeSnapshot,
    ThawSet,
    TokenType,
)

__all__ = ["Session"]

R = TypeVar("R")

NEW_INT: Final = int.__new__
ALL_KINDS: Final = frozenset(EventKind)


def _spelled_out(request: Any) -> Any:
    # A request says in a field of its own which life it means.
    ioasid = getattr(request, "ioasid", None) if isinstance(request, Message) else None
    # What has no such field is left to the allocator to refuse.
    if not isinstance(ioasid, Ioasid) or not hasattr(request, "generation"):
        return request
    number, generation = life_of(ioasid, request.generation)
    return replace(request, ioasid=number, generation=generation)


def _bare(value: R) -> R | int:
    # Where a number is meant that is no life of an ID, an ID is its number.
    return int(value) if isinstance(value, Ioasid) else value


class Session(Looker):
    """A named caller of the allocator, a *holder*: it owns references and subscriptions.

    `open_allocator` gives the first one, `session(name)` others. Every method sends one request
    to the allocator actor and waits for its answer; requests of one task are decided in order.
    Each raises the error that its request is refused with (`ioasid.core` lists them by request),
    and nothing has changed then. Besides, every method raises `SessionEnded` after the session
    left, crashed or was evicted, `AllocatorClosed` when there is no allocator any more, and
    `InvalidArgument` for an argument of the wrong type or range.

    A call that is cancelled before the allocator decided it is not decided at all. One that is
    cancelled later is undone if only its answer would have named what it gave: an ID or a set
    without a token is freed, a reference put, a session or subscription ended. All else stands.

    An ID that `alloc` or `find_by_spid` returned remembers its generation, and a method that takes
    it refuses it with `StaleIoasid` once that life of the ID is over and another has begun. A bare
    number means whoever has the ID now, unless a `generation` is named.
    """

    def __init__(self, port: Port, name: str, opened: SessionOpened) -> None:
        super().__init__(port.send)
        self._port = port
        self._send = port.send
        self._opened = opened
        self._name = name

    @property
    def name(self) -> str:
        """The holder's name, unique among live sessions and stable across restarts."""
        return self._name

    @property
    def number(self) -> int:
        """The session's number; a holder that comes back gets another one."""
        return self._opened.session

    @property
    def opened(self) -> SessionOpened:
        """What the session began with: whether it was resumed, and the references it has."""
        return self._opened

    def __repr__(self) -> str:
        """The name and number."""
        return f"<Session {self.number} of holder {self._name!r}>"

    # -- the way to the allocator -------------------------------------------------------------

    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for its reply; the methods below do it for you.

        An ID in the field `ioasid` that remembers its generation is taken as the methods take it.
        Raises the error it is refused with, `MalformedMessage` if it is no request at all, and
        `InvalidArgument` for a `Subscribe`, which needs somebody to deliver to: use `subscribe`.
        """
        return cast(Answer, await self._answer(_spelled_out(request), Message))

    async def insist(self, request: Request) -> bool:
        """Ask for what lets go, a `Put` of what is programmed no more for instance.

        Returns whether it is done. While a journal can't be written it is not refused with
        `NotCommitted`: the allocator does it as soon as it can, before anything that is asked
        later. At a distance that is waited for. Raises what else it is refused with.
        """
        spelled_out = _spelled_out(request)
        if not self._port.keeps:
            await until_kept(lambda: self._answer(spelled_out, Message))
            return True
        try:
            await self._answer(spelled_out, Message)
        except NotCommitted:
            self._port.tell(spelled_out)
            return False
        return True

    async def _answer(self, request: Request, expected: type[R]) -> R:
        # For what must not be left behind, or waited for, when its asker is cancelled.
        reply = self._send(request)
        try:
            return answered(await reply, expected)
        except BaseException:
            self._port.give_up(request, reply)
            raise

    # -- capacity -----------------------------------------------------------------------------

    async def install_capacity(self, total: int) -> CapacityRecord:
        """Set the system capacity (1..2^32-1), before the first set, group or reservation."""
        return answered(await self._send(InstallCapacity(total)), CapacityRecord)

    async def reserve_capacity(self, count: int | None) -> CapacityRecord:
        """Take `count` IDs (1..2^32-1) from what is available, without a set; `None`: all."""
        return answered(await self._send(ReserveCapacity(count)), CapacityRecord)

    async def cancel_capacity(self, count: int) -> CapacityRecord:
        """Give back `count` IDs (1..2^32-1) that `reserve_capacity` took."""
        return answered(await self._send(CancelCapacity(count)), CapacityRecord)

    async def reserve_range(self, min: int, max: int) -> CapacityRecord:
        """Take these very numbers, `min` to `max`, out of circulation: none is ever given out."""
        return answered(await self._send(ReserveRange(_bare(min), _bare(max))), CapacityRecord)

    async def cancel_range(self, min: int, max: int) -> CapacityRecord:
        """Give back reserved numbers, `min` to `max`, however they were reserved."""
        return answered(await self._send(CancelRange(_bare(min), _bare(max))), CapacityRecord)

    # -- groups -------------------------------------------------------------------------------

    async def alloc_group(self, name: str, limit: int, *, parent: str | None = None) -> GroupRecord:
        """Create a group `name` (1 to 255 bytes as UTF-8): those in it share `limit` IDs.

        The limit (1..2^32-1) is taken from what its `parent` has left or, without one, from what
        is available. Groups are at most 16 deep in one another.
        """
        return answered(await self._send(AllocGroup(name, limit, parent)), GroupRecord)

    async def adjust_group(self, name: str, limit: int) -> GroupRecord:
        """Change a group's limit (1..2^32-1), not below what its sets and groups have of it."""
        return answered(await self._send(AdjustGroup(name, limit)), GroupRecord)

    async def free_group(self, name: str) -> None:
        """Remove a group that has no set, none in quarantine either, and no group."""
        answered(await self._send(FreeGroup(name)), Done)

    # -- sets ---------------------------------------------------------------------------------

    async def alloc_system_set(self, quota: int | None = None) -> SetRecord:
        """Create the host's own set, for bare-metal SVA; `quota=None` takes all available."""
        return answered(await self._send(AllocSystemSet(quota)), SetRecord)

    async def alloc_set(
        self,
        token: str | None = None,
        quota: int | None = None,
        token_type: TokenType = TokenType.MM,
        *,
        group: str | None = None,
    ) -> SetRecord:
        """Create a set and take its quota from what is available; `quota=None` takes all of it.

        In a `group` it is taken from what the group has left. `token`, 1 to 255 bytes as UTF-8, is
        required with `TokenType.MM` and excluded with NULL.
        """
        return await self._answer(AllocSet(token, quota, token_type, group), SetRecord)

    async def adjust_set(self, sid: int, quota: int) -> SetRecord:
        """Change a set's quota to `quota` (1..2^32-1), not below what it has allocated."""
        return answered(await self._send(AdjustSet(sid, quota)), SetRecord)

    async def free_set(self, sid: int, *, destroy: bool = True, wait: bool = False) -> bool:
        """Free every ID of a set; with `destroy` the set goes with its last one.

        Answers whether all of it is reclaimed: at once, or, with `wait`, when it is. A caller
        that gives up waiting cancels nothing.
        """
        return (await self._answer(FreeSet(sid, destroy, wait), Released)).reclaimed

    async def freeze_set(self, sid: int, *, wait: bool = True) -> bool:
        """End a set's bindings, for it is about to move, and keep its spids; `thaw_set` undoes it.

        Answers whether nothing of it runs: when every CPU and device has acknowledged that or,
        without `wait`, at once. `False` to who waited says that it was thawed meanwhile. A caller
        that gives up waiting cancels nothing. `WouldDeadlock` refuses to wait for oneself.
        """
        return (await self._answer(FreezeSet(sid, wait), Frozen)).stopped

    async def thaw_set(self, sid: int) -> None:
        """Let a frozen set go on: its bindings begin again."""
        answered(await self._send(ThawSet(sid)), Done)

    async def export_set(self, sid: int) -> SetExport:
        """Return all that the next host of a frozen set has to know of it."""
        return await self._answer(ExportSet(sid), SetExport)

    async def import_set(
        self,
        export: SetExport,
        *,
        group: str | None = None,
        min: int = 1,
        max: int | None = None,
    ) -> Imported:
        """Make a set of an export, with IDs in [min, max] and the same spids, or nothing.

        It is INCOMING, and nothing runs, until `activate_set`.
        """
        request = ImportSet(export, group, _bare(min), _bare(max))
        return await self._answer(request, Imported)

    async def activate_set(self, sid: int) -> None:
        """Let an imported set run: its bindings begin."""
        answered(await self._send(ActivateSet(sid)), Done)

    # -- IOASIDs ------------------------------------------------------------------------------

    async def alloc(
        self, sid: int, *, min: int = 1, max: int | None = None, data: Data | None = None
    ) -> Ioasid:
        """Allocate one ID in [min, max], by the order of reuse; `max=None` is the last there is."""
        # As `_answer`, whose frame an allocation need not pay.
        request = Alloc(
            sid,
            min if type(min) is int else _bare(min),
            max if max is None else _bare(max),
            data if data is None else _bare(data),
        )
        reply = self._send(request)
        try:
            answer = answered(await reply, Allocated)
        except BaseException:
            self._port.give_up(request, reply)
            raise
        # As `Ioasid` does, which takes twice as long from outside.
        allocated = NEW_INT(Ioasid, answer.ioasid)
        allocated.generation = answer.generation
        return allocated

    async def alloc_many(
        self, sid: int, count: int, *, min: int = 1, max: int | None = None
    ) -> tuple[IoasidRange, ...]:
        """Allocate `count` IDs at once, all or none, by the order of reuse; answered as ranges.

        The ends of each remember the generation that all of them share.
        """
        request = AllocMany(sid, count, _bare(min), _bare(max))
        answer = await self._answer(request, AllocatedMany)
        life = answer.generation
        return tuple(
            IoasidRange(Ioasid(each.first, life), Ioasid(each.last, life)) for each in answer.ranges
        )

    async def free_many(
        self, sid: int, ranges: Collection[IoasidRange], *, generation: int | None = None
    ) -> bool:
        """Free IDs of a set, as `free` does each, all or none; answers whether all are reclaimed.

        `ranges` are ascending and have no ID in common, as those that `alloc_many` returned. With a
        `generation`, or one that an end of a range remembers, every one of them has to be in that
        life. `InvalidArgument` refuses ranges that remember several.
        """
        bare, remembered = _ranges(ranges)
        if generation is None:
            generation = _one_life(ranges, remembered)
        request = FreeMany(sid, bare, generation)
        return answered(await self._send(request), Released).reclaimed

    async def free(
        self,
        ioasid: int,
        *,
        sid: int | None = None,
        generation: int | None = None,
        wait: bool = False,
    ) -> bool:
        """Drop the owner's reference: the ID is reclaimed when everybody is done with it.

        Answers whether it is: at once, or, with `wait`, when it is. A second call is a no-op. A
        caller that gives up waiting cancels nothing. `WouldDeadlock` refuses to wait for oneself.
        """
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        return (await self._answer(Free(ioasid, sid, wait, generation), Released)).reclaimed

    async def get(
        self, ioasid: int, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Take one reference for this holder."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        await self._answer(Get(ioasid, sid, generation), Done)

    async def put(
        self, ioasid: int, *, sid: int | None = None, generation: int | None = None
    ) -> bool:
        """Drop one reference of this holder; answers whether the ID was reclaimed by it."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        return answered(await self._send(Put(ioasid, sid, generation)), Released).reclaimed

    async def attach_data(
        self, ioasid: int, data: Data, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Attach one opaque value, a 64-bit integer or a short string, to an ID."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        answered(await self._send(AttachData(ioasid, _bare(data), sid, generation)), Done)

    async def detach_data(
        self, ioasid: int, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Remove an ID's value, if it has one."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        answered(await self._send(DetachData(ioasid, sid, generation)), Done)

    async def attach_spid(
        self, ioasid: int, spid: int, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Bind: map the guest's ID `spid` (0..2^32-2), unique within the set, to this one."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        answered(await self._send(AttachSpid(ioasid, _bare(spid), sid, generation)), Done)

    async def detach_spid(
        self, ioasid: int, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Unbind; subscribers are told, unless the ID was freed before."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        answered(await self._send(DetachSpid(ioasid, sid, generation)), Done)

    async def find_by_spid(self, sid: int, spid: int, *, get: bool = False) -> Ioasid:
        """Return the ID behind a guest's ID, with a reference taken in the same step if `get`."""
        answer = await self._answer(FindBySpid(sid, _bare(spid), get), Allocated)
        return Ioasid(answer.ioasid, answer.generation)

    async def notify(
        self, ioasid: int, kind: EventKind, *, sid: int | None = None, generation: int | None = None
    ) -> None:
        """Tell an ID's subscribers of `kind` (any but RECLAIM), as a publisher of one's own."""
        if type(ioasid) is not int:
            ioasid, generation = life_of(ioasid, generation)
        answered(await self._send(Notify(ioasid, kind, sid, generation)), Done)

    # -- holders ------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator["Session"]:
        """Join as the holder `name` (1 to 255 bytes as UTF-8), or come back as it after a crash.

        Leaving the scope leaves: what was told counts as acknowledged, references are dropped.
        When an exception or a cancellation ends the scope while the holder has references or
        holding subscriptions, it is suspended instead: its IDs stay in quarantine until a session
        of the same name comes back or somebody evicts it.
        """
        opened = await self._answer(OpenSession(name), SessionOpened)
        port = self._port.join(opened)
        try:
            yield Session(port, name, opened)
        except BaseException:
            port.leave(SuspendSession())
            raise
        port.leave(CloseSession())

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
        awaited: bool = True,
        wake: Callable[[], None] | None = None,
    ) -> Subscription:
        """Return a subscription to a set, by `sid` or `token`, or to the system; `async with` it.

        `kinds` filters; `priority` orders; `hold` grants a reference with every BIND, until the
        UNBIND or FREE that ends the binding is acknowledged; `replay` begins with a `Resync`;
        `queue_size` (1..2^20) bounds what may wait before it is replaced by a `Resync`; past
        `acknowledge_within` seconds (above 0; `None`: never) the subscriber is logged as overdue
        and shows in `statistics`, and what it holds stays in quarantine. Nothing waits for one that
        is not `awaited`: it is told the same, and keeps no ID in quarantine, also if it hangs. It
        can't hold. `wake`, which must not wait or raise, is called whenever something is there for
        `Subscription.take`; without it, iterate. Entering it raises what `Subscribe` is refused
        with.
        """
        unchecked: object = kinds
        try:
            given = frozenset(unchecked) if isinstance(unchecked, Collection) else None
        except Exception:  # noqa: BLE001 - what is in a foreign collection may raise anything
            given = None
        if given is None:
            raise InvalidArgument.of("kinds", kinds, "a collection of EventKind")
        if wake is not None and not callable(wake):
            raise InvalidArgument.of("wake", wake, "a callable")
        request = Subscribe(
            sid, token, given, priority, hold, replay, queue_size, acknowledge_within, awaited
        )
        return Subscription(self._port, request, self.number, wake)

    # -- figures ------------------------------------------------------------------------------

    async def snapshot(self) -> Snapshot:
        """Return the whole state as a message; `open_allocator(snapshot=...)` goes on from it."""
        return answered(await self._send(TakeSnapshot()), Snapshot)


def _ranges(ranges: object) -> tuple[tuple[IoasidRange, ...], set[int]]:
    # The ranges as bare numbers, and the generations that they remember.
    remembered: set[int] = set()

    def bare(each: object) -> IoasidRange:
        # What is no range is left to the allocator to refuse.
        if type(each) is not IoasidRange:
            return cast(IoasidRange, each)
        ends: tuple[Any, Any] = (each.first, each.last)
        remembered.update(end.generation for end in ends if isinstance(end, Ioasid))
        return IoasidRange(*map(_bare, ends))

    try:
        given = tuple(map(bare, ranges)) if isinstance(ranges, Collection) else None
    except Exception:  # noqa: BLE001 - a foreign collection may raise anything
        given = None
    if given is None:
        raise InvalidArgument.of("ranges", ranges, "a collection of IoasidRange")
    return given, remembered


def _one_life(ranges: object, remembered: set[int]) -> int | None:
    if len(remembered) > 1:
        raise InvalidArgument.of("ranges", ranges, "ranges of one generation, or name it")
    return next(iter(remembered), None)


def ending_of(session: Session) -> Ending:
    """Return the end of a session and its allocator, for who lives by it and may never ask it."""
    return session._port.ending
