"""The recorded history: what is right passes, and what is wrong is found."""

from typing import Any

import pytest

from ioasid.core import (
    Abandon,
    Acknowledge,
    Alloc,
    AllocMany,
    AllocSet,
    AttachSpid,
    CloseSession,
    Complete,
    Continue,
    Defer,
    Deliver,
    DetachSpid,
    EventKind,
    Evict,
    FindBySpid,
    Free,
    FreeSet,
    Get,
    OpenSession,
    Priority,
    Put,
    Released,
    SessionOpened,
    Statistics,
    Subscribe,
    SuspendAll,
    SuspendSession,
    TakeStatistics,
    UnknownHolder,
    UnknownIoasid,
    Waiting,
)
from ioasid.core._lifecycle import LifeCycle
from ioasid.testing import CheckedAllocator, InvariantViolated
from tests.core.helpers import expect
from tests.testing.checked import BINDINGS, ask, core_with, opened, violation


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
    waiting = expect(Waiting, ask(core, Free(2, wait=True)))
    ask(core, Abandon(waiting.ticket), session=0)
    assert isinstance(ask(core, FreeSet(0, wait=True)), Waiting)
    assert "still waits" in core.leaks()[-1]
    ask(core, OpenSession("kvm"))
    ask(core, Subscribe(kinds=BINDINGS, hold=True), session=3)
    ask(core, Acknowledge(((1, core._tables.seq),)), session=3)
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
    ask(core, Acknowledge(((1, second),)), Acknowledge(((1, second),)), Defer(1, second), session=2)
    assert None is core.record(2)
    assert None is not core.record(1)
    ask(core, Acknowledge(((1, second - 1),)), session=2)
    assert None is core.record(1)


def test_several_acknowledgements_at_once_pass() -> None:
    """Messages may be acknowledged many at a time, also before those in front of them."""
    core = core_with(Alloc(0), AttachSpid(1, 5), OpenSession("kvm"))
    ask(core, Subscribe(hold=True, replay=True), session=2)
    ask(core, DetachSpid(1), AttachSpid(1, 6), Free(1))
    unbind, bind, free = range(core._tables.seq - 2, core._tables.seq + 1)
    ask(core, Acknowledge(((1, unbind), (1, unbind - 1))), session=2)
    ask(core, Acknowledge(((1, free), (1, bind))), session=2)
    assert None is core.record(1)
    assert None is core.violation


def test_giving_up_what_does_not_wait_passes() -> None:
    """A ticket that is given up before there is one with its number is nobody's."""
    core = core_with(Alloc(0), OpenSession("kvm"))
    ask(core, Get(1), session=2)
    ask(core, Abandon(1), session=0)
    assert Waiting(1) == ask(core, Free(1, wait=True))
    ask(core, Put(1), session=2)
    assert None is core.violation


def test_a_free_that_was_set_aside_over_a_resync_counts() -> None:
    """A Resync acknowledges what it stands for, and not an event that was set aside before it."""
    core = core_with(AllocMany(0, 4), OpenSession("vdcm"))
    ask(core, Subscribe(kinds=frozenset((EventKind.FREE,)), queue_size=2), session=2)
    ask(core, Free(1))
    first = core._tables.seq
    ask(core, Defer(1, first), session=2)
    ask(core, Free(2), Free(3), Free(4))
    ask(core, Acknowledge(((1, first + 1),)), session=2)
    ask(core, Acknowledge(((1, core._tables.seq),)), session=2)
    assert [1] == [ioasid for ioasid in range(1, 5) if core.record(ioasid) is not None]
    ask(core, Acknowledge(((1, first),)), session=2)
    assert None is core.record(1)


