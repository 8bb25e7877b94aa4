"""The recorded history, and the core that checks itself."""

from typing import Any

import pytest

from ioasid.core import (
    Acknowledge,
    Alloc,
    AllocMany,
    AllocSet,
    AttachSpid,
    CloseSession,
    Complete,
    Defer,
    Deliver,
    DetachSpid,
    EventKind,
    Evict,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    IoasidError,
    OpenSession,
    Priority,
    Put,
    Released,
    Reply,
    Request,
    Subscribe,
    SuspendSession,
    TakeStatistics,
    UnknownHolder,
    UnknownIoasid,
)
from ioasid.core._lifecycle import LifeCycle
from ioasid.testing import CheckedAllocator, InvariantViolated

BINDINGS = frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE))


def core_with(*requests: Request) -> CheckedAllocator:
    """A core of 8 IDs with a set of 4, after some requests of the first session."""
    core = CheckedAllocator(8)
    ask(core, AllocSet("vm-1", 4), *requests)
    return core


def ask(core: CheckedAllocator, *requests: Request, session: int = 1) -> Reply | None:
    """Ask some things; returns the last answer."""
    answer = None
    for request in requests:
        answer = core.handle(session, request, len(core.history))
        core.drain()
    return answer


def test_everything_that_is_right_passes() -> None:
    """Requests of every kind, a crash, a return, and an end that leaves nothing, all hold."""
    core = core_with(AllocMany(0, 3), OpenSession("kvm"), Get(1))
    core.thorough = True
    ask(core, Subscribe(kinds=BINDINGS, hold=True), session=2)
    ask(core, AttachSpid(1, 5), FindBySpid(0, 5, True), Put(1), Put(1))
    ask(core, Defer(1, core._tables.seq), session=2)
    ask(core, DetachSpid(1), AttachSpid(2, 6), Free(2))
    ask(core, SuspendSession(), session=2)
    assert [
        "holder 'kvm' is suspended",
        "'kvm' holds 1 reference of IOASID 1",
        "'kvm' holds 1 reference of IOASID 2",
        "IOASID 2 is in quarantine",
        "subscription 1 of 'kvm' to the system is still there",
    ] == core.leaks()
    with pytest.raises(UnknownIoasid):
        ask(core, Free(7))
    assert None is ask(core, Free(2, wait=True))
    core.abandon(len(core.history) - 1)
    assert None is ask(core, FreeSet(0, wait=True))
    assert "still waits" in core.leaks()[-1]
    ask(core, OpenSession("kvm"))
    ask(core, Subscribe(kinds=BINDINGS, hold=True), session=3)
    ask(core, Acknowledge(1, core._tables.seq), session=3)
    ask(core, Evict("kvm"), TakeStatistics())
    assert [] == core.leaks()
    assert None is core.violation


def test_what_was_taken_and_left_passes() -> None:
    """A look-up without a reference takes none, and who leaves drops all that it took."""
    core = core_with(Alloc(0), AttachSpid(1, 5), OpenSession("vdcm"))
    ask(core, FindBySpid(0, 5), FindBySpid(0, 5, get=True), Get(1), session=2)
    ask(core, Free(1))
    ask(core, CloseSession(), session=2)
    assert ([], None) == (core.leaks(), core.record(1))


def test_acknowledgements_out_of_turn_pass() -> None:
    """Messages may be acknowledged in any order, twice, and set aside when it is too late."""
    core = core_with(AllocMany(0, 2), OpenSession("kvm"))
    ask(core, Subscribe(kinds=frozenset((EventKind.FREE,))), session=2)
    ask(core, Free(1), Free(2))
    second = core._tables.seq
    ask(core, Acknowledge(1, second), Acknowledge(1, second), Defer(1, second), session=2)
    assert None is core.record(2)
    assert None is not core.record(1)
    ask(core, Acknowledge(1, second - 1), session=2)
    assert None is core.record(1)


