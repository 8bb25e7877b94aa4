"""What tells queues that it keeps itself: broadcaster and aiopubsub."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiopubsub
import broadcaster

from benchmarks.peers.peer import Got, Peer, Publish, reading


@asynccontextmanager
async def telling_by_broadcaster(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    async with broadcaster.Broadcast("memory://") as bus, AsyncExitStack() as stack:
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


@asynccontextmanager
async def telling_by_aiopubsub(groups: int, size: int, got: Got) -> AsyncIterator[Publish]:
    hub = aiopubsub.Hub()
    publisher = aiopubsub.Publisher(hub, prefix=aiopubsub.Key("groups"))
    keys = [aiopubsub.Key(str(group)) for group in range(groups)]
    subscribers = [aiopubsub.Subscriber(hub, str(number)) for number in range(groups * size)]
    for number, subscriber in enumerate(subscribers):
        subscriber.async_subscribe(aiopubsub.Key("groups") + keys[number // size])

    def told(number: int, keyed: tuple[Any, int]) -> None:
        got(number, keyed[1])

    async def publish(group: int, message: int) -> None:
        publisher.publish(keys[group], message)

    # Faster than a listener, which makes a task of every message.
    async with reading([subscriber.consume for subscriber in subscribers], told):
        yield publish


BROADCASTER = Peer("broadcaster", telling=telling_by_broadcaster)
AIOPUBSUB = Peer("aiopubsub", telling=telling_by_aiopubsub)
