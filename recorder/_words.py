"""What is said of a request, an event or a step in a drawing, in few words."""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from msgspec import Struct

from ioasid.core import (
    ActivateSet,
    AdjustGroup,
    AdjustSet,
    Alloc,
    Allocated,
    AllocatedMany,
    AllocGroup,
    AllocMany,
    AllocSet,
    AllocSystemSet,
    Answer,
    AttachData,
    AttachSpid,
    Defer,
    DetachData,
    DetachSpid,
    Event,
    Evict,
    Explain,
    ExportSet,
    Find,
    FindBySpid,
    FindSid,
    Free,
    FreeGroup,
    FreeMany,
    FreeSet,
    FreezeSet,
    Get,
    Imported,
    ImportSet,
    IoasidRange,
    ListSet,
    Notify,
    OpenSession,
    Put,
    Refused,
    Released,
    Request,
    Resync,
    SetRecord,
    Subscribe,
    ThawSet,
)
from ioasid.core._plurals import counted

__all__: list[str] = []


def asked(request: Request) -> str:
    """Return what a request asks for."""
    match request:
        case Alloc():
            return "alloc"
        case AllocMany(_, count):
            return f"alloc {count:,}"
        case AllocSet(token):
            return f"create set {token or ''}".rstrip()
        case AllocSystemSet():
            return "create the host's set"
        case AdjustSet(sid, quota):
            return f"quota of set {sid}: {quota:,}"
        case AllocGroup(name) | AdjustGroup(name) | FreeGroup(name):
            return f"{_split(type(request).__name__)} {name}"
        case AttachSpid(ioasid, spid):
            return f"bind {spid} to {ioasid}"
        case DetachSpid(ioasid):
            return f"unbind {ioasid}"
        case FindBySpid(_, spid, get):
            return f"find {spid}, get" if get else f"find {spid}"
        case FreeMany(_, ranges):
            return f"free {said_of_ranges(ranges)}"
        case Free(ioasid) | Get(ioasid) | Put(ioasid) | Find(ioasid) | FindSid(ioasid):
            return f"{_split(type(request).__name__)} {ioasid}"
        case Explain(ioasid) | AttachData(ioasid) | DetachData(ioasid):
            return f"{_split(type(request).__name__)} {ioasid}"
        case Notify(ioasid, kind):
            return f"notify {kind} {ioasid}"
        case FreeSet(sid) | ListSet(sid) | FreezeSet(sid) | ThawSet(sid):
            return f"{_split(type(request).__name__)} {sid}"
        case ExportSet(sid) | ActivateSet(sid):
            return f"{_split(type(request).__name__)} {sid}"
        case ImportSet(export):
            return f"import set {export.token or ''}".rstrip()
        case Subscribe(sid, token, _, priority, hold):
            scope = token or ("everything" if sid is None else f"set {sid}")
            return f"subscribe to {scope} as {priority}{', hold' if hold else ''}"
        case OpenSession(name) | Evict(name):
            return f"{_split(type(request).__name__)} {name}"
        case Defer():
            return "defer"
        case _:
            return _split(type(request).__name__)


def answered(answer: Answer | Refused) -> str:
    """Return what an answer says that the request does not; "" if that is nothing."""
    match answer:
        case Allocated(ioasid):
            return str(ioasid)
        case AllocatedMany(ranges) | Imported(_, ranges):
            return said_of_ranges(ranges)
        case Released(reclaimed):
            return "back in the pool" if reclaimed else ""
        case SetRecord(sid):
            return f"set {sid}"
        case Refused(_, code):
            return code
        case _:
            return ""


def told(message: Event | Resync) -> str:
    """Return what a subscriber is told."""
    if isinstance(message, Resync):
        return f"Resync: {counted(len(message.ioasids), 'ID')}"
    by = "" if message.publisher is None else f" by {message.publisher}"
    return f"{message.kind} {message.ioasid}{by}"