def test_a_free_that_was_set_aside_over_a_resync_counts() -> None:
    """A Resync acknowledges what it stands for, and not an event that was set aside before it."""
    core = core_with(AllocMany(0, 4), OpenSession("vdcm"))
    ask(core, Subscribe(kinds=frozenset((EventKind.FREE,)), queue_size=2), session=2)
    ask(core, Free(1))
    first = core._tables.seq
    ask(core, Defer(1, first), session=2)
    ask(core, Free(2), Free(3), Free(4))
    ask(core, Acknowledge(1, first + 1), session=2)
    ask(core, Acknowledge(1, core._tables.seq), session=2)
    assert [1] == [ioasid for ioasid in range(1, 5) if core.record(ioasid) is not None]
    ask(core, Acknowledge(1, first), session=2)
    assert None is core.record(1)


def test_a_restored_core_goes_on() -> None:
    """A core restored from a snapshot knows what its predecessor's holders have."""
    core = core_with(Alloc(0), OpenSession("kvm"), AttachSpid(1, 5), OpenSession("vdcm"))
    ask(core, Get(1), SuspendSession(), session=3)
    ask(core, Subscribe(kinds=BINDINGS, hold=True), Get(1), session=2)
    ask(core, DetachSpid(1), AttachSpid(1, 6))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.suspend_all()
    restored.drain()
    host = restored.open_session("host").session
    kvm = restored.open_session("kvm").session
    ask(restored, Free(1), session=host)
    ask(restored, Subscribe(kinds=BINDINGS, hold=True), Put(1), session=kvm)
    ask(restored, Acknowledge(1, restored._tables.seq), session=kvm)
    assert None is not restored.record(1)
    ask(restored, Evict("vdcm"), session=host)
    assert None is restored.record(1)


def test_a_restored_core_knows_who_is_gone() -> None:
    """Who held nothing leaves when a core is restored, whatever it had in hand."""
    core = core_with(Alloc(0), OpenSession("kvm"))
    ask(core, Subscribe(kinds=BINDINGS, priority=Priority.CPU), session=2)
    ask(core, Subscribe(kinds=BINDINGS, hold=True), AttachSpid(1, 5))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.suspend_all()
    restored.drain()
    host = restored.open_session("host").session
    ask(restored, Subscribe(kinds=BINDINGS, hold=True), DetachSpid(1), session=host)
    with pytest.raises(UnknownHolder):
        restored.handle(host, Evict("kvm"))
    assert None is restored.violation


def test_a_restored_core_knows_earlier_bindings() -> None:
    """A Resync may show a binding from before a restore, whose spid is used again since."""
    core = core_with(Alloc(0), OpenSession("vdcm"), OpenSession("kvm"))
    ask(core, Subscribe(kinds=BINDINGS, priority=Priority.DEVICE, hold=True), session=2)
    ask(core, Subscribe(kinds=BINDINGS, priority=Priority.LAST, hold=True), session=3)
    ask(core, AttachSpid(1, 5))
    ask(core, Acknowledge(1, core.snapshot().seq), session=2)
    ask(core, DetachSpid(1))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.suspend_all()
    restored.drain()
    host = restored.open_session("host").session
    ask(restored, AttachSpid(1, 5), session=host)
    ask(restored, Subscribe(priority=Priority.IOMMU, replay=True), session=host)
    assert None is restored.violation


