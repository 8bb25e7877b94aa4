"""Moves by coordinators that die, hosts that don't answer and a store that is gone."""

from typing import Any

import anyio
import pytest
from attrs import define

from ioasid.actors import VmExport
from ioasid.core import InvalidArgument, SetState, UnknownToken
from ioasid.fleet import (
    Act,
    Agent,
    Command,
    Coordinator,
    HostUnreachable,
    MoveAborted,
    MoveUnderWay,
    Phase,
    StoreUnavailable,
    UnknownVm,
    UnreadableRecord,
    VmRecord,
    decode_record,
    encode_record,
)
from tests.fleet.worlds import VM, CoordinatorDied, Faults, One, SmallStore, open_world

pytestmark = pytest.mark.anyio
LOST = (CoordinatorDied, HostUnreachable, StoreUnavailable)


async def test_a_vm_moves_there_and_back() -> None:
    """It runs where it was told to, and its record counts."""
    async with open_world() as world:
        coordinator = world.coordinator()
        await coordinator.move(VM, "b")
        assert "b" == await world.check()
        await coordinator.move(VM, "b")
        await coordinator.move(VM, "a")
        assert "a" == await world.check()
        assert VmRecord(VM, Phase.OWNED, "a", epoch=2) == await coordinator.where(VM)


async def test_a_refusal_aborts() -> None:
    """A target that has no room leaves the VM where it is, and says why."""
    async with open_world() as world:
        await world.hosts["b"].allocator.reserve_capacity(None)
        with pytest.raises(MoveAborted, match="ENOSPC"):
            await world.coordinator().move(VM, "b")
        assert "a" == await world.check()
        with pytest.raises(UnknownVm):
            await world.coordinator().move("vm-2", "b")


async def test_what_is_under_way_is_finished_or_aborted_first() -> None:
    """Nobody begins a second move, and anybody ends the first."""
    async with open_world() as world:
        first, second = world.coordinator(), world.coordinator()
        await first.begin(VM, "b")
        with pytest.raises(MoveUnderWay):
            await second.begin(VM, "b")
        with pytest.raises(MoveUnderWay):
            await second.own(VM, "b")
        record = await second.abort(VM, "changed my mind")
        assert ("a", "changed my mind") == (record.host, record.reason)
        assert "a" == await world.check()
        assert "a" == (await first.finish(VM)).host


async def test_what_is_freed_while_it_is_frozen_aborts_the_move() -> None:
    """An export that is void is not what runs somewhere."""
    async with open_world() as world:
        await world.coordinator().begin(VM, "b")
        host = world.hosts["a"]

        @define
        class Freeing:
            """Frees an ID at the source when the target has made the set."""

            agent: Agent

            async def carry_out(self, command: Command) -> VmExport | None:
                answer = await self.agent.carry_out(command)
                if command.act is Act.IMPORT:
                    await host.vms[VM].free(1)
                return answer

        agents = {name: Freeing(each) for name, each in world.agents.items()}
        coordinator = Coordinator(world.store, agents.__getitem__)
        record = await coordinator.finish(VM)
        assert ("a", Phase.OWNED) == (record.host, record.phase)
        assert "freed" in record.reason
        assert {"a": SetState.ACTIVE} == await world.states()


STEPS = ("PREPARE", "FREEZE", "FROZEN", "IMPORT", "EXPORT", "MOVED", "ACTIVATE", "LEAVE", "OWNED")
"""What a move is made of, in order: what is written, and what hosts are told."""
DEPTHS = (1, 5, 20)
"""How far an agent comes in what it dies in, in steps of the event loop."""


async def passed() -> list[str]:
    """The points that a move passes."""
    async with open_world() as world:
        faults = Faults()
        await world.coordinator(faults).move(VM, "b")
        return faults.passed


POINTS = anyio.run(passed)


def test_every_step_has_every_point() -> None:
    """Whoever has a part in a step can break before it, in it, after it and when it is told."""
    expected = {"store before get"}
    for step in STEPS:
        if step in ("PREPARE", "FROZEN", "MOVED", "OWNED"):
            who = ["coordinator before", "store before", "store persisted", "coordinator answered"]
        else:
            side = "target" if step in ("IMPORT", "ACTIVATE") else "source"
            who = [f"coordinator {each}" for each in ("before", "sent", "answered")]
            who += [f"{side} {each}" for each in ("before", "applied", "done")]
        expected |= {f"{each} {step}" for each in who}
    assert expected == set(POINTS)
    assert [each for each in STEPS if each not in ("PREPARE", "FROZEN", "MOVED", "OWNED")] == [
        each.split()[2] for each in POINTS if " sent " in each
    ]


@pytest.mark.parametrize("end", ["finish", "abort"])
async def test_anybody_ends_what_broke_anywhere(end: str, anyio_backend_name: str) -> None:
    """After a fault at any point, another coordinator ends the move: one copy runs, whole."""
    if anyio_backend_name != "asyncio":
        pytest.skip("the protocol is the same on every backend, and there are many points")
    for at, point in enumerate(POINTS, 1):
        for depth in DEPTHS if " applied " in point else DEPTHS[:1]:
            async with open_world() as world:
                with pytest.raises(LOST):
                    await world.coordinator(One(at, depth)).move(VM, "b")
                states = list((await world.states()).values())
                assert states.count(SetState.ACTIVE) <= 1, point
                other = world.coordinator()
                record = await (other.finish(VM) if end == "finish" else other.abort(VM))
                assert Phase.OWNED is record.phase
                assert record.host == await world.check(), point
                begun = at > POINTS.index("store before PREPARE") + 1
                assert end == "abort" or (record.host == "b") == begun, point


