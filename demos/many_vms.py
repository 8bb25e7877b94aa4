"""A storm over one host: many VMs, shared devices, crashes everywhere, and nothing may go wrong.

    python demos/many_vms.py [--vms 200] [--devices 4] [--ops 200000] [--crash-rate 0.01]
                             [--seed N] [--backend asyncio|uvloop|trio] [--json]

Two tasks per VM do what guests do: allocate, bind, DMA, free, in any order and across each other,
some of it cancelled half-way. Around them VMs, actors and subscribers crash, hang and come back.
A witness sees every decision of the allocator and every step of the actors, and checks the rules;
samples of the whole state are checked on the way, and at the end nothing may be left over. Exits
with 1 if any rule was broken. With --json it writes one event a line.

What to do is drawn from the seed, by each task on its own: the same seed and arguments repeat
every choice, whatever the backend. Whom it meets depends on how the tasks interleave.
"""

import argparse
import importlib.util
import json
import logging
import sys
from bisect import bisect
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from hashlib import sha256
from itertools import accumulate
from random import Random
from time import perf_counter
from typing import Any, Final
from zlib import crc32

import anyio
import msgspec
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint
from attrs import asdict, define, field, frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ioasid.actors import (
    Actor,
    ActorCrashed,
    ActorStopped,
    AlreadyProgrammed,
    CompleteDma,
    ContextStopping,
    Decision,
    DmaFault,
    Host,
    NotBound,
    NotProgrammed,
    PasidFault,
    Programmed,
    Session,
    StartDma,
    Step,
    Subscription,
    UnbindPending,
    UnknownDevice,
    UnknownProcess,
    UnknownTransfer,
    Vm,
    VmClosed,
    VmExists,
    open_host,
)
from ioasid.core import (
    Alloc,
    Allocated,
    AllocatedMany,
    Allocator,
    AllocatorClosed,
    AllocSet,
    AlreadyBound,
    CapacityExhausted,
    CloseSession,
    DataTaken,
    Event,
    EventKind,
    Evict,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    IoasidRecord,
    IoasidState,
    MalformedMessage,
    Message,
    NotOfThisSet,
    NotReserved,
    Priority,
    QuotaBelowUse,
    QuotaExceeded,
    RangeFull,
    Resync,
    SessionEnded,
    SetFreePending,
    Snapshot,
    SpidInUse,
    Statistics,
    Subscribe,
    Subscribed,
    TokenInUse,
    TokenType,
    TooManyEvents,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
)
from ioasid.testing import check_state

TASKS_PER_VM: Final = 2
SAMPLES: Final = 20
"""How often the whole state is looked at on the way."""
LOOK_EVERY: Final = 5000
"""Decisions between two comparisons of the hardware with the references that protect it."""
GUEST_PASIDS: Final = 24
PROCESSES_PER_TASK: Final = 4
FLOOD: Final = 100
"""Requests that a VM sends to a device at once before it crashes."""
CANCEL_RATE: Final = 0.03
DEADLINE: Final = 0.05
"""Seconds that a subscriber has to acknowledge a message before it may be evicted."""
PATIENCE: Final = 50
"""How often a task tries to start its VM before it goes on to something else."""
STALL: Final = 60.0
"""Seconds without any operation completed, after which the storm counts as stuck."""
WITNESS: Final = "witness"
SUBSCRIBER: Final = "sub:"

OPERATIONS: Final[dict[str, float]] = {
    "alloc": 14,
    "bind": 14,
    "program": 8,
    "submit": 16,
    "complete": 10,
    "stop": 4,
    "unbind": 6,
    "free": 9,
    "relearn": 2,
    "close VM": 0.3,
    "adjust quota": 2,
    "free set": 0.3,
    "reserve": 1,
    "use process": 5,
    "use set": 1.5,
    "reference": 2.5,
    "attach data": 1,
    "notify": 1,
    "subscribe": 0.7,
    "bad request": 3,
}
"""What a task does, with weights."""

CRASHES: Final[dict[str, float]] = {
    "crash VM": 30,
    "crash VM in a flood": 4,
    "crash VFIO": 8,
    "crash KVM": 10,
    "crash VDCM": 12,
    "crash VT-d": 8,
    "crash subscriber": 20,
    "crash agent": 8,
    "VFIO gives up": 2,
    "KVM gives up": 2,
    "device gives up": 0.5,
}
"""What a task does instead, at the crash rate."""

OPERATION_KINDS: Final = list(OPERATIONS), list(accumulate(OPERATIONS.values()))
CRASH_KINDS: Final = list(CRASHES), list(accumulate(CRASHES.values()))

GONE: Final = (ActorCrashed, ActorStopped, VmClosed)
"""What anything asked of an actor may meet in a storm."""

# A step for which there is nothing yet does the step before it.
_ALLOC: Final = (*GONE, QuotaExceeded, RangeFull)
_BIND: Final = (
    *_ALLOC,
    UnknownIoasid,
    NotOfThisSet,
    IoasidFreePending,
    AlreadyProgrammed,
    AlreadyBound,
    UnbindPending,
    SpidInUse,
    TooManyEvents,
)
_PROGRAM: Final = (*_BIND, UnknownSpid, UnknownSet)
_SUBMIT: Final = (*_PROGRAM, PasidFault, NotProgrammed, ContextStopping, DmaFault)

EXPECTED: Final[dict[str, tuple[type[IoasidError], ...]]] = {
    "alloc": _ALLOC,
    "bind": _BIND,
    "program": _PROGRAM,
    "submit": _SUBMIT,
    "complete": (*GONE, UnknownTransfer, DmaFault),
    "stop": (*GONE, UnknownIoasid, NotOfThisSet, NotProgrammed),
    "unbind": (*GONE, UnknownIoasid, NotOfThisSet, NotBound, UnbindPending),
    "free": (*GONE, UnknownIoasid, NotOfThisSet),
    "relearn": (UnknownSet,),
    "close VM": (),
    "adjust quota": (UnknownToken, UnknownSet, SetFreePending, QuotaBelowUse, CapacityExhausted),
    "free set": (UnknownToken, UnknownSet),
    "reserve": (CapacityExhausted,),
    "use process": (
        *GONE,
        AlreadyProgrammed,
        QuotaExceeded,
        UnknownIoasid,
        IoasidFreePending,
        UnknownProcess,
        NotBound,
        NotProgrammed,
        ContextStopping,
        DmaFault,
    ),
    "use set": (
        CapacityExhausted,
        TokenInUse,
        UnknownToken,
        UnknownSet,
        SetFreePending,
        UnknownIoasid,
    ),
    "reference": (UnknownSpid, UnknownSet, UnknownIoasid, NotOfThisSet, IoasidFreePending),
    "attach data": (UnknownIoasid, NotOfThisSet, IoasidFreePending, DataTaken),
    "notify": (UnknownIoasid, NotOfThisSet, IoasidFreePending, TooManyEvents),
    "subscribe": (),
    "bad request": (),
    "start VM": (VmExists, CapacityExhausted),
    "crash VM in a flood": (),
    "crash agent": (UnknownSpid, UnknownSet, UnknownIoasid, NotOfThisSet, IoasidFreePending),
}
"""The refusals that each operation may meet when others interfere; any other is a violation."""

logger = logging.getLogger("ioasid")


@frozen
class Options:
    """What was asked for on the command line."""

    vms: int
    devices: int
    ops: int
    crash_rate: float
    seed: int
    backend: str

    @property
    def workers(self) -> int:
        """How many tasks share the operations."""
        return self.vms * TASKS_PER_VM

    def share(self, worker: int) -> int:
        """How many operations one task does."""
        return self.ops // self.workers + (worker < self.ops % self.workers)


# -- choices: what the seed repeats -------------------------------------------------------------


@frozen
class Choice:
    """One operation as it was drawn; the numbers select among what is there when it is done."""

    kind: str
    numbers: tuple[int, int, int]
    cancel_after: int | None
    """Passes of the event loop after which it is cancelled."""


