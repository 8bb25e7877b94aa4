"""What a host's hardware has programmed, watched at every step: whose life of an ID it is."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, Final, TypeVar

from anyio import CancelScope, sleep
from anyio.lowlevel import checkpoint

from ioasid.actors import Decision, Host, Step, Vdcm, Vm, open_host
from ioasid.core import Changes
from ioasid.linux import open_iommu
from ioasid.testing._fake_kernel import FakeKernel
from ioasid.testing._violated import invariant

__all__: list[str] = []

T = TypeVar("T")

on_linux: Final = ContextVar("on_linux", default=False)
"""Whether the hosts of a scenario program a fake kernel instead of the model."""


class HardwareWatch:
    """A tap: no entry, context, transfer or translation has an ID in the pool or in another life.

    Give it its `host`, and `check` it at the end: a tap that raises is removed.
    """

    def __init__(self, kernel: FakeKernel | None = None) -> None:
        self.host: Host | None = None
        self._kernel = kernel
        self.found: list[str] = []
        """What was violated, in order, each thing once."""
        self._numbers = count(1)
        self._lives: dict[int, int] = {}
        self._devices: dict[int, Vdcm] = {}
        """Every driver that there was: a device that is being removed is still programmed."""
        self._programmed: dict[tuple[str, int], int] = {}
        """The life of the ID of whatever is programmed, since it is."""

    def __call__(self, seen: Decision | Step) -> None:
        """Look at the hardware after a decision or step."""
        if isinstance(seen, Decision):
            self._follow(seen.changes)
        programmed: dict[tuple[str, int], int] = {}
        for what, ioasid in self._hardware():
            life = self._lives.get(ioasid, 0)
            before = self._programmed.get((what, ioasid), life)
            if not life or life != before:
                whose = "in the pool" if not life else "in another life"
                self.found.append(f"{what} has IOASID {ioasid}, which is {whose}")
            programmed[what, ioasid] = life
        self._programmed = programmed

    def _follow(self, changes: Changes) -> None:
        for span in changes.reclaimed:
            for ioasid in range(span.first, span.last + 1):
                self._lives.pop(ioasid, None)
        for span in changes.allocated:
            for ioasid in range(span.first, span.last + 1):
                self._lives[ioasid] = next(self._numbers)

    def _hardware(self) -> Iterator[tuple[str, int]]:
        host = self.host
        if host is None:
            return
        iommu = host.vtd.iommu
        for device, table in iommu.tables.items():
            yield from ((f"the table of {device}", ioasid) for ioasid in table)
            yield from (
                (f"the IOMMU for {device}", each) for each in iommu.hardware.attached(device)
            )
        if self._kernel is not None:
            for path, pasids in self._kernel.attached().items():
                yield from ((f"the kernel for {path}", ioasid) for ioasid in pasids)
        self._devices |= {id(vdcm): vdcm for vdcm in host.devices.values()}
        for vdcm in self._devices.values():
            for ioasid in (*vdcm.device.contexts, *vdcm.device.transfers.values()):
                yield vdcm.holder, ioasid
        for vm in host.vms.values():
            yield from ((vm.kvm.holder, ioasid) for ioasid in vm.kvm.table.values())

    @invariant(11)
    def check(self) -> None:
        """Assert invariant 11: nothing that was programmed had an ID of somebody else."""
        assert not self.found, "; ".join(dict.fromkeys(self.found))


@asynccontextmanager
async def watched_host(**options: Any) -> AsyncIterator[Host]:
    """Open a host, as `open_host` does, and watch what its hardware has programmed."""
    if not on_linux.get():
        watch = HardwareWatch()
        async with open_host(taps=[watch], **options) as host:
            watch.host = host
            yield host
        watch.check()
        return
    kernel = FakeKernel()
    watch = HardwareWatch(kernel)
    async with (
        open_iommu(kernel=kernel, run=in_turn) as iommu,
        open_host(taps=[watch], iommu=iommu, **options) as host,
    ):
        watch.host = host
        yield host
    watch.check()
    assert not kernel.replaced, "the kernel replaced what a PASID meant"
    assert not kernel.descriptors, "a descriptor was left open"


async def host_is_empty(host: Host) -> None:
    """Assert that no ID, VM, entry, context, transfer or suspended holder is left."""
    # What nobody waited for may be on its way; what stays there is a scenario that is stuck.
    while (figures := await host.allocator.statistics()).free_pending:
        await sleep(1)
    assert (figures.active, figures.suspended) == (0, 0)
    vms: dict[str, Vm] = host.vms
    assert vms == {}
    assert not any(host.vtd.iommu.tables.values()), "an entry outlived its ID"
    for vdcm in host.devices.values():
        assert (vdcm.device.contexts, vdcm.device.transfers) == ({}, {})


async def in_turn(call: Callable[[], T]) -> T:
    """Run a call to its end, as a worker thread does, with others before and after it."""
    with CancelScope(shield=True):
        await checkpoint()
        done = call()
        await checkpoint()
    return done
