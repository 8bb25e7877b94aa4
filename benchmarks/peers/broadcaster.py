"""broadcaster, in memory: one task takes what is published and puts it into the queues."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from broadcaster import Broadcast

from benchmarks.peers.peer import Got, Peer, Publish, reading


@asynccontextmanager
async def telling(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    async with Broadcast("memory://") as bus, AsyncExitStack() as stack:
        subscribers = [
            await stack.enter_async_context(bus.subscribe(channel=f"group-{number // size}"))
            for number in range(groups * size)
        ]

        def told(number: int, event: Any) -> None:
            got(number, event.message)

        async def publish(group: int, message: int) -> None:
            await bus.publish(f"group-{group}", message)

        async with reading([subscriber.get for subscriber in subscribers], told):
            yield publish


PEER = Peer("broadcaster", telling=telling)
