"""The core that checks itself, alone and as a tap."""

from typing import Any

import pytest
from msgspec.structs import replace

from ioasid.actors import Decision
from ioasid.core import (
    Alloc,
    Allocator,
    AllocSet,
    Changes,
    Complete,
    Done,
    Free,
    Get,
    Put,
    Released,
    Statistics,
    TakeStatistics,
    UnknownIoasid,
    Waiting,
    refusal_of,
)
from ioasid.testing import CheckedAllocator, InvariantViolated
from tests.core.helpers import expect
from tests.testing.checked import ask, core_with, opened, violation


def test_a_changed_state_after_a_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that changes something breaks invariant 7, where one looks."""
    core = core_with()
    handler = core._handlers[Get]

    def forgetful(holder: Any, request: Any) -> Any:
        core._tables.reserved += 1
        return handler(holder, request)

    core._handlers[Get] = forgetful
    core.thorough = True
    assert 7 == violation(core, Get(5)).number


# Restored


def test_it_goes_on_restored() -> None:
    """From a snapshot of itself it goes on as before: who waits for a reclaim waits on."""
    core = core_with(Alloc(0), Get(1))
    expect(Waiting, ask(core, Free(1, wait=True), session=opened(core, "vm")))
    before = core.snapshot()
    core.go_on_restored()
    assert before == core.snapshot()
    core.handle(1, Put(1))
    assert [Complete(1, Released(True))] == core.drain()
    assert None is core.violation
    assert ["host", "vm"] == [each.holder for each in core.history[-2:]][::-1]


def test_a_state_that_is_not_restored_is_found() -> None:
    """A state whose snapshot is refused, or restored to another one, is a violation."""
    core = core_with(Alloc(0))
    core._tables.next_sid = 0
    with pytest.raises(InvariantViolated, match="not restored") as caught:
        core.go_on_restored()
    assert caught.value is core.violation


# As a tap


def decision(**changed: object) -> Decision:
    """What an allocator of 8 IDs decides first, or a decision that differs in something."""
    core = Allocator(8)
    core.watch()
    request = AllocSet("vm-1", 4)
    answer = core.handle(1, request)
    told = tuple(core.drain())
    made = Decision(core.index, 2.0, 1, "host", request, answer, told, core.changes())
    return replace(made, **changed)


def test_what_another_decided_passes() -> None:
    """A tap that decides again finds nothing where the same comes of it."""
    core = CheckedAllocator(8)
    core.see(decision())
    assert ["host"] == [line.holder for line in core.history[1:]]
    refusal = refusal_of(UnknownIoasid(7))
    core.see(Decision(2, 3.0, 1, "host", Free(7), refusal, (), Changes()))
    figures = expect(Statistics, Allocator.restore(core.snapshot()).handle(1, TakeStatistics()))
    figures = replace(figures, mailbox=5)
    core.see(Decision(2, 3.0, 1, "host", TakeStatistics(), figures, (), Changes()))
    assert None is core.violation


@pytest.mark.parametrize(
    "changed",
    [
        {"answer": Done()},
        {"answer": refusal_of(UnknownIoasid(7))},
        {"effects": (Complete(1, Done()),)},
        {"changes": Changes()},
        {"index": 7},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_was_decided_differently_is_found(changed: dict[str, object]) -> None:
    """Another answer, effect, change or number than the same state leads to is a violation."""
    core = CheckedAllocator(8)
    with pytest.raises(InvariantViolated, match="decided differently") as caught:
        core.see(decision(**changed))
    assert caught.value is core.violation
