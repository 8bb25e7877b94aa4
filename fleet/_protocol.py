"""The protocol of a move: a record with a revision, and one table of what follows from it.

    OWNED(S, e) ─▶ PREPARE ─▶ FROZEN ──commit──▶ MOVED ─▶ OWNED(T, e+1)
                      └──────────┴──▶ ABORT ─▶ OWNED(S, e+1)

One compare-and-set of the record decides between MOVED and ABORT, and everything else follows from
what it decided: whoever reads the record knows what has to be done next, so anybody may go on where
somebody else stopped. A command carries the revision of the record that it follows from, and a host
refuses it when the record has another by then; it can be repeated, and those for one VM are carried
out one after the other on each host. So a VM runs where the record says or nowhere for the moment:
a source is thawed only after ABORT, a target runs only after MOVED.

Nothing here waits: `Move` says what to send or write, and is told what came of it.
"""

from enum import StrEnum
from typing import Final, TypeAlias

from attrs import define, field, frozen
from msgspec.structs import replace

from ioasid.actors import VmExport
from ioasid.core import IoasidError, Message
from ioasid.fleet._errors import HostUnreachable, StaleCommand, StoreUnavailable

__all__ = ["Act", "Command", "Move", "Phase", "Send", "Swap", "VmRecord"]


class Phase(StrEnum):
    """How far a VM's move has come."""

    OWNED = "OWNED"
    """It runs at its host; nothing moves."""
    PREPARE = "PREPARE"
    """It is about to be frozen."""
    FROZEN = "FROZEN"
    """It is frozen, and exported; the other host takes it up."""
    MOVED = "MOVED"
    """Decided: it belongs to its new host; the other one, where it was, lets go of it."""
    ABORT = "ABORT"
    """Decided: it stays at its host; the other one lets go of what it took up."""


class Act(StrEnum):
    """What a host is told to do."""

    FREEZE = "FREEZE"
    """Stop it, and answer its export."""
    EXPORT = "EXPORT"
    """Answer its export: nothing was freed since, if it is the same."""
    IMPORT = "IMPORT"
    """Make it of its export, and let nothing of it run."""
    ACTIVATE = "ACTIVATE"
    """Let what was imported run."""
    LEAVE = "LEAVE"
    """Free it, for it belongs to another host; what is in quarantine drains there."""
    THAW = "THAW"
    """Let it go on."""
    DISCARD = "DISCARD"
    """Free what was imported."""


class VmRecord(Message, frozen=True):
    """All that the fleet knows of a VM: whose it is, and how far its move has come.

    `host` is where it runs, or is to run, `other` where it moves to or was; `None` if it is OWNED.
    `epoch` counts its moves, the aborted ones as well.
    """

    vm: str
    phase: Phase
    host: str
    other: str | None = None
    epoch: int = 0
    export: VmExport | None = None
    reason: str = ""
    """Why the last move was aborted, if it was."""
    quota: int = 0
    """What it counts of its tenant's limit, wherever it is and however it moves."""
    group: str | None = None
    """The group of its set, on every host that it moves to."""
    tenant: str | None = None
    """The group above all others of that one, whose limit over all hosts it counts in."""


class Command(Message, frozen=True):
    """What a host is told to do for a VM, by the record of this revision."""

    act: Act
    vm: str
    revision: int
    export: VmExport | None = None
    group: str | None = None
    """Of an IMPORT: the group that the set is made in."""


@frozen
class Send:
    """Send a command to a host, and tell `Move.answered` what it answers."""

    host: str
    command: Command


@frozen
class Swap:
    """Write the record if it still has the revision; tell `Move.swapped` what came of it."""

    record: VmRecord
    revision: int


Todo: TypeAlias = Send | Swap


@frozen
class _Step:
    orders: tuple[tuple[Act, bool], ...]
    """What is done before the next phase, in order, and whether at the other host."""
    then: Phase


