"""A whole host, wired by one call: allocator, IOMMU driver, devices and VMs.

Nothing is global; any number of hosts live in one process.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from os import PathLike
from typing import TypeAlias
from weakref import WeakKeyDictionary

from anyio import CancelScope, Lock, create_task_group
from anyio import Event as Signal
from anyio.abc import TaskGroup, TaskStatus
from attrs import define, field, frozen

from ioasid.actors._actor import Actor
from ioasid.actors._again import until_kept
from ioasid.actors._client import Client
from ioasid.actors._errors import (
    ActorCrashed,
    ActorStopped,
    DeviceExists,
    NotBound,
    NotProgrammed,
    UnknownDevice,
    UnknownProcess,
    VmClosed,
    VmExists,
)
from ioasid.actors._iommu import Iommu
from ioasid.actors._kvm import Enqcmd, Kvm
from ioasid.actors._moves import ExportVm, FreezeVm, RunVm, VmExport
from ioasid.actors._one_task import one_task
from ioasid.actors._open import open_allocator
from ioasid.actors._reply import Reply, reply_factory
from ioasid.actors._session import Session
from ioasid.actors._steps import Fault, HostTap
from ioasid.actors._supervision import ActorOptions, ActorStatistics, check_name
from ioasid.actors._taps import Decision, Step, Taps
from ioasid.actors._thread import Door
from ioasid.actors._vdcm import (
    CompleteDma,
    Device,
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
from ioasid.actors._vtd import (
    BindProcess,
    CloseDevice,
    ProcessExited,
    RemoveDevice,
    UnbindProcess,
    Vtd,
    check_process,
)
from ioasid.core import (
    CapacityExhausted,
    InvalidArgument,
    Ioasid,
    IoasidError,
    Message,
    ReuseOrder,
    SetExport,
    SetRecord,
    SetState,
)
from ioasid.journal._reboot import OnReboot

__all__ = ["Host", "Vm", "open_host"]

Begun: TypeAlias = Reply[Exception | None]
"""Tells who waits for a device or VM that it serves, or why it does not."""

HOST_ENDED = "ended with its host"
LONGEST_NAME = 200
"""Of a VM; a set with a longer token is somebody else's."""


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
        self._lines: WeakKeyDictionary[Vdcm, Client] = WeakKeyDictionary()
        """Its place in the line of each device."""
        self.name = name
        self.vfio = vfio
        self.kvm = kvm

    @property
    def sid(self) -> int:
        """The VM's set."""
        return self.vfio.sid

    async def alloc(
        self, *, min: int = 1, max: int | None = None, device: str | None = None
    ) -> Ioasid:
        """Allocate a host PASID for the guest, in [min, max]; one that fits a device, if named."""
        ioasid: Ioasid = await self.vfio.ask(AllocPasid(min, max, device))
        return ioasid

    async def bind(self, device: str, pasid: int, gpasid: int) -> None:
        """Bind the guest's PASID to a host PASID, for a device."""
        with _as_written(ioasid="pasid", spid="gpasid"):
            await self.vfio.ask(BindPasid(device, pasid, gpasid))

    async def unbind(self, device: str, pasid: int) -> None:
        """Undo a bind; returns when everybody let go."""
        with _as_written(ioasid="pasid"):
            await self.vfio.ask(UnbindPasid(device, pasid))

    async def free(self, pasid: int) -> bool:
        """Free a host PASID, bound or not; answers at once whether it is reclaimed already."""
        with _as_written(ioasid="pasid"):
            reclaimed: bool = await self.vfio.ask(FreePasid(pasid))
        return reclaimed

    async def program(self, device: str, gpasid: int) -> Ioasid:
        """Let the guest program its PASID into a device; answers the host PASID behind it."""
        with _as_written(spid="gpasid"), self._at(device) as vdcm:
            ioasid: Ioasid = await vdcm.ask(ProgramGuestPasid(self.sid, gpasid))
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
        with _as_written(ioasid="pasid"), self._at(device) as vdcm:
            await vdcm.ask(StopDma(pasid, self.sid))
            return
        raise VmClosed(self.name)

    @contextmanager
    def _at(self, device: str) -> Iterator[Client]:
        # A VM that is gone must not come back through a device: what it asked is given up when it
        # ends, and dropped where it waits.
        self._host._door.check()
        if self._ending.is_set():
            raise VmClosed(self.name)
        vdcm = self._host.device(device)
        line = self._lines.get(vdcm)
        if line is None:
            line = self._lines[vdcm] = vdcm.client()
        with CancelScope() as scope:
            self._asking.add(scope)
            try:
                yield line
            finally:
                self._asking.remove(scope)

    async def freeze(self) -> None:
        """Stop all that runs, to move the VM; returns when no CPU or device runs it any more.

        What its guest allocates, binds, programs or submits from then on is refused.
        """
        await self.vfio.ask(FreezeVm())

    async def export(self) -> VmExport:
        """Return all that the next host of a frozen VM has to know of it."""
        export: VmExport = await self.vfio.ask(ExportVm())
        return export

    async def run(self) -> None:
        """Let a frozen VM go on, or one that was received begin; returns when its bindings are up.

        Its guest programs devices again, as they were cleared.
        """
        await self.vfio.ask(RunVm())

    async def close(self) -> None:
        """End the VM: free its set; returns when all of it is reclaimed and the VM is gone."""
        self.crash()
        await self.gone()

    def crash(self) -> None:
        """End the VM without warning, as its process died: its set is freed in the background.

        Its IDs go back to the pool when every device, the IOMMU and its KVM are done with them;
        `gone` waits for that. A second time does nothing.
        """
        self._host._door.check()
        self._ending.set()
        for scope in self._asking:
            scope.cancel()

    async def gone(self) -> None:
        """Wait until the VM has ended and everything it had is reclaimed.

        Raises `ActorStopped` if the host ends before.
        """
        self._host._door.check()
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
        options: ActorOptions,
    ) -> None:
        self._tasks = tasks
        self._options = options
        self._new_reply = reply_factory()
        self._door = Door("the host")
        """For its VMs, too: what does not go through an actor's own."""
        self._over = False
        self._device_names: dict[str, _Start] = {}
        self._vm_names: dict[str, _Start] = {}
        self.allocator = allocator
        """The host's own session."""
        self._sva: dict[tuple[str, int], Lock] = {}
        """Binding and unbinding a process and a device, one at a time."""
        self._leaving: dict[str, Vdcm] = {}
        """Devices that are being removed: what is in flight there still completes."""
        self._removals: dict[str, list[Begun]] = {}
        """Who waits for a device to be gone."""
        self.vtd = vtd
        self.devices: dict[str, Vdcm] = {}
        """The drivers of the devices, by name; one that gave up stays."""
        self.vms: dict[str, Vm] = {}
        """The VMs that run or are being cleared away, by name."""
        self.left: dict[str, SetRecord] = {}
        """The sets of the VMs that ran when the process before this one ended, by name."""
        self._suspended: set[str] = set()
        """The holders of that process that may have something programmed."""

    def device(self, name: str) -> Vdcm:
        """Return the driver of a device. Raises `UnknownDevice`."""
        vdcm = self.devices.get(name) if type(name) is str else None
        if vdcm is None:
            raise UnknownDevice(name[:40] if type(name) is str else f"a {type(name).__name__}")
        return vdcm

    async def add_device(
        self, name: str, pasid_bits: int = 20, *, hardware: Device | None = None
    ) -> Vdcm:
        """Add a device that VMs and processes can share, with its driver; returns when it serves.

        `name` has 1 to 200 characters, and its PASIDs have `pasid_bits` bits (1..20), or fewer if
        the IOMMU says so: an ID that does not fit is refused with `PasidTooWide`. `hardware` is the
        device as it is, after its driver ended with the process before this one; what runs there
        goes on. A `Device(name)` says that it was reset. Raises `DeviceExists`, `InvalidArgument`,
        also without `hardware` for a device that may have something programmed, and what the IOMMU
        refuses the device with. A caller that is cancelled leaves no device half added.
        """
        self._door.check()
        check_name(name)
        if hardware is None and f"vdcm:{name}" in self._suspended:
            expected = "a Device: as it is, or a new one if it was reset"
            raise InvalidArgument.of("hardware", hardware, expected)
        if hardware is not None and (type(hardware) is not Device or hardware.name != name):
            raise InvalidArgument.of("hardware", hardware, f"the Device {name}")
        await _undone(self._device_names, name)
        if name in self._device_names:
            raise DeviceExists(name)
        vdcm = Vdcm(name, self.vtd.iommu, pasid_bits, hardware, **self._options)
        begun = self._begin(vdcm)
        start = self._device_names[name] = _Start()
        self._tasks.start_soon(self._add_device, vdcm, begun, name=f"start of {vdcm.holder}")
        try:
            await _has_begun(begun)
        except BaseException:
            start.given_up = True
            if self.devices.get(name) is vdcm and not self._over:
                # It was there already, and nobody knows.
                self._begin_removal(name)
            raise
        return vdcm

    def _begin(self, actor: Actor) -> Begun:
        # What is begun is begun by a task of the host's, and nothing is begun after its end.
        if self._over:
            raise ActorStopped(actor.holder, HOST_ENDED)
        return self._new_reply()

    async def _add_device(self, vdcm: Vdcm, begun: Begun) -> None:
        name = vdcm.device.name
        failure: Exception = ActorStopped(vdcm.holder, HOST_ENDED)
        iommu = self.vtd.iommu
        is_new = name not in iommu.tables
        try:
            # Nobody reaches the driver yet, and the device may have fewer bits than it was given.
            vdcm.device.pasid_bits = await self.vtd.add_device(name, vdcm.device.pasid_bits)
            if is_new:
                # Bound by nobody before it is there: it may have to go again.
                iommu.closed.add(name)
            await self._tasks.start(vdcm.run, self.allocator, name=vdcm.holder)
            if begun.cancelled():
                # What runs on a device of before goes on until somebody adds it after all.
                vdcm.stop(drain=is_new)
                await vdcm.ended.wait()
                await self._take_back(name, is_new)
            else:
                iommu.closed.discard(name)
                self.devices[name] = vdcm
                begun.set_result(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is who adds it that is told
            failure = error
            await self._take_back(name, is_new)
        finally:
            if name not in self.devices:
                self._device_names.pop(name).over.set()
            if not begun.done():
                begun.set_result(failure)

    async def _take_back(self, name: str, is_new: bool) -> None:
        # What is bound to a device of the process before this one is VT-d's to unbind.
        if is_new:
            await self.vtd.iommu.close(name)

    async def start_vm(self, name: str, *, quota: int) -> Vm:
        """Start a VM whose set takes `quota` IDs (1..2^32-1); returns when its actors serve.

        `name` has 1 to 200 characters and is the token of its set. A VM that is `left` from the
        process before this one keeps its set, with what is allocated and bound in it; its quota is
        adjusted. Raises `VmExists`, and what `AllocSet` or `AdjustSet` is refused with. A caller
        that is cancelled leaves no VM behind: what was begun of it is cleared away.
        """
        return await self._start_vm(name, quota, None)

    async def receive_vm(self, export: VmExport) -> Vm:
        """Take up a VM that comes from another host; returns when its actors serve.

        Nothing of it runs before `Vm.run`; to give the move up, `Vm.close` it. Its set and PASIDs
        are made of what `Vm.export` returned there. Raises as `start_vm` does, `UnknownDevice` for
        a device that it is bound for and that is not here, and what `ImportSet` is refused with.
        """
        if (
            type(export) is not VmExport
            or type(export.set) is not SetExport
            or type(export.bound) is not tuple
            or not all(map(_is_bound, export.bound))
        ):
            raise InvalidArgument.of("export", export, "a VmExport")
        for device, _, _ in export.bound:
            self.device(device)
        return await self._start_vm(check_name(export.set.token), 1, export)

    async def _start_vm(self, name: str, quota: int, export: VmExport | None) -> Vm:
        self._door.check()
        check_name(name)
        await _undone(self._vm_names, name)
        if name in self._vm_names or (export is not None and name in self.left):
            raise VmExists(name)
        record = self.left.pop(name, None)
        vm, begun = self._begin_vm(name, quota, -1 if record is None else record.sid, export)
        start = self._vm_names[name]
        try:
            await _has_begun(begun)
        except BaseException as error:
            if record is not None and isinstance(error, IoasidError):
                self.left[name] = record
            start.given_up = True
            vm.crash()
            raise
        return vm

    def _begin_vm(
        self, name: str, quota: int, sid: int, export: VmExport | None = None
    ) -> tuple[Vm, Begun]:
        kvm = Kvm(name, **self._options)
        vfio = Vfio(name, quota, self.vtd, sid, export, **self._options)
        vm = Vm(self, name, vfio, kvm)
        begun = self._begin(vfio)
        self._vm_names[name] = _Start()
        self._tasks.start_soon(self._live, vm, begun, name=f"life of {name}")
        return vm, begun

    def _go_on(self, before: "Before") -> None:
        # VMs that were ending end, others are left.
        self._suspended = before.suspended
        for record in before.sets:
            if record.token is None:
                continue
            if record.state is not SetState.FREE_PENDING:
                self.left[record.token] = record
            elif len(record.token) <= LONGEST_NAME:
                vm, _ = self._begin_vm(record.token, record.quota, record.sid)
                vm.crash()

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
            self._vm_names.pop(vm.name).over.set()
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
        try:
            await _insist(vm.vfio, CloseVm())
        except ActorStopped:
            # Nobody is left at the VM's door, so the host does it.
            await until_kept(lambda: self._close_set(vm.name))

    async def _close_set(self, name: str) -> None:
        async with self.allocator.session(f"end:{name}") as session:
            await close_set(session, name)

    async def remove_device(self, name: str) -> None:
        """Remove a device: drain it, unbind it from everybody, and only then let it go.

        No work is begun there from now on. Returns when it is gone, which is when all that is in
        flight there has completed; a caller that gives up waiting stops nothing. Other devices are
        not touched, and a process keeps its PASID. A second call waits as well. Raises
        `UnknownDevice`.
        """
        self._door.check()
        leaving = type(name) is str and name in self._leaving
        begun = self._begin(self._leaving[name] if leaving else self.device(name))
        if not leaving:
            self._begin_removal(name)
        self._removals[name].append(begun)
        await _has_begun(begun)

    def _begin_removal(self, name: str) -> None:
        vdcm = self._leaving[name] = self.devices.pop(name)
        self._removals[name] = []
        self._tasks.start_soon(self._remove_device, vdcm, name=f"end of {vdcm.holder}")

    async def _remove_device(self, vdcm: Vdcm) -> None:
        name = vdcm.device.name
        failure: Exception | None = ActorStopped(vdcm.holder, HOST_ENDED)
        try:
            await _insist(self.vtd, CloseDevice(name))
            vdcm.stop()
            await vdcm.ended.wait()
            await until_kept(lambda: _insist(self.vtd, RemoveDevice(name)))
            failure = None
        except IoasidError as error:
            failure = error
        finally:
            del self._leaving[name]
            self._device_names.pop(name).over.set()
            for begun in self._removals.pop(name):
                if not begun.done():
                    begun.set_result(failure)

    async def complete(self, device: str, transfer: int) -> DmaLanded:
        """Let the hardware complete a transfer; answers whose memory it wrote into."""
        leaving = self._leaving.get(device) if type(device) is str else None
        vdcm = self.device(device) if leaving is None else leaving
        landed: DmaLanded = await vdcm.ask(CompleteDma(transfer))
        return landed

    async def sva_bind(self, device: str, process: int) -> Ioasid:
        """Bind a process of the host (0..2^32-1) to a device: bare-metal SVA; answers its PASID.

        A process has one PASID on the host, from its first bind until it exits. Binding the same
        device again counts. What the device refuses is undone, and so is what is cancelled.
        """
        self._door.check()
        vdcm = self.device(device)
        check_process(process)
        async with self._sva_lock(device, process):
            ioasid: Ioasid = await self.vtd.ask(BindProcess(device, process))
            try:
                await vdcm.ask(ProgramPasid(ioasid, process))
            except BaseException:
                if not self._over:
                    self._tasks.start_soon(self._unbind, vdcm, process, None)
                raise
        return ioasid

    async def sva_submit(self, device: str, pasid: int, process: int) -> int:
        """Start DMA of a process with its PASID; answers the transfer's number.

        Raises `NotProgrammed` if the PASID is not (any more) that of this process.
        """
        with _as_written(ioasid="pasid"):
            transfer: int = await self.device(device).ask(StartDma(pasid, process=process))
        return transfer

    async def sva_stop(self, device: str, pasid: int, process: int) -> None:
        """Stop a device's work for a process; returns when it is drained and cleared.

        Raises `NotProgrammed` if the PASID is not (any more) that of this process.
        """
        with _as_written(ioasid="pasid"):
            await self.device(device).ask(StopDma(pasid, process=process))

    async def sva_unbind(self, device: str, process: int) -> None:
        """Undo one `sva_bind`; the last one of a device undoes it wholly there.

        Then its work is stopped and drained, the context cleared and the entry torn down, and only
        then this returns. The process keeps its PASID until it exits. A caller that gives up
        waiting stops nothing. Raises `UnknownDevice`, `UnknownProcess` and `NotBound`.
        """
        self._door.check()
        vdcm = self.device(device)
        check_process(process)
        begun = self._begin(vdcm)
        self._tasks.start_soon(self._unbind, vdcm, process, begun)
        await _has_begun(begun)

    async def _unbind(self, vdcm: Vdcm, process: int, begun: Begun | None) -> None:
        # Without `begun` it undoes a bind that failed.
        device = vdcm.device.name
        failure: Exception | None = ActorStopped(vdcm.holder, HOST_ENDED)
        try:
            async with self._sva_lock(device, process):
                ioasid = self.vtd.ioasid_of(process)
                if ioasid is not None and self.vtd.binds_of(device, process) == 1:
                    # Without its driver nothing stops what runs; without its entry it faults.
                    with suppress(NotProgrammed, ActorStopped):
                        await _insist(vdcm, StopDma(ioasid, process=process))
                unbind = UnbindProcess(device, process, begun is None)
                await _insist(self.vtd, unbind, done=(NotBound, UnknownProcess))
            failure = None
        except IoasidError as error:
            failure = error
        finally:
            if begun is not None and not begun.done():
                begun.set_result(failure)

    @asynccontextmanager
    async def _sva_lock(self, device: str, process: int) -> AsyncIterator[None]:
        key = (device, process)
        lock = self._sva.setdefault(key, Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._sva.pop(key, None)

    async def process_exited(self, process: int) -> None:
        """Tell that a process exited, whether or not its devices were stopped before.

        Whoever has its number next is another process, with another PASID.
        """
        await self.vtd.ask(ProcessExited(process))

    def statistics(self) -> tuple[ActorStatistics, ...]:
        """Return the state of every driver and VM actor, by holder name: who is down, for one."""
        actors: list[Actor] = [self.vtd, *self.devices.values(), *self._leaving.values()]
        actors += [each for vm in self.vms.values() for each in (vm.vfio, vm.kvm)]
        return tuple(each.statistics() for each in sorted(actors, key=lambda actor: actor.holder))


@asynccontextmanager
async def open_host(
    *,
    capacity: int | None = None,
    system_quota: int | None = None,
    order: ReuseOrder | None = None,
    taps: Collection[HostTap] = (),
    fault: Fault | None = None,
    max_restarts: int = 5,
    restart_wait: float = 0.01,
    journal: str | PathLike[str] | None = None,
    on_reboot: OnReboot = "keep",
    iommu: Iommu | None = None,
) -> AsyncIterator[Host]:
    """Run a host for the length of an `async with`: allocator, system set, IOMMU driver.

    `capacity` is the number of PASIDs, 2^20 unless told, and `system_quota` how many of them its
    own processes may have, both 1..2^32-1 (`None`: 1,024, or half of `capacity` if that is less);
    `order` is the order in which free PASIDs are given out, `ReuseOrder.LOWEST` unless told. `taps`
    are called with every step and decision; `fault` is called at every step, to crash the actor
    there. An actor that crashes restarts after `restart_wait` seconds (0 or more), then after four
    times that, and so on, at most `max_restarts` (0 or more) times in a row. A device driver that
    crashes more often is given up and evicted, its device reset; so is a VM's, whose VM ends; the
    IOMMU driver ends the host. `iommu` is what that programs, a model unless told; it has no device
    yet.

    `journal` and `on_reboot` are those of `open_allocator`. A host that goes on from a journal
    takes its hardware up as it is: `iommu`, whose entries are adopted or torn down, and that of
    each device, with `add_device`. VMs that were ending are brought to their end; the others are
    `left`, until `start_vm` takes them up. Without `iommu` such a host is refused, for what is
    programmed would be forgotten; an `Iommu()` says that the hardware came up clean.

    Leaving the scope ends everything at once; `Vm.close` ends a VM in order before. Whoever still
    waits for an answer gets `ActorStopped` or `AllocatorClosed`. Raises `InvalidArgument`.
    """
    # One list for all: whoever raises, wherever that is, sees nothing any more.
    shared = Taps[Decision | Step](taps)
    every: tuple[HostTap, ...] = (shared.see,) if shared else ()
    if iommu is not None and not isinstance(iommu, Iommu):
        raise InvalidArgument.of("iommu", iommu, "an Iommu")
    with one_task("open_host"):
        async with open_allocator(
            capacity=capacity, order=order, taps=every, journal=journal, on_reboot=on_reboot
        ) as allocator:
            before = await _before(allocator)
            if iommu is None and before.suspended:
                expected = "an Iommu: as it is, or a new one if the hardware came up clean"
                raise InvalidArgument.of("iommu", iommu, expected)
            system = await _system_set(allocator, before, system_quota)
            options = ActorOptions(
                taps=every, fault=fault, max_restarts=max_restarts, restart_wait=restart_wait
            )
            vtd = Vtd(system.sid, iommu, **options)
            try:
                async with create_task_group() as tasks:
                    await tasks.start(vtd.run, allocator, name=vtd.holder)
                    host = Host(allocator, vtd, tasks, options)
                    host._go_on(before)
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


@frozen
class Before:
    """What an allocator has from the process before this one."""

    sets: tuple[SetRecord, ...]
    suspended: set[str]
    """The names of holders."""


async def _before(allocator: Session) -> Before:
    sets: list[SetRecord] = []
    suspended: set[str] = set()
    after: int | None = None
    name: str | None = None
    while True:
        page = await allocator.list_sets(after=after, limit=1000)
        sets += page.sets
        after = page.next
        if after is None:
            break
    while True:
        holders = await allocator.list_holders(after=name, limit=1000)
        suspended |= {each.holder for each in holders.holders if each.session is None}
        name = holders.next
        if name is None:
            return Before(tuple(sets), suspended)


@contextmanager
def _as_written(**names: str) -> Iterator[None]:
    # What is asked for somebody names some arguments otherwise than the call they made.
    try:
        yield
    except InvalidArgument as error:
        if error.argument not in names:
            raise
        raise InvalidArgument(names[error.argument], error.found, error.expected) from None


async def _system_set(allocator: Session, before: Before, quota: int | None) -> SetRecord:
    if quota is None:
        quota = max(min(1024, (await allocator.statistics()).capacity // 2), 1)
    has = 0
    try:
        with _as_written(quota="system_quota"):
            for record in before.sets:
                if record.system:
                    has = record.quota
                    return await allocator.adjust_set(record.sid, quota)
            return await allocator.alloc_system_set(quota)
    except CapacityExhausted as error:
        expected = f"1..{has + error.available}, as many as no quota, limit or reservation has"
        raise InvalidArgument("system_quota", str(quota), expected) from None


async def _insist(
    actor: Actor, message: Message, *, done: tuple[type[IoasidError], ...] = ()
) -> None:
    # For what may be asked again after a crash; `done` says then that it was done before.
    crashed = False
    while True:
        try:
            await actor.ask(message)
            return
        except ActorCrashed:
            crashed = True
        except done:
            if crashed:
                return
            raise


def _is_bound(each: object) -> bool:
    # A device, an ID and the guest's number for it.
    return type(each) is tuple and [type(part) for part in each] == [str, int, int]


@define(eq=False)
class _Start:
    # A name that is taken.
    given_up: bool = False
    over: Signal = field(factory=Signal)


async def _undone(starts: Mapping[str, _Start], name: str) -> None:
    # Who gave up a start may try again: when all of it is undone.
    while name in starts and starts[name].given_up:
        await starts[name].over.wait()


async def _has_begun(begun: Begun) -> None:
    failure = await begun
    if failure is not None:
        raise failure.with_traceback(None)
