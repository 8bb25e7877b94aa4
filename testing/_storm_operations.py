"""What the tasks of a storm do: operations, drawn by weight, and who carries them out.

Each task draws for itself, from the seed and its own number alone: the same seed repeats every
choice, whatever the backend. Whom a choice meets depends on how the tasks interleave.
"""

from bisect import bisect
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from random import Random
from typing import Final, TypeAlias
from zlib import crc32

from attrs import define, field, frozen

from ioasid.actors import ActorCrashed, ActorStopped, Vm, VmClosed
from ioasid.core import IoasidError
from ioasid.testing._storm_settings import StormSettings

__all__: list[str] = []

CANCEL_RATE: Final = 0.03
"""Which part of the operations is cancelled, most of them half-way."""
PROCESSES_PER_TASK: Final = 4
GUEST_PASIDS: Final = 24
"""Guests number their PASIDs from 1 to this."""
REMEMBERED: Final = 32
"""How many IDs or bindings a guest remembers."""

Refusals: TypeAlias = tuple[type[IoasidError], ...]

GONE: Final[Refusals] = (ActorCrashed, ActorStopped, VmClosed)
"""What anything asked of an actor may meet in a storm."""

Binding: TypeAlias = tuple[str, int, int]
"""Device, PASID, and the guest's PASID or the process it is bound for."""


@frozen
class Choice:
    """One operation as it was drawn; the numbers select among what is there when it is done."""

    kind: str
    numbers: tuple[int, int, int]
    cancel_after: int | None
    """Passes of the event loop after which it is cancelled."""


@define(eq=False)
class Slot:
    """The place of one VM, and what its tasks remember of it; some of that is stale."""

    name: str
    vm: Vm | None = None
    generation: int = 0
    """Which of the VMs that had this name it is."""
    pasids: list[int] = field(factory=list)
    bound: list[Binding] = field(factory=list)
    programmed: list[Binding] = field(factory=list)
    transfers: list[tuple[str, int]] = field(factory=list)

    def forget(self) -> None:
        """Forget everything: the VM is a new one."""
        for each in (self.pasids, self.bound, self.programmed, self.transfers):
            each.clear()

    def pasid(self, number: int) -> int:
        """Return one of the VM's PASIDs, or any if it has none."""
        return self.pasids[number % len(self.pasids)] if self.pasids else 1 + number % 64


@define(eq=False)
class Worker:
    """One task of a VM."""

    number: int
    slot: Slot
    bound: list[Binding] = field(factory=list)
    """What its processes may be bound to."""

    @property
    def agent(self) -> str:
        """The holder name under which it takes references of its own."""
        return f"agent:{self.number}"

    @property
    def token(self) -> str:
        """The token of its own set."""
        return f"job-{self.number}"

    def process(self, number: int) -> int:
        """Return the number of one of its processes."""
        return self.number * PROCESSES_PER_TASK + number % PROCESSES_PER_TASK


@frozen
class Operation:
    """Something that a task may do."""

    kind: str
    carry_out: Callable[[Worker, Choice], Awaitable[None]]
    weight: float
    """How often it is drawn, relative to the others."""
    refusals: Refusals = ()
    """What it may be refused with when others interfere; any other refusal is a violation."""
    crash: bool = False
    """Whether it is one of those that are done at the crash rate."""


class Menu:
    """The operations that there are."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = {each.kind: each for each in operations}
        self._calm = _Weighted([each for each in operations if not each.crash])
        self._crashes = _Weighted([each for each in operations if each.crash])

    def pick(self, point: float, *, crash: bool) -> str:
        """Return the kind at a point from 0 to 1, of all crashes or of all that are none."""
        return (self._crashes if crash else self._calm).pick(point)


class _Weighted:
    def __init__(self, operations: list[Operation]) -> None:
        self._kinds = [each.kind for each in operations]
        self._bounds = list(accumulate(each.weight for each in operations))

    def pick(self, point: float) -> str:
        return self._kinds[bisect(self._bounds, point * self._bounds[-1])]


class Choices:
    """What one task does, one after the other: a matter of the seed and its number alone."""

    def __init__(self, settings: StormSettings, menu: Menu, worker: int) -> None:
        self._random = Random(f"{settings.seed}:{worker}")
        self._crash_rate = settings.crash_rate
        self._menu = menu
        self.digest = 0
        """Of all that was drawn so far."""

    def draw(self) -> Choice:
        """Draw the next one; every one takes as many random numbers."""
        random = self._random
        crash = random.random() < self._crash_rate
        kind = self._menu.pick(random.random(), crash=crash)
        bits = random.getrandbits
        numbers = bits(32), bits(32), bits(32)
        cancel = random.random()
        cancel_after = int(cancel / CANCEL_RATE * 16) if cancel < CANCEL_RATE else None
        self.digest = crc32(f"{kind}{numbers}{cancel_after}".encode(), self.digest)
        return Choice(kind, numbers, cancel_after)


def remember(known: list[Binding], new: Binding) -> None:
    """Add what a guest knows, and let it forget the oldest."""
    known.append(new)
    del known[:-REMEMBERED]


def forget(known: list[Binding], old: Binding) -> None:
    """Remove something from what a guest knows, as often as it is there."""
    known[:] = [each for each in known if each != old]
