"""A VM moves between two agents, each a process, over an etcd: what `migrate.py` shows.

    python demos/migrate.py

Run as a file it is one of those processes: an agent, or a coordinator that dies on its way.
"""

import argparse
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.text import TextReceiveStream
from attrs import define, field

from ioasid.actors import Host, Vm, VmExport, open_host
from ioasid.core import IoasidError
from ioasid.fleet import (
    Act,
    Command,
    Coordinator,
    HostAgent,
    Phase,
    Store,
    StoreLine,
    StoreUnavailable,
    VmRecord,
    alive_hosts,
    announce,
    open_etcd,
    serving_agent,
)
from ioasid.recorder import draw, record

VM: Final = "vm-1"
DEVICE: Final = "dsa0"
GPASIDS: Final = tuple(range(101, 109))
HOSTS: Final = ("left", "right")
PATIENCE: Final = 60
"""Seconds after which what should have happened did not."""
ETCD: Final = "etcd"


# -- an agent ---------------------------------------------------------------------------------


async def agent(name: str, port: int, recording: str) -> None:
    """Be a host: at the left one the VM begins, at the right one there is another already."""
    with record(recording), anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_etcd(port=port) as store, open_host() as host:
            await host.add_device(DEVICE)
            if name == "left":
                vm = await host.start_vm(VM, quota=len(GPASIDS))
                for gpasid in GPASIDS:
                    await vm.bind(DEVICE, await vm.alloc(), gpasid)
                await Coordinator(store, partial(StoreLine, store)).own(VM, name)
            else:
                other = await host.start_vm("vm-2", quota=20)
                for gpasid in range(20):
                    await other.bind(DEVICE, await other.alloc(), gpasid)
            async with (
                serving_agent(store, name, HostAgent(name, store, host)),
                announce(store, name),
                anyio.create_task_group() as tasks,
            ):
                for gpasid in GPASIDS:
                    tasks.start_soon(guest, host, gpasid)
                async for _ in signals:
                    break
                tasks.cancel_scope.cancel()


async def guest(host: Host, gpasid: int) -> None:
    """Do DMA with one of the guest's PASIDs, whenever the VM runs here, and tell of each."""
    while True:
        vm = host.vms.get(VM)
        begun = None if vm is None else await submitted(vm, gpasid)
        if vm is None or begun is None:
            await anyio.sleep(0.005)
            continue
        since = monotonic()
        await anyio.sleep(0.02)
        until = monotonic()
        landed = await host.complete(DEVICE, begun)
        print(json.dumps([gpasid, landed.ioasid, landed.owner, since, until]), flush=True)
        await anyio.sleep(0.1)


async def submitted(vm: Vm, gpasid: int) -> int | None:
    """Program the device, if it is not, and submit; returns the transfer, if the VM may."""
    with suppress(IoasidError):
        await vm.program(DEVICE, gpasid)
    with suppress(IoasidError):
        return await vm.submit(DEVICE, gpasid)
    return None


# -- a coordinator ----------------------------------------------------------------------------


@define(eq=False)
class Deadly:
    """A line to an agent, after one of whose answers the coordinator is killed."""

    line: StoreLine
    after: Act

    async def carry_out(self, command: Command) -> VmExport | None:
        answer = await self.line.carry_out(command)
        if command.act is self.after:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


async def coordinator(port: int, after: Act) -> None:
    """Move the VM to the right host, and be killed on the way."""
    async with open_etcd(port=port) as store:
        await Coordinator(store, lambda host: Deadly(StoreLine(store, host), after)).move(
            VM, "right"
        )


# -- the story --------------------------------------------------------------------------------


@define
class Dma:
    """One transfer that landed: of which PASIDs, in whose memory, and from when to when."""

    gpasid: int
    ioasid: int
    owner: str
    since: float
    until: float


