"""An allocator with a journal: what survives its end, and what becomes of the event loop."""

import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any

import anyio
import pytest
from anyio import from_thread
from anyio.lowlevel import checkpoint, current_token
from msgspec.structs import replace

from ioasid.actors import Decision, Session, open_allocator
from ioasid.core import (
    Allocator,
    Event,
    InvalidArgument,
    Resync,
    ReuseOrder,
    Tick,
)
from ioasid.journal import JournalDamaged, JournalFolderMissing, JournalInUse
from tests.actors.hosts import settle
from tests.actors.inside import core_of
from tests.core.invariants import check_state
from tests.journal.disk import IOERR_FSYNC, Disk, Done, copied
from tests.journal.histories import History, keep, opened

pytestmark = pytest.mark.anyio


async def crash(path: Path, body: Callable[[Session], Awaitable[object]]) -> None:
    """Run an allocator that ends without notice."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with open_allocator(capacity=64, journal=path) as host:
            await body(host)
            raise ZeroDivisionError


async def fill(host: Session) -> None:
    """Make a set with IDs, a holder with a reference and one with a grant."""
    await host.alloc_set("vm-1", 8)
    async with host.session("kvm") as kvm, kvm.subscribe(hold=True) as events:
        await kvm.get(await host.alloc(0))
        await host.attach_spid(1, 101)
        while events.take() is not None:
            pass
        await host.alloc_many(0, 3)
        raise ZeroDivisionError


@pytest.mark.parametrize("end", ["crash", "orderly"])
async def test_what_was_answered_is_there_again(path: Path, end: str) -> None:
    """However it ends, sets, IDs, bindings and references are as the last answer said."""
    if end == "crash":
        await crash(path, fill)
    else:
        async with open_allocator(capacity=64, journal=path) as host:
            with pytest.raises(ZeroDivisionError):
                await fill(host)
    async with open_allocator(journal=str(path)) as host:
        record = await host.find(1)
        assert (101, {"kvm": 2}) == (record.spid, dict(record.references))
        assert 4 == (await host.find_set("vm-1")).allocated
        figures = await host.statistics()
        assert (1, 1, 64) == (figures.suspended, figures.sessions, figures.capacity)
        async with host.session("kvm") as kvm, kvm.subscribe(hold=True) as events:
            assert kvm.opened.resumed
            assert isinstance(await anext(events), Resync)
            await host.free(1)
            await kvm.put(1)
            assert isinstance(await anext(events), Event)
            assert events.take() is None
        check_state(core_of(host))
        assert 3 == (await host.find_set("vm-1")).allocated
        generation = (await host.find(await host.alloc(0))).generation
    async with open_allocator(journal=path) as host:
        assert generation < (await host.find(await host.alloc(0))).generation


async def test_an_answer_never_comes_before_its_commit(path: Path, disk: Disk) -> None:
    """Whatever is answered, or told, is in a copy of the files that is made right then."""
    heard: list[int] = []

    def look(decision: Decision) -> None:
        if decision.changes.allocated:
            with sqlite3.connect(copied(path)) as file:
                heard.append(file.execute("SELECT max(last) FROM row").fetchone()[0])
            file.close()
            assert decision.index <= heard[-1]

    async with open_allocator(journal=path, taps=[look]) as host:
        await host.alloc_set("vm-1", 8)
        for _ in range(5):
            await host.alloc(0)
    assert 5 == len(heard)
    assert disk.opened


async def test_time_goes_on_from_the_last_logged(path: Path) -> None:
    """The clock of the next process may begin anywhere: ages go on, and nothing goes back."""
    for _ in range(3):
        async with open_allocator(journal=path) as host:
            await host.statistics()
            before = core_of(host).now
            await host.reserve_capacity(1)
            assert before <= core_of(host).now


async def test_a_clock_that_begins_again(path: Path) -> None:
    """After a boot the clock shows less than before; the allocator's goes on all the same."""
    history = History(Allocator(64))
    history.core.handle(0, Tick(1e12))
    with opened(path, Allocator.restore(history.core.snapshot())) as (journal, _):
        keep(journal, history.some(3))
    for _ in range(2):
        async with open_allocator(journal=path) as host:
            assert core_of(host).now >= history.core.now
            await host.reserve_capacity(1)


async def test_time_does_not_go_back_by_rounding() -> None:
    """Whatever the clock shows, the first request comes no earlier than the last one before."""
    await anyio.sleep(0.1)
    chance = random.Random(1)
    async with open_allocator() as host:
        await host.alloc_set("vm-1", 8)
        snapshot = await host.snapshot()
    for _ in range(100):
        last = chance.uniform(0, 1e6)
        async with open_allocator(snapshot=replace(snapshot, now=last)) as host:
            await host.statistics()
            assert last <= core_of(host).now


