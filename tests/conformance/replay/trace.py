"""A recorded trace: what was asked, and what the kernel's allocator made of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from attrs import field, frozen

from ioasid.core import EventKind, Priority
from tests.conformance.replay.operation import Operation, read


class TraceError(Exception):
    """A file that is no trace, or a trace that makes no sense; `path` and `reason` say why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KernelAnswer(msgspec.Struct, frozen=True):
    """What the kernel's allocator returned; `ids` is what `for_each` went through."""

    ret: int | bool | str | list[int] | None
    err: str | None = None
    set: str | None = None
    set_id: int | None = None
    quota: int | None = None
    data: int | None = None
    ids: list[int] | None = None


class Callback(msgspec.Struct, frozen=True):
    """What a kernel subscriber was told (`event`), or did (`do`)."""

    id: int = -1
    sub: str = ""
    ev: str = ""
    event: EventKind | None = None
    spid: int | str | None = None
    set: str | None = None
    set_id: int | None = None
    pdata: int | None = 0
    do: str | None = None
    ret: int | bool | str | None = None


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
    spid: int | str | None
    data: int | None
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
    pending: list[KernelPending] | None = None


class ScenarioStep(KernelAnswer, frozen=True, kw_only=True):
    """A step of a scenario: an answer, with the operation, the callbacks and the state after it."""

    op: list[str | int | None]
    events: list[Callback]
    state: KernelState


class TraceFile(msgspec.Struct, frozen=True):
    """A trace as it stands in its file."""

    name: str
    steps: list[ScenarioStep | list[str | int | KernelAnswer | None]]
    about: str = ""
    prio: dict[str, int] = {}
    final: KernelState | None = None


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
    """A recorded trace: a scenario, with a state in every step, or a random one, with `final`.

    `ranks` says which priorities came first in the kernel, the highest one.
    """

    name: str
    about: str
    steps: tuple[Step, ...]
    final: KernelState | None
    ranks: dict[str, int] = field(factory=dict)


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
    for number, raw in enumerate(file.steps, 1):
        try:
            steps.append(_read_step(number, raw))
        except ValueError as error:
            raise TraceError(path, f"step {number}: {error}") from error
    ranks = file.prio or {"LAST": 0, "IOMMU": 1, "DEVICE": 2, "CPU": 3}
    if ranks.keys() != set(Priority):
        raise TraceError(path, f"prio does not rank {', '.join(Priority)}")
    return Trace(file.name, file.about, tuple(steps), file.final, ranks)


def _read_step(number: int, raw: ScenarioStep | list[Any]) -> Step:
    if isinstance(raw, ScenarioStep):
        op = tuple("-" if word is None else f"{word}" for word in raw.op)
        return Step(number, op, read(op), raw, raw.events, raw.state)
    answer = raw[-1] if raw else None
    if not isinstance(answer, KernelAnswer) or len(raw) == 1:
        raise ValueError("not [operation, argument, ..., answer]")
    words = raw[:-1]
    if any(isinstance(word, KernelAnswer) for word in words):
        raise ValueError("not [operation, argument, ..., answer]")
    op = tuple("-" if word is None else f"{word}" for word in words)
    return Step(number, op, read(op), answer)
