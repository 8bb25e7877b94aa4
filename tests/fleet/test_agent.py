"""The agent of a host: what each command makes of the VM, once and again."""

import anyio
import pytest
from attrs import define, field

from ioasid.actors import VmExport
from ioasid.core import SetState
from ioasid.fleet import (
    Act,
    Command,
    Found,
    HostAgent,
    MemoryStore,
    StaleCommand,
    UnknownVm,
    vm_key,
)
from tests.fleet.worlds import DEVICE, VM, World, open_world

pytestmark = pytest.mark.anyio


async def tell(
    world: World, host: str, act: Act, export: VmExport | None = None
) -> VmExport | None:
    """Carry out a command by the record as it is."""
    revision = (await world.store.get(vm_key(VM)))[0][vm_key(VM)].revision
    return await world.agents[host].carry_out(Command(act, VM, revision, export))


async def test_every_command_can_be_repeated() -> None:
    """A second time changes nothing, and answers the same."""
    async with open_world() as world:
        exports = [await tell(world, "a", act) for act in (Act.FREEZE, Act.FREEZE, Act.EXPORT)]
        assert [exports[0]] * 3 == exports
        for _ in range(2):
            await tell(world, "b", Act.IMPORT, exports[0])
            assert {"a": SetState.FROZEN, "b": SetState.INCOMING} == await world.states()
        for _ in range(2):
            await tell(world, "b", Act.DISCARD)
            await tell(world, "a", Act.THAW)
            assert {"a": SetState.ACTIVE} == await world.states()
        await tell(world, "a", Act.FREEZE)
        await tell(world, "b", Act.IMPORT, exports[0])
        for _ in range(2):
            await tell(world, "b", Act.ACTIVATE)
            await tell(world, "a", Act.LEAVE)
            await anyio.wait_all_tasks_blocked()
            assert {"b": SetState.ACTIVE} == await world.states()
        # What runs is nothing that a host takes away for a command that came too late.
        await tell(world, "b", Act.DISCARD)
        await tell(world, "b", Act.LEAVE)
        assert {"b": SetState.ACTIVE} == await world.states()


async def test_an_old_command_is_refused() -> None:
    """One that follows from another record than there is now does nothing."""
    async with open_world() as world:
        with pytest.raises(StaleCommand):
            await world.agents["a"].carry_out(Command(Act.FREEZE, VM, 99))
        with pytest.raises(StaleCommand):
            await world.agents["a"].carry_out(Command(Act.FREEZE, "vm-2", 1))
        assert {"a": SetState.ACTIVE} == await world.states()


async def test_a_vm_that_is_not_there() -> None:
    """It can't be frozen; there is nothing to activate, thaw, leave or discard."""
    async with open_world() as world:
        for act in (Act.FREEZE, Act.EXPORT):
            with pytest.raises(UnknownVm):
                await tell(world, "b", act)
        for act in (Act.ACTIVATE, Act.THAW, Act.LEAVE, Act.DISCARD):
            assert None is await tell(world, "b", act)


async def test_commands_of_a_vm_come_one_after_the_other() -> None:
    """A second one waits for the first; those of a newer record end a freeze that hangs."""
    async with open_world() as world:
        vm = world.hosts["a"].vms[VM]
        await vm.program(DEVICE, 100)
        transfer = await vm.submit(DEVICE, 100)
        refused = []

        async def freeze() -> None:
            with pytest.raises(StaleCommand):
                await tell(world, "a", Act.FREEZE)
            refused.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(freeze)
            await anyio.wait_all_tasks_blocked()
            key = vm_key(VM)
            found, _ = await world.store.get(key)
            await world.store.txn({}, {key: found[key].value})
            await tell(world, "a", Act.THAW)
        assert [True] == refused
        await world.hosts["a"].complete(DEVICE, transfer)
        assert "a" == await world.check()


@define(eq=False)
class LateStore(MemoryStore):
    """A store of which one answer, when it is told so, is late."""

    late: bool = False
    there: anyio.Event = field(factory=anyio.Event)

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        answer = await MemoryStore.get(self, prefix)
        if self.late:
            self.late = False
            await self.there.wait()
        return answer


async def test_who_came_during_a_freeze_waits_for_what_came_after_it() -> None:
    """One whose record was looked at while a freeze ended is not carried out beside the next."""
    async with open_world() as world, anyio.create_task_group() as tasks:
        host, store = world.hosts["a"], LateStore()
        revision = await store.txn({}, {vm_key(VM): b"a record"})
        assert revision is not None
        agent = HostAgent("a", store, host)
        vm = host.vms[VM]

        async def hang_in_a_freeze() -> int:
            await vm.program(DEVICE, 100)
            transfer = await vm.submit(DEVICE, 100)
            tasks.start_soon(agent.carry_out, Command(Act.FREEZE, VM, revision))
            await anyio.wait_all_tasks_blocked()
            return transfer

        transfer = await hang_in_a_freeze()
        store.late = True
        tasks.start_soon(agent.carry_out, Command(Act.THAW, VM, revision))
        await anyio.wait_all_tasks_blocked()
        await host.complete(DEVICE, transfer)
        await anyio.wait_all_tasks_blocked()
        await vm.run()
        transfer = await hang_in_a_freeze()
        store.there.set()
        await anyio.wait_all_tasks_blocked()
        assert {"a": SetState.FROZEN} == await world.states()
        await host.complete(DEVICE, transfer)
        await anyio.wait_all_tasks_blocked()
        assert {"a": SetState.ACTIVE} == await world.states()
