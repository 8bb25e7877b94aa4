"""The agent that `tests.journal.crash` kills: an allocator with a journal, its users and a device.

It tells its parent, over a pipe, what it asks, what it is answered, and what its hardware is told;
a line is one write, so whatever the agent did before it was killed is there, and nothing half.
"""

import logging
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
from attrs import define
from msgspec.json import encode

from ioasid.actors import Session, _durable, _open, open_allocator
from ioasid.actors._local_port import LocalPort
from ioasid.core import (
    Allocator,
    Applied,
    Event,
    EventKind,
    Ioasid,
    IoasidError,
    IoasidRecord,
    IoasidState,
    OpenSession,
    Priority,
    Resync,
    StaleIoasid,
    UnknownIoasid,
)
from ioasid.journal import _journal, _store
from tests.journal.disk import Done, failing_disk

CAPACITY: Final = 256
QUOTA: Final = 40
CLIENTS: Final = ("vm-0", "vm-1", "vm-2", "vm-3")
DEVICE: Final = "iommu"
EVERY: Final = (40, 1000)
"""Requests from one checkpoint to the next, of one agent and another."""
LOG_SIZE: Final = 1 << 16
"""Bytes of the write-ahead log from which on it is moved into the database."""

PART: Final = 4
"""IDs that are dealt with at once."""

Hardware = dict[int, int]
"""By ID that is programmed, the generation of the life that it was programmed for."""


@define
class Orders:
    """What an agent is to do."""

    path: Path
    seed: int
    hardware: Hardware
    """As the agent before it left it."""
    operations: int
    """Of each client, before it ends in order."""
    die_at: int | None
    """The action on its disk, a write, a sync or a truncation, at which it kills itself."""
    plant: str | None


def run(orders: Orders, pipe: int) -> None:
    """Be the agent."""
    agent = Agent(orders, pipe)
    backend = ("asyncio", "asyncio", "trio")[orders.seed % 3]
    options = {"use_uvloop": orders.seed % 3 == 1} if backend == "asyncio" else {}
    _store.LOG_SIZE = LOG_SIZE  # type: ignore[misc]
    Allocator.__init__.__kwdefaults__["part"] = PART  # type: ignore[index]
    logging.getLogger("ioasid").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        if orders.die_at is not None:
            disk = stack.enter_context(failing_disk())
            disk.fails = partial(agent.acted, False)
            disk.after = partial(agent.acted, True)
        anyio.run(agent.live, backend=backend, backend_options=options)


