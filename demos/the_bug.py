"""A guest crashes with DMA in flight, and the number it had goes to its neighbour.

    python demos/the_bug.py [--backend asyncio|uvloop|trio] [--record FILE]

First on a model of an allocator that gives the PASID back to the pool and then tells everybody, as
the kernel's did; then on this one, step by step the same.
"""

import sys
from pathlib import Path

import anyio
from attrs import define, field

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.story import Story, told
from ioasid.actors import Draining, Step, open_host
from ioasid.core import UnknownIoasid

DEVICE = "dsa0"


@define
class FreeThenNotify:
    """The model: a pool, an IOMMU table, and a device whose transfers name a PASID."""

    pool: list[int] = field(factory=lambda: [1, 2])
    table: dict[int, str] = field(factory=dict)
    """Whose memory a PASID is for."""
    to_tell: list[int] = field(factory=list)
    """What subscribers have yet to hear of."""

    def alloc(self) -> int:
        """Give out the lowest free PASID."""
        return self.pool.pop(0)

    def free(self, pasid: int) -> None:
        """Give it back, then leave word for the driver of the device and for the IOMMU's."""
        self.pool.insert(0, pasid)
        self.to_tell.append(pasid)

    def complete(self, pasid: int) -> str:
        """A transfer that was in flight lands: the IOMMU looks up where."""
        return self.table[pasid]


def with_the_bug(story: Story) -> None:
    """Free, tell, and let the next one have it meanwhile."""
    story.part("An allocator that frees first and tells afterwards")
    model = FreeThenNotify()
    first = model.alloc()
    model.table[first] = "vm-1"
    story.say(f"vm-1 has PASID {first}, and the device writes with it into vm-1's memory.")
    model.free(first)
    story.say(f"vm-1 crashes: PASID {first} is free, and the drivers have yet to hear of it.")
    second = model.alloc()
    model.table[second] = "vm-2"
    story.say(f"vm-2 asks for a PASID and gets {second}. The IOMMU's table now says vm-2.")
    landed = model.complete(first)
    story.say("The transfer that vm-1 had in flight completes.")
    story.claim(f"it wrote into the memory of {landed}, which never asked for it", landed == "vm-2")


async def without(story: Story) -> None:
    """The same, where a PASID that was freed waits until everybody is done with it."""
    story.part("This allocator: a PASID that was freed waits in quarantine")
    draining = anyio.Event()

    def look(seen: object) -> None:
        if isinstance(seen, Step) and isinstance(seen.message, Draining):
            draining.set()

    async with open_host(taps=[look]) as host:
        await host.add_device(DEVICE)
        vm, other = await host.start_vm("vm-1", quota=4), await host.start_vm("vm-2", quota=4)
        first = await vm.alloc()
        await vm.bind(DEVICE, first, 101)
        await vm.program(DEVICE, 101)
        transfer = await vm.submit(DEVICE, 101)
        story.say(f"vm-1 has PASID {first}, and the device writes with it into vm-1's memory.")
        await vm.free(first)
        await draining.wait()
        story.say(f"vm-1 crashes: PASID {first} is freed, and the device has work in flight.")
        why = await host.allocator.explain(first)
        story.say(why.text)
        second = await other.alloc()
        story.claim(f"vm-2 asks for a PASID and gets {second}, not {first}", second != first)
        landed = await host.complete(DEVICE, transfer)
        story.claim(
            f"the transfer in flight wrote into the memory of {landed.owner}",
            landed.owner == "vm-1",
        )
        try:
            await host.allocator.free(first, wait=True)
        except UnknownIoasid:
            pass
        third = await other.alloc()
        story.claim(f"when everybody was done, vm-2 got PASID {third}", third == first)
        story.end()


async def tell(story: Story) -> None:
    """Tell both."""
    with_the_bug(story)
    await without(story)


if __name__ == "__main__":
    told(tell, __doc__)
