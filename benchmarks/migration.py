"""What it costs to take a set of 1,024 bound IDs to another allocator, by plain calls."""

from collections.abc import Callable
from statistics import median
from time import process_time
from typing import Final

from benchmarks.measure import Figure, Pass, Plan, figure, require, take_turns
from ioasid.core import (
    Acknowledge,
    ActivateSet,
    Alloc,
    Allocated,
    Allocator,
    AllocSet,
    AskAgain,
    AttachSpid,
    Complete,
    Continue,
    Deliver,
    Effect,
    EventKind,
    ExportSet,
    FreezeSet,
    Frozen,
    Imported,
    ImportSet,
    OpenSession,
    Priority,
    Request,
    SessionOpened,
    SetExport,
    SetRecord,
    Subscribe,
    Subscribed,
    ThawSet,
    Waiting,
)

IDS: Final = 1024


async def migration(backend: str, plan: Plan) -> list[Figure]:
    """Measure a freeze until CPU and DEVICE have acknowledged it, the export and the import.

    Both allocators have three subscribers, of CPU, which holds, DEVICE and IOMMU, as a host has.
    Beside it, what activates the set on the target, and thaws it on the source, until all three
    have acknowledged that.
    """
    steps: dict[str, list[float]] = {name: [] for name in STEPS}
    times = await take_turns({"all": _moving(steps)}, plan)
    return [
        figure(
            [each * 1e3 for each in times["all"]],
            name="migrate_1024",
            backend=backend,
            unit="ms",
            target=10,
            beside={name: median(each) * 1e3 for name, each in steps.items()},
            beside_unit="ms",
        )
    ]


STEPS: Final = ("freeze", "export", "import", "activate", "thaw")


def _moving(steps: dict[str, list[float]]) -> Pass:
    source = _Side()
    vm = source.core.handle(source.core.session, AllocSet("vm", IDS))
    assert isinstance(vm, SetRecord)
    for spid in range(IDS):
        allocated = source.core.handle(source.core.session, Alloc(vm.sid))
        assert isinstance(allocated, Allocated)
        source.core.handle(source.core.session, AttachSpid(allocated.ioasid, spid))
    source.acknowledge()

    def freeze() -> None:
        source.late(FreezeSet(vm.sid))
        source.acknowledge(but=Priority.IOMMU)
        frozen = source.late(FreezeSet(vm.sid))
        require(Frozen(vm.sid, True), frozen, "a set that runs nothing")

    async def run() -> float:
        target = _Side()
        took = [_timed(freeze)]
        exports: list[SetExport] = []
        made: list[Imported] = []

        def export() -> None:
            found = source.late(ExportSet(vm.sid))
            assert isinstance(found, SetExport)
            exports.append(found)

        def import_() -> None:
            found = target.late(ImportSet(exports[0]))
            assert isinstance(found, Imported)
            made.append(found)

        def activate() -> None:
            target.late(ActivateSet(made[0].sid))
            target.acknowledge()

        def thaw() -> None:
            source.late(ThawSet(vm.sid))
            source.acknowledge()

        took += [_timed(step) for step in (export, import_, activate)]
        source.acknowledge()
        took.append(_timed(thaw))
        require(IDS, len(exports[0].ioasids), "IDs exported")
        for name, seconds in zip(STEPS, took, strict=True):
            steps[name].append(seconds)
        return sum(took[:3])

    return run


def _timed(step: Callable[[], None]) -> float:
    began = process_time()
    step()
    return process_time() - began


class _Side:
    """An allocator with the drivers of a host, who acknowledge all that they are told."""

    def __init__(self) -> None:
        self.core = Allocator()
        self.sessions: dict[int, int] = {}
        """By subscription, who has it."""
        self.numbers: dict[Priority, int] = {}
        self.left: dict[int, list[tuple[int, int]]] = {}
        """What nobody acknowledged yet."""
        self._effects: list[Effect] = []
        for tier in (Priority.CPU, Priority.DEVICE, Priority.IOMMU):
            opened = self.core.handle(self.core.session, OpenSession(f"driver of {tier}"))
            assert isinstance(opened, SessionOpened)
            told = Subscribe(
                kinds=frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE)),
                priority=tier,
                hold=tier is Priority.CPU,
                queue_size=2 * IDS,
            )
            answer = self.core.handle(opened.session, told)
            assert isinstance(answer, Subscribed)
            self.sessions[answer.subscription] = opened.session
            self.numbers[tier] = answer.subscription

    def late(self, request: Request) -> object:
        """Ask, and let all parts be done; returns the answer, whenever it comes."""
        while True:
            answer = self.core.handle(self.core.session, request)
            while self.core.has_work:
                self.core.handle(0, Continue())
            if not isinstance(answer, Waiting):
                return answer
            effects = self.core.drain()
            self._effects += effects
            if AskAgain(answer.ticket) not in effects:
                completed = (each for each in effects if isinstance(each, Complete))
                return next(each.answer for each in completed if each.ticket == answer.ticket)

    def acknowledge(self, but: Priority | None = None) -> None:
        """Acknowledge what everybody but one was told, until nobody is told anything more."""
        while (effects := self._taken()) or (self.left and but is None):
            told, self.left = self.left, {}
            for effect in effects:
                if isinstance(effect, Deliver):
                    for number in effect.subscriptions:
                        told.setdefault(number, []).append((number, effect.message.seq))
            if but is not None:
                number = self.numbers[but]
                self.left[number] = told.pop(number, [])
            for number, messages in told.items():
                self.core.handle(self.sessions[number], Acknowledge(tuple(messages)))

    def _taken(self) -> list[Effect]:
        effects, self._effects = self._effects + self.core.drain(), []
        return effects