def done(message: dict[str, Any]) -> str:
    """Return what a step of an actor is about, from its message as a file has it."""
    kind = str(message.get("type", "?"))
    say = _STEPS.get(kind)
    if say is not None:
        try:
            return say.format(**message)
        except (KeyError, IndexError, ValueError):
            pass
    scalars = (
        f"{name} {value}"
        for name, value in message.items()
        if name != "type" and isinstance(value, int | str) and not isinstance(value, bool)
    )
    return " ".join([_split(kind), *scalars])[:80]


_STEPS: Final = {
    "AllocPasid": "guest: alloc",
    "BindPasid": "guest: bind {gpasid} to {ioasid}",
    "UnbindPasid": "guest: unbind {ioasid}",
    "FreePasid": "guest: free {ioasid}",
    "CloseVm": "VM ends",
    "FreezeVm": "freeze: it moves",
    "ExportVm": "export it for the next host",
    "RunVm": "run from here on",
    "BindGuestPasid": "asked for an entry for {ioasid}",
    "UnbindGuestPasid": "asked to unbind {ioasid}",
    "ResumeGuestPasid": "asked for the entry for {ioasid} anew",
    "AwaitBind": "waits for the bind of {ioasid}",
    "Adopted": "keeps its entries for {ioasids}",
    "BindProcess": "bind process {process}",
    "UnbindProcess": "unbind process {process}",
    "ProcessExited": "process {process} exits",
    "CloseDevice": "{device} takes no more",
    "RemoveDevice": "{device} goes",
    "Programmed": "table entry for {ioasid}",
    "TornDown": "entry of {ioasid} gone, flushed",
    "Mapped": "maps {gpasid} to {ioasid}",
    "Unmapped": "unmaps {gpasid}",
    "Enqcmd": "ENQCMD {gpasid}",
    "ProgramGuestPasid": "program {gpasid}",
    "ProgramPasid": "program {ioasid}",
    "StartDma": "DMA with {ioasid} starts",
    "CompleteDma": "transfer {transfer} completes",
    "StopDma": "stop DMA with {ioasid}",
    "Draining": "drains {ioasid}: {in_flight} in flight",
    "Cleared": "{ioasid} is cleared",
}
"""What the project's own actors do, by the type of their message."""


def said_of_ranges(ranges: Iterable[IoasidRange]) -> str:
    """Return IDs as ranges, those that are one joined, the first few of them."""
    joined: list[IoasidRange] = []
    for each in sorted(ranges, key=lambda span: span.first):
        if joined and joined[-1].last + 1 == each.first:
            joined[-1] = IoasidRange(joined[-1].first, each.last)
        else:
            joined.append(each)
    words = [
        str(each.first) if each.first == each.last else f"{each.first:,} to {each.last:,}"
        for each in joined
    ]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def facts_of(message: Struct) -> str:
    """Return a message with its fields, those aside that are as usual."""
    defaults = message.__struct_defaults__
    names = message.__struct_fields__
    usual = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    given = (
        f"{name}={_fact(getattr(message, name))}"
        for name in names
        if name not in usual or usual[name] != getattr(message, name)
    )
    return f"{type(message).__name__}({', '.join(given)})"[:LONGEST]


def fields_of(message: dict[str, Any]) -> str:
    """Return the message of a step with its fields."""
    given = (f"{name}={value!r}" for name, value in message.items() if name != "type")
    return f"{message.get('type', '?')}({', '.join(given)})"[:LONGEST]


LONGEST: Final = 300


def _fact(value: object) -> str:
    match value:
        case Enum():
            return value.name
        case Struct():
            return facts_of(value)
        case frozenset():
            return "{" + ", ".join(sorted(map(_fact, value))) + "}"
        case tuple():
            more = f", … {len(value) - 5:,} more" if len(value) > 5 else ""
            return "[" + ", ".join(map(_fact, value[:5])) + more + "]"
        case _:
            return repr(value)[:LONGEST]


def _split(name: str) -> str:
    # "FreeSet" is "free set" in words.
    return "".join(f" {each.lower()}" if each.isupper() else each for each in name).strip()
