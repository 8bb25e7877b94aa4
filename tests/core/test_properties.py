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
from ioasid.core import Allocator, EventKind, Priority, TokenType, decode_snapshot, encode
from ioasid.testing import CheckedAllocator, check_state, nothing_leaks, unchanged
from tests.core.model import HOLDING, Model
from tests.core.model_events import Subscriber

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
HOLDERS: Final = ("kvm", "vdcm", "vtd", "vfio")
TOKENS: Final = ("vm-1", "vm-2")
CAPACITY: Final = 16

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

some = st.integers(0, 99)
"""Picks one of the things that are there, however many."""
names = st.sampled_from(HOLDERS)
tokens = st.sampled_from(TOKENS)
sids = st.sampled_from((0, 0, 1, 1, 2))
any_sid = st.sampled_from((None, None, None, 0, 1))
quotas = st.none() | st.integers(0, 9)
ids = st.integers(0, 9)
spids = st.integers(0, 3)
kinds = st.sampled_from(
    (
        *(frozenset(EventKind), HOLDING) * 3,
        frozenset((EventKind.FREE,)),
        frozenset((EventKind.BIND, EventKind.FREE, EventKind.RECLAIM)),
        frozenset((EventKind.ALLOC, EventKind.RECLAIM)),
        frozenset(),
    )
)

set_requests = st.one_of(
    st.builds(core.InstallCapacity, st.sampled_from((CAPACITY, 0, 6, 2**32))),
    st.builds(core.ReserveCapacity, quotas),
    st.builds(core.CancelCapacity, st.integers(0, 6)),
    st.builds(core.AllocSystemSet, quotas),
    st.builds(core.AllocSet, tokens, quotas),
    st.builds(core.AllocSet, st.none(), quotas, st.just(TokenType.NULL)),
    st.builds(core.AllocSet, st.none() | tokens, quotas, st.sampled_from(TokenType)),
    st.builds(core.AdjustSet, sids, st.integers(0, 9)),
    st.builds(core.FreeSet, sids, st.booleans(), st.booleans()),
)
look_ups = st.one_of(
    st.builds(core.FindSid, ids),
    st.builds(core.FindSet, st.none() | tokens, st.none() | sids),
    st.builds(core.Find, ids, any_sid),
    st.builds(core.ListSet, sids),
    st.builds(core.FindBySpid, sids, spids, st.booleans()),
)
allocations = st.one_of(
    st.builds(core.Alloc, sids, st.just(1), st.none(), st.sampled_from((None, 7, "x"))),
    st.builds(core.Alloc, sids, st.sampled_from((0, 3, 9)), st.none() | st.integers(0, 17)),
    st.builds(core.AllocMany, sids, st.integers(0, 6), st.sampled_from((1, 0, 5))),
)
references = st.one_of(
    st.builds(core.Get, ids, any_sid),
    st.builds(core.Put, ids, any_sid),
    st.builds(core.AttachData, ids, st.sampled_from((7, "x")), any_sid),
    st.builds(core.DetachData, ids, any_sid),
)
bindings = st.one_of(
    st.builds(core.AttachSpid, ids, spids, any_sid),
    st.builds(core.DetachSpid, ids, any_sid),
)
notes = st.builds(core.Notify, ids, st.sampled_from(EventKind), any_sid)
scopes = st.one_of(
    st.just((None, None)),
    st.tuples(st.none(), tokens),
    st.tuples(sids, st.none()),
    st.tuples(st.just(0), st.none() | tokens),
)
terms = scopes.flatmap(
    lambda scope: st.builds(
        core.Subscribe,
        sid=st.just(scope[0]),
        token=st.just(scope[1]),
        kinds=kinds,
        priority=st.sampled_from(Priority),
        hold=st.booleans(),
        replay=st.booleans(),
        queue_size=st.sampled_from((1, 2, 4, 1024)),
        acknowledge_within=st.sampled_from((10.0, 1.0, None)),
    )
)


