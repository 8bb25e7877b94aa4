"""Replay what a kernel's allocator answered, and compare.

Each FILE is a trace recorded from the last version of the Linux kernel series for IOASID sets
(tests/conformance/data). Its operations go to a fresh allocator, through its actors, and every
answer, what every subscriber was told, and the state are compared:

    agreement     the same; or the kernel refused without saying why, and this allocator says it
    decided       different on purpose: listed in `DECIDED` or `NAMED`, with the reason
    disagreement  different, and nobody decided so

The exit status is 1 for any disagreement and for a listed difference that does not occur as
listed, and 2 for a file that is no trace.

How a kernel operation becomes a request:

- The kernel's references have no owner. Here `driver` takes and puts them, except where a trace
  tells who it is (`CALLERS`). The one from the allocation is the set's own on both sides.
- `register` is a subscription by a session of that name to the four kinds of event the kernel
  has, or, for the whole system, to FREE: nothing else went to the kernel's system-wide chain.
- A kernel callback that returns is done with its event, so a subscriber acknowledges at once.
- Callbacks that get at BIND and put at UNBIND are what `hold=True` is for. One that only puts, a
  reference that it took elsewhere, puts at UNBIND or at FREE: either ends a binding here. One
  that defers to a work queue unbinds and puts when the trace says `run_work`; the reference it
  has until then keeps the ID in quarantine.
- Of one event, the kernel's order of calls has to fit the order of the tiers; ALLOC goes to all
  tiers at once, so any order fits.
- Reserving 0 means "all" to the kernel, `None` here; data 0 means "no data", `None` here.
"""

import argparse
import importlib.util
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from operator import itemgetter
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self, cast

import anyio
import msgspec
from attrs import define, field, frozen
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ioasid.actors import Session, Subscription, open_allocator
from ioasid.core import (
    INVALID_IOASID,
    Acknowledge,
    Alloc,
    Allocated,
    AllocSet,
    AttachData,
    AttachSpid,
    CancelCapacity,
    CapacityRecord,
    DetachData,
    DetachSpid,
    Event,
    EventKind,
    Find,
    FindBySpid,
    FindSet,
    FindSid,
    FoundSid,
    Free,
    FreeSet,
    Get,
    InstallCapacity,
    IoasidError,
    IoasidRecord,
    Listing,
    ListSet,
    Priority,
    Put,
    Released,
    Reply,
    Request,
    ReserveCapacity,
    SetRecord,
    SetState,
    Snapshot,
    Statistics,
    Subscribe,
    Subscribed,
    TakeStatistics,
    TokenType,
    Unsubscribe,
)

CAPACITY: Final = 1 << 20
DRIVER: Final = "driver"
NO_ANSWER: Final = "no answer"
NO_SET: Final = 2**31
"""A set number that is never given out, for a set that only the kernel granted."""


# -- what is different on purpose ---------------------------------------------------------------


class Reason(NamedTuple):
    """Why two answers differ: a label for tables, a sentence, and where docs/ explains it."""

    label: str
    text: str
    section: str


EXACT_ERRNO: Final = Reason(
    "errno named exactly",
    "refused by both; the errno says which of several reasons it was",
    "reference/errors.md",
)
FREE_TO_ALL: Final = Reason(
    "FREE reaches everybody",
    "FREE goes out whether or not a reference is left, and the ID waits for all to acknowledge it",
    "explanation.md#quarantine",
)
FREE_ENDS_BINDING: Final = Reason(
    "FREE ends the binding",
    "subscribers let go at FREE; an unbind after it is silent",
    "reference/messages.md#detachspid",
)
QUARANTINE: Final = Reason(
    "nothing new in quarantine",
    "an ID that was freed takes no bind, data or reference: only put and find are left",
    "explanation.md#quarantine",
)
ONE_ORDER: Final = Reason(
    "one order of priorities",
    "it spans system-wide and per-set subscribers; the kernel called the system-wide ones first",
    "explanation.md#tiers",
)
QUOTA_RETURNS: Final = Reason(
    "quota comes back",
    "a set that goes gives its quota back; the kernel lost it",
    "oddities.md#capacity-and-quotas",
)
ANY_SET: Final = Reason(
    "free in any set",
    "no set named means any set, for free too; the kernel did nothing then, and said nothing",
    "oddities.md#sets",
)
ALL_OF_NOTHING: Final = Reason(
    "all of nothing is ENOSPC",
    "reserving all that is available is refused when that is nothing",
    "oddities.md#capacity-and-quotas",
)
SENSE_FIRST: Final = Reason(
    "arguments come first",
    "a request that makes no sense is EINVAL, whatever capacity is left",
    "reference/messages.md#allocset",
)


class Decided(NamedTuple):
    """A difference in one aspect of certain steps of a trace; steps count from 1."""

    trace: str
    steps: tuple[int, ...]
    aspect: str
    kernel: str
    ours: str
    reason: Reason


class Named(NamedTuple):
    """A refusal with another errno, in any trace; `occurs` says how often in the known ones."""

    operation: str
    kernel: str
    ours: str
    reason: Reason
    occurs: Mapping[str, int]


