"""What one VM's flood of a device driver costs the requests of other VMs there."""

from collections.abc import Sequence
from statistics import median
from time import perf_counter

from benchmarks.measure import Figure, Plan, compare, require, take_turns
from ioasid.actors import BindGuestPasid, Vm, open_host

DEVICE = "dsa0"
BINDS = 20
"""Binds that the time of one is taken of."""


async def fair_driver(backend: str, plan: Plan) -> list[Figure]:
    """Compare a VM's bind beside another VM that floods VT-d with binds with the same when idle.

    The flood is 10,000 binds, each of an ID of its own, in VT-d's mailbox at once.
    """
    flood = plan.scaled(10_000, 500)
    quota = 2 * flood
    async with open_host(capacity=4 * quota) as host:
        await host.add_device(DEVICE)
        other = await host.start_vm("other", quota=BINDS)
        pasids = [await other.alloc() for _ in range(BINDS)]

        async def idle() -> float:
            return await _bind_each(other, pasids)

        async def flooded() -> float:
            vm = await host.start_vm("flood", quota=quota)
            binds = [await vm.alloc() for _ in range(flood)]
            line = host.vtd.client()
            for gpasid, pasid in enumerate(binds):
                line.tell(BindGuestPasid(DEVICE, pasid, vm.sid, gpasid, vm.name))
            spent = await _bind_each(other, pasids)
            left = host.vtd.statistics().waiting
            require(True, left > flood // 2, "the flood outlasts what is measured beside it")
            await vm.close()
            return spent

        times = await take_turns({"beside the flood": flooded, "idle": idle}, plan)
    return [
        compare(
            times,
            "beside the flood",
            "idle",
            name="fair_driver",
            backend=backend,
            unit="x idle",
            target=2.0,
        )
    ]


async def _bind_each(vm: Vm, pasids: Sequence[int]) -> float:
    # The unbinds, which wait for every tier, are not what is measured.
    spent = []
    for gpasid, pasid in enumerate(pasids):
        asked = perf_counter()
        await vm.bind(DEVICE, pasid, gpasid)
        spent.append(perf_counter() - asked)
    for pasid in pasids:
        await vm.unbind(DEVICE, pasid)
    return median(spent)
