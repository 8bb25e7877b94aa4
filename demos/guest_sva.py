"""A guest shares a device, politely first, then by crashing: the life of a PASID, live.

    python demos/guest_sva.py [--backend asyncio|uvloop|trio] [--json]

Every row is a message that an actor really took up, or something it really did, in the order in
which it happened. Exits with 1 if a claim of the story does not hold.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
from rich.console import Console
from rich.table import Table

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
    Allocated,
    AttachSpid,
    DetachSpid,
    FindBySpid,
    Free,
    Get,
    IoasidError,
    Message,
    Put,
    UnknownIoasid,
)

COLUMNS = {"VFIO": 19, "IOMMU": 19, "KVM": 18, "VDCM": 20, "IOASID": 20, "refs": 4}
DEVICE = "dsa0"
GUEST_PASID = 101
STYLES = {"FREE": "bold red", "RECLAIM": "bold green"}
RISE_AND_FALL = [1, 2, 3, 4, 3, 2, 1, 0]


class Story:
    """Turns what happens into rows, and remembers it for the claims."""

    def __init__(self, write: Callable[[str, str, int | None, Message], None]) -> None:
        self.write = write
        self._references: dict[int, int] = {}
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
        for ioasid in (*self._references, _new(seen)):
            if ioasid is None:
                continue
            before = self._references.get(ioasid)
            record = seen.find(ioasid)
            after = 0 if record is None else record.reference_count
            if before != after or record is None:
                self._changed(seen, ioasid, before, after, gone=record is None)

    def _changed(
        self, seen: Decision, ioasid: int, before: int | None, after: int, *, gone: bool
    ) -> None:
        column, text = _decision_text(seen, ioasid, before)
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


def _new(seen: Decision) -> int | None:
    if isinstance(seen.request, Alloc) and isinstance(seen.answer, Allocated):
        return seen.answer.ioasid
    return None


def _step_text(whose: str, message: Message) -> str | None:
    match message:
        case AllocPasid():
            return f"{whose}: alloc"
        case BindPasid(_, ioasid, gpasid):
            return f"{whose}: bind {gpasid} to {ioasid}"
        case UnbindPasid(_, ioasid):
            return f"{whose}: unbind {ioasid}"
        case FreePasid(ioasid):
            return f"{whose}: free {ioasid}"
        case Programmed(_, ioasid):
            return f"entry for {ioasid}"
        case TornDown(ioasid, _):
            return "entry gone, flushed"
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
            return f"stops, {in_flight} in flight"
        case Cleared(ioasid):
            return f"drained, {ioasid} cleared"
        case _:
            return None


def _decision_text(seen: Decision, ioasid: int, before: int | None) -> tuple[str, str]:
    column = _column(seen.holder)
    match seen.request:
        case Alloc():
            return "IOASID", f"ALLOC {ioasid}"
        case AttachSpid(_, spid):
            return "IOASID", f"BIND {spid}, KVM holds"
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
        case request:
            return column, type(request).__name__


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
    async with open_host(observer=story.observe) as host:
        await host.add_device(DEVICE)
        vm = await host.start_vm("vm-1", quota=8)
        other = await host.start_vm("vm-2", quota=8)
        out.heading("vm-1 behaves: allocate, bind, work, stop, unbind, free")
        polite = await normal_flow(host, vm, story)
        story.order.clear()
        out.heading("vm-1 crashes: its PASID is freed while bound, with DMA in flight")
        facts = await crash_flow(host, vm, other, story)
    first_of = {column: story.order.index(column) for column in ("KVM", "VDCM", "IOMMU")}
    pasid, meanwhile = facts["pasid"], facts["meanwhile"]
    return out.conclude(
        {
            f"four came to hold PASID {pasid} and four let go, one at a time": (
                polite == RISE_AND_FALL
            ),
            "after the crash as well: nobody was skipped": facts["counts"] == RISE_AND_FALL,
            "work submission stopped first, then the device drained, then the IOMMU let go": (
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
        self._console = Console(width=113, highlight=False)

    def begin(self) -> None:
        """Say what this is about."""
        if self._json:
            return
        self._console.print(
            "A PASID tells the IOMMU whose memory a device's DMA may touch. Two VMs share one "
            "device; the allocator\n(IOASID) must never hand out a PASID that anything still "
            "uses. Follow one, row by row, top to bottom.\nLast column: how many hold it. "
            f"{GUEST_PASID} is the guest's own name for it.\n"
        )

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
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
                    "message": msgspec.to_builtins(message),
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
        table = Table.grid(padding=(0, 2))
        for width in COLUMNS.values():
            table.add_column(width=width)
        table.add_row(*(cells.get(name, "") for name in COLUMNS), style=style)
        self._console.print(table)

    def _line(self, event: dict[str, Any]) -> None:
        print(json.dumps(event), flush=True)


def main() -> int:
    """Run the demo; the exit code is 0 if every claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backend", choices=("asyncio", "uvloop", "trio"), default="asyncio")
    parser.add_argument("--json", action="store_true", help="write one event a line, as JSON")
    options = parser.parse_args()
    out = Output(as_json=options.json)
    out.begin()
    holds = anyio.run(
        tell,
        out,
        backend="trio" if options.backend == "trio" else "asyncio",
        backend_options={"use_uvloop": True} if options.backend == "uvloop" else {},
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