class AllocatorMachine(RuleBasedStateMachine):
    """An allocator, the model of it, and everything that may be asked of both."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator: Allocator = CheckedAllocator(CAPACITY, holder=HOST)
        self.model = Model(CAPACITY)
        self.model.open(HOST)
        self.ticket = 0
        self.sound = True

    # -- one step -----------------------------------------------------------------------------

    def ask(self, name: str, request: core.Request) -> None:
        """Ask both, as a holder or who is there instead of it, and compare all there is."""
        live = [each for each, session in self.model.holders.items() if session is not None]
        name = name if name in live else live[-1]
        session = self.model.holders[name] or 0
        self.sound = False
        self.ticket += 1
        expected = outcome(lambda: self.model.ask(name, request, self.ticket))
        assert expected == outcome(lambda: self.allocator.handle(session, request, self.ticket))
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
        assert self.model.statistics() == self.allocator.handle(session, core.TakeStatistics())
        for sid in self.model.sets:
            found = self.allocator.handle(session, core.FindSet(sid=sid))
            assert self.model.set_record(sid) == found
        for ioasid in range(self.model.capacity):
            record = self.model.record(ioasid) if ioasid in self.model.lives else None
            assert record == self.allocator.record(ioasid)

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
        capacity=st.sampled_from((CAPACITY, 12, 40)),
        quotas=st.tuples(st.integers(3, 6), st.integers(2, 6)),
        subscribers=st.lists(st.tuples(names, terms), min_size=2, max_size=6),
        count=st.integers(0, 3),
    )
    def begin(
        self,
        capacity: int,
        quotas: tuple[int, int],
        subscribers: Sequence[tuple[str, core.Subscribe]],
        count: int,
    ) -> None:
        """Begin with the holders, two sets, some subscribers and a few IDs."""
        self.ask(HOST, core.InstallCapacity(capacity))
        for name in HOLDERS:
            self.ask(HOST, core.OpenSession(name))
        for token, quota in zip(TOKENS, quotas, strict=True):
            self.ask(HOST, core.AllocSet(token, quota))
        for name, each in subscribers:
            self.ask(name, each)
        self.ask(HOST, core.AllocMany(0, count))
        self.ask(HOST, core.Alloc(1))

    @rule(name=names, request=set_requests | look_ups)
    def ask_for_sets(self, name: str, request: core.Request) -> None:
        """Make, change and look up sets, and what is in them."""
        self.ask(name, request)

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
            self.ask(each.holder, core.Acknowledge(each.number, self.taken(each, message)))

    @rule(which=some, times=st.integers(1, 5))
    def take_next(self, which: int, times: int) -> None:
        """Acknowledge what is in a subscriber's hands by coming back for more."""
        each = self.subscriber(which)
        for _ in range(times):
            if each is not None and each.in_hand is not None:
                self.ask(each.holder, core.Acknowledge(each.number, each.in_hand))

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
            self.ask(name, core.Acknowledge(number, seq))
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
        self.allocator.tick(self.model.now)
        ticket = pick(self.model.waiting, which, 0)
        self.model.waiting.pop(ticket, None)
        self.allocator.abandon(ticket)
        self.compare()

    @rule(crashed=st.sampled_from((False, False, False, True)))
    def restore(self, crashed: bool) -> None:
        """Go on with an allocator restored from the bytes of a snapshot, perhaps after a crash."""
        if crashed:
            self.allocator.suspend_all()
            live = {session: name for name, session in self.model.holders.items() if session}
            for session in sorted(live):
                self.model.ask(live[session], core.SuspendSession())
        before = self.allocator.snapshot()
        # Who checks what subscribers know has to see them begin.
        kind = CheckedAllocator if crashed else Allocator
        self.allocator = kind.restore(decode_snapshot(encode(before)))
        unchanged(before, self.allocator)
        self.model.restored()
        if crashed:
            assert self.model.open(HOST) == self.allocator.open_session(HOST)
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
                        self.ask(each.holder, core.Acknowledge(each.number, told.seq))


def outcome(decide: Callable[[], core.Reply | None]) -> object:
    """A reply, or the type and the facts of an error."""
    try:
        return decide()
    except core.InvalidArgument as error:
        return core.InvalidArgument, error.argument
    except core.IoasidError as error:
        return type(error), attrs.asdict(error)


def by_receiver(effects: Iterable[core.Effect]) -> dict[int, list[core.Effect]]:
    """What is to be done, in order, for each subscription, and for waiting callers (-1)."""
    found: dict[int, list[core.Effect]] = {}
    for effect in effects:
        receiver = -1 if isinstance(effect, core.Complete) else effect.subscription
        found.setdefault(receiver, []).append(effect)
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