def test_a_restored_core_goes_on() -> None:
    """A core restored from a snapshot knows what its predecessor's holders have."""
    core = core_with(Alloc(0), OpenSession("kvm"), AttachSpid(1, 5), OpenSession("vdcm"))
    ask(core, Get(1), SuspendSession(), session=3)
    ask(core, Subscribe(kinds=BINDINGS, hold=True), Get(1), session=2)
    ask(core, DetachSpid(1), AttachSpid(1, 6))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.handle(0, SuspendAll())
    restored.drain()
    host = opened(restored, "host")
    kvm = opened(restored, "kvm")
    ask(restored, Free(1), session=host)
    ask(restored, Subscribe(kinds=BINDINGS, hold=True), Put(1), session=kvm)
    ask(restored, Acknowledge(((1, restored._tables.seq),)), session=kvm)
    assert None is not restored.record(1)
    ask(restored, Evict("vdcm"), session=host)
    assert None is restored.record(1)


def test_a_restored_core_knows_who_is_gone() -> None:
    """Who held nothing leaves when a core is restored, whatever it had in hand."""
    core = core_with(Alloc(0), OpenSession("kvm"))
    ask(core, Subscribe(kinds=BINDINGS, priority=Priority.CPU), session=2)
    ask(core, Subscribe(kinds=BINDINGS, hold=True), AttachSpid(1, 5))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.handle(0, SuspendAll())
    restored.drain()
    host = opened(restored, "host")
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
    ask(core, Acknowledge(((1, core.snapshot().seq),)), session=2)
    ask(core, DetachSpid(1))
    restored = CheckedAllocator.restore(core.snapshot())
    restored.handle(0, SuspendAll())
    restored.drain()
    host = opened(restored, "host")
    ask(restored, AttachSpid(1, 5), session=host)
    ask(restored, Subscribe(priority=Priority.IOMMU, replay=True), session=host)
    assert None is restored.violation


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
        core._recorded.note("host", line.request, line.answer, [], seq=0)
    assert isinstance(core.history[-1].effects, tuple)
    assert not any(isinstance(each, Deliver) for each in core.history[-1].effects)


def test_all_that_crash_at_once_pass() -> None:
    """A history goes on over a crash of everybody, and knows who is left."""
    core = core_with(Alloc(0), AttachSpid(1, 5), OpenSession("kvm"), OpenSession("idle"))
    ask(core, Subscribe(kinds=BINDINGS, hold=True, replay=True), session=2)
    ask(core, Get(1), Subscribe(), session=3)
    ask(core, Put(1), session=3)
    ask(core, SuspendAll(), session=0)
    host = opened(core, "host")
    ask(core, Free(1), session=host)
    assert "holder 'kvm' is suspended" in core.leaks()
    assert not any("idle" in each for each in core.leaks())
    kvm = opened(core, "kvm")
    ask(core, Subscribe(kinds=BINDINGS, hold=True), session=kvm)
    ask(core, Acknowledge(((1, core._tables.seq),)), session=kvm)
    assert None is core.record(1)
    assert None is core.violation


@pytest.mark.parametrize("restored", [False, True])
def test_what_is_done_in_parts_is_followed(restored: bool) -> None:
    """IDs are free when their turn comes, whoever frees them meanwhile, and answers come late."""
    core = CheckedAllocator(64, part=3)
    ask(core, AllocSet("vm-1", 20))
    ask(core, AllocMany(0, 20))
    kvm = expect(SessionOpened, ask(core, OpenSession("kvm"))).session
    for ioasid in range(1, 21):
        ask(core, AttachSpid(ioasid, ioasid))
        ask(core, Get(ioasid), session=kvm)
    waiting = [ask(core, FreeSet(0, wait=wait)) for wait in (False, True)]
    assert [Waiting, Waiting] == [type(each) for each in waiting]
    ask(core, Continue(), session=0)
    if restored:
        core = CheckedAllocator.restore(core.snapshot())
    ask(core, Free(20))
    assert isinstance(ask(core, Evict("kvm")), Waiting)
    while core.has_work:
        ask(core, Continue(), session=0)
    figures = expect(Statistics, ask(core, TakeStatistics()))
    assert (0, 0, 1) == (figures.sets, figures.free_pending, figures.sessions)
    assert [] == core.leaks()
