"""The core against a model: any requests in any order, and the same answers at every step.

Hypothesis asks an allocator and the model in `tests.core.model` the same, as several holders and
subscribers, and compares the replies and errors, what is sent to whom, and all that can be looked
up. The allocator checks every invariant after each request, by the named functions that all tools
share (`ioasid.testing`). A failure is shown as the shortest program that brings it.

The examples are the same in every run. `IOASID_EXAMPLES=5000` in the environment looks for that
many new ones.
"""

import faulthandler
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

import attrs
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from ioasid import core
from ioasid.core import Allocator, EventKind, Priority, TokenType, decode_snapshot, encode
from ioasid.testing import CheckedAllocator, check_state, nothing_leaks, unchanged
from tests.core.model import HOLDING, Model
from tests.core.model_events import Subscriber

EXAMPLES: Final = os.environ.get("IOASID_EXAMPLES")
SETTINGS: Final = settings(
    max_examples=int(EXAMPLES or 150),
    stateful_step_count=60,
    deadline=None,
    database=None,
    derandomize=EXAMPLES is None,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
HOST: Final = "host"
HOLDERS: Final = ("kvm", "vdcm", "vtd", "vfio")
CAPACITY: Final = 16

T = TypeVar("T")

some = st.integers(0, 99)
"""Picks one of the things that are there, however many."""
names = st.sampled_from(HOLDERS)
tokens = st.sampled_from(("vm-1", "vm-2"))
sids = st.sampled_from((0, 0, 1, 1, 2))
any_sid = st.sampled_from((None, None, None, 0, 1))
quotas = st.none() | st.integers(0, 9)
# The lowest free ID comes first, so these are mostly live.
ids = st.sampled_from((1, 1, 2, 2, 3, 3, 4, 5, 0, 9))
spids = st.integers(0, 3)
kinds = st.sampled_from((frozenset(EventKind), HOLDING)) | st.frozensets(st.sampled_from(EventKind))

set_requests = st.one_of(
    st.builds(core.InstallCapacity, st.sampled_from((CAPACITY, 0, 6, 2**32))),
    st.builds(core.ReserveCapacity, quotas),
    st.builds(core.CancelCapacity, st.integers(0, 6)),
    st.builds(core.AllocSystemSet, quotas),
    st.builds(core.AllocSet, tokens, quotas),
    st.builds(core.AllocSet, st.none(), quotas, st.just(TokenType.NULL)),
    st.builds(core.AllocSet, st.none() | tokens, quotas, st.sampled_from(TokenType)),
    st.builds(core.AdjustSet, sids, st.integers(0, 9)),
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
    st.builds(core.AttachSpid, ids, spids),
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
        """Ask both what a holder asks, if it has a session, and compare all there is."""
        session = self.model.holders.get(name)
        if session is None:
            return
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

    def taken(self, each: Subscriber, which: int) -> int:
        """A message that a subscriber may have taken; of a restored allocator, any."""
        seqs = [told.seq for told in each.inbox]
        if isinstance(self.allocator, CheckedAllocator):
            # It follows what its subscribers know, and they know only what they have taken.
            seqs = [seq for seq in seqs if seq == each.in_hand or seq in each.aside]
        return pick(seqs, which, which)

    # -- rules: requests ----------------------------------------------------------------------

    @initialize(
        capacity=st.sampled_from((CAPACITY, 6, 40)),
        quotas=st.lists(st.integers(1, 6), max_size=2),
        subscribers=st.lists(st.tuples(names, terms), max_size=5),
    )
    def begin(
        self,
        capacity: int,
        quotas: Sequence[int],
        subscribers: Sequence[tuple[str, core.Subscribe]],
    ) -> None:
        """Begin with the holders, some sets and some subscribers."""
        self.ask(HOST, core.InstallCapacity(capacity))
        for name in HOLDERS:
            self.ask(HOST, core.OpenSession(name))
        for token, quota in zip(("vm-1", "vm-2"), quotas, strict=False):
            self.ask(HOST, core.AllocSet(token, quota))
        for name, each in subscribers:
            self.ask(name, each)

    @rule(name=names, request=set_requests | look_ups)
    def ask_for_sets(self, name: str, request: core.Request) -> None:
        """Make, change and look up sets, and what is in them."""
        self.ask(name, request)

    @rule(name=names, request=allocations)
    def allocate(self, name: str, request: core.Request) -> None:
        """Allocate IDs."""
        self.ask(name, request)

    @rule(name=names, request=references)
    def refer(self, name: str, request: core.Request) -> None:
        """Take and drop references, attach and detach data."""
        self.ask(name, request)

    @rule(name=names, request=bindings, times=st.sampled_from((1, 1, 1, 9)))
    def bind(self, name: str, request: core.AttachSpid | core.DetachSpid, times: int) -> None:
        """Bind or unbind, or both again and again."""
        for _ in range(times - 1):
            self.ask(name, core.AttachSpid(request.ioasid, 9))
            self.ask(name, core.DetachSpid(request.ioasid))
        self.ask(name, request)

    @rule(name=names, request=notes, times=st.sampled_from((1, 1, 1, 17)))
    def notify(self, name: str, request: core.Notify, times: int) -> None:
        """Publish, until it is too much."""
        for _ in range(times):
            self.ask(name, request)

    @rule(name=names, ioasid=ids, sid=any_sid, wait=st.booleans())
    def free(self, name: str, ioasid: int, sid: int | None, wait: bool) -> None:
        """Free an ID, early or late, once or again, and perhaps wait."""
        self.ask(name, core.Free(ioasid, sid, wait))

    @rule(name=names, sid=sids, destroy=st.booleans(), wait=st.booleans())
    def free_set(self, name: str, sid: int, destroy: bool, wait: bool) -> None:
        """Free a set, to stay or to go, and perhaps wait."""
        self.ask(name, core.FreeSet(sid, destroy, wait))

    @rule(which=some)
    def put_back(self, which: int) -> None:
        """Drop a reference that somebody took."""
        held = [(name, each) for name in HOLDERS for each, _ in self.model.referenced(name)]
        if held:
            name, ioasid = held[which % len(held)]
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

    @rule(which=some, crashes=st.booleans())
    def end_subscription(self, which: int, crashes: bool) -> None:
        """End a subscription, or let its consumer crash."""
        each = self.subscriber(which)
        if each is not None:
            end = core.Detach if crashes else core.Unsubscribe
            self.ask(each.holder, end(each.number))

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

    @rule(name=names)
    def open_session(self, name: str) -> None:
        """Join, come back, or be refused."""
        self.ask(HOST, core.OpenSession(name))

    @rule(name=names)
    def crash(self, name: str) -> None:
        """Let a holder crash."""
        self.ask(name, core.SuspendSession())

    @rule(name=names, evict=st.booleans())
    def leave(self, name: str, evict: bool) -> None:
        """Let a holder leave, or declare it dead; its session is over then."""
        session = self.model.holders.get(name)
        if evict:
            self.ask(HOST, core.Evict(name))
        else:
            self.ask(name, core.CloseSession())
        if session is not None:
            ended = outcome(lambda: self.allocator.handle(session, core.TakeStatistics()))
            assert (core.SessionEnded, {"session": session}) == ended

    # -- rules: the driver --------------------------------------------------------------------

    @rule(which=some)
    def abandon(self, which: int) -> None:
        """Give up waiting, or what nobody waits for."""
        ticket = pick(self.model.waiting, which, 0)
        self.model.waiting.pop(ticket, None)
        self.allocator.abandon(ticket)
        self.compare()

    @rule(seconds=st.integers(0, 9))
    def tick(self, seconds: int) -> None:
        """Let time pass."""
        self.model.now += seconds
        self.allocator.tick(self.model.now)
        self.compare()

    @rule()
    def restore(self) -> None:
        """Go on with an allocator that was restored from the bytes of a snapshot."""
        before = self.allocator.snapshot()
        self.allocator = Allocator.restore(decode_snapshot(encode(before)))
        unchanged(before, self.allocator)
        self.model.restored()
        self.compare()

    @rule()
    def restart(self) -> None:
        """Go on in a new process: everybody crashed, and comes back when it likes."""
        self.allocator.suspend_all()
        snapshot = decode_snapshot(encode(self.allocator.snapshot()))
        self.allocator = CheckedAllocator.restore(snapshot)
        live = {session: name for name, session in self.model.holders.items() if session}
        for session in sorted(live):
            self.model.ask(live[session], core.SuspendSession())
        self.model.restored()
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
        nothing_leaks(self.allocator)

    def come_to_rest(self) -> None:
        """Let everybody come back, acknowledge all that it is given and put all that it took."""
        for name in HOLDERS:
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


def test_core_does_what_the_model_says() -> None:
    """Whatever is asked in whatever order, the core and the model answer and tell the same."""
    # To find the shortest program that fails may take longer than a test that hangs is given.
    faulthandler.cancel_dump_traceback_later()
    run_state_machine_as_test(AllocatorMachine, settings=SETTINGS)
