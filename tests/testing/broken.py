"""A broken subscriber and its scenario: it loses count of its references when it lags."""

import anyio

from ioasid.actors import Session, open_allocator
from ioasid.core import EventKind, IoasidFreePending, NotReferenced, Resync, UnknownIoasid

BINDINGS = {EventKind.BIND, EventKind.UNBIND, EventKind.FREE}


async def mirror(session: Session, sid: int, ready: anyio.Event) -> None:
    """Reference what is bound, and forget that a Resync may stand for an UNBIND."""
    async with session.subscribe(sid=sid, kinds=BINDINGS, queue_size=2) as events:
        ready.set()
        async for event in events:
            if isinstance(event, Resync):
                continue
            try:
                if event.kind is EventKind.BIND:
                    await session.get(event.ioasid)
                else:
                    await session.put(event.ioasid)
            except (IoasidFreePending, NotReferenced, UnknownIoasid):
                pass


async def guest_with_a_mirror() -> None:
    """Bind, unbind, bind again, free; the mirror has to let go of everything."""
    async with open_allocator(capacity=8) as allocator, anyio.create_task_group() as tasks:
        owner = await allocator.alloc_set("vm-1", 4)
        ready = anyio.Event()

        async def run() -> None:
            async with allocator.session("mirror") as session:
                await mirror(session, owner.sid, ready)

        tasks.start_soon(run)
        await ready.wait()
        pasid = await allocator.alloc(owner.sid)
        await allocator.attach_spid(pasid, 101)
        await allocator.detach_spid(pasid)
        await allocator.attach_spid(pasid, 102)
        await allocator.free(pasid)
        while (await allocator.statistics()).lagging:
            await anyio.sleep(1)
        tasks.cancel_scope.cancel()