class Choices:
    """What one task does, one after the other: a matter of the seed and its number alone."""

    def __init__(self, options: Options, worker: int) -> None:
        self._random = Random(f"{options.seed}:{worker}")
        self._crash_rate = options.crash_rate
        self.digest = 0
        """Of all that was drawn so far."""

    def draw(self) -> Choice:
        """Draw the next one; every one takes as many random numbers."""
        random = self._random
        crash = random.random() < self._crash_rate
        kind = _pick(CRASH_KINDS if crash else OPERATION_KINDS, random.random())
        bits = random.getrandbits
        numbers = bits(32), bits(32), bits(32)
        cancel = random.random()
        cancel_after = int(cancel / CANCEL_RATE * 16) if cancel < CANCEL_RATE else None
        self.digest = crc32(f"{kind}{numbers}{cancel_after}".encode(), self.digest)
        return Choice(kind, numbers, cancel_after)


def _pick(kinds: tuple[list[str], list[float]], point: float) -> str:
    names, bounds = kinds
    return names[bisect(bounds, point * bounds[-1])]


# -- the witness: what must hold at every single step -------------------------------------------

ABSENT, UNBOUND, BOUND, PENDING = range(4)
MOVES: Final[dict[EventKind, dict[int, int]]] = {
    EventKind.ALLOC: {ABSENT: UNBOUND},
    EventKind.BIND: {UNBOUND: BOUND},
    EventKind.UNBIND: {BOUND: UNBOUND},
    EventKind.FREE: {UNBOUND: PENDING, BOUND: PENDING},
    EventKind.RECLAIM: {PENDING: ABSENT},
}
ANY_STATE: Final = frozenset((ABSENT, UNBOUND, BOUND, PENDING))


@cache
def after(states: frozenset[int], kind: EventKind, kinds: frozenset[EventKind]) -> frozenset[int]:
    """Return what an ID may be after an event, for one who is told these kinds and no others."""
    reached = set(states)
    while True:
        hidden = {
            moves[state]
            for unseen, moves in MOVES.items()
            if unseen not in kinds
            for state in reached
            if state in moves
        }
        if hidden <= reached:
            break
        reached |= hidden
    return frozenset(MOVES[kind][state] for state in reached if state in MOVES[kind])


@define(eq=False)
class Stream:
    """What one subscriber was told, as far as the next message has to fit to it."""

    kinds: frozenset[EventKind]
    joined: int
    """The lives begun by then: IDs of these may be in any state. 0 after a Resync."""
    states: dict[int, frozenset[int]] = field(factory=dict)
    last: dict[int, int] = field(factory=dict)
    """The seq of the last event of every ID."""


@frozen
class Life:
    """One life of an ID, from ALLOC to RECLAIM."""

    number: int
    sid: int
    owner: str
    """Whose memory DMA with it may reach; "process" for any process of the host."""
    generation: int = 0
    """Which of the VMs that had this name, one after the other."""


class Witness:
    """Observes a host and checks what every single decision and step has to fulfil.

    That it is told every ALLOC and RECLAIM in the instant of the decision, it owes to a
    subscription of its own, which orders nothing and so delays nobody.
    """

    def __init__(self, violated: Callable[[str], None]) -> None:
        self._violated = violated
        self.host: Host | None = None
        self.decisions = 0
        self.steps: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.lives: dict[int, Life] = {}
        """The IDs that are allocated now."""
        self.earlier: dict[int, Life] = {}
        """The last life that ended, of every ID."""
        self.transfers: dict[tuple[str, int], tuple[int, Life]] = {}
        """The ID and its life, by device and number, of what was started and not completed."""
        self.generations: Counter[str] = Counter()
        """How many sets there were with each token."""
        self.landed = 0
        self.faulted = 0
        self.most_live = 0
        self.vtd_restarts = False
        self._begun = 0
        self._streams: dict[str, Stream] = {}
        self._written_off: set[str] = set()
        """Holders that were evicted; what their actors still remember means nothing."""

    def observe(self, seen: Decision | Step) -> None:
        """See one step of an actor, or one decision of the allocator."""
        if isinstance(seen, Step):
            self.steps[type(seen.message).__name__] += 1
            self._step(seen.actor, seen.message)
            return
        self.decisions += 1
        request, answer = seen.request, seen.answer
        if isinstance(answer, IoasidError):
            self.refusals[type(answer).__name__] += 1
        elif isinstance(request, Subscribe):
            assert isinstance(answer, Subscribed)
            self._written_off.discard(seen.holder)
            self._streams[seen.holder] = Stream(request.kinds, self._begun)
        elif isinstance(request, AllocSet) and request.token is not None:
            self.generations[request.token] += 1
        elif isinstance(request, CloseSession):
            self._streams.pop(seen.holder, None)
        elif isinstance(request, Evict):
            self._streams.pop(request.name, None)
            self._written_off.add(request.name)
        for holder, message in seen.told:
            if holder == WITNESS and isinstance(message, Event) and message.publisher is None:
                self._lives(message, seen.find(message.ioasid))
        for holder, message in seen.told:
            if isinstance(message, Resync):
                self.events["Resync"] += 1
                self._resynced(holder, message)
            else:
                self.events[message.kind] += 1
                self._told(holder, message)
        if isinstance(answer, Allocated) and isinstance(request, Alloc):
            self._handed_out(answer.ioasid, request)
        elif isinstance(answer, AllocatedMany):
            for each in answer.ranges:
                for ioasid in range(each.first, each.last + 1):
                    self._handed_out(ioasid, None)
        if not self.decisions % LOOK_EVERY:
            self._look(seen.find)

    # -- lives of IDs -------------------------------------------------------------------------

    def _lives(self, event: Event, record: IoasidRecord | None) -> None:
        ioasid = event.ioasid
        if event.kind is EventKind.ALLOC:
            if ioasid in self.lives:
                self._violated(f"IOASID {ioasid} was allocated twice without a RECLAIM between")
            self._begun += 1
            owner = "process" if event.token is None else event.token
            generation = self.generations[owner]
            self.lives[ioasid] = Life(self._begun, event.sid, owner, generation)
            self.most_live = max(self.most_live, len(self.lives))
            self._check_unused(ioasid, "was handed out")
            if record is None or record.reference_count != 1 or record.spid is not None:
                self._violated(f"IOASID {ioasid} was not fresh when it was handed out: {record}")
        elif event.kind is EventKind.RECLAIM:
            life = self.lives.pop(ioasid, None)
            if life is None:
                self._violated(f"IOASID {ioasid} was reclaimed without being allocated")
            else:
                self.earlier[ioasid] = life
            self._check_unused(ioasid, "was reclaimed")

    def _handed_out(self, ioasid: int, request: Alloc | None) -> None:
        life = self.lives.get(ioasid)
        if life is None:
            self._violated(f"nobody was told that IOASID {ioasid} was allocated")
        elif request is not None and (
            request.sid != life.sid
            or not request.min <= ioasid
            or (request.max is not None and ioasid > request.max)
        ):
            self._violated(f"IOASID {ioasid} is not what {request} asked for: {life}")

    def _check_unused(self, ioasid: int, what: str) -> None:
        for use in self.uses(ioasid):
            self._violated(f"IOASID {ioasid} {what} while {use}")

    def uses(self, ioasid: int) -> Iterator[str]:
        """Say what CPUs, devices and the IOMMU still have programmed for an ID."""
        if self.host is None:
            return
        for device in self.host.vtd.iommu.devices_of(ioasid):
            yield f"the IOMMU had an entry for it on {device}"
        for name, vdcm in self.host.devices.items():
            if ioasid in vdcm.device.contexts:
                yield f"{name} had a context for it"
            if ioasid in vdcm.device.transfers.values():
                yield f"{name} had a transfer in flight with it"
        life = self.lives.get(ioasid) or self.earlier.get(ioasid)
        vm = None if life is None else self.host.vms.get(life.owner)
        if vm is None or vm.kvm.holder in self._written_off:
            return
        for gpasid, mapped in vm.kvm.table.items():
            if mapped == ioasid:
                yield f"{vm.kvm.holder} translated {gpasid} to it"

    def _look(self, find: Callable[[int], IoasidRecord | None]) -> None:
        # Whatever has an ID programmed has a reference to it.
        host = self.host
        if host is None:
            return
        for name, table in host.vtd.iommu.tables.items():
            for ioasid in table:
                self._check_held(find(ioasid), ioasid, "vtd", f"an entry on {name}")
                self._check_entry(ioasid, name)
        for vdcm in host.devices.values():
            for ioasid in vdcm.device.contexts:
                self._check_held(find(ioasid), ioasid, vdcm.holder, "a context")
        for vm in host.vms.values():
            if vm.kvm.holder not in self._written_off:
                for ioasid in vm.kvm.table.values():
                    self._check_held(find(ioasid), ioasid, vm.kvm.holder, "a translation")

    def _check_held(self, record: IoasidRecord | None, ioasid: int, holder: str, what: str) -> None:
        if record is None or holder not in record.references:
            self._violated(f"{holder} has {what} for IOASID {ioasid} and no reference: {record}")

    def _check_entry(self, ioasid: int, device: str) -> None:
        assert self.host is not None
        entry = self.host.vtd.iommu.tables[device][ioasid]
        life = self.lives.get(ioasid)
        if life is None or life.owner not in (entry.owner, entry.owner.split()[0]):
            self._violated(f"the entry of IOASID {ioasid} on {device}, of {life}, is {entry}")

    # -- what subscribers are told ------------------------------------------------------------

    def _told(self, holder: str, event: Event) -> None:
        stream = self._streams.get(holder)
        if stream is None or event.kind not in stream.kinds:
            self._violated(f"{holder} was told {event}, for which it did not subscribe")
            return
        ioasid = event.ioasid
        if event.seq <= stream.last.get(ioasid, 0):
            self._violated(f"{holder} was told {event} after {stream.last[ioasid]}")
        stream.last[ioasid] = event.seq
        if event.publisher is not None:
            return
        before = stream.states.get(ioasid)
        if before is None:
            life = self.lives.get(ioasid) or self.earlier.get(ioasid)
            known = life is None or life.number > stream.joined
            before = frozenset((ABSENT,)) if known else ANY_STATE
        states = after(before, event.kind, stream.kinds)
        if not states:
            self._violated(f"{holder} was told {event}, for which it is {sorted(before)}")
            states = ANY_STATE
        if states == {ABSENT}:
            stream.states.pop(ioasid, None)
            stream.last.pop(ioasid, None)
        else:
            stream.states[ioasid] = states

    def _resynced(self, holder: str, resync: Resync) -> None:
        stream = self._streams.get(holder)
        if stream is None:
            self._violated(f"{holder} was given a Resync and has no subscription")
            return
        stream.joined = 0
        stream.states = {each.ioasid: frozenset((_state(each),)) for each in resync.ioasids}

    # -- DMA ----------------------------------------------------------------------------------

    def _step(self, actor: str, message: Message) -> None:
        host = self.host
        if host is None:
            return
        device = actor.partition(":")[2]
        if isinstance(message, StartDma):
            # If the device takes it, this is the number it gets.
            life = self.lives.get(message.ioasid)
            if life is not None:
                number = host.devices[device].device.started + 1
                self.transfers[device, number] = message.ioasid, life
        elif isinstance(message, CompleteDma):
            self._completes(host, device, message.transfer)
        elif isinstance(message, Programmed):
            self._check_entry(message.ioasid, message.device)
        elif actor == "vtd" and isinstance(message, Resync):
            self.vtd_restarts = False

    def _completes(self, host: Host, device: str, transfer: int) -> None:
        ioasid = host.devices[device].device.transfers.get(transfer)
        if ioasid is None:
            return
        entry = host.vtd.iommu.translate(device, ioasid)
        if entry is None:
            self.faulted += 1
            return
        self.landed += 1
        begun = self.transfers.pop((device, transfer), None)
        if begun is None or begun[0] != ioasid:
            self._violated(f"transfer {transfer} of {device} was never started with {ioasid}")
        elif begun[1] is not self.lives.get(ioasid):
            self._violated(
                f"DMA {transfer} of {device}, started by {begun[1]}, landed in a later life of "
                f"IOASID {ioasid}: {self.lives.get(ioasid)}"
            )
        elif begun[1].owner not in (entry.owner, entry.owner.split()[0]):
            self._violated(
                f"DMA {transfer} of {device}, started by {begun[1]}, landed in {entry.owner}"
            )

    def belonged(self, ioasid: int, owner: str, generation: int) -> bool:
        """Tell whether an ID is the owner's, or was until its last life ended."""
        lives = (self.lives.get(ioasid), self.earlier.get(ioasid))
        return any(
            life is not None and (life.owner, life.generation) == (owner, generation)
            for life in lives
        )


