"""A whole host, wired by one call: allocator, IOMMU driver, devices and VMs.

Nothing is global; any number of hosts live in one process.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

from anyio import CancelScope, create_task_group
from anyio import Event as Signal
from anyio.abc import TaskGroup, TaskStatus

from ioasid.actors._actor import Actor, HostObserver, check_name
from ioasid.actors._allocator import open_allocator
from ioasid.actors._errors import (
    ActorCrashed,
    ActorStopped,
    DeviceExists,
    UnknownDevice,
    VmClosed,
    VmExists,
)
from ioasid.actors._kvm import Enqcmd, Kvm
from ioasid.actors._reply import Reply, reply_factory
from ioasid.actors._session import Session
from ioasid.actors._vdcm import (
    CompleteDma,
    DmaLanded,
    ProgramGuestPasid,
    ProgramPasid,
    StartDma,
    StopDma,
    Vdcm,
)
from ioasid.actors._vfio import (
    AllocPasid,
    BindPasid,
    CloseVm,
    FreePasid,
    UnbindPasid,
    Vfio,
    close_set,
)
from ioasid.actors._vtd import BindProcess, ProcessExited, UnbindProcess, Vtd

__all__ = ["Host", "Vm", "open_host"]

Begun: TypeAlias = Reply[Exception | None]
"""Tells who waits for a device or VM that it serves, or why it does not."""

HOST_ENDED = "ended with its host"


class Vm:
    """A running VM as its guest and its VMM see it; made by `Host.start_vm`.

    Every method may be called by any task, and raises what the actor it asks refuses with.
    """

    def __init__(self, host: "Host", name: str, vfio: Vfio, kvm: Kvm) -> None:
        self._host = host
        self._ending = Signal()
        self._gone = Signal()
        self._cleared = False
        self._asking: set[CancelScope] = set()
        """What it asks devices at the moment."""
        self.name = name
        self.vfio = vfio
        self.kvm = kvm

    @property
    def sid(self) -> int:
        """The VM's set."""
        return self.vfio.sid

    async def alloc(self, *, min: int = 1, max: int | None = None) -> int:
        """Allocate a host PASID for the guest, the lowest free one in [min, max]."""
        ioasid: int = await self.vfio.ask(AllocPasid(min, max))
        return ioasid

    async def bind(self, device: str, pasid: int, gpasid: int) -> None:
        """Bind the guest's PASID to a host PASID, for a device."""
        await self.vfio.ask(BindPasid(device, pasid, gpasid))

    async def unbind(self, device: str, pasid: int) -> None:
        """Undo a bind; returns when everybody let go."""
        await self.vfio.ask(UnbindPasid(device, pasid))

    async def free(self, pasid: int) -> bool:
        """Free a host PASID, bound or not; answers at once whether it is reclaimed already."""
        reclaimed: bool = await self.vfio.ask(FreePasid(pasid))
        return reclaimed

    async def program(self, device: str, gpasid: int) -> int:
        """Let the guest program its PASID into a device; answers the host PASID behind it."""
        with self._at(device) as vdcm:
            ioasid: int = await vdcm.ask(ProgramGuestPasid(self.sid, gpasid))
            return ioasid
        raise VmClosed(self.name)

    async def submit(self, device: str, gpasid: int) -> int:
        """Submit work with ENQCMD: translate the guest's PASID, start DMA; answers its number."""
        with self._at(device) as vdcm:
            ioasid = await self.kvm.ask(Enqcmd(gpasid))
            transfer: int = await vdcm.ask(StartDma(ioasid, self.sid))
            return transfer
        raise VmClosed(self.name)

    async def stop(self, device: str, pasid: int) -> None:
        """Stop a device's work with a host PASID; returns when it is drained and cleared."""
        with self._at(device) as vdcm:
            await vdcm.ask(StopDma(pasid, self.sid))
            return
        raise VmClosed(self.name)

    @contextmanager
    def _at(self, device: str) -> Iterator[Vdcm]:
        # A VM that is gone must not come back through a device: its set's number is used again.
        # So what it asked is given up when it ends, and dropped where it waits.
        if self._ending.is_set():
            raise VmClosed(self.name)
        vdcm = self._host.device(device)
        with CancelScope() as scope:
            self._asking.add(scope)
            try:
                yield vdcm
            finally:
                self._asking.remove(scope)

    async def close(self) -> None:
        """End the VM: free its set; returns when all of it is reclaimed and the VM is gone."""
        self.crash()
        await self.gone()

    def crash(self) -> None:
        """End the VM without warning, as its process died: its set is freed in the background.

        Its IDs go back to the pool when every device, the IOMMU and its KVM are done with them;
        `gone` waits for that. A second time does nothing.
        """
        self._ending.set()
        for scope in self._asking:
            scope.cancel()

    async def gone(self) -> None:
        """Wait until the VM has ended and everything it had is reclaimed.

        Raises `ActorStopped` if the host ends before.
        """
        await self._gone.wait()
        if not self._cleared:
            raise ActorStopped(self.vfio.holder, HOST_ENDED)


