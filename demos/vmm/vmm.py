"""A VMM in Python: it has one guest, and does what it is told on its input, a word a line.

`alloc` takes one more PASID for the guest and binds it; `stop` frees them all and leaves.
"""

import sys
from itertools import count
from typing import Final

import anyio

from ioasid.actors import Subscription
from ioasid.core import Began, Binding, Ended, Event, EventKind, Priority, SubscriberTable
from ioasid.service import connect_allocator

KINDS: Final = frozenset({EventKind.BIND, EventKind.UNBIND, EventKind.FREE, EventKind.RECLAIM})
FIRST_SPID: Final = 101


async def main(path: str, vm: str) -> None:
    async with connect_allocator(path, holder=f"kvm:{vm}") as session:
        owned = await session.alloc_set(vm, quota=4)
        # A VMM's own table is what its guest submits through: the CPU's tier, told first.
        events = session.subscribe(token=vm, kinds=KINDS, priority=Priority.CPU, hold=True)
        async with events, anyio.create_task_group() as tasks:
            alive: set[int] = set()
            gone = anyio.Event()
            tasks.start_soon(keep_table, events, alive, gone)
            print("ready", flush=True)
            for spid in count(FIRST_SPID):
                if await anyio.to_thread.run_sync(sys.stdin.readline) != "alloc\n":
                    break
                pasid = await session.alloc(owned.sid)
                alive.add(pasid)
                await session.attach_spid(pasid, spid)
            if not await session.free_set(owned.sid):
                await gone.wait()
            tasks.cancel_scope.cancel()


async def keep_table(events: Subscription, alive: set[int], gone: anyio.Event) -> None:
    table = SubscriberTable()
    async for message in events:
        for change in table.update(message):
            match change:
                case Began(Binding(ioasid, spid)):
                    print(f"maps the guest's {spid} to {ioasid}", flush=True)
                case Ended(Binding(ioasid, spid)):
                    print(f"unmaps {spid}; done with {ioasid}", flush=True)
                case _:
                    pass
        if isinstance(message, Event) and message.kind is EventKind.RECLAIM:
            print(f"{message.ioasid} is back in the pool", flush=True)
            alive.discard(message.ioasid)
            if not alive:
                gone.set()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
