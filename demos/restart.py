"""An agent is killed in the middle of a guest's DMA, and starts again: with a journal, and without.

The agent, which owns the allocator and the drivers, is a process that is killed with SIGKILL. The
hardware is not: the IOMMU's tables, and the device with a transfer under way, stay as they are, and
the next agent finds them so. Then a second VM asks for a PASID, and the transfer lands.

With the journal the number that the transfer carries is still the first VM's. Without, the next
agent knows nothing of it and hands it to the second VM, into whose memory the transfer writes.

    python demos/restart.py [--record FILE]

With --record, what the agent with the journal does after the restart is written into FILE: the one
before was killed, and a recording is of one process.
"""

import argparse
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any, Final

import anyio

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.terminal import WIDTH, end_with_the_pipe
from ioasid.actors import DmaFault, Host, Vm, open_host
from ioasid.core import InvalidArgument, IoasidError
from ioasid.recorder import record

DEVICE: Final = "dsa0"
GPASID: Final = 101
FIRST, SECOND = "vm-1", "vm-2"
INTRODUCTION: Final = (
    "It is the process that gives out PASIDs, the numbers by which an IOMMU knows whose memory a "
    "device may touch. The device goes on. The next agent gives a PASID to a second VM, and then "
    "the transfer lands: in whose memory?"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", metavar="FILE", help="where to record the agent that goes on")
    parser.add_argument("--agent", nargs=2, metavar=("PART", "JOURNAL"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.agent is not None:
        part, journal = options.agent
        with nullcontext() if options.record is None else record(options.record):
            anyio.run({"first": first_agent, "next": next_agent}[part], journal or None)
        return 0
    if options.record is not None:
        try:
            Path(options.record).write_bytes(b"")
        except OSError as error:
            parser.error(str(error))
    print(fill("An agent is killed while a device works. " + INTRODUCTION, WIDTH) + "\n")
    with TemporaryDirectory(prefix="ioasid-restart-") as folder:
        print("With a journal:")
        kept = story(str(Path(folder, "journal")), options.record)
        print("\nWithout one:")
        lost = story("")
    print()
    print(f"With the journal the transfer of {FIRST} landed in the memory of {kept},")
    print(f"without it in the memory of {lost}.")
    return 0 if (kept, lost) == (FIRST, SECOND) else 1


def story(journal: str, recording: str | None = None) -> str:
    """Kill an agent in the middle of DMA and start the next one; whose memory was written to."""
    with agent("first", journal) as first:
        assert first.stdout is not None
        pasid, transfer, iommu, hardware = pickle.load(first.stdout)
        print(f"  agent 1: {FIRST} has PASID {pasid} and a transfer under way on {DEVICE}")
        # It has no warning, and nothing of it runs any more.
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    print("  agent 1: killed; the hardware goes on")
    with agent("next", journal, recording) as second:
        assert second.stdin is not None
        assert second.stdout is not None
        pickle.dump((transfer, iommu, hardware), second.stdin)
        second.stdin.close()
        told: list[str]
        owner, told = pickle.load(second.stdout)
    for line in told:
        print(f"  agent 2: {line}")
    return str(owner)


def agent(part: str, journal: str, recording: str | None = None) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, str(Path(__file__).resolve()), "--agent", part, journal),
            *([] if recording is None else ["--record", recording]),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def first_agent(journal: str | None) -> None:
    async with open_host(journal=journal) as host:
        await host.add_device(DEVICE)
        vm = await host.start_vm(FIRST, quota=8)
        pasid = await vm.alloc()
        await vm.bind(DEVICE, pasid, GPASID)
        await vm.program(DEVICE, GPASID)
        transfer = await vm.submit(DEVICE, GPASID)
        say((int(pasid), transfer, host.vtd.iommu, host.device(DEVICE).device))
        await anyio.sleep_forever()


async def next_agent(journal: str | None) -> None:
    transfer, iommu, hardware = await anyio.to_thread.run_sync(pickle.load, sys.stdin.buffer)
    told: list[str] = []
    if journal is not None:
        try:
            async with open_host(journal=journal):
                raise AssertionError("not reached")
        except InvalidArgument as refused:
            told.append(f"without its hardware it does not start: {refused.code}")
    async with open_host(journal=journal, iommu=iommu) as host:
        if journal is None:
            # What runs on the device was started by somebody who is not known here.
            device = (await host.add_device(DEVICE)).device
            device.transfers.update(hardware.transfers)
            device.contexts.update(hardware.contexts)
            device.started = hardware.started
        else:
            await host.add_device(DEVICE, hardware=hardware)
        told.append(f"knows of {', '.join(host.left) or 'no VM'}")
        vms: list[Vm] = [await host.start_vm(name, quota=8) for name in [*host.left]]
        other = await host.start_vm(SECOND, quota=8)
        pasid = await other.alloc()
        await other.bind(DEVICE, pasid, GPASID)
        told.append(f"{SECOND} is given PASID {pasid}")
        owner = await landed(host, transfer)
        told.append(f"the transfer lands in the memory of {owner}")
        if journal is not None:
            for vm in (*vms, other):
                await vm.close()
            figures = await host.allocator.statistics()
            told.append(f"the VMs are closed, {figures.active + figures.free_pending} IDs left")
    say((owner, told))


async def landed(host: Host, transfer: int) -> str:
    try:
        return (await host.complete(DEVICE, transfer)).owner
    except DmaFault as fault:
        return f"nobody ({fault.code})"


def say(what: Any) -> None:
    pickle.dump(what, sys.stdout.buffer)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    end_with_the_pipe()
    try:
        sys.exit(main())
    except IoasidError as error:
        sys.exit(str(error))