def _state(live: Any) -> int:
    if live.state is IoasidState.FREE_PENDING:
        return PENDING
    return UNBOUND if live.spid is None else BOUND


# -- a snapshot: what must hold of the whole state ----------------------------------------------


def wrong_with(snapshot: Snapshot) -> Iterator[str]:
    """Say what is wrong with the whole state of an allocator, taken at one instant."""
    try:
        core = Allocator.restore(snapshot)
        check_state(core)
    except MalformedMessage as error:
        yield f"a snapshot contradicts itself: {error}"
    except AssertionError as error:
        yield f"an invariant is broken: {error}"
    else:
        if core.snapshot() != snapshot:
            yield "a snapshot restores to another state"


# -- the storm ----------------------------------------------------------------------------------


class SubscriberCrashed(Exception):
    """What a subscriber or agent crashes with when it was drawn to."""


class NoVm(Exception):
    """The VM of a task could not be started for too long."""


@define(eq=False)
class Slot:
    """The place of one VM, and what its tasks remember of it; some of that is stale."""

    name: str
    vm: Vm | None = None
    generation: int = 0
    """Which of the VMs that had this name it is."""
    pasids: list[int] = field(factory=list)
    bound: list[tuple[str, int, int]] = field(factory=list)
    """Device, PASID and the guest's PASID."""
    programmed: list[tuple[str, int, int]] = field(factory=list)
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
    choices: Choices
    bound: list[tuple[str, int, int]] = field(factory=list)
    """Device, process and PASID of its processes that may be bound."""

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


@define(eq=False)
class Subscriber:
    """A plain subscriber: what it subscribes to, and how it behaves."""

    name: str
    terms: dict[str, Any]
    habit: str
    turn: int
    """The message at which it does what its habit is, or after which it has had enough."""
    hang: float
    returns: int
    """How often it comes back from a crash; then it is written off."""
    scope: anyio.CancelScope = field(factory=anyio.CancelScope)
    evicted: anyio.Event = field(factory=anyio.Event)


HABITS: Final = ("eager", "eager", "slow", "deferring", "references", "hung", "crashing")
KINDS: Final = (
    frozenset(EventKind),
    frozenset((EventKind.BIND, EventKind.UNBIND, EventKind.FREE)),
    frozenset((EventKind.FREE,)),
    frozenset((EventKind.ALLOC, EventKind.RECLAIM)),
    frozenset((EventKind.UNBIND, EventKind.FREE, EventKind.RECLAIM)),
)
HOLDING: Final = KINDS[:2]