# fmt: off
DECIDED: Final = (
    Decided("01_normal_lifecycle", (13,), "told",
            "nobody", "kvm FREE 1, vdcm FREE 1, vtd FREE 1", FREE_TO_ALL),
    Decided("01_normal_lifecycle", (13,), "did",
            "nothing", "vtd defers", FREE_TO_ALL),
    Decided("01_normal_lifecycle", (15,), "available",
            "1047576 of 1048576", "1048576 of 1048576", QUOTA_RETURNS),
    Decided("02_free_before_unbind", (9,), "order",
            "FREE vtd, kvm, vdcm", "FREE kvm, vdcm, vtd", ONE_ORDER),
    Decided("02_free_before_unbind", (9,), "did",
            "vtd defers", "vdcm puts 1; vtd defers", FREE_ENDS_BINDING),
    Decided("02_free_before_unbind", (9, 10, 11, 12), "ID 1",
            "s1, FREE_PENDING, references 3, spid 101, data -",
            "s1, FREE_PENDING, references 1, spid 101, data -", FREE_ENDS_BINDING),
    Decided("02_free_before_unbind", (13,), "told",
            "kvm UNBIND 1, vdcm UNBIND 1", "nobody", FREE_ENDS_BINDING),
    Decided("02_free_before_unbind", (13,), "did",
            "vtd unbinds 1; vdcm puts 1; vtd puts 1, reclaimed",
            "vtd unbinds 1; vtd puts 1, reclaimed", FREE_ENDS_BINDING),
    Decided("04_double_free", (6,), "order",
            "FREE vtd, kvm", "FREE kvm, vtd", ONE_ORDER),
    Decided("06_cross_set_access", (11,), "set a",
            "number 0, 1 of 10 allocated", "number 0, 0 of 10 allocated", ANY_SET),
    Decided("06_cross_set_access", (11,), "ID 1",
            "a, ACTIVE, references 1, spid -, data 7", "absent", ANY_SET),
    Decided("06_cross_set_access", (12,), "answer",
            "no answer", "ENOENT UnknownIoasid", ANY_SET),
    Decided("11_pending_mm_notifier", (7,), "told",
            "nobody", "kvm FREE 1", FREE_TO_ALL),
    Decided("13_mm_notifier_survives_set", (3,), "available",
            "1048566 of 1048576", "1048576 of 1048576", QUOTA_RETURNS),
    Decided("13_mm_notifier_survives_set", (4, 5), "available",
            "1048556 of 1048576", "1048566 of 1048576", QUOTA_RETURNS),
    Decided("21_data", (14,), "answer",
            "no answer", "EBUSY IoasidFreePending", QUARANTINE),
    Decided("21_data", (14,), "ID 2",
            "a, FREE_PENDING, references 1, spid -, data -",
            "a, FREE_PENDING, references 1, spid -, data 5", QUARANTINE),
    Decided("21_data", (15,), "answer",
            "done", "EBUSY IoasidFreePending", QUARANTINE),
    Decided("21_data", (15, 16), "ID 2",
            "a, FREE_PENDING, references 1, spid -, data 8",
            "a, FREE_PENDING, references 1, spid -, data 5", QUARANTINE),
    Decided("21_data", (16,), "answer",
            "data 8", "data 5", QUARANTINE),
    Decided("22_set_alloc_errors", (6,), "answer",
            "ENOSPC", "EINVAL InvalidArgument", SENSE_FIRST),
    Decided("24_reserve_cancel", (5,), "answer",
            "0 reserved", "ENOSPC CapacityExhausted", ALL_OF_NOTHING),
    Decided("32_spid_in_free_pending", (10,), "told",
            "kvm UNBIND 1", "nobody", FREE_ENDS_BINDING),
    Decided("32_spid_in_free_pending", (12,), "answer",
            "done", "EBUSY IoasidFreePending", QUARANTINE),
    Decided("32_spid_in_free_pending", (12,), "told",
            "kvm BIND 1", "nobody", QUARANTINE),
    Decided("32_spid_in_free_pending", (12,), "ID 1",
            "a, FREE_PENDING, references 1, spid 102, data -",
            "a, FREE_PENDING, references 1, spid -, data -", QUARANTINE),
)
NAMED: Final = (
    Named("get", "EINVAL", "ENOENT UnknownIoasid", EXACT_ERRNO,
          {"random-1": 1, "random-2": 11, "random-3": 7, "random-4": 8, "random-5": 5,
           "random-6": 8}),
    Named("attach_spid", "EINVAL", "EEXIST SpidInUse", EXACT_ERRNO,
          {"random-1": 7, "random-2": 12, "random-3": 4, "random-4": 7, "random-5": 4,
           "random-6": 5, "09_spid_duplicates": 1, "32_spid_in_free_pending": 1}),
    Named("attach_spid", "EINVAL", "EEXIST AlreadyBound", EXACT_ERRNO,
          {"09_spid_duplicates": 1}),
)
# fmt: on

CALLERS: Final = {
    "01_normal_lifecycle": {6: "vtd", 7: "vtd", 8: "vdcm", 10: "vdcm", 11: "vtd", 12: "vtd"},
    "02_free_before_unbind": {6: "vtd", 7: "vtd", 8: "vdcm"},
}
"""Who calls, where a trace's description tells: trace, step, holder. Everywhere else: `DRIVER`."""


# -- a trace ------------------------------------------------------------------------------------


class TraceError(Exception):
    """A file that is no trace, or a trace that makes no sense; `path` and `reason` say why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KernelAnswer(msgspec.Struct, frozen=True):
    """What the kernel's allocator returned."""

    ret: int | bool | str | None
    err: str | None = None
    set: str | None = None
    set_id: int | None = None
    quota: int | None = None
    data: int | None = None


class Callback(msgspec.Struct, frozen=True):
    """What a kernel subscriber was told (`event`), or did (`do`)."""

    sub: str
    id: int
    event: EventKind | None = None
    spid: int | str | None = None
    set: str | None = None
    set_id: int | None = None
    pdata: int = 0
    do: str | None = None
    ret: int | bool | None = None


class KernelSet(msgspec.Struct, frozen=True):
    """A set in a recorded state."""

    set: str
    id: int
    quota: int
    nr: int
    free_pending: bool = False


class KernelId(msgspec.Struct, frozen=True):
    """An ID in a recorded state."""

    id: int
    set: str
    refs: int
    state: str
    spid: int | None
    data: int
    in_set: bool = True


class KernelPending(msgspec.Struct, frozen=True):
    """A subscriber by token in a recorded state; active while a set with the token exists."""

    sub: str
    mm: int
    active: bool


class KernelState(msgspec.Struct, frozen=True):
    """A recorded state; the end of a random trace has no capacity in it."""

    sets: list[KernelSet]
    ids: list[KernelId]
    capacity: int | None = None
    avail: int | None = None
    pending: list[KernelPending] = []


