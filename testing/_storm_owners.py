"""What a host does in a storm beside its VMs: sets, capacity, processes, references, mistakes."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio
from attrs import frozen

from ioasid.actors import (
    ActorCrashed,
    AlreadyProgrammed,
    ContextStopping,
    DmaFault,
    NotBound,
    NotProgrammed,
    PasidFault,
    UnknownDevice,
    UnknownProcess,
    UnknownTransfer,
)
from ioasid.core import (
    AlreadyBound,
    CapacityExhausted,
    DataTaken,
    EventKind,
    InvalidArgument,
    IoasidError,
    IoasidFreePending,
    NotOfThisSet,
    NotReserved,
    QuotaBelowUse,
    QuotaExceeded,
    RangeFull,
    SetFreePending,
    SpidInUse,
    StaleIoasid,
    TokenInUse,
    TokenType,
    TooManyEvents,
    UnknownHolder,
    UnknownIoasid,
    UnknownSet,
    UnknownSpid,
    UnknownToken,
)
from ioasid.testing._storm_operations import (
    GONE,
    GUEST_PASIDS,
    PROCESSES_PER_TASK,
    Choice,
    Operation,
    Refusals,
    Worker,
)
from ioasid.testing._storm_scene import Scene, passes
from ioasid.testing._storm_vms import Guests
from ioasid.testing._storm_witness import PROCESS

__all__: list[str] = []

NO_GUEST_PASID: Final = 1000 + GUEST_PASIDS
"""A number that no guest gives to a PASID."""
NO_SET: Final[Refusals] = (UnknownToken, UnknownSet)
NOT_ACTIVE: Final[Refusals] = (UnknownIoasid, StaleIoasid, NotOfThisSet, IoasidFreePending)
REFERENCE: Final[Refusals] = (*NOT_ACTIVE, UnknownSpid, UnknownSet)
USE_SET: Final[Refusals] = (
    *NO_SET,
    CapacityExhausted,
    TokenInUse,
    SetFreePending,
    UnknownIoasid,
    StaleIoasid,
)
CUT_SHORT: Final[Refusals] = (QuotaExceeded, CapacityExhausted, RangeFull, SpidInUse, AlreadyBound)
"""What ends the use of a set, which is freed all the same."""
PROCESS_REFUSALS: Final[Refusals] = (
    *GONE,
    AlreadyProgrammed,
    QuotaExceeded,
    UnknownIoasid,
    IoasidFreePending,
    UnknownProcess,
    NotBound,
    NotProgrammed,
    ContextStopping,
    DmaFault,
)


class AgentCrashed(Exception):
    """What an agent crashes with when it was drawn to."""


@frozen
class Owners:
    """What the tasks do with the host."""

    scene: Scene
    guests: Guests

    def operations(self) -> Sequence[Operation]:
        """Return what may be done with a host."""
        adjust = (*NO_SET, SetFreePending, QuotaBelowUse, CapacityExhausted)
        return (
            Operation("adjust quota", self.adjust_quota, 2, adjust),
            Operation("free set", self.free_set, 0.3, NO_SET),
            Operation("reserve", self.reserve, 1, (CapacityExhausted,)),
            Operation("use process", self.use_process, 5, PROCESS_REFUSALS),
            Operation("use set", self.use_set, 1.5, USE_SET),
            Operation("reference", self.reference, 2.5, REFERENCE),
            Operation("attach data", self.attach_data, 1, (*NOT_ACTIVE, DataTaken)),
            Operation("notify", self.notify, 1, (*NOT_ACTIVE, TooManyEvents)),
            Operation("bad request", self.bad_request, 3),
            Operation("crash agent", self.reference, 8, REFERENCE, crash=True),
        )

    # -- sets and capacity --------------------------------------------------------------------

    async def adjust_quota(self, worker: Worker, choice: Choice) -> None:
        """Change the quota of the VM."""
        vm = await self.guests.vm(worker, choice)
        record = await self.scene.allocator.find_set(vm.name)
        quota = 4 + choice.numbers[0] % 29
        adjusted = await self.scene.allocator.adjust_set(record.sid, quota)
        within = adjusted.allocated <= adjusted.quota
        self.scene.check(within, f"a set has more IDs than its quota: {adjusted}")

    async def free_set(self, worker: Worker, choice: Choice) -> None:
        """Free everything that a VM has, under its hands."""
        vm = await self.guests.vm(worker, choice)
        record = await self.scene.allocator.find_set(vm.name)
        await self.scene.allocator.free_set(record.sid, destroy=False)

    async def reserve(self, worker: Worker, choice: Choice) -> None:
        """Reserve capacity for a while."""
        a, b, _ = choice.numbers
        count = 1 + a % 16
        record = await self.scene.allocator.reserve_capacity(count)
        self.scene.check(record.reserved >= count, f"{count} IDs were reserved: {record}")
        await passes(b % 32)
        await self.scene.allocator.cancel_capacity(count)

    async def use_set(self, worker: Worker, choice: Choice) -> None:
        """Make a set, use it, and free it."""
        a, b, c = choice.numbers
        allocator = self.scene.allocator
        # One without a token could not be found again after a cancellation.
        anonymous = choice.cancel_after is None and a % 4 == 0
        kind = TokenType.NULL if anonymous else TokenType.MM
        token = None if anonymous else worker.token
        try:
            sid = (await allocator.alloc_set(token, 1 + b % 12, kind)).sid
        except TokenInUse:
            sid = (await allocator.find_set(worker.token)).sid
        try:
            ranges = await allocator.alloc_many(sid, 1 + c % 8)
            pasid, spid = ranges[0].first, 1 + a % GUEST_PASIDS
            await allocator.attach_spid(pasid, spid, sid=sid)
            found = await allocator.find_by_spid(sid, spid)
            self.scene.check(found == pasid, f"spid {spid} of {pasid} in set {sid} finds {found}")
            await allocator.attach_data(pasid, a, sid=sid)
            await allocator.adjust_set(sid, 12)
        except CUT_SHORT as error:
            self.scene.refused("use set", error, CUT_SHORT)
        await allocator.free_set(sid, destroy=True, wait=bool(b % 4))

    # -- processes ----------------------------------------------------------------------------

    async def use_process(self, worker: Worker, choice: Choice) -> None:
        """Bind a process to a device, let it work, stop it, or let it exit."""
        a, b, c = choice.numbers
        host = self.scene.host
        if not worker.bound or c % 8 < 2:
            await self._bind_process(worker, self.scene.device(a), worker.process(b))
            return
        device, process, pasid = worker.bound[a % len(worker.bound)]
        match c % 8:
            case 2 | 3 | 4:
                await host.sva_submit(device, pasid, process)
            case 5:
                await host.sva_stop(device, pasid, process)
            case 6:
                worker.bound.remove((device, process, pasid))
                await host.sva_unbind(device, process)
            case _:
                worker.bound = [each for each in worker.bound if each[1] != process]
                await host.process_exited(process)

    async def _bind_process(self, worker: Worker, device: str, process: int) -> None:
        pasid = await self.scene.host.sva_bind(device, process)
        self.scene.witness.check_owner(pasid, PROCESS, 0, "was given to a")
        worker.bound.append((device, process, pasid))

    async def exit(self, process: int) -> None:
        """Let a process exit, whatever crashes."""
        while True:
            with suppress(ActorCrashed):
                await self.scene.host.process_exited(process)
                return

    # -- references, data, notifications ------------------------------------------------------

    async def reference(self, worker: Worker, choice: Choice) -> None:
        """Hold a reference for a while, as an agent with a session, which may crash."""
        _, b, c = choice.numbers
        scene = self.scene
        vm = await self.guests.vm(worker, choice)
        _, pasid, gpasid = self.guests.among(worker.slot.bound, worker, choice)
        try:
            async with scene.allocator.session(worker.agent) as session:
                if b % 2:
                    pasid = await session.find_by_spid(vm.sid, gpasid, get=True)
                else:
                    await session.get(pasid, sid=vm.sid)
                await passes(c % 16)
                self._check_kept(pasid, f"{worker.agent} held it")
                if choice.kind == "crash agent":
                    raise AgentCrashed
                if c % 3:
                    await session.put(pasid)
        except AgentCrashed:
            scene.happened("agents crashed")
            self._check_kept(pasid, f"{worker.agent} was suspended")
            await passes(c % 16)
            if c % 2:
                await scene.write_off(worker.agent)
                return
            async with scene.allocator.session(worker.agent) as session:
                scene.happened("agents came back")
                same = session.opened.references == ((pasid, 1),)
                scene.check(same, f"{worker.agent} came back to {session.opened}, held {pasid}")

    def _check_kept(self, pasid: int, why: str) -> None:
        kept = pasid in self.scene.witness.lives
        self.scene.check(kept, f"IOASID {pasid} was reclaimed while {why}")

    async def attach_data(self, worker: Worker, choice: Choice) -> None:
        """Attach a value to a PASID, or take it away."""
        a, b, _ = choice.numbers
        vm = await self.guests.vm(worker, choice)
        pasid = worker.slot.pasid(a)
        if b % 2:
            await self.scene.allocator.attach_data(pasid, b, sid=vm.sid)
        else:
            await self.scene.allocator.detach_data(pasid, sid=vm.sid)

    async def notify(self, worker: Worker, choice: Choice) -> None:
        """Publish an event that changes nothing."""
        a, b, _ = choice.numbers
        vm = await self.guests.vm(worker, choice)
        kinds = (EventKind.ALLOC, EventKind.BIND, EventKind.UNBIND, EventKind.FREE)
        await self.scene.allocator.notify(worker.slot.pasid(a), kinds[b % 4], sid=vm.sid)

    # -- mistakes -----------------------------------------------------------------------------

    async def bad_request(self, worker: Worker, choice: Choice) -> None:
        """Ask for what makes no sense, and be refused for it."""
        a, b, _ = choice.numbers
        vm = await self.guests.vm(worker, choice)
        host, allocator = self.scene.host, self.scene.allocator
        device, pasid = self.scene.device(a), worker.slot.pasid(b)
        requests: tuple[tuple[Callable[[], Awaitable[Any]], type[IoasidError]], ...] = (
            (lambda: vm.alloc(min=-1), InvalidArgument),
            (lambda: vm.alloc(min=9, max=3), InvalidArgument),
            (lambda: vm.bind("no such device", pasid, 1), UnknownDevice),
            (lambda: vm.bind(device, True, 1), InvalidArgument),
            (lambda: vm.free(self.scene.settings.capacity + 1), UnknownIoasid),
            (lambda: vm.submit(device, NO_GUEST_PASID), PasidFault),
            (lambda: host.complete(device, 1 << 60), UnknownTransfer),
            (lambda: host.start_vm("", quota=8), InvalidArgument),
            (lambda: host.sva_unbind(device, (1 << 32) - 1), UnknownProcess),
            (lambda: host.sva_bind(device, 1 << 40), InvalidArgument),
            (lambda: allocator.alloc(1 << 30), UnknownSet),
            (lambda: allocator.find((1 << 32) - 1), InvalidArgument),
            (lambda: allocator.cancel_capacity(1 << 31), NotReserved),
            (lambda: allocator.evict("nobody"), UnknownHolder),
        )
        call, expected = requests[a % len(requests)]
        refused = False
        try:
            await call()
        except IoasidError as error:
            refused = True
            self.scene.refused("bad request", error, (expected, *GONE))
        self.scene.check(refused, f"bad request {a % len(requests)} was carried out")

    # -- the end ------------------------------------------------------------------------------

    async def clear_away(self) -> None:
        """Let every process exit, and free what tasks that were cancelled left."""
        workers = self.scene.settings.workers
        async with anyio.create_task_group() as tasks:
            for process in range(workers * PROCESSES_PER_TASK):
                tasks.start_soon(self.exit, process)
            for worker in range(workers):
                tasks.start_soon(self._free_job, f"job-{worker}")
        figures = await self.scene.allocator.statistics()
        by_count = figures.reserved - figures.reserved_numbers
        if by_count:
            await self.scene.allocator.cancel_capacity(by_count)

    async def _free_job(self, token: str) -> None:
        with suppress(*NO_SET):
            record = await self.scene.allocator.find_set(token)
            await self.scene.allocator.free_set(record.sid, destroy=True, wait=True)
