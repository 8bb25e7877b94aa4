"""The process of the allocator ends and another goes on: the hardware is still programmed.

python demos/comeback.py [--backend asyncio|uvloop|trio] [--record FILE]
"""

import sys
from contextlib import suppress
from pathlib import Path

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.story import Story, told
from ioasid.actors import open_allocator
from ioasid.core import EventKind, Priority, Resync, Snapshot, SubscriberTable


class PowerCut(Exception):
    """Ends a process without warning."""


BINDINGS = frozenset({EventKind.BIND, EventKind.UNBIND, EventKind.FREE})


async def tell(story: Story) -> None:
    """Restart under two drivers, of which one comes back."""
    snapshot = await before(story)
    await after(story, snapshot)


async def before(story: Story) -> Snapshot:
    """Two drivers hold a PASID; then the process ends, and what is left of it is a snapshot."""
    story.part("Two drivers have a PASID programmed, and the process is about to end")
    left: list[Snapshot] = []
    with suppress(PowerCut):
        await one_process(left)
    return left[0]


async def one_process(left: list[Snapshot]) -> None:
    """What the first process did before it ended without warning."""
    async with open_allocator(capacity=64) as host:
        vm = await host.alloc_set("vm-1", quota=8)
        kvm = host.session("kvm")
        nic = host.session("nic")
        async with kvm as one, nic as other:
            cpu = one.subscribe(token="vm-1", kinds=BINDINGS, priority=Priority.CPU, hold=True)
            async with cpu as events:
                pasid = await host.alloc(vm.sid)
                await host.attach_spid(pasid, 101)
                events.acknowledge(await anext(events))
                await other.get(pasid)
                # Everything that was answered is in it.
                left.append(await host.snapshot())
                raise PowerCut


async def after(story: Story, snapshot: Snapshot) -> None:
    """A new process goes on from the snapshot: who comes back, and who does not."""
    story.part("A new process goes on: whoever had something counts as crashed, and keeps it")
    async with open_allocator(snapshot=snapshot) as host:
        vm = await host.find_set("vm-1")
        suspended = (await host.statistics()).suspended
        story.claim("both drivers are suspended; what they have is kept", suspended == 2)
        await host.free_set(vm.sid)
        pasid = 1
        story.say((await host.explain(pasid)).text)

        story.part("KVM's driver is back under its name, and is told how things are")
        async with (
            host.session("kvm") as kvm,
            kvm.subscribe(token="vm-1", kinds=BINDINGS, priority=Priority.CPU, hold=True) as events,
        ):
            first = await anext(events)
            story.claim("first it gets a Resync, for all it missed", isinstance(first, Resync))
            table = SubscriberTable()
            table.update(first)
            story.claim("it knows from it that nothing is bound any more", not table.bindings)
            events.acknowledge(first)
            why = await kvm.explain(pasid)
            story.claim("now only the other driver is waited for", why.blockers == ("nic",))

            story.part("The other one does not come back: its device was reset by hand")
            await host.evict("nic")
            left = (await host.statistics()).free_pending
            story.claim("with that, PASID 1 is back in the pool", left == 0)
            story.end()


if __name__ == "__main__":
    told(tell, __doc__)
