"""What is seen of an actor, and where it is crashed."""

import pytest

from ioasid.actors import Actor, PlantedFault, Step, open_allocator
from ioasid.core import MalformedMessage, Message

pytestmark = pytest.mark.anyio


class Poke(Message, frozen=True):
    """Something that nobody knows."""


async def test_a_fault_is_planted_after_the_taps_saw_the_step() -> None:
    """What a fault raises is the cause of the crash, and the taps know where it was."""
    import anyio

    seen: list[object] = []

    def fault(step: Step) -> None:
        if len(seen) == 1:
            raise ZeroDivisionError("planted")

    actor = Actor("idle", taps=[seen.append], fault=fault, restart_wait=0)
    async with open_allocator(capacity=16) as host, anyio.create_task_group() as tasks:
        await tasks.start(actor.run, host)
        with pytest.raises(Exception, match="crashed") as caught:
            await actor.ask(Poke())
        cause = caught.value.__cause__
        assert isinstance(cause, PlantedFault)
        assert isinstance(cause.__cause__, ZeroDivisionError)
        with pytest.raises(MalformedMessage):
            await actor.ask(Poke())
        assert [Step("idle", Poke()), Step("idle", Poke())] == seen
        actor.stop()
        await actor.ended.wait()