class ScenarioStep(KernelAnswer, frozen=True, kw_only=True):
    """A step of a scenario: an answer, with the operation, the callbacks and the state after it."""

    op: list[str]
    events: list[Callback]
    state: KernelState


class TraceFile(msgspec.Struct, frozen=True):
    """A trace as it stands in its file."""

    name: str
    steps: list[ScenarioStep | list[str | KernelAnswer]]
    about: str = ""
    final: KernelState | None = None


@frozen
class Subscriber:
    """A subscriber, and what it does besides acknowledging: put or defer work."""

    name: str
    scope: str
    holds: bool = False
    puts: bool = False
    defers: bool = False


@frozen
class Operation:
    """An operation in words and as a request; `run_work` has none.

    The number of the set named by `set` is put into the request when it is sent; `creates` is
    the name of the set that it makes.
    """

    words: str
    request: Request | None
    set: str | None = None
    creates: str | None = None
    subscriber: Subscriber | None = None


@frozen
class Step:
    """One operation, and what the kernel's allocator made of it."""

    number: int
    op: tuple[str, ...]
    operation: Operation
    answer: KernelAnswer
    callbacks: Sequence[Callback] = ()
    state: KernelState | None = None


@frozen
class Trace:
    """A recorded trace: a scenario, with a state in every step, or a random one, with `final`."""

    name: str
    about: str
    steps: tuple[Step, ...]
    final: KernelState | None


def load(path: Path) -> Trace:
    """Read a trace from a file. Raises `TraceError`."""
    try:
        file = msgspec.json.decode(path.read_bytes(), type=TraceFile)
    except OSError as error:
        raise TraceError(path, error.strerror or "cannot be read") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TraceError(path, f"not a recorded trace: {error}") from error
    if not file.steps:
        raise TraceError(path, "a trace without steps")
    steps = []
    sets: set[str] = set()
    for number, raw in enumerate(file.steps, 1):
        try:
            step = _read_step(number, raw)
            if step.operation.set is not None and step.operation.set not in sets:
                raise ValueError(f"no step before made a set {step.operation.set!r}")
        except ValueError as error:
            raise TraceError(path, f"step {number}: {error}") from error
        if step.operation.creates is not None:
            sets.add(step.operation.creates)
        steps.append(step)
    return Trace(file.name, file.about, tuple(steps), file.final)


def _read_step(number: int, raw: ScenarioStep | list[str | KernelAnswer]) -> Step:
    if isinstance(raw, ScenarioStep):
        return Step(number, tuple(raw.op), _read(raw.op), raw, raw.events, raw.state)
    op = tuple(word for word in raw if isinstance(word, str))
    answer = raw[-1] if raw else None
    if not isinstance(answer, KernelAnswer) or len(op) != len(raw) - 1:
        raise ValueError("not [operation, argument, ..., answer]")
    return Step(number, op, _read(op), answer)


def _read(op: Sequence[str]) -> Operation:
    # The request has 0 where the number of a set goes.
    match op:
        case ["set_alloc", name, kind, token, quota]:
            words = f"make set {name} ({kind}, token {token}), quota {quota}"
            types = {"mm": TokenType.MM, "null": TokenType.NULL}
            token_type = types.get(kind, cast("TokenType", kind))  # refused, as it should be
            return Operation(words, AllocSet(_named(token), int(quota), token_type), creates=name)
        case ["set_free", name]:
            return Operation(f"destroy set {name}", FreeSet(0), name)
        case ["free_all", name]:
            return Operation(f"free every ID of {name}", FreeSet(0, destroy=False), name)
        case ["alloc", name, low, high]:
            words = f"allocate an ID of {low}..{high} in {name}"
            return Operation(words, Alloc(0, int(low), int(high)), name)
        case ["alloc", name, low, high, data]:
            words = f"allocate an ID of {low}..{high} in {name}, data {data}"
            return Operation(words, Alloc(0, int(low), int(high), int(data) or None), name)
        case ["free", name, ioasid]:
            return Operation(f"free {_where(ioasid, name)}", Free(int(ioasid)), _named(name))
        case ["get", name, ioasid]:
            words = f"take a reference on {_where(ioasid, name)}"
            return Operation(words, Get(int(ioasid)), _named(name))
        case ["put", name, ioasid]:
            words = f"put a reference on {_where(ioasid, name)}"
            return Operation(words, Put(int(ioasid)), _named(name))
        case ["find", name, ioasid]:
            return Operation(f"look up {_where(ioasid, name)}", Find(int(ioasid)), _named(name))
        case ["attach_spid", ioasid, spid]:
            number = INVALID_IOASID if spid == "INVALID" else int(spid)
            return Operation(f"bind ID {ioasid} to spid {spid}", AttachSpid(int(ioasid), number))
        case ["detach_spid", ioasid]:
            return Operation(f"unbind ID {ioasid}", DetachSpid(int(ioasid)))
        case ["find_by_spid", name, spid, "0" | "1" as get]:
            words = f"find spid {spid} of {name}{', take a reference' if get == '1' else ''}"
            return Operation(words, FindBySpid(0, int(spid), get == "1"), name)
        case ["find_set", ioasid]:
            return Operation(f"find the set of ID {ioasid}", FindSid(int(ioasid)))
        case ["find_mm_set", token]:
            return Operation(f"find the set of token {token}", FindSet(token))
        case ["attach_data", ioasid, data]:
            words = f"attach data {data} to ID {ioasid}"
            return Operation(words, AttachData(int(ioasid), int(data)))
        case ["detach_data", ioasid]:
            return Operation(f"detach the data of ID {ioasid}", DetachData(int(ioasid)))
        case ["reserve", count]:
            words = f"reserve {count} IDs" if int(count) else "reserve all there is"
            return Operation(words, ReserveCapacity(int(count) or None))
        case ["cancel", count]:
            return Operation(f"give back {count} reserved IDs", CancelCapacity(int(count)))
        case ["install", count]:
            return Operation(f"set the capacity to {count}", InstallCapacity(int(count)))
        case ["register", name, scope, priority, *actions]:
            return _read_register(name, scope, Priority(priority), actions)
        case ["unregister", name, scope]:
            words = f"{name} unsubscribes from {scope}"
            return Operation(words, Unsubscribe(0), subscriber=Subscriber(name, scope))
        case ["run_work"]:
            return Operation("run what was deferred", None)
        case _:
            raise ValueError(f"no such operation, or wrong arguments: {' '.join(op)!r:.80}")


