"""Gives vm-1 an ID and binds it: `python guest.py SOCKET`."""

import sys

import anyio

from ioasid.service import connect_allocator


async def bind(path: str) -> None:
    """Make a set with one bound ID."""
    async with connect_allocator(path, holder="agent") as allocator:
        vm = await allocator.alloc_set("vm-1", quota=4)
        pasid = await allocator.alloc(vm.sid)
        await allocator.attach_spid(pasid, spid=101)
        print("vm-1 may use", pasid, "as 101", flush=True)


if __name__ == "__main__":
    anyio.run(bind, sys.argv[1])