class Storm:
    """Everything that goes on at once on one host, and what came of it."""

    def __init__(
        self,
        options: Options,
        host: Host,
        witness: Witness,
        out: "Output",
        tasks: TaskGroup,
        violated: Callable[[str], None],
    ) -> None:
        self.options = options
        self.done = 0
        self.outcomes: dict[str, Counter[str]] = {}
        """done, refused and cancelled, by kind of operation."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """By operation and error."""
        self.happened: Counter[str] = Counter()
        """What became of VMs, devices and subscribers."""
        self.digests: dict[int, int] = {}
        self.samples = 0
        self._host = host
        self._allocator: Session = host.allocator
        self._witness = witness
        self._out = out
        self._tasks = tasks
        self._violated = violated
        self._over = False
        self._doing: dict[int, str] = {}
        self._devices: list[str] = []
        self._devices_added = 0
        self._subscribers: dict[str, Subscriber] = {}
        self._subscribers_made = 0
        self._sample_every = max(1, options.ops // SAMPLES)
        self._operations: dict[str, Callable[[Worker, Choice], Awaitable[None]]] = {
            "alloc": self._alloc,
            "bind": self._bind,
            "program": self._program,
            "submit": self._submit,
            "complete": self._complete,
            "stop": self._stop,
            "unbind": self._unbind,
            "free": self._free,
            "relearn": self._relearn,
            "close VM": self._close_vm,
            "adjust quota": self._adjust_quota,
            "free set": self._free_set,
            "reserve": self._reserve,
            "use process": self._use_process,
            "use set": self._use_set,
            "reference": self._reference,
            "attach data": self._attach_data,
            "notify": self._notify,
            "subscribe": self._subscribe,
            "bad request": self._bad_request,
            "crash VM": self._crash_vm,
            "crash VM in a flood": self._crash_in_a_flood,
            "crash VFIO": self._crash_driver,
            "crash KVM": self._crash_driver,
            "crash VDCM": self._crash_vdcm,
            "crash VT-d": self._crash_vtd,
            "crash subscriber": self._crash_subscriber,
            "crash agent": self._reference,
            "VFIO gives up": self._give_up,
            "KVM gives up": self._give_up,
            "device gives up": self._give_up_device,
        }

    async def run(self) -> None:
        """Do everything, then clear everything away and check that nothing is left."""
        for _ in range(self.options.devices):
            await self._add_device()
        self._tasks.start_soon(self._operate)
        self._tasks.start_soon(self._watch_for_stall)
        slots = [Slot(f"vm-{number}") for number in range(self.options.vms)]
        async with anyio.create_task_group() as workers:
            for number in range(self.options.workers):
                slot = slots[number % self.options.vms]
                worker = Worker(number, slot, Choices(self.options, number))
                workers.start_soon(self._work, worker)
        self._over = True
        await self._clear_away()

    @property
    def digest(self) -> str | None:
        """Of all choices of all tasks; `None` if one of them did not get to its end."""
        if len(self.digests) < self.options.workers:
            return None
        digests = [self.digests[number] for number in range(self.options.workers)]
        return sha256(repr(digests).encode()).hexdigest()[:16]

    async def _work(self, worker: Worker) -> None:
        for _ in range(self.options.share(worker.number)):
            choice = worker.choices.draw()
            outcome = await self._attempt(worker, choice)
            self.outcomes.setdefault(choice.kind, Counter())[outcome] += 1
            self.done += 1
            if not self.done % self._sample_every:
                await self._sample()
        self.digests[worker.number] = worker.choices.digest
        self._doing.pop(worker.number, None)

    async def _attempt(self, worker: Worker, choice: Choice) -> str:
        outcome = "cancelled"
        self._doing[worker.number] = choice.kind
        with anyio.CancelScope() as scope:
            if choice.cancel_after is not None:
                self._tasks.start_soon(_cancel_later, scope, choice.cancel_after)
            outcome = await self._carry_out(worker, choice)
        if scope.cancelled_caught:
            self._doing[worker.number] = f"cleaning up after {choice.kind}"
            # What it began and will never come back to.
            await self._write_off(worker.agent)
        return outcome

    async def _carry_out(self, worker: Worker, choice: Choice) -> str:
        kind = choice.kind
        try:
            await self._operations[kind](worker, choice)
        except NoVm:
            return "without its VM"
        except AllocatorClosed:
            raise
        except IoasidError as error:
            self._note_refusal(kind, error)
            vm = worker.slot.vm
            if isinstance(error, VmClosed) or vm is not self._host.vms.get(worker.slot.name):
                worker.slot.vm = None
            return "refused"
        except Exception as error:  # noqa: BLE001 - no operation may raise anything else
            self._violated(f"{kind} raised {error!r}")
        return "done"

    def _note_refusal(self, kind: str, error: IoasidError) -> None:
        self.refused[kind, type(error).__name__] += 1
        if not isinstance(error, EXPECTED.get(kind, ())):
            self._violated(f"{kind} was refused with {error!r}, which nothing explains")

    async def _vm(self, worker: Worker, choice: Choice) -> Vm:
        slot = worker.slot
        for _ in range(PATIENCE):
            if slot.vm is not None:
                return slot.vm
            try:
                slot.vm = await self._host.start_vm(slot.name, quota=8 + choice.numbers[2] % 17)
            except (VmExists, CapacityExhausted) as error:
                self._note_refusal("start VM", error)
                await anyio.sleep(0.002)
            else:
                self.happened["VMs started"] += 1
                slot.generation = self._witness.generations[slot.name]
                slot.forget()
        raise NoVm(slot.name)

    def _device(self, number: int) -> str:
        return self._devices[number % len(self._devices)]

    # -- what guests do -----------------------------------------------------------------------

    async def _alloc(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        vm = await self._vm(worker, choice)
        low = 1 + a % 64 if b % 8 == 0 else 1
        generation = worker.slot.generation
        pasid = await vm.alloc(min=low, max=low + 16 if b % 16 == 0 else None)
        self._check_owner(pasid, vm.name, generation, "was allocated by")
        worker.slot.pasids.append(pasid)
        del worker.slot.pasids[:-32]

    def _check_owner(self, pasid: int, name: str, generation: int, what: str) -> None:
        if not self._witness.belonged(pasid, name, generation):
            owner = self._witness.lives.get(pasid)
            self._violated(f"IOASID {pasid} of {owner} {what} {name}, its number {generation}")

    def _among(
        self, known: list[tuple[str, int, int]], worker: Worker, choice: Choice
    ) -> tuple[str, int, int]:
        # Mostly what the guest knows to be there, sometimes anything at all.
        a, b, c = choice.numbers
        if known and c % 8:
            return known[a % len(known)]
        return self._device(a), worker.slot.pasid(b), 1 + (c >> 8) % GUEST_PASIDS

    async def _bind(self, worker: Worker, choice: Choice) -> None:
        a, b, c = choice.numbers
        vm = await self._vm(worker, choice)
        slot, device = worker.slot, self._device(a)
        if not slot.pasids and c % 8:
            await self._alloc(worker, choice)
            return
        pasid, gpasid = slot.pasid(b), 1 + c % GUEST_PASIDS
        if (c >> 8) % 4 == 0:
            # Another device for what has one already.
            _, pasid, gpasid = self._among(slot.bound, worker, choice)
        await vm.bind(device, pasid, gpasid)
        _remember(slot.bound, (device, pasid, gpasid))

    async def _program(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        if not worker.slot.bound and choice.numbers[2] % 8:
            await self._bind(worker, choice)
            return
        device, _, gpasid = self._among(worker.slot.bound, worker, choice)
        pasid = await self._program_for(vm, worker.slot.generation, device, gpasid)
        _remember(worker.slot.programmed, (device, pasid, gpasid))

    async def _program_for(self, vm: Vm, generation: int, device: str, gpasid: int) -> int:
        pasid = await vm.program(device, gpasid)
        self._check_owner(pasid, vm.name, generation, f"was programmed into {device} by")
        return pasid

    async def _submit(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        if not worker.slot.programmed and choice.numbers[2] % 8:
            await self._program(worker, choice)
            return
        device, _, gpasid = self._among(worker.slot.programmed, worker, choice)
        transfer = await self._submit_for(vm, worker.slot.generation, device, gpasid)
        worker.slot.transfers.append((device, transfer))
        del worker.slot.transfers[:-64]

    async def _submit_for(self, vm: Vm, generation: int, device: str, gpasid: int) -> int:
        transfer = await vm.submit(device, gpasid)
        begun = self._witness.transfers.get((device, transfer))
        if begun is not None and (begun[1].owner, begun[1].generation) != (vm.name, generation):
            self._violated(
                f"DMA {transfer} on {device}, started by {vm.name}, its number {generation}, "
                f"is of {begun[1]}"
            )
        return transfer

    async def _complete(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        transfers = worker.slot.transfers
        if not transfers or b % 16 == 0:
            await self._host.complete(self._device(a), b % (1 << 20))
            return
        device, transfer = transfers.pop(a % len(transfers))
        landed = await self._host.complete(device, transfer)
        if landed.owner != worker.slot.name:
            self._violated(f"DMA of {worker.slot.name} on {device} landed: {landed}")

    async def _stop(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        known = self._among(worker.slot.programmed, worker, choice)
        _forget(worker.slot.programmed, known)
        await vm.stop(known[0], known[1])

    async def _unbind(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        known = self._among(worker.slot.bound, worker, choice)
        if choice.numbers[1] % 4:
            _forget(worker.slot.bound, known)
        await vm.unbind(known[0], known[1])

    async def _free(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        slot, pasid = worker.slot, worker.slot.pasid(choice.numbers[1])
        if choice.numbers[0] % 8:
            slot.pasids[:] = [each for each in slot.pasids if each != pasid]
            for known in (slot.bound, slot.programmed):
                known[:] = [each for each in known if each[1] != pasid]
        generation = slot.generation
        await vm.free(pasid)
        self._check_owner(pasid, vm.name, generation, "was freed by")

    async def _relearn(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        generation = worker.slot.generation
        listing = await self._allocator.list_set(vm.sid)
        spids = [each.spid for each in listing if each.spid is not None]
        if len(spids) != len(set(spids)):
            self._violated(f"the spids of {vm.name} are not unique: {spids}")
        active = [each.ioasid for each in listing if each.state is IoasidState.ACTIVE]
        if worker.slot.vm is vm and self._witness.belonged(
            min(active, default=0), vm.name, generation
        ):
            worker.slot.pasids[:] = active[-32:]

    async def _close_vm(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        worker.slot.vm = None
        await vm.close()
        self.happened["VMs closed"] += 1

    # -- what the host does with sets and capacity --------------------------------------------

    async def _adjust_quota(self, worker: Worker, choice: Choice) -> None:
        a, _, _ = choice.numbers
        vm = await self._vm(worker, choice)
        record = await self._allocator.find_set(vm.name)
        adjusted = await self._allocator.adjust_set(record.sid, 4 + a % 29)
        if adjusted.allocated > adjusted.quota:
            self._violated(f"a set has more IDs than its quota: {adjusted}")

    async def _free_set(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        record = await self._allocator.find_set(vm.name)
        await self._allocator.free_set(record.sid, destroy=False)

    async def _reserve(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        count = 1 + a % 16
        record = await self._allocator.reserve_capacity(count)
        if record.reserved < count:
            self._violated(f"{count} IDs were reserved: {record}")
        await _passes(b % 32)
        await self._allocator.cancel_capacity(count)

    async def _use_set(self, worker: Worker, choice: Choice) -> None:
        a, b, c = choice.numbers
        allocator = self._allocator
        # One without a token could not be found again after a cancellation.
        anonymous = choice.cancel_after is None and a % 4 == 0
        kind = TokenType.NULL if anonymous else TokenType.MM
        token = None if anonymous else worker.token
        try:
            sid = (await allocator.alloc_set(token, 1 + b % 12, kind)).sid
        except TokenInUse:
            sid = (await allocator.find_set(token)).sid
        try:
            ranges = await allocator.alloc_many(sid, 1 + c % 8)
            await allocator.attach_spid(ranges[0].first, 1 + a % GUEST_PASIDS, sid=sid)
            if await allocator.find_by_spid(sid, 1 + a % GUEST_PASIDS) != ranges[0].first:
                self._violated(f"find_by_spid is not the inverse of attach_spid in set {sid}")
            await allocator.attach_data(ranges[0].first, a, sid=sid)
            await allocator.adjust_set(sid, 12)
        except (QuotaExceeded, CapacityExhausted, RangeFull, SpidInUse, AlreadyBound) as error:
            self.refused["use set", type(error).__name__] += 1
        await allocator.free_set(sid, destroy=True, wait=bool(b % 4))

    async def _use_process(self, worker: Worker, choice: Choice) -> None:
        a, b, c = choice.numbers
        host, device, process = self._host, self._device(a), worker.process(b)
        if not worker.bound or c % 8 < 2:
            try:
                pasid = await host.sva_bind(device, process)
            except anyio.get_cancelled_exc_class():
                with anyio.CancelScope(shield=True):
                    await self._exit(process)
                raise
            self._check_process(pasid)
            worker.bound.append((device, process, pasid))
            return
        device, process, pasid = worker.bound[a % len(worker.bound)]
        match c % 8:
            case 2 | 3 | 4:
                await host.sva_submit(device, pasid)
            case 5:
                await host.sva_stop(device, pasid)
            case 6:
                worker.bound.remove((device, process, pasid))
                await host.sva_unbind(device, process)
            case _:
                worker.bound = [each for each in worker.bound if each[1] != process]
                await host.process_exited(process)

    def _check_process(self, pasid: int) -> None:
        if not self._witness.belonged(pasid, "process", 0):
            life = self._witness.lives.get(pasid)
            self._violated(f"a process was given IOASID {pasid}, which is of {life}")

    async def _exit(self, process: int) -> None:
        while True:
            try:
                await self._host.process_exited(process)
                return
            except ActorCrashed:
                continue

    # -- references, data, notifications ------------------------------------------------------

    async def _reference(self, worker: Worker, choice: Choice) -> None:
        _, b, c = choice.numbers
        vm = await self._vm(worker, choice)
        crashes = choice.kind == "crash agent"
        _, pasid, gpasid = self._among(worker.slot.bound, worker, choice)
        try:
            async with self._allocator.session(worker.agent) as session:
                if b % 2:
                    pasid = await session.find_by_spid(vm.sid, gpasid, get=True)
                else:
                    await session.get(pasid, sid=vm.sid)
                await _passes(c % 16)
                if pasid not in self._witness.lives:
                    self._violated(f"IOASID {pasid} was reclaimed while {worker.agent} held it")
                if crashes:
                    raise SubscriberCrashed
                if c % 3:
                    await session.put(pasid)
        except SubscriberCrashed:
            self.happened["agents crashed"] += 1
            if pasid not in self._witness.lives:
                self._violated(f"IOASID {pasid} was reclaimed while {worker.agent} was suspended")
            await _passes(c % 16)
            if c % 2:
                await self._write_off(worker.agent)
                return
            async with self._allocator.session(worker.agent) as session:
                self.happened["agents came back"] += 1
                if session.opened.references != ((pasid, 1),):
                    self._violated(f"{worker.agent} came back to {session.opened}, held {pasid}")

    async def _write_off(self, holder: str) -> None:
        try:
            await self._allocator.evict(holder)
        except UnknownHolder:
            pass
        else:
            self.happened["holders evicted"] += 1

    async def _attach_data(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        vm = await self._vm(worker, choice)
        pasid = worker.slot.pasid(a)
        if b % 2:
            await self._allocator.attach_data(pasid, b, sid=vm.sid)
        else:
            await self._allocator.detach_data(pasid, sid=vm.sid)

    async def _notify(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        vm = await self._vm(worker, choice)
        kinds = (EventKind.ALLOC, EventKind.BIND, EventKind.UNBIND, EventKind.FREE)
        await self._allocator.notify(worker.slot.pasid(a), kinds[b % 4], sid=vm.sid)

    async def _bad_request(self, worker: Worker, choice: Choice) -> None:
        a, b, _ = choice.numbers
        vm = await self._vm(worker, choice)
        host, device, pasid = self._host, self._device(a), worker.slot.pasid(b)
        requests: tuple[tuple[Callable[[], Awaitable[Any]], type[IoasidError]], ...] = (
            (lambda: vm.alloc(min=-1), InvalidArgument),
            (lambda: vm.alloc(min=9, max=3), InvalidArgument),
            (lambda: vm.bind("no such device", pasid, 1), UnknownDevice),
            (lambda: vm.bind(device, True, 1), InvalidArgument),
            (lambda: vm.free(self.options.vms * 1000), UnknownIoasid),
            (lambda: vm.submit(device, 1000 + GUEST_PASIDS), PasidFault),
            (lambda: host.complete(device, 1 << 60), UnknownTransfer),
            (lambda: host.start_vm("", quota=8), InvalidArgument),
            (lambda: host.sva_unbind(device, 1 << 40), UnknownProcess),
            (lambda: self._allocator.alloc(1 << 30), UnknownSet),
            (lambda: self._allocator.find((1 << 32) - 1), InvalidArgument),
            (lambda: self._allocator.cancel_capacity(1 << 31), NotReserved),
            (lambda: self._allocator.evict("nobody"), UnknownHolder),
        )
        call, expected = requests[a % len(requests)]
        try:
            await call()
        except expected as error:
            self.refused["bad request", type(error).__name__] += 1
        except GONE as error:
            self.refused["bad request", type(error).__name__] += 1
        else:
            self._violated(f"bad request {a % len(requests)} was carried out")

    # -- crashes ------------------------------------------------------------------------------

    async def _crash_vm(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        worker.slot.vm = None
        vm.crash()
        self.happened["VMs crashed"] += 1
        if choice.numbers[0] % 2:
            await vm.gone()

    async def _crash_in_a_flood(self, worker: Worker, choice: Choice) -> None:
        # What a VM asked of a device that has much else to do must not outlive it, and reach
        # whoever gets the numbers of its set and IDs next: here itself, started again at once.
        vm = await self._vm(worker, choice)
        slot, generation = worker.slot, worker.slot.generation
        device, _, gpasid = self._among(slot.programmed or slot.bound, worker, choice)
        nothing = 1000 + GUEST_PASIDS

        async def ask(
            call: Callable[[Vm, int, str, int], Awaitable[object]], vm: Vm, spid: int
        ) -> None:
            try:
                await call(vm, generation, device, spid)
            except IoasidError as error:
                self._note_refusal("submit", error)

        async with anyio.create_task_group() as tasks:
            for _ in range(FLOOD):
                tasks.start_soon(ask, self._program_for, vm, nothing)
            await checkpoint()
            tasks.start_soon(ask, self._program_for, vm, gpasid)
            tasks.start_soon(ask, self._submit_for, vm, gpasid)
            await _passes(choice.numbers[1] % 16)
            slot.vm = None if slot.vm is vm else slot.vm
            vm.crash()
            self.happened["VMs crashed"] += 1
            await vm.gone()
            await self._start_again(worker, choice, device, gpasid)

    async def _start_again(self, worker: Worker, choice: Choice, device: str, gpasid: int) -> None:
        try:
            vm = await self._vm(worker, choice)
            pasid = await vm.alloc()
            worker.slot.pasids.append(pasid)
            await vm.bind(device, pasid, gpasid)
        except NoVm:
            pass
        except IoasidError as error:
            self._note_refusal("bind", error)

    async def _crash_driver(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        (vm.vfio if choice.kind == "crash VFIO" else vm.kvm).crash()

    async def _crash_vdcm(self, worker: Worker, choice: Choice) -> None:
        self._host.device(self._device(choice.numbers[0])).crash()

    async def _crash_vtd(self, worker: Worker, choice: Choice) -> None:
        # One at a time: a host does not outlive an IOMMU driver that crashes again and again.
        if not self._witness.vtd_restarts:
            self._witness.vtd_restarts = True
            self._host.vtd.crash()

    async def _crash_subscriber(self, worker: Worker, choice: Choice) -> None:
        names = list(self._subscribers)
        if names:
            self._subscribers[names[choice.numbers[0] % len(names)]].scope.cancel()

    async def _give_up(self, worker: Worker, choice: Choice) -> None:
        vm = await self._vm(worker, choice)
        worker.slot.vm = None
        actor = vm.vfio if choice.kind == "VFIO gives up" else vm.kvm
        await self._crash_for_good(actor)
        await vm.gone()

    async def _give_up_device(self, worker: Worker, choice: Choice) -> None:
        await self._crash_for_good(self._host.device(self._device(choice.numbers[0])))

    async def _crash_for_good(self, actor: Actor) -> None:
        # An event in between gives it new restarts.
        while not actor.ended.is_set():
            actor.crash()
            await checkpoint()

    # -- plain subscribers --------------------------------------------------------------------

    async def _subscribe(self, worker: Worker, choice: Choice) -> None:
        if len(self._subscribers) > self.options.vms // 2 + 4:
            return
        a, b, c = choice.numbers
        habit = HABITS[a % len(HABITS)]
        hold = c % 3 == 0 or habit == "references"
        kinds = HOLDING[(c >> 4) % 2] if hold else KINDS[(c >> 4) % len(KINDS)]
        terms: dict[str, Any] = {
            "kinds": kinds,
            "priority": tuple(Priority)[(b >> 4) % 4],
            "hold": hold,
            "replay": bool((c >> 8) % 2),
            "queue_size": (1, 4, 64)[(c >> 12) % 3],
            "acknowledge_within": DEADLINE,
        }
        match b % 16:
            case 0:
                pass
            case 1 | 2 | 3 | 4:
                terms["sid"] = (await self._vm(worker, choice)).sid
            case _:
                terms["token"] = worker.slot.name
        self._subscribers_made += 1
        subscriber = Subscriber(
            f"{SUBSCRIBER}{self._subscribers_made}",
            terms,
            habit,
            turn=1 + (a >> 8) % (8 if habit in {"hung", "crashing"} else 200),
            hang=DEADLINE / 3 if (a >> 4) % 2 else 2 * STALL,
            returns=(b >> 8) % 3,
        )
        self._subscribers[subscriber.name] = subscriber
        self._tasks.start_soon(self._live, subscriber)
        self.happened["subscribers"] += 1

    async def _live(self, subscriber: Subscriber) -> None:
        try:
            while await self._subscribed(subscriber) and not self._over:
                await _passes(subscriber.turn)
        except AllocatorClosed:
            raise
        except IoasidError as error:
            self._violated(f"{subscriber} was refused with {error!r}")
        finally:
            self._subscribers.pop(subscriber.name, None)

    async def _subscribed(self, subscriber: Subscriber) -> bool:
        # Returns whether it comes back.
        subscriber.evicted = anyio.Event()
        with anyio.CancelScope() as subscriber.scope:
            try:
                async with (
                    self._allocator.session(subscriber.name) as session,
                    session.subscribe(**subscriber.terms) as events,
                ):
                    await self._consume(subscriber, session, events)
                self.happened["subscribers left"] += 1
                return False
            except SubscriberCrashed:
                pass
            except SessionEnded:
                self.happened["subscribers evicted"] += 1
                return False
            except UnknownSet:
                return False
        self.happened["subscribers crashed"] += 1
        await _passes(subscriber.turn)
        if subscriber.returns and not self._over:
            subscriber.returns -= 1
            self.happened["subscribers came back"] += 1
            return True
        await self._write_off(subscriber.name)
        return False

    async def _consume(
        self, subscriber: Subscriber, session: Session, events: Subscription
    ) -> None:
        held = dict(session.opened.references)
        await _put_all(session, held, list(held))
        kept: list[Event | Resync] = []
        taken = 0
        async for message in events:
            taken += 1
            match subscriber.habit:
                case "slow":
                    await anyio.sleep(0.002)
                case "deferring":
                    events.defer(message)
                    kept.append(message)
                    if len(kept) == 4:
                        for each in reversed(kept):
                            events.acknowledge(each)
                        kept.clear()
                case "references":
                    await _refer(session, held, message)
                case "hung" if taken == subscriber.turn:
                    self.happened["subscribers hung"] += 1
                    with anyio.move_on_after(subscriber.hang):
                        await subscriber.evicted.wait()
                case "crashing" if taken == subscriber.turn:
                    raise SubscriberCrashed
                case _:
                    pass
            if taken >= 200:
                return

    # -- the host around them -----------------------------------------------------------------

    async def _add_device(self) -> None:
        name = f"dsa{self._devices_added}"
        self._devices_added += 1
        await self._host.add_device(name)
        self._devices.append(name)
        self._tasks.start_soon(self._hardware, name)

    async def _hardware(self, name: str) -> None:
        # Completes what is being drained, some time later, and the oldest of what piles up; a
        # device that is given up is replaced.
        vdcm = self._host.device(name)
        before: set[int] = set()
        while not vdcm.ended.is_set():
            device = vdcm.device
            draining = {
                transfer
                for context in device.contexts.values()
                if context.stopping
                for transfer in context.in_flight
            }
            async with anyio.create_task_group() as tasks:
                for transfer in sorted(draining & before | set(sorted(device.transfers)[:-64])):
                    tasks.start_soon(self._transferred, name, transfer)
            before = draining
            await anyio.sleep(0.005)
        self.happened["devices given up"] += 1
        await self._add_device()
        self._devices.remove(name)

    async def _transferred(self, name: str, transfer: int) -> None:
        try:
            await self._host.complete(name, transfer)
        except (ActorCrashed, ActorStopped, UnknownTransfer, DmaFault) as error:
            self.refused["hardware", type(error).__name__] += 1

    async def _operate(self) -> None:
        # Evicts subscribers that are overdue, as the operator of a host has to.
        while True:
            await anyio.sleep(DEADLINE / 2)
            figures = await self._allocator.statistics()
            for each in figures.lagging:
                if each.overdue and each.holder.startswith(SUBSCRIBER):
                    await self._write_off(each.holder)
                    subscriber = self._subscribers.get(each.holder)
                    if subscriber is not None:
                        subscriber.evicted.set()

    async def _watch_for_stall(self) -> None:
        done, since = -1, 0.0
        while True:
            await anyio.sleep(1)
            if self.done > done:
                done, since = self.done, perf_counter()
            elif perf_counter() - since > STALL:
                doing = dict(Counter(self._doing.values())) or "clearing away"
                figures = await self._allocator.statistics()
                self._violated(f"stuck for {STALL:.0f} s: {doing}; {_brief(figures)}")
                self._tasks.cancel_scope.cancel()

    async def _sample(self) -> None:
        snapshot = await self._allocator.snapshot()
        for wrong in wrong_with(snapshot):
            self._violated(wrong)
        self.samples += 1
        self._out.sampled(self.done, await self._allocator.statistics())

    # -- the end ------------------------------------------------------------------------------

    async def _clear_away(self) -> None:
        while self._subscribers:
            # Again, for one that was just coming back.
            for number, subscriber in enumerate(tuple(self._subscribers.values())):
                if number % 2:
                    subscriber.scope.cancel()
                else:
                    await self._write_off(subscriber.name)
                    subscriber.evicted.set()
            await anyio.sleep(0.01)
        async with anyio.create_task_group() as tasks:
            for vm in tuple(self._host.vms.values()):
                tasks.start_soon(vm.close)
            for process in range(self.options.workers * PROCESSES_PER_TASK):
                tasks.start_soon(self._exit, process)
            for worker in range(self.options.workers):
                tasks.start_soon(self._free_job, f"job-{worker}")
        figures = await self._allocator.statistics()
        if figures.reserved:
            await self._allocator.cancel_capacity(figures.reserved)
        left: list[str] = []
        for _ in range(1000):
            left = await self._left()
            if not left:
                break
            await anyio.sleep(0.01)
        for each in left:
            self._violated(f"at the end there is left: {each}")
        await self._sample()

    async def _free_job(self, token: str) -> None:
        try:
            record = await self._allocator.find_set(token)
            await self._allocator.free_set(record.sid, destroy=True, wait=True)
        except (UnknownToken, UnknownSet):
            pass

    async def _left(self) -> list[str]:
        host = self._host
        figures = await self._allocator.statistics()
        drivers = 1 + len(self._devices)
        quota = system_quota(self.options)
        facts: Iterable[tuple[str, object, object]] = (
            ("active IDs", figures.active, 0),
            ("IDs in quarantine", figures.free_pending, 0),
            ("sets beside the system's", figures.sets - 1, 0),
            ("reserved IDs", figures.reserved, 0),
            ("IDs not available", figures.capacity - figures.available, quota),
            ("events under way", figures.under_way, 0),
            ("suspended holders", figures.suspended, 0),
            ("sessions beside host, witness and drivers", figures.sessions - 2 - drivers, 0),
            ("subscriptions beside theirs", figures.subscriptions - 1 - drivers, 0),
            ("lagging subscribers", [each.holder for each in figures.lagging], []),
            ("subscriber tasks", list(self._subscribers), []),
            ("VMs", list(host.vms), []),
            ("IDs that the witness saw no RECLAIM of", list(self._witness.lives), []),
            ("IOMMU entries", [t for t in host.vtd.iommu.tables.values() if t], []),
            ("contexts", [c for d in host.devices.values() for c in d.device.contexts], []),
            ("transfers", [t for d in host.devices.values() for t in d.device.transfers], []),
        )
        return [f"{what}: {found}" for what, found, expected in facts if found != expected]


def _remember(known: list[tuple[str, int, int]], new: tuple[str, int, int]) -> None:
    known.append(new)
    del known[:-32]


def _forget(known: list[tuple[str, int, int]], old: tuple[str, int, int]) -> None:
    known[:] = [each for each in known if each != old]


async def _passes(count: int) -> None:
    for _ in range(count):
        await checkpoint()


async def _cancel_later(scope: anyio.CancelScope, passes: int) -> None:
    await _passes(passes)
    scope.cancel()


async def _refer(session: Session, held: dict[int, int], message: Event | Resync) -> None:
    # What a subscriber that does not hold has to do by itself, as in the kernel.
    if isinstance(message, Resync):
        await _put_all(session, held, list(held))
    elif message.publisher is not None:
        return
    elif message.kind is EventKind.BIND:
        try:
            await session.get(message.ioasid)
        except (UnknownIoasid, IoasidFreePending):
            return
        held[message.ioasid] = held.get(message.ioasid, 0) + 1
    elif message.kind in (EventKind.UNBIND, EventKind.FREE):
        await _put_all(session, held, [message.ioasid])


async def _put_all(session: Session, held: dict[int, int], ioasids: list[int]) -> None:
    for ioasid in ioasids:
        for _ in range(held.pop(ioasid, 0)):
            await session.put(ioasid)


def _brief(figures: Statistics) -> str:
    lagging = ", ".join(
        f"{each.holder} ({each.scope}, {each.priority}, {each.oldest_age:.1f} s)"
        for each in figures.lagging[:8]
    )
    return (
        f"{figures.active} active, {figures.free_pending} in quarantine, {figures.under_way} "
        f"events under way, {figures.suspended} suspended, lagging: {lagging or 'nobody'}"
    )


# -- one run ------------------------------------------------------------------------------------

MAX_RESTARTS: Final = 3


def system_quota(options: Options) -> int:
    """Return how many IDs processes may have: not always enough."""
    return options.workers + 2


def capacity(options: Options) -> int:
    """Return the capacity of the host: not always enough for every VM's quota."""
    return 1 + system_quota(options) + options.vms * 20 + 32


