"""The host's agent: one device, and the IOMMU below it, as a process of its own.

It connects as two holders, told in turn. The device's driver works for whatever is bound, and when
that ends it stops and waits for what is in flight; only then may the IOMMU's entry go.
"""

import sys
from typing import Final

import anyio

from ioasid.actors import Session
from ioasid.core import Began, Binding, Ended, EventKind, Priority, SubscriberTable
from ioasid.service import connect_allocator

STAGED: Final = frozenset({EventKind.BIND, EventKind.UNBIND, EventKind.FREE})
IN_FLIGHT: Final = 0.2
"""Seconds that a transfer goes on after the device was stopped."""


class Iommu:
    """Whose memory a PASID means, as far as the hardware knows."""

    def __init__(self) -> None:
        self.entries: dict[int, str | None] = {}


async def drive_device(session: Session, iommu: Iommu) -> None:
    table = SubscriberTable()
    events = session.subscribe(kinds=STAGED, priority=Priority.DEVICE, hold=True)
    async with events:
        print("ready", flush=True)
        async for message in events:
            for change in table.update(message):
                match change:
                    case Began(Binding(ioasid, spid, token=token)):
                        # The entry is there before anything is submitted with it.
                        iommu.entries[ioasid] = token
                        say(f"dsa0: DMA with {ioasid} starts, for guest's {spid} of {token}")
                    case Ended(Binding(ioasid, token=token)):
                        say(f"dsa0: stops {ioasid}, 1 transfer in flight")
                        await anyio.sleep(IN_FLIGHT)
                        landed = iommu.entries.get(ioasid)
                        say(f"dsa0: it lands in the memory of {landed}; done with {ioasid}")
                        if landed != token:
                            say(f"dsa0: WRONG, it was for {token}")
                    case _:
                        pass


async def drive_iommu(session: Session, iommu: Iommu) -> None:
    table = SubscriberTable()
    events = session.subscribe(kinds=STAGED, priority=Priority.IOMMU, hold=True)
    async with events:
        print("ready", flush=True)
        async for message in events:
            for change in table.update(message):
                if isinstance(change, Ended) and isinstance(change.what, Binding):
                    del iommu.entries[change.what.ioasid]
                    say(f"iommu: entry of {change.what.ioasid} gone, flushed; done with it")


def say(text: str) -> None:
    print(text, flush=True)


async def main(path: str) -> None:
    iommu = Iommu()
    async with (
        connect_allocator(path, holder="vdcm:dsa0") as device,
        connect_allocator(path, holder="vtd") as vtd,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(drive_device, device, iommu)
        tasks.start_soon(drive_iommu, vtd, iommu)
        # Until whoever started it closes its input.
        await anyio.to_thread.run_sync(sys.stdin.read)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
