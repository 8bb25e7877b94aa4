"""The protocol without any host or store: what follows from which record."""

import pytest

from ioasid.actors import VmExport
from ioasid.core import IoasidRange, RangeFull, SetExport, TokenType
from ioasid.fleet import (
    Act,
    Command,
    HostUnreachable,
    Move,
    Phase,
    Send,
    StaleCommand,
    Swap,
    VmRecord,
)

EXPORT = VmExport(SetExport("vm", TokenType.MM, 4, (IoasidRange(1, 2),), ()), ())
OTHER = VmExport(SetExport("vm", TokenType.MM, 4, (IoasidRange(2, 2),), ()), ())


def move(phase: Phase, export: VmExport | None = None) -> Move:
    """A move of a VM from a to b that has come so far."""
    host, other = ("b", "a") if phase is Phase.MOVED else ("a", "b")
    return Move(VmRecord("vm", phase, host, other, 3, export), 7)


def sent(acting: Move) -> tuple[str, Act, int]:
    """What is to be sent next: to whom, what, by which revision."""
    todo = acting.next()
    assert isinstance(todo, Send)
    return todo.host, todo.command.act, todo.command.revision


def written(acting: Move) -> VmRecord:
    """The record that is to be written next."""
    todo = acting.next()
    assert isinstance(todo, Swap)
    assert acting.revision == todo.revision
    return todo.record


def test_a_move_step_by_step() -> None:
    """Frozen, taken up, asked again, decided, run there and left here: each by its record."""
    acting = move(Phase.PREPARE)
    assert ("a", Act.FREEZE, 7) == sent(acting)
    acting.answered(EXPORT)
    assert VmRecord("vm", Phase.FROZEN, "a", "b", 3, EXPORT) == written(acting)
    acting.swapped(8)
    assert Send("b", Command(Act.IMPORT, "vm", 8, EXPORT)) == acting.next()
    acting.answered(None)
    assert ("a", Act.EXPORT, 8) == sent(acting)
    acting.answered(EXPORT)
    assert VmRecord("vm", Phase.MOVED, "b", "a", 4) == written(acting)
    acting.swapped(9)
    assert ("b", Act.ACTIVATE, 9) == sent(acting)
    acting.answered(None)
    assert ("a", Act.LEAVE, 9) == sent(acting)
    acting.answered(None)
    assert VmRecord("vm", Phase.OWNED, "b", None, 4) == written(acting)
    acting.swapped(10)
    assert None is acting.next()


@pytest.mark.parametrize("phase", [Phase.PREPARE, Phase.FROZEN])
def test_what_is_not_decided_can_be_aborted(phase: Phase) -> None:
    """The source goes on first, then the target lets go of what it took up."""
    acting = move(phase, EXPORT)
    assert acting.is_open
    acting.give_up("why")
    assert VmRecord("vm", Phase.ABORT, "a", "b", 3, None, "why") == written(acting)
    acting.swapped(8)
    assert ("a", Act.THAW, 8) == sent(acting)
    acting.answered(None)
    assert ("b", Act.DISCARD, 8) == sent(acting)
    acting.answered(None)
    assert VmRecord("vm", Phase.OWNED, "a", None, 4, None, "why") == written(acting)


@pytest.mark.parametrize("phase", [Phase.MOVED, Phase.ABORT, Phase.OWNED])
def test_what_is_decided_stays_so(phase: Phase) -> None:
    """To abort it changes nothing."""
    acting = move(phase)
    before = acting.next()
    acting.give_up("why")
    assert not acting.is_open
    assert before == acting.next()


def test_a_refusal_aborts_what_is_not_decided() -> None:
    """And is raised to whoever carries out what is: that has to be repeated."""
    acting = move(Phase.FROZEN, EXPORT)
    acting.answered(RangeFull(1, 2, 3))
    assert (Phase.ABORT, "ENOSPC") == (written(acting).phase, written(acting).reason[:6])
    for phase in (Phase.MOVED, Phase.ABORT):
        with pytest.raises(RangeFull):
            move(phase).answered(RangeFull(1, 2, 3))


@pytest.mark.parametrize("error", [HostUnreachable("a"), StaleCommand("vm", 7, 8)])
def test_what_may_not_have_come_through_decides_nothing(
    error: HostUnreachable | StaleCommand,
) -> None:
    """The record is as it was; who goes on reads it again."""
    acting = move(Phase.PREPARE)
    with pytest.raises(type(error)):
        acting.answered(error)
    assert ("a", Act.FREEZE, 7) == sent(acting)


def test_an_export_that_changed_aborts() -> None:
    """What the source says last has to be what the target made."""
    acting = move(Phase.FROZEN, EXPORT)
    acting.answered(None)
    acting.answered(OTHER)
    assert Phase.ABORT is written(acting).phase