async def test_a_device_that_hangs_does_not_hold_an_abort_up() -> None:
    """The source is thawed though its device never finished what the freeze waits for."""
    async with open_world() as world:
        vm = world.hosts["a"].vms[VM]
        await vm.program("dsa0", 100)
        transfer = await vm.submit("dsa0", 100)
        async with anyio.create_task_group() as tasks:

            async def move() -> None:
                with pytest.raises(MoveAborted):
                    await world.coordinator().move(VM, "b")

            tasks.start_soon(move)
            await anyio.wait_all_tasks_blocked()
            assert Phase.PREPARE is (await world.coordinator().where(VM)).phase
            with anyio.fail_after(5):
                await world.coordinator().abort(VM)
        await world.hosts["a"].complete("dsa0", transfer)
        assert "a" == await world.check()


def test_a_record_crosses_the_store() -> None:
    """What comes back is the same."""
    record = VmRecord("vm", Phase.ABORT, "a", "b", 7, None, "why")
    assert record == decode_record(encode_record(record))


async def test_a_vm_that_ended_at_the_source_stays_gone() -> None:
    """Its move is aborted, and nothing of it is anywhere."""
    async with open_world() as world:
        await world.hosts["a"].vms[VM].close()
        with pytest.raises(MoveAborted):
            await world.coordinator().move(VM, "b")
        assert {} == await world.states()
        with pytest.raises(UnknownToken):
            await world.hosts["a"].allocator.find_set(VM)


async def test_a_vm_that_ended_at_the_target_ends_its_move() -> None:
    """It was the target's already when it ended, before it ran there: the source lets go of it."""
    async with open_world() as world:

        @define
        class Ending:
            """Ends the VM before it is activated."""

            agent: Agent

            async def carry_out(self, command: Command) -> VmExport | None:
                if command.act is Act.ACTIVATE:
                    await world.hosts["b"].vms[VM].close()
                return await self.agent.carry_out(command)

        agents = {name: Ending(each) for name, each in world.agents.items()}
        await Coordinator(world.store, agents.__getitem__).move(VM, "b")
        record = await world.coordinator().where(VM)
        assert ("b", Phase.OWNED) == (record.host, record.phase)
        await anyio.wait_all_tasks_blocked()
        assert {} == await world.states()


async def test_a_host_that_does_not_answer_keeps_its_vm() -> None:
    """Its move is neither finished nor aborted until it answers: it may run all the time."""
    async with open_world() as world:

        class Gone:
            """An agent that nobody reaches."""

            async def carry_out(self, command: Command) -> VmExport | None:
                raise HostUnreachable("a")

        gone: dict[str, Agent] = {"a": Gone(), "b": world.agents["b"]}
        without = Coordinator(world.store, gone.__getitem__)
        with pytest.raises(HostUnreachable):
            await without.move(VM, "b")
        with pytest.raises(HostUnreachable):
            await without.finish(VM)
        with pytest.raises(HostUnreachable):
            await without.abort(VM)
        assert {"a": SetState.ACTIVE} == await world.states()
        record = await world.coordinator().finish(VM)
        assert ("a", Phase.OWNED) == (record.host, record.phase)
        assert "a" == await world.check()


async def test_a_vm_that_is_too_large_for_the_store_stays() -> None:
    """Its export does not fit, which aborts its move, and it goes on where it was."""
    async with open_world() as world:
        coordinator = Coordinator(SmallStore(world), world.agents.__getitem__)
        with pytest.raises(MoveAborted, match="does not take so much at once: so much; let it"):
            await coordinator.move(VM, "b")
        assert "a" == await world.check()


NO_NAME = ["", "x" * 256, "\udcff", 7, None]


@pytest.mark.parametrize("name", NO_NAME, ids=lambda each: ascii(each)[:9])
async def test_what_can_be_no_name_is_refused(name: Any) -> None:
    """Of a VM or of a host, by every method, and nothing is changed."""
    async with open_world() as world:
        coordinator, before = world.coordinator(), await world.store.get("")
        for method in (coordinator.where, coordinator.finish, coordinator.abort):
            with pytest.raises(InvalidArgument):
                await method(name)
        for asked in ((name, "b"), (VM, name)):
            for between in (coordinator.move, coordinator.begin, coordinator.own):
                with pytest.raises(InvalidArgument):
                    await between(*asked)
        with pytest.raises(InvalidArgument, match="without a slash"):
            await coordinator.move(VM, "a/b")
        assert before == await world.store.get("")


@pytest.mark.parametrize("reason", ["", 7, None])
async def test_an_abort_has_a_reason(reason: Any) -> None:
    """Without one nothing is done; the move is not finished in place of that."""
    async with open_world() as world:
        await world.coordinator().begin(VM, "b")
        with pytest.raises(InvalidArgument, match="reason is"):
            await world.coordinator().abort(VM, reason)
        assert Phase.PREPARE is (await world.coordinator().where(VM)).phase


async def test_a_record_of_something_else() -> None:
    """It is named, and stays."""
    async with open_world() as world:
        await world.store.txn({}, {"vm/x": b"\xc1"})
        with pytest.raises(UnreadableRecord, match="'vm/x' is no record of a fleet"):
            await world.coordinator().where("x")
        assert b"\xc1" == (await world.store.get("vm/x"))[0]["vm/x"].value