_STEPS: Final[dict[Phase, _Step | None]] = {
    Phase.OWNED: None,
    Phase.PREPARE: _Step(((Act.FREEZE, False),), Phase.FROZEN),
    # Asked last, the source says whether what it exported still stands.
    Phase.FROZEN: _Step(((Act.IMPORT, True), (Act.EXPORT, False)), Phase.MOVED),
    Phase.MOVED: _Step(((Act.ACTIVATE, False), (Act.LEAVE, True)), Phase.OWNED),
    Phase.ABORT: _Step(((Act.THAW, False), (Act.DISCARD, True)), Phase.OWNED),
}
"""What follows from a record; a phase whose step does not lead to OWNED may turn to ABORT."""

VOID: Final = "something of it was freed while it was frozen"
_LOST: Final = (HostUnreachable, StaleCommand, StoreUnavailable)


@define(eq=False)
class Move:
    """What there is to do about a record, step by step; made for one that was read just now.

    Carry out `next` and report, until it is `None`: then nothing moves. When `swapped` was told of
    failure, or a command was stale, read the record again and make another one.
    """

    record: VmRecord
    revision: int
    _done: int = field(default=0, init=False)
    _export: VmExport | None = field(default=None, init=False)
    _given_up: str = field(default="", init=False)

    @property
    def is_open(self) -> bool:
        """Whether it is not decided yet, so that it may be aborted."""
        step = _STEPS[self.record.phase]
        return step is not None and step.then is not Phase.OWNED

    def give_up(self, reason: str) -> None:
        """Abort, if that is not decided yet; `next` says what that takes."""
        if self.is_open:
            self._given_up = reason

    def next(self) -> Todo | None:
        """Return what is to be done next; `None` if nothing moves."""
        record, step = self.record, _STEPS[self.record.phase]
        if step is None:
            return None
        if self._given_up:
            return self._swap(
                replace(record, phase=Phase.ABORT, export=None, reason=self._given_up)
            )
        if self._done < len(step.orders):
            act, elsewhere = step.orders[self._done]
            host = record.other if elsewhere else record.host
            assert host is not None, "a move has two hosts"
            command = Command(act, record.vm, self.revision)
            if act is Act.IMPORT:
                command = replace(command, export=record.export, group=record.group)
            return Send(host, command)
        match step.then:
            case Phase.FROZEN:
                return self._swap(replace(record, phase=Phase.FROZEN, export=self._export))
            case Phase.MOVED:
                assert record.other is not None, "a move has two hosts"
                host, other = record.other, record.host
                moved = replace(record, phase=Phase.MOVED, host=host, other=other, export=None)
                return self._swap(replace(moved, epoch=record.epoch + 1, reason=""))
            case _:
                epoch = record.epoch + (record.phase is Phase.ABORT)
                return self._swap(replace(record, phase=Phase.OWNED, other=None, epoch=epoch))

    def answered(self, answer: VmExport | IoasidError | None) -> None:
        """Take what a host answered to the command that `next` returned.

        A refusal aborts what is not decided yet. Raises it for what is, and whatever says that the
        command may not have come through or was stale: then the record has to be read again.
        """
        if isinstance(answer, IoasidError):
            if isinstance(answer, _LOST) or not self.is_open:
                raise answer
            self.give_up(str(answer))
            return
        if self.record.phase is Phase.FROZEN and answer not in (None, self.record.export):
            self.give_up(VOID)
            return
        self._export = answer
        self._done += 1

    def swapped(self, revision: int) -> None:
        """Take it that the record that `next` returned was written, as this revision."""
        todo = self.next()
        assert isinstance(todo, Swap), "what was swapped is what was to be swapped"
        self.record, self.revision = todo.record, revision
        self._done, self._export, self._given_up = 0, None, ""

    def _swap(self, record: VmRecord) -> Swap:
        return Swap(record, self.revision)