class Host:
    """A host: its allocator, devices and VMs; made by `open_host`."""

    def __init__(
        self,
        allocator: Session,
        vtd: Vtd,
        tasks: TaskGroup,
        observer: HostObserver | None,
        max_restarts: int,
    ) -> None:
        self._tasks = tasks
        self._observer = observer
        self._max_restarts = max_restarts
        self._new_reply = reply_factory()
        self._over = False
        self._device_names: set[str] = set()
        self._vm_names: set[str] = set()
        self.allocator = allocator
        """The host's own session."""
        self.vtd = vtd
        self.devices: dict[str, Vdcm] = {}
        """The drivers of the devices, by name; one that gave up stays."""
        self.vms: dict[str, Vm] = {}
        """The VMs that run or are being cleared away, by name."""

    def device(self, name: str) -> Vdcm:
        """Return the driver of a device. Raises `UnknownDevice`."""
        vdcm = self.devices.get(name) if type(name) is str else None
        if vdcm is None:
            raise UnknownDevice(name[:40] if type(name) is str else f"a {type(name).__name__}")
        return vdcm

    async def add_device(self, name: str) -> Vdcm:
        """Add a device that VMs and processes can share, with its driver; returns when it serves.

        `name` has 1 to 200 characters. Raises `DeviceExists` and `InvalidArgument`. A caller that
        is cancelled leaves no device half added.
        """
        check_name(name)
        if name in self._device_names:
            raise DeviceExists(name)
        vdcm = Vdcm(name, self.vtd.iommu, observer=self._observer, max_restarts=self._max_restarts)
        begun = self._begin(vdcm)
        self._device_names.add(name)
        self._tasks.start_soon(self._add_device, vdcm, begun, name=f"start of {vdcm.holder}")
        await _has_begun(begun)
        return vdcm

    def _begin(self, actor: Actor) -> Begun:
        # What is begun is begun by a task of the host's, and nothing is begun after its end.
        if self._over:
            raise ActorStopped(actor.holder, HOST_ENDED)
        return self._new_reply()

    async def _add_device(self, vdcm: Vdcm, begun: Begun) -> None:
        name = vdcm.device.name
        failure: Exception = ActorStopped(vdcm.holder, HOST_ENDED)
        try:
            await self._tasks.start(vdcm.run, self.allocator, name=vdcm.holder)
            if begun.cancelled():
                vdcm.stop()
                await vdcm.ended.wait()
            else:
                self.vtd.add_device(name)
                self.devices[name] = vdcm
                begun.set_result(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is who adds it that is told
            failure = error
        finally:
            if name not in self.devices:
                self._device_names.remove(name)
            if not begun.done():
                begun.set_result(failure)

    async def start_vm(self, name: str, *, quota: int) -> Vm:
        """Start a VM whose set takes `quota` IDs (1..2^32-1); returns when its actors serve.

        `name` has 1 to 200 characters and is the token of its set. Raises `VmExists`, and what
        `AllocSet` is refused with. A caller that is cancelled leaves no VM behind: what was
        begun of it is cleared away.
        """
        check_name(name)
        if name in self._vm_names:
            raise VmExists(name)
        kvm = Kvm(name, observer=self._observer, max_restarts=self._max_restarts)
        vfio = Vfio(name, quota, self.vtd, observer=self._observer, max_restarts=self._max_restarts)
        vm = Vm(self, name, vfio, kvm)
        begun = self._begin(vfio)
        self._vm_names.add(name)
        self._tasks.start_soon(self._live, vm, begun, name=f"life of {name}")
        try:
            await _has_begun(begun)
        except BaseException:
            vm.crash()
            raise
        return vm

    async def _live(self, vm: Vm, begun: Begun) -> None:
        failure: Exception = ActorStopped(vm.vfio.holder, HOST_ENDED)
        try:
            # KVM subscribes to the token before the set exists.
            async with self._serving(vm, vm.kvm), self._serving(vm, vm.vfio):
                self.vms[vm.name] = vm
                if not begun.done():
                    begun.set_result(None)
                await vm._ending.wait()
                await self._clear_away(vm)
            vm._cleared = True
        except Exception as error:
            if vm.name in self.vms:
                raise
            failure = error
        finally:
            self.vms.pop(vm.name, None)
            self._vm_names.remove(vm.name)
            vm._gone.set()
            if not begun.done():
                begun.set_result(failure)

    @asynccontextmanager
    async def _serving(self, vm: Vm, actor: Kvm | Vfio) -> AsyncIterator[None]:
        # Left when the actor has left the allocator, so that its holder's name is free.
        await self._tasks.start(self._run, vm, actor, name=actor.holder)
        try:
            yield
        finally:
            actor.stop()
            await actor.ended.wait()

    async def _run(self, vm: Vm, actor: Kvm | Vfio, *, task_status: TaskStatus[None]) -> None:
        # A VM that lost its door or its translation table has crashed.
        await actor.run(self.allocator, task_status=task_status)
        vm.crash()

    async def _clear_away(self, vm: Vm) -> None:
        while True:
            try:
                await vm.vfio.ask(CloseVm())
                return
            except ActorCrashed:
                continue
            except ActorStopped:
                # Nobody is left at the VM's door, so the host does it.
                async with self.allocator.session(f"end:{vm.name}") as session:
                    await close_set(session, vm.name)
                return

    async def complete(self, device: str, transfer: int) -> DmaLanded:
        """Let the hardware complete a transfer; answers whose memory it wrote into."""
        landed: DmaLanded = await self.device(device).ask(CompleteDma(transfer))
        return landed

    async def sva_bind(self, device: str, process: int) -> int:
        """Bind a process of the host to a device: bare-metal SVA; answers its PASID.

        What the device refuses is undone, and so is what is cancelled there.
        """
        vdcm = self.device(device)
        ioasid: int = await self.vtd.ask(BindProcess(device, process))
        try:
            await vdcm.ask(ProgramPasid(ioasid))
        except BaseException:
            self.vtd.tell(UnbindProcess(device, process))
            raise
        return ioasid

    async def sva_submit(self, device: str, pasid: int) -> int:
        """Start DMA of a process; answers the transfer's number."""
        transfer: int = await self.device(device).ask(StartDma(pasid))
        return transfer

    async def sva_stop(self, device: str, pasid: int) -> None:
        """Stop a device's work for a process; returns when it is drained and cleared."""
        await self.device(device).ask(StopDma(pasid))

    async def sva_unbind(self, device: str, process: int) -> None:
        """Undo `sva_bind`; with the last device, returns when everybody let go."""
        await self.vtd.ask(UnbindProcess(device, process))

    async def process_exited(self, process: int) -> None:
        """Tell that a process exited, whether or not its devices were stopped before."""
        await self.vtd.ask(ProcessExited(process))


@asynccontextmanager
async def open_host(
    *,
    capacity: int = 1 << 20,
    system_quota: int = 1024,
    observer: HostObserver | None = None,
    max_restarts: int = 3,
) -> AsyncIterator[Host]:
    """Run a host for the length of an `async with`: allocator, system set, IOMMU driver.

    `capacity` is the number of PASIDs and `system_quota` how many of them its own processes may
    have, both 1..2^32-1; `observer` is called with every step and decision; an actor that
    crashes restarts at most `max_restarts` (0 or more) times in a row. A device or VM driver that
    crashes more often is given up and evicted, its device reset; the IOMMU driver ends the host.

    Leaving the scope ends everything at once; `Vm.close` ends a VM in order before. Whoever still
    waits for an answer gets `ActorStopped` or `AllocatorClosed`. Raises `InvalidArgument`.
    """
    async with open_allocator(capacity=capacity, observer=observer) as allocator:
        system = await allocator.alloc_system_set(system_quota)
        vtd = Vtd(system.sid, observer=observer, max_restarts=max_restarts)
        try:
            async with create_task_group() as tasks:
                await tasks.start(vtd.run, allocator, name=vtd.holder)
                host = Host(allocator, vtd, tasks, observer, max_restarts)
                try:
                    yield host
                finally:
                    host._over = True
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            # The task group is ours, not the caller's: an exception leaves as it was raised.
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from group.exceptions[0].__cause__


async def _has_begun(begun: Begun) -> None:
    failure = await begun
    if failure is not None:
        raise failure.with_traceback(None)
