"""A storm over one host: many VMs, shared devices, crashes everywhere, and nothing may go wrong.

Two tasks per VM do what guests do: allocate, bind, DMA, free, in any order and across each other,
some of it cancelled half-way. Around them VMs, actors and subscribers crash, hang and come back. A
witness sees every decision of the allocator and every step of the actors, and checks the rules;
samples of the whole state are checked on the way, and at the end nothing may be left over.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from time import perf_counter
from typing import Any, Final

import anyio
from attrs import define, field

from ioasid.actors import Subscription, VmClosed, open_host
from ioasid.core import (
    Allocator,
    AllocatorClosed,
    EventKind,
    IoasidError,
    MalformedMessage,
    Snapshot,
    Statistics,
)
from ioasid.linux import open_iommu
from ioasid.testing._fake_kernel import FakeKernel
from ioasid.testing._invariants import check_state
from ioasid.testing._storm_devices import Devices
from ioasid.testing._storm_drivers import Drivers, StormDriver, check_drivers
from ioasid.testing._storm_faults import Faults
from ioasid.testing._storm_log import log_watch
from ioasid.testing._storm_operations import Choice, Choices, Menu, Slot, Worker
from ioasid.testing._storm_owners import Owners
from ioasid.testing._storm_report import StormReport, Violations
from ioasid.testing._storm_scene import Scene, cancel_later
from ioasid.testing._storm_settings import StormSettings
from ioasid.testing._storm_subscribers import Subscribers
from ioasid.testing._storm_tap import tap
from ioasid.testing._storm_vms import Guests, NoVm
from ioasid.testing._storm_witness import WITNESS, Witness

__all__ = ["storm"]

SAMPLES: Final = 20
"""How often the whole state is looked at on the way."""
MAX_RESTARTS: Final = 3


async def storm(
    settings: StormSettings | None = None,
    *,
    drivers: Sequence[StormDriver[Any]] = (),
    kernel: FakeKernel | None = None,
    on_violation: Callable[[str], None] | None = None,
    on_sample: Callable[[int, Statistics], None] | None = None,
) -> StormReport:
    """Let it storm over a host; returns what it came to, whether or not every rule held.

    `drivers` take part beside the host's own. With a `kernel` the IOMMU driver programs that, in a
    worker thread, in place of its model. `on_violation` is called with each of the first
    rules that are broken, when it is found; `on_sample` after each look at the whole state, with
    the operations done so far and the allocator's figures. The storm takes the log of `ioasid`
    for its length: a crash that it did not plant is a violation. It runs until every operation
    is done and everything is cleared away, or nothing goes on any more. What is drawn repeats
    with the settings and drivers, on any backend; whom it meets depends on how the tasks
    interleave. Raises `InvalidArgument` for drivers whose names or weights are of no use.
    """
    check_drivers(drivers)
    report = StormReport(StormSettings() if settings is None else settings)
    violated = Violations(report.violations, on_violation)
    begun = perf_counter()
    with log_watch(report.happened, violated):
        try:
            async with _scene(report, violated, kernel) as scene:
                await _Storm.over(scene, drivers, on_sample).run()
        except Exception as error:  # noqa: BLE001 - whatever ends the host is a finding
            violated(f"the host ended: {_causes(error)}")
    if kernel is not None and kernel.descriptors:
        violated(f"at the end the kernel has {kernel.descriptors} descriptors open")
    report.seconds = perf_counter() - begun
    if report.done < report.settings.ops:
        violated(f"only {report.done} of {report.settings.ops} operations were done")
    return report


@asynccontextmanager
async def _scene(
    report: StormReport, violated: Violations, kernel: FakeKernel | None
) -> AsyncIterator[Scene]:
    # A host with its witness, and a task group for the storm over it.
    witness = Witness(report, violated, kernel)
    seen = tap(witness)
    settings = report.settings
    async with AsyncExitStack() as stack:
        iommu = None
        if kernel is not None:
            iommu = await stack.enter_async_context(open_iommu(kernel=kernel))
        host = await stack.enter_async_context(
            open_host(
                capacity=settings.capacity,
                system_quota=settings.system_quota,
                taps=[seen],
                max_restarts=MAX_RESTARTS,
                restart_wait=0,
                iommu=iommu,
            )
        )
        witness.host = host
        async with (
            host.allocator.session(WITNESS) as session,
            session.subscribe(
                kinds={EventKind.ALLOC, EventKind.RECLAIM},
                queue_size=1 << 20,
                acknowledge_within=None,
            ) as events,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_read, events)
            yield Scene(settings, report, violated, witness, seen, host, tasks)
            tasks.cancel_scope.cancel()


async def _read(events: Subscription) -> None:
    async for _ in events:
        pass


@define(eq=False)
class _Storm:
    # Everything that goes on at once on one host.

    scene: Scene
    devices: Devices
    drivers: Drivers
    subscribers: Subscribers
    owners: Owners
    menu: Menu
    on_sample: Callable[[int, Statistics], None] | None
    digests: dict[int, int] = field(factory=dict)
    doing: dict[int, str] = field(factory=dict)

    @classmethod
    def over(
        cls,
        scene: Scene,
        drivers: Sequence[StormDriver[Any]],
        on_sample: Callable[[int, Statistics], None] | None,
    ) -> "_Storm":
        guests = Guests(scene)
        owners = Owners(scene, guests)
        subscribers = Subscribers(scene, guests)
        users = Drivers(scene, guests, drivers)
        parts = (guests, owners, subscribers, Faults(scene, guests), users)
        menu = Menu([operation for part in parts for operation in part.operations()])
        scene.witness.hardware = users.hardware
        return cls(scene, Devices(scene), users, subscribers, owners, menu, on_sample)

    async def run(self) -> None:
        scene, settings = self.scene, self.scene.settings
        for _ in range(settings.devices):
            await self.devices.add()
        await self.drivers.start()
        scene.tasks.start_soon(self.subscribers.operate)
        scene.tasks.start_soon(self._watch_for_stall)
        slots = [Slot(f"vm-{number}") for number in range(settings.vms)]
        async with anyio.create_task_group() as workers:
            for number in range(settings.workers):
                workers.start_soon(self._work, Worker(number, slots[number % settings.vms]))
        digests = [self.digests[number] for number in range(settings.workers)]
        scene.report.choices = sha256(repr(digests).encode()).hexdigest()[:16]
        scene.over = True
        await self._clear_away()

    async def _work(self, worker: Worker) -> None:
        settings, report = self.scene.settings, self.scene.report
        choices = Choices(settings, self.menu, worker.number)
        sample_every = max(1, settings.ops // SAMPLES)
        for _ in range(settings.share(worker.number)):
            choice = choices.draw()
            outcome = await self._attempt(worker, choice)
            report.outcomes.setdefault(choice.kind, Counter())[outcome] += 1
            report.done += 1
            if not report.done % sample_every:
                await self._sample()
        self.digests[worker.number] = choices.digest
        self.doing.pop(worker.number, None)

    async def _attempt(self, worker: Worker, choice: Choice) -> str:
        outcome = "cancelled"
        self.doing[worker.number] = choice.kind
        with anyio.CancelScope() as scope:
            if choice.cancel_after is not None:
                self.scene.tasks.start_soon(cancel_later, scope, choice.cancel_after)
            outcome = await self._carry_out(worker, choice)
        if scope.cancelled_caught:
            self.doing[worker.number] = f"cleaning up after {choice.kind}"
            # What it began and will never come back to.
            await self.scene.write_off(worker.agent)
        return outcome

    async def _carry_out(self, worker: Worker, choice: Choice) -> str:
        operation = self.menu.operations[choice.kind]
        try:
            await operation.carry_out(worker, choice)
        except NoVm:
            return "without its VM"
        except AllocatorClosed:
            raise
        except IoasidError as error:
            self.scene.refused(choice.kind, error, operation.refusals)
            vm = worker.slot.vm
            if isinstance(error, VmClosed) or vm is not self.scene.host.vms.get(worker.slot.name):
                worker.slot.vm = None
            return "refused"
        except Exception as error:  # noqa: BLE001 - no operation may raise anything else
            self.scene.violated(f"{choice.kind} raised {error!r}")
        return "done"

    async def _watch_for_stall(self) -> None:
        report, stall = self.scene.report, self.scene.settings.stall
        done, since = -1, perf_counter()
        while True:
            await anyio.sleep(min(1.0, stall / 2))
            if report.done > done:
                done, since = report.done, perf_counter()
            elif perf_counter() - since > stall:
                doing = dict(Counter(self.doing.values())) or "clearing away"
                figures = await self.scene.allocator.statistics()
                self.scene.violated(f"stuck for {stall:g} s: {doing}; {_brief(figures)}")
                self.scene.tasks.cancel_scope.cancel()

    async def _sample(self) -> None:
        scene = self.scene
        for wrong in wrong_with(await scene.allocator.snapshot()):
            scene.violated(wrong)
        scene.report.samples += 1
        if self.on_sample is not None:
            self.on_sample(scene.report.done, await scene.allocator.statistics())

    # -- the end ------------------------------------------------------------------------------

    async def _clear_away(self) -> None:
        scene = self.scene
        await self.subscribers.clear_away()
        async with anyio.create_task_group() as tasks:
            for vm in tuple(scene.host.vms.values()):
                tasks.start_soon(vm.close)
            tasks.start_soon(self.owners.clear_away)
        scene.leaving = True
        await self.drivers.stop()
        left = await self._left()
        with anyio.move_on_after(scene.settings.stall / 2):
            while left:
                await anyio.sleep(0.01)
                left = await self._left()
        for each in left:
            scene.violated(f"at the end there is left: {each}")
        await self._sample()

    async def _left(self) -> list[str]:
        scene, host = self.scene, self.scene.host
        figures = await scene.allocator.statistics()
        drivers = 1 + len(scene.devices)
        devices = [vdcm.device for vdcm in host.devices.values()]
        facts: Iterable[tuple[str, object, object]] = (
            ("active IDs", figures.active, 0),
            ("IDs in quarantine", figures.free_pending, 0),
            ("sets beside the system's", figures.sets - 1, 0),
            ("reserved IDs beside 0", figures.reserved - figures.reserved_numbers, 0),
            (
                "IDs of quotas",
                figures.capacity - figures.available - figures.reserved,
                scene.settings.system_quota,
            ),
            ("events under way", figures.in_flight, 0),
            ("suspended holders", figures.suspended, 0),
            ("sessions beside host, witness and drivers", figures.sessions - 2 - drivers, 0),
            ("subscriptions beside theirs", figures.subscriptions - 1 - drivers, 0),
            ("lagging subscribers", [each.holder for each in figures.lagging], []),
            ("subscriber tasks", list(self.subscribers.present), []),
            ("VMs", list(host.vms), []),
            ("IDs that the witness saw no RECLAIM of", list(scene.witness.lives), []),
            ("IOMMU entries", [each for each in host.vtd.iommu.tables.values() if each], []),
            ("contexts", [each for device in devices for each in device.contexts], []),
            ("transfers", [each for device in devices for each in device.transfers], []),
            ("programmed", [(name, dict(ids)) for name, ids in self.drivers.hardware() if ids], []),
        )
        kernel = scene.witness.kernel
        if kernel is not None:
            facts = (
                *facts,
                ("attached in the kernel", kernel.attached(), {}),
                ("objects in the kernel", kernel.objects, 2 * len(host.devices)),
                ("PASIDs that the kernel replaced", kernel.replaced, 0),
            )
        return [f"{what}: {found}" for what, found, expected in facts if found != expected]


def wrong_with(snapshot: Snapshot) -> Iterator[str]:
    """Say what is wrong with the whole state of an allocator, taken at one instant."""
    try:
        core = Allocator.restore(snapshot)
        check_state(core)
    except MalformedMessage as error:
        yield f"a snapshot contradicts itself: {error}"
    except AssertionError as error:
        yield f"an invariant is broken: {error}"
    else:
        if core.snapshot() != snapshot:
            yield "a snapshot restores to another state"


def _brief(figures: Statistics) -> str:
    lagging = ", ".join(
        f"{each.holder} ({each.scope}, {each.priority}, {each.oldest_age:.1f} s)"
        for each in figures.lagging[:8]
    )
    return (
        f"{figures.active} active, {figures.free_pending} in quarantine, {figures.in_flight} "
        f"events under way, {figures.suspended} suspended, lagging: {lagging or 'nobody'}"
    )


def _causes(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_causes(each) for each in error.exceptions)
    return repr(error)