class Agent:
    """One life of the agent."""

    def __init__(self, orders: Orders, pipe: int) -> None:
        self._orders = orders
        self._pipe = pipe
        self._choose = random.Random(orders.seed)
        self._actions = 0
        self._dies_late = orders.seed % 2 == 1
        self._phase = "recovery"
        self._journal: _journal.Journal | None = None
        plant = PLANTS.get(orders.plant or "")
        _durable.Journal = self._make_journal  # type: ignore[assignment, attr-defined]
        if plant is not None:
            plant()

    def _make_journal(self, path: Path) -> _journal.Journal:
        self._journal = _journal.Journal(path, every=EVERY[self._orders.seed // 6 % 2])
        return self._journal

    def tell(self, *what: Any) -> None:
        """Tell the parent something."""
        os.write(self._pipe, encode(what) + b"\n")

    def acted(self, late: bool, done: Done) -> int:
        """Count what is done to the disk, and die of the right one, before or after it."""
        if late is not self._dies_late:
            return 0
        self._actions += 1
        if self._actions == self._orders.die_at:
            phase = self._phase
            if phase == "work":
                journal = self._journal
                folding = journal is not None and journal._folding is not None
                phase = "checkpoint" if folding else "commit"
            self.tell("dies", phase, done.action)
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    async def live(self) -> None:
        """Recover, tell what was recovered, work, and end in order."""
        orders = self._orders
        async with open_allocator(
            capacity=CAPACITY, journal=orders.path, holder="host", mailbox_size=16
        ) as host:
            await self._tell_state(host)
            self._phase = "work"
            sids = {each.token: each.sid for each in (await host.list_sets()).sets}
            async with anyio.create_task_group() as tasks:
                await tasks.start(self._device, host)
                async with anyio.create_task_group() as clients:
                    for name in CLIENTS:
                        clients.start_soon(self._client, host, name, sids.get(name))
                tasks.cancel_scope.cancel()
            self._phase = "end"
        self.tell("end")

    async def _tell_state(self, host: Session) -> None:
        # Before anybody comes back.
        for each in (await host.list_holders()).holders:
            holds = each.referenced + each.granted + each.subscribed
            self.tell("holder", each.holder, each.session is None, holds)
        for owner in (await host.list_sets()).sets:
            self.tell("set", owner.token, owner.quota)
            for live in await host.list_set(owner.sid):
                record = await host.find(live.ioasid)
                mine = record.references.get(str(owner.token), 0)
                active = live.state is IoasidState.ACTIVE
                life = live.ioasid, live.generation
                self.tell("ioasid", owner.token, *life, active, live.spid, mine)
        self.tell("recovered")

    async def _device(self, host: Session, *, task_status: Any) -> None:
        hardware = self._orders.hardware

        def program(ioasid: int, generation: int) -> None:
            if hardware.get(ioasid) != generation:
                self.tell("program", ioasid, generation)
                hardware[ioasid] = generation

        def clear(ioasid: int) -> None:
            self.tell("clear", ioasid, hardware.pop(ioasid))

        async with (
            host.session(DEVICE) as device,
            device.subscribe(priority=Priority.IOMMU, hold=True) as events,
        ):
            task_status.started()
            async for message in events:
                match message:
                    case Resync():
                        live = {
                            each.ioasid: each.generation
                            for each in message
                            if each.state is IoasidState.ACTIVE
                        }
                        for ioasid in [*hardware]:
                            if live.get(ioasid) != hardware[ioasid]:
                                clear(ioasid)
                        for ioasid, generation in live.items():
                            program(ioasid, generation)
                    case Event(kind=EventKind.ALLOC):
                        program(message.ioasid, message.generation)
                    case Event(kind=EventKind.FREE) if message.ioasid in hardware:
                        clear(message.ioasid)
                # Coming back for the next one acknowledges this one.

    async def _client(self, host: Session, name: str, sid: int | None) -> None:
        async def ask(operation: str, call: Awaitable[Any], *arguments: Any) -> Any:
            self.tell("ask", name, operation, *arguments)
            try:
                answer = await call
            except IoasidError as error:
                self.tell("refused", name, error.code)
                return None
            self.tell("answer", name, _plain(answer))
            return answer

        if sid is None:
            made = await ask("alloc_set", host.alloc_set(name, QUOTA))
            sid = made.sid
        choose = self._choose
        async with host.session(name) as me:
            for _ in range(self._orders.operations):
                records = await _records(me, sid)
                active = [each for each in records if each.state is IoasidState.ACTIVE]
                freed = [each for each in records if each.state is not IoasidState.ACTIVE]
                held = [each for each in records if name in each.references]
                chance = choose.random()
                if freed and held and chance < 0.3:
                    one = choose.choice(held)
                    await ask("put", me.put(one.ioasid, generation=one.generation), one.ioasid)
                elif chance < 0.02:
                    await ask("empty", me.free_set(sid, destroy=False))
                elif chance < 0.5 or not active:
                    count = choose.randint(1, 4)
                    if count == 1:
                        await ask("alloc", me.alloc(sid), 1)
                    else:
                        await ask("alloc", me.alloc_many(sid, count), count)
                else:
                    one = choose.choice(active)
                    life = Ioasid(one.ioasid, one.generation)
                    if chance < 0.6:
                        await ask("get", me.get(life), one.ioasid)
                    elif chance < 0.75:
                        spid = choose.randrange(1 << 20)
                        calls = me.attach_spid(life, spid)
                        await ask("attach_spid", calls, one.ioasid, spid)
                    else:
                        await ask("free", me.free(life), one.ioasid)
            # In order, its references go with it; nobody waits until they have.
            self.tell("ask", name, "leave")


async def _records(me: Session, sid: int) -> list[IoasidRecord]:
    records = []
    for each in await me.list_set(sid):
        # What is in quarantine may be reclaimed meanwhile.
        with suppress(StaleIoasid, UnknownIoasid):
            records.append(await me.find(each.ioasid, generation=each.generation))
    return records


def _plain(answer: Any) -> Any:
    # What the parent makes something of: the lives that were allocated.
    ranges: Sequence[Any]
    match answer:
        case tuple():
            ranges = answer
        case int() if hasattr(answer, "generation"):
            return [[int(answer), answer.generation]]
        case _:
            return None
    return [
        [ioasid, each.first.generation]
        for each in ranges
        for ioasid in range(each.first, each.last + 1)
    ]


# -- planted faults ---------------------------------------------------------------------------


def _answer_early() -> None:
    async def commit(self: _durable.Durable, applied: Sequence[Applied]) -> None:
        self._journal.submit(partial(self._journal.append, applied), bool)

    _durable.Durable.commit = commit  # type: ignore[method-assign]


def _drop_too_much() -> None:
    drop = _store.Store.drop_replaced

    def drop_more(self: _store.Store) -> bool:
        self._file.execute("DELETE FROM row WHERE last = (SELECT max(last) FROM row)")
        return drop(self)

    _store.Store.drop_replaced = drop_more  # type: ignore[method-assign]


def _keep_holders_live() -> None:
    begin = _open._begin

    def begin_with_all(port: LocalPort, core: Allocator, *, goes_on: bool) -> Any:
        opened = begin(port, core, goes_on=goes_on)
        for holder in core.snapshot().holders if goes_on else ():
            if holder.name != "host":
                port.tell(OpenSession(holder.name))
        return opened

    _open._begin = begin_with_all


def _forget_reboot() -> None:
    recover = _durable.Durable.recover
    _journal.boot_id = lambda: str(os.getpid())  # type: ignore[attr-defined]

    async def recover_anew(self: _durable.Durable, new: Any) -> Any:
        self._on_reboot = "forget"
        return await recover(self, new)

    _durable.Durable.recover = recover_anew  # type: ignore[method-assign]


def _forget_a_row() -> None:
    append, kept = _journal.Journal.append, [0]

    def append_most(self: _journal.Journal, applied: Sequence[Applied]) -> None:
        kept[0] += 1
        if kept[0] % 20:
            append(self, applied)

    _journal.Journal.append = append_most  # type: ignore[method-assign]


PLANTS: Final[dict[str, Callable[[], None]]] = {
    "answer-before-commit": _answer_early,
    "row-dropped-with-checkpoint": _drop_too_much,
    "holders-stay-live": _keep_holders_live,
    "boot-forgets": _forget_reboot,
    "row-not-kept": _forget_a_row,
}
"""Faults that the program has to see."""