async def test_what_a_journal_goes_with(path: Path) -> None:
    """It has the state, so a snapshot is refused beside it, another commit, and other figures."""
    async with open_allocator(capacity=64, order=ReuseOrder.CYCLIC, journal=path) as host:
        snapshot = await host.snapshot()
    arguments: list[dict[str, Any]] = [
        {"snapshot": snapshot},
        {"commit": anyio.sleep},
        {"capacity": 65},
        {"order": ReuseOrder.LOWEST},
        {"on_reboot": "hope"},
        {"journal": 7},
        {"journal": ""},
        {"journal": "a\0b"},
    ]
    for each in arguments:
        with pytest.raises(InvalidArgument) as caught:
            async with open_allocator(**{"journal": path, **each}):
                raise AssertionError("not reached")
        assert caught.value.argument in each
    async with open_allocator(capacity=64, order=ReuseOrder.CYCLIC, journal=path):
        pass


async def test_a_journal_that_can_t_be_opened(path: Path) -> None:
    """One in use, one nowhere and one damaged are refused, and leave nothing behind."""
    async with open_allocator(journal=path) as host:
        with pytest.raises(JournalInUse):
            async with open_allocator(journal=path):
                raise AssertionError("not reached")
        await host.alloc_set("vm-1", 8)
    with pytest.raises(JournalFolderMissing):
        async with open_allocator(journal=path / "nowhere"):
            raise AssertionError("not reached")
    with sqlite3.connect(path) as file:
        file.execute("UPDATE checkpoint SET digest = zeroblob(32)")
    file.close()
    with pytest.raises(JournalDamaged, match=r"python -m ioasid\.journal"):
        async with open_allocator(journal=path):
            raise AssertionError("not reached")


# Who waits for the disk


async def ask(host: Session, answers: list[int]) -> None:
    """Ask for an ID."""
    answers.append(await host.alloc(0))


async def test_a_sync_that_hangs_stops_nobody_else(path: Path, disk: Disk) -> None:
    """The event loop goes on, however quick the disk was before, and the answer comes later."""
    released = Flag()
    answers: list[int] = []
    async with open_allocator(journal=path) as host, anyio.create_task_group() as tasks:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        disk.fails = lambda done: 0 if done.action != "sync" or released.wait(60) else IOERR_FSYNC
        tasks.start_soon(ask, host, answers)
        await settle()
        assert [] == answers
        released.set()
    assert [2] == answers


@pytest.mark.parametrize("together", [1, 2])
async def test_one_request_is_waited_for_in_place(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Of a disk that is quick: nobody has a turn until one is kept; of several, everybody has."""
    monkeypatch.setattr("ioasid.actors._durable.BRIEF", 60.0)
    turned = Flag()
    had_a_turn: list[bool] = []
    answers: list[int] = []

    def look(done: Done) -> int:
        if done.action == "sync":
            turned.clear()
            had_a_turn.append(turned.wait(0.05 if together == 1 else 60))
        return 0

    async def turn() -> None:
        while len(answers) < together:
            turned.set()
            await checkpoint()

    async with open_allocator(journal=path) as host:
        await host.alloc_set("vm-1", 8)
        await host.alloc(0)
        disk.fails = look
        async with anyio.create_task_group() as tasks:
            for _ in range(together):
                tasks.start_soon(ask, host, answers)
            tasks.start_soon(turn)
        disk.repair()
    assert [together > 1] == had_a_turn


# Whoever gives up


async def cancelled_at(action: int, path: Path, disk: Disk) -> bool:
    """Use a journal, cancelled while its file is changed for so-many-th time; whether it was."""
    loop = current_token()
    done = 0

    def look(_: Done) -> int:
        nonlocal done
        done += 1
        if done == action:
            from_thread.run_sync(scope.cancel, token=loop)
        return 0

    disk.fails = look
    with anyio.CancelScope() as scope:
        if not action:
            scope.cancel()
        async with open_allocator(capacity=64, journal=path) as host:
            await host.alloc_set("vm-1", 8)
            await host.alloc(0)
    disk.repair()
    return done >= action


@pytest.mark.slow
async def test_cancelled_at_any_point(tmp_path: Path, disk: Disk) -> None:
    """While it opens, works or closes: the file is free at once, whole, and no thread is left."""
    action = 0
    while await cancelled_at(action, tmp_path / f"journal-{action}", disk):
        assert not any(each.name.startswith("ioasid journal") for each in threading.enumerate())
        async with open_allocator(journal=tmp_path / f"journal-{action}") as host:
            check_state(core_of(host))
        action += 1
