"""A tenant's connection: one token, and what is in its set; nothing else exists for it.

Its requests name its set, always: one that names none is made to, and one that names another is
refused as if there were none. What the allocator says of others does not pass: an ID that belongs
to another set, or lives another life by now, is unknown, and any other holder is `another`.
"""

from collections.abc import Callable
from typing import Any, Final, NoReturn

from msgspec.structs import replace

from ioasid.core import (
    Acknowledge,
    AdjustSet,
    Alloc,
    AllocMany,
    AllocSet,
    AttachData,
    AttachSpid,
    Awaited,
    CloseSession,
    Defer,
    Detach,
    DetachData,
    DetachSpid,
    Event,
    EventInFlight,
    Explain,
    Explanation,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeMany,
    FreeSet,
    Get,
    IoasidFreePending,
    IoasidRecord,
    ListSet,
    ListSets,
    Notify,
    NotOfThisSet,
    OpenSession,
    Put,
    Request,
    Resync,
    SetPage,
    SetRecord,
    StaleIoasid,
    Subscribe,
    SuspendSession,
    UnknownIoasid,
    UnknownSet,
    UnknownToken,
    Unsubscribe,
    _check,
)
from ioasid.service._errors import PermissionDenied
from ioasid.service._permits import Permit, Role

__all__: list[str] = []

OWN: Final = frozenset(
    (OpenSession, CloseSession, SuspendSession, Unsubscribe, Detach, Acknowledge, Defer)
)
"""What concerns its own holders only."""
OF_A_SET: Final = frozenset(
    (
        *(Alloc, AllocMany, FreeSet, FreeMany, FindBySpid, ListSet, AdjustSet),
        *(Find, FindSid, Free, Get, Put, AttachData, DetachData, AttachSpid, DetachSpid, Notify),
    )
)
"""What is done in a set, which has to be its own."""

ANOTHER: Final = "another"
"""What stands for the name of any other holder."""

Show = Callable[[Any], Any]


