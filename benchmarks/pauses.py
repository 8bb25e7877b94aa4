"""How long single requests hold the loop: the longest call of the core at 100,000 of everything.

While the core decides a request nobody else is served, so each figure is a pause of everybody. Of a
request that is done in parts it is the longest part.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeAlias

from benchmarks.measure import Figure, Pass, Plan, compare, figure, require, take_turns
from ioasid.core import (
    Acknowledge,
    ActivateSet,
    Alloc,
    Allocator,
    AllocMany,
    AllocSet,
    AskAgain,
    AttachSpid,
    Continue,
    Deliver,
    Done,
    Effect,
    Evict,
    ExportedIoasid,
    ExportSet,
    FreeSet,
    FreezeSet,
    Get,
    Imported,
    ImportSet,
    IoasidRange,
    OpenSession,
    Priority,
    Put,
    Released,
    Request,
    SessionOpened,
    SetExport,
    Subscribe,
    Subscribed,
    TakeSnapshot,
    ThawSet,
    TokenType,
    Unsubscribe,
)

Scene: TypeAlias = tuple[Allocator, int, Request]
"""An allocator, and the session and request that are measured."""

TARGET: Final = 10.0
"""Milliseconds."""


async def pauses(backend: str, plan: Plan) -> list[Figure]:
    """Measure each request that grows with what there is."""
    count = plan.scaled(100_000, 2000)
    passes = {name: _pausing(build, count) for name, build in SCENES.items()}
    times = await take_turns(passes, plan)
    return [
        figure(
            [seconds * 1e3 for seconds in times[name]],
            name=name,
            backend=backend,
            unit="ms",
            target=5.0 if name == "pause_resync" else TARGET,
        )
        for name in SCENES
    ]


async def references_flat(backend: str, plan: Plan) -> list[Figure]:
    """Compare taking and dropping a reference beside 10,000 holders of the ID with 10."""
    few, many = 10, plan.scaled(10_000, 1000)
    rounds = plan.scaled(20_000, 2000)
    passes = {f"{each:,} holders": _referencing(each, rounds) for each in (many, few)}
    times = await take_turns(passes, plan)
    return [
        compare(
            times,
            f"{many:,} holders",
            f"{few:,} holders",
            name="references_flat",
            backend=backend,
            unit=f"x of {few} holders",
            target=1.2,
        )
    ]


def _pausing(build: Callable[[int], Scene], count: int) -> Pass:
    async def run() -> float:
        core, session, request = build(count)
        core.drain()
        longest = 0.0
        again = True
        while again:
            seconds, _ = _timed(core, session, request)
            longest, again = max(longest, seconds), False
            while core.has_work:
                seconds, effects = _timed(core, 0, Continue())
                longest = max(longest, seconds)
                again = again or any(isinstance(each, AskAgain) for each in effects)
        return longest

    return run


def _timed(core: Allocator, session: int, request: Request) -> tuple[float, list[Effect]]:
    began = perf_counter()
    core.handle(session, request)
    effects = core.drain()
    return perf_counter() - began, effects


def _referencing(holders: int, rounds: int) -> Pass:
    core = _allocated(1)
    sessions = [_join(core, f"vm-{number}") for number in range(holders)]
    for session in sessions:
        core.handle(session, Get(1))
    last = sessions[-1]

    async def run() -> float:
        handle = core.handle
        began = perf_counter()
        answers = [handle(last, each) for _ in range(rounds) for each in (Put(1), Get(1))]
        seconds = perf_counter() - began
        require([Released(False), Done()] * rounds, answers, "references dropped and taken")
        return seconds / rounds

    return run


def _allocated(count: int) -> Allocator:
    core = Allocator()
    core.handle(core.session, AllocSet("vm-1", count))
    core.handle(core.session, AllocMany(0, count))
    return core


def _bound(count: int) -> Allocator:
    core = _allocated(count)
    for ioasid in range(1, count + 1):
        core.handle(core.session, AttachSpid(ioasid, ioasid))
    return core


def _join(core: Allocator, name: str) -> int:
    opened = core.handle(0, OpenSession(name))
    assert isinstance(opened, SessionOpened)
    return opened.session


def _evict(count: int) -> Scene:
    core = _allocated(count)
    vdcm = _join(core, "vdcm")
    for ioasid in range(1, count + 1):
        core.handle(vdcm, Get(ioasid))
    return core, core.session, Evict("vdcm")


def _unsubscribe(count: int) -> Scene:
    core = _allocated(count)
    kvm = _join(core, "kvm")
    subscribed = core.handle(kvm, Subscribe(priority=Priority.CPU))
    assert isinstance(subscribed, Subscribed)
    core.handle(core.session, Subscribe(queue_size=1 << 20))
    for ioasid in range(1, count + 1):
        core.handle(core.session, AttachSpid(ioasid, ioasid))
    return core, kvm, Unsubscribe(subscribed.subscription)


def _subscribe(count: int) -> Scene:
    core = Allocator()
    for sid in range(count):
        core.handle(core.session, AllocSet(None, 1, TokenType.NULL))
        core.handle(core.session, Alloc(sid))
    return core, core.session, Subscribe(replay=True)


def _resync_plain(count: int) -> Scene:
    core = _allocated(5 * count)
    return core, core.session, Subscribe(replay=True)


def _resync_bound(count: int) -> Scene:
    core = _bound(count)
    return core, core.session, Subscribe(replay=True, hold=True)


def _free_set(count: int) -> Scene:
    core = _bound(count)
    return core, core.session, FreeSet(0)


def _moving(count: int) -> Allocator:
    # With a device that is told, and is done with all of it.
    core = _bound(count)
    vdcm = _join(core, "vdcm")
    core.handle(vdcm, Subscribe(priority=Priority.DEVICE, queue_size=1 << 20))
    return core


def _finish(core: Allocator) -> None:
    while core.has_work:
        core.handle(0, Continue())
    told = [
        (subscription, effect.message.seq)
        for effect in core.drain()
        if isinstance(effect, Deliver)
        for subscription in effect.subscriptions
    ]
    core.handle(0, Acknowledge(tuple(told)))


def _freeze(count: int) -> Scene:
    core = _moving(count)
    return core, core.session, FreezeSet(0, wait=True)


def _frozen(count: int) -> Allocator:
    core = _moving(count)
    core.handle(core.session, FreezeSet(0))
    _finish(core)
    return core


def _thaw(count: int) -> Scene:
    core = _frozen(count)
    return core, core.session, ThawSet(0)


def _export(count: int) -> Scene:
    core = _frozen(count)
    return core, core.session, ExportSet(0)


def _exported(count: int) -> SetExport:
    ioasids = tuple(ExportedIoasid(each, each, None) for each in range(1, count + 1))
    return SetExport("vm-1", TokenType.MM, count, (IoasidRange(1, count),), ioasids)


def _import(count: int) -> Scene:
    core = Allocator()
    core.handle(core.session, Subscribe(queue_size=1 << 20))
    return core, core.session, ImportSet(_exported(count))


def _activate(count: int) -> Scene:
    core = Allocator()
    core.handle(core.session, Subscribe(priority=Priority.DEVICE, queue_size=1 << 20))
    request = ImportSet(_exported(count))
    if not isinstance(core.handle(core.session, request), Imported):
        # It was checked, and is asked for again.
        while core.has_work:
            core.handle(0, Continue())
        core.handle(core.session, request)
    _finish(core)
    return core, core.session, ActivateSet(0)


def _snapshot(count: int) -> Scene:
    core = _bound(count)
    return core, core.session, TakeSnapshot()


SCENES: Final[dict[str, Callable[[int], Scene]]] = {
    "pause_evict": _evict,
    "pause_unsubscribe": _unsubscribe,
    "pause_subscribe": _subscribe,
    "pause_resync": _resync_plain,
    "pause_resync_bound": _resync_bound,
    "pause_free_set": _free_set,
    "pause_freeze": _freeze,
    "pause_thaw": _thaw,
    "pause_export": _export,
    "pause_import": _import,
    "pause_activate": _activate,
    "pause_snapshot": _snapshot,
}
