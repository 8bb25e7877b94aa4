"""The agent of a host: it carries out what moves take there, one command of a VM at a time."""

from abc import ABC, abstractmethod
from typing import Protocol

from anyio import CancelScope, Lock
from attrs import define, field

from ioasid.actors import Host, Session, Vm, VmExport
from ioasid.core import SetNotFrozen, SetRecord, SetState, UnknownToken, _check
from ioasid.fleet._errors import StaleCommand, UnknownVm
from ioasid.fleet._protocol import Act, Command
from ioasid.fleet._store import Store

__all__ = ["Agent", "HostAgent", "SetAgent", "vm_key"]


class Agent(Protocol):
    """Whoever carries out commands on a host, here or at the other end of a line."""

    async def carry_out(self, command: Command) -> VmExport | None:
        """Carry out a command, for the first time or again; FREEZE and EXPORT answer an export.

        Raises `StaleCommand` for one that follows from a record that has changed, and what the host
        refuses with; `HostUnreachable` says that nobody knows.
        """
        ...


def vm_key(vm: str) -> str:
    """Return the key of a VM's record. Raises `InvalidArgument` for what can be no token."""
    return f"vm/{_check.name(vm, 'vm')}"


@define(eq=False)
class FencedAgent(ABC):
    """What every agent does: it refuses old commands, and does one for a VM at a time.

    `name` is the host; `store` says whether a command still stands.
    """

    name: str
    store: Store
    _locks: dict[str, Lock] = field(factory=dict, init=False)
    _freezing: dict[str, tuple[int, CancelScope]] = field(factory=dict, init=False)
    """Freezes under way, with the revision of their command."""

    async def carry_out(self, command: Command) -> VmExport | None:
        """Carry out a command, for the first time or again; see `Agent`."""
        if command.vm in self._freezing:
            # One that waits for a device need not keep who decided otherwise waiting.
            await self._refuse_stale(command)
            revision, scope = self._freezing.get(command.vm, (command.revision, None))
            if scope is not None and revision < command.revision:
                scope.cancel()
        # Between the look at the record and the act nothing else happens to the VM here: who
        # decides otherwise meanwhile has a command for this host, which comes after. Nothing may
        # wait before the lock is asked for, or it is another one by then.
        lock = self._locks.setdefault(command.vm, Lock())
        try:
            async with lock:
                await self._refuse_stale(command)
                return await self._act(command)
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(command.vm, None)

    async def _refuse_stale(self, command: Command) -> None:
        key = vm_key(command.vm)
        found = (await self.store.get(key))[0].get(key)
        revision = 0 if found is None else found.revision
        if revision != command.revision:
            raise StaleCommand(command.vm, command.revision, revision)

    async def _act(self, command: Command) -> VmExport | None:
        record = await self._find(command.vm)
        state = None if record is None else record.state
        match command.act:
            case Act.FREEZE:
                return await self._freeze_first(command)
            case Act.EXPORT:
                return await self._export(command.vm)
            case Act.IMPORT:
                if state is not SetState.INCOMING:
                    assert command.export is not None, "an import has an export"
                    await self._import(command.export, command.group)
            case Act.ACTIVATE:
                # One that its owner ended meanwhile does not begin, and does not go on. Either way
                # the move has an end.
                if state not in (None, SetState.FREE_PENDING):
                    await self._run(command.vm)
            case Act.THAW:
                # A freeze may be on its way to one that is ACTIVE yet, so that is decided there,
                # and not by this look.
                if state in (SetState.ACTIVE, SetState.FROZEN):
                    await self._run(command.vm)
            case Act.LEAVE:
                if state is SetState.FROZEN:
                    await self._leave(command.vm)
            case Act.DISCARD:
                if state is SetState.INCOMING:
                    await self._discard(command.vm)
        return None

    async def _freeze_first(self, command: Command) -> VmExport:
        with CancelScope() as scope:
            self._freezing[command.vm] = command.revision, scope
            try:
                return await self._freeze(command.vm)
            finally:
                self._freezing.pop(command.vm, None)
        raise StaleCommand(command.vm, command.revision, command.revision + 1)

    @abstractmethod
    async def _find(self, vm: str) -> SetRecord | None:
        """Return the VM's set, if it has one."""

    @abstractmethod
    async def _freeze(self, vm: str) -> VmExport:
        """Freeze it, wait until nothing of it runs, and export it."""

    @abstractmethod
    async def _export(self, vm: str) -> VmExport: ...

    @abstractmethod
    async def _import(self, export: VmExport, group: str | None) -> None: ...

    @abstractmethod
    async def _run(self, vm: str) -> None:
        """Thaw or activate it, or leave it running."""

    @abstractmethod
    async def _leave(self, vm: str) -> None:
        """Free a frozen one; what is in quarantine drains."""

    @abstractmethod
    async def _discard(self, vm: str) -> None:
        """Free one that was imported; returns when it is gone."""

    def _missing(self, vm: str) -> UnknownVm:
        return UnknownVm(vm, f"at {self.name}")


@define(eq=False)
class HostAgent(FencedAgent):
    """The agent of a `Host`, with the VMs that run in this process."""

    host: Host

    async def _find(self, vm: str) -> SetRecord | None:
        return await _find(self.host.allocator, vm)

    async def _freeze(self, vm: str) -> VmExport:
        there = self._vm(vm)
        await there.freeze()
        return await there.export()

    async def _export(self, vm: str) -> VmExport:
        return await self._vm(vm).export()

    async def _import(self, export: VmExport, group: str | None) -> None:
        await self.host.receive_vm(export)

    async def _run(self, vm: str) -> None:
        await self._vm(vm).run()

    async def _leave(self, vm: str) -> None:
        self._vm(vm).crash()

    async def _discard(self, vm: str) -> None:
        await self._vm(vm).close()

    def _vm(self, name: str) -> Vm:
        vm = self.host.vms.get(name)
        if vm is None:
            raise self._missing(name)
        return vm


@define(eq=False)
class SetAgent(FencedAgent):
    """The agent of an allocator, whose VMs are sets: their VMMs and drivers are its subscribers.

    They stop at UNBIND, and take up again at BIND, what a VM has bound; which of it they program
    into which device is theirs to know.
    """

    allocator: Session

    async def _find(self, vm: str) -> SetRecord | None:
        return await _find(self.allocator, vm)

    async def _freeze(self, vm: str) -> VmExport:
        record = await self._there(vm)
        if not await self.allocator.freeze_set(record.sid):
            raise SetNotFrozen(record.sid, SetState.ACTIVE, record.allocated)
        return await self._export(vm)

    async def _export(self, vm: str) -> VmExport:
        record = await self._there(vm)
        return VmExport(await self.allocator.export_set(record.sid), ())

    async def _import(self, export: VmExport, group: str | None) -> None:
        await self.allocator.import_set(export.set, group=group)

    async def _run(self, vm: str) -> None:
        record = await self._there(vm)
        if record.state is SetState.INCOMING:
            await self.allocator.activate_set(record.sid)
        else:
            await self.allocator.thaw_set(record.sid)

    async def _leave(self, vm: str) -> None:
        await self.allocator.free_set((await self._there(vm)).sid)

    async def _discard(self, vm: str) -> None:
        await self.allocator.free_set((await self._there(vm)).sid, wait=True)

    async def _there(self, vm: str) -> SetRecord:
        record = await self._find(vm)
        if record is None:
            raise self._missing(vm)
        return record


async def _find(allocator: Session, vm: str) -> SetRecord | None:
    try:
        return await allocator.find_set(vm)
    except UnknownToken:
        return None
