"""An allocator that any holder asks anything of, joining when it has to; and what it owes."""

from collections.abc import Callable
from typing import Final

from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ioasid.core import (
    Acknowledge,
    Allocator,
    AllocSet,
    Answer,
    IoasidError,
    OpenSession,
    Priority,
    Request,
    SessionOpened,
    Subscribe,
)
from tests.core.strategies import CAPACITY, HOLDERS, TOKENS, anything, names, some

SETTINGS: Final = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@define
class Owed:
    """Some of what subscribers have yet to acknowledge, whatever that is then."""

    by: int
    which: list[int]


Step = tuple[str, Request] | Owed

steps: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(names, anything),
        st.tuples(names, anything),
        st.builds(Owed, some, st.lists(some, min_size=1, max_size=4)),
    ),
    min_size=10,
    max_size=80,
)
"""A history: who asks what, and when what is acknowledged."""


@define(eq=False)
class Play:
    """An allocator of two sets, and its holders."""

    core: Allocator = field(factory=lambda: Allocator(CAPACITY))

    def begin(self) -> None:
        """Make the sets, with a subscriber in each of three tiers."""
        for token in TOKENS:
            self.ask("host", AllocSet(token, 6))
        tiers = Priority.CPU, Priority.DEVICE, Priority.LAST
        for name, priority in zip(HOLDERS, tiers, strict=False):
            self.ask(name, Subscribe(priority=priority, hold=priority is Priority.CPU))

    def session(self, name: str) -> int:
        """The session of a holder, opened if it has none."""
        for holder in self.core.snapshot().holders:
            if holder.name == name and holder.session is not None:
                return holder.session
        opened = self.core.handle(0, OpenSession(name))
        assert isinstance(opened, SessionOpened)
        return opened.session

    def ask(self, name: str, request: Request) -> Answer | None:
        """Ask as a holder; `None` if it is refused."""
        try:
            return self.core.handle(self.session(name), request)
        except IoasidError:
            return None

    def owed(self, step: Owed) -> tuple[str, Acknowledge] | None:
        """What a holder acknowledges in a step, if it owes anything."""
        owing: dict[str, list[tuple[int, int]]] = {}
        for each in self.core.snapshot().subscriptions:
            found = [(each.number, offer.seq) for offer in each.outstanding]
            if found:
                owing.setdefault(each.holder, []).extend(found)
        if not owing:
            return None
        name = sorted(owing)[step.by % len(owing)]
        mine = owing[name]
        return name, Acknowledge(tuple(mine[which % len(mine)] for which in step.which))

    def run(self, history: list[Step], after: Callable[[], None]) -> None:
        """Do everything, and look after each request."""
        self.begin()
        after()
        for step in history:
            asked = self.owed(step) if isinstance(step, Owed) else step
            if asked is not None:
                self.session(asked[0])
                after()
                self.ask(*asked)
                after()