@define(eq=False)
class Violations:
    """The rules that were broken, as they are found."""

    out: "Output"
    found: Counter[str] = field(factory=Counter)

    def __call__(self, text: str) -> None:
        """Note one."""
        self.found[text] += 1
        if self.found[text] == 1 and len(self.found) <= 20:
            self.out.violation(text)


class LogWatch(logging.Handler):
    """Takes what the library logs, and objects to crashes that nobody planted."""

    def __init__(self, violated: Callable[[str], None]) -> None:
        super().__init__()
        self._violated = violated
        self.logged: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record, or object to it."""
        text = record.getMessage()
        if "has not acknowledged" in text:
            self.logged["overdue subscribers logged"] += 1
            return
        holder = text.partition(" ")[0].partition(":")[0]
        what = "given up" if "gave up" in text else "restarted"
        self.logged[f"{holder} {what}"] += 1
        if "PlantedFault" not in text:
            self._violated(f"a crash that nobody planted: {text}")


@contextmanager
def log_watch(violated: Callable[[str], None]) -> Iterator[LogWatch]:
    """Take the log of the library for the length of the scope."""
    watch = LogWatch(violated)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(watch)
    try:
        yield watch
    finally:
        logger.removeHandler(watch)
        logger.propagate = propagate


@asynccontextmanager
async def a_storm(
    options: Options, out: "Output", violated: Callable[[str], None]
) -> AsyncIterator[tuple[Storm, Witness]]:
    """Open a host with its witness, and a storm over it."""
    witness = Witness(violated)
    async with open_host(
        capacity=capacity(options),
        system_quota=system_quota(options),
        observer=witness.observe,
        max_restarts=MAX_RESTARTS,
    ) as host:
        witness.host = host
        async with (
            host.allocator.session(WITNESS) as session,
            session.subscribe(
                kinds={EventKind.ALLOC, EventKind.RECLAIM},
                queue_size=1 << 20,
                acknowledge_within=None,
            ) as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_read, events)
            yield Storm(options, host, witness, out, tasks, violated), witness
            tasks.cancel_scope.cancel()


async def _read(events: Subscription) -> None:
    async for _ in events:
        pass


async def run(options: Options, out: "Output") -> bool:
    """Let it storm; return whether every rule held."""
    violated = Violations(out)
    storm: Storm | None = None
    witness: Witness | None = None
    begun = perf_counter()
    with log_watch(violated) as log:
        try:
            async with a_storm(options, out, violated) as (storm, witness):
                out.begin(options, storm)
                await storm.run()
        except Exception as error:  # noqa: BLE001 - whatever ends the host is a finding
            violated(f"the host ended: {_causes(error)}")
    seconds = perf_counter() - begun
    if storm is None or witness is None:
        return False
    if storm.done < options.ops:
        violated(f"only {storm.done} of {options.ops} operations were done")
    storm.happened.update(log.logged)
    out.end(options, storm, witness, violated.found, seconds)
    return not violated.found


def _causes(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_causes(each) for each in error.exceptions)
    return repr(error)


def peak_memory() -> float | None:
    """Return the most memory the process ever had, in MiB; `None` where nobody knows."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# -- output -------------------------------------------------------------------------------------


