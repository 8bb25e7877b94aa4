"""Drives dma0 in a process of its own: `python drive.py SOCKET`."""

import sys

import anyio
from safe_copier import SafeCopier

from ioasid.service import ConnectionFailed, connect_allocator


async def drive(path: str) -> None:
    """Connect to the service and serve until the driver, or the service, has ended."""
    async with (
        connect_allocator(path, holder="copiers") as allocator,
        anyio.create_task_group() as tasks,
    ):
        driver = SafeCopier("dma0")
        await tasks.start(driver.run, allocator)
        print("dma0 is served", flush=True)
        await driver.ended.wait()


async def drive_always(path: str) -> None:
    """Begin anew whenever the service was stopped, as soon as it is back."""
    while True:
        try:
            await drive(path)
        except ConnectionFailed:
            await anyio.sleep(0.1)


if __name__ == "__main__":
    anyio.run(drive_always, sys.argv[1])