def _read_register(name: str, scope: str, priority: Priority, actions: list[str]) -> Operation:
    match sorted(actions):
        case []:
            subscriber, does = Subscriber(name, scope), ""
        case ["on=BIND:get_locked", "on=UNBIND:put_locked"]:
            subscriber, does = Subscriber(name, scope, holds=True), ", holding"
        case ["on=UNBIND:put_locked"]:
            subscriber, does = Subscriber(name, scope, puts=True), ", puts at UNBIND"
        case ["on=FREE:defer_detach_put"]:
            subscriber, does = Subscriber(name, scope, defers=True), ", defers at FREE"
        case unknown:
            raise ValueError(f"no such actions of a subscriber: {' '.join(unknown)!r:.80}")
    every = frozenset(EventKind) - {EventKind.RECLAIM}
    match scope.split(":"):
        case ["all"]:
            where, owner, request = "all", None, Subscribe(kinds=frozenset({EventKind.FREE}))
        case ["set", owner]:
            where, request = f"set {owner}", Subscribe(sid=0, kinds=every)
        case ["mm", token]:
            where, owner, request = f"token {token}", None, Subscribe(token=token, kinds=every)
        case _:
            raise ValueError(f"no such scope: {scope!r:.80}")
    request = msgspec.structs.replace(
        request,
        priority=priority,
        hold=subscriber.holds,
        queue_size=2**20,
        acknowledge_within=None,
    )
    words = f"{name} subscribes to {where}, {priority}{does}"
    return Operation(words, request, owner, subscriber=subscriber)


def _named(name: str) -> str | None:
    return None if name == "-" else name


def _where(ioasid: str, name: str) -> str:
    return f"ID {ioasid} in any set" if name == "-" else f"ID {ioasid} in {name}"


# -- the verdicts -------------------------------------------------------------------------------


class Verdict(StrEnum):
    """How what came out here stands to what the kernel did."""

    AGREEMENT = "agreement"
    DECIDED = "decided"
    DISAGREEMENT = "disagreement"


class Difference(NamedTuple):
    """One thing that differs; if it has no reason, nobody decided so."""

    aspect: str
    kernel: str
    ours: str
    reason: Reason | None


