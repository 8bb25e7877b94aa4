"""Doing what an explanation says has to be done, and what everybody else could do."""

from collections.abc import Callable, Collection
from typing import Final

from attrs import define

from ioasid.core import (
    Acknowledge,
    Allocator,
    Awaited,
    Evict,
    Explain,
    Explanation,
    IoasidError,
    OpenSession,
    Place,
    Put,
    SessionOpened,
    Snapshot,
    Subscribe,
    UnknownIoasid,
)
from tests.core.helpers import expect

ROUNDS: Final = 200
"""More than any history needs."""


@define
class Resolver:
    """Whoever may act for every holder of an allocator."""

    core: Allocator
    evicts: Callable[[], bool] = lambda: False
    """Whether a suspended holder is evicted now, or else comes back."""

    def explain(self, ioasid: int) -> Explanation | None:
        """The explanation of an ID; `None` if it is back in the pool."""
        try:
            answer = self.core.handle(self.core.session, Explain(ioasid))
        except UnknownIoasid:
            return None
        return expect(Explanation, answer)

    def resolve(self, ioasid: int) -> None:
        """Let those that are named do what they have to, again and again, until the ID is back."""
        found: Explanation | None = None
        for _ in range(ROUNDS):
            found = self.explain(ioasid)
            if found is None:
                return
            assert found.blockers, found
            for held in found.references:
                if held.taken and not self.gone(held.holder):
                    for _ in range(held.taken):
                        self.core.handle(self.session(held.holder), Put(ioasid))
                self.finish(held.ends)
            for event in found.events:
                self.finish(event.waits_for)
        raise AssertionError(f"{ioasid} is still not back: {found}")

    def finish(self, awaited: Collection[Awaited]) -> None:
        """Acknowledge what is awaited, as far as it is in anybody's queue."""
        for each in awaited:
            match each.place:
                case Place.SUSPENDED:
                    if not self.gone(each.holder):
                        self.come_back(each.holder)
                case Place.FOLDED:
                    self.acknowledge(each.subscription)
                case _:
                    assert each.seq is not None
                    messages = ((each.subscription, each.seq),)
                    # It may have acknowledged that with the last message, or left with all of them.
                    try:
                        self.core.handle(self.session(each.holder), Acknowledge(messages))
                    except IoasidError:
                        assert self.gone(each.holder)

    def everybody_else(self, name: str) -> None:
        """Let all but one come back, acknowledge and put everything, until nothing changes."""
        for _ in range(ROUNDS):
            before = self.core.snapshot()
            for holder in before.holders:
                if holder.name != name:
                    self.come_back(holder.name)
            for each in self.core.snapshot().subscriptions:
                if each.holder != name:
                    self.acknowledge(each.number)
            for holder in self.core.snapshot().holders:
                if holder.name != name:
                    for ioasid, count in zip(holder.referenced, holder.counts, strict=True):
                        for _ in range(count):
                            self.core.handle(self.session(holder.name), Put(ioasid))
            if before == self.core.snapshot():
                return
        raise AssertionError("it never comes to rest")

    # -- as one holder ------------------------------------------------------------------------

    def gone(self, name: str) -> bool:
        """Whether a holder is no more; a suspended one may be evicted now."""
        sessions = {each.name: each.session for each in self.state().holders}
        if name in sessions and sessions[name] is None and self.evicts():
            self.core.handle(self.core.session, Evict(name))
            return True
        return name not in sessions

    def session(self, name: str) -> int:
        """The session of a holder, opened again if it is suspended."""
        sessions = {each.name: each.session for each in self.state().holders}
        return (
            sessions[name] or expect(SessionOpened, self.core.handle(0, OpenSession(name))).session
        )

    def come_back(self, name: str) -> None:
        """Let a holder take up what a crash of its own or of a consumer left behind."""
        session = self.session(name)
        for each in self.state().subscriptions:
            if each.holder == name and not each.attached:
                terms = Subscribe(
                    each.sid,
                    each.token,
                    frozenset(each.kinds),
                    each.priority,
                    each.hold,
                    queue_size=each.queue_size,
                )
                self.core.handle(session, terms)

    def acknowledge(self, number: int) -> None:
        """Acknowledge all that a subscription was given."""
        for each in self.state().subscriptions:
            if each.number == number and each.outstanding:
                messages = tuple((number, offer.seq) for offer in each.outstanding)
                self.core.handle(self.session(each.holder), Acknowledge(messages))

    def state(self) -> Snapshot:
        """All there is."""
        return self.core.snapshot()
