"""A guest shares a device, politely first, then by crashing: the life of a PASID, live.

    python demos/guest_sva.py [--backend asyncio|uvloop|trio] [--json] [--record FILE]

Every row is a message that an actor really took up, or something it really did, in the order in
which it happened. Exits with 1 if a claim of the story does not hold. With --record, all of it is
written into FILE, for `python -m ioasid.recorder draw FILE -o page.html`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import msgspec

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.terminal import console, end_with_the_pipe
from ioasid.actors import (
    AllocPasid,
    BindPasid,
    Cleared,
    CompleteDma,
    Decision,
    Draining,
    Enqcmd,
    FreePasid,
    Host,
    Mapped,
    Programmed,
    StartDma,
    Step,
    TornDown,
    UnbindPasid,
    Unmapped,
    Vm,
    open_host,
)
from ioasid.core import (
    Acknowledge,
    Alloc,
    AttachSpid,
    DetachSpid,
    FindBySpid,
    Free,
    Get,
    IoasidError,
    IoasidRange,
    Message,
    Put,
    Request,
    Subscribed,
    UnknownIoasid,
)
from ioasid.recorder import Recorder, record

COLUMNS = {"VFIO": 14, "IOMMU": 13, "KVM": 13, "VDCM": 14, "IOASID": 15, "refs": 4}
DEVICE = "dsa0"
GUEST_PASID = 101
STYLES = {"FREE": "bold red", "RECLAIM": "bold green"}
RISE_AND_FALL = [1, 2, 3, 4, 3, 2, 1, 0]


class Story:
    """Turns what happens into rows, and remembers it for the claims."""

    def __init__(self, write: Callable[[str, str, int | None, Message], None]) -> None:
        self.write = write
        self._references: dict[int, int] = {}
        self._subscribers: dict[int, str] = {}
        self.counts: dict[int, list[int]] = {}
        self.order: list[str] = []
        self.draining = anyio.Event()

    def observe(self, seen: Decision | Step) -> None:
        """Write a row for a step of an actor or a decision of the allocator."""
        if isinstance(seen, Step):
            column = _column(seen.actor)
            text = _step_text(seen.actor.partition(":")[2], seen.message)
            if text is not None:
                self.write(column, text, None, seen.message)
            if isinstance(seen.message, Unmapped | Draining | Cleared | TornDown):
                self.order.append(column)
            if isinstance(seen.message, Draining) and seen.message.in_flight:
                self.draining.set()
            return
        if isinstance(seen.answer, Subscribed):
            self._subscribers[seen.answer.subscription] = seen.holder
        changes = seen.changes
        counts = dict.fromkeys(_each(changes.allocated), 1)
        counts |= {record.ioasid: record.reference_count for record in changes.ioasids}
        gone = dict.fromkeys(_each(changes.reclaimed), 0)
        for ioasid, after in (counts | gone).items():
            before = self._references.get(ioasid)
            if before != after or ioasid in gone:
                self._changed(seen, ioasid, before, after, gone=ioasid in gone)

    def _changed(
        self, seen: Decision, ioasid: int, before: int | None, after: int, *, gone: bool
    ) -> None:
        who = seen.holder
        if isinstance(seen.request, Acknowledge):
            # The allocator's own actor says so for all who came back.
            who = self._subscribers[seen.request.messages[0][0]]
        column, text = _decision_text(seen.request, who, ioasid)
        if before != after:
            self._references[ioasid] = after
            self.counts[ioasid] = [after] if before is None else [*self.counts[ioasid], after]
            self.write(column, text, after, seen.request)
        if gone:
            del self._references[ioasid]
            self.write("IOASID", f"RECLAIM {ioasid}", 0, seen.request)


def _column(actor: str) -> str:
    kind = actor.partition(":")[0]
    return {"vfio": "VFIO", "vtd": "IOMMU", "kvm": "KVM", "vdcm": "VDCM"}.get(kind, "IOASID")


def _each(ranges: Iterable[IoasidRange]) -> Iterator[int]:
    for each in ranges:
        yield from range(each.first, each.last + 1)


def _step_text(whose: str, message: Message) -> str | None:
    match message:
        case AllocPasid():
            return f"{whose}: alloc"
        case BindPasid(_, ioasid, gpasid):
            return f"{whose}: bind {gpasid}"
        case UnbindPasid(_, ioasid):
            return f"{whose}: unbind {ioasid}"
        case FreePasid(ioasid):
            return f"{whose}: free {ioasid}"
        case Programmed(_, ioasid):
            return f"entry for {ioasid}"
        case TornDown(ioasid, _):
            return "entry flushed"
        case Mapped(gpasid, ioasid):
            return f"maps {gpasid} to {ioasid}"
        case Unmapped(gpasid, _):
            return f"unmaps {gpasid}"
        case Enqcmd(gpasid):
            return f"ENQCMD {gpasid}"
        case StartDma():
            return "DMA starts"
        case CompleteDma():
            return "DMA completes"
        case Draining(_, in_flight):
            return f"drains, {in_flight} left"
        case Cleared(ioasid):
            return f"clears {ioasid}"
        case _:
            return None


def _decision_text(asked: Request, who: str, ioasid: int) -> tuple[str, str]:
    column = _column(who)
    match asked:
        case Alloc():
            return "IOASID", f"ALLOC {ioasid}"
        case AttachSpid():
            return "IOASID", "BIND, KVM holds"
        case DetachSpid():
            return "IOASID", f"UNBIND {ioasid}"
        case Free():
            return "IOASID", f"FREE {ioasid}"
        case Get():
            return column, "get"
        case FindBySpid(_, spid):
            return column, f"finds {spid}, get"
        case Put():
            return column, "put"
        case Acknowledge():
            return column, "lets go"
        case _:
            return column, type(asked).__name__


async def normal_flow(host: Host, vm: Vm, story: Story) -> list[int]:
    """Allocate, bind, work, stop, unbind, free; return the reference counts on the way."""
    pasid = await vm.alloc()
    await vm.bind(DEVICE, pasid, GUEST_PASID)
    await vm.program(DEVICE, GUEST_PASID)
    transfer = await vm.submit(DEVICE, GUEST_PASID)
    await host.complete(DEVICE, transfer)
    await vm.stop(DEVICE, pasid)
    await vm.unbind(DEVICE, pasid)
    await vm.free(pasid)
    await reclaimed(host, pasid)
    return story.counts[pasid]


async def reclaimed(host: Host, pasid: int) -> None:
    """Wait until an ID that was freed is back in the pool."""
    try:
        await host.allocator.free(pasid, wait=True)
    except UnknownIoasid:
        pass


async def crash_flow(host: Host, vm: Vm, other: Vm, story: Story) -> dict[str, Any]:
    """Free while bound and with DMA in flight; another VM asks for a PASID meanwhile."""
    pasid = await vm.alloc()
    await vm.bind(DEVICE, pasid, GUEST_PASID)
    await vm.program(DEVICE, GUEST_PASID)
    transfer = await vm.submit(DEVICE, GUEST_PASID)
    await vm.free(pasid)
    await story.draining.wait()
    meanwhile = await other.alloc()
    landed = await host.complete(DEVICE, transfer)
    await reclaimed(host, pasid)
    counts = story.counts[pasid]
    try:
        await vm.unbind(DEVICE, pasid)
        unbind = "done"
    except IoasidError as error:
        unbind = error.code
    story.write("VFIO", f"vm-1: {unbind}", None, UnbindPasid(DEVICE, pasid))
    after = await other.alloc()
    return {
        "pasid": pasid,
        "counts": counts,
        "meanwhile": meanwhile,
        "owner": landed.owner,
        "unbind": unbind,
        "after": after,
    }


async def tell(out: "Output") -> bool:
    """Tell the story; return whether every claim holds."""
    story = Story(out.row)
    async with open_host(taps=[story.observe]) as host:
        out.note("A host begins: its IOMMU driver, a device, two VMs")
        await host.add_device(DEVICE)
        vm = await host.start_vm("vm-1", quota=8)
        other = await host.start_vm("vm-2", quota=8)
        out.heading("vm-1 behaves: allocate, bind, work, stop, unbind, free")
        polite = await normal_flow(host, vm, story)
        story.order.clear()
        out.heading("vm-1 crashes: its PASID is freed while bound, with DMA in flight")
        facts = await crash_flow(host, vm, other, story)
        # How a host ends is no part of the story.
        out.stop_recording()
    first_of = {column: story.order.index(column) for column in ("KVM", "VDCM", "IOMMU")}
    pasid, meanwhile = facts["pasid"], facts["meanwhile"]
    return out.conclude(
        {
            f"four came to hold PASID {pasid} and four let go, one at a time": (
                polite == RISE_AND_FALL
            ),
            "after the crash as well: nobody was skipped": facts["counts"] == RISE_AND_FALL,
            "the CPU stopped first, then the device drained, then the IOMMU let go": (
                first_of["KVM"] < first_of["VDCM"] < first_of["IOMMU"]
            ),
            f"vm-2, asking meanwhile, got {meanwhile} and not {pasid}": meanwhile != pasid,
            f"the DMA in flight wrote into the memory of {facts['owner']}": (
                facts["owner"] == "vm-1"
            ),
            f"the late unbind found nothing to do ({facts['unbind']})": facts["unbind"] == "ENOENT",
            f"only then was PASID {pasid} handed to vm-2": facts["after"] == pasid,
        }
    )


class Output:
    """Writes the story as a table for people, or as JSON, an event a line."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._recorder: Recorder | None = None
        self._recording = ExitStack()
        self._console = console()

    def begin(self) -> None:
        """Say what this is about."""
        if self._json:
            return
        self._console.print(
            "A PASID tells the IOMMU whose memory a device may touch. Two VMs share a device; the "
            "allocator (IOASID) must never give out a PASID that anything still uses. Follow "
            "one, row by row, top to bottom. Every row is in the column of who does it: "
            f"VFIO asks for the guest, KVM translates the guest's own number, {GUEST_PASID}, "
            "VDCM drives the device. refs: how many use the PASID.\n"
        )

    def note(self, text: str) -> None:
        """Write a heading into the recording, if there is one."""
        if self._recorder is not None:
            self._recorder.note(text)

    def record_into(self, path: str) -> None:
        """Write all that happens from here on into a file. Raises `OSError`."""
        self._recorder = self._recording.enter_context(record(path))

    def stop_recording(self) -> None:
        """Record no more."""
        self._recorder = None
        self._recording.close()

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
        self.note(text)
        if self._json:
            self._line({"part": text})
            return
        self._console.print(f"\n[bold]{text}[/bold]")
        self._print_row({name: name for name in COLUMNS}, "bold cyan")
        self._print_row({name: "─" * width for name, width in COLUMNS.items()}, "dim")

    def row(self, column: str, text: str, references: int | None, message: Message) -> None:
        """Write one row."""
        if self._json:
            self._line(
                {
                    "actor": column,
                    "text": text,
                    "references": references,
                    # An ID that remembers its generation is an int to everybody else.
                    "message": msgspec.to_builtins(message, enc_hook=int),
                }
            )
            return
        cells = {column: text}
        if references is not None:
            cells["refs"] = str(references)
        self._print_row(cells, STYLES.get(text.partition(" ")[0], ""))

    def conclude(self, claims: dict[str, bool]) -> bool:
        """Write what was claimed and whether it holds; return whether all of it does."""
        holds = all(claims.values())
        if self._json:
            self._line({"claims": claims, "holds": holds})
            return holds
        self._console.print()
        for claim, true in claims.items():
            self._console.print(("[green]✓[/green] " if true else "[red]✗ NOT SO:[/red] ") + claim)
        self._console.print(
            "\n[bold]No PASID was handed out while a CPU, a device or the IOMMU still used it."
            if holds
            else "\n[bold red]The story does not hold."
        )
        return holds

    def _print_row(self, cells: dict[str, str], style: str) -> None:
        padded = (cells.get(name, "").ljust(width) for name, width in COLUMNS.items())
        self._console.print(" ".join(padded).rstrip(), style=style)

    def _line(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


def main() -> int:
    """Run the demo; the exit code is 0 if every claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backend", choices=("asyncio", "uvloop", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="write one event a line, as JSON")
    parser.add_argument("--record", metavar="FILE", help="write all that happens into a file")
    options = parser.parse_args()
    out = Output(as_json=options.json)
    if options.record is not None:
        try:
            out.record_into(options.record)
        except OSError as error:
            parser.error(str(error))
    out.begin()
    holds = anyio.run(
        tell,
        out,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )
    return 0 if holds else 1


if __name__ == "__main__":
    end_with_the_pipe()
    sys.exit(main())
