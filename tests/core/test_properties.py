"""The core against a model: any requests in any order, and the same answers at every step.

Hypothesis asks an allocator and the model in `tests.core.model` the same, as several holders and
subscribers, and compares the replies and errors, what is sent to whom, and all that can be looked
up. The allocator checks every invariant after each request, by the named functions that all tools
share (`ioasid.testing`). A failure is shown as the shortest program that brings it.

The examples are the same in every run. `IOASID_EXAMPLES=5000` in the environment looks for that
many new ones, a batch at a time.
"""

import faulthandler
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias, TypeVar

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from ioasid import core
from ioasid.core import Allocator, ReuseOrder, TokenType, decode_snapshot, encode
from ioasid.testing import CheckedAllocator, check_state, nothing_leaks, unchanged
from tests.core.model import Model
from tests.core.model_events import Subscriber
from tests.core.strategies import (
    CAPACITY,
    HOLDERS,
    TOKENS,
    allocations,
    any_sid,
    bindings,
    frees_of_many,
    ids,
    look_ups,
    moves,
    names,
    notes,
    references,
    set_requests,
    some,
    terms,
)

EXAMPLES: Final = int(os.environ.get("IOASID_EXAMPLES", "0"))
BATCH: Final = 100
SETTINGS: Final = settings(
    max_examples=BATCH,
    stateful_step_count=100,
    deadline=None,
    database=None,
    derandomize=not EXAMPLES,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
HOST: Final = "host"

T = TypeVar("T")
UsesIoasid: TypeAlias = (
    core.Get
    | core.Put
    | core.AttachData
    | core.DetachData
    | core.Notify
    | core.AttachSpid
    | core.DetachSpid
    | core.Free
)


class AllocatorMachine(RuleBasedStateMachine):
    """An allocator, the model of it, and everything that may be asked of both."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator: Allocator = CheckedAllocator(CAPACITY, holder=HOST)
        self.model = Model(CAPACITY)
        self.model.open(HOST)
        self.sound = True

    # -- one step -----------------------------------------------------------------------------

    def ask(self, name: str, request: core.Request) -> None:
        """Ask both, as a holder or who is there instead of it, and compare all there is."""
        live = [each for each, session in self.model.holders.items() if session is not None]
        name = name if name in live else live[-1]
        session = self.model.holders[name] or 0
        self.sound = False
        expected = outcome(lambda: self.model.ask(name, request))
        assert expected == outcome(lambda: self.allocator.handle(session, request))
        self.compare()
        self.sound = True

    def compare(self) -> None:
        """Compare what comes out of both, and what can be looked up in them."""
        effects = self.allocator.drain()
        expected, self.model.effects = self.model.effects, []
        assert by_receiver(expected) == by_receiver(effects)
        check_state(self.allocator)
        session = self.model.holders[HOST]
        assert session is not None
        figures = self.allocator.handle(session, core.TakeStatistics())
        assert isinstance(figures, core.Statistics)
        assert but_for_ties(self.model.statistics()) == but_for_ties(figures)
        for sid in self.model.sets:
            found = self.allocator.handle(session, core.FindSet(sid=sid))
            assert self.model.set_record(sid) == found
        for ioasid in range(self.model.capacity):
            record = self.model.record(ioasid) if ioasid in self.model.lives else None
            assert record == self.allocator.record(ioasid)
            if record is not None and record.state is core.IoasidState.FREE_PENDING:
                request = core.Explain(ioasid)
                assert self.model.ask(HOST, request) == self.allocator.handle(session, request)

    def subscriber(self, which: int) -> Subscriber | None:
        """A subscriber, most often one with something to acknowledge."""
        present = self.model.subscribers.values()
        return pick([each for each in present if each.inbox] or present, which, None)

    def of_live(self, request: UsesIoasid, which: int) -> UsesIoasid:
        """A request about a live ID, most of the time; if there is none, one is allocated."""
        if not self.model.lives:
            self.ask(HOST, core.AllocSet(None, 2, TokenType.NULL))
            self.ask(HOST, core.Alloc(max(self.model.sets, default=0)))
        found = pick(sorted(self.model.lives), which, 1)
        return request if which >= 90 else replace(request, ioasid=found)

    def taken(self, each: Subscriber, which: int) -> int:
        """A message that a subscriber may have taken; of a restored allocator, any."""
        seqs = [told.seq for told in each.inbox]
        if isinstance(self.allocator, CheckedAllocator):
            # It follows what its subscribers know, and they know only what they have taken.
            seqs = [seq for seq in seqs if seq == each.in_hand or seq in each.aside]
        return pick(seqs, which, which)

    # -- rules: requests ----------------------------------------------------------------------

    @initialize(
        order=st.sampled_from(ReuseOrder),
        reserve_zero=st.sampled_from((True, True, False)),
        capacity=st.sampled_from((CAPACITY, 12, 40)),
        quotas=st.tuples(st.integers(3, 6), st.integers(2, 6)),
        subscribers=st.lists(st.tuples(names, terms), min_size=2, max_size=6),
        count=st.integers(0, 3),
    )
    def begin(
        self,
        order: ReuseOrder,
        reserve_zero: bool,
        capacity: int,
        quotas: tuple[int, int],
        subscribers: Sequence[tuple[str, core.Subscribe]],
        count: int,
    ) -> None:
        """Begin with the holders, two sets, some subscribers and a few IDs."""
        self.allocator = CheckedAllocator(
            CAPACITY, holder=HOST, order=order, reserve_zero=reserve_zero
        )
        self.model.cyclic = order is ReuseOrder.CYCLIC
        if not reserve_zero:
            self.model.numbers.clear()
        self.ask(HOST, core.InstallCapacity(capacity))
        for name in HOLDERS:
            self.ask(HOST, core.OpenSession(name))
        self.ask(HOST, core.AllocGroup("tenant", quotas[0]))
        for token, quota in zip(TOKENS, quotas, strict=True):
            self.ask(HOST, core.AllocSet(token, quota, group="tenant"))
            self.ask(HOST, core.AllocSet(token, quota))
        for name, each in subscribers:
            self.ask(name, each)
        self.ask(HOST, core.AllocMany(0, count))
        self.ask(HOST, core.Alloc(1))

    @rule(name=names, request=set_requests | look_ups)
    def ask_for_sets(self, name: str, request: core.Request) -> None:
        """Make, change and look up sets, and what is in them."""
        self.ask(name, request)

    @rule(name=names, request=moves, again=st.sampled_from((None, None, core.ThawSet)))
    def move(self, name: str, request: core.Request, again: type[core.ThawSet] | None) -> None:
        """Freeze, thaw, export, import and activate sets."""
        self.ask(name, request)
        if again is not None and isinstance(request, core.FreezeSet):
            self.ask(name, again(request.sid))

    @rule(which=some, wait=st.booleans())
    def move_away(self, which: int, wait: bool) -> None:
        """Freeze a set and let it come back as another one, to be activated or freed."""
        sid = pick(sorted(self.model.sets), which, 0)
        self.ask(HOST, core.FreezeSet(sid, wait))
        try:
            export = self.allocator.handle(self.model.holders[HOST] or 0, core.ExportSet(sid))
        except core.IoasidError:
            return
        assert isinstance(export, core.SetExport)
        self.ask(HOST, core.ExportSet(sid))
        self.ask(HOST, core.FreeSet(sid))
        self.ask(HOST, core.ImportSet(export))

    @rule(name=names, request=allocations)
    def allocate(self, name: str, request: core.Request) -> None:
        """Allocate IDs."""
        self.ask(name, request)

    @rule(name=names, request=references | notes, which=some, times=st.sampled_from((1, 1, 1, 17)))
    def use(self, name: str, request: UsesIoasid, which: int, times: int) -> None:
        """Take and drop references, attach and detach data, and publish until it is too much."""
        for _ in range(times if isinstance(request, core.Notify) else 1):
            self.ask(name, self.of_live(request, which))

    @rule(name=names, request=bindings, which=some, times=st.sampled_from((0, 0, 0, 1, 8)))
    def bind(self, name: str, request: UsesIoasid, which: int, times: int) -> None:
        """Bind or unbind, or both again and again."""
        request = self.of_live(request, which)
        for _ in range(times):
            self.ask(name, core.DetachSpid(request.ioasid))
            self.ask(name, core.AttachSpid(request.ioasid, 9))
        self.ask(name, request)

    @rule(
        name=names,
        request=st.builds(core.Free, ids, any_sid, st.booleans()),
        which=some,
        unbind=st.booleans(),
    )
    def free(self, name: str, request: UsesIoasid, which: int, unbind: bool) -> None:
        """Free an ID, early or late, once or again, perhaps wait, and perhaps unbind too late."""
        request = self.of_live(request, which)
        self.ask(name, request)
        if unbind:
            self.ask(name, core.DetachSpid(request.ioasid))

    @rule(name=names, request=frees_of_many, which=some, count=st.integers(1, 4))
    def free_many(self, name: str, request: core.FreeMany, which: int, count: int) -> None:
        """Free several IDs at once, most of the time all of one set."""
        sid = pick(sorted(self.model.sets), which, 0)
        mine = [ioasid for ioasid, life in sorted(self.model.lives.items()) if life.sid == sid]
        start = which % max(len(mine), 1)
        ranges = tuple(core.IoasidRange(each, each) for each in mine[start : start + count])
        self.ask(name, request if which >= 90 else core.FreeMany(sid, ranges))

    @rule(which=some, early=st.booleans())
    def put_back(self, which: int, early: bool) -> None:
        """Drop a reference that somebody took, perhaps after the ID was freed."""
        holders = self.model.holders
        held = [(name, each) for name in holders for each, _ in self.model.referenced(name)]
        if held:
            name, ioasid = held[which % len(held)]
            if early:
                self.ask(HOST, core.Free(ioasid))
            self.ask(name, core.Put(ioasid))

    # -- rules: subscribers and holders -------------------------------------------------------

    @rule(name=names, terms=terms)
    def subscribe(self, name: str, terms: core.Subscribe) -> None:
        """Subscribe, once to a scope."""
        self.ask(name, terms)

    @rule(which=some, other=terms, same=st.sampled_from((True, True, True, False)))
    def come_back(self, which: int, other: core.Subscribe, same: bool) -> None:
        """Come back to a subscription that a crash left behind."""
        left = [each for each in self.model.subscribers.values() if not each.attached]
        each = pick(left, which, None)
        if each is not None:
            old = each.terms
            kept = old if same else other
            self.ask(HOST, core.OpenSession(each.holder))
            self.ask(
                each.holder,
                core.Subscribe(
                    old.sid,
                    old.token,
                    kept.kinds,
                    kept.priority,
                    kept.hold,
                    queue_size=other.queue_size,
                    acknowledge_within=other.acknowledge_within,
                ),
            )

    @rule(which=some, message=some)
    def acknowledge(self, which: int, message: int) -> None:
        """Acknowledge any message that a subscriber has taken, or none."""
        each = self.subscriber(which)
        if each is not None:
            self.ask(each.holder, core.Acknowledge(((each.number, self.taken(each, message)),)))

    @rule(which=some, times=st.integers(1, 5))
    def take_next(self, which: int, times: int) -> None:
        """Acknowledge what is in a subscriber's hands by coming back for more."""
        each = self.subscriber(which)
        for _ in range(times):
            if each is not None and each.in_hand is not None:
                self.ask(each.holder, core.Acknowledge(((each.number, each.in_hand),)))

    @rule(which=some, message=some)
    def defer(self, which: int, message: int) -> None:
        """Come back for more without acknowledging what is in a subscriber's hands."""
        each = self.subscriber(which)
        if each is not None:
            self.ask(each.holder, core.Defer(each.number, self.taken(each, message)))

    @rule(name=names, number=st.integers(0, 5), seq=st.integers(0, 9))
    def meddle(self, name: str, number: int, seq: int) -> None:
        """Speak of a subscription that is another's, or of none."""
        if all(
            number != each.number or name != each.holder for each in self.model.subscribers.values()
        ):
            self.ask(name, core.Unsubscribe(number))
            self.ask(name, core.Detach(number))
            self.ask(name, core.Acknowledge(((number, seq),)))
            self.ask(name, core.Defer(number, seq))

    @rule(which=some, crashes=st.booleans())
    def end_subscription(self, which: int, crashes: bool) -> None:
        """End a subscription, or let its consumer crash."""
        each = self.subscriber(which)
        if each is not None:
            end = core.Detach if crashes else core.Unsubscribe
            self.ask(each.holder, end(each.number))

    @rule(
        name=names,
        request=st.one_of(
            st.builds(core.OpenSession, names),
            st.builds(core.Evict, names),
            st.just(core.SuspendSession()),
            st.just(core.CloseSession()),
        ),
    )
    def come_or_go(self, name: str, request: core.Request) -> None:
        """Join or come back, crash, leave or be declared dead; that session is over then."""
        if isinstance(request, core.OpenSession | core.Evict):
            name, by = request.name, HOST
        else:
            by = name
        session = self.model.holders.get(name)
        if by == HOST or session is not None:
            self.ask(by, request)
        if session is not None and session != self.model.holders.get(name):
            ended = outcome(lambda: self.allocator.handle(session, core.TakeStatistics()))
            assert (core.SessionEnded, {"session": session}) == ended

    # -- rules: the driver --------------------------------------------------------------------

    @rule(seconds=st.integers(0, 9), which=some)
    def tick(self, seconds: int, which: int) -> None:
        """Let time pass, and somebody give up waiting."""
        self.model.now += seconds
        self.allocator.handle(0, core.Tick(self.model.now))
        ticket = pick([*self.model.waiting, *self.model.freezes], which, 0)
        self.model.waiting.pop(ticket, None)
        self.model.freezes.pop(ticket, None)
        self.allocator.handle(0, core.Abandon(ticket))
        self.compare()

    @rule(crashed=st.sampled_from((False, False, False, True)))
    def restore(self, crashed: bool) -> None:
        """Go on with an allocator restored from the bytes of a snapshot, perhaps after a crash."""
        if crashed:
            self.allocator.handle(0, core.SuspendAll())
            self.model.ask(HOST, core.SuspendAll())
        before = self.allocator.snapshot()
        # Who checks what subscribers know has to see them begin.
        kind = CheckedAllocator if crashed else Allocator
        self.allocator = kind.restore(decode_snapshot(encode(before)))
        unchanged(before, self.allocator)
        self.model.restored()
        if crashed:
            assert self.model.open(HOST) == self.allocator.handle(0, core.OpenSession(HOST))
        self.compare()

    # -- the end ------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let everybody finish, free all and leave: nothing is left of anything."""
        if not self.sound:
            return
        self.come_to_rest()
        for sid in sorted(self.model.sets):
            self.ask(HOST, core.FreeSet(sid))
        self.come_to_rest()
        for name in HOLDERS:
            self.ask(HOST, core.Evict(name))
        assert ({}, {}, {}) == (self.model.sets, self.model.lives, self.model.waiting)
        assert {HOST} == self.model.holders.keys()
        self.ask(HOST, core.CancelCapacity(max(self.model.reserved, 1)))
        for group in sorted(self.model.groups, key=lambda each: -len(self.model.above(each))):
            self.ask(HOST, core.FreeGroup(group))
        assert self.model.capacity == self.model.available + len(self.model.numbers)
        self.allocator.handle(self.model.holders[HOST] or 0, core.CloseSession())
        self.allocator.drain()
        nothing_leaks(self.allocator)

    def come_to_rest(self) -> None:
        """Let everybody come back, acknowledge all that it is given and put all that it took."""
        for name in (*HOLDERS, HOST):
            self.ask(HOST, core.OpenSession(name))
            for ioasid, count in self.model.referenced(name):
                for _ in range(count):
                    self.ask(name, core.Put(ioasid))
        present = self.model.subscribers
        while owing := [each for each in present.values() if each.inbox or not each.attached]:
            for each in owing:
                if not each.attached:
                    self.ask(each.holder, each.terms)
                for told in tuple(each.inbox):
                    if each.number in present:
                        self.ask(each.holder, core.Acknowledge(((each.number, told.seq),)))


def outcome(decide: Callable[[], core.Answer]) -> object:
    """A reply, or the type and the facts of an error."""
    try:
        return decide()
    except core.InvalidArgument as error:
        return core.InvalidArgument, error.argument
    except core.IoasidError as error:
        return type(error), attrs.asdict(error)


def but_for_ties(figures: core.Statistics) -> core.Statistics:
    """Figures without which of several messages that were missed at once is named the oldest."""
    lagging = tuple(
        each if each.attached else replace(each, oldest_seq=0) for each in figures.lagging
    )
    return replace(figures, lagging=lagging)


def by_receiver(effects: Iterable[core.Effect]) -> dict[object, list[core.Effect]]:
    """What is to be done, in order, for each subscription, and for callers that wait for the same.

    Nothing is said of the order between one that waits for a reclaim and one for a freeze.
    """
    found: dict[object, list[core.Effect]] = {}
    for effect in effects:
        match effect:
            case core.Complete(_, answer):
                found.setdefault(type(answer), []).append(effect)
            case core.AskAgain():
                found.setdefault(core.AskAgain, []).append(effect)
            case core.Expel():
                found.setdefault(core.Expel, []).append(effect)
            case core.Deliver(subscriptions, message):
                for number in subscriptions:
                    found.setdefault(number, []).append(core.Deliver((number,), message))
            case _:
                found.setdefault(effect.subscription, []).append(effect)
    return found


def pick(among: Iterable[T], which: int, otherwise: T) -> T:
    """One of several, or something else if there are none."""
    found = list(among)
    return found[which % len(found)] if found else otherwise


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(-(-EXAMPLES // BATCH) or 1))
def test_core_does_what_the_model_says(batch: int) -> None:
    """Whatever is asked in whatever order, the core and the model answer and tell the same."""
    # To find the shortest program that fails may take longer than a test that hangs is given.
    faulthandler.cancel_dump_traceback_later()
    run_state_machine_as_test(AllocatorMachine, settings=SETTINGS)