class Output:
    """Writes what happens for people, with a progress bar on a terminal, or as JSON lines."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = Console(highlight=False, width=100)
        self._progress = Progress(
            TextColumn("storm"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]} IDs live"),
            TimeElapsedColumn(),
            console=self._console,
            disable=as_json or not self._console.is_terminal,
            transient=True,
        )

    def begin(self, options: Options, storm: Storm) -> None:
        """Say what is about to happen."""
        if self._json:
            self._line({"event": "begin", **asdict(options), "capacity": capacity(options)})
            return
        self._console.print(
            f"{options.vms} VMs share {options.devices} devices and {capacity(options):,} PASIDs "
            f"on {options.backend}: {options.ops:,} operations by {options.workers} tasks, "
            f"crash rate {options.crash_rate:g}, seed {options.seed}."
        )
        self._progress.start()
        task = self._progress.add_task("", total=options.ops, live=0)
        self._progress.update(task, completed=storm.done)

    def sampled(self, done: int, figures: Statistics) -> None:
        """Tell of a look at the whole state."""
        if self._json:
            facts = msgspec.to_builtins(figures)
            facts["lagging"] = len(figures.lagging)
            self._line({"event": "sample", "operations": done, **facts})
        for task in self._progress.task_ids:
            live = figures.active + figures.free_pending
            self._progress.update(task, completed=done, live=live)

    def violation(self, text: str) -> None:
        """Tell of a rule that was broken, when it is found."""
        if self._json:
            self._line({"event": "violation", "text": text})
        else:
            self._console.print(f"[bold red]✗[/bold red] {_plain(text)}")

    def end(
        self,
        options: Options,
        storm: Storm,
        witness: Witness,
        violations: Counter[str],
        seconds: float,
    ) -> None:
        """Tell what it came to."""
        self._progress.stop()
        peak = peak_memory()
        if self._json:
            self._line(
                {
                    "event": "end",
                    "holds": not violations,
                    "violations": dict(violations),
                    "choices": storm.digest,
                    "operations": {kind: dict(storm.outcomes[kind]) for kind in _kinds(storm)},
                    "refused": _nested(storm.refused),
                    "happened": dict(storm.happened),
                    "events": dict(witness.events),
                    "steps": dict(witness.steps),
                    "refusals": dict(witness.refusals),
                    "decisions": witness.decisions,
                    "landed": witness.landed,
                    "faulted": witness.faulted,
                    "most_live": witness.most_live,
                    "samples": storm.samples,
                    "seconds": round(seconds, 3),
                    "ops_per_second": round(storm.done / seconds),
                    "decisions_per_second": round(witness.decisions / seconds),
                    "peak_mib": None if peak is None else round(peak, 1),
                }
            )
            return
        self._console.print(self._figures(storm, witness))
        self._console.print(
            f"\n{storm.done:,} operations in {seconds:.1f} s: {storm.done / seconds:,.0f} a "
            f"second; {witness.decisions:,} decisions of the allocator: "
            f"{witness.decisions / seconds:,.0f} a second."
        )
        if peak is not None:
            self._console.print(f"Peak memory {peak:,.0f} MiB.")
        self._console.print(
            f"Choices {storm.digest or '(not all drawn)'}: repeated by the same seed, VMs, ops "
            "and crash rate on any backend; whom each choice meets depends on the schedule."
        )
        if violations:
            self._console.print(
                f"[bold red]{violations.total():,} violations of {len(violations)} kinds."
            )
        else:
            self._console.print(
                f"[bold]Every rule held: {witness.decisions:,} decisions and "
                f"{witness.landed:,} DMA transfers watched, {storm.samples} looks at the whole "
                "state, nothing left at the end."
            )

    def _figures(self, storm: Storm, witness: Witness) -> Table:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        outcomes: Counter[str] = Counter()
        for each in storm.outcomes.values():
            outcomes.update(each)
        kinds = {kind: storm.outcomes[kind].total() for kind in _kinds(storm)}
        table.add_row("operations", _listed(kinds))
        table.add_row("outcomes", _listed(outcomes))
        table.add_row("happened", _listed(storm.happened))
        table.add_row("events", _listed(witness.events))
        table.add_row("DMA", f"landed {witness.landed:,}, faulted {witness.faulted:,}")
        table.add_row("IDs", f"at most {witness.most_live:,} live at once")
        errors: Counter[str] = Counter()
        for (_, error), count in storm.refused.items():
            errors[error] += count
        table.add_row("errors", _listed(errors))
        return table

    def _line(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


def _kinds(storm: Storm) -> list[str]:
    return [kind for kind in (*OPERATIONS, *CRASHES) if kind in storm.outcomes]


def _nested(refused: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (kind, error), count in sorted(refused.items()):
        found.setdefault(kind, {})[error] = count
    return found


def _listed(counts: dict[str, int] | Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return ", ".join(f"{name} {count:,}" for name, count in ordered)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


# -- the command --------------------------------------------------------------------------------


def _count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no count: 1 or more, at most 10^9")
    return number


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no rate: a number from 0 to 1")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the storm; the exit code is 0 if every rule held, 1 if not, 2 for bad arguments."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--vms", type=_count, default=200, help="default 200")
    parser.add_argument("--devices", type=_count, default=4, help="default 4")
    parser.add_argument("--ops", type=_count, default=200_000, help="default 200000")
    parser.add_argument("--crash-rate", type=_rate, default=0.01, help="0 to 1, default 0.01")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument("--backend", choices=("asyncio", "uvloop", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="write one event a line, as JSON")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec(given.backend) is None:
        parser.error(f"{given.backend} is not installed")
    options = Options(
        given.vms, given.devices, given.ops, given.crash_rate, given.seed, given.backend
    )
    holds = anyio.run(
        run,
        options,
        Output(as_json=given.json),
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