@define(eq=False)
class Seen:
    """What an agent told."""

    process: Process
    landed: list[Dma] = field(factory=list)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        left = ""
        async for text in TextReceiveStream(self.process.stdout):
            *lines, left = (left + text).split("\n")
            self.landed += [Dma(*json.loads(each)) for each in lines]

    async def ran(self) -> dict[int, int]:
        """Wait until DMA of every PASID landed, and return by which of the host's."""
        await true(lambda: len({each.gpasid for each in self.landed}) == len(GPASIDS))
        return {each.gpasid: each.ioasid for each in self.landed}


async def tell(dies_after: Act, page: Path) -> list[tuple[str, str]]:
    """Tell the story, and draw both hosts; returns what happened, and what was found."""
    rows: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(serving_etcd(folder))
        store = await stack.enter_async_context(open_etcd(port=port))
        await answering(store)
        seen = {}
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for name in HOSTS:
            options = (name, str(folder / f"{name}.jsonl"))
            process = await stack.enter_async_context(running("agent", port, *options))
            seen[name] = Seen(process)
            tasks.start_soon(seen[name].listen)
        async with store.watch("host/", 1) as changes:
            async for _ in changes:
                if len(await alive_hosts(store)) == len(HOSTS):
                    break
        here = Coordinator(store, partial(StoreLine, store))
        table = mapped("left", await seen["left"].ran())
        rows.append(("the guest runs, with DMA in flight all the time", table))
        async with running("coordinator", port, dies_after) as moving:
            with anyio.fail_after(PATIENCE):
                await moving.wait()
        if moving.returncode != -signal.SIGKILL:
            raise AssertionError("the coordinator was to be killed")
        rows.append((f"a coordinator is killed after {dies_after}", said(await here.where(VM))))
        found = await here.finish(VM)
        if (found.phase, found.host) != (Phase.OWNED, "right"):
            raise AssertionError(f"the VM is {found.phase} at {found.host}")
        rows.append(("another one finishes the move", said(found)))
        table = mapped("right", await seen["right"].ran())
        rows.append(("the guest goes on, by the same numbers", table))
        for each in seen.values():
            each.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(PATIENCE):
                await each.process.wait()
        rows += found_in(seen["left"].landed, seen["right"].landed)
        strip = strip_of({name: each.landed for name, each in seen.items()})
        side_by_side(folder, page, rows, strip)
        tasks.cancel_scope.cancel()
    return rows


def found_in(left: Sequence[Dma], right: Sequence[Dma]) -> Iterator[tuple[str, str]]:
    """Say what the DMA shows. Raises AssertionError if it should not be so."""
    last = max(each.until for each in left)
    first = min(each.since for each in right)
    if first <= last:
        raise AssertionError("DMA of one VM ran on two hosts")
    yield "no DMA ran on two hosts", "the last at left had landed before the first at right began"
    if {each.owner for each in (*left, *right)} != {VM}:
        raise AssertionError("DMA of the VM wrote into the memory of another")
    yield "all of it landed in the VM's memory", "by the IOMMU's tables of both hosts"


def said(found: VmRecord) -> str:
    """What a record says, in short."""
    return f"the record says {found.phase} at {found.host}, epoch {found.epoch}"


async def true(told: Callable[[], bool]) -> None:
    """Wait until something is so that other processes make so."""
    with anyio.fail_after(PATIENCE):
        while not told():  # noqa: ASYNC110 - it is another process that tells
            await anyio.sleep(0.01)


def mapped(host: str, table: dict[int, int]) -> str:
    """Which of the host's numbers the guest's are, in short."""
    host_ids = sorted(table.values())
    return f"{host}: {min(table)}..{max(table)} → {host_ids[0]}..{host_ids[-1]}"