@frozen
class StepReport:
    """What came out of one step; `unnamed` is a refusal that the kernel gave no reason for."""

    step: Step
    caller: str
    kernel: str
    ours: str
    told: str
    unnamed: bool
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its differences."""
        if any(difference.reason is None for difference in self.differences):
            return Verdict.DISAGREEMENT
        return Verdict.DECIDED if self.differences else Verdict.AGREEMENT


@frozen
class TraceReport:
    """What came out of one trace: its steps, how the end states differ, what is listed in vain."""

    trace: Trace
    steps: tuple[StepReport, ...]
    end: tuple[Difference, ...]
    stale: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        """Count the steps with a verdict."""
        return sum(step.verdict is verdict for step in self.steps)

    @property
    def reasons(self) -> Counter[Reason]:
        """The steps by each reason that occurs in them."""
        found: Counter[Reason] = Counter()
        for step in self.steps:
            found.update({each.reason for each in step.differences if each.reason is not None})
        return found

    @property
    def passed(self) -> bool:
        """Whether there is no disagreement and nothing is listed in vain."""
        return not (self.count(Verdict.DISAGREEMENT) or self.end or self.stale)


class Judge:
    """Looks differences of one trace up, and knows in the end what was listed in vain."""

    def __init__(self, trace: str) -> None:
        self._listed = {
            (number, entry.aspect, entry.kernel, entry.ours): entry.reason
            for entry in DECIDED
            if entry.trace == trace
            for number in entry.steps
        }
        self._trace = trace
        self._found: set[tuple[int, str, str, str]] = set()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def judge(self, step: Step, aspect: str, kernel: str, ours: str) -> Difference:
        """Return the difference, with its reason if it is listed."""
        key = (step.number, aspect, kernel, ours)
        if key in self._listed:
            self._found.add(key)
            return Difference(aspect, kernel, ours, self._listed[key])
        for rule in NAMED:
            if aspect == "answer" and rule[:3] == (step.op[0], kernel, ours):
                self._counts[rule[:3]] += 1
                return Difference(aspect, kernel, ours, rule.reason)
        return Difference(aspect, kernel, ours, None)

    def stale(self) -> Iterator[str]:
        """Name what is listed for this trace and did not occur, or more or less often."""
        for number, aspect, kernel, ours in sorted(self._listed.keys() - self._found):
            yield f"step {number}, {aspect}: {kernel} / {ours}"
        for rule in NAMED:
            listed, found = rule.occurs.get(self._trace), self._counts[rule[:3]]
            if listed is not None and listed != found:
                yield f"{rule.operation}: {rule.kernel} / {rule.ours}: {found} and not {listed}"


# -- the engine ---------------------------------------------------------------------------------


class Port(Protocol):
    """A way to a fresh allocator of capacity `CAPACITY`, opened by the holder `DRIVER`.

    Nothing here has to wait: a port to a bare core may answer at once.
    """

    async def ask(self, holder: str, request: Request) -> Reply:
        """Send a request as `holder`, who joins first if need be. Raises `IoasidError`."""

    async def told(self) -> Sequence[tuple[int, Event]]:
        """Return what was delivered since the last call, by number of the subscription."""

    async def snapshot(self) -> Snapshot:
        """Return the whole state."""


async def replay(trace: Trace, port: Port) -> TraceReport:
    """Play every step of a trace through a port, and compare."""
    judge = Judge(trace.name)
    engine = _Engine(port, CALLERS.get(trace.name, {}), judge)
    steps = tuple([await engine.step(step) for step in trace.steps])
    end: list[Difference] = []
    if trace.final is not None:
        differences = _compare(_recorded(trace.final), await engine.state())
        end = [Difference(*difference, None) for difference in differences]
    return TraceReport(trace, steps, tuple(end), tuple(judge.stale()))


@define
class _Engine:
    port: Port
    callers: Mapping[int, str]
    judge: Judge
    sets: dict[str, int] = field(factory=dict)
    reserved: int = 0
    subscribers: dict[int, Subscriber] = field(factory=dict)
    deferred: list[tuple[str, int]] = field(factory=list)
    recorded: dict[str, str] = field(factory=lambda: {"available": f"{CAPACITY} of {CAPACITY}"})
    # Of the step under way: who was told what in which turn, and what subscribers did.
    told: list[tuple[int, str, Event]] = field(factory=list)
    did: list[str] = field(factory=list)

    async def step(self, step: Step) -> StepReport:
        """Send the request of a step, let everybody deal with what follows, and compare."""
        caller = self.callers.get(step.number, DRIVER)
        if step.operation.subscriber is not None:
            caller = step.operation.subscriber.name
        self.told, self.did = [], []
        recorded = self.recorded if step.state is None else _recorded(step.state)
        kernel, unchanged = _kernel_says(step), recorded == self.recorded
        self.recorded = recorded
        try:
            ours, refused = await self._carry_out(caller, step.operation), False
        except IoasidError as error:
            ours, refused = f"{error.code} {type(error).__name__}", True
        await self._settle()
        unnamed = refused and unchanged and kernel in {NO_ANSWER, "no ID", "not reclaimed"}
        differences = []
        if refused and not unnamed and kernel != ours.split()[0]:
            differences.append(("answer", kernel, ours))
        if not refused and kernel not in {ours, NO_ANSWER}:
            differences.append(("answer", kernel, ours))
        if step.state is not None:
            differences += self._compare_events(step.callbacks)
            differences += _compare(recorded, await self.state())
        return StepReport(
            step,
            caller,
            kernel,
            ours,
            ", ".join(f"{sub} {event.kind} {event.ioasid}" for _, sub, event in self.told),
            unnamed,
            tuple(self.judge.judge(step, *difference) for difference in differences),
        )

    async def state(self) -> dict[str, str]:
        """Return the state, a fact an entry, in the words of `_recorded`."""
        figures = await self.port.ask(DRIVER, TakeStatistics())
        assert isinstance(figures, Statistics)
        snapshot = await self.port.snapshot()
        state = {"available": f"{figures.available} of {figures.capacity}"}
        for owner in snapshot.sets:
            name, pending = self._name(owner.sid), owner.state is SetState.FREE_PENDING
            listing = await self.port.ask(DRIVER, ListSet(owner.sid))
            assert isinstance(listing, Listing)
            state[f"set {name}"] = _set_words(
                owner.sid, owner.quota, len(listing.ioasids), pending=pending
            )
            for live in listing.ioasids:
                record = await self.port.ask(DRIVER, Find(live.ioasid))
                assert isinstance(record, IoasidRecord)
                state[f"ID {live.ioasid}"] = _id_words(
                    name, live.state, record.reference_count, live.spid, live.data
                )
        tokens = {owner.token for owner in snapshot.sets}
        for each in snapshot.subscriptions:
            if each.token is not None:
                joined = each.token in tokens
                state[f"subscriber {each.holder}"] = _token_words(each.token, joined=joined)
        return state

    async def _carry_out(self, caller: str, operation: Operation) -> str:
        request, subscriber = operation.request, operation.subscriber
        if request is None:
            await self._work()
            return "done"
        if operation.set is not None:
            sid = self.sets.get(operation.set, NO_SET)
            request = msgspec.structs.replace(request, sid=sid)
        if isinstance(request, Unsubscribe):
            numbers = (number for number, each in self.subscribers.items() if each == subscriber)
            request = Unsubscribe(next(numbers, NO_SET))
        reply = await self.port.ask(caller, request)
        match reply:
            case SetRecord() if operation.creates is not None:
                self.sets = {name: sid for name, sid in self.sets.items() if sid != reply.sid}
                self.sets[operation.creates] = reply.sid
                return f"set {reply.sid}, quota {reply.quota}"
            case SetRecord() | FoundSid():
                return f"set {self._name(reply.sid)}"
            case Subscribed() if subscriber is not None:
                self.subscribers[reply.subscription] = subscriber
            case Allocated():
                return f"ID {reply.ioasid}"
            case IoasidRecord():
                return f"data {_or_dash(reply.data)}"
            case CapacityRecord() if isinstance(request, ReserveCapacity):
                taken, self.reserved = reply.reserved - self.reserved, reply.reserved
                return f"{taken} reserved"
            case CapacityRecord():
                self.reserved = reply.reserved
                return f"{reply.available} available"
            case Released() if isinstance(request, Put):
                return "reclaimed" if reply.reclaimed else "not reclaimed"
            case Released() if isinstance(request, Free):
                return "reclaimed" if reply.reclaimed else "in quarantine"
            case _:
                pass
        return "done"

    async def _settle(self) -> None:
        # Turn by turn, whoever is told something deals with it and acknowledges it. Among those
        # whose turn it is there is no order, so a fixed one will do.
        turn = 0
        while told := sorted(await self.port.told(), key=itemgetter(0)):
            turn += 1
            for number, event in told:
                subscriber = self.subscribers[number]
                self.told.append((turn, subscriber.name, event))
                if subscriber.puts and event.kind in {EventKind.UNBIND, EventKind.FREE}:
                    await self._put(subscriber.name, event.ioasid)
                if subscriber.defers and event.kind is EventKind.FREE:
                    self.deferred.append((subscriber.name, event.ioasid))
                    self.did.append(f"{subscriber.name} defers")
            for number, event in told:
                name = self.subscribers[number].name
                await self.port.ask(name, Acknowledge(number, event.seq))

    async def _work(self) -> None:
        deferred, self.deferred = self.deferred, []
        for name, ioasid in deferred:
            self.did.append(f"{name} unbinds {ioasid}")
            with suppress(IoasidError):
                await self.port.ask(name, DetachSpid(ioasid))
            await self._settle()
            await self._put(name, ioasid)
            await self._settle()

    async def _put(self, name: str, ioasid: int) -> None:
        with suppress(IoasidError):
            reply = await self.port.ask(name, Put(ioasid))
            assert isinstance(reply, Released)
            self.did.append(_put_words(name, ioasid, reclaimed=reply.reclaimed))

    def _compare_events(self, callbacks: Sequence[Callback]) -> Iterator[tuple[str, str, str]]:
        calls = [(each.sub, each.event, each.id) for each in callbacks if each.event is not None]
        told = [(sub, event.kind, event.ioasid) for _, sub, event in self.told]
        if sorted(calls) != sorted(told):
            yield "told", _told_words(calls), _told_words(told)
        # What one subscriber's events carry, in the order in which they came.
        for name in dict.fromkeys(sub for sub, _, _ in calls):
            theirs = [_carried(each) for each in callbacks if each.sub == name and each.event]
            ours = [self._carried(event) for _, sub, event in self.told if sub == name]
            for one, other in zip(theirs, ours, strict=False):
                if one != other:
                    yield f"event for {name}", one, other
        # One event's way through its subscribers.
        for kind, ioasid in dict.fromkeys((kind, ioasid) for _, kind, ioasid in calls):
            turns = {
                sub: turn
                for turn, sub, event in self.told
                if (event.kind, event.ioasid) == (kind, ioasid)
            }
            way = [sub for sub, *event in calls if event == [kind, ioasid] and sub in turns]
            tiers = sorted(way, key=turns.__getitem__)
            if way != tiers:
                yield "order", f"{kind} {', '.join(way)}", f"{kind} {', '.join(tiers)}"
        theirs, ours = list(self._done(callbacks)), self.did
        if theirs != ours:
            yield "did", "; ".join(theirs) or "nothing", "; ".join(ours) or "nothing"

    def _done(self, callbacks: Sequence[Callback]) -> Iterator[str]:
        # What a holding subscriber gets and puts is granted here; the reference counts show it.
        holding = {each.name for each in self.subscribers.values() if each.holds}
        for each in callbacks:
            match each.do:
                case "queue_detach_put":
                    yield f"{each.sub} defers"
                case "detach_spid":
                    yield f"{each.sub} unbinds {each.id}"
                case "put" | "put_locked" if each.sub not in holding:
                    yield _put_words(each.sub, each.id, reclaimed=bool(each.ret))

    def _carried(self, event: Event) -> str:
        return _event_words(
            event.kind, event.ioasid, self._name(event.sid), event.sid, event.spid, event.data
        )

    def _name(self, sid: int) -> str:
        names = (name for name, number in self.sets.items() if number == sid)
        return next(names, f"number {sid}")


# -- the words in which both sides are compared -------------------------------------------------


def _kernel_says(step: Step) -> str:
    answer = step.answer
    if answer.err is not None:
        return answer.err
    match step.op[0], answer.ret:
        case _, "INVALID":
            return "no ID"
        case _, None:
            return NO_ANSWER
        case "set_alloc", _:
            return f"set {answer.set_id}, quota {answer.quota}"
        case "alloc" | "find_by_spid", ioasid:
            return f"ID {ioasid}"
        case "find", _:
            return f"data {_or_dash(answer.data or None)}"
        case "find_set" | "find_mm_set", _:
            return f"set {answer.set}"
        case "put", reclaimed:
            return "reclaimed" if reclaimed else "not reclaimed"
        case "reserve", count:
            return f"{count} reserved"
        case "cancel", count:
            return f"{count} available"
        case _, 0:
            return "done"
        case _, value:
            return f"{value}"


def _recorded(state: KernelState) -> dict[str, str]:
    words = {} if state.avail is None else {"available": f"{state.avail} of {state.capacity}"}
    for owner in state.sets:
        words[f"set {owner.set}"] = _set_words(
            owner.id, owner.quota, owner.nr, pending=owner.free_pending
        )
    for one in state.ids:
        name = one.set if one.in_set else f"no longer in {one.set}"
        in_use = "ACTIVE" if one.state == "IDLE" else one.state
        words[f"ID {one.id}"] = _id_words(name, in_use, one.refs, one.spid, one.data or None)
    for entry in state.pending:
        words[f"subscriber {entry.sub}"] = _token_words(f"mm{entry.mm}", joined=entry.active)
    return words


def _compare(kernel: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for aspect in dict.fromkeys([*kernel, *ours]):
        one, other = kernel.get(aspect, "absent"), ours.get(aspect, "absent")
        if one != other and (aspect in kernel or aspect != "available"):
            yield aspect, one, other


def _set_words(sid: int, quota: int, allocated: int, *, pending: bool) -> str:
    return f"number {sid}, {allocated} of {quota} allocated{', FREE_PENDING' if pending else ''}"


def _id_words(name: str, state: str, references: int, spid: int | None, data: object) -> str:
    return f"{name}, {state}, references {references}, spid {_or_dash(spid)}, data {_or_dash(data)}"


def _token_words(token: str, *, joined: bool) -> str:
    return f"{'joined' if joined else 'waits for'} {token}"


def _told_words(told: Iterable[tuple[str, EventKind, int]]) -> str:
    return ", ".join(f"{sub} {kind} {ioasid}" for sub, kind, ioasid in sorted(told)) or "nobody"


def _put_words(name: str, ioasid: int, *, reclaimed: bool) -> str:
    return f"{name} puts {ioasid}{', reclaimed' if reclaimed else ''}"


def _carried(each: Callback) -> str:
    spid = None if each.spid == "INVALID" else each.spid
    return _event_words(each.event, each.id, each.set, each.set_id, spid, each.pdata or None)


def _event_words(
    kind: EventKind | None, ioasid: int, name: object, sid: object, spid: object, data: object
) -> str:
    return f"{kind} {ioasid}, {name} ({sid}), spid {_or_dash(spid)}, data {_or_dash(data)}"


def _or_dash(value: object) -> object:
    return "-" if value is None else value


# -- through the actors -------------------------------------------------------------------------


class ActorPort:
    """A port to an allocator actor: a session a holder, a real queue a subscriber."""

    def __init__(self, driver: Session, stack: AsyncExitStack) -> None:
        self._sessions = {DRIVER: driver}
        self._subscriptions: dict[int, Subscription] = {}
        self._stack = stack

    async def ask(self, holder: str, request: Request) -> Reply:
        """Send a request; a `Subscribe` goes through a subscription, which is the queue."""
        session = self._sessions.get(holder)
        if session is None:
            joining = self._sessions[DRIVER].session(holder)
            session = self._sessions[holder] = await self._stack.enter_async_context(joining)
        if isinstance(request, Subscribe):
            subscription = session.subscribe(**msgspec.structs.asdict(request))
            await self._stack.enter_async_context(subscription)
            self._subscriptions[subscription.number] = subscription
            return Subscribed(subscription.number, subscription.resumed)
        reply = await session.ask(request)
        if isinstance(request, Unsubscribe):
            del self._subscriptions[request.subscription]
        return reply

    async def told(self) -> Sequence[tuple[int, Event]]:
        """Take what waits in the queues; the engine acknowledges it later."""
        told = []
        for number, subscription in self._subscriptions.items():
            while (message := subscription.take()) is not None:
                assert isinstance(message, Event), message
                subscription.defer(message)
                told.append((number, message))
        return told

    async def snapshot(self) -> Snapshot:
        """Return the whole state."""
        return await self._sessions[DRIVER].snapshot()


@asynccontextmanager
async def open_port() -> AsyncIterator[ActorPort]:
    """Run a fresh allocator actor and give a port to it."""
    async with AsyncExitStack() as stack:
        opening = open_allocator(capacity=CAPACITY, holder=DRIVER)
        yield ActorPort(await stack.enter_async_context(opening), stack)


# -- telling the story --------------------------------------------------------------------------


@frozen
class Totals:
    """What came out of several traces."""

    steps: int
    verdicts: dict[Verdict, int]
    reasons: Counter[Reason]
    end_states_that_differ: int
    stale: int
    passed: bool

    @classmethod
    def of(cls, reports: Sequence[TraceReport]) -> Self:
        """Add up."""
        return cls(
            sum(len(report.steps) for report in reports),
            {verdict: sum(report.count(verdict) for report in reports) for verdict in Verdict},
            sum((report.reasons for report in reports), Counter[Reason]()),
            sum(bool(report.end) for report in reports),
            sum(len(report.stale) for report in reports),
            all(report.passed for report in reports),
        )


class Reporter(Protocol):
    """Whoever shows what came out."""

    def begin(self) -> None:
        """Introduce it, before the first trace."""

    def trace(self, report: TraceReport) -> None:
        """Show a trace."""

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Conclude, after the last trace."""


