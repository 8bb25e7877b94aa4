"""One asker's way to an actor; fairness and forsaken answers are in `test_actor`."""

from typing import Any

import anyio
import pytest

from ioasid.actors import Actor, ActorStopped, Client, open_allocator
from ioasid.core import MalformedMessage, Message

pytestmark = pytest.mark.anyio


class Count(Message, frozen=True):
    """Answer how many came before."""


class Counter(Actor):
    """Counts what it is asked."""

    counted = 0

    async def on_request(self, message: Message) -> Any:
        """Count."""
        if not isinstance(message, Count):
            return await super().on_request(message)
        self.counted += 1
        return self.counted - 1


async def test_clients_ask_and_tell_in_their_order() -> None:
    """What one client sends is handled in its order, and refusals are raised to who asks."""
    counter = Counter("counter")
    async with open_allocator(capacity=16) as host, anyio.create_task_group() as tasks:
        await tasks.start(counter.run, host)
        one, two = counter.client(), counter.client()
        assert isinstance(one, Client)
        one.tell(Count())
        assert [1, 2, 3] == [await each.ask(Count()) for each in (one, two, counter)]
        with pytest.raises(MalformedMessage):
            await two.ask("count")  # type: ignore[arg-type]
        counter.stop()
        await counter.ended.wait()
        one.tell(Count())
        with pytest.raises(ActorStopped, match="was stopped"):
            await one.ask(Count())
        with pytest.raises(ActorStopped, match="was stopped"):
            await counter.client().ask(Count())
