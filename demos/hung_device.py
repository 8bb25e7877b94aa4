"""A device hangs: what waits for it, what does not, why, and what an operator can do.

python demos/hung_device.py [--backend asyncio|uvloop|trio] [--record FILE]
"""

import sys
from pathlib import Path

import anyio

if not __package__:
    # Run as a file: the folder above is where `demos` is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from demos.story import Story, told
from ioasid.actors import Draining, Host, Step, open_host
from ioasid.core import UnknownIoasid


async def tell(story: Story) -> None:
    """Let dsa0 hang while dsa1 works."""
    draining = anyio.Event()

    def look(seen: object) -> None:
        if isinstance(seen, Step) and isinstance(seen.message, Draining):
            draining.set()

    async with open_host(taps=[look], restart_wait=0) as host:
        await host.add_device("dsa0")
        await host.add_device("dsa1")
        vm, other = await host.start_vm("vm-1", quota=4), await host.start_vm("vm-2", quota=4)
        story.part("vm-1 frees a PASID, and dsa0 never completes the work it has with it")
        pasid = await vm.alloc()
        await vm.bind("dsa0", pasid, 101)
        await vm.program("dsa0", 101)
        await vm.submit("dsa0", 101)
        at_once = await vm.free(pasid)
        await draining.wait()
        await anyio.wait_all_tasks_blocked()
        story.claim("the free was answered at once: nobody waits for the device", not at_once)

        story.part("Others do not wait for it")
        meanwhile = await other.alloc()
        await other.bind("dsa1", meanwhile, 101)
        await other.program("dsa1", 101)
        landed = await host.complete("dsa1", await other.submit("dsa1", 101))
        await other.stop("dsa1", meanwhile)
        await other.unbind("dsa1", meanwhile)
        await other.free(meanwhile)
        await gone(host, meanwhile)
        story.claim(
            f"vm-2 had PASID {meanwhile} from the first to the last meanwhile",
            landed.owner == "vm-2",
        )

        story.part("An operator asks why")
        why = await host.allocator.explain(pasid)
        story.say(why.text)
        waits_for = [each.holder for event in why.events for each in event.waits_for]
        story.claim("the CPU is done; it is the driver of dsa0", waits_for == ["vdcm:dsa0"])

        story.part("The operator resets the device, and declares its driver dead")
        host.device("dsa0").device.reset()
        await host.allocator.evict("vdcm:dsa0")
        await gone(host, pasid)
        again = await vm.alloc()
        story.claim(f"PASID {pasid} is back in the pool, and handed out again", again == pasid)
        story.end()


async def gone(host: Host, pasid: int) -> None:
    """Wait until a PASID that was freed is back in the pool."""
    try:
        await host.allocator.free(pasid, wait=True)
    except UnknownIoasid:
        pass


if __name__ == "__main__":
    told(tell, __doc__)
