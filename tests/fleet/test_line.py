"""The line from a coordinator to an agent, through the store."""

from functools import partial

import anyio
import pytest
from attrs import define
from msgspec import msgpack

from ioasid.core import SetState
from ioasid.fleet import (
    Act,
    Command,
    Coordinator,
    Found,
    HostRecord,
    HostUnreachable,
    MemoryStore,
    MoveAborted,
    StaleCommand,
    StoreLine,
    UnknownVm,
    announce,
    serving_agent,
    vm_key,
)
from tests.fleet.worlds import DEVICE, VM, SmallStore, World, open_world

pytestmark = pytest.mark.anyio


def coordinator(world: World) -> Coordinator:
    """A coordinator that reaches hosts by the store alone."""
    return Coordinator(world.store, partial(StoreLine, world.store))


async def left(world: World) -> list[str]:
    """What was asked or answered and is still in the store."""
    found, _ = await world.store.get("")
    return [each for each in found if each.startswith(("ask/", "answer/"))]


async def test_a_vm_moves_by_the_store_alone() -> None:
    """Commands arrive, exports come back, and nothing of either is left."""
    async with open_world() as world, anyio.create_task_group() as tasks:
        for name in world.hosts:
            await tasks.start(host_of, world, name)
        await coordinator(world).move(VM, "b")
        assert "b" == await world.check()
        assert [] == await left(world)
        with pytest.raises(UnknownVm, match="'vm-7'"):
            await coordinator(world).move("vm-7", "b")
        await world.hosts["a"].allocator.reserve_capacity(None)
        with pytest.raises(MoveAborted, match="ENOSPC"):
            await coordinator(world).move(VM, "a")
        with pytest.raises(StaleCommand):
            await StoreLine(world.store, "b").carry_out(Command(Act.FREEZE, VM, 1))
        tasks.cancel_scope.cancel()


async def host_of(
    world: World, name: str, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """Serve a host until cancelled."""
    async with announce(world.store, name), serving_agent(world.store, name, world.agents[name]):
        await anyio.wait_all_tasks_blocked()
        task_status.started()
        await anyio.sleep_forever()


async def test_a_host_that_is_not_alive_is_not_waited_for() -> None:
    """Neither one that never was, nor one that goes while it is asked."""
    async with open_world() as world:
        with pytest.raises(HostUnreachable):
            await coordinator(world).move(VM, "b")
        lease = await world.store.lease(100)
        await world.store.txn({}, {"host/a": msgpack.encode(HostRecord("a"))}, lease)
        failed = []

        async def finish() -> None:
            with pytest.raises(HostUnreachable):
                await coordinator(world).finish(VM)
            failed.append(True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(finish)
            await anyio.wait_all_tasks_blocked()
            assert 1 == len(await left(world))
            await lease.end()
        assert [True] == failed
        assert [] == await left(world)
        assert {"a": SetState.ACTIVE} == await world.states()


@define(eq=False)
class Leaving(MemoryStore):
    """A store of which a host is gone as soon as it was seen to be alive."""

    async def get(self, prefix: str) -> tuple[dict[str, Found], int]:
        answer = await MemoryStore.get(self, prefix)
        if "host/a" in answer[0]:
            await self.txn({}, {"host/a": None})
        return answer


async def test_a_host_that_goes_before_it_is_asked_is_not_waited_for() -> None:
    """Also if it was alive when that was looked at."""
    store = Leaving()
    await store.txn({}, {"host/a": msgpack.encode(HostRecord("a"))})
    with pytest.raises(HostUnreachable), anyio.fail_after(5):
        await StoreLine(store, "a").carry_out(Command(Act.FREEZE, VM, 1))


async def test_what_nobody_waits_for_any_more_is_called_off() -> None:
    """A coordinator that is gone takes its command along; another one goes on."""
    async with open_world() as world, anyio.create_task_group() as tasks:
        for name in world.hosts:
            await tasks.start(host_of, world, name)
        vm = world.hosts["a"].vms[VM]
        await vm.program(DEVICE, 100)
        transfer = await vm.submit(DEVICE, 100)
        async with anyio.create_task_group() as moving:
            moving.start_soon(coordinator(world).move, VM, "b")
            await anyio.wait_all_tasks_blocked()
            assert {"a": SetState.FROZEN} == await world.states()
            moving.cancel_scope.cancel()
        assert [] == await left(world)
        record = await coordinator(world).abort(VM)
        assert "a" == record.host
        await world.hosts["a"].complete(DEVICE, transfer)
        assert "a" == await world.check()
        tasks.cancel_scope.cancel()


async def test_what_was_asked_before_is_carried_out() -> None:
    """An agent that begins, or begins again, finds what waits for it."""
    async with open_world() as world, anyio.create_task_group() as tasks:
        lease = await world.store.lease(100)
        await world.store.txn({}, {"host/a": msgpack.encode(HostRecord("a"))}, lease)
        found, _ = await world.store.get(vm_key(VM))
        command = Command(Act.FREEZE, VM, found[vm_key(VM)].revision)
        answers = []

        async def ask() -> None:
            answers.append(await StoreLine(world.store, "a").carry_out(command))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert 1 == len(await left(world))
            await tasks.start(host_of, world, "a")
        assert {"a": SetState.FROZEN} == await world.states()
        assert [await world.hosts["a"].vms[VM].export()] == answers
        await world.hosts["a"].vms[VM].run()
        tasks.cancel_scope.cancel()


async def test_an_answer_that_is_too_large_is_a_refusal() -> None:
    """Whoever asked is told, and the host goes on serving."""
    async with open_world() as world, anyio.create_task_group() as tasks:

        async def serve() -> None:
            small = serving_agent(SmallStore(world), "a", world.agents["a"])
            async with announce(world.store, "a"), small:
                await anyio.sleep_forever()

        tasks.start_soon(serve)
        await tasks.start(host_of, world, "b")
        with pytest.raises(MoveAborted, match="EMSGSIZE: the store does not take so much"):
            await coordinator(world).move(VM, "b")
        assert "a" == await world.check()
        assert [] == await left(world)
        tasks.cancel_scope.cancel()