@pytest.mark.parametrize("thorough", [False, True])
def test_a_history_reads_well(thorough: bool) -> None:
    """A line says who asked what, what came of it, and who was told what."""
    core = core_with(OpenSession("kvm"))
    core.thorough = thorough
    ask(core, Subscribe(kinds=BINDINGS), session=2)
    ask(core, Alloc(0, data="x"), AttachSpid(1, 5))
    with pytest.raises(IoasidError):
        ask(core, Get(6))
    ask(core, Get(1), SuspendSession(), session=2)
    ask(core, OpenSession("kvm"))
    written = [" ".join(str(line).split()) for line in core.history]
    assert [
        (
            "host AllocSet(token='vm-1', quota=4) -> SetRecord(sid=0, token='vm-1', "
            "token_type=MM, quota=4, allocated=0, state=ACTIVE)"
        ),
        "host OpenSession(name='kvm') -> SessionOpened(session=2, resumed=False)",
        "kvm Subscribe(kinds={BIND, FREE, UNBIND}) -> Subscribed(subscription=1, resumed=False)",
        "host Alloc(sid=0, data='x') -> Allocated(ioasid=1)",
        "host AttachSpid(ioasid=1, spid=5) -> Done() tells kvm (1): BIND of 1 (seq=2, spid=5)",
    ] == written[:5]
    assert "host Get(ioasid=6) -> UnknownIoasid (ENOENT:" in written[5]
    opened = "SessionOpened(session=3, resumed=True, references=[[1, 1]])"
    assert f"host OpenSession(name='kvm') -> {opened}" == written[8]


def violation(core: CheckedAllocator, *requests: Request) -> InvariantViolated:
    """What the last of some requests violates; the core keeps it."""
    with pytest.raises(InvariantViolated) as caught:
        ask(core, *requests)
    assert caught.value is core.violation
    return caught.value


def test_an_early_reclaim_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reclaim that does not ask who still references an ID breaks invariant 3."""
    reclaim = LifeCycle._reclaim_if_done

    def early(self: LifeCycle, record: Any) -> None:
        record.holders = ()
        reclaim(self, record)

    monkeypatch.setattr(LifeCycle, "_reclaim_if_done", early)
    core = core_with(Alloc(0), Get(1))
    found = violation(core, Free(1))
    assert 3 == found.number
    assert "['host'] referenced it" in found.detail
    with pytest.raises(InvariantViolated):
        ask(core, Alloc(0))
    assert found is core.violation


def test_a_suspended_holders_loss_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash that drops what it should keep breaks an invariant, by the history alone."""
    core = core_with(Alloc(0), OpenSession("vtd"))
    ask(core, Get(1), session=2)
    ask(core, SuspendSession(), session=2)
    record = core._recorded
    record.references["vtd", 1] = 1
    del core._tables.holders["vtd"].references[1]
    core._tables.sets[0].records[1].holders = ()
    found = violation(core, Free(1))
    assert found.number in (3, 9)


def test_a_changed_state_after_a_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that changes something breaks invariant 7, where one looks."""
    core = core_with()
    handler = core._handlers[Get]

    def forgetful(holder: Any, request: Any) -> Reply | None:
        core._tables.reserved += 1
        return handler(holder, request)

    core._handlers[Get] = forgetful
    core.thorough = True
    assert 7 == violation(core, Get(5)).number


def test_an_answer_that_was_not_due_is_found() -> None:
    """An answer to nobody, an early one, and one to who gave up break invariant 8."""
    core = core_with(Alloc(0), Get(1))
    ask(core, Free(1))
    answered = Complete(9, Released(True))
    for abandoned in (False, True):
        if abandoned:
            core._recorded.abandoned.add(9)
        with pytest.raises(InvariantViolated) as caught:
            core._recorded.follow([answered])
        assert 8 == caught.value.number
    core._recorded.waiting[3] = {1}
    with pytest.raises(InvariantViolated, match="before"):
        core._recorded.follow([Complete(3, Released(True))])


def test_a_second_allocation_is_found() -> None:
    """An ID that is answered twice without a RECLAIM between breaks invariant 3."""
    core = core_with(Alloc(0))
    line = core.history[-1]
    with pytest.raises(InvariantViolated, match="twice"):
        core._recorded.note("host", line.request, line.answer, [], ticket=0, seq=0)
    assert isinstance(core.history[-1].effects, tuple)
    assert not any(isinstance(each, Deliver) for each in core.history[-1].effects)
