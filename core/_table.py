"""The subscriber's table: what is alive and bound, as the messages of one subscription say.

A subscriber is given events, or a `Resync` in place of events. `SubscriberTable` takes either and
says what began and what ended, so that nobody has to compare listings by hand.

Every message is taken at its word. Which ones may follow each other (invariant 5) depends on the
kinds that a subscriber gets and on when it came, and the allocator answers for it; a driver that
stopped over a message would be less safe than one that believes the newest. So there is a move
for every event in every state, and one that skips something ends what it implies to be over.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, TypeAlias

from msgspec import Struct

from ioasid.core._errors import InvalidArgument
from ioasid.core._events import Event, Resync
from ioasid.core._terms import EventKind, Ioasid, IoasidState

__all__ = ["Began", "Binding", "Change", "Ended", "Life", "SubscriberTable", "ended_by"]


class Life(Struct, frozen=True, gc=False):
    """One life of an ID: from its allocation until it is freed.

    `generation` tells it from the lives that the ID had before and has after.
    """

    ioasid: int
    sid: int
    token: str | None
    generation: int = 0


class Binding(Struct, frozen=True, gc=False):
    """One binding of an ID to a spid, which is part of one life."""

    ioasid: int
    spid: int
    sid: int
    token: str | None
    generation: int = 0


class Began(Struct, frozen=True, gc=False):
    """A life or a binding is in the table from now on."""

    what: Life | Binding


class Ended(Struct, frozen=True, gc=False):
    """A life or a binding that had begun is over: let go of it."""

    what: Life | Binding


Change: TypeAlias = Began | Ended
"""What a message made of the table."""


class _Step(Enum):
    BEGIN_LIFE = auto()
    BEGIN_BINDING = auto()
    END_BINDING = auto()
    END_LIFE = auto()


class _State(Enum):
    ABSENT = auto()
    UNBOUND = auto()
    BOUND = auto()


_BEGIN_LIFE, _BEGIN_BINDING, _END_BINDING, _END_LIFE = _Step
_ABSENT, _UNBOUND, _BOUND = _State

_MOVES: Final[dict[EventKind, dict[_State, tuple[_Step, ...]]]] = {
    EventKind.ALLOC: {
        _ABSENT: (_BEGIN_LIFE,),
        _UNBOUND: (_END_LIFE, _BEGIN_LIFE),
        _BOUND: (_END_BINDING, _END_LIFE, _BEGIN_LIFE),
    },
    EventKind.BIND: {
        _ABSENT: (_BEGIN_LIFE, _BEGIN_BINDING),
        _UNBOUND: (_BEGIN_BINDING,),
        _BOUND: (_END_BINDING, _BEGIN_BINDING),
    },
    EventKind.UNBIND: {
        _ABSENT: (_BEGIN_LIFE,),
        _UNBOUND: (),
        _BOUND: (_END_BINDING,),
    },
    EventKind.FREE: {
        _ABSENT: (),
        _UNBOUND: (_END_LIFE,),
        _BOUND: (_END_BINDING, _END_LIFE),
    },
    EventKind.RECLAIM: {
        _ABSENT: (),
        _UNBOUND: (_END_LIFE,),
        _BOUND: (_END_BINDING, _END_LIFE),
    },
}
"""What an event makes of an ID, by what the table has of it."""


class SubscriberTable:
    """The lives and bindings that one subscription has been told of, and no more.

    It works with any kinds: without ALLOC a life begins with the first event that shows it,
    without FREE it ends with RECLAIM, and without either when a later life or a `Resync` shows
    that it is over. Beginnings and ends of the same thing alternate, and nothing ends that had not
    begun.
    """

    def __init__(self) -> None:
        self._lives: dict[int, Life] = {}
        self._bindings: dict[int, Binding] = {}
        # By spid and set: of two, the one that began last.
        self._spids: dict[int, dict[int, Binding]] = {}

    @property
    def lives(self) -> Mapping[int, Life]:
        """The lives that have begun and not ended, by ID; a view."""
        return MappingProxyType(self._lives)

    @property
    def bindings(self) -> Mapping[int, Binding]:
        """The bindings that have begun and not ended, by ID; a view."""
        return MappingProxyType(self._bindings)

    def find_by_spid(self, spid: int, sid: int | None = None) -> Binding | None:
        """Return the binding of a spid in a set, or in any set; `None` if there is none.

        Of several the one that began last: when a spid moves from one ID to another, the end of
        the old binding may be told after the beginning of the new one, and changes nothing here.
        """
        of_sets = self._spids.get(spid, {})
        if sid is not None:
            return of_sets.get(sid)
        return next(reversed(of_sets.values()), None)

    def update(self, message: Event | Resync) -> tuple[Change, ...]:
        """Take the subscription's next message; return what it ends and begins, in that order.

        A binding ends before its life and begins after it. Several IDs, of a `Resync`, come in
        ascending order, all ends first. A publisher's own event changes nothing.

        Raises `InvalidArgument` for what is no such message, or a BIND without a spid; the table
        is as it was then, and usable.
        """
        match message:
            case Event():
                return self._follow(message)
            case Resync():
                return self._compare(message)
            case _:
                raise InvalidArgument.of("message", message, "an Event or a Resync")

    def _follow(self, event: Event) -> tuple[Change, ...]:
        if event.publisher is not None:
            return ()
        ioasid = event.ioasid
        if event.kind is EventKind.BIND and event.spid is None:
            raise InvalidArgument.of("message", event, "a BIND with its spid")
        state = _ABSENT
        over: tuple[_Step, ...] = ()
        life = self._lives.get(ioasid)
        if life is not None:
            state = _BOUND if ioasid in self._bindings else _UNBOUND
            if life.generation != event.generation:
                # Of its end it was told nothing, for the kinds that it gets.
                over, state = _MOVES[EventKind.RECLAIM][state], _ABSENT
        return tuple(self._take(step, event) for step in over + _MOVES[event.kind][state])

    def _take(self, step: _Step, event: Event) -> Change:
        if step is _BEGIN_LIFE:
            return self._begin_life(Life(event.ioasid, event.sid, event.token, event.generation))
        if step is _BEGIN_BINDING:
            assert event.spid is not None
            return self._begin_binding(
                Binding(event.ioasid, event.spid, event.sid, event.token, event.generation)
            )
        if step is _END_BINDING:
            return self._end_binding(event.ioasid)
        return self._end_life(event.ioasid)

    def _compare(self, resync: Resync) -> tuple[Change, ...]:
        shown = [each for each in resync if each.state is IoasidState.ACTIVE]
        lives = {
            each.ioasid: Life(each.ioasid, each.sid, each.token, each.generation) for each in shown
        }
        bindings = {
            each.ioasid: Binding(each.ioasid, each.spid, each.sid, each.token, each.generation)
            for each in shown
            if each.spid is not None
        }
        changes: list[Change] = []
        for ioasid in sorted(self._lives):
            if self._bindings.get(ioasid) not in (None, bindings.get(ioasid)):
                changes.append(self._end_binding(ioasid))
            if self._lives[ioasid] != lives.get(ioasid):
                changes.append(self._end_life(ioasid))
        for ioasid in sorted(lives):
            if ioasid not in self._lives:
                changes.append(self._begin_life(lives[ioasid]))
            if ioasid in bindings and ioasid not in self._bindings:
                changes.append(self._begin_binding(bindings[ioasid]))
        return tuple(changes)

    def _begin_life(self, life: Life) -> Change:
        self._lives[life.ioasid] = life
        return Began(life)

    def _begin_binding(self, binding: Binding) -> Change:
        self._bindings[binding.ioasid] = binding
        of_sets = self._spids.setdefault(binding.spid, {})
        of_sets.pop(binding.sid, None)
        of_sets[binding.sid] = binding
        return Began(binding)

    def _end_binding(self, ioasid: int) -> Change:
        binding = self._bindings.pop(ioasid)
        of_sets = self._spids.get(binding.spid, {})
        if of_sets.get(binding.sid) is binding:
            del of_sets[binding.sid]
            if not of_sets:
                del self._spids[binding.spid]
        return Ended(binding)

    def _end_life(self, ioasid: int) -> Change:
        return Ended(self._lives.pop(ioasid))


def ended_by(message: Event | Resync) -> tuple[Ioasid, ...]:
    """Return the IDs, with their lives, of which a message says that a binding or life is over.

    For who has IDs that no message told it of, because it looked them up. An UNBIND, FREE or
    RECLAIM of the allocator names one; a `Resync` all that it shows in quarantine, each time. An
    ID that was only unbound while nobody listened is none of these: who lets go at UNBIND, too,
    compares what it has with `SubscriberTable.bindings`.
    Raises `InvalidArgument` for what is no such message.
    """
    match message:
        case Event():
            begins = message.kind in (EventKind.ALLOC, EventKind.BIND)
            if begins or message.publisher is not None:
                return ()
            return (Ioasid(message.ioasid, message.generation),)
        case Resync():
            pending = IoasidState.FREE_PENDING
            return tuple(
                Ioasid(each.ioasid, each.generation)
                for each in message.ioasids
                if each.state is pending
            )
        case _:
            raise InvalidArgument.of("message", message, "an Event or a Resync")