def strip_of(landed: dict[str, list[Dma]]) -> str:
    """Draw every transfer of both hosts on one clock."""
    every = [each for some in landed.values() for each in some]
    begin, end = min(each.since for each in every), max(each.until for each in every)
    scale = 1000 / (end - begin)
    bars = ""
    for row, (name, some) in enumerate(landed.items()):
        bars += f'<text x="0" y="{60 * row + 40}">{name}</text>'
        for each in some:
            height = 60 * row + 10 + 6 * (each.gpasid - GPASIDS[0])
            bars += (
                f'<rect x="{60 + (each.since - begin) * scale:.1f}" y="{height}" height="5" '
                f'width="{max((each.until - each.since) * scale, 1):.1f}"><title>{each.gpasid} as '
                f"{each.ioasid}</title></rect>"
            )
    return f'<svg viewBox="0 0 1070 125" role="img"><title>DMA by host</title>{bars}</svg>'


def side_by_side(folder: Path, page: Path, rows: Sequence[tuple[str, str]], strip: str) -> None:
    """Draw what each host recorded, beside each other on one page."""
    frames = ""
    for name in HOSTS:
        draw(folder / f"{name}.jsonl", folder / f"{name}.html")
        drawn = html.escape((folder / f"{name}.html").read_text(encoding="utf-8"), quote=True)
        frame = f'<iframe title="{name}" srcdoc="{drawn}"></iframe>'
        frames += f"<section><h2>{name}</h2>{frame}</section>"
    story = "".join(f"<li>{html.escape(what)} — {html.escape(how)}</li>" for what, how in rows)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(PAGE.format(story=story, strip=strip, frames=frames), encoding="utf-8")


PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A VM moves</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1rem }}
main {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1rem }}
h2 {{ margin: 0 0 .3rem; font-size: 1rem }}
svg {{ width: 100%; fill: #2a9d8f; font: 12px system-ui, sans-serif }}
iframe {{ width: 100%; height: 75vh; border: 1px solid #bbb }}
</style>
<ol>{story}</ol><h2>DMA of the VM, on one clock: a bar is a transfer, a row a guest's PASID</h2>
{strip}<main>{frames}</main></html>
"""


# -- processes --------------------------------------------------------------------------------


@asynccontextmanager
async def running(role: str, port: int, *options: str) -> AsyncIterator[Process]:
    """Run one of this file's roles as a process, for the length of an `async with`."""
    command = [sys.executable, __file__, role, str(port), *options]
    process = await anyio.open_process(command, stdout=subprocess.PIPE, stderr=None)
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.aclose()


@contextmanager
def serving_etcd(folder: Path) -> Iterator[int]:
    """Run an etcd on loopback, with a folder of its own; gives its port."""
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        port, peer = one.getsockname()[1], other.getsockname()[1]
    command = [ETCD, "--name", "one", "--data-dir", str(folder / "etcd")]
    for option, number in (("client", port), ("peer", peer)):
        url = f"http://127.0.0.1:{number}"
        initial = "initial-" if option == "peer" else ""
        command += [f"--listen-{option}-urls", url, f"--{initial}advertise-{option}-urls", url]
    command += ["--initial-cluster", f"one=http://127.0.0.1:{peer}"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.kill()
        server.wait()


async def answering(store: Store) -> None:
    """Wait until the store answers."""
    with anyio.fail_after(PATIENCE):
        while True:
            try:
                await store.get("")
                return
            except StoreUnavailable:
                await anyio.sleep(0.1)


def missing() -> str | None:
    """What is missing here for a fleet of processes, if anything is."""
    if shutil.which(ETCD) is None:
        return "no etcd here (of Debian: apt install etcd-server)"
    try:
        import aetcd  # noqa: F401
    except ModuleNotFoundError:
        return "no aetcd here (pip install '.[fleet]' in a checkout)"
    return None


def main(arguments: Any = None) -> None:
    parser = argparse.ArgumentParser(prog="fleet", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("role", choices=("agent", "coordinator"))
    parser.add_argument("port", type=int)
    parser.add_argument("options", nargs="*")
    given = parser.parse_args(arguments)
    if given.role == "agent":
        name, recording = given.options
        anyio.run(agent, name, given.port, recording)
    else:
        anyio.run(coordinator, given.port, Act(given.options[0]))


if __name__ == "__main__":
    main()