class JsonReporter:
    """One event a line: every step, every trace, and the verdict on all of them."""

    def begin(self) -> None:
        """Print nothing: there is nothing to introduce."""

    def trace(self, report: TraceReport) -> None:
        """Print the steps of a trace, then the trace."""
        for each in report.steps:
            self._print(
                event="step",
                trace=report.trace.name,
                step=each.step.number,
                operation=each.step.op,
                words=each.step.operation.words,
                caller=each.caller,
                kernel=each.kernel,
                ours=each.ours,
                told=each.told,
                unnamed=each.unnamed,
                verdict=each.verdict,
                differences=_plain(each.differences),
            )
        self._print(
            event="trace",
            trace=report.trace.name,
            end=_plain(report.end),
            stale=report.stale,
            **self._totals([report]),
        )

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Print the verdict."""
        self._print(event="verdict", traces=len(reports), **self._totals(reports))

    def _totals(self, reports: Sequence[TraceReport]) -> dict[str, object]:
        totals = Totals.of(reports)
        return {
            "steps": totals.steps,
            **{verdict.value: count for verdict, count in totals.verdicts.items()},
            "reasons": {reason.label: count for reason, count in totals.reasons.items()},
            "end_states_that_differ": totals.end_states_that_differ,
            "listed_in_vain": totals.stale,
            "passed": totals.passed,
        }

    def _print(self, **event: object) -> None:
        print(msgspec.json.encode(event).decode(), flush=True)


class RichReporter:
    """For people: an introduction, every scenario step by step, a summary and a conclusion."""

    COLOURS: Final = {
        Verdict.AGREEMENT: "green",
        Verdict.DECIDED: "yellow",
        Verdict.DISAGREEMENT: "bold red",
    }

    def __init__(self) -> None:
        terminal = Console(highlight=False)
        self._console = terminal if terminal.is_terminal else Console(highlight=False, width=112)

    def begin(self) -> None:
        """Say what is about to be compared with what."""
        self._say(
            "A Linux kernel series once had an allocator for IOASIDs (PASIDs), the numbers by "
            "which an IOMMU knows the address space that a DMA request means. What it answered "
            "was recorded. Here the same operations go to this allocator, and every answer, "
            "every event and every state is compared: agreement, decided (different on purpose, "
            "with the reason) or disagreement."
        )
        self._say()

    def trace(self, report: TraceReport) -> None:
        """Show a random trace in a line, any other step by step; then what is wrong with it."""
        if report.trace.final is None:
            self._say()
            self._say((report.trace.name, "bold"), f": {report.trace.about}")
            self._say((self._columns("", "operation", "the kernel", "here", "verdict"), "dim"))
            before: tuple[Difference, ...] = ()
            for step in report.steps:
                self._step(step, before)
                before = step.differences
        else:
            agreed, decided, bad = (report.count(verdict) for verdict in Verdict)
            why = ", ".join(f"{reason.label} {n}" for reason, n in report.reasons.most_common())
            self._say(
                (report.trace.name, "bold"),
                f": {len(report.steps)} steps, {agreed} agreements, {decided} decided",
                f" ({why}), " if why else ", ",
                f"{bad} disagreements, end state {'differs' if report.end else 'equal'}",
            )
        wrong = list(_wrong(report))
        for line in wrong[:20]:
            self._say((line, "bold red"), indent=2)
        if len(wrong) > 20:
            self._say((f"and {len(wrong) - 20} more", "bold red"), indent=2)

    def end(self, reports: Sequence[TraceReport]) -> None:
        """Show the counts and the reasons, and conclude."""
        totals = Totals.of(reports)
        self._say()
        self._console.print(self._counts(reports))
        if totals.reasons:
            self._console.print(self._reasons(totals.reasons))
        if totals.passed:
            self._say(
                f"No disagreement: {totals.verdicts[Verdict.AGREEMENT]} steps as the kernel took "
                f"them, {totals.verdicts[Verdict.DECIDED]} different on purpose, each for a "
                "reason above."
            )
        else:
            self._say(
                f"Not as it should be: {totals.verdicts[Verdict.DISAGREEMENT]} steps in "
                f"disagreement, {totals.end_states_that_differ} end states that differ, "
                f"{totals.stale} differences that did not occur as listed."
            )

    def _say(self, *parts: str | tuple[str, str], indent: int = 0) -> None:
        text = Text.assemble(*parts)
        self._console.print(Padding(text, (0, 0, 0, indent), expand=False) if indent else text)

    def _columns(self, number: object, words: str, kernel: str, ours: str, verdict: str) -> str:
        return f"{number:>4}  {words:<48} {kernel:<17} {ours:<25} {verdict}"

    def _step(self, report: StepReport, before: tuple[Difference, ...]) -> None:
        words, colour = report.step.operation.words, self.COLOURS[report.verdict]
        if report.caller != DRIVER and report.step.operation.subscriber is None:
            words = f"{report.caller}: {words}"
        columns = self._columns(report.step.number, words, report.kernel, report.ours, "")
        self._say(columns, (report.verdict, colour))
        if report.told:
            self._say((f"told here: {report.told}", "dim"), indent=6)
        for each in report.differences:
            if each.aspect != "answer":
                self._say(f"{each.aspect}: the kernel {each.kernel}; here {each.ours}", indent=6)
        new = {each.reason for each in report.differences if each not in before}
        for reason in dict.fromkeys(each.reason for each in report.differences):
            if reason is not None:
                why = f": {reason.text}" if reason in new else ", as before"
                self._say((f"{reason.label}{why}", colour), indent=6)

    def _counts(self, reports: Sequence[TraceReport]) -> Table:
        table = Table(title="Steps", title_justify="left")
        table.add_column("traces")
        for name in ("steps", *Verdict):
            table.add_column(name, justify="right")
        table.add_column("state")
        random = [report for report in reports if report.trace.final is not None]
        scenarios = [report for report in reports if report.trace.final is None]
        for name, group, equal in (
            ("random", random, "equal at the end"),
            ("scenario", scenarios, "equal after every step, but for what was decided"),
        ):
            totals = Totals.of(group)
            if group:
                table.add_row(
                    f"{len(group)} {name}",
                    f"{totals.steps}",
                    *(f"{count}" for count in totals.verdicts.values()),
                    equal if totals.passed else "see above",
                )
        return table

    def _reasons(self, reasons: Counter[Reason]) -> Table:
        table = Table(title="Different on purpose", title_justify="left")
        table.add_column("steps", justify="right")
        table.add_column("reason")
        table.add_column("explained in docs/")
        for reason, count in reasons.most_common():
            words = Text.assemble((reason.label, "bold"), f": {reason.text}")
            table.add_row(f"{count}", words, reason.section)
        return table


def _wrong(report: TraceReport) -> Iterator[str]:
    for step in report.steps:
        for each in step.differences:
            if each.reason is None:
                where = f"step {step.step.number}, {' '.join(step.step.op)}, {each.aspect}"
                yield f"{where}: the kernel {each.kernel}; here {each.ours}"
    for each in report.end:
        yield f"end state, {each.aspect}: the kernel {each.kernel}; here {each.ours}"
    for stale in report.stale:
        yield f"listed, and not so: {stale}"


def _plain(differences: Iterable[Difference]) -> list[dict[str, str | None]]:
    return [
        {
            "aspect": each.aspect,
            "kernel": each.kernel,
            "ours": each.ours,
            "reason": None if each.reason is None else each.reason.text,
            "section": None if each.reason is None else each.reason.section,
        }
        for each in differences
    ]


# -- the command --------------------------------------------------------------------------------


async def run(traces: Sequence[Trace], reporter: Reporter) -> bool:
    """Replay traces, each on an allocator of its own; answers whether all passed."""
    reports = []
    reporter.begin()
    for trace in traces:
        async with open_port() as port:
            reports.append(await replay(trace, port))
        reporter.trace(reports[-1])
    reporter.end(reports)
    return all(report.passed for report in reports)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the files named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Replay recorded kernel traces and compare.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recorded trace")
    parser.add_argument("--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument("--json", action="store_true", help="one event a line")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec(options.backend) is None:
        parser.error(f"{options.backend} is not installed")
    try:
        traces = [load(path) for path in options.files]
    except TraceError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    reporter: Reporter = JsonReporter() if options.json else RichReporter()
    passed = anyio.run(
        run,
        traces,
        reporter,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