class Tenancy:
    """The permit of a connection that has one token."""

    def __init__(self, permit: Permit, token: str) -> None:
        self._permit = permit
        self.token: Final = token
        self.sid: int | None = None
        """The number of its set, as far as known; a number is never used again."""
        self._grouped: int | None = None
        """The number of its set if that is known to be in its group, where it stays."""

    def is_uncertain(self, request: Request) -> bool:
        """Tell whether the set that a request is about has to be looked up by `lookup` first."""
        kind = type(request)
        if kind not in OF_A_SET and kind not in (Subscribe, FindSet, Explain):
            return False
        named = getattr(request, "sid", None)
        if named is None:
            return self.sid is None and kind not in (Subscribe, FindSet)
        return bool(named != self.sid) or (kind is AdjustSet and self._grouped != self.sid)

    @property
    def lookup(self) -> FindSet:
        """The request whose answer `learn` takes."""
        return FindSet(self.token)

    def learn(self, answer: Any) -> None:
        """Take what a request came to: its set may have a number, or another one."""
        if type(answer) is SetRecord and answer.token == self.token:
            self.sid = answer.sid
            group = self._permit.group
            self._grouped = answer.sid if group is not None and answer.group == group else None

    def admit(self, request: Request) -> tuple[Request, Show]:
        """Return what to ask instead, and what makes the tenant's answer of what it comes to.

        Raises what it is refused with.
        """
        kind = type(request)
        if kind in OWN:
            return request, self._show
        match request:
            case Subscribe(sid=sid, token=token):
                self._check_scope(sid, token)
                return request, self._show
            case FindSet(token=token, sid=sid):
                if token is not None and token != self.token:
                    raise UnknownToken(_check.name(token, "token"))
                if sid is not None and sid != self.sid:
                    raise UnknownSet(_check.number(sid, "sid"))
                return FindSet(self.token), self._show
            case ListSets(after=after):
                return FindSet(self.token), lambda answer: self._page(answer, after)
            case AllocSet(token=token, group=group) if self._permit.group is not None:
                if token == self.token and group == self._permit.group:
                    return request, self._show
                self._deny(f"create any set but one for its token {self.token!r}")
            case AdjustSet(quota=quota) if self._permit.group is not None:
                sid = self._set(request)
                if self._grouped != sid:
                    self._deny(f"size its set {self.token!r}, for that is not")
                return AdjustSet(sid, quota), self._show
            case AdjustSet():
                pass
            case Explain(ioasid=ioasid):
                sid = self._set(request)
                return request, lambda answer: self._show_why(answer, sid, ioasid)
            case FindSid(ioasid=ioasid, generation=generation):
                return Find(ioasid, self._set(request), generation), self._show_sid
            case _ if kind in OF_A_SET:
                asked: Any = request
                return replace(asked, sid=self._set(request)), self._show
            case _:
                pass
        raise PermissionDenied(Role.TENANT, f"send {kind.__name__}")

    def _deny(self, what: str) -> NoReturn:
        raise PermissionDenied(Role.TENANT, f"{what} in its group {self._permit.group!r}")

    def _set(self, request: Any) -> int:
        # Whichever set a request names, if it is not the tenant's own there is none.
        named: Any = getattr(request, "sid", None)
        if named is not None and (type(named) is not int or named != self.sid):
            raise UnknownSet(_check.number(named, "sid"))
        if self.sid is None:
            if hasattr(request, "ioasid"):
                raise UnknownIoasid(_check.ioasid(request.ioasid))
            raise UnknownToken(self.token)
        return self.sid

    def _check_scope(self, sid: Any, token: Any) -> None:
        if sid is None and token is None:
            raise PermissionDenied(Role.TENANT, "subscribe to the whole system")
        if token is not None and token != self.token:
            raise PermissionDenied(Role.TENANT, "subscribe to another token")
        if sid is not None and sid != self.sid:
            raise UnknownSet(_check.number(sid, "sid"))

    # -- what comes back ----------------------------------------------------------------------

    def _show(self, answer: Any) -> Any:
        self.learn(answer)
        match answer:
            case NotOfThisSet(ioasid=ioasid, others=others):
                return UnknownIoasid(ioasid, others)
            case StaleIoasid(ioasid=ioasid):
                return UnknownIoasid(ioasid)
            case UnknownSet(sid=sid) if sid == self.sid:
                # It may have another one since: the next request looks it up.
                self.sid = None
                return answer
            case IoasidFreePending(ioasid=ioasid) if answer.__cause__ is not None:
                # It is in quarantine, and of another set.
                return UnknownIoasid(ioasid)
            case IoasidRecord(references=references):
                return replace(answer, references=self._own_names(references))
            case _:
                return answer

    def _show_sid(self, answer: Any) -> Any:
        shown = self._show(answer)
        return FoundSid(shown.sid) if type(shown) is IoasidRecord else shown

    def _show_why(self, answer: Any, sid: int, ioasid: Any) -> Any:
        shown = self._show(answer)
        if type(shown) is not Explanation:
            return shown
        if shown.sid != sid:
            return UnknownIoasid(ioasid)
        references = [
            replace(each, holder=self._known(each.holder), ends=self._waits(each.ends))
            for each in shown.references
        ]
        return replace(
            shown,
            references=tuple(sorted(references, key=lambda each: each.holder)),
            events=tuple(self._event(each) for each in shown.events),
        )

    def _event(self, event: EventInFlight) -> EventInFlight:
        publisher = event.publisher
        return replace(
            event,
            publisher=None if publisher is None else self._known(publisher),
            waits_for=self._waits(event.waits_for),
            then=tuple(
                replace(each, subscribers=tuple((self._known(a), b) for a, b in each.subscribers))
                for each in event.then
            ),
        )

    def _waits(self, found: tuple[Awaited, ...]) -> tuple[Awaited, ...]:
        return tuple(replace(each, holder=self._known(each.holder)) for each in found)

    def _page(self, answer: Any, after: Any) -> Any:
        self.learn(answer)
        if type(answer) is SetRecord:
            past = type(after) is int and after >= answer.sid
            return SetPage(() if past else (answer,), None)
        return SetPage((), None) if type(answer) is UnknownToken else answer

    def message(self, message: Event | Resync) -> Event | Resync:
        """Return what the tenant is told of a message."""
        if type(message) is Event:
            self.sid = message.sid
            if message.publisher is not None and not self._is_own(message.publisher):
                return replace(message, publisher=ANOTHER)
        return message

    def _own_names(self, references: dict[str, int]) -> dict[str, int]:
        shown: dict[str, int] = {}
        for name, count in references.items():
            known = self._known(name)
            shown[known] = shown.get(known, 0) + count
        return shown

    def _known(self, name: str) -> str:
        return name if self._is_own(name) else ANOTHER

    def _is_own(self, name: str) -> bool:
        return bool(self._permit.holders) and name.startswith(self._permit.holders)
